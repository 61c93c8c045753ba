"""Records what a script that uses Lightning Fabric logs: `Fabric(loggers=[RunstoneLogger()])`.

Fabric has no training loop and so no hooks: what is recorded is what the script hands to `fabric.log`,
`fabric.log_dict` and to this logger. Imports no framework.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec

from runstone_integrations._lightning_model import layer_table
from runstone_integrations._shared import clean_params, open_own_run, run_of_user, warn

if TYPE_CHECKING:
    from runstone import Run, Workspace

P = ParamSpec("P")
# What Lightning's loggers are told, and how the run ends then.
_STATUS = {"success": "finished", "finished": "finished", "failed": "failed", "aborted": "stopped"}


def _only_rank_zero(
    method: Callable[Concatenate[RunstoneLogger, P], None],
) -> Callable[Concatenate[RunstoneLogger, P], None]:
    """Do nothing on other ranks, and keep what goes wrong in tracking out of the training."""

    @functools.wraps(method)
    def guarded(self: RunstoneLogger, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if _rank() != 0:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._report(method.__name__, error)

    return guarded


class RunstoneLogger:
    """Records the metrics and hyperparameters of a script that uses Fabric as a run.

    The run starts with what is logged first, on rank 0 only. It ends with `finalize("success")` or with the process: an
    exception that ends the script makes it failed, Ctrl-C and SIGTERM stopped. A run that is open already
    (`with runstone.start_run(): …`) is taken and left open.

    Args:
        project, name, params, tags, group, notes, workspace: As in `runstone.start_run`.
        run: A run that you opened and that you end; then all of these are its own.
        run_id: The run to go on with, after `fabric.load`; keep `logger.version` in your checkpoint for that.
        on_error: `"warn"` (default) or `"raise"`: what happens when something cannot be recorded.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        group: str | None = None,
        notes: str | None = None,
        run: Run | None = None,
        run_id: str | None = None,
        workspace: str | Path | Workspace | None = None,
        on_error: Literal["warn", "raise"] | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "project": project,
            "name": name,
            "params": clean_params(params or {}),
            "tags": dict(tags or {}),
            "group": group,
            "notes": notes,
            "run_id": run_id,
            "workspace": workspace,
            "on_error": on_error,
        }
        self._on_error = on_error
        self._given_run = run
        self._run: Run | None = None
        self._reported: set[str] = set()

    @property
    def run(self) -> Run | None:
        """The run; `None` before anything is logged, and on ranks other than 0."""
        return self._run or self._given_run

    @property
    def experiment(self) -> Run | None:
        """The run, opened now where it is not; `None` on ranks other than 0. The name is Lightning's."""
        return self._opened() if _rank() == 0 else None

    @property
    def should_stop(self) -> bool:
        """Whether the run was asked to stop; on ranks other than 0 always `False`, so agree by a broadcast."""
        return self.run is not None and self.run.should_stop

    # --- what Fabric and scripts call

    @_only_rank_zero
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one value of each metric, at `step` or at one more than the last."""
        self._opened().log(metrics, step=step)

    @_only_rank_zero
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record hyperparameters of any type: a mapping, or a namespace."""
        params = {} if params is None else params if isinstance(params, Mapping) else vars(params)
        self._opened().log_params(clean_params({**params, **kwargs}))

    @_only_rank_zero
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Record a table of the layers as the text `model/layers`. No batch is run: shapes are not known here."""
        self._opened().log_text("model/layers", layer_table(model, {}), step=0)

    def save(self) -> None:
        """Do nothing: what was logged is on the disk already."""

    @_only_rank_zero
    def finalize(self, status: str) -> None:
        """End the run, unless it is yours. Fabric does not call this; the end of the process ends the run too."""
        if self._run is not None and self._run is not self._given_run:
            self._run.finish(_STATUS.get(status, "finished"))

    # --- what Lightning asks of loggers

    @property
    def name(self) -> str | None:
        """Name of the run, once it is open."""
        return self.run.name if self.run is not None else self._options["name"]

    @property
    def version(self) -> str | None:
        """Id of the run, once it is open."""
        return self.run.id if self.run is not None else self._options["run_id"]

    @property
    def root_dir(self) -> str | None:
        """Nothing: other callers must write no files into a workspace."""
        return None

    @property
    def log_dir(self) -> str | None:
        """Nothing, as `root_dir`."""
        return None

    @property
    def group_separator(self) -> str:
        """What stands between the parts of a metric's name."""
        return "/"

    def _opened(self) -> Run:
        if self._given_run is None and self._run is None:
            self._given_run = run_of_user()
            if self._given_run is not None:
                self._given_run.log_params(self._options["params"])
                self._given_run.set_tags(self._options["tags"])
        if self._given_run is not None:
            return self._given_run
        if self._run is None:
            self._run = open_own_run(**self._options)
        elif self._run.is_finished:  # logged again after finalize
            self._run.reopen()
        return self._run

    def _report(self, method: str, error: Exception) -> None:
        if "raise" in (self._on_error, self.run.on_error if self.run else None):
            raise error
        kind = f"{method} {type(error).__name__}"
        if kind not in self._reported:
            self._reported.add(kind)
            warn(f"training goes on, but {method} could not be recorded: {type(error).__name__}: {error}")


def _rank() -> int:
    """Return this process's rank as Lightning knows it: by the launcher's environment, then by the process group."""
    module: Any = sys.modules.get("lightning_utilities.core.rank_zero")
    return int(getattr(getattr(module, "rank_zero_only", None), "rank", None) or 0)
