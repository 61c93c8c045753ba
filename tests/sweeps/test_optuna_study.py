"""A sweep as a study of Optuna, its plots, and what its parameters explain."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from runstone_sweeps.record import TrialState
from runstone_sweeps.study import find_importances, to_optuna
from tests.sweeps.searching import LOSS, MIXED, NUMERIC, TREE, Sweep, make_spec, run

TWO = [LOSS, {"name": "accuracy", "goal": "maximize"}]
DRAWN = {
    "z": {"distribution": "normal", "mu": 0.0, "sigma": 1.0},
    "r": {"distribution": "log_normal", "mu": 0.0, "sigma": 1.0},
    "kind": {"values": ["a", "b"], "probabilities": [0.9, 0.1]},
}


@pytest.mark.parametrize(
    ("space", "keys"),
    [(MIXED, {}), (TREE, {}), (DRAWN, {}), (MIXED, {"metrics": TWO, "constraints": [{"metric": "m", "max": 1.0}]})],
    ids=["mixed", "tree", "drawn", "several"],
)
def test_a_study_has_every_trial_as_it_was(space: dict[str, Any], keys: dict[str, Any]) -> None:
    sweep = Sweep(make_spec(space, **keys))
    run(sweep, 25)
    study = to_optuna(sweep.spec, sweep.record)
    assert len(study.trials) == 25
    assert [direction.name.lower() for direction in study.directions] == [m.goal for m in sweep.spec.metrics]
    for trial, ours in zip(study.trials, sweep.record.trials.values(), strict=True):
        assert trial.number == ours.number
        assert trial.user_attrs["run_id"] == ours.run_id
        assert trial.intermediate_values == ours.reports
        assert list(trial.constraints.values()) == list(ours.constraints)
        for name, value in trial.params.items():
            given = ours.params[name]
            assert value == given or (isinstance(given, list) and value == str(given))
        assert set(ours.params) - set(trial.params) <= {"epochs"}
        if ours.state is TrialState.COMPLETE:
            assert tuple(trial.values) == ours.values
    assert study.best_trials if len(study.directions) > 1 else study.best_trial


def test_a_study_goes_on_in_optuna_where_the_sweep_stopped() -> None:
    sweep = Sweep(make_spec(TREE))
    run(sweep, 12)
    study = to_optuna(sweep.spec, sweep.record)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-1, log=True), n_trials=2)
    assert len(study.trials) == 14


def test_values_outside_of_an_edited_space_are_in_the_study_too() -> None:
    sweep = Sweep(make_spec(MIXED))
    sweep.complete(lambda params: 1.0)
    sweep.complete(lambda params: 2.0, fixed={"lr": 5.0, "kind": "gone", "net.width": 40})
    trial = to_optuna(sweep.spec, sweep.record).trials[1]
    assert trial.params == {"lr": 5.0, "net.width": 40}
    assert trial.user_attrs["parameters"] == {"kind": "gone", "epochs": 3}


def test_importances_are_shares_and_need_two_different_results() -> None:
    sweep = Sweep(make_spec(NUMERIC, sampler="random"))
    assert sweep.search.importances() == {}
    for _ in range(40):
        sweep.complete(lambda params: params["x"] ** 2)
    for method in ("ped_anova", "fanova"):
        found = find_importances(sweep.spec, sweep.record, method=method)  # type: ignore[arg-type]
        assert list(found) == ["x", "y"], method
        assert sum(found.values()) == pytest.approx(1.0)


def test_importances_know_which_metric_they_explain() -> None:
    sweep = Sweep(make_spec(NUMERIC, sampler="random", metrics=TWO))
    for _ in range(40):
        sweep.complete(lambda params: (params["x"] ** 2, params["y"]))
    first = [next(iter(find_importances(sweep.spec, sweep.record, metric=index))) for index in (0, 1)]
    assert first == ["x", "y"]


def test_optuna_is_left_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    run(Sweep(make_spec(TREE)), 5)
    assert optuna.logging.get_verbosity() == before
