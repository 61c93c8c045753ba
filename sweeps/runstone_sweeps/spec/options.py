"""What a sweep may be told beside its space, its metric and its search: values that a config is checked into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StartMode = Literal["auto", "warm", "cold"]
Duplicates = Literal["allow", "reuse", "replicate", "forbid"]
Aggregate = Literal["mean", "median", "worst", "best"]
FailureKind = Literal["crash", "oom", "preempted", "nan"]
# Trials at once at most; and what `parallel` is where workers run them and the config does not say: their slots decide.
MOST_PARALLEL = 1024


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound that a trial's result has to keep for the trial to count as feasible.

    Attributes:
        metric: Exactly as the trials log it; its last value counts.
        min, max: Bounds, both included; at least one is given.
    """

    metric: str
    min: float | None = None
    max: float | None = None

    def violation(self, value: float) -> float:
        """Return by how much `value` breaks the bound; 0 or less where it keeps it."""
        over = value - self.max if self.max is not None else float("-inf")
        under = self.min - value if self.min is not None else float("-inf")
        return max(over, under)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial takes of the machine that it runs on.

    Attributes:
        gpus: GPUs of a trial: a whole number, or a share below 1; 0: none is assigned and none is hidden.
        devices: Indices of the GPUs that the sweep may use; `None`: all that are visible.
        cpus: Threads that numerical libraries may use; `None`: the cores, divided by the trials at once.
        memory_bytes: Resident memory of all processes of a trial; one that takes more is ended.
    """

    gpus: float = 0.0
    devices: tuple[int, ...] | None = None
    cpus: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a trial is started again, by what ended it. A defect of the script is never tried again.

    Attributes:
        crash: Killed by a signal that the sweep did not send.
        oom: Out of memory: of the machine, of `memory`, or of the GPU.
        preempted: Ended by SIGTERM from outside, by exit code 77, or with the host that it ran on.
        nan: Its result, or a metric of the sweep, is NaN; it is tried again with another seed.
        backoff_s: Seconds before the first new start; doubled for each further one, at most an hour.
    """

    crash: int = 0
    oom: int = 0
    preempted: int = 10
    nan: int = 0
    backoff_s: float = 1.0

    def of(self, kind: FailureKind) -> int:
        """Return how often a trial that ended so is started again."""
        return int(getattr(self, kind))


@dataclass(frozen=True, slots=True)
class Budget:
    """What a sweep may use in all its sessions, beside trials and time; `None`: no limit.

    Attributes:
        gpu_hours: GPUs times hours, as assigned to trials.
        energy_j: Joules of the GPUs (and of the CPU where the machine measures it), as the runs record them.
        cost: Money, at `prices`.
        prices: Price of `gpu_hour`, `cpu_hour`, `hour` (of a trial) and `kwh`.
    """

    gpu_hours: float | None = None
    energy_j: float | None = None
    cost: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replicates:
    """How often each point is run, each time with another seed, and what its results come to.

    Attributes:
        count: Runs of each trial.
        aggregate: What the results of the runs come to; `worst` looks at the goal.
    """

    count: int = 1
    aggregate: Aggregate = "median"


@dataclass(frozen=True, slots=True)
class Terminator:
    """Ends a sweep when further trials are not expected to improve on the best one.

    Attributes:
        min_trials: Complete trials before it may decide.
        patience: Complete trials without an improvement of `min_gain` after which it ends; `None`: decided by the
            expected improvement alone.
        min_gain: The least improvement that counts, in units of the metric; `None`: the standard error of the
            replicates where there are some, or a thousandth of the range from the 10th to the 90th percentile.
    """

    min_trials: int = 20
    patience: int | None = None
    min_gain: float | None = None


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """Where trials run: `local`, `workers`, `ray` or `slurm`, with the options of each."""

    name: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
