"""The parameters of a space, as values: what each may be, and what a sampler sees instead.

A sampler sees numbers and words of its own kinds. Where a parameter has a shape that no sampler knows (a
normal distribution, values of unequal shares), it sees the quantile: a float in [0, 1], every one as likely.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runstone_sweeps.space.drawn import Drawn
from runstone_sweeps.space.scalars import Scalar, exact, is_number, is_same, label


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

    is_quantile = False

    @property
    def size(self) -> int | None:
        """How many values there are; `None` where there is no step."""
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((exact(self.high) - exact(self.low)) / exact(self.step)) + 1

    @property
    def values(self) -> tuple[float, ...]:
        """Every value of a stepped range."""
        if self.step is None:
            return (self.low,)
        low, step = exact(self.low), exact(self.step)
        return tuple(float(low + i * step) for i in range(self.size or 0))

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of those that this parameter can have."""
        if not is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or ((exact(value) - exact(self.low)) / exact(self.step)).denominator == 1

    def to_label(self, value: float) -> Scalar:
        """Return what a sampler sees."""
        return value

    def from_label(self, seen: Any) -> float:
        """Return the value."""
        return float(seen)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in `[low, high]`, on a log scale or in steps if asked for; bounds as in `Real`."""

    name: str
    low: int
    high: int
    log: bool = False
    step: int = 1

    is_quantile = False

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    @property
    def values(self) -> tuple[int, ...]:
        """Every value, in order."""
        return tuple(range(self.low, self.high + 1, self.step))

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of those that this parameter can have."""
        if not is_number(value) or value != value // 1:
            return False
        return bool(self.low <= value <= self.high and (value - self.low) % self.step == 0)

    def to_label(self, value: int) -> Scalar:
        """Return what a sampler sees."""
        return value

    def from_label(self, seen: Any) -> int:
        """Return the value."""
        return int(seen)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several JSON values without an order.

    Attributes:
        name: Path of the parameter with dots.
        values: The values themselves, lists and objects included.
        probabilities: How often each is drawn before anything is known; they add up to 1. `None`: all alike.
    """

    name: str
    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None

    @property
    def is_quantile(self) -> bool:
        """Whether a sampler sees the quantile instead of the values."""
        return self.probabilities is not None

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """What a sampler sees instead of each value.

        Scalars as they are, lists and objects as JSON text; with probabilities, the middle of each one's share.
        """
        if self.probabilities is None:
            return tuple(label(value) for value in self.values)
        ends = list(itertools.accumulate(self.probabilities))
        return tuple(end - share / 2 for end, share in zip(ends, self.probabilities, strict=True))

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of those that this parameter can have."""
        return any(is_same(value, own) for own in self.values)

    def to_label(self, value: Any) -> Scalar:
        """Return what a sampler sees."""
        if self.probabilities is None:
            return label(value)
        return self.labels[next(i for i, own in enumerate(self.values) if is_same(value, own))]

    def from_label(self, seen: Any) -> Any:
        """Return the value."""
        if self.probabilities is None:
            return self.values[self.labels.index(seen)]
        ends = list(itertools.accumulate(self.probabilities))
        return self.values[min(bisect.bisect_right(ends, seen), len(ends) - 1)]


@dataclass(frozen=True, slots=True)
class Constant:
    """A parameter that every trial gets with the same value."""

    name: str
    value: Any

    @property
    def size(self) -> int:
        """One."""
        return 1

    @property
    def values(self) -> tuple[Any, ...]:
        """The value alone."""
        return (self.value,)

    def holds(self, value: Any) -> bool:
        """Tell whether a value is the one that this parameter has."""
        return is_same(value, self.value)


Searched = Real | Whole | Choice | Drawn
Parameter = Searched | Constant


def find_clash(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two names of which one would be both a value and a folder of the other, if there are such."""
    known = set(names)
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts)):
            if (prefix := ".".join(parts[:end])) in known:
                return prefix, name
    return None
