"""What the parts of a coordinator share: the sweep at hand, its running trials, and the way into its record."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runstone import LaunchedRun, MetricTail, Series, Workspace
from runstone_sweeps.coordinator.heard import Heard, heard_of
from runstone_sweeps.coordinator.verdict import Cause, Wanted
from runstone_sweeps.executors.executor import Executor, key_of
from runstone_sweeps.record import RunRecord, SweepRecord, TrialRecord
from runstone_sweeps.record.journal import Event, Journal
from runstone_sweeps.record.usage import Usage, energy_of
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder

if TYPE_CHECKING:
    from runstone_sweeps.study import Search


@dataclass(slots=True)
class RunningTrial:
    """One run of a trial whose process lives.

    Attributes:
        trial: The trial's record; `record`: that of this run of it.
        run: The run, as its launcher holds it.
        tail: Follows what it logs.
        console: What it prints.
        started_s: Monotonic time of its start; `None` until its process is there.
        last: Step and value of the metric logged last.
        last_heard_s: Monotonic time at which it last logged anything of its own.
        gpus: GPUs, or the share of one, that it has.
        cause: Why the sweep asked it to end, if it did, and `asked_to_end_s`: when.
        signals_sent: What it was sent.
        points_seen: Points of the metric by now.
        meters: The last value of each meter of energy.
        heard: What it has logged of the metrics that decide; `None` where only the run can tell.
        looked_s: Monotonic time at which it was looked at last.
    """

    trial: TrialRecord
    record: RunRecord
    run: LaunchedRun
    tail: MetricTail
    console: Path
    started_s: float | None = None
    last: tuple[int, float] | None = None
    last_heard_s: float = 0.0
    gpus: float = 0.0
    cause: Cause | None = None
    asked_to_end_s: float = 0.0
    signals_sent: list[signal.Signals] = field(default_factory=list)
    points_seen: int = 0
    meters: dict[str, float] = field(default_factory=dict)
    heard: dict[str, Heard] | None = None
    looked_s: float = 0.0

    def hear(self, found: Mapping[str, Series], names: Sequence[str]) -> None:
        """Take in new points of metrics that decide."""
        # Points of several writers, and those that come late, are put in order when the run is read.
        if self.heard is None or len(self.tail.writers) > 1 or self.tail.has_holes or self.tail.unnamed:
            self.heard = None
            return
        for name in names:
            series = found.get(name)
            if series is not None and len(series):
                before = self.heard.get(name)
                self.heard[name] = heard_of(series) if before is None else before.and_then(series)

    @property
    def key(self) -> int:
        """What the executor calls it."""
        return key_of(self.trial.number, self.record.index)


class Watcher(Protocol):
    """Who is told how a sweep goes, in the coordinator's own thread."""

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Take note of one event that is now part of the record."""

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Say that no more trials start, and that so many were asked to stop within `grace_s`."""

    def on_note(self, note: str) -> None:
        """Say something that the user should know, in one line."""

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Show how things stand; called many times a second."""


class Ledger:
    """Writes events: on disk, into the record, and to whoever watches."""

    def __init__(self, journal: Journal, record: SweepRecord, watcher: Watcher) -> None:
        self._journal = journal
        self._record = record
        self._watcher = watcher

    def emit(self, kind: str, /, *, is_durable: bool = False, **fields: Any) -> None:
        """Record one event.

        Raises:
            RecordNotWritten: the disk does not take it; nothing may go on as if it had.
        """
        event = self._journal.append({"event": kind, "at": time.time(), **fields}, is_durable=is_durable)
        self._record.apply(event)
        self._watcher.on_event(event, self._record)

    def sync(self) -> None:
        """Bring what is durable to the disk, if that is due."""
        self._journal.sync()


@dataclass(slots=True)
class Work:
    """One session of a sweep.

    Attributes:
        workspace: Holds the runs of the trials.
        folder: The sweep's files.
        record: What its events say.
        spec: What to do, with the budget of this session; another one after an edit.
        latest_search: Proposes points; another one after an edit. To be used as `search`.
        executor: Starts the trials.
        ledger: Takes the events.
        seed: Of the sweep.
        environment: Of the coordinator.
        project: Of the runs.
        running: Runs whose processes live, by key.
        is_search_stale: Whether the search was told what is no longer so, and has to be built again.
    """

    workspace: Workspace
    folder: SweepFolder
    record: SweepRecord
    spec: SweepSpec
    latest_search: Search
    executor: Executor
    ledger: Ledger
    seed: int
    environment: dict[str, str]
    project: str
    running: dict[int, RunningTrial] = field(default_factory=dict)
    is_search_stale: bool = False

    @property
    def search(self) -> Search:
        """The search, as the record tells it now."""
        if self.is_search_stale:
            self.is_search_stale = False
            self.latest_search.rebuild(self.record)
        return self.latest_search

    @property
    def wanted(self) -> Wanted:
        """What is to be known of each run."""
        return Wanted(self.spec.metrics, self.spec.constraints)

    def worked_s(self, now: float) -> float:
        """Return the seconds at work by `now` (since the Unix epoch), all sessions together."""
        record = self.record
        is_idle = record.is_paused and not self.running
        return record.active_s + (0.0 if is_idle else max(0.0, now - record.last_at))

    def usage(self, now_s: float) -> Usage:
        """Return what all trials have used by `now_s` (monotonic), the running ones included."""
        total = self.record.usage
        for running in self.running.values():
            total += self.usage_of(running, now_s)
        return total

    def usage_of(self, running: RunningTrial, now_s: float, *, cpu_s: float = 0.0, max_rss_bytes: int = 0) -> Usage:
        """Return what the present attempt of a running trial has used."""
        wall_s = max(0.0, now_s - running.started_s) if running.started_s is not None else 0.0
        return Usage(
            gpu_s=running.gpus * wall_s,
            cpu_s=cpu_s,
            wall_s=wall_s,
            energy_j=self.energy_of(running.record, running.meters),
            max_rss_bytes=max_rss_bytes,
        )

    def energy_of(self, record: RunRecord, meters: dict[str, float]) -> float:
        """Return the joules of the present attempt of a run; its meters count those of earlier ones, too."""
        gpus = self.spec.resources.gpus
        share = gpus if 0 < gpus < 1 else 1.0
        beside = self.spec.parallel
        if self.spec.executor.name != "local":  # how many a host takes is for its worker to say: those that it has now
            beside = sum(running.record.host == record.host for running in self.running.values())
        joules = energy_of(meters.items(), gpu_share=share, host_share=1 / max(1, beside))
        return max(0.0, joules - record.usage.energy_j)
