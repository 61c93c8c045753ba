"""How an open run learns that its process ends: normally, by an exception nobody caught, or by SIGTERM.

The hooks are installed with the first open run of a process and call what stood there before: `sys.excepthook`, and
`sys.exit`, because nothing else tells a normal end from `sys.exit(1)`. A handler for SIGTERM is installed only where
there is none; it ends the runs and then lets the signal do its work, so the exit code stays.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Protocol

_SNAPSHOT_LIMIT_S = 2.0


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
_is_listening = False


def watch(run: Endable) -> None:
    """End this run with the process, unless it has ended before."""
    _install()
    _uncaught.clear()  # whatever it was, the program went on
    _open.append(run)


def unwatch(run: Endable) -> None:
    """Forget a run that has ended."""
    with contextlib.suppress(ValueError):
        _open.remove(run)


def finish_before_exit(work: Joinable) -> None:
    """Wait for background work before the process exits, for 2 s at most over all of it."""
    _install()
    _background[:] = [*_background[-15:], work]


def hand_over_sigterm() -> Callable[[], None]:
    """Leave SIGTERM to a framework that handles it in its own way, as one does that saves before it ends.

    The handler of open runs would end the process at once. Where it is not installed, nothing happens.

    Returns:
        What takes SIGTERM back. It does so only where the framework has left the signal as it found it.
    """
    is_ours = signal.getsignal(signal.SIGTERM) is _on_sigterm and _set_handler(signal.SIG_DFL)

    def take_back() -> None:
        nonlocal is_ours
        if is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            _set_handler(_on_sigterm)
        is_ours = False

    return take_back


def _set_handler(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> bool:
    if threading.current_thread() is not threading.main_thread():  # only it may
        return False
    signal.signal(signal.SIGTERM, handler)
    return True


def _install() -> None:
    global _installed
    _listen_for_sigterm()
    if _installed:
        return
    _installed = True
    atexit.register(_at_exit)
    previous_hook, previous_exit = sys.excepthook, sys.exit

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _uncaught.append(error)
        previous_hook(kind, error, trace)

    @functools.wraps(previous_exit)
    def leave(code: object = None, /) -> NoReturn:
        if code not in (None, 0) and threading.current_thread() is threading.main_thread():
            _uncaught.append(SystemExit(code).with_traceback(_calls_above()))
        previous_exit(code)  # type: ignore[arg-type]

    sys.excepthook = hook
    sys.exit = leave


def _calls_above() -> TracebackType | None:
    """Return the calls that led to the caller's caller, as a traceback."""
    trace: TracebackType | None = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        trace, frame = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno), frame.f_back
    return trace


def _listen_for_sigterm() -> None:
    global _is_listening
    if not _is_listening and threading.current_thread() is threading.main_thread():  # only it may set a handler
        _is_listening = True
        with contextlib.suppress(ValueError, OSError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _on_sigterm)


def _at_exit() -> None:
    _end_all(_cause())
    limit = time.monotonic() + _SNAPSHOT_LIMIT_S
    for work in _background:
        work.join(max(0.0, limit - time.monotonic()))


def _cause() -> BaseException | None:
    """Return the exception by which the process ends, if it does."""
    if hasattr(sys, "ps1"):  # at a prompt an exception ends a command, not the process
        return None
    if _uncaught:
        return _uncaught[-1]
    # a hook that came after ours, and does not call it; Python notes the exception before it calls either
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


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
