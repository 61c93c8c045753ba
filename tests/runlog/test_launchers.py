"""Runs that one process launches share a keeper."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import runstone
from runstone.runlog.liveness import read_status


def _keepers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("runstone-launchers", "runstone-keeper")]


def _beat(path: Path) -> float:
    (status,) = path.glob("*.status")
    found = read_status(status)
    assert found is not None
    return found.beat


def test_all_launched_runs_are_kept_alive_by_one_thread(tmp_path: Path) -> None:
    workspace = runstone.ensure_workspace(tmp_path)
    launched = [workspace.create_run(project="p") for _ in range(20)]
    first = [_beat(run.path) for run in launched]
    assert _keepers() == ["runstone-launchers"]
    deadline = time.monotonic() + 10
    while not all(_beat(run.path) > beat for run, beat in zip(launched, first, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for run in launched:
        run.end("finished")
    ended = [_beat(run.path) for run in launched]
    deadline = time.monotonic() + 10
    while _keepers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [_beat(run.path) for run in launched] == ended


def test_a_launcher_that_comes_after_the_thread_has_ended_is_kept_alive(tmp_path: Path) -> None:
    workspace = runstone.ensure_workspace(tmp_path)
    for _ in range(2):
        launched = workspace.create_run(project="p")
        first, deadline = _beat(launched.path), time.monotonic() + 10
        while _beat(launched.path) == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        launched.close()
        while _keepers():
            assert time.monotonic() < deadline
            time.sleep(0.05)
