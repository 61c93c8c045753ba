"""What client and server send each other of runs: batches of parcels of pieces. Knows bytes, no HTTP and no files."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runstone.blobs.objects import is_hash
from runstone.errors import FormatError, InvalidValue
from runstone.runlog import format as fmt
from runstone.sync.kinds import Kind, kind_of

FORMAT = 1
PARCEL_BYTES = 4 << 20
"""As much a client puts into one parcel, and into one batch of them; a server takes some times that."""
MOST_PIECES = 4_096
MOST_PARCELS = 1_024
"""Runs of one batch."""
_HEAD = struct.Struct("<II")
_WRITER = re.compile("[0-9a-f]{32}")
_MOST_BYTES = 1 << 44


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file, to be written where they belong.

    Attributes:
        file: Its name.
        offset: Where they belong.
        data: The bytes.
        end: Size of a console behind them, where that became shorter; of a file that is sent as a whole, its size, in
            each piece. Else `None`.
        hash: BLAKE3 of a file that is sent as a whole, in each piece.
    """

    file: str
    offset: int
    data: bytes
    end: int | None = None
    hash: str | None = None


@dataclass(frozen=True, slots=True)
class WriterReport:
    """How it is with a writer on its host.

    Attributes:
        writer: Which.
        is_alive: Whether it lives.
        age_s: How old its heartbeat is, in seconds.
        dropped: Points that it could not write.
        word: How it ended, where only its status file says so.
        is_spilled: Whether points of it lie elsewhere on its host.
    """

    writer: str
    is_alive: bool
    age_s: float = 0.0
    dropped: int = 0
    word: str = ""
    is_spilled: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent of one run at once.

    Attributes:
        pieces: In the order in which they are to be written.
        writers: How it is with its writers.
        gone: Parts of a console that are no longer kept.
    """

    pieces: Sequence[Piece] = ()
    writers: Sequence[WriterReport] = ()
    gone: Sequence[str] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(len(piece.data) for piece in self.pieces)


def pack(parcel: Parcel) -> bytes:
    """Return the bytes of a parcel: length and CRC-32 of what follows, JSON, the pieces' bytes."""
    head = {
        "format": FORMAT,
        "pieces": [
            [piece.file, piece.offset, len(piece.data), piece.end, piece.hash]
            if piece.end is not None or piece.hash is not None
            else [piece.file, piece.offset, len(piece.data)]
            for piece in parcel.pieces
        ],
        "writers": [
            [one.writer, one.is_alive, round(one.age_s, 3), one.dropped, one.word, one.is_spilled]
            for one in parcel.writers
        ],
        "gone": list(parcel.gone),
    }
    told = json.dumps(head, separators=(",", ":")).encode()
    body = b"".join([told, *(piece.data for piece in parcel.pieces)])
    return _HEAD.pack(len(told), zlib.crc32(body)) + body


def pack_batch(parcels: Sequence[tuple[str, Parcel]]) -> bytes:
    """Return the bytes of parcels of several runs: length and CRC-32 of the JSON, the JSON, the parcels as packed.

    Args:
        parcels: Each with the id of its run; at most one of a run.
    """
    packed = [(run_id, pack(parcel)) for run_id, parcel in parcels]
    head = {"format": FORMAT, "parcels": [[run_id, len(data)] for run_id, data in packed]}
    told = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([_HEAD.pack(len(told), zlib.crc32(told)), told, *(data for _run_id, data in packed)])


def unpack_batch(body: bytes) -> list[tuple[str, memoryview]]:
    """Return the packed parcels of a batch, each with the id that it names: of a run or of none.

    Raises:
        InvalidValue: it is none, was damaged on its way, or has two parcels of one run.
        FormatError: a newer version made it.
    """
    if len(body) < _HEAD.size:
        raise InvalidValue("a batch begins with its length and checksum")
    length, crc = _HEAD.unpack_from(body)
    told = _head(body[_HEAD.size : _HEAD.size + length], "batch", crc)
    found: dict[str, memoryview] = {}
    at, view = _HEAD.size + length, memoryview(body)
    try:
        for run_id, size in told["parcels"]:
            if not isinstance(run_id, str) or run_id in found or len(found) >= MOST_PARCELS:
                raise ValueError(f"a parcel of {run_id!r:.80} too many")
            found[run_id] = view[at : at + _count(size)]
            at += size
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidValue(f"the batch does not hold what a batch holds: {error}") from None
    if at != len(body):
        raise InvalidValue("the batch is longer or shorter than it says")
    return list(found.items())


def unpack(body: bytes | memoryview) -> Parcel:
    """Return the parcel that `pack` made.

    Raises:
        InvalidValue: it is none, was damaged on its way, or names what no run has.
        FormatError: a newer version made it.
    """
    if len(body) < _HEAD.size:
        raise InvalidValue("a parcel begins with its length and checksum")
    length, crc = _HEAD.unpack_from(body)
    if zlib.crc32(memoryview(body)[_HEAD.size :]) != crc:
        raise InvalidValue("the parcel was damaged on its way")
    if length > len(body) - _HEAD.size:
        raise InvalidValue("the parcel is shorter than it says")
    told = _head(bytes(body[_HEAD.size : _HEAD.size + length]), "parcel")
    try:
        return _parcel(told, body, _HEAD.size + length)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidValue(f"the parcel does not hold what a parcel holds: {error}") from None


def _head(data: bytes, what: str, crc: int | None = None) -> dict[str, Any]:
    if crc is not None and zlib.crc32(data) != crc:
        raise InvalidValue(f"the head of the {what} was damaged on its way")
    try:
        told: dict[str, Any] = json.loads(data)
        version = told["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidValue(f"the head of the {what} is no JSON of this kind") from None
    if version != FORMAT:
        raise FormatError(f"a {what} of format {version!r:.20}; this server knows {FORMAT}: upgrade it")
    return told


def _parcel(told: dict[str, Any], body: bytes | memoryview, at: int) -> Parcel:
    if len(told["pieces"]) > MOST_PIECES or len(told["writers"]) > MOST_PIECES or len(told["gone"]) > MOST_PIECES:
        raise ValueError(f"more than {MOST_PIECES} pieces")
    pieces = []
    for file, offset, size, *rest in told["pieces"]:
        end, content = rest if rest else (None, None)
        kind = kind_of(file)
        if kind is None:
            raise ValueError(f"{file!r:.80} is no file of a run")
        _count(offset), _count(size)
        if at + size > len(body):
            raise ValueError(f"{file} says more bytes than there are")
        if (end is not None and _count(end) < offset + size) or (content is not None and not is_hash(content)):
            raise ValueError(f"{file} ends before it ends")
        if (kind is Kind.WHOLE) != (content is not None) or (content is not None and end is None):
            raise ValueError(f"{file} is not sent like this")
        if end is not None and kind not in (Kind.WHOLE, Kind.CONSOLE):
            raise ValueError(f"{file} does not become shorter")
        pieces.append(Piece(file, offset, bytes(body[at : at + size]), end, content))
        at += size
    if at != len(body):
        raise ValueError("there are bytes that belong to no piece")
    return Parcel(pieces, [_report(*one) for one in told["writers"]], [_gone(name) for name in told["gone"]])


def _report(
    writer: Any, is_alive: Any, age_s: Any, dropped: Any, word: Any, is_spilled: Any, *_newer: Any
) -> WriterReport:
    if not isinstance(writer, str) or not _WRITER.fullmatch(writer):
        raise ValueError(f"{writer!r:.80} is no writer")
    if type(is_alive) is not bool or type(is_spilled) is not bool or word not in fmt.END_WORDS:
        raise ValueError("a writer that is neither alive nor gone")
    if type(age_s) not in (int, float) or not 0 <= age_s < 1e9:
        raise ValueError(f"a heartbeat {age_s!r:.20} s old")
    return WriterReport(writer, is_alive, float(age_s), _count(dropped), word, is_spilled)


def _gone(name: Any) -> str:
    if not isinstance(name, str) or kind_of(name) is not Kind.CONSOLE:
        raise ValueError(f"{name!r:.80} is not a file that is given up")
    return name


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _MOST_BYTES:
        raise ValueError(f"{number!r:.40} is no number of bytes")
    return number
