"""`TrackingCallback` with the real Keras on its torch backend."""

from __future__ import annotations

import copy
import functools
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.heavy,
    # Keras's own conversion of torch tensors, with NumPy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, when it is imported
keras = pytest.importorskip("keras")

import runstone  # noqa: E402
from runstone_integrations._keras_model import learning_rate  # noqa: E402
from runstone_integrations.keras import TrackingCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    keras.utils.set_random_seed(0)


def make_model(**compile_options: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    model.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "metrics": ["mae"], **compile_options})
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    """Fit on 40 samples: 5 batches an epoch."""
    return model.fit(X, Y, **{"batch_size": 8, "epochs": 3, "verbose": 0, "callbacks": list(callbacks), **options})


def read(callback: TrackingCallback) -> runstone.RunInfo:
    assert callback.run is not None
    return callback.run.read()


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


def artifacts(info: runstone.RunInfo) -> dict[str, runstone.Artifact]:
    return {artifact.name: artifact for artifact in info.artifacts}


def content(info: runstone.RunInfo, name: str) -> bytes:
    (file,) = artifacts(info)[name].files
    return (info.path.parents[2] / "blobs" / file.hash[:2] / file.hash).read_bytes()


# --- metrics and their axis ------------------------------------------------------------------------------------------


def test_epochs_are_recorded_as_keras_itself_keeps_them() -> None:
    callback = TrackingCallback(project="toy", name="first", params={"seed": 0}, tags={"by": "test"})
    history = fit(make_model(), callback, validation_data=(X, Y)).history
    info = read(callback)
    assert (info.status, info.project, info.name, info.tags) == ("finished", "toy", "first", {"by": "test"})
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert info.series(name).value.tolist() == history[name]
        assert steps(info, name) == [4, 9, 14]
    assert info.series("epoch").value.tolist() == [0, 1, 2]
    assert info.series("learning_rate").value.tolist() == pytest.approx([0.01] * 3)
    assert (info.series("epoch_s").value > 0).all()
    assert not any(name.startswith(("batch/", "evaluate/")) for name in info.metrics)


def test_batches_stand_on_the_same_axis_as_epochs() -> None:
    every, third = TrackingCallback(log_every_n_batches=1), TrackingCallback(log_every_n_batches=3)
    fit(make_model(), every, third, epochs=2)
    info = read(every)
    assert steps(info, "batch/loss") == list(range(10))
    assert steps(info, "loss") == [4, 9]
    # Keras's batch metrics are means over the epoch so far: that of the last batch is the epoch's
    assert info.series("batch/loss").value[[4, 9]].tolist() == info.series("loss").value.tolist()
    assert steps(read(third), "batch/mae") == [2, 5, 8]
    assert steps(read(third), "batch/learning_rate") == [2, 5, 8]


def test_second_fit_goes_on_in_the_same_run_and_on_the_axis() -> None:
    callback, model = TrackingCallback(), make_model()
    fit(model, callback, epochs=2)
    assert read(callback).status == "finished"
    first = read(callback).id
    fit(model, callback, epochs=4, initial_epoch=2, validation_data=(X, Y))
    info = read(callback)
    assert info.id == first
    assert info.status == "finished"
    assert len(info.attempts) == 1
    assert steps(info, "loss") == [4, 9, 14, 19]
    assert info.series("epoch").value.tolist() == [0, 1, 2, 3]
    fits = info.params["keras"]["fits"]
    assert [(f["first_step"], f["last_step"], f["first_epoch"], f["last_epoch"], f["ended_by"]) for f in fits] == [
        (0, 9, 0, 1, "epochs"),
        (10, 19, 2, 3, "epochs"),
    ]


def test_validation_freq_leaves_epochs_without_validation() -> None:
    callback = TrackingCallback()
    fit(make_model(), callback, validation_data=(X, Y), validation_freq=2, epochs=4)
    info = read(callback)
    assert steps(info, "val_loss") == [9, 19]
    assert steps(info, "loss") == [4, 9, 14, 19]


def test_evaluate_and_predict_belong_to_the_run_of_the_fit() -> None:
    callback, model = TrackingCallback(), make_model()
    fit(model, callback)
    scores = [model.evaluate(X, Y, verbose=0, callbacks=[callback])[0] for _ in range(2)]
    model.predict(X, verbose=0, callbacks=[callback])
    info = read(callback)
    assert len(runstone.open_workspace().runs()) == 1
    assert info.status == "finished"
    assert steps(info, "evaluate/loss") == [14, 15]  # two evaluations of one state are two points
    assert info.series("evaluate/loss").value.tolist() == scores
    assert steps(info, "loss") == [4, 9, 14]


def test_evaluate_alone_is_a_run_and_predict_alone_is_none() -> None:
    callback, model = TrackingCallback(), make_model()
    model.predict(X, verbose=0, callbacks=[callback])
    assert callback.run is None
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert set(read(callback).metrics) == {"evaluate/loss", "evaluate/mae"}
    assert read(callback).status == "finished"


def test_evaluation_inside_a_fit_by_another_callback_neither_ends_nor_splits_the_run() -> None:
    tracker, model = TrackingCallback(), make_model()

    class Extra(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            model.evaluate(X[:8], Y[:8], verbose=0, callbacks=[tracker])

    fit(model, tracker, Extra(), validation_data=(X, Y))
    info = read(tracker)
    assert steps(info, "val_loss") == [4, 9, 14]
    assert steps(info, "evaluate/loss") == [4, 9, 14]
    assert len(info.params["keras"]["fits"]) == 1
    assert info.status == "finished"


def test_loop_over_train_on_batch_is_recorded_as_a_fit_would_be() -> None:
    callback, model = TrackingCallback(log_every_n_batches=1), make_model()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for batch in range(5):
            rows = slice(8 * batch, 8 * batch + 8)
            callback.on_train_batch_end(batch, model.train_on_batch(X[rows], Y[rows], return_dict=True))
        callback.on_epoch_end(
            epoch, {f"val_{name}": value for name, value in model.test_on_batch(X, Y, return_dict=True).items()}
        )
    callback.on_train_end()
    info = read(callback)
    assert steps(info, "batch/loss") == list(range(10))
    assert steps(info, "val_loss") == steps(info, "learning_rate") == [4, 9]
    assert info.params["keras"]["model"]["params_total"] == 19
    assert info.params["keras"]["fits"][0]["last_step"] == 9


def test_initial_epoch_is_the_epoch_and_not_the_step() -> None:
    callback = TrackingCallback()
    fit(make_model(), callback, initial_epoch=5, epochs=7)
    assert steps(read(callback), "loss") == [4, 9]
    assert read(callback).series("epoch").value.tolist() == [5, 6]


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # how Keras learns of the number
def test_batches_of_unknown_number_and_generators_are_counted() -> None:
    def batches() -> Any:
        for first in range(0, 24, 8):
            yield X[first : first + 8], Y[first : first + 8]

    callback = TrackingCallback(log_every_n_batches=1)
    make_model().fit(batches(), shuffle=False, verbose=0, callbacks=[callback])
    assert steps(read(callback), "batch/loss") == [0, 1, 2]
    assert steps(read(callback), "loss") == [2]


def test_learning_rate_is_that_of_schedules_and_of_callbacks() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
    scheduled = TrackingCallback()
    fit(make_model(optimizer=keras.optimizers.SGD(schedule)), scheduled)
    info = read(scheduled)
    assert info.series("learning_rate").value.tolist() == pytest.approx([0.05, 0.025, 0.0125])
    assert info.params["keras"]["optimizer"]["learning_rate"]["config"]["decay_rate"] == 0.5
    before, after = TrackingCallback(), TrackingCallback()
    set_rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    fit(make_model(), before, set_rate, after)
    for callback in (before, after):
        assert read(callback).series("learning_rate").value.tolist() == pytest.approx([0.1, 0.05, 0.1 / 3])


# --- what is trained -------------------------------------------------------------------------------------------------


def test_model_optimizer_and_fit_are_params_and_the_architecture_is_kept() -> None:
    callback, model = TrackingCallback(), make_model()
    fit(model, callback, epochs=1)
    info = read(callback)
    told = info.params["keras"]
    assert told["model"]["class"] == "Sequential"
    assert told["model"]["layers"] == 2
    assert told["model"]["params_total"] == told["model"]["params_trainable"] == model.count_params() == 19
    assert told["optimizer"]["class"] == "Adam"
    assert told["optimizer"]["learning_rate"] == 0.01  # not 0.009999999776482582
    assert told["loss"] == "mse"
    assert (told["backend"], told["version"]) == ("torch", keras.__version__)
    assert told["fits"][0]["epochs"] == 1
    assert told["fits"][0]["steps_per_epoch"] == 5
    assert b"Trainable params: 19" in content(info, "model/summary.txt")
    assert json.loads(content(info, "model/config.json"))["class_name"] == "Sequential"


def test_subclassed_model_without_config_and_losses_by_output_are_told_as_far_as_they_go() -> None:
    class Two(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = keras.layers.Dense(1), keras.layers.Dense(1)

        def call(self, inputs: Any) -> dict[str, Any]:
            return {"a": self.left(inputs), "b": self.right(inputs)}

    model = Two()
    model.compile("sgd", {"a": "mse", "b": keras.losses.MeanAbsoluteError()}, metrics={"a": ["mae"]})
    callback = TrackingCallback()
    model.fit(X, {"a": Y, "b": Y}, batch_size=8, verbose=0, callbacks=[callback])
    info = read(callback)
    assert info.params["keras"]["loss"] == {"a": "mse", "b": "MeanAbsoluteError"}
    assert info.params["keras"]["model"]["params_total"] == 10
    assert {"loss", "a_loss", "b_loss", "a_mae"} <= set(info.metrics)


# --- endings ---------------------------------------------------------------------------------------------------------


def test_early_stopping_by_another_callback_is_told_with_its_step() -> None:
    callback = TrackingCallback()
    stopper = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    fit(make_model(), callback, stopper, epochs=10)
    info = read(callback)
    (told,) = info.params["keras"]["fits"]
    assert (told["ended_by"], told["last_epoch"], told["last_step"]) == ("stop_training", 1, 9)
    assert info.status == "finished"


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_fit_within_the_epoch(word: str, status: str) -> None:
    callback = TrackingCallback(log_every_n_batches=1)

    class Ask(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                runstone.open_workspace().request_stop(callback.run.id, word)  # type: ignore[union-attr,arg-type]

    fit(make_model(), Ask(), callback)
    info = read(callback)
    assert steps(info, "batch/loss") == [0, 1]
    assert info.status == status
    assert info.params["keras"]["fits"][0]["ended_by"] == "request"
    assert callback.should_stop


class Explode(keras.callbacks.Callback):  # type: ignore[misc]
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise RuntimeError("the user's own error")


def test_exception_in_a_with_block_fails_the_run_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "last.keras"))
    callback = TrackingCallback(checkpoints=checkpoint)
    with pytest.raises(RuntimeError, match="own error"), callback:
        fit(make_model(), callback, checkpoint, Explode())
    info = read(callback)
    assert info.status == "failed"
    assert info.failure is not None
    assert info.failure.message == "the user's own error"
    assert steps(info, "loss") == [4, 9]
    assert "checkpoints/last.keras" in artifacts(info)


def test_pruned_trial_ends_the_run_as_pruned() -> None:
    class TrialPruned(Exception):  # as Optuna's is named: its package is not needed
        pass

    class Prune(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise TrialPruned

    callback = TrackingCallback()
    with pytest.raises(TrialPruned), callback:
        fit(make_model(), callback, Prune())
    assert read(callback).status == "pruned"
    assert steps(read(callback), "loss") == [4]


def test_interrupt_ends_the_run_as_stopped() -> None:
    class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    callback = TrackingCallback()
    with pytest.raises(KeyboardInterrupt), callback:
        fit(make_model(), callback, Interrupt())
    assert read(callback).status == "stopped"


def test_fit_after_one_that_raised_goes_on_in_the_same_run() -> None:
    callback, model = TrackingCallback(), make_model()
    with pytest.raises(RuntimeError):
        fit(model, callback, Explode())
    fit(model, callback, epochs=1)
    info = read(callback)
    assert info.status == "finished"
    assert steps(info, "loss") == [4, 9, 14]
    assert [f["ended_by"] for f in info.params["keras"]["fits"]] == [None, "epochs"]


def test_with_block_keeps_one_run_open_over_many_fits() -> None:
    with TrackingCallback(name="folds") as callback:
        for _ in range(2):
            fit(make_model(), callback, epochs=1)
            assert callback.run is not None
            assert not callback.run.is_finished
    assert read(callback).status == "finished"
    assert steps(read(callback), "loss") == [4, 9]


def test_run_of_the_user_is_written_to_and_not_ended() -> None:
    with runstone.start_run(project="mine") as run:
        callback = TrackingCallback(run=run)
        fit(make_model(), callback, epochs=1)
        with callback:
            make_model().evaluate(X, Y, verbose=0, callbacks=[callback])
        assert not run.is_finished
        run.log({"after": 1.0})
    assert {"loss", "evaluate/loss", "after"} <= set(run.read().metrics)
    assert len(runstone.open_workspace().runs()) == 1


def test_process_that_comes_back_with_the_run_id_goes_on_where_the_weights_are(tmp_path: Path) -> None:
    backup = str(tmp_path / "backup")

    def train(*callbacks: Any) -> TrackingCallback:
        # listed before BackupAndRestore, which restores in its own on_train_begin
        callback = TrackingCallback(run_id="resumed")
        keras.utils.set_random_seed(0)
        fit(make_model(), callback, *callbacks, keras.callbacks.BackupAndRestore(backup), epochs=4)
        return callback

    with pytest.raises(RuntimeError) as caught:
        train(Explode())
    runstone.current_run().end_with_process(caught.value)  # type: ignore[union-attr]
    callback = train()
    info = read(callback)
    assert [attempt.status for attempt in info.attempts] == ["failed", "finished"]
    assert info.attempts[1].rewind_step == 5  # the backup is of the end of epoch 0
    assert info.series("epoch").value.tolist() == [0, 1, 2, 3]
    assert steps(info, "loss") == [4, 9, 14, 19]
    assert len(info.series("loss", attempt="all")) == 5


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracker_first", [True, False])
def test_best_and_last_checkpoint_are_copied(tracker_first: bool, tmp_path: Path) -> None:
    (tmp_path / "0099-0.10.keras").write_bytes(b"of an earlier training")
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch:04d}-{val_loss:.2f}.keras"))
    tracker = TrackingCallback(checkpoints=checkpoint)
    # a rate that ruins the model from epoch 2 on: the best is not the last
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 if epoch < 2 else 1.0)
    callbacks = [tracker, checkpoint] if tracker_first else [checkpoint, tracker]
    history = fit(make_model(), rate, *callbacks, validation_data=(X, Y), epochs=4).history
    info = read(tracker)
    best = int(np.argmin(history["val_loss"]))
    assert best < 3
    kept = artifacts(info)
    assert kept["checkpoints/best.keras"].metadata["epoch"] == best
    assert kept["checkpoints/best.keras"].metadata["score"] == history["val_loss"][best]
    assert kept["checkpoints/last.keras"].metadata["epoch"] == 3
    file = next(tmp_path.glob("0004-*.keras"))
    assert content(info, "checkpoints/last.keras") == file.read_bytes()
    file.write_bytes(b"overwritten in place")
    assert content(info, "checkpoints/last.keras") != b"overwritten in place"
    loaded = tmp_path / "loaded.keras"
    loaded.write_bytes(content(info, "checkpoints/best.keras"))
    assert keras.saving.load_model(loaded).evaluate(X, Y, verbose=0)[0] == pytest.approx(history["val_loss"][best])


def test_save_best_only_weights_by_pattern_and_several_sources(tmp_path: Path) -> None:
    best = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), "loss", save_best_only=True)
    weights = keras.callbacks.ModelCheckpoint(str(tmp_path / "w-{epoch}.weights.h5"), save_weights_only=True)
    tracker = TrackingCallback(checkpoints=[best, str(tmp_path / "w-*.weights.h5"), tmp_path / "never-written"])
    fit(make_model(), tracker, best, weights)
    info = read(tracker)
    kept = {name for name in artifacts(info) if name.startswith("checkpoints")}
    assert kept == {"checkpoints/best.keras", "checkpoints-2/last.weights.h5"}
    assert artifacts(info)["checkpoints-2/last.weights.h5"].metadata["path"].endswith("w-3.weights.h5")


def test_log_model_keeps_a_model_that_loads(tmp_path: Path) -> None:
    callback, model = TrackingCallback(log_model=True), make_model()
    fit(model, callback)
    path = tmp_path / "model.keras"
    path.write_bytes(content(read(callback), "model.keras"))
    assert np.array_equal(keras.saving.load_model(path).predict(X, verbose=0), model.predict(X, verbose=0))


# --- it changes nothing, and costs no asynchrony ---------------------------------------------------------------------


def test_weights_and_history_are_bit_equal_with_and_without() -> None:
    def train(*callbacks: Any) -> tuple[Any, Any]:
        keras.utils.set_random_seed(1)
        model = make_model()
        history = fit(model, *callbacks, validation_data=(X, Y)).history
        return model.get_weights(), history

    plain_weights, plain_history = train()
    weights, history = train(TrackingCallback(log_every_n_batches=1, log_model=True))
    assert history == plain_history
    assert all(np.array_equal(a, b) for a, b in zip(weights, plain_weights, strict=True))


@pytest.mark.parametrize("every", [None, 1])
def test_asynchronous_dispatch_of_other_backends_stays_on_and_loses_nothing(
    every: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Keras itself decides by this whether batch hooks may run in its thread pool.
    monkeypatch.setattr(keras.src.backend, "IS_THREAD_SAFE", True)
    callback = TrackingCallback(log_every_n_batches=every)
    callbacks = keras.callbacks.CallbackList([callback])
    assert (callbacks._async_train, callbacks._async_test, callbacks._async_predict) == (True, True, True)
    callbacks.on_train_begin()
    for epoch in range(3):
        callbacks.on_epoch_begin(epoch)
        for batch in range(200):
            callbacks.on_train_batch_begin(batch)
            callbacks.on_train_batch_end(batch, {"loss": float(batch)})
        callbacks.on_epoch_end(epoch, {"loss": 1.0})
    callbacks.on_train_end()
    info = read(callback)
    assert steps(info, "loss") == [199, 399, 599]
    if every:
        series = info.series("batch/loss")
        assert series.step.tolist() == list(range(600))
        assert (series.value == series.step % 200).all()


def test_has_every_hook_that_keras_callbacks_have() -> None:
    for name in dir(keras.callbacks.Callback):
        if name.startswith(("on_", "set_")):
            assert callable(getattr(TrackingCallback, name, None)), name


def test_copies_and_pickles_leave_the_model_behind_and_write_to_the_same_run() -> None:
    callback = TrackingCallback(project="toy")
    model = make_model()
    fit(model, callback, epochs=1)
    data = pickle.dumps(callback)
    assert len(data) < 2_000
    again = pickle.loads(data)
    assert again.model is None
    fit(model, again, epochs=1)
    assert read(again).id == read(callback).id
    assert steps(read(again), "loss") == [4, 9]
    assert copy.deepcopy(TrackingCallback(project="toy")).run is None


def test_h3_model_that_was_tracked_holds_nothing_of_it(tmp_path: Path) -> None:
    model = make_model()
    fit(model, TrackingCallback(log_every_n_batches=1))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert not any(b"runstone" in archive.read(name) for name in archive.namelist())
    del model.history  # Keras's own: it holds the history of the fit
    assert b"runstone" not in pickle.dumps(model)


def test_h5_nothing_needs_tensorflow_or_jax() -> None:
    fit(make_model(), TrackingCallback(log_every_n_batches=1, log_model=True), epochs=1)
    assert not {"tensorflow", "jax"} & set(sys.modules)


def test_learning_rate_on_a_gpu_is_left_there() -> None:
    class Tensor:  # as much of one as is looked at; the true thing needs a GPU
        is_cuda = True

        def __float__(self) -> float:
            raise AssertionError("this would wait for the GPU")

    class Optimizer:
        learning_rate = Tensor()

    class Model:
        optimizer = Optimizer()

    assert learning_rate(Model()) is Optimizer.learning_rate


def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "keras.md").read_text()
    names: dict[str, Any] = {
        **dict.fromkeys(("x", "x_val", "x_test"), X),
        **dict.fromkeys(("y", "y_val", "y_test"), Y),
        "model": make_model(),
        "loader": [(X, Y)] * 20,
        "train": lambda x, y: names["model"].train_on_batch(x, y)[0],
        "validate": lambda: names["model"].test_on_batch(X, Y)[0],
    }
    names["model"].fit = functools.partial(names["model"].fit, verbose=0)
    names["model"].evaluate = functools.partial(names["model"].evaluate, verbose=0)
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", page, re.DOTALL), start=1):
        exec(compile(example, f"keras.md, example {number}", "exec"), names)
    runs = {run.name: run for run in runstone.open_workspace().runs()}
    assert [run.status for run in runs.values()] == ["finished"] * 4
    assert {name for run in runs.values() for name in run.metrics} >= {
        "val_loss",
        "evaluate/loss",
        "batch/loss",
        "mine",
    }


def test_h1_nothing_in_keras_is_patched() -> None:
    def names() -> dict[str, int]:
        found = {}
        for owner in (keras.Model, keras.Sequential, keras.callbacks.Callback, keras.callbacks.CallbackList):
            found.update({f"{owner.__name__}.{name}": id(value) for name, value in vars(owner).items()})
        return found

    before = names()
    fit(make_model(), TrackingCallback(log_every_n_batches=1))
    assert names() == before
