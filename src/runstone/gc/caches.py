"""What can be made again, or is left of what broke off: copies for those who need a file, unfinished files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs import Blobs
from runstone.blobs.partial import dead_partials

_GOING = ".going"


@dataclass(slots=True)
class Cleared:
    """Files and bytes: what writers that are gone left unfinished, and copies that nobody used lately."""

    partial_bytes: int = 0
    partial_count: int = 0
    cache_bytes: int = 0
    cache_count: int = 0


def clear(
    blobs: Blobs, *, now: float, grace_s: float, cache_grace_s: float, used: Collection[str], is_dry: bool
) -> Cleared:
    """Remove copies and unfinished files.

    Args:
        blobs: The store of the workspace.
        now: By the clock of the file system, in seconds since the Unix epoch.
        grace_s: How old what a writer left must be, where nothing else tells that it is gone.
        cache_grace_s: For how long a copy must not have been used.
        used: Hashes of versions of datasets that running processes use; their copies stay.
        is_dry: Whether it is only told what would go.
    """
    result = Cleared()
    caches = blobs.root.parent / "cache"
    incoming = caches / "incoming"
    for folder in (blobs.root, blobs.cache, incoming):
        for path, size in dead_partials(folder, now=now, grace_s=grace_s):
            result.partial_bytes, result.partial_count = result.partial_bytes + size, result.partial_count + 1
            if not is_dry:
                path.unlink(missing_ok=True)
    for path, size in _unused_files(blobs.cache, now - cache_grace_s):
        result.cache_bytes, result.cache_count = result.cache_bytes + size, result.cache_count + 1
        if not is_dry:
            path.unlink(missing_ok=True)
    # what is fetched grows; what stands still for so long was broken off
    for folder in _folders(incoming):
        if _last_change(folder, files=True) <= now - grace_s:
            _take_away(folder, result, is_dry=is_dry, is_partial=True)
    for folder in _folders(caches / "datasets"):
        is_unused = folder.name not in used and _last_change(folder, files=False) <= now - cache_grace_s
        if is_unused or folder.name.endswith(_GOING):
            _take_away(folder, result, is_dry=is_dry, is_partial=False)
    return result


def _unused_files(cache: Path, cut_off: float) -> Iterator[tuple[Path, int]]:
    for path in cache.glob("??/*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime <= cut_off:
                yield path, status.st_size


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _last_change(folder: Path, *, files: bool) -> float:
    """Return when a folder was changed last.

    Args:
        folder: The folder.
        files: Whether all files in it count; else only the folders, and the files right in it, which mark its use: a
            hard link has the times of the content in the store.
    """
    newest = 0.0
    for place, _folders_in, names in os.walk(folder):
        counted = names if files or Path(place) == folder else []
        for path in (place, *(os.path.join(place, name) for name in counted)):  # noqa: PTH118 (many)
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, os.lstat(path).st_mtime)
    return newest


def _take_away(folder: Path, result: Cleared, *, is_dry: bool, is_partial: bool) -> None:
    """Remove a folder; first it gets another name, so that nobody finds half of it."""
    count = size = 0
    for place, _folders_in, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 (many)
                count, size = count + 1, size + (status.st_size if status.st_nlink == 1 else 0)
    if is_partial:
        result.partial_bytes, result.partial_count = result.partial_bytes + size, result.partial_count + count
    else:
        result.cache_bytes, result.cache_count = result.cache_bytes + size, result.cache_count + count
    if is_dry:
        return
    going = folder if folder.name.endswith(_GOING) else folder.with_name(f"{folder.name}.{os.urandom(4).hex()}{_GOING}")
    if going != folder:
        folder.rename(going)
    shutil.rmtree(going)
