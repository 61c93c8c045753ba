"""`TrackingCallback` with the real fastai."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:.*numpy.core is deprecated:DeprecationWarning"),  # in fastai's own `load`
]

torch = pytest.importorskip("torch")
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai import basics
        from fastai.callback.core import CancelTrainException
        from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
except Exception as error:  # it needs torchvision, which may not fit the torch that is there
    pytest.skip(f"fastai cannot be imported: {error}", allow_module_level=True)

import runstone  # noqa: E402
from runstone_integrations.fastai import TrackingCallback  # noqa: E402


def make_learner(folder: Path, **options: Any) -> Any:
    """Return a learner of 4 train batches an epoch."""
    torch.manual_seed(0)
    random.seed(0)  # shuffles the batches
    inputs = torch.randn(48, 3)
    targets = inputs.sum(dim=1, keepdim=True)
    data = [(inputs[index], targets[index]) for index in range(48)]
    loaders = basics.DataLoaders.from_dsets(data[:32], data[32:], bs=8, device=torch.device("cpu"), num_workers=0)
    options = {"metrics": [basics.mae] if hasattr(basics, "mae") else [], "path": folder, **options}
    learner = basics.Learner(loaders, torch.nn.Linear(3, 1), loss_func=torch.nn.MSELoss(), lr=0.01, **options)
    learner.remove_cbs([each for each in learner.cbs if type(each).__name__ == "ProgressCallback"])
    return learner


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.tracked_run is not None
    return runstone.open_workspace().run(tracker.tracked_run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask(basics.Callback):  # type: ignore[misc]
    """Asks the run to stop at a batch, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def before_batch(self) -> None:
        if self.training and self.train_iter == self.at:
            runstone.open_workspace().request_stop(self.tracker.tracked_run.id, self.word)  # type: ignore[union-attr,arg-type]


def test_epochs_are_recorded_as_the_recorder_keeps_them(tmp_path: Path) -> None:
    tracker = TrackingCallback(project="toy", params={"seed": 0})
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(3, cbs=tracker)
    info = read(tracker)
    assert (info.status, info.project, info.params["seed"]) == ("finished", "toy", 0)
    names = [name for name in learner.recorder.metric_names[1:] if name != "time"]
    assert {"train_loss", "valid_loss"} <= set(names)
    for column, name in enumerate(names):
        assert info.series(name).value.tolist() == [row[column] for row in learner.recorder.values]
        assert steps(info, name) == [3, 7, 11]
    assert info.series("epoch").value.tolist() == [0, 1, 2]


def test_settings_of_the_learner_are_params(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(1, 0.05, wd=0.2, cbs=tracker)
    told = read(tracker).params["fastai"]
    assert (told["hyperparameters"][0]["lr"], told["hyperparameters"][0]["wd"]) == (0.05, 0.2)
    assert told["model"]["parameters"] == 4
    assert (told["epochs"], told["batch_size"], told["optimizer"]) == (1, 8, "Adam")
    assert (told["ended_by"], told["last_step"]) == ("epochs", 3)


def test_batches_stand_on_the_axis_of_the_epochs_with_the_rate_of_the_schedule(tmp_path: Path) -> None:
    tracker = TrackingCallback(log_every_n_batches=2)
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit_one_cycle(2, 0.1, cbs=tracker) if hasattr(learner, "fit_one_cycle") else learner.fit(2, cbs=tracker)
    info = read(tracker)
    assert steps(info, "batch/loss") == steps(info, "batch/lr") == [1, 3, 5, 7]
    with pytest.raises(runstone.InvalidValue, match="0"):
        TrackingCallback(log_every_n_batches=0)


def test_second_fit_of_a_learner_goes_on_in_the_run_and_that_of_another_does_not(tmp_path: Path) -> None:
    tracker, learner = TrackingCallback(), make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(1, cbs=tracker)
        first = read(tracker).id
        learner.fit(2, cbs=tracker)
    assert read(tracker).id == first
    assert steps(read(tracker), "train_loss") == [3, 7, 11]
    other = make_learner(tmp_path)
    with other.no_logging():
        other.fit(1, cbs=tracker)
    assert read(tracker).id != first
    assert steps(read(tracker), "train_loss") == [3]


def test_validation_prediction_and_rate_finder_record_nothing(tmp_path: Path) -> None:
    from fastai.callback.schedule import LRFinder

    tracker = TrackingCallback()
    learner = make_learner(tmp_path, cbs=tracker)
    with learner.no_logging():
        learner.validate()
        learner.get_preds()
        learner.fit(1, cbs=LRFinder(num_it=3))
    assert tracker.tracked_run is None
    with learner.no_logging():
        learner.fit(1)
        learner.validate()
    assert steps(read(tracker), "valid_loss") == [3]


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_fit_after_the_batch(tmp_path: Path, word: str, status: str) -> None:
    tracker = TrackingCallback(log_every_n_batches=1)
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(5, cbs=[tracker, Ask(tracker, 5, word)])
    info = read(tracker)
    assert (info.status, info.params["fastai"]["ended_by"]) == (status, "request")
    assert steps(info, "batch/loss") == [0, 1, 2, 3, 4, 5]


def test_early_stopping_is_recorded_with_its_step_and_saved_models_with_their_path(tmp_path: Path) -> None:
    tracker = TrackingCallback()
    stopper = EarlyStoppingCallback("valid_loss", min_delta=1e9, patience=1)
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(9, cbs=[tracker, stopper, SaveModelCallback(fname="best")])
    told = read(tracker).params["fastai"]
    assert (told["ended_by"], told["last_step"]) == ("callback", 7)
    assert told["checkpoints"] == [str(tmp_path / "models" / "best.pth")]
    assert read(tracker).status == "finished"


def test_epoch_whose_training_is_cancelled_mixes_up_no_names(tmp_path: Path) -> None:
    class Cancel(basics.Callback):  # type: ignore[misc]
        def before_batch(self) -> None:
            if self.training and self.train_iter == 6:
                raise CancelTrainException

    tracker = TrackingCallback()
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(2, cbs=[tracker, Cancel()])
    assert steps(read(tracker), "valid_loss") == [3]
    assert len(steps(read(tracker), "epoch")) == 2


def test_weights_and_random_numbers_are_the_same_with_and_without(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [TrackingCallback(log_every_n_batches=1, log_model=True)]):
        learner = make_learner(tmp_path)
        with learner.no_logging():
            learner.fit(2, cbs=callbacks)
        results.append((learner.model.weight.detach().clone(), torch.get_rng_state()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_model_is_kept_and_exceptions_fail_the_run(tmp_path: Path) -> None:
    class Explode(basics.Callback):  # type: ignore[misc]
        def after_epoch(self) -> None:
            raise RuntimeError("the user's own error")

    tracker = TrackingCallback(log_model=True)
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(1, cbs=tracker)
        assert [artifact.name for artifact in read(tracker).artifacts] == ["model.pth"]
        with pytest.raises(RuntimeError, match="the user's own error"), tracker:
            learner.fit(1, cbs=[tracker, Explode()])
    assert read(tracker).status == "failed"


def test_run_of_the_user_is_taken_and_copies_record_runs_of_their_own(tmp_path: Path) -> None:
    tracker = TrackingCallback(project="toy")
    assert len(pickle.dumps(tracker)) < 2_000
    copied = copy.deepcopy(tracker)
    with runstone.start_run() as run:
        learner = make_learner(tmp_path)
        with learner.no_logging():
            learner.fit(1, cbs=tracker)
        assert tracker.tracked_run is run
        assert not run.is_finished
    learner = make_learner(tmp_path)
    with learner.no_logging():
        learner.fit(1, cbs=copied)
    assert (read(copied).project, read(copied).id != run.id) == ("toy", True)
