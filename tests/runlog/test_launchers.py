"""Runs that one process launches share a keeper. Each test has a process of its own, whose threads are all known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRELUDE = """
import pathlib, sys, threading, time
import runstone
from runstone.runlog.liveness import read_status

workspace = runstone.ensure_workspace(sys.argv[1])

def keepers():
    names = ("runstone-launchers", "runstone-keeper")
    return [thread.name for thread in threading.enumerate() if thread.name in names]

def beat(run):
    (status,) = run.path.glob("*.status")
    return read_status(status).beat

def until(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""


def run(program: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + program, str(home)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_all_launched_runs_are_kept_alive_by_one_thread(tmp_path: Path) -> None:
    run(
        """
launched = [workspace.create_run(project="p") for _ in range(20)]
first = [beat(run) for run in launched]
assert keepers() == ["runstone-launchers"], keepers()
until(lambda: all(beat(run) > before for run, before in zip(launched, first)))
for run in launched:
    run.end("finished")
ended = [beat(run) for run in launched]
until(lambda: not keepers())
assert [beat(run) for run in launched] == ended
""",
        tmp_path,
    )


def test_a_launcher_that_comes_after_the_thread_has_ended_is_kept_alive(tmp_path: Path) -> None:
    run(
        """
for _ in range(2):
    launched = workspace.create_run(project="p")
    first = beat(launched)
    until(lambda: beat(launched) > first)
    launched.close()
    until(lambda: not keepers())
""",
        tmp_path,
    )
