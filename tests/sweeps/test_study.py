"""The search: every sampler of Optuna, and that one built again goes on as if nothing had happened."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any

import optuna
import pytest

from runstone import InvalidConfig
from runstone_sweeps.record import TrialState
from runstone_sweeps.spec.algorithms import PRUNERS, SAMPLERS, Algorithm
from runstone_sweeps.study import check_algorithms, propose
from tests.sweeps.searching import FINITE, FINITE_TREE, LOSS, MIXED, NUMERIC, TREE, Sweep, make_spec, run, seen_by

TWO = [LOSS, {"name": "accuracy", "goal": "maximize"}]
BOUND = [{"metric": "memory", "max": 1.0}]


@pytest.mark.parametrize(
    ("sampler", "space", "keys"),
    [
        ("tpe", MIXED, {}),
        ({"name": "tpe", "n_startup_trials": 3, "multivariate": False}, MIXED, {}),
        ({"name": "tpe", "group": True}, TREE, {}),
        ("tpe", TREE, {}),
        ("tpe", MIXED, {"metrics": TWO}),
        ("tpe", MIXED, {"constraints": BOUND}),
        ("tpe", TREE, {"metrics": TWO, "constraints": BOUND, "prune_on": "accuracy"}),
        ("tpe", MIXED, {"pruner": {"name": "hyperband", "max_resource": 4}}),
        ("random", TREE, {}),
        ("qmc", MIXED, {}),
        ({"name": "qmc", "qmc_type": "halton"}, TREE, {}),
        ("cmaes", NUMERIC, {}),
        ({"name": "cmaes", "with_margin": True}, MIXED, {}),
        ({"name": "nsga2", "population_size": 4, "mutation": "polynomial"}, MIXED, {"metrics": TWO}),
        ({"name": "nsga3", "population_size": 4}, TREE, {"metrics": TWO}),
        ("grid", FINITE, {}),
        ("grid", FINITE_TREE, {}),
        ("brute_force", FINITE, {}),
        ("brute_force", FINITE_TREE, {}),
        ({"name": "partial_fixed", "fixed_params": {"net.width": 5}}, MIXED, {}),
        ("auto", TREE, {}),
    ],
    ids=str,
)
def test_a_search_built_again_has_the_same_trials_and_proposes_the_same_points(
    sampler: Any, space: dict[str, Any], keys: dict[str, Any]
) -> None:
    sweep = Sweep(make_spec(space, sampler=sampler, **keys))
    run(sweep, 24)
    again = sweep.build(sweep.replayed())
    assert seen_by(again) == seen_by(sweep.search)
    number = sweep.record.next_number
    for further in range(3):
        assert again.ask(number + further) == sweep.search.ask(number + further)


@pytest.mark.heavy
@pytest.mark.parametrize("keys", [{}, {"metrics": TWO}, {"constraints": BOUND}], ids=str)
@pytest.mark.parametrize("space", [NUMERIC, TREE], ids=["flat", "tree"])
def test_the_gaussian_process_sampler_goes_on_as_if_nothing_had_happened(
    space: dict[str, Any], keys: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    sweep = Sweep(make_spec(space, sampler={"name": "gp", "n_startup_trials": 3}, pruner="none", **keys))
    run(sweep, 9)
    number = sweep.record.next_number
    assert sweep.build(sweep.replayed()).ask(number) == sweep.search.ask(number)


def test_equal_seeds_propose_equal_points_and_other_seeds_others() -> None:
    points = []
    for seed in (1, 1, 2):
        sweep = Sweep(make_spec(MIXED, sampler="random"), seed=seed)
        points.append([sweep.search.ask(number).params for number in range(5)])
    assert points[0] == points[1] != points[2]
    assert len({point["lr"] for point in points[0]}) == 5
    assert propose(make_spec(MIXED, sampler="random"), seed=1) == points[0][0]


def test_points_hold_every_parameter_with_its_own_type() -> None:
    params = Sweep(make_spec(MIXED, sampler="random")).search.ask(0).params
    assert list(params) == ["lr", "net.width", "kind", "epochs"]
    assert type(params["lr"]) is float
    assert type(params["net.width"]) is int
    assert params["epochs"] == 3


@pytest.mark.parametrize("sampler", ["grid", "brute_force"])
@pytest.mark.parametrize(("space", "size"), [(FINITE, 36), (FINITE_TREE, 6)], ids=["flat", "tree"])
def test_an_exhaustive_sampler_tries_each_point_once_and_ends_without_an_error(
    sampler: str, space: dict[str, Any], size: int
) -> None:
    spec = make_spec(space, sampler=sampler)
    assert spec.space.size == size
    sweep = Sweep(spec)
    for _ in range(size):
        sweep.complete(lambda params: 1.0)
    assert len({json.dumps(trial.params) for trial in sweep.record.trials.values()}) == size
    sweep.complete(lambda params: 1.0)  # beyond its end it repeats itself


def test_a_grid_leaves_out_what_a_given_point_has_tried() -> None:
    sweep = Sweep(make_spec(FINITE, sampler="grid"))
    sweep.ask(fixed={"n": 2, "kind": [1], "d": 0.1})
    for _ in range(35):
        sweep.ask()
    assert len({json.dumps(trial.params) for trial in sweep.record.trials.values()}) == 36


def test_values_in_steps_are_the_decimals_that_were_written() -> None:
    sweep = Sweep(make_spec({"d": {"min": 0.1, "max": 0.9, "step": 0.2}}, sampler="random"))
    assert {sweep.params(sweep.ask())["d"] for _ in range(60)} == {0.1, 0.3, 0.5, 0.7, 0.9}


def test_values_that_are_not_finite_are_reported_and_never_stop_the_search() -> None:
    sweep = Sweep(make_spec(MIXED, sampler="tpe"))
    for value in (math.nan, math.inf, -math.inf, 1.0):
        number = sweep.ask()
        sweep.report(number, 0, value)
        if math.isnan(value):
            sweep.tell(number, TrialState.FAILED)
        else:
            sweep.tell(number, TrialState.COMPLETE, value)
    sweep.build(sweep.replayed()).ask(4)


@pytest.mark.parametrize("sampler", ["tpe", "brute_force", "grid"])
def test_a_lost_event_leaves_the_numbers_of_the_other_trials(sampler: str) -> None:
    sweep = Sweep(make_spec(FINITE, sampler=sampler))
    run(sweep, 6)
    sweep.events = [e for e in sweep.events if not (e["event"] == "asked" and e["number"] == 2)]
    replayed = sweep.replayed()
    assert replayed.unknown > 0
    assert sweep.build(replayed).ask(6).params


def test_what_optuna_refuses_is_told_as_a_mistake_of_the_config() -> None:
    wrong = make_spec(MIXED, pruner={"name": "percentile", "percentile": 300.0})
    with pytest.raises(InvalidConfig, match=r"pruner percentile: Percentile must be between 0 and 100"):
        check_algorithms(wrong)
    with pytest.raises(InvalidConfig, match="group: true needs multivariate: true"):
        check_algorithms(make_spec(MIXED, sampler={"name": "tpe", "group": True, "multivariate": False}))
    inner = {"name": "partial_fixed", "fixed_params": {"x": 0.5}, "base_sampler": "cmaes"}
    with pytest.raises(InvalidConfig, match="cmaes: looks for one metric only"):
        check_algorithms(make_spec(NUMERIC, sampler=inner, metrics=TWO))
    with pytest.raises(InvalidConfig, match="reference_points must be a list of points"):
        check_algorithms(make_spec(NUMERIC, sampler={"name": "nsga3", "reference_points": [[1, 2], [1]]}, metrics=TWO))


# Every option that is given as a value of its own kind, so that none is passed on wrongly.
EACH_OPTION = {
    "tpe": {"n_startup_trials": 3, "n_ei_candidates": 9, "multivariate": True, "group": True, "constant_liar": False},
    "gp": {"n_startup_trials": 3, "deterministic_objective": True, "independent_sampler": "random"},
    "qmc": {"qmc_type": "halton", "scramble": False, "independent_sampler": {"name": "tpe", "n_startup_trials": 2}},
    "cmaes": {"n_startup_trials": 2, "popsize": 5, "consider_pruned_trials": True, "lr_adapt": True},
    "nsga2": {"population_size": 6, "mutation": "polynomial", "mutation_prob": 0.1, "crossover": "sbx"},
    "nsga3": {"population_size": 6, "dividing_parameter": 2, "reference_points": [[0.5, 0.5], [1.0, 0.0]]},
    "brute_force": {"avoid_premature_stop": True},
    "partial_fixed": {"fixed_params": {"n": 2}, "base_sampler": {"name": "qmc", "scramble": True}},
}


@pytest.mark.parametrize("name", sorted(set(EACH_OPTION) - {"gp"}))
def test_the_options_of_a_sampler_reach_it_and_it_works_with_them(name: str) -> None:
    keys = {"metrics": TWO} if name.startswith("nsga") else {}
    spec = make_spec(FINITE, sampler={"name": name, **EACH_OPTION[name]}, **keys)
    check_algorithms(spec)
    sweep = Sweep(spec)
    run(sweep, 16)
    assert name != "partial_fixed" or {trial.params["n"] for trial in sweep.record.trials.values()} == {2}


# Options that we set ourselves, that only Python can give, that are deprecated, or that only silence warnings.
NOT_OFFERED = {
    "seed", "search_space", "constraints_func", "gamma", "weights", "consider_prior", "prior_weight",
    "consider_magic_clip", "consider_endpoints", "warn_independent_sampling", "warn_asynchronous_seeding",
    "source_trials", "x0", "sigma0", "restart_strategy", "inc_popsize",
    "elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy",
}  # fmt: skip


def test_every_sampler_and_pruner_of_optuna_is_offered_with_all_its_options() -> None:
    for module, table, base in (
        (optuna.samplers, SAMPLERS, optuna.samplers.BaseSampler),
        (optuna.pruners, PRUNERS, optuna.pruners.BasePruner),
    ):
        classes = {
            name
            for name in module.__all__
            if inspect.isclass(kind := getattr(module, name)) and issubclass(kind, base) and not name.startswith("Base")
        }
        assert {known.optuna_class for known in table.values()} - {None} == classes
        for known in table.values():
            if known.optuna_class is None:
                continue
            signature = inspect.signature(getattr(module, known.optuna_class).__init__)
            offered = set(signature.parameters) - {"self", "args", "kwargs"} - (NOT_OFFERED - set(known.options))
            assert set(known.options) == offered, known.optuna_class


def test_a_word_that_stands_for_a_class_has_one_in_optuna() -> None:
    for name in SAMPLERS["nsga2"].options["crossover"]:
        check_algorithms(make_spec(NUMERIC, sampler={"name": "nsga2", "crossover": name}))
    assert Algorithm("tpe") == SAMPLERS["partial_fixed"].defaults["base_sampler"]
