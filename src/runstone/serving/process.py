"""The processes that serve: one, or several that share a socket. Knows uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runstone.errors import RunstoneError
from runstone.server.logs import Log
from runstone.server.serving import bound_socket
from runstone.serving.app import create_app
from runstone.serving.config import ServingConfig
from runstone.serving.counts import Counts
from runstone.serving.passing import as_json, config_of, place_of
from runstone.serving.places import Place
from runstone.serving.recording import deployed, recorder
from runstone.serving.service import Service

_KEEP_ALIVE_S = 30
_GRACE_S = 10
_LOOK_S = 0.2
_HEAD_BYTES = 64 << 10
_HEAD_S = 20.0
_RESTART_S = 2.0


def serve(place: Place, config: ServingConfig, *, announce: Callable[[str], None], log: Log | None = None) -> None:
    """Serve a model until the process is asked to end (SIGINT, SIGTERM); requests that are begun are answered.

    Args:
        place: The model.
        config: How it is served.
        announce: Told the address when requests are taken.
        log: Where lines go; default: standard error.

    Raises:
        InvalidConfig: its port is taken.
        RunstoneError: the model cannot be loaded.
    """
    log = log or Log()
    with contextlib.closing(bound_socket(config.network())) as listening:
        port = listening.getsockname()[1]
        host = f"[{config.host}]" if ":" in config.host else config.host
        url = f"http://{host}:{port}"
        config = dataclasses.replace(config, port=port)
        if config.workers == 1:
            service = Service(place.source(config.bounds.rows), config, log=log, on_change=recorder(place, config, url))
            running = _server(service)
            with deployed(place, config, url, service.served.version, log), _ended_by(running):
                announce(url)
                running.run(sockets=[listening])
            return
        version = place.source(config.bounds.rows).version()
        with deployed(place, config, url, version, log):
            _Workers(place, config, listening, url, log).run(announce)


def run_worker(told: dict[str, Any]) -> None:
    """Serve as one of several processes, as `serve` describes it on standard input."""
    place, config = place_of(told["place"]), config_of(told["config"])
    worker = told["worker"]
    listening = socket.socket(fileno=told["socket"])
    listening.setblocking(False)
    on_change = recorder(place, config, told["url"]) if worker == 0 else None
    service = Service(
        place.source(config.bounds.rows),
        config,
        worker=worker,
        counts=Counts(Path(told["counts"]), worker, config.workers),
        on_change=on_change,
    )
    running = _server(service)
    with _ended_by(running):
        print("ready", flush=True)
        running.run(sockets=[listening])


class _Workers:
    """Processes that answer at one socket; one that dies is started again."""

    def __init__(self, place: Place, config: ServingConfig, listening: socket.socket, url: str, log: Log) -> None:
        self._place = place
        self._config = config
        self._listening = listening
        self._url = url
        self._log = log
        self._ending = threading.Event()
        self._running: dict[int, subprocess.Popen[str]] = {}

    def run(self, announce: Callable[[str], None]) -> None:
        """Start them, and wait until the process is asked to end."""
        with tempfile.TemporaryDirectory(prefix="runstone-serving-") as folder, self._signals():
            counts = Path(folder) / "counts"
            Counts.prepare(counts, self._config.workers)
            try:
                for worker in range(self._config.workers):
                    self._start(worker, counts)
                for worker, process in self._running.items():
                    if not self._is_ready(process):
                        raise RunstoneError(f"worker {worker} could not start; what it said stands above")
                announce(self._url)
                self._look_after(counts)
            finally:
                self._end()

    @staticmethod
    def _is_ready(process: subprocess.Popen[str]) -> bool:
        return process.stdout is not None and process.stdout.readline() == "ready\n"

    def _start(self, worker: int, counts: Path) -> None:
        told = {
            "place": as_json(self._place),
            "config": as_json(self._config),
            "worker": worker,
            "socket": self._listening.fileno(),
            "counts": str(counts),
            "url": self._url,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "runstone.serving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[self._listening.fileno()],
            start_new_session=True,  # what a terminal sends to end all comes from here, once
        )
        self._running[worker] = process
        if process.stdin is not None:
            with process.stdin as given:
                given.write(json.dumps(told))  # not on the command line: the token would be seen there

    def _look_after(self, counts: Path) -> None:
        while not self._ending.wait(_LOOK_S):
            for worker, process in list(self._running.items()):
                if process.poll() is not None:
                    self._log("worker_died", worker=worker, code=process.returncode)
                    if self._ending.wait(_RESTART_S):
                        return
                    self._start(worker, counts)

    def _end(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + _GRACE_S + 5
        for process in self._running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        with _handled(lambda _number, _frame: self._ending.set()):
            yield


def _server(service: Service) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            http=_GuardedProtocol,
            loop="uvloop",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            backlog=2_048,
        )
    )


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


@contextlib.contextmanager
def _ended_by(running: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server, and not the process before it is done."""

    def end(_number: int, _frame: FrameType | None) -> None:
        running.should_exit = True

    with _handled(end):
        yield


class _GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose heads have an end: who drips bytes, or sends headers without end, is let go."""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self._in_head = 0
        self._waiting: asyncio.TimerHandle | None = self.loop.call_later(_HEAD_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        if self._waiting is not None:
            self._in_head += len(data)
            # A body may follow at once: the bound is for heads that do not end.
            if self._in_head > _HEAD_BYTES + (256 << 10):
                self._give_up()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self._waiting is None:
            self._in_head = 0
            self._waiting = self.loop.call_later(_HEAD_S, self._give_up)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End a head."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
