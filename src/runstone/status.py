"""How a run stands. Apart from the other values because a process that only records needs it, and no more."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a run stands, named by the cause of its end.

    `crashed` is never written by a run: readers find it when a writer is gone without a word.
    """

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    PRUNED = "pruned"
    CRASHED = "crashed"

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is to come."""
        return self is not Status.RUNNING
