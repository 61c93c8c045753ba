"""A handle on one metric of a run: the shortest way from a value to its slot.

Its call is a bound method, which CPython enters without leaving its loop; a class with `__call__` costs half as much
again. What is not the common case goes through the run.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from runstone.runlog import format as fmt

_PACK_FLOAT = fmt.FLOAT_SLOT.pack_into

Current = tuple[Any, Callable[[], int], int, int]
"""Memory of a segment, what gives the offset of its next slot, where it ends, its salt."""

NO_SEGMENT: Current = (None, itertools.repeat(0).__next__, 0, 0)
"""One that is always full: whoever meets it takes the way that finds another."""


class HasSlots(Protocol):
    """The metric log of one writer, as far as a handle knows it."""

    current: Current
    clock: Callable[[], float]

    @property
    def float_ids(self) -> Mapping[Any, int]:
        """Ids of the names whose floats may be stored at once."""


class HasPoints(Protocol):
    """Has the metric log of the present writer: another one after a fork, a close, a reopening."""

    @property
    def points(self) -> HasSlots:
        """Return it."""


class HasLog(Protocol):
    """A run, as far as a handle knows it."""

    @property
    def _log(self) -> HasPoints: ...


class Handle:
    """One metric of one run.

    Args:
        run: The run.
        name: Name of the metric, legal.
        last_step: The step before the first one that is counted, `None` where it is to be found out.
        slowly: Takes the handle, a value and a step (or `None`), where the value cannot be stored at once.
    """

    __slots__ = ("_run", "_slowly", "last_step", "name")

    def __init__(
        self, run: HasLog, name: str, last_step: int | None, slowly: Callable[[Handle, Any, int | None], None]
    ) -> None:
        self.name = name
        self.last_step: Any = last_step
        self._run = run
        self._slowly = slowly

    def record(self, value: Any, *, step: int | None = None) -> None:
        """Record one value; see `Run.log`."""
        if step is None:
            if self.last_step is None:
                self._slowly(self, value, step)
                return
            step = int(self.last_step) + 1  # a NumPy integer would wrap around
        if value.__class__ is float:
            points = self._run._log.points
            try:
                # what `MappedPoints.log` does, for one metric
                key = points.float_ids[self.name]
                memory, next_slot, end, salt = points.current
                offset = next_slot()
                if offset < end:
                    clock = points.clock
                    _PACK_FLOAT(memory, offset, step, clock(), value, key, salt)
                    self.last_step = step
                    return
            except (KeyError, struct.error):  # a name that is new, or has to wait in line; a step that is none
                pass
        self._slowly(self, value, step)
