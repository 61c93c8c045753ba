"""Workspaces that the page is looked at with: small, always the same, with everything strange in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import runstone

OPTIMISERS = ("adam", "sgd", "rmsprop")
METRICS = ("train/loss", "train/acc", "val/loss", "val/acc", "lr")
HOSTILE = "<script>document.title='broken'</script>"


def seed_usual(path: Path, *, runs: int = 12, steps: int = 300) -> list[str]:
    """Make `digits` with some runs, `strange` with what is seldom, and return the ids of `digits`."""
    rng = np.random.default_rng(7)
    ids = []
    for k in range(runs):
        optimiser = OPTIMISERS[k % 3]
        params = {
            "lr": 10.0 ** -(2 + k % 3),
            "optimizer": {"name": optimiser, "momentum": 0.9},
            "layers": [64, 32],
            "depth": 2 + k % 4,
            "seed": k,
        }
        with runstone.start_run(
            project="digits",
            name=f"{optimiser}-{k}",
            params=params,
            tags={"owner": "ada" if k % 2 else "grace"},
            workspace=path,
            environment=False,
        ) as run:
            rate = 0.5 + 0.2 * (k % 5)
            at = np.arange(steps)
            fall = np.exp(-at / steps * 4 * rate)
            series = {
                "train/loss": 2.3 * fall + 0.05 + 0.06 * rng.standard_normal(steps) * fall,
                "train/acc": 1 - 0.9 * fall + 0.01 * rng.standard_normal(steps),
                "val/loss": 2.3 * fall + 0.15 + 0.03 * rng.standard_normal(steps) + 0.1 * at / steps * (k % 3),
                "val/acc": 0.95 - 0.85 * fall + 0.01 * rng.standard_normal(steps),
                "lr": params["lr"] * (0.5 + 0.5 * np.cos(at / steps * math.pi)),
            }
            for name, values in series.items():
                run.log_series(name, at, values)
            run.log_series("epoch", at, at // 30)
            if k == 0:
                run.log_text("notes", "first words", step=1)
                config = run.path.parent / "config.json"
                config.write_text('{"lr": 0.01, "layers": [64, 32]}')
                run.log_artifact(config, name="config")
            run.set_notes(f"Run number {k}")
        ids.append(run.id)
    seed_strange(path)
    return ids


def seed_strange(path: Path) -> None:
    """Make the project `strange`: one spike among many points, NaN, infinities, values of 0 and less, hostile names."""
    with runstone.start_run(project="strange", name="spike", workspace=path, environment=False) as run:
        at = np.arange(200_000)
        value = 0.01 * np.random.default_rng(1).standard_normal(len(at))
        value[123_456] = 10.0
        run.log_series("spiky", at, value)
        few = np.sin(np.arange(500) / 30)
        few[[100, 101, 250]] = math.nan
        few[300], few[320] = math.inf, -math.inf
        run.log_series("gaps", np.arange(500), few)
        run.log_series("around zero", np.arange(100), np.linspace(-1, 1, 100))
    with runstone.start_run(
        project="strange",
        name=HOSTILE,
        tags={"<b>tag": '"><img src=x onerror=alert(1)>'},
        params={"<i>": "<u>x</u>"},
        workspace=path,
        environment=False,
    ) as run:
        run.log_series('"><img src=x onerror=alert(1)>', np.arange(10), np.arange(10.0))
        run.set_notes(HOSTILE)
    with runstone.start_run(
        project="strange", name="resumed", run_id="resumed-run", workspace=path, environment=False
    ) as run:
        for step in range(60):
            run.log({"loss": 1 / (step + 1)}, step=step)
    with runstone.start_run(project="strange", run_id="resumed-run", workspace=path, environment=False) as run:
        for step in range(40, 100):
            run.log({"loss": 1 / (step + 1) + 0.1}, step=step)
    with runstone.start_run(project="strange", name="steps back", workspace=path, environment=False) as run:
        for step in [*range(50), *range(30, 80)]:
            run.log({"loss": float(step)}, step=step)
