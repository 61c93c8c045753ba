"""Facts A1, A2, A5, A7 and A10: a run holds, row for row, what Lightning's own `CSVLogger` receives."""

from __future__ import annotations

import csv
import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import lightning.pytorch as pl
import torch
import torchmetrics
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

import runstone
from runstone_integrations.lightning import TrackingCallback

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*have no logger configured.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Experiment logs directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

Rows = dict[str, list[tuple[int, float]]]
OWN_NAMES = ("trainer/", "lr-")


class Model(pl.LightningModule):
    """Logs from every hook in which Lightning allows it, at steps and epochs."""

    def __init__(self, *, optimizers: int = 0, val_loaders: int = 1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.automatic_optimization = optimizers == 0
        self.count = max(1, optimizers)
        self.val_loaders = val_loaders
        self.accuracy = torchmetrics.MeanMetric()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("step_only", loss * 2)
        self.log("hidden", loss, logger=False)
        self.accuracy(loss.detach())
        self.log("metric", self.accuracy, on_step=True, on_epoch=True)
        if batch_idx % 3 == 1:
            self.log("sometimes", loss * 3)
        if not self.automatic_optimization:
            for optimizer in [self.optimizers()] if self.count == 1 else self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.layer(batch).pow(2).mean())
                optimizer.step()
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log("batch_start", float(batch_idx), on_step=True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("batch_end", float(batch_idx) + 0.5, on_step=True, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        self.log("epoch_end", float(self.current_epoch) + 0.25)

    def validation_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        loss = self.layer(batch).pow(2).mean()
        self.log("val_loss", loss, on_step=True, on_epoch=True)
        self.log(f"val_plain_{dataloader_idx}", loss, add_dataloader_idx=False)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_batch_end", float(batch_idx), on_step=True, on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        self.log("val_end", float(self.global_step))

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("test_loss", self.layer(batch).sum(), on_step=True, on_epoch=True)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(_data(20), batch_size=4)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(_data(8), batch_size=4) for _ in range(self.val_loaders)]

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(_data(8), batch_size=4)

    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(self.count)]
        if self.automatic_optimization:
            return {
                "optimizer": made[0],
                "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.StepLR(made[0], 2, 0.9), "interval": "step"},
            }
        return made


class LogsBefore(Callback):
    """A user's callback that stands before ours and logs at the very hooks at which ours reads."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.log("other_start", float(trainer.fit_loop.total_batch_idx), on_step=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("other_epoch", float(trainer.current_epoch))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        pl_module.log("other_val_start", float(batch_idx), on_step=True, on_epoch=False)


@dataclass(frozen=True)
class Config:
    """One way to train."""

    accumulate: int = 1
    every: int = 1
    val_interval: float | int = 1.0
    val_loaders: int = 1
    optimizers: int = 0
    with_others: bool = False
    check_every_epoch: int | None = 1

    def trainer_options(self) -> dict[str, Any]:
        return {
            "accumulate_grad_batches": self.accumulate,
            "log_every_n_steps": self.every,
            "val_check_interval": self.val_interval,
            "check_val_every_n_epoch": self.check_every_epoch,
            "num_sanity_val_steps": 1,
            "limit_val_batches": 1.0 if self.val_loaders else 0,
        }

    def callbacks(self) -> list[Any]:
        return [LogsBefore()] if self.with_others else []

    def model(self) -> Model:
        torch.manual_seed(1)
        return Model(optimizers=self.optimizers, val_loaders=self.val_loaders)


def _configs() -> Iterator[Config]:
    for accumulate, every, interval, loaders in itertools.product((1, 2, 3), (1, 4), (1.0, 0.5), (0, 1, 2)):
        yield Config(accumulate, every, interval, loaders)
    for optimizers, every, interval in itertools.product((1, 2), (1, 4), (1.0, 0.5)):
        yield Config(every=every, val_interval=interval, optimizers=optimizers)
    for accumulate, every, loaders in itertools.product((1, 2), (1, 2), (1, 2)):
        yield Config(accumulate, every, 0.5, loaders, with_others=True)
    yield Config(2, 3, 3, 1, check_every_epoch=None)
    yield Config(every=0)


CONFIGS = list(_configs())


def _data(size: int) -> torch.Tensor:
    return torch.linspace(-1, 1, size * 4).reshape(size, 4)


def _trainer(place: Path, callbacks: list[Any], *, logger: bool, epochs: int = 2, **options: Any) -> pl.Trainer:
    options.setdefault("enable_checkpointing", False)
    return pl.Trainer(
        default_root_dir=place,
        logger=CSVLogger(place) if logger else False,
        callbacks=callbacks,
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        devices=1,
        **options,
    )


def _logged_by_lightning(place: Path) -> Rows:
    rows: Rows = defaultdict(list)
    for file in sorted(place.rglob("metrics.csv")):
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                for name, value in row.items():
                    if value and name != "step":
                        rows[name].append((int(row["step"]), float(value)))
    return dict(rows)


def _logged_by_runstone(run: runstone.Run | None, *, attempt: int | str = "all") -> Rows:
    assert run is not None
    info = run.read()
    assert not info.warnings
    assert info.dropped == 0
    rows: Rows = {}
    for name in info.metrics:
        if not name.startswith(OWN_NAMES):
            series = info.series(name, attempt=attempt)
            rows[name] = [(int(step), float(value)) for step, value in zip(series.step, series.value, strict=True)]
    return rows


def _tracking(place: Path, **options: Any) -> TrackingCallback:
    return TrackingCallback(workspace=place / "ws", on_error="raise", **options)


@pytest.mark.parametrize("number", range(8))
def test_A1_every_row_equals_what_csv_logger_receives(number: int, tmp_path: Path) -> None:
    for index, config in enumerate(CONFIGS[number::8]):
        place = tmp_path / str(index)
        callback = _tracking(place)
        trainer = _trainer(place, [*config.callbacks(), callback], logger=True, **config.trainer_options())
        trainer.fit(config.model())
        assert _without_tail(callback.run) == _logged_by_lightning(place), config


def _without_tail(run: runstone.Run | None) -> Rows:
    """Return the rows without those kept at the end of a fit that was too short to have any (fact A8)."""
    assert run is not None
    rows = _logged_by_runstone(run)
    if "lightning.short_run" in run.read().tags:
        last = max(step for points in rows.values() for step, _ in points)
        names = [name for name, points in rows.items() if len(points) == 1 and points[0][0] == last]
        rows = {name: points for name, points in rows.items() if name not in names or not name.startswith(STEP_NAMES)}
    return rows


STEP_NAMES = ("step_only", "loss_step", "metric_step", "sometimes", "batch_start", "batch_end_step", "other_start")


@pytest.mark.parametrize("number", range(4))
def test_A1_rows_are_the_same_without_any_logger(number: int, tmp_path: Path) -> None:
    for index, config in enumerate(CONFIGS[number::12]):
        place = tmp_path / str(index)
        _trainer(place, config.callbacks(), logger=True, **config.trainer_options()).fit(config.model())
        callback = _tracking(place)
        trainer = _trainer(place, [*config.callbacks(), callback], logger=False, **config.trainer_options())
        trainer.fit(config.model())
        assert _without_tail(callback.run) == _logged_by_lightning(place), config


@pytest.mark.parametrize("config", [Config(), Config(2, 2, 0.5, 2), Config(every=2, optimizers=2)])
def test_A1_rows_of_test_after_fit_and_of_a_second_fit_are_the_same(config: Config, tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    trainer = _trainer(tmp_path, [callback], logger=True, **config.trainer_options())
    model = config.model()
    trainer.fit(model)
    trainer.test(model, verbose=False)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model)
    trainer.test(model, verbose=False)
    assert _logged_by_runstone(callback.run) == _logged_by_lightning(tmp_path)
    assert callback.run is not None
    assert [attempt.number for attempt in callback.run.read().attempts] == [1]


@pytest.mark.parametrize("saved_at", ["epoch", "step", "validation"])
@pytest.mark.parametrize("config", [Config(), Config(2, 1, 0.5, 2), Config(every=2)])
def test_A1_rows_of_a_resumed_fit_are_the_same(config: Config, saved_at: str, tmp_path: Path) -> None:
    when: dict[str, Any] = {
        "epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        "step": {"every_n_train_steps": 4},
        "validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    }[saved_at]
    first = tmp_path / "first"

    def saving() -> ModelCheckpoint:
        return ModelCheckpoint(first / "saved", save_top_k=-1, **when)

    _trainer(
        first, [_tracking(tmp_path), saving()], logger=True, enable_checkpointing=True, **config.trainer_options()
    ).fit(config.model())
    file = sorted((first / "saved").iterdir(), key=lambda path: path.stat().st_mtime_ns)[0]
    second, callback = tmp_path / "second", _tracking(tmp_path)
    options = {"epochs": 3, "enable_checkpointing": True, **config.trainer_options()}
    trainer = _trainer(second, [callback, saving()], logger=True, **options)
    trainer.fit(config.model(), ckpt_path=file, weights_only=True)
    assert callback.run is not None
    assert callback.run.attempt == 2
    assert _logged_by_runstone(callback.run, attempt=2) == _logged_by_lightning(second)


def test_A1_a_metric_named_step_or_epoch_acts_as_in_lightning(tmp_path: Path) -> None:
    class Names(Model):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("epoch", float(batch_idx) + 100)
            return loss

        def on_validation_epoch_end(self) -> None:
            self.log("step", float(self.current_epoch) + 1000)

    callback = _tracking(tmp_path)
    _trainer(tmp_path, [callback], logger=True, log_every_n_steps=1).fit(Names())
    rows = _logged_by_runstone(callback.run)
    assert rows == _logged_by_lightning(tmp_path)
    assert [step for step, _ in rows["val_loss_epoch"]] == [1000, 1001]


def test_A1_rows_are_the_same_when_accumulation_and_stopping_change_on_the_way(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.fit_loop.total_batch_idx >= 8

    for name, others in {
        "schedule": [GradientAccumulationScheduler({0: 1, 1: 3})],
        "early": [EarlyStopping("loss_epoch", patience=0, min_delta=1e9)],
        "stops": [Stops()],
    }.items():
        place = tmp_path / name
        callback = _tracking(place)
        _trainer(place, [callback, *others], logger=True, epochs=3, log_every_n_steps=2).fit(Model())
        assert _without_tail(callback.run) == _logged_by_lightning(place), name


def test_A2_accumulating_batches_write_nothing(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    _trainer(tmp_path, [callback], logger=False, accumulate_grad_batches=2, log_every_n_steps=1).fit(Model())
    rows = _logged_by_runstone(callback.run)
    assert [step for step, _ in rows["loss_step"]] == [0, 1, 2, 3, 4, 5]  # 5 batches an epoch, the last one steps alone


def test_A5_a_validation_row_lies_on_the_step_of_the_last_training_step(tmp_path: Path) -> None:
    for interval, steps in {0.4: [1, 3, 6, 8], 1.0: [4, 9]}.items():
        callback = _tracking(tmp_path / str(interval))
        _trainer(tmp_path, [callback], logger=False, val_check_interval=interval, log_every_n_steps=1).fit(Model())
        rows = _logged_by_runstone(callback.run)
        assert [step for step, _ in rows["val_loss_epoch"]] == steps
        assert {step for step, _ in rows["val_loss_epoch"]} <= {step for step, _ in rows["loss_step"]}


def test_A5_validate_is_kept_off_the_curves_of_the_fit(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    model = Model(val_loaders=2)
    trainer = _trainer(tmp_path, [callback], logger=False, log_every_n_steps=1)
    trainer.fit(model)
    before = _logged_by_runstone(callback.run)
    trainer.validate(model, verbose=False)
    after = _logged_by_runstone(callback.run)
    new = {name for name in after if after[name] != before.get(name)}
    assert "validate/val_loss_epoch/dataloader_idx_1" in new
    assert {name for name in new if not name.startswith("validate/")} == {"epoch"}


def test_A7_the_sanity_check_logs_nothing(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    trainer = _trainer(tmp_path, [callback], logger=False, num_sanity_val_steps=2, limit_train_batches=0)
    trainer.fit(Model())
    assert _logged_by_runstone(callback.run) == {}
    callback = _tracking(tmp_path)
    options = {"num_sanity_val_steps": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 5}
    _trainer(tmp_path, [callback], logger=False, log_every_n_steps=1, **options).fit(Model())
    rows = _logged_by_runstone(callback.run)
    assert "loss_step" in rows
    assert not [name for name in rows if name.startswith("val")]


def test_A8_a_fit_shorter_than_the_logging_interval_keeps_the_last_step(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    _trainer(tmp_path, [callback], logger=False, log_every_n_steps=50).fit(Model())
    assert callback.run is not None
    info = callback.run.read()
    for name in ("loss_step", "step_only", "sometimes", "batch_start", "batch_end_step", "lr-SGD"):
        assert [int(step) for step in info.series(name).step] == [9], name
    assert "lightning.short_run" in info.tags
    assert "trainer/global_step" in info.metrics  # of the epoch rows: the kept step has none


def test_A8_a_fit_that_fails_before_the_first_row_keeps_its_last_whole_step(tmp_path: Path) -> None:
    class Breaks(Model):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            if batch_idx == 3:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    callback = _tracking(tmp_path)
    with pytest.raises(ZeroDivisionError):
        _trainer(tmp_path, [callback], logger=False, log_every_n_steps=50).fit(Breaks())
    rows = _logged_by_runstone(callback.run)
    assert [step for step, _ in rows["step_only"]] == [2]
    assert math.isfinite(rows["step_only"][0][1])


def test_A8_rows_can_be_kept_more_often_than_the_trainer_says(tmp_path: Path) -> None:
    for every, steps in {2: [1, 3, 5, 7, 9], 0: []}.items():
        callback = _tracking(tmp_path, log_every_n_steps=every)
        _trainer(tmp_path, [callback], logger=False, log_every_n_steps=50).fit(Model())
        rows = _logged_by_runstone(callback.run)
        assert [step for step, _ in rows.get("loss_step", [])] == steps
        assert [step for step, _ in rows["loss_epoch"]] == [4, 9]


def test_A4_every_row_lies_on_the_axis_of_steps_and_rows_of_one_step_are_one(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    config = Config(accumulate=2, val_interval=0.5, val_loaders=1)
    _trainer(tmp_path, [callback], logger=False, **config.trainer_options()).fit(config.model())
    rows = _logged_by_runstone(callback.run)
    axis = [step for step, _ in rows["loss_step"]]
    assert axis == list(range(len(axis)))
    for name in ("val_loss_epoch", "val_plain_0", "loss_epoch"):
        assert {step for step, _ in rows[name]} <= set(axis), name


def test_A9_a_value_that_was_not_logged_again_is_kept_once_if_so_wanted(tmp_path: Path) -> None:
    found = []
    for repeat in (True, False):
        callback, config = _tracking(tmp_path, repeat=repeat), Config()
        _trainer(tmp_path, [callback], logger=False, **config.trainer_options()).fit(config.model())
        rows = _logged_by_runstone(callback.run)
        found.append((len(rows["sometimes"]), len(rows["step_only"])))
    (repeated, steps), (once, same) = found
    assert steps == same
    assert once < repeated


def test_A10_metrics_that_the_module_logs_after_our_hooks_are_there(tmp_path: Path) -> None:
    callback = _tracking(tmp_path)
    _trainer(tmp_path, [callback], logger=False, log_every_n_steps=1).fit(Model())
    rows = _logged_by_runstone(callback.run)
    assert [value for _, value in rows["batch_end_step"]] == [0.5, 1.5, 2.5, 3.5, 4.5] * 2
    assert rows["epoch_end"] == [(4, 0.25), (9, 1.25)]
