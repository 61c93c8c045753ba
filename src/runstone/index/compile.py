"""Conditions and orders to SQL expressions. Every value that a user wrote becomes a bound parameter."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, func, literal, or_, select, true

from runstone.index import schema
from runstone.index.conditions import (
    ATTRIBUTES,
    All,
    AnyOf,
    Attribute,
    AttributeType,
    Compare,
    Condition,
    Contains,
    Field,
    HasValue,
    Like,
    Metric,
    Not,
    OneOf,
    Order,
    Param,
    Scalar,
    Statistic,
    Tag,
)
from runstone.index.records import escaped
from runstone.index.schema import metrics, params, runs, tags

Expression = ColumnElement[Any]
Test = Callable[[Expression], Expression]

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_INT64 = range(-(2**63), 2**63)
_ESCAPED = re.compile(r"\\([\\%_])|([%_])|([*?\[])", re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")


def sql_number(number: int | float) -> int | float | None:
    """Return a number as SQLite can hold it: NaN as `None`, integers beyond 64 bits as floats."""
    if isinstance(number, int):
        if number in _INT64:
            return number
        try:
            return float(number)
        except OverflowError:
            return math.copysign(sys.float_info.max, number)
    return None if math.isnan(number) else number


def sql_text(text: str) -> str:
    """Return text as SQLite can search it: without NUL and halves of surrogate pairs."""
    if text.isascii() and "\0" not in text:
        return text
    return _SURROGATES.sub("�", text.replace("\0", "␀"))


def where(condition: Condition, now: float) -> Expression:
    """Return the SQL that is true for the runs for which `condition` holds and false, never NULL, for others.

    Args:
        condition: What to state.
        now: Seconds since the epoch, the end of runs that go on.
    """
    match condition:
        case All(conditions):
            return and_(true(), *(where(inner, now) for inner in conditions))
        case AnyOf(conditions):
            return or_(false(), *(where(inner, now) for inner in conditions))
        case Not(inner):
            return ~where(inner, now).self_group()
        case HasValue(field, or_below):
            return _has_value(field, now, or_below=or_below)
        case Compare(field, comparison, value):
            compare = _COMPARISONS[comparison]
            return _holds(field, _kind(value), now, lambda column: _compared(column, compare, value))
        case OneOf(field, values):
            return or_(false(), *_one_of(field, values, now))
        case Like(field, pattern, ignore_case):
            return _holds(field, schema.TEXT, now, lambda column: _like(column, pattern, ignore_case))
        case Contains(field, text):
            return _holds(field, schema.TEXT, now, lambda column: func.instr(column, text) > 0)


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return schema.BOOL
    return schema.TEXT if isinstance(value, str) else schema.NUMBER


def _compared(column: Expression, compare: Callable[[Any, Any], Any], value: Scalar) -> Expression:
    if isinstance(value, str):
        return compare(column, value)  # type: ignore[no-any-return]
    number = sql_number(value)
    return column.is_(None) if number is None else compare(column, number)


def _one_of(field: Field, values: Sequence[Scalar], now: float) -> list[Expression]:
    """Return one test for each type among the values, so that a long list stays one look-up."""
    tests = []
    for kind in (schema.NUMBER, schema.TEXT, schema.BOOL):
        same = [value for value in values if _kind(value) == kind]
        known = [value if isinstance(value, str) else sql_number(value) for value in same]
        plain = [value for value in known if value is not None]
        if plain:
            tests.append(_holds(field, kind, now, lambda column, plain=plain: column.in_(plain)))  # type: ignore[misc]
        if len(plain) < len(known):
            tests.append(_holds(field, kind, now, lambda column: column.is_(None)))
    return tests


def _like(column: Expression, pattern: str, ignore_case: bool) -> Expression:
    # GLOB minds letter case and takes time of at most pattern times text; LIKE in SQLite ignores the case of ASCII.
    if ignore_case:
        return func.casefold(column).op("GLOB", is_comparison=True)(_glob(pattern.casefold()))
    return column.op("GLOB", is_comparison=True)(_glob(pattern))


def _glob(pattern: str) -> str:
    """Return a LIKE pattern as a GLOB pattern."""

    def replacement(match: re.Match[str]) -> str:
        quoted, wildcard, special = match.groups()
        if wildcard:
            return "*" if wildcard == "%" else "?"
        return f"[{special}]" if special else str(quoted)

    return _ESCAPED.sub(replacement, pattern)


# --- fields -------------------------------------------------------------------------------------------------


def _holds(field: Field, kind: str, now: float, test: Test) -> Expression:
    """Return that `field` has a value of this kind for which `test` is true."""
    match field:
        case Metric(name, statistic):
            if kind != schema.NUMBER:
                return false()
            figure = metrics.c[statistic.value]
            # NULL stands for NaN where the statistic exists; a test for it must not see a missing one
            return _among(metrics, metrics.c.name == name, _exists(field), test(figure))
        case Param():
            value = params.c.text if kind == schema.TEXT else params.c.number
            return _among(params, _named(field), params.c.kind == kind, test(value))
        case Tag(name):
            return _among(tags, tags.c.name == name, test(tags.c.text)) if kind == schema.TEXT else false()
        case Attribute(name):
            is_text = ATTRIBUTES[name] in (AttributeType.TEXT, AttributeType.STATUS)
            if is_text != (kind == schema.TEXT) or kind == schema.BOOL:
                return false()
            column = _attribute(name, now)
            return and_(column.is_not(None), test(column))


def _has_value(field: Field, now: float, *, or_below: bool) -> Expression:
    match field:
        case Metric(name):
            return _among(metrics, metrics.c.name == name, _exists(field))
        case Param():
            found = _among(params, _named(field), params.c.kind != schema.NULL)
            return or_(found, _among(params, _below(field))) if or_below else found
        case Tag(name):
            return _among(tags, tags.c.name == name)
        case Attribute(name):
            return _attribute(name, now).is_not(None)


def _among(table: Any, *tests: Expression) -> Expression:
    return runs.c.key.in_(select(table.c.run).where(*tests))


def _exists(metric: Metric) -> Expression:
    """Return that a metric that was logged has the statistic: of nothing but NaN there is no lowest."""
    if metric.statistic in (Statistic.MIN, Statistic.MAX, Statistic.MEAN):
        return metrics.c.min.is_not(None)
    return true()


def _named(param: Param) -> Expression:
    if param.is_exact:
        return params.c.path == ".".join(map(escaped, param.keys))
    return params.c.name == ".".join(param.keys)


def _below(param: Param) -> Expression:
    """Return that a param lies inside `param`. Names that start with `a.` are those from `a.` up to `a/`."""
    column = params.c.path if param.is_exact else params.c.name
    name = ".".join(map(escaped, param.keys) if param.is_exact else param.keys)
    return and_(column >= f"{name}.", column < f"{name}/")


def _attribute(name: str, now: float) -> Expression:
    if name == "duration":
        return func.coalesce(runs.c.ended_at, literal(now)) - runs.c.started_at
    return runs.c[name]


# --- orders -------------------------------------------------------------------------------------------------


def order_by(orders: Sequence[Order], now: float) -> list[Expression]:
    """Return the SQL to sort by: the orders, then newest first. What is missing comes last either way.

    Params sort numbers before text before bools.
    """
    keys: list[Expression] = []
    for order in orders:
        for column in _sort_keys(order.field, now):
            keys.append(column.is_(None))
            keys.append(column.desc() if order.descending else column.asc())
    return [*keys, runs.c.started_at.desc(), runs.c.id.desc()]


def _sort_keys(field: Field, now: float) -> list[Expression]:
    match field:
        case Metric(name, statistic):
            of_metric = (metrics.c.name == name, metrics.c.run == runs.c.key)
            return [_one(select(metrics.c[statistic.value]).where(*of_metric))]
        case Param():
            of_run = (_named(field), params.c.run == runs.c.key)
            is_kind = {kind: params.c.kind == kind for kind in (schema.NUMBER, schema.TEXT, schema.BOOL)}
            values = [
                case((is_kind[schema.NUMBER], params.c.number)),
                case((is_kind[schema.TEXT], params.c.text)),
                case((is_kind[schema.BOOL], params.c.number)),
            ]
            return [_one(select(value).where(*of_run).order_by(params.c.path)) for value in values]
        case Tag(name):
            return [_one(select(tags.c.text).where(tags.c.name == name, tags.c.run == runs.c.key))]
        case Attribute(name):
            return [_attribute(name, now)]


def _one(query: Select[Any]) -> Expression:
    return query.limit(1).correlate(runs).scalar_subquery()
