"""Copying the folder of a run while it is written: the copy is what a reader could have seen at one moment.

Points are taken before the names, texts and journals that they need, so nothing in the copy is dangling; what comes
meanwhile is left for the next time. A sealing that takes logs away meanwhile makes the copy begin anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np

from runstone.errors import RunNotFound
from runstone.runlog import format as fmt
from runstone.runlog.portions import SLOT

LEGAL_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""What files of a run are called. Others are no part of it."""
_NOT_COPIED = re.compile(r"control|seal\.lock|.*\.partial")
_TRIES = 10


def copy_run(folder: Path, target: Path) -> list[str]:
    """Copy what a run recorded into a new folder and return the names of its files, in order.

    Free slots at the ends of logs are left out, and torn tails. Locks, the stop word and unfinished files are too.

    Args:
        folder: Of the run.
        target: Where to; it must not be there. Its own permissions are the caller's.

    Raises:
        RunNotFound: it is gone, or no run.
        OSError: it cannot be read, or the disk is full.
    """
    for attempt in range(_TRIES):
        target.mkdir()
        try:
            _copy(folder, target)
        except FileNotFoundError:
            shutil.rmtree(target)
            if not folder.is_dir() or attempt == _TRIES - 1:
                raise RunNotFound(f"the run in {folder} went while it was copied") from None
            continue  # its logs were sealed, or a segment that was not used was taken away
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        break
    names = sorted(os.listdir(target))  # noqa: PTH208 (names are all that is needed)
    if not any(name.startswith("journal.") for name in names):
        shutil.rmtree(target)
        raise RunNotFound(f"there is no run in {folder}")
    return names


def _copy(folder: Path, target: Path) -> None:
    for name in reversed(_names(folder)):  # later segments first: whatever came before their points is there by then
        if name.endswith(".wal"):
            _copy_segment(folder / name, target / name)
    for name in _names(folder):
        source, place = folder / name, target / name
        if name.endswith(".wal"):
            continue  # one that came since would have points whose names are not copied any more
        if name.endswith(".jsonl"):
            data = source.read_bytes()
            place.write_bytes(data[: data.rfind(b"\n") + 1])
        elif name.endswith(".keys"):
            data = source.read_bytes()
            place.write_bytes(data[: fmt.unpack_keys(data).end])
        else:
            shutil.copyfile(source, place)
        if stat.S_IMODE(source.stat().st_mode) & 0o077 == 0:
            place.chmod(0o600)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if LEGAL_FILE.fullmatch(entry.name)
            and not _NOT_COPIED.fullmatch(entry.name)
            and entry.is_file(follow_symlinks=False)
        )


def _copy_segment(source: Path, place: Path) -> None:
    """Copy a segment without what was being written meanwhile, and without free slots at its end.

    It is read three times. A file is not read at one moment: a page may be taken before a point came, the page behind
    it after a later one. So the first look says how far the copy goes; every point before that is there at the second.
    The commit word of a slot is stored last: a slot that had it at the second look is whole at the third.
    """
    first, second, data = source.read_bytes(), source.read_bytes(), bytearray(source.read_bytes())
    header = fmt.unpack_header(bytes(data[: fmt.HEADER_BYTES]))
    if header is None:
        place.write_bytes(data)  # damaged, or not begun: readers pass it over
        return
    count = max(0, min(len(first), len(second), len(data)) - fmt.HEADER_BYTES) // fmt.SLOT_BYTES
    seen, was_whole = (
        np.frombuffer(look, SLOT, count, fmt.HEADER_BYTES)["commit"] == header.salt for look in (first, second)
    )
    used = np.flatnonzero(seen)
    end = int(used[-1]) + 1 if len(used) else 0
    slots = np.frombuffer(data, SLOT, count, fmt.HEADER_BYTES)
    slots[~was_whole] = np.zeros((), SLOT)
    with place.open("wb") as file:
        file.write(memoryview(data)[: fmt.HEADER_BYTES + end * fmt.SLOT_BYTES])


def sync_tree(folder: Path) -> None:
    """Bring all files of a folder, and their names, to the disk."""
    for place, _folders, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(place, name))  # noqa: PTH118 (os.walk gives text)
        _sync(place)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems refuse it for folders
            os.fsync(fd)
    finally:
        os.close(fd)
