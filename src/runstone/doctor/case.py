"""A run as the checks look at it: its system series by place and GPU, and the arithmetic on them. Knows no check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.doctor.findings import Evidence
from runstone.environments import as_used
from runstone.runinfo import RunInfo
from runstone.values import JSON

SYSTEM = "system/"
_NAME = re.compile(r"system/(?:rank\.(?P<rank>\d+)/)?(?P<field>.+)", re.DOTALL)
_GPU_FIELD = re.compile(r"gpu\.(?P<index>\d+)/(?P<field>.+)", re.DOTALL)
# Loading, compiling and filling caches come first, and say nothing of the rest.
_WARM_UP_S = 60.0
_WARM_UP_SHARE = 0.15
_MOST_PAIRED = 160
# A framework that only asks what GPUs there are may open a context, of half a GiB; a model on the GPU takes more.
_MORE_THAN_A_CONTEXT = 1 << 30
_BUSY_PROCESS = 80.0


class NoData(Exception):
    """A check has nothing to look at; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One series: finite values in the order of time.

    Attributes:
        name: Of the metric.
        at_s: Seconds since the run started.
        step, value: As they were logged.
    """

    name: str
    step: NDArray[np.int64]
    value: NDArray[np.float64]
    at_s: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.value)

    @property
    def median(self) -> float:
        """The value in the middle."""
        return float(np.median(self.value))

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last sample."""
        return float(self.at_s[-1] - self.at_s[0]) if len(self) else 0.0

    def chosen(self, mask: NDArray[np.bool_]) -> Samples:
        """Return some of the samples."""
        return Samples(self.name, self.step[mask], self.value[mask], self.at_s[mask])

    def settled(self) -> Samples:
        """Return the samples without the warm-up."""
        if not len(self):
            return self
        start = float(self.at_s[0])
        return self.chosen(self.at_s >= start + min(_WARM_UP_S, _WARM_UP_SHARE * self.span_s))

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the latest value at each of some times; the first one before there was any."""
        places = np.clip(np.searchsorted(self.at_s, times, side="right") - 1, 0, len(self) - 1)
        found: NDArray[np.float64] = self.value[places]
        return found

    def evidence(self, *others: Samples | None) -> Evidence:
        """Return the whole series as evidence, others beside it."""
        names = (self.name, *(other.name for other in others if other is not None))
        if not len(self):
            return Evidence(tuple(dict.fromkeys(names)))
        return Evidence(
            series=tuple(dict.fromkeys(names)),
            first_step=int(self.step[0]),
            last_step=int(self.step[-1]),
            first_s=round(float(self.at_s[0]), 3),
            last_s=round(float(self.at_s[-1]), 3),
        )


@dataclass(frozen=True, slots=True, order=True)
class Gpu:
    """A GPU as one rank sees it."""

    rank: int
    index: int


class Case:
    """One run under examination; each series is read once.

    Args:
        info: The run.
    """

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.environment: Mapping[str, Any] = as_used(info.environment or {})
        self._samples: dict[str, Samples] = {}
        self._names: dict[tuple[int, str], str] = {}
        for name in info.metrics:
            match = _NAME.fullmatch(name)
            if match is not None:
                self._names[int(match["rank"] or 0), match["field"]] = name

    # --- what was recorded -----------------------------------------------------------------------------------------

    def env(self, path: str) -> Any:
        """Return the value at a dotted path of the environment, `None` where there is none."""
        value: Any = self.environment
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def number(self, path: str) -> float | None:
        """Return the number at a dotted path of the environment."""
        value = self.env(path)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def params(self, *words: str) -> Iterable[tuple[str, JSON]]:
        """Yield the params whose last name is one of some words."""
        for name, value in self.info.flat_params.items():
            if re.split(r"[./]", name.lower())[-1] in words:
                yield name, value

    @property
    def cores(self) -> float | None:
        """How many cores the run may use: the smallest of affinity and the container's limit."""
        known = [self.number("cpu.usable_cores"), self.number("cgroup.cpu_limit")]
        if known[0] is None:
            known.append(self.number("cpu.logical_cores"))
        found = [value for value in known if value]
        return min(found) if found else None

    @property
    def local_processes(self) -> int:
        """How many processes of the job share this host, as far as it is known."""
        world, told = self.number("rank.world_size") or 1, str(self.env("scheduler.slurm.nodes") or "")
        nodes = int(told) if told.isdecimal() else 1
        return max(1, round(world / max(1, nodes)))

    def whole_run(self, *fields: str) -> Evidence:
        """Return the whole run as evidence, for what was so all the time; with system series that were recorded."""
        found = [samples for field in fields if (samples := self.series(field)) is not None]
        if found:
            return found[0].evidence(*found[1:])
        return Evidence(first_s=0.0, last_s=round(self.info.duration_s, 3))

    # --- series ----------------------------------------------------------------------------------------------------

    def series(self, field: str, rank: int = 0) -> Samples | None:
        """Return a system series, such as `cpu/percent`; `None` where none was recorded."""
        name = self._names.get((rank, field))
        if name is None:
            return None
        samples = self.samples(name)
        return samples if len(samples) else None

    def samples(self, name: str) -> Samples:
        """Return the finite values of any metric."""
        if name not in self._samples:
            series = self.info.series(name)
            value, step = np.asarray(series.value, np.float64), np.asarray(series.step, np.int64)
            if name.startswith(SYSTEM):  # their steps are seconds since the run was created
                at_s = step.astype(np.float64)
            else:
                at_s = np.asarray(series.wall_s, np.float64) - self.info.started_at.timestamp()
            keep = np.flatnonzero(np.isfinite(value))
            keep = keep[np.argsort(at_s[keep], kind="stable")]
            self._samples[name] = Samples(name, step[keep], value[keep], at_s[keep])
        return self._samples[name]

    def ranks(self, field: str) -> list[int]:
        """Return the ranks that recorded a system series."""
        return sorted(rank for rank, name in self._names if name == field)

    @property
    def gpus(self) -> list[Gpu]:
        """The GPUs of which something was recorded."""
        found = set()
        for rank, field in self._names:
            match = _GPU_FIELD.fullmatch(field)
            if match is not None:
                found.add(Gpu(rank, int(match["index"])))
        return sorted(found)

    def need_gpus(self) -> None:
        """Raise where there is no GPU to look at.

        Raises:
            NoData: there was none.
        """
        if not self.gpus and not self.number("gpu.count"):
            raise NoData("there was no GPU" if self.environment else "no GPU was recorded")

    def of_gpu(self, gpu: Gpu, field: str) -> Samples | None:
        """Return a series of a GPU, such as `util_percent`."""
        return self.series(f"gpu.{gpu.index}/{field}", gpu.rank)

    def used_gpus(self) -> list[Gpu]:
        """Return the GPUs that worked for the run, be it little."""
        return [gpu for gpu in self.gpus if self._was_used(gpu)]

    def _was_used(self, gpu: Gpu) -> bool:
        util, own, used = (self.of_gpu(gpu, f) for f in ("util_percent", "own_memory_bytes", "memory_used_bytes"))
        if util is None:
            return False
        busiest, held = float(util.value.max()), float(own.value.max()) if own is not None else 0.0
        if busiest > 5 or held > _MORE_THAN_A_CONTEXT:
            return True
        if used is not None and used.value.max() - used.value.min() > _MORE_THAN_A_CONTEXT:
            return True
        if self.env("frameworks.torch.is_cuda_initialized") is not True:
            return busiest > 0 and held > 0
        # A small model may not show in the samples; what trains on the CPU shows there.
        load = self.series("process/cpu_percent", gpu.rank)
        return busiest > 0 or (load is not None and load.settled().median < _BUSY_PROCESS)

    def device(self, gpu: Gpu, field: str) -> float | None:
        """Return a number of the snapshot about a GPU."""
        devices = self.env("gpu.devices")
        for device in devices if isinstance(devices, list) else ():
            if isinstance(device, dict) and device.get("index") == gpu.index:
                value = device.get(field)
                return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        return None


def called(gpus: Iterable[Gpu]) -> str:
    """Return `GPU 0`, `GPUs 0 and 1`, `GPU 0 of rank 3`."""
    found = sorted(gpus)
    if any(gpu.rank for gpu in found):
        names = [f"{gpu.index} of rank {gpu.rank}" for gpu in found]
    else:
        names = [str(gpu.index) for gpu in found]
    if len(names) == 1:
        return f"GPU {names[0]}"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"GPUs {shown}" if len(names) > 2 else f"GPUs {names[0]} and {names[1]}"


def growth_per_s(samples: Samples) -> tuple[float, float]:
    """Return the median slope over all pairs of samples, and the share of pairs that grow: one jump moves neither.

    Source: Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", JASA 63(324), 1968.
    """
    places = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _MOST_PAIRED)).astype(int))
    value, at_s = samples.value[places], samples.at_s[places]
    left, right = np.triu_indices(len(places), 1)
    spans = at_s[right] - at_s[left]
    apart = spans > 0
    if not apart.any():
        return 0.0, 0.0
    slopes = (value[right] - value[left])[apart] / spans[apart]
    return float(np.median(slopes)), float(np.mean(slopes > 0))


def longest(samples: Samples, is_so: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> Samples:
    """Return the longest stretch of samples, one after the other, of which something is true."""
    mask = is_so(samples.value)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    stretches = edges.reshape(-1, 2)
    if not len(stretches):
        return samples.chosen(np.zeros(len(samples), np.bool_))
    start, end = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    picked = np.zeros(len(samples), np.bool_)
    picked[start:end] = True
    return samples.chosen(picked)
