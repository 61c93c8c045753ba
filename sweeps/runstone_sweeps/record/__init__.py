"""What happened in a sweep: the journal of its events, and what they come down to."""

from __future__ import annotations

from runstone_sweeps.record.sweep import SweepRecord
from runstone_sweeps.record.trials import QueuedPoint, RunRecord, TrialRecord, TrialState

__all__ = [
    "QueuedPoint",
    "RunRecord",
    "SweepRecord",
    "TrialRecord",
    "TrialState",
]
