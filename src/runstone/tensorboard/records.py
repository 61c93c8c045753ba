"""The bytes of event files: records, whole or damaged. Knows no message.

An event file is a row of records: length (u64), masked CRC-32C of the length, that many bytes, masked CRC-32C of the
bytes. A process that died leaves a torn last record; a machine that died may leave a stretch of zeros, after which a
process that appends goes on.

Source of the format: tensorflow/core/lib/io/record_writer.h of TensorFlow.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runstone.tensorboard.protos import crc32c

_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
MOST_RECORD_BYTES = 256 << 20
"""The longest record that is read."""


@dataclass(slots=True)
class Losses:
    """What of event files could not be read.

    Attributes:
        damaged: Records whose checksum is wrong, that are no `Event`, or that are longer than `MOST_RECORD_BYTES`.
        torn_bytes: After the last whole record of a file.
        skipped_bytes: Between records: zeros, or what no record begins in.
    """

    damaged: int = 0
    torn_bytes: int = 0
    skipped_bytes: int = 0


@contextlib.contextmanager
def open_records(path: Path) -> Iterator[mmap.mmap | bytes]:
    """Map a file as it is now; it may grow meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""  # nothing can be mapped
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def records(data: mmap.mmap | bytes, losses: Losses) -> Iterator[tuple[int, bytes]]:
    """Yield the records of an event file that are whole, each with where it begins, and count the others."""
    position, size = 0, len(data)
    while position < size:
        end = _record_end(data, position)
        if end is None:  # no record begins here
            after = _next_record(data, position + 1)
            if after is None:
                if _end_of_zeros(data, position) == size:
                    losses.skipped_bytes += size - position
                else:
                    losses.torn_bytes += size - position
                return
            losses.skipped_bytes += after - position
            position = after
            continue
        if end > size:
            # Torn, unless its length is what is damaged; that has a checksum of its own, so it is torn.
            after = _next_record(data, position + _HEAD.size)
            if after is None:
                losses.torn_bytes += size - position
                return
            losses.damaged += 1
            position = after
            continue
        if end - position > MOST_RECORD_BYTES:
            losses.damaged += 1
            position = end
            continue
        record = bytes(data[position + _HEAD.size : end - _CRC.size])
        if _CRC.unpack_from(data, end - _CRC.size)[0] == masked_crc(record):
            yield position, record
            position = end
            continue
        # Its bytes are damaged, or it was torn and others were written after it.
        losses.damaged += 1
        after = _next_record(data, position + _HEAD.size, end)
        position = end if after is None else after


def record_at(data: mmap.mmap | bytes, position: int) -> bytes:
    """Return the record that `records` found at a place; what has become of it since is not looked at."""
    length, _check = _HEAD.unpack_from(data, position)
    return bytes(data[position + _HEAD.size : position + _HEAD.size + min(length, MOST_RECORD_BYTES)])


def masked_crc(data: bytes) -> int:
    """Return the checksum of the format: CRC-32C, rotated and shifted, so that a checksum of checksums is none."""
    crc: int = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """Return one record."""
    length = len(data).to_bytes(8, "little")
    return b"".join((length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))))


def _record_end(data: mmap.mmap | bytes, position: int) -> int | None:
    """Return where the record at `position` ends, `None` where none begins; it may end after the file."""
    if position + _HEAD.size > len(data):
        return None
    length, check = _HEAD.unpack_from(data, position)
    if masked_crc(bytes(data[position : position + 8])) != check:
        return None
    return int(position + _HEAD.size + length + _CRC.size)


def _next_record(data: mmap.mmap | bytes, start: int, stop: int | None = None) -> int | None:
    """Return where the next whole record begins, from `start` on and before `stop`; `None` where there is none."""
    size = len(data)
    stop = size if stop is None else stop
    position = start
    while position < min(stop, size - _HEAD.size - _CRC.size + 1):
        # No record is 4 GiB long: the upper half of its length is zeros, and `find` is much faster than looking.
        zeros = data.find(b"\0\0\0\0", position + 4)
        if zeros < 0:
            return None
        position = max(position, zeros - 4)
        if position >= stop:
            return None
        if data[position : position + 64] == bytes(64):  # inside a stretch of zeros: go to its end
            position = _end_of_zeros(data, position) - 8
        end = _record_end(data, position)
        if end is not None and end <= size and end - position <= MOST_RECORD_BYTES:
            record = bytes(data[position + _HEAD.size : end - _CRC.size])
            if _CRC.unpack_from(data, end - _CRC.size)[0] == masked_crc(record):
                return position
        position += 1
    return None


def _end_of_zeros(data: mmap.mmap | bytes, position: int) -> int:
    size, chunk = len(data), bytes(1 << 20)
    while position < size and data[position : position + len(chunk)] == chunk[: size - position]:
        position += len(chunk)
    while position < size and data[position] == 0:
        position += 1
    return min(position, size)
