"""Runs whose charts must show what was logged: other places, groups, attempts, forks, spikes, what is no number."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import runstone

SPIKE_AT, SPIKE_POINTS = 654_321, 1_000_000
MEMBERS, MEMBER_STEPS = 255, 30  # of each of the two groups: together more than one question may name
LONG = 5000  # steps of a run whose curve comes in buckets


def members() -> dict[str, NDArray[np.float64]]:
    """Return the values of two groups, shape `(MEMBERS, MEMBER_STEPS)` each, always the same; one is NaN."""
    rng = np.random.default_rng(5)
    found = {kind: rng.standard_normal((MEMBERS, MEMBER_STEPS)) + off for kind, off in (("a", 0.0), ("b", 8.0))}
    found["a"][3, 7] = math.nan
    return found


def seed_truth(path: Path) -> None:
    """Make the projects `truth` (one run a subject), `axes` (two runs with other steps), `groups` and `restarts`."""
    rng = np.random.default_rng(1)
    with runstone.start_run(project="truth", name="spike", run_id="spike", workspace=path, environment=False) as run:
        value = 0.01 * rng.standard_normal(SPIKE_POINTS)
        value[SPIKE_AT] = 10.0
        run.log_series("spiky", np.arange(SPIKE_POINTS), value)
    with runstone.start_run(project="truth", name="gaps", run_id="gaps", workspace=path, environment=False) as run:
        few = np.sin(np.arange(500) / 30)
        few[[100, 101, 250]] = math.nan
        few[300], few[320] = math.inf, -math.inf
        run.log_series("gaps", np.arange(500), few)
        run.log_series("around zero", np.arange(100), np.linspace(-1, 1, 100))
        run.log_series("tall", np.arange(100), np.linspace(0, 50, 100))
        run.log_series("part/low", np.arange(100), np.linspace(0, 1, 100))
        run.log_series("part/high", np.arange(100), np.linspace(5, 9, 100))
    with runstone.start_run(project="truth", name="long", run_id="long", workspace=path, environment=False) as run:
        run.log_series("walk", np.arange(LONG), np.cumsum(rng.standard_normal(LONG)))
    _seed_axes(path)
    for kind, rows in members().items():
        for k, row in enumerate(rows):
            with runstone.start_run(
                project="groups", name=f"{kind}-{k}", params={"kind": kind}, workspace=path, environment=False
            ) as run:
                run.log_series("score", np.arange(MEMBER_STEPS), row)
    _seed_restarts(path)
    runstone.open_workspace(path).runs(limit=1)  # the index reads them


def _seed_axes(path: Path) -> None:
    """`left` logs each step, `right` each third one, further on and in two attempts with a pause between them."""
    with runstone.start_run(project="axes", name="left", run_id="left", workspace=path, environment=False) as run:
        for step in range(40):
            row = {"loss": math.exp(-step / 15), "epoch": step // 10, "seen": 64.0 * step, "cost": 2.0 ** (step / 8)}
            run.log(row, step=step)
            time.sleep(0.004)
    for attempt in range(2):
        with runstone.start_run(project="axes", name="right", run_id="right", workspace=path, environment=False) as run:
            for k in range(attempt * 15, attempt * 15 + 15):
                row = {"loss": 0.4 + 0.3 * math.cos(k / 3), "epoch": k / 6, "seen": 100.0 * k + 50, "cost": 3.0 + k}
                run.log(row, step=20 + 3 * k)
                time.sleep(0.008)
        time.sleep(0.3)


def _seed_restarts(path: Path) -> None:
    def attempt(run_id: str, steps: list[int], off: float, parent: str | None = None) -> None:
        with runstone.start_run(
            project="restarts", run_id=run_id, name=run_id, parent=parent, workspace=path, environment=False
        ) as run:
            for step in steps:
                run.log({"loss": 1 / (step + 1) + off, "accuracy": 0.01 * step}, step=step)

    attempt("resumed", list(range(60)), 0.0)
    attempt("resumed", list(range(40, 100)), 0.1)
    attempt("forked", list(range(30, 80)), 0.3, parent="resumed")
    attempt("goes-back", [*range(50), *range(30, 80)], 0.5)
    attempt("repeats", [0, 1, 2, 2, 2, 3, 4, 5, 5, 6], 0.0)
