"""Logging and searching with MLflow's client: this server beside `mlflow server` with SQLite, in one run.

One client logs to both in turn, slice by slice, and to a server that does nothing, which shows the client's own share.
The runs to search are put there before, in the process of each store: here by the writers of the protocol, there by
inserts into MLflow's own tables. Needs a Python that has MLflow, named as `RUNSTONE_TEST_MLFLOW_PYTHON`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import machine
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed, new_token
from runstone.server.mlflow.values import Metric
from runstone.server.mlflow.writers import Writers
from runstone.status import Status
from runstone.workspace import Workspace, ensure_workspace

_NAMES = ("runstone", "mlflow", "nothing")
_FILTER = "metrics.loss < 0.5 and params.lr = '3'"
_WORK = """
import json, sys, time
import mlflow
from mlflow.entities import Metric
urls, points, text = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
clients = {name: mlflow.MlflowClient(tracking_uri=url) for name, url in urls.items()}
took = {name: {"one by one": 0.0, "batches of 1,000": 0.0} for name in urls}
ones = {name: client.create_run("0").info.run_id for name, client in clients.items()}
many = {name: client.create_run("0").info.run_id for name, client in clients.items()}
for name, client in clients.items():
    client.log_metric(ones[name], "warm", 1.0)
    client.log_batch(many[name], metrics=[Metric("warm", 1.0, 1000, step) for step in range(1000)])
for start in range(0, points, 250):
    for name, client in clients.items():
        began = time.perf_counter()
        for step in range(start, start + 250):
            client.log_metric(ones[name], "m", step / 7, step=step)
        took[name]["one by one"] += time.perf_counter() - began
for start in range(0, 10_000, 1000):
    batch = [Metric("m", step / 7, 1000 + step, step) for step in range(start, start + 1000)]
    for name, client in clients.items():
        began = time.perf_counter()
        client.log_batch(many[name], metrics=batch)
        took[name]["batches of 1,000"] += time.perf_counter() - began
searched = {name: client.get_experiment_by_name("searched").experiment_id for name, client in clients.items()}
found = {}
def search(name):
    page = clients[name].search_runs([searched[name]], text, order_by=["metrics.loss DESC"], max_results=100)
    began = [run.data.metrics["loss"] for run in page]
    assert began == sorted(began, reverse=True)
    return began
for name in clients:
    began = time.perf_counter()
    found[name] = search(name)
    took[name]["first search"] = time.perf_counter() - began
    took[name]["search"] = []
assert found["runstone"] == found["mlflow"], "the two found other runs"
for turn in range(15):
    for name in clients:
        began = time.perf_counter()
        search(name)
        took[name]["search"].append(time.perf_counter() - began)
for one in took.values():
    one["search"] = sorted(one["search"])[len(one["search"]) // 2]
print(json.dumps(took))
"""
_FILL = """
import sys
import mlflow
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
store, runs = SqlAlchemyStore(sys.argv[1], sys.argv[2]), int(sys.argv[3])
experiment = int(store.create_experiment("searched"))
with store.ManagedSessionMaker() as session:
    for number in range(runs):
        run_id = f"{number:032x}"
        session.add(SqlRun(run_uuid=run_id, name=f"run-{number}", experiment_id=experiment, user_id="ann",
            status="FINISHED", start_time=number, end_time=number + 1, lifecycle_stage="active",
            artifact_uri=f"mlflow-artifacts:/{experiment}/{run_id}/artifacts", source_type="UNKNOWN"))
        value = {"key": "loss", "value": number / runs, "timestamp": 1, "step": 0, "is_nan": False}
        session.add(SqlMetric(run_uuid=run_id, **value))
        session.add(SqlLatestMetric(run_uuid=run_id, **value))
        session.add(SqlParam(run_uuid=run_id, key="lr", value=str(number % 10)))
        session.add(SqlTag(run_uuid=run_id, key="mlflow.runName", value=f"run-{number}"))
"""


def main(*, quick: bool = False) -> None:
    """Measure both, and print their figures."""
    python = os.environ.get("RUNSTONE_TEST_MLFLOW_PYTHON")
    if not python:
        print("mlflow_server: name a Python that has MLflow as RUNSTONE_TEST_MLFLOW_PYTHON")
        return
    points, runs = (1_000, 100) if quick else (10_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="runstone-mlflow-") as name:
        took = _measured(python, Path(name), points, runs)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{machine()}; load {load}; {points:,} points, search over {runs:,} runs")
    print(f"{'':22}" + "".join(f"{name:>12}" for name in _NAMES) + "      × runstone   less what the client takes")
    for what in took["runstone"]:
        count = {"one by one": points, "batches of 1,000": 10}.get(what, 1)
        ours, theirs, floor = (took[name][what] / count * 1e3 for name in _NAMES)
        rest = f"{(theirs - floor) / (ours - floor):10.1f} ×" if ours > floor else "-"
        print(f"{what + ', ms':22}{ours:12.2f}{theirs:12.2f}{floor:12.2f}{theirs / ours:12.1f} × {rest:>26}")


def _measured(python: str, folder: Path, points: int, runs: int) -> dict[str, dict[str, float]]:
    ports = {name: _free_port() for name in _NAMES}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    workspace = ensure_workspace(folder / ".runstone")
    token = _filled(workspace, runs)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    subprocess.run([python, "-c", _FILL, store, str(folder / "files"), str(runs)], check=True, capture_output=True)
    serve = (
        "import sys; from runstone.server.config import ServerConfig; from runstone.server.serving import serve; "
        "from runstone.workspace import Workspace; serve(Workspace(sys.argv[1]), "
        "ServerConfig(port=int(sys.argv[2]), local_name=None), announce=lambda *_told: None)"
    )
    theirs = [python, "-m", "mlflow", "server", "--port", str(ports["mlflow"]), "--backend-store-uri", store]
    commands: dict[str, Sequence[str]] = {
        "runstone": [sys.executable, "-c", serve, str(workspace.path), str(ports["runstone"])],
        "mlflow": [*theirs, "--workers", "1"],
        "nothing": [sys.executable, "-m", "benchmarks._mlflow_null", str(ports["nothing"])],
    }
    with contextlib.ExitStack() as running:
        for name, command in commands.items():
            running.enter_context(_running(command, urls[name]))
        done = subprocess.run(
            [python, "-c", _WORK, json.dumps(urls), str(points), _FILTER],
            env={**os.environ, "MLFLOW_TRACKING_TOKEN": token, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _filled(workspace: Workspace, runs: int) -> str:
    """Put the runs to search into a workspace; return the token of somebody who may read them."""
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    token = new_token()
    accounts.add_token("ann", hashed(token))
    writers = Writers(workspace)
    for number in range(runs):
        name = f"run-{number}"
        folder = writers.create(project="searched", name=name, parent=None, started_s=number / 1e3, tags={})
        with writers.writing(folder) as writer:
            writer.log_metrics([Metric("loss", number / runs, 1, 0)])
            writer.log_params(writer.check_params({"lr": str(number % 10)}))
            writer.end(Status.FINISHED, None)
    writers.close()
    return token


@contextlib.contextmanager
def _running(command: Sequence[str], url: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(f"{url}/health")
            yield
        finally:
            server.terminate()


def _wait(url: str) -> None:
    for _turn in range(1_200):
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
