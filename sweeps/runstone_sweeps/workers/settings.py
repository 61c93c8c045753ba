"""The options of the executors that use workers, as a config gives them: checked, as values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone import InvalidConfig
from runstone_sweeps.config import parse_duration
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.workers.address import Address, parse_address

LOST_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What every executor with workers may be told.

    Attributes:
        listen: Where the coordinator listens; port 0: one that is free, the same in every session of a sweep.
        address: Host name or address by which workers reach it; `None`: as it listens, or by the name of this host.
        lost_after_s: Seconds without a sign of life after which a worker and its trials count as lost.
        tls_cert, tls_key: Files with which connections are encrypted; `None`: they are not.
        ship_code: Whether the folder of the config is sent to workers.
        is_shared: Whether trials record right into the workspace where a worker sees it, not through the worker.
    """

    listen: Address = field(default_factory=lambda: Address("127.0.0.1", 0))
    address: str | None = None
    lost_after_s: float = LOST_AFTER_S
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ship_code: bool = False
    is_shared: bool = True


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """What `executor: slurm` may be told beside.

    Attributes:
        workers: Jobs.
        slots: Trials that each runs at once; `None`: as the worker finds.
        cluster: What submitit submits to: `slurm`, or `local` for processes of this machine; `None`: as it finds.
        logs: Folder, seen by all nodes, for what submitit keeps; `None`: beside the sweep.
        parameters: Of submitit's `update_parameters`, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.
    """

    workers: int = 1
    slots: int | None = None
    cluster: str | None = None
    logs: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What `executor: ray` may be told beside.

    Attributes:
        workers: Workers, each of which runs one trial at a time; `None`: as many as `parallel`.
        cluster: Address of a cluster, such as `auto` or `ray://host:10001`; `None`: one on this machine.
        resources: Further resources of a worker, by name.
        runtime_env: Of Ray, for workers.
    """

    workers: int | None = None
    cluster: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


def _seconds(value: Any) -> float:
    seconds = parse_duration(value)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"is {value!r}; write seconds, or a time such as 90s, 10m")
    return float(seconds)


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 10_000:
        raise ValueError(f"is {value!r}; write a whole number from 1")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"is {value!r}; write text")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {value!r}; write true or false")
    return value


def _names(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"is {value!r:.80}; write names with values")
    return {str(name): item for name, item in value.items()}


_Readers = Mapping[str, tuple[str, Callable[[Any], Any]]]
_POOL: _Readers = {
    "listen": ("listen", lambda value: parse_address(_text(str(value)), what="executor.listen")),
    "address": ("address", _text),
    "lost_after": ("lost_after_s", _seconds),
    "tls_cert": ("tls_cert", lambda value: Path(_text(value))),
    "tls_key": ("tls_key", lambda value: Path(_text(value))),
    "ship_code": ("ship_code", _truth),
    "shared": ("is_shared", _truth),
}
_SLURM: _Readers = {
    "workers": ("workers", _count),
    "slots": ("slots", _count),
    "cluster": ("cluster", _text),
    "logs": ("logs", lambda value: Path(_text(value))),
}
_RAY: _Readers = {
    "workers": ("workers", _count),
    "cluster": ("cluster", _text),
    "resources": ("resources", _names),
    "runtime_env": ("runtime_env", _names),
}
# Beside submitit's own names.
_SHORT = {"partition": "slurm_partition", "time": "timeout_min", "gpus": "gpus_per_node", "cpus": "cpus_per_task"}


def read_options(spec: SweepSpec) -> tuple[PoolOptions, SlurmOptions, RayOptions]:
    """Return what the config says of its executor; what does not belong to it keeps its default.

    Raises:
        InvalidConfig: an option is unknown, or cannot be read.
    """
    name, given = spec.executor.name, dict(spec.executor.options)
    own: _Readers = {"slurm": _SLURM, "ray": _RAY}.get(name, {})
    pool, other, submitted = {}, {}, {}
    for key, value in given.items():
        if key in own:
            other[own[key][0]] = _read(key, value, own)
        elif key in _POOL:
            pool[_POOL[key][0]] = _read(key, value, _POOL)
        elif name == "slurm":
            submitted.update(_submitted(key, value))
        else:
            near = difflib.get_close_matches(key, [*own, *_POOL], n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join([*own, *_POOL])}"
            raise InvalidConfig(f"executor: {name} has no option {key!r}{hint}")
    for key in ("tls_cert", "tls_key"):
        if key in pool:
            pool[key] = spec.folder / pool[key]
    if name in ("slurm", "ray") and other.get("cluster") != "local" and (name == "slurm" or "cluster" in other):
        pool.setdefault("listen", Address("0.0.0.0", 0))  # noqa: S104  # its workers are on other hosts
    options = PoolOptions(**pool)
    if (options.tls_cert is None) is not (options.tls_key is None):
        raise InvalidConfig("executor: tls_cert and tls_key are given together")
    slurm = SlurmOptions(**other, parameters=submitted) if name == "slurm" else SlurmOptions()
    return options, slurm, RayOptions(**other) if name == "ray" else RayOptions()


def _read(key: str, value: Any, readers: _Readers) -> Any:
    try:
        return readers[key][1](value)
    except ValueError as error:
        raise InvalidConfig(f"executor.{key}: {error}") from None


def _submitted(key: str, value: Any) -> dict[str, Any]:
    """Return an option of `slurm` as submitit calls it."""
    if key == "time":
        value = max(1, round(float(_read("time", value, {"time": ("", _seconds)})) / 60))
    return {_SHORT.get(key, key): value}
