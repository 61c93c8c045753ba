"""A workspace whose names try to pass for markup."""

from __future__ import annotations

from pathlib import Path

import pytest

import runstone

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reports") / ".runstone"
    for number in range(6):
        with runstone.start_run(
            project="p",
            name=f"{EVIL}-{number}" if number == 5 else f"run-{number}",
            params={"model": "ab"[number % 2], "seed": number // 2, EVIL: number, "lr": 10.0**-number},
            tags={EVIL: EVIL, "sweep": "search"},
            group="sweep-1" if number < 4 else EVIL,
            notes=EVIL,
            workspace=home,
            environment=False,
        ) as run:
            for step in range(5):
                metrics = {"val/acc": step / 10 + number / 100 + number % 2, EVIL: 1.0, "loss": 1.0 / (step + 1)}
                run.log(metrics, step=step)
    return home


@pytest.fixture
def workspace(made: Path) -> runstone.Workspace:
    return runstone.open_workspace(made)
