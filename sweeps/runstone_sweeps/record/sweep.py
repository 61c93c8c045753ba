"""What a sweep's events come down to: its trials and how it stands. Live and on resume by the same code."""

from __future__ import annotations

import bisect
import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runstone_sweeps.record.failures import failure_key
from runstone_sweeps.record.forecast import Forecast, Progress
from runstone_sweeps.record.journal import Event
from runstone_sweeps.record.ranking import aggregate, first_key, fronts, is_dominated
from runstone_sweeps.record.trials import (
    QueuedPoint,
    RunRecord,
    TrialRecord,
    TrialState,
    apply_reported,
    apply_requeued,
    apply_result,
    apply_started,
    numbers,
    open_state,
    prior_trial,
)
from runstone_sweeps.record.usage import Usage
from runstone_sweeps.spec.options import Aggregate


class SweepRecord:
    """A sweep as the events tell it. `apply` is the only way to change it; what it costs does not grow with the trials.

    Attributes:
        sweep_id: Its id, which is also the group of its runs.
        created: The event that created it: name, config, seed, goal.
        config, folder, identity: The config, where its relative paths start, and what it searches; as last edited.
        trials: Trials by number, in the order of their numbers.
        prior: Trials of the sweeps that it extends.
        study_attrs: What the sampler keeps for the whole search.
        trials_budget, parallel, timeout_s: As the last session set them.
        limits: The other limits of the last session, as in `options.Budget`.
        closed: Why the last session ended; `None` while it runs or where it died.
        is_paused: Whether no new trials start until someone says so.
        queue: Points to try before the sampler is asked.
        requests: Ids of the requests that have been answered.
        usage: What all ended attempts used.
        active_s: Seconds at work, all sessions together; pauses in which nothing ran are left out.
        next_number: Number of the next trial.
        unknown: Events about trials that were never asked for: something before them was lost.
    """

    def __init__(self) -> None:
        self.sweep_id = ""
        self.created: Event = {}
        self.config: dict[str, Any] = {}
        self.folder = ""
        self.identity = ""
        self.goals: tuple[str, ...] = ("minimize",)
        self.trials: dict[int, TrialRecord] = {}
        self.prior: tuple[TrialRecord, ...] = ()
        self.study_attrs: dict[str, Any] = {}
        self.trials_budget: int | None = None
        self.parallel = 1
        self.timeout_s: float | None = None
        self.limits: dict[str, Any] = {}
        self.closed: str | None = None
        self.is_paused = False
        self.queue: deque[QueuedPoint] = deque()
        self.requests: set[str] = set()
        self.usage = Usage()
        self.active_s = 0.0
        self.sessions = 0
        self.last_at = 0.0
        self.next_seq = 0
        self.next_number = 0
        self.unknown = 0
        self._counts: Counter[TrialState] = Counter()
        self._progress = Progress()
        self._ranking: list[tuple[tuple[float, ...], int]] | None = []
        self._points: dict[str, list[int]] = {}
        self._pooled: Aggregate | None = None

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> SweepRecord:
        """Return what the events come down to."""
        record = cls()
        for event in events:
            record.apply(event)
        return record

    # --- what it says ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its readable name."""
        return str(self.created.get("name", ""))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Name and goal of each metric, the first one first."""
        alone = {"name": self.created.get("metric", "value"), "goal": self.created.get("goal", "minimize")}
        return list(self.created.get("metrics") or [alone])

    @property
    def is_maximized(self) -> bool:
        """Whether higher values of the first metric are better."""
        return self.goals[0] == "maximize"

    @property
    def counts(self) -> Counter[TrialState]:
        """How many trials are in each state."""
        return +self._counts

    @property
    def ended(self) -> int:
        """How many trials have their result."""
        return sum(count for state, count in self._counts.items() if state.is_ended)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do within the budget."""
        if self._counts[TrialState.WAITING] or self._counts[TrialState.RUNNING]:
            return False
        if any(point.is_extra for point in self.queue):
            return False
        if self.closed in ("target", "converged", "exhausted"):
            return True
        if self.trials_budget is not None and self.next_number >= self.trials_budget:
            return True
        return self.exceeded is not None

    @property
    def trials_expected(self) -> int | None:
        """How many trials there will be, those that were added included; `None` where only time or money is limited."""
        return None if self.trials_budget is None else max(self.trials_budget, self.next_number)

    @property
    def exceeded(self) -> str | None:
        """Which limit of the last session is used up, time included; `None` where there is room."""
        return self.limit_exceeded(self.usage, self.active_s)

    def limit_exceeded(self, usage: Usage, active_s: float) -> str | None:
        """Return which limit such a use would reach: `timeout` or `budget`."""
        if self.timeout_s is not None and active_s >= self.timeout_s:
            return "timeout"
        is_spent = any(limit is not None and spent >= limit for _, spent, limit in self.spending(usage))
        return "budget" if is_spent else None

    def spending(self, usage: Usage | None = None) -> Iterator[tuple[str, float, float | None]]:
        """Yield name, amount used and limit of GPU hours, energy (J) and cost."""
        usage = usage or self.usage
        yield "gpu_hours", usage.gpu_hours, self.limits.get("gpu_hours")
        yield "energy_j", usage.energy_j, self.limits.get("energy_j")
        yield "cost", usage.cost(self.limits.get("prices") or {}), self.limits.get("cost")

    def forecast(self, *, now_s: float | None = None) -> Forecast:
        """Return how long the rest is expected to take, and what further trials have gained lately.

        Args:
            now_s: Seconds at work by now; default those of the last event.
        """
        left = None if self.trials_budget is None else max(0, self.trials_budget - self.ended)
        return self._progress.forecast(
            left, self.active_s if now_s is None else now_s, is_maximized=self.is_maximized, timeout_s=self.timeout_s
        )

    def ranked(self) -> list[TrialRecord]:
        """Return the complete trials, the best first.

        Those that keep every constraint come before those that break one. With several metrics, those that no other
        one is better than in every way come first. Equal ones are in the order of their numbers.
        """
        feasible = [self.trials[number] for _, number in self._feasible()]
        if len(self.goals) > 1:
            keyed = [(self._key(trial), trial) for trial in feasible]
            feasible = [trial for front in fronts(keyed) for trial in front]
        broken = [t for t in self._complete() if not t.is_feasible]
        broken.sort(key=lambda t: (sum(max(0.0, v) for v in t.constraints), self._key(t), t.number))
        return feasible + broken

    def front(self) -> list[TrialRecord]:
        """Return the feasible trials that no other one is better than in every way; with one metric, the best one."""
        found: list[tuple[tuple[float, ...], TrialRecord]] = []
        for key, number in self._feasible():  # in this order, none that comes later dominates one before
            if not any(is_dominated(key, better) for better, _ in found):
                found.append((key, self.trials[number]))
        return [trial for _, trial in found][: None if len(self.goals) > 1 else 1]

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial that keeps every constraint; of several metrics, by the first."""
        feasible = self._feasible()
        return self.trials[feasible[0][1]] if feasible else None

    def failures(self) -> list[tuple[str, list[TrialRecord]]]:
        """Return the failed trials grouped by their cause, the largest group first, with the reason of the first."""
        groups: dict[str, list[TrialRecord]] = {}
        for trial in self.trials.values():
            if trial.state is TrialState.FAILED:
                groups.setdefault(trial.group or failure_key(trial.reason), []).append(trial)
        named = [(trials[0].reason or "unknown", trials) for trials in groups.values()]
        return sorted(named, key=lambda group: -len(group[1]))

    def tried(self, params: Mapping[str, Any]) -> list[TrialRecord]:
        """Return the trials of this very point, in the order of their numbers."""
        return [self.trials[number] for number in self._points.get(_point_key(params), ())]

    @property
    def distinct(self) -> int:
        """How many different points have been asked for."""
        return len(self._points)

    def _complete(self) -> list[TrialRecord]:
        return [t for t in self.trials.values() if t.state is TrialState.COMPLETE and t.value is not None]

    def _key(self, trial: TrialRecord) -> tuple[float, ...]:
        values = trial.values or (() if trial.value is None else (trial.value,))
        return first_key(values, self.goals)

    def _feasible(self) -> list[tuple[tuple[float, ...], int]]:
        """Return key and number of the complete feasible trials in order of the first metric; built when needed."""
        if self._ranking is None:
            self._ranking = sorted((self._key(t), t.number) for t in self._complete() if t.is_feasible)
        return self._ranking

    # --- taking in events ------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take in one event. Events and fields that a later version adds are ignored."""
        at = float(event.get("at", self.last_at))
        self.next_seq = max(self.next_seq, event["seq"] + 1)
        kind = event.get("event")
        if kind == "opened":
            self.sessions += 1
            self.closed = None
        elif self.sessions and not (self.is_paused and not self._counts[TrialState.RUNNING]):
            self.active_s += max(0.0, at - self.last_at)
        self.last_at = at
        if "request" in event:
            self.requests.add(event["request"])
        if "number" in event and kind != "asked":
            self._apply_to_trial(event, at)
        elif kind is not None and (applied := _APPLIED.get(kind)) is not None:
            applied(self, event, at)

    def _apply_created(self, event: Event, at: float) -> None:
        self.created = event
        self.sweep_id = event["sweep_id"]
        self.goals = tuple(metric["goal"] for metric in self.metrics)
        self._apply_edited(event, at)

    def _apply_edited(self, event: Event, at: float) -> None:
        self.config = event.get("config", self.config)
        replicates = self.config.get("replicates")
        how = replicates.get("aggregate") if isinstance(replicates, dict) else None
        self._pooled = (how or "median") if self.config.get("duplicates") == "replicate" else None
        self.folder = event.get("folder", self.folder)
        self.identity = event.get("identity", self.identity)
        if "trials" in event:
            self._apply_budget(event, at)

    def _apply_prior(self, event: Event, at: float) -> None:
        first = len(self.prior)
        self.prior += tuple(prior_trial(told, first + place) for place, told in enumerate(event["trials"]))

    def _apply_budget(self, event: Event, at: float) -> None:
        self.trials_budget = event["trials"]
        self.parallel = event["parallel"]
        self.timeout_s = event["timeout_s"]
        self.limits = event.get("limits") or {}

    def _apply_closed(self, event: Event, at: float) -> None:
        self.closed = event["reason"]

    def _apply_paused(self, event: Event, at: float) -> None:
        self.is_paused = True

    def _apply_unpaused(self, event: Event, at: float) -> None:
        self.is_paused = False

    def _apply_added(self, event: Event, at: float) -> None:
        self.queue.extend(QueuedPoint(params, bool(event.get("is_extra"))) for params in event["points"])

    def _apply_asked(self, event: Event, at: float) -> None:
        self.study_attrs.update(event.get("study_attrs", {}))
        if event.get("is_queued") and self.queue:
            self.queue.popleft()
        number, run_ids = event["number"], event.get("run_ids") or [event["run_id"]]
        self.trials[number] = TrialRecord(
            number=number,
            run_id=event["run_id"],
            params=event["params"],
            attrs=dict(event.get("attrs", {})),
            asked_attrs=event.get("attrs", {}),
            asked_at=at,
            same_as=event.get("same_as"),
            runs=[RunRecord(index, run_id) for index, run_id in enumerate(run_ids)],
        )
        self._counts[TrialState.WAITING] += 1
        self.next_number = max(self.next_number, number + 1)
        self._points.setdefault(_point_key(event["params"]), []).append(number)

    def _apply_rerun(self, event: Event, at: float) -> None:
        for number in event["numbers"]:
            trial = self.trials.get(number)
            if trial is None:
                self.unknown += 1
                continue
            self._set_state(trial, TrialState.WAITING)
            trial.value = trial.values = trial.own_values = trial.reason = trial.group = trial.audit_values = None
            trial.constraints, trial.reports, trial.is_audited = (), {}, False
            trial.prune_step, trial.attrs = None, dict(trial.asked_attrs)
            for run in trial.runs:
                run.state, run.values, run.reason, run.not_before = TrialState.WAITING, None, None, 0.0
                run.tries.clear()
            trial.peers = ()
            self._pool(trial)

    def _apply_to_trial(self, event: Event, at: float) -> None:
        trial = self.trials.get(event["number"])
        index = event.get("replicate", 0)
        if trial is None or index >= len(trial.runs):
            self.unknown += 1
            return
        trial.attrs.update(event.get("attrs", {}))
        run = trial.runs[index]
        if "usage" in event:
            used = Usage.from_json(event["usage"])
            run.usage += used
            self.usage += used
        match event["event"]:
            case "started":
                apply_started(trial, run, event, at)
                self._set_state(trial, TrialState.RUNNING)
            case "reported":
                apply_reported(trial, event)
            case "prune":
                trial.prune_step = event["step"]
                trial.is_audited = bool(event.get("is_audited"))
            case "requeued":
                apply_requeued(trial, run, event, at)
                self._set_state(trial, open_state(trial))
            case "run_told":
                apply_result(run, event, at)
                self._set_state(trial, open_state(trial))
            case "told":
                self._apply_told(trial, event, at)
        self.study_attrs.update(event.get("study_attrs", {}))

    def _apply_told(self, trial: TrialRecord, event: Event, at: float) -> None:
        state = TrialState(event["state"])
        told = event.get("value")
        trial.value = None if told is None or math.isnan(float(told)) else float(told)
        values = numbers(event.get("values"))
        trial.values = values or ((trial.value,) if state is TrialState.COMPLETE and trial.value is not None else None)
        trial.own_values = trial.values
        trial.constraints = numbers(event.get("constraints")) or ()
        trial.audit_values = numbers(event.get("audited"))
        trial.reason, trial.group = event.get("reason"), event.get("group")
        trial.ended_at = at
        if len(trial.runs) == 1:
            apply_result(trial.runs[0], {**event, "values": trial.values}, at)
        if state is TrialState.COMPLETE:
            self._pool(trial)
        self._set_state(trial, state)
        self._progress.add(self.active_s, None if self.best is None else self.best.value)

    def _pool(self, trial: TrialRecord) -> None:
        """Have all trials of a point rank by what their results come to together, where the sweep wants that."""
        if self._pooled is None:
            return
        same = [each for each in self.tried(trial.params) if each.own_values is not None and each.same_as is None]
        results = [each.own_values for each in same if each.own_values is not None]
        if not results or (len(results) == 1 and not same[0].peers):
            return
        columns = zip(*results, strict=True)
        pooled = tuple(
            aggregate(list(each), self._pooled, goal) for each, goal in zip(columns, self.goals, strict=True)
        )
        peers = tuple(own[0] for own in results) if len(results) > 1 else ()
        for each in same:
            each.values, each.value, each.peers = pooled, pooled[0], peers
        self._ranking = None

    def _set_state(self, trial: TrialRecord, state: TrialState) -> None:
        was, trial.state = trial.state, state
        self._counts[was] -= 1
        self._counts[state] += 1
        if TrialState.COMPLETE not in (was, state) or self._ranking is None:
            return
        if was is TrialState.COMPLETE:
            self._ranking = None
        elif trial.value is not None and trial.is_feasible:
            bisect.insort(self._ranking, (self._key(trial), trial.number))


_APPLIED = {
    "created": SweepRecord._apply_created,
    "edited": SweepRecord._apply_edited,
    "prior": SweepRecord._apply_prior,
    "budget": SweepRecord._apply_budget,
    "closed": SweepRecord._apply_closed,
    "paused": SweepRecord._apply_paused,
    "unpaused": SweepRecord._apply_unpaused,
    "added": SweepRecord._apply_added,
    "asked": SweepRecord._apply_asked,
    "rerun": SweepRecord._apply_rerun,
}


def _point_key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
