"""NVIDIA GPUs through NVML: all that this process can see, in one pass.

Each fact is a call of its own. What a GPU does not know is asked once and never again; what fails is a gap; a GPU that
was lost is looked for again, less and less often, up to every five minutes.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from runstone.capture.context import Context
from runstone.capture.facts import Missing, explain
from runstone.capture.gpu import visible_devices
from runstone.capture.metrics.gpm import Gpm
from runstone.capture.metrics.meters import MOST_WATTS, Energy, HeldBack
from runstone.capture.metrics.place import Place
from runstone.capture.metrics.readings import Rates, Readings
from runstone.capture.nvml import GARBAGE, as_text, load_pynvml, reason

# NVML's codes for: not supported, no permission, function not found, this version of an argument not known.
_NEVER = frozenset({2, 3, 4, 13, 25})
# Not initialized, driver not loaded, GPU lost, reset required, driver replaced while it ran.
_LOST = frozenset({1, 9, 15, 16, 18})
_TIMEOUT = 10
_FIRST_RETRY_S = 10.0
_LONGEST_RETRY_S = 300.0
_MOST_MHZ = 20_000
_MOST_EVENTS = 64
# Field ids and the scope that sums over all links.
_MEMORY_TEMPERATURE = 82
_NVLINK_TX_KIB, _NVLINK_RX_KIB = 138, 139
# Nanoseconds for which clocks were held back, by reason. Older drivers tell most of them by calls of their own only.
_HELD_BACK_FIELDS = {
    74: "power",
    75: "thermal",
    76: "sync_boost",
    77: "board_limit",
    78: "low_utilization",
    79: "reliability",
    270: "hw_thermal",
    271: "power_brake",
}
_ALL_LINKS = 0xFFFFFFFF
_XID = 0x8
_MIGS_AT_MOST = 16
# Bits of the reasons for which a GPU's clocks are below what was asked for.
_THROTTLES = {
    "power": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}


# Numbers of the policies for which the driver counts how long they held the clocks back.
_POLICIES = {
    "power": 0,
    "thermal": 1,
    "sync_boost": 2,
    "board_limit": 3,
    "low_utilization": 4,
    "reliability": 5,
}


class _GpuLost(Exception):
    """This GPU, or the whole driver, does not answer any more."""


class _Gpu:
    """One GPU, or what is left of it while it is lost."""

    def __init__(self, module: Any, handle: Any, name: str, meters: tuple[Energy, HeldBack], rates: Rates) -> None:
        self.handle = handle
        self.name = name
        self.is_lost = False
        self._module = module
        self._energy_meter, self._held_back = meters
        self._rates = rates
        self._has_counter = True
        self._told_by_fields: set[str] = set()
        self._has_memory_v2 = hasattr(module, "nvmlMemory_v2")
        self._watts: float | None = None
        self._limit_w: float | None = None
        self._gpm: Gpm | None = None
        self._instances: dict[int, tuple[Any, Gpm | None]] = {}
        # What is read, by name, and whether once a minute is enough.
        self._probes: dict[str, tuple[Callable[[Readings], None], bool]] = {
            "utilization": (self._utilization, False),
            "memory": (self._memory, False),
            "temperature": (self._temperature, False),
            "power_limit": (self._power_limit, True),
            "power": (self._power, False),
            "energy": (self._energy, False),
            "sm_clock": (self._sm_clock, False),
            "memory_clock": (self._memory_clock, False),
            "throttle": (self._throttle, False),
            "performance_state": (self._performance_state, False),
            "fields": (self._fields, False),
            **{
                f"throttled_ms/{reason}": (partial(self._throttled, reason, policy), False)
                for reason, policy in _POLICIES.items()
            },
            "gpm": (self._activity, False),
            "encoder": (self._encoder, True),
            "decoder": (self._decoder, True),
            "fan": (self._fan, True),
            "ecc": (self._ecc, True),
            "remapped_rows": (self._remapped_rows, True),
            "retired_pages": (self._retired_pages, True),
            "pcie_link": (self._pcie_link, True),
            "pcie": (self._pcie, True),
            "processes": (self._processes, True),
        }

    def prepare(self, instances: Mapping[int, Any], *, is_divided: bool) -> None:
        """Open the activity counters, of the GPU or of each instance of it."""
        if is_divided:
            for index, instance in instances.items():
                self._instances[index] = (instance, self._open_gpm_of(instance))
            self._probes["instances"] = (self._read_instances, False)
        else:
            self._gpm = Gpm.open(self._module, self.handle)
        if self._gpm is None:
            del self._probes["gpm"]

    def _open_gpm_of(self, instance: Any) -> Gpm | None:
        try:
            number = self._module.nvmlDeviceGetGpuInstanceId(instance)
        except (self._module.NVMLError, AttributeError):
            return None
        return Gpm.open(self._module, self.handle, instance=number)

    def close(self) -> None:
        """Give back what the activity counters hold."""
        for gpm in (self._gpm, *(gpm for _, gpm in self._instances.values())):
            if gpm is not None:
                gpm.close()
        self._gpm, self._instances = None, {}

    def read(self, readings: Readings) -> None:
        """Put what this GPU says now.

        Raises:
            _GpuLost: it does not answer any more.
        """
        for what, (probe, is_slow) in tuple(self._probes.items()):
            if is_slow and not readings.is_slow:
                continue
            readings.doing = f"{self.name}/{what}"
            try:
                probe(readings)
            except self._module.NVMLError as error:
                if error.value in _LOST:
                    raise _GpuLost(str(reason(error))) from None
                readings.miss(readings.doing, str(reason(error)))
                if error.value in _NEVER:
                    del self._probes[what]
            except Exception as error:  # a version of nvidia-ml-py that lacks the function, or answers differently
                readings.miss(readings.doing, explain(error))
                del self._probes[what]

    def _put(self, readings: Readings, name: str, value: float | int | None, most: float = float("inf")) -> None:
        if value in GARBAGE:
            readings.miss(f"{self.name}/{name}", f"error: NVML answered {value:#x}, which stands for no value")
            return
        readings.put(f"{self.name}/{name}", value, most=most)

    # --- each pass -------------------------------------------------------------------------------------------------

    def _utilization(self, readings: Readings) -> None:
        rates = self._module.nvmlDeviceGetUtilizationRates(self.handle)
        self._put(readings, "util_percent", rates.gpu, 100)
        self._put(readings, "memory_util_percent", rates.memory, 100)

    def _memory(self, readings: Readings) -> None:
        self._put_memory(readings, "", self._memory_of(self.handle))

    def _put_memory(self, readings: Readings, part: str, memory: Any) -> None:
        if memory.total in GARBAGE or memory.total == 0 or memory.used > memory.total:
            readings.miss(
                f"{self.name}/{part}memory_used_bytes", f"error: {memory.used} of {memory.total} cannot be true"
            )
            return
        self._put(readings, f"{part}memory_used_bytes", memory.used)
        self._put(readings, f"{part}memory_percent", 100 * memory.used / memory.total)
        reserved = getattr(memory, "reserved", None)
        if reserved is not None and not part:
            self._put(readings, "memory_reserved_bytes", reserved, memory.total)

    def _memory_of(self, handle: Any) -> Any:
        if self._has_memory_v2:
            try:
                return self._module.nvmlDeviceGetMemoryInfo(handle, version=self._module.nvmlMemory_v2)
            except self._module.NVMLError as error:
                if error.value not in _NEVER:
                    raise
                self._has_memory_v2 = False
        return self._module.nvmlDeviceGetMemoryInfo(handle)

    def _temperature(self, readings: Readings) -> None:
        module = self._module
        try:
            celsius = module.nvmlDeviceGetTemperatureV(self.handle, 0)
        except AttributeError:
            celsius = module.nvmlDeviceGetTemperature(self.handle, 0)
        except module.NVMLError as error:
            if error.value not in _NEVER:
                raise
            celsius = module.nvmlDeviceGetTemperature(self.handle, 0)
        self._put(readings, "temperature_c", celsius, 200)

    def _power(self, readings: Readings) -> None:
        self._watts = None
        milliwatts = self._module.nvmlDeviceGetPowerUsage(self.handle)
        if milliwatts not in GARBAGE and milliwatts / 1000 <= MOST_WATTS:
            self._watts = milliwatts / 1000
            self._put(readings, "power_w", self._watts)
            if self._limit_w:
                self._put(readings, "power_percent", 100 * self._watts / self._limit_w)
        else:
            readings.miss(f"{self.name}/power_w", f"error: NVML answered {milliwatts:#x}, which stands for no value")

    def _energy(self, readings: Readings) -> None:
        if self._has_counter:
            try:
                counter_mj = self._module.nvmlDeviceGetTotalEnergyConsumption(self.handle)
            except (self._module.NVMLError, AttributeError) as error:  # before Volta there was none
                if getattr(error, "value", 13) not in _NEVER:
                    raise
                self._has_counter = False
            else:
                if counter_mj not in GARBAGE:
                    self._put(readings, "energy_j", self._energy_meter.count(counter_mj, readings.at_s))
                return
        self._put(readings, "energy_estimate_j", self._energy_meter.integrate(self._watts, readings.at_s))

    def _sm_clock(self, readings: Readings) -> None:
        self._put(readings, "sm_clock_mhz", self._module.nvmlDeviceGetClockInfo(self.handle, 1), _MOST_MHZ)

    def _memory_clock(self, readings: Readings) -> None:
        self._put(readings, "memory_clock_mhz", self._module.nvmlDeviceGetClockInfo(self.handle, 2), _MOST_MHZ)

    def _throttle(self, readings: Readings) -> None:
        module = self._module
        ask = getattr(module, "nvmlDeviceGetCurrentClocksEventReasons", None)
        try:
            reasons = (ask or module.nvmlDeviceGetCurrentClocksThrottleReasons)(self.handle)
        except module.NVMLError as error:
            if ask is None or error.value != 13:
                raise
            reasons = module.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle)
        if reasons in GARBAGE:
            readings.miss(f"{self.name}/throttle", f"error: NVML answered {reasons:#x}, which stands for no value")
            return
        for name, bit in _THROTTLES.items():
            self._put(readings, f"throttle/{name}", int(bool(reasons & bit)))

    def _throttled(self, reason: str, policy: int, readings: Readings) -> None:
        """How long a policy of the driver has held the clocks back, by its own counter of nanoseconds."""
        if reason in self._told_by_fields:
            return
        status = self._module.nvmlDeviceGetViolationStatus(self.handle, policy)
        self._put_held_back(readings, reason, int(status.violationTime))

    def _put_held_back(self, readings: Readings, reason: str, counter_ns: int) -> None:
        if counter_ns in GARBAGE:
            readings.miss(f"{self.name}/throttled_ms/{reason}", f"error: {counter_ns:#x} stands for no value")
            return
        self._put(readings, f"throttled_ms/{reason}", self._held_back.count(reason, counter_ns, readings.at_s))

    def _performance_state(self, readings: Readings) -> None:
        self._put(readings, "performance_state", self._module.nvmlDeviceGetPerformanceState(self.handle), 15)

    def _fields(self, readings: Readings) -> None:
        """Memory temperature, time held back and why, and the bytes that went over NVLink, in one call.

        Each call takes some 0.7 ms on an H100, be it for one field or for ten.
        """
        wanted: list[Any] = [_MEMORY_TEMPERATURE, *_HELD_BACK_FIELDS]
        if self._gpm is None or not self._gpm.may_know("nvlink_tx_bytes_per_s"):
            wanted += [(_NVLINK_TX_KIB, _ALL_LINKS), (_NVLINK_RX_KIB, _ALL_LINKS)]
        for field in self._module.nvmlDeviceGetFieldValues(self.handle, wanted):
            if field.nvmlReturn != 0:
                continue
            number = _number_of(field)
            if number is None or number in GARBAGE:
                continue
            if field.fieldId == _MEMORY_TEMPERATURE:
                if number > 0:  # GPUs without this sensor answer 0
                    self._put(readings, "memory_temperature_c", int(number), 200)
                continue
            if field.fieldId in _HELD_BACK_FIELDS:
                self._told_by_fields.add(_HELD_BACK_FIELDS[field.fieldId])
                self._put_held_back(readings, _HELD_BACK_FIELDS[field.fieldId], int(number))
                continue
            name = "nvlink_tx_bytes_per_s" if field.fieldId == _NVLINK_TX_KIB else "nvlink_rx_bytes_per_s"
            self._put(readings, name, self._rates.per_s(f"{self.name}/{name}", number * 1024, readings.at_s))

    def _activity(self, readings: Readings) -> None:
        if self._gpm is None:
            return
        try:
            found = self._gpm.read()
        except self._module.NVMLError as error:
            if error.value in _NEVER:  # another may know what was expected from here
                self._gpm.close()
                self._gpm = None
            raise
        for name, value in found.items():
            self._put(readings, name, value)

    def _read_instances(self, readings: Readings) -> None:
        for index, (handle, gpm) in self._instances.items():
            part = f"mig.{index}/"
            try:
                self._put_memory(readings, part, self._memory_of(handle))
                for name, value in gpm.read().items() if gpm is not None else ():
                    self._put(readings, part + name, value)
            except self._module.NVMLError as error:
                if error.value in _LOST:
                    raise
                readings.miss(f"{self.name}/{part}", str(reason(error)))

    # --- once a minute ---------------------------------------------------------------------------------------------

    def _power_limit(self, readings: Readings) -> None:
        milliwatts = self._module.nvmlDeviceGetEnforcedPowerLimit(self.handle)
        if milliwatts not in GARBAGE and 0 < milliwatts / 1000 <= MOST_WATTS:
            self._limit_w = milliwatts / 1000
            self._put(readings, "power_limit_w", self._limit_w)

    def _encoder(self, readings: Readings) -> None:
        self._put(readings, "encoder_percent", self._module.nvmlDeviceGetEncoderUtilization(self.handle)[0], 100)

    def _decoder(self, readings: Readings) -> None:
        self._put(readings, "decoder_percent", self._module.nvmlDeviceGetDecoderUtilization(self.handle)[0], 100)

    def _fan(self, readings: Readings) -> None:
        self._put(readings, "fan_percent", self._module.nvmlDeviceGetFanSpeed(self.handle), 200)

    def _ecc(self, readings: Readings) -> None:
        for kind, name in ((0, "ecc_corrected_errors"), (1, "ecc_uncorrected_errors")):
            self._put(readings, name, self._module.nvmlDeviceGetTotalEccErrors(self.handle, kind, 0))

    def _remapped_rows(self, readings: Readings) -> None:
        corrected, uncorrected, is_pending, has_failed = self._module.nvmlDeviceGetRemappedRows(self.handle)
        self._put(readings, "remapped_rows_corrected", corrected)
        self._put(readings, "remapped_rows_uncorrected", uncorrected)
        self._put(readings, "row_remap_pending", is_pending, 1)
        self._put(readings, "row_remap_failed", has_failed, 1)

    def _retired_pages(self, readings: Readings) -> None:
        pages = sum(len(self._module.nvmlDeviceGetRetiredPages(self.handle, cause)) for cause in (0, 1))
        self._put(readings, "retired_pages", pages)

    def _pcie_link(self, readings: Readings) -> None:
        self._put(readings, "pcie_generation", self._module.nvmlDeviceGetCurrPcieLinkGeneration(self.handle), 20)
        self._put(readings, "pcie_width", self._module.nvmlDeviceGetCurrPcieLinkWidth(self.handle), 64)

    def _pcie(self, readings: Readings) -> None:
        """The driver measures for 20 ms, for which each call waits; not where the activity counters know it."""
        if self._gpm is not None and self._gpm.may_know("pcie_tx_bytes_per_s"):
            return
        for counter, name in ((0, "pcie_tx_bytes_per_s"), (1, "pcie_rx_bytes_per_s")):
            kilobytes = self._module.nvmlDeviceGetPcieThroughput(self.handle, counter)
            self._put(readings, name, kilobytes * 1000.0 if kilobytes not in GARBAGE else None)

    def _processes(self, readings: Readings) -> None:
        found = self._module.nvmlDeviceGetComputeRunningProcesses(self.handle)
        self._put(readings, "processes", len(found))
        own = [process for process in found if process.pid in readings.pids]
        # In a container NVML tells the numbers that processes have outside; then nobody can be recognized.
        if own or all(Path(f"/proc/{process.pid}").exists() for process in found):
            self._put(readings, "other_processes", len(found) - len(own))
        elif found:
            readings.miss(f"{self.name}/own_memory_bytes", "absent: NVML tells other process ids than this container")
        used = [process.usedGpuMemory for process in own]
        if own and None not in used:
            self._put(readings, "own_memory_bytes", sum(used))


class Gpus:
    """All GPUs that this process can see.

    Args:
        context: The environment, for `CUDA_VISIBLE_DEVICES`.
        place: Whether another process of this host reports them.
        note: Told once for each GPU that is lost, and where the driver does not start.
        joules: What earlier lives of the run counted, by series.
    """

    name = "gpu"

    def __init__(
        self, context: Context, place: Place, note: Callable[[str], None], joules: Mapping[str, float] | None = None
    ) -> None:
        self._context = context
        self._place = place
        self._note = note
        self._joules = joules or {}
        self._module: Any = None
        self._is_open = False
        self._is_off = False
        self._gpus: dict[str, _Gpu] = {}
        self._numbers: dict[str, int] = {}
        self._meters: dict[str, tuple[Energy, HeldBack]] = {}
        self._rates = Rates()
        self._events: Any = None
        self._retry_at_s: float | None = None
        self._retry_s = _FIRST_RETRY_S
        self._noted: set[str] = set()

    def read(self, readings: Readings) -> None:
        """Put what the GPUs say."""
        if self._is_off:
            return
        if not self._is_open and self._retry_at_s is None:
            self._open(readings)
        elif self._retry_at_s is not None and readings.at_s >= self._retry_at_s:
            self._close_library()
            self._open(readings)
        for gpu in self._gpus.values():
            if gpu.is_lost:
                continue
            try:
                gpu.read(readings)
            except _GpuLost as lost:
                gpu.is_lost = True
                self._tell(readings, gpu.name, str(lost))
                self._look_again(readings.at_s)
        if self._events is not None:
            with readings.attempt("gpu/xid"):
                self._read_events(readings)

    def close(self) -> None:
        """Shut NVML down, as often as it was opened here; whoever else in this process uses it keeps it."""
        self._is_off = True
        self._close_library()

    def _tell(self, readings: Readings, name: str, why: str) -> None:
        readings.miss(name, why)
        if name not in self._noted:
            self._noted.add(name)
            self._note(f"system metrics: {name} does not answer and is asked again from time to time; {why}")

    def _look_again(self, at_s: float) -> None:
        if self._retry_at_s is None:
            self._retry_at_s = at_s + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)

    # --- opening ---------------------------------------------------------------------------------------------------

    def _open(self, readings: Readings) -> None:
        readings.doing = "gpu/nvmlInit"
        self._retry_at_s = None
        try:
            if self._module is None:
                self._module = load_pynvml(self._context.root)
            self._module.nvmlInit()
        except Missing as missing:  # nothing to be opened on this machine
            self._is_off = True
            readings.miss("gpu", str(missing))
            return
        except Exception as error:
            why = str(reason(error)) if hasattr(error, "value") else explain(error)
            self._tell(readings, "gpu", why)
            self._look_again(readings.at_s)
            return
        self._is_open = True
        try:
            is_whole = self._find(readings)
        except self._module.NVMLError as error:
            self._tell(readings, "gpu", str(reason(error)))
            is_whole = False
        if is_whole:
            self._retry_s = _FIRST_RETRY_S
            self._open_events()
        else:
            self._look_again(readings.at_s)

    def _find(self, readings: Readings) -> bool:
        """Take a handle on each visible GPU; return whether none is missing."""
        module = self._module
        handles: dict[str, Any] = {}
        devices: list[dict[str, Any]] = []
        instances: dict[str, dict[int, Any]] = {}
        is_whole = True
        for index in range(module.nvmlDeviceGetCount()):
            try:
                handle = module.nvmlDeviceGetHandleByIndex(index)
                uuid = as_text(module.nvmlDeviceGetUUID(handle))
            except module.NVMLError as error:
                readings.miss(f"gpu.{index}", str(reason(error)))
                is_whole = False
                continue
            # A lost GPU is not counted: those behind it move up, but keep the number that they had.
            number = self._numbers.setdefault(uuid, index)
            handles[uuid] = handle
            devices.append({"index": index, "number": number, "uuid": uuid, "name": self._name_of(handle)})
            instances[uuid] = self._instances_of(devices[-1], handle)
        chosen = self._chosen(devices)
        known = set(self._gpus)
        for device in devices:
            if device["index"] not in chosen:
                continue
            uuid, wanted = device["uuid"], chosen[device["index"]]
            parts = {index: part for index, part in instances[uuid].items() if wanted is None or index in wanted}
            name = f"gpu.{device['number']}"
            if uuid not in self._meters:
                counted = (self._joules.get(f"{name}/{meter}", 0.0) for meter in ("energy_j", "energy_estimate_j"))
                self._meters[uuid] = (Energy(max(counted)), HeldBack())
            gpu = _Gpu(module, handles[uuid], name, self._meters[uuid], self._rates)
            gpu.prepare(parts, is_divided=bool(device["is_mig_on"]))
            self._gpus[uuid] = gpu
        return is_whole and known <= set(handles)

    def _name_of(self, handle: Any) -> str:
        try:
            return as_text(self._module.nvmlDeviceGetName(handle))
        except self._module.NVMLError:
            return ""

    def _instances_of(self, device: dict[str, Any], handle: Any) -> dict[int, Any]:
        """Take a handle on each instance of a divided GPU, and describe them as `CUDA_VISIBLE_DEVICES` is read."""
        module = self._module
        device["is_mig_on"], device["mig_devices"] = False, []
        found = {}
        with contextlib.suppress(module.NVMLError, AttributeError):
            device["is_mig_on"] = module.nvmlDeviceGetMigMode(handle)[0] == 1
            most = module.nvmlDeviceGetMaxMigDeviceCount(handle) if device["is_mig_on"] else 0
            for index in range(min(most, _MIGS_AT_MOST)):
                with contextlib.suppress(module.NVMLError):
                    found[index] = module.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                    uuid = as_text(module.nvmlDeviceGetUUID(found[index]))
                    device["mig_devices"].append({"index": index, "uuid": uuid})
        return found

    def _chosen(self, devices: list[dict[str, Any]]) -> dict[int, set[int] | None]:
        """Return the GPUs to report, each with those of its instances that count, or `None` for all."""
        everything: dict[int, set[int] | None] = {device["index"]: None for device in devices}
        if self._context.environment.get("CUDA_VISIBLE_DEVICES") is None:
            visible = everything
        else:
            try:
                entries: Any = visible_devices(devices, self._context)
            except Missing:  # it cannot be told which: all rather than the wrong ones
                visible = everything
            else:
                visible = {}
                for entry in entries:
                    parts = visible.setdefault(entry["gpu"], set() if "mig" in entry else None)
                    if parts is not None and "mig" in entry:
                        parts.add(entry["mig"])
        return visible if self._place.reports_gpus(len(visible)) else {}

    def _close_library(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        for gpu in self._gpus.values():
            gpu.is_lost = True
            with contextlib.suppress(Exception):
                gpu.close()
        with contextlib.suppress(Exception):
            if self._events is not None:
                self._module.nvmlEventSetFree(self._events)
        self._events = None
        with contextlib.suppress(Exception):
            self._module.nvmlShutdown()

    # --- events ----------------------------------------------------------------------------------------------------

    def _open_events(self) -> None:
        """Ask to be told of XIDs, the numbered errors of the driver."""
        module = self._module
        with contextlib.suppress(Exception):  # not every driver tells them, nor to every user
            events = module.nvmlEventSetCreate()
            self._events = events
            for gpu in self._gpus.values():
                with contextlib.suppress(module.NVMLError):
                    module.nvmlDeviceRegisterEvents(gpu.handle, _XID, events)

    def _read_events(self, readings: Readings) -> None:
        readings.doing = "gpu/xid"
        names = {_address(gpu.handle): gpu.name for gpu in self._gpus.values()}
        for _ in itertools.repeat(None, _MOST_EVENTS):
            try:
                event = self._module.nvmlEventSetWait(self._events, 0)
            except self._module.NVMLError as error:
                if error.value != _TIMEOUT:
                    self._events = None
                return
            name = names.get(_address(event.device))
            # Of several the first is the cause.
            if name is not None and event.eventType == _XID and f"{name}/xid" not in readings.values:
                readings.put(f"{name}/xid", int(event.eventData))


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _number_of(field: Any) -> float | int | None:
    """Return the number of a field value by the type that it says it has."""
    kinds = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
    kind = kinds.get(field.valueType)
    number: float | int | None = getattr(field.value, kind) if kind is not None else None
    return number
