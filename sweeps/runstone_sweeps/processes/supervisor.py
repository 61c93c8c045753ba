"""Starts the processes of trials and sees to it that none of them outlives the sweep. Standard library only.

The coordinator of a sweep has threads and holds locks, so it must not fork. It talks to a supervisor: one
small process with one thread, which starts the trials, reports their ends, and kills all that is left of
them when the coordinator is gone, for whatever reason. It is started as a program, or forked where a Python
function is tried that only lives in the coordinator's memory. Trials that may start warm are forked by servers
below it (see `servers`); they end as all others do.

One JSON object a line, both ways:
    to it      {"do": "preload", "modules"}    {"do": "signal", "number", "signal"}
               {"do": "start", "number", "argv", "env", "cwd", "console", "is_warm", "memory_bytes"}
    from it    {"started": number, "pid", "is_warm"}    {"note": text}
               {"ended": number, "code", "reason", "cpu_s", "max_rss_bytes"}
A code below 0 is a signal, as in subprocess.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from runstone_sweeps.processes.linux import adopt_orphans, children_of, die_with_parent, find_prctl, highest_fd
from runstone_sweeps.processes.memory import exceeds, processes_of
from runstone_sweeps.processes.servers import Server, Servers

# How long what a trial left behind may go on by itself, and how long after SIGTERM.
QUIET_S = 3.0
TERM_S = 2.0
LEFT_S = 0.1
MEMORY_S = 0.2

RunObjective = Callable[[], int]


class Child:
    """The process group of one trial.

    Attributes:
        server: Who forked it and tells its end; `None`: it is a child of this process.
    """

    def __init__(self, number: int, pid: int, *, memory_bytes: int | None, server: Server | None) -> None:
        self.number = number
        self.pid = pid
        self.server = server
        self.memory_bytes = memory_bytes
        self.code: int | None = None
        self.reason: str | None = None
        self.cpu_s = 0.0
        self.max_rss_bytes = 0
        self.was_terminated = False
        self.deadline = 0.0

    def ended(self, code: int, cpu_s: float, max_rss_bytes: int) -> None:
        """Take note of the end of the first process."""
        self.code = code
        self.deadline = time.monotonic() + QUIET_S
        self.used(cpu_s, max_rss_bytes)

    def used(self, cpu_s: float, max_rss_bytes: int) -> None:
        """Add what one of its processes has used."""
        self.cpu_s += cpu_s
        self.max_rss_bytes = max(self.max_rss_bytes, max_rss_bytes)


class Supervisor:
    """Serves one coordinator until it closes its end of the socket.

    Args:
        channel: Connected to the coordinator.
        run_objective: Called in the child instead of executing `argv`; its result is the exit code.
    """

    def __init__(self, channel: socket.socket, run_objective: RunObjective | None = None) -> None:
        self._channel = channel
        self._run_objective = run_objective
        self._children: dict[int, Child] = {}
        self._received = b""
        self._prctl = find_prctl()
        self._pid = os.getpid()
        self._servers = Servers(self._prctl, start_cold=self._start, note=self._note)
        self._notes: set[str] = set()
        self._signals: dict[int, list[int]] = {}
        self._memory_looked_at = 0.0

    def serve(self) -> None:
        """Start, watch and end trials until the coordinator is gone; then kill what is left."""
        # Whatever a trial leaves behind becomes our child, so that we can find it.
        is_subreaper = adopt_orphans(self._prctl)
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A terminal's Ctrl-C and a SIGTERM to the whole group are for the coordinator, who tells us.
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        try:
            while True:
                reports = self._servers.reports
                ready = select.select([self._channel.fileno(), wake_read, *reports], [], [], self._patience())[0]
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                for fd in ready:
                    if fd in reports:
                        self._hear(reports[fd])
                if self._channel.fileno() in ready and not self._receive():
                    return
                self._look_after(is_subreaper)
        except (BrokenPipeError, ConnectionError):
            return
        finally:
            self._kill_all()

    def _patience(self) -> float | None:
        if any(child.code is not None for child in self._children.values()):
            return LEFT_S
        if any(child.reason == "server" for child in self._children.values()):
            return LEFT_S / 10
        if any(child.memory_bytes is not None for child in self._children.values()):
            return MEMORY_S
        return 1.0 if self._servers.prepares else None

    # --- starting --------------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        data = self._channel.recv(1 << 16)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            match request["do"]:
                case "preload":
                    self._servers.preload = request["modules"]
                case "start" if request["is_warm"] and self._run_objective is None:
                    self._servers.start(request)
                case "start":
                    self._start(request)
                case "signal":
                    self._signal(request["number"], request["signal"])
        return bool(data)

    def _signal(self, number: int, sent: int) -> None:
        child = self._children.get(number)
        if child is not None:
            _signal_group(child.pid, sent)
        else:  # its start waits for a server; it is to hear of this all the same
            self._signals.setdefault(number, []).append(sent)

    def _start(self, request: dict[str, Any]) -> None:
        is_leader, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_trial(request, told)
        os.close(told)
        # The child closes its end once it leads a group: from here on a signal to the group reaches it.
        os.read(is_leader, 1)
        os.close(is_leader)
        self._started(request, pid, None)

    def _started(self, request: dict[str, Any], pid: int, server: Server | None) -> None:
        number = request["number"]
        self._children[number] = Child(number, pid, memory_bytes=request["memory_bytes"], server=server)
        self._send({"started": number, "pid": pid, "is_warm": server is not None})
        for sent in self._signals.pop(number, ()):
            _signal_group(pid, sent)

    def _become_trial(self, request: dict[str, Any], told: int) -> NoReturn:
        code = 127
        try:
            os.setsid()
            os.close(told)
            die_with_parent(self._prctl, self._pid)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            # `import torch` on Python 3.13 reads the terminal's settings and would be stopped for it.
            null = os.open(os.devnull, os.O_RDONLY)
            console = os.open(request["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(null, 0)
            os.dup2(console, 1)
            os.dup2(console, 2)
            if self._run_objective is None:
                os.closerange(3, highest_fd() + 1)
                try:
                    os.chdir(request["cwd"])
                    os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606  # no shell, on purpose
                except OSError as error:
                    os.write(2, f"cannot start {request['argv'][0]}: {error.strerror}\n".encode())
            else:
                self._channel.close()
                code = self._call(self._run_objective, request)
        except BaseException as error:  # the fork of a process must never go on as that process
            os.write(2, f"the trial could not be started: {error!r}\n".encode())
        finally:
            os._exit(code)

    @staticmethod
    def _call(run_objective: RunObjective, request: dict[str, Any]) -> int:
        from runstone_sweeps.processes.warm_main import (  # not needed where programs are tried
            encoded,
            renew,
            set_environment,
        )

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.chdir(request["cwd"])
        set_environment(encoded(request["env"]))
        renew()
        code = run_objective()
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    # --- ends ------------------------------------------------------------------------------------------------------

    def _hear(self, server: Server) -> None:
        """Take in what a server and its forks said."""
        messages = server.read()
        if messages is None:
            for child in self._children.values():
                if child.server is server and child.code is None:
                    child.server, child.reason = None, "server"  # killed with it; it is ours to bury now
            self._servers.lost(server)
            return
        for told in messages:
            if "started" in told:
                if server.asked is not None:
                    self._started(server.asked, told["pid"], server)
                self._servers.answered(server)
            elif "exited" in told:
                if server.asked is not None and not any(c.pid == told["exited"] for c in self._children.values()):
                    self._started(server.asked, told["exited"], server)  # it was killed before it could say so
                    self._servers.answered(server)
                for child in self._children.values():
                    if child.pid == told["exited"] and child.code is None:
                        child.ended(told["code"], told["cpu_s"], told["max_rss_bytes"])
            else:
                self._servers.take(server, told)

    def _look_after(self, is_subreaper: bool) -> None:
        now = time.monotonic()
        self._servers.look_after()
        self._look_at_memory(now)
        for child in list(self._children.values()):
            if child.code is None and (child.server is not None or not self._has_ended(child, is_subreaper)):
                continue
            if self._has_left(child):
                if now < child.deadline:
                    continue
                _signal_group(child.pid, signal.SIGKILL if child.was_terminated else signal.SIGTERM)
                child.was_terminated, child.deadline = True, now + TERM_S
                continue
            del self._children[child.number]
            self._send(
                {
                    "ended": child.number,
                    "code": child.code,
                    "reason": child.reason,
                    "cpu_s": round(child.cpu_s, 6),
                    "max_rss_bytes": child.max_rss_bytes,
                }
            )
        self._reap_strangers()

    def _look_at_memory(self, now: float) -> None:
        limited = [c for c in self._children.values() if c.memory_bytes is not None and c.code is None]
        if not limited or now < self._memory_looked_at + MEMORY_S:
            return
        self._memory_looked_at = now
        adopted = children_of(self._pid)
        for child in limited:
            pids = processes_of(child.pid, adopted)
            if child.memory_bytes is not None and child.reason is None and exceeds(pids, child.memory_bytes):
                child.reason = "memory"
                child.was_terminated = True
                _signal_group(child.pid, signal.SIGKILL)
                for pid in pids:  # those in groups of their own
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)

    @staticmethod
    def _has_ended(child: Child, is_subreaper: bool) -> bool:
        """Take note of the end of a trial's first process, if it has ended."""
        if not is_subreaper and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            # Orphans are not given to us: end the group while its ended leader still keeps the number from reuse.
            _signal_group(child.pid, signal.SIGTERM)
        try:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        except ChildProcessError:
            if _exists(child.pid):
                return False  # its server is dying, and has not yet left it to us
            child.ended(-signal.SIGKILL, 0.0, 0)  # buried by a server that was killed before it could say so
            return True
        if pid == 0:
            return False
        child.ended(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT)
        return True

    @staticmethod
    def _has_left(child: Child) -> bool:
        """Tell whether processes of the group live on after its leader; reap those that do not."""
        try:
            while True:
                pid, _, usage = os.wait4(-child.pid, os.WNOHANG)
                if pid == 0:
                    return True
                child.used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT)
        except ChildProcessError:
            return False

    def _reap_strangers(self) -> None:
        """Reap what a trial moved into a group of its own and left behind, and what it left while it still runs."""
        leaders = {child.pid: child for child in self._children.values()}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in leaders:
                    return  # its end is reported by `_look_after`, the next time
                owner = leaders.get(os.getpgid(found.si_pid))
                _, _, usage = os.wait4(found.si_pid, os.WNOHANG)
                if owner is not None:
                    owner.used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT)

    def _kill_all(self) -> None:
        """Kill every process that a trial started, as far as the system lets us find it."""
        limit = time.monotonic() + 5.0
        while time.monotonic() < limit:
            for child in self._children.values():
                _signal_group(child.pid, signal.SIGKILL)
            for pid in children_of(self._pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            self._children = {n: c for n, c in self._children.items() if c.code is None}
            time.sleep(0.005)

    def _note(self, reason: str) -> None:
        if reason not in self._notes:
            self._notes.add(reason)
            self._send({"note": f"trials start cold: {reason}"})

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


# In what `ru_maxrss` counts: KiB, but bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _signal_group(pid: int, sent: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sent)
