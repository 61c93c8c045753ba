"""`TrackingCallback` with the real skorch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.heavy

skorch = pytest.importorskip("skorch")
torch = pytest.importorskip("torch")

import runstone  # noqa: E402
from runstone_integrations.skorch import TrackingCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int64")


class Module(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))
        self.interrupt_at: int | None = None
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return self.layers(x)


def make_net(*callbacks: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    common: dict[str, Any] = {
        "criterion": torch.nn.CrossEntropyLoss,
        "lr": 0.1,
        "max_epochs": 3,
        "batch_size": 16,
        "verbose": 0,
        "callbacks": list(callbacks),
    }
    return skorch.NeuralNetClassifier(Module, **{**common, **options})


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask(skorch.callbacks.Callback):  # type: ignore[misc]
    """Asks the run to stop in an epoch, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if len(net.history) == self.at + 1:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]


def test_epochs_are_recorded_as_skorch_itself_keeps_them() -> None:
    tracker = TrackingCallback(project="toy", params={"seed": 0})
    later = skorch.callbacks.EpochScoring("f1", name="f1", lower_is_better=False)  # behind the tracker in the list
    net = make_net(tracker, later).fit(X, Y)
    info = read(tracker)
    assert (info.status, info.project, info.params["seed"]) == ("finished", "toy", 0)
    for name in ("train_loss", "valid_loss", "valid_acc", "f1", "dur"):
        assert info.series(name).value.tolist() == net.history[:, name]
        assert steps(info, name) == [0, 1, 2]
    assert info.series("epoch").value.tolist() == [1, 2, 3]
    assert not any(name.endswith("_best") for name in info.metrics)


def test_settings_of_the_net_are_params() -> None:
    tracker = TrackingCallback()
    make_net(tracker, module__width=6, optimizer=torch.optim.Adam, optimizer__betas=(0.8, 0.9)).fit(X, Y)
    told = read(tracker).params["skorch"]
    assert told["params"]["module__width"] == 6
    assert told["params"]["optimizer__betas"] == [0.8, 0.9]
    assert told["params"]["optimizer"].endswith("Adam")
    assert (told["parameters"], told["version"], told["ended_by"]) == (44, skorch.__version__, "epochs")


def test_partial_fit_goes_on_in_the_run_and_a_second_fit_is_a_run_of_its_own() -> None:
    tracker = TrackingCallback()
    net = make_net(tracker).fit(X, Y)
    first = read(tracker).id
    net.partial_fit(X, Y, epochs=2)
    info = read(tracker)
    assert (info.id, info.status) == (first, "finished")
    assert steps(info, "train_loss") == [0, 1, 2, 3, 4]
    net.fit(X, Y)
    assert read(tracker).id != first
    assert steps(read(tracker), "train_loss") == [0, 1, 2]


def test_early_stopping_is_recorded_with_its_epoch() -> None:
    stopper = skorch.callbacks.EarlyStopping("train_loss", patience=2, threshold=1e9)
    for order in ((lambda tracker: [tracker, stopper]), (lambda tracker: [stopper, tracker])):
        tracker = TrackingCallback()
        make_net(*order(tracker), max_epochs=9).fit(X, Y)
        info = read(tracker)
        told = info.params["skorch"]
        assert (info.status, told["ended_by"], told["last_epoch"]) == ("finished", "early_stopping", 2)
        assert steps(info, "train_loss") == [0, 1, 2]


def test_interrupt_that_skorch_swallows_ends_the_run_as_stopped() -> None:
    tracker = TrackingCallback()
    net = make_net(tracker, max_epochs=9).initialize()
    net.module_.interrupt_at = 6  # of 4 batches an epoch, 3 to train and 1 to validate
    net.partial_fit(X, Y)
    info = read(tracker)
    assert (info.status, info.params["skorch"]["ended_by"]) == ("stopped", "interrupt")
    assert steps(info, "train_loss") == [0]


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_training_within_the_epoch(word: str, status: str) -> None:
    tracker = TrackingCallback()
    net = make_net(Ask(tracker, 2, word), tracker, max_epochs=9).fit(X, Y)
    info = read(tracker)
    assert (info.status, info.params["skorch"]["ended_by"]) == (status, "request")
    assert steps(info, "train_loss") == [0, 1]
    assert len(net.history) == 3


def test_weights_and_random_numbers_are_the_same_with_and_without() -> None:
    plain = make_net().fit(X, Y)
    after_plain = torch.get_rng_state()
    tracked = make_net(TrackingCallback(log_model=True)).fit(X, Y)
    assert torch.equal(after_plain, torch.get_rng_state())
    for mine, other in zip(tracked.module_.parameters(), plain.module_.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert (tracked.predict_proba(X) == plain.predict_proba(X)).all()


def test_model_is_kept() -> None:
    tracker = TrackingCallback(log_model=True)
    make_net(tracker).fit(X, Y)
    assert [artifact.name for artifact in read(tracker).artifacts] == ["model.pt"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_fit_of_a_grid_search_is_a_run_under_that_of_the_user(n_jobs: int) -> None:
    from sklearn.model_selection import GridSearchCV

    net = make_net(TrackingCallback(project="ignored"), train_split=None, max_epochs=2)
    with runstone.start_run(project="search") as run:
        GridSearchCV(net, {"lr": [0.1, 0.01]}, cv=2, refit=False, n_jobs=n_jobs, scoring="accuracy").fit(X, Y)
    below = [info for info in runstone.open_workspace().runs() if info.parent == run.id]
    assert [(info.status, info.project) for info in below] == [("finished", "search")] * 4
    assert sorted(info.params["skorch"]["params"]["lr"] for info in below) == [0.01, 0.01, 0.1, 0.1]
    assert all(steps(info, "train_loss") == [0, 1] for info in below)


def test_exception_in_a_with_block_fails_the_run() -> None:
    tracker = TrackingCallback()
    with pytest.raises(ValueError), tracker:
        make_net(tracker).fit(X[:, :3], Y[:2])
    with pytest.raises(RuntimeError), tracker:
        make_net(tracker).fit(X[:, :3], Y)
    runs = runstone.open_workspace().runs()
    assert [info.status for info in runs] == ["failed", "failed"]


def test_copies_are_small_and_nets_with_a_tracker_pickle() -> None:
    tracker = TrackingCallback(project="toy")
    net = make_net(tracker).fit(X, Y)
    assert len(pickle.dumps(tracker)) < 2_000
    loaded = pickle.loads(pickle.dumps(net))
    assert (loaded.predict(X) == net.predict(X)).all()
    assert len(runstone.open_workspace().runs()) == 1, "to load a net opens no run"
    loaded.partial_fit(X, Y)
    copied = copy.deepcopy(tracker)
    make_net(copied).fit(X, Y)
    assert len({info.id for info in runstone.open_workspace().runs()}) == 3
