"""Files of users, read so that what is stored is what was there: no devices, no waiting, no mix of two states."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from runstone.errors import InvalidValue

CHUNK_BYTES = 8 << 20
"""How much of a large file is in memory at once."""
_PARALLEL_FROM = 32 << 20  # below, the threads take longer to start than to hash


class Source:
    """An open file of a user, for one pass or several.

    Not mapped into memory: a file that is cut short while it is mapped kills the process that reads it.

    Args:
        path: A regular file, or a link to one.

    Raises:
        InvalidValue: it is something else.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: that alone may do something to a device
            raise InvalidValue(f"{path} is not a regular file; only files and folders of files can be stored")
        # Not blocking: opening a FIFO that came in its place would wait for a writer for ever.
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        self.before = os.fstat(self.fd)
        if not stat.S_ISREG(self.before.st_mode):
            self.close()
            raise InvalidValue(f"{path} was exchanged for something that is not a regular file")

    def __enter__(self) -> Source:
        """Return itself; it is closed when the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @property
    def size(self) -> int:
        """Bytes when it was opened."""
        return self.before.st_size

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def read_whole(self) -> bytes:
        """Return all bytes of a small file.

        Raises:
            InvalidValue: it changed meanwhile.
        """
        first = os.pread(self.fd, self.size + 1, 0)
        if len(first) == self.size:  # nearly always: it holds no more than it did, and came in one piece
            self.check(self.size)
            return first
        data = bytearray(first)
        chunk = first
        while chunk and len(data) <= self.size:  # one byte more than it had, to see it grow
            chunk = os.pread(self.fd, self.size - len(data) + 1, len(data))
            data += chunk
        self.check(len(data))
        return bytes(data)

    def chunks(self) -> Iterator[memoryview]:
        """Yield all bytes in order; a chunk is valid until the next.

        Raises:
            InvalidValue: it changed meanwhile; told behind the last chunk.
        """
        size = 0
        for chunk in chunks_of(self.fd):
            size += len(chunk)
            if size > self.size:  # one that grows as fast as it is read would never end
                break
            yield chunk
        self.check(size)

    def check(self, size: int) -> None:
        """Check that so many bytes are what it held all the time.

        Raises:
            InvalidValue: it changed.
        """
        after = os.fstat(self.fd)
        is_same = (self.before.st_size, self.before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if not is_same or size != after.st_size:
            self.changed()

    def changed(self) -> None:
        """Say that it changed.

        Raises:
            InvalidValue: always.
        """
        raise InvalidValue(f"{self.path} changed while it was read; store it when its writer is done")


def chunks_of(fd: int) -> Iterator[memoryview]:
    """Yield the bytes of an open file from its begin, through one buffer; a chunk is valid until the next."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        yield buffer[:count]
        offset += count


def hasher_for(size: int) -> Any:
    """Return a BLAKE3 hasher for so many bytes, with threads where that pays.

    The threads are its own: those that `AUTO` shares do not exist in a fork, where hashing would wait for them for
    ever.
    """
    from blake3 import blake3  # a compiled module that runs without artifacts do not need

    return blake3(max_threads=min(8, len(os.sched_getaffinity(0)))) if size >= _PARALLEL_FROM else blake3()


def hash_of(fd: int) -> str:
    """Return the BLAKE3 of an open file, streamed, by several threads where it is large."""
    hasher = hasher_for(os.fstat(fd).st_size)
    for chunk in chunks_of(fd):
        hasher.update(chunk)
    return str(hasher.hexdigest())
