"""Does one job with one tracker in the current folder, in that tracker's own environment, and prints one JSON object.

driver price TRACKER STEPS    the price of a call and of a run
driver store TRACKER STEPS    what steps of 5 metrics take on disk
driver fill TRACKER STEPS     writes one series to read back
driver read TRACKER ROUNDS    counts the points of the series that the reader finds
driver kill TRACKER HERTZ     logs until it is killed; the file `acknowledged` has the number of calls that returned
"""

from __future__ import annotations

import importlib
import json
import mmap
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.peers.trackers import NAMES, READ, TRACKERS, LogSteps, Tracker, make_rows

ACKNOWLEDGED = "acknowledged"
PORTIONS = 20
WARM_UP = 10


def work_of_a_millisecond() -> Callable[[int], object]:
    """Return work of about 1 ms that drives the caches out and lets other threads run, as a training step does."""
    memory = memoryview(bytes(range(256)) * (128 * 1024))  # 32 MiB
    start = time.perf_counter()
    zlib.crc32(memory)
    size = int(len(memory) * 1e-3 / (time.perf_counter() - start))
    places = max(1, len(memory) // size)

    def work(turn: int) -> object:
        place = turn % places * size
        return zlib.crc32(memory[place : place + size])

    return work


def price_of_tight_calls(log_steps: LogSteps, steps: int) -> dict[str, float]:
    """Return seconds a call in a tight loop, CPU of this thread and wall: the best portion of many."""
    portion = steps // PORTIONS
    cpu = wall = float("inf")
    for first in range(0, portion * PORTIONS, portion):
        start_cpu, start = time.thread_time(), time.perf_counter()
        log_steps(range(first, first + portion))
        end, end_cpu = time.perf_counter(), time.thread_time()
        cpu, wall = min(cpu, (end_cpu - start_cpu) / portion), min(wall, (end - start) / portion)
    return {"tight_cpu_s": cpu, "tight_wall_s": wall}


def price_of_cold_calls(log_steps: LogSteps, steps: int) -> dict[str, float]:
    """Return seconds a call between 1 ms of other work: the median, since the best call would be a warm one."""
    work = work_of_a_millisecond()
    cpu, wall = [], []
    for step in range(WARM_UP, WARM_UP + steps):
        work(step)
        start = time.perf_counter_ns()
        start_cpu = time.thread_time_ns()
        log_steps(range(step, step + 1))
        end_cpu = time.thread_time_ns()
        end = time.perf_counter_ns()
        cpu.append(end_cpu - start_cpu)
        wall.append(end - start)
    return {"cold_cpu_s": median(cpu) * 1e-9, "cold_wall_s": median(wall) * 1e-9}


def price(tracker: Tracker, steps: int) -> dict[str, object]:
    """Three runs in one process: steps in a tight loop, nothing, steps with other work between them."""
    rows = make_rows()
    result: dict[str, object] = {}
    with tracker.open(rows) as log_steps:
        start = time.perf_counter()
        result |= price_of_tight_calls(log_steps, steps)
    points = len(rows[0]) * (steps // PORTIONS * PORTIONS)
    result["points_a_second"] = points / (time.perf_counter() - start)
    start = time.perf_counter()
    with tracker.open(rows):
        pass
    result["empty_run_s"] = time.perf_counter() - start
    with tracker.open(rows) as log_steps:
        log_steps(range(WARM_UP))
        result |= price_of_cold_calls(log_steps, min(steps, 500))
    return result


def store(tracker: Tracker, steps: int) -> dict[str, object]:
    """Return the bytes a point of the whole folder, as logging leaves it and after the tracker has packed it."""
    tracker.fill_with(make_rows(), steps)
    points = steps * len(NAMES)
    result: dict[str, object] = {"bytes_a_point": _size_of_folder() / points}
    if tracker.pack is not None:
        tracker.pack()
        result["packed_bytes_a_point"] = _size_of_folder() / points
    return result


def _size_of_folder() -> int:
    return sum(path.lstat().st_size for path in Path().rglob("*") if path.is_file())


def fill(tracker: Tracker, steps: int) -> dict[str, object]:
    """Write a series to read back."""
    tracker.fill_with(make_rows([READ]), steps)
    return {}


def read(tracker: Tracker, rounds: int) -> dict[str, object]:
    """Return how many points are found and the best seconds of several readings: libraries loaded, files in memory."""
    assert tracker.read is not None
    if tracker.prepare is not None:
        tracker.prepare()
    best, found = float("inf"), 0
    for _ in range(rounds):
        start = time.perf_counter()
        found = tracker.read()
        best = min(best, time.perf_counter() - start)
    return {"found": found, "read_s": best}


def log_until_killed(tracker: Tracker, hertz: int) -> dict[str, object]:
    """Log at a steady rate, counting each call that returned in a mapped file, which outlives this process."""
    with Path(ACKNOWLEDGED).open("w+b") as file:
        file.truncate(8)
        memory = mmap.mmap(file.fileno(), 8)
    with tracker.open(make_rows()) as log_steps:
        start = time.perf_counter()
        for step in range(10**9):
            log_steps(range(step, step + 1))
            struct.pack_into("<q", memory, 0, step + 1)
            time.sleep(max(0.0, start + (step + 1) / hertz - time.perf_counter()))
    return {}


JOBS = {"price": price, "store": store, "fill": fill, "read": read, "kill": log_until_killed}


def main() -> None:
    """Do the job named on the command line."""
    job, name, amount = sys.argv[1:]
    tracker = TRACKERS[name]
    importlib.import_module(tracker.module)
    print(json.dumps(JOBS[job](tracker, int(amount))))


if __name__ == "__main__":
    main()
