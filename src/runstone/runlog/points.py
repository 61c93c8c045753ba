"""The metric log of one writer: what a run needs of it, and which of two ways to write the same bytes it takes.

`MappedPoints` stores each point into a reserved, mapped segment; `AppendedPoints` makes one `write(2)` of each call,
for file systems where mapped pages are not safe; `ClosedPoints` stands in when the run is finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from runstone.errors import RunFinished
from runstone.runlog.appended import AppendedPoints
from runstone.runlog.filesystem import Backend
from runstone.runlog.handle import NO_SEGMENT, HasSlots
from runstone.runlog.mapped import MappedPoints
from runstone.runlog.spill import Spill


class Points(HasSlots, Protocol):
    """What a run needs of its metric log."""

    dropped: int

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep one value of each metric at `step`."""

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Keep one value."""

    def log_series(self, name: str, steps: Any, values: Any) -> int | None:
        """Keep a value for each of many steps; return the last step, `None` where there are none."""

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Keep a JSON object."""

    def waiting(self) -> int:
        """Return how many values are still on their way from a GPU, or behind such ones."""

    def flush(self, timeout_s: float) -> int:
        """Wait for those, and keep them; return how many did not come in time and are lost."""

    def tend(self) -> None:
        """Do the work that must not be done on the training thread. Called by the keeper."""

    def sync(self) -> None:
        """Bring what was logged to the disk, so that a power cut loses no more than what came later."""

    def close(self) -> None:
        """Let go of the files."""

    def abandon(self) -> None:
        """Let go of inherited files in a forked child, without a lock."""


class ClosedPoints:
    """Stands where the metric log of a finished run was: says so, and counts what came too late."""

    def __init__(self, dropped: int) -> None:
        self.dropped = dropped
        self.current = NO_SEGMENT
        self.clock = time.time
        self.float_ids: dict[str, int] = {}

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Refuse the points.

        Raises:
            RunFinished: always.
        """
        self._refuse(len(metrics))

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Refuse the point; raises as `log` does."""
        self._refuse(1)

    def log_series(self, name: str, steps: Any, values: Any) -> int | None:
        """Refuse the points; raises as `log` does."""
        self._refuse(len(steps))

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Refuse the record; raises as `log` does."""
        self._refuse(1)

    def _refuse(self, count: int) -> NoReturn:
        self.dropped += count
        raise RunFinished("the run is finished: nothing more can be logged; call reopen(), or start_run(run_id=…)")

    def waiting(self) -> int:
        """Return that nothing is on its way."""
        return 0

    def flush(self, timeout_s: float) -> int:
        """Nothing to do."""
        return 0

    def tend(self) -> None:
        """Nothing to do."""

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def abandon(self) -> None:
        """Nothing to do."""


def open_points(
    backend: Backend,
    directory: int,
    writer: bytes,
    *,
    clock: Callable[[], float] = time.time,
    wake: Callable[[], None] = lambda: None,
    before_first: Callable[[], None] = lambda: None,
    spill: Spill | None = None,
) -> MappedPoints | AppendedPoints:
    """Return the metric log of a new writer; no file is made before the first point.

    Args:
        backend: How to write.
        directory: Open descriptor of the run's folder; a folder that is renamed meanwhile goes on working.
        writer: 16 random bytes that name the files.
        clock: Seconds since the epoch.
        wake: Called when a segment is full, so that the keeper prepares the next one.
        before_first: Called once before the first file is made.
        spill: Takes what the run's folder refuses, and has the writer's lock; default: one that takes nothing.
    """
    kind = MappedPoints if backend == "mmap" else AppendedPoints
    return kind(directory, writer, clock=clock, wake=wake, before_first=before_first, spill=spill)
