"""`runstone env`: this machine and a run's, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import runstone
from runstone.capture import start_background


def runstone_env(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command, and return what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "runstone.cli.main", "env", *arguments],
        env=dict(os.environ) | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_machine_is_shown_in_groups() -> None:
    done = runstone_env()
    assert done.returncode == 0, done.stderr
    titles = [line for line in done.stdout.splitlines() if line and not line.startswith((" ", "This", "--json"))]
    assert titles[:8] == ["Process", "Code", "Python", "GPU", "CPU and memory", "Limits", "Disk", "System"]
    assert f"CPython  {sys.version.split()[0]}" in done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())


def test_json_is_the_snapshot_and_nothing_else() -> None:
    done = runstone_env("--json")
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert found["schema"] == 1
    assert found["process"]["argv"][-2:] == ["env", "--json"]
    assert found["why"]["writer"] == "absent: this snapshot belongs to no run"


def test_gpus_are_shown_with_what_is_missing(tmp_path: Path, fakenvml: Path) -> None:
    (tmp_path / "nvml.conf").write_text(
        "count 3\ngpu0.nvlinks 2\ngpu1.mig_count 1\ngpu2.lost 1\ngpu0.power_limit_mw 300000\n"
    )
    environment = {
        "FAKENVML": str(tmp_path / "nvml.conf"),
        "LD_LIBRARY_PATH": str(fakenvml),
        "CUDA_VISIBLE_DEVICES": "MIG-fake-1-0",
    }
    shown = runstone_env(environment=environment).stdout
    assert "NVIDIA Fake H100 80GB, 80.0 GiB, Hopper 9.0, 300 of 700 W" in shown
    assert "NVLink 2 of 2" in shown
    assert "instance 0  MIG-fake-1-0  10.0 GiB" in shown
    assert "error: GPU is lost (NVML 15)" in shown
    assert "0 → GPU 1 instance 0" in shown


def test_text_of_the_machine_cannot_steer_the_terminal() -> None:
    done = runstone_env(environment={"OMP_PLACES": "\x1b[31mred\x1b[0m"})
    assert "\x1b" not in done.stdout
    assert "red" in done.stdout


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    """Return the id of a run whose environment is written."""
    with runstone.start_run(project="p", name="noted", environment=False) as run:
        pass
    writer = next(run.path.glob("journal.*.jsonl")).name.split(".")[1]
    work = start_background(run.path, writer)
    assert work.join()
    assert work.error is None
    return run.id


def test_run_shows_what_it_recorded(run_id: str) -> None:
    shown = runstone_env("noted").stdout
    assert shown.startswith("Run noted  ")
    stored = json.loads(runstone_env("--json", run_id).stdout)
    assert stored["process"]["pid"] == os.getpid()
    assert stored["disk"]["store"]["path"].endswith(run_id)


def test_run_without_environment_says_so() -> None:
    with runstone.start_run(project="p", name="bare", environment=False):
        pass
    done = runstone_env("bare")
    assert done.returncode == 1
    assert "run 'bare' has no environment" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_that_is_not_there_is_one_line(run_id: str) -> None:
    done = runstone_env("nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
