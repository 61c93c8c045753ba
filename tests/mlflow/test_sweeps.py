"""Trials of a sweep that know nothing but MLflow's client: their runs are the sweep's, and they can be pruned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runstone.status import Status
from runstone_sweeps.coordinator.mlflow_client import serves
from tests.mlflow.conftest import Real, World

TRIAL = """
import sys, time
import mlflow
level = float(sys.argv[1].partition("=")[2])
with mlflow.start_run():
    mlflow.log_param("mine", "yes")
    for step in range(200):
        mlflow.log_metric("loss", level, step=step)
        if level < 1 and step == 4:
            break
        time.sleep(0.02)
"""


def sweep(real: Real, folder: Path, *, grace_s: int) -> None:
    (folder / "train.py").write_text(TRIAL)
    config = {
        "name": "mlflow",
        "command": [real.python, "train.py"],
        "metric": {"name": "loss", "goal": "minimize"},
        "sampler": "grid",
        "parallel": 1,
        "grace": f"{grace_s}s",
        "pruner": {"name": "threshold", "upper": 5.0},
        "start": "cold",
        "parameters": {"level": {"values": [0.5, 10.0]}},
    }
    (folder / "sweep.yaml").write_text(json.dumps(config))
    names = {key: value for key, value in os.environ.items() if not key.startswith(("RUNSTONE_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "runstone_sweeps.cli", "run", "sweep.yaml"],
        cwd=folder,
        env={
            **names,
            "RUNSTONE_WORKSPACE": str(real.workspace.path),
            "MLFLOW_TRACKING_URI": real.url,
            "MLFLOW_TRACKING_USERNAME": "ann",
            "MLFLOW_TRACKING_PASSWORD": real.token,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_trial_that_logs_with_mlflow_completes_or_is_pruned(real: Real, tmp_path: Path) -> None:
    sweep(real, tmp_path, grace_s=60)
    runs = {run.params["level"]: real.workspace.run(run.id) for run in real.workspace.runs("tags.sweep = 'mlflow'")}
    good, bad = runs[0.5], runs[10.0]
    assert (good.status, bad.status) == (Status.FINISHED, Status.PRUNED)
    assert good.series("loss").step.tolist() == [0, 1, 2, 3, 4]
    # It heard of it by the next point that it logged, long before anybody would have killed it.
    assert 0 < len(bad.series("loss").step) < 100
    assert bad.duration_s < 50
    assert all(run.params["mine"] == "yes" and run.group for run in (good, bad))
    assert len(list(real.workspace.runs("tags.sweep = 'mlflow'"))) == 2


def test_only_a_server_of_this_workspace_is_told_of_a_trial(world: World, real: Real) -> None:
    elsewhere = world.run()
    made = real.workspace.create_run(project="p")
    made.close()
    told = {"MLFLOW_TRACKING_URI": real.url, "MLFLOW_TRACKING_TOKEN": real.token}
    assert serves(told, made.id)
    assert not serves(told, elsewhere)
    assert not serves({**told, "MLFLOW_TRACKING_TOKEN": "wrong"}, made.id)
    assert not serves({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, made.id)
    assert not serves({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, made.id)
    assert not serves({}, made.id)


@pytest.mark.parametrize(("word", "status"), [("stop", Status.STOPPED), ("prune", Status.PRUNED)])
def test_a_run_that_is_asked_to_stop_takes_no_more_metrics_and_ends_as_asked(
    world: World, word: str, status: Status
) -> None:
    run = world.run()
    point = {"run_id": run, "key": "m", "value": 1.0, "timestamp": 1, "step": 0}
    world.post("runs/log-metric", **point)
    world.workspace.request_stop(run, word)
    code, name, message = world.refused("POST", "runs/log-metric", **point)
    assert (code, name) == (409, "ABORTED")
    assert "takes no more metrics" in message
    assert world.refused("POST", "runs/log-batch", run_id=run, metrics=[point])[1] == "ABORTED"
    world.post("runs/set-tag", run_id=run, key="last", value="words")
    world.post("runs/update", run_id=run, status="FAILED")
    assert world.workspace.run(run).status is status
    world.post("runs/update", run_id=run, status="RUNNING")
    world.post("runs/log-metric", **{**point, "step": 1, "timestamp": 2})
    assert world.workspace.run(run).series("m").step.tolist() == [0, 1]
