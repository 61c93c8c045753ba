"""Smoothed lines, against the definition written down point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from runstone.errors import InvalidValue
from runstone.server.smoothing import Carry, Smoothing, ema, gaussian, running_mean, usual_spacing


def by_definition(x: list[float], y: list[float], amount: float, spacing: float) -> list[float]:
    """Return the mean in which each finite point before counts by its distance."""
    out = []
    for i in range(len(x)):
        weights = [amount ** ((x[i] - x[j]) / spacing) for j in range(i + 1) if math.isfinite(y[j])]
        values = [y[j] for j in range(i + 1) if math.isfinite(y[j])]
        total = sum(weights)
        out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / total if total > 0 else math.nan)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40),
    st.floats(0.05, 0.99),
    st.data(),
)
def test_ema_is_the_mean_by_distance(gaps: list[float], amount: float, data: st.DataObject) -> None:
    x = np.cumsum(gaps)
    value = st.floats(-100, 100) | st.sampled_from([math.nan, math.inf])
    y = data.draw(st.lists(value, min_size=len(gaps), max_size=len(gaps)))
    found = ema(x, np.array(y), amount, 1.0)
    assert_allclose(found, by_definition(x.tolist(), y, amount, 1.0), rtol=1e-6, atol=1e-6)


def test_a_long_series_is_smoothed_like_a_short_one() -> None:
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.integers(1, 4, 5_000)).astype(np.int64)
    y = rng.standard_normal(5_000)
    y[::97] = np.nan
    amount, spacing = 0.97, usual_spacing(x)
    total = weight = 0.0
    wanted = []
    for row in range(len(x)):
        factor = amount ** ((x[row] - x[max(0, row - 1)]) / spacing)
        total, weight = total * factor, weight * factor
        if np.isfinite(y[row]):
            total, weight = total + y[row], weight + 1.0
        wanted.append(total / weight if weight else np.nan)
    assert_allclose(ema(x, y, amount, spacing), wanted, rtol=1e-9, atol=1e-12)


def test_a_factor_of_nearly_nothing_overflows_nowhere() -> None:
    x = np.arange(10_000) * 1e6
    y = np.random.default_rng(2).standard_normal(10_000)
    assert_array_equal(ema(x, y, 0.5, 1.0), y)


def test_points_that_come_later_go_on_where_the_others_left_off() -> None:
    x = np.arange(1_000)
    y = np.random.default_rng(3).standard_normal(1_000)
    whole = ema(x, y, 0.9, 1.0)
    carry = Carry()
    parts = [
        ema(x[low:high], y[low:high], 0.9, 1.0, carry) for low, high in ((0, 1), (1, 400), (400, 400), (400, 1_000))
    ]
    assert_allclose(np.concatenate(parts), whole, rtol=1e-9, atol=1e-12)


def test_a_running_mean_is_that_of_the_points_around() -> None:
    y = np.array([1.0, 2.0, np.nan, 4.0, np.inf, 6.0])
    assert_allclose(running_mean(y, 3), [1.5, 1.5, 3.0, 4.0, 5.0, 6.0])
    assert np.isnan(running_mean(np.full(3, np.nan), 3)).all()


@pytest.mark.parametrize("count", [1, 50, 2_000, 150_000])
@pytest.mark.parametrize("sigma", [0.5, 5.0, 40.0])
def test_gauss_is_the_weighted_mean(count: int, sigma: float) -> None:
    y = np.random.default_rng(4).standard_normal(count) + 100
    y[count // 3] = np.nan if count > 1 else 5.0
    found = gaussian(y, sigma)
    for row in {0, count // 3, count // 2, count - 1}:
        radius = math.ceil(4 * sigma)
        rows = np.arange(max(0, row - radius), min(count, row + radius + 1))
        rows = rows[np.isfinite(y[rows])]
        weights = np.exp(-0.5 * ((rows - row) / sigma) ** 2)
        assert found[row] == pytest.approx((weights * y[rows]).sum() / weights.sum(), rel=1e-7)


def test_an_amount_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidValue):
        Smoothing("ema", 1.0)
    with pytest.raises(InvalidValue):
        Smoothing("gauss", -1.0)
    assert Smoothing("ema", 0.0).is_none
