"""Parallel coordinates: every run is a line through its params, which ends at how well it did.

Drawn as lines of SVG: plotly's own needs WebGL, which is not in every browser, and not on paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.figures.figure import Figure, Trace, label

_SHADES = 8
_MOST_LINES = 400
_MOST_WORDS = 16
_NUMBERS = 5
_WIDE_RANGE = 100.0
_LABEL = 18


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: where each run stands on it (0 to 1), what that means, and marks."""

    name: str
    place: NDArray[np.float64]
    said: list[str]
    marks: list[tuple[float, str]]


def draw_parallel(
    columns: Mapping[str, Sequence[Any]],
    *,
    measure: str,
    values: Sequence[float],
    names: Sequence[str],
    is_maximized: bool,
    title: str = "",
) -> Figure:
    """Draw one line a run through all its params, ending at a measure; the better, the stronger the line.

    Args:
        columns: By name, one value a run: numbers, or anything else as words; `None` where it has none.
        measure: What the last axis is.
        values: Of the measure, finite, one a run.
        names: Of the runs.
        is_maximized: Whether more of the measure is better.
        title: Of the figure.
    """
    title = title or f"Params and {measure}"
    told = {name: column for name, column in columns.items() if len({str(value) for value in column}) > 1}
    if len(values) < 2 or not told:
        return Figure(title, reason="This takes two runs with a value, and a param that differs.")
    result = np.array(values, dtype=np.float64)
    ranked = np.argsort(-result if is_maximized else result, kind="stable")
    shown = ranked if len(ranked) <= _MOST_LINES else ranked[np.linspace(0, len(ranked) - 1, _MOST_LINES).astype(int)]
    axes = [_axis(name, [column[place] for place in shown]) for name, column in told.items()]
    axes.append(_axis(measure, result[shown].tolist()))
    across = np.arange(len(axes), dtype=np.float64)
    data: list[Trace] = []
    for shade, rows in reversed(list(enumerate(np.array_split(np.arange(len(shown)), _SHADES)))):
        if not len(rows):
            continue
        x, y, text = [], [], []
        for row in rows:
            x.append(np.append(across, np.nan))
            y.append(np.append([axis.place[row] for axis in axes], np.nan))
            name = label(names[shown[row]])
            text += [f"{name}<br>{label(axis.name)}: {label(axis.said[row])}" for axis in axes] + [""]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": np.concatenate(x),
                "y": np.concatenate(y),
                "text": text,
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": False,
                "line": {
                    "color": "--strong" if shade == 0 else f"--accent/{0.75 - 0.65 * shade / (_SHADES - 1):.2f}",
                    "width": 2 if shade == 0 else 1.2,
                    "shape": "linear",
                },
            }
        )
    layout = {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": [f"<b>{label(axis.name, _LABEL)}</b>" for axis in axes],
            "range": [-0.35, len(axes) - 0.6],
            "side": "top",
            "showgrid": False,
            "zeroline": False,
            "showline": False,
            "ticks": "",
            "fixedrange": True,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.04], "fixedrange": True},
        "shapes": [
            {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": {"color": "--soft", "width": 1}}
            for place in range(len(axes))
        ],
        "annotations": [_mark(place, *mark) for place, axis in enumerate(axes) for mark in axis.marks],
        "margin": {"l": 12, "r": 24, "t": 36, "b": 12},
    }
    note = "The strongest lines are the best eighth of the runs."
    if len(shown) < len(ranked):
        note += f" Of {len(ranked):,} runs, {_MOST_LINES} are drawn, evenly from the best to the worst."
    return Figure(title, data, layout, note=note, is_wide=True, height=420)


def _mark(place: int, up: float, text: str) -> dict[str, Any]:
    return {
        "x": place,
        "y": up,
        "text": text,
        "showarrow": False,
        "xanchor": "right",
        "xshift": -5,
        "font": {"size": 11, "color": "--soft"},
        "bgcolor": "--card/0.75",
        "borderpad": 1,
    }


def _axis(name: str, column: Sequence[Any]) -> _Axis:
    if all(_is_number(value) for value in column):
        return _numbers(name, np.array(column, dtype=np.float64))
    words = ["–" if value is None else str(value) for value in column]
    known = sorted(set(words))
    place = {word: number / max(1, len(known) - 1) for number, word in enumerate(known)}
    marks = [(place[word], label(word, _LABEL)) for word in known] if len(known) <= _MOST_WORDS else []
    return _Axis(name, np.array([place[word] for word in words]), words, marks)


def _numbers(name: str, column: NDArray[np.float64]) -> _Axis:
    low, high = float(column.min()), float(column.max())
    is_log = low > 0 and high / low >= _WIDE_RANGE  # such as rates: equal steps are factors
    scaled, first, last = (np.log(column), math.log(low), math.log(high)) if is_log else (column, low, high)
    span = (last - first) or 1.0
    known = np.unique(column)
    if len(known) > _NUMBERS:
        known = np.geomspace(low, high, _NUMBERS) if is_log else np.linspace(low, high, _NUMBERS)
    places = ((np.log(known) if is_log else known) - first) / span
    marks = [(float(up), f"{value:.4g}") for up, value in zip(places, known, strict=True)]
    return _Axis(name, (scaled - first) / span, [f"{value:.6g}" for value in column], marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
