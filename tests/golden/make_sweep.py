"""Writes the golden sweep of this version's format: `python tests/golden/make_sweep.py FOLDER`.

Run it once for a release that changes the format of sweeps, commit the folder, and never change a committed one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import runstone
from runstone_sweeps import Sweep
from runstone_sweeps.record.journal import read_events
from runstone_sweeps.store import Sweeps

CONFIG: dict[str, Any] = {
    "name": "golden sweep ✓",
    "project": "golden",
    "parameters": {
        "x": {"min": -1.0, "max": 1.0},
        "net": {"parameters": {"width": {"values": [[8], [8, 8]]}, "depth": {"min": 1, "max": 4}}},
        "kind": {"value": "golden"},
    },
    "metric": {"name": "loss", "goal": "minimize"},
    "pruner": {"name": "threshold", "upper": 1.45},
    "trials": 9,
    "parallel": 2,
    "retries": 1,
    "seed": 7,
}


def objective(params: dict[str, Any]) -> None:
    """Complete, be pruned, fail, crash once, or take until someone stops the sweep: by the number of the trial."""
    run = runstone.current_run()
    assert run is not None
    number = int(run.name.rpartition("-")[2])
    if number == 1:
        raise ValueError("bad luck in 1")
    if number == 4 and run.attempt == 1:
        run.log({"loss": 1.0}, step=0)
        os.kill(os.getpid(), 9)
    steps = 9999 if number >= 6 else 4
    for step in range(steps):
        run.log({"loss": params["x"] ** 2 + 1 / (step + 1), "extra": step}, step=step)
        if run.should_stop:
            return
        time.sleep(0.03)


def make(home: Path) -> None:
    """Write one sweep that was stopped before its end."""
    os.chdir("/")  # the only folder that is there wherever the golden sweep is read
    workspace = runstone.ensure_workspace(home)

    def stop() -> None:
        while True:
            for folder in Sweeps(workspace):
                told = sum(event["event"] == "told" for event in read_events(folder.path)[0])
                if told >= 6 and any(t.number >= 6 and t.reports for t in folder.read().trials.values()):
                    folder.request_stop()
                    return
            time.sleep(0.05)

    stopper = threading.Thread(target=stop)
    sweep = Sweep(CONFIG, objective, workspace=workspace)
    # The supervisor is forked at once, before there is a thread.
    threading.Timer(1.0, stopper.start).start()
    sweep.run(show_progress=False)
    stopper.join()
    for snapshot in home.rglob("environment.*.json"):  # of the machine on which this ran
        snapshot.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
