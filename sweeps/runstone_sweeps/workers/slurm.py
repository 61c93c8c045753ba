"""Workers as jobs of Slurm, through submitit; with its local executor, as processes of this machine."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runstone import InvalidConfig
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.workers.hiring import Contract, NoWorkers, run_worker
from runstone_sweeps.workers.pool import WorkerPool
from runstone_sweeps.workers.settings import SlurmOptions

# Before Slurm ends a job at its time limit, its worker ends its trials in order, and they go elsewhere.
_BEFORE_THE_LIMIT_S = 90.0
_LEAST_S = 30.0
_TAIL = 300
_GO_S = 5.0


class SlurmHirer:
    """Submits workers as jobs.

    Args:
        pool: What they connect to.
        options: How to submit.
        folder: Of the sweep; all nodes see it.

    Raises:
        InvalidConfig: submitit is not installed, or refuses an option.
    """

    def __init__(self, pool: WorkerPool, options: SlurmOptions, folder: SweepFolder) -> None:
        try:
            self._submitit: Any = importlib.import_module("submitit")  # only where jobs are submitted
        except ModuleNotFoundError:
            raise InvalidConfig('executor: slurm needs submitit: pip install "runstone[slurm]"') from None
        self._pool = pool
        self._options = options
        self._logs = options.logs or folder.path / "workers" / "slurm"
        self._kept = folder.path / "workers" / "jobs.json"
        try:
            self._executor = self._submitit.AutoExecutor(folder=self._logs, cluster=options.cluster)
            if "timeout_min" not in options.parameters and self._executor.cluster == "local":
                self._executor.update_parameters(timeout_min=60 * 24 * 365)
            self._executor.update_parameters(name=f"sweep-{folder.id[-8:]}", **options.parameters)
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise InvalidConfig(f"executor: slurm: {error}") from None
        self._jobs: dict[str, Any] = {}

    def hire(self, workers: Sequence[str]) -> None:
        """Submit a job for each worker, all of them as one array."""
        minutes = self._options.parameters.get("timeout_min")
        for_s = max(_LEAST_S, float(minutes) * 60 - _BEFORE_THE_LIMIT_S) if minutes is not None else None
        contracts = [
            Contract(
                address=str(self._pool.address),
                worker=worker,
                token_file=str(self._pool.token_file),
                slots=self._options.slots,
                for_s=for_s,
            )
            for worker in workers
        ]
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(run_worker, contract) for contract in contracts]
        except Exception as error:  # whatever sbatch says comes as several kinds of exception
            raise NoWorkers(f"no job could be submitted: {error}") from None
        self._jobs |= dict(zip(workers, jobs, strict=True))
        self._keep()

    def ended(self) -> dict[str, str | None]:
        """Return the workers whose jobs have ended."""
        ended: dict[str, str | None] = {}
        for worker, job in list(self._jobs.items()):
            if job.done():
                del self._jobs[worker]
                ended[worker] = _trouble(job)
        if ended:
            self._keep()
        return ended

    def close(self) -> None:
        """Cancel the jobs that are left, those of earlier sessions too."""
        ids = {job.job_id for job in self._jobs.values()}
        if self._executor.cluster == "local":  # its workers were told to go; what waits for them would complain
            until_s = time.monotonic() + _GO_S
            while not all(job.done() for job in self._jobs.values()) and time.monotonic() < until_s:
                time.sleep(0.05)
        for job in self._jobs.values():
            with contextlib.suppress(Exception):  # it may have ended by itself
                job.cancel(check=False)
        if self._executor.cluster == "slurm":
            with contextlib.suppress(OSError, ValueError):
                for job_id in json.loads(self._kept.read_text()):
                    if job_id not in ids:
                        self._submitit.SlurmJob(self._logs, str(job_id)).cancel(check=False)
        with contextlib.suppress(FileNotFoundError):
            self._kept.unlink()

    def _keep(self) -> None:
        """Note the jobs, so that the next session can cancel those that wait in the queue."""
        earlier: list[str] = []
        with contextlib.suppress(OSError, ValueError):
            earlier = [str(job_id) for job_id in json.loads(self._kept.read_text())]
        ids = [str(job.job_id) for job in self._jobs.values()]
        self._kept.write_text(json.dumps(sorted({*earlier, *ids})))


def _trouble(job: Any) -> str | None:
    """Return why a job ended, if not because its worker had nothing to do any more."""
    error = job.exception()
    if error is not None:
        return f"job {job.job_id}: {_last_line(str(error))}; see {Path(job.paths.stderr)}"
    code = job.result()
    return None if code == 0 else f"job {job.job_id}: exit code {code}; see {Path(job.paths.stderr)}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-_TAIL:] if lines else "it says nothing"
