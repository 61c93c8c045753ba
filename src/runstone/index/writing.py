"""From readings of run folders to rows of the index: only what differs is written."""

from __future__ import annotations

import itertools
import math
import operator
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from runstone.capture.metrics.energy import energy_in
from runstone.index import schema
from runstone.index.details import Details, Section
from runstone.index.figures import PackedFigures
from runstone.index.ingest import Reading
from runstone.index.records import RunRecord, list_text, short_name, unescaped
from runstone.params import flatten_params
from runstone.values import JSON

_INT64 = range(-(2**63), 2**63)
_SURROGATES = re.compile("[\ud800-\udfff]")
_ROWS_AT_ONCE = 50_000
_NAME_AND_RUN = operator.itemgetter(0, 1)
_MOST_NAMES_AT_HAND = 200_000


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


def typed(value: JSON) -> tuple[str, int | float | None, str | None]:
    """Return kind, number and text under which a value is found. A list is found by its JSON text."""
    match value:
        case None:
            return schema.NULL, None, None
        case bool():
            return schema.BOOL, int(value), None
        case int() | float():
            return schema.NUMBER, sql_number(value), None
        case str():
            return schema.TEXT, None, sql_text(value)
        case _:
            return schema.TEXT, None, sql_text(list_text(value))


class Names:
    """Keys of names in one index file, the known ones at hand, and how many runs have each more than before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._more: Counter[tuple[int, str]] = Counter()
        self._more_sections: Counter[int] = Counter()

    def clear(self) -> None:
        """Forget what is at hand: of a transaction that was rolled back, or another file."""
        self._known.clear()
        self._more.clear()
        self._more_sections.clear()

    def count_section(self, section: int, runs: int) -> None:
        """Note that so many more runs have a section of a snapshot."""
        self._more_sections[section] += runs

    def count(self, name: int, kind: str, runs: int) -> None:
        """Note that so many more runs have a value of this kind under a name."""
        self._more[name, kind] += runs

    def write_counts(self, connection: sqlite3.Connection) -> None:
        """Write what was noted."""
        for section, more in self._more_sections.items():
            for name, kind in connection.execute("SELECT name, kind FROM environment WHERE section = ?", (section,)):
                self.count(name, kind, more)
        self._more_sections.clear()
        connection.executemany(
            "INSERT INTO tallies (name, kind, runs) VALUES (?, ?, ?) "
            "ON CONFLICT (name, kind) DO UPDATE SET runs = tallies.runs + excluded.runs",
            [(name, kind, runs) for (name, kind), runs in self._more.items() if runs],
        )
        self._more.clear()

    def keys(self, connection: sqlite3.Connection, kind: str, paths: Iterable[str]) -> dict[str, int]:
        """Return the keys of names, made where they are new."""
        known = self._known
        if len(known) > _MOST_NAMES_AT_HAND:
            known.clear()
        found = {}
        for path in paths:
            key = known.get((kind, path))
            if key is None:
                key = known[kind, path] = self._look_up(connection, kind, path)
            found[path] = key
        return found

    def _look_up(self, connection: sqlite3.Connection, kind: str, path: str) -> int:
        row = connection.execute("SELECT key FROM names WHERE kind = ? AND path = ?", (kind, path)).fetchone()
        if row is not None:
            return int(row[0])
        name = unescaped(path) if kind == "params" else short_name(path) if kind == "environment" else path
        statement = "INSERT INTO names (kind, path, name) VALUES (?, ?, ?)"
        return int(connection.execute(statement, (kind, path, name)).lastrowid or 0)


class _Rows:
    """Rows of tables clustered by name, put together: in their order they touch each page once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERT}

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take rows that begin with name and run, which no other one has."""
        waiting = self._rows[table]
        waiting.extend(rows)
        if len(waiting) >= _ROWS_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what is waiting."""
        for table, rows in self._rows.items():
            rows.sort(key=_NAME_AND_RUN)
            self._connection.executemany(_INSERT[table], rows)
            rows.clear()


def put(connection: sqlite3.Connection, names: Names, readings: Sequence[Reading]) -> None:
    """Put readings into the tables, except where another process has put a later one."""
    revision = next_revision(connection)
    rows = _Rows(connection)
    for reading in readings:
        row = connection.execute(
            "SELECT runs.key, seen_at, record, figures, details FROM runs JOIN records ON run = key WHERE folder = ?",
            (reading.folder,),
        ).fetchone()
        if row is not None and row[1] > reading.known.seen_at:
            continue
        if reading.record is None:
            if row is not None:
                remove(connection, names, [reading.folder])
            _put_trouble(connection, reading)
            continue
        if reading.trouble:
            _put_trouble(connection, reading)
        else:
            connection.execute("DELETE FROM unread WHERE folder = ?", (reading.folder,))
        _put_run(connection, names, rows, reading, reading.record, row, revision)
    rows.write()
    names.write_counts(connection)


def _put_trouble(connection: sqlite3.Connection, reading: Reading) -> None:
    statement = "INSERT OR REPLACE INTO unread (folder, trouble) VALUES (?, ?)"
    connection.execute(statement, (reading.folder, sql_text(reading.trouble)))


def _put_run(
    connection: sqlite3.Connection,
    names: Names,
    rows: _Rows,
    reading: Reading,
    record: RunRecord,
    row: Sequence[object] | None,
    revision: int,
) -> None:
    known, details = reading.known, reading.details or Details({})
    text, figures, told = record.to_json(), record.metrics.data, details.to_json()
    if row is not None and (row[2], row[3], row[4]) == (text, figures, told):
        connection.execute(
            "UPDATE runs SET mtime_ns = ?, signature = ?, watch = ?, seen_at = ? WHERE key = ?",
            (known.mtime_ns, known.signature, known.watch, known.seen_at, row[0]),
        )
        _put_progress(connection, int(str(row[0])), reading.progress)
        return
    values = {
        **_run_row(record),
        "revision": revision,
        "mtime_ns": known.mtime_ns,
        "signature": known.signature,
        "watch": int(known.watch),
        "seen_at": known.seen_at,
    }
    if row is None:
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" for _ in values)
        made = connection.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", list(values.values()))  # noqa: S608 (names of ours)
        key = int(made.lastrowid or 0)
        before_params, before_tags, before_figures = {}, {}, None
    else:
        key = int(str(row[0]))
        assignments = ", ".join(f'"{name}" = ?' for name in values)
        connection.execute(f"UPDATE runs SET {assignments} WHERE key = ?", [*values.values(), key])  # noqa: S608 (names of ours)
        standing = RunRecord.from_stored(str(row[2]), bytes(row[3]))  # type: ignore[call-overload]
        before_params, before_tags = _params(standing.params), _tags(standing.tags)
        before_figures = standing.metrics
    connection.execute(
        "INSERT OR REPLACE INTO records (run, record, figures, details) VALUES (?, ?, ?, ?)", (key, text, figures, told)
    )
    _put_named(connection, names, rows, "params", key, before_params, _params(record.params))
    _put_named(connection, names, rows, "tags", key, before_tags, _tags(record.tags))
    if before_figures is None or before_figures.data != figures:
        _put_metrics(connection, names, rows, key, before_figures, record.metrics)
    if row is None or row[4] != told:
        _put_details(connection, names, key, details)
    _put_progress(connection, key, reading.progress)


def remove(connection: sqlite3.Connection, names: Names, folders: Iterable[str]) -> None:
    """Remove runs whose folders are gone, or hold no run any more."""
    revision = None
    rows = _Rows(connection)
    for folder in folders:
        connection.execute("DELETE FROM unread WHERE folder = ?", (folder,))
        row = connection.execute(
            "SELECT key, id, record, figures FROM runs JOIN records ON run = key WHERE folder = ?", (folder,)
        ).fetchone()
        if row is None:
            continue
        revision = revision if revision is not None else next_revision(connection)
        key, run_id, text, figures = row
        record = RunRecord.from_stored(text, figures)
        _put_named(connection, names, rows, "params", key, _params(record.params), {})
        _put_named(connection, names, rows, "tags", key, _tags(record.tags), {})
        _put_metrics(connection, names, rows, key, record.metrics, None)
        _unlink(connection, names, key)
        for table in schema.OF_RUN:
            connection.execute(f"DELETE FROM {table} WHERE run = ?", (key,))  # noqa: S608 (names of ours)
        connection.execute("DELETE FROM runs WHERE key = ?", (key,))
        connection.execute("INSERT INTO removed (key, id, revision) VALUES (?, ?, ?)", (key, run_id, revision))
    names.write_counts(connection)


def next_revision(connection: sqlite3.Connection) -> int:
    """Return the number of the change that is being made."""
    more = "CAST(CAST(value AS BIGINT) + 1 AS TEXT)"
    statement = f"UPDATE state SET value = {more} WHERE name = 'revision' RETURNING value"  # noqa: S608 (words of ours)
    (row,) = connection.execute(statement).fetchall()
    return int(row[0])


def _run_row(record: RunRecord) -> dict[str, object]:
    texts = ("id", "folder", "project", "name", "group", "notes", "parent", "failure")
    row: dict[str, object] = {
        name: sql_text(value) if (value := getattr(record, name)) is not None else None for name in texts
    }
    return {
        **row,
        "status": record.status.value,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "attempts": record.attempts,
        "dropped": record.dropped,
        "is_deleted": int(record.is_deleted),
        "is_pinned": int(record.is_pinned),
        "is_archived": int(record.is_archived),
        "energy_j": energy_in(record.metrics).total_j,
    }


def _params(nested: dict[str, JSON]) -> dict[str, tuple[Any, ...]]:
    # What SQLite cannot search may make two paths one: the later stays.
    return {sql_text(path): typed(value) for path, value in flatten_params(nested).items()}


def _tags(tags: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
    return {sql_text(name): (sql_text(text),) for name, text in tags.items()}


_INSERT = {
    "params": "INSERT OR REPLACE INTO params (name, run, kind, number, text) VALUES (?, ?, ?, ?, ?)",
    "tags": "INSERT OR REPLACE INTO tags (name, run, text) VALUES (?, ?, ?)",
    "metrics": "INSERT OR REPLACE INTO metrics "
    "(name, run, count, nan_count, first_step, last_step, last, min, max, mean) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
}
_DELETE = {table: f"DELETE FROM {table} WHERE name = ? AND run = ?" for table in _INSERT}  # noqa: S608 (names of ours)


def _put_named(
    connection: sqlite3.Connection,
    names: Names,
    rows: _Rows,
    table: str,
    run: int,
    before: Mapping[str, tuple[Any, ...]],
    now: Mapping[str, tuple[Any, ...]],
) -> None:
    """Put values by name into a table, those that differ."""
    changed = {path: value for path, value in now.items() if before.get(path) != value}
    gone = before.keys() - now.keys()
    keys = names.keys(connection, table, [*changed, *gone])
    rows.add(table, ((keys[path], run, *value) for path, value in changed.items()))
    connection.executemany(_DELETE[table], [(keys[path], run) for path in gone])
    for path in changed:
        names.count(keys[path], _kind_of(table, changed[path]), 1)
    for path in before.keys() & keys.keys():
        names.count(keys[path], _kind_of(table, before[path]), -1)


def _kind_of(table: str, value: tuple[Any, ...]) -> str:
    return str(value[0]) if table == "params" else schema.TEXT


def _put_metrics(
    connection: sqlite3.Connection,
    names: Names,
    rows: _Rows,
    run: int,
    before: PackedFigures | None,
    now: PackedFigures | None,
) -> None:
    """Put what metrics come down to into their table: of a run that lives, those that went on."""
    standing = {row[0]: row for row in _metric_rows(before)} if before is not None else {}
    left = dict(standing)
    changed = (row for row in _metric_rows(now) if left.pop(row[0], None) != row) if now is not None else iter(())
    while some := list(itertools.islice(changed, _ROWS_AT_ONCE)):
        keys = names.keys(connection, "metrics", [row[0] for row in some])
        rows.add("metrics", ((keys[row[0]], run, *row[1:]) for row in some))
        for row in some:
            if row[0] not in standing:
                names.count(keys[row[0]], schema.NUMBER, 1)
    keys = names.keys(connection, "metrics", left)
    connection.executemany(_DELETE["metrics"], [(key, run) for key in keys.values()])
    for key in keys.values():
        names.count(key, schema.NUMBER, -1)
    if before is not None:
        connection.execute("DELETE FROM points WHERE run = ?", (run,))


def _metric_rows(figures: PackedFigures) -> Iterator[tuple[Any, ...]]:
    return ((sql_text(name), *rest) for name, *rest in figures.rows())


def _put_details(connection: sqlite3.Connection, names: Names, run: int, details: Details) -> None:
    for table, rows in details.rows.items():
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 (names of ours)
        for row in rows:
            values = [sql_text(value) if isinstance(value, str) else value for value in row]
            marks = ", ".join("?" for _ in values)
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, {marks})", [run, *values])  # noqa: S608 (as above)
    if details.sections is None:
        return
    _unlink(connection, names, run)
    for section in details.sections:
        row = connection.execute("SELECT key FROM sections WHERE digest = ?", (section.digest,)).fetchone()
        key = int(row[0]) if row is not None else _put_section(connection, names, section)
        connection.execute("INSERT OR IGNORE INTO snapshots (run, section) VALUES (?, ?)", (run, key))
        names.count_section(key, 1)


def _put_section(connection: sqlite3.Connection, names: Names, section: Section) -> int:
    made = connection.execute("INSERT INTO sections (digest) VALUES (?)", (section.digest,))
    key = int(made.lastrowid or 0)
    values = {sql_text(path): typed(value) for path, value in section.values().items()}
    keys = names.keys(connection, "environment", values)
    connection.executemany(
        "INSERT OR REPLACE INTO environment (section, name, kind, number, text) VALUES (?, ?, ?, ?, ?)",
        [(key, keys[path], *value) for path, value in values.items()],
    )
    return key


def _unlink(connection: sqlite3.Connection, names: Names, run: int) -> None:
    """Take a run's snapshot from it; the sections stay for others."""
    rows = connection.execute("DELETE FROM snapshots WHERE run = ? RETURNING section", (run,)).fetchall()
    for (section,) in rows:
        names.count_section(section, -1)


def _put_progress(connection: sqlite3.Connection, run: int, state: bytes | None) -> None:
    connection.execute("DELETE FROM progress WHERE run = ?", (run,))
    if state is not None:
        connection.execute("INSERT INTO progress (run, state) VALUES (?, ?)", (run, state))
