"""What a power cut takes: at most what came after the last sync. On a real file system; needs root and loop devices."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("powercut.py")


def cut(*arguments: str) -> dict[str, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE_")}
    command = [sys.executable, str(SCRIPT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if result.returncode and "mount" in result.stderr:
        pytest.skip("loop devices cannot be mounted here")
    assert result.returncode == 0, result.stderr
    totals: dict[str, int] = json.loads(result.stdout)
    return totals


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and mkfs.ext4")
@pytest.mark.soak
def test_a_power_cut_loses_nothing_that_is_older_than_the_sync() -> None:
    """The promise is one second; a loaded machine gets another one here, `make soak` demands the promise."""
    is_soak = os.environ.get("RUNSTONE_SOAK") == "1"
    totals = cut("--cuts", "12", "--age", "1.0") if is_soak else cut("--cuts", "2", "--age", "2.0")
    assert totals["found"] > 0
    assert (totals["old_lost"], totals["wrong"]) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and mkfs.ext4")
def test_the_power_cut_check_can_fail() -> None:
    assert cut("--cuts", "2", "--age", "0.0")["old_lost"] > 0
