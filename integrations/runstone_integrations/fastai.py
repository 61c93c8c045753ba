"""Records the training of fastai."""

# mypy: allow-subclassing-any
from __future__ import annotations

import weakref
from typing import Any, Unpack

import fastai
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import rank_distrib

import runstone
from runstone_integrations._boosting import log_model_file
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import parameter_count, type_name

__all__ = ["TrackingCallback"]


class TrackingCallback(Callback, Tracking):
    """Callback that records a training of fastai as a run.

    ```python
    learner.fine_tune(3, cbs=TrackingCallback(project="digits"))
    ```

    Metrics of an epoch are those of the `Recorder`, under its names, and stand at its last batch; the step is the
    number of the train batch, counted from 0 over all epochs. A second fit of the learner, such as that of
    `fine_tune`, goes on in the same run. `lr_find`, `validate` and `get_preds` record nothing.

    fastai tells nobody of an exception: one that you catch yourself needs `with TrackingCallback(...) as callback:`
    around it to end the run. Given to `fit`, the callback is no part of an exported learner.

    Args:
        log_every_n_batches: Record the loss and the hyperparameters of every n-th batch too; default: epochs only.
        log_model: Whether to keep the parameters of the model as the artifact `model.pth`.
        **options: See `RunOptions`.

    Raises:
        InvalidValue: `log_every_n_batches` is below 1.
    """

    order = 55  # behind the `Recorder`, before what stops by its values
    remove_on_fetch = True

    def __init__(
        self, *, log_every_n_batches: int | None = None, log_model: bool = False, **options: Unpack[RunOptions]
    ) -> None:
        if log_every_n_batches is not None and log_every_n_batches < 1:
            raise runstone.InvalidValue(f"log_every_n_batches is {log_every_n_batches}; it must be 1 or more, or None")
        self._session = Session(options)
        self._every_n = log_every_n_batches or 0
        self._log_model = log_model
        self._learner: weakref.ref[Any] | None = None
        self._steps_before = self._steps = 0
        self._is_cancelled = False
        self._is_due = False

    @property
    def tracked_run(self) -> runstone.Run | None:
        """The run recorded now or last; `run` is a switch of fastai's."""
        return self._session.run

    def before_fit(self) -> None:
        """Look out for a training; `validate` and `get_preds` call this too, and `lr_find` trains for itself."""
        self._is_due = not hasattr(self.learn, "lr_finder") and rank_distrib() == 0

    def before_train(self) -> None:
        """Open the run, and record what is to be trained with which settings."""
        if self._is_due:
            self._is_due = False
            self._start()

    def after_batch(self) -> None:
        """Record the batch if it is its turn; stop the training if the run was asked to."""
        if self._session.is_active and self.learn.training:
            self._record_batch()
            self._stop_if_asked()

    def after_epoch(self) -> None:
        """Record the epoch; stop the training if the run was asked to."""
        if self._session.is_active:
            self._record_epoch()
            self._stop_if_asked()

    def after_cancel_fit(self) -> None:
        """Note that somebody has stopped the training."""
        self._is_cancelled = True

    def after_fit(self) -> None:
        """Record how training ended, and end the run."""
        if self._session.is_active:
            self._end()

    def _stop_if_asked(self) -> None:
        if self._session.should_stop:
            raise CancelFitException

    @recording
    def _start(self) -> None:
        learner = self.learn
        is_same = self._learner is not None and self._learner() is learner
        self._steps_before = self._steps if is_same else 0
        self._steps = self._steps_before
        self._learner = weakref.ref(learner)
        self._is_cancelled = False
        if not self._session.start(first_step=self._steps_before, is_continuing=self._steps_before > 0):
            return
        facts = {
            "version": fastai.__version__,
            "model": {
                "class": type_name(learner.model),
                "parameters": parameter_count(learner.model.parameters()),
                "trainable_parameters": parameter_count(p for p in learner.model.parameters() if p.requires_grad),
            },
            "loss": _name(learner.loss_func),
            "optimizer": _name(learner.opt_func),
            "hyperparameters": [dict(each) for each in learner.opt.hypers],
            "batch_size": getattr(learner.dls, "bs", None),
            "epochs": learner.n_epoch,
            "callbacks": [type_name(each) for each in learner.cbs],
        }
        self._session.describe("fastai", facts)

    @recording
    def _record_batch(self) -> None:
        self._steps = self._steps_before + self.learn.train_iter
        if self._every_n and self._steps % self._every_n == 0:
            hypers = self.learn.opt.hypers[-1]
            row = {f"batch/{name}": value for name, value in hypers.items() if isinstance(value, int | float)}
            self._session.log({"batch/loss": self.learn.loss.detach(), **row}, self._steps - 1)

    @recording
    def _record_epoch(self) -> None:
        recorder = self.learn.recorder
        row: dict[str, Any] = {"epoch": self.learn.epoch, "learning_rate": self.learn.opt.hypers[-1]["lr"]}
        names = [name for name in recorder.metric_names[1:] if name != "time"]
        values = list(recorder.log[1 : len(names) + 1])
        if not recorder.cancel_train and not recorder.cancel_valid:  # else it cannot be told which value is which
            row.update((name, value) for name, value in zip(names, values, strict=False) if value is not None)
        self._session.log(row, max(0, self._steps - 1))

    @recording
    def _end(self) -> None:
        ended_by = "callback" if self._is_cancelled else "epochs"
        if self._session.should_stop:
            ended_by = "request"
        files = [str(each.last_saved_path) for each in self.learn.cbs if getattr(each, "last_saved_path", None)]
        facts = {"ended_by": ended_by, "last_epoch": self.learn.epoch, "last_step": self._steps - 1}
        self._session.describe("fastai", {**facts, **({"checkpoints": files} if files else {})})
        if self._log_model:
            with self._session.guarded():
                self._save_model()
        self._session.close()

    def _save_model(self) -> None:
        import torch  # fastai has loaded it

        weights = self.learn.model.state_dict()
        log_model_file(self._session, "model.pth", lambda path: torch.save(weights, path))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the learner behind."""
        return {**self.__dict__, "_learner": None, "learn": None}


def _name(function: Any) -> str:
    """Return the name of a function or class, under whatever `partial` it lies, or of an object's class."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", None) or type_name(function)
