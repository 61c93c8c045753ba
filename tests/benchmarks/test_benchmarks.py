"""The benchmarks run. Their figures are not looked at: tests check behaviour, not time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "floor" in result.stdout


def test_every_benchmark_is_listed() -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "__main__", "measure"}
    assert files == set(NAMES)
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in NAMES)
