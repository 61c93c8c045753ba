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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from runstone import RunstoneError
from runstone_sweeps import supervisor


@dataclass(frozen=True, slots=True)
class Started:
    """A trial's process is there."""

    number: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """All processes of a trial are gone. A `code` below 0 is the signal that killed the first of them."""

    number: int
    code: int


class SupervisorLost(RunstoneError):
    """The process that starts the trials is gone, and with it all trials."""


class TrialProcesses:
    """Starts trials as processes of their own and hears of their ends.

    However this process dies, all of them die with it.

    Args:
        run_objective: What a trial calls instead of executing a command; given, this process is forked.
    """

    def __init__(self, run_objective: supervisor.RunObjective | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ours
        self._received = b""
        self._popen: subprocess.Popen[bytes] | None = None
        self._pid = 0
        if run_objective is None:
            # -I -S: nothing but the standard library, whatever the user's environment says; it starts in 10 ms.
            command = [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno())]
            self._popen = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        else:
            self._pid = os.fork()
            if self._pid == 0:
                _become_supervisor(ours, theirs, run_objective)
        theirs.close()

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
    ) -> None:
        """Start the process of a trial; `Started` follows.

        Args:
            number: The trial.
            argv: Its command line.
            env: Its whole environment.
            cwd: Folder in which it starts.
            console: File that takes its output, appended.
        """
        self._send(
            {
                "do": "start",
                "number": number,
                "argv": list(argv),
                "env": dict(env),
                "cwd": str(cwd),
                "console": str(console),
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
                    raise SupervisorLost("the process that starts the trials was killed, and all trials with it")
                *lines, self._received = (self._received + data).split(b"\n")
                for line in lines:
                    told = json.loads(line)
                    is_start = "started" in told
                    news.append(
                        Started(told["started"], told["pid"]) if is_start else Ended(told["ended"], told["code"])
                    )
                ready, _, _ = select.select([self._channel], [], [], 0)
        return news

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
            raise SupervisorLost("the process that starts the trials was killed, and all trials with it") from None


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
