"""SQLite files of other tools: read, never written, and not trusted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from runstone.errors import FormatError

_MOST_VALUE_BYTES = 256 << 20
_BUSY_S = 5.0
HEAD = b"SQLite format 3\0"
_MODES = slice(18, 20)
_LOGS_CHANGES = b"\2\2"


class ForeignDatabase:
    """A database that somebody else wrote. Only plain tables are read: a view or virtual table is a program.

    Args:
        path: The file; the tool that writes it may be running.

    Raises:
        FormatError: it is no SQLite file, or damaged.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            head = file.read(_MODES.stop)
        if not head.startswith(HEAD):
            raise FormatError(f"{path} is no SQLite file")
        self._connection = self._open("mode=ro&immutable=1" if _is_at_rest(path, head) else "mode=ro")
        try:
            self._tables = self._read_tables()
        except sqlite3.OperationalError:  # beside it no file can be made, which a log of changes asks for
            self._connection.close()
            self._connection = self._open("mode=ro&immutable=1")
            try:
                self._tables = self._read_tables()
            except sqlite3.OperationalError as error:
                self._connection.close()
                raise FormatError(f"{path} cannot be read: {error}") from None

    def __enter__(self) -> ForeignDatabase:
        """Return itself; it is closed when the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table; none where there is no such table."""
        return self._tables.get(table, [])

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        *,
        where: Sequence[tuple[str, Any]] = (),
        order_by: Sequence[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table; of a column that it does not have, `None`.

        Args:
            table, columns: What is wanted.
            where: Column and value, all of which must hold.
            order_by: Columns; last by the order in which rows were added.

        Raises:
            FormatError: it is damaged.
        """
        there = self.columns(table)
        if not there:
            return
        wanted = ", ".join(_quoted(name) if name in there else "NULL" for name in columns)
        conditions = " AND ".join(f"{_quoted(name)} IS ?" for name, _value in where) or "1"
        order = ", ".join([*(_quoted(name) for name in order_by if name in there), "rowid"])
        sql = f"SELECT {wanted} FROM {_quoted(table)} WHERE {conditions} ORDER BY {order}"  # noqa: S608 (names quoted)
        try:
            yield from self._connection.execute(sql, [value for _name, value in where])
        except sqlite3.Error as error:
            raise FormatError(f"{self.path} cannot be read: {error}") from None

    def counts(self, table: str, by: str) -> dict[Any, tuple[int, int]]:
        """Return for each value of a column how many rows have it, and the last of them."""
        if by not in self.columns(table):
            return {}
        sql = f"SELECT {_quoted(by)}, count(*), max(rowid) FROM {_quoted(table)} GROUP BY 1"  # noqa: S608 (likewise)
        try:
            return {value: (count, last) for value, count, last in self._connection.execute(sql)}
        except sqlite3.Error as error:
            raise FormatError(f"{self.path} cannot be read: {error}") from None

    def _open(self, how: str) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self.path.absolute()))}?{how}", uri=True, timeout=_BUSY_S, isolation_level=None
            )
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES)
            connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
            for pragma in ("query_only = 1", "trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise FormatError(f"{self.path} cannot be opened: {error}") from None
        return connection

    def _read_tables(self) -> dict[str, list[str]]:
        tables = {}
        try:
            found = self._connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
            for name, sql in found:
                words = str(sql).upper().split()[:2]
                if words == ["CREATE", "TABLE"] and "WITHOUT ROWID" not in str(sql).upper():
                    info = self._connection.execute(f"PRAGMA table_info({_quoted(name)})")
                    tables[str(name)] = [str(row[1]) for row in info]
        except sqlite3.OperationalError:
            raise
        except sqlite3.Error as error:
            raise FormatError(f"{self.path} cannot be read: {error}") from None
        return tables


def _is_at_rest(path: Path, head: bytes) -> bool:
    """Return whether a database keeps a log of changes, which is empty: reading it would make that log's files."""
    log = path.with_name(f"{path.name}-wal")
    return head[_MODES] == _LOGS_CHANGES and not (log.exists() and log.stat().st_size)


def _quoted(name: str) -> str:
    return '"' + str(name).replace('"', '""') + '"'
