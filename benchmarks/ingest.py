"""What a server takes over HTTP: many runs at once, points a second, memory; beside `mlflow server` with SQLite.

Server and client share the machine. Runs are recorded here first, as always; what is timed is sending them, until the
server has each on its disk and has compared it. MLflow's client logs batches of 1,000 points, the most that it takes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import runstone
from benchmarks.measure import machine, versions
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed, new_token
from runstone.sync.sending import Sender
from runstone.sync.spool import Spool, open_spool
from runstone.workspace import Workspace, ensure_workspace

_MLFLOW = Path(__file__).parent / "peers" / ".venv-mlflow" / "bin" / "python"
_MLFLOW_CLIENT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
url, runs, points = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = MlflowClient(url)
def one(number):
    run = client.create_run("0")
    for first in range(0, points, 1000):
        count = min(1000, points - first)
        batch = [Metric("loss", 1.0 / (first + i + 1), 1_700_000_000_000 + first + i, first + i) for i in range(count)]
        client.log_batch(run.info.run_id, metrics=batch)
    client.set_terminated(run.info.run_id)
started = time.perf_counter()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(one, range(runs)))
print(time.perf_counter() - started)
"""


class _Memory:
    """Watches how much memory a process and its children use."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._stopped = threading.Event()
        self.samples: list[int] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, float]:
        """Return MiB after a tenth of the time, and the most."""
        self._stopped.set()
        self._thread.join()
        return self.samples[len(self.samples) // 10] / 2**20, max(self.samples) / 2**20

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.samples.append(sum(one.memory_info().rss for one in family))
            except psutil.Error:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _served(command: list[str], port: int) -> Iterator[int]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        time.sleep(2.0)
        yield process.pid
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def record(spool: Spool, runs: int, points: int) -> None:
    """Write runs for a server, with nobody sending them yet."""
    with spool.sending() as is_alone:
        if not is_alone:
            raise RuntimeError("somebody sends already")
        for number in range(runs):
            options = {"environment": False, "system_metrics": False}
            with runstone.start_run(
                workspace=str(spool.address), project="ingest", name=f"run {number}", **options
            ) as run:  # type: ignore[arg-type]
                loss = run.metric("loss")
                for step in range(points):
                    loss(1.0 / (step + 1), step=step)


def ours(root: Path, runs: int, points: int) -> None:
    """Time our own server."""
    workspace = ensure_workspace(root / "server" / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("bench")
    accounts.set_role("bench", "*", "admin")
    token, port = new_token(), _free_port()
    accounts.add_token("bench", hashed(token))
    os.environ["RUNSTONE_TOKEN"] = token
    url = f"http://127.0.0.1:{port}/"
    spool = Spool(open_spool(url).path)
    started = time.perf_counter()
    record(spool, runs, points)
    print(f"  floor: recording here    {runs * points / (time.perf_counter() - started):12,.0f} points/s")
    command = [sys.executable, "-m", "runstone.cli.main", "serve", "--port", str(port), "-w", str(workspace.path)]
    with _served(command, port) as pid:
        server, client = _Memory(pid), _Memory(os.getpid())
        began = psutil.Process(pid).cpu_times()
        started = time.perf_counter()
        sender = Sender(spool)
        sent = sender.send_until_done()
        seconds = time.perf_counter() - started
        ended = psutil.Process(pid).cpu_times()
        cpu = ended.user + ended.system - began.user - began.system
        first, most = server.stop()
        client_first, client_most = client.stop()
    found = Workspace(workspace.path)
    total = sum(info.metrics["loss"].count for info in found.runs())
    if (sent.runs, total) != (runs, runs * points):
        raise RuntimeError(f"{sent.runs} runs and {total} points arrived, not {runs} and {runs * points}")
    print(f"  runstone serve           {total / seconds:12,.0f} points/s, {runs / seconds:8,.1f} runs/s")
    print(f"    bytes {sent.bytes / seconds / 2**20:.1f} MiB/s; CPU of the server {cpu / seconds:.2f} of 1 core")
    print(
        f"    memory of the server {first:.0f} MiB, at most {most:.0f}; of the sender {client_first:.0f}, at most "
        f"{client_most:.0f}"
    )


def theirs(root: Path, runs: int, points: int) -> None:
    """Time MLflow's server."""
    if not _MLFLOW.exists():
        print("  mlflow is not installed in benchmarks/peers (python -m benchmarks.peers --install)")
        return
    port = _free_port()
    store = root / "mlflow"
    store.mkdir()
    command = [str(_MLFLOW), "-m", "mlflow", "server", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{store}/mlflow.db", "--artifacts-destination", str(store / "a")]
    with _served(command, port) as pid:
        url = f"http://127.0.0.1:{port}"
        limit = time.monotonic() + 120
        while time.monotonic() < limit:
            probe = f"import urllib.request as u; u.urlopen('{url}/health', timeout=5)"
            if subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.5)
        memory = _Memory(pid)
        client = [str(_MLFLOW), "-c", _MLFLOW_CLIENT, url, str(runs), str(points)]
        result = subprocess.run(client, capture_output=True, text=True, check=False)
        first, most = memory.stop()
    if result.returncode:
        print(f"  mlflow server            failed: {result.stderr.strip()[-300:]}")
        return
    seconds = float(result.stdout.strip().splitlines()[-1])
    print(f"  mlflow server            {runs * points / seconds:12,.0f} points/s, {runs / seconds:8,.1f} runs/s")
    print(f"    memory of the server {first:.0f} MiB, at most {most:.0f} ({runs} runs of {points:,} points)")


def main(*, quick: bool = False) -> None:
    """Print what both take, one after the other."""
    print(f"\nsending runs to a server over HTTP\n  {machine()}; {versions('runstone', 'fastapi', 'uvicorn')}")
    for runs, points in ((5, 200),) if quick else ((1_000, 1_000), (100, 100_000), (1_000, 10_000)):
        print(f"  --- {runs:,} runs of {points:,} points")
        with tempfile.TemporaryDirectory(prefix="runstone-ingest-") as folder:
            os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
            ours(Path(folder), runs, points)
    if not quick:
        with tempfile.TemporaryDirectory(prefix="runstone-ingest-") as folder:
            theirs(Path(folder), 20, 5_000)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
