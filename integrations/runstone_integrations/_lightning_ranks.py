"""What the ranks of a training tell each other of its run: which one it is, how they failed, what their hosts do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import runstone
from runstone_integrations._shared import run_of_user

if TYPE_CHECKING:
    from runstone import Run


class Ranks:
    """The ranks of one training as one of them sees them. Rank 0 records; the others report into its run.

    Attributes:
        have_met: Whether all ranks know of the run, so that they agree on when to stop.
    """

    def __init__(self) -> None:
        self.have_met = False
        self._place: tuple[str, str] | None = None  # run id and workspace, where rank 0 records
        self._reports: runstone.RankReports | None = None

    @property
    def is_other(self) -> bool:
        """Whether this is a rank other than 0, of a run that rank 0 records."""
        return self._place is not None

    def meet(self, trainer: Any, run: Run | None, *, is_collective: bool) -> bool:
        """Tell the other ranks which run rank 0 has, `None` where it has none: they wait for this.

        Returns:
            Whether this rank has begun to report.
        """
        place: tuple[str, str] | None = None
        invitation: Any = None
        if run is not None:
            with contextlib.suppress(runstone.WorkspaceNotFound):  # a run that records nothing has none
                place = run.id, str(run.workspace.path)
                invitation = runstone.RankReports.invitation_to(run) if trainer.world_size > 1 else None
        self.have_met = False
        if is_collective and trainer.world_size > 1:
            place, invitation = trainer.strategy.broadcast((place, invitation))
            self.have_met = place is not None
            self._place = None if trainer.is_global_zero else place
        return invitation is not None and not trainer.is_global_zero and self._begin_reports(trainer, invitation)

    def _begin_reports(self, trainer: Any, invitation: Any) -> bool:
        user_run = run_of_user()
        if self._place is not None and user_run is not None and user_run.id == self._place[0]:
            return False  # the script has started it in this rank too: there it reports by itself
        if self._reports is None or not self._reports.is_for(invitation):
            self._reports = runstone.RankReports(
                invitation,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                local_rank=trainer.local_rank,
                local_size=trainer.num_devices,
                node_rank=trainer.node_rank,
            )
        self._reports.start()
        return True

    def part(self) -> None:
        """End the stage: ranks may no longer be there to agree with."""
        self.have_met = False

    def stop_reports(self) -> None:
        """Report nothing more."""
        self._place = None
        if self._reports is not None:
            self._reports.stop()

    def report_failure(self, exception: BaseException) -> None:
        """Keep an exception of a rank other than 0 in the run."""
        place, self._place = self._place, None
        if place is None:
            return
        run_id, workspace = place
        if runstone.open_workspace(workspace).run(run_id).status.is_ended:
            if self._reports is not None:  # rank 0 has told why; what other ranks see after that may be only its echo
                self._reports.keep_error(exception)
            return
        run = runstone.start_run(
            run_id=run_id, workspace=workspace, resume=True, environment=False, system_metrics=False
        )
        run.fail(exception)
        run.finish("failed")
