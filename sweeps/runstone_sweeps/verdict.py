"""How a trial ended, from its process, its run and what the sweep asked of it. Decides, and changes nothing."""

from __future__ import annotations

import difflib
import math
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runstone import Failure, MetricSummary, RunInfo, Status
from runstone_sweeps.record import TrialState
from runstone_sweeps.spec import Metric

# Why the sweep asked a trial to end.
Cause = Literal["prune", "trial_timeout", "stop"]
_TAIL_BYTES = 8192
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial comes to.

    Attributes:
        state: `complete`, `pruned`, `failed`, or `waiting`: it is to be run again.
        value: Its result, if complete.
        reason: Why it did not complete, in one line.
        is_crash: Whether a signal killed it that the sweep did not send.
        failure: What to record in its run where the run could not say it.
    """

    state: TrialState
    value: float | None = None
    reason: str | None = None
    is_crash: bool = False
    failure: Failure | None = None


def judge(
    info: RunInfo, metric: Metric, *, code: int, cause: Cause | None, console: Path, limit_s: float | None
) -> Verdict:
    """Decide on a trial whose processes are gone.

    Args:
        info: Its run, read after their end.
        metric: What the sweep looks at.
        code: Exit code of its first process; below 0: the signal that killed it.
        cause: Why the sweep asked it to end, if it did.
        console: What it printed.
        limit_s: The trial timeout, for the message.
    """
    if code == 0 and info.status is Status.FINISHED:  # it may have been done before it could see the stop word
        return _judge_value(info, metric)
    if cause == "prune":
        return Verdict(TrialState.PRUNED)
    if cause == "stop":
        return Verdict(TrialState.WAITING, reason="the sweep was stopped")
    if cause == "trial_timeout":
        reason = f"took longer than trial_timeout ({limit_s:g} s)"
        return Verdict(TrialState.FAILED, reason=reason, failure=Failure("TimeoutError", reason, ""))
    if info.status in (Status.PRUNED, Status.STOPPED):
        return judge_run(info, metric) or Verdict(TrialState.PRUNED)
    if code == 0 and info.status is not Status.FAILED:  # it never started a run, or left by os._exit
        return _judge_value(info, metric)
    is_told = info.failure is not None and info.failure.type != "SystemExit"  # which only repeats the code
    if info.status is Status.FAILED and info.failure is not None and is_told:
        return Verdict(TrialState.FAILED, reason=_last_line(info.failure))
    last = _last_printed(console)
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        hint = "; was memory short?" if name == "SIGKILL" else ""
        reason = f"killed by {name}{hint}"
        return Verdict(TrialState.FAILED, reason=reason, is_crash=True, failure=Failure(name, reason, last))
    reason = f"{last} (exit code {code})" if last else f"exit code {code}, and nothing was printed"
    return Verdict(TrialState.FAILED, reason=reason, failure=Failure("ExitCode", reason, _tail(console)))


def judge_run(info: RunInfo, metric: Metric) -> Verdict | None:
    """Decide by the run alone, or return `None` where it says nothing of its end: it crashed, or runs."""
    match info.status:
        case Status.PRUNED:
            return Verdict(TrialState.PRUNED, reason="pruned by itself")
        case Status.STOPPED:
            return Verdict(TrialState.PRUNED, reason="stopped on request")
        case Status.FAILED:
            reason = _last_line(info.failure) if info.failure else "failed"
            return Verdict(TrialState.FAILED, reason=reason)
        case Status.FINISHED:
            return _judge_value(info, metric)
    return None


def _judge_value(info: RunInfo, metric: Metric) -> Verdict:
    summary = info.metrics.get(metric.name)
    if summary is None:
        reason = _missing(metric.name, list(info.metrics))
        return Verdict(TrialState.FAILED, reason=reason, failure=Failure("MetricNotFound", reason, ""))
    value = _value(summary, metric)
    if value is None or math.isnan(value):
        reason = f"{metric.name} is NaN"
        return Verdict(TrialState.FAILED, reason=reason, failure=Failure("ValueError", reason, ""))
    return Verdict(TrialState.COMPLETE, value=value)


def failure_key(reason: str | None) -> str:
    """Return what equal failures have in common: the reason without numbers and addresses."""
    return _VARYING.sub("#", reason or "")


def _value(summary: MetricSummary, metric: Metric) -> float | None:
    if metric.value == "last":
        return float(summary.last)
    best = summary.max if metric.goal == "maximize" else summary.min
    return None if best is None else float(best)


def _missing(name: str, logged: list[str]) -> str:
    if not logged:
        return f"never logged the metric {name!r}; it logged none"
    near = difflib.get_close_matches(name, logged, n=3, cutoff=0.5) or sorted(logged)[:5]
    return f"never logged the metric {name!r}; it logged {', '.join(map(repr, near))}"


def _last_line(failure: Failure) -> str:
    """Return the last line of a traceback as Python prints it."""
    message = failure.message.strip().splitlines()
    return f"{failure.type}: {message[0][:300]}" if message else failure.type


def _last_printed(console: Path) -> str:
    lines = [line.strip() for line in _tail(console).splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _tail(console: Path) -> str:
    try:
        with console.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
