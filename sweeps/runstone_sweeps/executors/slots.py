"""The GPUs and cores of this machine, as trials are given them: which are free, and what a trial is told of its own."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import RunstoneError
from runstone_sweeps.spec.options import Resources

# What each library reads, so that trials side by side do not all take every core.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# How much more than before a GPU may hold for it to count as given back; the driver keeps a little.
_SLACK_BYTES = 64 << 20
_GIVEN_BACK_S = 10.0


class NoGpus(RunstoneError):
    """Trials ask for GPUs that this machine does not have, or does not show."""


@dataclass(slots=True)
class Gpu:
    """One GPU, or one part of a GPU that is divided (MIG).

    Attributes:
        token: What `CUDA_VISIBLE_DEVICES` calls it.
        handle: What NVML calls it.
        taken: The part of it that trials have, from 0 to 1.
        idle_bytes: Memory in use when no trial had it.
        since_s: Monotonic time since which no trial has it and its memory is waited for; `None`: nothing is.
    """

    token: str
    handle: Any
    taken: float = 0.0
    idle_bytes: int = 0
    since_s: float | None = None


class GpuSlots:
    """The GPUs that trials of one sweep may have.

    Args:
        resources: What one trial takes; `gpus` is above 0.
        environment: Of the coordinator: `CUDA_VISIBLE_DEVICES` limits what is used.
        clock: Seconds that only rise.

    Raises:
        NoGpus: there are none, or fewer than one trial takes.
    """

    def __init__(
        self,
        resources: Resources,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resources = resources
        self._clock = clock
        self._nvml = _open_nvml(resources.gpus)
        self._visible = environment.get("CUDA_VISIBLE_DEVICES")
        tokens = None if self._visible is None else [word.strip() for word in self._visible.split(",") if word.strip()]
        gpus = self._all() if tokens is None else [Gpu(token, self._find(token)) for token in tokens]
        self._gpus = self._chosen(gpus)
        self._held: dict[int, tuple[list[Gpu], float]] = {}
        for gpu in self._gpus:
            gpu.idle_bytes = self._used_bytes(gpu)
        if len(self._gpus) < math.ceil(resources.gpus):
            shown = f" (CUDA_VISIBLE_DEVICES={self._visible})" if self._visible is not None else ""
            raise NoGpus(f"gpus is {resources.gpus:g}, and {_there_are(len(self._gpus))} to use{shown}")

    @property
    def count(self) -> int:
        """How many trials fit at once."""
        each = self._resources.gpus
        return len(self._gpus) * int(1 / each + 1e-9) if each < 1 else len(self._gpus) // int(each)

    def has_room(self) -> bool:
        """Return whether one more trial fits now."""
        return self._free() is not None

    def take(self, key: int) -> dict[str, str]:
        """Give GPUs to a trial, the least loaded first, and return the variables that tell it which.

        Only where there is room.
        """
        gpus = self._free()
        if gpus is None:
            raise AssertionError("there is no room")
        share = min(1.0, self._resources.gpus)
        for gpu in gpus:
            if gpu.taken == 0:
                gpu.idle_bytes = self._used_bytes(gpu)
                gpu.since_s = None
            gpu.taken += share
        self._held[key] = (gpus, share)
        told = {"CUDA_VISIBLE_DEVICES": ",".join(gpu.token for gpu in gpus)}
        # Numbers of NVML follow the bus; those of CUDA do so only if asked to.
        return told if self._visible is not None else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **told}

    def give_back(self, key: int) -> None:
        """Take the GPUs of an ended trial back; each is free again once its memory is."""
        gpus, share = self._held.pop(key, ([], 0.0))
        for gpu in gpus:
            gpu.taken = max(0.0, gpu.taken - share)
            if gpu.taken < 1e-9:
                gpu.taken, gpu.since_s = 0.0, self._clock()

    def close(self) -> None:
        """Let go of NVML."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _free(self) -> list[Gpu] | None:
        each = self._resources.gpus
        wanted, share = max(1, math.ceil(each)), min(1.0, each)
        fitting = [gpu for gpu in self._gpus if gpu.taken + share <= 1 + 1e-9 and self._is_given_back(gpu)]
        if len(fitting) < wanted:
            return None
        return sorted(fitting, key=lambda gpu: (gpu.taken, self._used_bytes(gpu)))[:wanted]

    def _is_given_back(self, gpu: Gpu) -> bool:
        """Return whether the memory of the trials that had a GPU is gone, or has been waited for long enough."""
        if gpu.since_s is None:
            return True
        is_late = self._clock() - gpu.since_s >= _GIVEN_BACK_S
        if is_late or self._used_bytes(gpu) <= gpu.idle_bytes + _SLACK_BYTES:
            gpu.since_s = None
            return True
        return False

    def _used_bytes(self, gpu: Gpu) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(gpu.handle).used)
        except self._nvml.NVMLError:
            return 0  # a GPU that does not tell is not waited for

    def _all(self) -> list[Gpu]:
        """Return every GPU in the order of the bus; of one that is divided, its parts."""
        nvml = self._nvml
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            parts = list(self._parts(handle))
            found += parts or [Gpu(str(index), handle)]
        return found

    def _parts(self, handle: Any) -> list[Gpu]:
        nvml = self._nvml
        parts = []
        with contextlib.suppress(nvml.NVMLError):
            if nvml.nvmlDeviceGetMigMode(handle)[0] != 1:
                return []
            for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                with contextlib.suppress(nvml.NVMLError):  # there is none at this place
                    part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                    parts.append(Gpu(_text(nvml.nvmlDeviceGetUUID(part)), part))
        return parts

    def _find(self, token: str) -> Any:
        """Return NVML's handle of what `CUDA_VISIBLE_DEVICES` names: a number, or a UUID or the begin of one."""
        nvml = self._nvml
        try:
            if token.isdigit():
                return nvml.nvmlDeviceGetHandleByIndex(int(token))
        except nvml.NVMLError as error:
            raise NoGpus(f"CUDA_VISIBLE_DEVICES names GPU {token}, which is not there: {error}") from None
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for uuid, found in [
                (_text(nvml.nvmlDeviceGetUUID(handle)), handle),
                *((part.token, part.handle) for part in self._parts(handle)),
            ]:
                if uuid.startswith(token):
                    return found
        raise NoGpus(f"CUDA_VISIBLE_DEVICES names {token!r}, and no GPU here is called so")

    def _chosen(self, gpus: Sequence[Gpu]) -> list[Gpu]:
        devices = self._resources.devices
        if devices is None:
            return list(gpus)
        for index in devices:
            if not 0 <= index < len(gpus):
                raise NoGpus(f"devices names GPU {index}, and {_there_are(len(gpus))}, counted from 0")
        return [gpus[index] for index in devices]


def thread_variables(
    cpus: int | None, parallel: int, environment: Mapping[str, str], *, cores: int | None = None
) -> dict[str, str]:
    """Return the variables that keep a trial's numerical libraries to its cores; those that are set stay as they are.

    Args:
        cpus: Threads of a trial; `None`: the cores, divided by the trials at once.
        parallel: Trials at once.
        environment: What the trial gets otherwise.
        cores: Cores of this machine; default: those that this process may use.
    """
    if cpus is None:
        if parallel == 1:
            return {}  # a trial alone may have them all, as it would by itself
        cpus = max(1, (cores or usable_cores()) // parallel)
    return {name: str(cpus) for name in _THREADS if name not in environment}


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those that it is bound to, as far as control groups grant them."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    granted = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([cores, *(math.ceil(quota) for quota in granted)]))


def _quotas(root: Path) -> list[float]:
    """Return the cores that each control group above this process grants, in versions 1 and 2."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                top = root / "sys/fs/cgroup"
            elif "cpu" in controllers.split(","):
                top = root / "sys/fs/cgroup/cpu"
            else:
                continue
            folder = top / path.lstrip("/")
            for place in (folder, *folder.parents):
                if quota := _quota(place):
                    found.append(quota)
                if place == top:
                    break
    return found


def _quota(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        micros = int((folder / "cpu.cfs_quota_us").read_text())
        return micros / int((folder / "cpu.cfs_period_us").read_text()) if micros > 0 else None
    return None


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the system has killed for want of memory since it started; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _open_nvml(gpus: float) -> Any:
    try:
        import pynvml  # only where trials take GPUs
    except ModuleNotFoundError:
        raise NoGpus(f"gpus is {gpus:g}, and nvidia-ml-py, which tells of GPUs, is not installed") from None
    try:
        pynvml.nvmlInit()
        if pynvml.nvmlDeviceGetCount() == 0:
            raise NoGpus(f"gpus is {gpus:g}, and this machine has no GPU")
    except pynvml.NVMLError as error:
        raise NoGpus(f"gpus is {gpus:g}, and this machine shows no GPU: {error}") from None
    return pynvml


def _text(value: str | bytes) -> str:
    """Return text; versions of pynvml differ in whether it comes as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _there_are(number: int) -> str:
    return f"there are {number} GPUs" if number > 1 else f"there is {number or 'no'} GPU"
