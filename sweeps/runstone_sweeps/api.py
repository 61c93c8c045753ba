"""Sweeps from Python: a config and, if it names no program, a function to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from runstone import InvalidConfig, InvalidValue, RunInfo, Workspace, ensure_workspace, open_workspace
from runstone_sweeps.config import load_spec, parse_spec
from runstone_sweeps.record import SweepRecord, TrialRecord
from runstone_sweeps.space import nest
from runstone_sweeps.store import SweepFolder, Sweeps, recorded_spec

if TYPE_CHECKING:
    from runstone_sweeps.study.convert import Study


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        id: Its id; `sweep show ID` and `sweep report ID` tell more.
        reason: Why it ended: `finished`; `timeout` or `budget`: that is spent; `stopped`; `failing`: the first trials
            all failed alike; `target`: a result is good enough; `converged`: no better one is expected; `exhausted`:
            every point has been tried.
        trials: All trials by number.
    """

    id: str
    reason: str
    trials: tuple[TrialRecord, ...]
    _best: TrialRecord | None
    _folder: SweepFolder

    @property
    def best_value(self) -> float | None:
        """The best result, `None` where no trial is complete."""
        return None if self._best is None else self._best.value

    @property
    def best_params(self) -> dict[str, Any] | None:
        """The params of the best trial, nested; `None` where no trial is complete."""
        return None if self._best is None else nest(self._best.params)

    @property
    def best_run(self) -> RunInfo | None:
        """The run of the best trial."""
        if self._best is None:
            return None
        path = Workspace(self._folder.path.parent.parent).find_run_folder(self._best.run_id)
        return None if path is None else RunInfo(path)

    def to_optuna(self) -> Study:
        """Return the sweep as an Optuna study in memory, for Optuna's plots and tools."""
        return _study_of(self._folder)


def to_optuna(sweep: str, *, workspace: str | Path | Workspace | None = None) -> Study:
    """Return a sweep, finished or running, as an Optuna study in memory, for Optuna's plots and tools.

    Every trial is there under its number, with the params, results, reports, constraints and times that it had; the
    user attribute `run_id` names its run. What is done to the study does nothing to the sweep.

    Args:
        sweep: Id of the sweep, or the begin or end of one, or its name.
        workspace: Where it is recorded; default as for any run.

    Raises:
        SweepNotFound: there is none.
        AmbiguousName: there are several.
    """
    opened = workspace if isinstance(workspace, Workspace) else open_workspace(workspace)
    return _study_of(Sweeps(opened).find(sweep))


def _study_of(folder: SweepFolder) -> Study:
    from runstone_sweeps.study import to_optuna as convert  # imports Optuna

    record = folder.read()
    return convert(recorded_spec(record, is_for_reading=True), record)


class Sweep:
    """A search that is run from Python.

    ```python
    def objective(params):
        return train(lr=params["lr"])

    config = {"parameters": {"lr": {"min": 1e-4, "max": 1e-1, "log": True}},
              "metric": {"name": "val/loss", "goal": "minimize"}, "trials": 20, "parallel": 2}
    result = Sweep(config, objective).run()
    ```

    Args:
        config: The keys of a `sweep.yaml` as a dict, or the path of one.
        objective: Called with the trial's params, nested, in a fork of this process; it returns the metric, a
            dict of metrics, or nothing if it logs the metric itself. Needed where the config names no program.
        workspace: Where runs are recorded; default as for any run.

    Raises:
        InvalidConfig: the config has mistakes; each is one line of the message.
        InvalidValue: this process has used CUDA, which no fork of it could do again.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str | Path,
        objective: Callable[[dict[str, Any]], Any] | None = None,
        *,
        workspace: str | Path | Workspace | None = None,
    ) -> None:
        if isinstance(config, Mapping):
            has_objective = objective is not None
            self.spec = parse_spec(dict(config), folder=Path.cwd(), file_name="sweep", has_objective=has_objective)
        elif objective is None:
            self.spec = load_spec(config)
        else:
            raise InvalidConfig(f"{config}: a config file names its program; give a dict with an objective")
        self._objective = objective
        self._workspace = workspace

    def run(self, *, is_new: bool = False, show_progress: bool = True) -> SweepResult:
        """Run the sweep, or go on with one of the same config that is unfinished.

        Args:
            is_new: Begin a new one in any case.
            show_progress: Print to the terminal how it goes.
        """
        if self._objective is not None:
            _refuse_cuda()
        from runstone_sweeps.coordinator.session import open_sweep, run_session  # imports Optuna
        from runstone_sweeps.terminal.views import LineView, LiveView

        workspace = ensure_workspace(self._workspace)
        folder, _ = open_sweep(workspace, self.spec, is_new=is_new)
        console = Console(highlight=False, markup=False, emoji=False, quiet=not show_progress)
        kind = LiveView if console.is_terminal and show_progress else LineView
        views: list[LineView | LiveView] = []

        def make_view(folder: SweepFolder, record: SweepRecord, spec: Any) -> LineView | LiveView:
            views.append(kind(console, folder, record, spec))
            return views[-1]

        try:
            ended = run_session(workspace, folder, self.spec, make_view, objective=self._objective)
        finally:
            for view in views:
                view.close()
        record = ended.record
        return SweepResult(folder.id, ended.reason, tuple(record.trials.values()), record.best, folder)


def run_sweep(
    config: Mapping[str, Any] | str | Path,
    objective: Callable[[dict[str, Any]], Any] | None = None,
    *,
    workspace: str | Path | Workspace | None = None,
    show_progress: bool = True,
) -> SweepResult:
    """Run a sweep in one call; see `Sweep`."""
    return Sweep(config, objective, workspace=workspace).run(show_progress=show_progress)


def _refuse_cuda() -> None:
    """Refuse to fork a process that holds a CUDA context: its child would fail at the first operation."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise InvalidValue(
            "this process has used CUDA, and a fork of it cannot; put the objective into a module and name it in the "
            "config: function: module:name"
        )
