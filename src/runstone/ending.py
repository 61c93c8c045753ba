"""How an open run learns that its process ends: normally, by an exception nobody caught, or by SIGTERM.

The hooks are installed with the first open run of a process and call what stood there before. A handler for SIGTERM is
installed only where there is none; it ends the runs and then lets the signal do its work, so the exit code stays.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
import threading
import time
from types import TracebackType
from typing import Protocol

_SNAPSHOT_LIMIT_S = 5.0


class Endable(Protocol):
    """What an open run offers to the hooks."""

    def end_with_process(self, error: BaseException | None) -> None:
        """End as the process does: by this exception, or normally."""


class Joinable(Protocol):
    """Background work that should be done before the process is gone."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for it, at most so long; return whether it is done."""


# Process-wide by nature, as the hooks are.
_open: list[Endable] = []
_background: list[Joinable] = []
_uncaught: list[BaseException] = []
_installed = False


def watch(run: Endable) -> None:
    """End this run with the process, unless it has ended before."""
    _install()
    _open.append(run)


def unwatch(run: Endable) -> None:
    """Forget a run that has ended."""
    with contextlib.suppress(ValueError):
        _open.remove(run)


def finish_before_exit(work: Joinable) -> None:
    """Wait for background work before the process exits, for 5 s at most over all of it."""
    _install()
    _background[:] = [*_background[-15:], work]


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    atexit.register(_at_exit)
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _uncaught.append(error)
        previous(kind, error, trace)

    sys.excepthook = hook
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(ValueError, OSError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _on_sigterm)


def _at_exit() -> None:
    _end_all(_uncaught[-1] if _uncaught else None)
    limit = time.monotonic() + _SNAPSHOT_LIMIT_S
    for work in _background:
        work.join(max(0.0, limit - time.monotonic()))


def _end_all(error: BaseException | None) -> None:
    for run in reversed(_open[:]):
        with contextlib.suppress(Exception):  # the process ends: nothing of ours may change how
            run.end_with_process(error)


class Terminated(BaseException):
    """Stands for SIGTERM where a run is ended by it."""


def _on_sigterm(number: int, _frame: object) -> None:
    _end_all(Terminated("SIGTERM"))
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
