"""Keeps `fork` from copying a process in which the background thread is half-way through an import.

The child would inherit the module's import lock with no thread left to open it, and hang as soon as it
imports the same module; likewise the lock of the dynamic linker. A fork waits for such an import: milliseconds, and
never more than five seconds.
"""

from __future__ import annotations

import os
import threading

_WAIT_S = 5.0


class ForkGuard:
    """A lock that every fork of this process takes for a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_held_by_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child
            )

    def __enter__(self) -> None:
        """Hold forks off."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Let forks go on."""
        self._lock.release()

    def _before(self) -> None:
        self._is_held_by_fork = self._lock.acquire(timeout=_WAIT_S)

    def _after_in_parent(self) -> None:
        if self._is_held_by_fork:
            self._lock.release()

    def _after_in_child(self) -> None:
        self._lock = threading.Lock()


# One for the process, as forks are.
importing = ForkGuard()
