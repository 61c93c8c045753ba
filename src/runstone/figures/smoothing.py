"""Smoothing of curves. It sees the whole curve, never what is zoomed to: a point keeps its value at every zoom."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LARGEST_EXPONENT = 300.0
_SPACING_POINTS = 1 << 16  # the first ones tell, so that a curve that grows keeps its values


def smoothed(x: NDArray[np.float64], y: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return the exponential moving average of a curve, each point weighed by how far back it lies.

    A point at distance d counts `weight ** (d / s)` times, where s is the median distance of neighbours (of the first
    65,536 points); the weights are divided by their sum, so that the begin is not drawn to 0. With equal distances it
    is the debiased average that TensorBoard draws. NaN and ±Inf have no say; where they stand, the average stays.

    Args:
        x: Ascending.
        y: Of the same shape.
        weight: From 0 (the curve itself) to below 1.
    """
    if weight <= 0 or len(x) < 2:
        return y.astype(np.float64)
    gaps = np.diff(x[:_SPACING_POINTS])
    typical = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0
    rate = -math.log(weight) / typical
    is_number = np.isfinite(y)
    numbers = np.where(is_number, y, 0.0)
    found = np.empty(len(x))
    total = share = 0.0
    start = 0
    while start < len(x):
        # Factors grow with the distance from the first point of a block; a block ends before they overflow.
        stop = int(np.searchsorted(x, x[start] + _LARGEST_EXPONENT / rate, side="right"))
        stop = max(stop, start + 1)
        grown = np.exp((x[start:stop] - x[start]) * rate)
        sums = total + np.cumsum(numbers[start:stop] * grown)
        shares = share + np.cumsum(is_number[start:stop] * grown)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[start:stop] = sums / shares
        if stop < len(x):
            faded = math.exp(-min(700.0, (x[stop] - x[start]) * rate))
            total, share = float(sums[-1]) * faded, float(shares[-1]) * faded
        start = stop
    return found
