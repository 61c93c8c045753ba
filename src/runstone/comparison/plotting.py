"""Which figures show a comparison."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runstone.comparison.grouping import Grouping
from runstone.comparison.measure import Measure
from runstone.comparison.members import Member
from runstone.errors import InvalidValue, MetricNotFound
from runstone.figures import (
    Bar,
    Curve,
    Figure,
    Point,
    curve_of,
    draw_bars,
    draw_boxes,
    draw_curves,
    draw_front,
    draw_parallel,
    draw_spread,
)
from runstone.index.records import unescaped

if TYPE_CHECKING:
    from runstone.comparison.comparison import Comparison, MeasureRow

KINDS = ("curves", "groups", "spread", "parallel", "front")
MOST_CURVES = 60
_MOST_GROUPS = 40
_MOST_METRICS = 4
_MOST_PARAMS = 10
TELLING = re.compile(r"(val|valid|validation|test|eval)\b|.*[/_.](val|test|eval)\b", re.IGNORECASE)


def draw(found: Comparison, metric: str | None, kind: str | None) -> Figure:
    """Return one figure of a comparison; see `Comparison.plot`."""
    if kind is not None and kind not in KINDS:
        raise InvalidValue(f"kind is {kind!r:.80}; it must be {', '.join(KINDS)}")
    kind = kind or ("groups" if found.groupings and metric is None else "curves")
    if kind == "curves":
        return curves(found, metric or _first_metric(found))
    if kind == "front":
        return front(found)
    if kind == "parallel":
        return parallel(found, _measure_row(found, metric))
    chosen = [
        grouping for grouping in found.groupings if metric in (None, grouping.measure.name, grouping.measure.label)
    ]
    if not chosen:
        raise InvalidValue("nothing is grouped here by such a metric; compare(..., by=..., metrics=[...]) does it")
    return bars(chosen[0]) if kind == "groups" else boxes(found, chosen[0])


def figures_of(found: Comparison) -> list[Figure]:
    """Return all figures that show a comparison, in the order in which they are looked at."""
    figures: list[Figure] = []
    for grouping in found.groupings:
        figures += [bars(grouping), boxes(found, grouping)]
    if found.front is not None:
        figures.append(front(found))
    names = list(dict.fromkeys(row.measure.name for row in found.measures)) or _telling_metrics(found)
    figures += [curves(found, name) for name in names[:_MOST_METRICS]]
    if len(found.members) > 2:
        figures += [parallel(found, row) for row in found.measures[:1]]
    return figures


def bars(grouping: Grouping) -> Figure:
    """Return means of groups with their intervals."""
    rows = []
    for group in grouping.groups[:_MOST_GROUPS]:
        if group.summary is not None:
            interval = group.summary.interval
            low, high = (None, None) if interval is None else (interval.low, interval.high)
            rows.append(Bar(group.label, group.summary.mean, low, high, group.summary.count))
    return draw_bars(rows, measure=grouping.measure.label, confidence=grouping.judging.confidence)


def boxes(found: Comparison, grouping: Grouping) -> Figure:
    """Return every run as a point, by group."""
    names = _names(found.members)
    told = {
        group.label: {names[run_id]: value for run_id, value in group.sample.items()}
        for group in grouping.groups[:_MOST_GROUPS]
    }
    return draw_boxes(told, measure=f"{grouping.measure.label}, every run")


def curves(found: Comparison, metric: str) -> Figure:
    """Return the curves of a metric: of runs, or of groups with their spread.

    Raises:
        InvalidValue: no run has logged it.
    """
    having = [member for member in found.members if metric in member.metrics]
    if not having:
        raise InvalidValue(f"none of the runs has a metric {metric!r:.120}")
    if found.groupings:
        by_id = {member.id: member for member in having}
        rows = found.groupings[0].groups[:_MOST_GROUPS]
        groups = [
            (row.label, _curves([by_id[one] for one in row.run_ids if one in by_id][:MOST_CURVES], metric))
            for row in rows
        ]
        return draw_spread(groups, metric=metric)
    figure = draw_curves(_curves(having[:MOST_CURVES], metric), metric=metric)
    if len(having) <= MOST_CURVES:
        return figure
    note = f"The first {MOST_CURVES} of {len(having):,} runs are drawn. {figure.note}".strip()
    return Figure(figure.title, figure.data, figure.layout, note, height=figure.height, is_wide=True)


def _curves(members: Sequence[Member], metric: str) -> list[Curve]:
    names = _names(members)
    drawn = []
    for member in members:
        try:
            curve = curve_of(member.info, metric)
        except MetricNotFound:  # logged as texts
            continue
        drawn.append(Curve(curve.key, names[member.id], curve.x, curve.y))
    return drawn


def front(found: Comparison) -> Figure:
    """Return the Pareto front of the first two measures.

    Raises:
        InvalidValue: there are not two.
    """
    told = found.front
    if told is None:
        raise InvalidValue("a front takes two metrics or more: compare(..., metrics=[..., ...])")
    names = _names(found.members)
    points = [Point(key, names.get(key, key), values[0], values[1]) for key, values in told.points.items()]
    x, y = told.measures[:2]
    figure = draw_front(
        points, told.best, x=x.label, y=y.label, is_x_maximized=x.is_maximized, is_y_maximized=y.is_maximized
    )
    if len(told.measures) == 2:
        return figure
    note = f"Drawn are the first two of {len(told.measures)} metrics; the front is that of all. {figure.note}"
    data = [{**trace, "mode": "markers"} for trace in figure.data]  # a line of two would be wrong for three
    return Figure(figure.title, data, figure.layout, note)


def parallel(found: Comparison, row: MeasureRow) -> Figure:
    """Return the params that differ as axes, with one line a run."""
    having = [member for member in found.members if row.values.get(member.id) is not None]
    having = [member for member in having if abs(row.values[member.id]) < float("inf")]
    columns = {
        unescaped(difference.name): [difference.values.get(member.id) for member in having]
        for difference in found.params[:_MOST_PARAMS]
    }
    names = _names(having)
    return draw_parallel(
        columns,
        measure=row.measure.label,
        values=[row.values[member.id] for member in having],
        names=[names[member.id] for member in having],
        is_maximized=row.measure.is_maximized,
    )


def _names(members: Sequence[Member]) -> dict[str, str]:
    """Return what each run is called: its name, with the end of its id where a name occurs twice."""
    count = Counter(member.name for member in members)
    return {
        member.id: member.name if count[member.name] == 1 else f"{member.name} {member.id[-6:]}" for member in members
    }


def _first_metric(found: Comparison) -> str:
    if found.measures:
        return found.measures[0].measure.name
    telling = _telling_metrics(found)
    if not telling:
        raise InvalidValue("none of the runs has logged a metric")
    return telling[0]


def _telling_metrics(found: Comparison) -> list[str]:
    """Return the metrics that most runs share and that are curves; what ranks the runs comes first."""
    rows = [
        row for row in found.metrics if any(summary.count > 1 for summary in row.summaries.values())
    ] or found.metrics
    ranked = sorted(
        rows, key=lambda row: (row.name not in found.sorted_by, -len(row.summaries), not TELLING.match(row.name))
    )
    return [row.name for row in ranked]


def _measure_row(found: Comparison, metric: str | None) -> MeasureRow:
    from runstone.comparison.comparison import MeasureRow  # it imports this module, where figures are asked for

    for row in found.measures:
        if metric in (None, row.measure.name, row.measure.label):
            return row
    name = metric or _first_metric(found)
    summaries = next((row.summaries for row in found.metrics if row.name == name), {})
    return MeasureRow(Measure(name, "last", "maximize"), {run_id: one.last for run_id, one in summaries.items()})
