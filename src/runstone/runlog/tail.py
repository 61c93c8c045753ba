"""The points of a run as they come in, while it lives or after. Takes no lock, asks no writer.

A slot whose commit word equals the segment's salt is whole. Reading copies the commit words first and the slots after,
so a slot that is taken was whole before it was copied. A slot still empty below one that is whole is a hole: a thread
stood between taking the slot and storing it; it is looked at again until the run has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt
from runstone.runlog.keys import KeyTable
from runstone.runlog.portions import SLOT, Portion, Slots, as_floats, common_kind, join
from runstone.values import Series

if TYPE_CHECKING:
    pass

SEALED = fmt.SEALED
# A portion is read small first: a run that is followed closely has few new points, and a read costs what it copies.
_FIRST_READ_SLOTS = 1 << 9
# Half a MiB: what was copied is still in the processor's cache when it is looked at.
_READ_SLOTS = 1 << 14
_READ_BESIDE_BYTES = 1 << 20


@dataclass(slots=True)
class SegmentPosition:
    """How far one segment has been read."""

    header: fmt.SegmentHeader
    next_slot: int = 0
    holes: list[int] = field(default_factory=list)
    torn: int = 0
    """Slots before `next_slot` that hold neither a whole point nor nothing: damage."""
    is_whole: bool = True
    """Whether each slot before `next_slot` was whole when it was first read."""


class WriterTail:
    """Reads the points of one writer, each whole slot once; what has been read can be read again."""

    def __init__(self, run_path: Path, writer: str) -> None:
        self.writer = writer
        self._path = run_path
        self.segments: dict[int, SegmentPosition] = {}
        self.keys = KeyTable(run_path / f"{writer}.keys")
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        """Points given, by key."""
        self.first_step: NDArray[np.int64] = np.zeros(0, np.int64)
        self.first_at: NDArray[np.int64] = np.zeros(0, np.int64)
        """By key: the step of its first point, and how many points of the writer came before that."""
        self.given = 0
        self.filled = 0
        """Holes that were filled after points behind them had been given."""
        self.unnamed = 0
        """Points whose key is not in the file: 0 unless that is damaged."""

    @property
    def has_holes(self) -> bool:
        """Whether a slot was passed over that a thread of the writer may still fill."""
        return any(position.holes for position in self.segments.values())

    def poll(self, segments: Sequence[int]) -> Iterator[Slots]:
        """Yield the new slots of each of `segments` (numbers, ascending), holes that were filled first.

        Whoever stops early loses what was not yielded.
        """
        for place, seq in enumerate(segments):
            yield from self._poll_file(seq)
            known = self.segments.get(seq)
            if known is not None and known.next_slot >= known.header.slots:
                continue
            # The writer may have gone on to the next segment while this one was read: then its end is there by now.
            # Where it has not, it may do so in this moment, and what is in the next one comes after that end.
            if not any(map(self._is_begun, segments[place + 1 :])):
                return
            yield from self._poll_file(seq)

    def _poll_file(self, seq: int) -> Iterator[Slots]:
        known = self.segments.get(seq)
        if known is not None and known.next_slot >= known.header.slots and not known.holes:
            return  # read whole
        try:
            fd = self.open(seq)
        except OSError:
            return
        try:
            for slots in self._poll_segment(fd, seq):
                named = self._named(slots) if len(slots) else slots
                if len(named):
                    yield named
        finally:
            os.close(fd)

    def _is_begun(self, seq: int) -> bool:
        """Return whether a segment holds a point."""
        known = self.segments.get(seq)
        if known is not None and known.next_slot:
            return True
        try:
            fd = self.open(seq)
        except OSError:
            return False
        try:
            return bool(_read(fd, 0, _FIRST_READ_SLOTS)["commit"].any())
        finally:
            os.close(fd)

    def open(self, seq: int) -> int:
        """Return a descriptor of one segment, for the caller to close.

        Raises:
            OSError: it is not there.
        """
        return os.open(self._path / f"{self.writer}-{seq:08d}.wal", os.O_RDONLY | os.O_CLOEXEC)

    def _poll_segment(self, fd: int, seq: int) -> Iterator[Slots]:
        position = self.segments.get(seq)
        if position is None:
            header = fmt.unpack_header(os.pread(fd, 128, 0))
            if header is None:  # killed, or not yet done, between making the file and its header: holds no points
                return
            position = self.segments[seq] = SegmentPosition(header)
        if position.holes:
            found, still = [], []
            for hole in position.holes:
                slot = _read(fd, hole, 1)
                if len(slot) and slot["commit"][0] == position.header.salt:
                    found.append(_read(fd, hole, 1))
                else:
                    still.append(hole)
            position.holes = still
            if found:
                self.filled += len(found)
                yield np.concatenate(found)
        size = _FIRST_READ_SLOTS
        while position.next_slot < position.header.slots:
            # Two reads: the slots that were whole in the first are copied by the second, after they were whole.
            count = min(size, position.header.slots - position.next_slot)
            size = min(size * 8, _READ_SLOTS)
            commits = _read(fd, position.next_slot, count)["commit"]
            used = np.flatnonzero(commits)
            if not len(used):
                break
            last = int(used[-1]) + 1
            if len(used) < last:
                # What looks like a hole may have been filled while the slots behind it were being copied.
                commits = _read(fd, position.next_slot, last)["commit"]
                last = min(last, len(commits))
            slots = _read(fd, position.next_slot, last)[:last]
            last = len(slots)
            whole = commits[:last] == position.header.salt
            if not whole.all():
                position.is_whole = False
                holes = np.flatnonzero(commits[:last] == 0)
                position.torn += int((~whole).sum()) - len(holes)
                position.holes.extend((holes + position.next_slot).tolist())
                slots = slots[whole]
            position.next_slot += last
            yield slots
            if last < count or not last:
                break

    def _named(self, slots: Slots) -> Slots:
        """Return the slots whose key has a name, and count them."""
        keys = np.ascontiguousarray(slots["key"])
        low, high = int(keys.min()), int(keys.max())
        if high >= len(self.counts) or not self.counts[keys].all():
            is_known = self.keys.knows(keys)
            if not is_known.all():  # damage: a key is written before its first point
                self.unnamed += int((~is_known).sum())
                slots, keys = slots[is_known], keys[is_known]
                if not len(keys):
                    return slots
                low, high = int(keys.min()), int(keys.max())
            self._note_first(slots["step"], keys)
        if high - low < 4 * len(keys) + 1024:
            self.counts[low : high + 1] += np.bincount(keys - np.uint32(low), minlength=high - low + 1)
        else:
            np.add.at(self.counts, keys, 1)
        self.given += len(slots)
        return slots

    def _note_first(self, step: NDArray[np.int64], keys: NDArray[np.uint32]) -> None:
        if len(self.counts) < len(self.keys):
            more = np.zeros(len(self.keys) - len(self.counts), np.int64)
            self.counts, self.first_step, self.first_at = (
                np.concatenate([figures, more]) for figures in (self.counts, self.first_step, self.first_at)
            )
        rows = np.flatnonzero(self.counts[keys] == 0)[::-1]  # backwards: what is stored last stays, the first point
        self.first_step[keys[rows]] = step[rows]
        self.first_at[keys[rows]] = rows + self.given

    def read_again(self) -> Iterator[Slots]:
        """Yield all slots that `poll` has given, in the order in which they lie.

        Raises:
            OSError: a segment is gone.
        """
        for seq, position in sorted(self.segments.items()):
            if not position.next_slot:
                continue  # prepared and never used: its writer has removed it since
            fd = self.open(seq)
            try:
                for first in range(0, position.next_slot, _READ_SLOTS):
                    slots = _read(fd, first, min(_READ_SLOTS, position.next_slot - first))
                    if not position.is_whole:
                        is_given = slots["commit"] == position.header.salt
                        holes = [hole - first for hole in position.holes if 0 <= hole - first < len(slots)]
                        is_given[holes] = False  # one may have been filled since
                        slots = slots[is_given]
                    if self.unnamed:
                        slots = slots[slots["key"] < len(self.counts)]
                        slots = slots[self.counts[slots["key"]] > 0]
                    yield slots
            finally:
                os.close(fd)

    def payloads(self, offsets: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return what begins at these offsets of the side file, as text; `None` for what is not there whole."""
        found = np.full(len(offsets), None, np.object_)
        try:
            fd = os.open(self._path / f"{self.writer}.blob", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return found
        try:
            size = os.fstat(fd).st_size
            window, start = b"", 0
            for row in np.argsort(offsets, kind="stable").tolist():
                offset = int(offsets[row])
                payload = fmt.unpack_side(window, offset - start)
                if payload is None and 0 <= offset < size:
                    window, start = os.pread(fd, min(_READ_BESIDE_BYTES, size - offset), offset), offset
                    length = fmt.side_length(window)
                    if length > len(window):
                        window = os.pread(fd, min(length, size - offset), offset)
                    payload = fmt.unpack_side(window, 0)
                if payload is not None:
                    found[row] = payload.decode("utf-8", "replace")
        finally:
            os.close(fd)
        return found


def _read(fd: int, first: int, count: int) -> Slots:
    data = os.pread(fd, count * fmt.SLOT_BYTES, fmt.HEADER_BYTES + first * fmt.SLOT_BYTES)
    return np.frombuffer(data, SLOT, len(data) // fmt.SLOT_BYTES)


def segments_on_disk(run_path: Path) -> dict[str, list[int]]:
    """Return the segment numbers of each writer, ascending; writers in order."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(run_path)  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return found
    for name in sorted(names):
        if name.endswith(".wal"):
            writer, _, seq = name[:-4].rpartition("-")
            if seq.isdigit():
                found.setdefault(writer, []).append(int(seq))
    for numbers in found.values():
        numbers.sort()
    return found


class MetricTail:
    """Follows the metrics of a run, living or not, and through its sealing. Not safe for several threads at once.

    Args:
        run_path: Folder of the run.
    """

    def __init__(self, run_path: Path) -> None:
        self._path = run_path
        self._tails: dict[str, WriterTail] = {}
        # texts and records given by writer, name and family, for when it is sealed; numbers are counted by the tails
        self._given_beside: dict[tuple[str, str, int], int] = {}
        self._sealed_identity: tuple[int, int, int] | None = None
        self._sealed_writers: set[str] = set()
        self._lost = 0

    @property
    def unnamed(self) -> int:
        """Points whose name, text or record is not in the files: 0 unless they are damaged."""
        return self._lost + sum(tail.unnamed for tail in self._tails.values())

    @property
    def has_holes(self) -> bool:
        """Whether a slot was passed over that a thread of the writer may still fill."""
        return any(tail.has_holes for tail in self._tails.values())

    @property
    def writers(self) -> list[str]:
        """Writers that have logged a point."""
        return sorted({*self._tails, *self._sealed_writers})

    def poll(self) -> dict[str, Series]:
        """Return the numbers that came since the last call, by metric; an empty dict where there are none.

        Points of several writers (ranks, forks, attempts) are merged by time.
        """
        polled = {
            name: [portion for portion in portions if portion.kind not in fmt.BESIDE]
            for name, portions in self.poll_portions().items()
        }
        return {name: join(name, portions) for name, portions in polled.items() if portions}

    def poll_portions(self) -> dict[str, list[Portion]]:
        """Return the new points, texts and records by name, still apart by writer and type."""
        metrics: dict[str, list[Portion]] = {}
        for writer, segments in segments_on_disk(self._path).items():
            if writer not in self._sealed_writers:
                self._poll_writer(writer, segments, metrics)
        # After the logs: a log that was gone by now has its points in the sealed file, which stood before it went.
        if file_identity(self._path / SEALED) != self._sealed_identity:
            self._poll_sealed(metrics)
        return metrics

    def _poll_writer(self, writer: str, segments: list[int], metrics: dict[str, list[Portion]]) -> None:
        tail = self._tails.setdefault(writer, WriterTail(self._path, writer))
        polled = list(tail.poll(segments))
        if not polled:
            return
        slots = np.concatenate(polled)
        keys = slots["key"]
        order = np.argsort(keys, kind="stable")
        slots = slots[order]
        numbers, starts = np.unique(slots["key"], return_index=True)
        step, wall, bits = (np.ascontiguousarray(slots[column]) for column in ("step", "wall", "value"))
        by_name: dict[str, list[tuple[int, slice]]] = {}
        ends = [*starts[1:].tolist(), len(slots)]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
            part = int(tail.keys.kinds[number]), slice(start, end)
            by_name.setdefault(tail.keys.names[number], []).append(part)
        for name, parts in by_name.items():
            counted = [part for part in parts if part[0] not in fmt.BESIDE]
            portions = metrics.setdefault(name, [])
            if len(counted) == 1:
                kind, rows = counted[0]  # copies: who keeps one metric must not keep all
                portions.append(Portion(writer, kind, step[rows].copy(), wall[rows].copy(), bits[rows].copy()))
            elif counted:
                portions.append(_mixed(writer, counted, order, step, wall, bits))
            for kind, rows in parts:
                if kind in fmt.BESIDE:
                    portions.append(self._beside(tail, name, Portion(writer, kind, step[rows], wall[rows], bits[rows])))

    def _beside(self, tail: WriterTail, name: str, portion: Portion) -> Portion:
        found = with_payloads(tail, portion)
        self._lost += len(portion) - len(found)  # damage: they are written before their slot
        whose = tail.writer, name, portion.kind
        self._given_beside[whose] = self._given_beside.get(whose, 0) + len(found)
        return found

    def _poll_sealed(self, metrics: dict[str, list[Portion]]) -> None:
        """Take what a sealed file has of writers that were followed until now, and of those never seen."""
        from runstone.runlog.sealed import SealedMetrics  # Arrow, only for sealed runs

        sealed = SealedMetrics(self._path)
        new = sealed.writers - self._sealed_writers
        self._sealed_identity, self._sealed_writers = sealed.identity, self._sealed_writers | sealed.writers
        given = dict(self._given_beside)
        for writer in new:
            tail = self._tails.pop(writer, None)
            if tail is not None:
                given |= {(writer, name, fmt.TYPE_FLOAT): count for name, count in _numbers_given(tail).items()}
        for name in sealed.names if new else ():
            for portion in sealed.portions(name):
                rest = portion.select(slice(given.get((portion.writer, name, portion.family), 0), None))
                if portion.writer in new and len(rest):
                    metrics.setdefault(name, []).append(rest)


def with_payloads(tail: WriterTail, portion: Portion) -> Portion:
    """Return texts or records with what lies beside the slots; without those of which it is not there."""
    payloads = tail.payloads(portion.bits)
    is_there = np.array([payload is not None for payload in payloads], np.bool_)
    return Portion(
        portion.writer,
        portion.kind,
        portion.step[is_there],
        portion.wall_s[is_there],
        portion.bits[is_there],
        payloads[is_there],
    )


def _mixed(
    writer: str,
    parts: list[tuple[int, slice]],
    order: NDArray[np.intp],
    step: NDArray[np.int64],
    wall: NDArray[np.float64],
    bits: NDArray[np.int64],
) -> Portion:
    """Return the numbers of one metric that was logged as several types, as floats in the order of the slots."""
    rows = np.concatenate([np.arange(part.start, part.stop) for _kind, part in parts])
    is_integer = np.repeat([kind != fmt.TYPE_FLOAT for kind, _part in parts], [p.stop - p.start for _k, p in parts])
    by_slot = np.argsort(order[rows])
    rows, is_integer = rows[by_slot], is_integer[by_slot]
    kind = common_kind({kind for kind, _part in parts})
    found = bits[rows] if kind != fmt.TYPE_FLOAT else as_floats(bits[rows], is_integer)
    return Portion(writer, kind, step[rows], wall[rows], found)


def _numbers_given(tail: WriterTail) -> dict[str, int]:
    given: dict[str, int] = {}
    for key in np.flatnonzero(tail.counts).tolist():
        if tail.keys.kinds[key] not in fmt.BESIDE:
            name = tail.keys.names[key]
            given[name] = given.get(name, 0) + int(tail.counts[key])
    return given


def file_identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, `None` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
