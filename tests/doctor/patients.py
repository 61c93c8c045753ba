"""Runs for the doctor: made with the real API, with the series and the snapshot that a machine would have given."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import runstone
from runstone.doctor import Finding, diagnose
from runstone.runinfo import RunInfo

GIB = 1 << 30
SAMPLES = 120  # each 10 s: twenty minutes
HEALTHY: dict[str, Any] = {
    "schema": 1,
    "rank": {"rank": 0, "world_size": 1, "local_rank": 0, "node_rank": 0},
    "git": {"root": "/home/u/p", "commit": "a" * 40, "is_dirty": False, "changed": [], "untracked": [], "diff": None},
    "frameworks": {
        "torch": {
            "version": "2.9.0",
            "cuda": "12.8",
            "hip": None,
            "threads": 8,
            "is_deterministic": True,
            "cudnn_is_deterministic": True,
            "cudnn_is_benchmarking": False,
        }
    },
    "gpu": {
        "count": 1,
        "visible": [{"cuda": 0, "gpu": 0}],
        "devices": [
            {
                "index": 0,
                "name": "NVIDIA H100",
                "memory_bytes": 80 * GIB,
                "max_clock_sm_mhz": 1980,
                "power_limit_w": 700.0,
                "power_limit_default_w": 700.0,
            }
        ],
    },
    "cpu": {"usable_cores": 16, "logical_cores": 16},
    "cgroup": {"cpu_limit": None, "memory_limit_bytes": None},
    "memory": {"total_bytes": 128 * GIB},
    "env": {},
    "packages": {"installed": [{"name": "torch", "version": "2.9.0"}]},
    "why": {},
}
HEALTHY_SERIES: dict[str, float] = {
    "gpu.0/util_percent": 97,
    "gpu.0/memory_used_bytes": 40 * GIB,
    "gpu.0/memory_percent": 50,
    "gpu.0/own_memory_bytes": 39 * GIB,
    "gpu.0/temperature_c": 61,
    "gpu.0/sm_clock_mhz": 1950,
    "gpu.0/throttle/thermal": 0,
    "gpu.0/throttle/hw_thermal": 0,
    "gpu.0/throttle/hw_slowdown": 0,
    "gpu.0/throttle/power": 0,
    "gpu.0/processes": 1,
    "gpu.0/other_processes": 0,
    "cpu/percent": 35,
    "cpu/busiest_core_percent": 60,
    "cpu/iowait_percent": 0.5,
    "pressure/io_full_percent": 0.2,
    "memory/percent": 30,
    "process/cpu_percent": 350,
    "process/tree_rss_bytes": 20 * GIB,
    "cgroup/oom_kills": 0,
    "disk/store_free_bytes": 500 * GIB,
    "disk/store_percent": 40,
}

Values = float | Sequence[float] | Callable[[int], float] | None


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a snapshot with other values at dotted paths."""
    found = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *outer, last = path.split(".")
        place = found
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return found


class Patient:
    """A run that was healthy but for what a test changes."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(
        self,
        *,
        system: Mapping[str, Values] | None = None,
        environment: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Sequence[float]] | None = None,
        samples: int = SAMPLES,
        is_bare: bool = False,
    ) -> RunInfo:
        """Record it. `system` changes the healthy series: one value, one a sample, or a function of its number."""
        series: dict[str, Values] = {**({} if is_bare else HEALTHY_SERIES), **(system or {})}
        with runstone.start_run(workspace=self._home, params=params, environment=False) as run:
            for number in range(samples):
                row = {}
                for name, values in series.items():
                    value = values(number) if callable(values) else values
                    if not isinstance(value, int | float | None):
                        value = value[number] if number < len(value) else None
                    if value is not None:
                        row[f"system/{name}"] = value
                if row:
                    run.log(row, step=10 * number)
            for name, points in (metrics or {}).items():
                for step, point in enumerate(points):
                    run.log({name: point}, step=step)
        if not is_bare:
            writer = next(run.path.glob("journal.*.jsonl")).name.split(".")[1]
            snapshot = merged(HEALTHY, {"writer": writer, **(environment or {})})
            (run.path / f"environment.{writer}.json").write_text(json.dumps(snapshot))
        return RunInfo(run.path)


def kinds(info: RunInfo) -> list[str]:
    """Return what is found, as words, the worst first; each says when it was."""
    found = diagnose(info).findings
    for finding in found:
        first_s, last_s = finding.evidence.first_s, finding.evidence.last_s
        assert first_s is not None, finding.title
        assert last_s is not None, finding.title
        assert first_s <= last_s
    return [finding.kind for finding in found]


def only(info: RunInfo, kind: str) -> Finding:
    """Return the finding of a kind, which must be the only one of all."""
    assert kinds(info) == [kind], [finding.title for finding in diagnose(info).findings]
    return diagnose(info).findings[0]
