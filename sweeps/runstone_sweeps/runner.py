"""The coordinator of a sweep: asks, starts, watches, prunes, tells. The only writer of the sweep's record.

One thread, one loop. Whatever it decides is in the journal before anything depends on it, so it may be
killed at any point and go on from there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import runstone
from runstone import LaunchedRun, MetricTail, RunInfo, Status, Workspace
from runstone_sweeps.command import build_command, uses_json_file
from runstone_sweeps.environment import process_environment
from runstone_sweeps.journal import Event, Journal
from runstone_sweeps.process import Ended, Started, TrialProcesses, kill_leftover, start_time
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.space import nest
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder, new_id
from runstone_sweeps.study import Search, derive_seed
from runstone_sweeps.verdict import Cause, Verdict, failure_key, judge, judge_run

TICK_S = 0.05
# Between SIGTERM and SIGKILL, for a trial that did not stop when asked.
TERM_S = 5.0
# A sweep whose first trials all fail alike has a defect in its script; more of them tell nothing.
FIRST_FAILURES = 3
_RUN_ENDS = {
    TrialState.COMPLETE: Status.FINISHED,
    TrialState.PRUNED: Status.PRUNED,
    TrialState.FAILED: Status.FAILED,
    TrialState.WAITING: Status.STOPPED,
}


@dataclass(slots=True)
class RunningTrial:
    """A trial whose process lives.

    Attributes:
        trial: Its record.
        last: Step and value of the objective metric logged last.
        started_s: Monotonic time of its start.
        cause: Why the sweep asked it to end, if it did.
    """

    trial: TrialRecord
    run: LaunchedRun
    tail: MetricTail
    console: Path
    started_s: float
    last: tuple[int, float] | None = None
    cause: Cause | None = None
    asked_to_end_s: float = 0.0
    signals_sent: list[signal.Signals] = field(default_factory=list)
    points_seen: int = 0


class Watcher(Protocol):
    """Who is told how a sweep goes, in the coordinator's own thread."""

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Take note of one event that is now part of the record."""

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Say that no more trials start, and that so many were asked to stop within `grace_s`."""

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Show how things stand; called about twenty times a second."""


class Coordinator:
    """Runs one session of a sweep. Needs the sweep's lock.

    Args:
        workspace: Holds the trials' runs.
        folder: The sweep's files.
        record: What its events say.
        spec: What to do, with the budget of this session.
        processes: Starts the trials.
        watcher: Is told how it goes.
    """

    def __init__(
        self,
        workspace: Workspace,
        folder: SweepFolder,
        record: SweepRecord,
        spec: SweepSpec,
        processes: TrialProcesses,
        watcher: Watcher,
    ) -> None:
        self._workspace = workspace
        self._folder = folder
        self._record = record
        self._spec = spec
        self._processes = processes
        self._watcher = watcher
        self._seed = int(record.created["seed"])
        self._journal = Journal(folder.path, next_seq=record.next_seq)
        self._running: dict[int, RunningTrial] = {}
        self._ending: str | None = None
        self._signals = 0
        self._session_ends: list[TrialRecord] = []
        self._environment = process_environment()
        self._project = spec.project or self._environment.get("RUNSTONE_PROJECT") or "default"

    def run(self) -> str:
        """Work until the budget is spent or someone stops it.

        Returns:
            Why it ended: `finished`, `timeout`, `stopped`, or `failing` where the first trials all failed alike.
        """
        spec = self._spec
        with self._catching_signals():
            try:
                self._emit("opened", pid=os.getpid(), version=runstone.__version__)
                self._emit("budget", trials=spec.trials, parallel=spec.parallel, timeout_s=spec.timeout_s)
                self._search = Search(
                    spec.space, spec.metric, spec.sampler, spec.pruner, seed=self._seed, record=self._record
                )
                self._recover()
                reason = self._work()
                self._emit("closed", is_durable=True, reason=reason)
                return reason
            finally:
                for running in self._running.values():
                    running.run.close()
                self._journal.close()

    # --- the loop --------------------------------------------------------------------------------------------------

    def _work(self) -> str:
        while True:
            self._look_for_reasons_to_end()
            has_started = self._ending is None and self._start_next()
            if not self._running and not has_started:
                return self._ending or "finished"
            for news in self._processes.poll(0.0 if has_started else TICK_S):
                if isinstance(news, Started):
                    self._on_started(news)
                else:
                    self._on_ended(news)
            now = time.monotonic()
            for running in list(self._running.values()):
                self._follow(running, now)
            self._watcher.on_tick(self._record, list(self._running.values()))

    def _look_for_reasons_to_end(self) -> None:
        if self._signals > 1:
            for running in self._running.values():
                self._send_signal(running, signal.SIGKILL)
        if self._ending is not None:
            return
        timeout_s = self._spec.timeout_s
        worked_s = self._record.active_s + time.time() - self._record.last_at
        if self._signals or self._folder.is_stop_requested:
            self._ending = "stopped"
        elif timeout_s is not None and worked_s >= timeout_s:
            self._ending = "timeout"
        elif self._fails_from_the_start():
            self._ending = "failing"
        if self._ending is not None:
            self._watcher.on_ending(self._ending, len(self._running), self._spec.grace_s)
            for running in self._running.values():
                self._ask_to_end(running, "stop")

    def _fails_from_the_start(self) -> bool:
        first = self._session_ends[:FIRST_FAILURES]
        return (
            len(first) == FIRST_FAILURES
            and all(trial.state is TrialState.FAILED for trial in first)
            and len({failure_key(trial.reason) for trial in first}) == 1
        )

    def _start_next(self) -> bool:
        """Start one more trial, if there is room and something to do."""
        if len(self._running) >= self._spec.parallel:
            return False
        trials = self._record.trials.values()
        waiting = (t for t in trials if t.state is TrialState.WAITING and t.number not in self._running)
        trial = next(waiting, None) or self._ask()
        if trial is None:
            return False
        self._start(trial)
        return True

    # --- asking and starting ---------------------------------------------------------------------------------------

    def _ask(self) -> TrialRecord | None:
        number = max(self._record.trials, default=-1) + 1
        if self._spec.trials is not None and number >= self._spec.trials:
            return None
        asked = self._search.ask(number)
        # The run's id is decided here, so that a run without an event, or an event without a run, cannot be doubled.
        self._emit(
            "asked",
            number=number,
            run_id=new_id(),
            params=asked.params,
            attrs=asked.attrs,
            study_attrs=asked.study_attrs,
        )
        return self._record.trials[number]

    def _start(self, trial: TrialRecord) -> None:
        run = self._launch_run(trial)
        tail = self._workspace.follow(run.id)
        tail.poll()  # what an earlier attempt logged has been reported
        console = run.path / f"console.{run.attempt}.log"
        spec = self._spec
        json_file = None
        if uses_json_file(spec.command):
            json_file = self._folder.path / f"params.{trial.number}.json"
            json_file.write_text(_json(nest(trial.params)), encoding="utf-8")
        command = build_command(
            trial.params,
            script=spec.script,
            command=spec.command,
            function=spec.function,
            metric=spec.metric.name,
            environment=self._environment,
            json_file=json_file,
        )
        environment = {
            **self._environment,
            **spec.env,
            "RUNSTONE_WORKSPACE": str(self._workspace.path),
            "RUNSTONE_PROJECT": self._project,
            "RUNSTONE_GROUP": self._record.sweep_id,
            "RUNSTONE_RUN_ID": trial.run_id,
            "RUNSTONE_TRIAL": _json(nest(trial.params)),
            "RUNSTONE_SEED": str(derive_seed(self._seed, "trial", trial.number)),
            "RUNSTONE_DISABLED": "0",  # a trial that records nothing has no result
        }
        self._running[trial.number] = RunningTrial(trial, run, tail, console, time.monotonic())
        self._processes.start(trial.number, command, env=environment, cwd=spec.working_dir, console=console)

    def _launch_run(self, trial: TrialRecord) -> LaunchedRun:
        if self._workspace.find_run_folder(trial.run_id) is not None:
            return self._workspace.launched_run(trial.run_id)
        return self._workspace.create_run(
            project=self._project,
            name=f"{self._record.name}-{trial.number}",
            params=nest(trial.params),
            tags={"sweep": self._record.name, "trial": str(trial.number)},
            group=self._record.sweep_id,
            run_id=trial.run_id,
        )

    # --- watching --------------------------------------------------------------------------------------------------

    def _on_started(self, news: Started) -> None:
        running = self._running[news.number]
        running.started_s = time.monotonic()
        self._emit("started", number=news.number, pid=news.pid, pid_started=start_time(news.pid))

    def _follow(self, running: RunningTrial, now: float) -> None:
        self._take_reports(running)
        spec = self._spec
        if spec.trial_timeout_s is not None and now - running.started_s >= spec.trial_timeout_s:
            self._ask_to_end(running, "trial_timeout")
        if running.cause is not None:
            waited_s = now - running.asked_to_end_s
            if waited_s >= spec.grace_s:
                self._send_signal(running, signal.SIGTERM)
            if waited_s >= spec.grace_s + TERM_S:
                self._send_signal(running, signal.SIGKILL)

    def _take_reports(self, running: RunningTrial, *, has_ended: bool = False) -> None:
        """Report what the trial logged since the last look, and prune it if the pruner says so and it still runs."""
        series = running.tail.poll().get(self._spec.metric.name)
        if series is None or not len(series):
            return
        steps, values = series.step.tolist(), [float(value) for value in series.value]
        running.last = (steps[-1], values[-1])
        points = list(_thinned(steps, values, running.points_seen))
        running.points_seen += len(steps)
        known = running.trial.reports if running.trial.attempts <= 1 else {}
        points = [point for point in points if point[0] >= 0 and point[0] not in known]
        if not points:
            return
        self._emit("reported", number=running.trial.number, points=[[s, _number(v)] for s, v in points])
        decided = self._search.report(running.trial, self._record)
        if decided is not None and running.cause is None and not has_ended:
            attrs = self._search.new_attrs(running.trial.number)
            self._emit("prune", number=running.trial.number, step=decided, attrs=attrs)
            self._ask_to_end(running, "prune")

    def _ask_to_end(self, running: RunningTrial, cause: Cause) -> None:
        if running.cause is None:
            running.cause = cause
            running.asked_to_end_s = time.monotonic()
            running.run.request_stop("prune" if cause == "prune" else "stop")

    def _send_signal(self, running: RunningTrial, sent: signal.Signals) -> None:
        if sent not in running.signals_sent:
            running.signals_sent.append(sent)
            self._processes.send_signal(running.trial.number, sent)

    # --- ends ------------------------------------------------------------------------------------------------------

    def _on_ended(self, news: Ended) -> None:
        running = self._running[news.number]
        self._take_reports(running, has_ended=True)
        verdict = judge(
            RunInfo(running.run.path),
            self._spec.metric,
            code=news.code,
            cause=running.cause,
            console=running.console,
            limit_s=self._spec.trial_timeout_s,
        )
        trial = running.trial
        del self._running[news.number]
        running.run.end(_RUN_ENDS[verdict.state], failure=verdict.failure)
        if verdict.is_crash and trial.crashes < self._spec.retries:
            verdict = Verdict(TrialState.WAITING, reason=verdict.reason, is_crash=True)
        if verdict.state is TrialState.WAITING:
            self._emit("requeued", number=trial.number, reason=verdict.reason, is_crash=verdict.is_crash)
            if self._ending is None:
                self._search.rebuild(self._record)
            return
        self._tell(trial, verdict)
        self._session_ends.append(trial)

    def _tell(self, trial: TrialRecord, verdict: Verdict) -> None:
        value = verdict.value
        if verdict.state is TrialState.PRUNED and trial.last_report is not None:
            value = trial.last_report[1]
        attrs, study_attrs = self._search.tell(trial.number, verdict.state, value)
        self._emit(
            "told",
            is_durable=True,
            number=trial.number,
            state=str(verdict.state),
            value=None if value is None else _number(value),
            reason=verdict.reason,
            attrs=attrs,
            study_attrs=study_attrs,
        )

    def _recover(self) -> None:
        """Settle the trials that ran when the last session ended: tell those that had ended, requeue the rest."""
        requeued = False
        for trial in self._record.trials.values():
            if trial.state is not TrialState.RUNNING:
                continue
            if trial.pid is not None:
                kill_leftover(trial.pid, trial.pid_started)
            verdict = self._verdict_from_files(trial)
            if verdict.state is TrialState.WAITING:
                self._emit("requeued", number=trial.number, reason=verdict.reason)
                requeued = True
            else:
                self._tell(trial, verdict)
        if requeued:
            self._search.rebuild(self._record)

    def _verdict_from_files(self, trial: TrialRecord) -> Verdict:
        again = Verdict(TrialState.WAITING, reason="the sweep's process died")
        if trial.prune_step is not None:
            again = Verdict(TrialState.PRUNED)
        path = self._workspace.find_run_folder(trial.run_id)
        if path is None:
            return again
        info = RunInfo(path)
        # A stop of the whole sweep ends runs as stopped, too.
        verdict = judge_run(info, self._spec.metric) if info.status is not Status.STOPPED else None
        if verdict is None:
            return again
        if self._spec.metric.name in info.metrics:
            series = info.series(self._spec.metric.name)
            points = [
                [step, _number(value)]
                for step, value in _thinned(series.step.tolist(), [float(v) for v in series.value], 0)
                if step >= 0 and step not in trial.reports
            ]
            if points:
                self._emit("reported", number=trial.number, points=points)
                self._search.report(trial, self._record)
        return verdict

    # --- small parts -----------------------------------------------------------------------------------------------

    def _emit(self, kind: str, *, is_durable: bool = False, **fields: Any) -> None:
        """Record one event: on disk, in memory, and on the screen."""
        event = self._journal.append({"event": kind, "at": time.time(), **fields}, is_durable=is_durable)
        self._record.apply(event)
        self._watcher.on_event(event, self._record)

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM instead of dying of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _thinned(steps: Sequence[int], values: Sequence[float], seen: int) -> Iterator[tuple[int, float]]:
    """Yield the first point of each step, fewer of them the more there were: 256, then 128 for each doubling.

    A pruner compares trials at equal steps and looks at all reports each time. What is left out depends only
    on how many points came before, so trials that log alike are reported alike.

    Args:
        steps, values: The new points.
        seen: How many points the trial logged before them.
    """
    known = set()
    for index, (step, value) in enumerate(zip(steps, values, strict=True), seen):
        if step not in known and index % (1 << max(0, index.bit_length() - 8)) == 0:
            known.add(step)
            yield step, value


def _number(value: float) -> float | str:
    """Return a float as JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
