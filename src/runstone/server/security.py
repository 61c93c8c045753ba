"""The gate that every request passes first: host, origin, size, time, rate, who sends it; and headers of every answer.

It stands around the whole application, so that no route, mounted file or error page can be forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runstone.errors import FormatError, Unavailable
from runstone.server.auth import Authenticator
from runstone.server.config import Limits, ServerConfig
from runstone.server.errors import ApiError, of_defect
from runstone.server.forwarding import FORWARDED_HOST, resolve
from runstone.server.jsons import BadJson, loads
from runstone.server.logs import Counters, Log
from runstone.server.mlflow.errors import of_api
from runstone.server.mlflow.paths import SHARE, is_by_ticket, is_frequent, is_mlflow, is_upload
from runstone.server.roles import Principal
from runstone.server.sessions import cookie_name

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; frame-src 'self' blob:; worker-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": CONTENT_SECURITY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_METHODS = UNSAFE | {"GET", "HEAD", "OPTIONS"}
_MOST_ADDRESSES = 10_000
_BYTES_OF_A_REQUEST = 1 << 20
"""As many bytes of runs and contents count as one request against the limit by address."""


def is_open(method: str, path: str) -> bool:
    """Return whether somebody who has not shown who they are may ask this: life, the page, a log-in, by a ticket."""
    if method in ("GET", "HEAD") and (path in ("/", "/healthz", "/health") or path.startswith("/static/")):
        return True
    return (method == "POST" and path == "/api/login") or is_by_ticket(method, path)


_FOR_BYTES = re.compile(r"/api/sync/(?:parcels|contents/[^/]{1,64})")


def is_for_bytes(path: str) -> bool:
    """Return whether the body of a change at this path is bytes of a run or a content, and no JSON."""
    return _FOR_BYTES.fullmatch(path) is not None


class Gate:
    """An ASGI application around another.

    Args:
        app: The other.
        config: What is allowed.
        authenticator: Tells who sends a request.
        log, counters: Told of every answer.
    """

    def __init__(
        self, app: ASGIApp, config: ServerConfig, authenticator: Authenticator, log: Log, counters: Counters
    ) -> None:
        self._app = app
        self._config = config
        self._authenticator = authenticator
        self._log = log
        self._counters = counters
        self._rate = _Rate(config.limits)
        self._turns = asyncio.Semaphore(config.limits.parcels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there are none: nothing can be forgotten
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()

    async def admit(self, scope: Scope, receive: Receive) -> Receive:
        """Check a request; return what its body is read from.

        Raises:
            ApiError: it is refused.
        """
        headers = _Headers(scope)
        path, method = scope["runstone.path"], scope["method"]
        if method not in _METHODS:
            raise ApiError("invalid", f"the method {method:.20} is not known here", status=405)
        if path != "/healthz":
            self._check_host(headers)
        self._rate.take(_address(scope), SHARE if is_mlflow(path) or is_for_bytes(path) else 1.0)
        if method in UNSAFE:
            _check_origin(headers, scope.get(FORWARDED_HOST))
        if not is_open(method, path):
            scope["runstone.principal"] = await self._principal(scope, headers)
        if method in UNSAFE and is_for_bytes(path):  # of these it is the bytes that cost
            self._rate.take(_address(scope), self._told_bytes(headers) / _BYTES_OF_A_REQUEST)
        if is_upload(method, path):
            return receive  # it is read as it comes, and its size is looked at there
        if method in UNSAFE:
            return await self._checked_body(path, headers, receive)
        return receive

    def turn(self, path: str) -> AbstractAsyncContextManager[None]:
        """Return the turn of a request, where many at once would only cost memory: the others wait, unread."""
        return self._turns if is_for_bytes(path) else contextlib.nullcontext()

    def _told_bytes(self, headers: _Headers) -> int:
        """Return how many bytes a body has, as many as one may have where that is not told."""
        told, most = headers.one("content-length"), self._config.limits.parcel_bytes
        return min(int(told), most) if told is not None and told.isdigit() and len(told) < 20 else most

    def _check_host(self, headers: _Headers) -> None:
        hosts = headers.all("host")
        if len(hosts) != 1:
            raise ApiError("invalid", f"a request has one Host header, this one has {len(hosts)}")
        name = host_of(hosts[0])
        if name is None or not self._config.is_known_host(name):
            raise ApiError(
                "forbidden",
                f"this server is not known as {hosts[0]!r:.100}; if it should be, start it with --allowed-hosts",
                status=421,
            )

    async def _principal(self, scope: Scope, headers: _Headers) -> Principal:
        authorizations = headers.all("authorization")
        if len(authorizations) > 1:
            raise ApiError("invalid", "a request has at most one Authorization header")
        cookie = _cookie(headers, cookie_name(self._config))
        authorization = authorizations[0] if authorizations else None
        try:
            principal = await run_in_threadpool(self._authenticator.principal, _address(scope), authorization, cookie)
        except (Unavailable, FormatError) as error:  # nobody can be let in, and it is not their mistake
            raise ApiError("unavailable", str(error), headers={"Retry-After": "5"}) from None
        if principal.is_by_cookie and scope["method"] in UNSAFE and headers.one("x-runstone") != "1":
            raise ApiError("forbidden", "a change that a browser asks for needs the header `X-Runstone: 1`")
        return principal

    async def _checked_body(self, path: str, headers: _Headers, receive: Receive) -> Receive:
        limits = self._config.limits
        kind = (headers.one("content-type") or "")[:200].partition(";")[0].strip().lower()
        takes_bytes, is_foreign = is_for_bytes(path), is_mlflow(path)
        most = limits.parcel_bytes if takes_bytes or is_foreign else limits.body_bytes
        if headers.one("content-encoding") not in (None, "", "identity"):
            raise ApiError("invalid", "send the body as it is, without Content-Encoding", status=415)
        told = headers.one("content-length")
        if told is not None and (not told.isdigit() or int(told) > most):
            raise _too_large(most)
        try:
            async with asyncio.timeout(limits.body_s):
                body = await _read(receive, most)
        except TimeoutError:
            raise ApiError(
                "unavailable", f"the body was not there after {limits.body_s:g} s", status=408, headers=_CLOSE
            ) from None
        if body and takes_bytes:
            if kind != "application/octet-stream":
                raise ApiError(
                    "invalid", f"send bytes with `Content-Type: application/octet-stream`, not {kind!r:.80}", status=415
                )
        elif body and not is_foreign:  # the routes of MLflow's protocol read theirs as its servers do
            if kind != "application/json":
                raise ApiError(
                    "invalid", f"send JSON with `Content-Type: application/json`, not {kind!r:.80}", status=415
                )
            try:
                loads(body, depth=limits.depth)
            except BadJson as error:
                raise ApiError("invalid", str(error)) from None
        return _replay(body, receive)

    def finish(self, scope: Scope, status: int, seconds: float, problem: str | None, bytes_out: int) -> None:
        """Take note of an answer."""
        route = scope.get("route")
        template = getattr(route, "path", None) or ("static" if "/static/" in scope["path"] else "none")
        principal: Principal | None = scope.get("runstone.principal")
        user = principal.name if principal is not None else None
        told = _Headers(scope).one("content-length")
        bytes_in = int(told) if told is not None and told.isdigit() and len(told) < 20 else 0
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._counters.note(method, template, status, seconds, bytes_in=bytes_in, bytes_out=bytes_out)
        fields = {
            "id": scope["runstone.id"],
            "method": scope["method"],
            "path": scope["path"][:500],
            "status": status,
            "ms": round(seconds * 1e3, 2),
            "user": user,
            "address": _address(scope),
        }
        self._log("request", **fields, **({"problem": problem} if problem else {}))

    async def note_change(self, scope: Scope, status: int) -> None:
        """Add what somebody changed, or tried to, to the audit log; where that cannot be, to the log of the server."""
        principal: Principal | None = scope.get("runstone.principal")
        route = scope.get("route")
        action = f"{scope['method']} {getattr(route, 'path', scope['path'])}"
        user = principal.name if principal is not None else str(scope.get("runstone.user", "nobody"))
        target, address = scope["runstone.path"], _address(scope)
        try:
            note = self._authenticator.accounts.note
            await run_in_threadpool(note, user, action, target, address=address, status=status)
        except Exception as error:  # the answer is sent: whatever keeps the line from its table, it is not lost
            self._counters.audit_lines_elsewhere += 1
            problem = f"{type(error).__name__}: {error}"[:500]
            told = {"user": user, "action": action, "target": target[:1_000], "address": address, "status": status}
            self._log("audit", id=scope["runstone.id"], **told, problem=problem)

    @property
    def config(self) -> ServerConfig:
        """How the server is set up."""
        return self._config

    @property
    def limits(self) -> Limits:
        """What one client may ask for."""
        return self._config.limits

    @property
    def app(self) -> ASGIApp:
        """What stands behind."""
        return self._app

    @property
    def log(self) -> Log:
        """Where lines go."""
        return self._log

    @property
    def counters(self) -> Counters:
        """What is counted."""
        return self._counters


class _Exchange:
    """One request and its answer."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0
        self._bytes_out = 0
        self._is_over = False
        scope["runstone.id"] = secrets.token_hex(8)
        resolve(scope, gate.config)

    async def run(self) -> None:
        gate, started = self._gate, time.perf_counter()
        problem: str | None = None
        gate.counters.in_flight += 1
        try:
            if gate.counters.in_flight > gate.limits.requests:
                raise ApiError("unavailable", "the server is busy; try again", headers={"Retry-After": "1"})
            async with gate.turn(self._scope["runstone.path"]):
                receive = await gate.admit(self._scope, self._receive)
                await self._answered(receive)
        except ApiError as error:
            problem = error.message
            await self._refuse(error)
        except Exception:
            problem = traceback.format_exc()
            await self._refuse(of_defect(self._scope["runstone.id"]))
        finally:
            gate.counters.in_flight -= 1
            gate.finish(self._scope, self._status, time.perf_counter() - started, problem, self._bytes_out)
        # Bytes of runs come many times a second; that a run is opened and finished is noted.
        path = self._scope["runstone.path"]
        is_quiet = self._status < 400 and (is_for_bytes(path) or is_frequent(path))
        # Who has not said who they are could fill the disk with lines; these are in the server's log.
        is_quiet = is_quiet or (self._scope.get("runstone.principal") is None and path != "/api/login")
        if self._scope["method"] in UNSAFE and not is_quiet:
            await gate.note_change(self._scope, self._status)

    async def _answered(self, receive: Receive) -> None:
        """Let the application answer; it must begin within its time; an upload may take longer."""
        limits = self._gate.limits
        is_file = is_upload(self._scope["method"], self._scope["runstone.path"])
        answer_s = limits.upload_s if is_file else limits.answer_s
        work = asyncio.ensure_future(self._gate.app(self._scope, receive, self._forward))
        try:
            done, _waiting = await asyncio.wait({work}, timeout=answer_s)
            if not done and not self._status:
                self._is_over = False
                raise ApiError("unavailable", f"no answer within {answer_s:g} s; ask for less")
            await work
        except ApiError:
            work.add_done_callback(_forget)
            raise
        except asyncio.CancelledError:
            work.cancel()
            raise

    async def _forward(self, message: Message) -> None:
        if self._is_over:
            return  # somebody else has answered already
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": with_headers(message.get("headers", []), self._scope["runstone.id"])}
        self._bytes_out += len(message.get("body", b""))
        await self._send(message)

    async def _refuse(self, error: ApiError) -> None:
        if self._status:
            return  # the answer has begun: all that can be done is to end it
        response = of_api(error) if is_mlflow(self._scope["runstone.path"]) else error.answer()
        await response(self._scope, self._receive, self._forward)
        self._is_over = True


def with_headers(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer and those that every answer has; what an answer says of itself stands."""
    there = {name.lower() for name, _value in headers}
    added = [(name, value) for name, value in _HEADERS.items() if name not in there]
    return [*headers, *added, (b"x-request-id", request_id.encode())]


def host_of(text: str) -> str | None:
    """Return the name in a Host header, lower case, without the port and brackets; `None` where it is none."""
    try:
        parts = urlsplit(f"//{text}")
        _port = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        return None
    return parts.hostname


def _check_origin(headers: _Headers, forwarded_host: str | None) -> None:
    """Refuse a change that another site asks for (CSRF).

    Args:
        headers: Of the request.
        forwarded_host: The `Host` that the browser sent, where a proxy that is believed tells it.
    """
    site = headers.one("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        raise ApiError("forbidden", "this request comes from another site")
    origins = headers.all("origin")
    if not origins:
        return
    own = {headers.one("host"), forwarded_host} - {None}
    try:
        parts = urlsplit(origins[0])
        netloc = parts.netloc
    except ValueError:
        netloc = ""
    standard = {"http": ":80", "https": ":443"}.get(parts.scheme if netloc else "", "")
    known = {name.lower().removesuffix(standard) if standard else name.lower() for name in own if name}
    # Only a browser can say that a request comes from its own site, and no proxy changes that word: where one puts
    # another Host in the place of the browser's, this is how the page still works.
    is_known = site == "same-origin" or netloc.lower().removesuffix(standard or "\0") in known
    if len(origins) != 1 or not netloc or not is_known:
        raise ApiError("forbidden", f"this request comes from another site: {origins[0]!r:.100}")


def _cookie(headers: _Headers, name: str) -> str | None:
    for line in headers.all("cookie"):
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(line[:16_384])
        except CookieError:
            continue
        if name in cookies:
            return cookies[name].value
    return None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


_CLOSE = {"Connection": "close"}


def _too_large(most: int) -> ApiError:
    told = f"the body is larger than {most:,} bytes"
    return ApiError("too_large", told, headers=_CLOSE)


async def _read(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError("invalid", "the client went away before its request was there")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _forget(work: asyncio.Future[Any]) -> None:
    """Take the outcome of work that nobody waits for any more."""
    if not work.cancelled():
        work.exception()


class _Headers:
    """The headers of a request, of which none is lost."""

    def __init__(self, scope: Scope) -> None:
        self._found: list[tuple[bytes, bytes]] = scope["headers"]

    def all(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._found if key == wanted]

    def one(self, name: str) -> str | None:
        """Return the only value of a header; of several, the first."""
        return next(iter(self.all(name)), None)


class _Rate:
    """How many requests each address may still send: a bucket that fills again."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, address: str, share: float = 1.0) -> None:
        """Count a request, or a share of one.

        Raises:
            ApiError: there were too many.
        """
        limits, now = self._limits, self._clock()
        with self._lock:
            left, at = self._buckets.pop(address, (float(limits.burst), now))
            left = min(limits.burst, left + (now - at) * limits.rate)
            self._buckets[address] = (max(0.0, left - share), now)
            while len(self._buckets) > _MOST_ADDRESSES:
                del self._buckets[next(iter(self._buckets))]
        if left < share:
            raise ApiError("too_many", "too many requests; try again in a second", headers={"Retry-After": "1"})
