"""Bytes of a `.wandb` file: the log around its records, and protocol buffers without their schema.

The file is a LevelDB log behind a header of its own: 7 bytes, then blocks of 32 KiB counted from the start of the
file. A piece of a record is a CRC-32 of its kind and bytes (u32), its size (u16), its kind (u8) and its bytes; no piece
crosses the end of a block, and fewer than 7 bytes that are left in one are padding.

Source: LevelDB's log format (doc/log_format.md there); Protocol Buffers encoding (protobuf.dev).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 32 * 1024
HEADER = b":W&B\xe1\xbe\x00"
_PIECE = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MOST_RECORD_BYTES = 256 << 20

Fields = dict[int, list[int | bytes]]
"""Values of a message by the number of their field, in order: integers, or bytes."""


class WireError(ValueError):
    """Bytes that are no message."""


@dataclass(slots=True)
class Damage:
    """What of a file could not be read: pieces with a wrong checksum, and bytes of a torn end."""

    pieces: int = 0
    torn_bytes: int = 0


def records(file: BinaryIO, damage: Damage) -> Iterator[bytes]:
    """Yield the whole records of a file in order; damaged ones are passed over, from the next block on.

    Raises:
        ValueError: the bytes do not start as a `.wandb` file does.
        OSError: the file cannot be read.
    """
    start = file.read(len(HEADER))
    if start != HEADER:
        raise ValueError("a .wandb file starts with other bytes")
    block = start + file.read(BLOCK - len(HEADER))
    place = len(HEADER)
    parts: list[bytes] | None = None
    while block:
        yielded, parts = [], parts
        while place + _PIECE.size <= len(block):
            checksum, size, kind = _PIECE.unpack_from(block, place)
            end = place + _PIECE.size + size
            if not checksum and not size and not kind and not any(block[place:]):
                break  # padding, or space that was reserved
            if end > len(block) and len(block) < BLOCK:
                damage.torn_bytes += len(block) - place
                place = len(block)
                break
            if end > len(block) or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                damage.pieces, parts, place = damage.pieces + 1, None, len(block)
                break
            data = block[place + _PIECE.size : end]
            if zlib.crc32(block[place + 6 : end]) != checksum:
                damage.pieces, parts, place = damage.pieces + 1, None, len(block)
                break
            place = end
            if kind == _FULL:
                parts = None
                yielded.append(data)
            elif kind == _FIRST:
                parts = [data]
            elif parts is not None:
                parts.append(data)
                if sum(map(len, parts)) > _MOST_RECORD_BYTES:
                    damage.pieces, parts = damage.pieces + 1, None
                elif kind == _LAST:
                    yielded.append(b"".join(parts))
                    parts = None
        yield from yielded
        if len(block) < BLOCK:
            break
        block, place = file.read(BLOCK), 0
    if parts:
        damage.torn_bytes += sum(map(len, parts))


def message(data: bytes) -> Fields:
    """Return the fields of a message.

    Raises:
        WireError: it is torn, or no message.
    """
    fields: Fields = {}
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, place = _varint(data, place)
        elif kind == 2:
            size, place = _varint(data, place)
            if place + size > end:
                raise WireError("a field is longer than its message")
            value, place = data[place : place + size], place + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            if place + size > end:
                raise WireError("a number is torn")
            value, place = int.from_bytes(data[place : place + size], "little"), place + size
        else:
            raise WireError(f"there is no wire type {kind}")
        if not number:
            raise WireError("there is no field 0")
        fields.setdefault(number, []).append(value)
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise WireError("a number is torn")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, place
        shift += 7


def number(fields: Fields, field: int, default: int = 0) -> int:
    """Return the last integer of a field, as a signed one."""
    found = [value for value in fields.get(field, ()) if isinstance(value, int)]
    value = found[-1] if found else default
    return value - (1 << 64) if value >= 1 << 63 else value


def text(fields: Fields, field: int) -> str:
    """Return the last text of a field, empty where there is none."""
    found = texts(fields, field)
    return found[-1] if found else ""


def texts(fields: Fields, field: int) -> list[str]:
    """Return all texts of a field."""
    return [v.decode("utf-8", "backslashreplace") for v in fields.get(field, ()) if isinstance(v, bytes)]


def inner(fields: Fields, field: int) -> Fields:
    """Return the last message of a field, empty where there is none.

    Raises:
        WireError: it is no message.
    """
    found = inners(fields, field)
    return found[-1] if found else {}


def inners(fields: Fields, field: int) -> list[Fields]:
    """Return all messages of a field; raises as `inner` does."""
    return [message(value) for value in fields.get(field, ()) if isinstance(value, bytes)]
