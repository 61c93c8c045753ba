"""Figures in which every run is a point: scatter, Pareto front, history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.figures.figure import Figure, Trace, label
from runstone.figures.theme import run_color


@dataclass(frozen=True, slots=True)
class Point:
    """One run or group: `key` decides its colour."""

    key: str
    name: str
    x: float
    y: float


def draw_scatter(
    points: Sequence[Point],
    *,
    x: str,
    y: str,
    title: str = "",
    is_log_x: bool = False,
    is_log_y: bool = False,
) -> Figure:
    """Draw points.

    Args:
        points: Runs or groups.
        x, y: What the axes are.
        title: Of the figure; default: what the axes are.
        is_log_x, is_log_y: Whether axes are logarithmic.
    """
    title = title or f"{y} over {x}"
    if not points:
        return Figure(title, reason="No run has both values.")
    trace = _markers(points, [run_color(point.key) for point in points], "")
    return Figure(title, [{**trace, "showlegend": False}], _axes(x, y, is_log_x=is_log_x, is_log_y=is_log_y))


def draw_front(
    points: Sequence[Point], best: Sequence[str], *, x: str, y: str, is_x_maximized: bool, is_y_maximized: bool
) -> Figure:
    """Draw the Pareto front: what nothing else beats in both respects, and all the rest.

    Args:
        points: Runs or groups.
        best: Keys of those on the front.
        x, y: What the axes are.
        is_x_maximized, is_y_maximized: Whether more is better.
    """
    title = f"Pareto front of {x} and {y}"
    if not points:
        return Figure(title, reason="No run has both values.")
    on_front = set(best)
    front = sorted((point for point in points if point.key in on_front), key=lambda point: point.x)
    rest = [point for point in points if point.key not in on_front]
    data: list[Trace] = []
    if rest:
        data.append(_markers(rest, "--soft", "beaten"))
    line: dict[str, Any] = {"color": "--accent", "width": 1.4, "dash": "dot"}
    # From one point of the front, what it beats reaches towards the worse of x first, or towards the worse of y.
    line["shape"] = "vh" if is_x_maximized else "hv"
    chosen = _markers(front, [run_color(point.key) for point in front], "on the front")
    data.append({**chosen, "mode": "lines+markers", "line": line})
    better = [
        f"{name}: {'more' if more else 'less'} is better" for name, more in ((x, is_x_maximized), (y, is_y_maximized))
    ]
    return Figure(title, data, _axes(x, y), note="; ".join(better).capitalize() + ".")


def draw_history(points: Sequence[Point], *, measure: str, is_maximized: bool) -> Figure:
    """Draw a measure run by run, with the best so far.

    Args:
        points: In order; x is the number of the run.
        measure: What y is.
        is_maximized: Whether more is better.
    """
    title = f"{measure}, run by run"
    if not points:
        return Figure(title, reason="No run has a value.")
    values = np.array([point.y for point in points])
    best = np.maximum.accumulate(values) if is_maximized else np.minimum.accumulate(values)
    line: Trace = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": np.array([point.x for point in points]),
        "y": best,
        "hoverinfo": "skip",
        "line": {"color": "--good", "width": 1.8, "shape": "hv"},
    }
    data = [line, _markers(points, [run_color(point.key) for point in points], "runs")]
    return Figure(title, data, _axes("run", measure), is_wide=True)


def _markers(points: Sequence[Point], color: str | list[str], name: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": np.array([point.x for point in points], dtype=np.float64),
        "y": np.array([point.y for point in points], dtype=np.float64),
        "text": [label(point.name) for point in points],
        "hovertemplate": "%{text}<br>%{x:.6g}, %{y:.6g}<extra></extra>",
        "marker": {"size": 8, "color": color, "opacity": 0.9},
    }


def _axes(x: str, y: str, *, is_log_x: bool = False, is_log_y: bool = False) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": label(x)}, **({"type": "log"} if is_log_x else {})},
        "yaxis": {"title": {"text": label(y)}, **({"type": "log"} if is_log_y else {})},
    }
