"""What stays usable when a run is large: many points, many names; the sealed size; plots of long series.

Each role (the run that writes, who seals it, who reads it) is a process of its own, so that its memory is told apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

import runstone

_METRICS = 10
_ROWS = 10_000
Answer = TypeVar("Answer")


def main(*, quick: bool = False) -> None:
    """Measure and print. `RUNSTONE_BENCH_POINTS` and `RUNSTONE_BENCH_NAMES` change the sizes."""
    points = 20_000 if quick else int(os.environ.get("RUNSTONE_BENCH_POINTS", "10000000"))
    names = 500 if quick else int(os.environ.get("RUNSTONE_BENCH_NAMES", "100000"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".runstone"
        print("\nSealed size (10 metrics logged together, float32 losses; the floor is the live log's 32 bytes)")
        _size(home, 200 if quick else 100_000)
        print(f"\nA run of {points:,} points: half are of one metric, half of {_METRICS} that are logged together")
        _roles(home, points, "write_points", "read_live", "seal_points", "read_sealed")
        shutil.rmtree(home)
        print(f"\nA run of {names:,} names, one point each")
        _roles(home, names, "write_names", "read_names", "ask", "seal_names", "read_names", "ask")


def _roles(home: Path, size: int, *roles: str) -> None:
    for role in roles:
        subprocess.run([sys.executable, "-m", "benchmarks.scale", role, str(home), str(size)], check=True)


def _timed(what: str, action: Callable[[], Answer], note: Callable[[Answer], str] = lambda _answer: "") -> Answer:
    cpu, start = time.process_time(), time.perf_counter()
    answer = action()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"  {what:<52} {wall:10.3f} s  {cpu:9.3f} s CPU  {note(answer)}")
    return answer


def _best_ms(what: str, action: Callable[[], object]) -> None:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    print(f"  {what:<52} {best * 1e3:10.1f} ms, best of 5")


def _size(home: Path, steps: int) -> None:
    rng = np.random.default_rng(0)
    losses = (np.exp(-np.arange(steps) / steps)[:, None] + rng.normal(0, 0.02, (steps, 10))).astype(np.float32)
    moments = iter((1.7e9 + np.cumsum(rng.gamma(2, 0.05, steps))).tolist())
    from runstone.runlog.seal import seal
    from runstone.runlog.writer import RunLog  # with a clock of our own: a tight loop has no times worth packing

    folder = runstone.ensure_workspace(home).make_run_folder("bench", "size")
    log = RunLog(
        folder, clock=lambda: next(moments, 2e9), created={"run_id": "size", "project": "bench", "name": "size"}
    )
    for step, row in enumerate(losses.tolist()):
        log.points.log({f"m{number}": value for number, value in enumerate(row)}, step)
    log.close()
    _timed(
        "seal",
        lambda: seal(folder),
        lambda s: f"{s.bytes_after / s.points:.2f} bytes a point; {s.bytes_before / s.points:.1f} before" if s else "",
    )


# --- many points ------------------------------------------------------------------------------------------------------


def write_points(home: Path, points: int) -> None:
    """Record a metric of half of the points, and ten of the other half, in turn."""
    rng = np.random.default_rng(0)
    run = runstone.start_run(workspace=home, run_id="large", environment=False)

    def record() -> None:
        for first in range(0, points // 2, _ROWS * _METRICS):
            run.log_series("long", np.arange(first, first + _ROWS * _METRICS), rng.standard_normal(_ROWS * _METRICS))
            steps = np.arange(first // _METRICS, first // _METRICS + _ROWS)
            for number in range(_METRICS):
                run.log_series(f"m{number}", steps, rng.standard_normal(_ROWS))

    _timed("record, as arrays", record)
    _timed("finish", run.finish)


def read_live(home: Path, points: int) -> None:
    """Read the run as it is."""
    from runstone.runlog.series import MetricLog
    from runstone.runlog.zoom import zoom

    folder = home / "runs" / "default" / "large"
    log = _timed("live: open", lambda: MetricLog(folder))
    _timed("live: plot one of ten, 2,000 buckets", lambda: zoom(log, "m3", buckets=2000))
    _best_ms("live: the same again, a tenth of it", lambda: zoom(log, "m3", buckets=2000, last=points // 200))
    _timed("live: plot the long one", lambda: zoom(log, "long", buckets=2000))
    _memory("who plots")
    _timed("live: figures of all metrics", lambda: len(log.summaries()))
    _timed("live: read one of ten", lambda: log.series("m3"), lambda series: f"{len(series):,} points")
    _memory("who reads one of ten as well")


def seal_points(home: Path, _points: int) -> None:
    """Seal the run."""
    from runstone.runlog.seal import seal

    def note(sealing: object) -> str:
        assert sealing is not None
        return f"{sealing.bytes_after / sealing.points:.2f} bytes a point, levels included (noise)"  # type: ignore[attr-defined]

    _timed("seal", lambda: seal(home / "runs" / "default" / "large"), note)
    _memory("who seals")


def read_sealed(home: Path, points: int) -> None:
    """Read the sealed run."""
    from runstone.runlog.series import MetricLog
    from runstone.runlog.zoom import zoom

    folder = home / "runs" / "default" / "large"
    log = _timed("sealed: open", lambda: MetricLog(folder))
    _timed("sealed: plot the long one, 2,000 buckets", lambda: zoom(log, "long", buckets=2000))
    for share in (1.0, 0.5, 0.1, 0.01):
        first = int(points / 2 * (1 - share) / 3)
        last = first + int(points / 2 * share) - 1
        _best_ms(
            f"sealed: {share:.0%} of it",
            lambda first=first, last=last: zoom(log, "long", buckets=2000, first=first, last=last),  # type: ignore[misc]
        )
    _memory("who plots")
    _timed("sealed: read one of ten", lambda: log.series("m3"), lambda series: f"{len(series):,} points")
    _memory("who reads one of ten as well")
    _timed("sealed: figures of all metrics", lambda: len(log.summaries()))


# --- many names -------------------------------------------------------------------------------------------------------


def write_names(home: Path, names: int) -> None:
    """Record one point of each name."""
    run = runstone.start_run(workspace=home, run_id="names", environment=False)
    times = []

    def record() -> None:
        for number in range(names):
            start = time.perf_counter_ns()
            run.log({f"metric {number}": 1.0}, step=0)
            times.append(time.perf_counter_ns() - start)

    _timed("record", record, lambda _: f"first use of a name: median {sorted(times)[names // 2] / 1e3:.1f} µs")
    del times[:]
    _timed("finish", run.finish)
    _memory("the run, with a reading of each clock")


def read_names(home: Path, names: int) -> None:
    """List and read."""
    from runstone.runlog.series import MetricLog

    folder = home / "runs" / "default" / "names"
    log = _timed("open", lambda: MetricLog(folder), lambda log: "sealed" if log.is_sealed else "live")
    _timed("a page of 100 names", lambda: log.names[:100], lambda page: f"of {len(log.names):,}, {page[-1]!r}")
    _best_ms("the next page", lambda: log.names[100:200])
    _timed("read one", lambda: log.series(f"metric {names // 2}"))
    _timed("read the next 100", lambda: [log.series(name) for name in log.names[:100]])
    _timed("figures of all", lambda: sum(one.count for one in log.summaries().values()))
    _memory("the reader")


def ask(home: Path, _names: int) -> None:
    """Ask the index about it."""
    workspace = runstone.open_workspace(home)
    _timed("first question to the index, which reads the run", lambda: workspace.runs("metrics.'metric 7' > 0").total)
    _timed("the next question", lambda: workspace.runs("metrics.'metric 8' > 0").total)
    _memory("who asks")
    for file in home.glob("index.sqlite*"):
        file.unlink()


def seal_names(home: Path, _names: int) -> None:
    """Seal the run."""
    from runstone.runlog.seal import seal

    folder = home / "runs" / "default" / "names"
    _timed("seal", lambda: seal(folder))
    print(f"  {'size of the sealed file':<52} {(folder / 'metrics.parquet').stat().st_size / 2**20:10.1f} MiB")
    _memory("who seals")


def _memory(whose: str) -> None:
    # not `getrusage`, which counts what the process was before it became this one
    status = Path("/proc/self/status").read_text()
    most = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(f"  {'memory of ' + whose:<52} {most:10,.0f} MiB at most")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
