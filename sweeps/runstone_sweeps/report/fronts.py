"""Figures of several metrics at once: the Pareto front, and the volume that it dominates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.record.ranking import first_key, is_dominated
from runstone_sweeps.report.drawing import ACCENT, GOOD, SOFT, Figure, Trace, axis, escaped, thinned
from runstone_sweeps.results.text import number
from runstone_sweeps.spec import SweepSpec

_MOST_MARKERS = 1_500
_MOST_PAIRS = 3
# What is spent on a volume grows with the power of the metrics.
_MOST_METRICS = 4
_MOST_ON_FRONT = 60

Key = tuple[float, ...]


def draw_front(record: SweepRecord, spec: SweepSpec) -> Figure:
    """Draw the results by two metrics at a time, with the Pareto front."""
    title = "Pareto front"
    front = [t for t in record.front() if t.values]
    on_front = {trial.number for trial in front}
    others = [t for t in record.trials.values() if t.state is TrialState.COMPLETE and t.values]
    if not others:
        return Figure(title, reason="No trial is complete yet.")
    feasible = thinned([t for t in others if t.is_feasible and t.number not in on_front], _MOST_MARKERS)
    infeasible = thinned([t for t in others if not t.is_feasible], _MOST_MARKERS // 3)
    pairs = list(combinations(range(len(spec.metrics)), 2))[:_MOST_PAIRS]
    data: list[Trace] = []
    layout: dict[str, object] = {"grid": {"rows": 1, "columns": len(pairs), "pattern": "independent"}}
    for place, (across, up) in enumerate(pairs, 1):
        end = "" if place == 1 else str(place)
        layout[f"xaxis{end}"] = axis(f"{spec.metrics[across].name} ({spec.metrics[across].goal})")
        layout[f"yaxis{end}"] = axis(f"{spec.metrics[up].name} ({spec.metrics[up].goal})")
        line = sorted(front, key=lambda t: (t.values or ())[across])
        for name, trials, color, symbol in (
            ("complete", feasible, ACCENT, "circle"),
            ("infeasible", infeasible, SOFT, "circle-open"),
            ("on the front", line, GOOD, "diamond"),
        ):
            if not trials:
                continue
            is_line = trials is line and len(spec.metrics) == 2
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if is_line else "markers",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": place == 1,
                    "x": [(t.values or ())[across] for t in trials],
                    "y": [(t.values or ())[up] for t in trials],
                    "text": [_said(t, spec) for t in trials],
                    "hoverinfo": "text",
                    "marker": {"color": color, "symbol": symbol, "size": 9 if trials is line else 6},
                    "line": {"color": color, "width": 1, "dash": "dot"},
                    "xaxis": f"x{end}",
                    "yaxis": f"y{end}",
                }
            )
    shown = len(feasible) + len(infeasible) + len(front)
    note = f"{shown:,} of {len(others):,} complete trials are shown, all of the front among them."
    return Figure(title, data, layout, note=note if shown < len(others) else "", is_wide=len(pairs) > 1)


def draw_hypervolume(record: SweepRecord, spec: SweepSpec) -> Figure:
    """Draw how much of the space of results is dominated after each trial, seen from a point worse than all of them."""
    title = "Hypervolume"
    goals = [metric.goal for metric in spec.metrics]
    trials = [
        t
        for t in record.trials.values()
        if t.state is TrialState.COMPLETE and t.is_feasible and t.values and all(map(math.isfinite, t.values))
    ]
    if not trials:
        return Figure(title, reason="No feasible trial is complete yet.")
    if len(goals) > _MOST_METRICS:
        return Figure(title, reason=f"It takes too long for more than {_MOST_METRICS} metrics.")
    keys = [first_key(t.values or (), goals) for t in trials]
    reference = tuple(max(column) + 0.1 * ((max(column) - min(column)) or 1.0) for column in zip(*keys, strict=True))
    front: list[Key] = []
    xs: list[int] = []
    ys: list[float] = []
    for trial, key in sorted(zip(trials, keys, strict=True), key=lambda pair: pair[0].ended_at or 0.0):
        if key in front or any(is_dominated(key, other) for other in front):
            continue
        front = [other for other in front if not is_dominated(other, key)] + [key]
        if len(goals) > 2 and len(front) > _MOST_ON_FRONT:
            return Figure(title, reason=f"It takes too long for a front of more than {_MOST_ON_FRONT} trials.")
        xs.append(trial.number)
        ys.append(hypervolume(front, reference))
    # Along the numbers, as in the history, although a trial may end after one that began later.
    points = sorted(zip(xs, ys, strict=True))
    rising, best = [], 0.0
    for x, y in points:
        best = max(best, y)
        rising.append((x, best))
    rising.append((max(t.number for t in trials), best))
    points = thinned(rising, 1_000)
    line = {"shape": "hv", "width": 2, "color": GOOD}
    data = [
        {"type": "scatter", "mode": "lines", "x": [x for x, _ in points], "y": [y for _, y in points], "line": line}
    ]
    signs = [-1.0 if goal == "maximize" else 1.0 for goal in goals]
    where = ", ".join(
        f"{metric.name} = {number(sign * value)}"
        for metric, sign, value in zip(spec.metrics, signs, reference, strict=True)
    )
    layout = {"xaxis": axis("Trial"), "yaxis": axis("Hypervolume", rangemode="tozero"), "showlegend": False}
    return Figure(title, data, layout, note=f"Seen from {where}.")


def hypervolume(front: Sequence[Key], reference: Key) -> float:
    """Return the volume between points and a reference; smaller is better in every direction.

    Args:
        front: Points of n numbers.
        reference: One point of n numbers; what is not better than it counts nothing.

    Source: While et al., "A Faster Algorithm for Calculating Hypervolume", IEEE Transactions on Evolutionary
    Computation 10(1), 2006 (slicing by objectives).
    """
    inside = [key for key in front if all(value < bound for value, bound in zip(key, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(key[0] for key in inside)
    ordered = sorted(inside)
    volume = 0.0
    rest: list[Key] = []
    for place, key in enumerate(ordered):
        rest = [other for other in rest if not all(a <= b for a, b in zip(key[1:], other, strict=True))]
        if not any(all(b <= a for a, b in zip(key[1:], other, strict=True)) for other in rest):
            rest.append(key[1:])
        until = ordered[place + 1][0] if place + 1 < len(ordered) else reference[0]
        if until > key[0]:
            volume += (until - key[0]) * hypervolume(rest, reference[1:])
    return volume


def _said(trial: TrialRecord, spec: SweepSpec) -> str:
    results = zip(spec.metrics, trial.values or (), strict=False)
    return f"trial {trial.number}: " + ", ".join(f"{escaped(m.name)} {number(value)}" for m, value in results)
