"""Runs to change, to take elsewhere and to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.workspace import ensure_workspace

Record = Callable[..., str]


def same_points(one: runstone.RunInfo, other: runstone.RunInfo) -> bool:
    """Compare all points; NaN is like NaN."""
    left, right = one.points(), other.points()
    values = [table["value"].to_numpy() for table in (left, right)]
    return left.drop_columns("value").equals(right.drop_columns("value")) and np.array_equal(*values, equal_nan=True)


@pytest.fixture
def workspace(home: Path) -> runstone.Workspace:
    return ensure_workspace(home)


@pytest.fixture
def record(workspace: runstone.Workspace) -> Record:
    """Record a run that has ended, and return its id."""

    def record_one(
        name: str = "amber", *, points: int = 20, project: str = "digits", artifact: bytes = b"", **options: object
    ) -> str:
        with runstone.start_run(
            project=project,
            name=name,
            workspace=workspace,
            environment=False,
            **options,  # type: ignore[arg-type]
        ) as run:
            for step in range(points):
                run.log({"loss": 1.0 / (step + 1), "seen": step}, step=step)
            if artifact:
                file = workspace.path.parent / "weights.bin"
                file.write_bytes(artifact)
                run.log_artifact(file)
        return run.id

    return record_one
