"""Fewer points that look the same: what a plot of some thousand pixels can show of a series of millions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def thin(value: NDArray[np.float64], starts: Indices) -> Indices:
    """Return which points of a series to keep: of each bucket the first, the last, the lowest and the highest.

    A line drawn through them covers the same pixels as one through all points, if a bucket is a pixel wide, so no spike
    is lost. Of NaN, +Inf and -Inf the first of each bucket is kept too, so that each shows where it began.

    Args:
        value: Shape `(n,)`, NaN and ±Inf as they come.
        starts: Ascending indices at which the buckets begin, the first 0, each less than n; shape `(buckets,)`.

    Returns:
        Ascending indices into `value`, without duplicates: at most 7 a bucket, 4 where all is finite.

    Source: Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014.
    """
    if not len(value):
        return np.empty(0, np.int64)
    ends = np.append(starts[1:], len(value))
    finite = np.isfinite(value)
    kept = [starts, ends - 1]
    if finite.all():
        kept += [_first_equal(value, np.minimum.reduceat(value, starts), starts, ends)]
        kept += [_first_equal(value, np.maximum.reduceat(value, starts), starts, ends)]
    else:
        numbers = np.where(finite, value, np.nan)
        kept += [_first_equal(numbers, np.fmin.reduceat(numbers, starts), starts, ends)]
        kept += [_first_equal(numbers, np.fmax.reduceat(numbers, starts), starts, ends)]
        kept += [_first_true(mask, starts) for mask in (np.isnan(value), value == np.inf, value == -np.inf)]
    return np.unique(np.concatenate(kept))


def equal_ranges(step: NDArray[np.int64], buckets: int) -> Indices:
    """Return where buckets begin that cover equal ranges of steps, which never go back; empty ones are left out."""
    return ranges_between(step, step[[0, -1]], buckets) if len(step) else np.empty(0, np.int64)


def ranges_between(step: NDArray[np.int64], ends: NDArray[np.int64], buckets: int) -> Indices:
    """Return where the buckets begin in part of a series.

    Args:
        step: Steps of the part, which never go back; at least one.
        ends: First and last step of the whole series.
        buckets: Into how many the whole is cut.
    """
    edges = np.linspace(float(ends[0]), float(ends[1]), buckets + 1)[:-1]
    edges = np.ceil(edges).astype(np.int64)  # integers: searching floats would convert every step
    places = np.searchsorted(step, edges)
    return np.unique(np.append(0, places[places < len(step)]))


def equal_counts(count: int, buckets: int) -> Indices:
    """Return where buckets begin that each hold as many points: for steps that go back."""
    return np.unique(np.linspace(0, count, buckets, endpoint=False).astype(np.int64))


def _first_equal(value: NDArray[np.float64], wanted: NDArray[np.float64], starts: Indices, ends: Indices) -> Indices:
    """Return, for each bucket, the first index whose value is the wanted one; buckets that want NaN have none."""
    return _first_true(value == np.repeat(wanted, ends - starts), starts)


def _first_true(mask: NDArray[np.bool_], starts: Indices) -> Indices:
    places = np.flatnonzero(mask)
    if not len(places):
        return places
    bucket = np.searchsorted(starts, places, side="right")
    return places[np.flatnonzero(np.diff(bucket, prepend=0))]
