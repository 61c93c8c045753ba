"""All points of a run: one metric as arrays, without what a later attempt superseded. Knows no plot and no table."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runstone.errors import MetricNotFound
from runstone.names import SYSTEM
from runstone.runlog import format as fmt
from runstone.runlog.portions import Portion, first_step, join
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.summary import MetricAccumulator
from runstone.runlog.tail import SEALED, MetricTail
from runstone.values import MetricSummary, Series

if TYPE_CHECKING:
    from runstone.runlog.sealed import SealedMetrics


_CURVES_AT_HAND = 8


class MetricLog:
    """All points of a run: those that are sealed are read when asked for, the others at once.

    Args:
        run_path: Folder of the run.
        journal: What its journals say, for attempts; read where not given.

    Raises:
        FormatError: its sealed file is damaged.
    """

    def __init__(self, run_path: Path, journal: JournalState | None = None) -> None:
        self._journal = journal if journal is not None else read_journal(run_path)
        self.sealed = _open_sealed(run_path)
        self._tail = MetricTail(run_path, self.sealed)
        self._metrics: dict[str, list[Portion]] = {}
        self._curves: dict[str, tuple[Series, bool]] = {}
        self.poll()

    def poll(self) -> bool:
        """Take in what came since; return whether something did."""
        new = self._tail.poll_portions()
        for name, portions in new.items():
            self._metrics.setdefault(name, []).extend(portions)
            self._curves.pop(name, None)
        return bool(new)

    @property
    def unnamed(self) -> int:
        """Points whose name is not in the files: 0 unless they are damaged."""
        return self._tail.unnamed

    @property
    def names(self) -> list[str]:
        """Names of everything that was logged by step, in alphabetical order: numbers, texts, records."""
        return sorted({*self._metrics, *(self.sealed.names if self.sealed is not None else ())})

    @property
    def is_sealed(self) -> bool:
        """Whether all its points lie in the sealed file."""
        return self.sealed is not None and not self._metrics

    @property
    def record_names(self) -> list[str]:
        """Names that have texts or records, in alphabetical order."""
        return [name for name in self.names if not self._kinds(name).isdisjoint(fmt.BESIDE)]

    def _kinds(self, name: str) -> set[int]:
        sealed = self.sealed.kinds(name) if self.sealed is not None else set()
        return sealed | {portion.kind for portion in self._metrics.get(name, ())}

    def portions(self, name: str) -> list[Portion]:
        """Return everything of a name, apart by writer and kind; nothing where it was never logged.

        Raises:
            FormatError: they are sealed and damaged.
        """
        sealed = self.sealed.portions(name) if self.sealed is not None else []
        return sealed + self._metrics.get(name, [])

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
        return join(name, self._chosen(name, kinds - set(fmt.BESIDE) or kinds, attempt))

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
        lines: dict[tuple[str, int], list[tuple[float, int, float, int, str]]] = {}
        for portion in self._chosen(name, fmt.BESIDE, attempt):
            line = lines.setdefault((portion.writer, portion.kind), [])
            steps, walls = portion.slots["step"].tolist(), portion.slots["wall"].tolist()
            for step, wall_s, payload in zip(steps, walls, portion.values(), strict=True):
                # a clock that steps back must not reorder what one writer logged
                time_s = wall_s if not line or wall_s > line[-1][0] else line[-1][0]
                line.append((time_s, step, wall_s, portion.kind, payload))
        # Sealed times are milliseconds: of a text and a record at the same one, the lower step came first.
        merged = heapq.merge(*lines.values(), key=lambda row: row[:2])
        return [row[1:] for row in merged]

    def _chosen(self, name: str, kinds: Collection[int], attempt: int | str | None) -> list[Portion]:
        portions = self.portions(name)
        if attempt == "all":
            chosen = portions
        elif attempt is not None:
            chosen = [p for p in portions if self.attempt_of(p) == attempt]
        else:
            chosen = [p.select(~gone) if gone.any() else p for p, gone in self.superseded(name, portions)]
        return [portion for portion in chosen if portion.kind in kinds]

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
        for oldest in list(self._curves)[:-_CURVES_AT_HAND]:
            del self._curves[oldest]
        return kept

    def attempt_of(self, portion: Portion) -> int:
        """Return the number of the attempt that logged a portion."""
        for writer in self._journal.writers:
            if writer.writer == portion.writer:
                return writer.attempt
        return 1  # its journal is lost: the points are not

    def superseded(self, name: str, portions: list[Portion]) -> Iterator[tuple[Portion, NDArray[np.bool_]]]:
        """Yield the portions of one metric, each with the mask of what a later attempt superseded.

        System metrics are never superseded: their steps are seconds.
        """
        if name.startswith(SYSTEM):
            for portion in portions:
                yield portion, np.zeros(len(portion), np.bool_)
            return
        attempts = [self.attempt_of(portion) for portion in portions]
        limits: dict[int, int] = {}  # attempt -> first step that supersedes what came before it
        rewinds = {attempt.number: attempt.rewind_step for attempt in self._journal.attempts}
        for number in {*attempts, *rewinds}:
            said = rewinds.get(number)
            first = first_step([p for p, attempt in zip(portions, attempts, strict=True) if attempt == number])
            # A resumed trainer may log the last row before its checkpoint once more: then from there on.
            known = [step for step in (said, first) if step is not None]
            if known:
                limits[number] = min(known)
        for portion, number in zip(portions, attempts, strict=True):
            later = [step for other, step in limits.items() if other > number]
            steps = portion.slots["step"]
            yield portion, steps >= min(later) if later else np.zeros(len(steps), np.bool_)

    def summaries(self) -> dict[str, MetricSummary]:
        """Return what each metric comes down to, superseded points left out; in alphabetical order.

        Texts and records are no metrics here.
        """
        result = {}
        for name in self.names:
            if self._kinds(name) <= set(fmt.BESIDE):
                continue
            series = self.series(name)
            accumulator = MetricAccumulator(name)
            accumulator.add(series.step, series.value, series.wall_s)
            if accumulator.count:
                result[name] = accumulator.summary()
        return result


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
