"""Sends what a trial records, while it does: each byte once, as soon as it is there. For the worker.

The folder of the run lies in a workspace of the worker's own. Its files are read as any reader reads them, without a
lock and without help of the writer.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from runstone_sweeps.workers.messages import DATA_BYTES
from runstone_sweeps.workers.runfiles import (
    HASH,
    HEADER_BYTES,
    SLOT_BYTES,
    STATUS_BYTES,
    Kind,
    kind_of,
    names_in,
    writer_of,
)

_SALT = struct.Struct("<I")
_SALT_AT, _COMMIT_AT = 24, 28
_FRAME = struct.Struct("<II")
_EMPTY_CRC = 0xFFFFFFFF
_READ_BYTES = 1 << 20
# What may still change behind a gap, and the end of a console.
_MOST_UNSETTLED_BYTES = 1 << 20
_CONSOLE_END_BYTES = 1 << 16


class Piece(NamedTuple):
    """Bytes of a file, to be written where they belong.

    Attributes:
        name: Of the file, in the folder of the run.
        offset: Where they belong.
        data: The bytes.
        end: What the file is to be cut to behind them, or where it is whole and may take its place; `None`: neither.
    """

    name: str
    offset: int
    data: bytes
    end: int | None = None


class _Growing:
    """A file that grows, of which an end may still change."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        # All before `settled` is sent and will not change; `tail` is what was sent of what lies behind it.
        self._settled = 0
        self._tail = b""
        # Where a gap was given up on: what lies there is looked at again at the end.
        self._gap: int | None = None

    def pieces(self, *, is_last: bool = False) -> Iterator[Piece]:
        """Yield what is new."""
        if is_last and self._gap is not None:
            self._settled, self._tail, self._gap = min(self._gap, self._settled), b"", None
        while True:
            before = self._settled
            data, is_all = self._read()
            changed = _first_difference(self._tail, data)
            is_cut = is_all and len(data) < len(self._tail) and self._kind is Kind.CONSOLE
            if changed < len(data) or is_cut:
                end = before + len(data) if is_cut else None
                yield Piece(self._path.name, before + changed, data[changed:], end)
            self._tail = data
            self._settle(data, is_all=is_all)
            if is_all or self._settled == before:
                return

    def check(self, size: int, crc: int) -> None:
        """Take note of what the other side has: go on behind it, or start over where it is something else."""
        self._settled, self._tail, self._gap = 0, b"", None
        found, length = 0, 0
        while length < size:
            before = self._settled
            data, is_all = self._read()
            data = data[: size - before]
            fresh = data[length - before :]
            found, length = zlib.crc32(fresh, found), length + len(fresh)
            self._tail = data
            self._settle(data, is_all=is_all)
            if not fresh or (self._settled == before and length < size):
                break
        if (length, found) != (size, crc):
            self._settled, self._tail = 0, b""

    def _settle(self, data: bytes, *, is_all: bool) -> None:
        settled = _settled_bytes(self._kind, data, is_header=self._settled == 0)
        if (not is_all and settled == 0) or len(data) - settled > _MOST_UNSETTLED_BYTES:
            self._gap = self._settled + settled if self._gap is None else self._gap
            settled = len(data) // SLOT_BYTES * SLOT_BYTES
        self._settled += settled
        self._tail = self._tail[settled:]

    def _read(self) -> tuple[bytes, bool]:
        """Return what lies behind `settled`, a limited part of it, and whether that is all."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return self._tail, True
        try:
            size = os.fstat(fd).st_size
            if self._kind is Kind.SLOTS:
                data = self._read_slots(fd)
            elif size == self._settled and self._kind is not Kind.CONSOLE:
                return b"", True
            else:
                data = os.pread(fd, _READ_BYTES, self._settled)
            return data, self._settled + len(data) >= size or len(data) < _READ_BYTES
        finally:
            os.close(fd)

    def _read_slots(self, fd: int) -> bytes:
        """Return header and slots; a slot that is not whole is zero, and so nothing behind the last whole one."""
        header = os.pread(fd, HEADER_BYTES, 0)
        if len(header) < HEADER_BYTES or not any(header[_SALT_AT : _SALT_AT + 4]):
            return b""
        salt = header[_SALT_AT : _SALT_AT + _SALT.size]
        first = max(self._settled, HEADER_BYTES)
        size = min(_READ_BYTES, 1 << 14 if len(self._tail) < 1 << 13 else _READ_BYTES)
        slots = b""
        while True:
            # Two reads: a slot that was whole in the first is copied by the second, after it was whole.
            seen = os.pread(fd, size, first)
            count = len(seen) // SLOT_BYTES
            whole = [seen[at : at + 4] == salt for at in range(_COMMIT_AT, count * SLOT_BYTES, SLOT_BYTES)]
            used = next((number + 1 for number in range(count - 1, -1, -1) if whole[number]), 0)
            if used == count and size < _READ_BYTES and count:
                size = _READ_BYTES
                continue
            slots = os.pread(fd, used * SLOT_BYTES, first)
            break
        if not all(whole[:used]):
            kept = bytearray(slots)
            for number in range(used):
                if not whole[number]:
                    kept[number * SLOT_BYTES : (number + 1) * SLOT_BYTES] = bytes(SLOT_BYTES)
            slots = bytes(kept)
        return header + slots if self._settled == 0 else slots


def _settled_bytes(kind: Kind, data: bytes, *, is_header: bool) -> int:
    """Return how many bytes from the first will not change any more."""
    match kind:
        case Kind.SLOTS:
            at = HEADER_BYTES if is_header else 0
            if len(data) < at:
                return 0
            while at < len(data) and any(data[at + _COMMIT_AT : at + SLOT_BYTES]):
                at += SLOT_BYTES
            return min(at, len(data))
        case Kind.SIDE:
            at = 0
            while at + _FRAME.size <= len(data):
                length, crc = _FRAME.unpack_from(data, at)
                end = at + _FRAME.size + length
                if end > len(data):
                    break
                payload = data[at + _FRAME.size : end]
                if crc != (zlib.crc32(payload) if payload else _EMPTY_CRC):
                    break
                at = end
            return at
        case Kind.CONSOLE:
            return max(0, len(data) - _CONSOLE_END_BYTES)
    return len(data)


def _first_difference(before: bytes, after: bytes) -> int:
    """Return up to where both are equal."""
    shorter = min(len(before), len(after))
    if before[:shorter] == after[:shorter]:
        return shorter
    low, high = 0, shorter
    while high - low > 1:
        middle = (low + high) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle
    return low


class RunShipper:
    """Finds what is new in the folder of one run.

    Args:
        folder: Of the run, on this host.
        foreign: Writers whose files came from the other side.
    """

    def __init__(self, folder: Path, foreign: frozenset[str]) -> None:
        self._folder = folder
        self._foreign = foreign
        self._growing: dict[str, _Growing] = {}
        self._whole: dict[str, tuple[int, int, int]] = {}
        self._status: dict[str, bytes] = {}
        for name in names_in(folder):
            if kind_of(name) is Kind.WHOLE:  # came from the other side
                self._whole[name] = _identity(folder / name)

    def poll(self, *, is_last: bool = False) -> tuple[list[Piece], list[str]]:
        """Return what is new, in the order in which it must arrive, and the files that are gone.

        Args:
            is_last: All processes of the trial have ended.
        """
        found: list[list[Piece]] = []
        names = sorted(
            (name for name in names_in(self._folder) if writer_of(name) not in self._foreign),
            key=lambda name: kind_of(name).value,  # type: ignore[union-attr]  # `names_in` has only such
            reverse=True,  # what arrives last is read first
        )
        for name in names:
            found.append(list(self._pieces(name, is_last=is_last)))
        known = {name for name in self._growing if kind_of(name) is not Kind.JOURNAL}
        gone = sorted(known.difference(names))
        for name in gone:
            del self._growing[name]
        return [piece for pieces in reversed(found) for piece in pieces], gone

    def check(self, there: Mapping[str, tuple[int, int]]) -> None:
        """Take note of what the other side has of each file: its size and CRC-32; what differs is sent again."""
        self._status.clear()
        for name in names_in(self._folder):
            kind, path = kind_of(name), self._folder / name
            if kind is Kind.WHOLE:
                if there.get(name) != file_sum(path):
                    self._whole.pop(name, None)
            elif kind not in (Kind.STATUS, None) and writer_of(name) not in self._foreign:
                self._growing.setdefault(name, _Growing(path, kind)).check(*there.get(name, (0, 0)))

    def _pieces(self, name: str, *, is_last: bool) -> Iterator[Piece]:
        kind, path = kind_of(name), self._folder / name
        assert kind is not None  # noqa: S101  # for the type checker: `names_in` has only such
        match kind:
            case Kind.WHOLE:
                identity = _identity(path)
                if self._whole.get(name) != identity:
                    self._whole[name] = identity
                    yield from _whole_file(path)
            case Kind.STATUS:
                with contextlib.suppress(OSError), path.open("rb") as file:
                    data = file.read(STATUS_BYTES)
                    if data and self._status.get(name) != data:
                        self._status[name] = data
                        yield Piece(name, 0, data)
            case _:
                if name not in self._growing:
                    self._growing[name] = _Growing(path, kind)
                for piece in self._growing[name].pieces(is_last=is_last):
                    yield from _cut(piece)


def _cut(piece: Piece) -> Iterator[Piece]:
    """Yield a piece as several that are not too long for a message."""
    if len(piece.data) <= DATA_BYTES:
        yield piece
        return
    for start in range(0, len(piece.data), DATA_BYTES):
        data = piece.data[start : start + DATA_BYTES]
        is_end = start + DATA_BYTES >= len(piece.data)
        yield Piece(piece.name, piece.offset + start, data, piece.end if is_end else None)


def file_sum(path: Path) -> tuple[int, int]:
    """Return size and CRC-32 of a file; of one that is not there, those of an empty one."""
    size = crc = 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            size, crc = size + len(data), zlib.crc32(data, crc)
    return size, crc


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _whole_file(path: Path) -> Iterator[Piece]:
    """Yield a file that was renamed into its place, from one open file: another may take that place meanwhile."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while True:
            data = file.read(DATA_BYTES)
            is_end = offset + len(data) >= size or not data
            yield Piece(path.name, offset, data, offset + len(data) if is_end else None)
            offset += len(data)
            if is_end:
                return


class BlobShipper:
    """Sends the files that a trial stored by their content, one after the other, those that the other side lacks.

    Args:
        folder: `blobs` of the worker's workspace for the trial.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: dict[str, str] = {}
        self._sending: tuple[str, int] | None = None
        self._offer: Callable[[str, int], None] | None = None
        self._send: Callable[[str, int, int, bytes], None] | None = None

    def through(self, *, offer: Callable[[str, int], None], send: Callable[[str, int, int, bytes], None]) -> None:
        """Go on through a connection.

        Args:
            offer: Asks the other side whether it wants one, by hash and size.
            send: Sends a part of one: hash, offset, size, bytes.
        """
        self._offer, self._send = offer, send

    @property
    def is_done(self) -> bool:
        """Whether the other side has all that was found."""
        return all(state == "there" for state in self._states.values())

    def look(self) -> None:
        """Offer what is new."""
        for path in self._folder.glob("??/*"):
            if self._offer is not None and path.name not in self._states and HASH.fullmatch(path.name):
                self._states[path.name] = "offered"
                self._offer(path.name, path.stat().st_size)

    def answered(self, content_hash: str, answer: str) -> None:
        """Take note of whether the other side has it (`there`) or wants it (`wanted`)."""
        if content_hash in self._states:
            self._states[content_hash] = answer

    def again(self) -> None:
        """Offer all again that the other side did not say to have: the connection is a new one."""
        self._states = {name: state for name, state in self._states.items() if state == "there"}
        self._sending = None

    def step(self) -> bool:
        """Send one part; return whether there was one."""
        if self._sending is None:
            wanted = next((name for name, state in self._states.items() if state == "wanted"), None)
            if wanted is None or self._send is None:
                return False
            self._sending = wanted, 0
            self._states[wanted] = "sent"
        name, offset = self._sending
        with (self._folder / name[:2] / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = os.pread(file.fileno(), DATA_BYTES, offset)
        if self._send is not None:
            self._send(name, offset, size, data)
        offset += len(data)
        self._sending = (name, offset) if offset < size and data else None
        return True
