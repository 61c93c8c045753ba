"""The callback for scikit-learn's own callback API, with real estimators that have it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the search below importable
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import runstone
from runstone_integrations.sklearn import TrackingCallback, track
from tests.integrations.reading import last

if not hasattr(LogisticRegression, "set_callbacks"):
    pytest.skip("this scikit-learn has no callbacks", allow_module_level=True)

pytestmark = [
    pytest.mark.usefixtures("elsewhere"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def live(run: runstone.RunInfo) -> set[str]:
    return {name for name in run.metrics if name.startswith("live/")}


def test_each_iteration_is_a_point_with_the_scores_of_the_held_out_data(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with track() as run:
        callback = run.callback(eval_set={"val": (X_test, y_test)}, score_training=True)
        model = LogisticRegression(max_iter=7).set_callbacks(callback)
        run.fit(model, X, y)
    info = run.read()
    curve = info.series("live/LogisticRegression/val/accuracy")
    assert curve.step.tolist() == list(range(7))  # and none for the iteration that scikit-learn only closes
    for max_iter in (1, 4, 7):
        shorter = LogisticRegression(max_iter=max_iter).fit(X, y)
        assert curve.value[max_iter - 1] == shorter.score(X_test, y_test)
    assert last(info, "live/LogisticRegression/train/accuracy") == model.score(X, y)
    assert len(info.series("live/LogisticRegression/iteration_s")) == 7


def test_steps_of_a_pipeline_and_iterations_inside_it_are_series(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5))
    with track() as run:
        model.set_callbacks(run.callback(name="pipe", eval_set={"val": (X_test, y_test)}, score_training=True))
        for _ in range(2):
            model.fit(X, y)
    info = run.read()
    steps = {"fit-transform-standardscaler_s", "fit-final-estimator_s", "fit_s"}
    assert {f"pipe/live/Pipeline/{step}" for step in steps} <= live_below(info, "pipe")
    assert info.series("pipe/live/Pipeline/fit_s").step.tolist() == [0, 1]
    scores = info.series("pipe/live/LogisticRegression/train/accuracy")
    assert scores.step.tolist() == list(range(10))  # the second fit goes on
    assert scores.value[4] == model.score(X, y)
    # the data for the pipeline are not those that its last step takes
    assert "pipe/live/LogisticRegression/val/accuracy" not in info.metrics
    assert info.params["pipe"]["live"]["Pipeline"]["estimator"]["logisticregression__max_iter"] == 5


def live_below(run: runstone.RunInfo, name: str) -> set[str]:
    return {metric for metric in run.metrics if metric.startswith(f"{name}/live/")}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_h2_each_candidate_on_each_fold_is_a_point_from_whichever_process(n_jobs: int, iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    search = GridSearchCV(LogisticRegression(max_iter=3), {"C": [0.1, 1, 10]}, cv=2, n_jobs=n_jobs)
    with track() as run:
        run.fit(search.set_callbacks(run.callback()), X, y)
    info = run.read()
    assert info.status == "finished"
    assert len(info.attempts) == 1
    assert sorted(info.series("live/GridSearchCV/evaluation_s").step.tolist()) == list(range(6))
    assert "live/GridSearchCV/refit-with-best-params_s" in info.metrics
    assert len(info.series("live/LogisticRegression/iteration_s")) == 3  # of the refit alone
    assert len(info.series("cv/mean_test_score")) == 3


def test_halving_search_tells_its_rounds_apart_and_failed_candidates_leave_a_gap(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        halving = HalvingGridSearchCV(LogisticRegression(max_iter=2), {"C": [1, 2, 3]}, cv=2, random_state=0)
        halving.set_callbacks(run.callback(name="halving")).fit(X, y)
        broken = GridSearchCV(LogisticRegression(max_iter=2), {"C": [1, -1]}, cv=2).set_callbacks(run.callback())
        with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
            broken.fit(X, y)
    info = run.read()
    rounds = [f"halving/live/HalvingGridSearchCV/halving-iteration-{n}/evaluation_s" for n in (0, 1)]
    assert [len(info.series(name)) for name in rounds] == [6, 2]
    assert info.series("live/GridSearchCV/evaluation_s").step.tolist() == [0, 1]


def test_run_fit_and_the_callback_record_nothing_twice(iris: tuple[Any, ...]) -> None:
    X = iris[0]
    with track() as run:
        run.fit(StandardScaler().set_callbacks(run.callback()), X)
    info = run.read()
    assert "fit_s" in info.metrics
    assert live(info) == set()
    assert "live" not in info.params
    with track() as alone:
        StandardScaler().set_callbacks(alone.callback()).fit(X)
    assert live(alone.read()) == {"live/StandardScaler/fit_s"}


def test_exception_of_the_fit_is_recorded_and_goes_on_as_it_was(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        model = make_pipeline(StandardScaler(), LogisticRegression()).set_callbacks(run.callback())
        with pytest.raises(ValueError, match="inconsistent"):
            model.fit(X, y[:5])
        try:
            raise KeyError("handled by a fit")
        except KeyError:
            StandardScaler().set_callbacks(run.callback(name="fine")).fit(X)
    info = run.read()
    assert info.status == "finished"
    assert "inconsistent" in info.params["live"]["Pipeline"]["fit_error"]["message"]
    assert "fit_error" not in info.params["fine"]["live"]["StandardScaler"]


def test_c5_error_while_recording_does_not_end_the_fit(iris: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    X, _, y, _ = iris
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no name")

    with track() as run:
        model = LogisticRegression(max_iter=2).set_callbacks(run.callback(score_training=True, scoring=[Odd()]))
        with pytest.warns(runstone.TrackingWarning, match="could not be recorded: RuntimeError: no name"):
            model.fit(X, y)
    assert np.array_equal(model.coef_, LogisticRegression(max_iter=2).fit(X, y).coef_)
    assert "live/LogisticRegression/fit_s" in run.read().metrics


def test_h3_model_saved_with_the_callback_loads_and_fits_in_a_process_without_runstone(
    iris: tuple[Any, ...], tmp_path: Path
) -> None:
    X, _, y, _ = iris
    with track() as run:
        model = LogisticRegression(max_iter=3).set_callbacks(run.callback(score_training=True))
        run.fit(model, X, y)
        joblib.dump(model, tmp_path / "open.joblib")  # the run is still going on
        search = GridSearchCV(LogisticRegression(max_iter=3), {"C": [1]}, cv=2).set_callbacks(run.callback())
        run.fit(search, X, y)
    joblib.dump(search, tmp_path / "finished.joblib")
    (artifact,) = [artifact for artifact in run.read().artifacts if artifact.name == "model.pkl"]
    kept = artifact.files[0].hash
    script = (
        "import sys, warnings, joblib\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('runstone'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "warnings.simplefilter('ignore')\n"
        "from sklearn.datasets import load_iris\n"
        "X, y = load_iris(return_X_y=True)\n"
        "for path in sys.argv[1:]:\n"
        "    model = joblib.load(path)\n"
        "    before = model.score(X, y)\n"
        "    print(before, model.fit(X, y).score(X, y) > 0.5)\n"
    )
    paths = [tmp_path / "open.joblib", tmp_path / "finished.joblib", run.path.parents[2] / "blobs" / kept[:2] / kept]
    result = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    whole = load_iris(return_X_y=True)
    expected = [f"{fitted.score(*whole)} True" for fitted in (model, search, model)]
    assert result.stdout.splitlines() == expected


def test_h3_kept_model_whose_callback_was_never_called_names_no_runstone(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        silent = LogisticRegressionCV(
            Cs=1, cv=2, max_iter=3, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy"
        )
        run.fit(silent.set_callbacks(run.callback()), X, y)  # takes callbacks and calls none
    assert live(run.read()) == set()
    (artifact,) = [artifact for artifact in run.read().artifacts if artifact.name == "model.pkl"]
    kept = artifact.files[0].hash
    assert b"runstone" not in (run.path.parents[2] / "blobs" / kept[:2] / kept).read_bytes()


def test_d4_copies_are_the_callback_itself_and_its_pickle_is_small(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with track() as run:
        callback = run.callback(eval_set={"val": (X_test, y_test)})
        assert copy.deepcopy(callback) is callback
        assert copy.copy(callback) is callback
        model = LogisticRegression(max_iter=3).set_callbacks(callback)
        assert clone(model)._skl_callbacks == [callback]
        pickled = pickle.dumps(callback)
        assert len(pickled) < 2048
        assert isinstance(pickle.loads(pickled), TrackingCallback)
        cross_val_score(model, X, y, cv=2)
        assert model.get_params() == LogisticRegression(max_iter=3).get_params()
    assert len(run.read().series("live/LogisticRegression/iteration_s")) == 6
    assert not isinstance(pickle.loads(pickle.dumps(callback)), TrackingCallback)


def test_results_and_warnings_are_the_same_with_the_callback(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris

    def fit(callback: Any) -> tuple[Any, list[str]]:
        supported = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5))
        unsupported = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0))
        other = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cg"))
        fitted = []
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            for model in (supported, unsupported, other):
                fitted.append((model.set_callbacks(callback()) if callback else model).fit(X, y))
        return [model.predict_proba(X) for model in fitted], [str(warning.message) for warning in shown]

    plain, plain_warnings = fit(None)
    with track() as run:
        tracked, tracked_warnings = fit(run.callback)
    assert all(np.array_equal(one, other) for one, other in zip(plain, tracked, strict=True))
    assert tracked_warnings == plain_warnings


def test_callback_inside_a_search_goes_along_without_propagation(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        inner = LogisticRegression(max_iter=2).set_callbacks(run.callback(propagate=False))
        GridSearchCV(inner, {"C": [1, 2]}, cv=2).fit(X, y)
    info = run.read()
    assert sorted(info.series("live/GridSearchCV/evaluation_s").step.tolist()) == [0, 1, 2, 3]
    assert len(info.series("live/LogisticRegression/iteration_s")) == 2


def test_whole_fits_in_worker_processes_do_not_mix_their_iterations(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        model = LogisticRegression(max_iter=2).set_callbacks(run.callback())
        cross_val_score(model, X, y, cv=2, n_jobs=2)
    assert live(run.read()) == set()


def test_fit_is_asked_to_stop_where_the_run_is(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    asked: list[bool] = []

    class Listening(TrackingCallback):
        def on_fit_task_end(self, estimator: Any, context: Any, *, X: Any) -> bool:
            asked.append(super().on_fit_task_end(estimator, context, X=X))
            return asked[-1]

    with track() as run:
        model = LogisticRegression(max_iter=2).set_callbacks(Listening(run.run))
        model.fit(X, y)
        before = list(asked)
        run.workspace.request_stop(run.id)
        model.fit(X, y)
    assert not any(before)
    assert all(asked[len(before) :])
