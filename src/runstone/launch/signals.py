"""Signals: noticing them without dying of them, and passing them on to a program. Knows no run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from types import FrameType

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_CHILD_SUBREAPER = 36
_TOGETHER_S = 0.3


class Noticed:
    """The signals that this process gets, noticed instead of obeyed, until it is closed.

    Those that were ignored when it was started, as under `nohup`, stay ignored. A program that is executed meanwhile
    has none of this: what is noticed here is as usual there.

    Args:
        others: Signals to notice besides those that are passed on.
    """

    def __init__(self, *others: signal.Signals) -> None:
        self.fd, self._wake = os.pipe()
        for end in (self.fd, self._wake):
            os.set_blocking(end, False)
        self._numbers: list[int] = []
        self._before_wakeup = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, self._notice)
            for number in (*PASSED_ON, signal.SIGCHLD, *others)
            if signal.getsignal(number) is not signal.SIG_IGN
        }

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        self._numbers.append(number)

    def take(self) -> list[int]:
        """Return the signals that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                pass
        taken, self._numbers = self._numbers, []
        return taken

    def close(self) -> None:
        """Let signals do again what they did before."""
        signal.set_wakeup_fd(self._before_wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._wake)


class Relay:
    """Passes on what the front is sent, unless the program was sent it too.

    A terminal's Ctrl-C goes to all processes of a group, and so do the signals of `timeout` and of shells; the program
    is among them, and so is the recorder. What the recorder was sent at the same time, the program has.
    """

    def __init__(self) -> None:
        self._own: dict[int, float] = {}
        self._waiting: list[tuple[float, int]] = []
        self.last_at = float("-inf")
        """When the program was last sent a signal that ends programs, on the monotonic clock."""

    def note_own(self, number: int) -> None:
        """Note that the whole group was sent a signal."""
        self._own[number] = time.monotonic()
        self._note_end(number)

    def ask(self, number: int) -> None:
        """Note that the front was sent a signal."""
        self._waiting.append((time.monotonic(), number))

    def due(self) -> list[int]:
        """Return the signals that the program is to be sent now."""
        now = time.monotonic()
        ready = {number for at, number in self._waiting if now - at >= _TOGETHER_S / 3}
        self._waiting = [(at, number) for at, number in self._waiting if number not in ready]
        due = [number for number in ready if now - self._own.get(number, float("-inf")) > _TOGETHER_S]
        for number in due:
            self._note_end(number)
        return due

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be decided soon."""
        return bool(self._waiting)

    def _note_end(self, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self.last_at = time.monotonic()


def send(pid: int, number: int, *, whole_tree: bool = False) -> None:
    """Send a signal to a program and to those that it started.

    Args:
        pid: Its first process.
        number: The signal.
        whole_tree: Also to those that have left its group, as daemons do.
    """
    for target in [pid, *_below(pid, whole_tree=whole_tree)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)


def _below(pid: int, *, whole_tree: bool) -> list[int]:
    import psutil  # only where a signal is sent

    try:
        below = [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []
    return below if whole_tree else [other for other in below if _group_of(other) == os.getpgrp()]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def adopt_orphans() -> bool:
    """Become the parent of what descendants of this process leave behind; return whether the system can do that."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes  # only Linux has what it is for

        return int(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)) == 0
    except (ImportError, OSError, AttributeError):
        return False


def exit_code(code: int) -> int:
    """Return what a shell makes of a return code of `subprocess`: 128 and the signal's number where one killed it."""
    return code if code >= 0 else 128 - code
