"""Numbers the batches of a training loop on one axis that never goes back. Knows no framework and no run."""

from __future__ import annotations

import operator
import threading
from typing import Any


class StepAxis:
    """The step of each train batch, counted from 0 over all epochs and fits.

    Loops number their batches from 0 in each epoch, from 1, or on and on. So the first batch of an epoch is the next
    step, whatever its number, and the others follow from it. An epoch in which no batch is reported counts as one step.
    Safe to call from several threads, in any order of the batches within an epoch.

    Attributes:
        next_step: The step that comes next, which is the number of steps so far.
    """

    def __init__(self) -> None:
        self.next_step = 0
        self._start_of_epoch = 0
        self._offset: int | None = None
        self._last_batch = -1
        self._sees_begins = False
        self._has_ended = False
        self._lock = threading.Lock()

    @property
    def last_step(self) -> int:
        """The step of the last batch, 0 before the first."""
        return max(0, self.next_step - 1)

    def start_epoch(self) -> None:
        """Begin an epoch: the next batch has the next step."""
        with self._lock:
            self._start_of_epoch = self.next_step
            self._offset = None

    def begin_batch(self, batch: Any) -> int:
        """Return the step of the batch that begins now; called in order of the batches."""
        with self._lock:
            self._sees_begins = True
            step = self._place(batch, may_restart=True)
            self._has_ended = False
            return step

    def end_batch(self, batch: Any) -> int:
        """Return the step of the batch that has ended."""
        with self._lock:
            # Ends may come from worker threads in any order; a lower number means a new epoch only in a loop that
            # reports nothing but ends.
            step = self._place(batch, may_restart=not self._sees_begins)
            self._has_ended = True
            return step

    def end_epoch(self) -> int:
        """Return the step of the epoch's last batch, or of the epoch itself where it had no batch."""
        with self._lock:
            if self.next_step == self._start_of_epoch:
                self.next_step += 1
            self._start_of_epoch = self.next_step
            self._offset = None
            return self.next_step - 1

    def _place(self, batch: Any, *, may_restart: bool) -> int:
        number = whole_number(batch)
        if number is None:
            number = self._last_batch + 1
        is_again = number == self._last_batch and self._sees_begins and self._has_ended
        if self._offset is None or (may_restart and (number < self._last_batch or is_again)):
            self._offset = self.next_step - number
        self._last_batch = number
        step = self._offset + number
        self.next_step = max(self.next_step, step + 1)
        return step

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def whole_number(value: Any) -> int | None:
    """Return `value` as an int if it stands for one: an int, a NumPy or tensor integer, 3.0. Else `None`."""
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None
