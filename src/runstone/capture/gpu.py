"""NVIDIA GPUs through NVML: driver, devices, how they are connected, and which of them CUDA sees.

Each fact is a call of its own, and a call that fails costs that fact; the reason carries NVML's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from runstone.capture.context import Context
from runstone.capture.facts import Facts, Missing, absent
from runstone.capture.nvml import as_text, checked, load_pynvml, reason
from runstone.values import JSON

_FUNCTION_NOT_FOUND = 13
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
# As nvidia-smi abbreviates them: what lies between two GPUs.
_CONNECTIONS = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2}
_MOST_LINKS = 36


class _Nvml:
    """Calls functions of pynvml by name; what this pynvml or driver lacks is absent, not an error."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def call(self, *names: str, arguments: tuple[Any, ...] = ()) -> Any:
        """Return the answer of the first of these functions that exists; newer names come first.

        Raises:
            Missing: NVML answered with an error, or nobody has such a function.
        """
        missing = absent(f"this version of nvidia-ml-py has no {names[0]}")
        for name in names:
            function = getattr(self.module, name, None)
            if function is None:
                continue
            try:
                return function(*arguments)
            except self.module.NVMLError as error:
                missing = reason(error)
                if error.value != _FUNCTION_NOT_FOUND:
                    break
        raise missing

    def number(self, *names: str, arguments: tuple[Any, ...] = ()) -> int:
        """Return a number that can be one."""
        return checked(self.call(*names, arguments=arguments))

    def text(self, *names: str, arguments: tuple[Any, ...] = ()) -> str:
        """Return text; versions of pynvml differ in whether it comes as bytes."""
        return as_text(self.call(*names, arguments=arguments))


def read_gpu(facts: Facts, context: Context) -> None:
    """Versions of driver, NVML and CUDA; devices; connections; what CUDA_VISIBLE_DEVICES leaves."""
    with _open_nvml(context) as nvml:
        facts.read("driver", lambda: nvml.text("nvmlSystemGetDriverVersion"))
        facts.read("nvml", lambda: nvml.text("nvmlSystemGetNVMLVersion"))
        facts.read("cuda_driver", lambda: _cuda_version(nvml))
        count = facts.read("count", lambda: nvml.number("nvmlDeviceGetCount"))
        facts.put("devices", [])
        handles: dict[int, Any] = {}
        for index in range(count if isinstance(count, int) else 0):
            context.pause()
            device = facts.item("devices")
            device.put("index", index)
            try:
                handles[index] = nvml.call("nvmlDeviceGetHandleByIndex", arguments=(index,))
            except Missing as missing:
                device.fail(str(missing))
                continue
            _read_device(device, nvml, handles[index], context)
        if len(handles) > 1:
            facts.read("connections", lambda: _connections(nvml, handles))
        else:
            facts.miss("connections", "absent: fewer than two GPUs")
    _read_visible(facts, context)


@contextmanager
def _open_nvml(context: Context) -> Iterator[_Nvml]:
    nvml = _Nvml(load_pynvml(context.root))
    nvml.call("nvmlInit")
    try:
        yield nvml
    finally:
        # It counts: whoever else in this process uses NVML keeps it.
        nvml.call("nvmlShutdown")


def _cuda_version(nvml: _Nvml) -> str:
    number = nvml.number("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion")
    return f"{number // 1000}.{number % 1000 // 10}"


def _read_device(facts: Facts, nvml: _Nvml, handle: Any, context: Context) -> None:
    def number(*names: str) -> Callable[[], JSON]:
        return lambda: nvml.number(*names, arguments=(handle,))

    def watts(*names: str) -> Callable[[], JSON]:
        return lambda: nvml.number(*names, arguments=(handle,)) / 1000

    def text(*names: str) -> Callable[[], JSON]:
        return lambda: nvml.text(*names, arguments=(handle,))

    def is_on(*names: str) -> Callable[[], JSON]:
        def read() -> JSON:
            value = nvml.call(*names, arguments=(handle,))
            # Some answer the present and the coming state.
            return bool(checked(value[0] if isinstance(value, list | tuple) else value))

        return read

    facts.read("name", text("nvmlDeviceGetName"))
    facts.read("uuid", text("nvmlDeviceGetUUID"))
    if context.privacy.keep_serials:
        facts.read("serial", text("nvmlDeviceGetSerial"))
    else:
        facts.miss("serial", "redacted: off by default; privacy.keep_serials switches it on")
    facts.read("architecture", lambda: _named(_ARCHITECTURES, number("nvmlDeviceGetArchitecture")()))
    facts.read("compute_capability", lambda: _compute_capability(nvml, handle))
    facts.read("cores", number("nvmlDeviceGetNumGpuCores"))
    facts.read(
        "bus_id",
        lambda: as_text(nvml.call("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo", arguments=(handle,)).busId),
    )
    facts.read("numa_node", number("nvmlDeviceGetNumaNodeId"))
    facts.read("memory_bytes", lambda: _memory(nvml, handle))
    facts.read("memory_bus_bits", number("nvmlDeviceGetMemoryBusWidth"))
    facts.read("bar1_bytes", lambda: _bar1(nvml, handle))
    facts.read("has_ecc_on", is_on("nvmlDeviceGetEccMode"))
    facts.read("is_persistent", is_on("nvmlDeviceGetPersistenceMode"))
    facts.read("compute_mode", lambda: _named(_COMPUTE_MODES, number("nvmlDeviceGetComputeMode")()))
    for name, clock in _CLOCKS.items():
        facts.read(
            f"max_clock_{name}_mhz",
            partial(nvml.number, "nvmlDeviceGetMaxClockInfo", arguments=(handle, clock)),
        )
    facts.read("power_limit_w", watts("nvmlDeviceGetEnforcedPowerLimit"))
    facts.read("power_limit_default_w", watts("nvmlDeviceGetPowerManagementDefaultLimit"))
    facts.read("power_limit_min_w", lambda: _power_bound(nvml, handle, 0))
    facts.read("power_limit_max_w", lambda: _power_bound(nvml, handle, 1))
    facts.read("pcie_generation_max", number("nvmlDeviceGetMaxPcieLinkGeneration"))
    facts.read("pcie_width_max", number("nvmlDeviceGetMaxPcieLinkWidth"))
    facts.read("nvlink", lambda: _nvlink(nvml, handle))
    facts.read("vbios", text("nvmlDeviceGetVbiosVersion"))
    is_mig_on = facts.read("is_mig_on", is_on("nvmlDeviceGetMigMode"))
    if is_mig_on:
        _read_mig(facts, nvml, handle)
    else:
        state = "is not on" if is_mig_on is False else "is not known to be on"
        facts.miss("mig_devices", f"absent: multi-instance mode {state}")


def _named(names: dict[int, str], code: JSON) -> str:
    return names.get(code, f"unknown ({code})") if isinstance(code, int) else f"unknown ({code})"


def _compute_capability(nvml: _Nvml, handle: Any) -> str:
    major, minor = nvml.call("nvmlDeviceGetCudaComputeCapability", arguments=(handle,))
    return f"{checked(major)}.{checked(minor)}"


def _power_bound(nvml: _Nvml, handle: Any, position: int) -> float:
    bounds = nvml.call("nvmlDeviceGetPowerManagementLimitConstraints", arguments=(handle,))
    return checked(bounds[position]) / 1000


def _memory(nvml: _Nvml, handle: Any) -> int:
    return checked(nvml.call("nvmlDeviceGetMemoryInfo", arguments=(handle,)).total)


def _bar1(nvml: _Nvml, handle: Any) -> int:
    return checked(nvml.call("nvmlDeviceGetBAR1MemoryInfo", arguments=(handle,)).bar1Total)


def _nvlink(nvml: _Nvml, handle: Any) -> JSON:
    """How many links there are and work, their version, and how many lead to whom, by PCI bus id."""
    count, active = 0, 0
    version: dict[str, JSON] = {}
    peers: dict[str, int] = {}
    for link in range(_MOST_LINKS):
        try:
            is_active = nvml.call("nvmlDeviceGetNvLinkState", arguments=(handle, link))
        except Missing as missing:
            if link == 0:
                raise
            if str(missing).startswith("absent") or "NVML 2)" in str(missing):
                break  # one past the last
            raise
        count += 1
        if not is_active:
            continue
        active += 1
        with suppress(Missing):  # the number of links is worth having without it
            version["version"] = nvml.number("nvmlDeviceGetNvLinkVersion", arguments=(handle, link))
        try:
            peer = as_text(nvml.call("nvmlDeviceGetNvLinkRemotePciInfo", arguments=(handle, link)).busId)
        except Missing:
            peer = "unknown"
        peers[peer] = peers.get(peer, 0) + 1
    return {"links": count, "active": active, **version, "peers": {**peers}}


def _read_mig(facts: Facts, nvml: _Nvml, handle: Any) -> None:
    """Instances of a GPU that is divided; numbers that are not in use are passed over."""
    try:
        most = nvml.number("nvmlDeviceGetMaxMigDeviceCount", arguments=(handle,))
    except Missing as missing:
        facts.miss("mig_devices", str(missing))
        return
    facts.put("mig_devices", [])
    for index in range(most):
        try:
            part = nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", arguments=(handle, index))
        except Missing:
            continue
        instance = facts.item("mig_devices")
        instance.put("index", index)
        instance.read("uuid", partial(nvml.text, "nvmlDeviceGetUUID", arguments=(part,)))
        instance.read("name", partial(nvml.text, "nvmlDeviceGetName", arguments=(part,)))
        instance.read("memory_bytes", partial(_memory, nvml, part))
        instance.read("gpu_instance", partial(nvml.number, "nvmlDeviceGetGpuInstanceId", arguments=(part,)))
        instance.read("compute_instance", partial(nvml.number, "nvmlDeviceGetComputeInstanceId", arguments=(part,)))


def _connections(nvml: _Nvml, handles: dict[int, Any]) -> dict[str, JSON]:
    """What lies between each two GPUs on the way over PCIe, such as `{"0-1": "PIX"}`."""
    between: dict[str, JSON] = {}
    for first, second in ((a, b) for a in handles for b in handles if a < b):
        level = nvml.number("nvmlDeviceGetTopologyCommonAncestor", arguments=(handles[first], handles[second]))
        between[f"{first}-{second}"] = _named(_CONNECTIONS, level)
    return between


def _read_visible(facts: Facts, context: Context) -> None:
    """Write which device CUDA counts as its 0, 1, ...: by number, UUID or beginning of one, or MIG instance.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    devices: list[dict[str, Any]] = facts.seen("devices") or []
    facts.read("visible", lambda: visible_devices(devices, context))


def visible_devices(devices: list[dict[str, Any]], context: Context) -> JSON:
    wanted = context.environment.get("CUDA_VISIBLE_DEVICES")
    by_bus = context.environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    are_alike = len({device.get("name") for device in devices}) <= 1
    tokens = [str(device["index"]) for device in devices] if wanted is None else wanted.split(",")
    visible: list[JSON] = []
    for token in map(str.strip, tokens):
        if token.isdecimal() and not (by_bus or are_alike):
            raise absent(
                "CUDA numbers GPUs of several kinds by speed; CUDA_DEVICE_ORDER=PCI_BUS_ID would make the numbers known"
            )
        found = _find(devices, token)
        if found is None:
            break  # CUDA takes none from the first that does not exist
        if "mig" not in found and any(device.get("is_mig_on") for device in devices if device["index"] == found["gpu"]):
            raise absent("a GPU is divided, and CUDA_VISIBLE_DEVICES does not name one of its instances")
        visible.append({"cuda": len(visible), **found})
    return visible


def _find(devices: list[dict[str, Any]], token: str) -> dict[str, JSON] | None:
    if token.isdecimal():
        return {"gpu": int(token)} if any(device["index"] == int(token) for device in devices) else None
    if not token.startswith(("GPU-", "MIG-")):
        return None
    matches: list[dict[str, JSON]] = [
        {"gpu": device["index"]} for device in devices if str(device.get("uuid") or "").startswith(token)
    ]
    matches += [
        {"gpu": device["index"], "mig": part["index"]}
        for device in devices
        for part in device.get("mig_devices") or []
        if str(part.get("uuid") or "").startswith(token)
    ]
    return matches[0] if len(matches) == 1 else None
