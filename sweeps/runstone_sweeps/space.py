"""The space that a sweep searches, as values. Knows neither files nor Optuna."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Real:
    """A float in `[low, high]`, on a log scale or in steps if asked for.

    Attributes:
        name: Path of the parameter with dots, such as `optimizer.lr`.
        low, high: Bounds, both included; with a step, `high` is the last value that a step reaches.
        log: Whether each factor, not each difference, is equally likely; then `low` is above 0.
        step: Distance of the values, counted from `low`; `None`: any float between.
    """

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def size(self) -> int | None:
        """How many values there are; `None` where there is no step."""
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step)) + 1

    @property
    def values(self) -> tuple[float, ...]:
        """Every value of a stepped range."""
        if self.step is None:
            return (self.low,)
        low, step = _exact(self.low), _exact(self.step)
        return tuple(float(low + i * step) for i in range(self.size or 0))


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in `[low, high]`, on a log scale or in steps if asked for; bounds as in `Real`."""

    name: str
    low: int
    high: int
    log: bool = False
    step: int = 1

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    @property
    def values(self) -> tuple[int, ...]:
        """Every value, in order."""
        return tuple(range(self.low, self.high + 1, self.step))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several JSON values without an order.

    Attributes:
        name: Path of the parameter with dots.
        values: The values themselves, lists and objects included.
    """

    name: str
    values: tuple[Any, ...]

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """What a sampler sees instead of each value: scalars as they are, lists and objects as JSON text."""
        return tuple(label(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Constant:
    """A parameter that every trial gets with the same value."""

    name: str
    value: Any


Parameter = Real | Whole | Choice | Constant
Searched = Real | Whole | Choice


def label(value: Any) -> Scalar:
    """Return the scalar that stands for `value` in a sampler and in a table."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value  # type: ignore[no-any-return]  # JSON values that are neither list nor dict are scalars


@dataclass(frozen=True, slots=True)
class Space:
    """All parameters of a sweep.

    A point of the space is a dict from dotted name to value; `nest` turns it into what a trial gets.
    """

    parameters: tuple[Parameter, ...]

    @property
    def searched(self) -> tuple[Searched, ...]:
        """The parameters that vary."""
        return tuple(p for p in self.parameters if not isinstance(p, Constant))

    @property
    def constants(self) -> dict[str, Any]:
        """Name and value of the parameters that do not vary."""
        return {p.name: p.value for p in self.parameters if isinstance(p, Constant)}

    @property
    def size(self) -> int | None:
        """How many points the space has; `None` where a range has no step."""
        sizes = [p.size for p in self.searched]
        return math.prod(s for s in sizes if s is not None) if None not in sizes else None

    def __iter__(self) -> Iterator[Parameter]:
        """Iterate over the parameters in the order in which they were written."""
        return iter(self.parameters)

    def to_labels(self, point: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the searched part of a point as a sampler sees it."""
        return {p.name: label(point[p.name]) if isinstance(p, Choice) else point[p.name] for p in self.searched}

    def from_labels(self, labels: Mapping[str, Scalar]) -> dict[str, Any]:
        """Return the whole point, constants included, in the order of the config."""
        point = {}
        for parameter in self.parameters:
            if isinstance(parameter, Constant):
                point[parameter.name] = parameter.value
            elif isinstance(parameter, Choice):
                point[parameter.name] = parameter.values[parameter.labels.index(labels[parameter.name])]
            else:
                point[parameter.name] = labels[parameter.name]
        return point


def nest(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"optimizer": {"lr": 0.1}}` for `{"optimizer.lr": 0.1}`."""
    nested: dict[str, Any] = {}
    for name, value in point.items():
        *folders, last = name.split(".")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return nested


def find_clash(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two names of which one would be both a value and a folder of the other, if there are such."""
    known = set(names)
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts)):
            if (prefix := ".".join(parts[:end])) in known:
                return prefix, name
    return None


def last_step(low: float, high: float, step: float) -> float:
    """Return the highest value that steps from `low` reach without passing `high`."""
    count = (_exact(high) - _exact(low)) // _exact(step)
    return float(_exact(low) + count * _exact(step))


def _exact(number: float) -> Fraction:
    """Return the decimal that was written, so that 0.3 is three steps of 0.1."""
    return Fraction(repr(number))
