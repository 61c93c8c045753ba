"""When a sweep wants to end by itself: neither at once nor never."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from runstone_sweeps.record import TrialState
from runstone_sweeps.study.gain import expected_gain
from tests.sweeps.searching import LOSS, Sweep, make_spec

TWO = [LOSS, {"name": "cost", "goal": "minimize"}]
PLANE = {"x": {"min": -5.0, "max": 10.0}, "y": {"min": 0.0, "max": 15.0}}


def branin(p: Mapping[str, Any]) -> float:
    bowl = p["y"] - 5.1 / (4 * math.pi**2) * p["x"] ** 2 + 5 / math.pi * p["x"] - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(p["x"]) + 10)


def trials_until_end(
    objective: Callable[[Mapping[str, Any]], float | tuple[float, ...]], *, at_most: int, seed: int = 3, **keys: Any
) -> int | None:
    """Return after how many trials the sweep wants to end; `None`: not within so many."""
    sweep = Sweep(make_spec(PLANE, **{"terminator": True, **keys}), seed=seed)
    for count in range(at_most):
        if sweep.search.wants_to_end(sweep.record) is not None:
            return count
        sweep.complete(objective)
    return None


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_has_found_the_optimum_ends(sampler: str, seed: int) -> None:
    ended = trials_until_end(branin, at_most=400, sampler=sampler, seed=seed)
    assert ended is not None
    assert ended > 25


def test_a_search_that_gets_better_with_every_trial_goes_on() -> None:
    counts = iter(range(1000))
    assert trials_until_end(lambda params: -float(next(counts)), at_most=150, sampler="random") is None


def test_a_search_of_nothing_but_noise_ends_where_replicates_tell_that_it_is_noise() -> None:
    chance = random.Random(1)
    sweep = Sweep(make_spec(PLANE, terminator=True, sampler="random", replicates=4))
    for _ in range(60):
        sweep.complete(lambda params: chance.gauss(0.0, 0.5))
    for trial in sweep.record.trials.values():
        # What the runner records of four runs of each trial.
        first = trial.runs[0]
        trial.runs = [type(first)(i, f"r{i}", TrialState.COMPLETE, values=(chance.gauss(0.0, 1.0),)) for i in range(4)]
    assert sweep.search.wants_to_end(sweep.record) is not None


def test_equal_results_end_a_search_after_the_least_number_of_trials() -> None:
    assert trials_until_end(lambda params: 1.0, at_most=60) == 20
    assert trials_until_end(lambda params: 1.0, at_most=60, terminator={"min_trials": 33}) == 33


def test_a_search_that_has_just_found_something_better_goes_on_for_a_while() -> None:
    values = iter([*[10.0 + 0.01 * (i % 7) for i in range(19)], 5.0, *[10.0] * 40])
    ended = trials_until_end(lambda params: next(values), at_most=59, terminator={"min_gain": 0.5}, sampler="random")
    assert ended == 30  # ten trials after the gain, and not at once


def test_patience_counts_the_trials_without_an_improvement_that_counts() -> None:
    values = iter([5.0, 4.0, *[3.0 - 0.001 * i for i in range(60)]])
    rule = {"min_trials": 2, "patience": 10, "min_gain": 0.1}
    assert trials_until_end(lambda params: next(values), at_most=60, terminator=rule) == 13


def test_a_search_for_the_highest_value_ends_by_the_same_rule() -> None:
    low = trials_until_end(branin, at_most=400)
    high = trials_until_end(lambda p: -branin(p), at_most=400, metric={"name": "score", "goal": "maximize"})
    assert low == high


def test_results_that_break_a_constraint_are_no_improvement() -> None:
    sweep = Sweep(
        make_spec(PLANE, terminator={"min_trials": 5, "patience": 5}, constraints=[{"metric": "m", "max": 1}])
    )
    for number in range(20):
        trial = sweep.ask()
        sweep.tell(trial, TrialState.COMPLETE, -float(number), constraints=[1.0 if number > 3 else -1.0])
        assert sweep.search.wants_to_end(sweep.record) is None  # four feasible ones are not enough
    for _ in range(6):
        sweep.tell(sweep.ask(), TrialState.COMPLETE, 0.0, constraints=[-1.0])
    assert "gained 0" in str(sweep.search.wants_to_end(sweep.record))


def test_several_metrics_end_when_nothing_extends_their_front() -> None:
    def trade(p: Mapping[str, Any]) -> tuple[float, float]:
        share = (p["x"] + 5) / 15
        return share, 1 - share + p["y"] / 30

    ended = trials_until_end(trade, at_most=400, metrics=TWO, sampler="random", terminator={"min_gain": 0.1})
    assert ended is not None
    assert ended > 25


def test_without_a_terminator_a_search_never_wants_to_end() -> None:
    assert trials_until_end(lambda params: 1.0, at_most=40, terminator=None) is None


@pytest.mark.parametrize(
    ("draw", "least", "most"),
    [
        (lambda chance: chance.gauss(0.0, 1.0), 0.5, 2.0),
        (lambda chance: -chance.expovariate(1.0), 0.5, 2.0),
        (lambda chance: chance.random(), 1.0, 20.0),  # nothing lies below an edge, but that is not known
    ],
    ids=["normal", "exponential", "edge"],
)
def test_the_expected_gain_is_about_the_true_one_and_rather_too_high(
    draw: Callable[[random.Random], float], least: float, most: float
) -> None:
    chance = random.Random(5)
    gained, expected = 0.0, 0.0
    for _ in range(400):
        losses = [draw(chance) for _ in range(80)]
        best = min(losses)
        expected += expected_gain(losses, best=best, trials=10)
        gained += best - min([best, *(draw(chance) for _ in range(10))])
    assert least < expected / gained < most
