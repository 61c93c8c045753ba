"""What models give, as rows: arrays, tensors, tables and mappings of these, cut to the requests that they answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PREDICTION = "prediction"


def as_arrays(outputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return outputs as arrays by name, one row a prediction; the only one is called `prediction`."""
    if hasattr(outputs, "columns") and hasattr(outputs, "to_numpy"):
        return {str(name): np.asarray(outputs[name]) for name in outputs.columns}
    if isinstance(outputs, Mapping):
        return {str(name): _array(value) for name, value in outputs.items()}
    if isinstance(outputs, tuple):
        return {str(place): _array(value) for place, value in enumerate(outputs)}
    return {PREDICTION: _array(outputs)}


def _array(value: Any) -> np.ndarray[Any, Any]:
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if hasattr(value, "toarray"):  # a sparse matrix
        value = value.toarray()
    array = np.asarray(value)
    return array.reshape(1) if array.ndim == 0 else array


def rows_in(arrays: Mapping[str, np.ndarray[Any, Any]], count: int) -> bool:
    """Return whether there is a row of output for each row of input."""
    return all(len(array) == count for array in arrays.values())


def as_json(arrays: Mapping[str, np.ndarray[Any, Any]], begin: int, end: int) -> Any:
    """Return the predictions of some rows: a list of values, or of objects where a row has several outputs."""
    values = {name: plain(array[begin:end]) for name, array in arrays.items()}
    if values.keys() == {PREDICTION}:
        return values[PREDICTION]
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def as_rows(arrays: Mapping[str, np.ndarray[Any, Any]], begin: int, end: int) -> list[dict[str, Any]]:
    """Return one mapping a row, by output."""
    values = [plain(array[begin:end]) for array in arrays.values()]
    return [dict(zip(arrays, row, strict=True)) for row in zip(*values, strict=True)]


def plain(array: np.ndarray[Any, Any]) -> list[Any]:
    """Return an array as lists of what JSON knows; NaN and ±Inf as `None`."""
    found: list[Any] = array.tolist()
    match array.dtype.kind:
        case "i" | "u" | "b":
            return found
        case "f":
            return found if bool(np.isfinite(array).all()) else [_plain(value) for value in found]
        case "O" | "U" | "S":
            return [_plain(value) for value in found]
        case _:
            return list(array.astype(str).tolist())


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return value.decode("utf-8", "replace")
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case np.ndarray():
            return plain(value)
        case np.generic():
            return _plain(value.item())
        case Sequence():
            return [_plain(inner) for inner in value]
        case _:
            return str(value)
