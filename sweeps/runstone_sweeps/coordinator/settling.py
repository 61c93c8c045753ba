"""What becomes of a run that ended: it is told, tried again, or waits for the other runs of its trial."""

from __future__ import annotations

import time
from typing import Any

from runstone import RunInfo, Status
from runstone_sweeps.coordinator.asking import Asker
from runstone_sweeps.coordinator.starting import Starter
from runstone_sweeps.coordinator.verdict import Exit, Verdict, judge, judge_run
from runstone_sweeps.coordinator.watching import Watch, missed_points
from runstone_sweeps.coordinator.work import RunningTrial, Work
from runstone_sweeps.executors.executor import TrialEnded, TrialLost, TrialStarted, key_of
from runstone_sweeps.processes.trials import kill_leftover
from runstone_sweeps.record import RunRecord, TrialRecord, TrialState
from runstone_sweeps.record.journal import json_number
from runstone_sweeps.record.ranking import aggregate
from runstone_sweeps.record.usage import Usage, is_energy

# A sweep whose first trials all fail alike has a defect in its script; more of them tell nothing.
FIRST_FAILURES = 3
_MAX_BACKOFF_S = 3600.0
_RUN_ENDS = {
    TrialState.COMPLETE: Status.FINISHED,
    TrialState.PRUNED: Status.PRUNED,
    TrialState.FAILED: Status.FAILED,
    TrialState.WAITING: Status.STOPPED,
}


class Settler:
    """Decides on runs that ended, and tells the search and the record.

    Attributes:
        ended: How many runs it has decided on in this session.
        first_ends: The trials of this session that ended first.
    """

    def __init__(self, work: Work, watch: Watch, asker: Asker, starter: Starter) -> None:
        self._work = work
        self._watch = watch
        self._asker = asker
        self._starter = starter
        self.first_ends: list[TrialRecord] = []
        self.ended = 0

    # --- live ------------------------------------------------------------------------------------------------------

    def on_started(self, news: TrialStarted) -> None:
        """Take note that the process of a trial is there."""
        running = self._work.running[news.key]
        running.started_s = running.last_heard_s = time.monotonic()
        running.gpus = news.gpus
        told: dict[str, Any] = {"gpus": news.gpus} if news.gpus else {}
        if news.host is not None:
            told["host"] = news.host
        self._emit("started", running.trial, running.record, pid=news.pid, pid_started=news.pid_started, **told)

    def on_ended(self, news: TrialEnded | TrialLost) -> None:
        """Decide on a run whose processes are gone."""
        work = self._work
        running = work.running.get(news.key)
        if running is None:  # told twice, of a host that came back
            return
        self._watch.take_reports(running, has_ended=True)
        verdict = self._verdict(running, news)
        del work.running[news.key]
        running.run.end(_RUN_ENDS[verdict.state], failure=verdict.failure)
        cpu_s, rss = (news.cpu_s, news.max_rss_bytes) if isinstance(news, TrialEnded) else (0.0, 0)
        usage = work.usage_of(running, time.monotonic(), cpu_s=cpu_s, max_rss_bytes=rss)
        self._settle(running.trial, running.record, verdict, usage)

    def _verdict(self, running: RunningTrial, news: TrialEnded | TrialLost) -> Verdict:
        spec = self._work.spec
        is_silent = running.cause == "no_report_timeout"
        exit_ = Exit(
            code=news.code if isinstance(news, TrialEnded) else None,
            console=running.console,
            cause=running.cause,
            limit_s=spec.no_report_timeout_s if is_silent else spec.trial_timeout_s,
            is_over_memory=isinstance(news, TrialEnded) and news.is_over_memory,
            was_oom_killer_here=isinstance(news, TrialEnded) and news.was_oom_killer_here,
        )
        verdict = judge(RunInfo(running.run.path), self._work.wanted, exit_, running.heard)
        if isinstance(news, TrialLost) and running.cause is None and verdict.kind == "preempted":
            if not news.is_preempted:
                return Verdict(TrialState.WAITING, reason=news.reason)
            return Verdict(TrialState.FAILED, reason=news.reason, kind="preempted", failure=verdict.failure)
        return verdict

    # --- what follows from a verdict -------------------------------------------------------------------------------

    def _settle(self, trial: TrialRecord, record: RunRecord, verdict: Verdict, usage: Usage) -> None:
        self.ended += 1
        kind = verdict.kind
        if verdict.state is TrialState.FAILED and kind is not None and not trial.is_audited:
            tries = record.tries[kind]
            if tries < self._work.spec.retries.of(kind):
                wait_s = min(_MAX_BACKOFF_S, self._work.spec.retries.backoff_s * 2.0**tries)
                self._requeue(trial, record, verdict, usage, kind=kind, not_before=time.time() + wait_s)
                return
        if verdict.state is TrialState.WAITING:
            self._requeue(trial, record, verdict, usage)
        elif len(trial.runs) == 1 or (record.index == 0 and verdict.state is not TrialState.COMPLETE):
            self._tell(trial, verdict, usage)
        else:
            self._settle_replicate(trial, record, verdict, usage)

    def _requeue(self, trial: TrialRecord, record: RunRecord, verdict: Verdict, usage: Usage, **fields: Any) -> None:
        self._emit("requeued", trial, record, reason=verdict.reason, usage=usage.to_json(), **fields)
        if record.index == 0 and trial.reports:  # what the pruner was told of it is void
            self._work.is_search_stale = True
        self._asker.add(trial)

    def _settle_replicate(self, trial: TrialRecord, record: RunRecord, verdict: Verdict, usage: Usage) -> None:
        self._emit(
            "run_told",
            trial,
            record,
            is_durable=True,
            state=str(verdict.state),
            reason=verdict.reason,
            usage=usage.to_json(),
            **_results(verdict),
        )
        if record.index == 0:
            self._asker.add(trial)
        self._tell_if_whole(trial)

    def _tell_if_whole(self, trial: TrialRecord) -> None:
        """Tell a trial all of whose runs have ended."""
        if not all(run.state.is_ended for run in trial.runs):
            return
        results = [run for run in trial.runs if run.state is TrialState.COMPLETE and run.values]
        how = self._work.spec.replicates.aggregate
        metrics = self._work.spec.metrics
        values = [
            aggregate([run.values[i] for run in results if run.values], how, m.goal) for i, m in enumerate(metrics)
        ]
        # Of a constraint, what counts is the same kind of middle; its worst is the largest violation.
        bounds = zip(*(run.constraints for run in results), strict=True)
        failed = len(trial.runs) - len(results)
        verdict = Verdict(
            TrialState.COMPLETE,
            values=tuple(values),
            constraints=tuple(aggregate(list(bound), how, "minimize") for bound in bounds),
            reason=f"{failed} of {len(trial.runs)} runs did not complete" if failed else None,
        )
        self._tell(trial, verdict, Usage())

    def tell_same(self, trial: TrialRecord, before: TrialRecord) -> None:
        """Tell a trial the result of an earlier one of the same point."""
        self.ended += 1
        verdict = Verdict(
            TrialState.COMPLETE,
            values=before.values,
            constraints=before.constraints,
            reason=f"the same point as trial {before.number}",
        )
        if before.state is not TrialState.COMPLETE:  # someone had it run again in between
            verdict = Verdict(TrialState.FAILED, reason=f"trial {before.number}, whose result it takes, is run again")
        self._tell(trial, verdict, Usage())

    def _tell(self, trial: TrialRecord, verdict: Verdict, usage: Usage) -> None:
        state, values, told = verdict.state, verdict.values, _results(verdict)
        value = values[0] if values else None
        if trial.is_audited:
            # What came of it is kept, and has no part in the search: that is what it would be without the audit.
            told = {} if state is not TrialState.COMPLETE else {"audited": told["values"]}
            state, values = TrialState.PRUNED, None
        if state is TrialState.PRUNED:
            value = self._last_value(trial)
        attrs, study_attrs = self._work.search.tell(trial.number, state, values, verdict.constraints if values else ())
        if used := usage.to_json():
            told["usage"] = used
        if state is TrialState.FAILED and verdict.group:
            told["group"] = verdict.group
        self._work.ledger.emit(
            "told",
            is_durable=True,
            number=trial.number,
            state=str(state),
            value=None if value is None else json_number(value),
            reason=None if trial.is_audited else verdict.reason,
            attrs=attrs,
            study_attrs=study_attrs,
            **told,
        )
        if len(self.first_ends) < FIRST_FAILURES:
            self.first_ends.append(trial)

    def _last_value(self, trial: TrialRecord) -> float | None:
        """Return what a pruned trial is told with, in the unit of the first metric, if that is what is reported."""
        if self._work.spec.metric is not self._work.spec.metrics[0] or trial.last_report is None:
            return None
        return trial.last_report[1]

    # --- after a session that died ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """Settle what ran when the last session ended.

        Runs that live on, on other hosts, are followed again; those that had ended are told from their files; the
        others are started again.
        """
        living = {started.key: started for started in self._work.executor.survivors()}
        for trial in list(self._work.record.trials.values()):
            if trial.state.is_ended:
                continue
            if trial.same_as is not None:
                self.tell_same(trial, self._work.record.trials[trial.same_as])
                continue
            for record in trial.runs:
                if record.state is TrialState.RUNNING:
                    self._recover(trial, record, living.get(key_of(trial.number, record.index)))
            if not trial.state.is_ended:
                self._tell_if_whole(trial)

    def _recover(self, trial: TrialRecord, record: RunRecord, living: TrialStarted | None) -> None:
        if living is not None:
            self._watch.catch_up(self._starter.adopt(trial, record, living))
            return
        if record.pid is not None and record.host is None:
            kill_leftover(record.pid, record.pid_started)
        path = self._work.workspace.find_run_folder(record.run_id)
        info = RunInfo(path) if path is not None else None
        verdict = self._verdict_from_files(trial, record, info)
        self._settle(trial, record, verdict, self._usage_from_files(record, info))

    def _verdict_from_files(self, trial: TrialRecord, record: RunRecord, info: RunInfo | None) -> Verdict:
        again = Verdict(TrialState.WAITING, reason="the sweep's process died")
        if record.index == 0 and trial.prune_step is not None and not trial.is_audited:
            again = Verdict(TrialState.PRUNED)
        if info is None:
            return again
        # A stop of the whole sweep ends runs as stopped, too.
        verdict = judge_run(info, self._work.wanted) if info.status is not Status.STOPPED else None
        if verdict is None:
            return again
        metric = self._work.spec.metric.name
        if metric in info.metrics and record.index == 0 and not trial.is_audited:
            attempt = info.attempts[-1].number if info.attempts else 1
            points = missed_points(info, metric, trial, attempt=attempt)
            if points:
                told = [[step, json_number(value)] for step, value in points]
                self._work.ledger.emit("reported", number=trial.number, points=told)
                self._work.search.report(trial, self._work.record)
        return verdict

    def _usage_from_files(self, record: RunRecord, info: RunInfo | None) -> Usage:
        """Return what an attempt used whose end nobody saw: until its run's last sign of life."""
        begun = record.started_at
        if info is None or begun is None:
            return Usage()
        ended = info.ended_at.timestamp() if info.ended_at is not None else begun
        wall_s = max(0.0, min(ended, time.time()) - begun)
        meters = {name: found.max or 0.0 for name, found in info.metrics.items() if is_energy(name)}
        return Usage(gpu_s=record.gpus * wall_s, wall_s=wall_s, energy_j=self._work.energy_of(record, meters))

    def _emit(self, kind: str, trial: TrialRecord, record: RunRecord, /, **fields: Any) -> None:
        if record.index:
            fields["replicate"] = record.index
        self._work.ledger.emit(kind, number=trial.number, **fields)


def _results(verdict: Verdict) -> dict[str, Any]:
    """Return the results of a verdict as an event keeps them."""
    told: dict[str, Any] = {}
    if verdict.values is not None:
        told["values"] = [json_number(value) for value in verdict.values]
    if verdict.constraints:
        told["constraints"] = [json_number(value) for value in verdict.constraints]
    return told
