"""How a launched program ended, as a status and a reason. Decides, and changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass, field

from runstone.runlog import format as fmt
from runstone.values import Failure, Status

_STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_STOPPED_CODES = frozenset({-number for number in _STOPPING} | {128 + number for number in _STOPPING})


@dataclass(frozen=True, slots=True)
class Told:
    """The exception by which a Python script ended, and the names of its classes."""

    failure: Failure
    kinds: Collection[str] = field(default_factory=tuple)


def judge(code: int, *, word: int, was_signalled: bool, told: Told | None, tail: str) -> tuple[Status, Failure | None]:
    """Decide on a program that has ended.

    Args:
        code: Its return code; below 0: the signal that killed it.
        word: The run's stop word.
        was_signalled: Whether it was just sent a signal that ends programs.
        told: What a Python script said of its end.
        tail: What it printed last.
    """
    if word == fmt.WORD_PRUNE:
        return Status.PRUNED, None
    if word == fmt.WORD_STOP:
        return Status.STOPPED, None
    if code == 0:
        return Status.FINISHED, None
    kinds = told.kinds if told is not None else ()
    if "TrialPruned" in kinds:  # Optuna's word for it
        return Status.PRUNED, None
    if code in _STOPPED_CODES or was_signalled or "KeyboardInterrupt" in kinds or "SIGTERMException" in kinds:
        return Status.STOPPED, None
    if told is not None:
        failure = told.failure
        return Status.FAILED, Failure(failure.type, failure.message, failure.traceback or tail)
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        hint = "; was memory short?" if name == "SIGKILL" else ""
        return Status.FAILED, Failure(name, f"killed by {name}{hint}", tail)
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    last = f": {lines[-1][:300]}" if lines else ""
    return Status.FAILED, Failure("ExitCode", f"exit code {code}{last}", tail)
