"""What is to be run next: trials that wait, points that someone named, and what the sampler proposes."""

from __future__ import annotations

import heapq
import time
from typing import Any

from runstone_sweeps.coordinator.work import Work
from runstone_sweeps.record import RunRecord, TrialRecord, TrialState
from runstone_sweeps.store import new_id


class Asker:
    """Finds the next run of one session. What it costs does not grow with the number of trials."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: list[tuple[float, int, int]] = []
        self._queued: set[tuple[int, int]] = set()
        self.is_exhausted = False

    def fill(self) -> None:
        """Take in all runs that the record says are waiting."""
        self._waiting, self._queued = [], set()
        for trial in self._work.record.trials.values():
            if not trial.state.is_ended:
                self.add(trial)

    def add(self, trial: TrialRecord) -> None:
        """Take in the runs of a trial that are to be started: the first one, and the others once that is complete."""
        first, *others = trial.runs
        ready = [first] if first.state is not TrialState.COMPLETE else others
        for run in ready:
            entry = (run.not_before, trial.number, run.index)
            if run.state is TrialState.WAITING and entry[1:] not in self._queued:
                self._queued.add(entry[1:])
                heapq.heappush(self._waiting, entry)

    @property
    def has_waiting(self) -> bool:
        """Whether there are runs to be started, now or later."""
        return bool(self._waiting)

    def next(self) -> tuple[TrialRecord, RunRecord] | None:
        """Return the next run to start; `None`: there is none now."""
        if self._waiting and self._waiting[0][0] <= time.time():
            _, number, index = heapq.heappop(self._waiting)
            self._queued.discard((number, index))
            trial = self._work.record.trials[number]
            return trial, trial.runs[index]
        return None

    def ask(self) -> TrialRecord | None:
        """Ask for one more trial; `None`: the budget is spent, or there is no point left to try."""
        work, record = self._work, self._work.record
        number = record.next_number
        is_in_budget = work.spec.trials is None or number < work.spec.trials
        if not is_in_budget and not any(point.is_extra for point in record.queue):
            return None
        fixed = record.queue[0].params if record.queue else None
        if fixed is None and self._is_all_tried():
            self.is_exhausted = True
            return None
        must_be_new = work.spec.duplicates == "forbid" and fixed is None
        asked = work.search.ask(
            number, fixed=fixed, is_taken=(lambda params: bool(record.tried(params))) if must_be_new else None
        )
        if must_be_new and record.tried(asked.params):
            self.is_exhausted = True
            return None
        # The runs' ids are decided here, so that a run without an event, or an event without a run, cannot be doubled.
        same = self._result_to_reuse(asked.params)
        run_ids = [new_id() for _ in range(work.spec.replicates.count)] if same is None else [same.run_id]
        told: dict[str, Any] = {"run_ids": run_ids} if len(run_ids) > 1 else {}
        if same is not None:
            told["same_as"] = same.number
        if fixed is not None:
            told["is_queued"] = True
        work.ledger.emit(
            "asked",
            number=number,
            run_id=run_ids[0],
            params=asked.params,
            attrs=asked.attrs,
            study_attrs=asked.study_attrs,
            **told,
        )
        trial = record.trials[number]
        if same is None:
            self.add(trial)
        return trial

    def _is_all_tried(self) -> bool:
        """Tell whether a finite space holds no point that was not tried, where none is to be run twice."""
        size = self._work.spec.space.size
        is_once = self._work.spec.duplicates in ("forbid", "reuse")
        return is_once and size is not None and self._work.record.distinct >= size

    def _result_to_reuse(self, params: dict[str, Any]) -> TrialRecord | None:
        if self._work.spec.duplicates != "reuse":
            return None
        before = self._work.record.tried(params)
        return next((trial for trial in before if trial.state is TrialState.COMPLETE and trial.same_as is None), None)
