"""A folder of content as one ZIP file, written while it is sent: no file of the whole, bounded memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, cast

from runstone.server.files import CHUNK_BYTES, Contents
from runstone.values import FileEntry


class _Sink:
    """A file that only grows, whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        """Return what has come since."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def zipped(contents: Contents, files: Iterable[FileEntry]) -> Iterator[bytes]:
    """Yield the bytes of a ZIP file with these files, not compressed. Paths that lead out of it are left out."""
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_STORED) as archive:  # it asks for no more than these
        for entry in files:
            if entry.path.startswith("/") or "\\" in entry.path or ".." in entry.path.split("/"):
                continue
            about = zipfile.ZipInfo(entry.path)
            about.external_attr = 0o644 << 16
            source, _size = contents.open(entry.hash)
            with source, archive.open(about, "w", force_zip64=True) as target:
                while data := source.read(CHUNK_BYTES):
                    target.write(data)
                    yield sink.taken()
    yield sink.taken()
