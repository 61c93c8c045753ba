"""One trial as values: where it stands, its runs, and what each event about it comes down to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import stdev
from typing import Any

from runstone_sweeps.record.journal import Event
from runstone_sweeps.record.usage import Usage


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def is_ended(self) -> bool:
        """Whether its result is in."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)


@dataclass(slots=True)
class RunRecord:
    """One run of a trial: the only one, or one of its replicates.

    Attributes:
        index: Which replicate, counted from 0.
        run_id: The run; the same one for every attempt.
        state: Where it stands.
        values: Its results in the order of the sweep's metrics.
        constraints: By how much it breaks each constraint.
        reason: Why it failed or was pruned or waits again.
        attempts: How many processes were started for it.
        tries: How often it was started again, by what had ended it.
        not_before: When it may start again, seconds since the Unix epoch; 0: now.
        pid, pid_started, host: The last process, and when its system started it, to know it again.
        gpus: GPUs, or the share of one, that it was assigned.
        started_at, ended_at: Seconds since the Unix epoch, UTC; of the last attempt.
        usage: What its ended attempts used.
    """

    index: int
    run_id: str
    state: TrialState = TrialState.WAITING
    values: tuple[float, ...] | None = None
    constraints: tuple[float, ...] = ()
    reason: str | None = None
    attempts: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    not_before: float = 0.0
    pid: int | None = None
    pid_started: float | None = None
    host: str | None = None
    gpus: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class TrialRecord:
    """One trial as the events tell it.

    Attributes:
        number: Counted from 0 in the order in which they were asked for.
        run_id: Its run, the first one where it has replicates; the same one for every attempt.
        params: Dotted name and value of each parameter, constants included.
        attrs: What the sampler and pruner keep with it; `asked_attrs`: what the sampler kept when it was asked for.
        state: Where it stands. `waiting`: asked for and not started, or to be started again.
        value: Its result, the first of `values`; a pruned trial has its last value.
        values: Its results in the order of the sweep's metrics; `None` where it is not complete. Under
            `duplicates: replicate` what all trials of its point came to, and `own_values` what came of itself.
        peers: Then the results of all trials of its point by the first metric, two or more.
        constraints: By how much it breaks each constraint of the sweep; 0 or less: it keeps it.
        reason: Why it failed or was pruned or waits again.
        group: What failures of the same cause have in common.
        reports: Step and value of the metric that the pruner looks at.
        prune_step: Step at which the pruner decided against it.
        is_audited: Whether it runs, or ran, to its end although the pruner decided against it.
        audit_values: What came of that, in the order of the metrics.
        same_as: Number of the trial whose result it took, where a point was tried before.
        runs: Its runs; one, unless the sweep has replicates.
        is_new_attempt: Whether its reports are still those of the attempt before.
        asked_at, started_at, ended_at: Seconds since the Unix epoch, UTC; of the last attempt.
    """

    number: int
    run_id: str
    params: dict[str, Any]
    asked_at: float
    attrs: dict[str, Any] = field(default_factory=dict)
    asked_attrs: dict[str, Any] = field(default_factory=dict)
    state: TrialState = TrialState.WAITING
    value: float | None = None
    values: tuple[float, ...] | None = None
    own_values: tuple[float, ...] | None = None
    peers: tuple[float, ...] = ()
    constraints: tuple[float, ...] = ()
    reason: str | None = None
    group: str | None = None
    reports: dict[int, float] = field(default_factory=dict)
    prune_step: int | None = None
    is_audited: bool = False
    audit_values: tuple[float, ...] | None = None
    same_as: int | None = None
    runs: list[RunRecord] = field(default_factory=list)
    started_at: float | None = None
    ended_at: float | None = None
    is_new_attempt: bool = False

    @property
    def is_feasible(self) -> bool:
        """Whether it keeps every constraint."""
        return all(violation <= 0 for violation in self.constraints)

    @property
    def attempts(self) -> int:
        """How many processes were started for it."""
        return sum(run.attempts for run in self.runs)

    @property
    def crashes(self) -> int:
        """How many of them were killed by a signal that the sweep did not send."""
        return sum(run.tries["crash"] for run in self.runs)

    @property
    def usage(self) -> Usage:
        """What its ended attempts used, replicates included."""
        return sum((run.usage for run in self.runs), Usage())

    @property
    def spread(self) -> float | None:
        """The standard deviation of the first metric over the results of its point; `None` below two."""
        results = self.peers or [run.values[0] for run in self.runs if run.values]
        return stdev(results) if len(results) > 1 else None

    @property
    def duration_s(self) -> float | None:
        """Seconds that the last attempt took; `None` while it runs."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, self.ended_at - self.started_at)

    @property
    def last_report(self) -> tuple[int, float] | None:
        """The report with the highest step."""
        return max(self.reports.items(), default=None)


@dataclass(frozen=True, slots=True)
class QueuedPoint:
    """A point that is to be tried before the sampler is asked.

    Attributes:
        params: Dotted names, and possibly only some of them.
        is_extra: Whether someone added it to the running sweep: then it is tried also beyond the budget.
    """

    params: Mapping[str, Any]
    is_extra: bool


def apply_started(trial: TrialRecord, run: RunRecord, event: Event, at: float) -> None:
    """Take in that a process was started for a run."""
    run.state = TrialState.RUNNING
    run.attempts += 1
    run.pid, run.pid_started, run.host = event.get("pid"), event.get("pid_started"), event.get("host")
    run.gpus = float(event.get("gpus", 0.0))
    run.started_at, run.ended_at, run.reason = at, None, None
    trial.reason = None
    if run.index == 0:
        trial.started_at, trial.ended_at = at, None
        trial.is_new_attempt = run.attempts > 1


def apply_reported(trial: TrialRecord, event: Event) -> None:
    """Take in reports of the metric that the pruner looks at."""
    steps = [(int(step), float(value)) for step, value in event["points"]]
    if steps and trial.is_new_attempt:
        # A new attempt begins where its first point is; what the one before said from there on is void.
        first = steps[0][0]
        trial.reports = {step: value for step, value in trial.reports.items() if step < first}
        trial.is_new_attempt = False
    for step, value in steps:
        trial.reports.setdefault(step, value)


def apply_requeued(trial: TrialRecord, run: RunRecord, event: Event, at: float) -> None:
    """Take in that a run is to be started again."""
    run.state, run.ended_at = TrialState.WAITING, at
    run.reason = trial.reason = event.get("reason")
    run.not_before = float(event.get("not_before", 0.0))
    if kind := event.get("kind") or ("crash" if event.get("is_crash") else None):
        run.tries[kind] += 1
    trial.ended_at = at
    if run.index == 0:
        trial.prune_step, trial.is_audited = None, False
        trial.attrs = dict(trial.asked_attrs)


def apply_result(run: RunRecord, event: Mapping[str, Any], at: float) -> None:
    """Take in what a run came to."""
    run.state = TrialState(event["state"])
    run.values = numbers(event.get("values"))
    run.constraints = numbers(event.get("constraints")) or ()
    run.reason, run.ended_at = event.get("reason"), at


def open_state(trial: TrialRecord) -> TrialState:
    """Return the state of a trial that has no result yet."""
    is_running = any(run.state is TrialState.RUNNING for run in trial.runs)
    return TrialState.RUNNING if is_running else TrialState.WAITING


def prior_trial(told: Mapping[str, Any], number: int) -> TrialRecord:
    """Return a trial of an earlier sweep as the event keeps it, under a number of its own."""
    values = numbers(told.get("values"))
    return TrialRecord(
        number=number,
        run_id=told.get("run_id", ""),
        params=told["params"],
        asked_at=told.get("at", 0.0),
        state=TrialState(told["state"]),
        value=values[0] if values else None,
        values=values if told["state"] == TrialState.COMPLETE else None,
        own_values=values if told["state"] == TrialState.COMPLETE else None,
        constraints=numbers(told.get("constraints")) or (),
        reports={int(step): float(value) for step, value in told.get("reports", ())},
        started_at=told.get("at"),
        ended_at=told.get("at"),
    )


def numbers(told: Sequence[Any] | None) -> tuple[float, ...] | None:
    """Return numbers as an event keeps them: what JSON lacks is text there."""
    return None if told is None else tuple(float(value) for value in told)
