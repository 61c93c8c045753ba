"""Users, tokens, roles, sessions and the audit log of a team's server: a file of its own in the workspace.

Unlike the index it is not derived: nothing else knows what is in it. So its schema goes through numbered migrations,
and only hashes of tokens and sessions are in it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, text

from runstone.errors import AlreadyExists, FormatError, InvalidValue, NotFound
from runstone.index.accounts_file import FILE, AccountsFile
from runstone.index.opening import database_of

_USED_EVERY_S = 60.0
_MOST_KNOWN = 1_000

# One entry a version of the schema; what has been released is never changed, only added to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE users (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at REAL NOT NULL)",
        "CREATE TABLE grants (user INTEGER NOT NULL REFERENCES users(key) ON DELETE CASCADE, project TEXT NOT NULL,"
        " role TEXT NOT NULL, PRIMARY KEY (user, project))",
        "CREATE TABLE tokens (key INTEGER PRIMARY KEY, user INTEGER NOT NULL REFERENCES users(key) ON DELETE CASCADE,"
        " label TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL,"
        " used_at REAL)",
        "CREATE TABLE sessions (hash TEXT PRIMARY KEY, token INTEGER NOT NULL REFERENCES tokens(key) ON DELETE CASCADE,"
        " created_at REAL NOT NULL, expires_at REAL NOT NULL)",
        "CREATE TABLE audit (key INTEGER PRIMARY KEY, at REAL NOT NULL, user TEXT NOT NULL, address TEXT NOT NULL,"
        " action TEXT NOT NULL, target TEXT NOT NULL, status INTEGER NOT NULL, details TEXT NOT NULL)",
        "CREATE INDEX audit_at ON audit (at)",
    ),
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a token or a session is, and the roles they hold, as words by project (`*`: all)."""

    user: str
    roles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may use the server. `roles` are words by project (`*`: all); `tokens` counts those that work."""

    name: str
    created_at: float
    roles: Mapping[str, str]
    tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which nobody can tell any more. Times are seconds since the epoch."""

    id: int
    user: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None


@dataclass(frozen=True, slots=True)
class Audited:
    """One line of the audit log: who did what, to what, with which status of HTTP (0: on the command line)."""

    at: float
    user: str
    address: str
    action: str
    target: str
    status: int
    details: Mapping[str, Any]


class Accounts:
    """The accounts of one workspace. May be used by several threads. Close it where they lie in a database.

    They are made with the first user: until then nobody has an account.

    Args:
        workspace: Its folder.
        database: Address of a PostgreSQL database in which they lie; default: `RUNSTONE_INDEX`, else a file.
        clock: Seconds since the epoch.
    """

    def __init__(self, workspace: Path, *, database: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path = workspace / FILE
        self._clock = clock
        self._is_migrated = False
        self._place = _place(workspace, database)
        self._known = _Known()

    def close(self) -> None:
        """Let go of what is held open."""
        self._place.close()

    @property
    def exists(self) -> bool:
        """Whether there are any."""
        return self._place.exists

    # --- users ------------------------------------------------------------------------------------------------------

    def add_user(self, name: str) -> None:
        """Add a user without a role.

        Raises:
            AlreadyExists: there is one of this name.
            InvalidValue: the name cannot be one.
        """
        if not name or len(name) > 100 or not name.isprintable() or name != name.strip():
            raise InvalidValue(f"a user's name has 1 to 100 visible characters, got {name!r:.120}")
        with self._transaction() as connection:
            if connection.execute(text("SELECT 1 FROM users WHERE name = :name"), {"name": name}).first():
                raise AlreadyExists(f"there is a user {name!r} already")
            connection.execute(
                text("INSERT INTO users (name, created_at) VALUES (:name, :now)"), {"name": name, "now": self._clock()}
            )

    def remove_user(self, name: str) -> None:
        """Remove a user with their tokens and sessions.

        Raises:
            NotFound: there is none of this name.
        """
        with self._transaction() as connection:
            connection.execute(text("DELETE FROM users WHERE key = :key"), {"key": self._user(connection, name)})

    def users(self) -> list[User]:
        """Return all users in the order of their names."""
        if not self.exists:
            return []
        with self._transaction() as connection:
            rows = connection.execute(
                text(
                    "SELECT key, name, created_at, (SELECT count(*) FROM tokens WHERE tokens.user = users.key"
                    " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now)) FROM users ORDER BY name"
                ),
                {"now": self._clock()},
            ).all()
            return [User(row[1], row[2], self._roles(connection, row[0]), row[3]) for row in rows]

    def set_role(self, name: str, project: str, role: str | None) -> None:
        """Give a user a role in a project (`*`: in all), or take it away (`None`).

        Raises:
            NotFound: there is no such user.
        """
        with self._transaction() as connection:
            where = {"user": self._user(connection, name), "project": project}
            connection.execute(text('DELETE FROM grants WHERE "user" = :user AND project = :project'), where)
            if role is not None:
                connection.execute(
                    text('INSERT INTO grants ("user", project, role) VALUES (:user, :project, :role)'),
                    where | {"role": role},
                )

    # --- tokens -----------------------------------------------------------------------------------------------------

    def add_token(self, user: str, token_hash: str, *, label: str = "", lasts_s: float | None = None) -> int:
        """Add a token of a user and return its number.

        Args:
            user: Whose.
            token_hash: SHA-256 of the token, hex.
            label: What it is for.
            lasts_s: Seconds until it works no more; default: until it is revoked.

        Raises:
            NotFound: there is no such user.
        """
        now = self._clock()
        with self._transaction() as connection:
            row = {
                "user": self._user(connection, user),
                "label": label[:200],
                "hash": token_hash,
                "now": now,
                "expires": now + lasts_s if lasts_s is not None else None,
            }
            done = connection.execute(
                text(
                    'INSERT INTO tokens ("user", label, hash, created_at, expires_at)'
                    " VALUES (:user, :label, :hash, :now, :expires) RETURNING key"
                ),
                row,
            )
            return int(done.scalar_one())

    def tokens(self) -> list[Token]:
        """Return what is known of all tokens, the newest first."""
        if not self.exists:
            return []
        with self._transaction() as connection:
            rows = connection.execute(
                text(
                    "SELECT tokens.key, users.name, label, tokens.created_at, expires_at, revoked_at, used_at"
                    " FROM tokens JOIN users ON users.key = tokens.user ORDER BY tokens.key DESC"
                )
            )
            return [Token(*row) for row in rows]

    def revoke_token(self, number: int) -> None:
        """Let a token work no more, nor a session that it began.

        Raises:
            NotFound: there is none of this number that works.
        """
        with self._transaction() as connection:
            done = connection.execute(
                text("UPDATE tokens SET revoked_at = :now WHERE key = :key AND revoked_at IS NULL"),
                {"now": self._clock(), "key": number},
            )
            if not done.rowcount:
                raise NotFound(f"there is no token {number} that works; `runstone tokens list` shows them")
            connection.execute(text("DELETE FROM sessions WHERE token = :key"), {"key": number})

    @property
    def has_usable_token(self) -> bool:
        """Whether anybody could come in by a token."""
        return any(user.tokens and user.roles for user in self.users())

    def owner_of_token(self, token_hash: str) -> Owner | None:
        """Return whose token it is, `None` where it is not known or works no more."""
        return self._owner(
            "SELECT tokens.hash, tokens.user, users.name, tokens.key, tokens.used_at, tokens.expires_at, NULL"
            " FROM tokens JOIN users ON users.key = tokens.user WHERE tokens.hash = :hash AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > :now)",
            token_hash,
        )

    # --- sessions ---------------------------------------------------------------------------------------------------

    def begin_session(self, token_hash: str, session_hash: str, *, lasts_s: float) -> None:
        """Note a session that a token began; those that are over are forgotten."""
        now = self._clock()
        with self._transaction() as connection:
            connection.execute(text("DELETE FROM sessions WHERE expires_at <= :now"), {"now": now})
            connection.execute(
                text(
                    "INSERT INTO sessions (hash, token, created_at, expires_at)"
                    " SELECT :session, key, :now, :expires FROM tokens WHERE hash = :token"
                ),
                {"session": session_hash, "now": now, "expires": now + lasts_s, "token": token_hash},
            )

    def owner_of_session(self, session_hash: str) -> Owner | None:
        """Return whose session it is, `None` where it is not known, over, or its token works no more."""
        return self._owner(
            "SELECT sessions.hash, tokens.user, users.name, tokens.key, tokens.used_at, tokens.expires_at,"
            " sessions.expires_at FROM sessions JOIN tokens ON tokens.key = sessions.token"
            " JOIN users ON users.key = tokens.user WHERE sessions.hash = :hash AND sessions.expires_at > :now"
            " AND revoked_at IS NULL AND (tokens.expires_at IS NULL OR tokens.expires_at > :now)",
            session_hash,
        )

    def end_session(self, session_hash: str) -> None:
        """Forget a session."""
        if self.exists:
            with self._transaction() as connection:
                connection.execute(text("DELETE FROM sessions WHERE hash = :hash"), {"hash": session_hash})

    # --- audit ------------------------------------------------------------------------------------------------------

    def note(
        self,
        user: str,
        action: str,
        target: str = "",
        *,
        address: str = "",
        status: int = 0,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a line to the audit log; nothing happens where there are no accounts."""
        if not self.exists:
            return
        row = {
            "at": self._clock(),
            "user": user[:200],
            "address": address[:100],
            "action": action[:200],
            "target": target[:1000],
            "status": status,
            "details": json.dumps(details or {}),
        }
        with self._transaction() as connection:
            connection.execute(
                text(
                    'INSERT INTO audit (at, "user", address, action, target, status, details)'
                    " VALUES (:at, :user, :address, :action, :target, :status, :details)"
                ),
                row,
            )

    def audit(self, *, user: str | None = None, since: float = 0.0, limit: int = 1_000) -> list[Audited]:
        """Return lines of the audit log, the newest first.

        Args:
            user: Only theirs.
            since: Only from this time on, in seconds since the epoch.
            limit: At most so many.
        """
        if not self.exists:
            return []
        with self._transaction() as connection:
            rows = connection.execute(
                text(
                    'SELECT at, "user", address, action, target, status, details FROM audit'
                    ' WHERE at >= :since AND (CAST(:user AS TEXT) IS NULL OR "user" = :user)'
                    " ORDER BY key DESC LIMIT :limit"
                ),
                {"since": since, "user": user, "limit": limit},
            )
            return [
                Audited(at, who, address, action, target, status, json.loads(details))
                for at, who, address, action, target, status, details in rows
            ]

    # --- the file ---------------------------------------------------------------------------------------------------

    def _owner(self, query: str, wanted: str) -> Owner | None:
        if not self.exists:
            return None
        now, state = self._clock(), self._place.state()
        standing = self._known.get(query, wanted, state, now)
        if standing is not None:
            return standing
        with self._transaction(writes=False) as connection:
            row = connection.execute(text(query), {"hash": wanted, "now": now}).first()
            if row is None or not hmac.compare_digest(str(row[0]), wanted):
                return None
            found = Owner(row[2], self._roles(connection, row[1]))
        if row[4] is None or now - row[4] > _USED_EVERY_S:
            with self._transaction() as connection:
                connection.execute(
                    text("UPDATE tokens SET used_at = :now WHERE key = :key"), {"now": now, "key": row[3]}
                )
        else:
            until = min(one for one in (row[4] + _USED_EVERY_S, row[5], row[6]) if one is not None)
            self._known.put(query, wanted, state, until, found)
        return found

    def _user(self, connection: Connection, name: str) -> int:
        row = connection.execute(text("SELECT key FROM users WHERE name = :name"), {"name": name}).first()
        if row is None:
            raise NotFound(f"there is no user {name!r:.80}; `runstone users list` shows them")
        return int(row[0])

    def _roles(self, connection: Connection, user: int) -> dict[str, str]:
        rows = connection.execute(
            text('SELECT project, role FROM grants WHERE "user" = :user ORDER BY project'), {"user": user}
        )
        return {row[0]: row[1] for row in rows}

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[Connection]:
        with self._place.connected() as connection:
            if not self._is_migrated:
                self._migrate(connection)
                self._is_migrated = True
            self._place.begin(connection, writes=writes)
            yield connection
            connection.commit()

    def _migrate(self, connection: Connection) -> None:
        """Bring the tables to the schema of this version, one numbered step after the other."""
        self._place.begin(connection, writes=True)
        version = self._place.version(connection)
        if version > len(MIGRATIONS):
            raise FormatError(
                f"{self._place.name} has schema {version}, this version of Runstone knows up to {len(MIGRATIONS)}; "
                "upgrade it"
            )
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            self._place.migrate(connection, statements, number)
        connection.commit()


class _Known:
    """Whose tokens and sessions were, as long as nothing at all has changed in the accounts since.

    A client sends its token with every request; to look it up anew takes longer than to keep a point.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: object = None
        self._owners: dict[tuple[str, str], tuple[float, Owner]] = {}

    def get(self, query: str, wanted: str, state: object, now: float) -> Owner | None:
        """Return the owner that was found by a query, `None` where that may be true no more."""
        with self._lock:
            until, owner = self._owners.get((query, wanted), (0.0, None)) if self._is_at(state) else (0.0, None)
        return owner if now < until else None

    def put(self, query: str, wanted: str, state: object, until: float, owner: Owner) -> None:
        """Remember an owner who was found after `state` was read, until a time."""
        if state is None:
            return
        with self._lock:
            if not self._is_at(state):
                self._state, self._owners = state, {}
            self._owners[query, wanted] = (until, owner)
            while len(self._owners) > _MOST_KNOWN:
                del self._owners[next(iter(self._owners))]

    def _is_at(self, state: object) -> bool:
        return state is not None and state == self._state


class Place(Protocol):
    """Where accounts lie."""

    name: str

    def state(self) -> object:
        """Return what differs after every change that anybody makes; `None` where that is not quick to tell."""

    @property
    def exists(self) -> bool:
        """Whether there are any."""

    def connected(self) -> contextlib.AbstractContextManager[Connection]:
        """Lend a connection."""

    def begin(self, connection: Connection, *, writes: bool) -> None:
        """Begin a transaction, alone where it writes."""

    def version(self, connection: Connection) -> int:
        """Return the version of the tables, 0 where there are none."""

    def migrate(self, connection: Connection, statements: Sequence[str], version: int) -> None:
        """Bring the tables to a version."""

    def close(self) -> None:
        """Let go of what is held open."""


def _place(workspace: Path, database: str | None) -> Place:
    address = database_of(database)
    if address is None:
        return AccountsFile(workspace / FILE)
    from runstone.index.postgres import PostgresAccounts  # an extra

    return PostgresAccounts(workspace, address)
