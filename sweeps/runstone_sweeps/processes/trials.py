"""The coordinator's end of the processes of its trials."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from runstone import RunstoneError
from runstone_sweeps.processes import supervisor

_ROOT = str(Path(__file__).parents[2])
_SUPERVISOR = """\
import socket, sys
sys.path.append({root!r})
from runstone_sweeps.processes.supervisor import Supervisor
Supervisor(socket.socket(fileno={channel})).serve()
"""


@dataclass(frozen=True, slots=True)
class Started:
    """A trial's process is there.

    Attributes:
        is_warm: It is a fork of a process that had imported its modules.
        pid_started: See `start_time`.
    """

    number: int
    pid: int
    is_warm: bool = False
    pid_started: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """All processes of a trial are gone.

    Attributes:
        code: Exit code of the first of them; below 0 it is the signal that killed it.
        reason: `memory`: it took more than it was allowed. `server`: it was killed with the process that it was forked
            from, through no fault of its own.
        cpu_s: CPU seconds of all its processes that ended before it was told, or that others of them waited for.
        max_rss_bytes: The most resident memory that one of them held.
    """

    number: int
    code: int
    reason: str | None = None
    cpu_s: float = field(default=0.0, compare=False)
    max_rss_bytes: int = field(default=0, compare=False)


class SupervisorLost(RunstoneError):
    """The process that starts the trials is gone, and with it all trials."""


class TrialProcesses:
    """Starts trials as processes of their own and hears of their ends.

    However this process dies, all of them die with it.

    Args:
        run_objective: What a trial calls instead of executing a command; given, this process is forked.
        preload: Modules that warm trials find imported; see `warm.plan`. Nothing is imported before the first of them.
    """

    def __init__(self, run_objective: supervisor.RunObjective | None = None, *, preload: Sequence[str] = ()) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ours
        self._received = b""
        self._notes: list[str] = []
        # Those that live, by number: pid and start, to know them again.
        self._living: dict[int, tuple[int, float | None]] = {}
        self._popen: subprocess.Popen[bytes] | None = None
        self._pid = 0
        if run_objective is None:
            # -I -S: nothing but the standard library, whatever the user's environment says; it starts in 20 ms.
            command = [sys.executable, "-I", "-S", "-c", _SUPERVISOR.format(root=_ROOT, channel=theirs.fileno())]
            self._popen = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        else:
            self._pid = os.fork()
            if self._pid == 0:
                _become_supervisor(ours, theirs, run_objective)
        theirs.close()
        self._send({"do": "preload", "modules": list(preload)})

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill every trial that is left."""
        self.close()

    def fileno(self) -> int:
        """Return what `select` waits on for news."""
        return self._channel.fileno()

    def start(
        self,
        number: int,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        console: Path,
        is_warm: bool = False,
        memory_bytes: int | None = None,
    ) -> None:
        """Start the process of a trial; `Started` follows.

        Args:
            number: The trial.
            argv: Its command line.
            env: Its whole environment.
            cwd: Folder in which it starts.
            console: File that takes its output, appended.
            is_warm: Fork it from a process that has imported `preload`, where that is possible: see `warm.plan`.
            memory_bytes: Kill it when its processes hold more resident memory; looked at five times a second.
        """
        self._send(
            {
                "do": "start",
                "number": number,
                "argv": list(argv),
                "env": dict(env),
                "cwd": str(cwd),
                "console": str(console),
                "is_warm": is_warm,
                "memory_bytes": memory_bytes,
            }
        )

    def send_signal(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial."""
        self._send({"do": "signal", "number": number, "signal": int(sent)})

    def poll(self, timeout_s: float) -> list[Started | Ended]:
        """Return what happened, after `timeout_s` at the latest.

        Raises:
            SupervisorLost: the supervisor was killed.
        """
        news: list[Started | Ended] = []
        with contextlib.suppress(InterruptedError):
            ready, _, _ = select.select([self._channel], [], [], timeout_s)
            while ready:
                try:
                    data = self._channel.recv(1 << 16)
                except ConnectionError:
                    data = b""
                if not data:
                    raise self._lost()
                *lines, self._received = (self._received + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line), news)
                ready, _, _ = select.select([self._channel], [], [], 0)
        return news

    def take_notes(self) -> list[str]:
        """Return what the user should know of how trials start, each remark once."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Kill every trial that is left and wait until they are gone."""
        self._channel.close()
        if self._popen is not None:
            try:
                self._popen.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
            self._popen = None
        elif self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except (BrokenPipeError, ConnectionError):
            raise self._lost() from None

    def _take(self, told: dict[str, Any], news: list[Started | Ended]) -> None:
        if "note" in told:
            self._notes.append(told["note"])
        elif "started" in told:
            number = told["started"]
            started = start_time(told["pid"])
            self._living[number] = (told["pid"], started)
            news.append(Started(number, told["pid"], told["is_warm"], started))
        else:
            number = told["ended"]
            self._living.pop(number, None)
            news.append(Ended(number, told["code"], told["reason"], told["cpu_s"], told["max_rss_bytes"]))

    def _lost(self) -> SupervisorLost:
        """Kill what the supervisor's death left of the trials."""
        for pid, started in self._living.values():
            # The first of them is gone, killed by the system; no other process can have the group's number meanwhile.
            if start_time(pid) in (None, started):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        self._living = {}
        return SupervisorLost("the process that starts the trials was killed, and all trials with it")


def _become_supervisor(ours: socket.socket, theirs: socket.socket, run_objective: supervisor.RunObjective) -> None:
    """Serve in the forked child and never return."""
    code = 1
    try:
        os.setsid()
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        supervisor.Supervisor(theirs, run_objective).serve()
        code = 0
    finally:
        os._exit(code)


def start_time(pid: int) -> float | None:
    """Return when the system started a process, or `None` where it is gone; with the pid it is unmistakable.

    On Linux seconds since the boot, which no change of the clock moves.
    """
    if sys.platform.startswith("linux"):
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def kill_leftover(pid: int, started: float | None) -> bool:
    """Kill the process group of a trial whose coordinator died, if it is still that process; wait until it is gone.

    Returns:
        Whether there was one.
    """
    if started is None or start_time(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).wait(timeout=10)
    return True
