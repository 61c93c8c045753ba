"""Sweeps: a search over params, each trial a run. `sweep run config.yaml`, or `Sweep` from Python.

Public names are those in `__all__`; everything else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runstone_sweeps.api import Sweep, SweepResult, run_sweep, to_optuna
    from runstone_sweeps.config import load_spec
    from runstone_sweeps.record import TrialRecord, TrialState
    from runstone_sweeps.report.plotting import plot_sweep
    from runstone_sweeps.spec import SweepSpec

__all__ = [
    "Sweep",
    "SweepResult",
    "SweepSpec",
    "TrialRecord",
    "TrialState",
    "load_spec",
    "plot_sweep",
    "run_sweep",
    "to_optuna",
]

# The process of a trial imports this package for one small module; it must not pay for the coordinator's.
_LAZY = {
    "Sweep": "api",
    "SweepResult": "api",
    "SweepSpec": "spec",
    "TrialRecord": "record",
    "TrialState": "record",
    "load_spec": "config",
    "plot_sweep": "report.plotting",
    "run_sweep": "api",
    "to_optuna": "api",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"runstone_sweeps.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'runstone_sweeps' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
