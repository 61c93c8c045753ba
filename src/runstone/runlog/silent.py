"""A log that keeps nothing, for runs that are switched off or could not be opened. The same calls, no file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runstone.runlog.filesystem import Backend
from runstone.runlog.handle import NO_SEGMENT
from runstone.runlog.points import Points


class SilentPoints:
    """Counts points and keeps none."""

    def __init__(self) -> None:
        self.dropped = 0
        self.current = NO_SEGMENT
        self.clock = time.time
        self.float_ids: dict[str, int] = {}

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Count the points."""
        self.dropped += len(metrics)

    def log_one(self, name: str, value: Any, step: int) -> None:
        """Count the point."""
        self.dropped += 1

    def log_series(self, name: str, steps: Any, values: Any) -> int | None:
        """Count the points."""
        self.dropped += len(steps)
        return None

    def log_record(self, name: str, record: dict[str, Any], step: int) -> None:
        """Count the record."""
        self.dropped += 1

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


class SilentLog:
    """Stands where a `RunLog` would be."""

    is_silent = True
    backend: Backend = "append"

    def __init__(self, run_id: str) -> None:
        # No such folder can be: whoever reads the run is told that there is none.
        self.path = Path(os.devnull) / run_id
        self.attempt = 1
        self.rank = 0
        self.writer = bytes(16)
        self.control = bytearray(1)
        self.points: Points = SilentPoints()
        self.tell: Callable[[str, str], None] = lambda _kind, _message: None

    def write(self, event: str, **fields: Any) -> None:
        """Keep nothing."""

    def close(self, word: str = "") -> None:
        """Nothing to do."""
