"""What the metrics of a living run come down to, taken further from where the last look ended.

A look that ends here gives the very figures that a look at all points gives, bit by bit. Where that cannot be known
(another attempt, points that belong between others, files that do not fit), `advance` says so, and all is read again.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import FormatError
from runstone.names import SYSTEM
from runstone.runlog import format as fmt
from runstone.runlog.damage import Damage, log_damage, slot_damage
from runstone.runlog.portions import Slots, as_floats
from runstone.runlog.reader import JournalState
from runstone.runlog.series import MetricLog
from runstone.runlog.summary import Figures, Summaries
from runstone.runlog.tail import SEALED, SegmentPosition, WriterTail, file_identity, segments_on_disk

MOST_NAMES = 100_000
"""Of more, what is kept would cost more than reading all again."""
_VERSION = 2
_NOBODY, _SEVERAL = -1, -2


class Progress:
    """How far the points of a run were taken in, and their figures.

    Args:
        log: All points of the run, just opened.
        journal: What it was opened with.

    Raises:
        FormatError: a metric is sealed and damaged.
    """

    def __init__(self, log: MetricLog, journal: JournalState) -> None:
        summaries = log.summaries()
        self._path = journal.path
        self._names = list(log.names)
        self._figures = summaries.figures
        self._tails = log.live.tails
        self._writers = sorted(log.writers)
        self._sealed = log.sealed.identity if log.sealed is not None else None
        self._sealed_writers = log.sealed.writers if log.sealed is not None else set()
        self._attempts = _attempts(journal, self._writers)
        # Who logged last: whoever goes on with a metric comes after all that is there.
        self._last_writer = np.full(len(self._names), _NOBODY, np.int64)
        last_attempt = np.zeros(len(self._names), np.int64)
        for writer, rows in log.rows_of_writers():
            attempt = log.attempt_of(writer)
            is_alone = (self._last_writer[rows] == _NOBODY) | (last_attempt[rows] < attempt)
            last = np.where(is_alone, self._number(writer), _SEVERAL)
            self._last_writer[rows] = np.where(last_attempt[rows] > attempt, self._last_writer[rows], last)
            last_attempt[rows] = np.maximum(last_attempt[rows], attempt)
        rows_of_live = log.rows_of_live
        self._row_of_key = {}
        for writer in self._tails:
            places = log.live.places_of(writer)
            self._row_of_key[writer] = np.where(places >= 0, rows_of_live[places], -1) if len(places) else places
        self._rows = {name: row for row, name in enumerate(self._names)}

    def summaries(self) -> Summaries:
        """Return what each metric comes down to; it changes with the next `advance`."""
        rows = self._rows
        with_points = [self._names[row] for row in np.flatnonzero(self._figures.count).tolist()]
        return Summaries({name: rows[name] for name in sorted(with_points)}, self._figures)

    def damage(self, journal: JournalState) -> list[Damage]:
        """Return what of the metric logs that are not sealed cannot be read, as far as they were taken in."""
        living = {writer.writer for writer in journal.writers if writer.is_alive}
        on_disk = segments_on_disk(self._path).items()
        segments = {writer: numbers for writer, numbers in on_disk if writer not in self._sealed_writers}
        return [*log_damage(self._path, segments, living), *slot_damage(self._tails, living)]

    def advance(self, journal: JournalState) -> bool:
        """Take in the points that came since; return whether that could be done.

        Args:
            journal: What the journals of the run say now.

        Returns:
            `False` where all has to be read again: this is then of no use any more.
        """
        if self._attempts != _attempts(journal, self._writers) or not self._is_sealed_as_before():
            return False
        on_disk = segments_on_disk(self._path)
        for writer, tail in self._tails.items():
            if not {seq for seq, at in tail.segments.items() if at.next_slot} <= set(on_disk.get(writer, ())):
                return False
        for writer, segments in on_disk.items():
            if writer in self._sealed_writers:
                continue
            tail = self._tails.setdefault(writer, WriterTail(self._path, writer))
            for slots in tail.poll(segments):
                if tail.filled or not self._take(tail, slots, journal):
                    return False
        return self._is_sealed_as_before()

    def _is_sealed_as_before(self) -> bool:
        return file_identity(self._path / SEALED) == self._sealed

    def _number(self, writer: str) -> int:
        return self._writers.index(writer)

    def _take(self, tail: WriterTail, slots: Slots, journal: JournalState) -> bool:
        """Take in points of one writer; return whether they come after all that are there."""
        if tail.writer not in self._writers:
            self._writers.append(tail.writer)
            self._attempts = _attempts(journal, self._writers)
        latest = max(self._attempts["numbers"])
        has_several = len(self._attempts["numbers"]) > 1
        if has_several and self._attempts["writers"][tail.writer] < latest:
            return False  # some of its points may be superseded
        keys = np.ascontiguousarray(slots["key"])
        if not self._give_rows(tail, keys, is_alone=not has_several):
            return False
        row, kinds = self._row_of_key[tail.writer][keys], tail.keys.kinds[keys]
        is_number = ~np.isin(kinds, fmt.BESIDE)
        if not is_number.all():
            slots, row, kinds = slots[is_number], row[is_number], kinds[is_number]
        number = self._number(tail.writer)
        rows, first = np.unique(row, return_index=True)
        is_own = np.isin(self._last_writer[rows], (_NOBODY, number)) | (self._figures.count[rows] == 0)
        if not (is_own | (slots["wall"][first] > self._figures.latest_at[rows])).all():
            return False  # they belong between others
        self._last_writer[rows] = number
        value = as_floats(slots["value"], kinds != fmt.TYPE_FLOAT).view(np.float64)
        self._figures.add(row, slots["step"], value, slots["wall"])
        return True

    def _give_rows(self, tail: WriterTail, keys: NDArray[np.uint32], *, is_alone: bool) -> bool:
        """Find the rows of keys that a writer uses for the first time; return whether they supersede nothing."""
        row_of_key = self._row_of_key.get(tail.writer, np.empty(0, np.int64))
        if len(row_of_key) < len(tail.keys):
            row_of_key = np.concatenate([row_of_key, np.full(len(tail.keys) - len(row_of_key), -1)])
        self._row_of_key[tail.writer] = row_of_key
        for key in np.unique(keys[row_of_key[keys] < 0]).tolist():
            name = tail.keys.names[key]
            if name in self._rows and not is_alone and not name.startswith(SYSTEM):
                return False
            row_of_key[key] = row = self._rows.setdefault(name, len(self._names))
            if row == len(self._names):
                self._names.append(name)
        if len(self._figures) < len(self._names):
            more = max(len(self._names), 2 * len(self._figures)) - len(self._figures)
            self._figures.grow(len(self._figures) + more)
            self._last_writer = np.concatenate([self._last_writer, np.full(more, _NOBODY)])
        return True

    # --- kept for the next process ----------------------------------------------------------------------------------

    def to_bytes(self) -> bytes | None:
        """Return it as bytes; `None` where it is too large to be worth keeping."""
        if len(self._names) > MOST_NAMES:
            return None
        rows = len(self._names)
        told = {
            "version": _VERSION,
            "names": self._names,
            "writers": self._writers,
            "sealed": self._sealed,
            "sealed_writers": sorted(self._sealed_writers),
            "attempts": self._attempts,
            "tails": [_tail_as_json(tail) for tail in self._tails.values()],
            "keys": {writer: len(row_of_key) for writer, row_of_key in self._row_of_key.items()},
        }
        head = json.dumps(told).encode()
        columns = [getattr(self._figures, column)[:rows] for column in Figures.__slots__]
        arrays = [*columns, self._last_writer[:rows], *self._row_of_key.values()]
        body = b"".join([len(head).to_bytes(8, "little"), head, *(array.tobytes() for array in arrays)])
        return zlib.crc32(body).to_bytes(4, "little") + body

    @classmethod
    def from_bytes(cls, run_path: Path, data: bytes) -> Progress | None:
        """Return what `to_bytes` gave; `None` where it is damaged, or the files of the run do not fit."""
        if len(data) < 12 or zlib.crc32(memoryview(data)[4:]).to_bytes(4, "little") != data[:4]:
            return None
        end = 12 + int.from_bytes(data[4:12], "little")
        told = json.loads(data[12:end])
        if told["version"] != _VERSION:
            return None
        progress = cls.__new__(cls)
        progress._path = run_path
        progress._names, progress._writers = told["names"], told["writers"]
        progress._rows = {name: row for row, name in enumerate(progress._names)}
        progress._sealed = tuple(told["sealed"]) if told["sealed"] is not None else None
        progress._sealed_writers, progress._attempts = set(told["sealed_writers"]), told["attempts"]
        rows, offset = len(progress._names), end
        progress._figures = Figures(rows)
        for column in Figures.__slots__:
            standing = getattr(progress._figures, column)
            setattr(progress._figures, column, np.frombuffer(data, standing.dtype, rows, offset).copy())
            offset += 8 * rows
        progress._last_writer = np.frombuffer(data, np.int64, rows, offset).copy()
        offset += 8 * rows
        progress._row_of_key = {}
        for writer, count in told["keys"].items():
            progress._row_of_key[writer] = np.frombuffer(data, np.int64, count, offset).copy()
            offset += 8 * count
        progress._tails = {}
        for tail in told["tails"]:
            found = _tail_from_json(run_path, tail)
            if found is None:
                return None
            progress._tails[found.writer] = found
        return progress


def _attempts(journal: JournalState, writers: list[str]) -> dict[str, Any]:
    """Return what the journals say of attempts, as far as it decides which points count."""
    of_writer = {writer.writer: writer.attempt for writer in journal.writers}
    known = {writer: of_writer.get(writer, 1) for writer in sorted(writers)}
    rewinds = [[attempt.number, attempt.rewind_step] for attempt in journal.attempts]
    numbers = {*known.values(), *(number for number, _step in rewinds)}
    return {"writers": known, "rewinds": rewinds, "numbers": sorted(numbers)}


def _tail_as_json(tail: WriterTail) -> dict[str, Any]:
    segments = [
        [seq, at.header.slots, at.header.salt, at.next_slot, at.holes, at.torn]
        for seq, at in sorted(tail.segments.items())
    ]
    return {"writer": tail.writer, "segments": segments}


def _tail_from_json(run_path: Path, told: dict[str, Any]) -> WriterTail | None:
    tail = WriterTail(run_path, told["writer"])
    for seq, slots, salt, next_slot, holes, torn in told["segments"]:
        try:
            fd = tail.open(seq)
        except OSError:
            if next_slot:
                return None
            continue  # prepared and never used: its writer has removed it since
        try:
            header = fmt.unpack_header(os.pread(fd, 128, 0))
            size = os.fstat(fd).st_size
        except FormatError:
            return None
        finally:
            os.close(fd)
        if header is None or (header.slots, header.salt) != (slots, salt):
            return None
        if size < fmt.HEADER_BYTES + next_slot * fmt.SLOT_BYTES:
            return None
        tail.segments[seq] = SegmentPosition(header, next_slot, holes, torn)
    return tail
