"""Where trials run, as the coordinator sees it: what it asks of an executor, and what it is told."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Keys of the runs of one trial lie next to each other; a config has at most so many replicates.
_REPLICATES = 1024


def key_of(number: int, replicate: int) -> int:
    """Return what an executor calls one run of a trial: the same in every session of a sweep."""
    return number * _REPLICATES + replicate


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
