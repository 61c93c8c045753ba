"""`TrackingCallback` in real trainers: a run's life, params, checkpoints and endings. Named after the facts."""

from __future__ import annotations

import copy
import csv
import enum
import logging
import pickle
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, LearningRateFinder, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.tuner import Tuner
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import runstone
from runstone import Status
from runstone_integrations.lightning import TrackingCallback
from tests.integrations.lightning_parts import At

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*have no logger configured.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Experiment logs directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module` and is already saved:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*but have no `val_dataloader`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Model(pl.LightningModule):
    """Small, with two param groups of different rates."""

    def __init__(self, lr: float = 0.01, batch_size: int = 4, **extra: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)
        self.lr = lr
        self.batch_size = batch_size

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("test_loss", self.layer(batch).pow(2).mean())

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch)

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(torch.linspace(-1, 1, 80).reshape(20, 4), batch_size=self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader

    def configure_optimizers(self) -> Any:
        groups = [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": self.lr * 10}]
        return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)


def _raise(error: BaseException) -> Any:
    def act(_: Any) -> None:
        raise error

    return act


@pytest.fixture
def tracking(tmp_path: Path) -> Any:
    """Return a maker of callbacks that write to one workspace and hide no error."""

    def make(**options: Any) -> TrackingCallback:
        return TrackingCallback(**{"workspace": tmp_path / "ws", "on_error": "raise", **options})

    return make


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    """Return a maker of quiet trainers."""

    def make(*callbacks: Any, **options: Any) -> pl.Trainer:
        defaults: dict[str, Any] = {
            "default_root_dir": tmp_path,
            "logger": False,
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "accelerator": "cpu",
            "devices": 1,
        }
        return pl.Trainer(callbacks=list(callbacks), **{**defaults, **options})

    return make


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(1)


@pytest.fixture
def keep_sigint() -> Iterator[None]:
    """Put back the handler that Lightning replaces on Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def _info(callback: TrackingCallback) -> runstone.RunInfo:
    assert callback.run is not None
    assert callback.run.is_finished
    return callback.run.read()


def _steps(info: runstone.RunInfo, name: str, **options: Any) -> list[int]:
    return [int(step) for step in info.series(name, **options).step]


def _runs(place: Path) -> list[Path]:
    return sorted((place / "ws" / "runs").glob("*/*"))


# --- facts A


def test_A3_epoch_and_global_step_lie_beside_each_row(tracking: Any, trainer: Any) -> None:
    class Two(Model):
        automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            for optimizer in self.optimizers():
                optimizer.step()
            return loss

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.2)]

    callback = tracking()
    trainer(callback, limit_val_batches=0).fit(Two())
    info = _info(callback)
    assert _steps(info, "loss") == list(range(10))
    assert list(info.series("trainer/global_step").value) == [2 * step for step in range(1, 11)]
    assert list(info.series("epoch").value) == [0] * 5 + [1] * 5
    assert list(info.series("lr-SGD-1").value) == [0.2] * 10


def test_A6_learning_rates_are_those_that_learning_rate_monitor_logs(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    class Scheduled(Model):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    callback = tracking()
    monitor = LearningRateMonitor(logging_interval="step")
    trainer(callback, monitor, logger=CSVLogger(tmp_path), accumulate_grad_batches=2).fit(Scheduled())
    with next(tmp_path.rglob("metrics.csv")).open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["lr-SGD/pg1"]]
    info = _info(callback)
    for name in ("lr-SGD/pg1", "lr-SGD/pg2"):
        series = info.series(name)
        ours = dict(zip(series.step.tolist(), series.value.tolist(), strict=True))
        assert ours == {int(row["step"]): float(row[name]) for row in rows}
        assert len(ours) == 6


def test_A6_learning_rates_are_there_without_a_logger_for_every_optimizer_and_group(
    tracking: Any, trainer: Any
) -> None:
    class Named(Model):
        automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            for optimizer in self.optimizers():
                optimizer.step()
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            parameters = list(self.parameters())
            tensor_rate = torch.tensor(0.3)
            adam = torch.optim.Adam(parameters, lr=tensor_rate, foreach=False)
            named = torch.optim.SGD([{"params": parameters[:1], "name": "head"}, {"params": parameters[1:]}], lr=0.1)
            first, second = torch.optim.SGD(parameters, lr=0.2), torch.optim.SGD(parameters, lr=0.4)
            scheduler = torch.optim.lr_scheduler.StepLR(second, 1, 0.5)
            return [adam, named, first, second], [{"scheduler": scheduler, "name": "mine"}]

    callback = tracking()
    trainer(callback, max_epochs=1).fit(Named())
    metrics = _info(callback).metrics
    rates = {name: round(summary.last, 6) for name, summary in metrics.items() if name.startswith(("lr-", "mine"))}
    assert rates == {"mine": 0.4, "lr-Adam": 0.3, "lr-SGD/head": 0.1, "lr-SGD/pg2": 0.1, "lr-SGD-1": 0.2}


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam])
def test_A6_a_momentum_that_is_cycled_is_recorded_with_the_rate(
    tracking: Any, trainer: Any, optimizer_type: Any
) -> None:
    seen: list[float] = []

    class Cycled(Model):
        def configure_optimizers(self) -> Any:
            options = {"momentum": 0.9} if optimizer_type is torch.optim.SGD else {}
            self.optimizer = optimizer_type(self.parameters(), lr=0.1, **options)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.4, total_steps=30)
            return [self.optimizer], [{"scheduler": scheduler, "interval": "step"}]

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            group = self.optimizer.param_groups[0]
            seen.append(group["betas"][0] if "betas" in group else group["momentum"])

    callback = tracking()
    trainer(callback, max_epochs=1).fit(Cycled())
    series = _info(callback).series(f"lr-{optimizer_type.__name__}-momentum")
    assert len(set(seen)) > 3
    assert list(series.value) == seen


# --- facts B


def test_B1_the_run_id_is_in_the_checkpoint_as_text_and_loads_without_the_package(
    tracking: Any, trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = tracking(project="digits")
    fitting = trainer(callback, ModelCheckpoint(tmp_path / "saved"))
    fitting.fit(Model())
    file = next((tmp_path / "saved").iterdir())
    for package in ("runstone", "runstone_integrations"):
        monkeypatch.setitem(sys.modules, package, None)
    state = torch.load(file, weights_only=True)["callbacks"]["runstone.TrackingCallback"]
    assert state == {"run_id": callback.run.id, "project": "digits"}


@pytest.mark.parametrize("is_weights_only", [True, None])
def test_B2_B3_resuming_goes_on_with_the_run_and_supersedes_what_it_logs_again(
    is_weights_only: bool | None, tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    first = tracking(project="digits", name="one")
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_top_k=-1)
    with pytest.raises(ZeroDivisionError):
        trainer(first, saving, At(8, _raise(ZeroDivisionError("boom")))).fit(Model())
    assert _steps(_info(first), "loss") == list(range(8))
    file = next(path for path in (tmp_path / "saved").iterdir() if "step=4" in path.name)

    second = tracking()
    trainer(second).fit(Model(), ckpt_path=file, weights_only=is_weights_only)
    assert second.run.id == first.run.id
    assert second.run.is_resumed
    info = _info(second)
    assert (info.name, info.project, info.status) == ("one", "digits", Status.FINISHED)
    assert [(attempt.status, attempt.rewind_step) for attempt in info.attempts] == [("failed", None), ("finished", 4)]
    for name in ("loss", "epoch", "trainer/global_step", "lr-SGD/pg1"):
        assert len(set(_steps(info, name))) == (10 if name != "epoch" else len(set(_steps(info, name))))
        assert _steps(info, name, attempt=1)[-1] == 7
        assert min(_steps(info, name, attempt=2)) == 4
    assert _steps(info, "loss") == list(range(10))
    assert _steps(info, "val_loss") == [4, 9]
    assert len(_runs(tmp_path)) == 1


def test_B2_a_fork_of_a_run_is_a_run_of_its_own_with_the_first_as_its_parent(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    first = tracking()
    trainer(first, ModelCheckpoint(tmp_path / "saved")).fit(Model())
    with runstone.start_run(workspace=tmp_path / "ws", parent=first.run.id) as fork:
        trainer(tracking(run=fork), max_epochs=3).fit(Model(), ckpt_path=next((tmp_path / "saved").iterdir()))
    assert fork.read().parent == first.run.id
    assert _steps(fork.read(), "loss") == list(range(10, 15))
    assert _steps(_info(first), "loss") == list(range(10))


def test_B2_a_resume_can_fork_a_run_from_the_one_that_wrote_the_checkpoint(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    first = tracking(project="digits")
    trainer(first, ModelCheckpoint(tmp_path / "saved")).fit(Model())
    file = next((tmp_path / "saved").iterdir())
    forks = [tracking(project="digits", resume="fork") for _ in range(2)]
    for fork in (forks[0], forks[1], first):  # the callback that wrote it can fork too
        fork._choice._resume = "fork"
        trainer(fork, max_epochs=3).fit(Model(), ckpt_path=file)
    ids = {info.id: info.parent for info in runstone.open_workspace(tmp_path / "ws").runs()}
    (root,) = [one for one, parent in ids.items() if parent is None]
    assert list(ids.values()).count(root) == 3
    assert _steps(_info(forks[0]), "loss") == list(range(10, 15))
    assert len(_info(forks[0]).attempts) == 1


def test_B2_testing_an_old_checkpoint_is_a_run_of_its_own_below_the_one_that_wrote_it(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    first, second = tracking(), tracking()
    trainer(first, ModelCheckpoint(tmp_path / "saved")).fit(Model())
    trainer(second).test(Model(), ckpt_path=next((tmp_path / "saved").iterdir()), verbose=False)
    assert _info(second).parent == first.run.id
    assert len(_info(first).attempts) == 1


def test_B2_strategies_that_load_checkpoints_late_go_on_with_the_run_too(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    class Late(SingleDeviceStrategy):
        @property
        def restore_checkpoint_after_setup(self) -> bool:
            return True

    first, second = tracking(), tracking()
    trainer(first, ModelCheckpoint(tmp_path / "saved"), max_epochs=1).fit(Model())
    late = trainer(second, strategy=Late(device="cpu"))
    late.fit(Model(), ckpt_path=next((tmp_path / "saved").iterdir()))
    assert second.run.id == first.run.id
    assert _steps(_info(second), "loss") == list(range(10))


def test_B4_each_fit_of_a_new_trainer_is_a_run_of_its_own(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    callback = tracking(group="folds")
    ids = []
    for _ in range(3):
        trainer(callback, max_epochs=1).fit(Model())
        ids.append(callback.run.id)
        trainer(callback).test(Model(), verbose=False)
        assert callback.run.id == ids[-1]
    assert len(set(ids)) == 3
    assert {path.name for path in _runs(tmp_path)} == set(ids)
    assert all(info.status == Status.FINISHED for info in runstone.open_workspace(tmp_path / "ws").runs())


def test_B4_several_fits_in_a_run_of_the_user_warn_that_steps_go_back(trainer: Any, tmp_path: Path) -> None:
    with runstone.start_run(workspace=tmp_path / "ws") as run:
        callback = TrackingCallback(run=run)
        trainer(callback, max_epochs=1).fit(Model())
        with pytest.warns(runstone.TrackingWarning, match="steps start again at 0"):
            trainer(callback, max_epochs=1).fit(Model())
        assert not run.is_finished
    assert _steps(run.read(), "loss") == [*range(5), *range(5)]
    assert run.read().status == Status.FINISHED


def test_B5_fit_validate_test_predict_and_fit_again_are_one_run_and_one_attempt(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    callback, model = tracking(), Model()
    one = trainer(callback)
    one.fit(model)
    assert callback.run.is_finished
    one.validate(model, verbose=False)
    one.test(model, verbose=False)
    one.predict(model)
    one.fit_loop.max_epochs = 3
    one.fit(model)
    info = _info(callback)
    assert [attempt.number for attempt in info.attempts] == [1]
    assert info.status == Status.FINISHED
    assert {"loss", "val_loss", "validate/val_loss", "test_loss"} <= set(info.metrics)
    assert _steps(info, "loss") == list(range(15))
    assert len(_runs(tmp_path)) == 1


def test_B5_a_test_alone_is_a_run(tracking: Any, trainer: Any) -> None:
    callback = tracking()
    trainer(callback).test(Model(), verbose=False)
    assert set(_info(callback).metrics) == {"test_loss", "epoch", "trainer/global_step"}


@pytest.mark.filterwarnings("ignore:.*`model.batch_size` and `model.hparams.batch_size` are mutually:UserWarning")
def test_B5_tuning_and_fast_dev_run_make_no_run(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    callback, model = tracking(), Model()
    one = trainer(callback, max_epochs=10)
    torch.manual_seed(1)
    Tuner(one).lr_find(model, num_training=30, early_stop_threshold=None, update_attr=True)
    Tuner(one).scale_batch_size(model, max_trials=1, init_val=2)
    trainer(callback, fast_dev_run=True).fit(model)
    assert callback.run is None
    assert not (tmp_path / "ws").exists()
    one.fit(model)
    info = _info(callback)
    assert info.attempts[0].rewind_step is None
    assert info.params["lightning"]["optimizers"][0]["groups"][0]["lr"] == model.lr != info.params["lr"]


def test_B5_a_rate_finder_in_a_later_trainer_does_not_bring_back_the_run_before(tracking: Any, trainer: Any) -> None:
    callback, ids = tracking(), []
    for _ in range(2):
        finder = LearningRateFinder(num_training_steps=20, early_stop_threshold=None, update_attr=True)
        trainer(callback, finder, max_epochs=4).fit(Model())
        ids.append(callback.run.id)
        info = _info(callback)
        assert _steps(info, "loss") == list(range(20))
        assert info.attempts[0].rewind_step is None
    assert ids[0] != ids[1]


# --- facts C


def test_C1_an_exception_ends_the_run_as_failed_with_its_traceback(tracking: Any, trainer: Any) -> None:
    callback = tracking()
    with pytest.raises(ZeroDivisionError):
        trainer(callback, At(3, _raise(ZeroDivisionError("boom")))).fit(Model())
    info = _info(callback)
    assert info.status == Status.FAILED
    assert info.failure is not None
    assert (info.failure.type, info.failure.message) == ("ZeroDivisionError", "boom")
    assert "in act" in info.failure.traceback
    assert _steps(info, "loss") == [0, 1, 2]


def test_C1_an_exception_before_training_starts_is_recorded_too(tracking: Any, trainer: Any) -> None:
    class Broken(Model):
        def configure_optimizers(self) -> Any:
            raise LookupError("no optimizer")

    callback = tracking(params={"lr": 5})
    with pytest.raises(LookupError):
        trainer(callback).fit(Broken())
    assert _info(callback).status == Status.FAILED


def test_C1_a_fit_after_a_failed_one_is_a_new_attempt(tracking: Any, trainer: Any) -> None:
    callback, model = tracking(), Model()
    one = trainer(callback, At(3, _raise(ZeroDivisionError())))
    with pytest.raises(ZeroDivisionError):
        one.fit(model)
    one.callbacks = [each for each in one.callbacks if not isinstance(each, At)]
    one.fit(model)
    assert [attempt.status for attempt in _info(callback).attempts] == ["failed", "finished"]


@pytest.mark.usefixtures("keep_sigint")
def test_C1_ctrl_c_ends_the_run_as_stopped(tracking: Any, trainer: Any) -> None:
    callback = tracking()
    with pytest.raises(SystemExit):
        trainer(callback, At(3, _raise(KeyboardInterrupt()))).fit(Model())
    assert _info(callback).status == Status.STOPPED


@pytest.mark.usefixtures("keep_sigint")
def test_C1_ctrl_c_and_pruning_end_a_run_of_the_user_as_well(trainer: Any, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    for error, told, status in (
        (KeyboardInterrupt(), SystemExit, "stopped"),
        (optuna.TrialPruned(), optuna.TrialPruned, "pruned"),
        (ValueError(), ValueError, "failed"),
    ):
        with pytest.raises(told), runstone.start_run(workspace=tmp_path / "ws") as run:
            trainer(TrackingCallback(run=run), At(3, _raise(error))).fit(Model())
        assert run.read().status == status


def test_C5_what_goes_wrong_while_an_error_is_recorded_does_not_hide_it(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    callback = tracking(monitor="nothing")
    one = trainer(callback, ModelCheckpoint(tmp_path / "saved"), At(8, _raise(ZeroDivisionError("boom"))))
    with pytest.warns(runstone.TrackingWarning, match="on_exception"), pytest.raises(ZeroDivisionError):
        one.fit(Model())
    assert _info(callback).failure.message == "boom"


def test_C3_trial_pruned_ends_the_run_as_pruned(tracking: Any, trainer: Any) -> None:
    optuna = pytest.importorskip("optuna")
    callback = tracking()
    with pytest.raises(optuna.TrialPruned):
        trainer(callback, At(3, _raise(optuna.TrialPruned("worse")))).fit(Model())
    info = _info(callback)
    assert info.status == Status.PRUNED
    assert info.failure is None
    assert info.params["lightning"]["ended"] == {"by": "TrialPruned", "step": 3, "epoch": 0}


@pytest.mark.parametrize(("reason", "status"), [("prune", "pruned"), ("stop", "stopped")])
def test_a_run_that_is_asked_to_stop_ends_its_training_at_the_next_batch(
    reason: Any, status: str, tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    callback = tracking()

    def ask(_: Any) -> None:
        runstone.open_workspace(tmp_path / "ws").request_stop(callback.run.id, reason)

    trainer(At(2, ask), callback, max_epochs=50).fit(Model())
    info = _info(callback)
    assert info.status == status
    assert _steps(info, "loss") == [0, 1, 2]
    assert _steps(info, "val_loss") == [2]


def test_C5_a_workspace_that_cannot_be_made_stops_no_training(trainer: Any, tmp_path: Path) -> None:
    (tmp_path / "ws").write_text("a file where the workspace should be")
    callback = TrackingCallback(workspace=tmp_path / "ws")
    one = trainer(callback, ModelCheckpoint(tmp_path / "saved"))
    with pytest.warns(runstone.TrackingWarning):
        one.fit(Model())
    assert one.global_step == 10


def test_C5_what_cannot_be_recorded_is_warned_of_once_and_training_goes_on(trainer: Any, tmp_path: Path) -> None:
    class Odd(Model):
        @property
        def _log_hyperparams(self) -> bool:
            raise ArithmeticError("odd")

        @_log_hyperparams.setter
        def _log_hyperparams(self, value: bool) -> None: ...

    callback = TrackingCallback(workspace=tmp_path / "ws", on_error="warn")
    with pytest.warns(runstone.TrackingWarning, match="on_fit_start could not be recorded: ArithmeticError: odd"):
        trainer(callback).fit(Odd())
    assert _info(callback).status == Status.FINISHED
    assert _steps(_info(callback), "loss") == list(range(10))
    strict = TrackingCallback(workspace=tmp_path / "ws", on_error="raise")
    with pytest.raises(ArithmeticError):
        trainer(strict).fit(Odd())


def test_options_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(runstone.InvalidValue, match="'best'"):
        TrackingCallback(checkpoints="best")  # type: ignore[arg-type]
    with pytest.raises(runstone.InvalidValue, match="-1"):
        TrackingCallback(log_every_n_steps=-1)


# --- facts D


def test_D4_a_callback_pickles_small_and_its_copies_write_to_the_same_run(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    callback = tracking(project="digits", params={"a": 1}, tags={"b": "c"})
    one = trainer(callback, max_epochs=1)
    one.fit(Model())
    assert len(pickle.dumps(callback)) < 2048
    for number, duplicate in enumerate((pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback))):
        assert duplicate.run is None
        trainer(duplicate).test(Model(), verbose=False)
        assert duplicate.run.id == callback.run.id
        assert len(_info(duplicate).attempts) == number + 2
    assert len(_runs(tmp_path)) == 1


# --- facts E


def test_E1_E2_best_and_last_are_kept_once_with_what_is_known_of_them(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    callback = tracking()
    saving = ModelCheckpoint(tmp_path / "saved", monitor="val_loss", mode="max", save_last=True, save_top_k=-1)
    trainer(callback, saving, max_epochs=3).fit(Model())
    artifacts = {artifact.name: artifact for artifact in _info(callback).artifacts}
    assert set(artifacts) == {"checkpoints/best", "checkpoints/last"}
    epoch = int(saving.best_model_path.partition("epoch=")[2].partition("-")[0])
    best, last = artifacts["checkpoints/best"].metadata, artifacts["checkpoints/last"].metadata
    assert best == {
        "kind": "best",
        "step": 5 * epoch + 4,
        "epoch": epoch,
        "global_step": 5 * epoch + 5,
        "monitor": "val_loss",
        "mode": "max",
        "score": float(saving.best_model_score),
        "file": saving.best_model_path,
    }
    assert (last["step"], last["epoch"], last["global_step"]) == (14, 2, 15)
    assert artifacts["checkpoints/best"].size_bytes == Path(saving.best_model_path).stat().st_size
    assert len([path for path in (tmp_path / "ws" / "blobs").rglob("*") if path.is_file()]) == 2


@pytest.mark.parametrize(("most", "epochs"), [(-1, [0, 1, 2]), (2, [0, 2]), (1, [2])])
def test_E2_all_keeps_the_files_that_model_checkpoint_keeps(
    most: int, epochs: list[int], tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    class Scored(Model):
        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.log("score", [2.0, 1.0, 3.0][self.current_epoch])

    callback = tracking(checkpoints="all")
    saving = ModelCheckpoint(tmp_path / "saved", monitor="score", mode="max", save_top_k=most)
    trainer(callback, saving, max_epochs=3, num_sanity_val_steps=0).fit(Scored())
    found = {artifact.name: artifact.metadata["step"] for artifact in _info(callback).artifacts}
    assert found.pop("checkpoints/best") == 14
    assert found == {f"checkpoints/epoch={epoch}-step={5 * epoch + 5}.ckpt": 5 * epoch + 4 for epoch in epochs}
    assert {f"checkpoints/{path.name}" for path in (tmp_path / "saved").iterdir()} == set(found)


def test_E2_none_keeps_nothing(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    callback = tracking(checkpoints="none")
    trainer(callback, ModelCheckpoint(tmp_path / "saved")).fit(Model())
    assert not _info(callback).artifacts


def test_E2_of_several_checkpoint_callbacks_each_has_its_place_or_one_is_chosen(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    def saving() -> list[ModelCheckpoint]:
        return [
            ModelCheckpoint(tmp_path / "a", monitor="val_loss"),
            ModelCheckpoint(tmp_path / "b", monitor="loss"),
            ModelCheckpoint(tmp_path / "c"),
        ]

    callback = tracking()
    trainer(callback, *saving()).fit(Model())
    names = {artifact.name for artifact in _info(callback).artifacts}
    assert names == {"checkpoints/val_loss/best", "checkpoints/loss/best", "checkpoints/2/last"}
    callback = tracking(monitor="loss")
    trainer(callback, *saving()).fit(Model())
    assert [artifact.metadata["monitor"] for artifact in _info(callback).artifacts] == ["loss"]
    with pytest.raises(runstone.InvalidValue, match="no ModelCheckpoint monitors 'nothing'"):
        trainer(tracking(monitor="nothing"), *saving()).fit(Model())


def test_E3_links_folders_and_files_deleted_between_hooks_are_coped_with(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    class Folders(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            Path(path).mkdir(parents=True)
            super().save_checkpoint(checkpoint, Path(path, "shard.pt"), storage_options)

    callback = tracking()
    linked = ModelCheckpoint(tmp_path / "linked", monitor="val_loss", mode="max", save_last="link", save_top_k=-1)
    trainer(callback, linked).fit(Model())
    assert Path(linked.last_model_path).is_symlink()
    assert {artifact.name for artifact in _info(callback).artifacts} == {"checkpoints/best", "checkpoints/last"}

    callback = tracking(checkpoints="all")
    folders = ModelCheckpoint(tmp_path / "folders", monitor="val_loss", mode="max")
    trainer(callback, folders, plugins=[Folders()]).fit(Model())
    assert Path(folders.best_model_path).is_dir()
    best = next(artifact for artifact in _info(callback).artifacts if artifact.name == "checkpoints/best")
    assert best.is_folder
    assert [entry.path for entry in best.files] == ["shard.pt"]

    def remove(trainer: Any) -> None:
        for path in (tmp_path / "gone").iterdir():
            path.unlink()

    callback = tracking(checkpoints="all")
    gone = ModelCheckpoint(tmp_path / "gone", every_n_train_steps=1, save_top_k=-1)
    trainer(At(4, remove), callback, gone, At(9, remove)).fit(Model())
    assert not _info(callback).warnings
    assert "checkpoints/epoch=0-step=3.ckpt" in {artifact.name for artifact in _info(callback).artifacts}


def test_E3_the_best_checkpoint_is_kept_when_training_fails(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    callback = tracking()
    saving = ModelCheckpoint(tmp_path / "saved", monitor="val_loss")
    with pytest.raises(ZeroDivisionError):
        trainer(callback, saving, At(8, _raise(ZeroDivisionError()))).fit(Model())
    assert [artifact.name for artifact in _info(callback).artifacts] == ["checkpoints/best"]


def test_E5_checkpoints_of_the_user_are_the_same_with_and_without(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    found = []
    for place, callbacks in (("a", []), ("b", [tracking(checkpoints="all")])):
        torch.manual_seed(1)
        saving = ModelCheckpoint(tmp_path / place, monitor="val_loss", save_last=True, save_top_k=1)
        one = trainer(*callbacks, saving, max_epochs=3)
        one.fit(Model())
        assert one.loggers == []
        found.append(sorted(path.name for path in (tmp_path / place).iterdir()))
    assert found[0] == found[1]


# --- facts F


class _Reads(TorchDispatchMode):
    """Counts how often a tensor becomes a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_F4_tensors_are_read_only_for_rows_that_are_due(tracking: Any, trainer: Any) -> None:
    counts = []
    for callbacks in ([], [tracking(log_every_n_steps=5)]):
        torch.manual_seed(3)
        with _Reads() as reads:
            trainer(*callbacks, limit_val_batches=0, num_sanity_val_steps=0).fit(Model())
        counts.append(reads.count)
    assert counts[1] - counts[0] == 2  # one metric, due at steps 4 and 9


def test_F5_weights_and_random_numbers_are_bit_identical_with_and_without(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    class Noisy(Model):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch + torch.randn_like(batch), batch_idx)

    results = []
    for place, callbacks in (("a", []), ("b", [tracking(checkpoints="all")])):
        pl.seed_everything(7, verbose=False)
        model = Noisy()
        trainer(*callbacks, ModelCheckpoint(tmp_path / place, monitor="val_loss")).fit(model)
        import random

        import numpy as np

        streams = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
        results.append(([each.tolist() for each in model.state_dict().values()], streams))
    assert results[0] == results[1]


# --- facts G


class Color(enum.Enum):
    RED = 1


@dataclass
class Part:
    """A nested configuration."""

    width: int = 3
    path: Path = Path("a/b")
    more: dict[str, Any] = field(default_factory=lambda: {"x.y": [1, {"z": 2}]})


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_G1_G2_hyperparameters_of_any_type_are_kept_nested_and_bounded(tracking: Any, trainer: Any) -> None:
    import numpy as np

    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    extra = {
        "module": torch.nn.Linear(300, 300),
        "tensor": torch.ones(500, 500),
        "scalar": torch.tensor(2.5),
        "array": np.ones((400, 400)),
        "number": np.float32(0.5),
        "part": Part(),
        "space": Namespace(depth=2),
        "color": Color.RED,
        "function": torch.nn.functional.relu,
        "kind": torch.nn.ReLU,
        "dtype": torch.float16,
        "rude": Rude(),
        "cycle": cycle,
        "keys": {1: "a", "1": "b", None: "c"},
        "many": list(range(100_000)),
        "nan": float("nan"),
        "set": {"b", "a"},
        "none": None,
    }
    model = Model()
    model.hparams.clear()
    model._hparams_initial = {**model.hparams_initial, **extra}
    callback = tracking(params={"lr": "mine"})
    trainer(callback, max_epochs=1).fit(model)
    assert len(b"".join(path.read_bytes() for path in callback.run.path.glob("journal.*"))) < 40_000
    info = _info(callback)
    assert not info.warnings
    params = info.params
    assert params["lr"] == "mine"
    assert params["batch_size"] == 4
    assert params["module"] == "<torch.nn.modules.linear.Linear> 90300 parameters"
    assert params["tensor"] == "<torch.Tensor> shape (500, 500), dtype torch.float32"
    assert params["array"] == "<numpy.ndarray> shape (400, 400), dtype float64"
    assert (params["scalar"], params["number"]) == (2.5, 0.5)
    assert params["part"] == {"width": 3, "path": "a/b", "more": {"x.y": [1, {"z": 2}]}}
    assert params["space"] == {"depth": 2}
    assert params["color"] == "Color.RED"
    assert params["function"] == "torch.nn.functional.relu"
    assert params["kind"] == "torch.nn.modules.activation.ReLU"
    assert params["dtype"] == "torch.float16"
    assert "its repr raises RuntimeError" in params["rude"]
    assert params["cycle"] == {"self": "<dict> (cycle)"}
    assert params["keys"] == {"1": "a", "1 (str)": "b", "None": "c"}
    assert params["many"][999:] == [999, "… (100000 items)"]
    assert params["nan"] != params["nan"]
    assert params["set"] == ["a", "b"]
    assert params["none"] is None


def test_G3_what_changes_on_resume_or_in_a_test_is_kept_beside_what_stood(
    tracking: Any, trainer: Any, tmp_path: Path
) -> None:
    first = tracking(params={"note": 1, "kept": 2})
    one = trainer(first, ModelCheckpoint(tmp_path / "saved"), max_epochs=1)
    one.fit(Model())
    trainer(first, max_epochs=77).test(Model(lr=5.0), verbose=False)
    assert _info(first).params["lr"] == 0.01
    assert _info(first).params["lightning"]["trainer"]["max_epochs"] == 1
    second = tracking(params={"note": 3})
    trainer(second, max_epochs=2).fit(Model(lr=0.02), ckpt_path=next((tmp_path / "saved").iterdir()))
    params = _info(second).params
    assert (params["note"], params["kept"], params["lr"]) == (3, 2, 0.02)
    assert params["lightning"]["trainer"]["max_epochs"] == 2
    assert params["lightning"]["optimizers"][0]["groups"][0]["lr"] == 0.01


def test_G3_module_datamodule_trainer_and_optimizer_are_recorded(tracking: Any, trainer: Any) -> None:
    class Data(pl.LightningDataModule):
        def __init__(self, folds: int, batch_size: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> DataLoader[Any]:
            return Model()._loader()

    class Silent(Model):
        def __init__(self, secret: int) -> None:
            super().__init__()
            self.save_hyperparameters(logger=False)

    callback = tracking()
    trainer(callback, max_epochs=1).fit(Model(lr=0.02), datamodule=Data(5, 4))
    params = _info(callback).params
    assert (params["lr"], params["folds"], params["batch_size"]) == (0.02, 5, 4)
    facts = params["lightning"]
    assert facts["version"] == pl.__version__
    assert facts["module"]["class"].endswith(".Model")
    assert (facts["module"]["parameters"], facts["module"]["trainable_parameters"]) == (5, 5)
    assert facts["datamodule"]["class"].endswith(".Data")
    assert facts["trainer"]["max_epochs"] == 1
    assert facts["trainer"]["num_training_batches"] == 5
    assert facts["trainer"]["strategy"] == "lightning.pytorch.strategies.single_device.SingleDeviceStrategy"
    assert facts["optimizers"][0]["class"] == "torch.optim.sgd.SGD"
    assert [group["lr"] for group in facts["optimizers"][0]["groups"]] == [0.02, 0.2]
    silent = tracking()
    trainer(silent, max_epochs=1).fit(Silent(3))
    assert "secret" not in _info(silent).params


# --- Lightning's protocol


def test_one_class_serves_both_names_of_lightning(tracking: Any, tmp_path: Path) -> None:
    other = pytest.importorskip("pytorch_lightning")

    class Twin(other.LightningModule):  # type: ignore[name-defined, misc]
        __init__ = Model.__init__
        training_step, validation_step = Model.training_step, Model.validation_step
        _loader, configure_optimizers = Model._loader, Model.configure_optimizers
        train_dataloader = val_dataloader = Model._loader

    Twin.__init__ = lambda self: (other.LightningModule.__init__(self), self.__dict__.update(lr=0.01, batch_size=4))[0]

    class Ready(Twin):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

    callback = tracking()
    made = other.Trainer(
        callbacks=[callback, other.callbacks.ModelCheckpoint(tmp_path / "saved")],
        default_root_dir=tmp_path,
        logger=False,
        max_epochs=2,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    made.fit(Ready())
    info = _info(callback)
    assert _steps(info, "loss") == list(range(10))
    assert info.params["lightning"]["version"] == other.__version__
    assert [artifact.name for artifact in info.artifacts] == ["checkpoints/last"]


def test_every_hook_of_lightnings_callbacks_is_there() -> None:
    other = pytest.importorskip("pytorch_lightning")
    callback = TrackingCallback()
    for base in (Callback, other.Callback):
        missing = {name for name in vars(base) if not name.startswith("__") and not hasattr(callback, name)}
        assert missing == {"_generate_state_key"}
        assert not [name for name in vars(base) if name.startswith("on_") and name not in dir(TrackingCallback)]
    assert callable(callback.on_something_of_a_later_version)
    with pytest.raises(AttributeError):
        callback.anything_else  # noqa: B018


# --- a run that is open already


def test_an_open_run_is_taken_and_left_open(tracking: Any, trainer: Any, tmp_path: Path) -> None:
    with runstone.start_run(project="mine", workspace=tmp_path / "ws", environment=False) as run:
        callback = tracking(project="other", params={"width": 3})
        fitting = trainer(callback, max_epochs=1)
        fitting.fit(Model())
        assert callback.run is run
        assert not run.is_finished
        run.log({"mine": 1.0}, step=0)
    info = _info(callback)
    assert (info.project, info.params["width"], len(_runs(tmp_path))) == ("mine", 3, 1)
    assert set(_steps(info, "loss")) == set(range(5))
    fitting.test(Model(), verbose=False)  # the block is over: the callback goes on with the run and ends it
    assert "test_loss" in _info(callback).metrics
    assert len(_runs(tmp_path)) == 1
