"""Batches in the order of their steps, though Keras tells of them from several threads. Knows no framework."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
# What is never told of must not hold up the others for long: a batch is passed over when so many after it have ended.
_MOST_HELD = 1000


class RowsInOrder:
    """Hands on the row of each batch when those of all batches before it have been handed on.

    Args:
        log: Takes a step and its row; called by one thread at a time.
    """

    def __init__(self, log: Callable[[int, Row], None]) -> None:
        self._log = log
        self._held: dict[int, tuple[int, Row | None]] = {}
        self._next: int | None = None
        self._lock = threading.Lock()

    def start(self, step: int) -> None:
        """Say which step comes first, after what is still held."""
        with self._lock:
            self._hand_on_all()
            self._next = step

    def put(self, step: int, row: Row | None, *, width: int = 1) -> None:
        """Take the row of a batch that has ended; `None` for one that is not recorded.

        Args:
            step: Of the batch, the last of those that ended with it.
            row: What is to be logged.
            width: How many batches end with it.
        """
        with self._lock:
            if self._next is None or step < self._next:
                self._hand_on(step, row)
                return
            if row is not None or step not in self._held:  # both names of a hook may be called
                self._held[step] = (width, row)
            while self._held:
                first = min(self._held)
                if first - self._held[first][0] >= self._next and len(self._held) <= _MOST_HELD:
                    return
                self._hand_on(first, self._held.pop(first)[1])

    def flush(self) -> None:
        """Hand on what is held: no more batches come before it."""
        with self._lock:
            self._hand_on_all()

    def _hand_on_all(self) -> None:
        for step in sorted(self._held):
            self._hand_on(step, self._held.pop(step)[1])

    def _hand_on(self, step: int, row: Row | None) -> None:
        self._next = max(self._next or 0, step + 1)
        if row:
            self._log(step, row)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
