"""The machine through psutil: CPU, memory, disk, network. What a container's limit leaves of it is in `groups`."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from runstone.capture.metrics.readings import Rates, Readings

# Each core has a series on machines of so many; on larger ones the busiest stands for them.
MOST_CORES = 32
_IDLE = ("idle", "iowait")
# Counted in `user` and `nice` as well.
_INSIDE = ("guest", "guest_nice")


class Machine:
    """CPU, memory, disk and network of the whole machine."""

    name = "machine"

    def __init__(self, store: Path) -> None:
        self._store = store
        self._rates = Rates()
        self._cores: list[dict[str, float]] = []

    def read(self, readings: Readings) -> None:
        """Put what psutil says of the machine."""
        for what, part in (
            ("cpu", self._read_cpu),
            ("cpu/load_1m", self._read_load),
            ("memory", self._read_memory),
            ("disk", self._read_disk),
            ("disk/store", self._read_store),
            ("network", self._read_network),
        ):
            with readings.attempt(what):
                part(readings)

    def close(self) -> None:
        """Nothing is held open."""

    def _read_cpu(self, readings: Readings) -> None:
        cores = [times._asdict() for times in psutil.cpu_times(percpu=True)]
        before, self._cores = self._cores, cores
        if len(before) == len(cores):  # a core that went on or off line makes the difference meaningless
            shares = [_shares(old, new) for old, new in zip(before, cores, strict=True)]
            known = [share for share in shares if share is not None]
            if known:
                readings.put("cpu/machine_percent", sum(busy for busy, _ in known) / len(known), most=100.0)
                readings.put("cpu/busiest_core_percent", max(busy for busy, _ in known), most=100.0)
                if "iowait" in cores[0]:
                    readings.put("cpu/iowait_percent", sum(wait for _, wait in known) / len(known), most=100.0)
            if len(cores) <= MOST_CORES:
                for number, share in enumerate(shares):
                    if share is not None:
                        readings.put(f"cpu/core.{number}/percent", share[0], most=100.0)
        switches = psutil.cpu_stats().ctx_switches
        readings.put("cpu/context_switches_per_s", self._rates.per_s("switches", switches, readings.at_s))

    def _read_load(self, readings: Readings) -> None:
        readings.put("cpu/load_1m", os.getloadavg()[0])

    def _read_memory(self, readings: Readings) -> None:
        memory = psutil.virtual_memory()
        readings.put("memory/machine_percent", float(memory.percent), most=100.0)
        readings.put("memory/machine_used_bytes", int(memory.total - memory.available))
        readings.put("memory/machine_total_bytes", int(memory.total))
        swap = psutil.swap_memory()
        if swap.total:
            readings.put("memory/swap_used_bytes", int(swap.used))

    def _read_disk(self, readings: Readings) -> None:
        # Without `nowrap`, which takes a lock that a fork could copy while it is held.
        counters = psutil.disk_io_counters(perdisk=False, nowrap=False)
        if counters is None:
            readings.miss("disk", "absent: no disk is counted")
            return
        readings.put("disk/read_bytes_per_s", self._rates.per_s("read", counters.read_bytes, readings.at_s))
        readings.put("disk/write_bytes_per_s", self._rates.per_s("write", counters.write_bytes, readings.at_s))

    def _read_store(self, readings: Readings) -> None:
        usage = psutil.disk_usage(str(self._store))
        readings.put("disk/store_free_bytes", int(usage.free))
        readings.put("disk/store_percent", float(usage.percent), most=100.0)

    def _read_network(self, readings: Readings) -> None:
        cards = psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [counters for name, counters in cards.items() if not name.startswith("lo")]
        if not outside:
            readings.miss("network", "absent: no interface but the loopback is there")
            return
        sent, received = sum(card.bytes_sent for card in outside), sum(card.bytes_recv for card in outside)
        readings.put("network/sent_bytes_per_s", self._rates.per_s("sent", sent, readings.at_s))
        readings.put("network/received_bytes_per_s", self._rates.per_s("received", received, readings.at_s))


def _shares(before: dict[str, float], now: dict[str, float]) -> tuple[float, float] | None:
    """Return how many percent of the time a core was busy, and idle while something waited for a disk."""
    spent = {kind: max(0.0, now[kind] - before[kind]) for kind in now if kind not in _INSIDE}
    total = sum(spent.values())
    if total <= 0:
        return None
    idle = sum(spent.get(kind, 0.0) for kind in _IDLE)
    return 100 * (total - idle) / total, 100 * spent.get("iowait", 0.0) / total
