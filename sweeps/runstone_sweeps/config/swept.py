"""What the functions of an override word make: `range`, `interval`, `choice`, `tag`, casts. Knows no key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runstone_sweeps.space.scalars import exact, is_number


@dataclass(frozen=True, slots=True)
class Swept:
    """A parameter that varies: its body as a config has it."""

    body: dict[str, Any] = field(default_factory=dict)


class WrongWord(ValueError):
    """A word is not in the grammar; the message says why."""


def _arguments(name: str, given: list[Any], named: dict[str, Any], *known: str) -> dict[str, Any]:
    """Return positional and named arguments by name."""
    if len(given) > len(known):
        raise WrongWord(f"{name} takes {', '.join(known)}; got {len(given)} values")
    found = dict(zip(known, given, strict=False))
    for key, value in named.items():
        if key not in known or key in found:
            raise WrongWord(f"{name} has no {key} left to give; it takes {', '.join(known)}")
        found[key] = value
    return found


def _number(name: str, key: str, value: Any) -> float | int:
    if not is_number(value):
        raise WrongWord(f"{key} of {name} must be a finite number, got {value!r}")
    return value  # type: ignore[no-any-return]  # is_number has looked


def _choice(given: list[Any], named: dict[str, Any]) -> Swept:
    if named or not given:
        raise WrongWord("choice takes one value or more, without names")
    if any(isinstance(value, Swept) for value in given):
        raise WrongWord("choice holds values only")
    return Swept({"values": given})


def _range(given: list[Any], named: dict[str, Any]) -> Swept:
    """Read a range as Python does: the stop is not in it, and one number alone is the stop."""
    if len(given) == 1 and "stop" not in named and "start" not in named:
        given = [0, *given]
    found = {
        key: _number("range", key, v) for key, v in _arguments("range", given, named, "start", "stop", "step").items()
    }
    start, step = found.get("start", 0), found.get("step", 1)
    if "stop" not in found:
        raise WrongWord("range needs a stop")
    stop = found["stop"]
    if step == 0:
        raise WrongWord("step of range is 0")
    count = math.ceil((exact(stop) - exact(start)) / exact(step))
    if count < 1:
        raise WrongWord(f"range from {start} to {stop} by {step} holds nothing")
    last = exact(start) + (count - 1) * exact(step)
    is_whole = all(isinstance(number, int) for number in (start, stop, step))
    kind: Callable[[Any], float | int] = int if is_whole else float
    low, high = sorted((kind(exact(start)), kind(last)))
    if low == high:
        return Swept({"value": low})
    body: dict[str, Any] = {"min": low, "max": high, "type": "int" if is_whole else "float"}
    if not (is_whole and abs(step) == 1):
        body["step"] = abs(step)
    return Swept(body)


def _interval(given: list[Any], named: dict[str, Any]) -> Swept:
    found = _arguments("interval", given, named, "start", "end")
    if len(found) < 2:
        raise WrongWord("interval needs a start and an end")
    low, high = (_number("interval", key, found[key]) for key in ("start", "end"))
    return Swept({"min": low, "max": high, "type": "float"})


def _tag(given: list[Any], named: dict[str, Any]) -> Swept:
    if named or not given or not isinstance(given[-1], Swept):
        raise WrongWord("tag takes words and at last one of choice, range and interval")
    body = dict(given[-1].body)
    if "log" in given[:-1]:
        if "min" not in body:
            raise WrongWord("log goes with a range or an interval only")
        body["log"] = True
    return Swept(body)


def _sort(given: list[Any], named: dict[str, Any]) -> Any:
    is_reverse = named.pop("reverse", False)
    if named or not given:
        raise WrongWord("sort takes values, or one choice or range, and reverse")
    if len(given) == 1 and isinstance(given[0], Swept):
        body = given[0].body
        return Swept({"values": _sorted(body["values"], is_reverse)}) if "values" in body else given[0]
    if len(given) == 1 and isinstance(given[0], list):
        return _sorted(given[0], is_reverse)
    return Swept({"values": _sorted(given, is_reverse)})


def _sorted(values: list[Any], is_reverse: Any) -> list[Any]:
    try:
        return sorted(values, reverse=is_reverse is True)
    except TypeError:
        raise WrongWord("sort takes values of one kind") from None


def _shuffle(given: list[Any], named: dict[str, Any]) -> Any:
    """Leave the values as they are: a sampler does not look at their order."""
    if named or not given:
        raise WrongWord("shuffle takes values, or one choice or range")
    if len(given) == 1:
        return given[0]
    return _choice(given, named)


def _glob(_given: list[Any], _named: dict[str, Any]) -> Any:
    raise WrongWord("glob lists the options of a config group, which only Hydra has; write a choice")


def _cast(name: str, convert: Callable[[Any], Any]) -> Callable[[list[Any], dict[str, Any]], Any]:
    def cast(given: list[Any], named: dict[str, Any]) -> Any:
        if named or len(given) != 1:
            if named or not given:
                raise WrongWord(f"{name} takes one value")
            return Swept({"values": [one(value) for value in given]})
        return one(given[0])

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(inner) for inner in value]
        if isinstance(value, dict):
            return {key: one(inner) for key, inner in value.items()}
        if isinstance(value, Swept):
            return _cast_body(name, value.body, one)
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError):
            raise WrongWord(f"{value!r} cannot be made {name}") from None

    return cast


def _cast_body(name: str, body: dict[str, Any], one: Callable[[Any], Any]) -> Swept:
    if "min" not in body:
        key = next(iter(body))
        return Swept({key: one(body[key])})
    if name not in ("int", "float"):
        raise WrongWord(f"a range or interval cannot be made {name}")
    cast: dict[str, Any] = {key: one(body[key]) for key in ("min", "max", "step") if key in body}
    return Swept({**body, **cast, "type": name})


def _text(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, str):
        return bool(value)
    if value.lower() not in ("true", "false"):
        raise ValueError(value)
    return value.lower() == "true"


FUNCTIONS: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "choice": _choice,
    "range": _range,
    "interval": _interval,
    "tag": _tag,
    "sort": _sort,
    "shuffle": _shuffle,
    "glob": _glob,
    "int": _cast("int", int),
    "float": _cast("float", float),
    "str": _cast("str", _text),
    "bool": _cast("bool", _truth),
    "json_str": _cast("json_str", json.dumps),
}
