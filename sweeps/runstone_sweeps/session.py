"""One session of a sweep from end to end: finds or makes the sweep, takes its lock, runs the coordinator.

Both the command line and Python come through here.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from runstone import Workspace
from runstone_sweeps.process import TrialProcesses
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.runner import Coordinator, Watcher
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder, Sweeps, recorded_spec
from runstone_sweeps.study import check_algorithms
from runstone_sweeps.trial import Objective, run_objective


@dataclass(frozen=True, slots=True)
class Budget:
    """What a session may change of a sweep; `None` leaves it as the config says."""

    trials: int | None = None
    parallel: int | None = None
    timeout_s: float | None = None

    def apply(self, spec: SweepSpec) -> SweepSpec:
        """Return the spec with this budget."""
        trials = self.trials or spec.trials
        if spec.space.size is not None and spec.sampler.name in ("grid", "brute_force"):
            trials = min(trials or spec.space.size, spec.space.size)
        return dataclasses.replace(
            spec, trials=trials, parallel=self.parallel or spec.parallel, timeout_s=self.timeout_s or spec.timeout_s
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended: why, and what the sweep's record says now."""

    folder: SweepFolder
    record: SweepRecord
    reason: str


def open_sweep(workspace: Workspace, spec: SweepSpec, *, is_new: bool) -> tuple[SweepFolder, bool]:
    """Return the sweep to work on, and whether it began in an earlier session.

    Raises:
        InvalidConfig: the sampler or the pruner refuses an option.
    """
    check_algorithms(spec.space, spec.sampler, spec.pruner)
    sweeps = Sweeps(workspace)
    found = None if is_new else sweeps.find_unfinished(spec)
    if found is not None:
        return found[0], True
    seed = spec.seed if spec.seed is not None else secrets.randbelow(2**32)
    return sweeps.create(spec, seed=seed), False


def stored_spec(folder: SweepFolder, budget: Budget, *, has_objective: bool = False) -> SweepSpec:
    """Return what a sweep was created with and the budget of its last session, for going on with it.

    Raises:
        InvalidConfig: its script is gone.
    """
    record = folder.read()
    spec = recorded_spec(record, has_objective=has_objective)
    last = Budget(record.trials_budget, record.parallel, record.timeout_s) if record.sessions else Budget()
    return budget.apply(last.apply(spec))


def run_session(
    workspace: Workspace,
    folder: SweepFolder,
    spec: SweepSpec,
    watcher: Callable[[SweepFolder, SweepRecord, SweepSpec], Watcher],
    *,
    objective: Objective | None = None,
) -> Ended:
    """Work on a sweep until its budget is spent or someone stops it.

    Raises:
        SweepIsRunning: another process works on it.
        SupervisorLost: the process that starts the trials was killed; the sweep can be resumed.
        OSError: the record cannot be written; the sweep can be resumed.
    """
    call = None if objective is None else lambda: run_objective(objective, spec.metric.name)
    # The supervisor comes first: a fork must hold no lock and find no thread of ours.
    with TrialProcesses(call) as processes, folder.lock():
        record = folder.read()
        reason = Coordinator(workspace, folder, record, spec, processes, watcher(folder, record, spec)).run()
    return Ended(folder, record, reason)
