"""Which run the stages of trainers are recorded in: one that was given, one that is open, an earlier one, a new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import runstone
from runstone_integrations._shared import clean_params, open_own_run, run_of_user

if TYPE_CHECKING:
    from runstone import Run, Workspace


class RunChoice:
    """What a callback knows of its run, from its options, from checkpoints and from the stages before.

    A copy, in this or another process, goes on with the same run, by its id.

    Attributes:
        run: The run that this process records in now or did last.
        given: The run of the user, which is not ours to end.
        run_id: Id of the run that the next stage goes on with.
        loaded: What a checkpoint that is being loaded says of the run that wrote it.
        has_failed: Whether the last stage failed: a fit after it is a new attempt.
    """

    def __init__(
        self,
        *,
        identity: Mapping[str, Any],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        workspace: str | Path | Workspace | None,
        on_error: Literal["warn", "raise"] | None,
        given: Run | None,
        resume: Literal["continue", "fork"],
    ) -> None:
        self.params = dict(params)
        self.on_error = on_error
        self.given = given
        self.run_id: str | None = None
        self.loaded: dict[str, Any] = {}
        self._identity = dict(identity)
        self._tags = dict(tags)
        self._workspace = workspace
        self._resume = resume
        self._is_adopted = False
        self._project: str | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.run: Run | None = None
        self.has_failed = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs to find the run again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("run", "has_failed")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy."""
        self.__dict__.update(state)
        self._start_afresh()

    def for_checkpoint(self) -> dict[str, str]:
        """Return what a checkpoint keeps: text only, so that it loads anywhere, without this package too."""
        return {} if self.run_id is None else {"run_id": self.run_id, "project": self._project or ""}

    def forget(self) -> None:
        """Let the next fit have a run of its own."""
        self.run_id = self._project = None

    def join(self, stage: str, *, is_resuming: bool) -> Run:
        """Open the run of a stage, or go on with the one that it belongs to."""
        run = self._join(stage, is_resuming=is_resuming)
        self.run, self.run_id, self._project, self.has_failed = run, run.id, run.project, False
        return run

    def _join(self, stage: str, *, is_resuming: bool) -> Run:
        if self._is_adopted and self.given is not None and self.given.is_finished:
            self.given = None  # the block around it has ended: from here on the run is ours to end
        if self.given is None and self.run_id is None:
            self.given = run_of_user()
            self._is_adopted = self.given is not None
        if self.given is not None:
            if self._is_adopted and self.run is not self.given:
                self.given.log_params(clean_params(self.params))
                self.given.set_tags(self._tags)
            return self.given
        run_id, project, parent = self._standing(stage)
        is_new_attempt = is_resuming or (stage == "fit" and self.has_failed)
        if self.run is not None and self.run.id == run_id and not is_new_attempt:
            self.run.reopen()
            return self.run
        common: dict[str, Any] = {
            "params": clean_params(self.params),
            "tags": self._tags,
            "workspace": self._workspace,
            "on_error": self.on_error,
        }
        if run_id is not None:
            return open_own_run(run_id=run_id, project=project or self._identity["project"], **common)
        return open_own_run(**self._identity, parent=parent, **common)

    def _standing(self, stage: str) -> tuple[str | None, str | None, str | None]:
        """Return id and project of the run to go on with, and the parent of a new one."""
        run_id, project, wrote = self.run_id, self._project, self.loaded.get("run_id")
        # In a trial the first run of the process is the trial's, wherever its weights come from.
        if not wrote or (run_id is None and runstone.trial_params()):
            return run_id, project, None
        if stage == "fit" and self._resume == "continue":
            return wrote, self.loaded.get("project") or None, None
        if run_id is None or (stage == "fit" and run_id == wrote):
            return None, None, wrote
        return run_id, project, None
