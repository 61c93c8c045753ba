"""Pruners: that each judges, in sweeps of one metric and of several, and how often they err."""

from __future__ import annotations

from typing import Any

import pytest

from runstone_sweeps.record import TrialState
from runstone_sweeps.spec.algorithms import PRUNERS
from tests.sweeps.searching import LOSS, MIXED, Sweep, make_spec

ACCURACY = {"name": "accuracy", "goal": "maximize"}
METRICS = {
    "one": {"metric": LOSS},
    "several": {"metrics": [ACCURACY, LOSS], "prune_on": "loss"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "percentile": {"percentile": 25.0, "n_startup_trials": 2},
    "threshold": {"upper": 5.0},
    "patient": {"wrapped_pruner": "median", "patience": 1},
    "hyperband": {"min_resource": 1, "max_resource": 4, "reduction_factor": 2},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
}


def sweep_with(pruner: str, metrics: str = "one", **options: Any) -> Sweep:
    keys = {"name": pruner, **(options or OPTIONS.get(pruner, {}))}
    return Sweep(make_spec(MIXED, sampler="random", pruner=keys, **METRICS[metrics]))


def finish(sweep: Sweep, value: float, steps: int = 6) -> None:
    """Report the same value at each step and complete the trial; other metrics say the opposite."""
    number = sweep.ask()
    for step in range(steps):
        sweep.report(number, step, value)
    sweep.tell(number, TrialState.COMPLETE, *([value] if len(sweep.spec.metrics) == 1 else [-value, value]))


@pytest.mark.parametrize("metrics", METRICS)
@pytest.mark.parametrize("pruner", sorted(PRUNERS))
def test_every_pruner_judges_a_hopeless_trial_by_the_metric_that_is_pruned_on(pruner: str, metrics: str) -> None:
    sweep = sweep_with(pruner, metrics)
    for _ in range(8):
        finish(sweep, 1.0)
    number = sweep.ask()
    decided = [sweep.report(number, step, 10.0 + step) for step in range(6)]
    assert (decided == [None] * 6) == (pruner == "none")


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive_halving"])
def test_a_good_trial_is_left_alone_in_a_sweep_of_several_metrics(pruner: str) -> None:
    sweep = sweep_with(pruner, "several")
    for _ in range(8):
        finish(sweep, 1.0)
    number = sweep.ask()
    assert [sweep.report(number, step, 0.5) for step in range(6)] == [None] * 6


def test_a_pruner_asks_for_every_report_however_many_come_at_once() -> None:
    one, many = (sweep_with("median", interval_steps=3) for _ in range(2))
    for sweep in (one, many):
        for _ in range(5):
            finish(sweep, 1.0)
    number = one.ask()
    first = next(d for step in range(6) if (d := one.report(number, step, 9.0)) is not None)
    number = many.ask()
    many.emit("reported", number=number, points=[[step, 9.0] for step in range(6)])
    assert many.search.report(many.record.trials[number], many.record) == first


def test_a_new_attempt_makes_what_the_one_before_reported_from_there_on_void() -> None:
    sweep = sweep_with("median")
    number = sweep.ask()
    for step in range(5):
        sweep.report(number, step, 1.0)
    sweep.emit("requeued", number=number)
    sweep.emit("started", number=number)
    sweep.report(number, 3, 7.0)
    sweep.report(number, 4, 8.0)
    assert sweep.record.trials[number].reports == {0: 1.0, 1: 1.0, 2: 1.0, 3: 7.0, 4: 8.0}
    assert sweep.search._judge._memory.get_trial(number).intermediate_values == sweep.record.trials[number].reports


@pytest.mark.parametrize("pruner", ["hyperband", "successive_halving"])
def test_a_range_of_steps_found_by_itself_is_the_same_after_a_restart(pruner: str) -> None:
    sweep = Sweep(make_spec(MIXED, sampler="random", pruner=pruner))
    # The second is complete before the pruner is asked again; the first one counts all the same.
    numbers = [sweep.ask(), sweep.ask()]
    for number, steps in zip(numbers, (9, 900), strict=True):
        for step in range(steps):
            sweep.report(number, step, 1.0)
    for number in numbers:
        sweep.tell(number, TrialState.COMPLETE, 1.0)
    for _ in range(12):
        finish(sweep, 2.0, steps=3)
    again = sweep.build(sweep.replayed())
    live, rebuilt = (vars(search._judge._study.pruner) for search in (sweep.search, again))
    settled = "_max_resource" if pruner == "hyperband" else "_min_resource"
    assert live[settled] == rebuilt[settled] == {"_max_resource": 9, "_min_resource": 1}[settled]
    number = sweep.ask()
    again.ask(number)
    for step in range(9):
        sweep.emit("reported", number=number, points=[[step, 5.0]])
        trial = sweep.record.trials[number]
        assert again.report(trial, sweep.record) == sweep.search.report(trial, sweep.record)
    assert again._judge.bracket(number) == sweep.search._judge.bracket(number)


def test_a_pruner_of_very_many_trials_still_knows_how_the_first_ones_went() -> None:
    sweep = sweep_with("median")
    for _ in range(300):
        finish(sweep, 1.0, steps=3)
    for _ in range(1200):
        sweep.tell(sweep.ask(), TrialState.FAILED)
    number = sweep.ask()
    assert sweep.report(number, 0, 3.0) is None
    assert sweep.report(number, 2, 3.0) == 2


def test_the_share_of_audited_trials_is_the_one_that_is_asked_for_and_is_always_the_same() -> None:
    search = Sweep(make_spec(MIXED, audit=0.2)).search
    chosen = [search.is_audited(number) for number in range(5000)]
    assert 0.18 < sum(chosen) / 5000 < 0.22
    assert chosen == [search.is_audited(number) for number in range(5000)]
    assert not any(Sweep(make_spec(MIXED)).search.is_audited(number) for number in range(200))


def test_an_audit_counts_the_trials_that_would_have_been_the_best() -> None:
    sweep = Sweep(make_spec(MIXED, audit=0.5))
    for value in (1.0, 2.0, 3.0):
        sweep.tell(sweep.ask(), TrialState.COMPLETE, value)
    for value in (0.5, 1.5, 9.0, 8.0):
        number = sweep.ask()
        sweep.emit("reported", number=number, points=[[0, 9.0]])
        sweep.emit("prune", number=number, step=0, is_audited=True)
        sweep.emit("told", number=number, state="pruned", value=9.0, audited=[value])
    found = sweep.search.pruner_audit(sweep.record)
    assert (found.n, found.wrong, found.above_median, found.rate) == (4, 1, 2, 0.25)
    # Wilson's interval of one in four
    assert found.interval == pytest.approx((0.0456, 0.6994), abs=1e-3)


def test_an_audit_without_trials_says_that_it_knows_nothing() -> None:
    sweep = Sweep(make_spec(MIXED, audit=0.5))
    found = sweep.search.pruner_audit(sweep.record)
    assert found.n == 0
    assert found.interval == (0.0, 1.0)
