"""Energy of the CPU packages and their memory, where the kernel lets this user read it.

Source: Linux kernel documentation, "Power Capping Framework". Since 2020 the files are for root only by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runstone.capture.facts import absent
from runstone.capture.metrics.readings import Rates, Readings

_SERIES = {"package": "cpu", "dram": "memory"}


class Rapl:
    """Joules of the whole machine since the first pass, on top of what earlier lives of the run counted."""

    name = "rapl"

    def __init__(self, root: Path = Path("/"), joules: Mapping[str, float] | None = None) -> None:
        self._folder = root / "sys/class/powercap"
        self._zones: list[tuple[str, Path, int]] | None = None
        self._last_uj: dict[Path, int] = {}
        self._joules = {series: (joules or {}).get(f"{series}/energy_j", 0.0) for series in _SERIES.values()}
        self._rates = Rates()

    def read(self, readings: Readings) -> None:
        """Put joules and watts of what can be read."""
        if self._zones is None:
            self._zones = self._find()
        seen = set()
        for series, zone, range_uj in self._zones:
            with readings.attempt(f"{series}/energy_j"):
                now_uj = int((zone / "energy_uj").read_text())
                before_uj = self._last_uj.get(zone, now_uj)
                self._last_uj[zone] = now_uj
                # It starts again from 0 where its range ends, after an hour or so under load.
                grown_uj = now_uj - before_uj + (range_uj if now_uj < before_uj else 0)
                self._joules[series] += max(0, grown_uj) / 1e6
                seen.add(series)
        for series in seen:
            readings.put(f"{series}/energy_j", self._joules[series])
            readings.put(f"{series}/power_w", self._rates.per_s(series, self._joules[series], readings.at_s))

    def close(self) -> None:
        """Nothing is held open."""

    def _find(self) -> list[tuple[str, Path, int]]:
        found = []
        # `psys` is the whole board and `core` a part of its package: counting them would count twice.
        for zone in sorted(self._folder.glob("intel-rapl:*")):
            kind = (zone / "name").read_text().strip().partition("-")[0]
            if kind in _SERIES:
                found.append((_SERIES[kind], zone, int((zone / "max_energy_range_uj").read_text())))
        if not found:
            raise absent("this machine does not meter the energy of its CPUs, or hides it")
        return found
