"""Figures of a column in bounded memory: quantiles, counts of values, moments. Knows no tables.

Source: Karnin, Lang, Liberty, "Optimal Quantile Approximation in Streams", FOCS 2016 (quantiles; compactors of one
size here); Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIZE = 4096
Floats = NDArray[np.float64]


class Quantiles:
    """Approximate quantiles: exact up to some thousand values, then within about a thousandth of the rank."""

    def __init__(self) -> None:
        self._levels: list[list[Floats]] = [[]]
        self._keep_odd: list[bool] = [False]

    def add(self, values: Floats) -> None:
        """Take in values without NaN."""
        self._levels[0].append(values)
        level = 0
        while level < len(self._levels) and sum(map(len, self._levels[level])) >= 2 * _SIZE:
            merged = np.sort(np.concatenate(self._levels[level]))
            rest = merged[len(merged) & ~1 :]  # an odd one stays, or its weight would be lost
            kept = merged[int(self._keep_odd[level]) : len(merged) & ~1 : 2]
            self._keep_odd[level] = not self._keep_odd[level]
            self._levels[level] = [rest]
            if level + 1 == len(self._levels):
                self._levels.append([])
                self._keep_odd.append(False)
            self._levels[level + 1].append(kept)
            level += 1

    def weighted(self) -> tuple[Floats, Floats]:
        """Return what is kept, sorted, and for how many values each stands; both of shape `(n,)`."""
        values = [np.concatenate(level) if level else np.empty(0) for level in self._levels]
        weights = [np.full(len(level), 2.0**index) for index, level in enumerate(values)]
        every, weight = np.concatenate(values), np.concatenate(weights)
        order = np.argsort(every, kind="stable")
        return every[order], weight[order]

    def at(self, shares: Floats) -> Floats:
        """Return the values below which these shares (0 to 1) of all values lie."""
        values, weights = self.weighted()
        if not len(values):
            return np.full(len(shares), np.nan)
        ranks = np.cumsum(weights) - weights / 2
        places = np.searchsorted(ranks, shares * weights.sum())
        found: Floats = values[np.minimum(places, len(values) - 1)]
        return found


class Moments:
    """Count, mean, deviation, lowest and highest; NaN apart, ±Inf counts as lowest and highest only."""

    def __init__(self) -> None:
        self.count = 0
        self.nan_count = 0
        self.min: float | None = None
        self.max: float | None = None
        self._finite = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, values: Floats) -> Floats:
        """Take in values; return those that are finite."""
        is_nan = np.isnan(values)
        self.nan_count += int(is_nan.sum())
        known = values[~is_nan]
        self.count += len(known)
        if len(known):
            low, high = float(known.min()), float(known.max())
            self.min = low if self.min is None else min(self.min, low)
            self.max = high if self.max is None else max(self.max, high)
        finite = known[np.isfinite(known)]
        if len(finite):
            mean = float(finite.mean())
            total = self._finite + len(finite)
            apart = mean - self._mean
            self._squares += float(((finite - mean) ** 2).sum()) + apart**2 * self._finite * len(finite) / total
            self._mean += apart * len(finite) / total
            self._finite = total
        return finite

    @property
    def mean(self) -> float | None:
        """Mean of the finite values."""
        return self._mean if self._finite else None

    @property
    def std(self) -> float | None:
        """Their standard deviation (of a sample)."""
        return math.sqrt(self._squares / (self._finite - 1)) if self._finite > 1 else None


class Counts:
    """How often each value occurs: exact up to a bound of different ones; beyond it only for the most frequent."""

    def __init__(self, bound: int, top: int) -> None:
        self._bound = bound
        self._top = top
        self._counts: dict[Any, int] = {}
        self.is_over = False
        """Whether there are more different values than the bound."""

    def add(self, counted: dict[Any, int]) -> None:
        """Take in the counts of some values."""
        counts = self._counts
        for value, count in counted.items():
            if value in counts:
                counts[value] += count
            elif not self.is_over:
                counts[value] = count
        if not self.is_over and len(counts) > self._bound:
            self.is_over = True
            self._counts = dict(self.top())

    @property
    def watched(self) -> list[Any]:
        """The values that are counted, once there are more than the bound."""
        return list(self._counts)

    @property
    def distinct(self) -> int | None:
        """How many different values there are; `None`: more than the bound."""
        return None if self.is_over else len(self._counts)

    def top(self) -> list[tuple[Any, int]]:
        """Return the most frequent values with their counts."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))[: self._top]
