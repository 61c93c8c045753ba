"""Figures of what parameters do to a result: importance, parallel coordinates, slices, contours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.report.drawing import (
    ACCENT,
    GOOD,
    SCALE,
    Figure,
    Trace,
    axis,
    escaped,
    is_wide_range,
    thinned_from_best,
)
from runstone_sweeps.results.text import number, value_text
from runstone_sweeps.space import Searched
from runstone_sweeps.spec import SweepSpec

_MOST_LINES = 1_000
_MOST_MARKERS = 500
_MOST_PANELS = 12
_MOST_COLUMNS = 10
_MOST_WORDS = 30
_GRID = 32
_MOST_KNOWN = 300
_ABSENT = "not there"


def draw_importance(spec: SweepSpec, index: int, found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw how much each parameter matters.

    Args:
        spec: What was searched.
        index: Position of the metric.
        found: Parameter and share, by the name of the method.
    """
    title = f"Which parameters matter{_of(spec, index)}"
    methods = {method: shares for method, shares in found.items() if shares}
    if not methods:
        reason = "This takes at least two searched parameters and two complete trials with different results."
        return Figure(title, reason=reason)
    names = list(dict.fromkeys(name for shares in methods.values() for name in shares))[:20][::-1]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": method,
            "y": [escaped(name) for name in names],
            "x": [shares.get(name) for name in names],
            "marker": {"color": color},
            "hovertemplate": f"%{{y}}: %{{x:.1%}}<extra>{method}</extra>",
        }
        for (method, shares), color in zip(methods.items(), (ACCENT, GOOD), strict=False)
    ]
    missing = ", ".join(method for method in found if method not in methods)
    layout = {
        "xaxis": axis("Share of the variation", tickformat=".0%", rangemode="tozero"),
        "yaxis": {"type": "category"},
        "barmode": "group",
    }
    note = "PED-ANOVA tells what sets the best tenth apart, fANOVA what moves the result over its whole range."
    if missing:
        note += f" {missing} has no answer here: too few trials, too many, or parameters that not all trials have."
    return Figure(title, data, layout, note=note, height=max(300, min(620, 120 + 34 * len(names))))


def draw_parallel(record: SweepRecord, spec: SweepSpec, index: int, order: Sequence[str]) -> Figure:
    """Draw each complete trial as a line through its params and its result; axes can be brushed.

    Args:
        record: The trials.
        spec: What was searched.
        index: Position of the metric.
        order: Names of the parameters, the most important first.
    """
    title = f"Parallel coordinates{_of(spec, index)}"
    trials, reason = _known(record, index, order)
    if reason:
        return Figure(title, reason=reason)
    shown = thinned_from_best(_ranked(trials, spec, index), _MOST_LINES)
    shown.reverse()  # the best are drawn last, on top
    values = [_value(t, index) for t in shown]
    dimensions = [_dimension(name, [t.params.get(name) for t in shown], spec) for name in order[:_MOST_COLUMNS]]
    dimensions.append(_number_dimension(spec.metrics[index].name, values, is_log=is_wide_range(values)))
    color, low, high = _colors(values, spec, index)
    data = [
        {
            "type": "parcoords",
            "dimensions": dimensions,
            "line": {"color": color, "colorscale": SCALE, "cmin": low, "cmax": high, "showscale": False},
            "labelangle": 0,
        }
    ]
    note = "Drag along an axis to choose trials."
    if len(shown) < len(trials):
        note += f" {len(shown):,} of {len(trials):,} complete trials are shown, the best among them."
    if len(order) > _MOST_COLUMNS:
        note += f" The {_MOST_COLUMNS} most important parameters of {len(order)} are shown."
    return Figure(title, data, {"margin": {"t": 56, "l": 90, "r": 90, "b": 24}}, note=note, is_wide=True, height=420)


def draw_slices(record: SweepRecord, spec: SweepSpec, index: int, order: Sequence[str]) -> Figure:
    """Draw the result over each parameter by itself; arguments as `draw_parallel`."""
    title = f"One parameter at a time{_of(spec, index)}"
    trials, reason = _known(record, index, order)
    if reason:
        return Figure(title, reason=reason)
    shown = thinned_from_best(_ranked(trials, spec, index), _MOST_MARKERS)
    names = order[:_MOST_PANELS]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    all_values = [_value(t, index) for t in shown]
    data: list[Trace] = []
    layout: dict[str, Any] = {"grid": {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.3}}
    last = max((t.number for t in shown), default=1)
    for place, name in enumerate(names, 1):
        having = [t for t in shown if name in t.params]
        end = "" if place == 1 else str(place)
        axis_, xs = _axis_of(name, [t.params[name] for t in having], spec)
        layout[f"xaxis{end}"] = axis_
        layout[f"yaxis{end}"] = {"type": "log"} if is_wide_range(all_values) else {}
        if (place - 1) % columns == 0:
            layout[f"yaxis{end}"] |= axis(spec.metrics[index].name)
        color = {
            "color": [t.number for t in having],
            "colorscale": [[0.0, "--faint"], [1.0, "--strong"]],
            "cmin": 0,
            "cmax": last,
            "showscale": place == 1,
            "colorbar": {"title": {"text": "trial"}, "thickness": 10, "outlinewidth": 0},
        }
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": xs,
                "y": [_value(t, index) for t in having],
                "text": [f"trial {t.number}: {escaped(value_text(t.params[name]))}" for t in having],
                "hovertemplate": "%{text}<br>%{y}<extra></extra>",
                "xaxis": f"x{end}",
                "yaxis": f"y{end}",
                "showlegend": False,
                "marker": {"size": 6, "opacity": 0.85, **color},
            }
        )
    note = f"{len(shown):,} of {len(trials):,} complete trials are shown." if len(shown) < len(trials) else ""
    if len(order) > len(names):
        note += f" The {len(names)} most important parameters of {len(order)} are shown."
    return Figure(title, data, layout, note=note.strip(), is_wide=True, height=90 + 290 * rows)


def draw_contours(record: SweepRecord, spec: SweepSpec, index: int, order: Sequence[str]) -> Figure:
    """Draw the result over the three most important parameters, two at a time; arguments as `draw_parallel`.

    Between the trials it is interpolated (inverse distances to the fourth power, each range as long as the other).
    """
    title = f"Two parameters at a time{_of(spec, index)}"
    trials, reason = _known(record, index, order)
    names = [name for name in order if not _is_words(name, spec)][:3]
    if not reason and len(names) < 2:
        reason = "This takes at least two parameters that are numbers."
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    data: list[Trace] = []
    layout: dict[str, Any] = {"grid": {"rows": 1, "columns": len(pairs), "pattern": "independent"}}
    for place, (across, up) in enumerate(pairs if not reason else (), 1):
        having = [t for t in trials if across in t.params and up in t.params and math.isfinite(_value(t, index))]
        having = thinned_from_best(_ranked(having, spec, index), _MOST_KNOWN)
        if len(having) < 4:
            continue
        end = "" if place == 1 else str(place)
        layout[f"xaxis{end}"], xs = _axis_of(across, [t.params[across] for t in having], spec)
        layout[f"yaxis{end}"], ys = _axis_of(up, [t.params[up] for t in having], spec)
        values = [_value(t, index) for t in having]
        color, low, high = _colors(values, spec, index)
        grid = _interpolated(_linear(xs, layout[f"xaxis{end}"]), _linear(ys, layout[f"yaxis{end}"]), color, low, high)
        axes = {"xaxis": f"x{end}", "yaxis": f"y{end}"}
        data.append(
            {
                "type": "contour",
                "x": _spread(xs, layout[f"xaxis{end}"]),
                "y": _spread(ys, layout[f"yaxis{end}"]),
                "z": grid,
                "colorscale": SCALE,
                "zmin": low,
                "zmax": high,
                "showscale": False,
                "hoverinfo": "skip",
                "contours": {"coloring": "heatmap", "showlines": False},
                **axes,
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": xs,
                "y": ys,
                "text": [f"trial {t.number}: {number(_value(t, index))}" for t in having],
                "hoverinfo": "text",
                "showlegend": False,
                "marker": {"size": 5, "color": "--card", "line": {"width": 1, "color": "--ink"}},
                **axes,
            }
        )
    if not data:
        return Figure(title, reason=reason or "This takes at least four complete trials that have the parameters.")
    note = "Darker is better in light, brighter in dark; between the trials, which are the points, it is interpolated."
    return Figure(title, data, layout, note=note, is_wide=True, height=400)


def draw_edf(record: SweepRecord, spec: SweepSpec, index: int) -> Figure:
    """Draw the share of complete trials that are at least as good as each result."""
    title = f"How many were how good{_of(spec, index)}"
    trials, _ = _known(record, index, ("any",))
    values = [_value(t, index) for t in _ranked(trials, spec, index)]
    if not values:
        return Figure(title, reason="No trial is complete yet.")
    count = len(values)
    places = sorted({*range(0, count, max(1, count // 500)), count - 1})
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [values[place] for place in places],
            "y": [(place + 1) / count for place in places],
            "line": {"shape": "hv", "width": 2, "color": ACCENT},
            "hovertemplate": "%{y:.1%} are at least as good as %{x}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": axis(spec.metrics[index].name, **({"type": "log"} if is_wide_range(values) else {})),
        "yaxis": axis("Share of the complete trials", tickformat=".0%", range=[0, 1.03]),
        "showlegend": False,
    }
    return Figure(title, data, layout)


def _known(record: SweepRecord, index: int, order: Sequence[str]) -> tuple[list[TrialRecord], str]:
    """Return the trials whose result of a metric is a number, or a reason why a figure of params has none."""
    trials = [
        t
        for t in record.trials.values()
        if t.state is TrialState.COMPLETE and t.values and math.isfinite(_value(t, index))
    ]
    if not trials:
        return [], "No trial is complete yet."
    return trials, "" if order else "There is no parameter to compare."


def _ranked(trials: Sequence[TrialRecord], spec: SweepSpec, index: int) -> list[TrialRecord]:
    sign = -1.0 if spec.metrics[index].goal == "maximize" else 1.0
    return sorted(trials, key=lambda t: sign * _value(t, index))


def _colors(values: Sequence[float], spec: SweepSpec, index: int) -> tuple[list[float], float, float]:
    """Return a number for each value, the lower the better, and between which ones the colours change.

    The worst tenth has one colour: few bad results would leave no difference between the good ones.
    """
    sign = -1.0 if spec.metrics[index].goal == "maximize" else 1.0
    is_log = is_wide_range(values)
    found = [sign * (math.log10(value) if is_log else value) for value in values]
    ordered = sorted(found)
    low, high = ordered[0], ordered[max(0, math.ceil(len(ordered) * 0.9) - 1)]
    return found, low, high if high > low else low + 1.0


def _dimension(name: str, values: Sequence[Any], spec: SweepSpec) -> dict[str, Any]:
    """Return an axis of the parallel coordinates; trials that lack the parameter pass below its end."""
    if _is_words(name, spec):
        words = _words([value for value in values if value is not None], name, spec)
        if any(value is None for value in values):
            words = [*words, _ABSENT]
        places = {word: place for place, word in enumerate(words)}
        return {
            "label": escaped(name),
            "values": [places[_ABSENT if value is None else _word(value)] for value in values],
            "tickvals": list(range(len(words)))[:_MOST_WORDS],
            "ticktext": [escaped(word) for word in words][:_MOST_WORDS],
            "range": [-0.3, max(1, len(words) - 1) + 0.3],
        }
    return _number_dimension(name, values, is_log=_is_log(name, spec))


def _number_dimension(name: str, values: Sequence[Any], *, is_log: bool) -> dict[str, Any]:
    present = [_scaled(value, is_log=is_log) for value in values if _is_number(value)]
    low, high = min(present, default=0.0), max(present, default=1.0)
    span = high - low or abs(high) or 1.0
    has_absent = len(present) < len(values)
    absent = low - 0.15 * span
    ticks = [low + span * share / 4 for share in range(5)] if high > low else [low]
    texts = [f"{10**tick if is_log else tick:.3g}" for tick in ticks]
    bottom = absent if has_absent else low - 0.02 * span
    return {
        "label": escaped(name),
        "values": [_scaled(value, is_log=is_log) if _is_number(value) else absent for value in values],
        "tickvals": [*([absent] if has_absent else []), *ticks],
        "ticktext": [*([_ABSENT] if has_absent else []), *texts],
        "range": [bottom, high + 0.02 * span],
    }


def _axis_of(name: str, values: Sequence[Any], spec: SweepSpec) -> tuple[dict[str, Any], list[Any]]:
    """Return the axis of a parameter, and its values as they stand on it."""
    if _is_words(name, spec):
        words = _words(values, name, spec)[:_MOST_WORDS]
        shown = [escaped(word) for word in words]
        return axis(name, type="category", categoryorder="array", categoryarray=shown), [
            escaped(_word(value)) for value in values
        ]
    found = [value if _is_number(value) else None for value in values]
    return axis(name, **({"type": "log", "dtick": 1} if _is_log(name, spec) else {})), found


def _linear(values: Sequence[Any], axis_: Mapping[str, Any]) -> list[float]:
    """Return values between 0 and 1, as far apart as on their axis."""
    found = [_scaled(value, is_log=axis_.get("type") == "log") for value in values]
    low, high = min(found), max(found)
    return [(value - low) / (high - low) if high > low else 0.5 for value in found]


def _spread(values: Sequence[Any], axis_: Mapping[str, Any]) -> list[float]:
    """Return the places of the grid along an axis."""
    is_log = axis_.get("type") == "log"
    low, high = (_scaled(bound(values), is_log=is_log) for bound in (min, max))
    places = [low + (high - low or 1.0) * place / (_GRID - 1) for place in range(_GRID)]
    return [10**place for place in places] if is_log else places


def _interpolated(
    xs: Sequence[float], ys: Sequence[float], values: Sequence[float], low: float, high: float
) -> list[list[float]]:
    """Return a square grid of values between known points."""
    import numpy as np  # not needed where nothing is drawn

    side = np.linspace(0.0, 1.0, _GRID)
    known = np.clip(np.asarray(values, float), low, high)
    across = (side[None, :, None] - np.asarray(xs, float)[None, None, :]) ** 2
    up = (side[:, None, None] - np.asarray(ys, float)[None, None, :]) ** 2
    weights = 1.0 / (across + up + 1e-4) ** 2
    with np.errstate(over="ignore"):  # of results near the largest floats; plotly leaves those places empty
        grid = (weights * known).sum(axis=2) / weights.sum(axis=2)
    return [[round(float(value), 6) for value in row] for row in grid]


def _words(values: Sequence[Any], name: str, spec: SweepSpec) -> list[str]:
    """Return the different values as text, in the order of the config, then as they come."""
    parameter = _parameter(name, spec)
    listed = [_word(value) for value in getattr(parameter, "values", ())] if parameter is not None else []
    there = dict.fromkeys(_word(value) for value in values)
    return [*(word for word in dict.fromkeys(listed) if word in there), *(word for word in there if word not in listed)]


def _word(value: Any) -> str:
    return value_text(value)


def _is_words(name: str, spec: SweepSpec) -> bool:
    return type(_parameter(name, spec)).__name__ in ("Choice", "NoneType")


def _is_log(name: str, spec: SweepSpec) -> bool:
    parameter = _parameter(name, spec)
    if getattr(parameter, "log", False):
        return True
    return str(getattr(parameter, "law", "")).startswith("log_")


def _parameter(name: str, spec: SweepSpec) -> Searched | None:
    return next((parameter for parameter in spec.space.searched if parameter.name == name), None)


def _scaled(value: Any, *, is_log: bool) -> float:
    return math.log10(value) if is_log and value > 0 else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _value(trial: TrialRecord, index: int) -> float:
    return trial.values[index] if trial.values is not None and index < len(trial.values) else float("nan")


def _of(spec: SweepSpec, index: int) -> str:
    return f": {spec.metrics[index].name}" if len(spec.metrics) > 1 else ""
