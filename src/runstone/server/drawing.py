"""What a chart is sent of one series: which stretch, at which level, from where on; and the bytes of it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.runlog.blocks import Figures, merged
from runstone.server.curves import Axis, Curve, LongCurve, OpenRun
from runstone.server.envelopes import (
    BLOCK,
    Envelope,
    are_long,
    at_blocks,
    counted_starts,
    envelope,
    grid_width,
    made,
    ordered_starts,
)
from runstone.server.jsons import dumps
from runstone.server.smoothing import NO_SMOOTHING, Smoothing

_ALIGNMENT = 8
_MOST_RESTARTS = 1_000  # of one series that are told: a chart cannot show more
_MOST_COUNTED = 2_000_000
_FEW_BLOCKS = 2  # a bucket of two pixels: with fewer its edges, which lie on blocks, would be off by more than one
_NARROW = 1e-3
_FLOAT32 = (1e-30, 1e38)
_TYPES = {np.dtype(np.float64): "f64", np.dtype(np.float32): "f32", np.dtype(np.uint32): "u32"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a chart asks for of one series.

    Attributes:
        metric: Name, exactly as logged.
        x: What the points lie along: see `OpenRun.axis`.
        low, high: Closed range along `x`; default: all. The points next to it come too, so that lines leave the chart.
        buckets: About how many; each is a power of two wide, so there are up to twice as many.
        have: The `token` of the answer that the chart holds: only what is new is sent.
        smoothing: How a second, smoothed line is made.
    """

    metric: str
    x: str = "step"
    low: float | None = None
    high: float | None = None
    buckets: int = 700
    have: str = ""
    smoothing: Smoothing = NO_SMOOTHING


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a chart is sent: what is told of the series, and its arrays, by name."""

    head: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


def drawn(run: OpenRun, wish: Wish) -> Drawn:
    """Return what a chart is sent. The run must be fresh and held by this thread.

    Raises:
        MetricNotFound: the run never logged the metric, or the one along which it is drawn.
        FormatError: its file is damaged.
    """
    long = run.long_curve(wish.metric, wish.x) if wish.smoothing.is_none else None
    if long is not None:
        return _drawn_long(long, wish)
    curve, axis = run.curve(wish.metric), run.axis(wish.metric, wish.x)
    nan, inf = curve.strange
    head: dict[str, Any] = {
        "points": len(curve),
        "nan": nan,
        "inf": inf,
        "is_ordered": axis.is_ordered,
        "without_x": 0 if axis.rows is None else len(curve) - len(axis.rows),
        "repeated": _repeated(curve, axis) if wish.x == "step" else 0,
        "x_range": list(axis.span) if axis.span is not None else None,
    }
    smooth, spacing = (None, 0.0) if wish.smoothing.is_none else run.smoothed(wish.metric, wish.x, wish.smoothing)
    return _drawn(head, curve, axis, wish, smooth, spacing)


def _drawn_long(long: LongCurve, wish: Wish) -> Drawn:
    """Return what is drawn of a long series: from its blocks, or close by, from the points there."""
    blocks, x = long.blocks, long.x
    low = wish.low if wish.low is not None else -math.inf
    high = wish.high if wish.high is not None else math.inf
    # The blocks that hold the range, and one more on each side, so that lines leave the chart.
    first = max(0, int(np.searchsorted(x, _edge(low, x), "left")) - 1)
    after = min(len(x), int(np.searchsorted(x, _edge(high, x), "right")) + 2)
    head: dict[str, Any] = {
        "points": blocks.points,
        "nan": int(blocks.figures.nan.sum()),
        "inf": int(blocks.figures.inf.sum()),
        "is_ordered": True,
        "without_x": 0,
    }
    head["x_range"] = [long.begin, float(x[-1])]
    if after - first < 2 * wish.buckets * _FEW_BLOCKS:
        curve, axis = long.points(first * BLOCK, min(after * BLOCK, blocks.points))
        return _drawn(head, curve, axis, wish, None, 0.0)
    width = grid_width(max(low, long.begin), min(high, float(x[-1])), wish.buckets)
    starts = ordered_starts(x, first, after, width)
    token = f"{zlib.crc32(repr((long.structure, wish.x, wish.low, wish.high, width)).encode()):x}.0.0.0"
    head |= {"level": "band", "shown": len(starts), "base": 0, "token": token}
    head["attempts"] = [{"attempt": long.attempt, "from_index": 0}]
    if wish.have == token:
        return Drawn(head | {"unchanged": True, "base": len(starts)}, {})
    ends = np.append(starts[1:], after) - 1
    inside = Figures(*(getattr(blocks.figures, name)[first:after] for name in Figures.__slots__))
    found = made(ends, blocks.last[ends], merged(inside, starts - first))
    return Drawn(head, _arrays(x, found, None))


def _drawn(
    head: dict[str, Any],
    curve: Curve,
    axis: Axis,
    wish: Wish,
    smooth: NDArray[np.float64] | None,
    spacing: float,
) -> Drawn:
    """Return what is drawn of points that are at hand."""
    first, after = _stretch(axis, wish)
    if first >= after:
        token = f"{zlib.crc32(repr((curve.structure, wish.x, wish.low, wish.high)).encode()):x}.0.0"
        return Drawn(head | {"level": "raw", "shown": 0, "base": 0, "token": token, "attempts": []}, {})
    value = curve.value if axis.rows is None else curve.value[axis.rows]
    is_raw = after - first <= 2 * wish.buckets
    blocks: Figures | None = None
    width = _width(axis, first, after, wish) if not is_raw and axis.is_ordered else 0.0
    if is_raw:
        starts = np.arange(first, after)
    elif axis.is_ordered:
        starts = ordered_starts(axis.x, first, after, width)
        blocks = curve.blocks if axis.rows is None and are_long(starts, after) else None
        starts = at_blocks(starts, after) if blocks is not None else starts
    else:
        starts = counted_starts(first, after, wish.buckets, np.union1d(_breaks(curve, axis), _falls(curve, axis, wish)))
    # Equal as long as an answer differs from one before only behind some entry.
    plan = zlib.crc32(
        repr(
            (curve.structure, wish.x, wish.low, wish.smoothing, spacing, is_raw, width, blocks is None, first)
        ).encode()
    )
    if not axis.is_ordered or axis.rows is not None:
        plan = zlib.crc32(repr((len(curve), wish.high)).encode(), plan)
    base, is_unchanged = _base(wish, plan, curve, starts, after)
    token = f"{plan:x}.{after:x}.{len(starts):x}.{curve.stamp(after):x}"
    head |= {
        "level": "raw" if is_raw else "band",
        "shown": len(starts),
        "base": base,
        "token": token,
        "attempts": _attempts(curve, axis, starts, after),
        "restarts": _restarts(_falls(curve, axis, wish), starts, after),
    }
    if is_unchanged:
        return Drawn(head | {"unchanged": True, "base": len(starts)}, {})
    if is_raw:
        rows = slice(first + base, after)
        arrays = {"x": axis.x[rows].astype(np.float64), "y": value[rows]}
        if smooth is not None:
            arrays["smooth"] = smooth[rows]
        return Drawn(head, arrays)
    return Drawn(head, _band(axis, value, starts[base:], after, blocks, smooth))


def _band(
    axis: Axis,
    value: NDArray[np.float64],
    starts: NDArray[np.int64],
    after: int,
    blocks: Figures | None,
    smooth: NDArray[np.float64] | None,
) -> dict[str, NDArray[Any]]:
    return _arrays(axis.x, envelope(value, starts, after, blocks), smooth)


def _arrays(x: NDArray[Any], found: Envelope, smooth: NDArray[np.float64] | None) -> dict[str, NDArray[Any]]:
    """Return an envelope as arrays that are sent; `ends` of it are places in `x` and `smooth`."""
    arrays: dict[str, NDArray[Any]] = {"x": x[found.ends].astype(np.float64)}
    kind = _float_kind(found.low, found.high)
    lines = {"min": found.low, "max": found.high, "mean": found.mean, "last": found.last}
    with np.errstate(all="ignore"):
        arrays |= {name: line.astype(kind) for name, line in lines.items()}
    arrays["n"] = found.count.astype(np.uint32)
    for name, counted in (("nan", found.nan), ("inf", found.inf)):
        if counted.any():
            arrays[name] = counted.astype(np.uint32)
    if smooth is not None:
        arrays["smooth"] = smooth[found.ends]
    return arrays


def _stretch(axis: Axis, wish: Wish) -> tuple[int, int]:
    """Return the first row in the range that is asked for and the one after the last, with a neighbour each."""
    count = len(axis.x)
    if wish.low is None and wish.high is None:
        return 0, count
    low = wish.low if wish.low is not None else -math.inf
    high = wish.high if wish.high is not None else math.inf
    if axis.is_ordered:
        first = int(np.searchsorted(axis.x, _edge(low, axis.x), "left"))
        after = int(np.searchsorted(axis.x, _edge(high, axis.x), "right"))
    else:
        inside = np.flatnonzero((axis.x >= low) & (axis.x <= high))
        if not len(inside):
            return 0, 0
        first, after = int(inside[0]), int(inside[-1]) + 1
    return max(0, first - 1), min(count, after + 1)


def _edge(place: float, x: NDArray[Any]) -> Any:
    """Return a place as a value of the array's own type where that is exact: else all of it would be converted."""
    if x.dtype.kind == "i" and abs(place) < 2**53 and int(place) == place:
        return np.int64(place)
    return place


def _width(axis: Axis, first: int, after: int, wish: Wish) -> float:
    low = wish.low if wish.low is not None else float(axis.x[first])
    high = wish.high if wish.high is not None else float(axis.x[after - 1])
    # A chart that ends where the points end is as wide as they are: a range asked for may reach beyond.
    low, high = max(low, float(axis.x[first])), min(high, float(axis.x[after - 1]))
    return grid_width(low, high, wish.buckets)


def _base(wish: Wish, plan: int, curve: Curve, starts: NDArray[np.int64], after: int) -> tuple[int, bool]:
    """Return how many entries of what the chart holds still stand, and whether all of them do and none is new."""
    try:
        told_plan, told_after, told_shown, told_stamp = (int(part, 16) for part in wish.have.split("."))
    except ValueError:
        return 0, False
    if told_plan != plan or not 0 < told_after <= after or told_stamp != curve.stamp(told_after):
        return 0, False
    if told_after == after:
        return len(starts), True
    settled = told_after - wish.smoothing.looks_ahead
    if settled <= starts[0]:
        return 0, False
    # The bucket that holds the last point that the chart knows may have grown.
    row = int(np.searchsorted(starts, settled - 1, "right")) - 1
    is_whole = len(starts) == after - starts[0]
    return min(told_shown, row + 1 if is_whole else row), False


def _attempts(curve: Curve, axis: Axis, starts: NDArray[np.int64], after: int) -> list[dict[str, int]]:
    """Return the attempts that are drawn, and the entry at which each begins."""
    bounds = _breaks(curve, axis)
    found = []
    ends = [*bounds[1:].tolist(), len(axis.x)]
    for (number_, _row), begin, end in zip(curve.attempts, bounds.tolist(), ends, strict=True):
        if end > starts[0] and begin < after:
            place = max(0, int(np.searchsorted(starts, begin, "right")) - 1)
            found.append({"attempt": number_, "from_index": place})
    return found


def _breaks(curve: Curve, axis: Axis) -> NDArray[np.int64]:
    """Return the places at which an attempt begins."""
    return curve.breaks if axis.rows is None else np.searchsorted(axis.rows, curve.breaks)


def _repeated(curve: Curve, axis: Axis) -> int:
    """Return how many points have the step of the point before; 0 where that would be long to find out."""
    if len(axis.x) > _MOST_COUNTED:
        return 0
    return curve.kept("repeated", lambda: int(np.count_nonzero(axis.x[1:] == axis.x[:-1])))


def _falls(curve: Curve, axis: Axis, wish: Wish) -> NDArray[np.int64]:
    """Return the rows at which steps or times go back, the first ones; along another metric to go back is nothing."""
    if axis.is_ordered or wish.x.startswith("metric:"):
        return np.empty(0, np.int64)
    return curve.kept(
        ("falls", wish.x), lambda: np.flatnonzero(axis.x[1:] < axis.x[:-1])[:_MOST_RESTARTS].astype(np.int64) + 1
    )


def _restarts(falls: NDArray[np.int64], starts: NDArray[np.int64], after: int) -> list[int]:
    """Return the entries at which steps or times go back."""
    inside = falls[(falls > starts[0]) & (falls < after)]
    found: list[int] = (np.searchsorted(starts, inside, "right") - 1).tolist()
    return found


def _float_kind(low: NDArray[np.float64], high: NDArray[np.float64]) -> type[np.float32] | type[np.float64]:
    """Return the smaller type of float where a chart cannot show the difference."""
    finite = np.isfinite(low)
    if not finite.any():
        return np.float32
    bottom, top = float(low[finite].min()), float(high[finite].max())
    largest = max(abs(bottom), abs(top))
    if largest == 0:
        return np.float32
    is_narrow = top - bottom < largest * _NARROW
    return np.float64 if is_narrow or not _FLOAT32[0] < largest < _FLOAT32[1] else np.float32


def packed(series: Sequence[Drawn]) -> bytes:
    """Return answers as bytes: the length of the head (32 bits, little end first), the head, padding, the arrays.

    In the head, each series names its arrays with the offset of the first byte behind the padding, the number of values
    and their type: `f64`, `f32` or `u32`, little end first. The arrays begin at a multiple of 8 of the whole, and so
    does each of them.
    """
    parts: list[bytes] = []
    offset = 0
    told = []
    for one in series:
        places = {}
        for name, array in one.arrays.items():
            data = np.ascontiguousarray(array).tobytes()
            padding = -len(data) % _ALIGNMENT
            places[name] = [offset, len(array), _TYPES[array.dtype]]
            parts += [data, b"\0" * padding]
            offset += len(data) + padding
        told.append(one.head | {"arrays": places})
    head = dumps({"series": told})
    padding = -(4 + len(head)) % _ALIGNMENT
    return b"".join([len(head).to_bytes(4, "little"), head, b"\0" * padding, *parts])
