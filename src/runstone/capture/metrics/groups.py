"""What the control group of this process uses of its limits, and how long it waited for CPU, memory and disks.

Versions 1 and 2. Where no group limits this process, the machine is the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runstone.capture.cgroup import Hierarchy, cpus_of, find_hierarchies, parse_amount, parse_quota
from runstone.capture.context import Context
from runstone.capture.facts import Missing
from runstone.capture.metrics.readings import Rates, Readings

_PRESSURES = (("cpu", "some"), ("memory", "some"), ("memory", "full"), ("io", "some"), ("io", "full"))


class Groups:
    """CPU and memory in percent of what this process may use, throttling, kills for want of memory, and pressure.

    Args:
        context: Where `/proc` and `/sys` are.
        cores: CPUs of the machine, for the case that no group limits them.
    """

    name = "cgroup"

    def __init__(self, context: Context, cores: int) -> None:
        self._context = context
        self._cores = cores
        self._rates = Rates()
        self._hierarchies: dict[str, Hierarchy] = {}
        self._cpu: tuple[Path, float] | None = None
        self._memory: tuple[Path, float] | None = None
        self._kills_before: int | None = None

    def read(self, readings: Readings) -> None:
        """Put what the group uses. Limits are looked for anew each minute: they may be changed."""
        if readings.is_slow:
            with readings.attempt("cgroup"):
                self._find_limits()
        with readings.attempt("cpu/percent"):
            self._read_cpu(readings)
        with readings.attempt("memory/percent"):
            self._read_memory(readings)
        with readings.attempt("cgroup/cpu_throttled_percent"):
            self._read_throttling(readings)
        with readings.attempt("cgroup/oom_kills"):
            self._read_kills(readings)
        self._read_pressure(readings)

    def close(self) -> None:
        """Nothing is held open."""

    def _find_limits(self) -> None:
        self._cpu = self._memory = None
        self._hierarchies = find_hierarchies(self._context)
        cpu, memory = self._of("cpu"), self._of("memory")
        if cpu is not None:
            self._cpu = _tightest(cpu, _quota)
        cpuset = self._of("cpuset")
        if cpu is not None and cpuset is not None:
            allowed = _cores_in(cpuset)
            if allowed is not None and allowed < min(self._cores, self._cpu[1] if self._cpu else self._cores):
                self._cpu = (cpu.folders[0], float(allowed))
        if memory is not None:
            self._memory = _tightest(memory, _memory_limit)

    def _of(self, controller: str) -> Hierarchy | None:
        return self._hierarchies.get(controller) or self._hierarchies.get("")

    # --- in percent of the limit -----------------------------------------------------------------------------------

    def _read_cpu(self, readings: Readings) -> None:
        if self._cpu is None or self._cpu[1] >= self._cores:
            readings.put("cpu/percent", readings.values.get("cpu/machine_percent"))
            return
        folder, cores = self._cpu
        used_s = self._used_s(folder)
        rate = self._rates.per_s(f"cpu {folder}", used_s, readings.at_s)
        if rate is not None:
            readings.put("cpu/percent", 100 * rate / cores)

    def _used_s(self, folder: Path) -> float:
        """Return the CPU seconds that a group has used, in either version."""
        try:
            return _fields(folder / "cpu.stat")["usage_usec"] / 1e6
        except (OSError, KeyError):
            pass
        counted = self._hierarchies.get("cpuacct")
        cpu = self._of("cpu")
        if counted is None or cpu is None:
            raise FileNotFoundError(2, "no CPU time of this control group is counted", str(folder))
        level = cpu.folders.index(folder)
        place = counted.folders[level if len(counted.folders) == len(cpu.folders) else 0]
        return int((place / "cpuacct.usage").read_text()) / 1e9

    def _read_memory(self, readings: Readings) -> None:
        total_bytes = _total_bytes(readings)
        # A limit beyond the memory of the machine is none.
        if self._memory is None or (total_bytes is not None and self._memory[1] >= total_bytes):
            readings.put("memory/percent", readings.values.get("memory/machine_percent"))
            readings.put("memory/used_bytes", readings.values.get("memory/machine_used_bytes"))
            return
        folder, limit_bytes = self._memory
        used_bytes = _working_set(folder)
        readings.put("memory/used_bytes", used_bytes)
        readings.put("memory/limit_bytes", int(limit_bytes))
        readings.put("memory/percent", 100 * used_bytes / limit_bytes)

    # --- what the limits did ---------------------------------------------------------------------------------------

    def _read_throttling(self, readings: Readings) -> None:
        if self._cpu is None:
            return
        fields = _fields(self._cpu[0] / "cpu.stat")
        if "nr_periods" not in fields:
            return
        periods = self._rates.per_s("periods", fields["nr_periods"], readings.at_s)
        throttled = self._rates.per_s("throttled", fields["nr_throttled"], readings.at_s)
        if periods is not None and throttled is not None:
            readings.put("cgroup/cpu_throttled_percent", 100 * throttled / periods if periods else 0.0, most=100.0)

    def _read_kills(self, readings: Readings) -> None:
        memory = self._of("memory")
        if memory is None:
            return
        folder = self._memory[0] if self._memory is not None else memory.folders[0]
        file = folder / ("memory.events" if memory.version == 2 else "memory.oom_control")
        if not file.exists():  # the root group counts none
            return
        kills = _fields(file).get("oom_kill")
        if kills is None:
            return
        if self._kills_before is None or kills < self._kills_before:
            self._kills_before = kills
        readings.put("cgroup/oom_kills", kills - self._kills_before)

    def _read_pressure(self, readings: Readings) -> None:
        group = self._hierarchies.get("")
        own = group.folders[0] if group is not None else None
        machine = self._context.root / "proc/pressure"
        stalled: dict[str, dict[str, int]] = {}
        for resource in ("cpu", "memory", "io"):
            with readings.attempt(f"pressure/{resource}"):
                file = own / f"{resource}.pressure" if own is not None else machine / resource
                stalled[resource] = _stalled_us(file if file.exists() else machine / resource)
        for resource, kind in _PRESSURES:
            total_us = stalled.get(resource, {}).get(kind)
            if total_us is not None:
                name = f"pressure/{resource}_{kind}_percent"
                rate = self._rates.per_s(name, total_us, readings.at_s)
                readings.put(name, rate / 1e4 if rate is not None else None)


def _total_bytes(readings: Readings) -> int | None:
    total = readings.values.get("memory/machine_total_bytes")
    return int(total) if total is not None else None


def _tightest(hierarchy: Hierarchy, limit_of: Callable[[Path, int], float | None]) -> tuple[Path, float] | None:
    """Return the folder with the smallest limit on the way up, and the limit; `None` where none is set."""
    found: tuple[Path, float] | None = None
    for folder in hierarchy.folders:
        try:
            limit = limit_of(folder, hierarchy.version)
        except (OSError, ValueError):
            continue
        if limit is not None and limit > 0 and (found is None or limit < found[1]):
            found = (folder, limit)
    return found


def _quota(folder: Path, version: int) -> float | None:
    if version == 2:
        return parse_quota((folder / "cpu.max").read_text().strip())
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    period = int((folder / "cpu.cfs_period_us").read_text())
    return quota / period if quota > 0 and period > 0 else None


def _memory_limit(folder: Path, version: int) -> float | None:
    return parse_amount((folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).read_text().strip())


def _cores_in(cpuset: Hierarchy) -> int | None:
    try:
        text = cpus_of(cpuset)
    except Missing:
        return None
    spans = (span.partition("-") for span in text.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)


def _working_set(folder: Path) -> int:
    """Return the memory that cannot be taken back at once: all but the part of the page cache that rests."""
    try:
        used, resting = int((folder / "memory.current").read_text()), "inactive_file"
    except FileNotFoundError:
        used, resting = int((folder / "memory.usage_in_bytes").read_text()), "total_inactive_file"
    return max(0, used - _fields(folder / "memory.stat").get(resting, 0))


def _fields(file: Path) -> dict[str, int]:
    """Return a file of lines `name number`."""
    pairs = (line.split() for line in file.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _stalled_us(file: Path) -> dict[str, int]:
    """Return the microseconds that some and all tasks have waited in total.

    Source: Linux kernel documentation, "PSI - Pressure Stall Information".
    """
    found = {}
    for line in file.read_text().splitlines():
        words = line.split()
        for word in words[1:]:
            if word.startswith("total="):
                found[words[0]] = int(word[6:])
    return found
