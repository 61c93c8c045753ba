"""Searching runs by MLflow's filters: what the index can tell is asked of it, the rest is looked at run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runstone.index.conditions import (
    All,
    AnyOf,
    Attribute,
    Compare,
    Condition,
    Field,
    HasValue,
    Like,
    Not,
    OneOf,
    Order,
    Param,
    Scalar,
    Statistic,
    Tag,
)
from runstone.index.conditions import Metric as MetricField
from runstone.index.records import RunRecord, unescaped
from runstone.params import flatten_params
from runstone.server.mlflow import filters
from runstone.server.mlflow.errors import invalid
from runstone.server.mlflow.experiments import Experiment
from runstone.server.mlflow.filters import LISTED, NULLABLE, NUMERIC, Clause, Grammar
from runstone.server.mlflow.service import Mlflow
from runstone.server.mlflow.values import (
    END_TIME,
    HIDDEN,
    HOLDER,
    INPUTS,
    NAME_TAG,
    OF_STATUS,
    STATUS,
    USER,
    Seen,
    plain_params,
    seen_record,
    typed,
)
from runstone.server.mlflow.writers import UNORDERED

_ATTRIBUTES = ("attribute", "attributes", "attr", "run")
_TEXTS = ("run_id", "run_name", "status", "artifact_uri", "user_id")
GRAMMAR = Grammar(
    entities={
        **dict.fromkeys(_ATTRIBUTES, "attribute"),
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("dataset", "datasets"), "dataset"),
    },
    default="attribute",
    aliases={
        "created": "start_time",
        "run name": "run_name",
        "run id": "run_id",
        "artifact uri": "artifact_uri",
        "user id": "user_id",
    },
    operators={
        **dict.fromkeys((f"attribute.{name}" for name in _TEXTS), LISTED),
        "attribute.start_time": NUMERIC,
        "attribute.end_time": NUMERIC,
        "metric": NUMERIC,
        "param": NULLABLE,
        "tag": NULLABLE,
        "dataset": LISTED,
    },
    numbers=frozenset({"start_time", "end_time"}),
)
_STATUSES = {
    word: tuple(str(status) for status, own in OF_STATUS.items() if own == word) for word in OF_STATUS.values()
}
# How runs are sorted by these the index cannot tell: by the words of MLflow, and by what its clients told.
_UNLIKE = frozenset({"status", "end_time", "user_id"})
_DATASET_KEYS = ("name", "digest", "context")
Test = Callable[[Seen, Experiment], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """One page of runs.

    Attributes:
        records: The runs.
        total: How many there are on all pages; where each has to be looked at, more than this page reaches to will do.
    """

    records: tuple[RunRecord, ...]
    total: int


def search_runs(
    mlflow: Mlflow,
    experiments: Sequence[Experiment],
    *,
    filter: str,
    order_by: Sequence[str],
    view: str,
    window: slice,
) -> Found:
    """Return one page of the runs of some experiments.

    Raises:
        MlflowError: the filter or the order does not parse.
    """
    clauses, orders = GRAMMAR.clauses(filter), GRAMMAR.orders(order_by)
    told = [(clause, *_translated(clause)) for clause in clauses]
    wanted = [*(_order(one) for one in orders), Order(Attribute("started_at"), descending=True), Order(Attribute("id"))]
    deleted = {"ACTIVE_ONLY": False, "DELETED_ONLY": True}.get(view)
    base: tuple[Condition, ...] = (
        OneOf(Attribute("project"), tuple(one.project for one in experiments)),
        Not(HasValue(Tag(HOLDER))),
    )
    by_project = {one.project: one for one in experiments}
    tests = [test for _clause, _condition, test in told if test is not None]

    def ask(*conditions: Condition, window: slice = slice(0, None)) -> Found:
        return Found(*mlflow.state.index.records(All(conditions), orders=wanted, window=window, deleted=deleted))

    def passes(record: RunRecord, *more: Test) -> bool:
        seen = mlflow.completed(record)
        return all(test(seen, by_project[seen.project]) for test in (*tests, *more))

    exact = tuple(condition for _clause, condition, _test in told)
    is_by_index = not any(order.entity == "attribute" and order.key in _UNLIKE for order in orders)
    nans = tuple(Compare(MetricField(one.key), "=", float("nan")) for one in orders if one.entity == "metric")
    if nans and is_by_index:  # which the index has among the missing values
        is_by_index = not ask(*base, *exact, AnyOf(nans), window=slice(0, 1)).total
    is_told = is_by_index and not tests
    if "metric" in {*(one.entity for one in clauses), *(one.entity for one in orders)}:
        # The index has the last points of metrics. Where steps or times went back, those are not the latest to MLflow.
        loose = tuple(_reach(clause) if clause.entity == "metric" else one for clause, one, _test in told)
        backward = ask(*base, *loose, HasValue(Tag(UNORDERED)))
        if backward.total:
            of_metrics = [_metric_test(clause) for clause in clauses if clause.entity == "metric"]
            found = [one for one in backward.records if passes(one, *of_metrics)]
            # Of the others no more are needed than a page that holds nothing else would reach to.
            reach = slice(0, window.stop if is_told else None)
            others = ask(*base, *exact, Not(HasValue(Tag(UNORDERED))), window=reach)
            kept = [one for one in others.records if not tests or passes(one)]
            total = len(found) + (others.total if is_told else len(kept))
            return Found(_sorted(mlflow, found + kept, orders)[window], total)
    if is_told:
        return ask(*base, *exact, window=window)
    if not is_by_index or window.stop is None:
        kept = [one for one in ask(*base, *exact).records if not tests or passes(one)]
        return Found((tuple(kept) if is_by_index else _sorted(mlflow, kept, orders))[window], len(kept))
    kept, start, total = [], 0, 1
    while start < total and len(kept) <= window.stop:  # one more than the page tells whether there is a next
        end = 2 * start + window.stop + 1
        part = ask(*base, *exact, window=slice(start, end))
        kept += [one for one in part.records if passes(one)]
        start, total = end, part.total
    return Found(tuple(kept[window]), len(kept))


def _reach(clause: Clause) -> Condition:
    """Return what holds for each run of which some point of the metric fits: its latest is one of them."""
    value: Any = clause.value
    lowest, highest = MetricField(clause.key, Statistic.MIN), MetricField(clause.key, Statistic.MAX)
    match clause.operator:
        case ">" | ">=":
            return Compare(highest, clause.operator, value)
        case "<" | "<=":
            return Compare(lowest, clause.operator, value)
        case "=":
            return All((Compare(lowest, "<=", value), Compare(highest, ">=", value)))
    return HasValue(MetricField(clause.key, Statistic.COUNT))


def _metric_test(clause: Clause) -> Test:
    return lambda seen, _of: filters.holds(clause, seen.latest_value(clause.key))


def _sorted(mlflow: Mlflow, records: list[RunRecord], orders: Sequence[filters.Order]) -> tuple[RunRecord, ...]:
    """Return runs in order: missing values last either way, NaN before them; then the newest first, then by id."""
    found = [
        (record, mlflow.completed(record) if UNORDERED in record.tags else seen_record(record)) for record in records
    ]
    found.sort(key=lambda pair: pair[1].id)
    found.sort(key=lambda pair: pair[1].started_s, reverse=True)
    for order in reversed(orders):
        valued = [(_sort_value(seen, order), record, seen) for record, seen in found]
        is_number = [value is not None and value == value for value, _record, _seen in valued]
        present = [one for one, is_there in zip(valued, is_number, strict=True) if is_there]
        rest = [one for one, is_there in zip(valued, is_number, strict=True) if not is_there]
        present.sort(key=lambda one: one[0], reverse=order.is_descending)
        if order.entity == "param":
            present.sort(key=lambda one: one[0][0])  # numbers before texts either way, as the index has them
        rest.sort(key=lambda one: one[0] is None)
        found = [(record, seen) for _value, record, seen in (*present, *rest)]
    return tuple(record for record, _seen in found)


def _sort_value(seen: Seen, order: filters.Order) -> Any:
    """Return what a run is sorted by; `None` where it has none."""
    match order.entity:
        case "metric":
            return seen.latest_value(order.key)
        case "param":
            value = {unescaped(name): value for name, value in flatten_params(seen.params).items()}.get(order.key)
            is_number = isinstance(value, int | float)
            return value if value is None or value != value else (not is_number, value if is_number else str(value))
        case "tag":
            return seen.shown_tags.get(order.key)
    attributes = {"start_time": seen.start_ms, "end_time": seen.end_ms, "run_name": seen.name}
    return {**attributes, "status": seen.status_word, "user_id": seen.user}.get(order.key, seen.id)


def _translated(clause: Clause) -> tuple[Condition, Test | None]:
    """Return what the index is asked, and what is looked at in each run beside, where that does not tell all."""
    value: Any = clause.value
    match clause.entity:
        case "metric":
            return _number(MetricField(clause.key), clause.operator, value), None
        case "tag":
            if clause.key == NAME_TAG:
                return _text(Attribute("name"), clause), None
            if clause.key.startswith(HIDDEN):
                return AnyOf(()), None
            return _text(Tag(clause.key), clause), None
        case "param":
            field = Param(tuple(clause.key.split(".")))
            if clause.operator in ("LIKE", "ILIKE"):
                return HasValue(field), lambda seen, _of: filters.holds(
                    clause, plain_params(seen.params).get(clause.key)
                )
            # MLflow compares texts: '1' is not '1.0', which as numbers are the same.
            values = value if isinstance(value, tuple) else (value,)
            is_number = any(len(_forms(field, text)) > 1 for text in values if text is not None)
            if is_number and clause.operator in ("=", "!="):
                wanted = _text(field, clause) if clause.operator == "=" else HasValue(field)
                return wanted, lambda seen, _of: filters.holds(clause, plain_params(seen.params).get(clause.key))
            return _text(field, clause), None
        case "dataset":
            if clause.key not in _DATASET_KEYS:
                raise invalid(f"Invalid attribute key {clause.key!r:.80} of a dataset; valid are {_DATASET_KEYS}")
            return HasValue(Tag(INPUTS)), lambda seen, _of: any(
                filters.holds(clause, found) for found in _dataset_values(seen, clause.key)
            )
    return _attribute(clause)


def _attribute(clause: Clause) -> tuple[Condition, Test | None]:
    value: Any = clause.value
    is_list = clause.operator in ("IN", "NOT IN")
    if is_list and clause.key != "run_id":
        raise invalid(
            f"Only the 'run_id' attribute supports comparison with a list of quoted string values, not {clause.key}"
        )
    match clause.key:
        case "start_time":
            # Floats of seconds are compared as milliseconds: half of one either way decides.
            return _time(clause.operator, value), lambda seen, _of: filters.holds(clause, seen.start_ms)
        case "end_time":
            has_end = AnyOf((HasValue(Attribute("ended_at")), HasValue(Tag(END_TIME))))
            return has_end, lambda seen, _of: filters.holds(clause, seen.end_ms)
        case "run_id":
            return _text(Attribute("id"), clause), None
        case "run_name":
            return _text(Attribute("name"), clause), None
        case "user_id":
            return AnyOf((HasValue(Tag(USER)), HasValue(Tag("mlflow.user")))), lambda seen, _of: filters.holds(
                clause, seen.user
            )
        case "status" if clause.operator in ("=", "!="):
            return _status(str(value), is_equal=clause.operator == "="), None
        case "status":
            return All(()), lambda seen, _of: filters.holds(clause, seen.status_word)
    return All(()), lambda seen, of: filters.holds(clause, f"{of.artifact_location}/{seen.id}/artifacts")


def _status(word: str, *, is_equal: bool) -> Condition:
    is_scheduled = Compare(Tag(STATUS), "=", "SCHEDULED")
    is_running = OneOf(Attribute("status"), _STATUSES["RUNNING"])
    found: Condition
    if word == "SCHEDULED":
        found = All((is_running, is_scheduled))
    elif word == "RUNNING":
        found = All((is_running, Not(is_scheduled)))
    else:
        found = OneOf(Attribute("status"), _STATUSES[word]) if word in _STATUSES else AnyOf(())
    return found if is_equal else Not(found)


def _time(operator: str, milliseconds: float) -> Condition:
    field, low, high = Attribute("started_at"), (milliseconds - 1) / 1000, (milliseconds + 1) / 1000
    match operator:
        case "=":
            return All((Compare(field, ">=", low), Compare(field, "<=", high)))
        case ">" | ">=":
            return Compare(field, ">=", low)
        case "<" | "<=":
            return Compare(field, "<=", high)
    return All(())


def _number(field: Field, operator: str, value: float) -> Condition:
    if operator == "!=":
        return All((AnyOf((HasValue(field), Compare(field, "=", float("nan")))), Not(Compare(field, "=", value))))
    return Compare(field, operator, value)  # type: ignore[arg-type]


def _text(field: Field, clause: Clause) -> Condition:
    value: Any = clause.value
    match clause.operator:
        case "IS NULL":
            return Not(HasValue(field))
        case "IS NOT NULL":
            return HasValue(field)
        case "LIKE" | "ILIKE":
            return Like(field, value.replace("\\", "\\\\"), ignore_case=clause.operator == "ILIKE")
    values = value if isinstance(value, tuple) else (value,)
    is_one: Condition = OneOf(field, tuple(dict.fromkeys(one for text in values for one in _forms(field, text))))
    if clause.operator in ("!=", "NOT IN"):
        return All((HasValue(field), Not(is_one)))
    return is_one


def _forms(field: Field, text: str) -> tuple[Scalar, ...]:
    """Return in which forms a text may be kept: params that are numbers are kept as such."""
    number = typed(text) if isinstance(field, Param) else text
    return (text, number) if isinstance(number, int | float) else (text,)


def _order(order: filters.Order) -> Order:
    field: Field
    match order.entity:
        case "metric":
            field = MetricField(order.key)
        case "param":
            field = Param(tuple(order.key.split(".")))
        case "tag":
            field = Attribute("name") if order.key == NAME_TAG else Tag(order.key)
        case "attribute":
            attributes: dict[str, Field] = {
                "start_time": Attribute("started_at"),
                "end_time": Attribute("ended_at"),
                "run_id": Attribute("id"),
                "artifact_uri": Attribute("id"),
                "run_name": Attribute("name"),
                "status": Attribute("status"),
                "user_id": Tag("mlflow.user"),
            }
            field = attributes[order.key]
        case _:
            raise invalid(f"Runs cannot be ordered by {order.entity}")
    return Order(field, order.is_descending)


def _dataset_values(seen: Seen, key: str) -> list[str]:
    found = []
    for told in seen.inputs:
        one = told.get("dataset_input") or {}
        if key == "context":
            found += [tag.get("value", "") for tag in one.get("tags", ()) if tag.get("key") == "mlflow.data.context"]
        else:
            found.append(str((one.get("dataset") or {}).get(key, "")))
    return found
