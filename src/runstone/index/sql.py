"""SQL of users: read-only, over views that stay as they are, with limits of time, rows and memory."""

from __future__ import annotations

import sqlite3
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue
from runstone.index.store import FILE, Index

VIEWS = {
    "runs": """SELECT id, name, project, "group", status, failure, notes, parent,
        strftime('%Y-%m-%dT%H:%M:%fZ', started_at, 'unixepoch') AS started_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', ended_at, 'unixepoch') AS ended_at,
        started_at AS started_s, ended_at AS ended_s,
        max(0, coalesce(ended_at, unixepoch('subsec')) - started_at) AS duration_s,
        attempts, dropped, is_pinned AS pinned, is_archived AS archived, is_deleted AS deleted, energy_j, folder
        FROM main.runs""",
    "params": """SELECT r.id AS run_id, n.path AS name, p.kind,
        CASE p.kind WHEN 'text' THEN p.text ELSE p.number END AS value
        FROM main.params AS p JOIN main.names AS n ON n.key = p.name JOIN main.runs AS r ON r.key = p.run""",
    "metrics": """SELECT r.id AS run_id, n.path AS name, m.last, m.min, m.max, m.mean, m.count, m.nan_count,
        m.first_step, m.last_step
        FROM main.metrics AS m JOIN main.names AS n ON n.key = m.name JOIN main.runs AS r ON r.key = m.run""",
    "tags": """SELECT r.id AS run_id, n.path AS name, t.text AS value
        FROM main.tags AS t JOIN main.names AS n ON n.key = t.name JOIN main.runs AS r ON r.key = t.run""",
    "environment": """SELECT r.id AS run_id, n.path AS name, e.kind,
        CASE e.kind WHEN 'text' THEN e.text ELSE e.number END AS value
        FROM main.environment AS e JOIN main.names AS n ON n.key = e.name
        JOIN main.snapshots AS s ON s.section = e.section JOIN main.runs AS r ON r.key = s.run""",
    "artifacts": """SELECT r.id AS run_id, a.name, a.is_folder, a.files, a.size_bytes,
        strftime('%Y-%m-%dT%H:%M:%fZ', a.logged_at, 'unixepoch') AS logged_at
        FROM main.artifacts AS a JOIN main.runs AS r ON r.key = a.run""",
    "attempts": """SELECT r.id AS run_id, a.number, a.status,
        strftime('%Y-%m-%dT%H:%M:%fZ', a.started_at, 'unixepoch') AS started_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', a.ended_at, 'unixepoch') AS ended_at, a.host, a.pid
        FROM main.attempts AS a JOIN main.runs AS r ON r.key = a.run""",
    "links": """SELECT r.id AS run_id, l.direction, l.kind, l.name, l.version, l.hash, l.role, l.source
        FROM main.links AS l JOIN main.runs AS r ON r.key = l.run""",
    "datasets": """SELECT name, version, hash, count(DISTINCT run) AS runs
        FROM main.links WHERE kind = 'dataset' GROUP BY name, version, hash""",
    "models": """SELECT name, version, hash, count(DISTINCT run) AS runs
        FROM main.links WHERE kind = 'model' GROUP BY name, version, hash""",
}
"""What can be asked, by name. Documented in docs/sql.md; columns are only ever added."""
_OWN = "sqlite_"
_NO_FUNCTIONS = {"load_extension", "fts3_tokenizer", "edit", "readfile", "writefile", "randomblob", "zeroblob"} | {
    *("printf", "format"),  # one call may take seconds that nothing can interrupt
}
_ONLY_SELECT = "only SELECT can be used: this never changes anything"
_MOST_TEXT = 100_000
_MOST_BYTES = 16 << 20
_STEPS = 2_000
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _MOST_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: _MOST_TEXT,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


@dataclass(frozen=True, slots=True)
class Selected:
    """What a statement selected.

    Attributes:
        columns: Their names, each once: `_2` and so on is put behind those that come again.
        rows: At most as many as asked for.
        is_cut: Whether there were more.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_cut: bool


def select(workspace: Path, statement: str, *, most_rows: int, time_limit_s: float) -> Selected:
    """Return what a statement selects from the runs as they are on disk now.

    Args:
        workspace: Its folder.
        statement: One SELECT over `VIEWS`, in the SQL of SQLite.
        most_rows: Read at most so many.
        time_limit_s: Give up after so long.

    Raises:
        InvalidValue: it is no such statement, or takes too long.
    """
    if not isinstance(statement, str) or "\0" in statement:
        raise InvalidValue("SQL must be text without NUL characters")
    if len(statement) > _MOST_TEXT:
        raise InvalidValue(f"the statement has {len(statement):,} characters, at most {_MOST_TEXT:,} are read")
    with Index(workspace) as index:
        connection = index.ask(lambda question: _copied(question.connection) if index.is_in_memory else None)
        connection = connection or _opened(workspace / FILE)
    try:
        for name, view in VIEWS.items():
            connection.execute(f"CREATE TEMP VIEW {name} AS {view}")
        return _selected(connection, statement, most_rows, time_limit_s)
    finally:
        connection.close()


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{urllib.parse.quote(str(path))}?mode=ro", uri=True, isolation_level=None)


def _copied(source: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy of an index that is in memory, since there is no file to open."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    source.backup(copy)
    return copy


def _selected(connection: sqlite3.Connection, statement: str, most_rows: int, time_limit_s: float) -> Selected:
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    refused: list[str] = []
    connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')")  # they are made when they are used first
    connection.set_authorizer(lambda *asked: _authorized(refused, *asked))
    ends = time.monotonic() + time_limit_s
    connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    try:
        cursor = connection.execute(statement)
        if cursor.description is None:
            raise InvalidValue("the statement selects nothing; write SELECT …")
        rows = cursor.fetchmany(most_rows + 1)
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
        raise InvalidValue(_explained(error, refused, time_limit_s)) from None
    names = [column[0] for column in cursor.description]
    return Selected(tuple(_each_once(names)), tuple(rows[:most_rows]), len(rows) > most_rows)


def _authorized(
    refused: list[str], action: int, first: str | None, second: str | None, _database: str | None, _view: str | None
) -> int:
    """Allow what only reads. (Which view reads a table is not told where SQLite has folded the view in.)"""
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_FUNCTION if str(second).lower() not in _NO_FUNCTIONS:
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_READ if not str(first).lower().startswith(_OWN):
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_READ:
            refused.append(f"there is no table {first!r}; there are {', '.join(VIEWS)}")
        case sqlite3.SQLITE_FUNCTION:
            refused.append(f"the function {second!r} cannot be used here")
        case _:
            refused.append(_ONLY_SELECT)
    return sqlite3.SQLITE_DENY


def _explained(error: Exception, refused: list[str], time_limit_s: float) -> str:
    if refused:
        return refused[0]
    text = str(error)
    if text.startswith("cannot modify"):
        return _ONLY_SELECT
    if text == "interrupted":
        return f"the statement took longer than {time_limit_s:g} s, and was given up; narrow it, or allow more time"
    if text.startswith("no such table"):
        return f"{text}; there are {', '.join(VIEWS)}"
    return f"SQL: {text}"


def _each_once(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found
