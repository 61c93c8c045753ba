"""Records the training of XGBoost: `xgboost.train`, `xgboost.cv` and its scikit-learn estimators."""

# mypy: allow-subclassing-any
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Unpack

import xgboost
from xgboost.callback import TrainingCallback

from runstone_integrations._boosting import as_value, log_importances, log_model_file, plain_config
from runstone_integrations._session import RunOptions, Session, Tracking, recording

__all__ = ["TrackingCallback"]

_IMPORTANCES = ("gain", "weight", "cover")


class TrackingCallback(TrainingCallback, Tracking):
    """Callback that records a training of XGBoost as a run.

    ```python
    xgboost.train(params, data, evals=[(test, "test")], callbacks=[TrackingCallback(project="digits")])
    ```

    Metrics are named `<evaluation set>/<metric>`, those of `xgboost.cv` `<set>/<metric>_mean` and `…_std`. The step is
    the boosting round, counted from 0; a training with `xgb_model=` goes on where that model ends, in the same run if
    the same callback records it.

    When training ends, the best iteration, the importances and, with `log_model`, the model are recorded. XGBoost tells
    nobody of an exception: one that you catch yourself needs `with TrackingCallback(...) as callback:` around it to end
    the run. In a distributed training the first worker records.

    Args:
        log_model: Whether to keep the model as the artifact `model.ubj`.
        **options: See `RunOptions`.
    """

    def __init__(self, *, log_model: bool = False, **options: Unpack[RunOptions]) -> None:
        super().__init__()
        self._session = Session(options)
        self._log_model = log_model
        self._first_round: int | None = None
        self._history: Mapping[str, Mapping[str, list[Any]]] = {}
        self._logged_rounds = 0

    def before_training(self, model: Any) -> Any:
        """Open the run, and record what is to be trained with which settings."""
        self._start(model)
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Take hold of the history: another callback that stops the training keeps later hooks from us."""
        self._history = evals_log
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Record a round; say whether the run was asked to stop."""
        self._history = evals_log
        self._record(model)
        if not self._session.should_stop:
            return False
        if isinstance(model, xgboost.Booster):
            return True
        if model.attr("best_iteration") is None:  # which `cv` reads when a callback stops it
            model.set_attr(best_iteration=epoch)
        return True

    def after_training(self, model: Any) -> Any:
        """Record what is known at the end, and end the run."""
        if self._session.is_active:
            self._record(model)
            self._end(model)
            self._session.close()
        return model

    @recording
    def _start(self, model: Any) -> None:
        self._history, self._logged_rounds = {}, 0
        if xgboost.collective.get_rank() != 0:
            return
        self._first_round = model.num_boosted_rounds()
        if not self._session.start(first_step=self._first_round, is_continuing=self._first_round > 0):
            return
        facts: dict[str, Any] = {"version": xgboost.__version__, "first_round": self._first_round}
        booster = _booster(model)
        if booster is not model:
            facts["folds"] = len(model.cvfolds)
        facts["features"] = booster.num_features()
        facts["config"] = plain_config(json.loads(booster.save_config()))
        self._session.describe("xgboost", facts)

    @recording
    def _record(self, model: Any) -> None:
        """Record the rounds that were evaluated since the last time."""
        if not self._session.is_active:
            return
        first = self._first_round or 0
        if self._logged_rounds == 0 and first and model.num_boosted_rounds() <= first:
            first = self._first_round = 0  # `process_type="update"` goes over the same rounds again
        done = max((len(values) for metrics in self._history.values() for values in metrics.values()), default=0)
        for index in range(self._logged_rounds, done):
            self._session.log(_row(self._history, index), first + index)
        self._logged_rounds = done

    @recording
    def _end(self, model: Any) -> None:
        run = self._session.run
        if run is None:
            return
        facts: dict[str, Any] = {"rounds": model.num_boosted_rounds()}
        best = model.attr("best_iteration")
        if best is not None:
            facts["best_iteration"], facts["best_score"] = int(best), as_value(model.attr("best_score") or "")
        if self._session.should_stop:
            facts["ended_by"] = "request"
        self._session.describe("xgboost", facts)
        if not isinstance(model, xgboost.Booster):
            return
        log_importances(self._session, {kind: _importance(model, kind) for kind in _IMPORTANCES})
        if self._log_model:
            log_model_file(self._session, "model.ubj", model.save_model)


def _booster(model: Any) -> Any:
    """Return the booster, or the first of those of a cross-validation."""
    return model if isinstance(model, xgboost.Booster) else model.cvfolds[0].bst


def _row(history: Mapping[str, Mapping[str, list[Any]]], index: int) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, metrics in history.items():
        for metric, values in metrics.items():
            if index >= len(values):
                continue
            value = values[index]
            if isinstance(value, tuple):
                row[f"{name}/{metric}_mean"], row[f"{name}/{metric}_std"] = float(value[0]), float(value[1])
            else:
                row[f"{name}/{metric}"] = float(value)
    return row


def _importance(model: Any, kind: str) -> dict[str, float]:
    """Return importances by feature; none for linear boosters, which know no such kind."""
    try:
        scores = model.get_score(importance_type=kind)
    except xgboost.core.XGBoostError:
        return {}
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
