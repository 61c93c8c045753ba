"""Starts the processes of trials and sees to it that none of them outlives the sweep. Standard library only.

The coordinator of a sweep has threads and holds locks, so it must not fork. It talks to a supervisor: one
small process with one thread, which forks the trials, reports their ends, and kills all that is left of
them when the coordinator is gone, for whatever reason. It is started as a script, or forked where a Python
function is tried that only lives in the coordinator's memory.

One JSON object a line, both ways:
    to it      {"do": "start", "number", "argv", "env", "cwd", "console"}   {"do": "signal", "number", "signal"}
    from it    {"started": number, "pid"}   {"ended": number, "code"}       a code below 0 is a signal, as in subprocess
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

# How long what a trial left behind may go on by itself, and how long after SIGTERM.
QUIET_S = 3.0
TERM_S = 2.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

RunObjective = Callable[[], int]


class Child:
    """The process group of one trial."""

    def __init__(self, number: int, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.code: int | None = None
        self.was_terminated = False
        self.deadline = 0.0


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
        self._prctl = _find_prctl()
        self._pid = os.getpid()

    def serve(self) -> None:
        """Start, watch and end trials until the coordinator is gone; then kill what is left."""
        # Whatever a trial leaves behind becomes our child, so that we can find it.
        is_subreaper = self._prctl is not None and self._prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
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
                timeout = 0.1 if any(child.code is not None for child in self._children.values()) else None
                ready = select.select([self._channel.fileno(), wake_read], [], [], timeout)[0]
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                if self._channel.fileno() in ready and not self._receive():
                    return
                self._look_after(is_subreaper)
        except (BrokenPipeError, ConnectionError):
            return
        finally:
            self._kill_all()

    def _receive(self) -> bool:
        data = self._channel.recv(1 << 16)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "start":
                self._start(request)
            elif child := self._children.get(request["number"]):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, request["signal"])
        return bool(data)

    def _start(self, request: dict[str, Any]) -> None:
        is_leader, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_trial(request, told)
        os.close(told)
        # The child closes its end once it leads a group: from here on a signal to the group reaches it.
        os.read(is_leader, 1)
        os.close(is_leader)
        self._children[request["number"]] = Child(request["number"], pid)
        self._send({"started": request["number"], "pid": pid})

    def _become_trial(self, request: dict[str, Any], told: int) -> NoReturn:
        code = 127
        try:
            os.setsid()
            os.close(told)
            if self._prctl is not None:
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != self._pid:
                    os._exit(code)
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
                os.closerange(3, _highest_fd() + 1)
                try:
                    os.chdir(request["cwd"])
                    os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606  # no shell, on purpose
                except OSError as error:
                    os.write(2, f"cannot start {request['argv'][0]}: {error.strerror}\n".encode())
            else:
                self._channel.close()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.chdir(request["cwd"])
                os.environ.clear()
                os.environ.update(request["env"])
                code = self._run_objective()
                sys.stdout.flush()
                sys.stderr.flush()
        except BaseException as error:  # the fork of a process must never go on as that process
            os.write(2, f"the trial could not be started: {error!r}\n".encode())
        finally:
            os._exit(code)

    def _look_after(self, is_subreaper: bool) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.code is None:
                if not is_subreaper:
                    self._terminate_with_leader(child)
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid == 0:
                    continue
                child.code = os.waitstatus_to_exitcode(status)
                child.deadline = now + QUIET_S
            if self._has_left(child):
                if now < child.deadline:
                    continue
                number = signal.SIGKILL if child.was_terminated else signal.SIGTERM
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, number)
                child.was_terminated, child.deadline = True, now + TERM_S
                continue
            del self._children[child.number]
            self._send({"ended": child.number, "code": child.code})
        self._reap_strangers()

    @staticmethod
    def _terminate_with_leader(child: Child) -> None:
        """Where orphans are not given to us: end the group while its ended leader still keeps the number from reuse."""
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGTERM)

    @staticmethod
    def _has_left(child: Child) -> bool:
        """Tell whether processes of the group live on after its leader; reap those that do not."""
        try:
            while os.waitid(os.P_PGID, child.pid, os.WEXITED | os.WNOHANG) is not None:
                pass
        except ChildProcessError:
            return False
        return True

    def _reap_strangers(self) -> None:
        """Reap what a trial moved into a group of its own and left behind."""
        leaders = {child.pid for child in self._children.values()}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in leaders:
                    return  # its end is reported by `_look_after`, the next time
                os.waitpid(found.si_pid, os.WNOHANG)

    def _kill_all(self) -> None:
        """Kill every process that a trial started, as far as the system lets us find it."""
        limit = time.monotonic() + 5.0
        while time.monotonic() < limit:
            for child in self._children.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
            for pid in _children_of(self._pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            self._children = {n: c for n, c in self._children.items() if c.code is None}
            time.sleep(0.005)

    def _send(self, message: dict[str, int]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def _find_prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes  # only Linux has what it is for

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return lambda option, value: int(prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _children_of(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123  # no pathlib here: each import costs a start
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _highest_fd() -> int:
    try:
        return max(map(int, os.listdir("/dev/fd")))  # noqa: PTH208  # as above
    except (OSError, ValueError):
        return 1024


if __name__ == "__main__":
    Supervisor(socket.socket(fileno=int(sys.argv[1]))).serve()
