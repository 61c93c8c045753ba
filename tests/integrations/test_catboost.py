"""`TrackingCallback` with the real CatBoost."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

catboost = pytest.importorskip("catboost")

import runstone  # noqa: E402
from runstone_integrations.catboost import TrackingCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(120, 4))
Y = (X[:, 0] + 0.3 * X[:, 1] > 0).astype(int)
EVAL = [(X[80:100], Y[80:100]), (X[100:], Y[100:])]


def make_model(**options: Any) -> Any:
    common = {"iterations": 5, "depth": 2, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    return catboost.CatBoostClassifier(**{**common, **options})


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    return model.fit(X[:80], Y[:80], **{"eval_set": EVAL, "callbacks": list(callbacks), **options})


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask:
    """Asks the run to stop at a tree, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        self.tracker, self.at, self.word = tracker, at, word

    def after_iteration(self, info: Any) -> bool:
        if info.iteration == self.at + 1:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]
        return True


def test_trees_are_recorded_as_catboost_itself_keeps_them() -> None:
    model = make_model(custom_metric=["Accuracy"])
    tracker = TrackingCallback(model, project="toy", params={"seed": 0})
    fit(model, tracker)
    info = read(tracker)
    assert (info.status, info.project, info.params["seed"]) == ("finished", "toy", 0)
    assert set(model.evals_result_) == {"learn", "validation_0", "validation_1"}
    for name, metrics in model.evals_result_.items():
        for metric, values in metrics.items():
            assert info.series(f"{name}/{metric}").value.tolist() == values
            assert steps(info, f"{name}/{metric}") == [0, 1, 2, 3, 4]


def test_metrics_that_are_calculated_now_and_then_stand_at_their_trees() -> None:
    model = make_model(metric_period=2)
    tracker = TrackingCallback(model)
    fit(model, tracker)
    info = read(tracker)
    name = "validation_0/Logloss"
    assert info.series(name).value.tolist() == model.evals_result_["validation_0"]["Logloss"]
    assert info.status == "finished"


def test_params_given_and_settings_in_force_are_recorded() -> None:
    model = make_model(learning_rate=0.2)
    tracker = TrackingCallback(model)
    fit(model, tracker)
    told = read(tracker).params["catboost"]
    assert told["params"]["learning_rate"] == 0.2
    assert told["config"]["learning_rate"] == 0.2  # not 0.20000000298023224
    assert told["config"]["l2_leaf_reg"] == 3  # a default
    assert told["class"] == "catboost.core.CatBoostClassifier"
    assert (told["trees"], told["ended_by"]) == (model.tree_count_, "iterations")


def test_callback_in_the_call_ends_its_run_when_the_fit_returns() -> None:
    model = make_model(iterations=200, learning_rate=1.0)
    fit(model, TrackingCallback(model, log_model=True), early_stopping_rounds=2)
    (info,) = runstone.open_workspace().runs()
    told = info.params["catboost"]
    assert (info.status, told["ended_by"]) == ("finished", "early_stopping")
    assert told["best_iteration"] == model.get_best_iteration()
    assert told["last_tree"] == info.series("learn/Logloss").step[-1] > told["best_iteration"]
    importances = dict(zip(model.feature_names_, model.feature_importances_, strict=True))
    assert {name: info.series(f"importance/{name}").value[0] for name in importances} == importances
    assert {artifact.name for artifact in info.artifacts} == {"importances.csv", "model.cbm"}


def test_training_that_continues_a_model_goes_on_on_the_axis() -> None:
    first = fit(make_model(iterations=3, use_best_model=False))
    model = make_model(iterations=2, use_best_model=False)
    tracker = TrackingCallback(model, init_model=first)
    fit(model, tracker, init_model=first)
    assert steps(read(tracker), "learn/Logloss") == [3, 4]
    assert read(tracker).params["catboost"]["trees"] == 5


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_training_after_the_tree(word: str, status: str) -> None:
    model = make_model(iterations=50, use_best_model=False)
    tracker = TrackingCallback(model)
    fit(model, Ask(tracker, 1, word), tracker)
    info = read(tracker)
    assert (info.status, info.params["catboost"]["ended_by"]) == (status, "request")
    assert steps(info, "learn/Logloss")[-1] == model.tree_count_ - 1 < 10


def test_second_fit_is_a_run_of_its_own() -> None:
    model = make_model()
    tracker = TrackingCallback(model)
    fit(model, tracker)
    fit(model, tracker)
    runs = runstone.open_workspace().runs()
    assert tracker.run is not None
    assert [info.status for info in runstone.open_workspace().runs()] == ["finished"] * len(runs) == ["finished"] * 2


def test_results_are_the_same_with_and_without() -> None:
    plain = fit(make_model(subsample=0.5, random_seed=3, iterations=20))
    before = repr(np.random.get_state())
    model = make_model(subsample=0.5, random_seed=3, iterations=20)
    fit(model, TrackingCallback(model, log_model=True))
    assert (model.predict_proba(X) == plain.predict_proba(X)).all()
    assert repr(np.random.get_state()) == before


def test_run_of_the_user_takes_the_training_and_stays_open() -> None:
    with runstone.start_run(project="mine") as run:
        for _ in range(2):
            model = make_model(iterations=3)
            fit(model, TrackingCallback(model, tags={"by": "test"}))
        assert not run.is_finished
    info = runstone.open_workspace().run(run.id)
    assert (info.project, info.tags) == ("mine", {"by": "test"})
    assert steps(info, "learn/Logloss") == [0, 1, 2, 3, 4, 5], "steps never go back"


def test_exceptions_fail_the_run() -> None:
    class Explode:
        def after_iteration(self, info: Any) -> bool:
            raise RuntimeError("the user's own error")

    model = make_model()
    with pytest.raises(Exception, match="the user's own error"), TrackingCallback(model) as tracker:
        fit(model, tracker, Explode())
    assert read(tracker).status == "failed"
    with pytest.raises(Exception, match="the user's own error"):
        fit(model, tracker, Explode())
    fit(model, tracker)
    assert sorted(info.status for info in runstone.open_workspace().runs())[:2] == ["failed", "failed"]
    assert read(tracker).status == "finished"


def test_exception_that_nobody_catches_ends_the_run_with_the_process() -> None:
    program = """
import catboost, numpy as np
from runstone_integrations.catboost import TrackingCallback
class Explode:
    def after_iteration(self, info):
        raise ValueError("the own error of the user")
model = catboost.CatBoostRegressor(iterations=5, verbose=False, allow_writing_files=False, thread_count=1)
model.fit(np.eye(8), np.arange(8), callbacks=[TrackingCallback(model), Explode()])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    (info,) = runstone.open_workspace().runs()
    assert info.failure is not None
    assert (info.status, info.failure.type) == ("failed", "CatBoostError")
    assert "the own error of the user" in info.failure.message
