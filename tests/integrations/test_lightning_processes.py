"""`TrackingCallback` where processes end by signals, and where several train together (facts C1, D1, D2, F5)."""

from __future__ import annotations

import json
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
from runstone.runlog.reader import read_journal

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
    environment |= {"OMP_NUM_THREADS": "1", "RUNSTONE_SYSTEM_METRICS": "0.5"}
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


@pytest.mark.parametrize(("reason", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_D1_C4_two_ranks_make_one_run_and_stop_together(reason: str, status: str, tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        f"reason = {reason!r}"
        + """
def ask(trainer):
    if trainer.is_global_zero:
        runstone.open_workspace("ws").request_stop(tracking.run.id, reason)
one = trainer(At(6, ask), tracking, strategy="ddp", devices=2, max_epochs=50)
one.fit(Model())
open(f"rank{one.global_rank}", "w").write(f"{one.global_step} {tracking.run is not None}")
""",
    )
    assert code == 0, errors
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["7 True", "7 False"]
    info = _the_run(tmp_path)
    assert info.status == status
    assert info.tags["lightning.ended_by"] == f"runstone: {reason}"
    assert info.series("loss_step").step.tolist() == list(range(7))
    assert info.series("val_loss").step.tolist() == [4, 6]
    assert [(one.rank, one.role) for one in read_journal(info.path).writers if one.role == "main"] == [(0, "main")]
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


def test_D2_the_errors_of_all_ranks_are_kept_and_the_first_is_shown(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        """
def fail(trainer):
    if trainer.global_rank == 1:
        time.sleep(1.5)
        raise LookupError("the second")
    raise LookupError("the first")
trainer(tracking, At(6, fail), strategy="ddp", devices=2, max_epochs=50).fit(Model())
""",
    )
    assert code != 0
    info = _the_run(tmp_path)
    assert info.status == "failed", errors
    assert info.failure is not None
    assert info.failure.message == "the first"
    journal = read_journal(info.path)
    assert any("rank 1" in text and "the second" in text for text in journal.warnings), errors
    assert len(info.attempts) == 1


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
@pytest.mark.parametrize("rank", [0, 1])
def test_D2_an_error_in_a_worker_that_lightning_started_is_kept_with_its_traceback(
    rank: int, strategy: str, tmp_path: Path
) -> None:
    code, errors = _run(
        tmp_path,
        f"failing, strategy = {rank}, {strategy!r}"
        + """
class Fails(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.total_batch_idx == 4 and trainer.global_rank == failing:
            raise LookupError("in a worker")
if __name__ == "__main__":
    trainer(tracking, Fails(), strategy=strategy, devices=2, max_epochs=50).fit(Model())
""",
    )
    assert code != 0
    info = _the_run(tmp_path)
    assert info.status == "failed", errors
    assert info.failure is not None
    assert (info.failure.type, info.failure.message, info.failure.rank) == ("LookupError", "in a worker", rank)
    assert "on_train_batch_end" in info.failure.traceback
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


# Long enough for a few samples of each rank.
TWO_RANKS = """
class Paces(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        time.sleep(0.25)
def train(strategy, *callbacks):
    one = trainer(tracking, Paces(), *callbacks, strategy=strategy, devices=2, limit_val_batches=0)
    one.fit(Model())
    return one
"""


def _system(info: runstone.RunInfo, rank: int) -> set[str]:
    names = {name.removeprefix("system/") for name in info.metrics if name.startswith("system/")}
    ranked = f"rank.{rank}/"
    if rank == 0:
        return {name for name in names if not name.startswith("rank.")}
    return {name.removeprefix(ranked) for name in names if name.startswith(ranked)}


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_D3_every_rank_reports_its_process_and_one_a_host_the_machine(strategy: str, tmp_path: Path) -> None:
    code, errors = _run(tmp_path, TWO_RANKS + f"\nif __name__ == '__main__':\n    train('{strategy}')\n")
    assert code == 0, errors
    info = _the_run(tmp_path)
    assert info.status == "finished"
    assert {"process/rss_bytes", "memory/percent", "disk/store_free_bytes"} <= _system(info, 0)
    other = _system(info, 1)
    assert {"process/rss_bytes", "process/cpu_percent", "runstone/sampler_ms"} <= other
    assert {name.partition("/")[0] for name in other} == {"process", "runstone"}
    journal = read_journal(info.path)
    assert {(one.rank, one.role, str(one.status)) for one in journal.writers} == {
        (0, "main", "finished"),
        (1, "child", "finished"),
    }
    assert len(info.attempts) == 1
    snapshots = {
        one.rank: json.loads((info.path / f"environment.{one.writer}.json").read_text()) for one in journal.writers
    }
    assert snapshots[0]["packages"]["installed"]
    assert snapshots[1]["packages"] is None
    assert snapshots[1]["why"]["packages"] == "absent: another rank of this host tells it"
    assert snapshots[1]["rank"] == {"rank": 1, "world_size": 2, "local_rank": 1, "node_rank": 0}
    assert snapshots[1]["process"]["pid"] != snapshots[0]["process"]["pid"]
    assert info.environment is not None
    assert info.environment["packages"] is not None


def test_D3_a_run_without_system_metrics_gets_none_from_any_rank(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        TWO_RANKS
        + """
if int(os.environ.get("LOCAL_RANK", 0)) == 0:
    with runstone.start_run(workspace="ws", system_metrics=False, environment=False):
        train("ddp")
else:
    train("ddp")
""",
    )
    assert code == 0, errors
    info = _the_run(tmp_path)
    assert info.status == "finished"
    assert not [name for name in info.metrics if name.startswith("system/")]
    assert [one.role for one in read_journal(info.path).writers] == ["main"]


def test_D3_a_rank_that_is_killed_does_not_leave_a_finished_run(tmp_path: Path) -> None:
    code, errors = _run(
        tmp_path,
        TWO_RANKS
        + """
def die(trainer):
    if trainer.global_rank == 1:
        os.kill(os.getpid(), 9)
train("ddp", At(7, die))
""",
    )
    assert code != 0
    info = _the_run(tmp_path)
    assert info.status == "failed", errors
    assert "process/rss_bytes" in _system(info, 1)


def test_F5_importing_the_module_imports_no_framework() -> None:
    code = (
        "import sys, runstone_integrations.lightning;"
        "print(sorted({'torch', 'lightning', 'pytorch_lightning', 'numpy', 'sqlalchemy'} & set(sys.modules)))"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert time.monotonic() - started < 20
