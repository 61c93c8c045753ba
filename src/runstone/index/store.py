"""The index file: opened, kept in step with the run folders, asked, and made anew when it is damaged.

Each question first takes in what changed on disk and is answered from the same snapshot. Whatever goes wrong with
the file (read-only, full, damaged, locked by others for long), the question is answered all the same, if need be
from an index in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    NullPool,
    StaticPool,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from runstone.index import ingest, schema
from runstone.index.compile import order_by, sql_number, sql_text, where
from runstone.index.conditions import Condition, Order
from runstone.index.figures import PackedFigures
from runstone.index.ingest import Known, Reading
from runstone.index.records import RunRecord, list_text, unescaped
from runstone.index.schema import metadata, metrics, params, progress, runs, tags
from runstone.params import flatten_params
from runstone.runlog.filesystem import choose_backend
from runstone.values import JSON

FILE = "index.sqlite"
_BATCH = 200
_METRICS_AT_ONCE = 20_000
_BUSY_S = 30.0
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Page:
    """Runs that were asked for.

    Attributes:
        records: In the order asked for, at most as many as asked for.
        total: How many runs match in all.
        troubles: What could not be read.
    """

    records: tuple[RunRecord, ...]
    total: int
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that a short name may mean."""

    id: str
    folder: str
    name: str
    project: str
    started_at: float
    is_deleted: bool


class Index:
    """The index of one workspace. A handle: close it, or use it in a `with` block. For one thread.

    Args:
        workspace: Folder of the workspace.
        clock: Seconds since the epoch.
        busy_s: How long to wait for other processes before doing without the file.
    """

    def __init__(self, workspace: Path, *, clock: Callable[[], float] = time.time, busy_s: float = _BUSY_S) -> None:
        self._workspace = workspace
        self._clock = clock
        self._busy_s = busy_s
        self._is_in_memory = False
        self._troubles: dict[str, str] = {}
        self._engine = self._file_engine()

    @property
    def is_in_memory(self) -> bool:
        """Whether the file could not be used, so that this handle works without it."""
        return self._is_in_memory

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    # --- questions ------------------------------------------------------------------------------------------

    def find(
        self, condition: Condition, *, orders: Sequence[Order] = (), limit: int | None = None, deleted: bool = False
    ) -> Page:
        """Return the runs for which a condition holds.

        Args:
            condition: What must hold.
            orders: What to sort by; then, newest first.
            limit: At most this many.
            deleted: Those that were deleted, instead of those that were not.
        """
        now = self._clock()
        matching = and_(runs.c.is_deleted == int(deleted), where(condition, now))
        found = select(runs.c.record, runs.c.figures).where(matching).order_by(*order_by(orders, now)).limit(limit)
        count = select(func.count()).select_from(runs).where(matching)

        def ask(connection: Connection) -> tuple[tuple[RunRecord, ...], int]:
            records = tuple(RunRecord.from_stored(*row) for row in connection.execute(found))
            is_cut = limit is not None and len(records) >= limit
            return records, int(connection.execute(count).scalar_one()) if is_cut else len(records)

        records, total = self._answer(ask)
        return Page(records, total, tuple(self._troubles.values()))

    def candidates(self, reference: str) -> list[Candidate]:
        """Return the runs whose name is `reference`, or whose id begins or ends with it; newest first."""
        text = sql_text(reference)
        tests = [runs.c.name == text]
        part = reference.lower()
        if re.fullmatch(r"[a-z0-9_-]{4,64}", part):  # so it holds no wildcard
            tests += [runs.c.id.op("GLOB", is_comparison=True)(f"{part}*")]
            tests += [runs.c.id.op("GLOB", is_comparison=True)(f"*{part}")]
        return self._candidates(or_(*tests))

    def recent(self, limit: int = 2_000) -> list[Candidate]:
        """Return the runs that began last, deleted ones left out."""
        return self._candidates(runs.c.is_deleted == 0, limit)

    def _candidates(self, test: Any, limit: int | None = None) -> list[Candidate]:
        columns = (runs.c.id, runs.c.folder, runs.c.name, runs.c.project, runs.c.started_at, runs.c.is_deleted)
        query = select(*columns).where(test).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        rows = self._answer(lambda connection: list(connection.execute(query)))
        return [Candidate(*row[:5], is_deleted=bool(row[5])) for row in rows]

    # --- keeping in step ------------------------------------------------------------------------------------

    def _answer(self, ask: Callable[[Connection], Answer]) -> Answer:
        """Take in what changed, then ask, whatever state the file is in."""
        deadline = time.monotonic() + self._busy_s
        was_rebuilt = False
        while True:
            try:
                return self._refresh_and_ask(ask)
            except (DBAPIError, ValueError, TypeError, LookupError) as error:  # the latter: what is in it is damaged
                if self._is_in_memory:
                    raise
                code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
                if code in _BUSY and time.monotonic() < deadline:
                    time.sleep(0.02)
                elif code in _BUSY or code in _UNUSABLE or was_rebuilt:
                    self._go_without_file()
                else:
                    was_rebuilt = True
                    self._rebuild()

    def _refresh_and_ask(self, ask: Callable[[Connection], Answer]) -> Answer:
        on_disk = ingest.scan(self._workspace)
        with self._transaction("BEGIN") as connection:
            known = _known(connection)
            if known is not None:
                changes = ingest.changes(self._workspace, on_disk, known)
                if not changes:
                    return ask(connection)
        if known is None:
            with self._transaction("BEGIN IMMEDIATE") as connection:
                _make_tables(connection)
            changes = ingest.changes(self._workspace, on_disk, {})
        # Files are read outside of transactions, so that no process waits for another's reading.
        batches = [changes.stale[start : start + _BATCH] for start in range(0, len(changes.stale), _BATCH)] or [[]]
        for batch in batches[:-1]:
            readings = self._read(batch, on_disk)
            with self._transaction("BEGIN IMMEDIATE") as connection:
                _put(connection, readings)
        readings = self._read(batches[-1], on_disk)
        with self._transaction("BEGIN IMMEDIATE") as connection:
            _put(connection, readings)
            _confirm(connection, changes)
            return ask(connection)

    def _read(self, folders: Sequence[str], on_disk: dict[str, int]) -> list[Reading]:
        if not folders:
            return []
        with self._transaction("BEGIN") as connection:
            query = select(runs.c.folder, progress.c.state).join(progress, progress.c.run == runs.c.key)
            before = {row[0]: row[1] for row in connection.execute(query.where(runs.c.folder.in_(folders)))}
        readings = [ingest.read(self._workspace, name, on_disk[name], before.get(name)) for name in folders]
        for reading in readings:
            self._troubles.pop(reading.folder, None)
            if reading.trouble:
                self._troubles[reading.folder] = reading.trouble
        return readings

    # --- the file -------------------------------------------------------------------------------------------

    def _file_engine(self) -> Engine:
        # On network file systems the shared memory of WAL is not shared between machines.
        journal = "WAL" if choose_backend(self._workspace) == "mmap" else "DELETE"
        path = self._workspace / FILE
        return _engine(
            lambda: sqlite3.connect(path, timeout=self._busy_s, isolation_level=None),
            NullPool,
            [f"PRAGMA journal_mode = {journal}", "PRAGMA synchronous = NORMAL"],
        )

    def _go_without_file(self) -> None:
        self._engine.dispose()
        self._is_in_memory = True
        self._engine = _engine(lambda: sqlite3.connect(":memory:", isolation_level=None), StaticPool, [])

    def _rebuild(self) -> None:
        """Remove a damaged file, one process at a time; others may have made a new one when the turn comes."""
        self._engine.dispose()
        with contextlib.suppress(OSError), (self._workspace / f"{FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_sound(self._workspace / FILE):
                return
            for suffix in ("", "-wal", "-shm", "-journal"):
                (self._workspace / f"{FILE}{suffix}").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")


def _engine(connect: Callable[[], sqlite3.Connection], pool: type[Any], pragmas: Sequence[str]) -> Engine:
    # AUTOCOMMIT: transactions are begun by hand, since a writer must say so from the start (BEGIN IMMEDIATE).
    engine = create_engine("sqlite://", creator=connect, poolclass=pool, isolation_level="AUTOCOMMIT")

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.create_function("casefold", 1, _casefold, deterministic=True)
        for pragma in (*pragmas, "PRAGMA foreign_keys = ON"):
            connection.execute(pragma)

    return engine


def _casefold(text: object) -> str | None:
    return text.casefold() if isinstance(text, str) else None


def _is_sound(path: Path) -> bool:
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),  # the latter: a message that quotes what is damaged
        contextlib.closing(sqlite3.connect(path)) as connection,
    ):
        if connection.execute("PRAGMA user_version").fetchone()[0] != schema.SCHEMA:
            return False
        for table in metadata.tables.values():
            columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table.name,))
            if {row[0] for row in columns} != set(table.columns.keys()):
                return False
        return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    return False


def _known(connection: Connection) -> dict[str, Known] | None:
    """Return the state in which each folder was read; `None` where the tables are missing or of another version."""
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one() != schema.SCHEMA:
        return None
    query = select(runs.c.folder, runs.c.mtime_ns, runs.c.signature, runs.c.is_over, runs.c.seen_at)
    return {row[0]: Known(row[1], row[2], bool(row[3]), row[4]) for row in connection.execute(query)}


def _make_tables(connection: Connection) -> None:
    """Make the tables, unless another process did so in the meantime; those of another version are dropped."""
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one() == schema.SCHEMA:
        return
    found = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    )
    for name in list(found.scalars()):
        quoted = connection.dialect.identifier_preparer.quote_identifier(name)
        connection.exec_driver_sql(f"DROP TABLE {quoted}")
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(f"PRAGMA user_version = {schema.SCHEMA}")


def _confirm(connection: Connection, changes: ingest.Changes) -> None:
    for folder, state in changes.confirmed.items():
        is_same = and_(runs.c.folder == folder, runs.c.signature == state.signature)
        connection.execute(update(runs).where(is_same).values(seen_at=state.seen_at))
    for folder in changes.gone:
        connection.execute(delete(runs).where(runs.c.folder == folder))


def _put(connection: Connection, readings: Sequence[Reading]) -> None:
    """Put readings into the tables, except where another process has put a later one."""
    folders = [reading.folder for reading in readings]
    columns = (runs.c.folder, runs.c.key, runs.c.seen_at, runs.c.record, runs.c.figures)
    standing = {row.folder: row for row in connection.execute(select(*columns).where(runs.c.folder.in_(folders)))}
    new: list[tuple[int, RunRecord]] = []
    for reading in readings:
        row = standing.get(reading.folder)
        if row is not None and row.seen_at > reading.known.seen_at:
            continue
        if reading.record is None:
            if row is not None:
                connection.execute(delete(runs).where(runs.c.key == row.key))
            continue
        text, figures = reading.record.to_json(), reading.record.metrics.data
        values = {
            **_run_row(reading.record),
            "record": text,
            "figures": figures,
            "mtime_ns": reading.known.mtime_ns,
            "signature": reading.known.signature,
            "is_over": int(reading.known.is_over),
            "seen_at": reading.known.seen_at,
        }
        if row is None:
            key = connection.execute(insert(runs).values(values)).lastrowid
        else:
            key = row.key
            connection.execute(update(runs).where(runs.c.key == key).values(values))
        if row is None or row.record != text:
            for table in (params, tags) if row is not None else ():
                connection.execute(delete(table).where(table.c.run == key))
            new.append((key, reading.record))
        if row is None or row.figures != figures:
            before = PackedFigures(row.figures) if row is not None else None
            _put_metrics(connection, key, before, reading.record.metrics)
        connection.execute(delete(progress).where(progress.c.run == key))
        if reading.progress is not None:
            connection.execute(insert(progress).values(run=key, state=reading.progress))
    _put_rows(connection, params, [row for key, record in new for row in _param_rows(key, record.params)])
    _put_rows(connection, tags, [row for key, record in new for row in _tag_rows(key, record.tags)])


def _put_metrics(connection: Connection, run: int, before: PackedFigures | None, now: PackedFigures) -> None:
    """Put what metrics come down to into their table: of a run that lives, those that went on."""
    standing = {row[0]: row for row in _metric_rows(run, before)} if before is not None else {}
    changed = (row for row in _metric_rows(run, now) if standing.pop(row[0], None) != row)
    statement = (
        "INSERT OR REPLACE INTO metrics (name, run, count, nan_count, last, min, max, mean) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    )
    while rows := list(itertools.islice(changed, _METRICS_AT_ONCE)):
        connection.exec_driver_sql(statement, rows)
    for name in standing:
        connection.execute(delete(metrics).where(metrics.c.run == run, metrics.c.name == name))


def _put_rows(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _run_row(record: RunRecord) -> dict[str, Any]:
    texts = ("id", "folder", "project", "name", "group", "notes", "parent", "failure")
    row: dict[str, Any] = {
        name: sql_text(value) if (value := getattr(record, name)) is not None else None for name in texts
    }
    return {
        **row,
        "status": record.status.value,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "attempts": record.attempts,
        "is_deleted": int(record.is_deleted),
    }


def _param_rows(run: int, nested: dict[str, JSON]) -> Iterable[dict[str, Any]]:
    rows = {}
    for path, value in flatten_params(nested).items():
        kind, number, text = _typed(value)
        path = sql_text(path)  # may make two paths one: keys may hold what SQLite cannot search
        rows[path] = {"run": run, "path": path, "name": unescaped(path), "kind": kind, "number": number, "text": text}
    return rows.values()


def _typed(value: JSON) -> tuple[str, int | float | None, str | None]:
    """Return kind, number and text under which a param is found. A list is found by its JSON text."""
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


def _tag_rows(run: int, values: dict[str, str]) -> Iterator[dict[str, Any]]:
    return ({"run": run, "name": sql_text(name), "text": sql_text(text)} for name, text in values.items())


def _metric_rows(run: int, figures: PackedFigures) -> Iterator[tuple[Any, ...]]:
    return ((sql_text(name), run, *rest) for name, *rest in figures.rows())
