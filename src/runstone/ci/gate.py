"""Gates on a run: the list `runs` of a file of gates, in the words that hold for versions of models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from runstone.ci.sides import commit_of, find_side, quoted
from runstone.errors import InvalidConfig, NotFound, RunNotFound, RunstoneError
from runstone.models.better import Check, Side, better_words, check_better
from runstone.models.gates import Gate, read_gates
from runstone.models.proof import over_seeds
from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

RUNS = "runs"
_KINDS = ("metric", "better_than", "code", "tags")


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


def check_run(workspace: Workspace, run: RunInfo, path: Path, *, checkout: Path | None = None) -> RunGate:
    """Hold a run against the gates for runs.

    Args:
        workspace: Where it is, and what it is compared with.
        run: The run.
        path: File of gates; those under `gates.runs` count: `metric`, `better_than`, `code`, `tags`. That it finished
            is asked, too.
        checkout: A git checkout, whose history says which commits a branch has; as of `find_side`.

    Raises:
        InvalidConfig: the file has mistakes, or nothing for runs.
    """
    gates = read_gates(path).get(RUNS)
    if gates is None:
        raise InvalidConfig(f"{path.name}: there are no gates for runs; put them in a list under gates.{RUNS}")
    strange = [gate.kind for gate in gates if gate.kind not in _KINDS]
    if strange:
        raise InvalidConfig(f"{path.name}: gates.{RUNS}: {strange[0]} is for versions; a run has {', '.join(_KINDS)}")
    for gate in gates:
        if gate.kind == "better_than" and "version" not in gate.options:
            raise InvalidConfig(
                f"{path.name}: gates.{RUNS}: better_than needs version: what the run is compared with, as NAME@V, a "
                "branch, a run, a commit or a filter"
            )
    ended = Check("it finished", run.status.value == "finished", f"it is {run.status.value}")
    return RunGate(run, (ended, *(_check(workspace, run, gate, checkout) for gate in gates)), path.name)


def _check(workspace: Workspace, run: RunInfo, gate: Gate, checkout: Path | None) -> Check:
    match gate.kind:
        case "metric":
            return _metric(run, gate)
        case "better_than":
            return _better(workspace, run, gate, checkout)
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


def _better(workspace: Workspace, run: RunInfo, gate: Gate, checkout: Path | None) -> Check:
    """Compare means over seeds, as for versions; only runs of the same commit are repetitions of one another."""
    options = gate.options
    metric, wanted = options["metric"], str(options["version"])
    words = better_words(options, wanted)
    try:
        other = _other(workspace, wanted, run, checkout)
    except RunstoneError as error:
        return Check(words, False, str(error))
    # Where nothing tells one's recipe from the other's, their repetitions cannot be told apart either.
    are_alike = commit_of(run) == commit_of(other) and len(over_seeds(run, math.nan, [other], metric)) > 1
    sides = []
    for one in (run, other):
        values: list[float] = []
        summary = one.metrics.get(metric)
        if summary is not None:
            project = workspace.runs(f"project = {quoted(one.project)}")
            alike = [] if are_alike else [each for each in project if commit_of(each) == commit_of(one)]
            values = over_seeds(one, float(summary.last), alike, metric)
        sides.append(Side(one.name, f"the run {one.name}", values))
    return check_better(words, options, *sides)


def _other(workspace: Workspace, wanted: str, run: RunInfo, checkout: Path | None) -> RunInfo:
    """Return the run to compare with: that of a version, or the newest of what a report would take as its base."""
    if "@" in wanted:
        version = workspace.models.find(wanted)
        if version.run_id is None:
            raise NotFound(f"{version} was registered without a run")
        found = workspace.run(version.run_id)
        if found.id == run.id:
            raise RunNotFound(f"{version} is of this very run")
        return found
    return find_side(workspace, wanted, checkout=checkout, without=[run.id]).runs[0]
