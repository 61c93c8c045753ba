"""What client and server send each other of a run: parcels of pieces. Knows bytes, no HTTP and no files."""

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
"""As much a client puts into one parcel; a server takes twice that."""
MOST_PIECES = 4_096
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


def unpack(body: bytes) -> Parcel:
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
    try:
        told = json.loads(body[_HEAD.size : _HEAD.size + length])
        version = told["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidValue("the head of the parcel is no JSON of this kind") from None
    if version != FORMAT:
        raise FormatError(f"a parcel of format {version!r:.20}; this server knows {FORMAT}: upgrade it")
    try:
        return _parcel(told, body, _HEAD.size + length)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidValue(f"the parcel does not hold what a parcel holds: {error}") from None


def _parcel(told: dict[str, Any], body: bytes, at: int) -> Parcel:
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
        pieces.append(Piece(file, offset, body[at : at + size], end, content))
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
