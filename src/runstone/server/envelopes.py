"""What a chart draws of a stretch of a series: the points, or of each bucket the lowest, highest, mean and last.

Buckets lie on a fixed grid whose width is a power of two, so a series that grows, or a chart that shows others too,
never changes what is drawn of the buckets that were there. Nothing is left out: each point is in one bucket, and
numbers that cannot be drawn are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.runlog.blocks import LEAST_POINTS, SIZE, Figures, figures_of, merged

BLOCK = SIZE
BLOCKS_A_BUCKET = 16

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Buckets of consecutive points, arrays of shape `(buckets,)`.

    Attributes:
        ends: Row of the last point of each bucket.
        low, high, mean: Of the finite values; NaN where there are none.
        last: Of all values.
        count: Finite values.
        nan, inf: Values that are NaN, and ±Inf.
    """

    ends: Rows
    low: Floats
    high: Floats
    mean: Floats
    last: Floats
    count: Rows
    nan: Rows
    inf: Rows


def blocks_of(value: Floats) -> Figures | None:
    """Return what whole blocks of a series come down to; `None` of one that is short enough to be read whole."""
    if len(value) < LEAST_POINTS:
        return None
    whole = len(value) // BLOCK * BLOCK
    return figures_of(value[:whole], np.arange(0, whole, BLOCK))


def grid_width(low: float, high: float, buckets: int) -> float:
    """Return the width of the buckets between two places: the power of two that gives `buckets` to twice as many."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return 1.0
    return 2.0 ** math.floor(math.log2(span / buckets))


def ordered_starts(x: NDArray[Any], first: int, after: int, width: float) -> Rows:
    """Return the rows at which the buckets of the grid begin that hold points.

    Args:
        x: Places of all points, which never go back.
        first, after: The stretch, at least one point.
        width: Of a bucket.
    """
    low = math.floor(float(x[first]) / width)
    high = math.floor(float(x[after - 1]) / width)
    edges = np.arange(low + 1, high + 1, dtype=np.float64) * width
    if x.dtype.kind == "i":
        edges = np.ceil(edges).astype(np.int64)  # searching floats in integers would convert all of them
    return np.unique(np.append(first, np.searchsorted(x[first:after], edges) + first))


def counted_starts(first: int, after: int, buckets: int, breaks: Rows) -> Rows:
    """Return rows at which buckets begin that hold as many points each, for places that go back.

    Args:
        first, after: The stretch, at least one point.
        buckets: How many.
        breaks: Rows at which another attempt begins: no bucket holds points of two.
    """
    size = 2.0 ** math.ceil(math.log2(max(1.0, (after - first) / buckets)))
    starts = np.arange(first - first % int(size), after, int(size))
    inside = breaks[(breaks > first) & (breaks < after)]
    return np.unique(np.concatenate([[first], starts[starts > first], inside]).astype(np.int64))


def are_long(starts: Rows, after: int) -> bool:
    """Return whether buckets hold so many blocks that they may begin with whole ones."""
    return bool(after - starts[0] >= len(starts) * BLOCK * BLOCKS_A_BUCKET)


def at_blocks(starts: Rows, after: int) -> Rows:
    """Return the starts moved on to whole blocks, a fiftieth of a pixel: each point is still in one bucket."""
    moved = -(-starts[1:] // BLOCK) * BLOCK
    return np.unique(np.append(starts[0], moved[moved < after]))


def envelope(value: Floats, starts: Rows, after: int, blocks: Figures | None = None) -> Envelope:
    """Return what the buckets come down to.

    Args:
        value: All values.
        starts: Rows at which the buckets begin, ascending.
        after: Row after the last.
        blocks: Of these values, where all buckets but the first begin with a whole one.
    """
    ends = np.append(starts[1:], after) - 1
    if blocks is not None:
        return made(ends, value[ends], _from_blocks(value, starts, after, blocks))
    first = int(starts[0])
    return made(ends, value[ends], figures_of(value[first:after], starts - first))


def made(ends: Rows, last: Floats, figures: Figures) -> Envelope:
    """Return an envelope of figures."""
    with np.errstate(all="ignore"):
        mean = np.where(figures.count > 0, figures.total / np.maximum(figures.count, 1), np.nan)
    return Envelope(ends, figures.low, figures.high, mean, last, figures.count, figures.nan, figures.inf)


def _from_blocks(value: Floats, starts: Rows, after: int, blocks: Figures) -> Figures:
    """Return the figures of long buckets, with single points before the first whole block and behind the last."""
    first = int(starts[0])
    head = min(after, -(-first // BLOCK) * BLOCK)
    tail = max(head, min(after, len(blocks.low) * BLOCK) // BLOCK * BLOCK)
    inner = slice(head // BLOCK, tail // BLOCK)
    before = figures_of(value[first:head], np.arange(head - first))
    behind = figures_of(value[tail:after], np.arange(after - tail))
    columns = (
        np.concatenate([getattr(before, name), getattr(blocks, name)[inner], getattr(behind, name)])
        for name in Figures.__slots__
    )
    # The row at which each piece begins; some of them are those at which a bucket begins.
    rows = np.concatenate([np.arange(first, head), np.arange(head, tail, BLOCK), np.arange(tail, after)])
    return merged(Figures(*columns), np.searchsorted(rows, starts))
