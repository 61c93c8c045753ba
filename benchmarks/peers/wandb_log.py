"""Reads the records of a `.wandb` file, for which wandb has no public reader.

The file is a LevelDB log behind a header of its own: 7 bytes, then blocks of 32 KiB counted from the start of the file.
A piece of a record is a CRC-32 of its kind and bytes (u32), its size (u16), its kind (u8) and its bytes; no piece
crosses the end of a block, and fewer than 7 bytes that are left in one are padding.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

BLOCK = 32 * 1024
HEADER = b":W&B\xe1\xbe\x00"
PIECE = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records, in order, up to the first torn or damaged piece.

    Raises:
        ValueError: the bytes do not start as a `.wandb` file does.
    """
    if not data.startswith(HEADER):
        raise ValueError(f"a .wandb file starts with {HEADER!r}, not {data[: len(HEADER)]!r}")
    offset, parts = len(HEADER), b""
    while offset + PIECE.size <= len(data):
        left = BLOCK - offset % BLOCK
        if left < PIECE.size:
            offset += left
            continue
        checksum, size, kind = PIECE.unpack_from(data, offset)
        end = offset + PIECE.size + size
        if end > len(data) or kind not in (FULL, FIRST, MIDDLE, LAST):
            return
        if zlib.crc32(data[offset + 6 : end]) != checksum:
            return
        piece = data[offset + PIECE.size : end]
        parts = parts + piece if kind in (MIDDLE, LAST) else piece
        if kind in (FULL, LAST):
            yield parts
        offset = end
