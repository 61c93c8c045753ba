"""From what a user logs to what a slot holds: numbers, texts, steps, nested names. Knows no file."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from typing import Any

from runstone.errors import InvalidValue
from runstone.names import check_name, shown
from runstone.runlog import format as fmt

MAX_TEXT_BYTES = 1 << 16
"""The longest text, in UTF-8, that a metric takes; longer ones are for `log_text`, which keeps them as files."""

_MAX_DEPTH = 32
INT64 = range(-(2**63), 2**63)
# Known by the package that their class comes from: none of them need be installed.
_BETTER = {"PIL": "log_image", "matplotlib": "log_figure", "plotly": "log_figure", "pandas": "log_table"}


def to_scalar(name: object, value: Any) -> float | int | bool:
    """Return a Python number for anything that stands for one: NumPy scalars, 0-d arrays, tensors of one element.

    Raises:
        InvalidValue: it is not one real number.
    """
    if isinstance(value, bool | int | float):
        return float(value) if isinstance(value, float) else value
    item = getattr(value, "item", None)
    if item is not None:
        try:
            inner = item()
        except Exception:  # foreign code may raise anything
            raise not_one_number(name, value) from None
        if isinstance(inner, bool | int | float):
            return inner
        value = inner
    if not isinstance(value, str | bytes | complex):
        with contextlib.suppress(Exception):  # likewise
            return float(value)
    hint = ""
    if isinstance(value, bytes):
        hint = "; decode bytes to text first"
    elif isinstance(value, Mapping):
        hint = f"; mappings are opened at most {_MAX_DEPTH} deep, and not inside themselves"
    elif better := _BETTER.get(type(value).__module__.partition(".")[0]):
        hint = f"; {better} takes it"
    raise InvalidValue(f"metric {name!r:.80} must be a number, got {shown(value)}{hint}")


def not_one_number(name: object, value: Any) -> InvalidValue:
    """Return the error for an array or tensor that has not exactly one element."""
    shape = tuple(getattr(value, "shape", ()))
    return InvalidValue(
        f"metric {name!r:.80} must be one number, got {type(value).__name__} of shape {shape}; log its mean, or take "
        "log_series for values of many steps and log_histogram for the values of one"
    )


def to_text(name: object, value: str) -> bytes:
    """Return a text as UTF-8; halves of surrogate pairs, which UTF-8 lacks, are written as `\\udcff`.

    Raises:
        InvalidValue: it is too long for a metric.
    """
    data = encode_text(value)
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidValue(
            f"metric {name!r:.80} has a text of {len(data)} bytes, at most {MAX_TEXT_BYTES} are kept here; "
            "log_text takes longer ones"
        )
    return data


def encode_text(text: str) -> bytes:
    """Return any text as UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def flatten_metrics(
    metrics: Mapping[Any, Any], prefix: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[Any, Any]]:
    """Yield `(name, value)` of nested metrics: `{"train": {"loss": 1.0}}` is `train/loss`.

    A mapping that is too deep, or that holds itself, is yielded as a value, for `to_scalar` to refuse.
    """
    above = (*above, id(metrics))
    for key, value in metrics.items():
        name = f"{prefix}{key}" if prefix else key
        if isinstance(value, Mapping) and len(above) <= _MAX_DEPTH and id(value) not in above:
            yield from flatten_metrics(value, f"{name}/", above)
        else:
            yield name, value


def kind_of(number: float | int | bool) -> tuple[int, float | int]:
    """Return the type under which a number is kept. An integer beyond 64 bits is kept as the nearest float.

    Raises:
        InvalidValue: it is too large for a float too.
    """
    if isinstance(number, bool):
        return fmt.TYPE_BOOL, int(number)
    if isinstance(number, int):
        if number in INT64:
            return fmt.TYPE_INT, number
        try:
            return fmt.TYPE_FLOAT, float(number)
        except OverflowError:
            raise InvalidValue(f"the integer has {number.bit_length()} bits, too many for a metric") from None
    return fmt.TYPE_FLOAT, number


def as_step(step: Any) -> int | None:
    """Return a step as the integer that it is kept as; `None` where it is none of 64 bits."""
    try:
        number = operator.index(step)
    except Exception:  # foreign code may raise anything
        return None
    return number if number in INT64 else None


def step_error(step: object) -> InvalidValue:
    """Return the error for a step that is no 64-bit integer."""
    return InvalidValue(f"step must be an integer of 64 bits, got {shown(step)}")


def check_name_and_step(name: object, step: object) -> None:
    """Refuse at once what could not be kept later.

    Raises:
        InvalidName, InvalidValue: the name or the step cannot be kept.
    """
    check_name(name, "metric")
    if as_step(step) is None:
        raise step_error(step)
