"""An executor that also starts its workers: as jobs of Slurm, or as tasks of Ray, and anew while there is work left."""

from __future__ import annotations

import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runstone import RunstoneError
from runstone_sweeps.environment import process_environment
from runstone_sweeps.executors.executor import News, TrialStart, TrialStarted
from runstone_sweeps.workers.address import parse_address
from runstone_sweeps.workers.pool import WorkerPool
from runstone_sweeps.workers.program import WorkerOptions, WorkerProgram
from runstone_sweeps.workers.token import check_token, read_token

_LOOK_EVERY_S = 2.0
# A worker that ends sooner than this did not take part; so many in a row, and no more are started.
_SOON_S = 30.0
_MOST_FAILURES = 3


class NoWorkers(RunstoneError):
    """No worker can be started."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a worker that is started elsewhere is told: plain values, as they are sent there.

    Attributes:
        address: Of the coordinator.
        worker: Its id.
        token_file: File with the token; `None`: `token` is it.
        slots: Trials at once; `None`: as it finds.
        patience_s: Seconds that it looks for a coordinator that is gone.
        for_s: Seconds after which it ends.
    """

    address: str
    worker: str
    token_file: str | None = None
    token: str | None = None
    slots: int | None = None
    patience_s: float = 600.0
    for_s: float | None = None


def run_worker(contract: Contract) -> int:
    """Be a worker, in this process; return its exit code."""
    if contract.token_file is not None:
        token = read_token(Path(contract.token_file))
    else:
        token = check_token(contract.token or "", "token")
    options = WorkerOptions(
        address=parse_address(contract.address, what="address"),
        token=token,
        slots=contract.slots,
        patience_s=contract.patience_s,
        for_s=contract.for_s,
        # A job that came after the sweep had ended gives its node back.
        idle_exit_s=contract.patience_s,
        id=contract.worker,
    )
    return WorkerProgram(options, process_environment(), lambda line: print(f"worker: {line}", file=sys.stderr)).run()


class Hirer(Protocol):
    """Starts workers somewhere."""

    def hire(self, workers: Sequence[str]) -> None:
        """Start workers with these ids.

        Raises:
            NoWorkers: that is not possible.
        """

    def ended(self) -> dict[str, str | None]:
        """Return the workers that have ended since the last call, each with what went wrong, if anything did."""

    def close(self) -> None:
        """End those that are left."""


class HiringPool:
    """A pool that keeps a number of workers.

    Args:
        pool: Hands out the trials; closed with this.
        hirer: Starts workers; closed with this.
        workers: How many.
        clock: Seconds that only rise.
    """

    def __init__(
        self, pool: WorkerPool, hirer: Hirer, workers: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._hirer = hirer
        self._wanted = workers
        self._clock = clock
        self._hired: dict[str, float] = {}
        self._failures = 0
        self._notes: list[str] = []
        self._next_s = float("-inf")

    def has_room(self) -> bool:
        """Return whether a worker is there that takes one more trial."""
        return self._pool.has_room()

    def start(self, start: TrialStart) -> None:
        """Hand a trial to a worker."""
        self._pool.start(start)

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial."""
        self._pool.send_signal(key, sent)

    def poll(self, timeout_s: float) -> Sequence[News]:
        """Return what happened, after `timeout_s` at the latest.

        Raises:
            NoWorkers: none can be started, and none is there.
        """
        if self._clock() >= self._next_s:
            self._look()
            self._next_s = self._clock() + _LOOK_EVERY_S
        return self._pool.poll(timeout_s)

    def survivors(self) -> Sequence[TrialStarted]:
        """Wait for the workers of an earlier session, and return the trials that they still have."""
        return self._pool.survivors()

    def take_notes(self) -> Sequence[str]:
        """Return who came and went."""
        notes, self._notes = [*self._notes, *self._pool.take_notes()], []
        return notes

    def end(self) -> None:
        """Say that nothing is left to do."""
        self._pool.end()

    def close(self) -> None:
        """Let go of the workers and end what runs them."""
        self._pool.close()
        self._hirer.close()

    def _look(self) -> None:
        """Start as many workers as are missing."""
        now_s = self._clock()
        for worker, trouble in self._hirer.ended().items():
            lasted_s = now_s - self._hired.pop(worker, now_s)
            self._pool.lose(worker)
            if trouble is not None:
                self._notes.append(f"a worker ended: {trouble}")
            self._failures = self._failures + 1 if lasted_s < _SOON_S and trouble is not None else 0
        if self._failures >= _MOST_FAILURES:
            if not self._hired and not self._pool.connected:
                raise NoWorkers(f"{self._failures} workers ended as soon as they began: {self._notes[-1:]}")
            return
        others = self._pool.connected - sum(map(self._pool.has_worker, self._hired))
        missing = self._wanted - len(self._hired) - others
        if missing > 0:
            workers = [secrets.token_hex(8) for _ in range(missing)]
            self._hirer.hire(workers)
            self._hired |= dict.fromkeys(workers, now_s)
