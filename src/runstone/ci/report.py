"""A change against the branch that it goes to: params, metrics with significance, environment, data, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runstone.ci.pictures import Curve, curves_svg, write_picture
from runstone.ci.sides import Side
from runstone.comparison import Comparison, cell, compare
from runstone.comparison.markdown import escaped, p_text
from runstone.comparison.measure import goal_of
from runstone.errors import InvalidValue, RunstoneError
from runstone.names import SYSTEM
from runstone.runinfo import RunInfo
from runstone.statistics import correct, difference

_MOST_METRICS = 40
_MOST_ROWS = 40
_MOST_PICTURES = 8
_TABLES = ("params", "environment", "code", "data")


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric on both sides.

    Attributes:
        name: Of the metric.
        is_maximized: Whether more of it is better.
        base, head: Last values of the runs that have it.
        p: How likely such a difference is by chance, corrected for all metrics (Holm); `None` with less than two runs
            on a side.
        word: `better`, `worse`, `open` (not settled), `equal`, `none` (too few runs to tell, or missing on a side).
    """

    name: str
    is_maximized: bool
    base: tuple[float, ...]
    head: tuple[float, ...]
    p: float | None
    word: str

    @property
    def delta(self) -> float | None:
        """Mean of the head less mean of the base; `None` where one is missing."""
        if not self.base or not self.head:
            return None
        return _mean(self.head) - _mean(self.base)


@dataclass(frozen=True)
class ChangeReport:
    """A change, as `report` found it.

    Attributes:
        base, head: The runs.
        metrics: In alphabetical order, those that were asked for as they were.
        compared: The newest run of each side, side by side.
        confidence: Of `better` and `worse`.
    """

    base: Side
    head: Side
    metrics: tuple[MetricChange, ...]
    compared: Comparison
    confidence: float

    def to_markdown(self, pictures: Sequence[tuple[str, str]] = ()) -> str:
        """Return it for a pull request.

        Args:
            pictures: Name of the metric and where its picture lies.
        """
        base, head = _side(self.base), _side(self.head)
        lines = [f"### {_headline(self.metrics)}", "", f"{head} against {base}.", ""]
        lines += self._metrics()
        for section in _TABLES:
            lines += self._section(section)
        for name, place in pictures:
            lines += [f"![{escaped(name)}]({place})", ""]
        return "\n".join(lines).rstrip() + "\n"

    def _metrics(self) -> list[str]:
        if not self.metrics:
            return ["No metrics in common.", ""]
        lines = [
            f"| metric | {escaped(self.base.label)} | {escaped(self.head.label)} | change | p | |",
            "|---|---:|---:|---:|---:|---|",
        ]
        for metric in self.metrics:
            delta = "" if metric.delta is None else f"{metric.delta:+.4g}"
            lines.append(
                f"| {escaped(metric.name)} | {_values(metric.base)} | {_values(metric.head)} | {delta} "
                f"| {p_text(metric.p)} | {_MARKS[metric.word]} |"
            )
        lines.append("")
        if any(metric.p is not None for metric in self.metrics):
            lines += [
                f"Mean ± standard deviation over runs; p of Welch's t-test, corrected for {len(self.metrics)} metrics "
                f"(Holm); a verdict takes {self.confidence:.0%} confidence.",
                "",
            ]
        else:
            lines += [
                "One run on a side: whether a change is more than chance takes two of each, with other seeds.",
                "",
            ]
        return lines

    def _section(self, section: str) -> list[str]:
        told = self.compared.differences(section)
        base, head = self.compared.members
        if not told.rows:
            return [f"{section.capitalize()}: nothing differs ({told.equal} equal).", ""]
        opened = " open" if section == "params" else ""
        counts = f"{len(told.rows)} differ, {told.equal} equal"
        lines = [
            f"<details{opened}><summary>{section.capitalize()}: {counts}</summary>",
            "",
            f"| | {escaped(self.base.label)} | {escaped(self.head.label)} |",
            "|---|---|---|",
        ]
        for row in told.rows[:_MOST_ROWS]:
            lines.append(f"| {escaped(row.name)} | {_cell(cell(row, base.id))} | {_cell(cell(row, head.id))} |")
        if len(told.rows) > _MOST_ROWS:
            lines.append(f"| … {len(told.rows) - _MOST_ROWS} more | | |")
        return [*lines, "", "</details>", ""]

    def write_pictures(self, folder: Path) -> list[tuple[str, str]]:
        """Draw the curves of the metrics, and return the name of each metric and of its file."""
        found: list[tuple[str, str]] = []
        for metric in self.metrics:
            if len(found) >= _MOST_PICTURES:
                break
            sides = [_curves(side.runs, metric.name) for side in (self.base, self.head)]
            picture = curves_svg(metric.name, sides[0], sides[1], (self.base.label, self.head.label))
            if picture is not None:
                found.append((metric.name, write_picture(folder, len(found) + 1, metric.name, picture)))
        return found


def report(base: Side, head: Side, *, metrics: Sequence[str] = (), confidence: float = 0.95) -> ChangeReport:
    """Compare two sides.

    Args:
        base: What the change goes to.
        head: The change.
        metrics: Which, as `NAME`; default: all that a run of the head has, without those of the system.
        confidence: What a verdict is to have.

    Raises:
        InvalidValue: both sides are the same run, or no run has such a metric.
        InvalidConfig: there are several runs on both sides, and SciPy is not installed.
    """
    if base.runs[0].id == head.runs[0].id:
        raise InvalidValue(f"both sides are the run {head.runs[0].name!r:.80}; say with --base which runs are meant")
    there = sorted({name for run in head.runs for name in run.metrics if not name.startswith(SYSTEM)})
    if missing := [name for name in metrics if name not in there]:
        raise InvalidValue(f"no run of {head.label!r:.80} has a metric {missing[0]!r:.80}; they have {there[:20]}")
    names = list(metrics) or there[:_MOST_METRICS]
    values = {name: (_last(base.runs, name), _last(head.runs, name)) for name in names}
    tested = [name for name in names if min(map(len, values[name])) >= 2]
    p_values = [_p(*values[name]) for name in tested]
    corrected = dict(zip(tested, correct(p_values, "holm"), strict=True))
    found = []
    for name in names:
        one, other = values[name]
        if not one and not other:  # texts, or never a finite number
            continue
        is_maximized, p = goal_of(name) == "maximize", corrected.get(name)
        found.append(MetricChange(name, is_maximized, one, other, p, _word(one, other, is_maximized, p, confidence)))
    return ChangeReport(base, head, tuple(found), compare([base.runs[0], head.runs[0]]), confidence)


def _last(runs: Sequence[RunInfo], name: str) -> tuple[float, ...]:
    found = [summary.last for run in runs if (summary := run.metrics.get(name)) is not None]
    return tuple(float(value) for value in found if isinstance(value, int | float) and math.isfinite(value))


def _p(base: Sequence[float], head: Sequence[float]) -> float:
    p = difference(head, base).p
    return 1.0 if p is None else p


def _word(base: Sequence[float], head: Sequence[float], is_maximized: bool, p: float | None, confidence: float) -> str:
    if not base or not head:
        return "none"
    delta = _mean(head) - _mean(base)
    if delta == 0:
        return "equal"
    if p is None:
        return "none"
    if p >= 1 - confidence:
        return "open"
    return "better" if (delta > 0) == is_maximized else "worse"


_MARKS = {"better": "✅ better", "worse": "❌ worse", "open": "not settled", "equal": "equal", "none": ""}


def _headline(metrics: Sequence[MetricChange]) -> str:
    counts = {word: sum(metric.word == word for metric in metrics) for word in ("better", "worse", "open")}
    if not any(metric.p is not None for metric in metrics):
        return "How this change did"
    parts = [f"{count} {words}" for count, words in zip(counts.values(), _COUNTED, strict=True) if count]
    mark = "❌" if counts["worse"] else "✅" if counts["better"] else "➖"
    return f"{mark} Metrics: {', '.join(parts) or 'all equal'}"


_COUNTED = ("better", "worse", "not settled")


def _side(side: Side) -> str:
    count = len(side.runs)
    runs = "run " + escaped(side.runs[0].name) if count == 1 else f"{count} runs"
    commit = f", commit {side.commit[:10]}" if side.commit else ""
    return f"**{escaped(side.label)}** ({runs}{commit})"


def _values(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.5g}"
    return f"{_mean(values):.5g} ± {float(np.std(values, ddof=1)):.2g}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cell(text: str) -> str:
    return escaped(text if len(text) <= 120 else f"{text[:117]}…")


def _curves(runs: Sequence[RunInfo], metric: str) -> list[Curve]:
    found: list[Curve] = []
    for run in runs:
        if metric not in run.metrics:
            continue
        try:
            series = run.series(metric)
            found.append((series.step.astype(np.float64), series.value.astype(np.float64)))
        except (RunstoneError, ValueError, TypeError):  # texts have no curve
            continue
    return found
