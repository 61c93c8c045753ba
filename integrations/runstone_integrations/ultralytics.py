"""Records the training of Ultralytics's models, through the events of their trainer. Imports no framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack

import runstone
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import parameter_count, type_name

__all__ = ["TrackingCallback"]

Checkpoints = Literal["best+last", "none"]

_EVENTS = ("on_train_start", "on_train_batch_end", "on_train_epoch_end", "on_fit_epoch_end", "on_train_end")


class TrackingCallback(Tracking):
    """What records a training of Ultralytics as a run.

    ```python
    model = YOLO("yolo11n.yaml")
    TrackingCallback(project="shapes").add_to(model)
    model.train(data="shapes.yaml", epochs=10)
    ```

    Metrics have Ultralytics's names (`train/box_loss`, `metrics/mAP50-95(B)`, `lr/pg0`); the step is the epoch, counted
    from 0. Each `train` is a run; one that resumes goes on where its checkpoint ends. A request to stop ends the
    training after the batch.

    Ultralytics starts a process for each of several GPUs, and takes no callbacks along: only training on one device is
    recorded. It tells nobody of an exception: one that you catch yourself needs `with TrackingCallback(...) as
    callback:` around it to end the run.

    Args:
        checkpoints: Whether `best.pt` and `last.pt` become artifacts when training ends. Their paths are among the
            params in any case.
        **options: See `RunOptions`.

    Raises:
        InvalidValue: `checkpoints` is neither `"best+last"` nor `"none"`.
    """

    def __init__(self, *, checkpoints: Checkpoints = "best+last", **options: Unpack[RunOptions]) -> None:
        if checkpoints not in ("best+last", "none"):
            raise runstone.InvalidValue(f"checkpoints is {checkpoints!r}; it must be 'best+last' or 'none'")
        self._session = Session(options)
        self._checkpoints = checkpoints
        self._last_epoch: int | None = None
        self._is_epoch_due = False

    def add_to(self, model: Any) -> None:
        """Give the model the functions that record, one for each event."""
        for event in _EVENTS:
            model.add_callback(event, getattr(self, event))

    @recording
    def on_train_start(self, trainer: Any) -> None:
        """Open the run, and record what is to be trained with which settings."""
        first = trainer.start_epoch
        self._last_epoch, self._is_epoch_due = None, False
        if not self._session.start(first_step=first, is_continuing=first > 0):
            return
        facts = {
            "args": vars(trainer.args),
            "model": {
                "class": type_name(trainer.model),
                "parameters": parameter_count(trainer.model.parameters()),
                "trainable_parameters": parameter_count(p for p in trainer.model.parameters() if p.requires_grad),
            },
            "optimizer": {
                "class": type_name(trainer.optimizer),
                "groups": [{k: v for k, v in g.items() if k != "params"} for g in trainer.optimizer.param_groups],
            },
            "folder": trainer.save_dir,
        }
        self._session.describe("ultralytics", facts)

    def on_train_batch_end(self, trainer: Any) -> None:
        """Stop the training if the run was asked to."""
        if self._session.is_active and self._session.should_stop:
            trainer.stop = True

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Note that an epoch was trained."""
        self._is_epoch_due = True

    @recording
    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Record the epoch; stop the training if the run was asked to."""
        if not self._session.is_active:
            return
        if self._is_epoch_due:
            self._is_epoch_due = False
            self._last_epoch = trainer.epoch
            losses = trainer.label_loss_items(trainer.tloss, prefix="train")
            self._session.log({**losses, **trainer.metrics, **trainer.lr, "epoch": trainer.epoch}, trainer.epoch)
        elif self._last_epoch is not None:  # the evaluation of the best model when training has ended
            self._session.log({f"best/{name}": value for name, value in trainer.metrics.items()}, self._last_epoch)
        if self._session.should_stop:
            trainer.stop = True

    @recording
    def on_train_end(self, trainer: Any) -> None:
        """Record how training ended, keep checkpoints, and end the run."""
        run = self._session.run
        if run is None or not self._session.is_active:
            return
        is_complete = self._last_epoch is not None and self._last_epoch + 1 >= trainer.epochs
        ended_by = "request" if self._session.should_stop else "epochs" if is_complete else "early_stopping"
        files = {"best": Path(trainer.best), "last": Path(trainer.last)}
        facts = {"ended_by": ended_by, "last_epoch": self._last_epoch, "checkpoints": files}
        facts.update(best_fitness=trainer.best_fitness, best_epoch=getattr(trainer.stopper, "best_epoch", 0) - 1)
        self._session.describe("ultralytics", facts)
        with self._session.guarded():
            for role, path in files.items():
                if self._checkpoints != "none" and path.exists():
                    run.log_artifact(path, name=f"checkpoints/{role}.pt", metadata={"role": role, "path": str(path)})
        self._session.close()
