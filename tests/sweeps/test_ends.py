"""How a sweep says that it is at its end."""

from __future__ import annotations

import pytest

from .conftest import Place


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("policy", ["forbid", "reuse"])
def test_a_sweep_that_has_tried_every_point_says_so_and_the_next_run_is_another_sweep(
    place: Place, parallel: int, policy: str
) -> None:
    config = place.script(
        "few.yaml",
        "script: train.py\nmetric: {name: loss, goal: minimize}\nsampler: random\ntrials: 20\n"
        f"parallel: {parallel}\nduplicates: {policy}\nparameters:\n  x: {{values: [0.1, 0.2, 0.3]}}\n",
    )
    place.sweep("run", config)
    assert place.record.closed == "exhausted"
    assert place.record.is_finished
    assert len({trial.params["x"] for trial in place.record.trials.values()}) == 3
    place.sweep("run", config)
    assert len(place.folders) == 2


def test_the_number_of_trials_is_that_of_the_last_session_and_of_what_was_added(place: Place) -> None:
    config = place.config(trials=2)
    place.sweep("run", config)
    printed = place.sweep("run", config, "--trials", "3")
    assert "[3/3]" in printed
    place.sweep("add", "toy", "x=0.5")
    assert "[4/4]" in place.sweep("resume", "toy")
    assert "4/4 trials" in place.sweep("status", "toy")


@pytest.mark.parametrize("name", ["RUNSTONE_RETRY", "RUNSTONE_OOM_RETRY", "RUNSTONE_DISABLED"])
def test_variables_that_the_sweep_sets_cannot_be_given(place: Place, name: str) -> None:
    printed = place.sweep("check", place.config(f"env: {{{name}: 1}}\n"), code=1)
    assert f"env.{name}: is set by the sweep for each trial" in printed
