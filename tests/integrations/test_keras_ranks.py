"""`TrackingCallback` in the processes of a real process group of torch. Needs no Keras."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import runstone

pytestmark = pytest.mark.heavy

pytest.importorskip("torch")

# Two loops in step with each other; ROLE picks what is tried.
SCRIPT = """
import os, sys
import torch
import torch.distributed as dist
from runstone_integrations.keras import TrackingCallback

role = os.environ["ROLE"]
dist.init_process_group("gloo")
rank = dist.get_rank()
model = torch.nn.Linear(2, 1)
callback = TrackingCallback(log_every_n_batches=1)
done = 0
if role != "alone" or rank == 0:
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(6):
        callback.on_epoch_begin(epoch)
        for batch in range(4):
            loss = model(torch.ones(3, 2)).sum()
            if role != "alone":
                dist.all_reduce(loss.detach())
            callback.on_train_batch_end(batch, {"loss": loss.detach()})
            if role == "stop" and rank == 0 and (epoch, batch) == (1, 2):
                callback.run.workspace.request_stop(callback.run.id)
        callback.on_epoch_end(epoch, {"loss": 1.0})
        done += 1
        if role == "report":
            import time; time.sleep(0.4)
        if callback.should_stop:
            break
    callback.on_train_end()
dist.barrier()
print(done, getattr(model, "stop_training", False), callback.should_stop, callback.run is None)
dist.destroy_process_group()
"""


def run_ranks(role: str, folder: Path, **environment: str) -> list[str]:
    """Run the script in two processes and return what each printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in ("0", "1"):
        own = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                env={**os.environ, **own, "ROLE": role, "OMP_NUM_THREADS": "1", **environment},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], ended
    return [output.strip() for output, _ in ended]


def test_rank_0_records_and_the_others_report_into_the_same_run(home: Path, tmp_path: Path) -> None:
    told = run_ranks("report", tmp_path, RUNSTONE_SYSTEM_METRICS="0.5")
    assert told == ["6 False False False", "6 False False True"]
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "finished"
    assert info.series("batch/loss").step.tolist() == list(range(24))
    assert any(name.startswith("system/rank.1/") for name in info.metrics)
    assert not any(name.startswith("system/rank.1/") and "loss" in name for name in info.metrics)


def test_request_to_stop_ends_all_ranks_after_the_same_epoch(home: Path, tmp_path: Path) -> None:
    told = run_ranks("stop", tmp_path)
    assert told == ["3 True True False", "3 True True True"]  # asked for in epoch 1, all stop after epoch 2
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "stopped"
    assert info.series("loss").step.tolist() == [3, 7, 11]


def test_callback_on_rank_0_alone_waits_for_nobody(home: Path, tmp_path: Path) -> None:
    assert run_ranks("alone", tmp_path) == ["6 False False False", "0 False False True"]
    assert len(runstone.open_workspace(home).runs()) == 1
