"""The index and the accounts on a PostgreSQL server: all in which it differs from SQLite.

The index is written in the SQL of SQLite, a fixed and small set of statements. Here each is put into the words of
PostgreSQL; conditions are evaluated over columns, so that answers are the same by nature. Each workspace has schemas
of its own in the database. Whoever writes holds a lock over them, as SQLite's writers hold their file, and who asks
sees one state (REPEATABLE READ).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
from psycopg import errors
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError

from runstone.errors import FormatError, InvalidConfig, RunstoneError, Unavailable
from runstone.index import schema
from runstone.index.opening import identity_of
from runstone.index.store import Index, Question

PATIENCE_S = 5.0
"""How long a question waits for a server that is away, as while it is restarted."""
_LOCK_S = 30
_IDLE_S = 600
_TRIES = 10
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)
_DAMAGED = (psycopg.Error, ValueError, TypeError, LookupError)
_LEARNED = "CREATE TEMP TABLE learned (name BIGINT, step BIGINT, run BIGINT, is_there BIGINT, value DOUBLE PRECISION)"
_VERSION = "SELECT coalesce(obj_description(to_regnamespace(current_schema())::oid, 'pg_namespace'), '0')::int"
Answer = TypeVar("Answer")


# --- statements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in the words of PostgreSQL.

    Attributes:
        text: With `%s` for what is bound.
        numbers: Places of what is bound that goes into columns of numbers of any type.
        makes_key: Whether it returns the key of the row that it made.
    """

    text: str
    numbers: tuple[int, ...] = ()
    makes_key: bool = False


@cache
def translated(text: str) -> Statement:
    """Return a statement of the index as PostgreSQL understands it."""
    if text == "PRAGMA user_version":
        return Statement(_VERSION)
    if text == f"PRAGMA user_version = {schema.SCHEMA}":
        return Statement(_set_version(schema.SCHEMA))
    if text.startswith("SELECT name FROM sqlite_master"):
        return Statement("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    if text == "BEGIN":
        return Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if _of_tables(text):
        return Statement(tables_as_postgres(text))
    text = text.replace("%", "%%").replace("temp.learned", "pg_temp.learned")
    text = text.replace("CROSS JOIN snapshots ON", "JOIN snapshots ON")
    text = text.replace("folder IN (SELECT value FROM json_each(?))", "folder IN (SELECT json_array_elements_text(?))")
    text = text.replace(
        "IN (SELECT value FROM json_each(?))", "IN (SELECT CAST(json_array_elements_text(?) AS BIGINT))"
    )
    text = text.replace("json_array_elements_text(?)", "json_array_elements_text(CAST(? AS JSON))")
    text = re.sub(  # the patterns are made of letters, digits, `_`, `-` and `*`
        r"(\w+) GLOB \?", r"\1 LIKE replace(replace(CAST(? AS TEXT), '_', '\\_'), '*', '%%')", text
    )
    made = re.match(r"INSERT (OR REPLACE |OR IGNORE )?INTO ([\w.]+) (?:\(([^)]*)\) )?", text)
    if made is None:
        order = next((columns for begin, columns in _ORDERS.items() if text.startswith(begin)), None)
        return Statement((f"{text} ORDER BY {order}" if order is not None else text).replace("?", "%s"))
    how, table, named = made.groups()
    columns, keys = layout().get(table, ((), ()))
    written = [name.strip().strip('"') for name in named.split(",")] if named else list(columns)
    text = text.replace(how or "", "", 1)
    if how == "OR IGNORE " and keys:
        text += " ON CONFLICT DO NOTHING"
    elif how == "OR REPLACE " and keys:
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in written if name not in keys)
        text += f" ON CONFLICT ({', '.join(keys)}) DO " + (f"UPDATE SET {changes}" if changes else "NOTHING")
    numbers = tuple(place for place, name in enumerate(written) if name == "number") if table in _MIXED else ()
    makes_key = table in _KEYED
    return Statement((text + " RETURNING key" if makes_key else text).replace("?", "%s"), numbers, makes_key)


_MIXED = ("params", "environment")
_KEYED = ("runs", "names", "sections")
# Of several values of a run the order counts: as SQLite finds them.
_ORDERS = {
    "SELECT run, kind, number, text FROM params": "name, run",
    "SELECT snapshots.run, kind": "environment.name, environment.section, snapshots.run",
    "SELECT run, 'text', NULL, name, version FROM links": "run, number",
    "SELECT run, 'text', NULL, name FROM artifacts": "run, name",
}


def _of_tables(text: str) -> bool:
    return re.match(r"\s*(--[^\n]*\n\s*)*(CREATE|DROP) (TABLE|INDEX) ", text) is not None


@cache
def layout() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return columns and key of each table that has one, as SQLite understands `schema`."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(schema.TABLES)
        found = {}
        for table in schema.columns():
            rows = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
            keys = tuple(name for name, place in sorted(rows, key=lambda row: row[1]) if place)
            found[table] = (tuple(name for name, _ in rows), keys if table != "artifacts" else ())
        return found
    finally:
        connection.close()


def tables_as_postgres(text: str) -> str:
    """Return statements that make tables, as PostgreSQL understands them.

    Names compare by their bytes, as in SQLite. What may be longer than a row of a B-tree is hashed instead. A number
    of any type is kept as JSON, which keeps its text, and so its type and all its digits.
    """
    text = re.sub(r"--[^\n]*", "", text)
    text = text.replace(" WITHOUT ROWID", "").replace(" AUTOINCREMENT", "")
    text = text.replace("key INTEGER PRIMARY KEY", "key BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    text = text.replace("number, text", "number JSON, text").replace("PRIMARY KEY, value)", "PRIMARY KEY, value TEXT)")
    text = re.sub(r"\bINTEGER\b", "BIGINT", text)
    text = re.sub(r"\bREAL\b", "DOUBLE PRECISION", text)
    text = re.sub(r"\bBLOB\b", "BYTEA", text)
    text = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', text)
    text = re.sub(r"(?<![\w\"])user(?![\w\"])", '"user"', text)
    if "CREATE TABLE names" in text:
        text = re.sub(r",\s*UNIQUE \(kind, path\)", "", text)
        return f"{text}; CREATE INDEX names_by_path ON names USING hash (path)"
    if "CREATE TABLE artifacts" in text:
        text = re.sub(r",\s*PRIMARY KEY \(run, name\)", "", text)
        return f"{text}; CREATE INDEX artifacts_of_run ON artifacts (run)"
    text = text.replace("names_by_name ON names (kind, name)", "names_by_name ON names USING hash (name)")
    return text.replace("runs_by_name ON runs (name)", "runs_by_name ON runs USING hash (name)")


def _set_version(version: int) -> str:
    return f"DO $$ BEGIN EXECUTE format('COMMENT ON SCHEMA %I IS %L', current_schema(), '{version}'); END $$"


# --- connections ------------------------------------------------------------------------------------------------------


class PostgresConnection:
    """A connection that takes the statements of the index, as one of sqlite3 does.

    Args:
        address: Of the database.
        name: Of the schema, which is made where it is not there.

    Raises:
        psycopg.Error: there is no connection.
    """

    def __init__(self, address: str, name: str) -> None:
        self._lock_key = lock_key(name)
        self._connection = psycopg.connect(
            address,
            autocommit=True,
            prepare_threshold=None,  # tables may be made anew, and poolers may stand between
            client_encoding="utf8",
            connect_timeout=5,
            application_name="runstone",
        )
        try:
            _check_encoding(self._connection.execute("SHOW server_encoding").fetchone())
            make_schema(lambda text: self._connection.execute(text.encode()), name)
            self._connection.execute(f"SET search_path TO {name}".encode())
            self._connection.execute(f"SET lock_timeout TO '{_LOCK_S}s'".encode())
            self._connection.execute(f"SET idle_in_transaction_session_timeout TO '{_IDLE_S}s'".encode())
            self._connection.execute(_LEARNED.encode())
        except BaseException:
            self.close()
            raise

    def execute(self, text: str, bound: Sequence[Any] | None = ()) -> _Result:
        """Carry out a statement."""
        if text == "BEGIN IMMEDIATE":
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._lock_key,))
            return _Result(None)
        if text == "ROLLBACK":
            with contextlib.suppress(psycopg.Error):  # it is rolled back where the connection is lost, too
                self._connection.execute("ROLLBACK")
            return _Result(None)
        statement = translated(text)
        if _of_tables(text) or statement.text.startswith("DO "):
            return _Result(self._connection.execute(statement.text.encode()))
        found = _Result(self._connection.execute(statement.text.encode(), _bound(statement, bound or ())), statement)
        if text == "PRAGMA user_version":
            return _Result(None, rows=[_checked_version(found.fetchone())])
        return found

    def executemany(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """Carry out a statement for each row."""
        statement = translated(text)
        # Of a statement that is carried out many times, nobody asks for keys.
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.text.encode(), [_bound(statement, row) for row in rows])

    def drop_tables(self, identity: str | None) -> None:
        """Drop all tables, so that they are made anew; unless another process has done so in the meantime.

        Args:
            identity: Of the tables that are damaged; `None`: of any.
        """
        self.execute("BEGIN IMMEDIATE")
        with contextlib.suppress(psycopg.Error):
            with self._connection.transaction():
                now = self._connection.execute("SELECT value FROM state WHERE name = 'identity'").fetchone()
            if identity is not None and now is not None and now[0] != identity:
                self.execute("ROLLBACK")
                return
        for (table,) in self.execute("SELECT name FROM sqlite_master").fetchall():
            self._connection.execute(f'DROP TABLE IF EXISTS "{table}" CASCADE'.encode())
        self._connection.execute(_set_version(0).encode())
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


class _Result:
    """What a statement found, as a cursor of sqlite3 tells it."""

    def __init__(
        self,
        cursor: psycopg.Cursor[Any] | None,
        statement: Statement | None = None,
        rows: list[tuple[Any, ...]] | None = None,
    ) -> None:
        self._rows: Iterator[tuple[Any, ...]] = iter(
            rows if rows is not None else cursor.fetchall() if cursor is not None and cursor.description else ()
        )
        self.lastrowid: int | None = None
        if statement is not None and statement.makes_key and (row := next(self._rows, None)) is not None:
            self.lastrowid = int(row[0])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


def _bound(statement: Statement, row: Sequence[Any]) -> tuple[Any, ...]:
    # Members of enums are numbers. PostgreSQL has no NUL: what is asked for with one must be found nowhere.
    values = [
        int(value) if isinstance(value, int) else value.replace("\0", "\uffff") if isinstance(value, str) else value
        for value in row
    ]
    for place in statement.numbers:
        values[place] = _number_as_json(row[place])
    return tuple(values)


def _number_as_json(number: int | float | None) -> str | None:
    """Return a number as JSON that says what it is: 3 and 3.0 differ, and infinity is beyond any float."""
    if number is None or isinstance(number, int):
        return None if number is None else str(int(number))
    if number in (float("inf"), float("-inf")):
        return "1e999" if number > 0 else "-1e999"
    return json.dumps(number)


def _checked_version(row: tuple[Any, ...] | None) -> tuple[int]:
    version = int(row[0]) if row is not None else 0
    if version > schema.SCHEMA:
        raise FormatError(
            f"the index on the database server has schema {version}, this version of Runstone knows up to "
            f"{schema.SCHEMA} and leaves it alone; upgrade Runstone, or give it a database of its own"
        )
    return (version,)


def _check_encoding(row: tuple[Any, ...] | None) -> None:
    if row is None or row[0] != "UTF8":
        raise InvalidConfig(f"the database keeps text as {row[0] if row else '?'}; make one with ENCODING 'UTF8'")


def make_schema(execute: Callable[[str], object], name: str) -> None:
    """Make a schema where it is not there; several may try at once."""
    with contextlib.suppress(errors.UniqueViolation, errors.DuplicateSchema):
        execute(f"CREATE SCHEMA IF NOT EXISTS {name}")


def schema_name(workspace: Path, kind: str) -> str:
    """Return the name of a schema of a workspace."""
    return f"runstone_{identity_of(workspace)}_{kind}"


def lock_key(name: str) -> int:
    """Return the number of the lock of those who write into a schema."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def unavailable(error: BaseException) -> Unavailable:
    """Return the error of a server that is away, without its address, in which there may be a password."""
    return Unavailable(
        f"the database server of the index does not answer ({type(error).__name__}); nothing is lost: the runs are in "
        "their folders, and the next question is answered when it is back"
    )


# --- the index --------------------------------------------------------------------------------------------------------


class PostgresIndex(Index):
    """The index of one workspace on a server. Several processes, on several machines, may share it.

    Where the folder of the workspace lies at different places for them, each place has an index of its own.

    Args:
        workspace: Folder of the workspace.
        address: Of the database, as libpq understands it.
        clock: Seconds since the epoch.
        patience_s: How long a question waits for a server that is away.
        refresh_s, stays_open: As `Index` takes them.
    """

    def __init__(
        self,
        workspace: Path,
        address: str,
        *,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
        refresh_s: float = 0.0,
        stays_open: bool = True,
    ) -> None:
        super().__init__(workspace, clock=clock, refresh_s=refresh_s, stays_open=stays_open)
        self._address = address
        self._patience_s = patience_s
        place = hashlib.blake2b(str(workspace.resolve()).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        self.schema = schema_name(workspace, f"index_{place}")

    def _ask(self, answer: Callable[[Question], Answer]) -> Answer:
        """Take in what changed, then answer from one state.

        A lost connection, also in COMMIT, a deadlock or a conflict leads to another try: what is taken in is compared
        with what stands, so nothing is there twice. Damaged tables are made anew.

        Raises:
            Unavailable: the server is away for longer than a question waits.
            FormatError: a newer version of Runstone made the tables.
        """
        away_since, tries, was_rebuilt = None, 0, False
        while True:
            try:
                return self._refresh_and_ask(answer)
            except RunstoneError:
                raise
            except _AGAIN as error:
                tries += 1
                if tries == _TRIES:
                    raise unavailable(error) from error
                self._disconnect()
            except _AWAY as error:
                self._disconnect()
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self._patience_s:
                    raise unavailable(error) from error
                time.sleep(0.1)
            except _DAMAGED as error:
                if was_rebuilt:
                    if isinstance(error, psycopg.Error):
                        raise unavailable(error) from error
                    raise
                was_rebuilt = True
                self._rebuild()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            # It takes the same statements, as far as the index has any.
            self._connection = cast("sqlite3.Connection", PostgresConnection(self._address, self.schema))
        return self._connection

    def _rebuild(self) -> None:
        identity = self._columns.identity if self._columns is not None else None
        self._disconnect()
        with contextlib.suppress(psycopg.Error):  # the next try says what is wrong
            connection = PostgresConnection(self._address, self.schema)
            try:
                connection.drop_tables(identity)
            finally:
                connection.close()


# --- accounts ---------------------------------------------------------------------------------------------------------


class PostgresAccounts:
    """Where the accounts of one workspace lie on a server, for `Accounts`.

    Args:
        workspace: Its folder.
        address: Of the database.
    """

    name = "the database of accounts"

    def __init__(self, workspace: Path, address: str) -> None:
        self._schema = schema_name(workspace, "accounts")
        address = re.sub("^postgres(ql)?://", "postgresql+psycopg://", address)
        options = {"connect_timeout": 5, "application_name": "runstone", "client_encoding": "utf8"}
        self.engine = create_engine(
            address, connect_args={**options, "prepare_threshold": None}, pool_pre_ping=True, pool_size=4
        )

    @property
    def exists(self) -> bool:
        """Whether there are any."""
        with self.connected() as connection:
            statement = f"SELECT to_regclass('{self._schema}.users') IS NOT NULL"
            return bool(connection.exec_driver_sql(statement).scalar_one())

    def state(self) -> object:
        """Return `None`: to ask whether anything has changed takes as long as to ask for what one wants to know."""
        return None

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """Lend a connection; a server that is away is waited for.

        Raises:
            Unavailable: it does not come back, or went away while something was asked or written.
        """
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                connection = self.engine.connect()
                break
            except DBAPIError as error:
                if time.monotonic() > ends:
                    raise unavailable(error.orig or error) from error
                time.sleep(0.1)
        with connection:
            try:
                yield connection
            except DBAPIError as error:
                if isinstance(error.orig, (*_AWAY, *_AGAIN)):
                    raise unavailable(error.orig) from error
                raise

    def begin(self, connection: Connection, *, writes: bool) -> None:
        """Begin a transaction, alone where it writes."""
        connection.exec_driver_sql(f"SET LOCAL search_path TO {self._schema}")
        if writes:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock_key(self._schema)})")

    def version(self, connection: Connection) -> int:
        """Return the version of the tables; the schema is made where it is not there."""
        make_schema(connection.exec_driver_sql, self._schema)
        return int(connection.exec_driver_sql(_VERSION).scalar_one())

    def migrate(self, connection: Connection, statements: Sequence[str], version: int) -> None:
        """Bring the tables to a version."""
        for statement in statements:
            connection.exec_driver_sql(tables_as_postgres(statement).replace("%", "%%"))
        connection.exec_driver_sql(_set_version(version).replace("%", "%%"))

    def close(self) -> None:
        """Let go of the connections."""
        self.engine.dispose()
