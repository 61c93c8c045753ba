"""Logging and searching with MLflow's client: this server beside `mlflow server` with SQLite, in one run.

Needs a Python that has MLflow, named as `RUNSTONE_TEST_MLFLOW_PYTHON`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.measure import machine
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed, new_token
from runstone.workspace import ensure_workspace

_WORK = """
import json, sys, time
import mlflow
from mlflow.entities import Metric, Param
points, runs = int(sys.argv[1]), int(sys.argv[2])
client = mlflow.MlflowClient()
found = {}
one = client.create_run("0").info.run_id
began = time.perf_counter()
for step in range(points):
    client.log_metric(one, "m", step / 7, step=step)
found["one by one"] = points / (time.perf_counter() - began)
two = client.create_run("0").info.run_id
batches = [[Metric("m", step / 7, 1000 + step, step) for step in range(at, at + 1000)] for at in range(0, points, 1000)]
began = time.perf_counter()
for batch in batches:
    client.log_batch(two, metrics=batch)
found["batches of 1,000"] = sum(map(len, batches)) / (time.perf_counter() - began)
experiment = client.create_experiment("searched")
for number in range(runs):
    run = client.create_run(experiment).info.run_id
    metrics = [Metric("loss", number / runs, 1, 0)]
    client.log_batch(run, metrics=metrics, params=[Param("lr", str(number % 10))])
    client.set_terminated(run)
client.search_runs([experiment], max_results=1)
began = time.perf_counter()
for _turn in range(5):
    page = client.search_runs([experiment], "metrics.loss < 0.5 and params.lr = '3'", order_by=["metrics.loss DESC"],
                              max_results=100)
found["search, ms"] = (time.perf_counter() - began) / 5 * 1e3
print(json.dumps(found))
"""


def main(*, quick: bool = False) -> None:
    """Measure both, and print their figures."""
    python = os.environ.get("RUNSTONE_TEST_MLFLOW_PYTHON")
    if not python:
        print("mlflow_server: name a Python that has MLflow as RUNSTONE_TEST_MLFLOW_PYTHON")
        return
    points, runs = (1_000, 100) if quick else (10_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="runstone-mlflow-") as folder:
        ours = _ours(python, Path(folder), points, runs)
        theirs = _theirs(python, Path(folder), points, runs)
    print(f"{machine()}; {points:,} points, search over {runs:,} runs")
    for name, own in ours.items():
        factor = theirs[name] / own if name.endswith("ms") else own / theirs[name]
        print(f"{name:20} runstone {own:10,.1f}   mlflow {theirs[name]:10,.1f}   {factor:5.1f} x")


def _ours(python: str, folder: Path, points: int, runs: int) -> dict[str, float]:
    workspace = ensure_workspace(folder / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    token = new_token()
    accounts.add_token("ann", hashed(token))
    port = _free_port()
    serve = (
        "import sys; from runstone.server.config import ServerConfig; from runstone.server.serving import serve; "
        "from runstone.workspace import Workspace; serve(Workspace(sys.argv[1]), "
        "ServerConfig(port=int(sys.argv[2]), local_name=None), announce=lambda *_told: None)"
    )
    command = [sys.executable, "-c", serve, str(workspace.path), str(port)]
    return _measured(command, python, port, points, runs, {"MLFLOW_TRACKING_TOKEN": token})


def _theirs(python: str, folder: Path, points: int, runs: int) -> dict[str, float]:
    port = _free_port()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [python, "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", store]
    return _measured([*command, "--workers", "1"], python, port, points, runs, {})


def _measured(
    command: list[str], python: str, port: int, points: int, runs: int, more: dict[str, str]
) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server:  # type: ignore[call-overload]
        try:
            _wait(f"{url}/health")
            environment = {**os.environ, "MLFLOW_TRACKING_URI": url, **more}
            done = subprocess.run(
                [python, "-c", _WORK, str(points), str(runs)],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
        finally:
            server.terminate()
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _wait(url: str) -> None:
    for _turn in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {url}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mlflow_server", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    main(quick=parser.parse_args().quick)
