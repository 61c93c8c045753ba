"""The benchmarks run. Their figures are not looked at: tests check behaviour, not time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import runstone
from benchmarks.__main__ import BY_THEMSELVES, NAMES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "floor" in result.stdout


def test_points_of_every_kind_have_a_price() -> None:
    from benchmarks import log_call

    with runstone.start_run(environment=False) as run:
        for record in log_call._points_of_other_kinds(run).values():
            record(40)
    found = run.read()
    assert {name: metric.count for name, metric in found.metrics.items() if metric.count == 40} == dict.fromkeys(
        {*found.metrics} - {*log_call.METRICS, *log_call.TWENTY}, 40
    )
    assert {found.metrics[name].count for name in log_call.METRICS} == {8}
    assert {found.metrics[name].count for name in log_call.TWENTY} == {2}
    assert len(found.series("text")) == 40


def test_every_benchmark_is_listed() -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")} - {"measure"}
    assert files == {*NAMES, *BY_THEMSELVES}
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in NAMES)
    assert all(f"python -m benchmarks.{name}" in readme for name in BY_THEMSELVES)
