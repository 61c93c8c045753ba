"""The curves of one run as they grow, in bounded memory. Reads files; never slows who writes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runstone.names import SYSTEM
from runstone.runlog import format as fmt
from runstone.runlog.portions import Portion
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.tail import MetricTail
from runstone.runlog.thin import equal_counts, thin

Floats = NDArray[np.float64]
_MOST_POINTS = 1 << 16
"""Of one metric of one attempt; beyond that, of each few neighbours only those stay that a plot would show."""


@dataclass(slots=True)
class _Part:
    """What one attempt logged of a metric."""

    step: Floats = field(default_factory=lambda: np.empty(0))
    wall_s: Floats = field(default_factory=lambda: np.empty(0))
    value: Floats = field(default_factory=lambda: np.empty(0))
    first_step: float = np.inf
    count: int = 0
    nan_count: int = 0

    def add(self, portion: Portion) -> None:
        values = portion.values().astype(np.float64)
        self.first_step = min(self.first_step, float(portion.step[0]))
        self.count += len(values)
        self.nan_count += int(np.count_nonzero(np.isnan(values)))
        is_finite = np.isfinite(values)
        self.step = np.append(self.step, portion.step[is_finite])
        self.wall_s = np.append(self.wall_s, portion.wall_s[is_finite])
        self.value = np.append(self.value, values[is_finite])
        if len(self.value) > _MOST_POINTS:
            rows = thin(self.value, equal_counts(len(self.value), _MOST_POINTS // 16))
            self.step, self.wall_s, self.value = self.step[rows], self.wall_s[rows], self.value[rows]


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric of a run as it is drawn: finite points in the order of steps.

    Attributes:
        step, wall_s, value: Arrays of shape `(n,)`.
        count, nan_count: All points of the run's attempts, and how many of them are NaN.
        last: The value logged last.
    """

    step: Floats
    wall_s: Floats
    value: Floats
    count: int
    nan_count: int
    last: float


class RunCurves:
    """Follows one run.

    Args:
        path: Folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal: JournalState = read_journal(path)
        self._tail = MetricTail(path)
        self._parts: dict[str, dict[int, _Part]] = {}
        self._is_over = False

    def poll(self) -> bool:
        """Take in what came since the last call; return whether something did."""
        if self._is_over:
            return False
        before = self.journal
        # before the points: where it has ended now, all of them are in the files
        self.journal = read_journal(self.path)
        self._is_over = self.journal.status.is_ended and not any(one.is_alive for one in self.journal.writers)
        attempts = {writer.writer: writer.attempt for writer in self.journal.writers}
        is_new = before.status is not self.journal.status
        for name, portions in self._tail.poll_portions().items():
            for portion in portions:
                if portion.kind not in fmt.BESIDE and len(portion):
                    attempt = attempts.get(portion.writer, 1)
                    self._parts.setdefault(name, {}).setdefault(attempt, _Part()).add(portion)
                    is_new = True
        return is_new

    def look_again(self) -> None:
        """Look at the run again although it had ended: it may have been resumed."""
        self._is_over = False

    @property
    def names(self) -> list[str]:
        """Names of its metrics, those of the system last."""
        return sorted(self._parts, key=lambda name: (name.startswith(SYSTEM), name))

    def curve(self, name: str) -> Curve | None:
        """Return one metric without what a later attempt superseded, `None` where it was never logged."""
        parts = self._parts.get(name)
        if not parts:
            return None
        limit = np.inf
        kept: list[_Part] = []
        steps: list[Floats] = []
        walls: list[Floats] = []
        values: list[Floats] = []
        for number in sorted(parts, reverse=True):
            part = parts[number]
            rows = part.step < limit
            steps.insert(0, part.step[rows])
            walls.insert(0, part.wall_s[rows])
            values.insert(0, part.value[rows])
            limit = min(limit, part.first_step)
            kept.append(part)
        step, wall, value = np.concatenate(steps), np.concatenate(walls), np.concatenate(values)
        last = float(value[-1]) if len(value) else np.nan
        order = np.argsort(step, kind="stable")
        return Curve(
            step[order], wall[order], value[order], sum(p.count for p in kept), sum(p.nan_count for p in kept), last
        )


def smoothed(value: Floats, weight: float) -> Floats:
    """Return an exponential moving average without the pull of its start towards zero.

    Args:
        value: Finite values, shape `(n,)`.
        weight: How much of each point comes from those before it: 0 (none) to below 1.
    """
    if weight <= 0.0 or len(value) == 0:
        return value
    found = np.empty(len(value))
    mean, scale = 0.0, 0.0
    for place, one in enumerate(value.tolist()):
        mean = weight * mean + (1.0 - weight) * one
        scale = weight * scale + (1.0 - weight)
        found[place] = mean / scale
    return found


def thinned(curve: Curve, columns: int) -> Curve:
    """Return what a plot of so many columns shows of a curve: no spike is lost."""
    if len(curve.value) <= 8 * columns:
        return curve
    rows = thin(curve.value, equal_counts(len(curve.value), 2 * columns))
    return Curve(curve.step[rows], curve.wall_s[rows], curve.value[rows], curve.count, curve.nan_count, curve.last)


def shared_names(runs: Iterable[RunCurves], *, system: bool) -> list[str]:
    """Return the metrics that runs have, those that most have first; of the system or the others."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.names:
            if name.startswith(SYSTEM) is system:
                counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))
