"""Records the training of LightGBM: `lightgbm.train`, `lightgbm.cv` and its scikit-learn estimators."""

from __future__ import annotations

from typing import Any, Unpack

import lightgbm
from lightgbm.callback import EarlyStopException

from runstone_integrations._boosting import EndsLate, as_value, log_importances, log_model_file
from runstone_integrations._session import RunOptions, Session, recording

__all__ = ["TrackingCallback"]


class TrackingCallback(EndsLate):
    """Callback that records a training of LightGBM as a run.

    ```python
    lightgbm.train(params, data, valid_sets=[test], callbacks=[TrackingCallback(project="digits")])
    ```

    Metrics are named `<data set>/<metric>`, those of `lightgbm.cv` `<set>/<metric>_mean` and `…_std`. The step is the
    boosting round, counted from 0; a training with `init_model=` goes on where that model ends, in the same run if the
    same callback records it.

    LightGBM tells no callback that training has ended. The run ends when this object is garbage, at once in a call as
    above, or when you ask for `run`, train again, or leave a `with TrackingCallback(...) as callback:` block. Then
    the best iteration, the importances and, with `log_model`, the model are recorded.

    Args:
        log_model: Whether to keep the model as the artifact `model.txt`.
        **options: See `RunOptions`.
    """

    order = 25  # before `early_stopping`, which keeps the last round from those behind it
    before_iteration = False

    def __init__(self, *, log_model: bool = False, **options: Unpack[RunOptions]) -> None:
        self._session = Session(options)
        self._log_model = log_model
        self._model: Any = None
        self._last_round = self._end_round = -1

    def __call__(self, env: Any) -> None:
        """Record a round; stop the training if the run was asked to."""
        self._record(env)
        if self._session.should_stop:
            raise EarlyStopException(env.iteration, env.evaluation_result_list or [])

    @recording
    def _record(self, env: Any) -> None:
        if env.iteration == env.begin_iteration:
            self._settle(is_over=True)
            self._start(env)
        if not self._session.is_active:
            return
        self._last_round = env.iteration
        row: dict[str, float] = {}
        for result in env.evaluation_result_list or ():
            data, metric, value, *more = tuple(result)
            if len(more) == 2:  # of a cross-validation: whether higher is better, deviation
                row[f"{data}/{metric}_mean"], row[f"{data}/{metric}_std"] = float(value), float(more[1])
            else:
                row[f"{data}/{metric}"] = float(value)
        self._session.log(row, env.iteration)

    def _start(self, env: Any) -> None:
        first, self._end_round = env.begin_iteration, env.end_iteration
        if not self._session.start(first_step=first, is_continuing=first > 0):
            return
        self._expect_end()
        self._model = env.model
        facts: dict[str, Any] = {"version": lightgbm.__version__, "first_round": first}
        facts["rounds"] = env.end_iteration - first
        facts["params"] = env.params
        boosters = getattr(env.model, "boosters", None)
        if boosters is not None:
            facts["folds"] = len(boosters)
        booster = env.model if boosters is None else boosters[0]
        facts["features"] = booster.num_feature()
        facts["config"] = _config(booster)
        self._session.describe("lightgbm", facts)

    def _has_ended(self) -> bool:
        return self._model is None or self._model.best_iteration > 0 or self._last_round + 1 >= self._end_round

    def _record_end(self) -> None:
        model, self._model = self._model, None
        run = self._session.run
        if run is None or model is None:
            return
        facts: dict[str, Any] = {"last_round": self._last_round, "ended_by": "rounds"}
        if self._session.should_stop:
            facts["ended_by"] = "request"
        elif self._last_round + 1 < self._end_round:
            facts["ended_by"] = "early_stopping"
        if model.best_iteration > 0:
            facts["best_iteration"] = model.best_iteration - 1  # LightGBM's is a number of rounds
        if isinstance(model, lightgbm.Booster) and model.best_score:
            facts["best_score"] = {data: dict(scores) for data, scores in model.best_score.items()}
        self._session.describe("lightgbm", facts)
        if not isinstance(model, lightgbm.Booster):
            return
        names = model.feature_name()
        kinds = {kind: model.feature_importance(kind) for kind in ("gain", "split")}
        log_importances(
            self._session,
            {kind: dict(zip(names, map(float, values), strict=True)) for kind, values in kinds.items()},
        )
        if self._log_model:
            log_model_file(self._session, "model.txt", model.save_model)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model behind."""
        return {**self.__dict__, "_model": None}


def _config(booster: Any) -> dict[str, Any]:
    """Return all settings in force, which LightGBM tells only in the text of the model: `[learning_rate: 0.1]`."""
    _, _, text = booster.model_to_string(num_iteration=1).partition("\nparameters:")
    config: dict[str, Any] = {}
    for line in text.partition("end of parameters")[0].splitlines():
        if line.startswith("[") and line.endswith("]"):
            name, _, value = line[1:-1].partition(": ")
            config[name] = as_value(value)
    return config
