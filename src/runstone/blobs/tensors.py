"""Where the tensors of a checkpoint lie in its file: safetensors, and the zip files of `torch.save`.

Nothing is unpickled or executed: of a zip file only the directory is read, of safetensors only the header. What is
found is no more than places to cut at; a file that is not as it says is stored all the same, whole or cut at odd
places.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from itertools import pairwise

SMALLEST = 1 << 20
"""Files below are stored whole: there is little to share in them."""
_MOST_HEADER = 100 << 20  # what safetensors itself reads
_MOST_TENSORS = 1 << 20
_U64 = struct.Struct("<Q")
_LOCAL = struct.Struct("<4s22xHH")
_TENSOR = re.compile(r"[^/]+/data/[0-9]+")


def tensor_ranges(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return the ranges `(begin, end)` of the tensors in a file, in order and not overlapping.

    Args:
        fd: The open file.
        size: Its size in bytes.

    Returns:
        `None` where it is no checkpoint, is small, or is not as it should be.
    """
    if size < SMALLEST:
        return None
    head = os.pread(fd, 9, 0)
    found: list[tuple[int, int]] = []
    try:
        if head[:4] == b"PK\x03\x04":
            found = _of_zip(fd, size)
        elif head[8:9] == b"{":
            found = _of_safetensors(fd, size, _U64.unpack_from(head)[0])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error, OSError):
        return None
    except (zipfile.BadZipFile, NotImplementedError, OverflowError):
        return None
    found = sorted(one for one in found if one[0] < one[1])
    is_fit = all(begin >= 0 for begin, _end in found) and all(
        first[1] <= second[0] for first, second in pairwise(found)
    )
    return found if found and is_fit and found[-1][1] <= size and len(found) <= _MOST_TENSORS else None


def _of_safetensors(fd: int, size: int, length: int) -> list[tuple[int, int]]:
    start = _U64.size + length
    if length > _MOST_HEADER or start > size:
        return []
    header = json.loads(os.pread(fd, length, _U64.size))
    found = []
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            found.append((start + int(begin), start + int(end)))
    return found


def _of_zip(fd: int, size: int) -> list[tuple[int, int]]:
    # a description of its own, so that the place of the file that is being stored is not moved
    with io.BufferedReader(_At(fd, size)) as file, zipfile.ZipFile(file) as archive:
        tensors = [
            info
            for info in archive.infolist()
            if info.compress_type == zipfile.ZIP_STORED and _TENSOR.fullmatch(info.filename)
        ]
    found = []
    for info in tensors:
        mark, name_length, extra_length = _LOCAL.unpack(os.pread(fd, _LOCAL.size, info.header_offset))
        if mark != b"PK\x03\x04":
            return []
        begin = info.header_offset + _LOCAL.size + name_length + extra_length
        found.append((begin, begin + info.file_size))
    return found


class _At(io.RawIOBase):
    """An open file by its descriptor, with a place of its own."""

    def __init__(self, fd: int, size: int) -> None:
        super().__init__()
        self._fd, self._size, self._at = fd, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count
