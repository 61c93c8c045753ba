"""All points of a run: one metric as arrays, without what a later attempt superseded. Knows no plot and no table."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runstone.errors import MetricNotFound
from runstone.names import SYSTEM
from runstone.runlog import format as fmt
from runstone.runlog.damage import Damage, log_damage, slot_damage
from runstone.runlog.live import LiveMetrics
from runstone.runlog.portions import Portion, as_floats, family_of, join
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.summary import Figures, Summaries
from runstone.runlog.tail import SEALED, file_identity, segments_on_disk
from runstone.values import Series

if TYPE_CHECKING:
    from runstone.runlog.sealed import SealedMetrics

_CURVES_AT_HAND = 8
_CURVE_POINTS_AT_HAND = 1 << 24
Answer = TypeVar("Answer")


class MetricLog:
    """All points of a run, as they stood when it was last polled; they are read from the files when asked for.

    Args:
        run_path: Folder of the run.
        journal: What its journals say, for attempts; read where not given.

    Raises:
        FormatError: its sealed file is damaged.
    """

    def __init__(self, run_path: Path, journal: JournalState | None = None) -> None:
        self._path = run_path
        self._journal = journal if journal is not None else read_journal(run_path)
        self._curves: dict[str, tuple[Series, bool]] = {}
        self.sealed: SealedMetrics | None = None
        self.live = LiveMetrics(run_path)
        self._open()

    def _open(self) -> None:
        """Open what is sealed, and count the rest."""
        while True:
            identity = file_identity(self._path / SEALED)
            self.sealed = _open_sealed(self._path)
            self.live = LiveMetrics(self._path, self.sealed.writers if self.sealed is not None else ())
            self.live.poll()
            # After the logs: a log that was gone by now has its points in the sealed file, which stood before it went.
            if file_identity(self._path / SEALED) == identity:
                self._forget()
                return

    def _forget(self) -> None:
        for derived in ("names", "_attempts"):
            self.__dict__.pop(derived, None)

    def poll(self) -> bool:
        """Take in what came since; return whether something did."""
        before = self._count
        if self._is_replaced:
            self._open()
            is_new = self._count != before
        else:
            is_new = self.live.poll()
            if self._is_replaced:
                return self.poll() or is_new
        if is_new:
            self._forget()
            self._curves.clear()
        return is_new

    @property
    def _is_replaced(self) -> bool:
        standing = self.sealed.identity if self.sealed is not None else None
        return file_identity(self._path / SEALED) != standing

    @property
    def _count(self) -> int:
        return self.live.count + (self.sealed.count() if self.sealed is not None else 0)

    def through_sealing(self, read: Callable[[], Answer]) -> Answer:
        """Return what `read` returns from logs; where they were sealed meanwhile, from the sealed file."""
        while True:
            live = self.live
            try:
                found = read()
            except OSError:
                if live is self.live and not self._is_replaced:
                    raise
            else:
                if live is self.live and (not live.tails or not self._is_replaced):
                    return found
            if self._is_replaced:
                self._open()

    @property
    def unnamed(self) -> int:
        """Points whose name, text or record is not in the files: 0 unless they are damaged."""

        def read() -> int:
            there = [sum(map(len, self.live.portions(name))) for name in self.live.names_beside()]
            logged = [self.live.points_of(name) for name in self.live.names_beside()]
            return sum(tail.unnamed for tail in self.live.tails.values()) + sum(logged) - sum(there)

        return self.through_sealing(read)

    def damage(self) -> list[Damage]:
        """Return what of the metric logs that are not sealed cannot be read."""
        living = {writer.writer for writer in self._journal.writers if writer.is_alive}
        sealed = self.sealed.writers if self.sealed is not None else set()
        segments = {writer: numbers for writer, numbers in segments_on_disk(self._path).items() if writer not in sealed}
        return [*log_damage(self._path, segments, living), *slot_damage(self.live.tails, living)]

    @cached_property
    def names(self) -> list[str]:
        """Names of everything that was logged by step, in alphabetical order: numbers, texts, records."""
        if self.sealed is None:
            return self.live.names
        if not self.live.names:
            return self.sealed.names
        return sorted({*self.live.names, *self.sealed.names})

    @property
    def is_sealed(self) -> bool:
        """Whether all its points lie in the sealed file."""
        return self.sealed is not None and not self.live.count

    @property
    def record_names(self) -> list[str]:
        """Names that have texts or records, in alphabetical order."""
        sealed = self.sealed.names_beside() if self.sealed is not None else []
        return sorted({*sealed, *self.live.names_beside()})

    def _kinds(self, name: str) -> set[int]:
        """Return the kinds of a name, numbers of all types as floats."""
        sealed = self.sealed.kinds(name) if self.sealed is not None else set()
        return {family_of(kind) for kind in sealed | self.live.kinds(name)}

    def portions(self, name: str) -> list[Portion]:
        """Return everything of a name, apart by writer and kind; nothing where it was never logged.

        Raises:
            FormatError: they are sealed and damaged.
        """

        def read() -> list[Portion]:
            sealed = self.sealed.portions(name) if self.sealed is not None else []
            return sealed + self.live.portions(name)

        return self.through_sealing(read)

    def series(self, name: str, *, attempt: int | str | None = None) -> Series:
        """Return one metric: its numbers, or its texts where it never was a number.

        Args:
            name: Metric name exactly as logged.
            attempt: `None`: the run's curve, without superseded points; a number: what that attempt logged;
                `"all"`: every point of every attempt.

        Raises:
            MetricNotFound: the run never logged it; the message names the nearest ones.
            FormatError: it is sealed and damaged.
        """
        kinds = self._kinds(name) - {fmt.TYPE_RECORD}
        if not kinds:
            raise MetricNotFound(_not_found(self._journal, name, self.names, self._kinds(name)))
        return join(name, self._chosen(name, kinds - set(fmt.BESIDE) or kinds, attempt), self.attempt_of)

    def records(self, name: str, *, attempt: int | str | None = None) -> list[tuple[int, float, int, str]]:
        """Return step, wall time, kind and payload of each text and record of a name, in the order of time.

        Args:
            name: The name.
            attempt: As in `series`.

        Raises:
            MetricNotFound, FormatError: as `series` does.
        """
        if self._kinds(name).isdisjoint(fmt.BESIDE):
            raise MetricNotFound(_not_found(self._journal, name, self.record_names, self._kinds(name)))
        lines: dict[tuple[str, int], list[tuple[int, float, int, float, int, str]]] = {}
        for portion in self._chosen(name, fmt.BESIDE, attempt):
            line = lines.setdefault((portion.writer, portion.kind), [])
            number = self.attempt_of(portion.writer)
            steps, walls = portion.step.tolist(), portion.wall_s.tolist()
            for step, wall_s, payload in zip(steps, walls, portion.values(), strict=True):
                # a clock that steps back must not reorder what one writer logged
                time_s = wall_s if not line or wall_s > line[-1][1] else line[-1][1]
                line.append((number, time_s, step, wall_s, portion.kind, payload))
        # Sealed times are milliseconds: of a text and a record at the same one, the lower step came first.
        merged = heapq.merge(*lines.values(), key=lambda row: row[:3])
        return [row[2:] for row in merged]

    def _chosen(self, name: str, kinds: Collection[int], attempt: int | str | None) -> list[Portion]:
        portions = [portion for portion in self.portions(name) if portion.family in kinds]
        if attempt == "all":
            return portions
        if attempt is not None:
            return [portion for portion in portions if self.attempt_of(portion.writer) == attempt]
        limits = self.limits(name)
        chosen = []
        for portion in portions:
            limit = limits.get(self.attempt_of(portion.writer))
            gone = portion.step >= limit if limit is not None else None
            chosen.append(portion.select(~gone) if gone is not None and gone.any() else portion)
        return chosen

    def curve(self, name: str) -> tuple[Series, bool]:
        """Return the run's curve of a metric and whether its steps never go back; the last few are kept at hand.

        Raises:
            MetricNotFound: the run never logged a number under this name.
            FormatError: as `series` does.
        """
        kept = self._curves.pop(name, None)
        if kept is None:
            if self._kinds(name) <= set(fmt.BESIDE):
                numbers = [other for other in self.names if not self._kinds(other) <= set(fmt.BESIDE)]
                raise MetricNotFound(_not_found(self._journal, name, numbers, self._kinds(name)))
            series = self.series(name)
            kept = series, bool((series.step[1:] >= series.step[:-1]).all())
        self._curves[name] = kept
        while len(self._curves) > _CURVES_AT_HAND or (
            len(self._curves) > 1 and sum(len(series) for series, _ in self._curves.values()) > _CURVE_POINTS_AT_HAND
        ):
            del self._curves[next(iter(self._curves))]
        return kept

    # --- attempts ---------------------------------------------------------------------------------------------------

    @cached_property
    def _attempts(self) -> dict[str, int]:
        """Attempt of each writer."""
        return {writer.writer: writer.attempt for writer in self._journal.writers}

    def attempt_of(self, writer: str) -> int:
        """Return the number of the attempt to which a writer belongs."""
        return self._attempts.get(writer, 1)  # its journal may be lost: the points are not

    @property
    def writers(self) -> set[str]:
        """The writers that have points."""
        sealed = self.sealed.writers if self.sealed is not None else set()
        return sealed | {writer for writer, tail in self.live.tails.items() if tail.given}

    @property
    def latest_attempt(self) -> int | None:
        """The number of the latest attempt, `None` where there is only one, so that nothing can be superseded."""
        numbers = {attempt.number for attempt in self._journal.attempts} | set(map(self.attempt_of, self.writers))
        return max(numbers) if len(numbers) > 1 else None

    def limits(self, name: str) -> dict[int, int]:
        """Return, by attempt, the step from which on its points of a metric are superseded by a later attempt.

        System metrics are never superseded: their steps are seconds.

        Raises:
            FormatError: the metric is sealed and damaged.
        """
        if name.startswith(SYSTEM) or self.latest_attempt is None:
            return {}
        # A resumed trainer may log the last row before its checkpoint once more: then from there on.
        begins: dict[int, int] = {}
        said = {attempt.number: attempt.rewind_step for attempt in self._journal.attempts}
        for attempt, step in said.items():
            if step is not None:
                begins[attempt] = step
        sealed = self.sealed.first_steps(name) if self.sealed is not None else []
        heads = [(self.attempt_of(writer), step) for writer, step in sealed + self.live.first_steps(name)]
        for attempt, step in heads:
            begins[attempt] = min(begins.get(attempt, step), step)
        limits = {}
        for attempt in {*said, *(attempt for attempt, _step in heads)}:
            later = [step for other, step in begins.items() if other > attempt]
            if later:
                limits[attempt] = min(later)
        return limits

    # --- figures ----------------------------------------------------------------------------------------------------

    def summaries(self) -> Summaries:
        """Return what each metric comes down to, superseded points left out; in alphabetical order.

        Texts and records are no metrics here.

        Raises:
            FormatError: a metric is sealed and damaged.
        """
        return self.through_sealing(self._summaries)

    def _summaries(self) -> Summaries:
        names = self.names
        figures = Figures(len(names))
        is_merged = self._merged()
        for row, step, value, wall_s in self._numbers():
            chosen = ~is_merged[row]
            if chosen.all():
                figures.add(row, step, value, wall_s)
            elif chosen.any():
                figures.add(row[chosen], step[chosen], value[chosen], wall_s[chosen])
        for place in np.flatnonzero(is_merged).tolist():
            if not self._kinds(names[place]) <= set(fmt.BESIDE):
                series = self.series(names[place])
                figures.add(place, series.step, series.value, series.wall_s)
        return Summaries({names[row]: row for row in np.flatnonzero(figures.count).tolist()}, figures)

    def _merged(self) -> NDArray[np.bool_]:
        """Return which names have a curve other than the points of one writer, one after the other."""
        first = np.full(len(self.names), -1, np.int64)
        is_merged = np.zeros(len(self.names), np.bool_)
        latest = self.latest_attempt
        for number, (writer, rows) in enumerate(self.rows_of_writers()):
            is_merged[rows[first[rows] >= 0]] = True
            first[rows] = number
            if latest is not None and self.attempt_of(writer) < latest:
                is_merged[rows] = True
        return is_merged

    def rows_of_writers(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield each writer with the rows of the names that it logged."""
        is_there = np.zeros(len(self.names), np.bool_)
        if self.sealed is not None:
            rows, catalogue = self._rows_of_sealed, self.sealed.catalogue
            for number, writer in enumerate(catalogue.writers):
                is_there[:] = False
                is_there[rows[catalogue.name[catalogue.writer == number]]] = True
                yield writer, np.flatnonzero(is_there)
        for writer, tail in self.live.tails.items():
            if not tail.given:
                continue
            places = self.live.places_of(writer)
            is_there[:] = False
            is_there[self.rows_of_live[places[places >= 0]]] = True
            yield writer, np.flatnonzero(is_there)

    @property
    def _rows_of_sealed(self) -> NDArray[np.int64]:
        """Row of each name of the sealed file among all names."""
        return self._rows(self.sealed.names if self.sealed is not None else [])

    @property
    def rows_of_live(self) -> NDArray[np.int64]:
        """Row of each unsealed name among all names."""
        return self._rows(self.live.names)

    def _rows(self, names: list[str]) -> NDArray[np.int64]:
        if len(names) == len(self.names):
            return np.arange(len(names))
        rows = {name: row for row, name in enumerate(self.names)}
        return np.array([rows[name] for name in names], np.int64)

    def _numbers(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Any, NDArray[np.float64]]]:
        """Yield all numbers, in the order of the slots of each writer: row of the name, step, value, wall time."""
        if self.sealed is not None and self.sealed.names:
            rows = self._rows_of_sealed[self.sealed.catalogue.name]
            for stretch, step, value, wall_s in self.sealed.numbers():
                yield rows[stretch], step, value, wall_s
        rows = self.rows_of_live
        for writer, tail in self.live.tails.items():
            places = self.live.places_of(writer)
            row_of_key = np.where(places >= 0, rows[places], -1) if len(rows) else places
            kinds = tail.keys.kinds[: len(places)]
            row_of_key[np.isin(kinds, fmt.BESIDE)] = -1
            is_integer = kinds != fmt.TYPE_FLOAT
            has_integers = bool((is_integer & (row_of_key >= 0)).any())
            for slots in tail.read_again():
                row = row_of_key[slots["key"]]
                if (row < 0).any():
                    row, slots = row[row >= 0], slots[row >= 0]
                bits = as_floats(slots["value"], is_integer[slots["key"]]) if has_integers else slots["value"]
                yield row, slots["step"], bits.view(np.float64), slots["wall"]


def _open_sealed(run_path: Path) -> SealedMetrics | None:
    if not (run_path / SEALED).is_file():
        return None
    from runstone.runlog.sealed import SealedMetrics  # Arrow, only for sealed runs

    return SealedMetrics(run_path)


def _not_found(journal: JournalState, name: str, names: list[str], kinds: set[int]) -> str:
    import difflib  # only for the message

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
    has = (
        "it has " + ", ".join(repr(n) for n in near) + (", …" if len(names) > len(near) else "")
        if names
        else ("it has logged no metric")
    )
    if fmt.TYPE_RECORD in kinds:
        has = f"what it logged under this name are media: records({name!r})"
    elif kinds:
        has = f"under this name it logged {'texts' if fmt.TYPE_STRING in kinds else 'numbers'}: series({name!r})"
    return f"run {journal.name or journal.run_id} has no metric {name!r}; {has}"
