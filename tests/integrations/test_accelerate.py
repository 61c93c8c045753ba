"""`Tracker` with the real Accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.heavy

accelerate = pytest.importorskip("accelerate")

import runstone  # noqa: E402
from runstone_integrations.accelerate import Tracker  # noqa: E402


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def read(tracker: Tracker) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def test_loop_records_params_and_metrics_at_its_steps() -> None:
    tracker = Tracker("digits", tags={"by": "test"})
    accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
    assert tracker.run is None, "the run opens with init_trackers"
    accelerator.init_trackers("named by others", config={"lr": 0.1, "model": {"width": 8}})
    for step in range(0, 30, 10):
        accelerator.log({"loss": 1.0 / (step + 1), "epoch": step}, step=step)
    assert accelerator.get_tracker("runstone", unwrap=True) is tracker.run
    accelerator.end_training()
    info = read(tracker)
    assert (info.status, info.project, info.tags) == ("finished", "digits", {"by": "test"})
    assert info.params == {"lr": 0.1, "model": {"width": 8}}
    assert info.series("loss").step.tolist() == [0, 10, 20]


def test_rows_without_a_step_follow_each_other() -> None:
    tracker = Tracker()
    accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits")
    for value in (3.0, 2.0, 1.0):
        accelerator.log({"loss": value})
    accelerator.end_training()
    assert read(tracker).series("loss").step.tolist() == [0, 1, 2]


def test_registered_class_takes_its_project_from_init_trackers() -> None:
    if not hasattr(accelerate.tracking, "register_tracker_class"):
        pytest.skip("this version of Accelerate knows no registration")
    accelerate.tracking.register_tracker_class(Tracker)
    try:
        accelerator = accelerate.Accelerator(log_with="runstone", cpu=True)
        accelerator.init_trackers("digits", init_kwargs={"runstone": {"name": "first"}})
        accelerator.end_training()
    finally:
        del accelerate.tracking.LOGGER_TYPE_TO_CLASS["runstone"]
    (info,) = runstone.open_workspace().runs()
    assert (info.project, info.name, info.status) == ("digits", "first", "finished")


def test_images_and_tables_are_recorded() -> None:
    pytest.importorskip("PIL")
    tracker = Tracker("digits")
    accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits")
    tracker.log_images({"samples": [np.zeros((4, 4, 3), dtype="uint8")]}, step=3)
    tracker.log_table("scores", columns=["name", "value"], data=[["a", 1], ["b", 2]], step=3)
    accelerator.end_training()
    info = read(tracker)
    assert [record.step for name in ("samples", "scores") for record in info.records(name)] == [3, 3]


def test_run_of_the_user_stays_open_and_other_processes_open_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with runstone.start_run() as run:
        tracker = Tracker()
        accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
        accelerator.init_trackers("digits")
        accelerator.log({"loss": 1.0}, step=0)
        accelerator.end_training()
        assert tracker.run is run
        assert not run.is_finished
    with monkeypatch.context() as patch:
        patch.setitem(accelerate.state.PartialState._shared_state, "process_index", 1)
        other = Tracker()
        other.start()
        other.store_init_configuration({"lr": 1})
        other.log({"loss": 1.0}, step=0)
        other.finish()
    assert other.run is None
    assert len(runstone.open_workspace().runs()) == 1


def test_request_to_stop_reaches_the_loop() -> None:
    tracker = Tracker()
    accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits")
    run: Any = accelerator.get_tracker("runstone", unwrap=True)
    done = 0
    while not run.should_stop:
        accelerator.log({"loss": 1.0}, step=done)
        done += 1
        if done == 3:
            runstone.open_workspace().request_stop(run.id, "prune")
    accelerator.end_training()
    assert (read(tracker).status, done) == ("pruned", 3)
