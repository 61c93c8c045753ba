"""When a rule holds: each kind of rule as a small state machine over what came since it last looked. Sends nothing.

A rule is told of once while it holds, and again after it has not held in between.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

import numpy as np

from runstone.alerts.rules import Rule
from runstone.names import SYSTEM
from runstone.values import Series

_WINDOW = 25
_LEAST_POINTS = 50


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule that has begun to hold.

    Attributes:
        rule: Which.
        title: One line.
        text: What shows it, with the numbers.
        metric, step, value: The point that shows it, where there is one.
    """

    rule: Rule
    title: str
    text: str
    metric: str | None = None
    step: int | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What a run looks like when it is looked at.

    Attributes:
        now: Seconds since the epoch.
        started_at: When its latest attempt began.
        new: Numbers that came since the last look, by metric.
        status: Of the run.
        why: The exception that it failed with, in a line.
        path: Its folder.
    """

    now: float
    started_at: float
    new: Mapping[str, Series]
    status: str
    why: str
    path: Path

    def matching(self, pattern: str) -> Iterator[Series]:
        """Yield what came of the metrics that a pattern names; of those of the system only where it says so."""
        for name, series in self.new.items():
            if name == pattern or (
                fnmatchcase(name, pattern) and (pattern.startswith(SYSTEM) or not name.startswith(SYSTEM))
            ):
                yield series


Condition = Callable[[Moment], Iterator[Firing]]


def condition(rule: Rule) -> Condition:
    """Return what watches for a rule; it keeps its state between calls."""
    return _KINDS[rule.when](rule)


class _Nan:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._broken: set[str] = set()

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        for series in moment.matching(self._rule.metric):
            bad = ~np.isfinite(series.value)
            if bad.any() and series.name not in self._broken:
                self._broken.add(series.name)
                at = int(np.argmax(bad))
                value, step = float(series.value[at]), int(series.step[at])
                word = "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
                yield Firing(self._rule, f"{series.name} became {word}", f"At step {step}.", series.name, step, value)
            if not bad[-1]:
                self._broken.discard(series.name)


class _Diverged:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._last: dict[str, deque[float]] = {}
        self._best: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._told: set[str] = set()

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        for series in moment.matching(self._rule.metric):
            name = series.name
            window = self._last.setdefault(name, deque(maxlen=_WINDOW))
            values = series.value[np.isfinite(series.value)]
            self._seen[name] = self._seen.get(name, 0) + len(values)
            for start in range(0, len(values), _WINDOW):  # a long stretch at once: its best must not be missed
                window.extend(values[start : start + _WINDOW].tolist())
                if len(window) >= 5:
                    self._best[name] = min(self._best.get(name, math.inf), median(window))
            best, middle = self._best.get(name, math.inf), median(window) if window else math.nan
            # of a loss that goes below 0 no factor says what is bad: the distance from its best does
            limit = best * self._rule.factor if best > 0 else best + self._rule.factor * max(abs(best), 1.0)
            is_bad = self._seen[name] >= _LEAST_POINTS and middle > limit
            if is_bad and name not in self._told:
                self._told.add(name)
                text = f"The median of its last {len(window)} points is {middle:.4g}; it was {best:.4g} at its best."
                yield Firing(self._rule, f"{name} has diverged", text, name, int(series.step[-1]), middle)
            elif not is_bad:
                self._told.discard(name)


class _NoImprovement:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._best: dict[str, tuple[float, int, float]] = {}
        self._since: dict[str, int] = {}
        self._told: set[str] = set()

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        sign = 1.0 if self._rule.goal == "minimize" else -1.0
        for series in moment.matching(self._rule.metric):
            name = series.name
            values = np.where(np.isfinite(series.value), series.value * sign, np.inf)
            at = int(np.argmin(values))
            if values[at] < self._best.get(name, (math.inf, 0, 0.0))[0]:
                self._best[name] = float(values[at]), int(series.step[at]), float(series.wall_s[at])
                self._since[name] = len(values) - 1 - at
                self._told.discard(name)
            else:
                self._since[name] = self._since.get(name, 0) + len(values)
        if moment.status != "running":
            return
        for name, (best, step, wall_s) in self._best.items():
            is_over = (
                self._since[name] >= self._rule.points
                if self._rule.points is not None
                else moment.now - wall_s >= (self._rule.after_s or 0.0)
            )
            if is_over and name not in self._told:
                self._told.add(name)
                since = f"{self._since[name]} points" if self._rule.points is not None else _time(moment.now - wall_s)
                text = f"Its best is {best * sign:.6g}, of step {step}; {since} have gone by since."
                yield Firing(self._rule, f"{name} does not improve", text, name, step, best * sign)


class _Stalled:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._last = 0.0
        self._is_told = False

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        walls = [float(series.wall_s[-1]) for series in moment.matching("*")]
        self._last = max([self._last, moment.started_at, *walls])
        silent_s = moment.now - self._last
        if moment.status != "running" or silent_s < (self._rule.after_s or 0.0):
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            text = f"No point came for {_time(silent_s)}, and its process lives."
            yield Firing(self._rule, "nothing is logged any more", text)


class _GpuIdle:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._samples: deque[tuple[float, float]] = deque()
        self._first = math.inf
        self._is_told = False

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        for name, series in moment.new.items():
            if name.startswith(f"{SYSTEM}gpu.") and name.endswith("/util_percent"):
                pairs = zip(series.wall_s.tolist(), series.value.tolist(), strict=True)
                self._samples.extend(pair for pair in pairs if math.isfinite(pair[1]))
                self._first = min(self._first, float(series.wall_s[0]))
        span_s, below = self._rule.after_s or 0.0, self._rule.below or 0.0
        while self._samples and self._samples[0][0] < moment.now - span_s:
            self._samples.popleft()
        has_span = self._first <= moment.now - span_s
        mean = sum(value for _at, value in self._samples) / len(self._samples) if self._samples else math.nan
        if not has_span or not mean < below or moment.status != "running":
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            text = f"They were busy {mean:.1f} % of the last {_time(span_s)}."
            yield Firing(self._rule, "the GPUs are idle", text, value=mean)


class _DiskFull:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._is_told = False

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        try:
            disk = shutil.disk_usage(moment.path)
        except OSError:
            return
        limit = (
            self._rule.free_bytes if self._rule.free_bytes is not None else disk.total * (self._rule.free_share or 0)
        )
        if disk.free >= limit:
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            text = f"{disk.free / 1e9:.2f} GB are free of {disk.total / 1e9:.2f} GB, where the run is written."
            yield Firing(self._rule, "the disk is nearly full", text, value=float(disk.free))


class _Metric:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._streak: dict[str, int] = {}
        self._told: set[str] = set()

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        need = self._rule.points or 1
        for series in moment.matching(self._rule.metric):
            name = series.name
            over, limit = (
                (series.value > self._rule.above, self._rule.above)
                if self._rule.above is not None
                else (series.value < (self._rule.below or 0.0), self._rule.below)
            )
            word = "above" if self._rule.above is not None else "below"
            streak = self._streak.get(name, 0)
            for at, is_over in enumerate(over.tolist()):
                streak = streak + 1 if is_over else 0
                if streak == 0:
                    self._told.discard(name)
                elif streak >= need and name not in self._told:
                    self._told.add(name)
                    value, step = float(series.value[at]), int(series.step[at])
                    text = f"{value:.6g} at step {step}" + (f", {need} points in a row." if need > 1 else ".")
                    yield Firing(self._rule, f"{name} is {word} {limit:g}", text, name, step, value)
            self._streak[name] = streak


class _Ended:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._is_told = False

    def __call__(self, moment: Moment) -> Iterator[Firing]:
        if moment.status in self._rule.statuses and not self._is_told:
            self._is_told = True
            yield Firing(self._rule, f"the run {_ENDS.get(moment.status, moment.status)}", moment.why)


_ENDS = {
    "failed": "failed",
    "crashed": "crashed",
    "stopped": "was stopped",
    "pruned": "was pruned",
    "finished": "is finished",
}
_KINDS: dict[str, Callable[[Rule], Condition]] = {
    "nan": _Nan,
    "diverged": _Diverged,
    "no_improvement": _NoImprovement,
    "stalled": _Stalled,
    "gpu_idle": _GpuIdle,
    "disk_full": _DiskFull,
    "metric": _Metric,
    "ended": _Ended,
}


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
