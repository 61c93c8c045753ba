"""Params: any Python value becomes JSON, in bounded time and size; nested params get flat names. Knows no files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runstone.values import JSON


MAX_DEPTH = 64
MAX_TEXT = 2_000
# Known by name, so that a process which uses none of them need not import them.
_PLAIN_TEXT = frozenset({"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "uuid.UUID"}) | {
    "decimal.Decimal"
}


def to_json(value: Any) -> tuple[JSON, list[str]]:
    """Return `value` as JSON, and the places where something had to be kept as text.

    Kept as they are: JSON values of any length (floats may be NaN and ±Inf). Kept as their plain counterpart: tuples
    and sets as lists, NumPy and torch scalars as numbers, paths, dates, UUIDs and decimals as text, enum members as
    their value, dataclasses and mappings as objects. Everything else is kept as text with its type, such as
    `"<torch.nn.modules.linear.Linear> Linear(in_features=2, …)"`, of at most 2,000 characters.

    Args:
        value: Anything, cycles and objects whose `repr` raises included.

    Returns:
        The JSON, and the dotted places of what was kept as text with its type.
    """
    places: list[str] = []
    return _convert(value, "", 0, places, frozenset()), places


def _convert(value: Any, place: str, depth: int, places: list[str], above: frozenset[int]) -> JSON:
    if value is None or value.__class__ in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    if isinstance(value, Enum):
        inner = value.value
        return inner if isinstance(inner, bool | int | float | str) else value.name
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, PurePath) or _type_name(value) in _PLAIN_TEXT:
        return str(value)
    if depth >= MAX_DEPTH or id(value) in above:
        places.append(place)
        return f"<{_type_name(value)}> (nested too deep)" if depth >= MAX_DEPTH else f"<{_type_name(value)}> (cycle)"
    above = above | {id(value)}
    if isinstance(value, Mapping):
        return _convert_mapping(value, place, depth, places, above)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=_short_repr) if isinstance(value, set | frozenset) else value
        return [_convert(item, _join(place, str(n)), depth + 1, places, above) for n, item in enumerate(items)]
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        mapping = {name: getattr(value, name, None) for name in fields}
        return _convert_mapping(mapping, place, depth, places, above)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        with contextlib.suppress(Exception):  # foreign code: a scalar that cannot be read is kept as text
            inner = value.item()
            if inner.__class__ in (bool, int, float, str):
                return inner  # type: ignore[no-any-return]
    places.append(place)
    return f"<{_type_name(value)}> {_short_repr(value)}"


def _convert_mapping(
    value: Mapping[Any, Any], place: str, depth: int, places: list[str], above: frozenset[int]
) -> JSON:
    result: dict[str, JSON] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else str(_convert(key, place, depth + 1, [], above))
        if name in result:  # 1 and "1" are two keys in Python and one in JSON
            places.append(_join(place, name))
            name = f"<{_type_name(key)}> {name}"
        result[name] = _convert(item, _join(place, name), depth + 1, places, above)
    return result


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short_repr(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape) > 0:  # arrays, tensors, frames: their repr reads data, maybe off a GPU
        return f"shape {tuple(shape)}, dtype {getattr(value, 'dtype', '?')}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', '?')}.{value.__qualname__}"
    try:
        text = repr(value)
    except Exception as error:  # foreign code in a repr may raise anything
        return f"(its repr raises {type(error).__name__})"
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def flatten_params(params: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return nested params under flat names: `{"model": {"layers": [64, 32]}}` is `{"model.layers": [64, 32]}`.

    Objects are opened, and lists that hold objects (by index, `blocks.0.width`); other lists, and empty objects, stay
    one value. A dot or backslash inside a key is escaped with a backslash, so that two params never share a name.
    """
    flat: dict[str, JSON] = {}
    _flatten(params, "", flat)
    return flat


def _flatten(value: JSON | Mapping[str, JSON], name: str, flat: dict[str, JSON]) -> None:
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            _flatten(item, _join(name, key.replace("\\", "\\\\").replace(".", "\\.")), flat)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            _flatten(item, _join(name, str(index)), flat)
    else:
        flat[name] = value  # type: ignore[assignment]


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
