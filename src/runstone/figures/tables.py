"""Figures of tables of numbers: histogram, confusion matrix, heat map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue
from runstone.figures.figure import Figure, Trace, label
from runstone.figures.theme import SEQUENTIAL, run_color

_MOST_NUMBERS = 400
_MOST_BINS = 200


def draw_histogram(samples: Mapping[str, Sequence[float]], *, measure: str, bins: int | None = None) -> Figure:
    """Draw how often values occur; of several samples over each other, with the same ranges.

    Args:
        samples: By label, values; those that are not finite are left out and counted.
        measure: What they are.
        bins: How many ranges; default: as many as they bear, at most 200.
    """
    finite: dict[str, NDArray[np.float64]] = {}
    lost = 0
    for name, values in samples.items():
        array = np.asarray(values, dtype=np.float64)
        finite[name] = array[np.isfinite(array)]
        lost += len(array) - len(finite[name])
    pool = np.concatenate(list(finite.values())) if finite else np.array([])
    if not len(pool):
        return Figure(measure, reason="There is no finite value.")
    edges = np.histogram_bin_edges(pool, bins=bins if bins is not None else _bins(pool))
    middles, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    data: list[Trace] = []
    for name, kept in finite.items():
        counts, _edges = np.histogram(kept, bins=edges)
        data.append(
            {
                "type": "bar",
                "name": label(name),
                "x": middles,
                "y": counts,
                "width": widths,
                "marker": {"color": run_color(name, 0.6 if len(finite) > 1 else 0.85), "line": {"width": 0}},
                "hovertemplate": "%{x:.6g}: %{y}<extra>" + label(name) + "</extra>",
            }
        )
    layout = {
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": {"title": {"text": label(measure)}},
        "yaxis": {"title": {"text": "values"}},
        "showlegend": len(finite) > 1,
    }
    note = f"{lost:,} that {'is' if lost == 1 else 'are'} not finite left out." if lost else ""
    return Figure(measure, data, layout, note=note)


def _bins(pool: NDArray[np.float64]) -> int:
    """Return how many ranges: Freedman and Diaconis' rule, which sees too few in what has two humps, or the root."""
    low, high = np.quantile(pool, [0.25, 0.75])
    width = 2 * float(high - low) / len(pool) ** (1 / 3)
    by_rule = float(np.ptp(pool)) / width if width > 0 else 0.0
    return int(min(_MOST_BINS, max(1, math.ceil(by_rule), math.ceil(2 * math.sqrt(len(pool))))))


def draw_confusion(
    matrix: Any, labels: Sequence[str], *, title: str = "Confusion matrix", is_share: bool = False
) -> Figure:
    """Draw a confusion matrix: rows are what is true, columns what was said.

    Args:
        matrix: Counts of shape `(n, n)`.
        labels: Of the n classes.
        title: Of the figure.
        is_share: Whether each row is shown in parts of 1.

    Raises:
        InvalidValue: shape and labels do not go together.
    """
    table = np.asarray(matrix, dtype=np.float64)
    if table.shape != (len(labels), len(labels)):
        raise InvalidValue(
            f"a confusion matrix of {len(labels)} classes has that many rows and columns, not {table.shape}"
        )
    shown = table
    if is_share:
        sums = table.sum(axis=1, keepdims=True)
        shown = np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)
    return _heat(shown, labels, labels, x="said", y="true", title=title, form=".2f" if is_share else "d")


def draw_heat_map(cells: Mapping[tuple[str, str], float], *, x: str, y: str, measure: str, title: str = "") -> Figure:
    """Draw one number for each pair of values, such as the mean of a metric by two params.

    Args:
        cells: By (value of x, value of y); pairs that are missing stay empty.
        x, y: What the axes are.
        measure: What the numbers are.
        title: Of the figure.
    """
    title = title or f"{measure} by {x} and {y}"
    if not cells:
        return Figure(title, reason="No run has all three values.")
    columns = sorted({key[0] for key in cells}, key=_natural)
    rows = sorted({key[1] for key in cells}, key=_natural)
    table = np.array([[cells.get((column, row), math.nan) for column in columns] for row in rows])
    return _heat(table, columns, rows, x=x, y=y, title=title, form=".4g", measure=measure)


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def _heat(
    table: NDArray[np.float64],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    x: str,
    y: str,
    title: str,
    form: str,
    measure: str = "",
) -> Figure:
    texts = [
        ["" if math.isnan(value) else f"{int(value)}" if form == "d" else f"{value:{form}}" for value in row]
        for row in table
    ]
    data: list[Trace] = [
        {
            "type": "heatmap",
            "z": table.tolist(),
            "x": [label(name, 24) for name in columns],
            "y": [label(name, 24) for name in rows],
            "colorscale": [list(stop) for stop in SEQUENTIAL],
            "xgap": 2,
            "ygap": 2,
            "text": texts,
            "texttemplate": "%{text}" if table.size <= _MOST_NUMBERS else "",
            "hovertemplate": label(x) + " %{x}<br>" + label(y) + " %{y}<br>%{text}<extra></extra>",
            "colorbar": {"thickness": 10, "outlinewidth": 0, "title": {"text": label(measure)}},
        }
    ]
    layout = {
        "xaxis": {"title": {"text": label(x)}, "type": "category", "showgrid": False},
        "yaxis": {"title": {"text": label(y)}, "type": "category", "autorange": "reversed", "showgrid": False},
    }
    return Figure(title, data, layout, height=min(720, max(260, 110 + 36 * len(rows))))
