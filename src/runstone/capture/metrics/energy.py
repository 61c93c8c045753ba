"""What a run consumed, from its series: joules, and at a price and an intensity of carbon what they come to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runstone.names import SYSTEM

if TYPE_CHECKING:
    from runstone.runinfo import RunInfo
    from runstone.values import MetricSummary, Series

_METERED = re.compile(
    r"system/(?:rank\.(?P<rank>\d+)/)?(?:gpu\.(?P<gpu>\d+)/energy(?P<estimate>_estimate)?_j|(?P<host>cpu|memory)/energy_j)"
)
_JOULES_IN_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a run over all its attempts, ranks and hosts.

    Attributes:
        gpu_j: Joules of the GPUs that the run saw, of whole GPUs also where others used them; `None` where none was
            metered.
        cpu_j: Joules of the CPU packages and their memory, of whole machines; `None` where they could not be read.
        gpu_source: `"counter"`: the GPUs' own counters. `"power"`: integrated from power readings for at least one
            GPU, which has no counter. `None`: no GPU.
    """

    gpu_j: float | None
    cpu_j: float | None
    gpu_source: Literal["counter", "power"] | None

    @property
    def total_j(self) -> float | None:
        """Joules of all that was metered; `None` where nothing was."""
        known = [joules for joules in (self.gpu_j, self.cpu_j) if joules is not None]
        return sum(known) if known else None

    @property
    def kwh(self) -> float | None:
        """The same in kilowatt hours."""
        return self.total_j / _JOULES_IN_KWH if self.total_j is not None else None

    def cost(self, price_per_kwh: float) -> float | None:
        """Return what it cost, in the currency of the price."""
        return self.kwh * price_per_kwh if self.kwh is not None else None

    def carbon_g(self, g_per_kwh: float) -> float | None:
        """Return grams of CO2 equivalent."""
        return self.kwh * g_per_kwh if self.kwh is not None else None


def energy_of(info: RunInfo) -> Energy:
    """Return what a run consumed, from its first sample to its last.

    A GPU that several ranks report is counted once, as far as their environment snapshots tell which one it is.

    Args:
        info: The run. Points of earlier attempts count, superseded or not: the energy is spent.
    """
    identities = _identities(info) if info.metrics else {}
    return _added_up(info.metrics, lambda name: _total(info.series(name, attempt="all")), identities)


def energy_in(metrics: Mapping[str, MetricSummary]) -> Energy:
    """Return what a run consumed by the summaries of its series alone, for tables of many runs.

    The same as `energy_of`, but for a GPU that was lent to several ranks and reported by each, and for runs of versions
    whose meters began at 0 with each attempt.
    """
    return _added_up(metrics, lambda name: metrics[name].max or 0.0, {})


def _added_up(
    names: Iterable[str], joules_of: Callable[[str], float], identities: Mapping[tuple[int, int], str]
) -> Energy:
    gpus: dict[str, float] = {}
    cpu_j: float | None = None
    is_estimate = False
    for name in names:
        if not (name.endswith("_j") and name.startswith(SYSTEM)):  # most are not, in tables of many runs
            continue
        found = _METERED.fullmatch(name)
        if found is None:
            continue
        joules = joules_of(name)
        if found["host"]:
            cpu_j = (cpu_j or 0.0) + joules
            continue
        rank, index = int(found["rank"] or 0), int(found["gpu"])
        key = identities.get((rank, index), f"rank {rank} gpu {index}")
        gpus[key] = max(gpus.get(key, 0.0), joules)
        is_estimate = is_estimate or found["estimate"] is not None
    if not gpus:
        return Energy(None, cpu_j, None)
    return Energy(sum(gpus.values()), cpu_j, "power" if is_estimate else "counter")


def _total(series: Series) -> float:
    """Add up a meter that only falls where it began at 0 anew: where it could not be told what stood there before."""
    import numpy as np  # only for points: summaries do without

    joules = series.value[np.argsort(series.wall_s, kind="stable")].astype(np.float64)
    joules = joules[np.isfinite(joules)]
    if not len(joules):
        return 0.0
    ends = np.append(np.flatnonzero(np.diff(joules) < 0), len(joules) - 1)
    return float(joules[ends].sum())


def _identities(info: RunInfo) -> dict[tuple[int, int], str]:
    """Return the unique id of each GPU by rank and number, as far as snapshots of the environment tell."""
    found: dict[tuple[int, int], str] = {}
    for file in info.path.glob("environment.*.json"):
        try:
            snapshot = json.loads(file.read_bytes())
            rank = snapshot["rank"]["rank"]
            devices = snapshot["gpu"]["devices"]
            found.update({(rank, device["index"]): device["uuid"] for device in devices if device.get("uuid")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # no GPU there, or not told
    return found
