"""Sweeps from Python."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone_sweeps import Sweep, TrialState, run_sweep

CONFIG: dict[str, Any] = {
    "name": "py",
    "parameters": {"x": {"min": -1.0, "max": 1.0}, "net": {"parameters": {"width": {"values": [1, 2]}}}},
    "metric": {"name": "loss", "goal": "minimize"},
    "trials": 6,
    "parallel": 2,
    "seed": 1,
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_any_callable_is_tried_in_forks_of_this_process(home: Path) -> None:
    here = os.getpid()
    offset = 10.0

    def objective(params: dict[str, Any]) -> float:
        assert os.getpid() != here
        run = runstone.current_run()
        assert run is not None
        for step in range(3):
            run.log({"other": step}, step=step)
        return offset + params["x"] ** 2 * params["net"]["width"]

    result = run_sweep(CONFIG, objective, show_progress=False)
    assert result.reason == "finished"
    assert len(result.trials) == 6
    assert result.best_value == min(trial.value for trial in result.trials if trial.value is not None)
    assert result.best_params is not None
    assert result.best_value == pytest.approx(
        offset + result.best_params["x"] ** 2 * result.best_params["net"]["width"]
    )
    assert result.best_run is not None
    assert result.best_run.metrics["loss"].last == result.best_value
    assert result.best_run.params == result.best_params
    assert result.best_run.series("other").value.tolist() == [0, 1, 2]


def test_a_start_run_inside_the_objective_joins_the_run_of_the_trial(home: Path) -> None:
    def objective(params: dict[str, Any]) -> None:
        with runstone.start_run(project="mine", params={"own": 1}, environment=False) as run:
            run.log({"loss": params["x"]})

    result = run_sweep({**CONFIG, "trials": 2}, objective, show_progress=False)
    assert {trial.state for trial in result.trials} == {TrialState.COMPLETE}
    workspace = runstone.open_workspace()
    assert len(list(workspace.run_folders())) == 2
    assert workspace.run(result.trials[0].run_id).params["own"] == 1


def test_an_objective_that_raises_or_returns_nonsense_fails_its_trial_alone(home: Path) -> None:
    def objective(params: dict[str, Any]) -> Any:
        number = int(str(runstone.current_run().name).rpartition("-")[2])  # type: ignore[union-attr]
        if number == 0:
            raise RuntimeError("first")
        return {1: "text", 2: None, 3: {"loss": 4, "acc": 1}}.get(number, number)

    result = run_sweep({**CONFIG, "parallel": 1}, objective, show_progress=False)
    assert [trial.reason for trial in result.trials[:3]] == [
        "RuntimeError: first",
        "TypeError: the objective returned str 'text'; return a number, a dict of metrics or nothing",
        "never logged the metric 'loss'; it logged none",
    ]
    assert [trial.value for trial in result.trials[3:]] == [4.0, 4.0, 5.0]
    run = runstone.open_workspace().run(result.trials[0].run_id)
    assert run.failure is not None
    assert "in objective" in run.failure.traceback


def test_an_objective_is_pruned_through_should_stop(home: Path) -> None:
    def objective(params: dict[str, Any]) -> None:
        run = runstone.current_run()
        assert run is not None
        for step in range(1000):
            run.log({"loss": 5.0}, step=step)
            if run.should_stop:
                return
            time.sleep(0.01)

    pruner = {"name": "threshold", "upper": 1.0}
    result = run_sweep({**CONFIG, "trials": 2, "pruner": pruner}, objective, show_progress=False)
    assert [(trial.state, trial.value) for trial in result.trials] == [(TrialState.PRUNED, 5.0)] * 2


def test_a_larger_budget_goes_on_with_the_same_sweep(home: Path) -> None:
    def objective(params: dict[str, Any]) -> float:
        return float(params["x"])

    first = run_sweep({**CONFIG, "trials": 2}, objective, show_progress=False)
    second = run_sweep({**CONFIG, "trials": 4}, objective, show_progress=False)
    assert second.id == first.id
    assert [trial.params for trial in second.trials[:2]] == [trial.params for trial in first.trials]
    third = Sweep({**CONFIG, "trials": 4}, objective).run(is_new=True, show_progress=False)
    assert third.id != first.id
    assert [trial.params for trial in third.trials] == [trial.params for trial in second.trials]


def test_a_config_that_names_a_program_takes_no_objective(tmp_path: Path) -> None:
    with pytest.raises(runstone.InvalidConfig, match="script: does not go with an objective given in Python"):
        Sweep({**CONFIG, "script": "train.py"}, lambda params: 0.0)
    with pytest.raises(runstone.InvalidConfig, match="a config file names its program"):
        Sweep(tmp_path / "x.yaml", lambda params: 0.0)
