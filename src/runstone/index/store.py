"""The index file: opened, kept in step with the run folders, asked, and made anew when it is damaged.

Each question first takes in what changed on disk and is answered from one state of the tables. Whatever goes wrong
with the file (read-only, full, damaged, locked by others for long), the question is answered all the same, if need be
from an index in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from runstone.index import ingest, schema
from runstone.index.conditions import At, Condition, Order
from runstone.index.details import Details
from runstone.index.ingest import Before, Changes, Known, Reading, Watch
from runstone.index.records import RunRecord
from runstone.index.writing import Names, put, remove, sql_text
from runstone.runlog.changes import forget_old
from runstone.runlog.filesystem import choose_backend

if TYPE_CHECKING:
    from runstone.index.columns import Columns
    from runstone.index.evaluate import Evaluation

FILE = "index.sqlite"
BESIDE = f"index.{schema.SCHEMA}.sqlite"
"""Where this version keeps its index in a workspace whose `FILE` a newer one wrote: that is left as it is."""
_BATCH = 200
_BUSY_S = 30.0
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
_KNOWN = "SELECT folder, mtime_ns, signature, watch, seen_at FROM runs"
_CANDIDATE = "SELECT id, folder, name, project, started_at, is_deleted FROM runs"
_NEWEST = "ORDER BY started_at DESC, id DESC"
_ALL = slice(0, None)
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


class _Newer(Exception):
    """A newer version wrote this index."""


class Question:
    """One state of the tables, while it is asked.

    Attributes:
        connection: In a transaction that reads.
        now: Seconds since the epoch.
        cursor: Names the state.
        troubles: What could not be read.
    """

    def __init__(
        self, connection: sqlite3.Connection, columns: Columns, now: float, cursor: str, troubles: tuple[str, ...]
    ) -> None:
        from runstone.index.evaluate import Evaluation  # loads NumPy

        self.connection = connection
        self.columns = columns
        self.now = now
        self.cursor = cursor
        self.troubles = troubles
        self.evaluation: Evaluation = Evaluation(columns, connection, now)

    def chosen(
        self,
        condition: Condition,
        orders: Sequence[Order] = (),
        *,
        deleted: bool | None,
        archived: bool | None,
        window: slice = _ALL,
    ) -> tuple[list[int], int]:
        """Return the keys of the runs for which a condition holds, in order, and how many they are.

        Args:
            condition: What must hold.
            orders: What to sort by; then, newest first.
            deleted: Whether they must be deleted, or must not; `None`: no matter.
            archived: The same of archived ones.
            window: Which of the keys are wanted.
        """
        slots = self.evaluation.chosen(condition, deleted=deleted, archived=archived)
        ordered = self.evaluation.ordered(slots, orders, window.stop)
        keys: list[int] = self.columns.keys[ordered[window]].tolist()
        return keys, len(slots)

    def records(self, keys: Sequence[int]) -> tuple[RunRecord, ...]:
        """Return what tables show of runs."""
        statement = "SELECT run, record, figures FROM records WHERE run IN (SELECT value FROM json_each(?))"
        rows = {row[0]: row[1:] for row in self.connection.execute(statement, (json.dumps(keys),))}
        return tuple(RunRecord.from_stored(*rows[key]) for key in keys)


class Index:
    """The index of one workspace. A handle: close it, or use it in a `with` block. Threads may share it.

    Args:
        workspace: Folder of the workspace.
        clock: Seconds since the epoch.
        busy_s: How long to wait for other processes before doing without the file.
        refresh_s: Take in what changed at most so often; 0: at each question.
        stays_open: Keep the file open between questions; else nothing is to be closed, and what questions have read
            stays at hand all the same.
    """

    def __init__(
        self,
        workspace: Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_s: float = _BUSY_S,
        refresh_s: float = 0.0,
        stays_open: bool = True,
    ) -> None:
        self._workspace = workspace
        self._stays_open = stays_open
        self._refresh_s = refresh_s
        self._refreshed_at = -math.inf
        self._clock = clock
        self._busy_s = busy_s
        self._is_in_memory = False
        self._name = FILE
        self._names = Names()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._columns: Columns | None = None
        self._lock = threading.RLock()

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
        with self._lock:
            self._disconnect()

    # --- questions ------------------------------------------------------------------------------------------

    def ask(self, answer: Callable[[Question], Answer]) -> Answer:
        """Take in what changed, then answer from one state, whatever state the file is in."""
        with self._lock:
            try:
                return self._ask(answer)
            finally:
                if not self._stays_open:
                    self._part()

    def _ask(self, answer: Callable[[Question], Answer]) -> Answer:
        deadline = time.monotonic() + self._busy_s
        was_rebuilt = False
        while True:
            try:
                return self._refresh_and_ask(answer)
            except _Newer:
                if self._name == BESIDE:
                    raise
                self._disconnect()
                self._name = BESIDE
            except (
                sqlite3.Error,
                ValueError,
                TypeError,
                LookupError,
            ) as error:  # the latter: what is in it is damaged
                if self._is_in_memory:
                    raise
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _BUSY and time.monotonic() < deadline:
                    time.sleep(0.02)
                elif code in _BUSY or code in _UNUSABLE or was_rebuilt:
                    self._go_without_file()
                else:
                    was_rebuilt = True
                    self._rebuild()

    def find(
        self,
        condition: Condition,
        *,
        orders: Sequence[Order] = (),
        limit: int | None = None,
        deleted: bool = False,
        archived: bool | None = None,
    ) -> Page:
        """Return the runs for which a condition holds.

        Args:
            condition: What must hold.
            orders: What to sort by; then, newest first.
            limit: At most this many.
            deleted: Those that were deleted, instead of those that were not.
            archived: Those that were archived, or those that were not; `None`: both.
        """

        def answer(question: Question) -> Page:
            keys, total = question.chosen(condition, orders, deleted=deleted, archived=archived, window=slice(0, limit))
            return Page(question.records(keys), total, question.troubles)

        return self.ask(answer)

    def candidates(self, reference: str) -> list[Candidate]:
        """Return the runs whose name is `reference`, or whose id begins or ends with it; newest first."""
        condition, bound = "name = ?", [sql_text(reference)]
        part = reference.lower()
        if re.fullmatch(r"[a-z0-9_-]{4,64}", part):  # so it holds no wildcard
            condition, bound = f"{condition} OR id GLOB ? OR id GLOB ?", [*bound, f"{part}*", f"*{part}"]
        return self._candidates(f"WHERE {condition} {_NEWEST}", bound)

    def recent(self, limit: int = 2_000) -> list[Candidate]:
        """Return the runs that began last, deleted ones left out."""
        return self._candidates(f"WHERE is_deleted = 0 {_NEWEST} LIMIT ?", [limit])

    def _candidates(self, rest: str, bound: list[Any]) -> list[Candidate]:
        def answer(question: Question) -> list[Candidate]:
            rows = question.connection.execute(f"{_CANDIDATE} {rest}", bound)
            return [Candidate(*row[:-1], is_deleted=bool(row[-1])) for row in rows]  # type: ignore[misc]

        return self.ask(answer)

    # --- keeping in step ------------------------------------------------------------------------------------

    def _refresh_and_ask(self, answer: Callable[[Question], Answer]) -> Answer:
        connection = self._connect()
        try:
            if time.monotonic() - self._refreshed_at >= self._refresh_s:
                self._refresh(connection)
                self._refreshed_at = time.monotonic()
            with _transaction(connection, "BEGIN"):
                state = _state(connection)
                columns = self._in_step(connection, state)
                troubles = tuple(
                    row[0]
                    for row in connection.execute("SELECT trouble FROM unread WHERE trouble != '' ORDER BY folder")
                )
                cursor = f"{state['identity']}.{state['revision']}"
                found = answer(Question(connection, columns, self._clock(), cursor, troubles))
            self._keep_learned(connection, int(state["revision"]))
            return found
        except BaseException:
            self._names.clear()  # what was rolled back must not be taken for there
            raise

    def _in_step(self, connection: sqlite3.Connection, state: dict[str, Any]) -> Columns:
        from runstone.index.columns import Columns  # loads NumPy

        if self._columns is None:
            self._columns = Columns(self._read_points)
        try:
            self._columns.refresh(connection, str(state["identity"]), int(state["revision"]))
        except BaseException:
            self._columns = None
            raise
        return self._columns

    def _refresh(self, connection: sqlite3.Connection) -> None:
        """Make the tables as the disk. It is looked at outside of transactions, so that no process waits for that."""
        with _transaction(connection, "BEGIN"):
            before = _before(connection)
        if before is not None:
            changes = ingest.find_changes(self._workspace, before, States(connection))
            keeps_time = changes.scanned_at and max(changes.scan_s, before.scan_s) >= ingest.SMALL_S
            if not changes and not keeps_time and changes.feed == dict(before.feed):
                return
        else:
            with _transaction(connection, "BEGIN IMMEDIATE"):
                _make_tables(connection)
            self._names.clear()
            changes = ingest.find_changes(self._workspace, Before(), States(connection))
        stale = list(changes.stale)
        batches = [stale[start : start + _BATCH] for start in range(0, len(stale), _BATCH)] or [[]]
        for batch in batches[:-1]:
            readings = self._read(connection, batch, changes.stale)
            with _transaction(connection, "BEGIN IMMEDIATE"):
                put(connection, self._names, readings)
        readings = self._read(connection, batches[-1], changes.stale)
        with _transaction(connection, "BEGIN IMMEDIATE"):
            if readings:
                put(connection, self._names, readings)
            _confirm(connection, self._names, changes)
        if changes.scanned_at:
            forget_old(self._workspace)

    def _read(self, connection: sqlite3.Connection, folders: Sequence[str], mtimes: dict[str, int]) -> list[Reading]:
        if not folders:
            return []
        statement = (
            "SELECT folder, state, details FROM runs JOIN records ON records.run = key LEFT JOIN progress "
            "ON progress.run = key WHERE folder IN (SELECT value FROM json_each(?))"
        )
        with _transaction(connection, "BEGIN"):
            rows = connection.execute(statement, (_listed(folders),)).fetchall()
        before = {row[0]: (row[1], Details.from_json(row[2])) for row in rows}
        return [
            ingest.read(self._workspace, folder, mtimes[folder], *before.get(folder, (None, None)))
            for folder in folders
        ]

    def _read_points(self, field: At, keys: Sequence[int]) -> list[tuple[int, float | None, bool]]:
        connection = self._connect()
        statement = "SELECT key, folder FROM runs WHERE key IN (SELECT value FROM json_each(?))"
        rows = connection.execute(statement, (json.dumps(list(keys)),)).fetchall()
        return [(key, *ingest.value_at(self._workspace / "runs" / folder, field)) for key, folder in rows]

    def _keep_learned(self, connection: sqlite3.Connection, revision: int) -> None:
        """Keep the values at steps that were read for this question, of runs that have not changed since."""
        if connection.execute("SELECT 1 FROM temp.learned LIMIT 1").fetchone() is None:
            return
        with contextlib.suppress(sqlite3.OperationalError), _transaction(connection, "BEGIN IMMEDIATE"):
            connection.execute(
                "INSERT OR REPLACE INTO points SELECT learned.* FROM temp.learned JOIN runs ON key = run "
                "WHERE revision <= ?",
                (revision,),
            )
        connection.execute("DELETE FROM temp.learned")

    # --- the file -------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        """Return the connection; a new one where the file was deleted, or another put in its place."""
        path = self._workspace / self._name
        is_same = self._is_in_memory or _identity(path) == self._file
        if self._connection is not None and is_same:
            return self._connection
        if not is_same:
            self._disconnect()
        if self._is_in_memory:
            self._connection = _opened(":memory:", self._busy_s, [])
            return self._connection
        # On network file systems the shared memory of WAL is not shared between machines.
        journal = "WAL" if choose_backend(self._workspace) == "mmap" else "DELETE"
        pragmas = [f"PRAGMA journal_mode = {journal}", "PRAGMA synchronous = NORMAL", "PRAGMA mmap_size = 268435456"]
        self._connection = _opened(str(path), self._busy_s, pragmas)
        self._file = _identity(path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._file, self._columns = None, None, None
        self._refreshed_at = -math.inf
        self._names.clear()

    def _part(self) -> None:
        """Close the file. The columns stay: identity and revision of the tables tell what of them is still true."""
        if self._is_in_memory:  # the next question may find a file that can be used
            self._disconnect()
            self._is_in_memory = False
        elif self._connection is not None:
            self._connection.close()
            self._connection = None
            self._names.clear()

    def _go_without_file(self) -> None:
        self._disconnect()
        self._is_in_memory = True

    def _rebuild(self) -> None:
        """Remove a damaged file, one process at a time; others may have made a new one when the turn comes."""
        self._disconnect()
        with contextlib.suppress(OSError), (self._workspace / f"{self._name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_sound(self._workspace / self._name):
                return
            for suffix in ("", "-wal", "-shm", "-journal"):
                (self._workspace / f"{self._name}{suffix}").unlink(missing_ok=True)


def _opened(path: str, busy_s: float, pragmas: Sequence[str]) -> sqlite3.Connection:
    # No transactions but those begun by hand, since a writer must say so from the start (BEGIN IMMEDIATE).
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (*pragmas, "PRAGMA temp_store = MEMORY"):
            connection.execute(pragma)
        connection.execute(
            "CREATE TEMP TABLE learned (name INTEGER, step INTEGER, run INTEGER, is_there INTEGER, value REAL)"
        )
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def is_sound(path: Path) -> bool:
    """Return whether a file is an index of this version, and whole."""
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),  # the latter: a message that quotes what is damaged
        contextlib.closing(sqlite3.connect(path)) as connection,
    ):
        if connection.execute("PRAGMA user_version").fetchone()[0] != schema.SCHEMA:
            return False
        if any(set(schema.columns_of(connection, table)) != names for table, names in schema.columns().items()):
            return False
        return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
    return False


def _version(connection: sqlite3.Connection) -> int:
    """Return of which version the tables are, 0 where there are none.

    Raises:
        _Newer: of one that this program does not know, and must not change.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > schema.SCHEMA:
        raise _Newer
    return found


def _state(connection: sqlite3.Connection) -> dict[str, Any]:
    return dict(connection.execute("SELECT name, value FROM state"))


def _before(connection: sqlite3.Connection) -> Before | None:
    """Return what the index knows; `None` where the tables are missing or of an older version."""
    if _version(connection) != schema.SCHEMA:
        return None
    state = _state(connection)
    watched = _known(connection.execute(f"{_KNOWN} WHERE watch > 0 AND watch < ?", (int(Watch.SILENT),)))
    unread = frozenset(row[0] for row in connection.execute("SELECT folder FROM unread"))
    return Before(json.loads(state["feed"]), float(state["scanned_at"]), float(state["scan_s"]), watched, unread)


class States:
    """In which states run folders were seen, from the tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def settled(self) -> dict[str, int]:
        """Return the settled ones, with their time of change."""
        return dict(self._connection.execute("SELECT folder, mtime_ns FROM runs WHERE watch = 0"))

    def unsettled(self) -> dict[str, Known]:
        """Return the others."""
        return _known(self._connection.execute(f"{_KNOWN} WHERE watch > 0"))

    def of(self, folders: Iterable[str]) -> dict[str, Known]:
        """Return those of some folders, as far as they are known."""
        statement = f"{_KNOWN} WHERE folder IN (SELECT value FROM json_each(?))"  # noqa: S608 (names of ours)
        return _known(self._connection.execute(statement, (_listed(folders),)))


def _known(rows: Iterable[Sequence[Any]]) -> dict[str, Known]:
    return {row[0]: Known(row[1], row[2], Watch(row[3]), row[4]) for row in rows}


def _listed(folders: Iterable[str]) -> str:
    return json.dumps(list(folders))


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process did so in the meantime; those of an older version are dropped."""
    if _version(connection) == schema.SCHEMA:
        return
    found = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    for (name,) in connection.execute(found).fetchall():
        quoted = name.replace('"', '""')
        connection.execute(f'DROP TABLE "{quoted}"')
    for statement in schema.statements():
        connection.execute(statement)
    state = {"identity": os.urandom(8).hex(), "revision": 0, "scanned_at": 0.0, "scan_s": 0.0, "feed": "{}"}
    connection.executemany("INSERT INTO state (name, value) VALUES (?, ?)", state.items())
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA}")


def _confirm(connection: sqlite3.Connection, names: Names, changes: Changes) -> None:
    for folder, state in changes.confirmed.items():
        connection.execute(
            "UPDATE runs SET watch = ?, seen_at = ? WHERE folder = ? AND signature = ? AND seen_at <= ?",
            (int(state.watch), state.seen_at, folder, state.signature, state.seen_at),
        )
    remove(connection, names, changes.gone)
    now = {"feed": json.dumps(changes.feed)}
    if changes.scanned_at:
        now |= {"scanned_at": str(changes.scanned_at), "scan_s": str(changes.scan_s)}
    connection.executemany("UPDATE state SET value = ? WHERE name = ?", [(value, name) for name, value in now.items()])
