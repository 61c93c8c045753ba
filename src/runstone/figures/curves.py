"""Curves of metrics over steps, time or another metric: of runs, or of groups with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue, MetricNotFound
from runstone.figures.figure import Figure, Trace, label
from runstone.figures.palette import dashes
from runstone.figures.smoothing import smoothed
from runstone.figures.theme import run_color
from runstone.runinfo import RunInfo

STEP, TIME, RELATIVE = "step", "time", "relative"
_BUCKETS = 1_000
_FAINT, _BAND = 0.3, 0.18
_WHOLE = 2_000  # of a label that ties traces together


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One line.

    Attributes:
        key: Id of the run, or label of the group: what its colour follows from.
        name: What the legend says.
        x, y: float64, of one shape, in the order in which they were logged.
    """

    key: str
    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def curve_of(run: RunInfo, metric: str, x: str = STEP) -> Curve:
    """Return one metric of a run.

    Args:
        run: The run.
        metric: Its name.
        x: `step`, `time` (milliseconds since the epoch), `relative` (seconds since the run began), or another metric,
            whose value at the same step, or the last one before it, is taken.

    Raises:
        MetricNotFound: the run never logged it, or not as numbers.
    """
    series = run.series(metric)
    if series.value.dtype.kind not in "fiub":
        raise MetricNotFound(f"run {run.name} logged texts under {metric!r}, not numbers")
    value = series.value.astype(np.float64)
    match x:
        case "step":
            place = series.step.astype(np.float64)
        case "time":
            place = series.wall_s * 1000.0
        case "relative":
            place = series.wall_s - run.started_at.timestamp()
        case other:
            place = _joined(run, other, series.step)
    return Curve(run.id, run.name, place, value)


def _joined(run: RunInfo, metric: str, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    other = run.series(metric)
    if other.value.dtype.kind not in "fiub":
        raise MetricNotFound(f"run {run.name} logged texts under {metric!r}, not numbers")
    order = np.argsort(other.step, kind="stable")
    place = np.searchsorted(other.step[order], steps, side="right") - 1
    value = other.value.astype(np.float64)[order]
    return np.where(place >= 0, value[np.maximum(place, 0)], np.nan)


def draw_curves(
    curves: Sequence[Curve],
    *,
    metric: str,
    x: str = STEP,
    smoothing: float = 0.0,
    is_log_x: bool = False,
    is_log_y: bool = False,
    buckets: int = _BUCKETS,
) -> Figure:
    """Draw curves of one metric.

    A curve of more points than are seen is drawn as the mean of each bucket of x within a band from the lowest to the
    highest value, so that no spike is lost. A smoothed curve is drawn over its raw one. Over steps and time no line
    runs backwards: where x does, there is a gap.

    Args:
        curves: Of runs.
        metric: Its name, for the axis.
        x: As `curve_of` takes it.
        smoothing: From 0 to below 1.
        is_log_x, is_log_y: Whether axes are logarithmic.
        buckets: How many buckets a long curve has.

    Raises:
        InvalidValue: `smoothing` is out of range.
    """
    if not 0 <= smoothing < 1:
        raise InvalidValue(f"smoothing is {smoothing!r:.80}; it must be at least 0 and below 1")
    drawn = [curve for curve in curves if len(curve.x)]
    if not drawn:
        return Figure(metric, reason=f"No run has logged {metric}.")
    dash = dashes(curve.key for curve in drawn)
    data: list[Trace] = []
    lost = 0
    for curve in drawn:
        lost += int((~np.isfinite(curve.y)).sum())
        is_in_order = x in (STEP, TIME, RELATIVE)
        data += _traces(curve, smoothing, buckets, dash[curve.key], is_in_order=is_in_order)
    note = "" if not lost else f"{lost:,} {'value is' if lost == 1 else 'values are'} NaN or infinite: gaps."
    layout = {
        "xaxis": _x_axis(x, is_log=is_log_x),
        "yaxis": {"title": {"text": label(metric)}, **({"type": "log"} if is_log_y else {})},
        "showlegend": len(drawn) > 1 or drawn[0].name != "",
    }
    return Figure(metric, data, layout, note=note, is_wide=True, height=400)


def draw_spread(
    groups: Sequence[tuple[str, Sequence[Curve]]], *, metric: str, x: str = STEP, is_log_y: bool = False
) -> Figure:
    """Draw, of each group of runs, the mean over its runs within a band from the lowest to the highest run.

    Args:
        groups: Labels, and the curves of the runs.
        metric, x, is_log_y: As in `draw_curves`.
    """
    data: list[Trace] = []
    dash = dashes(name for name, _curves in groups)
    for name, curves in groups:
        told = [curve for curve in curves if len(curve.x)]
        if not told:
            continue
        grid, table = _on_one_grid(told)
        count = np.isfinite(table).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count, np.nansum(table, axis=0) / count, np.nan)
        low = np.where(count, np.nanmin(np.where(np.isfinite(table), table, np.inf), axis=0), np.nan)
        high = np.where(count, np.nanmax(np.where(np.isfinite(table), table, -np.inf), axis=0), np.nan)
        if len(told) > 1:
            data += _band(name, grid, low, high)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(f"{name} ({len(told)})"),
                "legendgroup": label(name, _WHOLE),
                "x": grid,
                "y": mean,
                "customdata": count,
                "line": {"color": run_color(name), "width": 2, "dash": dash[name]},
                "hovertemplate": "%{x}: %{y:.6g}, mean of %{customdata}<extra>" + label(name) + "</extra>",
            }
        )
    if not data:
        return Figure(metric, reason=f"No run has logged {metric}.")
    layout = {
        "xaxis": _x_axis(x),
        "yaxis": {"title": {"text": label(metric)}, **({"type": "log"} if is_log_y else {})},
        "showlegend": True,
    }
    note = "Lines are means over the runs of a group, bands reach from the lowest to the highest run."
    return Figure(metric, data, layout, note=note, is_wide=True, height=400)


def _on_one_grid(curves: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return common places of x, and a row of values a run; NaN outside of what a run covers."""
    sorted_curves = []
    for curve in curves:
        order = np.argsort(curve.x, kind="stable")
        sorted_curves.append((curve.x[order], curve.y[order]))
    grid = np.unique(np.concatenate([place for place, _value in sorted_curves]))
    grid = grid[np.isfinite(grid)]
    if len(grid) > _BUCKETS:
        grid = np.linspace(grid[0], grid[-1], _BUCKETS)
    rows = [
        np.interp(grid, place, np.where(np.isfinite(value), value, np.nan), left=np.nan, right=np.nan)
        for place, value in sorted_curves
    ]
    return grid, np.array(rows)


def _x_axis(x: str, *, is_log: bool = False) -> dict[str, object]:
    title = {"step": "step", "time": "", "relative": "seconds since the run began"}.get(x, x)
    axis: dict[str, object] = {"title": {"text": label(title)}}
    if x == TIME:
        axis["type"] = "date"
    elif is_log:
        axis["type"] = "log"
    return axis


def _traces(curve: Curve, smoothing: float, buckets: int, dash: str, *, is_in_order: bool) -> list[Trace]:
    if is_in_order:
        stretches = [_thinned(place, value, smoothing, buckets) for place, value in _rising(curve.x, curve.y)]
    else:
        stretches = [_path(curve.x, curve.y, smoothing, buckets)]
    # A gap between the stretches: a line must not be drawn backwards.
    gap = np.array([np.nan])
    columns = [
        np.concatenate([part for stretch in stretches for part in (stretch[column], gap)][:-1]) for column in range(4)
    ]
    place, line, low, high = columns
    is_thinned = bool((low[np.isfinite(low)] < high[np.isfinite(high)]).any()) if np.isfinite(low).any() else False
    found: list[Trace] = []
    if is_thinned:
        found += _band(curve.key, place, low, high)
    elif smoothing > 0:
        found.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": place,
                "y": low,
                "legendgroup": label(curve.key, _WHOLE),
                "showlegend": False,
                "hoverinfo": "skip",
                "line": {"color": run_color(curve.key, _FAINT), "width": 1, "dash": dash},
            }
        )
    found.append(
        {
            "type": "scatter",
            "mode": "lines" if len(place) > 1 else "lines+markers",
            "name": label(curve.name),
            "legendgroup": label(curve.key, _WHOLE),
            "x": place,
            "y": line,
            "line": {"color": run_color(curve.key), "width": 1.6, "dash": dash},
            "hovertemplate": "%{x}: %{y:.6g}<extra>" + label(curve.name) + "</extra>",
        }
    )
    return found


def _band(key: str, place: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> list[Trace]:
    edge: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": place,
        "legendgroup": label(key, _WHOLE),
        "showlegend": False,
        "hoverinfo": "skip",
        "line": {"width": 0, "color": run_color(key)},
    }
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": run_color(key, _BAND)}]


def _rising(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the stretches in which x does not go back."""
    is_known = np.isfinite(x)
    x, y = x[is_known], y[is_known]
    if not len(x):
        return [(x, y)]
    cuts = np.flatnonzero(np.diff(x) < 0) + 1
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


def _path(
    x: NDArray[np.float64], y: NDArray[np.float64], smoothing: float, buckets: int
) -> tuple[NDArray[np.float64], ...]:
    """Return, as `_thinned` does, a curve over another metric, which may run to and fro: in the order of its points.

    Of many points, each stretch keeps its first, last, lowest and highest one.
    """
    is_known = np.isfinite(x)
    x, y = x[is_known], np.where(np.isfinite(y[is_known]), y[is_known], np.nan)
    line = smoothed(np.arange(len(y), dtype=np.float64), y, smoothing)
    if len(x) <= 4 * buckets:
        return x, line, y, y
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(x)), buckets):
        kept |= {int(part[0]), int(part[-1])}
        if np.isfinite(y[part]).any():
            kept |= {int(part[np.nanargmin(y[part])]), int(part[np.nanargmax(y[part])])}
    chosen = np.array(sorted(kept))
    return x[chosen], line[chosen], y[chosen], y[chosen]


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], smoothing: float, buckets: int
) -> tuple[NDArray[np.float64], ...]:
    """Return x, the line, the lowest and the highest raw value, point by point, or bucket by bucket for many points."""
    y = np.where(np.isfinite(y), y, np.nan)
    line = smoothed(x, y, smoothing)
    if len(x) <= 2 * buckets:
        return x, line, y, y
    span = x[-1] - x[0]
    bucket = np.minimum((x - x[0]) / (span or 1.0) * buckets, buckets - 1).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(bucket)) + 1])
    low = np.fmin.reduceat(y, starts)
    high = np.fmax.reduceat(y, starts)
    count = np.add.reduceat(np.isfinite(y).astype(np.int64), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(np.nan_to_num(y), starts) / count
    ends = np.concatenate([starts[1:], [len(x)]]) - 1
    # The middle bucket of a line is as good as its end, but the last point must stand where it was logged.
    return x[ends], line[ends] if smoothing > 0 else np.where(count, mean, np.nan), low, high
