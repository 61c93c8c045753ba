"""`TrackingCallback` with the real XGBoost."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost")

import runstone  # noqa: E402
from runstone_integrations.xgboost import TrackingCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(120, 4))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
PARAMS = {"objective": "binary:logistic", "eval_metric": ["logloss", "error"], "max_depth": 2, "eta": 0.3, "nthread": 1}


def data() -> tuple[Any, Any]:
    return xgboost.DMatrix(X[:80], Y[:80]), xgboost.DMatrix(X[80:], Y[80:])


def train(*callbacks: Any, rounds: int = 5, **options: Any) -> Any:
    train_set, test_set = data()
    evals = options.pop("evals", [(train_set, "train"), (test_set, "test")])
    params = {**PARAMS, **options.pop("params", {})}
    return xgboost.train(
        params, train_set, rounds, evals=evals, callbacks=list(callbacks), verbose_eval=False, **options
    )


def read(callback: TrackingCallback) -> runstone.RunInfo:
    assert callback.run is not None
    return runstone.open_workspace().run(callback.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Asks the run to stop at a round, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch == self.at:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]
        return False


def test_rounds_are_recorded_as_xgboost_itself_keeps_them() -> None:
    tracker, result = TrackingCallback(project="toy", params={"seed": 0}), {}  # type: ignore[var-annotated]
    train(tracker, evals_result=result)
    info = read(tracker)
    assert (info.status, info.project, info.params["seed"]) == ("finished", "toy", 0)
    for name, metrics in result.items():
        for metric, values in metrics.items():
            assert info.series(f"{name}/{metric}").value.tolist() == values
            assert steps(info, f"{name}/{metric}") == [0, 1, 2, 3, 4]


def test_settings_in_force_are_params_with_numbers() -> None:
    tracker = TrackingCallback()
    train(tracker)
    told = read(tracker).params["xgboost"]
    config = told["config"]["learner"]
    assert config["gradient_booster"]["tree_train_param"]["learning_rate"] == 0.3  # not 0.300000012
    assert config["gradient_booster"]["tree_train_param"]["min_child_weight"] == 1  # a default
    assert config["learner_train_param"]["objective"] == "binary:logistic"
    assert (told["rounds"], told["features"], told["version"]) == (5, 4, xgboost.__version__)


def test_training_that_continues_a_model_goes_on_in_the_run_and_on_the_axis() -> None:
    tracker = TrackingCallback()
    first = train(tracker, rounds=3)
    id_of_first = read(tracker).id
    train(tracker, rounds=2, xgb_model=first)
    info = read(tracker)
    assert info.id == id_of_first
    assert steps(info, "test/logloss") == [0, 1, 2, 3, 4]
    assert info.status == "finished"
    train(tracker, rounds=2)
    assert read(tracker).id != id_of_first, "a training from the beginning is a run of its own"


def test_two_continuations_of_one_model_are_two_runs() -> None:
    base, tracker = train(rounds=3), TrackingCallback()
    for _ in range(2):
        train(tracker, rounds=2, xgb_model=base)
        assert steps(read(tracker), "test/logloss") == [3, 4]
    assert len(runstone.open_workspace().runs()) == 2


def test_run_named_by_its_id_is_continued_from_the_round_of_the_model() -> None:
    with runstone.start_run(run_id="mine") as run:
        run.log({"before": 1.0}, step=2)
        run.log_series("test/logloss", [1, 2, 3, 4], [9.0, 9.0, 9.0, 9.0])
        run.log({"after": 1.0}, step=4)
    with TrackingCallback(run_id="mine") as tracker:
        train(tracker, rounds=2, xgb_model=train(rounds=3))
    info = read(tracker)
    assert (info.id, info.status, len(info.attempts)) == ("mine", "finished", 2)
    assert steps(info, "test/logloss") == [1, 2, 3, 4]
    assert 9.0 not in info.series("test/logloss").value[2:]
    assert steps(info, "before") == [2]
    assert steps(info, "after") == [], "superseded: the model had not come that far"


@pytest.mark.filterwarnings("ignore:.*manually specified the `updater`:UserWarning")
def test_refreshing_the_trees_of_a_model_goes_over_its_rounds_again() -> None:
    model = train(rounds=3)
    tracker = TrackingCallback()
    train(tracker, rounds=3, xgb_model=model, params={"process_type": "update", "updater": "refresh"})
    assert steps(read(tracker), "test/logloss") == [0, 1, 2]


@pytest.mark.parametrize("is_first_in_list", [True, False])
def test_early_stopping_is_recorded_with_the_best_iteration_and_loses_no_round(is_first_in_list: bool) -> None:
    stopper = xgboost.callback.EarlyStopping(rounds=2, data_name="test", metric_name="logloss", min_delta=10.0)
    tracker = TrackingCallback()
    order = [tracker, stopper] if is_first_in_list else [stopper, tracker]
    model = train(*order, rounds=20)
    info = read(tracker)
    told = info.params["xgboost"]
    assert (told["best_iteration"], told["best_score"]) == (model.best_iteration, model.best_score)
    assert told["rounds"] == 3
    assert steps(info, "test/logloss") == [0, 1, 2]


def test_cross_validation_is_recorded_with_means_and_deviations() -> None:
    tracker = TrackingCallback()
    result = xgboost.cv(PARAMS, data()[0], 4, nfold=3, callbacks=[tracker], as_pandas=False, seed=0)
    info = read(tracker)
    assert info.series("test/logloss_mean").value.tolist() == result["test-logloss-mean"]
    assert info.series("test/logloss_std").value.tolist() == result["test-logloss-std"]
    assert info.params["xgboost"]["folds"] == 3
    assert info.status == "finished"


def test_request_to_stop_ends_a_cross_validation_too() -> None:
    tracker = TrackingCallback()
    result = xgboost.cv(PARAMS, data()[0], 9, nfold=3, callbacks=[Ask(tracker, 1, "prune"), tracker], as_pandas=False)
    assert read(tracker).status == "pruned"
    assert steps(read(tracker), "test/logloss_mean") == [0, 1]
    assert len(result["test-logloss-mean"]) == 2


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_training_after_the_round(word: str, status: str) -> None:
    tracker = TrackingCallback()
    model = train(Ask(tracker, 2, word), tracker, rounds=20)
    info = read(tracker)
    assert (info.status, info.params["xgboost"]["ended_by"]) == (status, "request")
    assert model.num_boosted_rounds() == 3
    assert steps(info, "train/error") == [0, 1, 2]


def test_importances_and_the_model_are_kept() -> None:
    tracker = TrackingCallback(log_model=True)
    model = train(tracker)
    info = read(tracker)
    gains = model.get_score(importance_type="gain")
    assert {name: info.series(f"importance/{name}").value.tolist() for name in gains} == {
        name: [value] for name, value in gains.items()
    }
    assert {artifact.name for artifact in info.artifacts} == {"importances.csv", "model.ubj"}
    file = next(artifact for artifact in info.artifacts if artifact.name == "model.ubj").files[0]
    loaded = xgboost.Booster(
        model_file=bytearray((info.path.parents[2] / "blobs" / file.hash[:2] / file.hash).read_bytes())
    )
    assert (loaded.predict(data()[1]) == model.predict(data()[1])).all()


def test_results_are_the_same_with_and_without() -> None:
    params = {"subsample": 0.5, "colsample_bynode": 0.5, "seed": 3}
    plain = train(params=params, early_stopping_rounds=3, rounds=30)
    before = repr(np.random.get_state())
    tracked = train(TrackingCallback(log_model=True), params=params, early_stopping_rounds=3, rounds=30)
    assert (tracked.predict(data()[1]) == plain.predict(data()[1])).all()
    assert tracked.save_raw() == plain.save_raw()
    assert repr(np.random.get_state()) == before


def test_linear_boosters_have_weights_for_importances() -> None:
    tracker = TrackingCallback()
    train(tracker, params={"booster": "gblinear", "updater": "coord_descent", "max_depth": None})
    assert read(tracker).status == "finished"


def test_run_of_the_user_takes_the_training_and_stays_open() -> None:
    with runstone.start_run(project="mine") as run:
        for _ in range(2):
            train(TrackingCallback(params={"fold": 1}, tags={"by": "test"}), rounds=3)
        assert not run.is_finished
    info = runstone.open_workspace().run(run.id)
    assert (info.project, info.params["fold"], info.tags) == ("mine", 1, {"by": "test"})
    assert steps(info, "test/logloss") == [0, 1, 2, 3, 4, 5], "steps never go back"
    assert len(runstone.open_workspace().runs()) == 1


def test_exception_in_a_with_block_fails_the_run_and_goes_on() -> None:
    def broken(predictions: Any, data: Any) -> Any:
        raise RuntimeError("the user's own error")

    tracker = TrackingCallback()
    with pytest.raises(RuntimeError, match="the user's own error"), tracker:
        train(tracker, obj=broken)
    info = read(tracker)
    assert info.status == "failed"
    assert info.failure is not None
    assert "the user's own error" in info.failure.message


def test_training_that_an_exception_ended_is_failed_when_the_next_one_starts() -> None:
    class Explode(xgboost.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            raise RuntimeError("boom")

    tracker = TrackingCallback()
    with pytest.raises(RuntimeError, match="boom"):
        train(tracker, Explode())
    first = tracker.run
    assert first is not None
    train(tracker)
    assert (runstone.open_workspace().run(first.id).status, read(tracker).status) == ("failed", "finished")


def test_interrupt_that_nobody_catches_ends_the_run_with_the_process(tmp_path: Path) -> None:
    program = """
import numpy as np, xgboost
from runstone_integrations.xgboost import TrackingCallback
class Interrupt(xgboost.callback.TrainingCallback):
    def after_iteration(self, model, epoch, evals_log):
        raise KeyboardInterrupt
d = xgboost.DMatrix(np.eye(8), np.arange(8))
xgboost.train({}, d, 5, evals=[(d, "train")], callbacks=[TrackingCallback(), Interrupt()], verbose_eval=False)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    (info,) = runstone.open_workspace().runs()
    assert info.status == "stopped"
    assert steps(info, "train/rmse") == [0]


def test_estimator_of_scikit_learn_records_and_its_clones_have_runs_under_the_users() -> None:
    sklearn = pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV

    tracker = TrackingCallback()
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1, callbacks=[tracker])
    model.fit(X[:80], Y[:80], eval_set=[(X[80:], Y[80:])], verbose=False)
    assert steps(read(tracker), "validation_0/logloss") == [0, 1, 2]
    assert sklearn.base.clone(model).get_params()["callbacks"][0] is not tracker
    with runstone.start_run(name="search") as run:
        GridSearchCV(model, {"max_depth": [1, 2]}, cv=2, refit=False).fit(X, Y)
    below = [info for info in runstone.open_workspace().runs() if info.parent == run.id]
    assert [info.status for info in below] == ["finished"] * 4
    depths = [
        info.params["xgboost"]["config"]["learner"]["gradient_booster"]["tree_train_param"]["max_depth"]
        for info in below
    ]
    assert sorted(depths) == [1, 1, 2, 2]


def test_copies_are_small_and_record_runs_of_their_own() -> None:
    tracker = TrackingCallback(project="toy")
    train(tracker)
    assert len(pickle.dumps(tracker)) < 2_000
    for copied in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        train(copied)
        assert read(copied).id != read(tracker).id
        assert (read(copied).project, read(copied).status) == ("toy", "finished")


def test_tracker_that_cannot_record_stops_no_training(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way of the workspace")
    with pytest.warns(runstone.TrackingWarning):
        model = train(TrackingCallback(workspace=place, on_error="warn"))
    assert model.num_boosted_rounds() == 5


def test_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="projet"):
        TrackingCallback(projet="typo")  # type: ignore[call-arg]
