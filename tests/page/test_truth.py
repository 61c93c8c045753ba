"""Charts show what was logged: criteria 10 to 17."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import runstone
from tests.page.acting import axes, calm, chart, drag, has_colour_near, pixels, place, settled, tooltip, until


def _run(server: Any, name: str) -> Any:
    return next(run for run in runstone.open_workspace(server.workspace).runs(f"name = '{name}'"))


def _colour(page: Any, run_id: str) -> str:
    return str(
        page.evaluate(
            "async ([id, base]) => (await import(base + 'core/colour.js')).runColour(id)", [run_id, _static(page)]
        )
    )


def _static(page: Any) -> str:
    return str(page.evaluate("() => document.querySelector('script[type=module]').src.replace(/main\\.js$/, '')"))


def test_c10_a_spike_shows_at_every_zoom(look: Any, usual: Any) -> None:
    page = look(usual, "?project=strange&view=charts")
    colour = _colour(page, _run(usual, "spike").id)
    plot = chart(page, "spiky")
    low, high = axes(plot)["x"]
    for share in (1.0, 0.3, 0.05, 0.003):
        width = 200_000 * share
        if share < 1:
            drag(page, plot, 123_456 - width * 0.4, 123_456 + width * 0.6)
            settled(
                page,
                plot,
                lambda at, width=width: math.isclose(at["x"][1] - at["x"][0], width, rel_tol=0.1),
                f"{width:g} steps are shown",
            )
        assert has_colour_near(plot, 123_456, 9.9, colour), f"no spike at {share:.1%} of {high - low:g} steps"


def test_c10_what_is_not_finite_is_a_gap_with_a_mark_and_a_count(look: Any, usual: Any) -> None:
    page = look(usual, "?project=strange&view=charts&size=l")
    colour = _colour(page, _run(usual, "spike").id)
    plot = chart(page, "gaps")
    card = page.locator("article.card[data-metric='gaps']")
    assert card.locator(".note", has_text="3 NaN").is_visible()
    assert card.locator(".note", has_text="2 Inf").is_visible()
    at = axes(plot)
    floor = at["y"][0] + (at["y"][1] - at["y"][0]) * 5 / at["height"]
    ceiling = at["y"][1] - (at["y"][1] - at["y"][0]) * 4 / at["height"]
    assert has_colour_near(plot, 250, floor, colour)
    assert has_colour_near(plot, 300, ceiling, colour)
    assert has_colour_near(plot, 320, floor, colour)
    assert not has_colour_near(plot, 100.5, math.sin(100.5 / 30), colour, 0)


def test_c11_two_loads_give_the_same_picture(look: Any, usual: Any) -> None:
    pictures = []
    for _ in range(2):
        page = look(usual, "?project=digits&view=charts")
        plot = chart(page, "val/loss")
        calm(page)
        pictures.append(pixels(plot))
        page.close()
    assert pictures[0] == pictures[1]


def test_c11_showing_another_run_leaves_the_values_of_the_first(look: Any, usual: Any) -> None:
    ids = [_run(usual, name).id for name in ("adam-0", "sgd-1")]
    seen = []
    for shown in (ids[:1], ids):
        page = look(usual, f"?project=digits&view=charts&runs={','.join(shown)}&smooth=ema:0.9")
        seen.append({step: tooltip(page, chart(page, "train/loss"), step)["adam-0"] for step in (10, 150, 280)})
        page.close()
    assert seen[0] == seen[1]


def test_c12_a_smoothed_value_is_the_same_at_every_zoom_and_beside_the_raw_one(look: Any, usual: Any) -> None:
    run = _run(usual, "sgd-1")
    raw = run.series("train/loss").value
    page = look(usual, f"?project=digits&view=charts&runs={run.id}&smooth=ema:0.9")
    plot = chart(page, "train/loss")
    whole = tooltip(page, plot, 150)["sgd-1"]
    assert float(whole["raw"]) == raw[150]
    assert float(whole["smooth"]) != raw[150]
    drag(page, plot, 140, 170)
    settled(page, plot, lambda at: at["x"][1] - at["x"][0] < 40, "30 steps are shown")
    zoomed = tooltip(page, plot, 150)["sgd-1"]
    assert zoomed["x"] == "150"
    assert float(zoomed["smooth"]) == pytest.approx(float(whole["smooth"]), abs=1e-6)
    page.keyboard.press("s")
    until(lambda: "smooth=" not in page.url, "smoothing is off")
    calm(page)
    assert "smooth" not in tooltip(page, plot, 150)["sgd-1"]


def test_c13_near_enough_the_tooltip_says_the_logged_float(look: Any, usual: Any) -> None:
    run = _run(usual, "spike")
    value = run.series("spiky").value
    page = look(usual, "?project=strange&view=charts&size=l")
    plot = chart(page, "spiky")
    band = tooltip(page, plot, 100_000)["spike"]["band"]
    assert "…" in band
    assert "(" in band
    for around in (5_000, 200, 20):
        drag(page, plot, 123_456 - around, 123_456 + around)
        settled(
            page,
            plot,
            lambda at, around=around: at["x"][1] - at["x"][0] < 2.5 * around,
            f"{2 * around} steps are shown",
        )
    for step in (123_456, 123_460):
        said = tooltip(page, plot, step)["spike"]
        assert said["x"] == str(step)
        assert said["raw"] == repr(float(value[step]))


def test_c14_runs_lie_along_any_metric(look: Any, usual: Any) -> None:
    run = _run(usual, "adam-0")
    page = look(usual, f"?project=digits&view=charts&runs={run.id}&x=metric:train/acc")
    plot = chart(page, "train/loss")
    across = run.series("train/acc").value
    at = axes(plot)
    assert at["x"] == pytest.approx([across.min(), across.max()])
    colour = _colour(page, run.id)
    loss = run.series("train/loss").value
    for k in (0, 299):
        assert has_colour_near(plot, float(across[k]), float(loss[k]), colour, 2)


def test_c14_what_a_log_axis_leaves_out_is_counted(look: Any, usual: Any) -> None:
    page = look(usual, "?project=strange&view=charts&logy=1")
    chart(page, "around zero")
    assert page.locator("article.card[data-metric='around zero'] .note", has_text="50 dropped").is_visible()


def test_c15_extremes_are_left_out_only_when_asked_and_counted(look: Any, usual: Any) -> None:
    page = look(usual, "?project=strange&view=charts")
    plot = chart(page, "spiky")
    assert axes(plot)["y"][1] > 10
    page.get_by_role("button", name="More for all charts").click()
    page.get_by_role("menuitemcheckbox", name="Leave out extremes").click()
    until(lambda: axes(plot)["y"][1] < 1, "the spike is out of view")
    assert page.locator("article.card[data-metric='spiky'] .note", has_text="out of view").is_visible()


def test_c16_a_group_is_the_mean_of_all_its_runs(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits")
    rng = np.random.default_rng(3)
    values = rng.standard_normal((40, 30)) + 1e6
    values[3, 7] = math.nan
    said = page.evaluate(
        """async ([base, values]) => {
          const {mean} = await import(base + 'chart/groups.js');
          const {nothing} = await import(base + 'chart/series.js');
          const members = values.map(y => ({
            ...nothing(), total: y.length, x0: 0, x1: y.length - 1,
            x: Float64Array.from(y, (_, i) => i), y: Float64Array.from(y, v => v ?? NaN),
          }));
          const said = band => {
            const p = mean(members, band, 100);
            return {y: [...p.y], low: [...p.low], high: [...p.high], n: [...p.n]};
          };
          return Object.fromEntries(['minmax', 'std', 'ci'].map(band => [band, said(band)]));
        }""",
        [_static(page), [[None if math.isnan(v) else v for v in row] for row in values.tolist()]],
    )
    assert said["minmax"]["y"] == pytest.approx(np.nanmean(values, axis=0), rel=1e-12)
    assert said["minmax"]["low"] == pytest.approx(np.nanmin(values, axis=0))
    assert said["minmax"]["n"][7] == 39
    spread = np.nanstd(values, axis=0, ddof=1)
    assert said["std"]["high"] == pytest.approx(np.nanmean(values, axis=0) + spread, rel=1e-9)
    counts = np.isfinite(values).sum(axis=0)
    assert np.array(said["ci"]["high"]) - said["ci"]["y"] == pytest.approx(1.96 * spread / np.sqrt(counts), rel=1e-3)


def test_c17_attempts_are_marked_and_no_line_goes_back(look: Any, usual: Any) -> None:
    run = _run(usual, "resumed")
    page = look(usual, f"?project=strange&view=charts&size=l&runs={run.id}")
    plot = chart(page, "loss")
    colour = _colour(page, run.id)
    at = axes(plot)
    top = at["y"][1] - (at["y"][1] - at["y"][0]) * 3.5 / at["height"]
    assert has_colour_near(plot, 40, top, colour)
    steps = run.series("loss").step
    assert list(steps) == sorted(steps)
    assert place(plot, 99)[0] > place(plot, 40)[0]
