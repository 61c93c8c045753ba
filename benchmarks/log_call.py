"""The price of recording a point: `run.log` and its kin, against the bare stores that they make; and of a whole run."""

from __future__ import annotations

import importlib.util
import mmap
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import runstone
from benchmarks.measure import best_of, show
from runstone.runlog.seal import seal

METRICS = {"train/loss": 0.1, "train/acc": 0.2, "val/loss": 0.3, "val/acc": 0.4, "lr": 0.5}
TWENTY = {f"metric {number}": number / 7 for number in range(20)}
NESTED = {"train": {"loss": 0.1, "acc": 0.2}, "val": {"loss": 0.3, "acc": 0.4}, "lr": 0.5}
SERIES = 10_000


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    calls, rounds = (200, 2) if quick else (20_000, 40)
    store = struct.Struct("<qddII").pack_into
    with tempfile.TemporaryDirectory() as folder:
        page = mmap.mmap(-1, 4096)
        run = runstone.start_run(workspace=Path(folder) / ".runstone", environment=False)
        handle, log = run.metric("handle"), run.log

        def nothing(count: int) -> None:
            for _step in range(count):
                pass

        def one_store(count: int) -> None:
            for step in range(count):
                store(page, 0, step, 0.1, 0.2, 1, 7)

        def five_stores(count: int) -> None:
            for step in range(count):
                store(page, 0, step, 0.1, 0.2, 1, 7)
                store(page, 32, step, 0.1, 0.2, 1, 7)
                store(page, 64, step, 0.1, 0.2, 1, 7)
                store(page, 96, step, 0.1, 0.2, 1, 7)
                store(page, 128, step, 0.1, 0.2, 1, 7)

        def five_appended(count: int) -> None:
            points: list[tuple[int, float, str, float]] = []
            for step in range(count):
                for name, value in METRICS.items():
                    points.append((step, 0.1, name, value))

        def log_one(count: int) -> None:
            for step in range(count):
                log({"train/loss": 0.1}, step=step)

        def log_five(count: int) -> None:
            for step in range(count):
                log(METRICS, step=step)

        def call_handle(count: int) -> None:
            for step in range(count):
                handle(0.5, step=step)

        def ask_to_stop(count: int) -> None:
            for _step in range(count):
                if run.should_stop:
                    return

        five = {
            "five bare stores": five_stores,
            "five list appends (lost at a kill)": five_appended,
            "run.log, 5 metrics": log_five,
        }
        one = {
            "one bare store": one_store,
            "an empty loop": nothing,
            "handle(value)": call_handle,
            "run.log, 1 metric": log_one,
            "run.should_stop": ask_to_stop,
        }
        show(
            "A step of 5 metrics",
            best_of(five, calls=calls, rounds=rounds),
            floor="five bare stores",
            unit_s=1e-6,
            unit="µs",
        )
        show("One point", best_of(one, calls=calls, rounds=rounds), floor="one bare store", unit_s=1e-6, unit="µs")
        kinds = {"one bare store": one_store, **_points_of_other_kinds(run)}
        best = best_of(kinds, calls=calls, rounds=max(1, rounds // 4))
        show("A point of other kinds, each a point", best, floor="one bare store", unit_s=1e-6, unit="µs")
        run.finish()
        _whole_run(Path(folder), five_stores, steps=200 if quick else 200_000, rounds=1 if quick else 3)


def _points_of_other_kinds(run: runstone.Run) -> dict[str, Callable[[int], None]]:
    """Return what records so many points, of each kind."""
    steps, values = np.arange(SERIES), np.random.default_rng(0).standard_normal(SERIES)

    def log_series(count: int) -> None:
        for first in range(0, count, SERIES):
            size = min(SERIES, count - first)
            run.log_series("series", steps[:size], values[:size])

    def calls_of(metrics: dict[str, Any], points: int) -> Callable[[int], None]:
        def log_all(count: int) -> None:
            log = run.log
            for step in range(count // points):
                log(metrics, step=step)

        return log_all

    kinds = {
        f"run.log_series, {SERIES:,} points a call": log_series,
        "run.log, 1 int": calls_of({"int": 7}, 1),
        "run.log, 1 bool": calls_of({"bool": True}, 1),
        "run.log, 1 text": calls_of({"text": "warm-up"}, 1),
        "run.log, 20 metrics a call": calls_of(TWENTY, 20),
        "run.log, 5 metrics, nested": calls_of(NESTED, 5),
        "run.log, 1 NumPy scalar": calls_of({"scalar": np.float32(0.5)}, 1),
        "run.log, 1 NumPy array of 0 dimensions": calls_of({"array": np.array(0.5)}, 1),
    }
    if importlib.util.find_spec("torch") is not None:
        import torch  # slow to load, and optional

        kinds["run.log, 1 torch tensor on the CPU"] = calls_of({"tensor": torch.tensor(0.5)}, 1)
    return kinds


def _whole_run(folder: Path, five_stores: Callable[[int], None], *, steps: int, rounds: int) -> None:
    """Print how fast a run of 5 metrics a step is from its first call to the end of `finish`, and how large."""
    floor_s, best_s, size, sealed = float("inf"), float("inf"), 0, 0
    for number in range(rounds):
        start = time.perf_counter()
        five_stores(steps)
        floor_s = min(floor_s, time.perf_counter() - start)
        run = runstone.start_run(workspace=folder / ".runstone", run_id=f"whole-{number}", environment=False)
        start = time.perf_counter()
        for step in range(steps):
            run.log(METRICS, step=step)
        run.finish()
        best_s = min(best_s, time.perf_counter() - start)
        size = _size_of(run.path)
        seal(run.path)
        sealed = _size_of(run.path)
    points = steps * len(METRICS)
    print(f"\nA run of {points:,} points, 5 metrics a step, to the end of finish")
    print(f"  {points / floor_s:14,.0f} points a second  five bare stores (floor)")
    print(f"  {points / best_s:14,.0f} points a second  {best_s / floor_s:.2f} × floor")
    print(f"  {size / points:14.2f} bytes a point      as it was written (floor: 32)")
    print(f"  {sealed / points:14.2f} bytes a point      sealed (values that repeat; see scale for losses)")


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
