"""The Keras hooks called by hand-written loops, as fully or as sparsely as they please. Needs no Keras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone_integrations._step_axis import StepAxis
from runstone_integrations.keras import TrackingCallback


class Model:
    """What a hand-written loop may call a model."""

    steps_per_execution = 1


def read(callback: TrackingCallback) -> runstone.RunInfo:
    assert callback.run is not None
    return callback.run.read()


def steps(callback: TrackingCallback, name: str) -> list[int]:
    return read(callback).series(name).step.tolist()


def test_module_needs_no_keras_and_imports_no_framework() -> None:
    script = (
        "import sys\n"
        "import runstone_integrations.keras\n"
        "print([name for name in ('keras', 'torch', 'tensorflow', 'jax', 'sklearn') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_loop_that_calls_epoch_ends_alone_counts_epochs() -> None:
    callback = TrackingCallback()
    for epoch in range(3):
        callback.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
    callback.on_train_end()
    assert steps(callback, "loss") == [0, 1, 2]
    assert read(callback).series("epoch").value.tolist() == [0, 1, 2]
    assert read(callback).status == "finished"


def test_loop_that_calls_everything_counts_batches() -> None:
    callback = TrackingCallback(log_every_n_batches=2)
    callback.set_params({"epochs": 2, "steps": 4})
    callback.set_model(Model())
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for batch in range(4):
            callback.on_train_batch_begin(batch)
            callback.on_train_batch_end(batch, {"loss": batch})
        callback.on_test_begin()
        callback.on_test_end({"loss": 9.0})
        callback.on_epoch_end(epoch, {"loss": 1.0})
    callback.on_train_end()
    assert steps(callback, "loss") == [3, 7]
    assert steps(callback, "batch/loss") == [1, 3, 5, 7]
    assert steps(callback, "val_loss") == [3, 7]  # told in on_test_end only
    assert read(callback).params["keras"]["fits"][0]["epochs"] == 2


def test_steps_per_execution_counts_batches_and_logs_where_an_nth_one_lies_in_it() -> None:
    callback, model = TrackingCallback(log_every_n_batches=2), Model()
    model.steps_per_execution = 3
    callback.set_model(model)
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for first, end in ((0, 2), (3, 4)):  # as Keras calls them: 5 batches, 3 at once
            callback.on_train_batch_begin(first)
            callback.on_train_batch_end(end, {"loss": 1.0})
        callback.on_epoch_end(epoch, {"loss": 1.0})
    callback.on_train_end()
    assert steps(callback, "loss") == [4, 9]
    assert steps(callback, "batch/loss") == [2, 4, 7, 9]


def test_old_names_of_batch_hooks_count_once_beside_the_new_ones() -> None:
    callback = TrackingCallback(log_every_n_batches=1)
    for batch in range(3):
        callback.on_batch_begin(batch)
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch, {"loss": 1.0})
        callback.on_batch_end(batch, {"loss": 1.0})
    callback.on_train_end()
    assert steps(callback, "batch/loss") == [0, 1, 2]


def test_values_of_any_kind_are_recorded_or_named_in_one_warning() -> None:
    torch = pytest.importorskip("torch")
    callback = TrackingCallback(on_error="warn")
    logs: dict[str, Any] = {
        "int": np.int64(3),
        "half": np.float16(0.5),
        "array": np.array([2.5]),
        "tensor": torch.tensor(1.5, requires_grad=True),
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "flag": True,
    }
    callback.on_epoch_begin(np.int64(0))
    callback.on_epoch_end(np.int64(0), logs)
    with pytest.warns(runstone.TrackingWarning, match="'many' is not one number") as caught:  # noqa: PT031  (once)
        for epoch in (np.int64(1), torch.tensor(2)):
            callback.on_epoch_end(epoch, {"loss": 0.5, "many": np.zeros(3), "words": "no number"})
    assert len(caught) == 1
    callback.on_epoch_end(3, None)
    callback.on_train_end(None)
    info = read(callback)
    for name, value in logs.items():
        assert info.series(name).value[0] == pytest.approx(
            np.ravel(value.detach() if hasattr(value, "detach") else value)[0], nan_ok=True
        )
    assert info.series("epoch").value.tolist() == [0, 1, 2, 3]
    assert info.series("loss").value.tolist() == [0.5, 0.5]


def test_loop_without_a_model_reads_should_stop() -> None:
    callback = TrackingCallback()
    assert not callback.should_stop
    done = 0
    for epoch in range(10):
        callback.on_epoch_end(epoch, {"loss": 1.0})
        done += 1
        if callback.should_stop:
            break
        if epoch == 1:
            runstone.open_workspace().request_stop(callback.run.id)  # type: ignore[union-attr]
    callback.on_train_end()
    assert done == 3
    assert read(callback).status == "stopped"


def test_model_is_told_to_stop_and_torch_modules_are_counted() -> None:
    torch = pytest.importorskip("torch")
    callback, model = TrackingCallback(), torch.nn.Linear(3, 2)
    callback.set_model(model)
    callback.on_train_begin()
    assert callback.run is not None
    runstone.open_workspace().request_stop(callback.run.id, "prune")
    callback.on_train_batch_begin(0)
    assert model.stop_training is True
    callback.on_train_end()
    info = read(callback)
    assert info.status == "pruned"
    assert info.params["keras"]["model"] == {"class": "Linear", "params_total": 8, "params_trainable": 8}


def test_loop_that_comes_back_with_the_run_id_goes_on_by_its_epoch() -> None:
    def train(epochs: range) -> TrackingCallback:
        callback = TrackingCallback(run_id="again")
        for epoch in epochs:
            callback.on_epoch_begin(epoch)
            for batch in range(5):
                callback.on_train_batch_end(batch, {"loss": 1.0})
            callback.on_epoch_end(epoch, {"loss": 1.0})
        callback.on_train_end()
        return callback

    train(range(4))
    callback = train(range(2, 5))
    info = read(callback)
    assert steps(callback, "loss") == [4, 9, 14, 19, 24]
    assert info.series("epoch").value.tolist() == [0, 1, 2, 3, 4]
    assert info.attempts[1].rewind_step == 10
    assert len(info.series("loss", attempt="all")) == 7


def test_evaluation_of_a_run_that_came_back_supersedes_nothing() -> None:
    callback = TrackingCallback(run_id="again")
    for epoch in range(3):
        callback.on_epoch_end(epoch, {"loss": 1.0})
    callback.on_train_end()
    later = TrackingCallback(run_id="again")
    later.set_model(Model())
    later.on_test_end({"loss": 0.25})
    assert steps(later, "loss") == [0, 1, 2]
    assert steps(later, "evaluate/loss") == [2]


def test_run_that_came_back_without_epochs_goes_on_after_its_own_steps() -> None:
    def train() -> TrackingCallback:
        callback = TrackingCallback(run_id="again", log_every_n_batches=1)
        for batch in range(3):
            callback.on_train_batch_end(batch, {"loss": 1.0})
        callback.on_train_end()
        return callback

    first = train()
    with runstone.start_run(run_id="again") as run:
        run.log({"system/cpu/percent": 1.0}, step=1000)  # system metrics count seconds
    assert steps(first, "batch/loss") == [0, 1, 2]
    assert steps(train(), "batch/loss") == [0, 1, 2, 3, 4, 5]


def test_training_goes_on_when_the_run_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    callback = TrackingCallback(workspace=tmp_path / "file" / "below", on_error="warn")
    with pytest.warns(runstone.TrackingWarning) as caught:  # noqa: PT031  (once)
        callback.on_train_begin()
        for epoch in range(3):
            callback.on_epoch_begin(epoch)
            callback.on_train_batch_begin(0)
            callback.on_train_batch_end(0, {"loss": 1.0})
            callback.on_epoch_end(epoch, {"loss": 1.0})
        callback.on_train_end()
    assert len(caught) == 1


def test_error_of_the_tracker_is_a_warning_or_raised_as_the_user_wants() -> None:
    class Odd:
        @property
        def stop_training(self) -> bool:
            raise OSError("odd model")

    for on_error in ("warn", "raise"):
        callback = TrackingCallback(on_error=on_error)  # type: ignore[arg-type]
        callback.set_model(Odd())
        callback.on_train_begin()
        expected = pytest.warns(runstone.TrackingWarning, match="odd model")
        with expected if on_error == "warn" else pytest.raises(OSError, match="odd model"):
            callback.on_train_end()
        assert read(callback).status == "finished"


def test_exception_that_nobody_catches_fails_the_run_by_the_end_of_the_process(home: Path) -> None:
    script = (  # Keras too calls no hook after an exception
        "from runstone_integrations.keras import TrackingCallback\n"
        "callback = TrackingCallback()\n"
        "callback.on_train_begin()\n"
        "callback.on_epoch_end(0, {'loss': 1.0})\n"
        "raise RuntimeError('boom')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "RuntimeError: boom" in result.stderr
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "failed"
    assert info.failure is not None
    assert "boom" in info.failure.traceback


def test_everything_works_with_recording_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    with TrackingCallback(log_every_n_batches=1, run_id="off") as callback:
        callback.on_epoch_begin(0)
        callback.on_train_batch_end(0, {"loss": 1.0})
        callback.on_epoch_end(0, {"loss": 1.0})
        callback.on_train_end()
        callback.on_test_end({"loss": 1.0})
        assert not callback.should_stop
    assert callback.run is not None
    assert not callback.run.path.exists()


@pytest.mark.parametrize("every", [0, -1, 1.5, "often"])
def test_wrong_batch_interval_is_refused_when_the_callback_is_made(every: Any) -> None:
    with pytest.raises(runstone.InvalidValue, match="log_every_n_batches"):
        TrackingCallback(log_every_n_batches=every)


def test_wrong_checkpoint_source_is_refused_when_the_callback_is_made() -> None:
    with pytest.raises(runstone.InvalidValue, match="ModelCheckpoint"):
        TrackingCallback(checkpoints=3)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([[0, 1, 2], [0, 1, 2]], [0, 1, 2, 3, 4, 5]),
        ([[1, 2, 3], [1, 2, 3]], [0, 1, 2, 3, 4, 5]),
        ([[0, 1, 2], [3, 4, 5]], [0, 1, 2, 3, 4, 5]),
        ([[None, None], [None]], [0, 1, 2]),
        ([[np.int64(0), 1.0], ["x"]], [0, 1, 2]),
    ],
)
def test_axis_places_batches_however_the_loop_counts_them(batches: list[list[Any]], expected: list[int]) -> None:
    axis = StepAxis()
    placed = []
    for epoch in batches:
        axis.start_epoch()
        placed += [axis.end_batch(batch) for batch in epoch]
        assert axis.end_epoch() == placed[-1]
    assert placed == expected


def test_axis_of_a_loop_without_epochs_starts_over_where_its_numbers_do() -> None:
    axis = StepAxis()
    placed = []
    for batch in [0, 1, 2, 0, 1, 2]:
        placed.append(axis.begin_batch(batch))
        axis.end_batch(batch)
    assert placed == [0, 1, 2, 3, 4, 5]
    single = StepAxis()
    for _ in range(3):
        single.begin_batch(0)
        single.end_batch(0)
    assert single.next_step == 3


def test_an_open_run_is_taken_and_left_open(home: Path) -> None:
    with runstone.start_run(project="mine") as run:
        callback = TrackingCallback(project="other", params={"width": 3}, tags={"kind": "loop"})
        callback.on_train_begin()
        callback.on_epoch_end(0, {"loss": 0.5})
        callback.on_train_end()
        assert callback.run is run
        assert not run.is_finished
    info = run.read()
    assert (info.project, info.params["width"], info.tags["kind"]) == ("mine", 3, "loop")
    assert len(runstone.open_workspace(home).runs()) == 1
    callback.on_train_begin()  # the block is over: the callback goes on with the run and ends it itself
    callback.on_epoch_end(0, {"loss": 0.25})
    callback.on_train_end()
    assert run.is_finished
    assert run.read().series("loss").value.tolist() == [0.5, 0.25]
