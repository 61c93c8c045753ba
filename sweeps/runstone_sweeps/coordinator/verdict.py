"""How a run of a trial ended: from its process, its files and what the sweep asked of it. Changes nothing."""

from __future__ import annotations

import difflib
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runstone import Failure, RunInfo, Status
from runstone_sweeps.coordinator.heard import Result
from runstone_sweeps.record import TrialState
from runstone_sweeps.record.failures import failure_group, is_out_of_memory
from runstone_sweeps.spec import Metric
from runstone_sweeps.spec.options import Constraint, FailureKind

# Why the sweep asked a trial to end.
Cause = Literal["prune", "trial_timeout", "no_report_timeout", "stop"]
# With which a program says that it was told to leave its machine.
PREEMPTED_CODE = 77
_TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_TAIL_BYTES = 8192
_OUT_OF_MEMORY = "killed by SIGKILL: the system was out of memory"
# What is recorded in a run by whoever started it, where the run could not say it, and what kind of failure it is. The
# name of a signal is another.
_OWN: dict[str, FailureKind | None] = {
    "MemoryLimit": "oom",
    "HostLost": "preempted",
    "Preempted": "preempted",
    "NaN": "nan",
    "MetricNotFound": None,
    "ExitCode": None,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sweep wants to know of a run: its metrics, and what is constrained."""

    metrics: tuple[Metric, ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that it looks at."""
        return (*(metric.name for metric in self.metrics), *(bound.metric for bound in self.constraints))


@dataclass(frozen=True, slots=True)
class Exit:
    """How the processes of a run ended.

    Attributes:
        code: Exit code of the first; below 0: the signal that killed it. `None`: nobody knows, its host was lost.
        cause: Why the sweep asked it to end, if it did.
        limit_s: The limit that it broke, where the cause is one.
        is_over_memory: Whether it was killed because it took more memory than `memory` grants.
        was_oom_killer_here: Whether the system killed a process for want of memory while it ran.
        console: What it printed.
    """

    code: int | None
    console: Path
    cause: Cause | None = None
    limit_s: float | None = None
    is_over_memory: bool = False
    was_oom_killer_here: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run of a trial comes to.

    Attributes:
        state: `complete`, `pruned`, `failed`, or `waiting`: it is to be run again.
        values: Its results in the order of the metrics, if complete.
        constraints: By how much it breaks each constraint, if complete.
        reason: Why it did not complete, in one line.
        kind: What kind of failure it is, if it is one that may pass when it is tried again.
        group: What failures of the same cause have in common.
        failure: What to record in its run where the run could not say it.
    """

    state: TrialState
    values: tuple[float, ...] | None = None
    constraints: tuple[float, ...] = ()
    reason: str | None = None
    kind: FailureKind | None = None
    group: str | None = None
    failure: Failure | None = None


def judge(info: RunInfo, wanted: Wanted, exit_: Exit, heard: Mapping[str, Result] | None = None) -> Verdict:
    """Decide on a run whose processes are gone.

    Args:
        info: The run, read after their end.
        wanted: What the sweep looks at.
        exit_: How they ended.
        heard: What all the points of those metrics come down to, where that is known without reading the run.
    """
    code, cause = exit_.code, exit_.cause
    if code == 0 and info.status is Status.FINISHED:  # it may have been done before it could see the stop word
        return judge_values(info, wanted, heard)
    if cause is not None:
        return _judge_asked(cause, exit_)
    if exit_.is_over_memory:
        return _failed("took more memory than `memory` grants", "MemoryLimit", kind="oom")
    if code is None:
        return _failed("its host was lost", "HostLost", kind="preempted")
    if code == PREEMPTED_CODE or code in _TERMINATED:
        how = f"exit code {code}" if code > 0 else "SIGTERM"
        return _failed(f"preempted ({how} that the sweep did not ask for)", "Preempted", kind="preempted")
    if info.status in (Status.PRUNED, Status.STOPPED):
        return judge_run(info, wanted) or Verdict(TrialState.PRUNED)
    if code == 0 and info.status is not Status.FAILED:  # it never started a run, or left by os._exit
        return judge_values(info, wanted, heard)
    is_told = info.failure is not None and info.failure.type != "SystemExit"  # which only repeats the code
    if info.status is Status.FAILED and info.failure is not None and is_told:
        return _judge_failure(info.failure)
    return _judge_exit(code, exit_)


def judge_run(info: RunInfo, wanted: Wanted) -> Verdict | None:
    """Decide by the run alone, or return `None` where it says nothing of its end: it crashed, or runs."""
    match info.status:
        case Status.PRUNED:
            return Verdict(TrialState.PRUNED, reason="pruned by itself")
        case Status.STOPPED:
            return Verdict(TrialState.PRUNED, reason="stopped on request")
        case Status.FAILED:
            return _judge_failure(info.failure or Failure("failed", "", ""))
        case Status.FINISHED:
            return judge_values(info, wanted)
    return None


def judge_values(info: RunInfo, wanted: Wanted, heard: Mapping[str, Result] | None = None) -> Verdict:
    """Decide by what a run logged that came to its end."""
    is_known = heard is not None and all(name in heard for name in wanted.names)
    metrics: Mapping[str, Result] = heard if heard is not None and is_known else info.metrics
    for name in wanted.names:
        if name not in metrics:
            return _failed(_missing(name, list(metrics)), "MetricNotFound")
    values = [_value(metrics[metric.name], metric) for metric in wanted.metrics]
    bounded = [(bound, float(metrics[bound.metric].last)) for bound in wanted.constraints]
    for name, value in (
        *((metric.name, value) for metric, value in zip(wanted.metrics, values, strict=True)),
        *((bound.metric, value) for bound, value in bounded),
    ):
        if value is None or math.isnan(value):
            return _failed(f"{name} is NaN", "NaN", kind="nan")
    results = tuple(value for value in values if value is not None)
    return Verdict(
        TrialState.COMPLETE, values=results, constraints=tuple(bound.violation(value) for bound, value in bounded)
    )


def _judge_asked(cause: Cause, exit_: Exit) -> Verdict:
    """Decide on a run that the sweep asked to end."""
    if cause == "prune":
        return Verdict(TrialState.PRUNED)
    if cause == "stop":
        return Verdict(TrialState.WAITING, reason="the sweep was stopped")
    if cause == "no_report_timeout":
        reason = f"reported nothing for longer than no_report_timeout ({exit_.limit_s:g} s)"
    else:
        reason = f"took longer than trial_timeout ({exit_.limit_s:g} s)"
    return _failed(reason, "TimeoutError")


def _judge_failure(failure: Failure) -> Verdict:
    """Decide on an exception that the run recorded, or on what a coordinator recorded that died right after."""
    if failure.type in _OWN or failure.type in signal.Signals.__members__:
        kind = _OWN.get(failure.type, "crash")
        if is_out_of_memory("", failure.traceback) or failure.message == _OUT_OF_MEMORY:
            kind = "oom"
        return _failed(failure.message, failure.type, tail=failure.traceback, kind=kind)
    reason = _last_line(failure)
    is_short = is_out_of_memory(failure.type, failure.message)
    return Verdict(
        TrialState.FAILED,
        reason=reason,
        kind="oom" if is_short else None,
        group=failure_group(reason, failure.traceback),
    )


def _judge_exit(code: int, exit_: Exit) -> Verdict:
    """Decide by the exit code, and by what was printed."""
    tail = _tail(exit_.console)
    last = _last_printed(tail)
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        if name == "SIGKILL" and exit_.was_oom_killer_here:
            return _failed(_OUT_OF_MEMORY, name, tail=last, kind="oom")
        hint = "; was memory short?" if name == "SIGKILL" else ""
        kind: FailureKind = "oom" if is_out_of_memory("", tail) else "crash"
        return _failed(f"killed by {name}{hint}", name, tail=last, kind=kind)
    reason = f"{last} (exit code {code})" if last else f"exit code {code}, and nothing was printed"
    return _failed(reason, "ExitCode", tail=tail, kind="oom" if is_out_of_memory("", tail) else None)


def _failed(reason: str, type_: str, *, tail: str = "", kind: FailureKind | None = None) -> Verdict:
    return Verdict(
        TrialState.FAILED,
        reason=reason,
        kind=kind,
        group=failure_group(reason, tail),
        failure=Failure(type_, reason, tail),
    )


def _value(summary: Result, metric: Metric) -> float | None:
    if metric.value == "last":
        return float(summary.last)
    best = summary.max if metric.goal == "maximize" else summary.min
    return None if best is None else float(best)


def _missing(name: str, logged: list[str]) -> str:
    own = [other for other in logged if not other.startswith("system/")]
    if not own:
        return f"never logged the metric {name!r}; it logged none"
    near = difflib.get_close_matches(name, own, n=3, cutoff=0.5) or sorted(own)[:5]
    return f"never logged the metric {name!r}; it logged {', '.join(map(repr, near))}"


def _last_line(failure: Failure) -> str:
    """Return the last line of a traceback as Python prints it."""
    message = failure.message.strip().splitlines()
    return f"{failure.type}: {message[0][:300]}" if message else failure.type


def _last_printed(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _tail(console: Path) -> str:
    try:
        with console.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
