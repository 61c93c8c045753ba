"""The store renamed, deleted or unmounted under a training (F21): it goes on, and what is lost is counted and told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status

TRAINING = """
import json, sys, time, warnings
import runstone
warnings.simplefilter("always")
run = runstone.start_run(run_id="one", workspace="place/store", on_error="warn", environment=False)
def log(first, last):
    for step in range(first, last):
        run.log({"x": float(step), f"new/{step // 1000}": 1.0}, step=step)
        if step % 1000 == 0:
            run.log({"text": f"line {step}"}, step=step)
            run.log_params({f"p{step}": step})
log(0, 5000)
print("ready", flush=True)
sys.stdin.readline()
time.sleep(1.3 if "wait" in sys.argv else 0.0)  # the keeper looks each second
log(5000, 20_000)
run.finish()
print(json.dumps([run.dropped, run.is_finished]))
"""
POINTS = 2 * 20_000 + 20
BACKENDS = ["mmap", "append"]


def training(wait: bool = False) -> str:
    return "import sys\nsys.argv.append('wait')\n" + TRAINING if wait else TRAINING


def whole(folder: Path) -> runstone.RunInfo:
    """Check that a run has all that the training logged."""
    info = runstone.RunInfo(folder)
    assert info.status is Status.FINISHED
    assert info.dropped == 0
    assert np.array_equal(info.series("x").value, np.arange(20_000.0))
    assert sum(len(info.series(f"new/{number}")) for number in range(20)) == 20_000
    assert info.series("text").value.tolist() == [f"line {step}" for step in range(0, 20_000, 1000)]
    assert info.params == {f"p{step}": step for step in range(0, 20_000, 1000)}
    return info


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["the store", "a folder above", "the project"])
def test_store_that_is_renamed_loses_nothing(start: Callable[..., Any], place: Path, backend: str, what: str) -> None:
    program = start(training(), RUNSTONE_LOG=backend)
    program.wait_until_ready()
    before = {"the store": place / "store", "a folder above": place, "the project": place / "store/runs/default"}[what]
    after = before.with_name("elsewhere")
    before.rename(after)
    program.go_on()
    ended = program.end()
    assert (ended.code, json.loads(ended.output), ended.errors) == (0, [0, True], "")
    assert not before.exists()
    (folder,) = after.glob("**/one")
    whole(folder)


@pytest.mark.parametrize("backend", BACKENDS)
def test_store_that_is_deleted_costs_what_was_in_it_and_the_training_is_told(
    start: Callable[..., Any], place: Path, backend: str
) -> None:
    program = start(training(wait=True), RUNSTONE_LOG=backend)
    program.wait_until_ready()
    while (place / "store").exists():  # the keeper may be making a segment in it
        shutil.rmtree(place / "store", ignore_errors=True)
    program.go_on()
    ended = program.end()
    assert ended.code == 0, ended.errors
    assert "Traceback" not in ended.errors
    assert json.loads(ended.output) == [POINTS, True]  # all of them: nobody will ever read what was there before
    warnings = [line for line in ended.errors.splitlines() if "TrackingWarning" in line]
    assert [line.partition("could not record ")[2].partition(":")[0] for line in warnings] == [
        "metrics",
        "params",
        "end",
    ]
    assert not (place / "store").exists()


@pytest.fixture
def mounted(place: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder that is mounted at `place`, which holds the store."""
    beneath = tmp_path / "beneath"
    beneath.mkdir()
    if subprocess.run(["mount", "--bind", beneath, place], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    yield beneath
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_disk_that_is_unmounted_lazily_takes_all_until_the_run_ends(
    start: Callable[..., Any], place: Path, mounted: Path, backend: str
) -> None:
    program = start(training(), RUNSTONE_LOG=backend)
    program.wait_until_ready()
    subprocess.run(["umount", "--lazy", place], check=True)
    assert not (place / "store").exists()
    program.go_on()
    ended = program.end()
    assert (ended.code, json.loads(ended.output), ended.errors) == (0, [0, True], "")
    assert not (place / "store").exists()  # nothing was begun anew on the disk below
    whole(mounted / "store" / "runs" / "default" / "one")
