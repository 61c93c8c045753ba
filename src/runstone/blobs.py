"""Bytes by content: each file lies once under its BLAKE3 hash. Knows no names, no versions, no runs."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from runstone.errors import InvalidValue, NotFound
from runstone.values import FileEntry

_CHUNK_BYTES = 1 << 20


class Blobs:
    """The content-addressed store of one workspace.

    Args:
        root: Its folder; made with the first file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, content_hash: str) -> Path:
        """Return where the content of a hash lies.

        Raises:
            NotFound: it is not here.
        """
        if len(content_hash) != 64 or not set(content_hash) <= set("0123456789abcdef"):
            raise NotFound(f"{content_hash!r:.80} is not a content hash: 64 of the digits 0-9 a-f")
        path = self._place(content_hash)
        if not path.is_file():
            raise NotFound(f"the content {content_hash[:16]}… is not in {self.root}; was the workspace copied whole?")
        return path

    def put(self, source: Path, name: str) -> FileEntry:
        """Copy one file into the store and return its entry; content that is there already is not stored twice.

        Args:
            source: A regular file, or a link to one.
            name: Its path inside what it belongs to.

        Raises:
            InvalidValue: it is no regular file, or it changed while it was read.
            OSError: it cannot be read, or the disk is full; nothing is left in the store then.
        """
        if not stat.S_ISREG(source.stat().st_mode):  # before it is opened: that alone may do something to a device
            raise InvalidValue(f"{source} is not a regular file; only files and folders of files can be stored")
        # Not blocking: opening a FIFO that came in its place would wait for a writer for ever.
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())

            def chunks() -> Iterator[bytes]:
                size = 0
                while chunk := file.read(_CHUNK_BYTES):
                    size += len(chunk)
                    yield chunk
                after = os.fstat(file.fileno())
                is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
                if not is_same or size != after.st_size:
                    raise InvalidValue(f"{source} changed while it was read; store it when its writer is done")

            return self._store(chunks(), name)

    def put_bytes(self, data: bytes, name: str) -> FileEntry:
        """Store bytes and return their entry; content that is there already is not stored twice.

        Args:
            data: The content.
            name: Its path inside what it belongs to.

        Raises:
            OSError: the disk is full; nothing is left in the store then.
        """
        from blake3 import blake3  # see _store

        content_hash = blake3(data).hexdigest()
        if self._place(content_hash).exists():
            return FileEntry(path=name, hash=content_hash, size_bytes=len(data))
        return self._store((data,), name)

    def _store(self, chunks: Iterable[bytes], name: str) -> FileEntry:
        from blake3 import blake3  # a compiled module that runs without artifacts do not need

        # the folder above must be there: a workspace that was renamed is not begun anew under its old name
        self.root.mkdir(exist_ok=True)
        partial = self.root / f"{os.urandom(16).hex()}.partial"
        hasher = blake3()
        size = 0
        try:
            with partial.open("xb", buffering=0) as copy:
                for chunk in chunks:
                    hasher.update(chunk)
                    _write_all(copy, chunk)
                    size += len(chunk)
                # the name promises the content: the bytes must be on the disk before it stands there
                os.fdatasync(copy.fileno())
            content_hash = hasher.hexdigest()
            place = self._place(content_hash)
            if not place.exists():
                place.parent.mkdir(exist_ok=True)
                partial.chmod(0o444)
                partial.replace(place)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
        return FileEntry(path=name, hash=content_hash, size_bytes=size)

    def _place(self, content_hash: str) -> Path:
        return self.root / content_hash[:2] / content_hash


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write every byte: on a nearly full disk `write` takes a part, and says so only by the number it returns."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
