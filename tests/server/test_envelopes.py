"""Buckets of a chart: each point is in one, and no spike, NaN or Inf is lost."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from runstone.server.envelopes import (
    BLOCK,
    Envelope,
    are_long,
    at_blocks,
    blocks_of,
    counted_starts,
    envelope,
    grid_width,
    ordered_starts,
)

VALUES = st.floats(-1e12, 1e12) | st.sampled_from([np.nan, np.inf, -np.inf])


def plainly(value: NDArray[np.float64], starts: NDArray[np.int64], after: int) -> list[tuple[float, ...]]:
    """Return the envelope bucket by bucket, as one would write it down."""
    rows = []
    for low, high in zip(starts, [*starts[1:], after], strict=True):
        part = value[low:high]
        finite = part[np.isfinite(part)]
        figures = (finite.min(), finite.max(), finite.mean()) if len(finite) else (math.nan,) * 3
        rows.append((high - 1, *figures, part[-1], len(finite), np.isnan(part).sum(), np.isinf(part).sum()))
    return rows


def assert_is(found: Envelope, wanted: list[tuple[float, ...]]) -> None:
    columns = (found.ends, found.low, found.high, found.mean, found.last, found.count, found.nan, found.inf)
    for place, (column, expected) in enumerate(zip(columns, zip(*wanted, strict=True), strict=True)):
        if place == 3:
            assert_allclose(column, np.array(expected, float), rtol=1e-9, atol=1e-3)
        else:
            assert_array_equal(column, np.array(expected))


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.integers(1, 60), elements=VALUES), st.data())
def test_an_envelope_is_what_each_bucket_holds(value: NDArray[np.float64], data: st.DataObject) -> None:
    count = len(value)
    first = data.draw(st.integers(0, count - 1))
    after = data.draw(st.integers(first + 1, count))
    starts = np.array(sorted({first, *data.draw(st.lists(st.integers(first, after - 1), max_size=8))}))
    assert_is(envelope(value, starts, after), plainly(value, starts, after))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=300).map(sorted),
    st.integers(1, 40),
    st.data(),
)
def test_each_point_is_in_the_bucket_of_the_grid_that_holds_it(
    steps: list[int], buckets: int, data: st.DataObject
) -> None:
    x = np.array(steps)
    first = data.draw(st.integers(0, len(x) - 1))
    after = data.draw(st.integers(first + 1, len(x)))
    width = grid_width(float(x[first]), float(x[after - 1]), buckets)
    starts = ordered_starts(x, first, after, width)
    assert starts[0] == first
    cells = [math.floor(place / width) for place in x[first:after]]
    wanted = [first + row for row in range(after - first) if row == 0 or cells[row] != cells[row - 1]]
    assert starts.tolist() == wanted
    if x[after - 1] > x[first]:
        assert buckets <= (x[after - 1] - x[first]) / width < 2 * buckets or buckets == 1


def test_buckets_stay_where_they_are_while_a_series_grows() -> None:
    x = np.arange(10_000)
    value = np.sin(x / 50)
    width = grid_width(0, 9_000, 500)
    before = ordered_starts(x, 0, 9_001, width)
    now = ordered_starts(x, 0, 9_500, width)
    assert grid_width(0, 9_499, 500) == width
    assert_array_equal(now[: len(before)], before)
    old, new = envelope(value, before, 9_001), envelope(value, now, 9_500)
    assert_array_equal(new.high[: len(before) - 1], old.high[:-1])


@pytest.mark.parametrize("first", [0, 1, 63, 64, 100])
@pytest.mark.parametrize("rest", [0, 1, 63])
def test_blocks_give_the_same_as_the_points(first: int, rest: int) -> None:
    rng = np.random.default_rng(0)
    count = (1 << 18) + rest
    value = rng.standard_normal(count)
    value[rng.integers(0, count, 50)] = np.nan
    value[rng.integers(0, count, 50)] = np.inf
    blocks = blocks_of(value)
    assert blocks is not None
    after = count - first
    starts = at_blocks(np.arange(first, after, 5_000), after)
    assert are_long(starts, after)
    assert (starts[1:] % BLOCK == 0).all()
    by_blocks, by_points = envelope(value, starts, after, blocks), envelope(value, starts, after)
    for name in ("ends", "low", "high", "last", "count", "nan", "inf"):
        assert_array_equal(getattr(by_blocks, name), getattr(by_points, name))
    assert_allclose(by_blocks.mean, by_points.mean, rtol=1e-9, atol=1e-12)


def test_places_that_go_back_are_cut_by_count_and_by_attempt() -> None:
    starts = counted_starts(3, 100, 10, np.array([0, 50]))
    assert starts[0] == 3
    assert 50 in starts
    assert np.diff(starts).max() <= 16


def test_numbers_too_large_to_be_added_are_numbers_still() -> None:
    value = np.array([1e308, 1e308, 1.0])
    found = envelope(value, np.array([0, 2]), 3)
    assert found.count.tolist() == [2, 1]
    assert found.inf.tolist() == [0, 0]
    assert found.high.tolist() == [1e308, 1.0]


def test_ten_million_points_cost_little_once_they_are_at_hand() -> None:
    x = np.arange(10_000_000)
    value = np.sin(x / 1e5)
    value[3_333_333], value[5_000_000] = 1e6, np.nan
    blocks = blocks_of(value)
    starts = at_blocks(ordered_starts(x, 0, len(x), grid_width(0, 1e7, 700)), len(x))
    spent = time.thread_time()
    found = envelope(value, starts, len(x), blocks)
    assert time.thread_time() - spent < 0.1
    assert found.high.max() == 1e6
    assert found.nan.sum() == 1
    assert found.count.sum() == 9_999_999
