"""Figures of groups of runs: means with intervals, and every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runstone.figures.figure import Figure, Trace, label
from runstone.figures.theme import run_color

_FEW_FOR_BOX = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """The mean of a group, with bounds where there are any; `count` values."""

    label: str
    mean: float
    low: float | None
    high: float | None
    count: int


def draw_bars(bars: Sequence[Bar], *, measure: str, confidence: float = 0.95) -> Figure:
    """Draw means with their intervals, the first on top.

    Args:
        bars: In order.
        measure: What the values are.
        confidence: Of the intervals, for the note.
    """
    if not bars:
        return Figure(measure, reason="No group has a value.")
    means = np.array([bar.mean for bar in bars])
    low = np.array([bar.mean - bar.low if bar.low is not None else np.nan for bar in bars])
    high = np.array([bar.high - bar.mean if bar.high is not None else np.nan for bar in bars])
    names = [label(bar.label) for bar in bars]
    data: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": means,
            "y": names,
            "showlegend": False,
            "customdata": [bar.count for bar in bars],
            "hovertemplate": "%{y}: %{x:.6g}, %{customdata} runs<extra></extra>",
            "marker": {"size": 10, "color": [run_color(bar.label) for bar in bars]},
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": high,
                "arrayminus": low,
                "color": "--soft",
                "thickness": 1.6,
                "width": 5,
            },
        }
    ]
    layout = {
        "xaxis": {"title": {"text": label(measure)}},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }
    note = f"Points are means, lines the intervals in which the mean lies with {confidence:.0%} confidence."
    return Figure(measure, data, layout, note=note, height=max(180, 96 + 34 * len(bars)))


def draw_boxes(groups: Mapping[str, Mapping[str, float]], *, measure: str) -> Figure:
    """Draw every run as a point, by group, with quartiles where a group has five runs or more.

    Args:
        groups: By label, values by the name of the run.
        measure: What the values are.
    """
    told = {name: values for name, values in groups.items() if values}
    if not told:
        return Figure(measure, reason="No group has a value.")
    data: list[Trace] = []
    for name, values in told.items():
        is_box = len(values) >= _FEW_FOR_BOX
        data.append(
            {
                "type": "box",
                "name": label(name),
                "x": np.array(list(values.values()), dtype=np.float64),
                "y": [label(name)] * len(values),
                "orientation": "h",
                "boxpoints": "all",
                "jitter": 0.5,
                "pointpos": 0,
                "text": [label(run) for run in values],
                "hovertemplate": "%{text}: %{x:.6g}<extra></extra>",
                "hoveron": "points",
                "showlegend": False,
                "marker": {"color": run_color(name), "size": 6, "opacity": 0.85},
                "line": {"color": run_color(name) if is_box else "rgba(0,0,0,0)", "width": 1.2},
                "fillcolor": run_color(name, 0.12) if is_box else "rgba(0,0,0,0)",
            }
        )
    layout = {
        "xaxis": {"title": {"text": label(measure)}},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
        "boxgap": 0.35,
    }
    return Figure(measure, data, layout, height=max(180, 96 + 46 * len(told)))
