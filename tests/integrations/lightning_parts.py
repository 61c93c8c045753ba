"""Parts of trainings that several tests of Lightning use."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback


class At(Callback):
    """Does something at the end of one training batch."""

    def __init__(self, batch: int, act: Any) -> None:
        self.batch, self.act = batch, act

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            self.act(trainer)
