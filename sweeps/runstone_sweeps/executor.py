"""Where trials run, as the coordinator sees it; and the executor of this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runstone_sweeps.options import Resources
from runstone_sweeps.process import Ended, Started, TrialProcesses
from runstone_sweeps.slots import GpuSlots, oom_kills, thread_variables, usable_cores

# Keys of the runs of one trial lie next to each other; a config has at most so many replicates.
_REPLICATES = 1024


def key_of(number: int, replicate: int) -> int:
    """Return what an executor calls one run of a trial: the same in every session of a sweep."""
    return number * _REPLICATES + replicate


def trial_of(key: int) -> tuple[int, int]:
    """Return number and replicate of a key."""
    return divmod(key, _REPLICATES)


@dataclass(frozen=True, slots=True)
class TrialStart:
    """One process to be started.

    Attributes:
        key: What the executor is to call it; see `key_of`.
        attempt: Which start of the run this is, counted from 1.
        argv: Its command line.
        env: Its whole environment, but for what belongs to the machine that it runs on: GPUs and threads.
        cwd: Folder in which it starts.
        console: File that takes its output, appended.
    """

    key: int
    attempt: int
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    console: Path


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """The process of a trial is there.

    Attributes:
        key: Of the trial's run.
        pid, pid_started: The process, and when its system started it, to know it again; 0 where it is on another host.
        host: Name of the host; `None`: this one.
        gpus: GPUs, or the share of one, that it has.
        attempt: Which start of the run this is, for a trial that an earlier session started; else `None`.
    """

    key: int
    pid: int
    pid_started: float | None = None
    host: str | None = None
    gpus: float = 0.0
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """All processes of a trial are gone.

    Attributes:
        key: Of the trial's run.
        code: Exit code of the first process; below 0: the signal that killed it.
        is_over_memory: Whether it was ended for taking more than `memory`.
        was_oom_killer_here: Whether the system of its host killed a process for want of memory since it started.
        cpu_s, max_rss_bytes: What it used, 0 where that is not known.
    """

    key: int
    code: int
    is_over_memory: bool = False
    was_oom_killer_here: bool = False
    cpu_s: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TrialLost:
    """A trial is gone, and how it ended cannot be known: it is to be started again.

    Attributes:
        key: Of the trial's run.
        reason: What happened, in a few words.
        is_preempted: Whether this counts as a preemption; if not, it counts as nothing.
    """

    key: int
    reason: str
    is_preempted: bool = True


News = TrialStarted | TrialEnded | TrialLost


class Executor(Protocol):
    """Starts processes of trials, here or elsewhere, and tells what becomes of them."""

    def has_room(self) -> bool:
        """Return whether one more trial can be started now."""

    def start(self, start: TrialStart) -> None:
        """Start a trial. `TrialStarted` follows, and `TrialEnded` or `TrialLost` in the end."""

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial; none where it has ended."""

    def poll(self, timeout_s: float) -> Sequence[News]:
        """Return what happened, after `timeout_s` at the latest.

        Raises:
            SupervisorLost: every trial is gone, and no further one can be started.
        """

    def survivors(self) -> Sequence[TrialStarted]:
        """Return the trials of an earlier session that still run, and of which news will come; asked once, first."""

    def take_notes(self) -> Sequence[str]:
        """Return remarks for the user since the last call, one line each."""

    def close(self) -> None:
        """Let go of everything; trials that cannot outlive the coordinator are killed."""


class LocalExecutor:
    """Runs trials as processes of this machine. They die with the coordinator.

    Args:
        processes: Starts them; closed by whoever made it.
        resources: What one trial takes.
        parallel: Trials at once, to divide the cores by.
        environment: Of the coordinator.
        is_warm: Whether trials are forked from a process that has imported what they need.

    Raises:
        NoGpus: trials take GPUs, and there are not enough.
    """

    def __init__(
        self,
        processes: TrialProcesses,
        resources: Resources,
        *,
        parallel: int,
        environment: Mapping[str, str],
        is_warm: bool = False,
    ) -> None:
        self._processes = processes
        self._resources = resources
        self._parallel = parallel
        self._cores = usable_cores()
        self._is_warm = is_warm
        self._gpus = GpuSlots(resources, environment) if resources.gpus else None
        self._oom_kills: dict[int, int] = {}
        self._kills_at_s, self._kills = 0.0, 0

    def has_room(self) -> bool:
        """Return whether the GPUs for one more trial are free, and their memory is."""
        return self._gpus is None or self._gpus.has_room()

    def start(self, start: TrialStart) -> None:
        """Start a process with GPUs and threads of its own."""
        env = {**start.env, **thread_variables(self._resources.cpus, self._parallel, start.env, cores=self._cores)}
        if self._gpus is not None:
            env |= self._gpus.take(start.key)
        self._oom_kills[start.key] = self._kills_lately()
        self._processes.start(
            start.key,
            start.argv,
            env=env,
            cwd=start.cwd,
            console=start.console,
            is_warm=self._is_warm,
            memory_bytes=self._resources.memory_bytes,
        )

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial."""
        self._processes.send_signal(key, sent)

    def poll(self, timeout_s: float) -> Sequence[News]:
        """Return what happened, after `timeout_s` at the latest."""
        return [self._told(news) for news in self._processes.poll(timeout_s)]

    def survivors(self) -> Sequence[TrialStarted]:
        """Return nothing: what an earlier coordinator started died with it."""
        return ()

    def take_notes(self) -> Sequence[str]:
        """Return why trials start otherwise than asked for."""
        return self._processes.take_notes()

    def close(self) -> None:
        """Let go of the GPUs."""
        if self._gpus is not None:
            self._gpus.close()

    def _kills_lately(self) -> int:
        """Return `oom_kills` of now or a tenth of a second ago: the system takes long to tell."""
        if time.monotonic() - self._kills_at_s > 0.1:
            self._kills_at_s, self._kills = time.monotonic(), oom_kills()
        return self._kills

    def _told(self, news: Started | Ended) -> News:
        if isinstance(news, Started):
            return TrialStarted(news.number, news.pid, news.pid_started, gpus=self._resources.gpus)
        if self._gpus is not None:
            self._gpus.give_back(news.number)
        kills = self._oom_kills.pop(news.number, 0)
        if news.reason == "server":
            return TrialLost(news.number, "the process that it was forked from was killed", is_preempted=False)
        return TrialEnded(
            news.number,
            news.code,
            is_over_memory=news.reason == "memory",
            was_oom_killer_here=news.code == -signal.SIGKILL and oom_kills() > kills,
            cpu_s=news.cpu_s,
            max_rss_bytes=news.max_rss_bytes,
        )
