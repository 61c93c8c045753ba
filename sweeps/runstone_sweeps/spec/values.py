"""What a config says, as values. Knows neither YAML nor how a mistake is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runstone_sweeps.space import Space
from runstone_sweeps.spec.algorithms import Algorithm
from runstone_sweeps.spec.options import (
    Budget,
    Constraint,
    Duplicates,
    ExecutorSpec,
    Replicates,
    Resources,
    Retries,
    StartMode,
    Terminator,
)

Goal = Literal["minimize", "maximize"]
# What a later run of the same file may change and still go on with the sweep that it began.
BUDGET_KEYS = frozenset(
    {
        "trials", "parallel", "timeout", "trial_timeout", "no_report_timeout", "grace", "retries", "budget",
        "terminator", "gpus", "devices", "cpus", "memory", "start", "preload", "executor", "storage",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that a sweep looks at.

    Attributes:
        name: Exactly as the trials log it.
        goal: `minimize` or `maximize`.
        value: Which of its values counts for a trial: the `last` one, or the `best` one.
        target: A result with which the sweep is done; `None`: there is none.
    """

    name: str
    goal: Goal
    value: Literal["last", "best"] = "last"
    target: float | None = None

    def is_reached(self, value: float) -> bool:
        """Tell whether a result is as good as the target, or better."""
        if self.target is None:
            return False
        return value <= self.target if self.goal == "minimize" else value >= self.target


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """All that a config says, checked.

    Attributes:
        name: Readable name; by default that of the file.
        project: Project of the trials' runs; `None`: as for any run.
        script, command, function: What a trial executes; see `docs/sweep-config.md`. All `None` for a Python objective.
        working_dir: Folder in which trials start, absolute.
        env: Variables that trials get on top of the coordinator's.
        metrics: What is searched for, at least one; `metric` is the one that the pruner looks at.
        prune_on: Name of that one; `None`: the first.
        constraints: What a result has to keep to count as feasible.
        points: Points that are tried first, in this order; dotted names, and possibly only some of them.
        extends: Ids or names of earlier sweeps whose trials the sampler learns from.
        min_per_branch: Trials that each branch of a conditional space gets at least.
        trials: How many trials there are in all; `None`: as many as fit into the other limits.
        parallel: How many run at once; `options.MOST_PARALLEL`: as many as workers take.
        replicates: How often each point is run, and what the results come to.
        duplicates: What becomes of a point that was tried before.
        timeout_s: Seconds that the sweep may be at work, all its sessions together.
        trial_timeout_s: Seconds that one trial may take.
        no_report_timeout_s: Seconds that a trial may be silent.
        grace_s: Seconds between asking a trial to stop and killing it.
        seed: Seed of the search; `None`: drawn when the sweep is created, and recorded.
        retries: How often a trial is started again, by what ended it.
        budget: What the sweep may use beside trials and time.
        terminator: When it ends because nothing better is to be expected; `None`: never.
        audit: Share of the trials that the pruner decides against which run to their end all the same.
        resources: What one trial takes of its machine.
        start, preload: Whether trials are forked from a process that has imported `preload` and what the script needs.
        executor: Where trials run.
        storage: URL of an Optuna storage into which the study is copied while it runs.
        notes: What the config says that has no effect here, one line each.
        raw: The config itself, as JSON.
        folder: Where relative paths start: the folder of the config.
    """

    name: str
    project: str | None
    script: str | None
    command: tuple[str, ...] | None
    function: str | None
    working_dir: Path
    env: Mapping[str, str]
    metrics: tuple[Metric, ...]
    prune_on: str | None
    constraints: tuple[Constraint, ...]
    space: Space
    points: tuple[Mapping[str, Any], ...]
    extends: tuple[str, ...]
    sampler: Algorithm
    pruner: Algorithm
    min_per_branch: int
    trials: int | None
    parallel: int
    replicates: Replicates
    duplicates: Duplicates
    timeout_s: float | None
    trial_timeout_s: float | None
    no_report_timeout_s: float | None
    grace_s: float
    seed: int | None
    retries: Retries
    budget: Budget
    terminator: Terminator | None
    audit: float
    resources: Resources
    start: StartMode
    preload: tuple[str, ...]
    executor: ExecutorSpec
    storage: str | None
    notes: tuple[str, ...]
    raw: Mapping[str, Any]
    folder: Path

    @property
    def metric(self) -> Metric:
        """The metric that the pruner looks at."""
        return next((metric for metric in self.metrics if metric.name == self.prune_on), self.metrics[0])

    @property
    def identity(self) -> str:
        """Equal for configs that search the same thing and differ in their budget at most."""
        kept = {key: value for key, value in self.raw.items() if key not in BUDGET_KEYS}
        text = json.dumps([self.name, str(self.folder), kept], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
