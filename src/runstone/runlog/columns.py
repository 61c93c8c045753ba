"""Whole arrays of points: anything array-like becomes columns, and columns become slots. NumPy, no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue
from runstone.names import shown
from runstone.runlog import format as fmt

# As `portions.SLOT`, with the value as bits: a copy through a float register may change a signalling NaN.
RAW_SLOT = np.dtype([("step", "<i8"), ("wall", "<f8"), ("value", "<i8"), ("key", "<u4"), ("commit", "<u4")])


@dataclass(frozen=True, slots=True)
class Columns:
    """Points of one metric.

    Attributes:
        kind: A key type of `runlog.format`.
        steps: int64, shape `(n,)`.
        bits: What the slots hold, as int64, shape `(n,)`.
    """

    kind: int
    steps: NDArray[np.int64]
    bits: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.steps)

    def fill(self, slots: NDArray[np.void], first: int, wall: float, key: int) -> int:
        """Store points into `slots`, all but the commit word; return the first that has not been stored."""
        after = first + len(slots)
        slots["step"] = self.steps[first:after]
        slots["wall"] = wall
        slots["value"] = self.bits[first:after]
        slots["key"] = key
        return after


def to_columns(name: object, steps: Any, values: Any) -> Columns:
    """Return steps and values of one metric as columns.

    Raises:
        InvalidValue: they are not one-dimensional, not of one length, or not integers and real numbers.
    """
    step, value = _one_dimensional(name, "steps", steps), _one_dimensional(name, "values", values)
    if len(step) != len(value):
        raise InvalidValue(f"series {name!r:.80} has {len(step)} steps and {len(value)} values; give one for each")
    if len(step) and (step.dtype.kind not in "iu" or (step.dtype.kind == "u" and int(step.max()) >= 2**63)):
        raise InvalidValue(f"steps of series {name!r:.80} must be integers of 64 bits, got {step.dtype} {shown(steps)}")
    kind = value.dtype.kind
    if kind == "b":
        return Columns(fmt.TYPE_BOOL, step.astype(np.int64), value.astype(np.int64))
    if kind in "iu" and not (kind == "u" and len(value) and int(value.max()) >= 2**63):
        return Columns(fmt.TYPE_INT, step.astype(np.int64), value.astype(np.int64))
    if kind in "iuf":
        floats = np.ascontiguousarray(value, np.float64)
        return Columns(fmt.TYPE_FLOAT, step.astype(np.int64), floats.view(np.int64))
    raise InvalidValue(f"values of series {name!r:.80} must be numbers, got {value.dtype} {shown(values)}")


def to_array(values: Any) -> NDArray[Any]:
    """Return anything array-like as a NumPy array: sequences, tensors of torch wherever they lie, JAX, TensorFlow.

    A tensor on a GPU is waited for.
    """
    detach = getattr(values, "detach", None)
    if detach is not None:
        tensor = detach()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy has no such type
            tensor = tensor.float()
        return np.asarray(tensor.cpu())
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array  # JAX's


def _one_dimensional(name: object, what: str, given: Any) -> NDArray[Any]:
    try:
        array = to_array(given)
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(
            f"{what} of series {name!r:.80} are no array: {type(error).__name__}: {error}; got {shown(given)}"
        ) from None
    if array.ndim != 1:
        raise InvalidValue(
            f"{what} of series {name!r:.80} must have one dimension, got shape {array.shape} from {shown(given)}"
        )
    return array
