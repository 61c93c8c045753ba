"""The bytes of a run's files, as `docs/format.md` promises them. Knows nothing of who reads or writes them."""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any, NamedTuple

from runstone.errors import FormatError

FORMAT = 1
SEALED = "metrics.parquet"

# --- metric log -------------------------------------------------------------------------------------------------------
WAL_MAGIC = b"\x89RSW\r\n\x1a\n"
WAL_MAJOR, WAL_MINOR = 1, 0
HEADER_BYTES = 4096
SLOT_BYTES = 32
# step, wall time, value, key, commit: the commit word is stored last, so a slot that carries it is whole.
FLOAT_SLOT = struct.Struct("<qddII")
INT_SLOT = struct.Struct("<qdqII")
FIRST_SLOTS = 2048  # 64 KiB
MOST_SLOTS = 131072  # 4 MiB
_HEADER = struct.Struct("<8sHHIIII16sIQdd")
_CRC = struct.Struct("<I")

TYPE_FLOAT, TYPE_INT, TYPE_BOOL, TYPE_STRING, TYPE_RECORD = range(5)
TYPES = 5
BESIDE = (TYPE_STRING, TYPE_RECORD)
"""Types whose slots hold where their bytes begin in the side file."""


class SegmentHeader(NamedTuple):
    """What the first bytes of a segment say."""

    slots: int
    salt: int
    writer: bytes
    seq: int
    pid: int
    wall_s: float
    monotonic_s: float


def pack_header(header: SegmentHeader) -> bytes:
    """Return the first bytes of a segment."""
    body = _HEADER.pack(
        WAL_MAGIC,
        WAL_MAJOR,
        WAL_MINOR,
        HEADER_BYTES,
        SLOT_BYTES,
        header.slots,
        header.salt,
        header.writer,
        header.seq,
        header.pid,
        header.wall_s,
        header.monotonic_s,
    )
    return body + _CRC.pack(zlib.crc32(body))


def unpack_header(data: bytes) -> SegmentHeader | None:
    """Return what a segment's first bytes say, `None` where they are torn or of another kind.

    Raises:
        FormatError: a newer version of Runstone wrote it.
    """
    if len(data) < _HEADER.size + _CRC.size:
        return None
    body = data[: _HEADER.size]
    magic, major, _minor, header_bytes, slot_bytes, slots, salt, writer, seq, pid, wall, mono = _HEADER.unpack(body)
    if magic != WAL_MAGIC or zlib.crc32(body) != _CRC.unpack_from(data, _HEADER.size)[0]:
        return None
    if major != WAL_MAJOR or header_bytes != HEADER_BYTES or slot_bytes != SLOT_BYTES:
        raise FormatError(
            f"a metric log of format {major} cannot be read by this version, which knows format {WAL_MAJOR}; "
            "upgrade runstone"
        )
    return SegmentHeader(slots, salt, writer, seq, pid, wall, mono)


def slots_of_segment(seq: int) -> int:
    """Return how many slots the segment `seq` has: doubling, so that short runs stay small."""
    return min(FIRST_SLOTS << min(seq, 20), MOST_SLOTS)


# --- keys -------------------------------------------------------------------------------------------------------------
_FRAME = struct.Struct("<II")
_KEY = struct.Struct("<IB")


def pack_key(key: int, kind: int, name: str) -> bytes:
    """Return the record that gives a metric name its id."""
    payload = _KEY.pack(key, kind) + name.encode()
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class Keys(NamedTuple):
    """Names of metrics as they stand in a file: ids, types and names, one of each a record.

    Attributes:
        end: Where the last whole record ends; a reader that follows the file goes on there.
    """

    ids: list[int]
    kinds: list[int]
    names: list[str]
    end: int


def unpack_keys(data: bytes) -> Keys:
    """Return the names in a file, or in what came to it. A torn tail ends the reading: its id was never used.

    A damaged record before the end is passed over, and costs its own name only.
    """
    found = Keys([], [], [], 0)
    add_id, add_kind, add_name = found.ids.append, found.kinds.append, found.names.append
    unpack_frame, unpack_key, crc32, size = _FRAME.unpack_from, _KEY.unpack_from, zlib.crc32, len(data)
    head, least = _FRAME.size, _KEY.size
    offset = 0
    while offset + head <= size:
        length, crc = unpack_frame(data, offset)
        start, end = offset + head, offset + head + length
        if end > size or length < least:
            break
        payload = data[start:end]
        if crc32(payload) == crc:
            key, kind = unpack_key(payload)
            add_id(key)
            add_kind(kind)
            add_name(payload[least:].decode("utf-8", "replace"))
        offset = end
    return found._replace(end=offset)


# --- side file --------------------------------------------------------------------------------------------------------
def pack_side(payload: bytes) -> bytes:
    """Return the frame of a text or record in the side file."""
    return _FRAME.pack(len(payload), _side_crc(payload)) + payload


def _side_crc(payload: bytes) -> int:
    return zlib.crc32(payload) if payload else 0xFFFFFFFF  # a page that never reached the disk is zeros, and no text


def side_length(data: bytes) -> int:
    """Return how long the frame is that begins here, itself included; 0 where that is torn."""
    return _FRAME.size + int(_FRAME.unpack_from(data)[0]) if len(data) >= _FRAME.size else 0


def unpack_side(data: bytes, offset: int) -> bytes | None:
    """Return the payload of the frame at `offset`, `None` where it is torn or damaged."""
    if offset < 0 or offset + _FRAME.size > len(data):
        return None
    length, crc = _FRAME.unpack_from(data, offset)
    payload = data[offset + _FRAME.size : offset + _FRAME.size + length]
    return payload if len(payload) == length and _side_crc(payload) == crc else None


def pack_record(record: dict[str, Any]) -> bytes:
    """Return the payload of a record: JSON, with floats that JSON lacks written as in the journal."""
    return encode_event(record)[:-1]


def unpack_record(payload: bytes | str) -> dict[str, Any] | None:
    """Return a record, `None` where it is none."""
    try:
        record = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return _unescape(record) if isinstance(record, dict) else None


# --- status and control -----------------------------------------------------------------------------------------------
STATUS_MAGIC = b"\x89RSS\r\n\x1a\n"
STATUS_HEAD = struct.Struct("<8sI4xddI4xQ")
STATUS_BEAT = struct.Struct("<dd")
STATUS_BEAT_OFFSET = 16
STATUS_END = struct.Struct("<I4xQ")
STATUS_END_OFFSET = 32
STATUS_WORD = struct.Struct("<I")
STATUS_WORD_OFFSET = 48
STATUS_SPILLED = struct.Struct("<I")
STATUS_SPILLED_OFFSET = 52
STATUS_COPIED = struct.Struct("<I")
STATUS_COPIED_OFFSET = 56
STATE_OPEN, STATE_ENDED = 1, 2
# How the run ended, where the journal could not take it: a full disk has no room for another line.
END_WORDS = ("", "finished", "failed", "stopped", "pruned")
CONTROL_BYTES = 4096
WORD_GO, WORD_STOP, WORD_PRUNE = 0, 1, 2
HEARTBEAT_LIMIT_S = 60.0


# --- journal ----------------------------------------------------------------------------------------------------------
def encode_event(event: dict[str, Any]) -> bytes:
    """Return one line of a journal, newline included. Values must be JSON, but floats may be NaN and ±Inf."""
    try:
        line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # a float that JSON lacks, or half a surrogate pair
        line = b""
    if not line or b'"$' in line:
        line = json.dumps(_escape(event), allow_nan=False, separators=(",", ":")).encode()
    return line + b"\n"


def decode_events(data: bytes) -> list[dict[str, Any]]:
    """Return the whole lines of a journal; a torn or damaged line is skipped."""
    events = []
    for line in data.split(b"\n")[:-1]:
        try:
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                events.append(_unescape(event) if b'"$' in line else event)
        except (ValueError, RecursionError):
            continue
    return events


def _escape(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, dict):
        return {f"${key}" if key.startswith("$") else key: _escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    return value


def _unescape(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("$float"), str):
            return float(value["$float"])
        return {key[1:] if key.startswith("$") else key: _unescape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unescape(item) for item in value]
    return value
