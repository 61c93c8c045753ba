"""What a server takes over HTTP: 1,000 runs at once, points a second, memory; beside `mlflow server`, in one run.

Three things are kept apart. *The server*: a process of raw connections sends prepared bytes of runs that all live at
once, to this server and to MLflow's (`benchmarks._ingest_load`), so that no client's own work is measured. *All of it*:
runs were recorded here before, as always, and the sender reads, sends and compares them until the server has each on
its disk. *MLflow's client*: its threads log to MLflow's server. Clients and server share the machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import runstone
from benchmarks.measure import machine, versions
from runstone.index.accounts import Accounts
from runstone.runlog.format import SLOT_BYTES
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


class _Watched:
    """Watches the memory and the CPU time of a server; of one that answers by several processes, of all of them."""

    def __init__(self, pid: int, *, has_workers: bool = False) -> None:
        parent = psutil.Process(pid)
        self._family = [parent, *(parent.children(recursive=True) if has_workers else [])]
        self._stopped = threading.Event()
        self.samples: list[int] = []
        self._cpu = self._cpu_s()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def cpu_s(self) -> float:
        """Return the CPU seconds since this began, or since the last call."""
        before, self._cpu = self._cpu, self._cpu_s()
        return self._cpu - before

    def memory(self) -> str:
        """Stop, and return what the memory was: at the begin, after each quarter, and at most, in MiB."""
        self._stopped.set()
        self._thread.join()
        last = len(self.samples) - 1
        quarters = [f"{self.samples[last * part // 4] / 2**20:.0f}" for part in range(5)]
        return f"{' '.join(quarters)} MiB at each quarter of the time, at most {max(self.samples) / 2**20:.0f}"

    def _cpu_s(self) -> float:
        times = [one.cpu_times() for one in self._family if one.is_running()]
        return sum(one.user + one.system for one in times)

    def _watch(self) -> None:
        while not self._stopped.wait(0.05):
            try:
                self.samples.append(sum(one.memory_info().rss for one in self._family))
            except psutil.Error:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _served(command: list[str], port: int, path: str) -> Iterator[int]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    try:
        limit = time.monotonic() + 300
        probe = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}{path}', timeout=5)"
        while subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode:
            if time.monotonic() > limit:
                raise RuntimeError(f"{command[2]} does not answer")
            time.sleep(0.2)
        yield process.pid
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


@contextmanager
def _runstone(root: Path) -> Iterator[tuple[Workspace, int, int]]:
    """Yield a workspace that is served, the port and the process; its token is in the environment."""
    workspace = ensure_workspace(root / "server" / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("bench")
    accounts.set_role("bench", "*", "admin")
    token, port = new_token(), _free_port()
    accounts.add_token("bench", hashed(token))
    os.environ["RUNSTONE_TOKEN"] = token
    command = [sys.executable, "-m", "runstone.cli.main", "serve", "--port", str(port), "-w", str(workspace.path)]
    with _served(command, port, "/healthz") as pid:
        yield workspace, port, pid


@contextmanager
def _mlflow(root: Path) -> Iterator[tuple[int, int]]:
    """Yield port and process of MLflow's server."""
    port, store = _free_port(), root / "mlflow"
    store.mkdir()
    command = [str(_MLFLOW), "-m", "mlflow", "server", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{store}/mlflow.db", "--artifacts-destination", str(store / "a")]
    with _served(command, port, "/health") as pid:
        yield port, pid


# --- the server -------------------------------------------------------------------------------------------------------


def _load(watched: _Watched, **told: Any) -> tuple[dict[str, float], float]:
    """Run the process that sends; return its figures, and the CPU seconds of the server while points came."""
    command = [sys.executable, "-m", "benchmarks._ingest_load", json.dumps(told)]
    cpu_s = 0.0
    found: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sending:
        assert sending.stdout is not None
        for line in sending.stdout:
            found = json.loads(line)
            passed_s = watched.cpu_s()
            if found.get("phase") == "end":
                cpu_s = passed_s
    if "log_s" not in found:
        raise RuntimeError("the process that sends failed")
    return found, cpu_s


def _tell(name: str, told: dict[str, Any], found: dict[str, float], cpu_s: float, memory: str) -> None:
    total = told["runs"] * told["ticks"] * told["points"]
    print(
        f"  {name:24} {total / found['log_s']:12,.0f} points/s; {total:,} points of {told['runs']:,} runs at once over "
        f"{told['hosts']:,} connections"
    )
    print(
        f"    {found['requests']:,.0f} requests, of which {found['put_off']:,.0f} were put off; answered within "
        f"{found['p50_s'] * 1e3:,.0f} ms (median), {found['p99_s'] * 1e3:,.0f} ms (99 %)"
    )
    each = f"{total / cpu_s:,.0f} points each second of it" if cpu_s else "too short to be told"
    print(
        f"    CPU: server {cpu_s:.1f} s of {found['log_s']:.1f} s ({each}), who "
        f"sends {found['log_cpu_s']:.1f} s; opening {found['open_s']:.1f} s, to the disk {found['end_s']:.1f} s"
    )
    print(f"    memory of the server: {memory}")


def server(root: Path, *, runs: int, hosts: int, ticks: int, points: int) -> None:
    """Send prepared bytes of living runs to our server."""
    told: dict[str, Any] = {"runs": runs, "hosts": hosts, "ticks": ticks, "points": points}
    with _runstone(root) as (workspace, port, pid):
        watched = _Watched(pid)
        found, cpu_s = _load(watched, to="ours", port=port, token=os.environ["RUNSTONE_TOKEN"], **told)
        memory = watched.memory()
    _tell("runstone serve", told, found, cpu_s, memory)
    if told["ticks"] * told["points"] * runs != (total := _points_in(workspace)):
        raise RuntimeError(f"{total} points arrived")


def floor(root: Path, *, runs: int, ticks: int, points: int) -> None:
    """Append the same bytes to as many files, and bring them to the disk: no server can be faster."""
    block = bytes(points * SLOT_BYTES)
    began = time.perf_counter()
    files = [os.open(root / str(number), os.O_CREAT | os.O_WRONLY | os.O_APPEND) for number in range(runs)]
    for _ in range(ticks):
        for file in files:
            os.write(file, block)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(os.fsync, files))
    spent_s = time.perf_counter() - began
    for file in files:
        os.close(file)
    rate = runs * ticks * points / spent_s
    print(f"  {'floor':24} {rate:12,.0f} points/s; the same bytes, appended to files and synced")


def mlflow_server(root: Path, *, runs: int, hosts: int, ticks: int, points: int) -> None:
    """Send prepared bytes of living runs to MLflow's server."""
    if not _MLFLOW.exists():
        print("  mlflow is not installed in benchmarks/peers (python -m benchmarks.peers --install)")
        return
    told: dict[str, Any] = {"runs": runs, "hosts": hosts, "ticks": ticks, "points": points}
    with _mlflow(root) as (port, pid):
        watched = _Watched(pid, has_workers=True)
        found, cpu_s = _load(watched, to="theirs", port=port, token="", **told)
        _tell("mlflow server", told, found, cpu_s, watched.memory())


def _points_in(workspace: Workspace) -> int:
    return sum(info.metrics["loss"].count for info in Workspace(workspace.path).runs())


# --- all of it --------------------------------------------------------------------------------------------------------


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
    """Time sending runs that were recorded here, until the server has compared each."""
    with _runstone(root) as (workspace, port, pid):
        spool = Spool(open_spool(f"http://127.0.0.1:{port}/").path)
        started = time.perf_counter()
        record(spool, runs, points)
        floor_s = time.perf_counter() - started
        watched, own_cpu = _Watched(pid), time.process_time()
        started = time.perf_counter()
        sent = Sender(spool).send_until_done()
        seconds, own_cpu = time.perf_counter() - started, time.process_time() - own_cpu
        cpu_s, memory = watched.cpu_s(), watched.memory()
    total = _points_in(workspace)
    if (sent.runs, total) != (runs, runs * points):
        raise RuntimeError(f"{sent.runs} runs and {total} points arrived, not {runs} and {runs * points}")
    print(
        f"  spool to disk            {total / seconds:12,.0f} points/s, {runs / seconds:,.1f} runs/s; {runs:,} runs of "
        f"{points:,} points, {sent.bytes / 2**20:,.0f} MiB (recording them: {total / floor_s:,.0f} points/s)"
    )
    print(f"    CPU: server {cpu_s:.1f} s of {seconds:.1f} s, sender {own_cpu:.1f} s; memory of the server: {memory}")


def theirs(root: Path, runs: int, points: int) -> None:
    """Time MLflow's client with its server."""
    if not _MLFLOW.exists():
        return
    with _mlflow(root) as (port, pid):
        watched = _Watched(pid, has_workers=True)
        client = [str(_MLFLOW), "-c", _MLFLOW_CLIENT, f"http://127.0.0.1:{port}", str(runs), str(points)]
        result = subprocess.run(client, capture_output=True, text=True, check=False)
        memory = watched.memory()
    if result.returncode:
        print(f"  mlflow's client          failed: {result.stderr.strip()[-300:]}")
        return
    seconds = float(result.stdout.strip().splitlines()[-1])
    print(
        f"  mlflow's client          {runs * points / seconds:12,.0f} points/s, {runs / seconds:,.1f} runs/s; {runs:,} "
        f"runs of {points:,} points\n    memory of the server: {memory}"
    )


def main(*, quick: bool = False) -> None:
    """Print what both take, one after the other."""
    print(f"\nsending runs to a server over HTTP\n  {machine()}; {versions('runstone', 'fastapi', 'uvicorn')}")
    living = [(1_000, 8, 20, 1_000), (1_000, 1_000, 5, 1_000), (1_000, 8, 1, 100)]
    stored = [(20, 100_000), (1_000, 1_000)]
    if quick:
        living, stored = [(20, 4, 2, 100)], [(5, 200)]
    for runs, hosts, ticks, points in living:
        _in_folder(lambda root: server(root, runs=runs, hosts=hosts, ticks=ticks, points=points))  # noqa: B023
        _in_folder(lambda root: floor(root, runs=runs, ticks=ticks, points=points))  # noqa: B023
    if not quick:
        _in_folder(lambda root: mlflow_server(root, runs=1_000, hosts=8, ticks=1, points=100))
    for runs, points in stored:
        _in_folder(lambda root: ours(root, runs, points))  # noqa: B023
    if not quick:
        _in_folder(lambda root: theirs(root, 20, 1_000))
    print(f"  load of the machine: {', '.join(f'{load:.1f}' for load in os.getloadavg())} (1, 5, 15 minutes)")


def _in_folder(work: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="runstone-ingest-") as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        work(Path(folder))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
