"""Who sends a request: by a token, by a session that a token began, or by the key that was printed on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from runstone.server.errors import ApiError
from runstone.server.roles import EVERYWHERE, Principal, Role

if TYPE_CHECKING:
    from runstone.index.accounts import Accounts

SESSION_S = 30 * 86_400.0
_LONGEST_TOKEN = 256
_ADDRESSES = 10_000


def hashed(token: str) -> str:
    """Return what is kept of a token: nobody can tell the token from it."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def new_token() -> str:
    """Return a new token, 256 bits that nobody can guess, with a prefix by which scanners for secrets know it."""
    return f"rst_{secrets.token_urlsafe(32)}"


class LocalKeys:
    """Keys that open the page on this machine, once each, and the sessions that they began. Kept in memory only.

    Args:
        name: Who comes in by one.
        announce: Told each new key.
    """

    def __init__(self, name: str, announce: Callable[[str], None] = lambda _key: None) -> None:
        self._name = name
        self._announce = announce
        self._lock = threading.Lock()
        self._key = ""
        self._sessions: set[str] = set()

    def new_key(self) -> str:
        """Return the key that opens the page next; the one before it opens nothing any more."""
        with self._lock:
            self._key = secrets.token_urlsafe(32)
            return self._key

    def redeem(self, key: str) -> str | None:
        """Return a new session for the key, `None` where it is not the right one."""
        with self._lock:
            if not self._key or not hmac.compare_digest(hashed(key), hashed(self._key)):
                return None
            self._key = ""
            session = secrets.token_urlsafe(32)
            self._sessions.add(hashed(session))
        self._announce(self.new_key())
        return session

    def principal_of(self, session_hash: str) -> Principal | None:
        """Return who a session is of."""
        with self._lock:
            is_known = any(hmac.compare_digest(session_hash, known) for known in self._sessions)
        if not is_known:
            return None
        return Principal(self._name, {EVERYWHERE: Role.ADMIN}, is_by_cookie=True, session=session_hash)

    def end(self, session_hash: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.discard(session_hash)


class WrongTokens:
    """Counts wrong tokens by address, so that nobody can try many; `total` counts all there ever were.

    Args:
        most: Of one address, in a time.
        within_s: That time, in seconds.
        clock: Seconds, that only grow.
    """

    def __init__(self, most: int, within_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, list[float]] = {}
        self.total = 0

    def check(self, address: str) -> None:
        """Refuse an address that has tried too often.

        Raises:
            ApiError: it has; the answer says when it may try again.
        """
        with self._lock:
            times = self._recent(address)
            if len(times) < self._most:
                return
            wait_s = int(times[-self._most] + self._within_s - self._clock()) + 1
        raise ApiError(
            "too_many",
            f"too many wrong tokens from this address; try again in {wait_s} s",
            headers={"Retry-After": str(wait_s)},
        )

    def note(self, address: str) -> None:
        """Count one."""
        with self._lock:
            self.total += 1
            times = self._recent(address)
            times.append(self._clock())
            self._seen[address] = times[-self._most :]
            while len(self._seen) > _ADDRESSES:
                del self._seen[next(iter(self._seen))]

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - self._within_s
        return [at for at in self._seen.get(address, ()) if at > since]


class Authenticator:
    """Tells who a request is from.

    Args:
        accounts: Users and tokens of the workspace.
        keys: Keys of this machine, where those count.
        wrong: Counts wrong tokens.
    """

    def __init__(self, accounts: Accounts, keys: LocalKeys | None, wrong: WrongTokens) -> None:
        self.accounts = accounts
        self.keys = keys
        self.wrong = wrong

    def principal(self, address: str, authorization: str | None, cookie: str | None) -> Principal:
        """Return who sends a request.

        Args:
            address: Of the client.
            authorization: The header of this name.
            cookie: Value of the session's cookie.

        Raises:
            ApiError: nobody, or somebody who is not known; too many wrong tokens came from there.
        """
        if authorization is not None:
            scheme, _space, token = authorization.partition(" ")
            if scheme.lower() == "basic":
                return self._by_password(address, token)
            if scheme.lower() != "bearer":
                raise unauthorized("send a token as `Authorization: Bearer TOKEN`")
            return self.by_token(address, token.strip())
        if cookie:
            self.wrong.check(address)
            found = self._by_session(hashed(cookie[:_LONGEST_TOKEN]))
            if found is not None:
                return found
            raise unauthorized("the session has ended; log in again")
        raise unauthorized("log in, or send a token as `Authorization: Bearer TOKEN`")

    def by_token(self, address: str, token: str) -> Principal:
        """Return whose token it is.

        Raises:
            ApiError: nobody's; too many wrong ones came from this address.
        """
        self.wrong.check(address)
        found = self.accounts.owner_of_token(hashed(token)) if 0 < len(token) <= _LONGEST_TOKEN else None
        if found is None:
            self.wrong.note(address)
            raise unauthorized("the token is not known, has expired or was revoked")
        return Principal(found.user, {project: Role(word) for project, word in found.roles.items()})

    def _by_password(self, address: str, credentials: str) -> Principal:
        """Return who sends a name and, as the password, a token of theirs (HTTP Basic)."""
        try:
            name, _colon, token = base64.b64decode(credentials[:2_000], validate=True).decode().partition(":")
        except ValueError:
            name = token = ""
        found = self.by_token(address, token.strip())
        if name != found.name:
            self.wrong.note(address)
            raise unauthorized("the token is not that of this user")
        return found

    def begin_session(self, token: str) -> str:
        """Return a new session of a token that is known; it ends with the token."""
        session = secrets.token_urlsafe(32)
        self.accounts.begin_session(hashed(token), hashed(session), lasts_s=SESSION_S)
        return session

    def end_session(self, session_hash: str) -> None:
        """End a session."""
        if self.keys is not None:
            self.keys.end(session_hash)
        self.accounts.end_session(session_hash)

    def _by_session(self, session_hash: str) -> Principal | None:
        local = self.keys.principal_of(session_hash) if self.keys is not None else None
        if local is not None:
            return local
        found = self.accounts.owner_of_session(session_hash)
        if found is None:
            return None
        roles = {project: Role(word) for project, word in found.roles.items()}
        return Principal(found.user, roles, is_by_cookie=True, session=session_hash)


def unauthorized(message: str) -> ApiError:
    """Return the error of a request from nobody."""
    return ApiError("unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="runstone"'})
