"""What a data set is, in a few words: shape, types, names and a hash of bounded cost. Knows no run."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

MAX_HASHED_BYTES = 16 * 2**20
MAX_NAMES = 200
MAX_CLASSES = 50
_MAX_OBJECTS = 20_000


def describe_data(X: Any, y: Any = None, *, has_classes: bool = False) -> dict[str, Any]:
    """Return params of a data set: `n_samples`, `n_features`, `feature_names`, and for `X` and `y` type, dtype, hash.

    Args:
        X: Array, frame, sparse matrix or list of samples. Only read.
        y: Targets, if any.
        has_classes: Whether to count how often each class occurs in `y`.
    """
    shape = _shape(X)
    described: dict[str, Any] = {"n_samples": shape[0] if shape else None}
    if len(shape) > 1:
        described["n_features"] = shape[1]
    names = feature_names(X)
    if names is not None:
        described["feature_names"] = names[:MAX_NAMES]
    described["X"] = _describe(X)
    if y is not None:
        described["y"] = _describe(y)
        if has_classes:
            counts = _count_classes(y)
            if counts is not None:
                described["y"]["classes"] = counts
    return described


def n_samples(X: Any) -> int | None:
    """Return the number of samples of an array, frame, sparse matrix or list."""
    shape = _shape(X)
    return shape[0] if shape else None


def feature_names(X: Any) -> list[str] | None:
    """Return the column names of a frame, `None` for anything else."""
    columns = getattr(X, "columns", None)
    return None if columns is None else [str(column) for column in columns]


def _describe(data: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(data).__name__, "shape": list(_shape(data))}
    dtype = _dtype(data)
    if dtype is not None:
        described["dtype"] = dtype
    digest, is_sampled = _hash(data)
    if digest is not None:
        described["hash"] = digest
        described["hash_is_sampled"] = is_sampled
    return described


def _shape(data: Any) -> tuple[int, ...]:
    shape = getattr(data, "shape", None)
    if shape is not None:
        return tuple(int(size) for size in shape)
    return (len(data),) if hasattr(data, "__len__") else ()


def _dtype(data: Any) -> str | dict[str, int] | None:
    """Return the dtype; of a frame, how many columns have which."""
    dtypes = getattr(data, "dtypes", None)
    if getattr(data, "columns", None) is not None and dtypes is not None:
        counts: dict[str, int] = {}
        for dtype in dtypes:
            counts[str(dtype)] = counts.get(str(dtype), 0) + 1
        return counts
    dtype = getattr(data, "dtype", None)
    return None if dtype is None else str(dtype)


def _hash(data: Any) -> tuple[str | None, bool]:
    """Return a hash of the content and whether only a sample of the rows went into it."""
    hasher = hashlib.blake2b(digest_size=16)
    if hasattr(data, "indptr") and hasattr(data, "indices"):  # sparse, by rows or columns
        parts = [data.indptr, data.indices, data.data]
    elif type(data).__module__.partition(".")[0] == "pandas":
        import pandas as pd  # the user has imported it

        rows, is_sampled = _sample(data, _frame_bytes(data))
        parts = [pd.util.hash_pandas_object(rows, index=False).to_numpy()]
        hasher.update(repr((feature_names(data), data.shape)).encode())
        hasher.update(parts[0].tobytes())
        return hasher.hexdigest(), is_sampled
    else:
        parts = [_as_array(data)]
    is_sampled = False
    for part in parts:
        if part is None:
            return None, False
        rows, is_part = _sample(part, part.nbytes)
        is_sampled = is_sampled or is_part
        hasher.update(f"{part.dtype.str}{part.shape}".encode())
        if part.dtype.hasobject:
            if part.ndim == 0 or not all(isinstance(item, str) for item in rows[:_MAX_OBJECTS].ravel()):
                return None, False  # the bytes of an object array are addresses
            is_sampled = is_sampled or len(part) > _MAX_OBJECTS
            hasher.update("\0".join(rows[:_MAX_OBJECTS].ravel()).encode(errors="surrogatepass"))
        else:
            hasher.update(np.ascontiguousarray(rows).tobytes())
    return hasher.hexdigest(), is_sampled


def _as_array(data: Any) -> Any:
    if isinstance(data, np.ndarray):
        return data
    if hasattr(data, "detach"):
        data = data.detach().cpu()  # a torch tensor
    if isinstance(data, list | tuple) and len(data) > _MAX_OBJECTS:
        data = data[:: -(-len(data) // _MAX_OBJECTS)]
    try:
        return np.asarray(data)
    except (TypeError, ValueError):  # ragged lists, foreign containers
        return None


def _frame_bytes(frame: Any) -> int:
    return int(np.sum(frame.memory_usage(index=False)))


def _sample(rows: Any, size_bytes: int) -> tuple[Any, bool]:
    """Return the rows, or every n-th where they are too many bytes to hash all."""
    stride = -(-size_bytes // MAX_HASHED_BYTES)
    if stride <= 1 or not getattr(rows, "ndim", 0):
        return rows, False
    return (rows.iloc[::stride] if hasattr(rows, "iloc") else rows[::stride]), True


def _count_classes(y: Any) -> dict[str, int] | None:
    values = np.asarray(y)
    if values.ndim != 1 or (values.dtype.hasobject and len(values) > _MAX_OBJECTS * 10):
        return None
    names, counts = np.unique(values, return_counts=True)
    if len(names) > MAX_CLASSES:
        return None
    return {str(name): int(count) for name, count in zip(names.tolist(), counts, strict=True)}
