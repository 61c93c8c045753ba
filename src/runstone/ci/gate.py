"""Gates on a run: the list `runs` of a file of gates, in the words that hold for versions of models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from runstone.errors import InvalidConfig
from runstone.models.gates import Check, Gate, read_gates
from runstone.runinfo import RunInfo

RUNS = "runs"
_KINDS = ("metric", "code", "tags")


@dataclass(frozen=True, slots=True)
class RunGate:
    """What the gates found of a run."""

    run: RunInfo
    checks: tuple[Check, ...]
    gates: str

    @property
    def is_allowed(self) -> bool:
        """Whether all hold."""
        return all(check.is_passed for check in self.checks)

    @property
    def headline(self) -> str:
        """What became of it, in one line."""
        failed = sum(not check.is_passed for check in self.checks)
        if failed:
            return f"run {self.run.name} is refused: {failed} of {len(self.checks)} gates failed"
        return f"run {self.run.name} passes {len(self.checks)} gates"


def check_run(run: RunInfo, path: Path) -> RunGate:
    """Hold a run against the gates for runs.

    Args:
        run: The run.
        path: File of gates; those under `gates.runs` count: `metric`, `code`, `tags`. That it finished is asked, too.

    Raises:
        InvalidConfig: the file has mistakes, or nothing for runs.
    """
    gates = read_gates(path).get(RUNS)
    if gates is None:
        raise InvalidConfig(f"{path.name}: there are no gates for runs; put them in a list under gates.{RUNS}")
    strange = [gate.kind for gate in gates if gate.kind not in _KINDS]
    if strange:
        raise InvalidConfig(f"{path.name}: gates.{RUNS}: {strange[0]} is for versions; a run has {', '.join(_KINDS)}")
    ended = Check("it finished", run.status.value == "finished", f"it is {run.status.value}")
    return RunGate(run, (ended, *(_check(run, gate) for gate in gates)), path.name)


def _check(run: RunInfo, gate: Gate) -> Check:
    match gate.kind:
        case "metric":
            return _metric(run, gate)
        case "code":
            git = (run.environment or {}).get("git") or {}
            if not git.get("commit"):
                return Check("the code is clean", False, "the run recorded no commit")
            dirty = git.get("is_dirty")
            return Check("the code is clean", not dirty, "there were uncommitted changes" if dirty else "it is")
        case _:
            wanted = {str(name): str(value) for name, value in gate.options.items()}
            wrong = [name for name, value in wanted.items() if run.tags.get(name) != value]
            told = ", ".join(f"{name}={value}" for name, value in wanted.items())
            return Check(
                f"it has the tags {told}", not wrong, f"{wrong[0]} is {run.tags.get(wrong[0])!r}" if wrong else "it has"
            )


def _metric(run: RunInfo, gate: Gate) -> Check:
    name, low, high = gate.options["name"], gate.options.get("min"), gate.options.get("max")
    bounds = [f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    words = f"{name} is {' and '.join(bounds)}"
    summary = run.metrics.get(name)
    value = summary.last if summary is not None else None
    if not isinstance(value, int | float):
        return Check(words, False, f"the run has no metric {name!r}")
    is_kept = not math.isnan(value) and (low is None or value >= low) and (high is None or value <= high)
    return Check(words, is_kept, f"it is {value:.6g}")
