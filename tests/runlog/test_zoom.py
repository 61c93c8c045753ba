"""Fewer points for plots: exact extremes in any stretch, sealed or not, whatever the steps and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runstone
from runstone.runlog import zoom as zooming
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.thin import equal_counts, equal_ranges, thin
from runstone.runlog.zoom import zoom

finite_or_not = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([np.nan, np.inf, -np.inf]))


@given(st.lists(finite_or_not, min_size=1, max_size=300), st.integers(1, 40))
def test_each_bucket_keeps_its_first_last_lowest_and_highest(values: list[float], buckets: int) -> None:
    value = np.array(values)
    starts = equal_counts(len(value), buckets)
    kept = thin(value, starts)
    assert np.array_equal(kept, np.unique(kept))
    for low, high in zip(starts, [*starts[1:], len(value)], strict=True):
        inside = value[low:high]
        chosen = value[kept[(kept >= low) & (kept < high)]]
        assert {low, high - 1} <= set(kept.tolist())
        numbers, left = inside[np.isfinite(inside)], chosen[np.isfinite(chosen)]
        if len(numbers):
            assert (numbers.min(), numbers.max()) == (left.min(), left.max())
        for test in (np.isnan, np.isposinf, np.isneginf):
            assert test(inside).any() == test(chosen).any()


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=200), st.integers(1, 50))
def test_equal_ranges_begin_at_the_first_point_and_leave_empty_ones_out(steps: list[int], buckets: int) -> None:
    step = np.sort(np.array(steps, np.int64))
    starts = equal_ranges(step, buckets)
    assert starts[0] == 0
    assert len(starts) <= buckets + 1
    assert (np.diff(starts) > 0).all()
    assert starts[-1] < len(step)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run of 400,000 points of which every other step exists, with spikes and gaps of NaN."""
    home = tmp_path_factory.mktemp("long") / ".runstone"
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.standard_normal(400_000))
    values[[5, 123_456, 399_998]] = 1e6, -1e6, 1e7
    values[200_000:200_050] = np.nan
    with runstone.start_run(workspace=home, environment=False) as run:
        handle = run.metric("loss")
        for index, value in enumerate(values.tolist()):
            handle(value, step=2 * index)
    return run.path, values


RANGES = [(None, None), (0, 799_998), (3, 700_001), (246_000, 248_000), (100_000, 500_000), (399_990, 400_200), (1, 1)]


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("buckets", [10, 500, 2000])
def test_any_stretch_shows_its_true_extremes(long_run: tuple[Path, np.ndarray], is_sealed: bool, buckets: int) -> None:
    folder, values = long_run
    if is_sealed:
        seal(folder)
        assert (folder / zooming.LEVELS).is_file()
    log = MetricLog(folder)
    assert log.is_sealed is is_sealed or not is_sealed
    for first, last in RANGES:
        low = 0 if first is None else -(-first // 2)
        high = len(values) if last is None else last // 2 + 1
        inside = values[low:high]
        found = zoom(log, "loss", buckets=buckets, first=first, last=last)
        assert len(found) <= 7 * (buckets + 1)
        if not len(inside):
            assert not len(found)
            continue
        assert (int(found.step[0]), int(found.step[-1])) == (2 * low, 2 * (high - 1))
        assert np.array_equal(values[found.step // 2], found.value, equal_nan=True)
        assert (np.diff(found.step) > 0).all()
        assert (np.nanmin(found.value), np.nanmax(found.value)) == (np.nanmin(inside), np.nanmax(inside))
        assert np.isnan(found.value).any() == np.isnan(inside).any()


def test_levels_that_are_lost_or_of_another_sealing_are_done_without(long_run: tuple[Path, np.ndarray]) -> None:
    folder, values = long_run
    seal(folder)
    levels = folder / zooming.LEVELS
    data = levels.read_bytes()
    for junk in (b"", b"PAR1junkPAR1", data[:-10]):
        levels.write_bytes(junk)
        found = zoom(MetricLog(folder), "loss", buckets=100)
        assert np.nanmax(found.value) == np.nanmax(values)
    levels.write_bytes(data)


def test_a_run_that_went_on_after_its_sealing_shows_the_new_points(home: Path) -> None:
    with runstone.start_run(workspace=home, run_id="r", environment=False) as run:
        handle = run.metric("x")
        for value in range(zooming.LEAST_POINTS):
            handle(float(value))
    seal(run.path)
    with runstone.start_run(workspace=home, run_id="r", environment=False) as run:
        run.log({"x": 1e9}, step=zooming.LEAST_POINTS)
    assert runstone.RunInfo(run.path).zoom("x", buckets=50).value[-1] == 1e9


def test_steps_that_go_back_are_cut_by_count(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        for step in [*range(500), *range(500)]:
            run.log({"x": float(step)}, step=step)
    info = run.read()
    assert len(info.zoom("x", buckets=10)) <= 40
    assert info.zoom("x", buckets=10, first_step=490, last_step=600).step.tolist() == [*range(490, 500)] * 2


def test_bad_requests_are_told(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log({"loss": 1.0})
    with pytest.raises(runstone.InvalidValue, match="0"):
        run.read().zoom("loss", buckets=0)
    with pytest.raises(runstone.MetricNotFound, match="'loss'"):
        run.read().zoom("los")


def same(one: runstone.Series, other: runstone.Series) -> bool:
    columns = ("step", "value", "wall_s")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in columns)


@pytest.mark.parametrize("kind", ["float", "int"])
def test_a_metric_too_long_for_memory_shows_the_same(home: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.standard_normal(50_000))
    values[rng.integers(0, 50_000, 30)] = np.nan
    steps = np.cumsum(rng.integers(0, 4, 50_000))
    with runstone.start_run(workspace=home, environment=False) as run:
        for part in np.array_split(np.arange(50_000), 7):
            run.log_series("x", steps[part], values[part] if kind == "float" else part * 3 % 1000)
            run.log({"y": 1.0})
    ranges = [(None, None), (0, 10**9), (100, 90_000), (50_000, 50_100), (10**9, None), (None, -1), (7, 7)]
    asked = [(buckets, first, last) for buckets in (3, 100, 2000) for first, last in ranges]
    log = MetricLog(run.path)
    held = [zoom(log, "x", buckets=buckets, first=first, last=last) for buckets, first, last in asked]
    monkeypatch.setattr(zooming, "LONG_POINTS", 1000)
    monkeypatch.setattr(zooming, "_PIECE_ROWS", 3001)
    log = MetricLog(run.path)
    for (buckets, first, last), expected in zip(asked, held, strict=True):
        assert same(zoom(log, "x", buckets=buckets, first=first, last=last), expected)
    assert not log._curves  # none was put together in memory


def test_a_long_metric_whose_steps_go_back_is_shown_all_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zooming, "LONG_POINTS", 1000)
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_series("x", np.arange(5000)[::-1], np.arange(5000.0))
    found = zoom(MetricLog(run.path), "x", buckets=10)
    assert (found.step[0], found.value[-1], len(found) <= 40) == (4999, 4999.0, True)


def test_levels_made_in_pieces_are_those_of_the_whole(home: Path) -> None:
    """A coarse level is made of a finer one, piece by piece; each must keep what `thin` keeps of all points."""
    count = zooming.LEAST_POINTS * 2 + 1234
    values = np.random.default_rng(0).standard_normal(count)
    values[[7, 5000, 5001, 140_000]] = np.nan, np.inf, -np.inf, np.nan
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_series("x", np.arange(count), values)
    seal(run.path)
    sealed = MetricLog(run.path).sealed
    assert sealed is not None
    for bucket, table in zip(zooming.BUCKETS, zooming._levels_of(sealed, "x"), strict=True):
        rows = thin(values, np.arange(0, count, bucket))
        assert np.array_equal(table["row"].to_numpy(), rows)
        assert np.array_equal(table["value"].to_numpy(), values[rows], equal_nan=True)
        assert np.array_equal(table["step"].to_numpy(), rows)
