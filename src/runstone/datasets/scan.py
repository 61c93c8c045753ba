"""Reading a file or folder into a manifest: what is in it, hashed once, and not again while it stays unchanged."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs import Blobs
from runstone.blobs.intake import hash_of_bytes
from runstone.blobs.source import Source, hasher_for
from runstone.blobs.statcache import StatCache
from runstone.datasets.manifest import Manifest, TreeFile, leads_out, shown_path, sorted_files
from runstone.errors import InvalidValue, NotFound

_SMALL_BYTES = 1 << 20


@dataclass(slots=True)
class _Found:
    """A file that was found: where it is, where it lies in the dataset, its state, and its hash once that is known."""

    place: str
    path: str
    status: os.stat_result
    hash: str | None = None
    size: int = 0


class Scan:
    """What lies at a path, as a manifest.

    Args:
        path: A file or folder. Links to it are followed.
        cache: What files hashed to before.
        leave_out: A folder that is passed over: the workspace itself.

    Raises:
        NotFound: there is nothing.
        InvalidValue: something in it is no file, folder or link that can be kept.
        OSError: a folder cannot be listed.
    """

    def __init__(self, path: Path, cache: StatCache, *, leave_out: Path) -> None:
        self.path = path
        self.cache = cache
        self.read_bytes = 0
        """How many bytes had to be read."""
        self._root = Path(os.path.realpath(path))
        try:
            status = self._root.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no file or folder {shown_path(str(path))}") from None
        self.is_folder = stat.S_ISDIR(status.st_mode)
        self._others: list[TreeFile] = []
        if self.is_folder:
            self._skip = _identity(leave_out)
            above = frozenset({(status.st_dev, status.st_ino)})
            self._files = list(self._walk(os.fspath(self._root), "", above))
        else:
            _check_regular(str(path), status)
            self._files = [_Found(os.fspath(self._root), path.name or self._root.name, status)]
        for file in self._files:
            file.hash, file.size = cache.find(file.status), file.status.st_size

    @property
    def is_unchanged(self) -> bool:
        """Whether all that it holds was read before, and did not change since."""
        return all(file.hash is not None for file in self._files)

    def hash(self) -> Manifest:
        """Read what is not known yet, and return the manifest.

        Raises:
            InvalidValue: a file changed while it was read.
            OSError: one cannot be read.
        """
        self._read([file for file in self._files if file.hash is None], _hash_all)
        return self.manifest()

    def store(self, blobs: Blobs) -> Manifest:
        """Put all content into a store, and return the manifest.

        Raises:
            InvalidValue: a file changed while it was read.
            OSError: one cannot be read, or the disk is full.
        """
        missing = [file for file in self._files if file.hash is None or not blobs.keep(file.hash)]

        def put(files: Sequence[_Found]) -> Iterator[tuple[str, int]]:
            entries = blobs.put_all((Path(file.place), file.path) for file in files)
            return ((entry.hash, entry.size_bytes) for entry in entries)

        self._read(missing, put)
        return self.manifest()

    def manifest(self) -> Manifest:
        """Return the manifest, where everything is known."""
        files = [
            TreeFile(file.path, file.hash, file.size, bool(file.status.st_mode & stat.S_IXUSR)) for file in self._files
        ]
        return Manifest("tree" if self.is_folder else "file", sorted_files([*files, *self._others]))

    def save(self) -> None:
        """Remember what was read. Nothing is lost where that cannot be written."""
        try:
            self.cache.save()
        except OSError:  # it is only read more often then
            return

    def _read(self, files: list[_Found], read: Callable[[Sequence[_Found]], Iterator[tuple[str, int]]]) -> None:
        # The state is that of the scan: a file that was changed since has another, which is not found again.
        read_at_ns = time.time_ns()
        for file, (content, size) in zip(files, read(files), strict=True):
            file.hash, file.size = content, size
            self.read_bytes += size
            self.cache.remember(file.status, content, read_at_ns=read_at_ns)

    def _walk(self, folder: str, inside: str, above: frozenset[tuple[int, int]]) -> Iterator[_Found]:
        is_empty = True
        with os.scandir(folder) as entries:
            for entry in entries:
                if self._skip is not None and entry.inode() == self._skip[1] and _is_skipped(entry, self._skip):
                    continue
                is_empty = False
                path = f"{inside}{entry.name}"
                if entry.is_symlink():
                    yield from self._link(entry, path, above)
                elif entry.is_dir(follow_symlinks=False):
                    yield from self._walk(entry.path, f"{path}/", above)
                else:
                    status = entry.stat(follow_symlinks=False)
                    _check_regular(entry.path, status)
                    yield _Found(entry.path, _text(path), status)
        if is_empty and inside:
            self._others.append(TreeFile(_text(inside[:-1]), None, is_folder=True))

    def _link(self, entry: os.DirEntry[str], path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Found]:
        target = os.readlink(entry.path)  # noqa: PTH115 (names of any bytes)
        if not leads_out(path, target):
            self._others.append(TreeFile(_text(path), None, link=_text(target)))
            return
        try:
            status = entry.stat()
        except (FileNotFoundError, NotADirectoryError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            raise InvalidValue(
                f"{shown_path(entry.path)} is a link to {shown_path(target)}, which is not there; remove it, or let "
                "it point into the folder"
            ) from None
        if not stat.S_ISDIR(status.st_mode):
            _check_regular(entry.path, status)
            yield _Found(entry.path, _text(path), status)
            return
        own = (status.st_dev, status.st_ino)
        if own in above or os.path.realpath(entry.path).startswith(f"{self._root}{os.sep}"):
            raise InvalidValue(
                f"{shown_path(entry.path)} is a link into the folder that it lies in, by a way around; make it "
                "relative and plain"
            )
        yield from self._walk(entry.path, f"{path}/", above | {own})


def _check_regular(place: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise InvalidValue(f"{shown_path(place)} is {kind}; a dataset holds files, folders and links only")


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_skipped(entry: os.DirEntry[str], skip: tuple[int, int]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return (status.st_dev, status.st_ino) == skip


def _text(path: str) -> str:
    """Return a path as the same text whatever the locale: bytes that are no UTF-8 as surrogates."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "surrogateescape")


def _hash_all(files: Sequence[_Found]) -> Iterator[tuple[str, int]]:
    if len(files) < 4:
        return iter([hash_file(Path(file.place)) for file in files])
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), "runstone-hash") as pool:
        return iter(list(pool.map(lambda file: hash_file(Path(file.place)), files)))


def hash_file(path: Path) -> tuple[str, int]:
    """Return the hash and the size of a file.

    Raises:
        InvalidValue: it is no regular file, or it changed while it was read.
        OSError: it cannot be read.
    """
    with Source(path) as source:
        if source.size < _SMALL_BYTES:
            return hash_of_bytes(source.read_whole()), source.size
        hasher = hasher_for(source.size)
        for chunk in source.chunks():
            hasher.update(chunk)
        return str(hasher.hexdigest()), source.size
