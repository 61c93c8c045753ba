"""Running a server: its socket, its process, its end. Knows uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from runstone.errors import InvalidConfig
from runstone.index.accounts import Accounts
from runstone.sealing.process import sealed_meanwhile
from runstone.server.app import create_app
from runstone.server.auth import LocalKeys
from runstone.server.carrying import content_carried
from runstone.server.config import ServerConfig
from runstone.server.logs import Log
from runstone.workspace import Workspace

_KEEP_ALIVE_S = 30
_GRACE_S = 10
_HEAD_BYTES = 64 << 10
_USUAL_PORT = 6_060
_PORTS_TRIED = 50
_COLLECTIONS = (20_000, 20, 20)
"""How many objects are made before the collector looks at the newest; and how often it looks at older ones."""


def check_start(workspace: Workspace, config: ServerConfig) -> None:
    """Refuse to let others in who need not show who they are.

    Raises:
        InvalidConfig: others could reach the server, and nobody has a token.
    """
    if config.is_loopback:
        return
    with contextlib.closing(Accounts(workspace.path, database=config.index)) as accounts:
        may_start = accounts.has_usable_token
    if not may_start:
        raise InvalidConfig(
            f"others could reach {config.host}, and nobody has a token yet; make one: "
            "`runstone users add NAME --role admin`, then `runstone tokens create NAME`"
        )


def serve(
    workspace: Workspace,
    config: ServerConfig,
    *,
    announce: Callable[[str, str | None], None],
    log: Log | None = None,
    is_page_fixed: bool = True,
) -> None:
    """Serve a workspace until the process is asked to end (SIGINT, SIGTERM); requests that are begun are answered.

    Args:
        workspace: What is served.
        config: How it is set up.
        announce: Told where the page is, and the key that opens it next, where there is one; again for each new key.
        log: Where the server writes its log.
        is_page_fixed: Whether the files of the page are read once.

    Raises:
        InvalidConfig: it may not start like this, or its port is taken.
    """
    check_start(workspace, config)
    listening = bound_socket(config)
    config = replace(config, port=listening.getsockname()[1])
    url = f"{config.scheme}://{_shown_host(config.host)}:{config.port}/"
    keys = LocalKeys(config.local_name, lambda key: announce(url, key)) if config.local_name is not None else None
    server = create_app(workspace, config, keys=keys, log=log, is_page_fixed=is_page_fixed)
    announce(url, keys.new_key() if keys is not None else None)
    options: dict[str, Any] = {}
    if config.tls_cert is not None and config.tls_key is not None:
        options = {"ssl_certfile": config.tls_cert, "ssl_keyfile": config.tls_key}
    running = uvicorn.Server(
        uvicorn.Config(
            server,
            http=_PatientProtocol.within(config.limits.head_s),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the gate knows whom to believe
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            **options,
        )
    )
    server.state.log("started", url=url, workspace=workspace.path.name)
    try:
        with (
            _ended_by_signals(running),
            _few_collections(),
            content_carried(workspace, server.state.log, server.state.elsewhere),
            sealed_meanwhile(workspace.path, lambda problem: server.state.log("not_sealing", problem=problem)),
        ):
            running.run(sockets=[listening])
    finally:
        listening.close()
        server.state.log("ended")


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Let the garbage collector leave alone what the program is made of, and look less often at what requests make.

    A batch of 1,000 points makes more objects than let it look at everything, and that took a fifth of the answer.
    """
    often = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.unfreeze()


@contextlib.contextmanager
def _ended_by_signals(running: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server, and not the process as well.

    uvicorn sends itself once more what ended it, when all requests are answered; this handler takes that.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        running.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def bound_socket(config: ServerConfig) -> socket.socket:
    """Return a socket that listens where the config says; of port 0, at the usual one or the next that is free.

    Raises:
        InvalidConfig: it cannot.
    """
    ports = [config.port] if config.port else [*range(_USUAL_PORT, _USUAL_PORT + _PORTS_TRIED), 0]
    problem: OSError | None = None
    for port in ports:
        try:
            family, _type, _protocol, _name, address = socket.getaddrinfo(
                config.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return _bound(family, address)
        except OSError as error:
            problem = error
    reason = problem.strerror if problem is not None else ""
    raise InvalidConfig(f"cannot listen on {config.host}:{config.port}: {reason}; choose another --host or --port")


def _bound(family: int, address: Any) -> socket.socket:
    # With its protocol named, asyncio switches Nagle's algorithm off: else each small answer waits 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(512)  # now, so that whoever was told the address gets an answer
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for the head of a request for some time only: a client that drips bytes holds nothing."""

    head_s = 20.0

    @classmethod
    def within(cls, head_s: float) -> type[_PatientProtocol]:
        """Return the protocol with a time limit in seconds."""
        return type("PatientProtocol", (cls,), {"head_s": head_s})

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self._wait_for_head()

    def handle_events(self) -> None:
        """Take in what has come."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        # The pause between two requests is uvicorn's to limit; this one limits the head once it is due.
        self._waiting: asyncio.TimerHandle | None = self.loop.call_later(
            max(self.head_s, self.timeout_keep_alive if self.cycle is not None else 0), self._give_up
        )

    def _stop_waiting(self) -> None:
        waiting = getattr(self, "_waiting", None)
        if waiting is not None:
            waiting.cancel()
        self._waiting = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
