"""Make `monitoring-1`: a check of format 1 with its report and its batch. Run once, when a format is released.

`python -m tests.golden.make_monitoring FOLDER`. What it makes is never made again: it stays what a release wrote.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import runstone
from runstone.monitoring import Profile, Reference, check, profile_of

NAME = "golden"


def frame(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Return numbers, categories with values that are not there, and a label."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": draw.normal(shift, 1, rows),
            "count": draw.integers(0, 5, rows),
            "kind": [None if row % 17 == 0 else "aä☃"[row % 3] for row in range(rows)],
            "label": draw.integers(0, 2, rows),
        }
    )


def main(target: Path) -> None:
    """Write the folder."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / ".runstone"
        (Path(place) / "weights").write_text("w")
        data = frame(400, 1)
        with runstone.start_run(workspace=home, environment=False) as run:
            run.log_model(str(Path(place) / "weights"), name=NAME, profile=Reference(data, labels="label"))
        workspace = runstone.open_workspace(home)
        found = check(f"{NAME}@1.0.0", frame(120, 2, 1.0), workspace=workspace)
        profile: Profile = profile_of(workspace, workspace.models.find(f"{NAME}@1.0.0"))
        shutil.copytree(home / "monitoring", target)
        (target / "profile.json").write_bytes(profile.to_bytes())
        told = {"id": found.check.id if found.check else None, "psi": _psi(found.report.to_dict())}
        (target / "expected.json").write_text(json.dumps(told, indent=1) + "\n")


def _psi(report: dict[str, object]) -> dict[str, float]:
    features: list[dict[str, object]] = report["features"]  # type: ignore[assignment]
    return {str(one["name"]): one["distance"]["psi"] for one in features if one["distance"]}  # type: ignore[index]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
