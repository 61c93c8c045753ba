"""What the units of a GPU did between two passes: tensor cores, SMs, memory, links. Hopper and later.

Source: NVML API Reference, "GPM Functions".
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

# Number of the metric: our name, most that can be true, and what the unit is worth.
_METRICS: Mapping[int, tuple[str, float, float]] = {
    2: ("sm_active_percent", 100.0, 1.0),
    3: ("sm_occupancy_percent", 100.0, 1.0),
    5: ("tensor_active_percent", 100.0, 1.0),
    10: ("dram_active_percent", 100.0, 1.0),
    11: ("fp64_active_percent", 100.0, 1.0),
    12: ("fp32_active_percent", 100.0, 1.0),
    13: ("fp16_active_percent", 100.0, 1.0),
    20: ("pcie_tx_bytes_per_s", math.inf, float(1 << 20)),
    21: ("pcie_rx_bytes_per_s", math.inf, float(1 << 20)),
    60: ("nvlink_rx_bytes_per_s", math.inf, float(1 << 20)),
    61: ("nvlink_tx_bytes_per_s", math.inf, float(1 << 20)),
}
# Rounding of the counters may lift a percentage a little beyond the whole.
_TOLERANCE = 1.01


class Gpm:
    """Two samples of the counters of a GPU or of an instance of one, taken in turn."""

    def __init__(self, module: Any, handle: Any, instance: int | None, samples: tuple[Any, Any]) -> None:
        self._module = module
        self._handle = handle
        self._instance = instance
        self._older, self._newer = samples
        self._is_first = True
        self._known: set[str] | None = None
        self._request = module.c_nvmlGpmMetricsGet_t()
        self._request.version = module.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = len(_METRICS)
        for place, number in enumerate(_METRICS):
            self._request.metrics[place].metricId = number

    @classmethod
    def open(cls, module: Any, handle: Any, *, instance: int | None = None) -> Gpm | None:
        """Return the counters, or `None` where the GPU or this user has none."""
        try:
            if not module.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return None
            return cls(module, handle, instance, (module.nvmlGpmSampleAlloc(), module.nvmlGpmSampleAlloc()))
        except (module.NVMLError, AttributeError):
            return None

    def may_know(self, name: str) -> bool:
        """Return whether a series comes from here, or may when the second sample is there."""
        return self._known is None or name in self._known

    def read(self) -> dict[str, float]:
        """Return what was done since the last call, by series name; nothing at the first."""
        module = self._module
        if self._instance is None:
            module.nvmlGpmSampleGet(self._handle, self._older)
        else:
            module.nvmlGpmMigSampleGet(self._handle, self._instance, self._older)
        self._older, self._newer = self._newer, self._older
        if self._is_first:
            self._is_first = False
            return {}
        self._request.sample1, self._request.sample2 = self._older, self._newer
        module.nvmlGpmMetricsGet(self._request)
        found = {}
        for place, (name, most, unit) in enumerate(_METRICS.values()):
            metric = self._request.metrics[place]
            if metric.nvmlReturn == 0 and 0.0 <= metric.value <= most * _TOLERANCE and metric.value != math.inf:
                found[name] = min(metric.value, most) * unit
        self._known = set(found) | (self._known or set())
        return found

    def close(self) -> None:
        """Give the samples back."""
        for sample in (self._older, self._newer):
            with contextlib.suppress(Exception):
                self._module.nvmlGpmSampleFree(sample)
