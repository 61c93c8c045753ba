"""Follows running trials: what they log, whether to prune them, how long they take, and how they are made to end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence

from runstone import RunInfo, Series
from runstone_sweeps.coordinator.verdict import Cause
from runstone_sweeps.coordinator.work import RunningTrial, Work
from runstone_sweeps.record import TrialRecord
from runstone_sweeps.record.journal import json_number
from runstone_sweeps.record.usage import is_energy

# Between SIGTERM and SIGKILL, for a trial that did not stop when asked.
TERM_S = 5.0
# Between two looks at what a trial logs.
LOOK_S = 0.01


class Watch:
    """Looks after the running trials of one session."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def follow(self, running: RunningTrial, now_s: float) -> None:
        """Take in what a trial logged since the last look, and see to its limits.

        Args:
            running: The trial.
            now_s: Monotonic time.
        """
        if now_s - running.looked_s >= LOOK_S:  # else it was, for what another trial had to tell
            running.looked_s = now_s
            self.take_reports(running)
        spec = self._work.spec
        if running.started_s is not None:  # what it takes to import its modules first is not its own time
            if spec.trial_timeout_s is not None and now_s - running.started_s >= spec.trial_timeout_s:
                self.ask_to_end(running, "trial_timeout")
            if spec.no_report_timeout_s is not None and now_s - running.last_heard_s >= spec.no_report_timeout_s:
                self.ask_to_end(running, "no_report_timeout")
        if running.cause is not None:
            waited_s = now_s - running.asked_to_end_s
            if waited_s >= spec.grace_s:
                self.send_signal(running, signal.SIGTERM)
            if waited_s >= spec.grace_s + TERM_S:
                self.send_signal(running, signal.SIGKILL)

    def take_reports(self, running: RunningTrial, *, has_ended: bool = False) -> None:
        """Report what the trial logged since the last look, and prune it if the pruner says so and it still runs."""
        found = running.tail.poll()
        if not found:
            return
        self._take_meters(running, found)
        running.hear(found, self._work.wanted.names)
        series = found.get(self._work.spec.metric.name)
        if series is None or not len(series):
            return
        steps, values = series.step.tolist(), [float(value) for value in series.value]
        running.last = (steps[-1], values[-1])
        points = list(thinned(steps, values, running.points_seen))
        running.points_seen += len(steps)
        trial = running.trial
        # The pruner compares first runs; and after it has decided, what an audited trial goes on to log is not its own.
        if running.record.index or trial.is_audited:
            return
        known = trial.reports if running.record.attempts <= 1 else {}
        points = [point for point in points if point[0] >= 0 and point[0] not in known]
        if points:
            self._report(running, points, has_ended=has_ended)

    def catch_up(self, running: RunningTrial) -> None:
        """Report what a trial logged while no coordinator looked; its `tail` begins behind that."""
        trial, metric = running.trial, self._work.spec.metric.name
        info = RunInfo(running.run.path)
        if metric not in info.metrics or running.record.index or trial.is_audited:
            return
        running.points_seen = info.metrics[metric].count
        if points := missed_points(info, metric, trial, attempt=running.run.attempt):
            self._report(running, points, has_ended=False)

    def ask_to_end(self, running: RunningTrial, cause: Cause) -> None:
        """Set the stop word of a trial, once; whoever does not obey is sent signals later."""
        if running.cause is None:
            running.cause = cause
            running.asked_to_end_s = time.monotonic()
            running.run.request_stop("prune" if cause == "prune" else "stop")

    def send_signal(self, running: RunningTrial, sent: signal.Signals) -> None:
        """Send a signal to all processes of a trial, each kind once."""
        if sent not in running.signals_sent:
            running.signals_sent.append(sent)
            self._work.executor.send_signal(running.key, sent)

    def _take_meters(self, running: RunningTrial, found: Mapping[str, Series]) -> None:
        for name, series in found.items():
            if not name.startswith("system/"):
                running.last_heard_s = time.monotonic()
            elif is_energy(name) and len(series):
                running.meters[name] = max(running.meters.get(name, 0.0), float(series.value[-1]))

    def _report(self, running: RunningTrial, points: Sequence[tuple[int, float]], *, has_ended: bool) -> None:
        work, trial = self._work, running.trial
        work.ledger.emit("reported", number=trial.number, points=[[s, json_number(v)] for s, v in points])
        decided = work.search.report(trial, work.record)
        if decided is None or running.cause is not None or has_ended:
            return
        is_audited = work.search.is_audited(trial.number)
        attrs = work.search.new_attrs(trial.number)
        told = {"is_audited": True} if is_audited else {}
        if not is_audited:  # the word first: what is written afterwards costs the trial no time
            self.ask_to_end(running, "prune")
        work.ledger.emit("prune", number=trial.number, step=decided, attrs=attrs, **told)


def missed_points(info: RunInfo, metric: str, trial: TrialRecord, *, attempt: int) -> list[tuple[int, float]]:
    """Return step and value of the points that an attempt logged and that are not among the reports of its trial."""
    series = info.series(metric, attempt=attempt)
    known = {} if trial.is_new_attempt else trial.reports
    found = thinned(series.step.tolist(), [float(value) for value in series.value], 0)
    return [(step, value) for step, value in found if step >= 0 and step not in known]


def thinned(steps: Sequence[int], values: Sequence[float], seen: int) -> Iterator[tuple[int, float]]:
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
