"""The metric log of one writer: points go to the page cache, with no lock, no system call and no thread hand-over.

Two ways to write the same bytes. `MappedPoints` stores each point into a reserved, mapped segment; a point whose
`log` call returned survives `kill -9`, because the pages belong to the file. `AppendedPoints` makes one `write(2)`
of each call; it serves file systems where mapped pages are not safe.

Threads need no lock: slot numbers come from `itertools.count`, which is atomic under the GIL. The slow path (a new
name, a full segment) takes one.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from runstone.errors import InvalidName, InvalidValue, RunFinished
from runstone.names import check_name
from runstone.runlog import format as fmt
from runstone.runlog.filesystem import Backend, reserve

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, not in the mmap module of Python 3.11
_RETRY_S = 1.0
_INT64 = range(-(2**63), 2**63)
_PACK_FLOAT = fmt.FLOAT_SLOT.pack_into
_PACK_INT = fmt.INT_SLOT.pack_into


class Points(Protocol):
    """What a run needs of its metric log."""

    dropped: int

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`."""

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value."""

    def tend(self) -> None:
        """Do the work that must not be done on the training thread. Called by the keeper."""

    def sync(self) -> None:
        """Bring what was logged to the disk, so that a power cut loses no more than what came later."""

    def close(self) -> None:
        """Let go of the files."""

    def abandon(self) -> None:
        """Let go of inherited files in a forked child, without a lock."""


class KeyTable:
    """The names of one writer's metrics and their ids. A name of another type has another id."""

    def __init__(self, directory: int, writer_hex: str, before_first: Callable[[], None]) -> None:
        self._directory = directory
        self._before_first = before_first
        self._file = f"{writer_hex}.keys"
        self._fd: int | None = None
        self._next = itertools.count(1)
        self._lock = threading.RLock()
        self.ids: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        """Ids by name, one dict for each type: float, int, bool."""

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
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._file, flags, 0o644, dir_fd=self._directory)
            key = next(self._next)
            write_whole(self._fd, fmt.pack_key(key, kind, name))
            self.ids[kind][name] = key
            return key

    def sync(self) -> None:
        """Bring the names to the disk."""
        if self._fd is not None:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file without the lock, which a thread that a fork left behind may hold for ever."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def write_whole(fd: int, data: bytes) -> None:
    """Append all of `data` or nothing: a short write (a full disk) is cut off again, so that no torn record stays."""
    written = os.write(fd, data)
    if written == len(data):
        return
    with contextlib.suppress(OSError):
        os.ftruncate(fd, os.fstat(fd).st_size - written)
    raise OSError(28, "No space left on device")


def to_scalar(name: object, value: Any) -> float | int | bool:
    """Return a Python number for anything that stands for one: NumPy scalars, 0-d arrays, tensors of one element.

    Raises:
        InvalidValue: it is not one real number.
    """
    if isinstance(value, bool | int | float):
        return float(value) if isinstance(value, float) else value
    item = getattr(value, "item", None)
    if item is not None:
        try:
            inner = item()
        except (TypeError, ValueError, RuntimeError):
            shape = tuple(getattr(value, "shape", ()))
            raise InvalidValue(
                f"metric {name!r:.80} must be one number, got {type(value).__name__} of shape {shape}; "
                "log its mean, or its elements one by one"
            ) from None
        if isinstance(inner, bool | int | float):
            return inner
        value = inner
    if not isinstance(value, str | bytes | complex):
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            return float(value)
    raise InvalidValue(
        f"metric {name!r:.80} must be a number, got {type(value).__name__} {value!r:.80}"
        + ("; text belongs in params or tags" if isinstance(value, str | bytes) else "")
    )


def flatten_metrics(metrics: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield `(name, value)` of nested metrics: `{"train": {"loss": 1.0}}` is `train/loss`."""
    if depth > 32:
        raise InvalidValue(f"metrics are nested more than 32 deep at {prefix[:80]!r}")
    for key, value in metrics.items():
        name = f"{prefix}{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from flatten_metrics(value, f"{name}/", depth + 1)
        else:
            yield name, value


class _Segment(NamedTuple):
    """One mapped file of slots."""

    memory: mmap.mmap
    next_slot: Callable[[], int]
    end: int
    salt: int
    fd: int
    name: str


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
    ) -> None:
        self.dropped = 0
        self._directory = directory
        self._writer = writer
        self._clock = clock
        self._wake = wake
        self._keys = KeyTable(directory, writer.hex(), before_first)
        self._float_ids, self._int_ids, self._bool_ids = self._keys.ids
        self._lock = threading.RLock()
        self._seq = itertools.count()
        self._spare: _Segment | None = None
        self._retired: list[_Segment] = []
        self._retry_at = 0.0
        self._is_closed = False
        # (memory, next slot, end, salt) of the segment in use; the first one is full, so that the first point opens one
        self._current: tuple[Any, Callable[[], int], int, int] = (None, itertools.repeat(0).__next__, 0, 0)
        self._segment: _Segment | None = None

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`.

        Raises:
            InvalidName, InvalidValue: a name or a value cannot be kept; the metrics after it are kept.
            OSError: the disk refuses; what is missing is counted in `dropped`.
        """
        wall = self._clock()
        current = self._current
        memory, next_slot, end, salt = current
        ids = self._float_ids
        done = 0
        try:
            for name, value in metrics.items():
                if value.__class__ is not float or name not in ids:
                    # Not the common case: find the type, convert, give a new name its id, open what is nested.
                    self._log_slowly(name, value, step, wall)
                    current = self._current
                    memory, next_slot, end, salt = current
                    done += 1
                    continue
                offset = next_slot()
                while offset >= end:
                    current = self._roll(current)
                    memory, next_slot, end, salt = current
                    offset = next_slot()
                _PACK_FLOAT(memory, offset, step, wall, value, ids[name], salt)
                done += 1
        except OSError:
            self._count_dropped(len(metrics) - done)
            raise
        except (InvalidName, InvalidValue):
            self._log_rest(metrics, done + 1, step)
            raise
        except struct.error:
            raise step_error(step) from None

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value; raises as `log` does."""
        if value.__class__ is float:
            key = self._float_ids.get(name)
            if key is not None:
                current = self._current
                memory, next_slot, end, salt = current
                try:
                    offset = next_slot()
                    while offset >= end:
                        current = self._roll(current)
                        memory, next_slot, end, salt = current
                        offset = next_slot()
                    _PACK_FLOAT(memory, offset, step, self._clock(), value, key, salt)
                except OSError:
                    self._count_dropped(1)
                    raise
                except struct.error:
                    raise step_error(step) from None
                return
        self.log({name: value}, step)

    def _log_slowly(self, name: Any, value: Any, step: int, wall: float) -> None:
        if isinstance(value, Mapping):
            # one flat call, so that a failure counts each of its points
            flat = dict(flatten_metrics({name: value}))
            if flat:
                self._log_flat(flat, step, wall)
            return
        number = to_scalar(name, value)
        kind, number = kind_of(number)
        key = self._keys.ids[kind].get(name)
        if key is None:
            key = self._keys.add(name, kind)
        current = self._current
        offset = current[1]()
        while offset >= current[2]:
            current = self._roll(current)
            offset = current[1]()
        pack = _PACK_FLOAT if kind == fmt.TYPE_FLOAT else _PACK_INT
        pack(current[0], offset, step, wall, number, key, current[3])

    def _log_flat(self, flat: Mapping[Any, Any], step: int, wall: float) -> None:
        done = 0
        try:
            for name, value in flat.items():
                self._log_slowly(name, value, step, wall)
                done += 1
        except OSError:
            self._count_dropped(len(flat) - done - 1)  # the caller counts one
            raise

    def _log_rest(self, metrics: Mapping[str, Any], start: int, step: int) -> None:
        """Keep the metrics after one that could not be kept: one bad value must not cost the others."""
        rest = dict(itertools.islice(metrics.items(), start, None))
        if rest:
            with contextlib.suppress(InvalidName, InvalidValue):  # the first mistake is the one that is told
                self.log(rest, step)

    def _count_dropped(self, count: int) -> None:
        with self._lock:
            self.dropped += count

    def _roll(self, full: tuple[Any, Callable[[], int], int, int]) -> tuple[Any, Callable[[], int], int, int]:
        """Go to the next segment; the first thread past the end switches, the others read again."""
        with self._lock:
            if self._current is not full:
                return self._current
            if self._is_closed:
                raise OSError(9, "the metric log is closed")
            segment = self._spare
            if segment is None:
                if time.monotonic() < self._retry_at:
                    raise OSError(28, "No space left on device")
                try:
                    segment = self._open_segment()
                except OSError:
                    self._retry_at = time.monotonic() + _RETRY_S
                    raise
            if self._segment is not None:
                self._retired.append(self._segment)
            self._segment, self._spare = segment, None
            self._current = (segment.memory, segment.next_slot, segment.end, segment.salt)
            self._wake()
            return self._current

    def _open_segment(self) -> _Segment:
        seq = next(self._seq)
        slots = fmt.slots_of_segment(seq)
        size = fmt.HEADER_BYTES + slots * fmt.SLOT_BYTES
        salt = int.from_bytes(os.urandom(4)) or 1
        name = f"{self._writer.hex()}-{seq:08d}.wal"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=self._directory)
        try:
            reserve(fd, size)
            header = fmt.SegmentHeader(slots, salt, self._writer, seq, os.getpid(), time.time(), time.monotonic())
            os.pwrite(fd, fmt.pack_header(header), 0)
            memory = mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
            raise
        if sys.platform == "linux":
            # page faults are paid here, off the training thread; in pieces, since each holds the GIL
            with contextlib.suppress(OSError, ValueError):
                for offset in range(0, size, 1 << 18):
                    memory.madvise(_POPULATE_WRITE, offset, min(1 << 18, size - offset))
        return _Segment(memory, itertools.count(fmt.HEADER_BYTES, fmt.SLOT_BYTES).__next__, size, salt, fd, name)

    def tend(self) -> None:
        """Prepare the next segment, and unmap those that are full once they are on the disk."""
        with self._lock:
            retired, self._retired = self._retired, []
        for segment in retired:
            with contextlib.suppress(OSError):
                os.fdatasync(segment.fd)
            os.close(segment.fd)  # its map goes with the last reference: a thread may still be in its last store
        with self._lock:
            if self._spare is None and self._segment is not None and not self._is_closed:
                with contextlib.suppress(OSError):  # a full disk shows itself to the log call that needs the segment
                    self._spare = self._open_segment()

    def sync(self) -> None:
        """Bring what was logged to the disk. `fdatasync` writes mapped pages too, and lets go of the GIL."""
        with self._lock:
            segment = self._segment
        self._keys.sync()
        if segment is not None:
            with contextlib.suppress(ValueError):
                os.fdatasync(segment.fd)

    def close(self) -> None:
        """Let go of the files. What was logged is in the page cache; the disk has it soon after."""
        with self._lock:
            self._is_closed = True
            segments = [*self._retired, *(s for s in (self._segment, self._spare) if s is not None)]
            if self._spare is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._spare.name, dir_fd=self._directory)  # it holds no point
            self._retired, self._segment, self._spare = [], None, None
            self._current = (None, itertools.repeat(0).__next__, 0, 0)
        for segment in segments:
            os.close(segment.fd)
        self._keys.close()

    def abandon(self) -> None:
        """Let go of inherited files in a forked child without touching what the parent still uses."""
        for segment in (*self._retired, self._segment, self._spare):
            if segment is not None:
                with contextlib.suppress(OSError):
                    os.close(segment.fd)
        self._keys.abandon()


class AppendedPoints:
    """Points appended with one `write(2)` a call: the same bytes as `MappedPoints`, for any file system."""

    def __init__(
        self,
        directory: int,
        writer: bytes,
        *,
        clock: Callable[[], float] = time.time,
        before_first: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped = 0
        self._directory = directory
        self._writer = writer
        self._clock = clock
        self._keys = KeyTable(directory, writer.hex(), before_first)
        self._lock = threading.RLock()
        self._seq = itertools.count()
        self._fd: int | None = None
        self._salt = 0
        self._left = 0
        self._retry_at = 0.0
        self._is_closed = False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`; raises as `MappedPoints.log` does."""
        wall = self._clock()
        flat = list(flatten_metrics(metrics))
        trouble: InvalidName | InvalidValue | None = None
        try:
            with self._lock:
                salt = self._open(len(flat))
                slots = []
                for name, value in flat:
                    try:
                        kind, number = kind_of(to_scalar(name, value))
                        key = self._keys.ids[kind].get(name)
                        if key is None:
                            key = self._keys.add(name, kind)
                    except (InvalidName, InvalidValue) as error:
                        trouble = trouble or error
                        continue
                    slot = fmt.FLOAT_SLOT if kind == fmt.TYPE_FLOAT else fmt.INT_SLOT
                    slots.append(slot.pack(step, wall, number, key, salt))
                if slots:
                    write_whole(self._fd or 0, b"".join(slots))
                    self._left -= len(slots)
        except OSError:
            self._count_dropped(len(flat))
            raise
        except struct.error:
            raise step_error(step) from None
        if trouble is not None:
            raise trouble

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value; raises as `log` does."""
        self.log({name: value}, step)

    def _count_dropped(self, count: int) -> None:
        with self._lock:
            self.dropped += count

    def _open(self, count: int) -> int:
        if self._is_closed:
            raise OSError(9, "the metric log is closed")
        if self._fd is not None and self._left >= count:
            return self._salt
        if time.monotonic() < self._retry_at:
            raise OSError(28, "No space left on device")
        try:
            seq = next(self._seq)
            salt = int.from_bytes(os.urandom(4)) or 1
            name = f"{self._writer.hex()}-{seq:08d}.wal"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            fd = os.open(name, flags, 0o644, dir_fd=self._directory)
            slots = max(fmt.MOST_SLOTS, count)
            header = fmt.SegmentHeader(slots, salt, self._writer, seq, os.getpid(), time.time(), time.monotonic())
            try:
                write_whole(fd, fmt.pack_header(header).ljust(fmt.HEADER_BYTES, b"\0"))
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
                raise
        except OSError:
            self._retry_at = time.monotonic() + _RETRY_S
            raise
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.fdatasync(self._fd)
            os.close(self._fd)
        self._fd, self._salt, self._left = fd, salt, slots
        return salt

    def tend(self) -> None:
        """Nothing to prepare: appending needs no segment ahead."""

    def sync(self) -> None:
        """Bring what was logged to the disk."""
        self._keys.sync()
        with self._lock:
            fd = os.dup(self._fd) if self._fd is not None else None
        if fd is not None:
            try:
                os.fdatasync(fd)  # outside the lock: a log call must not wait for the disk
            finally:
                os.close(fd)

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._is_closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        self._keys.close()

    def abandon(self) -> None:
        """Let go of inherited files in a forked child."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._keys.abandon()


class ClosedPoints:
    """Stands where the metric log of a finished run was: says so, and counts what came too late."""

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Refuse the points.

        Raises:
            RunFinished: always.
        """
        self.dropped += len(metrics)
        raise RunFinished("the run is finished: nothing more can be logged; call reopen(), or start_run(run_id=…)")

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Refuse the point; raises as `log` does."""
        self.log({name: value}, step)

    def tend(self) -> None:
        """Nothing to do."""

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abandon(self) -> None:
        """Nothing to do."""


def kind_of(number: float | int | bool) -> tuple[int, float | int]:
    """Return the type under which a number is kept. An integer beyond 64 bits is kept as the nearest float.

    Raises:
        InvalidValue: it is too large for a float too.
    """
    if isinstance(number, bool):
        return fmt.TYPE_BOOL, int(number)
    if isinstance(number, int):
        if number in _INT64:
            return fmt.TYPE_INT, number
        try:
            return fmt.TYPE_FLOAT, float(number)
        except OverflowError:
            raise InvalidValue(f"the integer has {number.bit_length()} bits, too many for a metric") from None
    return fmt.TYPE_FLOAT, number


def step_error(step: object) -> InvalidValue:
    """Return the error for a step that is no 64-bit integer."""
    return InvalidValue(f"step must be an integer of 64 bits, got {type(step).__name__} {step!r:.80}")


def open_points(
    backend: Backend,
    directory: int,
    writer: bytes,
    *,
    clock: Callable[[], float] = time.time,
    wake: Callable[[], None] = lambda: None,
    before_first: Callable[[], None] = lambda: None,
) -> MappedPoints | AppendedPoints:
    """Return the metric log of a new writer; no file is made before the first point.

    Args:
        backend: How to write.
        directory: Open descriptor of the run's folder; a folder that is renamed meanwhile goes on working.
        writer: 16 random bytes that name the files.
        clock: Seconds since the epoch.
        wake: Called when a segment is full, so that the keeper prepares the next one.
        before_first: Called once before the first file is made.
    """
    if backend == "mmap":
        return MappedPoints(directory, writer, clock=clock, wake=wake, before_first=before_first)
    return AppendedPoints(directory, writer, clock=clock, before_first=before_first)
