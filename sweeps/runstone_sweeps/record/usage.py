"""What trials use of machines, as values: GPU time, CPU time, energy, memory, and what that costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

# The series in which a run records its energy: of a GPU by its counter or from its power, of the CPUs, of the memory.
# A meter goes on where an earlier attempt of the run left it.
_METERED = re.compile(r"system/(?:rank\.\d+/)?(?:gpu\.\d+/energy(?:_estimate)?_j|(?P<host>(?:cpu|memory))/energy_j)")
_JOULES_IN_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Usage:
    """What an attempt, a trial or a sweep has used.

    Attributes:
        gpu_s: GPUs that were assigned, times seconds.
        cpu_s: Seconds of CPU time of all processes, as far as it is known.
        wall_s: Seconds for which processes of trials lived, each trial counted by itself.
        energy_j: Joules, as the runs recorded them.
        max_rss_bytes: The largest resident memory of one attempt.
    """

    gpu_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    energy_j: float = 0.0
    max_rss_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return what both used."""
        return Usage(
            self.gpu_s + other.gpu_s,
            self.cpu_s + other.cpu_s,
            self.wall_s + other.wall_s,
            self.energy_j + other.energy_j,
            max(self.max_rss_bytes, other.max_rss_bytes),
        )

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.gpu_s / 3600

    @property
    def kwh(self) -> float:
        """The energy in kilowatt hours."""
        return self.energy_j / _JOULES_IN_KWH

    def cost(self, prices: Mapping[str, float]) -> float:
        """Return what it costs.

        Args:
            prices: Price of `gpu_hour`, `cpu_hour`, `hour` (of a trial) and `kwh`; what is missing costs nothing.
        """
        return (
            self.gpu_hours * prices.get("gpu_hour", 0.0)
            + self.cpu_s / 3600 * prices.get("cpu_hour", 0.0)
            + self.wall_s / 3600 * prices.get("hour", 0.0)
            + self.kwh * prices.get("kwh", 0.0)
        )

    def to_json(self) -> dict[str, float]:
        """Return it as an event keeps it: without what is zero, to the microsecond."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: round(value, 6) for name, value in values.items() if value}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Return what an event keeps; a field of a later version is ignored."""
        return cls(**{name: told[name] for name in cls.__slots__ if name in told})


def is_energy(name: str) -> bool:
    """Tell whether a metric is a meter of energy, in joules."""
    return name.endswith("_j") and _METERED.fullmatch(name) is not None


def energy_of(meters: Iterable[tuple[str, float]], *, gpu_share: float, host_share: float) -> float:
    """Return the joules that a run may be charged with.

    Meters tell of whole GPUs and whole machines, whoever uses them.

    Args:
        meters: Name and last value of each metric that `is_energy`.
        gpu_share: The part of its GPUs that the trial has.
        host_share: The part of its machine.
    """
    joules = 0.0
    for name, value in meters:
        found = _METERED.fullmatch(name)
        if found is not None:
            joules += value * (host_share if found["host"] else gpu_share)
    return joules
