"""How far one column is from what it was, and how likely that is by chance. Takes profiles, reads no data.

Source: Kolmogorov-Smirnov with the correction of Stephens, "Use of the Kolmogorov-Smirnov, Cramér-von Mises and Related
Statistics Without Extensive Tables", J. R. Statist. Soc. B 32(1), 1970; Mann and Whitney, Ann. Math. Statist. 18, 1947;
Good, "The Population Frequencies of Species", Biometrika 40, 1953 (what was never seen); Yurdakul, "Statistical
Properties of Population Stability Index", 2018 (what it is by chance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.errors import InvalidConfig
from runstone.monitoring.profile import Column, Floats

DISCRETE_TEST = 20
"""Numbers of this many values or less are compared value by value."""
_BINS = 10
_MOST_TESTED = 40
_LEAST_EXPECTED = 5.0
_MOST_TIED = 0.8
_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Distance:
    """How the values of a column differ from what they were.

    Attributes:
        test: `ks` or `chi2`, whichever was asked beside the ranks.
        statistic: Its statistic: the largest distance of the distribution functions, or chi-squared.
        p: How likely a distance as large is by chance, for the test and the ranks together.
        psi: Population stability index over ten bins, or the categories.
        psi_chance: What it stays below in 95 of 100 batches of this size where nothing changed.
        js: Jensen-Shannon divergence to base 2: 0 (the same) to 1 (nothing in common).
        wasserstein: How far values moved on average, in standard deviations of the reference; `None` for categories.
        effect: 0 (the same) to 1 (nothing in common): the largest distance of the distribution functions or the shift
            of the ranks, for categories the share of rows that would have to be others.
    """

    test: str
    statistic: float
    p: float
    psi: float
    psi_chance: float
    js: float
    wasserstein: float | None
    effect: float


def scipy_stats() -> Any:
    """Return `scipy.stats`.

    Raises:
        InvalidConfig: SciPy is not installed.
    """
    try:
        from scipy import stats  # an extra
    except ImportError:
        raise InvalidConfig("monitoring takes SciPy: pip install 'runstone[monitoring]'") from None
    return stats


def distance(before: Column, after: Column) -> Distance | None:
    """Return how a column differs from what it was, by the values that are there; `None` where one has none.

    Args:
        before, after: The column in the reference and in the batch, of the same kind.
    """
    if not before.present or not after.present:
        return None
    if before.kind == "category":
        return _of_categories(before, after)
    if not before.values or not after.values:
        return None
    both = np.union1d(before.values, after.values)
    first, second = before.share_up_to(both), after.share_up_to(both)
    shares = _binned(before, after)
    gap = float(np.abs(first - second).max())
    ranks, p_ranks = _ranks(first, second, before.present, after.present)
    is_discrete = before.counts is not None and len(before.counts) <= DISCRETE_TEST and after.counts is not None
    if is_discrete:
        test = "chi2"
        statistic, p = _chi2(*_tables(before, after))
    else:
        test, statistic = "ks", gap
        p = _ks_p(gap, before.present, after.present)
    return Distance(
        test=test,
        statistic=statistic,
        p=min(1.0, 2 * min(p, p_ranks)),
        psi=_psi(*shares, before.present, after.present),
        psi_chance=_psi_chance(len(shares[0]), before.present, after.present),
        js=_js(*shares),
        wasserstein=_wasserstein(both, first, second, before.std),
        effect=max(gap, abs(2 * ranks - 1)),
    )


def unseen(before: Column, after: Column) -> dict[str, int]:
    """Return values of the batch that the reference does not have, and how often they occur; most frequent first."""
    if before.counts is None or after.counts is None or not before.present:
        return {}
    return {value: count for value, count in after.counts.items() if value not in before.counts}


def unseen_p(before: Column, after: Column, count: int) -> float:
    """Return how likely so many rows with unseen values are where nothing changed.

    How often a value turns up that never did is as likely as one that turned up once, by Good and Turing; that share is
    itself only known as well as so many rows of the reference tell it.
    """
    if before.singles >= before.present:  # each value there was a new one
        return 1.0
    seen_again = before.present - before.singles
    return float(scipy_stats().betabinom.sf(count - 1, after.present, before.singles + 1, seen_again))


def share_p(count: int, of: int, other_count: int, other_of: int) -> float:
    """Return how likely two shares as different as these are where both are the same in truth, two-sided."""
    table = [[count, of - count], [other_count, other_of - other_count]]
    if min(sum(row) for row in table) == 0 or min(count + other_count, of + other_of - count - other_count) == 0:
        return 1.0
    return _chi2(np.array(table[0], np.float64), np.array(table[1], np.float64))[1]


def smallest_gap(before: int, after: int, p: float) -> float:
    """Return the smallest distance of distribution functions that so many rows show with this p."""
    size = math.sqrt(before * after / (before + after))
    return min(1.0, float(scipy_stats().kstwobign.isf(p)) / (size + 0.12 + 0.11 / size))


# --- numbers --------------------------------------------------------------------------------------------------------


def _ks_p(gap: float, before: int, after: int) -> float:
    size = math.sqrt(before * after / (before + after))
    return float(scipy_stats().kstwobign.sf((size + 0.12 + 0.11 / size) * gap))


def _ranks(first: Floats, second: Floats, before: int, after: int) -> tuple[float, float]:
    """Return how often a value of the batch is above one of the reference (ties half), and p of Mann and Whitney.

    Where nearly all rows have one value, a few others make the ranks, which are far from normal then: p is that of
    Fisher's test of how many rows have this value.
    """
    own, theirs = np.diff(second, prepend=0.0), np.diff(first, prepend=0.0)
    above = float((own * (first - theirs / 2)).sum())
    total = before + after
    tied = (theirs * before + own * after) / total
    usual = int(tied.argmax())
    if tied[usual] > _MOST_TIED:
        with_it = (round(float(side[usual]) * rows) for side, rows in ((theirs, before), (own, after)))
        return above, share_p(next(with_it), before, next(with_it), after)
    spread = max(1e-12, 1 - float((tied**3).sum()))
    z = (above - 0.5) / math.sqrt((total + 1) * spread / (12 * before * after))
    return above, math.erfc(abs(z) / math.sqrt(2))


def _binned(before: Column, after: Column) -> tuple[Floats, Floats]:
    """Return the shares of both between the deciles of the reference."""
    values, shares = np.asarray(before.values), np.asarray(before.shares)
    places = np.minimum(np.searchsorted(shares, np.linspace(0, 1, _BINS + 1)[1:-1]), len(values) - 1)
    edges = np.unique(values[places])
    if len(values) == 1:  # a constant: below, there, above
        edges = np.array([np.nextafter(values[0], -np.inf), values[0]])
    first, second = (np.diff(np.concatenate([[0.0], one.share_up_to(edges), [1.0]])) for one in (before, after))
    return first, second


def _wasserstein(points: Floats, first: Floats, second: Floats, std: float | None) -> float | None:
    if not std:
        return None
    with np.errstate(over="ignore"):
        return float((np.abs(first - second)[:-1] * np.diff(points)).sum() / std)


# --- categories -----------------------------------------------------------------------------------------------------


def _of_categories(before: Column, after: Column) -> Distance | None:
    if before.counts is None or after.counts is None:
        return None
    first, second = _tables(before, after)
    statistic, p = _chi2(first, second)
    shares = first / first.sum(), second / second.sum()
    return Distance(
        test="chi2",
        statistic=statistic,
        p=p,
        psi=_psi(*shares, before.present, after.present),
        psi_chance=_psi_chance(len(first), before.present, after.present),
        js=_js(*shares),
        wasserstein=None,
        effect=float(np.abs(shares[0] - shares[1]).sum() / 2),
    )


def _tables(before: Column, after: Column) -> tuple[Floats, Floats]:
    """Return how often the frequent values occur in both, and last all others together."""
    was, now = before.counts or {}, after.counts or {}
    pooled = {value: was.get(value, 0) + now.get(value, 0) for value in {**was, **now}}
    kept = sorted(pooled, key=lambda value: (-pooled[value], value))[:_MOST_TESTED]
    rows = []
    for one, counts in ((before, was), (after, now)):
        found = [counts.get(value, 0) for value in kept]
        rows.append(np.array([*found, one.present - sum(found)], np.float64))
    return rows[0], rows[1]


def _chi2(first: Floats, second: Floats) -> tuple[float, float]:
    """Return chi-squared and p of two rows of counts; what is rare is taken together, and with the next frequent."""
    share = min(first.sum(), second.sum()) / (first.sum() + second.sum())
    table = np.array([first, second])
    table = table[:, np.argsort(-table.sum(axis=0), kind="stable")]
    is_rare = table.sum(axis=0) * share < _LEAST_EXPECTED
    kept, rare = table[:, ~is_rare], table[:, is_rare].sum(axis=1)
    if 0 < rare.sum() * share < _LEAST_EXPECTED and kept.shape[1] > 1:
        kept[:, -1] += rare
        rare = np.zeros(2)
    table = np.column_stack([kept, rare])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0, 1.0
    found = scipy_stats().chi2_contingency(table, correction=False)
    if table.shape[1] == 2 and table.sum() < _MANY:
        return float(found[0]), float(scipy_stats().fisher_exact(table)[1])
    if table.shape[1] == 2 and table.sum(axis=0).min() * share < _LEAST_EXPECTED:
        return float(found[0]), _rare_p(table)
    return float(found[0]), float(found[1])


def _rare_p(table: Floats) -> float:
    """Return p of two rows and columns of which one cell expects few: as Fisher's, which takes seconds for millions.

    The fewest rows of one side or column, each of which falls into the other's cell with the share of that.
    """
    if table[0].sum() > table[1].sum():
        table = table[::-1]
    if table[:, 0].sum() > table[:, 1].sum():
        table = table[:, ::-1]
    fewest, more = sorted((table[0].sum(), table[:, 0].sum()))
    return float(scipy_stats().binomtest(int(table[0, 0]), int(fewest), float(more / table.sum())).pvalue)


# --- both -----------------------------------------------------------------------------------------------------------


def _psi(first: Floats, second: Floats, before: int, after: int) -> float:
    """Return the population stability index; half a row more in each bin keeps it finite."""
    bins = len(first)
    one = (first * before + 0.5) / (before + 0.5 * bins)
    other = (second * after + 0.5) / (after + 0.5 * bins)
    return float(((other - one) * np.log(other / one)).sum())


def _psi_chance(bins: int, before: int, after: int) -> float:
    return float(scipy_stats().chi2.ppf(0.95, max(1, bins - 1)) * (1 / before + 1 / after))


def _js(first: Floats, second: Floats) -> float:
    middle = (first + second) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(one > 0, one * np.log2(one / middle), 0.0).sum() for one in (first, second)]
    return float(min(1.0, max(0.0, sum(parts) / 2)))
