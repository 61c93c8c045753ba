"""Params: any Python value becomes JSON, in bounded time and size; nested params get flat names. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runstone.values import JSON


MAX_DEPTH = 64
MAX_COMPOUNDS = 200_000
MAX_TEXT = 2_000
_MAX_INT_BITS = 14_000  # Python writes and reads integers of up to 4,300 digits
# Known by name, so that a process which uses none of them need not import them.
_PLAIN_TEXT = frozenset({"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "uuid.UUID"}) | {
    "decimal.Decimal"
}


def to_json(value: Any) -> tuple[JSON, list[str]]:
    """Return `value` as JSON, and the places where something had to be kept as text.

    Kept as they are: JSON values of any length (floats may be NaN and ±Inf). Kept as their plain counterpart: tuples
    and sets as lists, NumPy and torch scalars as numbers, paths, dates, UUIDs and decimals as text, enum members as
    their value, dataclasses and mappings as objects. Everything else is kept as text with its type, such as
    `"<torch.nn.modules.linear.Linear> Linear(in_features=2, …)"`, of at most 2,000 characters; so is what lies more
    than 64 deep, or comes after 200,000 lists and objects.

    Args:
        value: Anything, cycles and objects whose own code raises included.

    Returns:
        The JSON, and the dotted places of what was kept as text with its type.
    """
    conversion = _Conversion()
    return conversion.convert(value, "", ()), conversion.places


class _Conversion:
    """One call of `to_json`."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self._left = MAX_COMPOUNDS

    def convert(self, value: Any, place: str, above: tuple[int, ...]) -> JSON:
        """Return one value, whatever its own code does."""
        kind = type(value)  # never `__class__`, which an object may lie about
        if kind is str or kind is bool or kind is float or value is None:
            return value  # type: ignore[no-any-return]
        if kind is int and value.bit_length() < _MAX_INT_BITS:
            return value  # type: ignore[no-any-return]
        if len(above) >= MAX_DEPTH:
            return self._text(value, place, "(nested too deep)")
        if id(value) in above:
            return self._text(value, place, "(cycle)")
        try:
            return self._plain(value, place, above)
        except Exception as error:  # foreign code may raise anything
            return self._text(value, place, f"(reading it raises {type(error).__name__})")

    def _plain(self, value: Any, place: str, above: tuple[int, ...]) -> JSON:
        if isinstance(value, Enum):
            inner = value.value
            return self.convert(inner, place, above) if isinstance(inner, bool | int | float | str) else value.name
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            number = int(value)
            return number if number.bit_length() < _MAX_INT_BITS else self._text(value, place, hex(number)[:MAX_TEXT])
        if isinstance(value, float):
            return float(value)
        if isinstance(value, PurePath) or _type_name(value) in _PLAIN_TEXT:
            return str(value)
        self._left -= 1
        if self._left < 0:
            return self._text(value, place, f"(after {MAX_COMPOUNDS} nested values)")
        above = (*above, id(value))
        if isinstance(value, Mapping):
            return self._mapping(value, place, above)
        if isinstance(value, list | tuple | set | frozenset):
            items = sorted(value, key=_short_repr) if isinstance(value, set | frozenset) else value
            return [self.convert(item, _join(place, str(n)), above) for n, item in enumerate(items)]
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None:
            return self._mapping({name: getattr(value, name, None) for name in fields}, place, above)
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            inner = value.item()
            if type(inner) in (bool, int, float, str):
                return self.convert(inner, place, above)
        return self._text(value, place, _short_repr(value))

    def _mapping(self, value: Mapping[Any, Any], place: str, above: tuple[int, ...]) -> JSON:
        result: dict[str, JSON] = {}
        for key, item in value.items():
            # looking at a key must note no place: a key that is text with its type is told by its value's name
            name = str.__str__(key) if isinstance(key, str) else str(_Conversion().convert(key, place, above))
            while name in result:  # 1 and "1" are two keys in Python and one in JSON
                self.places.append(_join(place, name))
                name = f"<{_type_name(key)}> {name}"
            result[name] = self.convert(item, _join(place, name), above)
        return result

    def _text(self, value: Any, place: str, text: str) -> str:
        self.places.append(place)
        return f"<{_type_name(value)}> {text}"


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short_repr(value: Any) -> str:
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and len(shape) > 0:  # arrays, tensors, frames: their repr reads data, off a GPU too
            return f"shape {tuple(shape)}, dtype {getattr(value, 'dtype', '?')}"
        if callable(value) and hasattr(value, "__qualname__"):
            return f"{getattr(value, '__module__', '?')}.{value.__qualname__}"
        text = repr(value)
    except Exception as error:  # foreign code may raise anything
        return f"(its repr raises {type(error).__name__})"
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def flatten_params(params: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return nested params under flat names: `{"model": {"layers": [64, 32]}}` is `{"model.layers": [64, 32]}`.

    Objects are opened, and lists that hold objects (by index, `blocks.0.width`); other lists, and empty objects, stay
    one value. A dot or backslash inside a key is escaped with a backslash, so that two params never share a name.
    """
    flat: dict[str, JSON] = {}
    _flatten(params, None, flat)
    return flat


def _flatten(value: JSON | Mapping[str, JSON], name: str | None, flat: dict[str, JSON]) -> None:
    if name is not None and isinstance(value, (str, int, float)):  # nearly all: without the slow look for a mapping
        flat[name] = value
        return
    above = "" if name is None else f"{name}."
    if isinstance(value, Mapping) and (value or name is None):
        for key, item in value.items():
            _flatten(item, above + key.replace("\\", "\\\\").replace(".", "\\."), flat)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            _flatten(item, f"{above}{index}", flat)
    else:
        flat[name or ""] = value  # type: ignore[assignment]


def merge_params(standing: dict[str, JSON], new: Mapping[str, JSON]) -> None:
    """Merge `new` into `standing`, key by key through nested objects; a later value wins."""
    for key, item in new.items():
        below = standing.get(key)
        if isinstance(below, dict) and isinstance(item, dict):
            merge_params(below, item)
        else:
            standing[key] = item


def is_equal(left: JSON, right: JSON) -> bool:
    """Return whether two params are the same value; NaN equals NaN, and `True` is not 1."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return True
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(is_equal(item, right[key]) for key, item in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_equal, left, right))
    return left == right
