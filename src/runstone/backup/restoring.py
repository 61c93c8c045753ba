"""A workspace from a backup. It is none until all of it is there; what was broken off is gone on with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runstone.backup.packing import unpack
from runstone.backup.places import Place, receive
from runstone.backup.snapshot import Snapshot, Unit, blob_name, find_snapshot, pack_name
from runstone.blobs import recipe as recipes
from runstone.blobs.objects import READ_ONLY
from runstone.blobs.partial import Partial, dead_partials, sync_file_system
from runstone.blobs.source import hasher_for
from runstone.bundle.archive import check_space
from runstone.errors import AlreadyExists, FormatError

_MARKER = "restore.json"
_SCRATCH = "restore.partial"


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the snapshot, and how many files and bytes came from the backup this time."""

    snapshot: Snapshot
    fetched: int
    fetched_bytes: int


def restore_backup(place: Place, target: Path, *, snapshot: str | None = None) -> Restored:
    """Make a workspace of a snapshot, every file checked by its hash.

    A restore that was broken off is gone on with by calling it again.

    Args:
        place: The backup.
        target: Folder of the new workspace; it is not there, or empty, or an unfinished restore of the same snapshot.
        snapshot: Name of the snapshot, or its beginning; default: the newest.

    Raises:
        NotFound: there is no such snapshot, or a file that it needs is gone.
        AlreadyExists: something else is in the folder.
        FormatError: the backup is damaged; nothing damaged is put in place.
        OSError: the backup does not answer, or the disk is full.
    """
    marker = target / _MARKER
    begun = _begun(target, marker)
    found = find_snapshot(place, snapshot or begun)
    if begun is not None and found.name != begun:
        raise AlreadyExists(
            f"{target} holds an unfinished restore of {begun}; go on with that one, or remove the folder"
        )
    target.mkdir(parents=True, exist_ok=True, mode=0o700)  # as a workspace is made
    if begun is None:
        check_space(target, found.size_bytes)
        with Partial(target) as partial:
            partial.write(json.dumps({"format": 1, "snapshot": found.name}).encode())
            partial.sync()
            partial.place(marker, 0o644)
    restoring = _Restoring(place, target)
    for name, size in sorted(found.blobs.items(), key=lambda item: (item[0].endswith(recipes.ENDING), item[0])):
        restoring.blob(name, size)
    for unit in found.units:
        restoring.unit(unit)
    return restoring.finish(found)


def _begun(target: Path, marker: Path) -> str | None:
    """Return the snapshot of a restore that was broken off; raises where something else is there."""
    try:
        return str(json.loads(marker.read_bytes())["snapshot"])
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (ValueError, TypeError, KeyError):
        raise FormatError(f"{marker} is damaged; remove the folder and restore again") from None
    if target.exists() and (not target.is_dir() or any(not one.name.endswith(".partial") for one in target.iterdir())):
        raise AlreadyExists(f"{target} is there already; restore into another folder, or move it away first")
    return None


class _Restoring:
    def __init__(self, place: Place, target: Path) -> None:
        self._place = place
        self._target = target
        self._blobs = target / "blobs"
        self._blobs.mkdir(exist_ok=True)
        self._scratch = target / _SCRATCH
        self._count = self._bytes = 0
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        for folder in (target, self._blobs):
            for path, _size in list(dead_partials(folder, now=0.0, grace_s=float("-inf"))):
                if path.is_file():
                    path.unlink(missing_ok=True)

    def blob(self, name: str, size: int) -> None:
        """Fetch a file of the store unless it is here; it takes its place when it was checked."""
        path = self._blobs / name[:2] / name
        if path.exists() and path.stat().st_size == size:
            return
        path.parent.mkdir(exist_ok=True)
        with Partial(self._blobs) as partial:
            if name.endswith(recipes.ENDING):
                data = b"".join(self._receive(blob_name(name), size))
                recipes.unpack(data, f"{self._place}/{blob_name(name)}")
                partial.write(data)
            else:
                self._fetch(blob_name(name), name, size, partial)
            partial.place(path, READ_ONLY)

    def unit(self, unit: Unit) -> None:
        """Fetch a part of the workspace unless it is here; it takes its place whole."""
        target = self._target / unit.folder
        is_flat = "/" not in unit.folder
        if not is_flat and target.exists():
            return
        packed, tree = self._scratch / "pack", self._scratch / "tree"
        with Partial(self._scratch) as partial:
            self._fetch(pack_name(unit.pack), unit.pack, unit.size_bytes, partial)
            partial.place(packed, 0o600)
        unpack(packed, tree, f"{self._place}/{pack_name(unit.pack)}")
        packed.unlink()
        if not is_flat:
            target.parent.mkdir(parents=True, exist_ok=True)
            tree.rename(target)
            return
        target.mkdir(exist_ok=True)
        for path in tree.iterdir():
            if unit.folder != "." or path.name != "FORMAT":  # that comes last: until then it is no workspace
                path.replace(target / path.name)
            else:
                path.replace(self._scratch / "FORMAT")
        shutil.rmtree(tree)

    def finish(self, snapshot: Snapshot) -> Restored:
        """Bring all to the disk; then it is a workspace."""
        ready = self._scratch / "FORMAT"
        if not ready.exists():
            raise FormatError(f"the snapshot {snapshot.name} in {self._place} lacks the workspace's FORMAT")
        (self._target / ".gitignore").write_text("*\n")
        fd = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not sync_file_system(fd):
                os.sync()
        finally:
            os.close(fd)
        ready.replace(self._target / "FORMAT")
        shutil.rmtree(self._scratch)
        (self._target / _MARKER).unlink()
        return Restored(snapshot, self._count, self._bytes)

    def _fetch(self, name: str, content: str, size: int, partial: Partial) -> None:
        hasher = hasher_for(size)
        for chunk in self._receive(name, size):
            hasher.update(chunk)
            partial.write(chunk)
        if hasher.hexdigest() != content:
            raise FormatError(f"{name} in {self._place} is damaged: its bytes are not those of its name")

    def _receive(self, name: str, size: int) -> Iterator[bytes]:
        yield from receive(self._place, name, size)
        self._count, self._bytes = self._count + 1, self._bytes + size
