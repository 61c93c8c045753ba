"""`TrackingCallback` with what trainings bring along: command lines, configurations, workers, names, values, places."""

from __future__ import annotations

import logging
import math
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

import runstone
from runstone_integrations.lightning import TrackingCallback

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*value needs to be floating to be reduced:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*have no logger configured.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Model(pl.LightningModule):
    """Logs what it is told to."""

    def __init__(self, lr: float = 0.1, config: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, 1)
        self.values: dict[str, Any] = {}
        self.workers: dict[str, Any] = {}

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        for name, value in self.values.items():
            self.log(name, value)
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(12, 4), batch_size=4, **self.workers)


OPTIONS: dict[str, Any] = {
    "logger": False,
    "max_epochs": 1,
    "log_every_n_steps": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "devices": 1,
}


def _tracking(place: Path, **options: Any) -> TrackingCallback:
    return TrackingCallback(**{"workspace": place / "ws", "on_error": "raise", **options})


def _fit(place: Path, model: Model, *others: Any, **options: Any) -> runstone.RunInfo:
    callback = _tracking(place)
    saves = any(isinstance(other, ModelCheckpoint) for other in others)
    options = {**OPTIONS, "enable_checkpointing": saves, "default_root_dir": place, **options}
    pl.Trainer(callbacks=[callback, *others], **options).fit(model)
    assert callback.run is not None
    return callback.run.read()


# --- configurations


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning calls jsonargparse in its older way
def test_G1_the_configuration_of_lightning_cli_is_recorded_as_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    callback = _tracking(tmp_path)
    options = {**OPTIONS, "enable_checkpointing": False, "callbacks": callback}
    LightningCLI(
        Model,
        args=["fit", "--model.lr=0.5", "--trainer.max_steps=2"],
        trainer_defaults=options,
        seed_everything_default=False,
    )
    assert callback.run is not None
    params = callback.run.read().params
    assert params["lr"] == 0.5
    assert params["cli"]["model"] == {"lr": 0.5, "config": None}
    assert params["cli"]["trainer"]["max_steps"] == 2
    assert params["lightning"]["ended"]["by"] == "max_steps"


def test_G1_configurations_of_omegaconf_are_recorded_entry_by_entry(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")

    class Configured(Model):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.save_hyperparameters(config)

    params = _fit(
        tmp_path, Configured(omegaconf.OmegaConf.create({"lr": 0.1, "net": {"width": [1, 2], "same": "${lr}"}}))
    ).params
    assert params["lr"] == 0.1
    assert params["net"] == {"width": [1, 2], "same": 0.1}
    model = Model(config=omegaconf.OmegaConf.create({"depth": 3, "missing": "???", "dangling": "${nowhere}"}))
    config = _fit(tmp_path, model).params["config"]
    assert config["depth"] == 3
    assert "cannot be read" in config["missing"]
    assert "cannot be read" in config["dangling"]


def test_C3_number_and_study_of_a_trial_of_optuna_are_recorded(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")

    class Pruning(Callback):
        def __init__(self, trial: Any) -> None:
            self._trial = trial  # as optuna-integration calls it

    study = optuna.create_study(study_name="widths")
    study.ask()
    trial = study.ask()
    width = trial.suggest_int("width", 1, 8)
    params = _fit(tmp_path, Model(), Pruning(trial)).params
    assert params["optuna"] == {"study": "widths", "trial": 1, "params": {"width": width}}


def test_G3_params_changed_on_a_resume_are_kept_with_the_ones_before(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "saved", save_last=True)
    first = _fit(tmp_path, Model(lr=0.1), saving)
    callback = _tracking(tmp_path)
    options = {**OPTIONS, "max_epochs": 2, "enable_checkpointing": False, "default_root_dir": tmp_path}
    pl.Trainer(callbacks=[callback], **options).fit(Model(lr=0.7), ckpt_path=saving.last_model_path)
    assert callback.run is not None
    assert callback.run.id == first.id
    assert callback.run.read().params["lr"] == 0.7
    journals = "".join(path.read_text() for path in sorted(first.path.glob("journal.*.jsonl")))
    assert '"lr":0.1' in journals.replace(" ", "")
    assert '"lr":0.7' in journals.replace(" ", "")


# --- workers


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*persistent_workers.*")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_D3_workers_of_a_data_loader_leave_the_run_alone(start: str, tmp_path: Path) -> None:
    model = Model()
    model.values = {"loss": 1.0}
    model.workers = {"num_workers": 2, "multiprocessing_context": start}
    info = _fit(tmp_path, model, max_epochs=2)
    assert info.series("loss").step.tolist() == list(range(6))
    assert (info.status, len(info.attempts), info.warnings) == ("finished", 1, ())
    assert len(list(info.path.glob("journal.*.jsonl"))) == 1


# --- places


def test_E3_checkpoints_at_remote_addresses_break_nothing(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    saving = ModelCheckpoint("memory://saved", save_last=True)
    info = _fit(tmp_path, Model(), saving)
    assert info.artifacts == ()
    assert info.warnings == ()
    assert info.params["lightning"]["model_checkpoint"][0]["last_model_path"] == saving.last_model_path


def test_E4_H1_nothing_is_patched(tmp_path: Path) -> None:
    def names() -> dict[str, int]:
        subjects = (torch, torch.nn.Module, torch.optim.Optimizer, pl.Trainer, pl.LightningModule, ModelCheckpoint)
        return {
            f"{subject.__name__}.{name}": id(value)
            for subject in subjects
            for name, value in vars(subject).items()
            if callable(value)
        }

    before = names()
    _fit(tmp_path, Model(), ModelCheckpoint(tmp_path / "saved"))
    after = names()
    assert {name: after[name] for name in before} == before


# --- cost


_events: list[str] | None = None


def _listen(event: str, _arguments: Any) -> None:
    # Only what the training thread does: another of its own prepares segments and takes the snapshot meanwhile.
    if _events is None or threading.get_ident() != threading.main_thread().ident:
        return
    if event.startswith(("open", "os.", "socket.", "subprocess.", "sqlite3.", "shutil.")):
        _events.append(event)


def test_F1_hooks_of_a_batch_open_no_file_and_no_connection(tmp_path: Path) -> None:
    class Around(TrackingCallback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            global _events
            _events = seen if arguments[3] > 1 else None
            super().on_train_batch_start(*arguments)
            _events = None

        def on_train_batch_end(self, *arguments: Any) -> None:
            global _events
            _events = seen if arguments[4] > 1 else None
            super().on_train_batch_end(*arguments)
            _events = None

    seen: list[str] = []
    sys.addaudithook(_listen)
    model = Model()
    model.values = {"loss": 1.0}
    model.train_dataloader = lambda: DataLoader(torch.ones(400, 4), batch_size=4)  # type: ignore[method-assign]
    callback = Around(workspace=tmp_path / "ws", on_error="raise")
    pl.Trainer(callbacks=[callback], enable_checkpointing=False, default_root_dir=tmp_path, **OPTIONS).fit(model)
    assert callback.run is not None
    assert len(callback.run.read().series("loss")) == 100
    assert seen == []


# --- names and values


def test_G4_values_that_are_no_ordinary_numbers_are_kept_as_lightning_has_them(tmp_path: Path) -> None:
    model = Model()
    model.values = {
        "nan": math.nan,
        "plus": math.inf,
        "minus": torch.tensor(-math.inf),
        "half": torch.tensor(0.1, dtype=torch.float16),
        "brain": torch.tensor(0.1, dtype=torch.bfloat16),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "flag": torch.tensor(True),
        "large": torch.tensor(2**53 + 1),
    }
    info = _fit(tmp_path, model)
    assert info.warnings == ()
    last = {name: info.series(name).value[-1] for name in model.values}
    assert math.isnan(last.pop("nan"))
    assert last == {
        "plus": math.inf,
        "minus": -math.inf,
        "half": torch.tensor(0.1, dtype=torch.float16).item(),
        "brain": torch.tensor(0.1, dtype=torch.bfloat16).item(),
        "double": 0.1,
        "flag": 1.0,
        "large": float(torch.tensor(2**53 + 1).float()),
    }


def test_G5_metric_names_with_any_characters_are_kept(tmp_path: Path) -> None:
    names = ["train/loss", "a b", "100%", "größe/λ", "Loss", "loss", "x" * 300, "a\\b", "../up", "tab\there"]
    model = Model()
    model.values = {name: float(index) for index, name in enumerate(names)}
    info = _fit(tmp_path, model)
    assert info.warnings == ()
    assert [info.series(name).value[-1] for name in names] == [float(index) for index in range(len(names))]
