"""What is new in a file of a run that somebody may be writing, and what of it will not change any more.

Nothing is noted as sent before the other side said that it has it: whatever breaks off is read, and sent, again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runstone.errors import FormatError
from runstone.runlog import format as fmt
from runstone.runlog.portions import SLOT
from runstone.sync.kinds import CONSOLE_END_BYTES, Kind
from runstone.sync.wire import Piece

_CHUNK = 2 << 20
# A frame that is larger, or what stands behind a gap, is not waited for: the comparison at the end sees to it.
_MOST_UNSETTLED_BYTES = 16 << 20


class Growing:
    """A file of which the beginning is on the other side.

    Args:
        path: Of the file.
        kind: How it is written; not `WHOLE`.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        # All before `settled` is there and stays; `tail` is what is there of what lies behind it.
        self._settled = 0
        self._tail = b""
        self._salt = b""
        self._capacity = 0

    @property
    def sent(self) -> int:
        """How many bytes are on the other side."""
        return self._settled + len(self._tail)

    def next(self, most: int, *, is_last: bool = False) -> tuple[Piece | None, bool]:
        """Return what is new, at most so many bytes, and whether there is more.

        Args:
            most: Bytes.
            is_last: All writers have ended: what is not whole now never will be.
        """
        most = max(fmt.SLOT_BYTES, min(most, _CHUNK))
        if self._capacity and self._settled >= self._capacity:
            return None, False  # a segment that is full
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None, False
        try:
            size = os.fstat(fd).st_size
            if self._kind is Kind.SLOTS:
                data, has_more = self._slots(fd, most, is_last=is_last)
            else:
                if size == self.sent and not self._tail:
                    return None, False
                wanted = len(self._tail) + most
                data = os.pread(fd, wanted, self._settled)
                has_more = len(data) == wanted and self._settled + wanted < size
        finally:
            os.close(fd)
        if self._kind is Kind.JOURNAL:
            # a line that is longer than what is sent at once goes in parts
            data = data[: data.rfind(b"\n") + 1] or (data if len(data) == wanted else b"")
        elif self._kind is Kind.KEYS:
            data = data[: fmt.unpack_keys(data).end]
        changed = _first_difference(self._tail, data)
        is_cut = self._kind is Kind.CONSOLE and len(data) < len(self._tail)
        if changed == len(data) and not is_cut:
            return None, False
        end = self._settled + len(data) if is_cut else None
        return Piece(self._path.name, self._settled + changed, data[changed:], end), has_more

    def took(self, piece: Piece) -> None:
        """Note that the other side has a piece that `next` returned last."""
        data = self._tail[: piece.offset - self._settled] + piece.data
        settled = self._settled_bytes(data)
        if len(data) - settled > _MOST_UNSETTLED_BYTES:
            settled = len(data) // fmt.SLOT_BYTES * fmt.SLOT_BYTES
        self._settled += settled
        self._tail = data[settled:]

    def resume(self, size: int, prefix_hash: str, hashed: Callable[[Growing, int], str]) -> bool:
        """Go on behind what the other side has, if that is what is here; else begin anew. Return whether it goes on.

        Args:
            size: Bytes there.
            prefix_hash: Their BLAKE3.
            hashed: Returns that of as many bytes here, as they would be sent.
        """
        self._settled, self._tail = 0, b""
        if not size or hashed(self, size) != prefix_hash:
            return False
        if self._kind is Kind.SLOTS:
            self._settled = size
            return True
        # The end of it may have been in the making: it is looked at again.
        kept = min(size, CONSOLE_END_BYTES) if self._kind is Kind.CONSOLE else 0
        self._settled = size - kept
        if kept:
            with self._path.open("rb") as file:
                file.seek(self._settled)
                self._tail = file.read(kept)
        return True

    def prefix(self, size: int) -> tuple[int, str]:
        """Return how many of the first `size` bytes are here, as they would be sent, and their BLAKE3."""
        from blake3 import blake3  # only where files are compared

        hasher, at = blake3(), 0
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return 0, hasher.hexdigest()
        try:
            salt = os.pread(fd, fmt.HEADER_BYTES, 0)[24:28] if self._kind is Kind.SLOTS else b""
            while at < size:
                data = os.pread(fd, min(_CHUNK, size - at), at)
                if not data:
                    break
                hasher.update(_whole_slots(data, at, salt) if salt else data)
                at += len(data)
        finally:
            os.close(fd)
        return at, hasher.hexdigest()

    def end(self) -> int:
        """Return where what can be sent of the file ends: of a log that nobody writes to any more."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return 0
        try:
            size = os.fstat(fd).st_size
            if self._kind is Kind.JOURNAL:
                data = os.pread(fd, size, 0)
                return data.rfind(b"\n") + 1
            if self._kind is Kind.KEYS:
                return fmt.unpack_keys(os.pread(fd, size, 0)).end
            if self._kind is Kind.SLOTS:
                data = os.pread(fd, size, 0)
                header = fmt.unpack_header(data[: fmt.HEADER_BYTES])
                if header is None or not header.salt:
                    return 0
                salt = header.salt
                slots = np.frombuffer(data, SLOT, (size - fmt.HEADER_BYTES) // fmt.SLOT_BYTES, fmt.HEADER_BYTES)
                used = np.flatnonzero(slots["commit"] == salt)
                return fmt.HEADER_BYTES + (int(used[-1]) + 1 if len(used) else 0) * fmt.SLOT_BYTES
            return size
        except FormatError:
            return 0
        finally:
            os.close(fd)

    def _slots(self, fd: int, most: int, *, is_last: bool) -> tuple[bytes, bool]:
        """Return header and slots behind `settled`; one that is not whole is zero."""
        if not self._salt:
            header = os.pread(fd, fmt.HEADER_BYTES, 0)
            told = fmt.unpack_header(header) if len(header) == fmt.HEADER_BYTES else None
            if told is None or not told.salt:
                return b"", False
            self._salt = header[24:28]
            self._capacity = fmt.HEADER_BYTES + told.slots * fmt.SLOT_BYTES
        first = max(self._settled, fmt.HEADER_BYTES)
        wanted = (len(self._tail) + most) // fmt.SLOT_BYTES * fmt.SLOT_BYTES
        if not self._tail and self._settled and os.pread(fd, 4, first + 28) in (b"", b"\0\0\0\0"):
            # most looks find nothing new: one slot tells, but for a gap, which is looked behind at the end
            wanted = min(wanted, 64 * fmt.SLOT_BYTES)
        salt = int.from_bytes(self._salt, "little")
        # Two reads: a slot that was whole in the first is copied by the second, after it was whole.
        seen = os.pread(fd, wanted, first)
        whole = np.frombuffer(seen, SLOT, len(seen) // fmt.SLOT_BYTES)["commit"] == salt
        used = np.flatnonzero(whole)
        count = int(used[-1]) + 1 if len(used) else 0
        data = bytearray(os.pread(fd, count * fmt.SLOT_BYTES, first))
        if not whole[:count].all():
            np.frombuffer(data, SLOT)[~whole[:count]] = np.zeros((), SLOT)
        if self._settled == 0:
            if not count and not is_last:
                return b"", False  # a segment that is in reserve
            return os.pread(fd, fmt.HEADER_BYTES, 0) + bytes(data), count * fmt.SLOT_BYTES == wanted
        return bytes(data), bool(count) and count * fmt.SLOT_BYTES == wanted

    def _settled_bytes(self, data: bytes) -> int:
        """Return how many bytes from the first will not change any more."""
        match self._kind:
            case Kind.SLOTS:
                start = fmt.HEADER_BYTES if self._settled == 0 else 0
                commits = np.frombuffer(data, SLOT, (len(data) - start) // fmt.SLOT_BYTES, start)["commit"]
                holes = np.flatnonzero(commits == 0)
                return start + (int(holes[0]) if len(holes) else len(commits)) * fmt.SLOT_BYTES
            case Kind.SIDE:
                at = 0
                while (payload := fmt.unpack_side(data, at)) is not None:
                    at += fmt.side_length(data[at : at + 8])
                    del payload
                return at
            case Kind.CONSOLE:
                return max(0, len(data) - CONSOLE_END_BYTES)
        return len(data)


def _whole_slots(data: bytes, at: int, salt: bytes) -> bytes:
    """Return bytes of a log with zeros for slots that are not whole."""
    start = max(0, fmt.HEADER_BYTES - at)
    if start >= len(data):
        return data
    kept = bytearray(data)
    count = (len(data) - start) // fmt.SLOT_BYTES
    slots = np.frombuffer(kept, SLOT, count, start)
    slots[slots["commit"] != int.from_bytes(salt, "little")] = np.zeros((), SLOT)
    return bytes(kept)


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
