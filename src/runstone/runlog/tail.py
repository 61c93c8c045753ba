"""The points of a run as they come in, while it lives or after. Takes no lock, asks no writer.

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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt
from runstone.runlog.portions import SLOT, Portion, Slots, join, portion_of
from runstone.values import Series

if TYPE_CHECKING:
    from runstone.runlog.sealed import SealedMetrics

SEALED = "metrics.parquet"
# A portion is read small first: a run that is followed closely has few new points, and a read costs what it copies.
_FIRST_READ_SLOTS = 1 << 9
_READ_SLOTS = 1 << 16
_READ_BESIDE_BYTES = 1 << 20


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

    def keys(self, numbers: list[int]) -> dict[int, tuple[str, int]]:
        """Return names and types of keys; the file is read again where one of `numbers` is new."""
        if any(number not in self._keys for number in numbers):
            with contextlib.suppress(OSError):
                self._keys = fmt.unpack_keys((self._path / f"{self.writer}.keys").read_bytes())
        return self._keys


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
    """Follows the metrics of a run, living or not, and through its sealing. Not safe for several threads at once.

    Args:
        run_path: Folder of the run.
        sealed: The sealed file, if the caller has read it; its points are not given again.
    """

    def __init__(self, run_path: Path, sealed: SealedMetrics | None = None) -> None:
        self._path = run_path
        self._tails: dict[str, WriterTail] = {}
        # points given by writer, metric and family, for when it is sealed
        self._given: dict[tuple[str, str, int], int] = {}
        self._sealed_identity = sealed.identity if sealed is not None else None
        self._sealed_writers = sealed.writers if sealed is not None else set()
        self.unnamed = 0
        """Points whose name, text or record is not in the files: 0 unless they are damaged."""

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
        for writer, segments in sorted(_segments_on_disk(self._path).items()):
            if writer not in self._sealed_writers:
                self._poll_writer(writer, segments, metrics)
        # After the logs: a log that was gone by now has its points in the sealed file, which stood before it went.
        if file_identity(self._path / SEALED) != self._sealed_identity:
            self._poll_sealed(metrics)
        return metrics

    def _poll_writer(self, writer: str, segments: list[int], metrics: dict[str, list[Portion]]) -> None:
        tail = self._tails.setdefault(writer, WriterTail(self._path, writer))
        polled = [slots for slots in tail.poll(segments) if len(slots)]
        if not polled:
            return
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
            numbers_of = [part for part in parts if part[0] not in fmt.BESIDE]
            portions = [portion_of(writer, slots, numbers_of)] if numbers_of else []
            portions += [self._beside(tail, kind, slots[rows]) for kind, rows in parts if kind in fmt.BESIDE]
            for portion in portions:
                whose = writer, name, portion.family
                self._given[whose] = self._given.get(whose, 0) + len(portion)
                metrics.setdefault(name, []).append(portion)

    def _beside(self, tail: WriterTail, kind: int, slots: Slots) -> Portion:
        payloads = tail.payloads(slots["value"].view("<i8"))
        is_there = np.array([payload is not None for payload in payloads], np.bool_)
        self.unnamed += len(slots) - int(is_there.sum())  # damage: they are written before their slot
        return Portion(tail.writer, kind, slots[is_there], payloads[is_there])

    def _poll_sealed(self, metrics: dict[str, list[Portion]]) -> None:
        """Take what a sealed file has of writers that were followed until now, and of those never seen."""
        from runstone.runlog.sealed import SealedMetrics  # Arrow, only for sealed runs

        sealed = SealedMetrics(self._path)
        new = sealed.writers - self._sealed_writers
        self._sealed_identity, self._sealed_writers = sealed.identity, self._sealed_writers | sealed.writers
        for writer in new:
            self._tails.pop(writer, None)
        for name in sealed.names if new else ():
            for portion in sealed.portions(name):
                rest = portion.select(slice(self._given.get((portion.writer, name, portion.family), 0), None))
                if portion.writer in new and len(rest):
                    metrics.setdefault(name, []).append(rest)


def file_identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, `None` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
