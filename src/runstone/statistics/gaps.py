"""How two groups of values differ: by how much, within which bounds, how likely by chance. Knows no goal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runstone.statistics.sample import Interval, checked
from runstone.statistics.student import shift_for, t_quantile, t_tails

Test = Literal["t", "permutation"]
TESTS: tuple[Test, ...] = ("t", "permutation")
_MOST_EXACT = 20_000
_DRAWS = 9_999
_SEED = 20_262


@dataclass(frozen=True, slots=True)
class EffectSize:
    """A difference in standard deviations (Hedges' g): 0.2 is small, 0.8 large; bounds are `None` beyond doubt."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How the first of two groups differs from the second.

    Attributes:
        effect: Mean of the first less mean of the second.
        interval: Of the effect; `None` where a group has one value.
        p: How likely a difference as large as this is if there is none, two-sided; `None` where a group has one value.
        size: The effect in standard deviations; `None` where there is no spread or no interval.
        higher: Share of the pairs of values (partners, where paired) in which the first is higher; ties count half.
        count, other_count: How many values, of partners where paired.
        is_paired: Whether values were compared partner by partner.
        test: `t`: Welch's, or the paired one; `permutation`.
        spread: Standard error of the effect, 0 where nothing varies.
        freedom: Degrees of freedom.
    """

    effect: float
    interval: Interval | None
    p: float | None
    size: EffectSize | None
    higher: float
    count: int
    other_count: int
    is_paired: bool
    test: Test
    spread: float
    freedom: float


def difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    is_paired: bool = False,
    confidence: float = 0.95,
    test: Test = "t",
) -> Difference:
    """Return how two groups of values differ.

    The variances need not be equal. Where no value varies inside its group, so that there is no spread to compare the
    difference with, p is that of the permutation test.

    Args:
        first, second: Finite values; where paired, partners stand at the same place.
        is_paired: Whether values have partners, such as runs with the same seed.
        confidence: Of the intervals.
        test: What p comes from. `t` takes means as normal; `permutation` takes nothing, and with few values cannot be
            low: of 3 and 3 values it is 0.1 at least.

    Raises:
        ValueError: a group is empty, a value is not finite, or partners are missing.
        InvalidConfig: SciPy is not installed.

    Source: Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947.
    Source: Hedges, "Distribution Theory for Glass's Estimator of Effect Size", J. Educ. Stat. 6(2), 1981.
    Source: Janssen, "Studentized permutation tests for non-i.i.d. hypotheses", Stat. Probab. Lett. 36(1), 1997.
    """
    one, other = checked(first), checked(second)
    if is_paired and len(one) != len(other):
        raise ValueError(f"paired groups have {len(one)} and {len(other)} values; each takes a partner")
    effect = float((one - other).mean()) if is_paired else float(one.mean() - other.mean())
    if is_paired:
        higher = float((np.sign(one - other) + 1).mean() / 2)
    else:
        higher = float((np.sign(one[:, None] - other[None, :]) + 1).mean() / 2)
    if min(len(one), len(other)) < 2:
        return Difference(effect, None, None, None, higher, len(one), len(other), is_paired, test, math.nan, math.nan)
    spread, freedom = _spread(one, other, is_paired=is_paired)
    # What the rounding of equal values leaves is no spread.
    is_exact = spread <= 1e-14 * max(abs(float(one.mean())), abs(float(other.mean())))
    if is_exact:
        interval = Interval(effect, effect, confidence, "exact")
        p, size, spread = permutation_p(one, other, is_paired=is_paired), None, 0.0
    else:
        half = t_quantile((1 + confidence) / 2, freedom) * spread
        interval = Interval(effect - half, effect + half, confidence, "t")
        by_permutation = test == "permutation"
        p = permutation_p(one, other, is_paired=is_paired) if by_permutation else t_tails(effect / spread, freedom)
        size = _size(one, other, effect, spread, freedom, confidence)
    return Difference(
        effect, interval, p, size, higher, len(one), len(other), is_paired,
        "permutation" if is_exact else test, spread, freedom,
    )  # fmt: skip


def gain_bound(ours: Sequence[float], theirs: Sequence[float], confidence: float) -> float:
    """Return by how much the mean of `ours` exceeds that of `theirs` at least, one-sided.

    Args:
        ours, theirs: Two values or more each.
        confidence: From 0.5 to below 1.

    Raises:
        ValueError: a value is not finite, or a sample has fewer than two.
        InvalidConfig: SciPy is not installed.
    """
    found = difference(ours, theirs, confidence=2 * confidence - 1)
    if found.interval is None:
        raise ValueError("a bound takes two values of both samples")
    return found.interval.low


def permutation_p(
    one: NDArray[np.float64], other: NDArray[np.float64], *, is_paired: bool, draws: int = _DRAWS
) -> float:
    """Return how likely a difference (in standard errors) as large as this is if values may swap their groups.

    All arrangements are tried where there are at most 20,000, else `draws` of them, the same ones each time.
    """
    if is_paired:
        arranged = _signed(one - other, draws)
        means, errors = arranged.mean(axis=1), arranged.std(axis=1, ddof=1) / math.sqrt(len(one))
        effect, error = float((one - other).mean()), float((one - other).std(ddof=1)) / math.sqrt(len(one))
        is_complete = 2 ** len(one) <= _MOST_EXACT
    else:
        pool = np.concatenate([one, other])
        chosen = _chosen(len(one), len(pool), draws)
        left = pool[chosen]
        mask = np.ones((len(chosen), len(pool)), np.bool_)
        mask[np.arange(len(chosen))[:, None], chosen] = False
        right = np.broadcast_to(pool, mask.shape)[mask].reshape(len(chosen), len(other))
        means = left.mean(axis=1) - right.mean(axis=1)
        errors = np.sqrt(left.var(axis=1, ddof=1) / len(one) + right.var(axis=1, ddof=1) / len(other))
        effect = float(one.mean() - other.mean())
        error = math.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
        is_complete = math.comb(len(pool), len(one)) <= _MOST_EXACT
    seen, ours = _ratio(np.abs(means), errors), float(_ratio(np.array([abs(effect)]), np.array([error]))[0])
    as_large = int((seen >= ours * (1 - 1e-9)).sum())
    return as_large / len(seen) if is_complete else (as_large + 1) / (len(seen) + 1)


def _ratio(means: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means over their errors; a difference without any spread is beyond all others, and none is none."""
    scale = np.maximum(np.abs(means).max(initial=0.0), errors.max(initial=0.0)) * 1e-14
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(errors > scale, means / errors, np.where(means > scale, np.inf, 0.0))
    return np.asarray(found, dtype=np.float64)


def _signed(gaps: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    count = len(gaps)
    if 2**count <= _MOST_EXACT:
        signs = (np.arange(2**count)[:, None] >> np.arange(count)[None, :] & 1) * 2 - 1
    else:
        signs = np.random.default_rng(_SEED).integers(0, 2, (draws, count)) * 2 - 1
    return np.asarray(signs * gaps, dtype=np.float64)


def _chosen(size: int, total: int, draws: int) -> NDArray[np.intp]:
    if math.comb(total, size) <= _MOST_EXACT:
        return np.array(list(itertools.combinations(range(total), size)), dtype=np.intp)
    order = np.random.default_rng(_SEED).random((draws, total)).argsort(axis=1)
    return np.asarray(order[:, :size], dtype=np.intp)


def _spread(one: NDArray[np.float64], other: NDArray[np.float64], *, is_paired: bool) -> tuple[float, float]:
    """Return the standard error of the difference of means, and its degrees of freedom."""
    if is_paired:
        return float((one - other).std(ddof=1)) / math.sqrt(len(one)), float(len(one) - 1)
    return welch(float(one.var(ddof=1)), len(one), float(other.var(ddof=1)), len(other))


def welch(variance: float, count: int, other_variance: float, other_count: int) -> tuple[float, float]:
    """Return the standard error of the difference of two means, and its degrees of freedom."""
    left, right = variance / count, other_variance / other_count
    total = left + right
    if total == 0:
        return 0.0, float(count + other_count - 2)
    # Shares, as squares of tiny variances are 0.
    freedom = 1 / ((left / total) ** 2 / (count - 1) + (right / total) ** 2 / (other_count - 1))
    return math.sqrt(total), freedom


def _size(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    effect: float,
    spread: float,
    freedom: float,
    confidence: float,
) -> EffectSize | None:
    typical = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    if typical == 0:
        return None
    scale = spread / typical
    small_sample = 1 - 3 / (4 * freedom - 1) if freedom > 1 else 0.0
    t = effect / spread
    if abs(t) > 200:  # beyond any doubt; the noncentral distribution has no figures there
        return EffectSize(small_sample * effect / typical, None, None)
    low, high = (
        small_sample * scale * shift_for(t, freedom, share) for share in ((1 + confidence) / 2, (1 - confidence) / 2)
    )
    return EffectSize(small_sample * effect / typical, low, high)
