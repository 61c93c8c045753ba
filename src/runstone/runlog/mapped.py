"""The metric log of one writer in mapped segments: a point is one store into the page cache.

No lock, no system call, no thread hand-over: a point whose `log` call returned survives `kill -9`, because the pages
belong to the file. Threads need no lock: slot numbers come from `itertools.count`, which is atomic under the GIL. The
slow path (a new name, a full segment) takes one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from runstone.names import check_name
from runstone.runlog import format as fmt
from runstone.runlog.beside import Beside
from runstone.runlog.handle import NO_SEGMENT, Current
from runstone.runlog.pending import Pending
from runstone.runlog.scalars import INT64, check_name_and_step, flatten_metrics, step_error
from runstone.runlog.segments import SegmentFile, SegmentFiles
from runstone.runlog.spill import Spill

if TYPE_CHECKING:
    from runstone.runlog.columns import Columns

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, not in the mmap module of Python 3.11
_PACK_FLOAT = fmt.FLOAT_SLOT.pack_into
_PACK_INT = fmt.INT_SLOT.pack_into


class _Segment(NamedTuple):
    """One mapped file of slots."""

    file: SegmentFile
    current: Current


class MappedPoints:
    """Points stored into mapped segments."""

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
        self.clock = clock
        self._wake = wake
        self._spill = spill if spill is not None else Spill(directory, writer.hex())
        self._lock = self._spill.lock
        self._files = SegmentFiles(directory, writer, self._spill, is_reserved=True)
        self._beside = Beside(directory, writer.hex(), before_first, self._spill)
        # Names whose floats are stored at once: all, until there is a value on a GPU; then a dict of its own, without
        # those that ever had one.
        self.float_ids = self._beside.keys.ids[fmt.TYPE_FLOAT]
        self._int_ids = self._beside.keys.ids[fmt.TYPE_INT]
        self._pending = Pending(self._count_dropped, wake, self._lock)
        self._spare: _Segment | None = None
        self._retired: list[_Segment] = []
        self._is_closed = False
        self._is_deleted = False
        self._is_making = False
        self.current = NO_SEGMENT
        self._segment: _Segment | None = None

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`.

        Raises:
            InvalidName, InvalidValue: a name or a value cannot be kept; the others are.
            OSError: the disk refuses; what is missing is counted in `dropped`.
        """
        clock = self.clock
        wall = clock()
        current = self.current
        memory, next_slot, end, salt = current
        ids = self.float_ids
        int_ids = self._int_ids
        waiting = self._pending.waiting
        items = iter(metrics.items())
        try:
            for name, value in items:
                if value.__class__ is float:
                    try:
                        key = ids[name]  # one look-up, where `in` would be another
                    except KeyError:
                        pass
                    else:
                        offset = next_slot()
                        while offset >= end:
                            current = self._roll(current)
                            memory, next_slot, end, salt = current
                            offset = next_slot()
                        _PACK_FLOAT(memory, offset, step, wall, value, key, salt)
                        continue
                elif value.__class__ is int and name in int_ids and value in INT64 and name not in waiting:
                    offset = next_slot()
                    while offset >= end:
                        current = self._roll(current)
                        memory, next_slot, end, salt = current
                        offset = next_slot()
                    _PACK_INT(memory, offset, step, wall, value, int_ids[name], salt)
                    continue
                # Not the common case: find the type, convert, give a new name its id, open what is nested.
                self._log_slowly(name, value, step, wall)
                ids = self.float_ids
                current = self.current
                memory, next_slot, end, salt = current
        except struct.error:
            raise step_error(step) from None
        except Exception:  # foreign code in a value may raise anything; the first mistake is the one that is told
            with contextlib.suppress(Exception):
                self._log_each(items, step, wall, self._log_slowly)
            raise

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value; raises as `log` does."""
        self.log({name: value}, step)

    def _log_slowly(self, name: Any, value: Any, step: int, wall: float) -> None:
        if type(value) not in self._pending.host_types and isinstance(value, Mapping):
            self._log_each(flatten_metrics({name: value}), step, wall, self._log_scalar)
        else:
            self._log_scalar(name, value, step, wall)

    def _log_each(
        self,
        items: Iterable[tuple[Any, Any]],
        step: int,
        wall: float,
        log_item: Callable[[Any, Any, int, float], None],
    ) -> None:
        """Keep what can be kept of several metrics, then raise the first mistake: it must not cost the others."""
        first: Exception | None = None
        for name, value in items:
            try:
                log_item(name, value, step, wall)
            except struct.error:
                raise
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def _log_scalar(self, name: Any, value: Any, step: int, wall: float) -> None:
        pending = self._pending
        if type(value) not in pending.host_types and pending.is_on_gpu(value):
            check_name_and_step(name, step)
            pending.add(name, value, functools.partial(self._store, name, step, wall))
            self._take_off(name)
        elif name not in pending.waiting or not pending.put_behind(
            name, value, functools.partial(self._store, name, step, wall)
        ):
            self._store(name, step, wall, value)

    def _store(self, name: Any, step: int, wall: float, value: Any) -> None:
        ints = self._beside.keys.ids[fmt.TYPE_INT]
        if type(value) is int and name in ints and value in INT64:
            self._put_slot(_PACK_INT, step, wall, value, ints[name])
            return
        try:
            kind, number, key = self._beside.encode(name, value)
        except OSError:
            self._count_dropped(1)
            raise
        if kind == fmt.TYPE_FLOAT and name not in self.float_ids:
            with self._lock:
                if name not in self._pending.waiting:
                    self.float_ids[name] = key
        self._put_slot(_PACK_FLOAT if kind == fmt.TYPE_FLOAT else _PACK_INT, step, wall, number, key)

    def _put_slot(self, pack: Callable[..., None], step: int, wall: float, number: float | int, key: int) -> None:
        current = self.current
        offset = current[1]()
        while offset >= current[2]:
            current = self._roll(current)
            offset = current[1]()
        pack(current[0], offset, step, wall, number, key, current[3])

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Keep a JSON object at `step`; raises as `log` does."""
        wall = self.clock()
        check_name_and_step(name, step)
        try:
            number, key = self._beside.encode_record(name, record)
        except OSError:
            self._count_dropped(1)
            raise
        self._put_slot(_PACK_INT, step, wall, number, key)

    def log_series(self, name: str, steps: Any, values: Any) -> int | None:
        """Keep a value for each of many steps, all at the present wall time; return the last step.

        Raises:
            InvalidName, InvalidValue: the name, or one of the arrays, cannot be kept; none of the points is.
            OSError: the disk refuses; what is missing is counted in `dropped`.
        """
        from runstone.runlog.columns import to_columns  # NumPy, only for arrays

        wall = self.clock()
        columns = to_columns(check_name(name, "metric"), steps, values)
        write = functools.partial(self._store_columns, name, wall)
        if not self._pending.put_behind(name, columns, write):
            write(columns)
        return int(columns.steps[-1]) if len(columns) else None

    def _store_columns(self, name: str, wall: float, columns: Columns) -> None:
        import numpy as np  # only for arrays

        from runstone.runlog.columns import RAW_SLOT

        key = self._key_of_columns(name, columns)
        done = 0
        while done < len(columns):
            current = self.current
            memory, next_slot, end, salt = current
            capacity = max(0, end - fmt.HEADER_BYTES) // fmt.SLOT_BYTES
            take = min(len(columns) - done, capacity)
            first = capacity
            if take:
                # Many numbers in one call, in which no other thread gets one; those beyond the end mean nothing.
                counter: Iterator[int] = next_slot.__self__  # type: ignore[attr-defined]
                last = next(itertools.islice(counter, take - 1, None))
                first = (last - fmt.HEADER_BYTES) // fmt.SLOT_BYTES - take + 1
            if first >= capacity:
                try:
                    self._roll(current)
                except OSError:
                    self._count_dropped(len(columns) - done - 1)  # one is counted
                    raise
                continue
            slots = np.frombuffer(memory, RAW_SLOT, capacity, fmt.HEADER_BYTES)[first : first + take]
            done = columns.fill(slots, done, wall, key)
            slots["commit"] = salt

    def _key_of_columns(self, name: str, columns: Columns) -> int:
        keys = self._beside.keys
        try:
            return keys.ids[columns.kind].get(name) or keys.add(name, columns.kind)
        except OSError:
            self._count_dropped(len(columns))
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

    def _roll(self, full: Current) -> Current:
        """Go to the next segment; the first thread past the end switches, the others read again.

        Raises:
            OSError: there is none; the one point that the caller holds is counted as dropped.
        """
        with self._lock:
            if self.current is not full:
                return self.current
            # A signal handler that logs may stand at every call below, so each change is one step without a call.
            segment, self._spare = self._spare, None
            if segment is None:
                segment = self._next_segment()
            if self.current is not full:  # such a handler was here
                # Not kept as the spare one: its number is lower than that of the one in use, and numbers tell order.
                if segment.file.is_spilled:
                    self._retired.append(segment)
                else:
                    self._files.remove(segment.file)
                return self.current
            before, self._segment = self._segment, segment
            self.current = segment.current
            if before is not None:
                self._retired.append(before)
            self._wake()
            return self.current

    def _next_segment(self) -> _Segment:
        try:
            if self._is_deleted:
                raise OSError(errno.ENOENT, "the files of the run were deleted")
            if self._is_closed:
                raise OSError(errno.EBADF, "the metric log is closed")
            return self._make_segment()
        except OSError:
            self.dropped += 1
            raise

    def _make_segment(self) -> _Segment:
        # A signal handler that logs in the middle of this makes a small one: a large one takes longer than the next
        # signal may, which would make another, and so on without end.
        slots = fmt.FIRST_SLOTS if self._is_making else fmt.slots_of_segment(self._files.made)
        was_making, self._is_making = self._is_making, True
        try:
            return self._map(self._files.make(slots, fmt.FIRST_SLOTS))
        finally:
            self._is_making = was_making

    def _map(self, file: SegmentFile) -> _Segment:
        size = file.size_bytes
        try:
            memory = mmap.mmap(file.fd, size)
        except BaseException:
            self._files.remove(file)
            raise
        if sys.platform == "linux":
            # page faults are paid here, off the training thread; in pieces, since each holds the GIL
            with contextlib.suppress(OSError, ValueError):
                for offset in range(0, size, 1 << 18):
                    memory.madvise(_POPULATE_WRITE, offset, min(1 << 18, size - offset))
        next_slot = itertools.count(fmt.HEADER_BYTES, fmt.SLOT_BYTES).__next__
        return _Segment(file, (memory, next_slot, size, file.salt))

    def tend(self) -> None:
        """Prepare the next segment, let go of those that are full, bring home what was spilled."""
        self._pending.drain()
        self._come_home()
        with self._lock:
            retired, self._retired = self._retired, []
        for segment in retired:
            self._let_go(segment)  # its map goes with the last reference: a thread may still be in its last store
        with self._lock:
            if self._spare is None and self._segment is not None and not self._is_closed and not self._is_deleted:
                with contextlib.suppress(OSError):  # a full disk shows itself to the log call that needs the segment
                    self._spare = self._make_segment()

    def _let_go(self, segment: _Segment) -> None:
        self._files.let_go(segment.file, _shut(segment) if segment.file.is_spilled else segment.file.slots)

    def _come_home(self) -> None:
        is_out = any(segment is not None and segment.file.is_spilled for segment in (self._segment, self._spare))
        file = self._files.come_home(fmt.slots_of_segment(self._files.made), fmt.FIRST_SLOTS, is_out=is_out)
        self._count_dropped(self._spill.take_lost())
        if file is None:
            return
        segment = self._map(file)
        with self._lock:
            if self._is_closed:
                self._files.remove(file)
                return
            if self._spare is not None and self._spare.file.is_spilled:
                self._retired.append(self._spare)
                self._spare = None
            before = self._segment
            if before is not None and before.file.is_spilled:
                self._segment, self.current = segment, segment.current
                self._retired.append(before)
            elif self._spare is None:
                self._spare = segment
            else:  # a thread went home meanwhile
                self._files.remove(file)
        self._wake()  # to bring that one home too

    def sync(self) -> None:
        """Bring what was logged to the disk. `fdatasync` writes mapped pages too, and lets go of the GIL."""
        with self._lock:
            segment = self._segment
        self._beside.sync()
        if segment is not None:
            os.fdatasync(segment.file.fd)
            if os.fstat(segment.file.fd).st_nlink == 0:
                self._leave(segment)

    def _leave(self, segment: _Segment) -> None:
        """Give up where files were deleted under us: nobody will read them, so their points are lost."""
        with self._lock:
            self._is_deleted = not segment.file.is_spilled
            if self._segment is segment:
                if self._is_deleted:  # else they are counted when they are to be brought home
                    full = (other.file for other in self._retired if not other.file.is_spilled)
                    self.dropped += _shut(segment) + sum(file.slots for file in full) + self._files.count_deleted()
                self._retired += [s for s in (segment, self._spare) if s is not None]
                self._segment, self._spare = None, None
                self.current = NO_SEGMENT

    def close(self) -> None:
        """Let go of the files. What was logged is in the page cache; the disk has it soon after."""
        self._pending.flush(0.0)
        with self._lock:
            self._is_closed = True
            segments = [*self._retired, *(s for s in (self._segment, self._spare) if s is not None)]
            spare = self._spare
            self._retired, self._segment, self._spare = [], None, None
            self.current = NO_SEGMENT
        for segment in segments:
            if segment is spare and not segment.file.is_spilled:
                self._files.remove(segment.file)  # it holds no point
            else:
                self._files.let_go(segment.file, _shut(segment), is_synced=False)
        self._beside.close()
        self._spill.close()
        self._count_dropped(self._spill.take_lost() + (0 if self._is_deleted else self._files.count_deleted()))

    def abandon(self) -> None:
        """Let go of inherited files in a forked child without touching what the parent still uses."""
        for segment in (*self._retired, self._segment, self._spare):
            if segment is not None:
                with contextlib.suppress(OSError):
                    os.close(segment.file.fd)
        self._beside.abandon()
        self._spill.abandon()


def _shut(segment: _Segment) -> int:
    """Take the slots that are left, in one call in which no thread gets one; return how many were taken before."""
    slots = segment.file.slots
    counter: Iterator[int] = segment.current[1].__self__  # type: ignore[attr-defined]
    last = next(itertools.islice(counter, slots, None))
    return min(slots, (last - fmt.HEADER_BYTES) // fmt.SLOT_BYTES - slots)
