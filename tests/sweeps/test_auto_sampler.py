"""Which sampler `auto` is."""

from __future__ import annotations

from typing import Any

import pytest

from runstone_sweeps.record import TrialState
from runstone_sweeps.study.choosing import choose
from tests.sweeps.searching import MIXED, NUMERIC, TREE, Sweep, make_spec

pytest.importorskip("torch")


def chosen(space: dict[str, Any], *, trials: int, trial_s: float, pruned: int = 0, **keys: Any) -> str:
    """Return the sampler after so many trials of such a length."""
    sweep = Sweep(make_spec(space, sampler="auto", **keys))
    values = [1.0] * len(sweep.spec.metrics)
    for number in range(trials):
        trial = sweep.ask(fixed={"x": 0.0, "y": 0.5} if space is NUMERIC else None)
        sweep.at += trial_s - 1.0
        state = TrialState.PRUNED if number < pruned else TrialState.COMPLETE
        violations = [0.0] * len(sweep.spec.constraints)
        sweep.tell(trial, state, *([] if state is TrialState.PRUNED else values), constraints=violations)
    return choose(sweep.spec, sweep.record).name


def test_numbers_and_slow_trials_make_it_a_gaussian_process_once_there_are_results() -> None:
    assert chosen(NUMERIC, trials=9, trial_s=300.0) == "tpe"
    assert chosen(NUMERIC, trials=10, trial_s=300.0) == "gp"
    assert chosen(NUMERIC, trials=249, trial_s=300.0) == "gp"
    assert chosen(NUMERIC, trials=250, trial_s=300.0) == "tpe"


def test_what_asking_takes_is_at_most_a_tenth_of_a_trial() -> None:
    assert chosen(NUMERIC, trials=40, trial_s=5.0) == "gp"
    assert chosen(NUMERIC, trials=200, trial_s=5.0) == "tpe"
    assert chosen(NUMERIC, trials=40, trial_s=5.0, constraints=[{"metric": "m", "max": 1.0}]) == "tpe"


def test_fast_trials_keep_it_fast() -> None:
    assert chosen(NUMERIC, trials=20, trial_s=0.5) == "tpe"


def test_it_is_tpe_where_a_gaussian_process_does_not_fit() -> None:
    assert chosen(MIXED, trials=20, trial_s=300.0) == "tpe"
    assert chosen(TREE, trials=20, trial_s=300.0) == "tpe"
    assert chosen(NUMERIC, trials=20, trial_s=300.0, pruned=9) == "tpe"
    two = [{"name": "a", "goal": "minimize"}, {"name": "b", "goal": "minimize"}]
    assert chosen(NUMERIC, trials=20, trial_s=300.0, metrics=two) == "tpe"


@pytest.mark.heavy
def test_it_goes_on_after_a_restart_as_if_nothing_had_happened() -> None:
    sweep = Sweep(make_spec(NUMERIC, sampler="auto"))
    for _ in range(12):
        number = sweep.ask()
        sweep.at += 100.0
        sweep.tell(number, TrialState.COMPLETE, sweep.params(number)["x"] ** 2)
    assert choose(sweep.spec, sweep.record).name == "gp"
    assert sweep.build(sweep.replayed()).ask(12) == sweep.search.ask(12)
