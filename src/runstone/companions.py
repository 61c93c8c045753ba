"""What works beside a run and never in its way: environment snapshot, system metrics, TensorBoard mirror."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runstone import ending
from runstone.runlog.writer import RunLog

if TYPE_CHECKING:
    from runstone.capture.metrics import Sampler


class Companions:
    """The helpers of one run in one process.

    Args:
        environment: Take the snapshot of the machine, in a thread.
        interval_s: Seconds between system metrics; `None`: none.
        tensorboard: Mirror the run into TensorBoard event files, by a process: here, or where the workspace keeps them.
        started_at: When the run was created, seconds since the epoch: system metrics count their steps from it.
        trouble: Told what could not be started.
    """

    def __init__(
        self,
        *,
        environment: bool,
        interval_s: float | None,
        tensorboard: bool | str | Path,
        started_at: float,
        trouble: Callable[[str, Exception], None],
    ) -> None:
        self._environment = environment
        self._interval_s = interval_s
        self._tensorboard = tensorboard
        self._started_at = started_at
        self._trouble = trouble
        self._snapshot: ending.Joinable | None = None
        self._sampler: Sampler | None = None

    def start(self, log: RunLog) -> None:
        """Start them for a writer; once more for the next writer of a run that is reopened, but for the snapshot."""
        for name, start in (
            ("environment", self._take_snapshot),
            ("system metrics", self._start_sampler),
            ("tensorboard", self._start_mirror),
        ):
            try:
                start(log)
            except Exception as error:  # each is on its own; whether it raises, the run decides
                self._trouble(name, error)

    def join_snapshot(self, timeout_s: float) -> None:
        """Wait for the snapshot, at most so long."""
        if self._snapshot is not None:
            self._snapshot.join(timeout_s)

    def stop(self) -> None:
        """Take a last sample. The snapshot goes on until it is done, the mirror until it has seen the end."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def _take_snapshot(self, log: RunLog) -> None:
        if not self._environment or self._snapshot is not None:
            return
        from runstone.capture import start_background  # only where wanted

        snapshot = start_background(log.path, log.writer.hex(), log_backend=log.backend)
        ending.finish_before_exit(snapshot)
        self._snapshot = snapshot

    def _start_sampler(self, log: RunLog) -> None:
        if self._interval_s is None:
            return
        from runstone.capture.metrics import start_sampler  # only where wanted

        self._sampler = start_sampler(
            lambda values, step: log.points.log(values, step),  # the points of a closed log are others
            interval_s=self._interval_s,
            started_at=self._started_at,
            rank=log.rank,
            store=log.path,
            note=lambda message: log.write("warning", kind="system-metrics", message=message),
            own=lambda: {"dropped_points": log.points.dropped, "waiting_values": log.points.waiting()},
        )

    def _start_mirror(self, log: RunLog) -> None:
        if self._tensorboard is False or log.rank != 0:
            return
        from runstone.tensorboard import start_mirror  # only where wanted

        start_mirror(log.path, None if self._tensorboard is True else Path(self._tensorboard))
