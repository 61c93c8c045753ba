"""The sets of runs that the page is measured with, always the same: S, L, T, M, W, and a hundred runs of one chart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import runstone

SMALL_STEPS = 1000


def seed_small(home: Path, *, runs: int = 10, metrics: int = 20, project: str = "S") -> None:
    """S: 10 runs of 20 metrics of 1,000 points."""
    rng = np.random.default_rng(0)
    for k in range(runs):
        with runstone.start_run(project=project, name=f"run-{k}", workspace=home, environment=False) as run:
            for m in range(metrics):
                run.log_series(f"metric_{m:02}", np.arange(SMALL_STEPS), np.cumsum(rng.standard_normal(SMALL_STEPS)))


def seed_hundred(home: Path) -> None:
    """Make 100 runs of one metric of 1,000 points: one chart of 100 lines."""
    seed_small(home, runs=100, metrics=1, project="H")


def seed_many(home: Path, *, runs: int = 1000, params: int = 20, metrics: int = 30, points: int = 50) -> None:
    """L: 1,000 runs of 20 params and 30 metrics."""
    rng = np.random.default_rng(1)
    steps = np.arange(points)
    for k in range(runs):
        given = {f"p{p:02}": float(rng.random()) for p in range(params)}
        with runstone.start_run(
            project="L", name=f"run-{k:04}", params=given, workspace=home, environment=False
        ) as run:
            for m in range(metrics):
                run.log_series(f"g{m % 5}/m{m:02}", steps, rng.standard_normal(points))
    _take_in(home)


def seed_table(home: Path, *, runs: int = 10_000, params: int = 29) -> None:
    """T: 10,000 runs; with the name 30 columns can be shown of them."""
    rng = np.random.default_rng(2)
    for k in range(runs):
        given = {"k": k, **{f"p{p:02}": round(float(rng.random()), 6) for p in range(1, params)}}
        with runstone.start_run(project="T", name=f"run-{k:05}", params=given, workspace=home, environment=False):
            pass
    _take_in(home)


def seed_long(home: Path, *, series: int = 20, points: int = 1_000_000) -> None:
    """M: 20 series of a million points each, with one spike; sealed, as runs are once they have ended."""
    rng = np.random.default_rng(3)
    steps = np.arange(points)
    with runstone.start_run(project="M", name="long", workspace=home, environment=False) as run:
        for m in range(series):
            value = rng.standard_normal(points)
            value[points // 3 + m] = 100.0
            run.log_series(f"metric_{m:02}", steps, value)
    runstone.open_workspace(home).seal(run.id)


def seed_wide(home: Path, *, metrics: int = 1000) -> None:
    """W: one run of 1,000 metrics."""
    with runstone.start_run(project="W", name="wide", workspace=home, environment=False) as run:
        for step in range(3):
            run.log({f"metric_{m:04}": float(m + step) for m in range(metrics)}, step=step)


def _take_in(home: Path) -> None:
    """Let the index read the runs, as it has on a machine where they were made over weeks."""
    runstone.open_workspace(home).runs(limit=1)
