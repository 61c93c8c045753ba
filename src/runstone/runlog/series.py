"""All points of a run: one metric as arrays, without what a later attempt superseded. Knows no plot and no table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runstone.errors import MetricNotFound
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
        """The metrics, in alphabetical order."""
        return sorted({*self._metrics, *(self.sealed.names if self.sealed is not None else ())})

    @property
    def is_sealed(self) -> bool:
        """Whether all its points lie in the sealed file."""
        return self.sealed is not None and not self._metrics

    def portions(self, name: str) -> list[Portion]:
        """Return all points of a metric, apart by writer and kind; none where it was never logged.

        Raises:
            FormatError: they are sealed and damaged.
        """
        sealed = self.sealed.portions(name) if self.sealed is not None else []
        return sealed + self._metrics.get(name, [])

    def series(self, name: str, *, attempt: int | str | None = None) -> Series:
        """Return one metric.

        Args:
            name: Metric name exactly as logged.
            attempt: `None`: the run's curve, without superseded points; a number: what that attempt logged;
                `"all"`: every point of every attempt.

        Raises:
            MetricNotFound: the run never logged it; the message names the nearest ones.
            FormatError: it is sealed and damaged.
        """
        portions = self.portions(name)
        if not portions:
            raise MetricNotFound(_not_found(self._journal, name, self.names))
        if attempt == "all":
            return join(name, portions)
        if attempt is not None:
            return join(name, [p for p in portions if self.attempt_of(p) == attempt])
        return join(name, [p.select(~gone) if gone.any() else p for p, gone in self.superseded(portions)])

    def curve(self, name: str) -> tuple[Series, bool]:
        """Return the run's curve of a metric and whether its steps never go back; the last few are kept at hand.

        Raises:
            MetricNotFound, FormatError: as `series` does.
        """
        kept = self._curves.pop(name, None)
        if kept is None:
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

    def superseded(self, portions: list[Portion]) -> Iterator[tuple[Portion, NDArray[np.bool_]]]:
        """Yield the portions of one metric, each with the mask of what a later attempt superseded."""
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
        """Return what each metric comes down to, superseded points left out; in alphabetical order."""
        result = {}
        for name in self.names:
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


def _not_found(journal: JournalState, name: str, names: list[str]) -> str:
    import difflib  # only for the message

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:8]
    has = (
        "it has " + ", ".join(repr(n) for n in near) + (", …" if len(names) > len(near) else "")
        if names
        else ("it has logged no metric")
    )
    return f"run {journal.name or journal.run_id} has no metric {name!r}; {has}"
