"""Figures of runs, asked for in words: what notebooks, reports and the page call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.comparison.comparison import Comparison, compare
from runstone.comparison.measure import Goal, measured, parse_measure
from runstone.comparison.members import members_of
from runstone.comparison.plotting import MOST_CURVES, bars, boxes, front, parallel
from runstone.errors import InvalidValue, MetricNotFound
from runstone.figures import (
    Curve,
    Figure,
    Point,
    curve_of,
    draw_curves,
    draw_heat_map,
    draw_histogram,
    draw_history,
    draw_scatter,
    draw_spread,
)
from runstone.query.table import RunTable, plain

PLOT_KINDS = ("curves", "groups", "spread", "scatter", "histogram", "heatmap", "parallel", "front", "history")
_MISSING = "(not set)"


@dataclass(frozen=True, slots=True)
class Plot:
    """What is to be drawn.

    Attributes:
        kind: `curves`: a metric over x, with `by` means of groups in a band; `groups`: means of groups with intervals;
            `spread`: every run, by group; `scatter`: the field `y` over the field `x`; `histogram`: of a metric over
            the runs; `heatmap`: mean of a metric by the fields `x` and `y`; `parallel`: params and a metric;
            `front`: Pareto front of metrics; `history`: a metric run by run, with the best so far.
        metrics: One, or for `front` two or more; see `compare`.
        x: For curves `step`, `time`, `relative` or a metric; else a field such as `params.lr`.
        y: A field.
        by: Fields to group by.
        smoothing: Of curves, from 0 to below 1.
        is_log_x, is_log_y: Whether axes are logarithmic.
        goal, at, baseline, confidence: See `compare`.
        bins: How many ranges a histogram has; 0: as the values suggest.
        title: Of the figure; empty: what it shows.
    """

    kind: str = "curves"
    metrics: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    by: tuple[str, ...] = ()
    smoothing: float = 0.0
    is_log_x: bool = False
    is_log_y: bool = False
    goal: Goal | None = None
    at: str | None = None
    baseline: str | None = None
    confidence: float = 0.95
    bins: int = 0
    title: str = ""


def draw_plot(found: RunTable, wanted: Plot) -> Figure:
    """Return a figure of runs.

    Raises:
        InvalidValue: something that the kind needs is missing, or is not among the runs.
        InvalidFilter: a field does not parse.
        InvalidConfig: it takes SciPy, which is not installed.
    """
    if wanted.kind not in PLOT_KINDS:
        raise InvalidValue(f"kind is {wanted.kind!r:.80}; it must be {', '.join(PLOT_KINDS)}")
    if not len(found):
        return Figure(wanted.title or "No runs", reason="No run fits.")
    figure = _DRAWN[wanted.kind](found, wanted)
    if not wanted.title:
        return figure
    return Figure(wanted.title, figure.data, figure.layout, figure.note, figure.reason, figure.height, figure.is_wide)


def _metric(wanted: Plot) -> str:
    if not wanted.metrics:
        raise InvalidValue(f"a plot of kind {wanted.kind} needs a metric")
    return wanted.metrics[0]


def _curves(found: RunTable, wanted: Plot) -> Figure:
    metric = _metric(wanted)
    x = wanted.x or "step"
    having = [place for place, record in enumerate(found.records) if metric in record.metrics]
    curves: list[Curve] = []
    for place in having[:MOST_CURVES]:
        try:
            curves.append(curve_of(found[place], metric, x))
        except MetricNotFound:  # texts, or a run without the metric of the x axis
            continue
    if wanted.by:
        labels = _labels(found, wanted.by)
        of_run = {record.id: labels[place] for place, record in enumerate(found.records)}
        groups: dict[str, list[Curve]] = {}
        for curve in curves:
            groups.setdefault(of_run[curve.key], []).append(curve)
        figure = draw_spread(list(groups.items()), metric=metric, x=x, is_log_y=wanted.is_log_y)
    else:
        figure = draw_curves(
            curves, metric=metric, x=x, smoothing=wanted.smoothing, is_log_x=wanted.is_log_x, is_log_y=wanted.is_log_y
        )
    if len(having) <= MOST_CURVES:
        return figure
    note = f"The first {MOST_CURVES} of {len(having):,} runs are drawn. {figure.note}".strip()
    return Figure(figure.title, figure.data, figure.layout, note, height=figure.height, is_wide=True)


def _labels(found: RunTable, by: tuple[str, ...]) -> list[str]:
    columns = [found.values(name) for name in by]
    if len(by) == 1:
        return [_shown(value) for value in columns[0]]
    names = [name.removeprefix("params.") for name in by]
    return [
        ", ".join(f"{name}={_shown(value)}" for name, value in zip(names, row, strict=True))
        for row in zip(*columns, strict=True)
    ]


def _shown(value: Any) -> str:
    return _MISSING if value is None else plain(value)


def _compared(found: RunTable, wanted: Plot) -> Comparison:
    return compare(
        found,
        metrics=wanted.metrics,
        at=wanted.at,
        by=wanted.by,
        goal=wanted.goal,
        baseline=wanted.baseline,
        confidence=wanted.confidence,
    )


def _groups(found: RunTable, wanted: Plot) -> Figure:
    if not wanted.by:
        raise InvalidValue(f"a plot of kind {wanted.kind} needs by, such as params.model")
    compared = _compared(found, wanted)
    (grouping, *_rest) = compared.groupings
    return bars(grouping) if wanted.kind == "groups" else boxes(compared, grouping)


def _scatter(found: RunTable, wanted: Plot) -> Figure:
    x, y = _column(found, wanted.x, "x"), _column(found, wanted.y or _metric_field(wanted), "y")
    names = [record.name for record in found.records]
    ids = [record.id for record in found.records]
    keys = _labels(found, wanted.by) if wanted.by else ids
    points = [
        Point(key, name if key == run_id else f"{name} ({key})", float(across), float(up))
        for key, run_id, name, across, up in zip(keys, ids, names, x, y, strict=True)
        if _is_number(across) and _is_number(up)
    ]
    shown = draw_scatter(
        points,
        x=_short(wanted.x),
        y=_short(wanted.y or _metric_field(wanted)),
        is_log_x=wanted.is_log_x,
        is_log_y=wanted.is_log_y,
    )
    lost = len(found) - len(points)
    note = f"{lost:,} {'run has' if lost == 1 else 'runs have'} no number for both." if lost else ""
    return Figure(shown.title, shown.data, shown.layout, note, shown.reason)


def _metric_field(wanted: Plot) -> str:
    return f"metrics.{wanted.metrics[0]}" if wanted.metrics else ""


def _short(field: str) -> str:
    return field.removeprefix("params.").removeprefix("metrics.")


def _column(found: RunTable, field: str, name: str) -> list[Any]:
    if not field:
        raise InvalidValue(f"this plot needs {name}, a field such as params.lr or metrics.loss.min")
    return found.values(field)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _values(found: RunTable, wanted: Plot) -> tuple[str, bool, dict[str, float]]:
    """Return what the first metric is called, whether more of it is better, and its value of each run that has one."""
    members = members_of(found)
    known = dict.fromkeys(name for member in members for name in member.metrics)
    measure = parse_measure(_metric(wanted), known, at=wanted.at, goal=wanted.goal)
    return measure.label, measure.is_maximized, measured(members, measure)


def _histogram(found: RunTable, wanted: Plot) -> Figure:
    name, _is_maximized, values = _values(found, wanted)
    labels = _labels(found, wanted.by) if wanted.by else [name] * len(found)
    samples: dict[str, list[float]] = {}
    for record, label in zip(found.records, labels, strict=True):
        if record.id in values:
            samples.setdefault(label, []).append(values[record.id])
    return draw_histogram(samples, measure=name, bins=wanted.bins or None)


def _heat_map(found: RunTable, wanted: Plot) -> Figure:
    name, _is_maximized, values = _values(found, wanted)
    cells: dict[tuple[str, str], list[float]] = {}
    columns, rows = _column(found, wanted.x, "x"), _column(found, wanted.y, "y")
    for record, column, row in zip(found.records, columns, rows, strict=True):
        if math.isfinite(values.get(record.id, math.nan)):
            cells.setdefault((_shown(column), _shown(row)), []).append(values[record.id])
    means = {key: float(np.mean(told)) for key, told in cells.items()}
    return draw_heat_map(means, x=_short(wanted.x), y=_short(wanted.y), measure=f"mean of {name}")


def _parallel(found: RunTable, wanted: Plot) -> Figure:
    compared = _compared(found, Plot(metrics=(_metric(wanted),), at=wanted.at, goal=wanted.goal))
    return parallel(compared, compared.measures[0])


def _front(found: RunTable, wanted: Plot) -> Figure:
    if len(wanted.metrics) < 2:
        raise InvalidValue("a plot of kind front needs two metrics")
    return front(_compared(found, wanted))


def _history(found: RunTable, wanted: Plot) -> Figure:
    name, is_maximized, values = _values(found, wanted)
    told = sorted(found.records, key=lambda record: (record.started_at, record.id))
    points = [
        Point(record.id, record.name, float(place), values[record.id])
        for place, record in enumerate(told, 1)
        if math.isfinite(values.get(record.id, math.nan))
    ]
    return draw_history(points, measure=name, is_maximized=is_maximized)


_DRAWN = {
    "curves": _curves,
    "groups": _groups,
    "spread": _groups,
    "scatter": _scatter,
    "histogram": _histogram,
    "heatmap": _heat_map,
    "parallel": _parallel,
    "front": _front,
    "history": _history,
}
