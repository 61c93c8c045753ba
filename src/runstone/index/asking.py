"""What a question can be answered with beside records: windows of columns, groups, changes, names of fields."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.index.columns import count_rows, priced, value_rows
from runstone.index.conditions import (
    ATTRIBUTES,
    At,
    Attribute,
    AttributeType,
    Count,
    Environment,
    Field,
)
from runstone.index.store import Question
from runstone.index.writing import typed
from runstone.params import flatten_params

_MOST_COUNTED = 2_000


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Numbers of a group of runs, come down to figures.

    Attributes:
        mean: `None` where no run has a number.
        std: Standard deviation of a sample (n - 1); `None` where fewer than two runs have a number.
        min, max: `None` where no run has a number.
        n: How many runs have a number; NaN is none.
    """

    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that share values.

    Attributes:
        key: The values, `None` where the runs have none.
        runs: How many.
        columns: Aggregates, in the order of the columns that were asked for; `None` where no run has a number.
    """

    key: tuple[Any, ...]
    runs: int
    columns: tuple[Aggregate | None, ...]


def values(question: Question, keys: Sequence[int], field: Field) -> list[Any]:
    """Return what runs have under a field, `None` where one has nothing.

    Times are seconds since the epoch. Where a run has several values: a list of a field that may have several, else the
    first by its path.
    """
    if isinstance(field, Attribute) and field.name == "duration":
        slots = np.searchsorted(question.columns.keys, np.array(keys, np.int64))
        return [round(seconds, 3) for seconds in question.columns.durations(question.now)[slots].tolist()]
    if isinstance(field, Attribute) and (rate := priced(field)) is not None:
        energies = values(question, keys, Attribute("energy_j"))
        return [joules * rate if joules is not None else None for joules in energies]
    if isinstance(field, Attribute) and field.name in ("energy_cost", "carbon_g"):
        return [None] * len(keys)
    if isinstance(field, Count):
        counts = dict(count_rows(question.connection, field, keys))
        return [counts.get(key, 0) for key in keys]
    if isinstance(field, At):
        question.columns.learn(question.connection, field, keys)
    found: dict[int, list[Any]] = {}
    for run, kind, number, text in value_rows(question.connection, field, keys):
        value = text if kind == "text" else bool(number) if kind == "bool" else number
        found.setdefault(run, []).append(float("nan") if value is None else value)
    if isinstance(field, Environment) or (
        isinstance(field, Attribute) and ATTRIBUTES[field.name] is AttributeType.TEXTS
    ):
        several = {run: list(dict.fromkeys(values)) for run, values in found.items()}
        return [
            None if (of_run := several.get(key)) is None else of_run if len(of_run) > 1 else of_run[0] for key in keys
        ]
    return [found[key][0] if key in found else None for key in keys]


def _one_or_all(values: list[Any]) -> Any:
    return values if len(values) > 1 else values[0] if values else None


def groups(question: Question, keys: Sequence[int], fields: Sequence[Field], columns: Sequence[Field]) -> list[Group]:
    """Return runs in groups that share the values of fields, with figures of columns; the largest first."""
    if not keys:
        return []
    evaluation = question.evaluation
    slots = np.searchsorted(question.columns.keys, np.array(keys, np.int64))
    number, group_keys = evaluation.grouped(slots, fields)
    sizes = np.bincount(number, minlength=len(group_keys))
    aggregates = [_aggregates(evaluation.numbers(slots, column), number, len(group_keys)) for column in columns]
    found = [
        Group(key, int(sizes[place]), tuple(of_column[place] for of_column in aggregates))
        for place, key in enumerate(group_keys)
    ]
    return sorted(found, key=lambda group: -group.runs)


def _aggregates(values: NDArray[np.float64], group: NDArray[np.int64], count: int) -> list[Aggregate | None]:
    is_number = ~np.isnan(values)
    values, group = values[is_number], group[is_number]
    sizes = np.bincount(group, minlength=count)
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lowest, group, values)
    np.maximum.at(highest, group, values)
    with np.errstate(all="ignore"):  # ±Inf are values like any other
        means = np.bincount(group, values, minlength=count) / sizes
        spread = np.bincount(group, (values - means[group]) ** 2, minlength=count)
        stds = np.sqrt(spread / (sizes - 1))
    found: list[Aggregate | None] = []
    for place, size in enumerate(sizes.tolist()):
        if not size:
            found.append(None)
            continue
        std = float(stds[place]) if size > 1 else None
        found.append(Aggregate(float(means[place]), std, float(lowest[place]), float(highest[place]), size))
    return found


def order_groups(found: list[Group], orders: Sequence[tuple[str, int, bool]]) -> list[Group]:
    """Return groups in another order; what is missing comes last either way.

    Args:
        found: The groups.
        orders: What to sort by: `runs`, or `key` or `column` with its place; and whether descending.
    """
    for kind, place, descending in reversed(orders):

        def value(group: Group, kind: str = kind, place: int = place) -> Any:
            match kind:
                case "runs":
                    return group.runs
                case "key":
                    return group.key[place]
                case _:
                    of_column = group.columns[place]
                    return of_column.mean if of_column is not None else None

        present = [group for group in found if value(group) is not None and value(group) == value(group)]
        rest = [group for group in found if value(group) is None or value(group) != value(group)]
        present.sort(key=lambda group: _rank(value(group)), reverse=descending)
        found = present + rest
    return found


def _rank(value: Any) -> tuple[int, Any]:
    return (2, value) if isinstance(value, bool) else (1, value) if isinstance(value, str) else (0, value)


def ids(question: Question, keys: Sequence[int]) -> tuple[str, ...]:
    """Return the ids of runs."""
    statement = "SELECT key, id FROM runs WHERE key IN (SELECT value FROM json_each(?))"
    found = dict(question.connection.execute(statement, (json.dumps(list(keys)),)))
    return tuple(found[key] for key in keys)


def keys_of(question: Question, folders: Sequence[str]) -> dict[str, int]:
    """Return the keys of runs by their folders, those that are still there."""
    statement = "SELECT folder, key FROM runs WHERE folder IN (SELECT value FROM json_each(?))"
    return dict(question.connection.execute(statement, (json.dumps(list(folders)),)))


def changed_since(question: Question, cursor: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the ids of the runs that changed, and of those that are gone; `None` where the cursor is of no use."""
    identity, _, revision = cursor.partition(".")
    here, _, now = question.cursor.partition(".")
    if identity != here or not revision.isdecimal() or len(revision) > 18 or int(revision) > int(now):
        return None
    since = int(revision)
    changed = question.connection.execute("SELECT key, id FROM runs WHERE revision > ?", (since,)).fetchall()
    removed = question.connection.execute(
        "SELECT id FROM removed WHERE revision > ? AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = removed.id)",
        (since,),
    ).fetchall()
    return tuple(run_id for _key, run_id in sorted(changed)), tuple(dict.fromkeys(row[0] for row in removed))


def tallies(question: Question, keys: Sequence[int] | None) -> list[tuple[str, str, str, int]]:
    """Return kind, path, type and number of runs of each name of params, metrics, tags and the environment.

    Args:
        question: The question.
        keys: Count in these runs only, where there are at most 2,000; `None`, and beyond: in all, deleted ones too.
    """
    statement = (
        "SELECT names.kind, path, tallies.kind, runs FROM tallies JOIN names ON names.key = tallies.name WHERE runs > 0"
    )
    everywhere = question.connection.execute(statement).fetchall()
    if keys is None or len(keys) > _MOST_COUNTED:
        return [row for row in everywhere if row[2] != "null"]
    counts: Counter[tuple[str, str, str]] = Counter()
    for record in question.records(keys):
        counts.update(("params", path, typed(value)[0]) for path, value in flatten_params(record.params).items())
        counts.update(("metrics", name, "number") for name in record.metrics)
        counts.update(("tags", name, "text") for name in record.tags)
    environment = (
        "SELECT path, environment.kind, count(DISTINCT run) FROM snapshots JOIN environment USING (section) "
        "JOIN names ON names.key = environment.name WHERE run IN (SELECT value FROM json_each(?)) "
        "GROUP BY path, environment.kind"
    )
    for path, kind, runs in question.connection.execute(environment, (json.dumps(list(keys)),)):
        counts["environment", path, kind] = runs
    return [(*name, runs) for name, runs in counts.items() if name[2] != "null"]


def frequent(question: Question, field: Field, limit: int) -> list[tuple[Any, int]]:
    """Return the values that most runs have under a field, with their numbers."""
    cells = question.evaluation.cells(field)
    if len(cells) == 0:
        return []
    by_text = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.texts))
    found: Counter[Any] = Counter(dict(zip(cells.texts, by_text.tolist(), strict=True)))
    for kind, convert in ((0, float), (2, bool)):
        numbers, counts = np.unique(cells.numbers[cells.kinds == kind], return_counts=True)
        best = np.argsort(-counts, kind="stable")[:limit]
        found.update({convert(numbers[place]): int(counts[place]) for place in best.tolist()})
    return [(value, runs) for value, runs in found.most_common(limit) if runs]
