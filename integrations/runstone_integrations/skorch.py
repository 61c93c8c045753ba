"""Records the training of skorch's nets."""

# mypy: allow-subclassing-any
from __future__ import annotations

import copy
from typing import Any, Self, Unpack

import skorch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping

from runstone_integrations._boosting import log_model_file
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import parameter_count, type_name

__all__ = ["TrackingCallback"]


class TrackingCallback(Callback, Tracking):
    """Callback that records a training of skorch as a run.

    ```python
    NeuralNetClassifier(Module, callbacks=[TrackingCallback(project="digits")]).fit(X, y)
    ```

    Metrics are those of `net.history`; the step is the epoch, counted from 0. `partial_fit` goes on in the same run.
    Each clone, such as those of `GridSearchCV`, records runs of its own, under the run that is open around the search.

    skorch ends a training that is interrupted with Ctrl-C as if it were complete; here the run ends as `stopped`. It
    tells nobody of another exception: one that you catch yourself needs `with TrackingCallback(...) as callback:`
    around it to end the run.

    Args:
        log_model: Whether to keep the parameters of the module as the artifact `model.pt`.
        **options: See `RunOptions`.
    """

    def __init__(self, *, log_model: bool = False, **options: Unpack[RunOptions]) -> None:
        self._session = Session(options)
        self._log_model = log_model
        self._first_epoch = 0
        self._logged_epochs = 0
        self._is_in_epoch = False

    def _get_param_names(self) -> list[str]:
        return []

    def __sklearn_clone__(self) -> Self:
        """Return the callback of another training."""
        return copy.deepcopy(self)

    @recording
    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Open the run, and record what is to be trained with which settings."""
        self._first_epoch = self._logged_epochs = len(net.history)
        self._is_in_epoch = False
        if not self._session.start(first_step=self._first_epoch, is_continuing=self._first_epoch > 0):
            return
        params = {name: value for name, value in net.get_params(deep=False).items() if name != "callbacks"}
        facts = {
            "version": skorch.__version__,
            "class": type_name(net),
            "params": params,
            "callbacks": [type_name(callback) for _, callback in net.callbacks_],
            "parameters": parameter_count(net.module_.parameters()),
        }
        self._session.describe("skorch", facts)

    @recording
    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Record the epoch before, which callbacks behind this one have completed by now."""
        self._record(net, len(net.history) - 1)
        self._is_in_epoch = True

    def on_batch_end(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
        """Stop the training if the run was asked to, as skorch's own callbacks do."""
        if training and self._session.should_stop:
            raise KeyboardInterrupt

    def on_epoch_end(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Stop the training if the run was asked to."""
        self._is_in_epoch = False
        if self._session.should_stop:
            raise KeyboardInterrupt

    @recording
    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Record how training ended, and end the run."""
        run = self._session.run
        if run is None or not self._session.is_active:
            return
        self._record(net, len(net.history))
        ended_by = self._why_it_ended(net)
        facts: dict[str, Any] = {"ended_by": ended_by, "last_epoch": self._logged_epochs - 1}
        files = [callback.f_params for _, callback in net.callbacks_ if isinstance(callback, Checkpoint)]
        if files:
            facts["checkpoints"] = files
        self._session.describe("skorch", facts)
        if self._log_model:
            with self._session.guarded():
                log_model_file(self._session, "model.pt", lambda path: net.save_params(f_params=path))
        self._session.close("stopped" if ended_by == "interrupt" else None)

    def _record(self, net: Any, end: int) -> None:
        """Record complete epochs before `end`."""
        if not self._session.is_active:
            return
        for epoch in range(self._logged_epochs, end):
            history = net.history[epoch]
            row = {name: history[name] for name in history if _is_metric(name, history[name])}
            if "train_loss" in row or not self._is_in_epoch:  # else it was broken off
                self._session.log(row, epoch)
                self._logged_epochs = epoch + 1

    def _why_it_ended(self, net: Any) -> str:
        if self._session.should_stop:
            return "request"
        stoppers = [callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping)]
        if any(stopper.misses_ == stopper.patience for stopper in stoppers):
            return "early_stopping"
        return "interrupt" if self._logged_epochs < len(net.history) else "epochs"


def _is_metric(name: str, value: Any) -> bool:
    """Return whether it is a number of its own; `valid_loss_best` tells only which epoch was the best so far."""
    return name != "batches" and not name.endswith("_best") and isinstance(value, int | float)
