"""The metric log of one writer, appended: one `write(2)` a call, the bytes of mapped segments, any file system."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runstone.names import check_name
from runstone.runlog import format as fmt
from runstone.runlog.beside import Beside, write_whole
from runstone.runlog.handle import NO_SEGMENT
from runstone.runlog.pending import Pending
from runstone.runlog.scalars import check_name_and_step, flatten_metrics, step_error
from runstone.runlog.segments import SegmentFile, SegmentFiles
from runstone.runlog.spill import Spill

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
        spill: Spill | None = None,
    ) -> None:
        self.dropped = 0
        self.current = NO_SEGMENT
        self.clock = clock
        self._wake = wake
        self._spill = spill if spill is not None else Spill(directory, writer.hex())
        self._lock = self._spill.lock
        self._files = SegmentFiles(directory, writer, self._spill, is_reserved=False)
        self._beside = Beside(directory, writer.hex(), before_first, self._spill)
        self.float_ids = self._beside.keys.ids[fmt.TYPE_FLOAT]  # see MappedPoints
        self._pending = Pending(self._count_dropped, wake, self._lock)
        self._file: SegmentFile | None = None
        self._left = 0
        self._retired: list[SegmentFile] = []
        self._is_closed = False
        self._is_deleted = False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`; raises as `MappedPoints.log` does."""
        wall = self.clock()
        ids = self.float_ids
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
        if kind == fmt.TYPE_FLOAT and name not in self.float_ids:
            with self._lock:
                if name not in self._pending.waiting:
                    self.float_ids[name] = key
        return _FLOAT_BYTES if kind == fmt.TYPE_FLOAT else _INT_BYTES, number, key

    def _append(self, points: list[_Packed], step: int, wall: float) -> None:
        try:
            with self._lock:
                # A signal handler that logs may go to the next file meanwhile; this one stays open until `tend`.
                file = self._open(len(points))
                try:
                    write_whole(file.fd, _slots(points, step, wall, file.salt))
                except OSError as error:
                    self._write_elsewhere(file, error, len(points), functools.partial(_slots, points, step, wall))
        except OSError:
            self._count_dropped(len(points))
            raise
        except struct.error:
            raise step_error(step) from None

    def _write_elsewhere(
        self, file: SegmentFile, refusal: OSError, count: int, slots_for: Callable[[int], bytes]
    ) -> None:
        """Append slots that a file refused to one in the other place; raises `refusal` where there is none."""
        slots = max(fmt.MOST_SLOTS, count)
        self._go_on_in(self._files.make_elsewhere(slots, count, refusal, is_spilled=not file.is_spilled))
        other = self._open(count)
        write_whole(other.fd, slots_for(other.salt))

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Keep a JSON object at `step`; raises as `log` does."""
        wall = self.clock()
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

        wall = self.clock()
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
                    file = self._open(len(slots))
                    try:
                        write_whole(file.fd, _committed(slots, file.salt))
                    except OSError as error:
                        self._write_elsewhere(file, error, len(slots), functools.partial(_committed, slots))
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
            if name in self.float_ids or self.float_ids is self._beside.keys.ids[fmt.TYPE_FLOAT]:
                ids = dict(self.float_ids)  # a copy: threads stand in the middle of look-ups
                ids.pop(name, None)
                self.float_ids = ids

    def _count_dropped(self, count: int) -> None:
        with self._lock:
            self.dropped += count

    def _open(self, count: int) -> SegmentFile:
        """Return a file with room for so many slots, which are the caller's from now on."""
        if self._is_deleted:
            raise OSError(errno.ENOENT, "the files of the run were deleted")
        if self._is_closed:
            raise OSError(errno.EBADF, "the metric log is closed")
        while (file := self._file) is None or self._left < count:  # again where a signal handler took what was made
            self._go_on_in(self._files.make(max(fmt.MOST_SLOTS, count), count))
        self._left -= count
        return file

    def _go_on_in(self, file: SegmentFile) -> None:
        before = self._file
        self._file, self._left = file, file.slots
        if before is not None:
            self._retired.append(before)

    def tend(self) -> None:
        """Let go of the files that are full, bring home what was spilled. Appending needs no segment ahead."""
        self._pending.drain()
        is_out = self._file is not None and self._file.is_spilled
        file = self._files.come_home(fmt.MOST_SLOTS, fmt.MOST_SLOTS, is_out=is_out)
        self._count_dropped(self._spill.take_lost())
        with self._lock:
            if file is not None and not self._is_closed:
                self._go_on_in(file)
            retired, self._retired = self._retired, []
        for full in retired:
            self._let_go(full)
        if file is not None:
            self._wake()  # to bring home what it went on from

    def _let_go(self, file: SegmentFile, *, is_synced: bool = True) -> None:
        slots = max(0, os.fstat(file.fd).st_size - fmt.HEADER_BYTES) // fmt.SLOT_BYTES
        self._files.let_go(file, slots, is_synced=is_synced)

    def sync(self) -> None:
        """Bring what was logged to the disk."""
        self._beside.sync()
        with self._lock:
            file = self._file
            fd = os.dup(file.fd) if file is not None else None
        if file is not None and fd is not None:
            try:
                os.fdatasync(fd)  # outside the lock: a log call must not wait for the disk
                stat = os.fstat(fd)
            finally:
                os.close(fd)
            if stat.st_nlink == 0:
                self._leave(file, stat.st_size)

    def _leave(self, file: SegmentFile, size_bytes: int) -> None:
        """Give up where a file was deleted under us: nobody will read it, so its points are lost."""
        with self._lock:
            if self._file is file:
                self._retired.append(file)
                self._file = None
            self._is_deleted = not file.is_spilled
            if self._is_deleted:  # else they are counted when they are to be brought home
                self.dropped += max(0, size_bytes - fmt.HEADER_BYTES) // fmt.SLOT_BYTES + self._files.count_deleted()

    def close(self) -> None:
        """Let go of the files."""
        self._pending.flush(0.0)
        with self._lock:
            self._is_closed = True
            self._beside.close()
            for file in (*self._retired, self._file):
                if file is not None:
                    self._let_go(file, is_synced=False)
            self._retired, self._file = [], None
            self._spill.close()
            self._count_dropped(self._spill.take_lost() + (0 if self._is_deleted else self._files.count_deleted()))

    def abandon(self) -> None:
        """Let go of inherited files in a forked child."""
        for file in (*self._retired, self._file):
            if file is not None:
                with contextlib.suppress(OSError):
                    os.close(file.fd)
        self._beside.abandon()
        self._spill.abandon()


def _slots(points: list[_Packed], step: int, wall: float, salt: int) -> bytes:
    return b"".join([pack(step, wall, value, key, salt) for pack, value, key in points])


def _committed(slots: Any, salt: int) -> bytes:
    slots["commit"] = salt
    return bytes(slots.tobytes())
