"""The coordinator of a sweep: one thread, one loop. The only writer of the sweep's record.

Whatever it decides is in the journal before anything depends on it, so it may be killed at any point and go on
from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import runstone
from runstone import Workspace
from runstone_sweeps.config import parse_spec
from runstone_sweeps.coordinator.asking import Asker
from runstone_sweeps.coordinator.settling import FIRST_FAILURES, Settler
from runstone_sweeps.coordinator.starting import Starter
from runstone_sweeps.coordinator.watching import Watch
from runstone_sweeps.coordinator.work import Ledger, RunningTrial, Watcher, Work
from runstone_sweeps.environment import process_environment
from runstone_sweeps.executors.executor import Executor, TrialStarted
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.failures import failure_key
from runstone_sweeps.record.journal import Journal
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder, budget_fields, config_fields
from runstone_sweeps.store.requests import Requests, answer_all
from runstone_sweeps.study import Search

__all__ = ["Coordinator", "RunningTrial", "Watcher"]

# A decision to prune comes within two of these after the point that decides it was logged. Where looking at all trials
# takes long, it is done less often, so that it takes a fifth of a core at most.
TICK_S = 0.02
_MAX_TICK_S = 0.25
_SHARE = 5.0
# While nothing runs and something waits, or the sweep is paused.
_IDLE_S = 0.1
# Results that come faster go to the disk together. What is lost with the machine is found again in the runs' files.
_SYNC_EVERY_S = 0.1
# Trials that are asked to stop when a sweep ends for these reasons; for the others they run to their end.
_IN_A_HURRY = frozenset({"stopped", "timeout", "budget", "failing"})


class Coordinator:
    """Runs one session of a sweep. Needs the sweep's lock.

    Args:
        workspace: Holds the trials' runs.
        folder: The sweep's files.
        record: What its events say.
        spec: What to do, with the budget of this session.
        executor: Starts the trials.
        watcher: Is told how it goes.
    """

    def __init__(
        self,
        workspace: Workspace,
        folder: SweepFolder,
        record: SweepRecord,
        spec: SweepSpec,
        executor: Executor,
        watcher: Watcher,
    ) -> None:
        self._watcher = watcher
        self._record = record
        self._journal = Journal(folder.path, next_seq=record.next_seq, sync_every_s=_SYNC_EVERY_S)
        self._requests = Requests(folder)
        self._ending: str | None = None
        self._signals = 0
        self._ended_at_last_look = -1
        self._has_to_wait = False
        environment = process_environment()
        seed = int(record.created["seed"])
        self._work = work = Work(
            workspace=workspace,
            folder=folder,
            record=record,
            spec=spec,
            latest_search=Search(spec, seed=seed, record=record),
            executor=executor,
            ledger=Ledger(self._journal, record, watcher),
            seed=seed,
            environment=environment,
            project=spec.project or environment.get("RUNSTONE_PROJECT") or "default",
        )
        self._watch = Watch(work)
        self._starter = Starter(work)
        self._asker = Asker(work)
        self._settler = Settler(work, self._watch, self._asker, self._starter)

    def run(self) -> str:
        """Work until the budget is spent or someone stops it.

        Returns:
            Why it ended: `finished`; `timeout` or `budget` where that is spent; `stopped`; `failing` where the first
            trials all failed alike; `target` where a result is good enough; `converged` where no better one is to be
            expected; `exhausted` where every point has been tried.

        Raises:
            RecordNotWritten: the disk takes no more.
            SupervisorLost: all trials are gone.
        """
        work = self._work
        with self._catching_signals():
            try:
                self._open()
                self._settler.recover()
                self._asker.fill()
                reason = self._loop()
                work.ledger.emit("closed", is_durable=True, reason=reason)
                return reason
            finally:
                for running in work.running.values():
                    running.run.close()
                self._journal.close()

    def _open(self) -> None:
        work, spec, emit = self._work, self._work.spec, self._work.ledger.emit
        emit("opened", pid=os.getpid(), version=runstone.__version__)
        if dict(spec.raw) != work.record.config:  # of the same search, with another budget
            emit("edited", **config_fields(spec))
        emit("budget", **budget_fields(spec))
        if work.record.sessions == 1 and spec.points:
            emit("added", points=[dict(point) for point in spec.points])
        if work.record.is_paused:  # whoever goes on with a sweep wants it to go on
            emit("unpaused")
        self._take_requests()

    # --- the loop --------------------------------------------------------------------------------------------------

    def _loop(self) -> str:
        work = self._work
        cost_s = looked_s = 0.0
        ended = -1
        while True:
            # Each time that a run has ended, before another one starts; else not more often than needed.
            if ended != self._settler.ended or time.monotonic() - looked_s >= TICK_S:
                ended, looked_s = self._settler.ended, time.monotonic()
                if self._requests.has_news():
                    self._take_requests()
                self._look_for_reasons_to_end()
            has_started = self._start_next()
            if not work.running and not has_started and self._is_done():
                return self._ending or ("exhausted" if self._asker.is_exhausted else "finished")
            for news in work.executor.poll(0.0 if has_started else self._tick_s(cost_s)):
                if isinstance(news, TrialStarted):
                    self._settler.on_started(news)
                else:
                    self._settler.on_ended(news)
            now_s = time.monotonic()
            for running in list(work.running.values()):
                self._watch.follow(running, now_s)
            work.ledger.sync()
            for note in work.executor.take_notes():
                self._watcher.on_note(note)
            self._watcher.on_tick(work.record, list(work.running.values()))
            cost_s = time.monotonic() - now_s

    def _tick_s(self, cost_s: float) -> float:
        return min(_MAX_TICK_S, max(TICK_S, _SHARE * cost_s)) if self._work.running else _IDLE_S

    def _is_done(self) -> bool:
        """Return whether nothing is left to be waited for, where nothing runs and nothing could be started."""
        if self._ending is not None:
            return True
        return not (self._asker.has_waiting or self._record.is_paused or self._has_to_wait)

    def _start_next(self) -> bool:
        """Start one more run, if there is room and something to do; or tell a trial that needs none."""
        work = self._work
        self._has_to_wait = False
        if self._ending is not None or work.record.is_paused or len(work.running) >= work.spec.parallel:
            return False
        if not work.executor.has_room():
            self._has_to_wait = True
            return False
        found = self._asker.next()
        if found is None:
            asked = self._asker.ask()
            if asked is None:
                return False
            if asked.same_as is not None:
                self._settler.tell_same(asked, work.record.trials[asked.same_as])
                return True
            found = self._asker.next()
        if found is None:
            return False
        self._starter.start(*found)
        return True

    # --- reasons to end --------------------------------------------------------------------------------------------

    def _look_for_reasons_to_end(self) -> None:
        work = self._work
        if self._signals > 1:
            for running in work.running.values():
                self._watch.send_signal(running, signal.SIGKILL)
        if self._ending in _IN_A_HURRY:
            return
        reason = self._reason_to_end()
        if reason is None or reason == self._ending:
            return
        self._ending = reason
        is_in_a_hurry = reason in _IN_A_HURRY
        self._watcher.on_ending(reason, len(work.running), work.spec.grace_s)
        if is_in_a_hurry:
            for running in work.running.values():
                self._watch.ask_to_end(running, "stop")

    def _reason_to_end(self) -> str | None:
        work, record = self._work, self._record
        if self._signals or work.folder.is_stop_requested:
            return "stopped"
        if (exceeded := record.limit_exceeded(work.usage(time.monotonic()), work.worked_s(time.time()))) is not None:
            return exceeded
        if self._fails_from_the_start():
            return "failing"
        if self._ending is not None:
            return None
        if self._asker.is_exhausted:
            return "exhausted"
        return self._reason_in_results()

    def _reason_in_results(self) -> str | None:
        """Return whether the results so far are good enough; looked at when there is another one."""
        record = self._record
        if record.ended == self._ended_at_last_look:
            return None
        self._ended_at_last_look = record.ended
        best, metrics = record.best, self._work.spec.metrics
        if best is not None and best.values and any(metric.target is not None for metric in metrics):
            pairs = zip(metrics, best.values, strict=True)
            if all(metric.is_reached(value) for metric, value in pairs if metric.target is not None):
                return "target"
        return "converged" if self._work.search.wants_to_end(record) is not None else None

    def _fails_from_the_start(self) -> bool:
        first = self._settler.first_ends
        return (
            len(first) == FIRST_FAILURES
            and all(trial.state is TrialState.FAILED for trial in first)
            and len({trial.group or failure_key(trial.reason) for trial in first}) == 1
        )

    # --- requests and signals --------------------------------------------------------------------------------------

    def _take_requests(self) -> None:
        work = self._work
        has_objective = work.spec.script is None and work.spec.command is None and work.spec.function is None
        for request in answer_all(self._requests, work.record, work.ledger.emit, has_objective=has_objective):
            if request.action == "rerun":
                work.is_search_stale = True
                self._asker.fill()
            elif request.action == "edit":
                self._edit(has_objective=has_objective)
            elif request.action == "more":
                work.spec = dataclasses.replace(work.spec, trials=work.record.trials_budget)

    def _edit(self, *, has_objective: bool) -> None:
        """Go on with the config as it was edited, and with what it says of the budget."""
        work, record = self._work, self._record
        work.spec = parse_spec(
            record.config,
            folder=Path(record.folder),
            file_name=record.name,
            has_objective=has_objective,
            has_budget=True,
        )
        work.latest_search = Search(work.spec, seed=work.seed, record=record)
        work.is_search_stale = False

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
