"""The sweeps of a workspace: their folders, what is asked of them from outside, and how others follow them."""

from __future__ import annotations

from runstone_sweeps.store.sweeps import (
    SweepFolder,
    SweepIsRunning,
    SweepLock,
    SweepNotFound,
    Sweeps,
    budget_fields,
    config_fields,
    new_id,
    prior_event,
    recorded_spec,
    status_of,
)

__all__ = [
    "SweepFolder",
    "SweepIsRunning",
    "SweepLock",
    "SweepNotFound",
    "Sweeps",
    "budget_fields",
    "config_fields",
    "new_id",
    "prior_event",
    "recorded_spec",
    "status_of",
]
