"""A sweep as a value: what it searches, by which algorithm, within which limits, and what a trial is called by."""

from __future__ import annotations

from runstone_sweeps.spec.values import BUDGET_KEYS, Goal, Metric, SweepSpec

__all__ = [
    "BUDGET_KEYS",
    "Goal",
    "Metric",
    "SweepSpec",
]
