"""Values as other tools write them: numbers in JSON and text, times in several units, names nested."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

_LAST_TIME = 253_402_300_800.0
_WORDS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}
_MOST_DEPTH = 32


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says, NaN and Infinity included; `Unreadable` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError):
        return UNREADABLE


class _Unreadable:
    """What `parse_json` returns where there is nothing to return."""


UNREADABLE = _Unreadable()


def is_number(value: object) -> bool:
    """Return whether a value is what a metric takes."""
    return isinstance(value, bool | int | float)


def as_number(value: object) -> float | int | bool | None:
    """Return a number; words such as `NaN` and `-Infinity` are numbers, too. `None`: it is none."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower().removeprefix("+"))
    return None


def number_in(text: str) -> float | int | None:
    """Return the number that a text is, as in a CSV file; `None` where it is none or empty."""
    text = text.strip()
    if not text or "_" in text or len(text) > 400:
        return None
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except (ValueError, OverflowError):
        return None


def epoch_s(value: object, unit_s: float = 1.0) -> float | None:
    """Return a time as seconds since the Unix epoch: a number in some unit, or ISO 8601; `None` where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, int | float):
        try:
            seconds = float(value) * unit_s
        except OverflowError:
            return None
        return seconds if math.isfinite(seconds) and 0 <= seconds < _LAST_TIME else None
    if isinstance(value, str):
        try:
            return epoch_s(datetime.fromisoformat(value.replace(" UTC", "+00:00")))
        except ValueError:
            return None
    return None


def flatten(value: Mapping[Any, Any], separator: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield name and value of nested mappings; one that names its own `_type` is a value, as is what is too deep."""
    for key, item in value.items():
        name = f"{prefix}{separator}{key}" if prefix else str(key)
        if isinstance(item, Mapping) and "_type" not in item and item and depth < _MOST_DEPTH:
            yield from flatten(item, separator, name, depth + 1)
        else:
            yield name, item


def nest(flat: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Return names with separators as nested objects; a name that is also a prefix keeps its separator."""
    nested: dict[str, Any] = {}
    for name in sorted(flat):
        parts = name.split(separator)
        place = nested
        for number, part in enumerate(parts):
            if number == len(parts) - 1:
                place[part] = flat[name]
                break
            below = place.setdefault(part, {})
            if not isinstance(below, dict) or number > _MOST_DEPTH:
                place[separator.join(parts[number:])] = flat[name]
                break
            place = below
    return nested
