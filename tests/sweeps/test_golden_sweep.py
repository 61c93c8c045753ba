"""A sweep that an earlier version wrote is read with the same answers, and goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone_sweeps.coordinator.session import Budget, run_session, stored_spec
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.store import SweepFolder, Sweeps

from .conftest import Silent

GOLDEN = Path(__file__).parents[1] / "golden" / "sweep-1"


@pytest.fixture
def workspace(tmp_path: Path) -> runstone.Workspace:
    # a copy: going on changes it, and the golden files must never change
    shutil.copytree(GOLDEN, tmp_path / "golden")
    return runstone.Workspace(tmp_path / "golden")


def only_sweep(workspace: runstone.Workspace) -> tuple[SweepFolder, SweepRecord]:
    (folder,) = Sweeps(workspace)
    return folder, folder.read()


def test_an_old_record_says_what_it_said(workspace: runstone.Workspace) -> None:
    _, record = only_sweep(workspace)
    states = {number: str(trial.state) for number, trial in record.trials.items()}
    assert states == {
        0: "complete", 1: "failed", 2: "pruned", 3: "pruned", 4: "complete", 5: "complete", 6: "waiting", 7: "waiting",
    }  # fmt: skip
    assert [trial.number for trial in record.ranked()] == [5, 0, 4]
    assert record.best is record.trials[5]
    assert record.trials[5].value == 0.28185690513172434
    assert record.trials[5].values == (0.28185690513172434,)
    assert record.trials[2].value == 0.8095971703780864
    assert record.trials[2].prune_step == 0
    assert record.trials[1].reason == "ValueError: bad luck in 1"
    assert [(reason, [t.number for t in trials]) for reason, trials in record.failures()] == [
        ("ValueError: bad luck in 1", [1])
    ]
    assert (record.trials[4].attempts, record.trials[4].crashes) == (2, 1)
    assert sorted(record.trials[4].reports) == [0, 1, 2, 3]
    assert record.trials[0].params == {"x": -0.2648914410949963, "net.width": [8, 8], "net.depth": 4, "kind": "golden"}
    assert (record.name, record.closed, record.trials_budget) == ("golden sweep ✓", "stopped", 9)
    assert record.metrics == [{"name": "loss", "goal": "minimize"}]
    assert record.unknown == 0
    assert not record.is_finished


def test_an_old_sweep_goes_on_to_its_end(workspace: runstone.Workspace) -> None:
    folder, before = only_sweep(workspace)
    spec = stored_spec(folder, Budget(), has_objective=True)
    assert (spec.trials, spec.parallel, spec.retries.crash) == (9, 2, 1)

    def objective(params: dict[str, Any]) -> float:
        return float(params["x"] ** 2 + len(params["net"]["width"]))

    ended = run_session(workspace, folder, spec, lambda *_: Silent(), objective=objective)
    assert ended.reason == "finished"
    record = folder.read()
    assert sorted(record.trials) == list(range(9))
    assert record.is_finished
    for number, trial in before.trials.items():
        now = record.trials[number]
        assert (now.params, now.run_id) == (trial.params, trial.run_id)
        if trial.state.is_ended:
            assert (now.state, now.value) == (trial.state, trial.value)
        else:
            assert now.state is TrialState.COMPLETE
            assert now.value == pytest.approx(trial.params["x"] ** 2 + len(trial.params["net.width"]))
