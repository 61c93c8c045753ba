"""Intervals, tests and effect sizes are those of SciPy, on values whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from runstone.statistics import bca_interval, correct, difference, gain_bound, summarize
from runstone.statistics.gaps import permutation_p
from runstone.statistics.student import shift_for, shifted_share

stats = pytest.importorskip("scipy.stats")
Array = NDArray[np.float64]


def samples(seed: int) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(2, 25, 2)
    return draw.normal(1.0, 1.0, sizes[0]), draw.normal(0.0, draw.uniform(0.1, 3.0), sizes[1])


@pytest.mark.parametrize("seed", range(20))
def test_two_groups_differ_as_welch_says(seed: int) -> None:
    one, other = samples(seed)
    ours, theirs = difference(one, other), stats.ttest_ind(one, other, equal_var=False)
    bounds = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.freedom == pytest.approx(theirs.df, rel=1e-9)
    assert ours.effect == pytest.approx(one.mean() - other.mean())
    assert ours.interval is not None
    assert (ours.interval.low, ours.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)
    assert ours.higher == pytest.approx(stats.mannwhitneyu(one, other).statistic / len(one) / len(other))


@pytest.mark.parametrize("seed", range(10))
def test_partners_differ_as_the_paired_test_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one = draw.normal(0, 1, int(draw.integers(2, 20)))
    other = one + draw.normal(0.2, 0.3, len(one))
    ours, theirs = difference(one, other, is_paired=True), stats.ttest_rel(one, other)
    bounds = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.interval is not None
    assert (ours.interval.low, ours.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)
    assert ours.higher == pytest.approx((one > other).mean())


def studentized(one: Array, other: Array, axis: int = -1) -> Array:
    error = one.var(axis=axis, ddof=1) / one.shape[axis] + other.var(axis=axis, ddof=1) / other.shape[axis]
    return np.asarray((one.mean(axis=axis) - other.mean(axis=axis)) / np.sqrt(error))


def test_the_permutation_test_tries_every_arrangement() -> None:
    draw = np.random.default_rng(5)
    for _ in range(5):
        one, other = draw.normal(0.8, 1, 6), draw.normal(0, 2, 5)
        # Of |t|, as the law of t is not symmetric where groups are not of one size.
        theirs = stats.permutation_test(
            (one, other), lambda a, b, axis: np.abs(studentized(a, b, axis)), vectorized=True, alternative="greater"
        )
        assert permutation_p(one, other, is_paired=False) == pytest.approx(theirs.pvalue)
        pairs = stats.permutation_test(
            (one[:5] - other,),
            lambda gaps, axis: np.abs(gaps.mean(axis=axis) / gaps.std(axis=axis, ddof=1)),
            permutation_type="samples",
            vectorized=True,
            alternative="greater",
        )
        assert permutation_p(one[:5], other, is_paired=True) == pytest.approx(pairs.pvalue)


def test_of_many_arrangements_a_part_is_drawn() -> None:
    draw = np.random.default_rng(8)
    one, other = draw.normal(0.5, 1, 30), draw.normal(0, 1, 30)
    expected = stats.ttest_ind(one, other, equal_var=False).pvalue
    assert permutation_p(one, other, is_paired=False) == pytest.approx(expected, abs=0.02)
    assert permutation_p(one, other, is_paired=False) == permutation_p(one, other, is_paired=False)
    assert permutation_p(one + 100, other, is_paired=False) == pytest.approx(1 / 10_000)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_the_mean_of_few_values_has_students_interval(count: int) -> None:
    values = np.random.default_rng(count).normal(3, 2, count)
    interval = summarize(values).interval
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert interval is not None
    assert interval.method == "t"
    assert (interval.low, interval.high) == pytest.approx(expected)


@pytest.mark.parametrize("count", [10, 40, 200])
def test_the_mean_of_many_values_has_the_bootstraps_interval(count: int) -> None:
    values = np.random.default_rng(count).exponential(1.0, count)
    ours = bca_interval(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9_999, method="BCa", rng=7).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)
    told = summarize(values).interval
    assert told is not None
    assert (told.method, told) == ("bca", bca_interval(values, is_expanded=True))
    assert told.low < ours.low < ours.high < told.high


def test_p_values_are_corrected_as_published() -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        p_values = draw.random(int(draw.integers(1, 12))) ** 3
        assert correct(p_values.tolist(), "bh") == pytest.approx(stats.false_discovery_control(p_values))
    assert correct([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct([0.01, 0.04], "none") == [0.01, 0.04]
    assert correct([0.01, 0.02], "holm", comparisons=10) == pytest.approx([0.1, 0.18])
    assert correct([], "holm") == []


def test_the_size_of_an_effect_is_hedges_g() -> None:
    draw = np.random.default_rng(2)
    one, other = draw.normal(1, 1, 12), draw.normal(0, 1, 12)
    size = difference(one, other).size
    pooled = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    freedom = difference(one, other).freedom
    assert size is not None
    assert size.value == pytest.approx((one.mean() - other.mean()) / pooled * (1 - 3 / (4 * freedom - 1)))
    assert size.low is not None
    assert size.high is not None
    assert size.low < size.value < size.high


def test_bounds_of_an_effect_size_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(11)
    held = 0
    for _ in range(300):
        size = difference(draw.normal(0.7, 1, 8), draw.normal(0, 1, 8)).size
        assert size is not None
        assert size.low is not None
        assert size.high is not None
        held += size.low <= 0.7 <= size.high
    assert 0.92 <= held / 300 <= 0.985


@pytest.mark.parametrize("t", [-3.0, 0.0, 2.2, 30.0])
@pytest.mark.parametrize("freedom", [1.0, 6.4, 200.0])
def test_shifts_of_students_distribution_are_found(t: float, freedom: float) -> None:
    for share in (0.025, 0.5, 0.975):
        assert shifted_share(t, freedom, shift_for(t, freedom, share)) == pytest.approx(share, abs=1e-6)


def test_a_bound_of_the_gain_is_one_sided() -> None:
    ours, theirs = [0.91, 0.93, 0.92, 0.95], [0.9, 0.88, 0.91]
    bound = stats.ttest_ind(ours, theirs, equal_var=False, alternative="greater").confidence_interval(0.95).low
    assert gain_bound(ours, theirs, 0.95) == pytest.approx(bound)
    assert gain_bound([0.5, 0.5], [0.25, 0.25], 0.95) == 0.25
    assert gain_bound(ours, theirs, 0.5) == pytest.approx(sum(ours) / len(ours) - sum(theirs) / len(theirs))
