"""What charts are sent: exact points, whole envelopes, and only what is new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import runstone
from runstone.server.curves import Curves
from runstone.server.drawing import Wish, drawn
from runstone.server.smoothing import Smoothing, ema
from tests.server.conftest import World

KINDS = {"f64": np.float64, "f32": np.float32, "u32": np.uint32}


def unpacked(data: bytes) -> list[dict[str, Any]]:
    """Return the series of an answer: the head of each, with its arrays in place of where they lie."""
    size = int.from_bytes(data[:4], "little")
    start = -(-(4 + size) // 8) * 8
    found = json.loads(data[4 : 4 + size])["series"]
    for one in found:
        for name, (offset, count, kind) in one["arrays"].items():
            assert offset % 8 == 0
            one["arrays"][name] = np.frombuffer(data, KINDS[kind], count, start + offset)
    return found


class Chart:
    """A chart that holds what it was sent, as the page does."""

    def __init__(self, path: Path, metric: str, **wish: Any) -> None:
        self.curves, self.path = Curves(), path
        self.metric, self.wish = metric, wish
        self.token = ""
        self.arrays: dict[str, np.ndarray] = {}
        self.head: dict[str, Any] = {}
        self.sent = 0

    def poll(self) -> dict[str, Any]:
        """Ask for what is new."""
        run = self.curves.open(self.path)
        with run.lock:
            run.refresh()
            found = drawn(run, Wish(self.metric, have=self.token, **self.wish))
        self.head, self.token = found.head, found.head["token"]
        base = self.head["base"]
        self.sent = sum(len(array) for array in found.arrays.values())
        if not self.head.get("unchanged"):
            held = {name: self.arrays.get(name, np.empty(0))[:base] for name in found.arrays}
            self.arrays = {name: np.concatenate([held[name], array]) for name, array in found.arrays.items()}
        return self.head


def logged(path: Path, values: np.ndarray, steps: np.ndarray | None = None, **options: Any) -> Path:
    steps = np.arange(len(values)) if steps is None else steps
    with runstone.start_run(workspace=path / ".runstone", environment=False, **options) as run:
        run.log_series("y", steps, values)
    return run.path


def test_a_short_series_comes_point_by_point(world: World) -> None:
    body = {"series": [{"run": world.runs["first"], "metric": "loss"}], "buckets": 100}
    answer = world.client.post("/api/series", json=body, headers=world.headers("vic"))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    [one] = unpacked(answer.content)
    assert (one["level"], one["points"], one["shown"], one["nan"]) == ("raw", 40, 40, 0)
    assert_array_equal(one["arrays"]["x"], np.arange(40.0))
    assert_array_equal(one["arrays"]["y"], 1 / (np.arange(40) + 1))
    url = f"/api/runs/{world.runs['first']}/series?metric=loss&buckets=100"
    [same] = unpacked(world.client.get(url, headers=world.headers("vic")).content)
    assert_array_equal(same["arrays"]["y"], one["arrays"]["y"])


def test_a_series_that_is_not_there_says_so_in_its_place(world: World) -> None:
    wanted = [
        {"run": world.runs["first"], "metric": "lost"},
        {"run": "nobody", "metric": "loss"},
        {"run": world.runs["first"], "metric": "words"},
        {"run": world.runs["first"], "metric": "loss", "x": "metric:nothing"},
        {"run": world.runs["second"], "metric": "loss"},
    ]
    answer = world.client.post("/api/series", json={"series": wanted}, headers=world.headers("vic"))
    found = unpacked(answer.content)
    assert [one["metric"] for one in found] == ["lost", "loss", "words", "loss", "loss"]
    assert [one.get("error", {}).get("code") for one in found] == ["not_found"] * 4 + [None]
    assert "'loss'" in found[0]["error"]["message"]


def test_of_a_damaged_run_it_is_said_and_the_others_are_drawn(fresh: World) -> None:
    with runstone.start_run(project="p", workspace=fresh.workspace.path, environment=False) as run:
        run.log({"loss": 1.0}, step=0)
    other = fresh.runs["first"]
    fresh.workspace.seal(run.id)
    damaged = fresh.workspace.run(run.id).path / "metrics.parquet"
    damaged.write_bytes(b"\xff" * damaged.stat().st_size)
    body = {"series": [{"run": run.id, "metric": "loss"}, {"run": other, "metric": "loss"}]}
    answer = fresh.client.post("/api/series", json=body, headers=fresh.headers("vic"))
    assert answer.status_code == 200, answer.text
    first, second = unpacked(answer.content)
    assert first["error"]["code"] == "damaged"
    assert second["points"] > 0
    told = fresh.client.get("/api/runs", headers=fresh.headers("vic")).json()["troubles"]
    told += fresh.client.get(f"/api/runs/{run.id}", headers=fresh.headers("vic")).json()["warnings"]
    assert len(told) == 2
    assert all("…/metrics.parquet" in one and str(fresh.workspace.path) not in one for one in told), told


@pytest.mark.parametrize("wish", [{"x": "hours"}, {"from": "a"}, {"metric": ""}, {"extra": 1}])
def test_a_wish_of_another_form_is_refused(world: World, wish: dict[str, Any]) -> None:
    body = {"series": [{"run": world.runs["first"], "metric": "loss"} | wish]}
    assert world.client.post("/api/series", json=body, headers=world.headers("vic")).status_code == 400


def test_no_spike_is_lost_at_any_zoom(tmp_path: Path) -> None:
    values = np.sin(np.arange(1_000_000) / 1_000)
    values[654_321], values[222_222], values[333_333] = 50.0, np.nan, -np.inf
    path = logged(tmp_path, values)
    for low, high in ((None, None), (600_000, 700_000), (654_000, 655_000), (654_300, 654_340), (0, 999_999)):
        chart = Chart(path, "y", low=low, high=high, buckets=300)
        head = chart.poll()
        top = chart.arrays["y"] if head["level"] == "raw" else chart.arrays["max"]
        assert np.nanmax(top) == 50.0
        assert (head["nan"], head["inf"]) == (1, 1)
        if head["level"] == "band" and low in (None, 0):
            assert chart.arrays["nan"].sum() == 1
            assert chart.arrays["inf"].sum() == 1
            assert chart.arrays["n"].sum() == 999_998
            assert 300 <= head["shown"] <= 601
    assert head["x_range"] == [0.0, 999_999.0]


def test_close_by_the_points_are_those_that_were_logged(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    chart = Chart(logged(tmp_path, values), "y", low=500.0, high=600.0)
    assert chart.poll()["level"] == "raw"
    assert_array_equal(chart.arrays["x"], np.arange(499.0, 602.0))  # with a neighbour on each side
    assert_array_equal(chart.arrays["y"], values[499:602])


@pytest.mark.parametrize("smoothing", [Smoothing("ema", 0.9), Smoothing("mean", 51), Smoothing("gauss", 10.0)])
def test_a_smoothed_value_is_the_same_at_every_zoom(tmp_path: Path, smoothing: Smoothing) -> None:
    values = np.random.default_rng(0).standard_normal(50_000)
    path = logged(tmp_path, values)
    whole = Chart(path, "y", buckets=100, smoothing=smoothing)
    whole.poll()
    known = dict(zip(whole.arrays["x"].tolist(), whole.arrays["smooth"].tolist(), strict=True))
    for low, high in ((10_000, 40_000), (20_000, 20_400)):
        chart = Chart(path, "y", low=low, high=high, buckets=100, smoothing=smoothing)
        chart.poll()
        shared = [x for x in chart.arrays["x"].tolist() if x in known]
        at = dict(zip(chart.arrays["x"].tolist(), chart.arrays["smooth"].tolist(), strict=True))
        assert shared or high - low < 1_000
        for x in shared:
            assert at[x] == pytest.approx(known[x], rel=1e-9)
    if smoothing.kind == "ema":
        wanted = ema(np.arange(50_000), values, 0.9, 1.0)
        assert_allclose(whole.arrays["smooth"], wanted[whole.arrays["x"].astype(int)], rtol=1e-9)


@pytest.mark.parametrize("smoothing", [Smoothing(), Smoothing("ema", 0.6), Smoothing("mean", 9)])
@pytest.mark.parametrize("buckets", [10_000, 20])
def test_a_living_run_sends_only_what_is_new(tmp_path: Path, buckets: int, smoothing: Smoothing) -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal(3_000)
    with runstone.start_run(workspace=tmp_path / ".runstone", environment=False) as run:
        run.log_series("y", np.arange(500), values[:500])
        chart = Chart(run.path, "y", buckets=buckets, smoothing=smoothing)
        assert chart.poll()["base"] == 0
        few = 0
        for step in range(500, 900, 7):
            run.log_series("y", np.arange(step, step + 7), values[step : step + 7])
            head = chart.poll()
            few += head["base"] > 0
            assert chart.poll()["unchanged"]
            assert chart.sent == 0
            whole = Chart(run.path, "y", buckets=buckets, smoothing=smoothing)
            whole.poll()
            assert whole.head["shown"] == chart.head["shown"] == len(chart.arrays["x"])
            for name, array in whole.arrays.items():
                assert_allclose(chart.arrays[name], array, rtol=1e-9, atol=1e-9, err_msg=name)
        assert few > 50
        run.log({"other": 1.0})
        run.set_tags({"a": "b"})
        assert chart.poll()["unchanged"]


def test_the_last_point_logged_is_there(tmp_path: Path) -> None:
    with runstone.start_run(workspace=tmp_path / ".runstone", environment=False) as run:
        for step in range(30):
            run.log({"y": step / 7}, step=step)
            chart = Chart(run.path, "y")
            chart.poll()
            assert chart.arrays["y"][-1] == step / 7


def test_attempts_are_drawn_one_after_the_other(tmp_path: Path) -> None:
    with runstone.start_run(workspace=tmp_path / ".runstone", environment=False) as run:
        run.log_series("y", np.arange(100), np.zeros(100))
    with runstone.start_run(run_id=run.id, workspace=tmp_path / ".runstone", environment=False) as again:
        again.log_series("y", np.arange(60, 150), np.ones(90))
    chart = Chart(run.path, "y")
    head = chart.poll()
    assert head["attempts"] == [{"attempt": 1, "from_index": 0}, {"attempt": 2, "from_index": 60}]
    assert_array_equal(chart.arrays["x"], np.arange(150))
    assert chart.arrays["y"].sum() == 90
    band = Chart(run.path, "y", buckets=20)
    places = {one["attempt"]: one["from_index"] for one in band.poll()["attempts"]}
    assert band.arrays["x"][places[2]] >= 60
    process = Chart(run.path, "y", x="process")
    process.poll()
    assert (np.diff(process.arrays["x"]) >= 0).all()


def test_steps_that_go_back_are_drawn_in_the_order_of_the_log(tmp_path: Path) -> None:
    steps = np.concatenate([np.arange(50), np.arange(50)])
    chart = Chart(logged(tmp_path, np.arange(100.0), steps), "y")
    assert not chart.poll()["is_ordered"]
    assert_array_equal(chart.arrays["y"], np.arange(100.0))
    band = Chart(chart.path, "y", buckets=10)
    band.poll()
    assert band.arrays["n"].sum() == 100


def test_points_lie_along_time_or_another_metric(tmp_path: Path) -> None:
    with runstone.start_run(workspace=tmp_path / ".runstone", environment=False) as run:
        run.log({"y": 1.0}, step=0)
        for step in range(1, 30):
            run.log({"y": step / 2}, step=step)
            if step % 10 == 0:
                run.log({"epoch": step // 10}, step=step)
    series = run.read().series("y")
    for kind, wanted in (("time", series.wall_s), ("relative", series.wall_s - run.read().started_at.timestamp())):
        chart = Chart(run.path, "y", x=kind)
        chart.poll()
        assert_allclose(chart.arrays["x"], wanted, atol=2e-3)
    chart = Chart(run.path, "y", x="metric:epoch")
    assert chart.poll()["without_x"] == 10
    assert_array_equal(chart.arrays["x"], np.repeat([1.0, 2.0], 10))
    assert_array_equal(chart.arrays["y"], np.arange(10, 30) / 2)


def test_two_charts_of_one_run_draw_the_same_whatever_else_is_asked_for(world: World) -> None:
    one = {"run": world.runs["first"], "metric": "loss"}
    other = {"run": world.runs["second"], "metric": "epoch"}
    ask = lambda *series: unpacked(  # noqa: E731
        world.client.post(
            "/api/series", json={"series": list(series), "buckets": 10}, headers=world.headers("vic")
        ).content
    )
    [alone], [_other, beside] = ask(one), ask(other, one)
    assert alone["arrays"].keys() == beside["arrays"].keys()
    for name in alone["arrays"]:
        assert_array_equal(alone["arrays"][name], beside["arrays"][name])


def test_small_differences_of_large_numbers_are_kept(tmp_path: Path) -> None:
    values = 1e9 + np.arange(5_000) / 1_000
    chart = Chart(logged(tmp_path, values), "y", buckets=50)
    chart.poll()
    assert chart.arrays["max"].dtype == np.float64
    assert chart.arrays["max"][-1] == values[-1]


def test_what_is_kept_at_hand_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runstone.server import curves as module

    monkeypatch.setattr(module, "MOST_RUNS", 3)
    curves = Curves()
    paths = [logged(tmp_path, np.zeros(3)) for _ in range(5)]
    runs = [curves.open(path) for path in paths]
    assert curves.open(paths[4]) is runs[4]
    assert curves.open(paths[0]) is not runs[0]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A long series, sealed: its run, steps and values."""
    rng = np.random.default_rng(7)
    steps = np.cumsum(rng.integers(1, 4, 2_000_003))
    values = np.cumsum(rng.standard_normal(len(steps)))
    values[1_234_567], values[5_000], values[6_000] = 1e6, np.nan, np.inf
    path = logged(tmp_path_factory.mktemp("sealed"), values, steps)
    runstone.open_workspace(path.parents[2]).seal(path.name)
    return path, steps, values


@pytest.mark.parametrize("x", ["step", "relative", "time"])
@pytest.mark.parametrize("part", [(0.0, 1.0), (0.2, 0.9), (0.6, 0.62), (0.61, 0.6101), (0.9999, 1.5), (-1.0, 2.0)])
def test_a_long_sealed_series_is_drawn_without_reading_all_of_it(
    sealed: tuple[Path, np.ndarray, np.ndarray], part: tuple[float, float], x: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.server import curves as module

    path, steps, values = sealed
    monkeypatch.setattr(module, "_curve_of", lambda *_: pytest.fail("all points were read"))
    probe = Chart(path, "y", x=x)
    span = probe.poll()["x_range"]
    if x == "step":
        assert span == [float(steps[0]), float(steps[-1])]
    low, high = (span[0] + share * (span[1] - span[0]) for share in part)
    chart = Chart(path, "y", low=low, high=high, buckets=50, x=x)
    head = chart.poll()
    assert (head["points"], head["nan"], head["inf"]) == (len(values), 1, 1)
    assert chart.poll()["unchanged"]
    if x != "step":
        return
    rows = np.flatnonzero((steps >= low) & (steps <= high))
    first, after = max(0, rows[0] - 1), min(len(steps), rows[-1] + 2)
    if head["level"] == "raw":
        assert_array_equal(chart.arrays["y"], values[first:after])
        return
    ends = np.searchsorted(steps, chart.arrays["x"].astype(np.int64))
    assert ends[-1] >= after - 1
    counted = chart.arrays["n"].sum() + sum(chart.arrays[name].sum() for name in ("nan", "inf") if name in chart.arrays)
    begin = ends[-1] + 1 - int(counted)
    assert begin <= first <= begin + 128  # whole blocks, from the one before
    for place in range(len(ends)):
        bucket = values[begin if place == 0 else ends[place - 1] + 1 : ends[place] + 1]
        finite = bucket[np.isfinite(bucket)]
        assert chart.arrays["n"][place] == len(finite)
        assert chart.arrays["max"][place] == np.float32(finite.max())
        assert chart.arrays["mean"][place] == pytest.approx(finite.mean(), rel=1e-5)
    assert 50 <= head["shown"] <= 103


def test_damaged_blocks_are_done_without(sealed: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "runs" / "p" / sealed[0].name
    shutil.copytree(sealed[0], path)
    with_blocks = Chart(path, "y", buckets=50)
    with_blocks.poll()
    (path / "blocks.parquet").write_bytes(b"damaged")
    without = Chart(path, "y", buckets=50)
    without.poll()
    assert without.head["level"] == "band"
    assert without.arrays["n"].sum() == with_blocks.arrays["n"].sum()
    assert np.nanmax(without.arrays["max"]) == np.nanmax(with_blocks.arrays["max"]) == 1e6


def test_what_many_living_series_say_again_and_again_is_packed(world: World) -> None:
    wanted = [{"run": world.runs["first"], "metric": "loss"}] * 200
    [whole, *_rest] = unpacked(
        world.client.post("/api/series", json={"series": wanted}, headers=world.headers("vic")).content
    )
    body = {"series": [{**one, "have": whole["token"]} for one in wanted]}
    for accepted, is_packed in (("gzip, br", True), ("identity", False)):
        headers = {"Accept-Encoding": accepted, **world.headers("vic")}
        answer = world.client.post("/api/series", json=body, headers=headers)
        assert (answer.headers.get("Content-Encoding") == "gzip") is is_packed
        assert len(unpacked(answer.content)) == 200
        if is_packed:
            assert int(answer.headers["Content-Length"]) < 10_000
