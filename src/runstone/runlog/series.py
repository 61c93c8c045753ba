"""The points of a run as NumPy arrays: whole, or as they come in while the run lives. Takes no lock, asks no writer.

A slot whose commit word equals the segment's salt is whole. Reading copies the commit words first and the slots after,
so a slot that is taken was whole before it was copied. A slot still empty below one that is whole is a hole: a thread
stood between taking the slot and storing it; it is looked at again until the run has ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import MetricNotFound
from runstone.runlog import format as fmt
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.summary import MetricAccumulator
from runstone.values import MetricSummary, Series

SLOT = np.dtype([("step", "<i8"), ("wall", "<f8"), ("value", "<f8"), ("key", "<u4"), ("commit", "<u4")])
Slots = NDArray[np.void]
# A portion is read small first: a run that is followed closely has few new points, and a read costs what it copies.
_FIRST_READ_SLOTS = 1 << 9
_READ_SLOTS = 1 << 16


@dataclass(slots=True)
class _SegmentPosition:
    """How far one segment has been read."""

    header: fmt.SegmentHeader
    next_slot: int = 0
    holes: list[int] = field(default_factory=list)


class WriterTail:
    """Reads the points of one writer, in portions: `poll` yields each whole slot once."""

    def __init__(self, run_path: Path, writer: str) -> None:
        self.writer = writer
        self._path = run_path
        self._segments: dict[int, _SegmentPosition] = {}
        self._keys: dict[int, tuple[str, int]] = {}
        self.has_holes = False

    def poll(self, segments: Iterable[int]) -> list[Slots]:
        """Return the new slots of each of `segments` (numbers, ascending), holes that were filled first."""
        portions = []
        for seq in segments:
            known = self._segments.get(seq)
            if known is not None and known.next_slot >= known.header.slots and not known.holes:
                continue  # read whole
            try:
                fd = os.open(self._path / f"{self.writer}-{seq:08d}.wal", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                portions.extend(self._poll_segment(fd, seq))
            finally:
                os.close(fd)
        self.has_holes = any(position.holes for position in self._segments.values())
        return portions

    def _poll_segment(self, fd: int, seq: int) -> list[Slots]:
        position = self._segments.get(seq)
        if position is None:
            header = fmt.unpack_header(os.pread(fd, 128, 0))
            if header is None:  # killed, or not yet done, between making the file and its header: holds no points
                return []
            position = self._segments[seq] = _SegmentPosition(header)
        portions = []
        if position.holes:
            found, still = [], []
            for hole in position.holes:
                slot = self._read(fd, hole, 1)
                if len(slot) and slot["commit"][0] == position.header.salt:
                    found.append(self._read(fd, hole, 1))
                else:
                    still.append(hole)
            position.holes = still
            if found:
                portions.append(np.concatenate(found))
        size = _FIRST_READ_SLOTS
        while position.next_slot < position.header.slots:
            # Two reads: the slots that were whole in the first are copied by the second, after they were whole.
            count = min(size, position.header.slots - position.next_slot)
            size = min(size * 8, _READ_SLOTS)
            commits = self._read(fd, position.next_slot, count)["commit"]
            used = np.flatnonzero(commits)
            if not len(used):
                break
            last = int(used[-1]) + 1
            slots = self._read(fd, position.next_slot, last)[:last]
            last = len(slots)
            whole = commits[:last] == position.header.salt
            position.holes.extend((np.flatnonzero(commits[:last] == 0) + position.next_slot).tolist())
            portions.append(slots[whole])
            position.next_slot += last
            if last < count or not last:
                break
        return portions

    def _read(self, fd: int, first: int, count: int) -> Slots:
        data = os.pread(fd, count * fmt.SLOT_BYTES, fmt.HEADER_BYTES + first * fmt.SLOT_BYTES)
        return np.frombuffer(data, SLOT, len(data) // fmt.SLOT_BYTES)

    def keys(self, numbers: list[int]) -> dict[int, tuple[str, int]]:
        """Return names and types of keys; the file is read again where one of `numbers` is new."""
        if any(number not in self._keys for number in numbers):
            with contextlib.suppress(OSError):
                self._keys = fmt.unpack_keys((self._path / f"{self.writer}.keys").read_bytes())
        return self._keys


@dataclass(slots=True)
class _Portion:
    """Points of one metric of one writer, in the order of the slots. Values are all of one kind."""

    writer: str
    kind: int
    slots: Slots


def _segments_on_disk(run_path: Path) -> dict[str, list[int]]:
    """Return the segment numbers of each writer, ascending."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(run_path)  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return found
    for name in names:
        if name.endswith(".wal"):
            writer, _, seq = name[:-4].rpartition("-")
            if seq.isdigit():
                found.setdefault(writer, []).append(int(seq))
    for numbers in found.values():
        numbers.sort()
    return found


class MetricTail:
    """Follows the metrics of a run, living or not. Not safe for several threads at once."""

    def __init__(self, run_path: Path) -> None:
        self._path = run_path
        self._tails: dict[str, WriterTail] = {}
        self.unnamed = 0
        """Points whose name is not in the files: 0 unless they are damaged."""

    @property
    def has_holes(self) -> bool:
        """Whether a slot was passed over that a thread of the writer may still fill."""
        return any(tail.has_holes for tail in self._tails.values())

    @property
    def writers(self) -> list[str]:
        """Writers that have logged a point."""
        return sorted(self._tails)

    def poll(self) -> dict[str, Series]:
        """Return the points that came since the last call, by metric; an empty dict where there are none.

        Points of several writers (ranks, forks, attempts) are merged by time.
        """
        return {name: join(name, portions) for name, portions in self.poll_portions().items()}

    def poll_portions(self) -> dict[str, list[_Portion]]:
        """Return the new points by metric, still apart by writer and type."""
        metrics: dict[str, list[_Portion]] = {}
        for writer, segments in sorted(_segments_on_disk(self._path).items()):
            tail = self._tails.setdefault(writer, WriterTail(self._path, writer))
            polled = [slots for slots in tail.poll(segments) if len(slots)]
            if not polled:
                continue
            slots = np.concatenate(polled)
            keys = slots["key"]
            order = np.argsort(keys, kind="stable")
            numbers, starts = np.unique(keys[order], return_index=True)
            known = tail.keys(numbers.tolist())
            by_name: dict[str, list[tuple[int, NDArray[np.intp]]]] = {}
            for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
                key = known.get(number)
                if key is None:  # damage: a key is written before its first point
                    self.unnamed += len(rows)
                else:
                    by_name.setdefault(key[0], []).append((key[1], rows))
            for name, parts in by_name.items():
                metrics.setdefault(name, []).append(_portion(writer, slots, parts))
        return metrics


class MetricLog:
    """All points of a run, read once.

    Args:
        run_path: Folder of the run.
        journal: What its journals say, for attempts; read where not given.
    """

    def __init__(self, run_path: Path, journal: JournalState | None = None) -> None:
        self._journal = journal if journal is not None else read_journal(run_path)
        self._tail = MetricTail(run_path)
        self._metrics: dict[str, list[_Portion]] = {}
        self.poll()

    def poll(self) -> bool:
        """Take in what came since; return whether something did."""
        new = self._tail.poll_portions()
        for name, portions in new.items():
            self._metrics.setdefault(name, []).extend(portions)
        return bool(new)

    @property
    def unnamed(self) -> int:
        """Points whose name is not in the files: 0 unless they are damaged."""
        return self._tail.unnamed

    @property
    def names(self) -> list[str]:
        """The metrics, in alphabetical order."""
        return sorted(self._metrics)

    def series(self, name: str, *, attempt: int | str | None = None) -> Series:
        """Return one metric.

        Args:
            name: Metric name exactly as logged.
            attempt: `None`: the run's curve, without superseded points; a number: what that attempt logged;
                `"all"`: every point of every attempt.

        Raises:
            MetricNotFound: the run never logged it; the message names the nearest ones.
        """
        portions = self._metrics.get(name)
        if portions is None:
            raise MetricNotFound(_not_found(self._journal, name, self.names))
        if attempt == "all":
            return join(name, portions)
        number_of = {writer.writer: writer.attempt for writer in self._journal.writers}
        if attempt is not None:
            return join(name, [p for p in portions if number_of.get(p.writer, 1) == attempt])
        return join(name, self._standing(portions, number_of))

    def _standing(self, portions: list[_Portion], number_of: dict[str, int]) -> list[_Portion]:
        """Return the points that no later attempt supersedes."""
        by_attempt: dict[int, list[_Portion]] = {}
        for portion in portions:
            by_attempt.setdefault(number_of.get(portion.writer, 1), []).append(portion)
        rewinds = {attempt.number: attempt.rewind_step for attempt in self._journal.attempts}
        limits: dict[int, int] = {}  # attempt -> first step that supersedes what came before it
        for number in {*by_attempt, *rewinds}:
            said = rewinds.get(number)
            first = _first_step(by_attempt[number]) if number in by_attempt else None
            # A resumed trainer may log the last row before its checkpoint once more: then from there on.
            known = [step for step in (said, first) if step is not None]
            if known:
                limits[number] = min(known)
        standing = []
        for number, own in by_attempt.items():
            later = [step for other, step in limits.items() if other > number]
            if not later:
                standing.extend(own)
                continue
            limit = min(later)
            standing.extend(_Portion(p.writer, p.kind, p.slots[p.slots["step"] < limit]) for p in own)
        return standing

    def summaries(self) -> dict[str, MetricSummary]:
        """Return what each metric comes down to, superseded points left out; in alphabetical order."""
        result = {}
        for name in self.names:
            series = self.series(name)
            accumulator = MetricAccumulator(name)
            accumulator.add(series.step, series.value, series.wall_s)
            if accumulator.count:
                result[name] = accumulator.summary()
        return result


def _first_step(portions: list[_Portion]) -> int:
    """Return the first step that an attempt logged in a metric: of several writers' first steps the lowest."""
    first: dict[str, int] = {}
    for portion in portions:
        if len(portion.slots):
            first.setdefault(portion.writer, int(portion.slots["step"][0]))
    return min(first.values())


def _portion(writer: str, slots: Slots, parts: list[tuple[int, NDArray[np.intp]]]) -> _Portion:
    """Return the slots of one metric, which has several keys where it was logged as several types."""
    kinds = {kind for kind, _rows in parts}
    if len(kinds) == 1:
        rows = parts[0][1] if len(parts) == 1 else np.sort(np.concatenate([rows for _kind, rows in parts]))
        return _Portion(writer, kinds.pop(), slots[rows])
    floats = slots.copy()
    for kind, rows in parts:
        if kind != fmt.TYPE_FLOAT:
            floats["value"][rows] = slots["value"].view("<i8")[rows].astype(np.float64)
    return _Portion(writer, fmt.TYPE_FLOAT, floats[np.sort(np.concatenate([rows for _kind, rows in parts]))])


def join(name: str, portions: list[_Portion]) -> Series:
    """Return portions as one series: in slot order within a writer, merged by time over writers."""
    kinds = {portion.kind for portion in portions if len(portion.slots)}
    if not portions:
        empty = np.empty(0, SLOT)
        return Series(name, empty["step"], empty["value"], empty["wall"])
    steps = np.concatenate([portion.slots["step"] for portion in portions])
    walls = np.concatenate([portion.slots["wall"] for portion in portions])
    values: NDArray[Any]
    if kinds == {fmt.TYPE_INT}:
        values = np.concatenate([portion.slots["value"].view("<i8") for portion in portions])
    elif kinds == {fmt.TYPE_BOOL}:
        values = np.concatenate([portion.slots["value"].view("<i8") != 0 for portion in portions])
    else:
        values = np.concatenate(
            [
                portion.slots["value"]
                if portion.kind == fmt.TYPE_FLOAT
                else portion.slots["value"].view("<i8").astype(np.float64)
                for portion in portions
            ]
        )
    if len(portions) > 1:
        # A clock that steps back must not reorder what one writer logged: each writer's time only grows here.
        grown = np.empty_like(walls)
        writers = np.repeat(np.arange(len(portions)), [len(p.slots) for p in portions])
        last: dict[str, float] = {}
        for index, portion in enumerate(portions):
            rows = writers == index
            times = np.fmax.accumulate(np.concatenate(([last.get(portion.writer, -np.inf)], walls[rows])))[1:]
            grown[rows] = times
            if len(times):
                last[portion.writer] = float(times[-1])
        order = np.argsort(grown, kind="stable")
        steps, values, walls = steps[order], values[order], walls[order]
    return Series(name, np.ascontiguousarray(steps), np.ascontiguousarray(values), np.ascontiguousarray(walls))


def _not_found(journal: JournalState, name: str, names: list[str]) -> str:
    import difflib  # only for the message

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
    has = (
        "it has " + ", ".join(repr(n) for n in near) + (", …" if len(names) > len(near) else "")
        if names
        else ("it has logged no metric")
    )
    return f"run {journal.name or journal.run_id} has no metric {name!r}; {has}"
