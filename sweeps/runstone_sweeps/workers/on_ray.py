"""Workers as tasks of a Ray cluster: Ray places them by their resources, and tells which of them are lost."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from typing import Any

from runstone import InvalidConfig
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.workers.hiring import Contract, run_worker
from runstone_sweeps.workers.pool import WorkerPool
from runstone_sweeps.workers.settings import RayOptions
from runstone_sweeps.workers.token import read_token


class RayHirer:
    """Starts workers as Ray tasks, each with the resources of one trial.

    Args:
        pool: What they connect to.
        options: Which cluster.
        spec: What a trial takes.

    Raises:
        InvalidConfig: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, pool: WorkerPool, options: RayOptions, spec: SweepSpec) -> None:
        try:
            ray: Any = importlib.import_module("ray")  # only where it is asked for
        except ModuleNotFoundError:
            raise InvalidConfig('executor: ray needs Ray: pip install "runstone[ray]"') from None
        self._ray = ray
        self._pool = pool
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                ray.init(address=options.cluster, log_to_driver=False, logging_level="warning", include_dashboard=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidConfig(f"executor: ray: {options.cluster or 'a local cluster'}: {error}") from None
        host = "127.0.0.1" if options.cluster is None else ray.util.get_node_ip_address()
        self._address = str(pool.address if pool.has_given_address else pool.address_at(host))
        resources = spec.resources
        self._task: Any = ray.remote(run_worker).options(
            num_cpus=resources.cpus or 1,
            num_gpus=resources.gpus,
            memory=resources.memory_bytes,
            resources=dict(options.resources) or None,
            runtime_env=dict(options.runtime_env) or None,
            max_retries=0,
            scheduling_strategy="SPREAD",
            name="runstone-worker",
        )
        self._tasks: dict[str, Any] = {}

    def hire(self, workers: Sequence[str]) -> None:
        """Start a task for each worker; Ray runs it when and where there is room."""
        token = read_token(self._pool.token_file).decode()
        for worker in workers:
            contract = Contract(address=self._address, worker=worker, token=token, slots=1)
            self._tasks[worker] = self._task.remote(contract)

    def ended(self) -> dict[str, str | None]:
        """Return the workers whose tasks have ended, also with their node."""
        if not self._tasks:
            return {}
        done, _ = self._ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
        ended: dict[str, str | None] = {}
        for worker, task in list(self._tasks.items()):
            if task in done:
                del self._tasks[worker]
                ended[worker] = self._trouble(task)
        return ended

    def close(self) -> None:
        """Cancel the tasks that are left, and let go of the cluster."""
        if self._tasks:  # they have been told; those that listened are done
            self._ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=5)
        for task in self._tasks.values():
            with contextlib.suppress(Exception):  # its node may be gone
                self._ray.cancel(task, force=True)
        self._tasks.clear()
        if self._is_ours:
            self._ray.shutdown()

    def _trouble(self, task: Any) -> str | None:
        try:
            code = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
        return None if code == 0 else f"exit code {code}"
