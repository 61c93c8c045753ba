"""What a backup holds of one moment: which packs make up the workspace, and which files of its store it needs."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone._version import __version__
from runstone.backup.places import Place, read_whole
from runstone.blobs import recipe as recipes
from runstone.blobs.intake import hash_of_bytes
from runstone.blobs.objects import is_hash
from runstone.bundle.manifest import check_path
from runstone.errors import FormatError, NotFound

FORMAT = 1
FOLDER = "snapshots"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{16}")
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a workspace that is kept as one pack: the folder of a run, a model, a sweep; files of one folder.

    Attributes:
        folder: Where it lies in the workspace, POSIX; `.` for the files at its top.
        pack: Hash of the pack that holds its files.
        size_bytes: Of the pack.
        signature: What names, sizes and times of its files hashed to; empty where that does not tell whether they
            changed since.
    """

    folder: str
    pack: str
    size_bytes: int
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace at one moment.

    Attributes:
        name: Its time and hash; sorts by time.
        at: Seconds since the epoch, UTC, when it was begun.
        source: Host and folder of the workspace.
        units: Its parts.
        blobs: Files of its store by name, with their sizes.
    """

    name: str
    at: float
    source: str
    units: tuple[Unit, ...]
    blobs: dict[str, int]

    @property
    def runs(self) -> int:
        """How many runs it holds."""
        return sum(unit.folder.startswith("runs/") for unit in self.units)

    @property
    def size_bytes(self) -> int:
        """Of all that it needs."""
        return sum(unit.size_bytes for unit in self.units) + sum(self.blobs.values())

    @property
    def files(self) -> dict[str, int]:
        """Names of the files of the backup that it needs, with their sizes."""
        packs = {pack_name(unit.pack): unit.size_bytes for unit in self.units}
        return packs | {blob_name(name): size for name, size in self.blobs.items()}


def pack_name(content: str) -> str:
    """Return where a pack lies in a backup."""
    return f"packs/{content[:2]}/{content}"


def blob_name(name: str) -> str:
    """Return where a file of the store lies in a backup."""
    return f"blobs/{name[:2]}/{name}"


def write_snapshot(place: Place, at: float, source: str, units: list[Unit], blobs: dict[str, int]) -> Snapshot:
    """Put a snapshot into a backup, when all that it needs is there."""
    told = {
        "format": FORMAT,
        "kind": "snapshot",
        "at": at,
        "source": source,
        "runstone": __version__,
        "units": [[unit.folder, unit.pack, unit.size_bytes, unit.signature] for unit in units],
        "blobs": sorted(blobs.items()),
    }
    data = json.dumps(told, separators=(",", ":")).encode() + b"\n"
    content = hash_of_bytes(data)
    name = f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%S.%fZ}-{content[:16]}"
    with tempfile.TemporaryDirectory(prefix="runstone-") as scratch:
        path = Path(scratch) / name
        path.write_bytes(data)
        place.send(path, f"{FOLDER}/{name}.json", content_hash=content)
    return Snapshot(name, at, source, tuple(units), blobs)


def list_snapshots(place: Place) -> list[str]:
    """Return the names of the snapshots of a backup, oldest first."""
    found = (name.removeprefix(f"{FOLDER}/").removesuffix(".json") for name in place.sizes(FOLDER))
    return sorted(name for name in found if _NAME.fullmatch(name))


def find_snapshot(place: Place, name: str | None = None) -> Snapshot:
    """Return a snapshot of a backup.

    Args:
        place: The backup.
        name: Its name, or the beginning of it; default: the newest.

    Raises:
        NotFound: there is no such snapshot, or no backup.
        FormatError: it is damaged, or of a newer version.
    """
    names = list_snapshots(place)
    if not names:
        raise NotFound(f"there is no backup in {place}")
    fitting = [one for one in names if name is None or one.startswith(name)]
    if not fitting:
        raise NotFound(f"{place} has no snapshot {name!r:.60}; there are {', '.join(names[-5:])}")
    return read_snapshot(place, fitting[-1])


def read_snapshot(place: Place, name: str) -> Snapshot:
    """Return the snapshot of this very name.

    Raises:
        NotFound, FormatError: as `find_snapshot` does.
    """
    where = f"the snapshot {name} in {place}"
    data = read_whole(place, f"{FOLDER}/{name}.json", most=_MOST_BYTES)
    if not name.endswith(f"-{hash_of_bytes(data)[:16]}"):
        raise FormatError(f"{where} is damaged: its bytes are not those of its name")
    try:
        told = json.loads(data)
        if told["format"] != FORMAT or told["kind"] != "snapshot":
            raise FormatError(
                f"{where} has format {told['format']!r:.20}; this version knows {FORMAT}: upgrade runstone"
            )
        units = tuple(_unit(*one) for one in told["units"])
        blobs = {_blob(one): _size(size) for one, size in told["blobs"]}
        return Snapshot(name, float(told["at"]), str(told["source"]), units, blobs)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{where} is damaged or not legal: {error}") from None


def _unit(folder: Any, pack: Any, size: Any, signature: Any) -> Unit:
    if not is_hash(pack):
        raise ValueError(f"{pack!r:.80} is no hash")
    return Unit(check_path(str(folder)), str(pack), _size(size), str(signature))


def _blob(name: Any) -> str:
    if not is_hash(str(name).removesuffix(recipes.ENDING)):
        raise ValueError(f"{name!r:.80} is no file of a store")
    return str(name)


def _size(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r:.40} is no size in bytes")
    return number
