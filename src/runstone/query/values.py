"""Values that a filter states: numbers, texts, moments, durations, and what comes of adding them. Knows no tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from runstone.index.conditions import Scalar

_WORDS = {"+": "added to", "-": "subtracted from", "*": "multiplied with", "/": "divided by"}


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: seconds since the epoch, UTC."""

    epoch_s: float

    @classmethod
    def of(cls, text: str) -> Moment | None:
        """Return the time that a text states, in UTC where it names no zone; `None` where it states none."""
        try:
            moment = datetime.fromisoformat(text.strip())
            return cls((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            return None


Value: TypeAlias = str | int | float | bool | Seconds | Moment | None


def plain_value(value: Seconds | Scalar) -> Scalar:
    """Return a value as params hold it: of a duration, its seconds."""
    return value.seconds if isinstance(value, Seconds) else value


def combined(operator: str, left: Value, right: Value) -> Value:
    """Return `left + right`, or what another operator makes of them.

    Raises:
        ValueError: they do not go together, or what comes of them is no number; the message says so.
    """
    if isinstance(left, str):  # a time that stands in quotes
        left = Moment.of(left) or left
    if isinstance(right, str):
        right = Moment.of(right) or right
    try:
        found = _combined(operator, left, right)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("what comes of this is too large") from None
    if found is None:
        raise ValueError(f"{_name(right)} cannot be {_WORDS[operator]} {_name(left)}")
    number = found.seconds if isinstance(found, Seconds) else found.epoch_s if isinstance(found, Moment) else found
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("what comes of this is too large")
    if isinstance(number, int) and number.bit_length() > 1_000:
        raise ValueError("what comes of this is too large")
    return found


def _combined(operator: str, left: Value, right: Value) -> int | float | Seconds | Moment | None:
    match left, operator, right:
        case (bool(), _, _) | (_, _, bool()):
            return None
        case ((int() | float()), "+", (int() | float())):
            return left + right
        case ((int() | float()), "-", (int() | float())):
            return left - right
        case ((int() | float()), "*", (int() | float())):
            return left * right
        case ((int() | float()), "/", (int() | float())):
            return left / right
        case Seconds(a), "+", Seconds(b):
            return Seconds(a + b)
        case Seconds(a), "-", Seconds(b):
            return Seconds(a - b)
        case Seconds(a), "/", Seconds(b):
            return a / b
        case Seconds(a), "*", (int() | float()):
            return Seconds(a * right)
        case Seconds(a), "/", (int() | float()):
            return Seconds(a / right)
        case ((int() | float()), "*", Seconds(b)):
            return Seconds(left * b)
        case Moment(a), "+", Seconds(b):
            return Moment(a + b)
        case Moment(a), "-", Seconds(b):
            return Moment(a - b)
        case Seconds(a), "+", Moment(b):
            return Moment(a + b)
        case Moment(a), "-", Moment(b):
            return Seconds(a - b)
        case _:
            return None


def _name(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case Seconds():
            return "a duration"
        case Moment():
            return "a time"
        case _:
            return "text"
