"""`TrackingCallback` where processes end by signals, and where several train together (facts C1, D1, D2, F5)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import runstone

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

MODEL = """
import os, sys, time, warnings, logging
warnings.filterwarnings("ignore")
import torch
import lightning.pytorch as pl
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import runstone
from runstone_integrations.lightning import TrackingCallback

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean(), sync_dist=True)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
    def _loader(self):
        return torch.utils.data.DataLoader(torch.linspace(-1, 1, 160).reshape(40, 4), batch_size=4)
    train_dataloader = val_dataloader = _loader

class At(pl.Callback):
    def __init__(self, batch, act):
        self.batch, self.act = batch, act
    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx == self.batch:
            self.act(trainer)

tracking = TrackingCallback(workspace="ws", on_error="raise")
def trainer(*callbacks, **options):
    options = {"max_epochs": 2, "log_every_n_steps": 1, "logger": False, "enable_checkpointing": False,
               "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", **options}
    return pl.Trainer(callbacks=list(callbacks), **options)
"""

SLOW = """
def wait(trainer):
    print("ready", flush=True)
    time.sleep(0.3)
class Paces(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        time.sleep(0.01)
trainer(tracking, At(5, wait), Paces(), max_epochs=10_000, limit_val_batches=0).fit(Model())
"""


def _start(place: Path, code: str, **options: Any) -> subprocess.Popen[str]:
    script = place / "script.py"
    script.write_text(MODEL + code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE_")}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _run(place: Path, code: str) -> tuple[int, str]:
    with _start(place, code) as process:
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def _the_run(place: Path) -> runstone.RunInfo:
    folders = list((place / "ws" / "runs").glob("*/*"))
    assert len(folders) == 1
    return runstone.RunInfo(folders[0])


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGTERM, 0, "stopped"),
        (signal.SIGKILL, -signal.SIGKILL, "crashed"),
    ],
)
def test_C1_a_process_ended_by_a_signal_leaves_the_right_status(
    number: signal.Signals, code: int, status: str, tmp_path: Path
) -> None:
    with _start(tmp_path, SLOW) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", process.stderr and process.stderr.read()
        assert _the_run(tmp_path).status == "running"
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    info = _the_run(tmp_path)
    assert info.status == status
    assert len(info.series("loss_step")) >= 5


def test_D1_two_ranks_make_one_run_and_stop_together(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        """
def ask(trainer):
    if trainer.is_global_zero:
        runstone.open_workspace("ws").request_stop(tracking.run.id)
one = trainer(At(6, ask), tracking, strategy="ddp", devices=2, max_epochs=50)
one.fit(Model())
open(f"rank{one.global_rank}", "w").write(f"{one.global_step} {tracking.run is not None}")
""",
    )
    assert code == 0, errors
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["7 True", "7 False"]
    info = _the_run(tmp_path)
    assert info.status == "stopped"
    assert info.series("loss_step").step.tolist() == list(range(7))
    assert info.series("val_loss").step.tolist() == [4, 6]
    assert len(list(info.path.glob("journal.*"))) == 1
    assert info.params["lightning"]["trainer"]["world_size"] == 2


def test_D2_the_error_of_a_rank_other_than_0_is_kept(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        """
def fail(trainer):
    if trainer.global_rank == 1:
        raise LookupError("only here")
trainer(tracking, At(6, fail), strategy="ddp", devices=2, max_epochs=50).fit(Model())
""",
    )
    assert code != 0
    info = _the_run(tmp_path)
    assert info.status == "failed", errors
    assert info.failure is not None
    assert (info.failure.type, info.failure.message) == ("LookupError", "only here")
    assert len(info.attempts) == 1


def test_D1_ranks_that_are_forked_make_one_run(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        """
if __name__ == "__main__":
    trainer(tracking, strategy="ddp_fork", devices=2, max_epochs=1).fit(Model())
""",
    )
    assert code == 0, errors
    info = _the_run(tmp_path)
    assert info.status == "finished"
    assert info.series("loss_step").step.tolist() == list(range(5))


def test_F5_importing_the_module_imports_no_framework() -> None:
    code = (
        "import sys, runstone_integrations.lightning;"
        "print(sorted({'torch', 'lightning', 'pytorch_lightning', 'numpy', 'sqlalchemy'} & set(sys.modules)))"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert time.monotonic() - started < 20
