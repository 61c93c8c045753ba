"""`TrackingCallback` with the real LightGBM."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

lightgbm = pytest.importorskip("lightgbm")

import runstone  # noqa: E402
from runstone_integrations.lightgbm import TrackingCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(120, 4))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
PARAMS = {
    "objective": "binary",
    "metric": ["binary_logloss", "auc"],
    "num_leaves": 4,
    "min_data_in_leaf": 5,
    "verbosity": -1,
    "num_threads": 1,
}


def data() -> tuple[Any, Any]:
    train_set = lightgbm.Dataset(X[:80], Y[:80], free_raw_data=False)
    return train_set, lightgbm.Dataset(X[80:], Y[80:], reference=train_set, free_raw_data=False)


def train(*callbacks: Any, rounds: int = 5, **options: Any) -> Any:
    train_set, test_set = data()
    params = {**PARAMS, **options.pop("params", {})}
    sets = {"valid_sets": [train_set, test_set], "valid_names": ["train", "test"]}
    return lightgbm.train(params, train_set, rounds, callbacks=list(callbacks), **sets, **options)


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask:
    """Asks the run to stop at a round, as a sweep does."""

    order = 5

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def __call__(self, env: Any) -> None:
        if env.iteration == self.at:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]


class Explode:
    order = 99

    def __call__(self, env: Any) -> None:
        raise RuntimeError("the user's own error")


def test_rounds_are_recorded_as_lightgbm_itself_keeps_them() -> None:
    tracker, result = TrackingCallback(project="toy", params={"seed": 0}), {}  # type: ignore[var-annotated]
    train(tracker, lightgbm.record_evaluation(result))
    info = read(tracker)
    assert (info.status, info.project, info.params["seed"]) == ("finished", "toy", 0)
    for name, metrics in result.items():
        for metric, values in metrics.items():
            assert info.series(f"{name}/{metric}").value.tolist() == values
            assert steps(info, f"{name}/{metric}") == [0, 1, 2, 3, 4]


def test_params_given_and_settings_in_force_are_recorded() -> None:
    tracker = TrackingCallback()
    train(tracker, params={"learning_rate": 0.2})
    told = read(tracker).params["lightgbm"]
    assert told["params"]["learning_rate"] == 0.2
    assert told["params"]["metric"] == ["binary_logloss", "auc"]
    assert (told["config"]["num_leaves"], told["config"]["lambda_l2"]) == (4, 0)
    assert (told["rounds"], told["features"], told["ended_by"]) == (5, 4, "rounds")
    assert told["version"] == lightgbm.__version__


def test_callback_in_the_call_ends_its_run_when_training_returns() -> None:
    train(TrackingCallback(), lightgbm.early_stopping(2, min_delta=10.0, verbose=False), rounds=20)
    (info,) = runstone.open_workspace().runs()
    told = info.params["lightgbm"]
    assert (info.status, told["ended_by"], told["best_iteration"]) == ("finished", "early_stopping", 0)
    assert told["best_score"]["test"]["auc"] == info.series("test/auc").value[0]
    assert steps(info, "test/auc") == [0, 1, 2], "the round that stopped it too"


def test_early_stopping_that_never_stopped_is_told_from_one_that_did() -> None:
    tracker = TrackingCallback()
    model = train(tracker, lightgbm.early_stopping(50, verbose=False), rounds=4)
    told = read(tracker).params["lightgbm"]
    assert (told["ended_by"], told["best_iteration"]) == ("rounds", model.best_iteration - 1)


def test_training_that_continues_a_model_goes_on_in_the_run_and_on_the_axis() -> None:
    tracker = TrackingCallback()
    first = train(tracker, rounds=3)
    id_of_first = read(tracker).id
    train(tracker, rounds=2, init_model=first)
    info = read(tracker)
    assert (info.id, info.status) == (id_of_first, "finished")
    assert steps(info, "test/auc") == [0, 1, 2, 3, 4]
    train(tracker, rounds=2)
    assert read(tracker).id != id_of_first, "a training from the beginning is a run of its own"


def test_cross_validation_is_recorded_with_means_and_deviations() -> None:
    tracker = TrackingCallback()
    result = lightgbm.cv(PARAMS, data()[0], 4, nfold=3, callbacks=[tracker], seed=0)
    info = read(tracker)
    assert info.series("valid/auc_mean").value.tolist() == [float(value) for value in result["valid auc-mean"]]
    assert info.series("valid/auc_std").value.tolist() == [float(value) for value in result["valid auc-stdv"]]
    assert (info.params["lightgbm"]["folds"], info.status) == (3, "finished")


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_training_after_the_round(word: str, status: str) -> None:
    tracker = TrackingCallback()
    model = train(Ask(tracker, 2, word), tracker, rounds=20)
    info = read(tracker)
    assert (info.status, info.params["lightgbm"]["ended_by"]) == (status, "request")
    assert model.current_iteration() == model.best_iteration == 3
    assert steps(info, "train/auc") == [0, 1, 2]


def test_importances_and_the_model_are_kept() -> None:
    tracker = TrackingCallback(log_model=True)
    model = train(tracker)
    info = read(tracker)
    gains = dict(zip(model.feature_name(), model.feature_importance("gain"), strict=True))
    assert {name: info.series(f"importance/{name}").value[0] for name in gains} == gains
    assert {artifact.name for artifact in info.artifacts} == {"importances.csv", "model.txt"}


def test_results_are_the_same_with_and_without() -> None:
    options: dict[str, Any] = {"params": {"bagging_fraction": 0.5, "bagging_freq": 1, "seed": 3}, "rounds": 20}
    before = repr(np.random.get_state())
    plain = train(lightgbm.early_stopping(3, verbose=False), **options)
    tracked = train(TrackingCallback(log_model=True), lightgbm.early_stopping(3, verbose=False), **options)
    assert tracked.model_to_string() == plain.model_to_string()
    assert (tracked.predict(X) == plain.predict(X)).all()
    assert repr(np.random.get_state()) == before


def test_run_of_the_user_takes_the_training_and_stays_open() -> None:
    with runstone.start_run(project="mine") as run:
        for _ in range(2):
            train(TrackingCallback(tags={"by": "test"}), rounds=3)
        assert not run.is_finished
    info = runstone.open_workspace().run(run.id)
    assert (info.project, info.tags) == ("mine", {"by": "test"})
    assert steps(info, "test/auc") == [0, 1, 2, 3, 4, 5], "steps never go back"


def test_training_that_an_exception_ended_is_failed() -> None:
    tracker = TrackingCallback()
    with pytest.raises(RuntimeError, match="the user's own error"), tracker:
        train(tracker, Explode())
    info = read(tracker)
    assert info.failure is not None
    assert (info.status, info.failure.message) == ("failed", "the user's own error")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the user's own error"):
            train(tracker, Explode())
    train(tracker)
    assert read(tracker).status == "finished"
    assert sorted(each.status for each in runstone.open_workspace().runs()) == ["failed"] * 3 + ["finished"]


def test_script_that_keeps_the_callback_ends_its_run_with_all_that_belongs_to_it() -> None:
    program = """
import lightgbm, numpy as np
from runstone_integrations.lightgbm import TrackingCallback
tracker = TrackingCallback()
data = lightgbm.Dataset(np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2)
test = lightgbm.Dataset(np.random.default_rng(1).normal(size=(60, 2)), np.arange(60) % 2, reference=data)
params = {"verbosity": -1, "num_threads": 1}
lightgbm.train(params, data, 9, valid_sets=[test], callbacks=[tracker, lightgbm.early_stopping(2, min_delta=9.0)])
"""
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    (info,) = runstone.open_workspace().runs()
    assert (info.status, info.params["lightgbm"]["ended_by"]) == ("finished", "early_stopping")
    assert {artifact.name for artifact in info.artifacts} == {"importances.csv"}


def test_estimator_of_scikit_learn_records() -> None:
    pytest.importorskip("sklearn")
    tracker = TrackingCallback()
    model = lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, n_jobs=1, verbosity=-1)
    model.fit(X[:80], Y[:80], eval_X=(X[80:],), eval_y=(Y[80:],), eval_names=["test"], callbacks=[tracker])
    info = read(tracker)
    assert steps(info, "test/binary_logloss") == [0, 1, 2]
    assert info.params["lightgbm"]["params"]["num_leaves"] == 4


def test_copies_are_small_and_record_runs_of_their_own() -> None:
    tracker = TrackingCallback(project="toy")
    train(tracker)
    assert len(pickle.dumps(tracker)) < 2_000
    copied = copy.deepcopy(tracker)
    train(copied)
    assert read(copied).id != read(tracker).id
    assert (read(copied).project, read(copied).status) == ("toy", "finished")
