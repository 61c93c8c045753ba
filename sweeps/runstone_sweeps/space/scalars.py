"""JSON values and exact decimals: what the same value is, and what stands for one in a sampler."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

Scalar = None | bool | int | float | str


def label(value: Any) -> Scalar:
    """Return the scalar that stands for `value` in a sampler and in a table."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value  # type: ignore[no-any-return]  # JSON values that are neither list nor dict are scalars


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same; `true` and `1` are not, `1` and `1.0` are."""
    return isinstance(one, bool) == isinstance(other, bool) and label(one) == label(other)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def last_step(low: float, high: float, step: float) -> float:
    """Return the highest value that steps from `low` reach without passing `high`."""
    count = (exact(high) - exact(low)) // exact(step)
    return float(exact(low) + count * exact(step))


def exact(number: float) -> Fraction:
    """Return the decimal that was written, so that 0.3 is three steps of 0.1."""
    return Fraction(repr(number))
