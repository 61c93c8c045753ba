"""Searching spaces in which some parameters exist only with some values of others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from runstone_sweeps.record import TrialState
from tests.sweeps.searching import LOSS, TREE, Sweep, make_spec, run

BRANCHED = {
    "kind": {"values": ["a", "b", "c"]},
    "x": {"min": 0.0, "max": 1.0},
    "u": {"min": 0.0, "max": 1.0, "when": {"kind": "b"}},
}


@pytest.mark.parametrize(
    "sampler", ["tpe", "random", "qmc", "nsga2", "cmaes", {"name": "tpe", "group": False}, "auto"], ids=str
)
def test_every_point_has_exactly_the_parameters_that_its_values_make_active(sampler: Any) -> None:
    sweep = Sweep(make_spec(TREE, sampler=sampler))
    run(sweep, 40)
    space = sweep.spec.space
    assert all(space.contains(trial.params) for trial in sweep.record.trials.values())
    kinds = Counter(trial.params["optimizer"] for trial in sweep.record.trials.values())
    assert set(kinds) == {"sgd", "adam", "lion"}


@pytest.mark.parametrize("in_flight", [1, 20])
def test_each_branch_gets_its_least_number_of_trials_early_also_in_parallel(in_flight: int) -> None:
    sweep = Sweep(make_spec(TREE, min_per_branch=4))
    pending = []
    for _ in range(20):
        pending.append(sweep.ask())
        if len(pending) >= in_flight:
            number = pending.pop(0)
            # One branch looks so good that the sampler would never leave it.
            value = 0.0 if sweep.params(number)["optimizer"] == "sgd" else 100.0
            sweep.tell(number, TrialState.COMPLETE, value)
    trials = sweep.record.trials.values()
    assert all(count >= 4 for count in Counter(trial.params["optimizer"] for trial in trials).values())
    decays = Counter(trial.params["decay"] for trial in trials if "decay" in trial.params)
    assert decays["none"] >= 4 <= decays["cosine"]


def test_branches_take_no_more_than_half_of_a_small_budget() -> None:
    sweep = Sweep(make_spec(BRANCHED, trials=12, min_per_branch=50))
    for _ in range(12):
        sweep.complete(lambda params: 0.0 if params["kind"] == "c" else 1.0)
    counts = Counter(trial.params["kind"] for trial in sweep.record.trials.values())
    assert min(counts.values()) >= 2


def test_a_branch_that_needs_many_trials_to_show_what_it_can_do_is_not_given_up() -> None:
    parameters = {
        "kind": {"values": ["easy", "hard"]},
        "s": {"min": 0.0, "max": 1.0, "when": {"kind": "easy"}},
        **{name: {"min": 0.0, "max": 1.0, "when": {"kind": "hard"}} for name in ("u", "v", "w")},
    }

    def objective(params: dict[str, Any]) -> float:
        if params["kind"] == "easy":
            return 1.0 + 0.1 * params["s"]
        return 0.5 + 25.0 * sum((params[name] - 0.7) ** 2 for name in ("u", "v", "w"))

    found = {}
    for least in (3, 0):
        found[least] = []
        for seed in range(3):
            sweep = Sweep(make_spec(parameters, min_per_branch=least), seed=seed)
            for _ in range(80):
                sweep.complete(objective)
            found[least].append(sweep.record.best.value)
    assert max(found[3]) < 0.9
    assert max(found[0]) > 0.95  # the sampler by itself settles in the easy branch


def test_a_branch_whose_trials_all_fail_is_left_to_the_sampler() -> None:
    sweep = Sweep(make_spec(BRANCHED))
    for _ in range(60):
        number = sweep.ask()
        if sweep.params(number)["kind"] == "b":
            sweep.tell(number, TrialState.FAILED)
        else:
            sweep.tell(number, TrialState.COMPLETE, sweep.params(number)["x"])
    assert sum(trial.params["kind"] == "b" for trial in sweep.record.trials.values()) < 40


def test_no_trial_is_spent_on_branches_where_that_is_switched_off() -> None:
    forced = Sweep(make_spec(BRANCHED, sampler="random", min_per_branch=1))
    free = Sweep(make_spec(BRANCHED, sampler="random", min_per_branch=0))
    kinds = [[sweep.params(sweep.ask())["kind"] for _ in range(3)] for sweep in (forced, free)]
    assert set(kinds[0]) == {"a", "b", "c"}
    assert kinds[0] != kinds[1]


def test_what_only_a_branch_has_is_learnt_from_that_branch() -> None:
    def objective(params: dict[str, Any]) -> float:
        # The branch is far worse as a whole, but inside of it u matters.
        return 10.0 + (params["u"] - 0.9) ** 2 if params["kind"] == "b" else params["x"]

    sweep = Sweep(make_spec(BRANCHED, sampler={"name": "tpe", "n_startup_trials": 8}, min_per_branch=12))
    for _ in range(40):
        sweep.complete(objective)
    for _ in range(30):
        sweep.complete(objective, fixed={"kind": "b"})
    late = [trial.params["u"] for trial in list(sweep.record.trials.values())[-15:]]
    assert sum(abs(u - 0.9) < 0.2 for u in late) >= 8  # chance, and a model of all branches at once: 4


def test_a_point_that_names_what_only_a_branch_has_lies_in_that_branch() -> None:
    sweep = Sweep(make_spec(TREE, sampler="random", min_per_branch=0))
    for _ in range(10):
        params = sweep.params(sweep.ask(fixed={"cycles": 3}))
        assert params["cycles"] == 3
        assert params["decay"] == "cosine"
        assert params["optimizer"] == "adam"
        assert sweep.spec.space.contains(params)


def test_shares_of_values_are_those_of_the_config_before_anything_is_known() -> None:
    parameters = {"kind": {"values": ["a", "b", "c"], "probabilities": [0.7, 0.2, 0.1]}}
    for sampler in ("random", "tpe", "qmc"):
        sweep = Sweep(make_spec(parameters, sampler=sampler))
        counts = Counter(sweep.params(sweep.ask())["kind"] for _ in range(400))
        assert counts["a"] / 400 == pytest.approx(0.7, abs=0.06), sampler
        assert counts["b"] / 400 == pytest.approx(0.2, abs=0.06), sampler


def test_the_best_of_values_of_unequal_shares_is_found() -> None:
    parameters = {"kind": {"values": ["a", "b", "c", "d"], "probabilities": [0.6, 0.2, 0.1, 0.1]}}
    sweep = Sweep(make_spec(parameters))
    for _ in range(60):
        sweep.complete(lambda params: float(params["kind"] != "d"))
    late = [trial.params["kind"] for trial in list(sweep.record.trials.values())[-20:]]
    assert late.count("d") > 10


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_a_normal_parameter_has_the_mean_and_spread_of_the_config(sampler: str) -> None:
    parameters = {"z": {"distribution": "normal", "mu": 5.0, "sigma": 2.0}, "y": {"min": 0.0, "max": 1.0}}
    sweep = Sweep(make_spec(parameters, sampler=sampler))
    drawn = [sweep.params(sweep.ask())["z"] for _ in range(400)]
    mean = sum(drawn) / 400
    assert mean == pytest.approx(5.0, abs=0.35)
    assert (sum((z - mean) ** 2 for z in drawn) / 400) ** 0.5 == pytest.approx(2.0, abs=0.3)


def test_the_optimum_of_a_normal_parameter_is_found_by_its_quantile() -> None:
    parameters = {"z": {"distribution": "normal", "mu": 0.0, "sigma": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    sweep = Sweep(make_spec(parameters, metric=LOSS))
    for _ in range(60):
        sweep.complete(lambda params: (params["z"] - 1.5) ** 2)
    assert abs(sweep.record.best.params["z"] - 1.5) < 0.15
