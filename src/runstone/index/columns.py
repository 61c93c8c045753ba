"""Fields as columns over all runs, read from the tables when a question needs them and kept as long as they are true.

A column is read once; from then on only the runs that changed since are read again, found by their revision.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runstone import settings
from runstone.index.cells import Cells, Row
from runstone.index.conditions import (
    ATTRIBUTES,
    At,
    Attribute,
    AttributeType,
    Count,
    Environment,
    Field,
    Metric,
    Param,
    Statistic,
    Tag,
)
from runstone.index.patterns import glob
from runstone.index.records import escaped, loose_keys, may_leave_out

_MOST_COLUMNS = 100
_MOST_CHANGED = 0.2
_JOULES_IN_KWH = 3.6e6
_LINKED = ("dataset", "model")
_STORED_AS = {"pinned": "is_pinned", "archived": "is_archived", "deleted": "is_deleted"}
_PRICES = {"energy_cost": "RUNSTONE_PRICE_PER_KWH", "carbon_g": "RUNSTONE_CARBON_G_PER_KWH"}


@dataclass(frozen=True, slots=True)
class Below:
    """Whether a run has anything below a param or a place of the environment that is an object or a list."""

    field: Param | Environment


Source: TypeAlias = Field | Below
PointReader = Callable[[At, Sequence[int]], list[tuple[int, float | None, bool]]]


class Columns:
    """The runs of one index as columns.

    Args:
        read_points: Returns the values of a metric at a step of runs that the index was not asked for yet: key, value
            (`None` for NaN), whether there is a point.
    """

    def __init__(self, read_points: PointReader) -> None:
        self._read_points = read_points
        self._cells: dict[Source, tuple[int, Cells]] = {}
        self._changed: dict[int, list[int] | None] = {}
        self.identity = ""
        self.revision = -1
        self.keys = np.empty(0, np.int64)
        self.is_there = np.empty(0, np.bool_)
        self.is_deleted = np.empty(0, np.bool_)
        self.is_archived = np.empty(0, np.bool_)
        self.started_at = np.empty(0)
        self.ended_at = np.empty(0)

    def __len__(self) -> int:
        """Return the number of places, of which some may be those of runs that are gone."""
        return len(self.keys)

    # --- keeping in step ----------------------------------------------------------------------------------------------

    def refresh(self, connection: sqlite3.Connection, identity: str, revision: int) -> None:
        """Take in which runs changed in the tables since the last question; the caller holds them still.

        A column takes in what changed when it is asked for.
        """
        self._changed.clear()
        changed: list[int] | None = None
        if identity == self.identity and revision >= self.revision:
            changed = self._changed_since(connection, self.revision) if revision != self.revision else []
        self.identity, self.revision = identity, revision
        if changed is None:
            self._cells.clear()
            self._add(connection, None)
        elif changed:
            self.is_there[self.slots_of(np.array(changed, np.int64))] = False
            self._add(connection, changed)

    def _changed_since(self, connection: sqlite3.Connection, revision: int) -> list[int] | None:
        """Return the keys of the runs that changed, or are gone, in order; `None` where they are many."""
        if revision not in self._changed:
            # Sorted here: asked for an order, SQLite goes through all runs in that order.
            statement = "SELECT key FROM runs WHERE revision > ? UNION ALL SELECT key FROM removed WHERE revision > ?"
            found = sorted({row[0] for row in connection.execute(statement, (revision, revision))})
            self._changed[revision] = None if len(found) > max(1_000, _MOST_CHANGED * len(self)) else found
        return self._changed[revision]

    def _in_step(self, connection: sqlite3.Connection, source: Source) -> Cells:
        """Return a column that is as the tables."""
        revision, cells = self._cells.pop(source, (-1, None))
        if cells is None or (changed := self._changed_since(connection, revision)) is None:
            return self._load(connection, source, None)
        if not changed:
            return cells
        is_changed = np.zeros(len(self), np.bool_)
        is_changed[self.slots_of(np.array(changed, np.int64))] = True
        return cells.select(~is_changed[cells.slots]).plus(self._load(connection, source, changed))

    def _add(self, connection: sqlite3.Connection, keys: list[int] | None) -> None:
        """Read what every question needs of all runs, or of some."""
        statement = "SELECT key, is_deleted, is_archived, started_at, ended_at FROM runs"
        if keys is None:
            rows = connection.execute(f"{statement} ORDER BY key").fetchall()
        else:
            rows = connection.execute(
                f"{statement} WHERE {_IN.format('key')} ORDER BY key", (_listed(keys),)
            ).fetchall()
        table = _table(rows, 5)
        found = table[:, 0].astype(np.int64)
        if keys is None:
            self.keys = found
            self._grow(0)
        else:
            # Keys only grow, so that new ones come behind those that are there.
            latest = self.keys[-1] if len(self) else -1
            self.keys = np.concatenate([self.keys, found[found > latest]])
            self._grow(len(self.is_there))
        slots = np.searchsorted(self.keys, found)
        self.is_there[slots] = True
        self.is_deleted[slots], self.is_archived[slots] = table[:, 1] != 0, table[:, 2] != 0
        self.started_at[slots], self.ended_at[slots] = table[:, 3], table[:, 4]

    def _grow(self, kept: int) -> None:
        for name in ("is_there", "is_deleted", "is_archived", "started_at", "ended_at"):
            standing = getattr(self, name)
            grown = np.zeros(len(self.keys), standing.dtype)
            grown[:kept] = standing[:kept]
            setattr(self, name, grown)

    def slots_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of the runs with these keys, those that are known."""
        places = np.searchsorted(self.keys, keys)
        is_known = places < len(self)
        is_known[is_known] = self.keys[places[is_known]] == keys[is_known]
        return places[is_known]

    # --- columns ------------------------------------------------------------------------------------------------------

    def cells(self, connection: sqlite3.Connection, source: Source, now: float) -> Cells:
        """Return the values of a field over all runs.

        Args:
            connection: To the tables as of the last `refresh`.
            source: The field.
            now: Seconds since the epoch, the end of runs that go on.
        """
        if isinstance(source, Attribute) and source.name == "duration":
            slots = np.flatnonzero(self.is_there)
            return Cells.of_numbers(slots, self.durations(now)[slots])
        if isinstance(source, Attribute) and source.name in _PRICES:
            return self._priced(connection, source)
        found = self._in_step(connection, source)
        self._cells[source] = self.revision, found
        while len(self._cells) > _MOST_COLUMNS:
            del self._cells[next(iter(self._cells))]
        return found

    def durations(self, now: float) -> NDArray[np.float64]:
        """Return how long each run took, or has taken by `now`."""
        ends = np.where(np.isnan(self.ended_at), now, self.ended_at)
        return np.maximum(ends - self.started_at, 0.0)

    def _priced(self, connection: sqlite3.Connection, source: Attribute) -> Cells:
        rate = priced(source)
        energy = self.cells(connection, Attribute("energy_j"), 0.0)
        if rate is None:
            return energy.select(np.zeros(len(energy), np.bool_))
        return Cells.of_numbers(energy.slots, energy.numbers * rate)

    def _load(self, connection: sqlite3.Connection, source: Source, keys: list[int] | None) -> Cells:
        if isinstance(source, Count):
            return self._counted(connection, source, keys)
        if isinstance(source, Metric):  # what is asked for most, without a way over text
            table = _table(_metric_rows(connection, source, keys).fetchall(), 2)
            return Cells.of_numbers(self._places(table[:, 0].astype(np.int64)), table[:, 1])
        if isinstance(source, Below):
            found = [row[0] for row in below_rows(connection, source.field, keys)]
            return Cells.of_numbers(self._places(np.array(found, np.int64)), np.ones(len(found)))
        if isinstance(source, At):
            self.learn(connection, source, keys)
        rows_of = value_rows(connection, source, keys)
        if isinstance(source, Attribute) and ATTRIBUTES[source.name] in _TEXTUAL:
            return Cells.of_texts(self._places(_keys_of(rows_of)), (str(row[3]) for row in rows_of))
        return Cells.of_rows(self._places(_keys_of(rows_of)), rows_of)

    def _places(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.keys, keys).astype(np.int64)

    def _counted(self, connection: sqlite3.Connection, source: Count, keys: list[int] | None) -> Cells:
        slots = np.flatnonzero(self.is_there) if keys is None else self.slots_of(np.array(sorted(keys), np.int64))
        if keys is not None:
            slots = slots[self.is_there[slots]]
        counts = np.zeros(len(self))
        for key, count in count_rows(connection, source, keys):
            counts[np.searchsorted(self.keys, key)] = count
        return Cells.of_numbers(slots, counts[slots])

    def learn(self, connection: sqlite3.Connection, field: At, keys: Sequence[int] | None) -> None:
        """Read values at a step from the files of those runs whose values the index has not kept."""
        lacking = lacking_points(connection, field, keys)
        if lacking:
            name = connection.execute(_METRIC_KEY, (field.name,)).fetchone()[0]
            found = self._read_points(field, lacking)
            connection.executemany(
                "INSERT OR REPLACE INTO temp.learned (name, step, run, is_there, value) VALUES (?, ?, ?, ?, ?)",
                [(name, field.step, key, int(is_there), value) for key, value, is_there in found],
            )


def _table(rows: Sequence[Sequence[Any]], width: int) -> NDArray[np.float64]:
    """Return numbers as an array, NaN for `None`."""
    try:
        flat = np.fromiter(itertools.chain.from_iterable(rows), np.float64, width * len(rows))
    except TypeError:  # a `None` among them
        flat = np.array(rows, np.float64)
    return flat.reshape(-1, width)


_TEXTUAL = (AttributeType.TEXT, AttributeType.STATUS)
_IN = "{} IN (SELECT value FROM json_each(?))"
_METRIC_KEY = "SELECT key FROM names WHERE kind = 'metrics' AND path = ?"


def _listed(keys: Iterable[int]) -> str:
    return json.dumps(list(keys))


def _keys_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))


def _narrowed(statement: str, keys: Sequence[int] | None, column: str = "run") -> tuple[str, tuple[str, ...]]:
    """Return a statement that ends in a condition, for some runs or all, and what is bound to it behind."""
    return (statement, ()) if keys is None else (f"{statement} AND {_IN.format(column)}", (_listed(keys),))


def _metric_rows(connection: sqlite3.Connection, field: Metric, keys: Sequence[int] | None) -> sqlite3.Cursor:
    """Return run and value; `None` stands for NaN."""
    column = field.statistic.value
    statement = f"SELECT run, {column} FROM metrics WHERE name = ({_METRIC_KEY})"  # noqa: S608 (names of ours)
    if field.statistic in (Statistic.MIN, Statistic.MAX, Statistic.MEAN):
        statement += " AND min IS NOT NULL"  # of nothing but NaN there is no lowest
    statement, bound = _narrowed(statement, keys)
    return connection.execute(statement, (field.name, *bound))


def value_rows(connection: sqlite3.Connection, field: Field, keys: Sequence[int] | None) -> list[Row]:
    """Return run, kind, number and text of each value of a field other than null.

    Args:
        connection: To the tables.
        field: Anything but a count, a duration, and what depends on prices.
        keys: Of the runs; `None`: all.
    """
    match field:
        case Metric():
            return [(run, "number", value, None) for run, value in _metric_rows(connection, field, keys)]
        case At(name, step):
            statement = (
                f"SELECT run, 'number', value, NULL FROM "  # noqa: S608 (names of ours)
                "(SELECT * FROM points UNION ALL SELECT * FROM temp.learned) AS kept"
                f" WHERE name = ({_METRIC_KEY}) AND step = ? AND is_there = 1"
            )
            statement, bound = _narrowed(statement, keys)
            return connection.execute(statement, (name, step, *bound)).fetchall()
        case Param():
            statement = (
                "SELECT run, kind, number, text FROM params WHERE name IN "  # noqa: S608 (names of ours)
                "(SELECT key FROM names WHERE kind = 'params' "
                f"AND {'path' if field.is_exact else 'name'} = ?) AND kind != 'null'"
            )
            statement, bound = _narrowed(statement, keys)
            return connection.execute(statement, (_dotted(field), *bound)).fetchall()
        case Tag(name):
            statement = (
                "SELECT run, 'text', NULL, text FROM tags "
                "WHERE name = (SELECT key FROM names WHERE kind = 'tags' AND path = ?)"
            )
            statement, bound = _narrowed(statement, keys)
            return connection.execute(statement, (name, *bound)).fetchall()
        case Environment():
            # SQLite must not begin with the runs: a section may be that of all of them.
            statement = (
                "SELECT snapshots.run, kind, number, text FROM environment CROSS JOIN snapshots "  # noqa: S608 (names of ours)
                f"ON snapshots.section = environment.section WHERE {_IN.format('environment.name')}"
            )
            statement, bound = _narrowed(statement, keys, "snapshots.run")
            return connection.execute(statement, (_listed(_environment_names(connection, field)), *bound)).fetchall()
        case Attribute(name):
            return _attribute_rows(connection, name, keys)
        case _:
            raise TypeError(f"{field} is computed")


def priced(field: Attribute) -> float | None:
    """Return what a joule comes to under a field that depends on a price; `None` for others, and where none is set."""
    setting = _PRICES.get(field.name)
    price = settings.number(setting) if setting is not None else None
    return price / _JOULES_IN_KWH if price is not None else None


def _attribute_rows(connection: sqlite3.Connection, name: str, keys: Sequence[int] | None) -> list[Row]:
    if name in _LINKED:
        statement = "SELECT run, 'text', NULL, name, version FROM links WHERE kind = ?"
        statement, bound = _narrowed(statement, keys)
        rows = connection.execute(statement, (name, *bound)).fetchall()
        texts = [
            (row[0], text) for row in rows for text in (row[3], f"{row[3]}@{row[4]}" if row[4] is not None else None)
        ]
        return [(run, "text", None, text) for run, text in dict.fromkeys(texts) if text is not None]
    if name == "artifact":
        statement, bound = _narrowed("SELECT run, 'text', NULL, name FROM artifacts WHERE true", keys)
        return connection.execute(statement, bound).fetchall()
    column = f'"{_STORED_AS.get(name, name)}"'
    kind = ATTRIBUTES[name]
    if kind in _TEXTUAL:
        statement = f"SELECT key, 'text', NULL, {column} FROM runs WHERE {column} IS NOT NULL"  # noqa: S608 (names of ours)
    else:
        word = "bool" if kind is AttributeType.BOOL else "number"
        statement = f"SELECT key, '{word}', {column}, NULL FROM runs WHERE {column} IS NOT NULL"  # noqa: S608 (names of ours)
    statement, bound = _narrowed(statement, keys, "key")
    return connection.execute(statement, bound).fetchall()


def below_rows(
    connection: sqlite3.Connection, field: Param | Environment, keys: Sequence[int] | None
) -> sqlite3.Cursor:
    """Return the runs that have something below an object or a list."""
    if isinstance(field, Environment):
        statement = (
            "SELECT DISTINCT snapshots.run FROM environment CROSS JOIN snapshots "  # noqa: S608 (names of ours)
            f"ON snapshots.section = environment.section WHERE {_IN.format('environment.name')}"
        )
        statement, bound = _narrowed(statement, keys, "snapshots.run")
        return connection.execute(statement, (_listed(_environment_names_below(connection, field)), *bound))
    column = "path" if field.is_exact else "name"
    statement = (
        "SELECT DISTINCT run FROM params WHERE name IN "  # noqa: S608 (names of ours)
        f"(SELECT key FROM names WHERE kind = 'params' AND {column} >= ? AND {column} < ?)"
    )
    statement, bound = _narrowed(statement, keys)
    return connection.execute(statement, (*_span_below(_dotted(field)), *bound))


def _span_below(name: str) -> tuple[str, str]:
    """Return between which names those below one lie: from `a.` up to `a/`."""
    return f"{name}.", f"{name}/"


def count_rows(connection: sqlite3.Connection, field: Count, keys: Sequence[int] | None) -> Iterable[tuple[int, int]]:
    """Return run and count, of runs that have any."""
    if field.kind in (*_LINKED, "artifact"):
        match = glob(field.pattern)
        counts: dict[int, int] = {}
        if field.kind == "artifact":
            statement, bound = _narrowed("SELECT DISTINCT run, name FROM artifacts WHERE true", keys)
        else:
            statement, bound = _narrowed("SELECT DISTINCT run, name FROM links WHERE kind = ?", keys)
            bound = (field.kind, *bound)
        for run, name in connection.execute(statement, bound):
            if match(name):
                counts[run] = counts.get(run, 0) + 1
        return counts.items()
    condition = "kind != 'null'" if field.kind == "params" else "true"
    bound = ()
    if field.pattern != "*":
        match = glob(field.pattern)
        names = connection.execute("SELECT key, name FROM names WHERE kind = ?", (field.kind,))
        chosen = [key for key, name in names if match(name)]
        condition, bound = f"{condition} AND {_IN.format('name')}", (_listed(chosen),)
    statement, more = _narrowed(f"SELECT run, count(*) FROM {field.kind} WHERE {condition}", keys)  # noqa: S608 (names of ours)
    return connection.execute(f"{statement} GROUP BY run", (*bound, *more)).fetchall()


def lacking_points(connection: sqlite3.Connection, field: At, keys: Sequence[int] | None) -> list[int]:
    """Return the runs whose value at a step is not kept, those that cannot have one left out."""
    statement = (
        f"SELECT run FROM metrics WHERE name = ({_METRIC_KEY}) AND first_step <= ? AND last_step >= ? "  # noqa: S608 (names of ours)
        "AND NOT EXISTS (SELECT 1 FROM points WHERE name = metrics.name AND step = ? AND run = metrics.run) "
        "AND NOT EXISTS (SELECT 1 FROM temp.learned AS other "
        "WHERE other.name = metrics.name AND other.step = ? AND other.run = metrics.run)"
    )
    statement, bound = _narrowed(statement, keys)
    step = field.step
    return [row[0] for row in connection.execute(statement, (field.name, step, step, step, step, *bound))]


def _environment_names(connection: sqlite3.Connection, field: Environment) -> list[int]:
    """Return the names that a reader means: keys may be left out where they are numbers, or say nothing."""
    wanted, short = _wanted(field)
    rows = connection.execute("SELECT key, path FROM names WHERE kind = 'environment' AND name = ?", (short,))
    return [key for key, path in rows if _fits(wanted, loose_keys(path))]


def _environment_names_below(connection: sqlite3.Connection, field: Environment) -> list[int]:
    """Return the names that lie below what a reader means."""
    wanted, short = _wanted(field)
    statement = "SELECT key, path FROM names WHERE kind = 'environment' AND (name = ? OR (name >= ? AND name < ?))"
    found = []
    for key, path in connection.execute(statement, (short, *_span_below(short))):
        parts = loose_keys(path)
        if any(_fits(wanted, parts[:end]) for end in range(1, len(parts))):
            found.append(key)
    return found


def _wanted(field: Environment) -> tuple[list[str], str]:
    wanted = [part for key in field.keys for part in key.split(".")]
    return wanted, ".".join(key for key in wanted if not may_leave_out(key))


def _fits(wanted: Sequence[str], path: Sequence[str]) -> bool:
    """Return whether `path` is `wanted` with more keys between, all of which may be left out."""
    position = 0
    for key in path:
        if position < len(wanted) and wanted[position] == key:
            position += 1
        elif not may_leave_out(key):
            return False
    return position == len(wanted)


def _dotted(field: Param) -> str:
    return ".".join(map(escaped, field.keys) if field.is_exact else field.keys)
