"""What some values of one kind come down to: mean, spread, and between which bounds the mean lies. Knows no runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runstone.statistics.student import t_quantile

ENOUGH_FOR_BOOTSTRAP = 10
"""From how many values on the interval of a mean is bootstrapped; Student's holds for fewer. Of five normal values, the
bootstrap's interval for 95 % holds the mean 84 times in a hundred."""
_RESAMPLES = 9_999
_SEED = 20_261  # the same values give the same interval
_NORMAL = NormalDist()

Method = Literal["bca", "t", "exact", "none"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds within which a figure lies with a confidence.

    Attributes:
        low, high: The bounds.
        confidence: Such as 0.95.
        method: How it was made: `bca` (bootstrap), `t` (Student), `exact` (the values do not vary), `none`.
    """

    low: float
    high: float
    confidence: float
    method: Method


@dataclass(frozen=True, slots=True)
class Summary:
    """What values come down to.

    Attributes:
        count: How many.
        mean, median, min, max: Of the values.
        sd: Standard deviation with n − 1; `None` for fewer than two values.
        interval: Of the mean; `None` for fewer than two values: one value says nothing of the next.
    """

    count: int
    mean: float
    median: float
    min: float
    max: float
    sd: float | None
    interval: Interval | None


def summarize(
    values: Sequence[float], *, confidence: float = 0.95, method: Literal["auto", "bca", "t"] = "auto"
) -> Summary:
    """Return what values come down to.

    Args:
        values: One or more, all finite.
        confidence: Of the interval.
        method: `auto` takes the bootstrap from `ENOUGH_FOR_BOOTSTRAP` values on, else Student's interval.

    Raises:
        ValueError: there is no value, or one that is not finite.
        InvalidConfig: SciPy is not installed.
    """
    data = checked(values)
    count = len(data)
    mean = float(data.mean())
    sd = float(data.std(ddof=1)) if count > 1 else None
    return Summary(
        count,
        mean,
        float(np.median(data)),
        float(data.min()),
        float(data.max()),
        sd,
        _interval(data, confidence, method),
    )


def checked(values: Sequence[float]) -> NDArray[np.float64]:
    """Return values as an array.

    Raises:
        ValueError: there is none, or one that is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise ValueError("statistics take one value or more, all of them finite numbers")
    return data


def _interval(data: NDArray[np.float64], confidence: float, method: str) -> Interval | None:
    if len(data) < 2:
        return None
    if float(np.ptp(data)) == 0.0:
        return Interval(float(data[0]), float(data[0]), confidence, "exact")
    if method == "bca" or (method == "auto" and len(data) >= ENOUGH_FOR_BOOTSTRAP):
        return bca_interval(data, confidence, is_expanded=True)
    mean, half = float(data.mean()), float(data.std(ddof=1)) / math.sqrt(len(data))
    half *= t_quantile((1 + confidence) / 2, len(data) - 1)
    return Interval(mean - half, mean + half, confidence, "t")


def bca_interval(
    data: NDArray[np.float64],
    confidence: float = 0.95,
    *,
    is_expanded: bool = False,
    resamples: int = _RESAMPLES,
) -> Interval:
    """Return the bootstrap's interval of the mean, corrected for bias and skew (BCa).

    Args:
        data: Two values or more that are not all the same.
        confidence: How often it is to hold the mean.
        is_expanded: Whether it is made wider by what a bootstrap of few values lacks: their spread, divided by n and
            not by n − 1, and Student's tails. Of 10 normal values, it then holds the mean 95 times in 100, not 91.
        resamples: How often the values are drawn again.

    Source: Efron, "Better Bootstrap Confidence Intervals", JASA 82(397), 1987.
    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015.
    """
    count = len(data)
    draw = np.random.default_rng(_SEED)
    means = np.empty(resamples)
    for start in range(0, resamples, max(1, 2_000_000 // count)):
        stop = min(resamples, start + max(1, 2_000_000 // count))
        means[start:stop] = data[draw.integers(0, count, (stop - start, count))].mean(axis=1)
    mean = float(data.mean())
    below = (float((means < mean).sum()) + 0.5 * float((means == mean).sum())) / resamples
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    # What the jackknife takes away pulls its means by (x - mean) / (n - 1): the acceleration is a kind of skewness.
    pull = data - mean
    acceleration = float((pull**3).sum()) / (6 * float((pull**2).sum()) ** 1.5)
    reach = _NORMAL.inv_cdf((1 + confidence) / 2)
    if is_expanded:
        reach = math.sqrt(count / (count - 1)) * t_quantile((1 + confidence) / 2, count - 1)
    ends = []
    for end in (-reach, reach):
        z = bias + end
        ends.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(means, ends)
    return Interval(float(low), float(high), confidence, "bca")
