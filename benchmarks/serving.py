"""Requests a second of a small model of scikit-learn: served here, by MLflow, and called without any server.

MLflow is measured where its environment is (`python -m benchmarks.peers --install mlflow`, or the Python that
RUNSTONE_BENCH_MLFLOW names); scikit-learn has to be in it. The load comes from a process of its own on the same
machine, which takes its share of the cores from all servers alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import runstone
from benchmarks.peers.environments import python_of

_NAMES = ("income", "age", "debt", "children")
_ROWS = (1, 100)
_SAVE_FOR_MLFLOW = """
import sys, mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
names = sys.argv[2].split(",")
data = pd.DataFrame(np.random.default_rng(0).normal(size=(500, len(names))), columns=names)
model = LogisticRegression().fit(data, data[names[0]] > 0)
mlflow.sklearn.save_model(model, sys.argv[1], signature=infer_signature(data, model.predict(data)))
"""


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    seconds, connections = (1.0, 4) if quick else (8.0, 32)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        home, model, data = _registered(root)
        print(f"\nServing LogisticRegression of {len(_NAMES)} columns; {connections} connections, {seconds:g} s each")
        started, calls = time.perf_counter(), 0
        while time.perf_counter() < started + seconds / 4:
            model.predict(data[:1])
            calls += 1
        print(f"  {'floor: predict of one row, called directly':<44} {calls / (seconds / 4):>8,.0f}/s")
        program = str(Path(sys.executable).with_name("runstone"))
        serve = [program, "-w", str(home), "models", "serve", "bench@1"]
        for words, options in (
            ("1 process", ()),
            ("1 process, each request alone", ("--batch-rows", "1")),
            ("2 processes", ("--workers", "2")),
        ):
            with _server([*serve, *options, "--port"], root) as port:
                _show(f"runstone, {words}", port, "/predict", data, connections, seconds)
        mlflow = os.environ.get("RUNSTONE_BENCH_MLFLOW") or python_of("mlflow", None)
        if mlflow is None or quick:
            print("  mlflow: not measured (no environment for it, or --quick)")
            return
        saved = root / "mlflow-model"
        subprocess.run([str(mlflow), "-c", _SAVE_FOR_MLFLOW, str(saved), ",".join(_NAMES)], check=True, cwd=root)
        path = f"{Path(mlflow).parent}:{os.environ['PATH']}"
        for workers in ("1", "2"):
            command = [str(mlflow), "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"]
            with _server([*command, "--workers", workers, "--port"], root, PATH=path) as port:
                name = f"mlflow models serve, {workers} worker{'s' if workers != '1' else ''}"
                _show(name, port, "/invocations", data, connections, seconds)


def _registered(root: Path) -> tuple[Path, Any, Any]:
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    data = pd.DataFrame(np.random.default_rng(0).normal(size=(500, len(_NAMES))), columns=list(_NAMES))
    model = LogisticRegression().fit(data, data[_NAMES[0]] > 0)
    home = root / ".runstone"
    with runstone.start_run(project="bench", workspace=home, environment=False) as run:
        run.log_model(model, name="bench", example=data[:5])
    return home, model, data


def _show(name: str, port: int, path: str, data: Any, connections: int, seconds: float) -> None:
    for rows in _ROWS:
        form = "dataframe_split" if path == "/invocations" else "inputs"
        body = json.dumps({form: data[:rows].to_dict("split", index=False)}).encode()
        told = {"port": port, "path": path, "how": [connections, seconds]}
        for how in ([connections, min(1.0, seconds)], [connections, seconds]):  # the first warms up
            told["how"] = how
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks._load", json.dumps(told)],
                input=body,
                capture_output=True,
                check=True,
            )
        found = json.loads(done.stdout)
        wrong = f"  {found['failed']:.0f} FAILED" if found["failed"] else ""
        print(
            f"  {name:<36} {rows:>3} row{'s' if rows > 1 else ' '} {found['per_s']:>8,.0f}/s"
            f"   p50 {found['p50_ms']:>7.2f} ms   p99 {found['p99_ms']:>7.2f} ms{wrong}",
            flush=True,
        )


@contextlib.contextmanager
def _server(command: Sequence[str], root: Path, **environment: str) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(port)],
            cwd=root,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        )
        try:
            for _try in range(1_200):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                if process.poll() is not None:
                    raise RuntimeError((root / "server.log").read_text()[-2_000:])
                time.sleep(0.1)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


if __name__ == "__main__":
    main()
