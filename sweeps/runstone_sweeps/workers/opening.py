"""Opens the executor that a config asks for, where that is not this machine alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runstone import InvalidConfig, Workspace
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.workers.hiring import HiringPool
from runstone_sweeps.workers.on_ray import RayHirer
from runstone_sweeps.workers.pool import WorkerPool
from runstone_sweeps.workers.settings import read_options
from runstone_sweeps.workers.slurm import SlurmHirer


def open_executor(
    workspace: Workspace,
    folder: SweepFolder,
    spec: SweepSpec,
    *,
    environment: Mapping[str, str],
    is_warm: bool,
    preload: Sequence[str],
) -> WorkerPool | HiringPool:
    """Return an executor whose trials run on workers, with the jobs or actors that are to run those started.

    Args:
        workspace: Of the coordinator.
        folder: Of the sweep.
        spec: What to run; its executor is `workers`, `slurm` or `ray`.
        environment: Of the coordinator.
        is_warm, preload: How trials start; see `warm.plan`.

    Raises:
        InvalidConfig: an option is wrong, the address is taken, or what it needs is not installed.
        BadToken: the token is too short, or open to others.
    """
    if spec.script is None and spec.command is None and spec.function is None:
        raise InvalidConfig(
            f"executor: {spec.executor.name} cannot send a Python function to other hosts; put it into a module and "
            "name it in the config: function: module:name"
        )
    options, slurm, ray = read_options(spec)
    pool = WorkerPool(workspace, folder, spec, options, environment=environment, is_warm=is_warm, preload=preload)
    try:
        if spec.executor.name == "slurm":
            return HiringPool(pool, SlurmHirer(pool, slurm, folder), slurm.workers)
        if spec.executor.name == "ray":
            return HiringPool(pool, RayHirer(pool, ray, spec), ray.workers or spec.parallel)
    except BaseException:
        pool.close()
        raise
    return pool
