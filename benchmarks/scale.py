"""What stays usable when a run is large: many points, many names; the sealed size; plots of long series."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import runstone
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.zoom import zoom


def main(*, quick: bool = False) -> None:
    """Measure and print. `RUNSTONE_BENCH_POINTS` and `RUNSTONE_BENCH_NAMES` change the sizes."""
    points = 20_000 if quick else int(os.environ.get("RUNSTONE_BENCH_POINTS", "10000000"))
    names = 500 if quick else int(os.environ.get("RUNSTONE_BENCH_NAMES", "100000"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".runstone"
        print("\nSealed size (10 metrics logged together, float32 losses; the floor is the live log's 32 bytes)")
        _size(home, 200 if quick else 100_000)
        print(f"\nA run of {points:,} points of one metric")
        _long_series(home, points)
        print(f"\nA run of {names:,} names, one point each")
        _names(home, names)
    print(f"  largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def _timed(what: str, start: float, note: str = "") -> None:
    print(f"  {what:<44} {time.perf_counter() - start:10.3f} s  {note}")


def _size(home: Path, steps: int) -> None:
    rng = np.random.default_rng(0)
    losses = (np.exp(-np.arange(steps) / steps)[:, None] + rng.normal(0, 0.02, (steps, 10))).astype(np.float32)
    moments = iter((1.7e9 + np.cumsum(rng.gamma(2, 0.05, steps))).tolist())
    from runstone.runlog.writer import RunLog  # with a clock of our own: a tight loop has no times worth packing

    folder = runstone.ensure_workspace(home).make_run_folder("bench", "size")
    log = RunLog(
        folder, clock=lambda: next(moments, 2e9), created={"run_id": "size", "project": "bench", "name": "size"}
    )
    for step, row in enumerate(losses.tolist()):
        log.points.log({f"m{number}": value for number, value in enumerate(row)}, step)
    log.close()
    start = time.perf_counter()
    sealing = seal(folder)
    assert sealing is not None
    _timed(
        "seal",
        start,
        f"{sealing.bytes_after / sealing.points:.2f} bytes a point; before {sealing.bytes_before / sealing.points:.1f}",
    )


def _long_series(home: Path, points: int) -> None:
    rng = np.random.default_rng(0)
    run = runstone.start_run(workspace=home, run_id="long", environment=False)
    handle = run.metric("loss")
    start = time.perf_counter()
    for first in range(0, points, 100_000):
        for value in rng.standard_normal(min(100_000, points - first)).tolist():
            handle(value)
    _timed("log", start, f"{points / (time.perf_counter() - start):,.0f} points a second, drawing them included")
    run.finish()
    for state in ("live", "sealed"):
        if state == "sealed":
            start = time.perf_counter()
            sealing = seal(run.path)
            assert sealing is not None
            _timed("seal", start, f"{sealing.bytes_after / sealing.points:.2f} bytes a point, levels included (noise)")
        start = time.perf_counter()
        log = MetricLog(run.path)
        zoom(log, "loss", buckets=2000)
        _timed(f"{state}: open and first zoom of 2,000 buckets", start)
        worst = 0.0
        for share in (1.0, 0.5, 0.1, 0.01):
            best = min(_zoom_s(log, points, share) for _ in range(5))
            worst = max(worst, best)
        print(f"  {state + ': zooms to 100, 50, 10 and 1 %, slowest':<44} {worst * 1000:10.1f} ms")
    start = time.perf_counter()
    count = len(runstone.RunInfo(run.path).series("loss"))
    _timed("sealed: read all", start, f"{count:,} points")


def _zoom_s(log: MetricLog, points: int, share: float) -> float:
    first = int(points * (1 - share) / 3)
    start = time.perf_counter()
    zoom(log, "loss", buckets=2000, first=first, last=first + int(points * share) - 1)
    return time.perf_counter() - start


def _names(home: Path, names: int) -> None:
    run = runstone.start_run(workspace=home, run_id="names", environment=False)
    start = time.perf_counter()
    for number in range(names):
        run.log({f"metric {number}": 1.0}, step=0)
    _timed("log", start, f"{(time.perf_counter() - start) / names * 1e6:.1f} µs a new name")
    run.finish()
    start = time.perf_counter()
    listed = len(MetricLog(run.path).names)
    _timed("list the names", start, f"{listed:,}")
    start = time.perf_counter()
    seal(run.path)
    _timed("seal", start)
    start = time.perf_counter()
    MetricLog(run.path).series(f"metric {names // 2}")
    _timed("sealed: open and read one", start)
