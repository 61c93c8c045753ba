"""When a parameter exists: conditions on other parameters, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runstone_sweeps.space.scalars import is_number, is_same


@dataclass(frozen=True, slots=True)
class Clause:
    """One parameter has one of some values, or lies in a range.

    Attributes:
        parameter: Dotted name of the parameter that is looked at.
        values: The values with which the clause is met; `None`: `low` and `high` count.
        low, high: Bounds, both included; `None`: open.
    """

    parameter: str
    values: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None

    def is_met(self, value: Any) -> bool:
        """Tell whether the parameter's value meets the clause."""
        if self.values is not None:
            return any(is_same(value, wanted) for wanted in self.values)
        if not is_number(value):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """Return it as `optimizer is sgd or adam`, `layers >= 3`."""
        if self.values is not None:
            return f"{self.parameter} is {' or '.join(map(str, self.values))}"
        if self.low is None:
            return f"{self.parameter} <= {self.high:g}"
        if self.high is None:
            return f"{self.parameter} >= {self.low:g}"
        return f"{self.low:g} <= {self.parameter} <= {self.high:g}"


@dataclass(frozen=True, slots=True)
class Condition:
    """All of its clauses have to be met; one on a parameter that is itself absent is not."""

    clauses: tuple[Clause, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the parameters that are looked at, each once."""
        return tuple(dict.fromkeys(clause.parameter for clause in self.clauses))

    def __str__(self) -> str:
        """Return its clauses joined by `and`."""
        return " and ".join(map(str, self.clauses))
