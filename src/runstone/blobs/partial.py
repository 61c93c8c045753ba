"""Files that are being written: under a name that nobody reads, locked as long as their writer lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ENDING = ".partial"
_FICLONE = 0x40049409
_CANNOT_CLONE = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_SYNC_EACH = 8


class Partial:
    """A file that is not there yet. It vanishes when it is closed, unless it took its place.

    Args:
        folder: Where it is written; its place must be on the same file system.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        # text, not a path: there is one of these for each of many small files
        self.path = f"{folder}/{os.urandom(16).hex()}{ENDING}"
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # file systems without locks: age tells that its writer is gone
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._is_there = True

    def __enter__(self) -> Partial:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append every byte: on a nearly full disk `write` takes a part, and says so only by what it returns."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fd, rest) :]

    def clone(self, fd: int) -> bool:
        """Share the bytes of another file until one of the two is written, where the file system can do that."""
        try:
            fcntl.ioctl(self.fd, _FICLONE, fd)
        except OSError as error:
            if error.errno in _CANNOT_CLONE:
                return False
            raise
        return True

    def sync(self) -> None:
        """Bring its bytes to the disk."""
        os.fdatasync(self.fd)

    def place(self, target: Path | str, mode: int) -> None:
        """Take its place: from now on it is there, whole."""
        os.fchmod(self.fd, mode)
        os.replace(self.path, target)  # noqa: PTH105 (many)
        self._is_there = False

    def close(self) -> None:
        """Let go of it, and remove it where it took no place."""
        if self._is_there:
            self._is_there = False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 (many)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sync_all(partials: Collection[Partial]) -> None:
    """Bring the bytes of many files to the disk, at the price of one journal commit instead of one each."""
    first = next(iter(partials), None)
    if first is None:
        return
    if len(partials) > _SYNC_EACH and sync_file_system(first.fd):
        return
    for partial in partials:
        partial.sync()


def sync_file_system(fd: int) -> bool:
    """Bring all that was written to a file system to the disk; return whether this system can do that.

    Raises:
        OSError: it could not be written.
    """
    syncfs = _syncfs()
    if syncfs is None:
        return False
    if syncfs(fd):
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


@cache
def _syncfs() -> Callable[[int], int] | None:
    import ctypes  # only where many files are stored

    try:
        found: Any = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    return found  # type: ignore[no-any-return]


def dead_partials(folder: Path, *, now: float, grace_s: float) -> Iterator[tuple[Path, int]]:
    """Yield `(path, size in bytes)` of the files in a folder whose writer is gone.

    Args:
        folder: Where they were written.
        now: Seconds since the epoch, by the clock of the file system.
        grace_s: Where locks cannot tell, how old one must be.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith(ENDING)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
            fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:  # it took its place meanwhile
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            pass
        finally:
            os.close(fd)
        # A writer on another host, or one that was about to take the lock, is not seen by it.
        if now - status.st_mtime >= grace_s:
            yield Path(entry.path), status.st_size
