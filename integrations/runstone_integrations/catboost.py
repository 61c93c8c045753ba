"""Records the training of CatBoost."""

from __future__ import annotations

from typing import Any, Unpack

import catboost

from runstone_integrations._boosting import EndsLate, log_importances, log_model_file, plain_config
from runstone_integrations._session import RunOptions, Session, recording
from runstone_integrations._shared import type_name

__all__ = ["TrackingCallback"]


class TrackingCallback(EndsLate):
    """Callback that records a training of CatBoost as a run.

    ```python
    model.fit(X, y, eval_set=(X_test, y_test), callbacks=[TrackingCallback(model, project="digits")])
    ```

    Metrics are named `<data set>/<metric>`, as in `model.evals_result_`. The step is the tree, counted from 0.

    CatBoost tells a callback neither the model nor that training has ended. So it takes the model, and the run ends
    when this object is garbage, at once in a call as above, or when you ask for `run`, train again, or leave a `with
    TrackingCallback(model, ...) as callback:` block. Then the best iteration, the settings in force, the importances
    and, with `log_model`, the model are recorded.

    CatBoost calls no callbacks when it trains on a GPU.

    Args:
        model: The model whose `fit` is given this callback.
        init_model: That of `fit`, if there is one: steps go on where it ends.
        log_model: Whether to keep the model as the artifact `model.cbm`.
        **options: See `RunOptions`.
    """

    def __init__(
        self, model: Any, *, init_model: Any = None, log_model: bool = False, **options: Unpack[RunOptions]
    ) -> None:
        self._session = Session(options)
        self._model = model
        self._first_tree = 0 if init_model is None else int(init_model.tree_count_)
        self._log_model = log_model
        self._counts: dict[tuple[str, str], int] = {}
        self._last_tree = -1

    def after_iteration(self, info: Any) -> bool:
        """Record a tree; say whether training goes on."""
        self._record(info)
        return not self._session.should_stop

    @recording
    def _record(self, info: Any) -> None:
        if info.iteration == 1:
            self._settle(is_over=True)
            self._start()
        if not self._session.is_active:
            return
        self._last_tree = self._first_tree + info.iteration - 1
        row: dict[str, float] = {}
        for data, metrics in info.metrics.items():
            for metric, values in metrics.items():
                if len(values) > self._counts.get((data, metric), 0):  # with `metric_period`, not at every tree
                    self._counts[data, metric] = len(values)
                    row[f"{data}/{metric}"] = values[-1]
        self._session.log(row, self._last_tree)

    def _start(self) -> None:
        self._counts = {}
        if not self._session.start(first_step=self._first_tree, is_continuing=self._first_tree > 0):
            return
        self._expect_end()
        facts = {
            "version": catboost.__version__,
            "class": type_name(self._model),
            "first_tree": self._first_tree,
            "params": self._model.get_params(),
        }
        self._session.describe("catboost", facts)

    def _has_ended(self) -> bool:
        if not self._model.is_fitted():
            return False
        counts = {
            (data, metric): len(values)
            for data, metrics in self._model.evals_result_.items()
            for metric, values in metrics.items()
        }
        return bool(counts) and counts == self._counts

    def _record_end(self) -> None:
        run, model = self._session.run, self._model
        if run is None:
            return
        config = plain_config(model.get_all_params())
        facts: dict[str, Any] = {"last_tree": self._last_tree, "trees": model.tree_count_, "config": config}
        facts["ended_by"] = "iterations"
        if self._session.should_stop:
            facts["ended_by"] = "request"
        elif self._last_tree + 1 - self._first_tree < int(config.get("iterations", 0)):
            facts["ended_by"] = "early_stopping"
        best = model.get_best_iteration()
        if best is not None:
            facts["best_iteration"], facts["best_score"] = best + self._first_tree, model.best_score_
        self._session.describe("catboost", facts)
        importances = model.feature_importances_  # those that need the data are not there without it
        if importances is not None and len(importances) == len(model.feature_names_):
            named = dict(zip(map(str, model.feature_names_), map(float, importances), strict=True))
            log_importances(self._session, {"prediction_values_change": named})
        if self._log_model:
            log_model_file(self._session, "model.cbm", model.save_model)
