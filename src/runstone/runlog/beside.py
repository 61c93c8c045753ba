"""The files beside the slots of one writer: names of its metrics, and the bytes of what fits into no slot."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runstone.names import check_name
from runstone.runlog import format as fmt
from runstone.runlog.scalars import kind_of, to_scalar, to_text

if TYPE_CHECKING:
    from runstone.runlog.spill import Spill


class KeyTable:
    """The names of one writer's metrics and their ids. A name of another type has another id."""

    def __init__(self, directory: int, writer_hex: str, before_first: Callable[[], None], spill: Spill) -> None:
        self._directory = directory
        self._spill = spill
        self._lock = spill.lock
        self._before_first = before_first
        self._file = f"{writer_hex}.keys"
        self._fd: int | None = None
        self._next = itertools.count(1)
        self.ids: tuple[dict[str, int], ...] = tuple({} for _kind in range(fmt.TYPES))
        """Ids by name, one dict for each type."""

    def add(self, name: object, kind: int) -> int:
        """Return the id of a name, written to the file before it is first used.

        Raises:
            InvalidName: the name cannot be kept.
            OSError: it could not be written.
        """
        name = check_name(name, "metric")
        with self._lock:
            known = self.ids[kind].get(name)
            if known is not None:
                return known
            if self._fd is None:
                self._before_first()
            key = next(self._next)
            record = fmt.pack_key(key, kind, name)
            try:
                if self._fd is None:
                    # not exclusive: a signal handler that logs may stand between this line and the one before
                    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
                    self._fd = os.open(self._file, flags, 0o644, dir_fd=self._directory)
                write_whole(self._fd, record)
            except OSError as error:
                self._spill.put("keys", record, error)
            self.ids[kind][name] = key
            return key

    def sync(self) -> None:
        """Bring the names to the disk."""
        fd = self._fd
        if fd is not None:
            os.fdatasync(fd)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file without the lock, which a thread that a fork left behind may hold for ever."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class SideFile:
    """Texts and records of one writer: a slot holds where each begins. What `put` returned survives `kill -9`."""

    def __init__(self, directory: int, writer_hex: str, before_first: Callable[[], None], spill: Spill) -> None:
        self._directory = directory
        self._spill = spill
        self._lock = spill.lock
        self._before_first = before_first
        self._file = f"{writer_hex}.blob"
        self._fd: int | None = None
        self._end = 0
        self._is_closed = False

    def put(self, payload: bytes) -> int:
        """Keep bytes and return the offset at which their frame begins.

        Raises:
            OSError: the disk refuses. What may be there in part has an offset that no slot will name.
        """
        frame = fmt.pack_side(payload)
        size, is_kept = len(frame), False
        with self._lock:
            if self._fd is None and not self._is_closed:
                self._before_first()
            # A signal handler that logs may stand at every call, so the place is taken in one step without a call.
            offset, self._end = self._end, self._end + size
            try:
                try:
                    if os.pwrite(self._fd if self._fd is not None else self._open(), frame, offset) != size:
                        raise OSError(errno.ENOSPC, "No space left on device")
                except OSError as error:
                    self._spill.put_frame(offset, frame, error)
                is_kept = True
            finally:
                if not is_kept and self._end == offset + size:
                    self._end = offset
        return offset

    def _open(self) -> int:
        if self._is_closed:
            raise OSError(errno.EBADF, "the metric log is closed")
        # not O_APPEND: with it, Linux would not write at the offset that it is given
        fd = os.open(self._file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=self._directory)
        if self._fd is None:
            self._fd = fd
            return fd
        os.close(fd)  # a signal handler that logs was here
        return self._fd

    def sync(self) -> None:
        """Bring what was put to the disk."""
        fd = self._fd
        if fd is not None:
            os.fdatasync(fd)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._is_closed = True
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file without the lock; see `KeyTable.abandon`."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Beside:
    """Both files of one writer. Turns a name and a value into what a slot holds."""

    def __init__(self, directory: int, writer_hex: str, before_first: Callable[[], None], spill: Spill) -> None:
        self.keys = KeyTable(directory, writer_hex, before_first, spill)
        self.side = SideFile(directory, writer_hex, before_first, spill)

    def encode(self, name: Any, value: Any) -> tuple[int, float | int, int]:
        """Return key type, number and key of one value; what belongs beside the slot is there before.

        Raises:
            InvalidName, InvalidValue: it cannot be kept.
            OSError: the disk refuses.
        """
        number: float | int
        if isinstance(value, str):
            kind, text = fmt.TYPE_STRING, to_text(name, value)
            key = self.keys.ids[kind].get(name) or self.keys.add(name, kind)
            return kind, self.side.put(text), key
        kind, number = kind_of(to_scalar(name, value))
        return kind, number, self.keys.ids[kind].get(name) or self.keys.add(name, kind)

    def encode_record(self, name: str, record: dict[str, Any]) -> tuple[int, int]:
        """Return number and key of one record; raises as `encode` does."""
        key = self.keys.ids[fmt.TYPE_RECORD].get(name) or self.keys.add(name, fmt.TYPE_RECORD)
        return self.side.put(fmt.pack_record(record)), key

    def sync(self) -> None:
        """Bring both to the disk, before the slots that point here."""
        self.keys.sync()
        self.side.sync()

    def close(self) -> None:
        """Let go of both."""
        self.keys.close()
        self.side.close()

    def abandon(self) -> None:
        """Let go of both in a forked child, without a lock."""
        self.keys.abandon()
        self.side.abandon()


def write_whole(fd: int, data: bytes) -> None:
    """Append all of `data` or nothing: a short write (a full disk) is cut off again, so that no torn record stays."""
    written = os.write(fd, data)
    if written == len(data):
        return
    with contextlib.suppress(OSError):
        os.ftruncate(fd, os.fstat(fd).st_size - written)
    raise OSError(errno.ENOSPC, "No space left on device")
