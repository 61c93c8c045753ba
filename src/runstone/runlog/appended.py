"""The metric log of one writer, appended: one `write(2)` a call, the bytes of mapped segments, any file system."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runstone.names import check_name
from runstone.runlog import format as fmt
from runstone.runlog.beside import Beside, write_whole
from runstone.runlog.filesystem import RETRY_S
from runstone.runlog.pending import Pending
from runstone.runlog.scalars import check_name_and_step, flatten_metrics, step_error

if TYPE_CHECKING:
    from runstone.runlog.columns import Columns

_FLOAT_BYTES = fmt.FLOAT_SLOT.pack
_INT_BYTES = fmt.INT_SLOT.pack

_Packed = tuple[Callable[..., bytes], float | int, int]
"""How a slot is packed, its number and its key."""


class AppendedPoints:
    """Points appended with one `write(2)` a call: the same bytes as `MappedPoints`, for any file system."""

    def __init__(
        self,
        directory: int,
        writer: bytes,
        *,
        clock: Callable[[], float] = time.time,
        wake: Callable[[], None] = lambda: None,
        before_first: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped = 0
        self._directory = directory
        self._writer = writer
        self._clock = clock
        self._beside = Beside(directory, writer.hex(), before_first)
        self._float_ids = self._beside.keys.ids[fmt.TYPE_FLOAT]  # see MappedPoints
        self._pending = Pending(self._count_dropped, wake)
        self._lock = threading.RLock()
        self._seq = itertools.count()
        self._fd: int | None = None
        self._retired: list[int] = []
        self._salt = 0
        self._left = 0
        self._retry_at = 0.0
        self._is_closed = False
        self._is_deleted = False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`; raises as `MappedPoints.log` does."""
        wall = self._clock()
        ids = self._float_ids
        first: Exception | None = None
        points: list[_Packed] = []
        for name, value in metrics.items():
            if value.__class__ is float and name in ids:
                points.append((_FLOAT_BYTES, value, ids[name]))
                continue
            for inner, item in flatten_metrics({name: value}) if isinstance(value, Mapping) else ((name, value),):
                try:
                    if not self._must_wait(inner, item, step, wall):
                        points.append(self._pack(inner, item))
                except Exception as error:  # see MappedPoints.log
                    first = first or error
        if points:
            self._append(points, step, wall)
        if first is not None:
            raise first

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value; raises as `log` does."""
        self.log({name: value}, step)

    def _must_wait(self, name: Any, value: Any, step: int, wall: float) -> bool:
        """Put a value in line where it is on a GPU, or where one of its metric is before it."""
        pending = self._pending
        if type(value) not in pending.host_types and pending.is_on_gpu(value):
            check_name_and_step(name, step)
            pending.add(name, value, functools.partial(self._append_one, name, step, wall))
            self._take_off(name)
            return True
        return name in pending.waiting and pending.put_behind(
            name, value, functools.partial(self._append_one, name, step, wall)
        )

    def _append_one(self, name: Any, step: int, wall: float, value: Any) -> None:
        self._append([self._pack(name, value)], step, wall)

    def _pack(self, name: Any, value: Any) -> _Packed:
        try:
            kind, number, key = self._beside.encode(name, value)
        except OSError:
            self._count_dropped(1)
            raise
        if kind == fmt.TYPE_FLOAT and name not in self._float_ids:
            with self._lock:
                if name not in self._pending.waiting:
                    self._float_ids[name] = key
        return _FLOAT_BYTES if kind == fmt.TYPE_FLOAT else _INT_BYTES, number, key

    def _append(self, points: list[_Packed], step: int, wall: float) -> None:
        try:
            with self._lock:
                # A signal handler that logs may go to the next file meanwhile; this one stays open until `tend`.
                fd, salt = self._open(len(points))
                write_whole(fd, b"".join([pack(step, wall, value, key, salt) for pack, value, key in points]))
        except OSError:
            self._count_dropped(len(points))
            raise
        except struct.error:
            raise step_error(step) from None

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Keep a JSON object at `step`; raises as `log` does."""
        wall = self._clock()
        check_name_and_step(name, step)
        try:
            number, key = self._beside.encode_record(name, record)
        except OSError:
            self._count_dropped(1)
            raise
        self._append([(_INT_BYTES, number, key)], step, wall)

    def log_series(self, name: str, steps: Any, values: Any) -> int | None:
        """Keep a value for each of many steps; raises as `MappedPoints.log_series` does."""
        from runstone.runlog.columns import to_columns  # NumPy, only for arrays

        wall = self._clock()
        columns = to_columns(check_name(name, "metric"), steps, values)
        write = functools.partial(self._append_columns, name, wall)
        if not self._pending.put_behind(name, columns, write):
            write(columns)
        return int(columns.steps[-1]) if len(columns) else None

    def _append_columns(self, name: str, wall: float, columns: Columns) -> None:
        import numpy as np  # only for arrays

        from runstone.runlog.columns import RAW_SLOT

        keys, done = self._beside.keys, 0
        try:
            key = keys.ids[columns.kind].get(name) or keys.add(name, columns.kind)
            while done < len(columns):
                slots = np.empty(min(len(columns) - done, fmt.MOST_SLOTS), RAW_SLOT)
                stored = columns.fill(slots, done, wall, key)
                with self._lock:
                    fd, slots["commit"] = self._open(len(slots))
                    write_whole(fd, slots.tobytes())
                done = stored
        except OSError:
            self._count_dropped(len(columns) - done)
            raise

    def waiting(self) -> int:
        """Return how many values are still on their way from a GPU, or behind such ones."""
        return len(self._pending)

    def flush(self, timeout_s: float) -> int:
        """Wait for values from a GPU, and keep them; return how many did not come in time and are lost."""
        return self._pending.flush(timeout_s)

    def _take_off(self, name: Any) -> None:
        """Take a metric off the names whose floats are stored at once: they may have to wait in line."""
        with self._lock:
            if name in self._float_ids or self._float_ids is self._beside.keys.ids[fmt.TYPE_FLOAT]:
                ids = dict(self._float_ids)  # a copy: threads stand in the middle of look-ups
                ids.pop(name, None)
                self._float_ids = ids

    def _count_dropped(self, count: int) -> None:
        with self._lock:
            self.dropped += count

    def _open(self, count: int) -> tuple[int, int]:
        """Return descriptor and salt of a file with room for so many slots, which are the caller's from now on."""
        if self._is_deleted:
            raise OSError(errno.ENOENT, "the files of the run were deleted")
        if self._is_closed:
            raise OSError(errno.EBADF, "the metric log is closed")
        while self._fd is None or self._left < count:  # again where a signal handler took what was just made
            self._next_file(count)
        self._left -= count
        return self._fd or 0, self._salt

    def _next_file(self, count: int) -> None:
        if time.monotonic() < self._retry_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        seq = next(self._seq)
        salt = int.from_bytes(os.urandom(4)) or 1
        name = f"{self._writer.hex()}-{seq:08d}.wal"
        slots = max(fmt.MOST_SLOTS, count)
        header = fmt.SegmentHeader(slots, salt, self._writer, seq, os.getpid(), time.time(), time.monotonic())
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(name, flags, 0o644, dir_fd=self._directory)
            try:
                write_whole(fd, fmt.pack_header(header).ljust(fmt.HEADER_BYTES, b"\0"))
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
                raise
        except OSError:
            self._retry_at = time.monotonic() + RETRY_S
            raise
        before = self._fd
        self._fd, self._salt, self._left = fd, salt, slots
        if before is not None:
            self._retired.append(before)

    def tend(self) -> None:
        """Let go of the files that are full, once they are on the disk. Appending needs no segment ahead."""
        self._pending.drain()
        with self._lock:
            retired, self._retired = self._retired, []
        for fd in retired:
            with contextlib.suppress(OSError):
                os.fdatasync(fd)
            os.close(fd)

    def sync(self) -> None:
        """Bring what was logged to the disk."""
        self._beside.sync()
        with self._lock:
            fd = os.dup(self._fd) if self._fd is not None else None
        if fd is not None:
            try:
                os.fdatasync(fd)  # outside the lock: a log call must not wait for the disk
                stat = os.fstat(fd)
            finally:
                os.close(fd)
            if stat.st_nlink == 0:
                self._leave(stat.st_size)

    def _leave(self, size_bytes: int) -> None:
        """Give up where a file was deleted under us: nobody will read it, so its points are lost."""
        with self._lock:
            self._is_deleted = True
            fd, self._fd = self._fd, None
            if fd is not None:
                self.dropped += max(0, size_bytes - fmt.HEADER_BYTES) // fmt.SLOT_BYTES
                self._retired.append(fd)

    def close(self) -> None:
        """Let go of the files."""
        self._pending.flush(0.0)
        with self._lock:
            self._is_closed = True
            self._beside.close()
            self.abandon()

    def abandon(self) -> None:
        """Let go of inherited files in a forked child."""
        for fd in (*self._retired, self._fd):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._retired, self._fd = [], None
        self._beside.abandon()
