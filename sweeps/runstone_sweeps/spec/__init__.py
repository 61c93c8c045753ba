"""A sweep as a value: what `sweep.yaml` says, checked as a whole, with every mistake named at once."""

from __future__ import annotations

from runstone_sweeps.spec.overrides import apply_overrides, config_from_script, is_script
from runstone_sweeps.spec.quantities import parse_bytes, parse_duration, parse_energy
from runstone_sweeps.spec.read import load_spec, parse_spec
from runstone_sweeps.spec.search import MAX_GRID
from runstone_sweeps.spec.values import BUDGET_KEYS, Goal, Metric, SweepSpec

__all__ = [
    "BUDGET_KEYS",
    "MAX_GRID",
    "Goal",
    "Metric",
    "SweepSpec",
    "apply_overrides",
    "config_from_script",
    "is_script",
    "load_spec",
    "parse_bytes",
    "parse_duration",
    "parse_energy",
    "parse_spec",
]
