"""How long `start_run` and `finish` keep the training thread, the environment snapshot being taken beside them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import runstone
from benchmarks.measure import best_of, show

FIRST = """
import sys, time, runstone
start = time.perf_counter()
run = runstone.start_run(workspace=sys.argv[1], params={"lr": 0.1})
run.finish()
print((time.perf_counter() - start) * 1000)
"""


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    rounds = 1 if quick else 15
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".runstone"

        # The floor: make a folder and the four files that a run starts with.
        def files(count: int) -> None:
            for number in range(count):
                place = Path(folder) / f"floor-{time.monotonic_ns()}-{number}"
                place.mkdir()
                for name in ("journal", "status", "control", "environment"):
                    with (place / name).open("xb") as file:
                        file.write(b"x" * 200)

        def runs(count: int) -> None:
            for _ in range(count):
                runstone.start_run(workspace=home, params={"lr": 0.1}, environment=False).finish()

        def runs_with_environment(count: int) -> None:
            for _ in range(count):
                run = runstone.start_run(workspace=home, params={"lr": 0.1})
                run.finish()

        subjects = {
            "a folder and four files": files,
            "start_run + finish": runs,
            "start_run + finish, with environment": runs_with_environment,
        }
        best = best_of(subjects, calls=3 if quick else 10, rounds=rounds)
        show("Start and finish of an empty run", best, floor="a folder and four files", unit_s=1e-3, unit="ms")
        firsts = []
        for _ in range(1 if quick else 15):
            command = [sys.executable, "-c", FIRST, str(home)]
            firsts.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        firsts.sort()
        middle = firsts[len(firsts) // 2]
        print(f"  the first run of a process, snapshot included: best {firsts[0]:.2f} ms, median {middle:.2f} ms")
