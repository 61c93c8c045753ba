"""Histograms as TensorBoard has them, in either version, and as runs have them: ascending edges, counts between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue
from runstone.tensorboard.protos import TensorProto
from runstone.values import JSON

MOST_BINS = 10_000
_DOUBLE = 2  # of TensorFlow's DataType
_FORMS = {1: ("<f4", "float_val"), _DOUBLE: ("<f8", "double_val")}
_MOST_COUNTED = 2.0**63
_CATCH_ALL = 1e300  # TensorFlow's outermost buckets reach to the largest float
Floats = NDArray[np.float64]


def to_tensor(metadata: dict[str, JSON]) -> Any:
    """Return a run's histogram as a tensor of shape `(bins, 3)`: left, right and count of each.

    Raises:
        InvalidValue: its metadata are damaged.
    """
    edges, counts = metadata.get("edges"), metadata.get("counts")
    try:
        edge, count = np.asarray(edges, np.float64), np.asarray(counts, np.float64)
    except (TypeError, ValueError):
        edge = count = np.empty((1, 1))
    if edge.ndim != 1 or count.ndim != 1 or len(edge) != (len(count) + 1 if len(count) else 0):
        raise InvalidValue("its edges and counts do not fit")
    rows = np.stack([edge[:-1], edge[1:], count], 1) if len(count) else np.empty((0, 3))
    tensor = TensorProto(dtype=_DOUBLE, tensor_content=rows.astype("<f8").tobytes())
    for size in rows.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def of_tensor(tensor: Any) -> dict[str, JSON]:
    """Return edges and counts of a tensor of shape `(bins, 3)`.

    Raises:
        InvalidValue: it is no histogram, or one of more than `MOST_BINS` bins.
    """
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype not in _FORMS or len(sizes) != 2 or sizes[1] != 3 or not 0 <= sizes[0] <= MOST_BINS:
        raise InvalidValue("it is no tensor of left, right and count")
    form, name = _FORMS[tensor.dtype]
    if tensor.tensor_content:
        if len(tensor.tensor_content) != 3 * sizes[0] * np.dtype(form).itemsize:
            raise InvalidValue("its size is not that of its shape")
        rows = np.frombuffer(tensor.tensor_content, form).astype(np.float64).reshape(-1, 3)
    else:
        if len(getattr(tensor, name)) != 3 * sizes[0]:
            raise InvalidValue("its size is not that of its shape")
        rows = np.array(getattr(tensor, name), np.float64).reshape(-1, 3)
    return _joined(rows[:, 0], rows[:, 1], rows[:, 2])


def of_message(message: Any) -> dict[str, JSON]:
    """Return edges, counts and what else is known of a `HistogramProto`, of TensorBoard's first version.

    Its buckets are named by their upper limits; empty ones at both ends are left out.

    Raises:
        InvalidValue: it is no histogram, or one of more than `MOST_BINS` bins.
    """
    limit, count = np.array(message.bucket_limit, np.float64), np.array(message.bucket, np.float64)
    if len(limit) != len(count):
        raise InvalidValue("it has not one limit a bucket")
    low, high = message.min, message.max
    used = np.flatnonzero(count)
    metadata: dict[str, JSON] = {"edges": [], "counts": []}
    if len(used):
        first, last = int(used[0]), int(used[-1]) + 1
        left, right = np.concatenate([[low], limit[:-1]])[first:last], limit[first:last].copy()
        if not abs(left[0]) < _CATCH_ALL:
            left[0] = low
        if not abs(right[-1]) < _CATCH_ALL:
            right[-1] = high
        left[0] = min(left[0], right[0])
        metadata = _joined(left, right, count[first:last])
    known = {"count": message.num, "min": low, "max": high, "mean": message.sum / message.num if message.num else 0.0}
    if len(used) and 0 < message.num < _MOST_COUNTED and all(map(math.isfinite, known.values())):
        metadata |= {**known, "count": int(message.num)}
    return metadata


def _joined(left: Floats, right: Floats, count: Floats) -> dict[str, JSON]:
    """Return buckets as edges and counts: empty ones of no width left out, gaps filled."""
    kept = (count != 0) | (right > left)
    left, right, count = left[kept], right[kept], count[kept]
    if not (np.isfinite(left).all() and np.isfinite(right).all() and np.isfinite(count).all()):
        raise InvalidValue("its numbers are not finite")
    if (count < 0).any() or (count >= _MOST_COUNTED).any():
        raise InvalidValue("it counts less than nothing, or more than a 64-bit integer does")
    edges: list[float] = []
    counts: list[float] = []
    is_flat = right == left  # all of its values are one: as wide as NumPy makes it
    for start, end, number in zip(
        np.where(is_flat, left - 0.5, left).tolist(),
        np.where(is_flat, right + 0.5, right).tolist(),
        count.tolist(),
        strict=True,
    ):
        if start >= end or (edges and start < edges[-1]):
            raise InvalidValue("its buckets are not in order")
        if not edges:
            edges.append(start)
        elif start > edges[-1]:
            edges.append(start)
            counts.append(0.0)
        edges.append(end)
        counts.append(number)
    if len(counts) > MOST_BINS:
        raise InvalidValue(f"it has more than {MOST_BINS} bins")
    told: list[JSON] = [int(number) if number.is_integer() else number for number in counts]
    return {"edges": list[JSON](edges), "counts": told}
