"""What the index can be asked: conditions and orders as frozen values. Knows neither text nor SQL.

Logic is two-valued: each condition holds for a run or does not, and `Not` is the complement. A value that is
missing satisfies no comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

Comparison = Literal["=", "<", "<=", ">", ">="]
Scalar: TypeAlias = str | int | float | bool


class AttributeType(StrEnum):
    """What values an attribute has."""

    TEXT = "text"
    STATUS = "status"
    TIME = "time"
    DURATION = "duration"
    NUMBER = "number"
    BOOL = "bool"
    TEXTS = "texts"
    """Any number of texts: a condition holds where it holds for one of them."""


ATTRIBUTES: Mapping[str, AttributeType] = {
    "id": AttributeType.TEXT,
    "name": AttributeType.TEXT,
    "project": AttributeType.TEXT,
    "group": AttributeType.TEXT,
    "status": AttributeType.STATUS,
    "notes": AttributeType.TEXT,
    "parent": AttributeType.TEXT,
    "failure": AttributeType.TEXT,
    "started_at": AttributeType.TIME,
    "ended_at": AttributeType.TIME,
    "duration": AttributeType.DURATION,
    "attempts": AttributeType.NUMBER,
    "pinned": AttributeType.BOOL,
    "archived": AttributeType.BOOL,
    "deleted": AttributeType.BOOL,
    "energy_j": AttributeType.NUMBER,
    "energy_cost": AttributeType.NUMBER,
    "carbon_g": AttributeType.NUMBER,
    "dataset": AttributeType.TEXTS,
    "model": AttributeType.TEXTS,
    "artifact": AttributeType.TEXTS,
}
ALIASES: Mapping[str, str] = {"energy": "energy_j", "cost": "energy_cost", "carbon": "carbon_g"}
"""Other names of attributes."""


class Statistic(StrEnum):
    """What a metric of a run comes down to."""

    LAST = "last"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Metric:
    """One statistic of a metric: a number, or no value where the run never logged it (or logged only NaN)."""

    name: str
    statistic: Statistic = Statistic.LAST


@dataclass(frozen=True, slots=True)
class Param:
    """A param by the keys that lead to it.

    Attributes:
        keys: Keys from the outside in; an index into a list is its decimal number.
        is_exact: `False`: the keys joined with dots name it; `{"a.b": 1}` and `{"a": {"b": 1}}` both have `a.b`.
    """

    keys: tuple[str, ...]
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: text."""

    name: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One of `ATTRIBUTES`. Times are seconds since the epoch, durations seconds."""

    name: str


@dataclass(frozen=True, slots=True)
class At:
    """The value of a metric at a step: that of the last point with exactly this step, if it has one."""

    name: str
    step: int


@dataclass(frozen=True, slots=True)
class Environment:
    """A value of the environment snapshot, by the keys that lead to it.

    Numbers of lists, and the words `devices` and `installed`, may be left out: it then has each value that fits.
    """

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many names of a kind a run has.

    Attributes:
        kind: `metrics`, `params`, `tags`, `dataset`, `model` or `artifact`.
        pattern: Glob that the whole name matches, case counts.
    """

    kind: str
    pattern: str = "*"


Field: TypeAlias = Metric | At | Param | Tag | Environment | Count | Attribute


@dataclass(frozen=True, slots=True)
class Compare:
    """The field has a value of the same type as `value` and stands in this relation to it.

    Types are number, text and bool; a bool is no number. `= nan` holds for NaN; NaN has no order.
    """

    field: Field
    comparison: Comparison
    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field equals one of these values, type included."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """The field is text and matches as a whole; `%` stands for any text, `_` for a character, `\\` quotes."""

    field: Field
    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Glob:
    """The field is text and matches as a whole.

    `*` stands for any text, `?` for a character, `[a-z]` for one of these, `[!a-z]` for another one.
    """

    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """The field is text and holds this text."""

    field: Field
    text: str


@dataclass(frozen=True, slots=True)
class HasValue:
    """The field has a value other than null.

    Attributes:
        or_below: Whether a param that is a dict or list counts, too.
    """

    field: Field
    or_below: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """The complement."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class All:
    """Every one holds; with none, every run matches."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one holds; with none, no run matches."""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = Compare | OneOf | Like | Glob | Contains | HasValue | Not | All | AnyOf

EVERY_RUN = All(())


@dataclass(frozen=True, slots=True)
class Order:
    """A field to sort by. Runs without a value, or with NaN, come last in either direction."""

    field: Field
    descending: bool = False


def fields_in(condition: Condition) -> tuple[Field, ...]:
    """Return the fields that a condition speaks of, each once, in its order."""
    match condition:
        case Not(inner):
            return fields_in(inner)
        case All(conditions) | AnyOf(conditions):
            return tuple(dict.fromkeys(field for inner in conditions for field in fields_in(inner)))
        case _:
            return (condition.field,)
