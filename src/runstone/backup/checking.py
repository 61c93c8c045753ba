"""Reading a snapshot again and comparing every byte with its hash."""

from __future__ import annotations

from dataclasses import dataclass, field

from runstone.backup.places import Place, receive
from runstone.backup.snapshot import Snapshot, blob_name, find_snapshot, pack_name
from runstone.blobs import recipe as recipes
from runstone.blobs.source import hasher_for
from runstone.errors import FormatError, NotFound


@dataclass(slots=True)
class Check:
    """What was read, and what is not as it was written, in words."""

    snapshot: Snapshot
    files: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def check_backup(place: Place, *, snapshot: str | None = None) -> Check:
    """Read all that a snapshot needs.

    Args:
        place: The backup.
        snapshot: Its name, or the beginning of it; default: the newest.

    Raises:
        NotFound: there is no such snapshot.
        FormatError: the snapshot itself is damaged, or of a newer version.
        OSError: the place does not answer.
    """
    result = Check(find_snapshot(place, snapshot))
    packs = {pack_name(unit.pack): (unit.pack, unit.size_bytes) for unit in result.snapshot.units}
    blobs = {blob_name(name): (name, size) for name, size in result.snapshot.blobs.items()}
    for name, (content, size) in (packs | blobs).items():
        try:
            _check(place, name, content, size)
        except (FormatError, NotFound) as error:
            result.problems.append(str(error))
        result.files, result.size_bytes = result.files + 1, result.size_bytes + size
    return result


def _check(place: Place, name: str, content: str, size: int) -> None:
    if name.endswith(recipes.ENDING):
        recipes.unpack(b"".join(receive(place, name, size)), f"{place}/{name}")
        return
    hasher = hasher_for(size)
    for chunk in receive(place, name, size):
        hasher.update(chunk)
    if hasher.hexdigest() != content:
        raise FormatError(f"{name} in {place} is damaged: its bytes are not those of its name")
