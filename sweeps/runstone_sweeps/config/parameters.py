"""Reads `parameters` into a space, and `points` of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from runstone_sweeps.config.conditions import Wish, read_conditions
from runstone_sweeps.config.mistakes import Count, Mistakes, join_words, nearest, show
from runstone_sweeps.config.shape import DrawnShape, RangeShape, add_errors
from runstone_sweeps.space import (
    Choice,
    Constant,
    Drawn,
    Law,
    Parameter,
    Real,
    Space,
    Whole,
    find_clash,
    label,
    last_step,
)
from runstone_sweeps.space.conditions import Condition
from runstone_sweeps.space.scalars import exact

_KINDS = ("min and max", "values", "value", "distribution", "parameters")
# Keys that go with each kind of parameter, beside the one that makes it this kind.
_COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "values": ("when", "probabilities"),
    "value": ("when",),
    "parameters": ("when",),
}
_LAW_KEYS: Mapping[str, tuple[str, ...]] = {
    "normal": ("mu", "sigma"),
    "log_normal": ("mu", "sigma"),
    "beta": ("a", "b"),
    "uniform": (),
    "log_uniform": (),
    "inv_log_uniform": (),
}
PARAMETER_KEYS = (
    "min", "max", "log", "step", "type", "values", "probabilities", "value", "distribution", "mu", "sigma", "a", "b",
    "when", "parameters",
)  # fmt: skip


def read_space(raw: Any, mistakes: Mistakes) -> Space:
    """Read the parameters and their conditions; what is wrong is left out of the space."""
    if raw is None or raw == {}:
        mistakes.add(("parameters",), "is missing; name what to search, as `lr: {min: 1e-4, max: 1e-1, log: true}`")
        return Space(())
    if not isinstance(raw, dict):
        mistakes.add(("parameters",), f"must be a mapping from names to ranges, got {show(raw)}")
        return Space(())
    reader = _Reader(mistakes)
    reader.read(raw, (), ("parameters",), ())
    names = [parameter.name for parameter in reader.found]
    doubled = {name for name in names if names.count(name) > 1}
    for name in sorted(doubled):
        mistakes.add(("parameters",), f"{name} is defined twice, once with dots and once nested")
    if clash := find_clash(names):
        mistakes.add(("parameters",), f"{clash[0]} is a value and also holds {clash[1]}; rename one of them")
    if doubled or clash:
        return Space(tuple(reader.found))
    parameters = {parameter.name: parameter for parameter in reader.found}
    conditions: dict[str, Condition] = read_conditions(parameters, reader.wishes, mistakes)
    return Space(tuple(reader.found), conditions)


class _Reader:
    """Walks through nested parameters and keeps what it finds."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.found: list[Parameter] = []
        self.wishes: list[Wish] = []
        self._mistakes = mistakes

    def read(
        self, raw: dict[Any, Any], folder: tuple[str, ...], path: tuple[str | int, ...], wishes: tuple[Wish, ...]
    ) -> None:
        """Read a mapping of parameters; `wishes` are the conditions of the folders that it is in."""
        for key, body in raw.items():
            here = (*path, key)
            parts = (*folder, *str(key).split("."))
            if not all(part.strip() for part in parts):
                self._mistakes.add(here, "a part of this name is empty")
                continue
            name = ".".join(parts)
            if not isinstance(body, dict):
                needed = join_words(("min and max", "values", "value"))
                self._mistakes.add(here, f"must be a mapping with {needed}, got {show(body)}")
                continue
            inner = wishes
            if "when" in body:
                inner = (*wishes, Wish(name, folder, body["when"], (*here, "when")))
            if "parameters" in body and set(body) <= {"parameters", "when"} and isinstance(body["parameters"], dict):
                self.read(body["parameters"], parts, (*here, "parameters"), inner)
            elif parameter := _read_parameter(name, body, here, self._mistakes):
                self.found.append(parameter)
                self.wishes += [wish.of(name) for wish in inner]


def _read_parameter(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: Mistakes
) -> Parameter | None:
    kinds: list[str] = [kind for kind in ("value", "values", "distribution", "parameters") if kind in body]
    if ("min" in body or "max" in body) and "distribution" not in body:
        kinds.append("min and max")
    if not kinds:
        unknown = [key for key in body if key not in PARAMETER_KEYS]
        for key in unknown:
            mistakes.add((*path, key), f"is not a key here{nearest(str(key), PARAMETER_KEYS)}")
        if not unknown:
            mistakes.add(path, f"needs {join_words(_KINDS)}")
        return None
    if len(kinds) > 1:
        mistakes.add(path, f"has {' and also '.join(kinds)}; keep one of them")
        return None
    body = {key: value for key, value in body.items() if key != "when"}
    if kinds[0] == "min and max":
        return _read_range(name, body, path, mistakes)
    if kinds[0] == "distribution":
        return _read_drawn(name, body, path, mistakes)
    extra = [key for key in body if key != kinds[0] and key not in _COMPANIONS[kinds[0]]]
    for key in extra:
        mistakes.add((*path, key), f"does not go with {kinds[0]}")
    if extra:
        return None
    if kinds[0] == "parameters":
        mistakes.add((*path, "parameters"), f"must be a mapping of parameters, got {show(body['parameters'])}")
        return None
    if kinds[0] == "value":
        if isinstance(body["value"], float) and not math.isfinite(body["value"]):
            mistakes.add((*path, "value"), f"is {body['value']}; a value must be finite")
            return None
        return Constant(name, body["value"])
    return _read_values(name, body, path, mistakes)


def _read_values(name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: Mistakes) -> Choice | None:
    values = body["values"]
    if not isinstance(values, list) or not values:
        mistakes.add((*path, "values"), f"must be a list with at least one value, got {show(values)}")
        return None
    labels = [label(value) for value in values]
    for index, value in enumerate(labels):
        if isinstance(value, float) and not math.isfinite(value):
            mistakes.add((*path, "values", index), f"is {value}; a value must be finite")
            return None
        # Python and the samplers hold 1, 1.0 and true for the same.
        if value in labels[:index]:
            other = show(values[labels.index(value)])
            mistakes.add((*path, "values", index), f"{show(values[index])} equals {other}")
            return None
    if "probabilities" not in body:
        return Choice(name, tuple(values))
    shares = body["probabilities"]
    here = (*path, "probabilities")
    if not isinstance(shares, list) or len(shares) != len(values):
        mistakes.add(here, f"must be a list with one number for each of the {len(values)} values, got {show(shares)}")
        return None
    for index, share in enumerate(shares):
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < math.inf:
            mistakes.add((*here, index), f"must be a number above 0, got {show(share)}")
            return None
    return Choice(name, tuple(values), tuple(share / math.fsum(shares) for share in shares))


def _read_range(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: Mistakes
) -> Real | Whole | None:
    try:
        shape = RangeShape.model_validate(body)
    except ValidationError as error:
        add_errors(error, path, mistakes, RangeShape)
        return None
    low, high, step = shape.min, shape.max, shape.step
    is_whole = shape.type == "int" or (
        shape.type is None and all(isinstance(n, int) for n in (low, high, step) if n is not None)
    )
    before = Count(mistakes)
    for key, number in (("min", low), ("max", high), ("step", step)):
        if number is not None and not math.isfinite(number):
            before.add((*path, key), f"is {number}; it must be finite")
        elif number is not None and is_whole and number != int(number):
            before.add((*path, key), f"is {number}; a parameter of type int needs whole numbers")
        elif number is not None and abs(number) > 2**53 and is_whole:
            before.add((*path, key), f"is {number}; whole numbers beyond 2^53 are not searched")
    if before.count:
        return None
    if low > high:
        before.add((*path, "min"), f"{low} is above max {high}")
    if shape.log and low <= 0:
        before.add((*path, "min"), f"is {low}; a log scale needs a min above 0")
    if step is not None and step <= 0:
        before.add((*path, "step"), f"is {step}; it must be above 0")
    elif step is not None and shape.log:
        before.add((*path, "step"), "does not go with log: true; leave one of them out")
    elif step is not None and step > high - low and low != high:
        before.add((*path, "step"), f"{step} is wider than the range from {low} to {high}")
    if before.count:
        return None
    if is_whole:
        whole_step = int(step or 1)
        return Whole(name, int(low), int(high) - (int(high) - int(low)) % whole_step, shape.log, whole_step)
    top = last_step(low, high, step) if step else float(high)
    return Real(name, float(low), top, shape.log, None if step is None else float(step))


def _read_drawn(
    name: str, body: dict[str, Any], path: tuple[str | int, ...], mistakes: Mistakes
) -> Real | Whole | Drawn | None:
    """Read a parameter with a `distribution`; with it, a step means rounding to its multiples."""
    try:
        shape = DrawnShape.model_validate(body)
    except ValidationError as error:
        add_errors(error, path, mistakes, DrawnShape)
        return None
    before = Count(mistakes)
    has_bounds = shape.distribution in ("uniform", "log_uniform", "inv_log_uniform")
    for key in ("mu", "sigma", "a", "b"):
        if key in body and key not in _LAW_KEYS[shape.distribution]:
            before.add((*path, key), f"does not go with the distribution {shape.distribution}")
    for key in ("min", "max"):
        if has_bounds and key not in body:
            before.add((*path, key), "is missing")
    low, high, step = shape.min, shape.max, shape.step
    if low is not None and high is not None and low >= high:
        before.add((*path, "min"), f"{body['min']} is not below max {body['max']}")
    elif has_bounds and shape.distribution != "uniform" and low is not None and low <= 0:
        before.add((*path, "min"), f"is {body['min']}; a log scale needs a min above 0")
    if shape.type == "int" and step is None:
        before.add((*path, "step"), "is missing; whole numbers of a distribution need a step, such as 1")
    if step is not None and shape.type == "int" and not float(step).is_integer():
        before.add((*path, "step"), f"is {step}; a parameter of type int needs whole numbers")
    if before.count:
        return None
    is_whole = step is not None and shape.type != "float" and isinstance(body["step"], int)
    is_whole = is_whole or shape.type == "int"
    if has_bounds and low is not None and high is not None:
        is_log = shape.distribution != "uniform"
        if step is None:
            return Real(name, float(low), float(high), is_log)
        if not is_log and (exact(float(low)) / exact(float(step))).denominator == 1:
            kind = "int" if is_whole else "float"
            return _read_range(name, {**_pick(body, "min", "max", "step"), "type": kind}, path, mistakes)
        law: Law = "log_uniform" if is_log else "uniform"
        return Drawn(name, law, float(low), float(high), step=float(step), is_whole=is_whole)
    first, second = (shape.a, shape.b) if shape.distribution == "beta" else (shape.mu, shape.sigma)
    return _check_drawn(
        Drawn(
            name,
            shape.distribution,  # type: ignore[arg-type]  # those with bounds were left above
            float(first),
            float(second),
            None if low is None else float(low),
            None if high is None else float(high),
            None if step is None else float(step),
            is_whole,
        ),
        path,
        mistakes,
    )


def _check_drawn(drawn: Drawn, path: tuple[str | int, ...], mistakes: Mistakes) -> Drawn | None:
    """Return the parameter if there is something to draw between its bounds and a float can hold it."""
    low, high = drawn.bounds
    if low >= high or drawn.share_kept < 1e-6:
        mistakes.add(path, "min and max cut off all of the distribution that is likely; widen them")
        return None
    try:
        ends = [drawn.from_label(0.0), drawn.from_label(1.0)]
    except OverflowError:
        ends = [math.inf]
    if not all(map(math.isfinite, ends)):
        mistakes.add(path, "reaches numbers that a float cannot hold; give a max or a smaller sigma")
        return None
    return drawn


def _pick(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body[key] for key in keys if key in body}
