"""Values that are still on a GPU when they are logged: copied without waiting, written when they have come, in order.

The training thread starts a copy, the keeper looks whether it has come (see `devices`). What is logged to the same
metric meanwhile stands in line behind.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from runstone.runlog.devices import Copy, CopyThatWaits, is_away, start_copy

_MOST_WAITING = 4096
_POLL_S = 0.001
_SETTLE_S = 0.0005


StartCopy = Callable[[object, Any], Copy]


class _Entry:
    """What stands in line: a copy; or `None` and a value that only waits for those before it."""

    __slots__ = ("came_at", "copy", "has_failed", "name", "value", "write")

    def __init__(self, name: Any, copy: Copy | None, value: Any, write: Callable[[Any], None]) -> None:
        self.name, self.copy, self.value, self.write = name, copy, value, write
        self.came_at: float | None = None if copy is not None else -math.inf
        self.has_failed = False


class Pending:
    """The line of one writer.

    Args:
        drop: Called with how many points are lost.
        wake: Called when the line was empty and no longer is.
        lock: The one lock of the writer, re-entrant. It is never held while a device is asked.
    """

    def __init__(
        self, drop: Callable[[int], None], wake: Callable[[], None], lock: AbstractContextManager[Any]
    ) -> None:
        self.start_copy: StartCopy = start_copy
        """How a copy is started, from name and tensor."""
        self._drop = drop
        self._wake = wake
        self._line: deque[_Entry] = deque()
        self.waiting: dict[Any, int] = {}
        """How many values of a metric stand in line, for each that ever had one on a GPU."""
        self.host_types: set[type] = {float, int, bool, str}
        """Types, no mappings, whose values are never on a GPU, as far as they have been met."""
        self._lock = lock
        self._looking = threading.Lock()
        self._is_busy = False
        self._lost = 0

    def __len__(self) -> int:
        """Return how many values stand in line."""
        return len(self._line)

    def is_on_gpu(self, value: Any) -> bool:
        """Return whether a value must not be asked for its number now: the training would wait for a device."""
        try:
            found = is_away(value)
        except Exception:  # foreign code may raise anything
            return False
        if found is None and not isinstance(value, Mapping):
            self.host_types.add(type(value))
        return found is True

    def add(self, name: Any, tensor: Any, write: Callable[[Any], None]) -> None:
        """Start the copy of a tensor's value, and hand the value to `write` later, in another thread.

        Raises:
            InvalidValue: it is not one real number, or cannot be copied.
        """
        copy = self.start_copy(name, tensor)
        with self._lock:
            self.waiting[name] = self.waiting.get(name, 0) + 1
            self._line.append(_Entry(name, copy, None, write))
            count = len(self._line)
        if count == 1:
            self._wake()
        elif count > _MOST_WAITING:  # the keeper is behind, or there is none
            self._drain(may_wait=False)

    def put_behind(self, name: Any, value: Any, write: Callable[[Any], None]) -> bool:
        """Put a value in line behind those of its metric that wait; return `False` where none does."""
        with self._lock:
            if not self.waiting.get(name):
                return False
            self.waiting[name] += 1
            self._line.append(_Entry(name, None, value, write))
            return True

    def drain(self) -> None:
        """Write what has come since an earlier look, up to the first value that has not. May wait for a device."""
        self._drain(may_wait=True)

    def _drain(self, *, may_wait: bool) -> None:
        self._look(list(itertools.islice(self._line, _MOST_WAITING)), may_wait=may_wait)
        while self._take(is_last_call=False):
            pass

    def _look(self, entries: list[_Entry], *, may_wait: bool = True, is_last_call: bool = False) -> None:
        """Note which values have come, up to the first that has not, or may not be asked; in the last call of all."""
        if not self._looking.acquire(blocking=False):  # another thread does
            return
        try:
            now = time.monotonic()
            for entry in entries:
                if entry.came_at is not None or entry.copy is None:
                    continue
                if not may_wait and isinstance(entry.copy, CopyThatWaits):
                    return
                try:
                    is_here = entry.copy.is_done()
                except Exception:  # the device is in trouble: this value will not come
                    is_here = entry.has_failed = True
                if is_here:
                    entry.came_at = now
                elif not is_last_call:
                    return
        finally:
            self._looking.release()

    def flush(self, timeout_s: float) -> int:
        """Write everything; return how many values never came, or not in time, and are lost.

        Args:
            timeout_s: How long to wait for the GPU.
        """
        with self._lock:
            if self._is_busy:  # this is a signal handler, in the middle of a write of this thread
                return 0
        end = time.monotonic() + timeout_s
        self.drain()
        while self._line and time.monotonic() < end:
            time.sleep(_POLL_S)
            self.drain()
        if self._line:
            self._look(list(self._line), is_last_call=True)  # of the others' metrics, behind one that is stuck
            time.sleep(2 * _SETTLE_S)
        while self._take(is_last_call=True):
            pass
        lost, self._lost = self._lost, 0
        return lost

    def _take(self, *, is_last_call: bool) -> bool:
        """Write the first in line, or give it up; return whether there was one whose turn it is."""
        with self._lock:
            # A signal handler that logs may come back to here; it must not overtake the write that it interrupts.
            if self._is_busy or not self._line:
                return False
            self._is_busy = True
            try:
                return self._write_first(is_last_call)
            finally:
                self._is_busy = False

    def _write_first(self, is_last_call: bool) -> bool:
        entry = self._line[0]
        # Where buses order writes loosely, the value may come a moment after what tells that it has come.
        is_here = entry.came_at is not None and time.monotonic() - entry.came_at >= _SETTLE_S
        if not is_here and not is_last_call:
            return False
        self._line.popleft()
        try:
            if is_here and not entry.has_failed:
                entry.write(entry.value if entry.copy is None else entry.copy.value())
                return True
        except OSError:  # counted where it was raised
            return True
        except Exception:  # foreign code may raise anything
            entry.has_failed = True
        finally:
            self.waiting[entry.name] -= 1
        self._lost += 1
        self._drop(1)
        return True
