"""Trials on a worker beside trials here: from the point that decides to the stop word, and trials a second.

The worker is on this machine and records into a workspace of its own, so every byte goes through the connection.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Good until it is not; then it waits for its stop word, as a training loop would look for it after each step.
_DECIDED = """\
import time
import runstone
with runstone.start_run(environment=False, system_metrics=False) as run:
    run.log({"loss": 0.0}, step=0)
    time.sleep(1.5)
    begun = time.perf_counter()
    run.log({"loss": 100.0}, step=1)
    while not run.should_stop:
        time.sleep(0.0005)
    print("latency", time.perf_counter() - begun)
"""
_TRIVIAL = """\
import sys
import runstone
with runstone.start_run(environment=False, system_metrics=False) as run:
    run.log({"loss": 1.0}, step=0)
"""
_CONFIG = """\
script: trial.py
metric: {{name: loss, goal: minimize}}
sampler: random
pruner: {{name: threshold, upper: 50.0}}
trials: {trials}
parallel: 2
parameters:
  x: {{min: 0.0, max: 1.0}}
executor: {executor}
"""
PLACES = {
    "here": "local",
    "worker": "{name: workers, shared: false}",
    "worker, shared folder": "{name: workers}",
}


def run_sweep(folder: Path, script: str, executor: str, trials: int) -> float:
    """Run a sweep and return the seconds from the start of its first trial to the end of its last one."""
    folder.mkdir()
    (folder / "trial.py").write_text(script)
    (folder / "sweep.yaml").write_text(_CONFIG.format(trials=trials, executor=executor))
    command = [sys.executable, "-m", "runstone_sweeps.cli"]
    environment = {**os.environ, "RUNSTONE_WORKSPACE": str(folder / "home")}
    coordinator = subprocess.Popen(
        [*command, "run", "sweep.yaml"], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    worker = None
    if executor != "local":
        while not (found := list((folder / "home").glob("sweeps/*/workers/port"))):
            time.sleep(0.05)
        options = ["--slots", "2", "--spool", str(folder / "spool"), "--token-file", str(found[0].with_name("token"))]
        worker = subprocess.Popen(
            [*command, "worker", f"tcp://127.0.0.1:{found[0].read_text()}", *options], stderr=subprocess.DEVNULL
        )
    _, errors = coordinator.communicate()
    if worker is not None:
        worker.wait()
    events = [
        json.loads(line)
        for path in (folder / "home").glob("sweeps/*/journal.*.jsonl")
        for line in path.read_text().splitlines()
    ]
    begun = [event["at"] for event in events if event["event"] == "started"]
    ended = [event["at"] for event in events if event["event"] == "told"]
    if len(ended) != trials:
        raise RuntimeError(errors.decode())
    return max(ended) - min(begun)


def latencies_s(folder: Path) -> list[float]:
    """Return what the trials of a sweep measured."""
    return [
        float(line.split()[1])
        for path in (folder / "home").glob("runs/*/*/console.1.log")
        for line in path.read_text().splitlines()
        if line.startswith("latency")
    ]


def main(*, quick: bool = False) -> None:
    """Print both figures for each place."""
    pruned, trivial = (2, 4) if quick else (20, 100)
    print("\nThe floor is the same trials without a worker (here).")
    print(f"{'':24}{'stop word after, ms: median':>30}{'largest':>10}{'trials/s':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, executor) in enumerate(PLACES.items()):
            decided = Path(folder) / f"decided.{number}"
            run_sweep(decided, _DECIDED, executor, pruned)
            found = latencies_s(decided)
            rate = trivial / run_sweep(Path(folder) / f"trivial.{number}", _TRIVIAL, executor, trivial)
            print(f"{name:24}{statistics.median(found) * 1e3:30.1f}{max(found) * 1e3:10.1f}{rate:12.1f}")
