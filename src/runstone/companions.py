"""What works beside a run and never in its way: environment snapshot, system metrics, mirror, alerts, sending."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runstone import ending, settings
from runstone.runlog.liveness import read_status
from runstone.runlog.writer import RunLog

if TYPE_CHECKING:
    from runstone.capture import Background
    from runstone.capture.metrics import Sampler
    from runstone.run import Run


SPOOL_MARK = "remote.json"  # as `runstone.sync.spool` has it, likewise
ALERTS_FILE = "alerts.yaml"  # as `runstone.alerts` has it, which is loaded only where there is one


class RankPlace(NamedTuple):
    """Where a process stands in a distributed job; `local_size` is `None` where nobody says."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int | None
    node_rank: int


class Companions:
    """The helpers of one run in one process.

    Args:
        environment: Take the snapshot of the machine, in a thread.
        interval_s: Seconds between system metrics; `None`: none.
        tensorboard: Mirror the run into TensorBoard event files, by a process: here, or where the workspace keeps them.
        started_at: When the run was created, seconds since the epoch: system metrics count their steps from it.
        place: Place in a distributed job; by default what the environment says.
        handed_over: Folder in which processes of this host hand each other what they know of it.
        alerts: Rules to watch the run by, by a process, with those of the workspace.
        trouble: Told what could not be started.
    """

    def __init__(
        self,
        *,
        environment: bool,
        interval_s: float | None,
        tensorboard: bool | str | Path,
        started_at: float,
        alerts: Sequence[Any] = (),
        place: RankPlace | None = None,
        handed_over: Path | None = None,
        trouble: Callable[[str, Exception], None],
    ) -> None:
        self._handed_over = handed_over
        self._environment = environment
        self._interval_s = interval_s
        self._tensorboard = tensorboard
        self._started_at = started_at
        self._place = place
        self._alerts = alerts
        self._trouble = trouble
        self._snapshot: Background | None = None
        self._sampler: Sampler | None = None
        self._joules: Mapping[str, float] | None = None

    def start(self, log: RunLog) -> None:
        """Start them for a writer; once more for the next writer of a run that is reopened, but for the snapshot."""
        for name, start in (
            ("environment", self._take_snapshot),
            ("system metrics", self._start_sampler),
            ("tensorboard", self._start_mirror),
            ("alerts", self._start_watch),
            ("sync", _start_sender),
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
        if self._snapshot is not None:
            self._snapshot.look_again()
        if self._sampler is not None:
            self._sampler.stop()
            self._joules = self._sampler.joules or self._joules  # empty before its first sample
            self._sampler = None

    def invitation(self, run_path: Path, attempt: int) -> tuple[Any, ...] | None:
        """Return what other ranks need to report as this one does: see `RankReports`."""
        if not self._environment and self._interval_s is None:
            return None
        return str(run_path), attempt, self._environment, self._interval_s, self._started_at

    def _take_snapshot(self, log: RunLog) -> None:
        if not self._environment or self._snapshot is not None:
            return
        from runstone.capture import start_background  # only where wanted

        place = self._place
        snapshot = start_background(
            log.path,
            log.writer.hex(),
            log_backend=log.backend,
            ranks={name: value for name, value in place._asdict().items() if value is not None} if place else None,
            is_whole=lambda: place.local_rank == 0 if place else _tells_of_host(log),
            handed_over=self._handed_over,
            note=lambda message: log.write("warning", kind="environment", message=message),
        )
        ending.finish_before_exit(snapshot)
        self._snapshot = snapshot

    def _start_sampler(self, log: RunLog) -> None:
        if self._interval_s is None:
            return
        from runstone.capture.metrics import start_sampler  # only where wanted

        joules = self._joules
        self._sampler = start_sampler(
            lambda values, step: log.points.log(values, step),  # the points of a closed log are others
            interval_s=self._interval_s,
            started_at=self._started_at,
            rank=log.rank,
            place=(self._place.local_rank, self._place.local_size) if self._place is not None else None,
            store=log.path,
            note=lambda message: log.write("warning", kind="system-metrics", message=message),
            own=lambda: _state_of(log),
            spent=lambda: _joules_before(log) if joules is None else joules,
        )

    def _start_mirror(self, log: RunLog) -> None:
        if self._tensorboard is False or log.rank != 0:
            return
        from runstone.tensorboard import start_mirror  # only where wanted

        start_mirror(log.path, None if self._tensorboard is True else Path(self._tensorboard))

    def _start_watch(self, log: RunLog) -> None:
        workspace = log.path.parents[2]
        if log.rank != 0 or not (self._alerts or (workspace / ALERTS_FILE).is_file()):
            return
        from runstone.alerts import read_alerting, start_watch  # only where wanted

        alerting = read_alerting(workspace, self._alerts)
        if alerting and (self._alerts or alerting.trials or settings.read("RUNSTONE_TRIAL") is None):
            start_watch(log.path, alerting)


def _start_sender(log: RunLog) -> None:
    """Have the run sent, where its workspace is what goes to a server."""
    workspace = log.path.parents[2]
    if (workspace / SPOOL_MARK).is_file():
        from runstone.sync.process import ensure_sender  # only where wanted

        ensure_sender(workspace)


def _state_of(log: RunLog) -> dict[str, float | int]:
    """Return what a writer can say of itself as system metrics, read once a sample."""
    state: dict[str, float | int] = {"dropped_points": log.points.dropped, "waiting_values": log.points.waiting()}
    status = read_status(log.path / f"{log.writer.hex()}.status")
    if status is not None:  # a helper writer makes its files with its first points
        state["sync_age_s"] = max(0.0, time.time() - status.beat)
    return state


def _tells_of_host(log: RunLog) -> bool:
    """Return whether no lower rank of this run on this host has taken the snapshot of machine and code."""
    if log.rank == 0:
        return True
    from runstone.runlog.reader import read_journal  # readers are loaded where needed, here by a thread

    here = os.uname().nodename
    return not any(
        other.attempt == log.attempt and other.host == here and other.rank < log.rank
        for other in read_journal(log.path).writers
        if other.role != "edit"
    )


def _joules_before(log: RunLog) -> dict[str, float]:
    """Return what the meters of this rank's GPUs and CPUs stood at when earlier attempts ended."""
    if log.attempt == 1:
        return {}
    from runstone.capture.metrics import joules_in, prefix_of
    from runstone.runinfo import RunInfo  # NumPy, only where a run goes on

    prefix = prefix_of(log.rank)
    metrics = RunInfo(log.path).metrics.items()
    return joules_in({name.removeprefix(prefix): m.max or 0.0 for name, m in metrics if name.startswith(prefix)})


# --- the other ranks ------------------------------------------------------------------------------------------------
class RankReports:
    """What a rank other than 0 of a distributed job tells of its process and its host, in the run of rank 0.

    A helper writer of the run with files of its own, made when there is something to write: system metrics and the
    snapshot, nothing else. How the run ends is for rank 0 to say. Nothing here raises into training.

    ```python
    box = [RankReports.invitation_to(run) if rank == 0 else None]
    torch.distributed.broadcast_object_list(box)
    reports = RankReports(box[0], rank=rank, world_size=8, local_rank=local_rank)  # in the other ranks
    reports.start()
    ```

    Args:
        invitation: What `invitation_to` returned in the process of rank 0. The run's folder must be seen from here.
        rank, world_size: Of the whole job.
        local_rank: Rank on this host; 0 tells of the host.
        local_size: How many ranks this host has, if known.
        node_rank: Number of the host.
    """

    def __init__(
        self,
        invitation: tuple[Any, ...],
        *,
        rank: int,
        world_size: int,
        local_rank: int,
        local_size: int | None = None,
        node_rank: int = 0,
    ) -> None:
        self._invitation = invitation
        run_path, self._attempt, environment, interval_s, started_at = invitation
        self._run_path = Path(run_path)
        self._rank = rank
        self._log: RunLog | None = None
        self._companions = Companions(
            environment=environment,
            interval_s=interval_s,
            tensorboard=False,
            started_at=started_at,
            place=RankPlace(rank, world_size, local_rank, local_size, node_rank),
            trouble=lambda _what, _error: None,  # rank 0 has the same trouble, and tells it
        )

    @staticmethod
    def invitation_to(run: Run) -> tuple[Any, ...] | None:
        """Return what other ranks need to report into a run that this process has started, as plain values.

        Returns:
            `None` where the run wants neither system metrics nor a snapshot, or records nothing.
        """
        companions = run._companions
        return companions.invitation(run.path, run.attempt) if companions is not None else None

    def is_for(self, invitation: tuple[Any, ...]) -> bool:
        """Return whether this reports into the same life of the same run."""
        return self._invitation == invitation

    def start(self) -> None:
        """Begin, or go on after `stop`. Costs the start of two threads."""
        if self._log is not None:
            return
        try:
            self._log = RunLog(
                self._run_path,
                role="child",
                attempt=self._attempt,
                rank=self._rank,
                is_lazy=True,
            )
        except OSError:  # the folder cannot be seen from this host: nothing can be reported
            return
        self._companions.start(self._log)
        ending.watch(self)

    def keep_error(self, error: BaseException) -> None:
        """Keep the text of an exception of this rank, where rank 0 has already told how the run ended."""
        if self._log is not None:
            text = "".join(traceback.format_exception(error))
            with contextlib.suppress(OSError):
                self._log.write("warning", kind="rank-error", message=f"rank {self._rank}: {text}")

    def stop(self) -> None:
        """Take a last sample and let go of the files."""
        log, self._log = self._log, None
        if log is None:
            return
        ending.unwatch(self)
        self._companions.stop()
        with contextlib.suppress(OSError):
            if not log.is_silent:
                log.write("end", status="finished", failure=None, dropped=log.points.dropped)
        with contextlib.suppress(OSError):
            log.close("finished")

    def end_with_process(self, error: BaseException | None) -> None:
        """End as the process does. Called by the hooks of `ending`."""
        self.stop()
