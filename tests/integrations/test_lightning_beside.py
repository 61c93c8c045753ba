"""What `TrackingCallback` records beside the rows of loggers: times, gradients, layers, weights, why a fit ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, OnExceptionCheckpoint, Timer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import runstone
from runstone_integrations.lightning import TrackingCallback
from tests.integrations.lightning_parts import At

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*have no logger configured.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*was called without a model:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*but have no `val_dataloader`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Model(pl.LightningModule):
    """Two layers, the second in a param group of its own; its batches hold four rows."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)
        self.pause_s = pause_s
        self.norms: list[tuple[float, ...]] = []
        self.scores = [1.0] * 100

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(rows))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self(_rows_of(batch)).pow(2).mean()
        self.log("loss", loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        groups = [
            math.hypot(*(float(each.grad.norm()) for each in group["params"] if each.grad is not None))
            for group in optimizer.param_groups
        ]
        self.norms.append((math.hypot(*groups), *groups))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([{"params": self.first.parameters()}, {"params": self.second.parameters()}], lr=0.1)

    def train_dataloader(self) -> Any:
        return Batches(6, self.pause_s)

    def val_dataloader(self) -> Any:
        return DataLoader(torch.ones(4, 4), batch_size=4)


def _rows_of(batch: Any) -> torch.Tensor:
    return batch["x"] if isinstance(batch, dict) else batch


class Batches:
    """Dicts of four rows with seven tokens each; waits before it hands one out."""

    def __init__(self, count: int, pause_s: float) -> None:
        self.count, self.pause_s = count, pause_s

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(self.count):
            time.sleep(self.pause_s)
            rows = torch.linspace(0, 1, 16).reshape(4, 4) + number
            yield {"x": rows, "input_ids": torch.zeros(4, 7, dtype=torch.int64)}


def _fail(_: Any) -> None:
    raise ZeroDivisionError("boom")


@pytest.fixture
def fit(tmp_path: Path) -> Any:
    """Return what trains a model with a callback and returns the run as it is read then."""

    def train(model: pl.LightningModule, *others: Any, trainer: Any = None, **options: Any) -> runstone.RunInfo:
        torch.manual_seed(1)
        callback = TrackingCallback(**{"workspace": tmp_path / "ws", "on_error": "raise", **options})
        made = pl.Trainer(
            **{
                "callbacks": [callback, *others],
                "default_root_dir": tmp_path,
                "logger": False,
                "max_epochs": 2,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 0,
                "enable_checkpointing": any(isinstance(other, ModelCheckpoint) for other in others),
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "accelerator": "cpu",
                "devices": 1,
                **(trainer or {}),
            }
        )
        try:
            made.fit(model)
        except ZeroDivisionError:
            assert made.callbacks[0] is callback
        finally:
            names = [type(each).__name__ for each in made.callbacks]
            assert "AfterException" not in names
        assert callback.run is not None
        assert callback.run.is_finished
        return callback.run.read()

    return train


# --- times


def test_waiting_for_data_is_told_apart_from_computing(fit: Any) -> None:
    # The best of the steps tells: whatever else the machine does takes its time from any of them.
    slow, quick = fit(Model(pause_s=0.06)), fit(Model())
    waited = slow.series("trainer/data_s").value[1:]
    assert min(waited) >= 0.06
    assert min(slow.series("trainer/step_s").value[1:] - waited) < 0.06
    assert quick.metrics["trainer/data_s"].min < 0.03
    assert slow.series("trainer/epoch_s").step.tolist() == [5, 11]
    assert min(slow.series("trainer/epoch_s").value) >= 6 * 0.06


def test_samples_and_tokens_a_second_count_the_batches_of_the_steps_between_two_rows(fit: Any) -> None:
    info = fit(Model(pause_s=0.03), trainer={"accumulate_grad_batches": 2, "log_every_n_steps": 3, "max_epochs": 4})
    steps = info.series("trainer/step_s")
    assert steps.step.tolist() == [2, 5, 8, 11]
    for name, each in (("trainer/samples_per_s", 4), ("trainer/tokens_per_s", 28)):
        found = info.series(name)
        assert found.step.tolist() == steps.step.tolist()
        counts = found.value * steps.value * 3  # six batches of two steps each, less where an epoch is over
        assert counts.round(6).tolist() == [6 * each] * 4


def test_a_function_of_the_user_counts_tokens_and_its_error_stops_no_training(fit: Any) -> None:
    info = fit(Model(), count_tokens=lambda batch: 5)
    assert info.metrics["trainer/tokens_per_s"].last > 0
    ratio = info.series("trainer/samples_per_s").value / info.series("trainer/tokens_per_s").value
    assert ratio.round(6).tolist() == [4 / 5] * len(ratio)
    with pytest.warns(runstone.TrackingWarning, match="KeyError"):
        info = fit(Model(), count_tokens=lambda batch: batch["missing"], on_error="warn")
    assert info.status == "finished"
    assert len(info.series("loss")) == 12


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(5, 2), 5),
        ([torch.zeros(3), torch.zeros(9)], 3),
        ({"name": "a", "x": (torch.tensor(1.0), torch.zeros(7, 1))}, 7),
        ("text", 0),
        (torch.tensor(1.0), 0),
        (None, 0),
    ],
)
def test_the_size_of_a_batch_is_that_of_its_first_tensor(batch: Any, size: int) -> None:
    from runstone_integrations._lightning_timing import StepClock

    clock = StepClock(world_size=2, count_tokens=None, device=None)
    clock.begin_batch(batch, time.perf_counter())
    time.sleep(0.001)
    clock.end_batch(is_step=True)
    row = clock.take_row()
    assert round(row.get("trainer/samples_per_s", 0.0) * row["trainer/step_s"], 6) == 2 * size


def test_validation_does_not_count_as_waiting_for_data(fit: Any) -> None:
    class Slow(Model):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            time.sleep(1.0)

    info = fit(Slow(), trainer={"val_check_interval": 2, "max_epochs": 1})
    assert info.metrics["trainer/data_s"].max < 0.8
    assert info.metrics["trainer/epoch_s"].last > 2.8


# --- gradients


@pytest.mark.parametrize("detail", [True, "layers", "histograms"])
def test_norms_of_gradients_are_those_before_clipping_at_the_steps_that_are_kept(detail: Any, fit: Any) -> None:
    model = Model()
    info = fit(
        model, log_gradients=detail, trainer={"log_every_n_steps": 4, "gradient_clip_val": 0.001, "max_epochs": 2}
    )
    for index, name in enumerate(("gradients/norm", "gradients/norm/pg1", "gradients/norm/pg2")):
        found = info.series(name)
        assert found.step.tolist() == [3, 7, 11]
        assert found.value == pytest.approx([model.norms[step][index] for step in (3, 7, 11)], rel=1e-5)
    layers = {name for name in info.metrics if name.startswith("gradients/norm/")} - {*PARAM_GROUPS}
    assert layers == (set() if detail is True else {"gradients/norm/first", "gradients/norm/second"})
    if detail != "norms" and layers:
        assert list(info.series("gradients/norm/first").value) == list(info.series("gradients/norm/pg1").value)
    assert info.record_names == (["gradients/first", "gradients/second"] if detail == "histograms" else [])
    for name in info.record_names:
        assert [record.step for record in info.records(name)] == [3, 7, 11]


PARAM_GROUPS = ("gradients/norm/pg1", "gradients/norm/pg2")


class _Norms(TorchDispatchMode):
    """Counts how many norms are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.linalg_vector_norm.default
        return func(*args, **(kwargs or {}))


def test_F4_norms_are_computed_only_for_steps_that_are_kept(fit: Any) -> None:
    counts = []
    for wanted in (False, True):
        with _Norms() as norms:
            fit(Model(), log_gradients=wanted, trainer={"log_every_n_steps": 4})
        counts.append(norms.count)
    assert counts[1] - counts[0] == 3 * (4 + 1 + 2)  # four parameters, all together, two groups


def test_each_optimizer_has_norms_of_its_own(fit: Any) -> None:
    class Two(Model):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            one, two = self.optimizers()
            self.manual_backward(super().training_step(batch, batch_idx))
            one.step()
            two.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(layer.parameters(), 0.0) for layer in (self.first, self.second)]

    model = Two()
    info = fit(model, log_gradients=True, trainer={"max_epochs": 1, "limit_train_batches": 3})
    assert list(info.series("gradients/norm/0").value) == pytest.approx([norm for norm, _ in model.norms[::2]])
    assert list(info.series("gradients/norm/1").value) == pytest.approx([norm for norm, _ in model.norms[1::2]])


# --- layers and weights


def test_the_graph_is_a_table_of_layers_with_the_shapes_of_the_first_batch(fit: Any) -> None:
    model = Model()
    for parameter in model.second.parameters():
        parameter.requires_grad = False
    info = fit(model, log_graph=True)
    text = info.series("model/layers").value[0]
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["layer", "class", "parameters", "trainable", "in", "out"]
    assert lines[1][:1] + lines[1][2:] == ["(all)", "19", "15"]
    assert lines[2] == ["first", "torch.nn.modules.linear.Linear", "15", "15", "4×4", "4×3"]
    assert lines[3] == ["second", "torch.nn.modules.linear.Linear", "4", "0", "4×3", "4×1"]
    assert not any(layer._forward_hooks for layer in model.modules())
    layers = info.params["lightning"]["module"]["layers"]
    assert layers["second"] == {"class": "torch.nn.modules.linear.Linear", "parameters": 4}


def test_log_model_stores_the_weights_that_the_fit_ended_with(fit: Any, tmp_path: Path) -> None:
    model = Model()
    info = fit(model, log_model=True)
    (artifact,) = info.artifacts
    assert artifact.name == "model"
    assert artifact.metadata["class"].endswith(".Model")
    assert (artifact.metadata["step"], artifact.metadata["epoch"], artifact.metadata["parameters"]) == (11, 2, 19)
    digest = artifact.files[0].hash
    weights = torch.load(tmp_path / "ws" / "blobs" / digest[:2] / digest, weights_only=True)
    assert {name: each.tolist() for name, each in weights.items()} == {
        name: each.tolist() for name, each in model.state_dict().items()
    }


def test_options_that_mean_nothing_are_refused() -> None:
    for wrong in ({"log_model": "all"}, {"log_gradients": "all"}, {"resume": "never"}, {"checkpoints": "top"}):
        with pytest.raises(runstone.InvalidValue, match=str(*wrong.values())):
            TrackingCallback(**wrong)


# --- why a fit ended


def test_H6_early_stopping_is_recorded_with_its_step_and_state(fit: Any) -> None:
    model = Model()
    model.scores = [3.0, 2.0, 2.5, 2.5, 2.5, 1.0]
    info = fit(model, EarlyStopping("score", patience=2, min_delta=0.1), trainer={"max_epochs": 20})
    assert info.tags["lightning.ended_by"] == "EarlyStopping(score)"
    ended = info.params["lightning"]["ended"]
    assert (ended["step"], ended["wait_count"], ended["patience"], ended["min_delta"]) == (23, 2, 2, 0.1)
    assert (ended["best_score"], ended["stopped_epoch"]) == (2.0, 3)
    assert "did not improve" in ended["reason"]
    assert info.params["lightning"]["early_stopping"][0]["stopped_epoch"] == 3


@pytest.mark.parametrize(
    ("others", "options", "by", "step"),
    [
        ([EarlyStopping("score", patience=9)], {}, "max_epochs", 11),
        ([], {"max_steps": 4}, "max_steps", 3),
        ([At(4, lambda trainer: setattr(trainer, "should_stop", True))], {}, "trainer.should_stop", 4),
        ([Timer(duration={"seconds": 0}, interval="step")], {}, "max_time", None),
        ([At(7, _fail)], {}, "ZeroDivisionError", 7),
    ],
)
def test_the_run_says_what_ended_it(
    others: list[Any], options: dict[str, Any], by: str, step: int | None, fit: Any
) -> None:
    info = fit(Model(), *others, trainer=options)
    assert info.tags["lightning.ended_by"] == by
    assert info.params["lightning"]["ended"]["step"] == step


def test_E1_the_state_of_model_checkpoint_is_recorded(fit: Any, tmp_path: Path) -> None:
    model = Model()
    model.scores = [3.0, 2.0, 2.5]
    saving = ModelCheckpoint(tmp_path / "saved", monitor="score", save_top_k=2)
    info = fit(model, saving, trainer={"max_epochs": 3})
    (state,) = info.params["lightning"]["model_checkpoint"]
    assert (state["monitor"], state["mode"], state["save_top_k"], state["best_model_score"]) == ("score", "min", 2, 2.0)
    assert state["best_model_path"] == saving.best_model_path
    assert sorted(state["best_k_models"].values()) == [2.0, 2.5]


@pytest.mark.parametrize("kind", ["ModelCheckpoint", "OnExceptionCheckpoint"])
def test_E3_the_file_that_an_exception_leaves_is_kept(kind: str, fit: Any, tmp_path: Path) -> None:
    saving: Any = (
        ModelCheckpoint(tmp_path / "saved", save_on_exception=True)
        if kind == "ModelCheckpoint"
        else OnExceptionCheckpoint(str(tmp_path / "saved"))
    )
    info = fit(Model(), saving, At(8, _fail), trainer={"enable_checkpointing": True})
    kept = {artifact.name: artifact for artifact in info.artifacts}["checkpoints/exception"]
    assert kept.metadata["step"] == 8
    assert Path(kept.metadata["file"]).parent == tmp_path / "saved"
    assert info.status == "failed"
    assert info.failure is not None
    assert info.failure.type == "ZeroDivisionError"
    assert len(info.attempts) == 1


def test_E3_a_callback_that_fails_while_it_saves_an_exception_hides_nothing(fit: Any, tmp_path: Path) -> None:
    class Broken(ModelCheckpoint):
        def on_exception(self, *_: Any) -> None:
            raise OSError("disk full")

    callback = TrackingCallback(workspace=tmp_path / "ws", on_error="raise")
    made = pl.Trainer(
        callbacks=[callback, Broken(tmp_path / "saved", save_on_exception=True), At(3, _fail)],
        default_root_dir=tmp_path,
        logger=False,
        max_epochs=1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    with pytest.raises(OSError, match="disk full"):
        made.fit(Model())
    assert callback.run is not None
    callback.setup(made, None, "fit")  # the next training, or else the end of the process
    assert callback.run.read().failure.type == "ZeroDivisionError"
