"""Points that are given, points that are taken, trials of earlier sweeps, and spaces that are edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.record import TrialState
from tests.sweeps.searching import FINITE, FINITE_TREE, LOSS, MIXED, NUMERIC, Sweep, make_spec, run

SAMPLERS: list[Any] = ["tpe", "random", "qmc", "cmaes", {"name": "cmaes", "with_margin": True}, "nsga2", "grid", "auto"]
BOWL = {"x": {"min": -1.0, "max": 1.0}, "y": {"min": -1.0, "max": 1.0}}


def bowl(params: Mapping[str, Any]) -> float:
    return float((params["x"] - 0.6) ** 2 + (params["y"] + 0.4) ** 2)


def told(params: Mapping[str, Any], value: float, **fields: Any) -> dict[str, Any]:
    """Return a trial of an earlier sweep as its event tells it."""
    return {"params": dict(params), "state": "complete", "values": [value], "run_id": "r", "at": 1.0, **fields}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_part_of_a_point_is_kept_and_the_sampler_adds_the_rest(sampler: Any) -> None:
    sweep = Sweep(make_spec(FINITE, sampler=sampler))
    for number in range(12):
        sweep.complete(lambda params: float(params["n"]), fixed={"n": 3} if number % 2 else None)
    fixed = [trial.params for trial in sweep.record.trials.values() if trial.number % 2]
    assert {params["n"] for params in fixed} == {3}
    assert len({json.dumps(params) for params in fixed}) > 1
    assert all(sweep.spec.space.contains(params) for params in fixed)


def test_a_point_that_is_not_the_samplers_own_is_not_counted_as_one_of_its_generation() -> None:
    sweep = Sweep(make_spec(NUMERIC, sampler="cmaes"))
    for _ in range(6):
        sweep.complete(lambda params: params["x"])
    own, given = sweep.ask(), sweep.ask(fixed={"x": 0.3})
    assert "cma:generation" in sweep.record.trials[own].attrs
    assert "cma:generation" not in sweep.record.trials[given].attrs


def test_a_given_value_may_be_one_that_the_space_lacks_and_the_search_goes_on() -> None:
    sweep = Sweep(make_spec(MIXED))
    run(sweep, 14)
    number = sweep.complete(lambda params: 0.0, fixed={"lr": 5.0, "kind": "new", "epochs": 9})
    assert sweep.params(number)["lr"] == 5.0
    assert sweep.params(number)["epochs"] == 9
    assert sweep.params(number)["kind"] == "new"
    again = sweep.build(sweep.replayed())
    number = sweep.record.next_number
    assert again.ask(number) == sweep.search.ask(number)


def test_a_given_parameter_that_there_is_not_is_a_mistake() -> None:
    sweep = Sweep(make_spec(MIXED))
    with pytest.raises(InvalidConfig, match="there is no parameter 'lrr'"):
        sweep.ask(fixed={"lrr": 0.1})
    sweep.ask()  # it took no number


@pytest.mark.parametrize("sampler", [*SAMPLERS, "brute_force"], ids=str)
@pytest.mark.parametrize("space", [FINITE, FINITE_TREE], ids=["flat", "tree"])
def test_no_point_is_tried_twice_where_those_tried_are_taken(sampler: Any, space: dict[str, Any]) -> None:
    spec = make_spec(space, sampler=sampler)
    sweep = Sweep(spec)
    for _ in range(spec.space.size or 0):
        sweep.complete(lambda params: 1.0, is_taken=lambda params: bool(sweep.record.tried(params)))
    assert len({json.dumps(trial.params) for trial in sweep.record.trials.values()}) == spec.space.size
    left = sweep.search.ask(sweep.record.next_number, is_taken=lambda params: bool(sweep.record.tried(params)))
    assert sweep.record.tried(left.params)  # nothing is free: the caller decides


def test_a_given_value_beyond_the_grid_makes_a_point_of_its_branch_alone() -> None:
    sweep = Sweep(make_spec(FINITE_TREE, sampler="grid"))
    assert sweep.params(sweep.ask(fixed={"model": "tree", "depth": 9})) == {"model": "tree", "depth": 9}


def test_a_taken_point_that_is_given_whole_is_returned_at_once() -> None:
    sweep = Sweep(make_spec(NUMERIC, sampler="tpe"))
    number = sweep.ask(fixed={"x": 0.5, "y": 0.5}, is_taken=lambda params: True)
    assert sweep.params(number) == {"x": 0.5, "y": 0.5}


# --- earlier sweeps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", {"name": "nsga2", "population_size": 10}], ids=str)
def test_a_sampler_starts_from_what_earlier_sweeps_found(sampler: Any) -> None:
    earlier = Sweep(make_spec(BOWL), seed=8)
    for _ in range(60):
        earlier.complete(bowl)
    prior = [told(trial.params, trial.value or 0.0) for trial in earlier.record.trials.values()]
    first = []
    for known in (prior, []):
        sweep = Sweep(make_spec(BOWL, sampler=sampler), prior=known)
        values = sorted(sweep.record.trials[sweep.complete(bowl)].value or 0.0 for _ in range(8))
        first.append(values[4])
    assert first[0] < first[1] / 3


def test_earlier_trials_that_do_not_fit_are_not_shown_and_what_differs_in_constants_is() -> None:
    point = {"lr": 0.01, "net.width": 5, "kind": "a", "epochs": 3}
    prior = [
        told(point, 1.0),
        told({**point, "epochs": 10}, 1.0),
        told({**point, "gone": 1}, 1.0),
        told({**point, "lr": 7.0}, 1.0),
        told({**point, "kind": "z"}, 1.0),
        told({name: value for name, value in point.items() if name != "kind"}, 1.0),
        told(point, 1.0, values=[1.0, 2.0]),
        told(point, 1.0, state="failed"),
        told(point, 1.0, state="pruned", reports=[[0, 2.0]]),
    ]
    shown = Sweep(make_spec(MIXED), prior=prior).search._prior
    assert [trial.number for trial in shown] == [-4, -3, -2, -1]
    assert shown[-1].intermediate_values == {0: 2.0}


@pytest.mark.parametrize("sampler", ["tpe", {"name": "nsga2", "population_size": 3}], ids=str)
def test_a_search_with_earlier_trials_is_built_again_as_it_was(sampler: Any) -> None:
    prior = [told({"x": 0.1 * i - 0.5, "y": 0.05 * i}, float(i)) for i in range(12)]
    sweep = Sweep(make_spec(NUMERIC, sampler=sampler), prior=prior)
    run(sweep, 12)
    number = sweep.record.next_number
    assert sweep.build(sweep.replayed()).ask(number) == sweep.search.ask(number)


# --- edits ------------------------------------------------------------------------------------------------------------

WIDER = {"x": {"min": -3.0, "max": 3.0}, "y": {"min": -1.0, "max": 1.0}}
OTHER = {**BOWL, "z": {"values": ["a", "b"]}}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", {"name": "nsga2", "population_size": 4}, "qmc", "random"], ids=str)
@pytest.mark.parametrize("edited", [WIDER, OTHER], ids=["wider", "another parameter"])
def test_after_an_edit_the_search_goes_on_in_the_new_space_and_is_built_again_as_it_was(
    sampler: Any, edited: dict[str, Any]
) -> None:
    sweep = Sweep(make_spec(BOWL, sampler=sampler))
    run(sweep, 20)
    sweep.spec = make_spec(edited, sampler=sampler)
    sweep.search = sweep.build()
    run(sweep, 20)
    assert all(sweep.spec.space.contains(trial.params) for trial in list(sweep.record.trials.values())[20:])
    number = sweep.record.next_number
    assert sweep.build(sweep.replayed()).ask(number) == sweep.search.ask(number)


def test_what_a_sampler_kept_of_the_space_before_an_edit_is_forgotten() -> None:
    sweep = Sweep(make_spec(BOWL, sampler={"name": "cmaes", "popsize": 5}))
    for _ in range(80):
        sweep.complete(bowl)
    sweep.spec = make_spec(WIDER, sampler={"name": "cmaes", "popsize": 5})
    sweep.search = sweep.build()
    # It had narrowed down to 0.8 of the old range, which is another place in the new one.
    assert not any("cma:generation" in trial.system_attrs for trial in sweep.search._memory.trials)
    late = [sweep.params(sweep.complete(bowl))["x"] for _ in range(10)]
    assert sum(map(abs, late)) / 10 < 1.2
    # From here on it keeps things again.
    kept = [trial.number for trial in sweep.build(sweep.replayed())._memory.trials if trial.system_attrs]
    assert min(kept) == 80


def test_trials_inside_of_an_edited_space_are_still_learnt_from() -> None:
    sweep = Sweep(make_spec(BOWL))
    for _ in range(50):
        sweep.complete(bowl)
    sweep.search = sweep.build(spec=make_spec(WIDER))
    late = [sweep.record.trials[sweep.complete(bowl)].value or 0.0 for _ in range(20)]
    assert sorted(late)[10] < 1.0  # by chance: 3


def test_trials_outside_of_an_edited_space_are_not_shown() -> None:
    sweep = Sweep(make_spec(BOWL))
    for _ in range(10):
        sweep.complete(bowl)
    sweep.search = sweep.build(spec=make_spec({**BOWL, "x": {"min": 0.0, "max": 1.0}}))
    sweep.search._shown.choose(is_capped=True)
    shown = {trial.number for trial in sweep.search._shown.get_trials()}
    assert shown == {trial.number for trial in sweep.record.trials.values() if trial.params["x"] >= 0.0}


def test_a_sampler_sees_the_best_and_the_newest_of_very_many_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone_sweeps.study.shown.MOST_SHOWN", 40)
    monkeypatch.setattr("runstone_sweeps.study.shown.BEST_SHOWN", 10)
    for keys in ({}, {"metrics": [LOSS, {"name": "a", "goal": "maximize"}]}):
        sweep = Sweep(make_spec(BOWL, sampler="random", **keys))
        for number in range(100):
            asked = sweep.ask()
            values = [abs(number - 30.0), -abs(number - 30.0)][: len(sweep.spec.metrics)]
            sweep.tell(asked, TrialState.COMPLETE, *values)
        waiting = sweep.ask()
        sweep.search._shown.choose(is_capped=True)
        shown = [trial.number for trial in sweep.search._shown.get_trials()]
        assert shown == sorted(shown)
        assert set(shown) >= {*range(26, 35), *range(71, 100), waiting}
        assert len(shown) == 41
