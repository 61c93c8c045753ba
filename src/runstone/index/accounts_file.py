"""The file in which a team's server keeps its accounts: how it is made, opened and watched."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from runstone.errors import FormatError, Unavailable

FILE = "accounts.sqlite"
_BUSY_S = 10.0


class AccountsFile:
    """A file of SQLite, for `Accounts`; one connection is held open, that asks only whether the file has changed.

    Args:
        path: Of the file; it is made with the first that is written.
    """

    name = FILE

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._watch: tuple[sqlite3.Connection, tuple[int, int]] | None = None
        self._watches = 0
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool)

        @event.listens_for(self._engine, "connect")
        def prepare(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

    @property
    def exists(self) -> bool:
        """Whether there are any."""
        return self._path.exists()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            Unavailable: the file cannot be read or written for now: it is locked for long, the disk is full or gone.
            FormatError: it is damaged.
        """
        try:
            with self._engine.connect() as connection:
                yield connection
        except (OperationalError, OSError) as error:
            reason = error.orig if isinstance(error, OperationalError) else error.strerror
            raise Unavailable(f"{FILE} cannot be used for now: {reason}") from error
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise FormatError(f"{FILE} is damaged ({error.orig}); take it from a backup") from error

    def state(self) -> object:
        """Return what differs after every change that anybody makes; `None` where that cannot be told for now."""
        try:
            found = self._path.stat()
            place = (found.st_dev, found.st_ino)
            with self._lock:
                if self._watch is None or self._watch[1] != place:
                    self._unwatch()
                    address = f"{self._path.absolute().as_uri()}?mode=ro"
                    watch = sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
                    self._watch, self._watches = (watch, place), self._watches + 1
                    weakref.finalize(self, watch.close)
                # Counts the changes that others have made, which to this connection everybody is.
                return (self._watches, *self._watch[0].execute("PRAGMA data_version").fetchone())
        except (OSError, sqlite3.Error):  # somebody writes at this moment, or it is away: whoever reads it will see
            return None

    def begin(self, connection: Connection, *, writes: bool) -> None:
        """Begin a transaction, alone where it writes."""
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def version(self, connection: Connection) -> int:
        """Return the version of the tables, 0 where there are none."""
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def migrate(self, connection: Connection, statements: Sequence[str], version: int) -> None:
        """Bring the tables to a version."""
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        """Let go of what is held open."""
        self._engine.dispose()
        with self._lock:
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch[0].close()
            self._watch = None

    def _connect(self) -> sqlite3.Connection:
        if self._path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, which accounts never are")
        # Made before SQLite does, so that nobody else can read it at any time; its side files take these rights over.
        # One that is there is left alone: closing a file takes away the locks that other threads hold on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
