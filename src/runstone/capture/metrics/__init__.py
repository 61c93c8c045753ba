"""System metrics of a run: what the machine did, as series under `system/`. Reads only; never raises into training.

One background thread a run makes a pass over all sources each interval. docs/system-metrics.md lists every series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstone.capture.metrics.sampler import (
    DEFAULT_INTERVAL_S,
    Sampler,
    interval_of,
    joules_in,
    prefix_of,
    start_sampler,
)

if TYPE_CHECKING:
    from runstone.capture.metrics.energy import Energy, energy_in, energy_of

__all__ = [
    "DEFAULT_INTERVAL_S",
    "Energy",
    "Sampler",
    "energy_in",
    "energy_of",
    "interval_of",
    "joules_in",
    "prefix_of",
    "start_sampler",
]


def __getattr__(name: str) -> Any:
    if name in ("Energy", "energy_in", "energy_of"):  # for readers: a run that records does not load them
        from runstone.capture.metrics import energy

        return getattr(energy, name)
    raise AttributeError(f"module 'runstone.capture.metrics' has no attribute {name!r}")
