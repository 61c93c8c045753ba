"""The supervisor's end of the servers that fork trials: one for each folder, interpreter and set of variables.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from runstone_sweeps.processes.invocation import import_environment, read_invocation
from runstone_sweeps.processes.linux import Prctl, die_with_parent, highest_fd

# Each holds all that was imported; a sweep whose variables differ from trial to trial would have one for each.
_MOST = 4
_MOST_DEATHS = 3
# An import that takes longer hangs, as far as the sweep is concerned.
PREPARE_S = 300.0
_ROOT = os.path.abspath(f"{__file__}/../../..")  # noqa: PTH100  # no pathlib here
_PROGRAM = """\
import sys
early = frozenset(sys.modules)
sys.path.append({root!r})
from runstone_sweeps.processes.warm_server import serve
sys.path.pop()
trial = serve({requests}, {reports}, {parent}, early)
if trial is not None:
    trial.run()
"""

Request = dict[str, Any]
Key = tuple[Any, ...]


class Server:
    """One process that forks trials."""

    def __init__(
        self, key: Key, request: Request, preload: Sequence[str], prctl: Prctl | None, *, learns: bool
    ) -> None:
        self.key = key
        self.is_ready = False
        self.is_retired = False
        self.waiting: list[Request] = []
        #: The request that it has not answered.
        self.asked: Request | None = None
        self.prepare_until = time.monotonic() + PREPARE_S
        self._received = b""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.reports, told = os.pipe()
        os.set_blocking(self.reports, False)
        self._requests = ours
        parent = os.getpid()
        invocation = read_invocation(request["argv"])
        options = invocation.options if invocation is not None else ()
        program = _PROGRAM.format(root=_ROOT, requests=3, reports=4, parent=parent)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                die_with_parent(prctl, parent)
                _become_server(theirs.fileno(), told, request, [request["argv"][0], *options, "-c", program])
            finally:
                os._exit(127)
        theirs.close()
        os.close(told)
        target = invocation.target if invocation is not None else ""
        self.send({"preload": list(preload), "learns": learns, "argv": [target]})

    def send(self, request: Request) -> None:
        """Send one line."""
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # its end is noticed where it is read
            self._requests.sendall(json.dumps(request).encode() + b"\n")

    def ask_next(self) -> None:
        """Hand the next trial over, one at a time: it answers before it takes another."""
        if self.is_ready and self.asked is None and self.waiting:
            self.asked = self.waiting.pop(0)
            self.send(self.asked)

    def read(self) -> list[dict[str, Any]] | None:
        """Return what it and its forks said; `None` once all of them are gone."""
        try:
            data = os.read(self.reports, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def retire(self) -> None:
        """Have it end with its last trial."""
        self.is_retired = True
        with contextlib.suppress(OSError):
            self._requests.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill it, and with it the trials that it forked."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of what connects with it."""
        self._requests.close()
        os.close(self.reports)


class Servers:
    """All servers of one supervisor.

    Args:
        prctl: See `linux.find_prctl`.
        start_cold: Starts a trial that cannot be forked.
        note: Is told why, in a few words.
    """

    def __init__(
        self, prctl: Prctl | None, *, start_cold: Callable[[Request], None], note: Callable[[str], None]
    ) -> None:
        self.preload: list[str] = []
        self._prctl = prctl
        self._start_cold = start_cold
        self._note = note
        self._by_key: dict[Key, Server] = {}
        self._all: list[Server] = []
        self._keys: set[Key] = set()
        self._deaths: dict[Key, int] = {}
        self._unfit: set[Key] = set()
        self._learns = True

    @property
    def reports(self) -> dict[int, Server]:
        """The files to wait on."""
        return {server.reports: server for server in self._all}

    @property
    def prepares(self) -> bool:
        """Whether one of them still imports."""
        return any(not server.is_ready for server in self._by_key.values())

    def start(self, request: Request) -> None:
        """Have a trial forked, as soon as there is a server for it; start it cold where there will be none."""
        key = _key(request)
        server = self._by_key.get(key)
        if server is None:
            server = self._new(key, request)
            if server is None:
                self._start_cold(request)
                return
        server.waiting.append(request)
        server.ask_next()

    def answered(self, server: Server) -> None:
        """Take note that the trial that was handed over is there."""
        server.asked = None
        server.ask_next()

    def take(self, server: Server, told: dict[str, Any]) -> None:
        """Act on what a server said of itself."""
        if "ready" in told:
            server.is_ready = True
            server.ask_next()
        elif "unfit" in told and told.get("is_learned"):
            self._learns = False  # what trials load later is better loaded by each of them
            self._replace(server)
        elif "unfit" in told:
            self._give_up(server, told["unfit"])
        elif "refused" in told:
            request, server.asked = server.asked, None
            if request is not None and (told.get("is_stale") or server.is_retired):
                server.waiting.insert(0, request)
                self._replace(server)
                return
            self._note(told["reason"])
            if request is not None:
                self._start_cold(request)
            server.ask_next()

    def lost(self, server: Server) -> None:
        """Start again what a server that is gone had not begun."""
        self._all.remove(server)
        if self._by_key.get(server.key) is server:
            del self._by_key[server.key]
        server.close()
        if not server.is_ready and not server.is_retired:
            self._give_up(server, "the process that imports their modules died of it")
        elif not server.is_retired:
            self._deaths[server.key] = self._deaths.get(server.key, 0) + 1
            if self._deaths[server.key] == _MOST_DEATHS:
                self._give_up(server, "the process that forks them was killed time and again")
        server.waiting[:0] = filter(None, [server.asked])
        self._replace(server)

    def look_after(self) -> None:
        """End those that hang in an import."""
        for server in list(self._by_key.values()):
            if not server.is_ready and time.monotonic() > server.prepare_until:
                server.kill()
                self._give_up(server, f"the import of their modules takes longer than {PREPARE_S:g} s")

    def _new(self, key: Key, request: Request) -> Server | None:
        if key in self._unfit:
            return None
        if len(self._keys) >= _MOST and key not in self._keys:
            self._note("variables that are read at import, or folders, differ from trial to trial")
            return None
        self._keys.add(key)
        try:
            server = Server(key, request, self.preload, self._prctl, learns=self._learns)
        except OSError as error:
            self._note(f"no process could be started to fork them: {error.strerror}")
            return None
        self._by_key[key] = server
        self._all.append(server)
        return server

    def _give_up(self, server: Server, reason: str) -> None:
        self._unfit.add(server.key)
        self._note(reason)
        self._forget(server)
        waiting, server.waiting = server.waiting, []
        for request in waiting:
            self._start_cold(request)

    def _replace(self, server: Server) -> None:
        """Let a server end with its last trial, and have another one fork those that it has not begun."""
        self._forget(server)
        again, server.waiting = server.waiting, []
        for request in again:
            self.start(request)

    def _forget(self, server: Server) -> None:
        if self._by_key.get(server.key) is server:
            del self._by_key[server.key]
        server.retire()


def _key(request: Request) -> Key:
    """Return what trials must have in common to be forks of one process."""
    invocation = read_invocation(request["argv"])
    called = (invocation.interpreter, invocation.options) if invocation is not None else None
    variables = tuple(sorted(import_environment(request["env"]).items()))
    return called, request["cwd"], variables


def _become_server(requests: int, reports: int, request: Request, argv: list[str]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    # A file, as a trial's console is: what Python makes of standard output depends on that.
    output = os.memfd_create("runstone-output", 0)
    # First out of the way of the numbers that they are to have.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (requests, reports, null, output)]
    for fd, place in zip(moved, (3, 4, 0, 1), strict=True):
        os.dup2(fd, place)
    os.dup2(1, 2)
    os.closerange(5, highest_fd() + 1)
    os.chdir(request["cwd"])
    environment = {name: value for name, value in request["env"].items() if not name.startswith("RUNSTONE_")}
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606  # no shell, on purpose
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error.strerror}\n")
