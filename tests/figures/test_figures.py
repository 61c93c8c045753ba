"""Figures hold what was logged, show text as text, and are what plotly takes."""

from __future__ import annotations

import base64
import itertools
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runstone.errors import InvalidConfig, InvalidValue
from runstone.figures import (
    Bar,
    Curve,
    Figure,
    Point,
    draw_bars,
    draw_boxes,
    draw_confusion,
    draw_curves,
    draw_front,
    draw_heat_map,
    draw_histogram,
    draw_history,
    draw_parallel,
    draw_scatter,
    draw_spread,
    smoothed,
)

EVIL = '<img src=x onerror=alert(1)>"&amp;'


def curve(key: str, y: Any, x: Any = None) -> Curve:
    values = np.asarray(y, dtype=np.float64)
    return Curve(key, key, np.arange(len(values), dtype=np.float64) if x is None else np.asarray(x, np.float64), values)


def lines(figure: Figure) -> list[dict[str, Any]]:
    """Return the traces that have a place in the legend."""
    return [trace for trace in figure.data if trace.get("showlegend") is not False]


ALL: dict[str, Callable[[str], Figure]] = {
    "curves": lambda name: draw_curves([curve(name, [1, 2]), curve("b", range(5_000))], metric=name, smoothing=0.5),
    "spread": lambda name: draw_spread([(name, [curve("a", [1, 2]), curve("b", [2, 3])])], metric=name),
    "bars": lambda name: draw_bars([Bar(name, 1.0, 0.5, 1.5, 4), Bar("b", 2.0, None, None, 1)], measure=name),
    "boxes": lambda name: draw_boxes({name: {name: 1.0}, "b": {str(n): n / 2 for n in range(6)}}, measure=name),
    "scatter": lambda name: draw_scatter([Point("a", name, 1, 2)], x=name, y=name),
    "front": lambda name: draw_front(
        [Point("a", name, 1, 2), Point("b", "b", 0, 3)],
        ["a"],
        x=name,
        y=name,
        is_x_maximized=True,
        is_y_maximized=False,
    ),
    "history": lambda name: draw_history([Point("a", name, 1, 2)], measure=name, is_maximized=True),
    "parallel": lambda name: draw_parallel(
        {name: [name, None], "lr": [0.001, 1.0]}, measure=name, values=[1, 2], names=[name, "b"], is_maximized=True
    ),
    "histogram": lambda name: draw_histogram({name: [1, 2, math.nan], "b": [3]}, measure=name),
    "confusion": lambda name: draw_confusion([[5, 1], [0, 4]], [name, "b"], title=name),
    "heat map": lambda name: draw_heat_map({(name, "1"): 2.0, ("b", "10"): 3.0}, x=name, y=name, measure=name),
}


@pytest.mark.parametrize("kind", ALL)
def test_every_figure_is_json_and_what_plotly_takes(kind: str) -> None:
    plotly = pytest.importorskip("plotly.graph_objects")
    figure = ALL[kind]("name")
    assert figure.data, figure.reason
    for theme in ("light", "dark"):
        told = json.loads(figure.to_json(theme))
        assert '"--' not in json.dumps(told), "a colour was left as a name"
        plotly.Figure(told)  # refuses what is no property of a figure
        drawn = figure.to_plotly(theme)
        assert isinstance(drawn, plotly.Figure)
        assert len(drawn.data) == len(figure.data)
    assert figure.to_dict("light") != figure.to_dict("dark")
    assert '"--' in figure.to_json(None)


@pytest.mark.parametrize("kind", ALL)
def test_no_name_is_markup_in_a_figure(kind: str) -> None:
    figure = ALL[kind](EVIL)
    text = json.dumps(figure.to_dict())
    assert "<img" not in text
    assert "&lt;img" in text
    plotly = pytest.importorskip("plotly.graph_objects")
    assert "<img" not in str(plotly.Figure(figure.to_plotly()).to_json())


def test_arrays_travel_as_bytes_and_keep_every_value() -> None:
    values = [0.1, 1e300, -1e-300, math.nan, math.inf]
    trace = lines(draw_scatter([Point("a", "a", 1, 2)], x="x", y="y"))
    assert trace == []
    figure = Figure("t", [{"x": np.array(values), "y": np.arange(3), "z": np.array([2**40])}])
    x, y, z = (figure.to_dict()["data"][0][name] for name in "xyz")
    assert x["dtype"] == "f8"
    assert np.array_equal(np.frombuffer(base64.b64decode(x["bdata"])), values, equal_nan=True)
    assert y["dtype"] == "i4"
    assert z["dtype"] == "f8"  # plotly.js knows no integers of 64 bits


def test_a_short_curve_is_drawn_as_it_was_logged() -> None:
    y = [3.0, 1.0, math.nan, 2.0, math.inf]
    figure = draw_curves([curve("a", y)], metric="loss")
    (line,) = figure.data
    assert line["x"].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(line["y"], [3.0, 1.0, math.nan, 2.0, math.nan], equal_nan=True)
    assert figure.note == "2 values are NaN or infinite: gaps."


def test_no_spike_of_a_long_curve_is_lost() -> None:
    y = np.sin(np.arange(100_000) / 5_000)
    y[54_321] = 40.0
    y[77_777] = -40.0
    low, high, line = draw_curves([curve("a", y)], metric="loss").data
    assert (low["y"].min(), high["y"].max()) == (-40.0, 40.0)
    assert len(line["x"]) <= 1_000
    assert line["x"][-1] == 99_999
    for place, left in enumerate(range(0, 100_000, 100)):
        bucket = y[left : left + 100]
        assert (low["y"][place], high["y"][place]) == (bucket.min(), bucket.max())
        assert line["y"][place] == pytest.approx(bucket.mean())


def test_a_line_never_runs_backwards() -> None:
    figure = draw_curves([curve("a", [1, 2, 3, 4], x=[0, 10, 5, 15])], metric="loss")
    (line,) = figure.data
    assert np.array_equal(line["x"], [0, 10, np.nan, 5, 15], equal_nan=True)


def test_over_another_metric_a_line_runs_as_it_was_logged() -> None:
    x = [1.0, 0.5, 0.8, 0.2]
    (line,) = draw_curves([curve("a", [1, 2, 3, 4], x=x)], metric="acc", x="loss").data
    assert line["x"].tolist() == x
    y = np.zeros(50_000)
    y[12_345], y[40_000] = 9.0, -9.0
    (line,) = draw_curves([curve("a", y, x=np.sin(np.arange(50_000)))], metric="acc", x="loss").data
    assert (line["y"].max(), line["y"].min()) == (9.0, -9.0)
    assert len(line["x"]) <= 4_000


def test_runs_of_one_colour_differ_in_their_dash() -> None:
    figure = draw_curves([curve(f"run-{n}", [1, 2]) for n in range(1, 9)], metric="loss")
    looks = [(trace["line"]["color"], trace["line"]["dash"]) for trace in figure.data]
    assert len(set(looks)) == 8
    assert looks[6] == ("--run-10", "dash")


def test_groups_are_drawn_by_the_mean_and_the_range_of_their_runs() -> None:
    curves = [curve("a", [1, 2, 3]), curve("b", [3, 4, 5]), curve("c", [8], x=[2])]
    low, high, line = draw_spread([("g", curves)], metric="loss").data
    assert line["y"].tolist() == [2, 3, pytest.approx(16 / 3)]
    assert (low["y"].tolist(), high["y"].tolist()) == ([1, 2, 3], [3, 4, 8])
    assert line["customdata"].tolist() == [2, 2, 3]


# --- smoothing --------------------------------------------------------------------------------------------------------


def slowly(x: list[float], y: list[float], weight: float) -> list[float]:
    gaps = sorted(b - a for a, b in itertools.pairwise(x) if b > a)
    typical = gaps[len(gaps) // 2] if len(gaps) % 2 else (gaps[len(gaps) // 2 - 1] + gaps[len(gaps) // 2]) / 2
    found = []
    for place in range(len(x)):
        weights = [weight ** ((x[place] - x[other]) / typical) for other in range(place + 1)]
        told = [(w, v) for w, v in zip(weights, y[: place + 1], strict=True) if math.isfinite(v)]
        found.append(sum(w * v for w, v in told) / sum(w for w, _ in told) if told else math.nan)
    return found


@pytest.mark.parametrize("weight", [0.1, 0.6, 0.99])
def test_smoothing_is_the_weighted_mean_of_what_came_before(weight: float) -> None:
    draw = np.random.default_rng(4)
    x = np.cumsum(draw.integers(0, 4, 300)).astype(float)
    y = draw.normal(0, 1, 300)
    y[[7, 50]] = [math.nan, math.inf]
    assert smoothed(x, y, weight) == pytest.approx(slowly(x.tolist(), y.tolist(), weight), rel=1e-9)


def test_smoothing_of_a_very_long_curve_does_not_overflow() -> None:
    x = np.arange(300_000.0)
    assert smoothed(x, np.ones(300_000), 0.2) == pytest.approx(np.ones(300_000))
    sparse = np.array([0.0, 1.0, 2.0, 1e12])
    assert smoothed(sparse, np.array([1.0, 1.0, 1.0, 9.0]), 0.9)[-1] == pytest.approx(9.0)


def test_smoothing_of_nothing_changes_nothing_and_sees_no_future() -> None:
    y = np.array([1.0, math.nan, 3.0])
    assert np.array_equal(smoothed(np.arange(3.0), y, 0.0), y, equal_nan=True)
    long = np.random.default_rng(0).normal(0, 1, 100)
    whole, part = smoothed(np.arange(100.0), long, 0.7), smoothed(np.arange(60.0), long[:60], 0.7)
    assert whole[:60] == pytest.approx(part)
    with pytest.raises(InvalidValue, match="smoothing"):
        draw_curves([curve("a", [1])], metric="m", smoothing=1.0)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_figure_without_data_says_why() -> None:
    assert draw_curves([], metric="loss").reason == "No run has logged loss."
    assert draw_parallel({}, measure="m", values=[1, 2], names=["a", "b"], is_maximized=True).reason
    assert draw_histogram({"a": [math.nan]}, measure="m").reason
    assert draw_bars([], measure="m").reason
    with pytest.raises(InvalidValue, match="2 classes"):
        draw_confusion([[1]], ["a", "b"])
    with pytest.raises(InvalidValue, match="light or dark"):
        draw_bars([], measure="m").to_dict("pink")


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(1).normal(0, 1, 1_000)
    (trace,) = draw_histogram({"a": values.tolist()}, measure="m").data
    assert trace["y"].sum() == 1_000
    assert draw_histogram({"a": [1.0, math.inf]}, measure="m").note == "1 that is not finite left out."


def test_the_best_lines_of_parallel_coordinates_are_drawn_last() -> None:
    figure = draw_parallel(
        {"x": list(range(16))}, measure="loss", values=list(range(16)), names=[str(n) for n in range(16)],
        is_maximized=False,
    )  # fmt: skip
    assert figure.data[-1]["line"]["color"] == "--strong"
    assert figure.data[-1]["text"][0] == "0<br>x: 0"
    logarithmic = draw_parallel(
        {"lr": [0.001, 0.01, 0.1]}, measure="m", values=[1, 2, 3], names=["a", "b", "c"], is_maximized=True
    )
    middle = [trace["y"][0] for trace in logarithmic.data if trace["text"][0].startswith("b")]
    assert middle == [pytest.approx(0.5)]


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InvalidConfig, match=r"runstone\[plots\]"):
        draw_scatter([Point("a", "a", 1, 2)], x="x", y="y").to_plotly()
    assert draw_scatter([Point("a", "a", 1, 2)], x="x", y="y").to_json()
