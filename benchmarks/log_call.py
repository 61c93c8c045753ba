"""The price of recording a point: `run.log` with 5 metrics, a bound handle, against the bare stores that it makes."""

from __future__ import annotations

import mmap
import struct
import tempfile
from pathlib import Path

import runstone
from benchmarks.measure import best_of, show

METRICS = {"train/loss": 0.1, "train/acc": 0.2, "val/loss": 0.3, "val/acc": 0.4, "lr": 0.5}


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
        run.finish()
