"""JSON as the API speaks it: what JSON lacks is text, times are seconds; and what it takes from others, strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any

from starlette.responses import Response

_LARGEST = 1 << 63
_MOST_KEYS = 10_000
"""Of one object: no request has so many fields, and each that is not known would be an error of its own."""


class BadJson(ValueError):
    """A body that is not the JSON that the API takes."""


class Json(Response):
    """An answer as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of a value."""
        return dumps(content)


def dumps(value: Any) -> bytes:
    """Return a value as JSON: NaN and ±Inf as `"NaN"`, `"Infinity"`, `"-Infinity"`; times as seconds of the epoch."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_known)
    except ValueError:  # a number that JSON lacks: rare, so that the fast way is tried first
        text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def number(value: float | None) -> float | str | None:
    """Return a number as JSON has it, else the word that stands for it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _known(value: Any) -> Any:
    """Return what stands for a value that JSON has no form for."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if isinstance(value, PurePath):
        return value.name  # where things lie on this machine is nobody's business
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):  # NumPy
        return value.tolist()
    return str(value)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return number(value)
        case dict():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return _plain(_known(value))


def loads(data: bytes, *, depth: int) -> Any:
    """Return the value of a body.

    Raises:
        BadJson: it is no UTF-8, begins with a byte order mark, is deeper than `depth`, names a key twice, has an
            object of very many keys, or holds what JSON lacks: NaN, a number that no float or integer of 64 bits
            holds, half a surrogate pair.
    """
    if data[:3] == b"\xef\xbb\xbf":
        raise BadJson("the body begins with a byte order mark; send plain UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 at byte {error.start}") from None
    _check_depth(text, depth)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_float, parse_int=_int
        )
    except json.JSONDecodeError as error:
        raise BadJson(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise BadJson("the body is too deep") from None
    if "\\u" in text:
        _check_text(value)
    return value


def _check_depth(text: str, most: int) -> None:
    """Refuse what is too deep before it is parsed: brackets inside of strings do not count."""
    level, is_inside, is_escaped = 0, False, False
    if text.count("[") + text.count("{") <= most:
        return
    for sign in text:
        if is_inside:
            if is_escaped:
                is_escaped = False
            elif sign == "\\":
                is_escaped = True
            elif sign == '"':
                is_inside = False
        elif sign == '"':
            is_inside = True
        elif sign in "[{":
            level += 1
            if level > most:
                raise BadJson(f"the body is deeper than {most} levels")
        elif sign in "]}":
            level -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > _MOST_KEYS:
        raise BadJson(f"an object of the body has more than {_MOST_KEYS:,} keys")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _value in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJson(f"the key {twice!r:.80} is there twice")
    return found


def _no_constant(word: str) -> Any:
    raise BadJson(f'{word} is no JSON; send it as text: "{word}"')


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson(f"the number {text:.40} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= (value := int(text)) < _LARGEST:
        raise BadJson(f"the number {text:.40} is no integer of 64 bits")
    return value


def _check_text(value: Any) -> None:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                raise BadJson("the body holds half of a surrogate pair") from None
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
