"""Charts show what was logged: criteria 10 to 17."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import runstone
from runstone.figures import color
from tests.page.acting import (
    axes,
    calm,
    chart,
    drag,
    has_colour_near,
    open_watched,
    pixels,
    set_state,
    settled,
    strokes,
    tooltip,
    until,
)
from tests.page.conftest import Server
from tests.page.seeding_truth import LONG, MEMBER_STEPS, MEMBERS, SPIKE_AT, SPIKE_POINTS, members, seed_truth

Look = Callable[..., Any]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, quiet_machine: None) -> Iterator[Server]:
    """A server over runs of which it is known how they must look."""
    path = tmp_path_factory.mktemp("truth") / ".runstone"
    seed_truth(path)
    server = Server(path)
    yield server
    server.end()


def _run(server: Server, run_id: str) -> Any:
    return runstone.open_workspace(server.workspace).run(run_id)


def _note(page: Any, metric: str, text: str) -> Any:
    return page.locator(f"article.card[data-metric='{metric}'] .note", has_text=text)


def _number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_criterion_10_one_spike_of_a_million_points_shows_at_every_zoom(look: Look, truth: Server) -> None:
    page = look(truth, "?project=truth&view=charts&runs=spike")
    colour = color("spike")
    plot = chart(page, "spiky")
    width = float(SPIKE_POINTS)
    assert has_colour_near(plot, SPIKE_AT, 9.9, colour), "no spike in the whole"
    while width > 40:
        width *= 0.12
        drag(page, plot, SPIKE_AT - width * 0.4, SPIKE_AT + width * 0.6)
        settled(
            page,
            plot,
            lambda at, width=width: math.isclose(at["x"][1] - at["x"][0], width, rel_tol=0.15),
            f"{width:g} steps are shown",
        )
        assert has_colour_near(plot, SPIKE_AT, 9.9, colour), f"no spike among {width:g} steps"


def test_criterion_10_what_is_no_number_is_a_gap_with_a_mark_and_a_count_in_the_legend(
    look: Look, truth: Server
) -> None:
    page = look(truth, "?project=truth&view=charts&size=l&runs=gaps")
    colour = color("gaps")
    plot = chart(page, "gaps")
    assert _note(page, "gaps", "3 NaN").is_visible()
    assert _note(page, "gaps", "2 Inf").is_visible()
    at = axes(plot)
    floor = at["y"][0] + (at["y"][1] - at["y"][0]) * 5 / at["height"]
    ceiling = at["y"][1] - (at["y"][1] - at["y"][0]) * 4 / at["height"]
    assert has_colour_near(plot, 250, floor, colour), "no mark of a single NaN"
    assert has_colour_near(plot, 300, ceiling, colour), "no mark of infinity"
    assert has_colour_near(plot, 320, floor, colour), "no mark of minus infinity"
    assert not has_colour_near(plot, 100.5, math.sin(100.5 / 30), colour, 0), "there is no gap"
    plot.hover()
    page.keyboard.press("f")
    legend = page.locator("dialog .legend-item")
    until(lambda: legend.count() == 1, "a legend")
    assert "3 NaN, 2 Inf" in legend.inner_text().replace("3 NaN2 Inf", "3 NaN, 2 Inf")


def test_criterion_11_two_loads_give_the_same_pixels(look: Look, truth: Server) -> None:
    pictures = []
    for _ in range(2):
        page = look(truth, "?project=truth&view=charts&runs=long,gaps")
        plot = chart(page, "walk")
        calm(page)
        pictures.append(pixels(plot))
        page.close()
    assert pictures[0] == pictures[1]


def test_criterion_11_another_run_leaves_what_is_drawn_of_the_first(look: Look, truth: Server) -> None:
    drawn, said = [], []
    for runs in ("left", "left,right"):
        page = look(truth, "?page=none")
        open_watched(page, f"?project=axes&view=charts&runs={runs}&smooth=ema:0.9")
        plot = chart(page, "cost")
        settled(page, plot, lambda _: True, "it is painted")
        at = axes(plot)
        paths = [one["path"] for one in strokes(plot, color("left")) if len(one["path"]) > 5]
        # in values, because the axes cover what else is shown
        drawn.append(
            [
                (
                    at["x"][0] + (x - at["left"]) / at["width"] * (at["x"][1] - at["x"][0]),
                    at["y"][1] - (y - 8) / at["height"] * (at["y"][1] - at["y"][0]),
                )
                for path in paths
                for _, x, y in path
            ]
        )
        told = {step: tooltip(page, plot, step)["left"] for step in (4, 20, 33)}
        said.append({step: (one["raw"], one["smooth"]) for step, one in told.items()})
        page.close()
    assert said[0] == said[1]
    assert len(drawn[0]) >= 2 * 40
    assert np.array(drawn[0]) == pytest.approx(np.array(drawn[1]), abs=1e-6)


@pytest.mark.parametrize("smoothing", ["ema:0.9", "mean:25", "gauss:8"])
def test_criterion_12_a_smoothed_value_is_the_same_at_any_zoom_beside_the_raw_one(
    look: Look, truth: Server, smoothing: str
) -> None:
    raw = _run(truth, "long").series("walk").value
    page = look(truth, "?page=none")
    open_watched(page, f"?project=truth&view=charts&runs=long&size=l&smooth={smoothing}")
    plot = chart(page, "walk")
    whole = tooltip(page, plot, LONG // 2)["long"]
    step = int(float(whole["x"]))
    lines = [one for one in strokes(plot, color("long")) if len(one["path"]) > 100]
    assert sorted(round(one["alpha"], 3) for one in lines)[-1] == 1
    assert any(0.15 <= one["alpha"] <= 0.35 for one in lines), "the raw line stays, faint"
    for around in (400, 12):
        drag(page, plot, step - around, step + around)
        settled(page, plot, lambda at, around=around: at["x"][1] - at["x"][0] < 2.5 * around, "it is zoomed")
    zoomed = tooltip(page, plot, step)["long"]
    assert zoomed["x"] == str(step)
    assert float(zoomed["raw"]) == raw[step]
    assert float(zoomed["smooth"]) == pytest.approx(float(whole["smooth"]), abs=1e-6)
    assert abs(float(zoomed["smooth"]) - raw[step]) > 1e-9


def test_criterion_12_smoothing_of_nothing_is_the_raw_line(look: Look, truth: Server) -> None:
    pictures = []
    for smoothing in ("none:0", "ema:0", "mean:0"):
        page = look(truth, f"?project=truth&view=charts&runs=gaps&smooth={smoothing}")
        plot = chart(page, "tall")
        assert "smooth" not in tooltip(page, plot, 50)["gaps"]
        page.mouse.move(0, 0)
        calm(page)
        pictures.append(pixels(plot))
        page.close()
    assert pictures[0] == pictures[1] == pictures[2]


def test_criterion_13_the_tooltip_tells_of_a_bucket_and_near_enough_the_logged_float(look: Look, truth: Server) -> None:
    value = _run(truth, "long").series("walk").value
    page = look(truth, "?project=truth&view=charts&size=l&runs=long")
    plot = chart(page, "walk")
    said = tooltip(page, plot, LONG // 3)["long"]
    last = int(float(said["x"]))
    band = re.fullmatch(r"(\S+) … (\S+) \(([\d,]+)\)", said["band"])
    assert band, said
    count = int(_number(band[3]))
    inside = value[last - count + 1 : last + 1]
    assert count > 1
    assert float(said["raw"]) == pytest.approx(inside.mean(), rel=1e-5)
    assert _number(band[1]) == pytest.approx(inside.min(), rel=1e-3)
    assert _number(band[2]) == pytest.approx(inside.max(), rel=1e-3)
    for around in (300, 20):
        drag(page, plot, last - around, last + around)
        settled(page, plot, lambda at, around=around: at["x"][1] - at["x"][0] < 2.5 * around, "it is zoomed")
    for step in (last, last + 3):
        said = tooltip(page, plot, step)["long"]
        assert said["x"] == str(step)
        assert said["raw"] == repr(float(value[step]))
        assert not said.get("band"), "a point is no bucket"


def _places(run: Any, x: str) -> NDArray[np.float64]:
    """Return where the points of `loss` lie, computed here."""
    loss = run.series("loss")
    if x == "step":
        return loss.step.astype(float)
    if x == "time":
        return np.asarray(loss.wall_s)
    if x == "relative":
        return np.asarray(loss.wall_s - run.started_at.timestamp())
    if x == "process":
        passed, found = 0.0, []
        for attempt in run.attempts:
            own = run.series("loss", attempt=attempt.number).wall_s - attempt.started_at.timestamp() + passed
            found.append(own)
            passed = float(own.max())
        return np.concatenate(found)
    return np.asarray(run.series(x.removeprefix("metric:")).value, float)


def test_criterion_14_runs_with_places_of_their_own_lie_where_numpy_puts_them(look: Look, truth: Server) -> None:
    page = look(truth, "?page=none")
    open_watched(page, "?project=axes&view=charts&size=l&runs=left,right&metrics=loss")
    plot = chart(page, "loss")
    for x in ("step", "relative", "process", "time", "metric:epoch", "metric:seen"):
        set_state(page, x=x)
        _lies_right(page, truth, plot, x)


def _lies_right(page: Any, truth: Server, plot: Any, x: str) -> None:
    whole = np.concatenate([_places(_run(truth, name), x) for name in ("left", "right")])
    ends = pytest.approx([whole.min(), whole.max()], abs=1e-6)
    at = settled(page, plot, lambda at: at["x"] == ends, f"the axis goes along {x} from end to end")
    assert page.get_by_label("x axis").input_value() == x
    for name in ("left", "right"):
        run = _run(truth, name)
        places, loss = _places(run, x), run.series("loss").value
        wanted = np.stack(
            [
                at["left"] + (places - at["x"][0]) / (at["x"][1] - at["x"][0]) * at["width"],
                at["top"] + (at["y"][1] - loss) / (at["y"][1] - at["y"][0]) * at["height"],
            ],
            axis=1,
        )
        paths = [one["path"] for one in strokes(plot, color(name)) if one["alpha"] == 1 and len(one["path"]) > 7]
        drawn = np.array([[px, py] for path in paths for _, px, py in path])
        near = np.abs(drawn[:, None] - wanted[None]).max(axis=2)
        assert near.min(axis=1).max() <= 1, f"{name} along {x}: something is drawn where there is no point"
        alone = np.array([np.sum(np.abs(wanted[:, 0] - px) < 1.5) == 1 for px, _ in wanted])
        assert near.min(axis=0)[alone].max(initial=0) <= 1, f"{name} along {x}: a point is not drawn where it lies"
        assert len(drawn) >= 7


def test_criterion_14_epochs_are_offered_as_an_axis(look: Look, truth: Server) -> None:
    page = look(truth, "?project=axes&view=charts")
    chart(page, "loss")
    axis = page.get_by_label("x axis")
    assert axis.locator("option").all_inner_texts()[:5] == [
        "Step",
        "Time since start",
        "Process time",
        "Wall clock",
        "Epoch",
    ]
    axis.select_option(label="Epoch")
    until(lambda: axes(page.locator("article[data-metric=loss] .plot"))["x"][0] == 0, "it lies along epochs")
    assert "metric:epoch" in page.url.replace("%3A", ":")


def test_criterion_14_what_a_log_axis_leaves_out_is_counted(look: Look, truth: Server) -> None:
    page = look(truth, "?project=truth&view=charts&logy=1&runs=gaps")
    chart(page, "around zero")
    assert _note(page, "around zero", "50 dropped").is_visible()
    assert not _note(page, "part/high", "dropped").count()
    page = look(truth, "?project=truth&view=charts&logx=1&runs=gaps")
    plot = chart(page, "around zero")
    assert axes(plot)["x"][0] == 1
    assert _note(page, "around zero", "1 dropped").is_visible()


def test_criterion_15_extremes_are_left_out_only_when_asked_and_are_counted(look: Look, truth: Server) -> None:
    page = look(truth, "?project=truth&view=charts&runs=spike")
    plot = chart(page, "spiky")
    assert axes(plot)["y"][1] > 10
    assert not _note(page, "spiky", "out of view").count()
    page.get_by_role("button", name="More for all charts").click()
    page.get_by_role("menuitemcheckbox", name="Leave out extremes").click()
    until(lambda: axes(plot)["y"][1] < 1, "the spike is out of view")
    assert _note(page, "spiky", "out of view").is_visible()


def test_criterion_15_the_range_of_y_is_as_the_data_say_or_shared_or_fixed(look: Look, truth: Server) -> None:
    page = look(truth, "?project=truth&view=charts&runs=gaps")
    low, high = chart(page, "part/low"), chart(page, "part/high")
    assert axes(low)["y"][1] < 2 < 4 < axes(high)["y"][0], "each as its data say"
    page.get_by_role("button", name="More for all charts").click()
    page.get_by_role("menuitemcheckbox", name="One range of y for a section").click()
    until(lambda: axes(low)["y"] == axes(high)["y"], "one range for the section")
    assert axes(low)["y"][0] < 0 < 9 < axes(low)["y"][1]
    tall = chart(page, "tall")
    assert axes(tall)["y"][1] > 50, "another section has its own"
    page.get_by_role("button", name="More for part/low").click()
    page.get_by_role("menuitemcheckbox", name="Fix the range of y").click()
    page.get_by_label("Lowest and highest value").fill("-2 3")
    page.keyboard.press("Enter")
    until(lambda: axes(low)["y"] == [-2, 3], "its range is fixed")
    assert axes(high)["y"][1] > 9


def test_criterion_16_a_group_is_the_mean_and_the_band_of_all_its_runs(look: Look, truth: Server) -> None:
    page = look(truth, "?page=none")
    open_watched(page, "?project=groups&group=params.kind&size=l")
    plot = chart(page, "score")
    for band in ("minmax", "std", "ci"):
        set_state(page, band=band)
        settled(page, plot, lambda _: True, "it is painted")
        _groups_are_right(page, plot, band)


def _groups_are_right(page: Any, plot: Any, band: str) -> None:
    at = axes(plot)
    for kind, rows in members().items():
        mean, counts = np.nanmean(rows, axis=0), np.isfinite(rows).sum(axis=0)
        deviation = np.nanstd(rows, axis=0, ddof=1)
        off = deviation if band == "std" else 1.96 * deviation / np.sqrt(counts)
        low, high = (np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)) if band == "minmax" else (mean - off, mean + off)
        line = max((one["path"] for one in strokes(plot, color(kind)) if one["alpha"] == 1), key=len)
        assert len(line) == MEMBER_STEPS
        wanted = at["top"] + (at["y"][1] - mean) / (at["y"][1] - at["y"][0]) * at["height"]
        assert [y for _, _, y in line] == pytest.approx(wanted, abs=1)
        for step in (7, 20):
            said = tooltip(page, plot, step)[f"{kind} (n={MEMBERS})"]
            assert float(said["raw"]) == pytest.approx(mean[step], rel=1e-9)
            told = re.fullmatch(r"(\S+) … (\S+) \((\d+)\)", said["band"])
            assert told, said
            assert _number(told[1]) == pytest.approx(low[step], rel=2e-3, abs=2e-3)
            assert _number(told[2]) == pytest.approx(high[step], rel=2e-3, abs=2e-3)
            assert int(told[3]) == counts[step]


def _goes_left(path: list[list[Any]]) -> list[Any]:
    return [
        (before, now) for before, now in itertools.pairwise(path) if now[0] == "lineTo" and now[1] < before[1] - 0.01
    ]


@pytest.mark.parametrize(
    ("run_id", "begins", "at_y"), [("resumed", 40, None), ("goes-back", 30, None), ("forked", 30, 1 / 31 + 0.3)]
)
def test_criterion_17_where_a_run_begins_anew_is_marked_and_no_line_goes_back(
    look: Look, truth: Server, run_id: str, begins: int, at_y: float | None
) -> None:
    page = look(truth, "?page=none")
    open_watched(page, f"?project=restarts&view=charts&size=l&runs={'resumed,' if run_id == 'forked' else ''}{run_id}")
    plot = chart(page, "loss")
    at, colour = axes(plot), color(run_id)
    lines = [one["path"] for one in strokes(plot, colour) if len(one["path"]) >= 50]
    assert len(lines) == 1
    assert _goes_left(lines[0]) == []
    series = _run(truth, run_id).series("loss")
    pens = sum(command == "moveTo" for command, _, _ in lines[0])
    assert pens == 1 + int((np.diff(series.step) < 0).sum()), "the pen is lifted only where steps go back"
    if at_y is None:
        flag = at["y"][1] - (at["y"][1] - at["y"][0]) * 3.5 / at["height"]
        assert has_colour_near(plot, begins, flag, colour, 4), "no flag"
    else:
        beside = begins - 4 * (at["x"][1] - at["x"][0]) / at["width"]
        assert has_colour_near(plot, beside, at_y, colour, 2), "no ring where it went on from another run"


def test_criterion_17_steps_that_go_back_stay_apart_in_buckets_too(look: Look, truth: Server, tmp_path: Any) -> None:
    with runstone.start_run(
        project="restarts", run_id="long-back", workspace=truth.workspace, environment=False
    ) as run:
        for part in range(3):
            run.log_series("loss", np.arange(1000 * part, 1000 * part + 4000), np.full(4000, float(part)))
    page = look(truth, "?page=none")
    open_watched(page, "?project=restarts&view=charts&runs=long-back")
    plot = chart(page, "loss")
    line = max((one["path"] for one in strokes(plot, color("long-back"))), key=len)
    assert _goes_left(line) == []
    heights = {round(y, 3) for _, _, y in line}
    assert len(heights) == 3, "no bucket holds points of two stretches"


def test_criterion_17_steps_logged_twice_are_drawn_and_counted(look: Look, truth: Server) -> None:
    page = look(truth, "?page=none")
    open_watched(page, "?project=restarts&view=charts&size=l&runs=repeats")
    plot = chart(page, "loss")
    assert _note(page, "loss", "3 repeated").is_visible()
    line = max((one["path"] for one in strokes(plot, color("repeats"))), key=len)
    assert _goes_left(line) == []
    assert not has_colour_near(plot, 6, 5, color("repeats"), 1)
