"""Requests to a server, one at a time over one connection. Knows HTTP, and nothing of runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from runstone._version import __version__
from runstone.errors import NotFound, RunstoneError
from runstone.sync.address import Address

_TIMEOUT_S = 60.0
_MOST_JSON_BYTES = 256 << 20
_CHUNK = 1 << 20
# What may be another time: the same request is worth sending again.
_FOR_A_MOMENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Unreachable(RunstoneError):
    """The server did not answer, or said that it cannot now: later it may.

    Attributes:
        wait_s: How long it asked to wait; `None`: it did not say.
    """

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Refused(RunstoneError):
    """The server said no, and will say so again.

    Attributes:
        status: Of HTTP.
        details: What else it said.
    """

    def __init__(self, message: str, status: int, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = dict(details or {})


class NotThere(Refused, NotFound):
    """The server has nothing of this name, or nothing that this user may see."""


class Client:
    """A connection to one server.

    Args:
        address: Of it.
        token: Who asks.
        timeout_s: How long an answer may take.
    """

    def __init__(self, address: Address, token: str | None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.address = address
        self._token = token
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self.requests = 0
        """How many were sent."""
        self.sent_bytes = 0
        """Of their bodies."""

    def get(self, path: str, **query: Any) -> Any:
        """Return what the server tells at a path; raises as `ask` does."""
        return self.ask("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Send JSON, or bytes, and return the answer; raises as `ask` does."""
        return self.ask("POST", path, body=body, query=query)

    def ask(self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of its answer.

        Args:
            method: Of HTTP.
            path: Below the server's, such as `/api/sync`; quoted where it has names in it (`segment`).
            body: Bytes, or what JSON holds.
            query: Behind the path.

        Raises:
            Unreachable: the server did not answer as a whole, or said that it cannot now.
            NotThere: there is no such thing.
            Refused: it said no for another reason.
        """
        with self._answered(method, path, body, query) as answer:
            data = _whole(answer)
        try:
            return json.loads(data)
        except ValueError:
            raise Unreachable(
                f"{self.address} answered with something else than JSON; is it a Runstone server?"
            ) from None

    def stream(self, path: str, *, query: Mapping[str, Any] | None = None, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes at a path, from an offset on; raises as `ask` does, also where they end too early."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._answered("GET", path, None, query, headers) as answer:
            if offset and answer.status != 206:
                raise Unreachable("the server did not go on where it was asked to")
            expected, came = answer.length, 0
            while True:
                try:
                    data = answer.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise Unreachable(f"{self.address} broke off: {_reason(error)}") from None
                if not data:
                    break
                came += len(data)
                yield data
            if expected is not None and came < expected:
                raise Unreachable(f"{self.address} broke off after {came} of {expected} bytes")

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        """Let go of the connection where nobody did."""
        with contextlib.suppress(AttributeError):
            self.close()

    @contextlib.contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any] | None,
        more: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        target = self.address.path + path + (f"?{urlencode(query, doseq=True)}" if query else "")
        headers = {"User-Agent": f"runstone/{__version__}", "Accept": "application/json", **(more or {})}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if isinstance(body, bytes):
            data, headers["Content-Type"] = body, "application/octet-stream"
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        self.requests += 1
        self.sent_bytes += len(data or b"")
        try:
            answer = self._send(method, target, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"{self.address} cannot be reached: {_reason(error)}") from None
        try:
            if answer.status >= 300:
                raise _refusal(answer, self.address)
            yield answer
        finally:
            if not answer.isclosed():  # what was not read would be taken for the next answer
                self.close()

    def _send(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        is_used = self._connection is not None
        try:
            return self._once(method, target, data, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not is_used:
                raise
            self.close()  # the server let go of a connection that was quiet
            return self._once(method, target, data, headers)

    def _once(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            where = self.address
            if where.scheme == "https":
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(
                    where.host, where.port, timeout=self._timeout_s, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(where.host, where.port, timeout=self._timeout_s)
        self._connection.request(method, target, data, dict(headers))
        return self._connection.getresponse()


def segment(name: str) -> str:
    """Return a name as a part of a path."""
    return quote(name, safe="")


def _whole(answer: http.client.HTTPResponse) -> bytes:
    try:
        data = answer.read(_MOST_JSON_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the server broke off: {_reason(error)}") from None
    if answer.length:
        raise Unreachable("the answer of the server is too large, or was cut off")
    return data


def error_of(status: int, told: Mapping[str, Any], wait_s: float | None = None) -> Unreachable | Refused:
    """Return what a server's no means: for now, that there is no such thing, or for good.

    Args:
        status: Of HTTP.
        told: `message` and `details`.
        wait_s: How long it asked to wait.
    """
    message = str(told["message"])
    if status in _FOR_A_MOMENT:
        return Unreachable(message, wait_s)
    return (NotThere if status == 404 else Refused)(message, status, dict(told.get("details") or {}))


def _refusal(answer: http.client.HTTPResponse, address: Address) -> Unreachable | Refused:
    data = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        data = answer.read(1 << 20)
    if answer.status < 400:
        return Refused(
            f"{address} sends elsewhere ({answer.headers.get('Location', '')!r:.200}); name that", answer.status
        )
    wait = answer.headers.get("Retry-After", "")
    wait_s = float(wait) if wait.isdigit() else None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return error_of(answer.status, json.loads(data)["error"], wait_s)
    return error_of(answer.status, {"message": f"{address} answered {answer.status} {answer.reason}"}, wait_s)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
