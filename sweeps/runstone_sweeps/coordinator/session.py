"""One session of a sweep from end to end: finds or makes the sweep, takes its lock, runs the coordinator.

Both the command line and Python come through here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runstone import Workspace
from runstone_sweeps.coordinator.runner import Coordinator
from runstone_sweeps.coordinator.work import Watcher
from runstone_sweeps.environment import process_environment
from runstone_sweeps.executors import warm
from runstone_sweeps.executors.executor import Executor
from runstone_sweeps.executors.local import LocalExecutor
from runstone_sweeps.mirror import Mirror, absolute_url
from runstone_sweeps.processes.trials import TrialProcesses
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.spec import SweepSpec, options
from runstone_sweeps.store import SweepFolder, Sweeps, recorded_spec
from runstone_sweeps.study import check_algorithms
from runstone_sweeps.trial import Objective, run_objective

if TYPE_CHECKING:
    from runstone_sweeps.workers.hiring import HiringPool
    from runstone_sweeps.workers.pool import WorkerPool


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
        InvalidConfig: the sampler or the pruner refuses an option, or `extends` names a sweep with other metrics.
        SweepNotFound: `extends` names a sweep that is not there.
    """
    check_algorithms(spec)
    sweeps = Sweeps(workspace)
    found = None if is_new else sweeps.find_unfinished(spec)
    if found is not None:
        return found[0], True
    seed = spec.seed if spec.seed is not None else secrets.randbelow(2**32)
    return sweeps.create(spec, seed=seed), False


def stored_spec(folder: SweepFolder, budget: Budget, *, has_objective: bool = False) -> SweepSpec:
    """Return what a sweep is about and the budget of its last session, for going on with it.

    Raises:
        InvalidConfig: its script is gone.
    """
    record = folder.read()
    spec = recorded_spec(record, has_objective=has_objective)
    last = Budget(record.trials_budget, record.parallel, record.timeout_s) if record.sessions else Budget()
    if record.limits:
        spec = dataclasses.replace(spec, budget=options.Budget(**record.limits))
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
        InvalidConfig: trials are to be started in a way that is not possible here.
        NoGpus: trials take GPUs, and there are not enough.
        SupervisorLost: the process that starts the trials was killed; the sweep can be resumed.
        RecordNotWritten: the disk takes no more; the sweep can be resumed.
    """
    environment = process_environment()
    plan, call = None, None
    if objective is not None:
        call = lambda: run_objective(objective, spec.metrics[0].name)  # noqa: E731
    else:
        plan = warm.plan(
            start=spec.start,
            preload=spec.preload,
            script=spec.script,
            command=spec.command,
            function=spec.function,
            working_dir=spec.working_dir,
            environment={**environment, **spec.env},
        )
    is_warm, preload = plan is not None and plan.is_warm, plan.preload if plan is not None else ()
    mirror: Mirror | None = None
    with contextlib.ExitStack() as stack:
        executor: Executor
        pool: WorkerPool | HiringPool | None = None
        if spec.executor.name == "local":
            # The supervisor comes first: a fork must hold no lock and find no thread of ours.
            processes = stack.enter_context(TrialProcesses(call, preload=preload))
            stack.enter_context(folder.lock())
            executor = LocalExecutor(
                processes,
                spec.resources,
                parallel=spec.parallel,
                environment={**environment, **spec.env},
                is_warm=is_warm,
            )
        else:
            from runstone_sweeps.workers.opening import open_executor  # only where trials run elsewhere

            stack.enter_context(folder.lock())
            executor = pool = open_executor(
                workspace, folder, spec, environment=environment, is_warm=is_warm, preload=preload
            )
        stack.callback(executor.close)
        stack.enter_context(folder.sharing_facts())
        record = folder.read()
        told = watcher(folder, record, spec)
        if plan is not None and plan.reason is not None:
            told.on_note(f"trials start cold: {plan.reason}")
        if spec.storage is not None:
            mirror = Mirror(folder.path, absolute_url(spec.storage, spec.folder))
        reason = Coordinator(workspace, folder, record, spec, executor, told).run()
        if pool is not None and reason != "stopped":
            pool.end()
    # It copies the rest when the lock is free.
    if mirror is not None and (note := mirror.close()) is not None:
        told.on_note(note)
    return Ended(folder, record, reason)
