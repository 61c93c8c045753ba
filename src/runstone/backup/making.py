"""Making a backup: packs of what changed, content that is not there yet, and last the snapshot that names them.

What a backup holds is never changed, so a kill at any moment leaves every snapshot before as it was, and what was
sent already is not sent again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from runstone.backup.packing import copy_unit, is_steady, pack, signature_of, units_of
from runstone.backup.places import Place
from runstone.backup.snapshot import (
    FOLDER,
    Snapshot,
    Unit,
    blob_name,
    list_snapshots,
    pack_name,
    read_snapshot,
    write_snapshot,
)
from runstone.blobs import open_blobs
from runstone.blobs import recipe as recipes
from runstone.blobs.source import hash_of
from runstone.errors import FormatError, InvalidValue, NotFound, RunNotFound
from runstone.runlog.liveness import read_status

_AT_ONCE = 4


@dataclass(slots=True)
class Backup:
    """What a backup did.

    Attributes:
        snapshot: What it made.
        sent, sent_bytes: Files that were sent.
        there_already: Files that were there.
        unchanged: Parts of the workspace that were not even read.
        removed, removed_bytes: Files of the backup that no snapshot needs any more.
        troubles: What could not be copied, in words.
    """

    snapshot: Snapshot
    sent: int = 0
    sent_bytes: int = 0
    there_already: int = 0
    unchanged: int = 0
    removed: int = 0
    removed_bytes: int = 0
    troubles: list[str] = field(default_factory=list)


def make_backup(
    workspace: Path, place: Place, *, keep: int | None = None, clock: Callable[[], float] = time.time
) -> Backup:
    """Copy a workspace into a backup; only what is not there yet is sent.

    Runs may be written meanwhile: of each, what a reader could have seen at one moment is taken.

    Args:
        workspace: Its folder.
        place: Where to.
        keep: So many snapshots stay, the newest; default: all.
        clock: Seconds since the epoch.

    Raises:
        AlreadyExists: another backup to the same folder is running.
        InvalidValue: `keep` is less than 1.
        OSError: the place does not answer, or a disk is full. The snapshots before are as they were.
    """
    if keep is not None and keep < 1:
        raise InvalidValue(f"keep is {keep}; at least the newest snapshot stays: 1 or more")
    with place.alone(), tempfile.TemporaryDirectory(prefix="runstone-") as scratch:
        making = _Making(workspace, place, Path(scratch))
        at = clock()
        units = list(making.units())
        blobs = making.blobs()  # after the runs: what they refer to was stored before they said so
        source = f"{os.uname().nodename}:{workspace}"
        snapshot = write_snapshot(place, at, source, units, blobs)
        result = making.result(snapshot)
        if keep is not None:
            _thin_out(place, keep, result)
        return result


class _Making:
    def __init__(self, workspace: Path, place: Place, scratch: Path) -> None:
        self._workspace = workspace
        self._place = place
        self._scratch = scratch
        self._troubles: list[str] = []
        self._there = place.sizes("packs") | place.sizes("blobs")
        self._known = {unit.folder: unit for unit in _newest(place)}
        self._sent = self._sent_bytes = self._already = self._unchanged = 0

    def units(self) -> Iterator[Unit]:
        """Send the parts of the workspace that are not there, and yield all."""
        for number, folder in enumerate(units_of(self._workspace)):
            known = self._known.get(folder)
            signature = signature_of(self._workspace, folder)
            if (
                known is not None
                and signature
                and signature == known.signature
                and self._there.get(pack_name(known.pack)) == known.size_bytes
            ):
                self._unchanged += 1
                yield known
                continue
            copy, packed = self._scratch / str(number), self._scratch / f"{number}.pack"
            try:
                is_sure = is_steady(self._workspace, folder)
                copy_unit(self._workspace, folder, copy)
            except RunNotFound:
                continue  # it was removed meanwhile, or is none
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (PermissionError, FormatError) as error:
                self._troubles.append(f"{folder}: {error}")
                continue
            self._tell_of_spill(folder, copy)
            pack(copy, packed)
            with packed.open("rb", buffering=0) as file:
                content = hash_of(file.fileno())
            self._send(packed, pack_name(content), content)
            size = packed.stat().st_size
            shutil.rmtree(copy)
            packed.unlink()
            is_sure = is_sure and signature == signature_of(self._workspace, folder)
            yield Unit(folder, content, size, signature if is_sure else "")

    def blobs(self) -> dict[str, int]:
        """Send the files of the store that are not there, and return all; recipes after their parts."""
        store = open_blobs(self._workspace)
        found = {name: status.st_size for name, status in store.objects()}
        sent: dict[str, int] = {}
        with ThreadPoolExecutor(_AT_ONCE, "runstone-backup") as pool:
            for is_recipe in (False, True):
                waiting: dict[str, Future[None]] = {}
                for name, size in found.items():
                    if name.endswith(recipes.ENDING) is not is_recipe:
                        continue
                    if self._there.get(blob_name(name)) == size:
                        self._already += 1
                        sent[name] = size
                        continue
                    content = None if is_recipe else name
                    waiting[name] = pool.submit(
                        self._place.send, store.object_path(name), blob_name(name), content_hash=content
                    )
                try:
                    for name, future in waiting.items():
                        if self._is_sent(future):
                            sent[name] = found[name]
                            self._count(found[name])
                except BaseException:
                    for future in waiting.values():
                        future.cancel()
                    raise
        return sent

    def result(self, snapshot: Snapshot) -> Backup:
        """Return what was done."""
        return Backup(snapshot, self._sent, self._sent_bytes, self._already, self._unchanged, troubles=self._troubles)

    def _is_sent(self, future: Future[None]) -> bool:
        try:
            future.result()
        except FileNotFoundError:
            return False  # collected meanwhile: nothing referred to it
        except FormatError as error:
            self._troubles.append(str(error))
            return False
        return True

    def _send(self, path: Path, name: str, content: str) -> None:
        size = path.stat().st_size
        if self._there.get(name) == size:
            self._already += 1
            return
        self._place.send(path, name, content_hash=content)
        self._there[name] = size
        self._count(size)

    def _count(self, size: int) -> None:
        self._sent, self._sent_bytes = self._sent + 1, self._sent_bytes + size

    def _tell_of_spill(self, folder: str, copy: Path) -> None:
        for path in copy.glob("*.status") if folder.startswith("runs/") else ():
            status = read_status(path)
            if status is not None and status.is_spilled:
                self._troubles.append(
                    f"{folder}: points of it wait on another disk of its host, since this one is full; "
                    "they are not in the backup"
                )
                return


def _newest(place: Place) -> Iterable[Unit]:
    """Return the parts in the newest snapshot that can be read; it is a help, not needed."""
    for name in reversed(list_snapshots(place)):
        try:
            return read_snapshot(place, name).units
        except (FormatError, NotFound):
            continue
    return ()


def _thin_out(place: Place, keep: int, result: Backup) -> None:
    """Remove old snapshots, then what no snapshot needs: a kill between leaves too much, never too little."""
    names = list_snapshots(place)
    needed: set[str] = set()
    for name in names[-keep:]:
        try:
            needed |= set(read_snapshot(place, name).files)
        except (FormatError, NotFound) as error:
            result.troubles.append(f"nothing was removed: {error}")
            return
    for name in names[:-keep]:
        place.remove(f"{FOLDER}/{name}.json")
    there = place.sizes("packs") | place.sizes("blobs")
    unneeded = sorted(set(there) - needed, key=lambda name: (not name.endswith(recipes.ENDING), name))
    for name in unneeded:
        place.remove(name)
        result.removed, result.removed_bytes = result.removed + 1, result.removed_bytes + there[name]
