"""What a sweep has heard of a trial's metrics comes to the same as reading its run in the end."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone import MetricTail, RunInfo
from runstone_sweeps.coordinator.heard import Heard
from runstone_sweeps.coordinator.work import RunningTrial
from runstone_sweeps.record import RunRecord, TrialRecord, TrialState

from .conftest import Place

NUMBERS = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**40), 2**40), st.booleans())


def running(run: runstone.Run) -> RunningTrial:
    record = RunRecord(0, run.id)
    trial = TrialRecord(0, run.id, {}, 0.0, runs=[record])
    return RunningTrial(trial, record, None, MetricTail(run.path), Path("console"), heard={})  # type: ignore[arg-type]


def same(heard: Heard, info: RunInfo, name: str) -> bool:
    """Tell whether it is what the run's summary says, NaN included."""
    summary = info.metrics[name]
    return all(
        (a is None and b is None) or (a is not None and b is not None and (a == b or (math.isnan(a) and math.isnan(b))))
        for a, b in ((heard.last, summary.last), (heard.min, summary.min), (heard.max, summary.max))
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(portions=st.lists(st.lists(NUMBERS, min_size=1, max_size=6), min_size=1, max_size=5))
def test_however_the_points_come_the_result_is_that_of_the_run(tmp_path: Path, portions: list[list[float]]) -> None:
    run = runstone.start_run(workspace=tmp_path / "home", environment=False, system_metrics=False)
    trial = running(run)
    for portion in portions:
        for value in portion:
            run.log({"loss": value, "other": 1.0})
        trial.hear(trial.tail.poll(), ["loss"])
    run.finish()
    assert trial.heard is not None
    assert list(trial.heard) == ["loss"]
    assert same(trial.heard["loss"], RunInfo(run.path), "loss")


def test_points_of_two_processes_are_left_to_the_run(tmp_path: Path) -> None:
    run = runstone.start_run(workspace=tmp_path / "home", environment=False, system_metrics=False)
    trial = running(run)
    run.log({"loss": 2.0}, step=0)
    trial.hear(trial.tail.poll(), ["loss"])
    assert trial.heard == {"loss": Heard(2.0, 2.0, 2.0)}
    pid = os.fork()
    if pid == 0:
        run.log({"loss": 1.0}, step=1)
        os._exit(0)
    os.waitpid(pid, 0)
    trial.hear(trial.tail.poll(), ["loss"])
    assert trial.heard is None
    run.log({"loss": 3.0}, step=2)
    trial.hear(trial.tail.poll(), ["loss"])
    assert trial.heard is None  # and remains so
    run.finish()


@pytest.mark.parametrize("value", ["last", "best"])
def test_a_sweep_tells_what_the_run_says_also_where_a_trial_goes_on_in_another_attempt(
    place: Place, value: str
) -> None:
    place.script(
        "train.py",
        "import os, runstone\nrun = runstone.start_run(environment=False)\nx = runstone.trial_params()['x']\n"
        "for step, value in enumerate([3.0, x, float('nan'), 2.0]):\n    run.log({'loss': value}, step=step)\n"
        "    if run.attempt == 1 and x > 0 and step == 1: os.kill(os.getpid(), 9)\n",
    )
    config = place.config("retries: {crash: 1, backoff: 0}\npruner: none\n", trials=6)
    config.write_text(config.read_text().replace("goal: minimize", f"goal: minimize, value: {value}"))
    place.run_here(config)
    workspace = runstone.open_workspace(place.home)
    attempts = set()
    for trial in place.record.trials.values():
        summary = workspace.run(trial.run_id).metrics["loss"]
        assert trial.state is TrialState.COMPLETE
        assert trial.value == (summary.last if value == "last" else summary.min)
        attempts.add(trial.attempts)
    assert attempts == {1, 2}
