"""What a sweep's events come down to: its trials and how it stands. Live and on resume by the same code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runstone_sweeps.journal import Event


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
class TrialRecord:
    """One trial as the events tell it.

    Attributes:
        number: Counted from 0 in the order in which they were asked for.
        run_id: Its run; the same one for every attempt.
        params: Dotted name and value of each parameter, constants included.
        attrs: What the sampler and pruner keep with it; `asked_attrs`: what the sampler kept when it was asked for.
        state: Where it stands. `waiting`: asked for and not started, or to be started again.
        value: Its result; a pruned trial has its last value.
        reason: Why it failed or was pruned or waits again.
        reports: Step and value of the objective metric.
        attempts: How many processes were started for it.
        crashes: How many of them were killed by a signal that the sweep did not send.
        pid, pid_started: The last process and when the system started it, to know it again.
        prune_step: Step at which the pruner decided against it.
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
    reason: str | None = None
    reports: dict[int, float] = field(default_factory=dict)
    attempts: int = 0
    crashes: int = 0
    pid: int | None = None
    pid_started: float | None = None
    prune_step: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    _is_new_attempt: bool = False

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


class SweepRecord:
    """A sweep as the events tell it. `apply` is the only way to change it.

    Attributes:
        sweep_id: Its id, which is also the group of its runs.
        created: The event that created it: name, config, seed, goal.
        trials: Trials by number, in the order of their numbers.
        study_attrs: What the sampler keeps for the whole search.
        trials_budget, parallel, timeout_s: As the last session set them.
        closed: Why the last session ended; `None` while it runs or where it died.
        active_s: Seconds at work, all sessions together.
        unknown: Events about trials that were never asked for: something before them was lost.
    """

    def __init__(self) -> None:
        self.sweep_id = ""
        self.created: Event = {}
        self.trials: dict[int, TrialRecord] = {}
        self.study_attrs: dict[str, Any] = {}
        self.trials_budget: int | None = None
        self.parallel = 1
        self.timeout_s: float | None = None
        self.closed: str | None = None
        self.active_s = 0.0
        self.sessions = 0
        self.last_at = 0.0
        self.next_seq = 0
        self.unknown = 0

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> SweepRecord:
        """Return what the events come down to."""
        record = cls()
        for event in events:
            record.apply(event)
        return record

    @property
    def name(self) -> str:
        """Its readable name."""
        return str(self.created.get("name", ""))

    @property
    def is_maximized(self) -> bool:
        """Whether higher values are better."""
        return self.created.get("goal") == "maximize"

    @property
    def counts(self) -> Counter[TrialState]:
        """How many trials are in each state."""
        return Counter(trial.state for trial in self.trials.values())

    @property
    def ended(self) -> int:
        """How many trials have their result."""
        return sum(trial.state.is_ended for trial in self.trials.values())

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do within the budget."""
        if any(not trial.state.is_ended for trial in self.trials.values()):
            return False
        if self.trials_budget is not None:
            return max(self.trials, default=-1) + 1 >= self.trials_budget
        return self.timeout_s is not None and self.active_s >= self.timeout_s

    def ranked(self) -> list[TrialRecord]:
        """Return the complete trials, the best first; equal ones in the order of their numbers."""
        complete = [t for t in self.trials.values() if t.state is TrialState.COMPLETE and t.value is not None]
        sign = -1.0 if self.is_maximized else 1.0
        return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial."""
        return next(iter(self.ranked()), None)

    def failures(self) -> list[tuple[str, list[TrialRecord]]]:
        """Return the failed trials grouped by their reason, the largest group first."""
        groups: dict[str, list[TrialRecord]] = {}
        for trial in self.trials.values():
            if trial.state is TrialState.FAILED:
                groups.setdefault(trial.reason or "unknown", []).append(trial)
        return sorted(groups.items(), key=lambda group: -len(group[1]))

    def apply(self, event: Event) -> None:
        """Take in one event. Events and fields that a later version adds are ignored."""
        at = float(event.get("at", self.last_at))
        self.next_seq = max(self.next_seq, event["seq"] + 1)
        kind = event.get("event")
        if kind == "opened":
            self.sessions += 1
            self.closed = None
        elif self.sessions:
            self.active_s += max(0.0, at - self.last_at)
        self.last_at = at
        if kind == "created":
            self.created = event
            self.sweep_id = event["sweep_id"]
        elif kind == "budget":
            self.trials_budget = event["trials"]
            self.parallel = event["parallel"]
            self.timeout_s = event["timeout_s"]
        elif kind == "asked":
            self._apply_asked(event, at)
        elif kind == "closed":
            self.closed = event["reason"]
        elif "number" in event:
            trial = self.trials.get(event["number"])
            if trial is None:
                self.unknown += 1
            else:
                _apply_to_trial(trial, event, at)
                self.study_attrs.update(event.get("study_attrs", {}))

    def _apply_asked(self, event: Event, at: float) -> None:
        self.study_attrs.update(event.get("study_attrs", {}))
        self.trials[event["number"]] = TrialRecord(
            number=event["number"],
            run_id=event["run_id"],
            params=event["params"],
            attrs=dict(event.get("attrs", {})),
            asked_attrs=event.get("attrs", {}),
            asked_at=at,
        )


def _apply_to_trial(trial: TrialRecord, event: Mapping[str, Any], at: float) -> None:
    trial.attrs.update(event.get("attrs", {}))
    match event["event"]:
        case "started":
            trial.state = TrialState.RUNNING
            trial.attempts += 1
            trial.pid, trial.pid_started = event.get("pid"), event.get("pid_started")
            trial.started_at, trial.ended_at = at, None
            trial.reason = None
            trial._is_new_attempt = trial.attempts > 1
        case "reported":
            steps = [(int(step), float(value)) for step, value in event["points"]]
            if steps and trial._is_new_attempt:
                # A new attempt begins where its first point is; what the one before said from there on is void.
                first = steps[0][0]
                trial.reports = {step: value for step, value in trial.reports.items() if step < first}
                trial._is_new_attempt = False
            for step, value in steps:
                trial.reports.setdefault(step, value)
        case "prune":
            trial.prune_step = event["step"]
        case "requeued":
            trial.state = TrialState.WAITING
            trial.reason = event.get("reason")
            trial.crashes += bool(event.get("is_crash"))
            trial.prune_step = None
            trial.attrs = dict(trial.asked_attrs)
            trial.ended_at = at
        case "told":
            trial.state = TrialState(event["state"])
            told = event.get("value")
            trial.value = None if told is None or math.isnan(float(told)) else float(told)
            trial.reason = event.get("reason")
            trial.ended_at = at
