"""What sampling the machine costs: CPU of a pass with 8 GPUs of a fake driver, and what its start keeps the caller."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import show
from runstone.capture.metrics import DEFAULT_INTERVAL_S

_SOURCE = Path(__file__).parents[1] / "tests" / "fakenvml" / "fakenvml.c"
_PROGRAM = """
import json, sys, time
from pathlib import Path
import psutil
from runstone.capture.metrics import start_sampler
rounds = int(sys.argv[1])
starts = []
for _ in range(rounds):
    began = time.perf_counter()
    sampler = start_sampler(lambda values, step: None)
    starts.append(time.perf_counter() - began)
    sampler.stop()
from runstone.capture.metrics.collector import Collector
collector = Collector(store=Path.cwd())
own = psutil.Process()
def floor():
    psutil.cpu_times(percpu=True), psutil.virtual_memory(), psutil.disk_io_counters(), psutil.net_io_counters()
    own.cpu_times(), own.memory_info()
at_s, count, costs = 0.0, 0, {"floor": [], "usual": [], "minute": []}
for turn in range(6 * rounds):
    count = 0
    for name, work in (("floor", floor), ("minute" if turn % 6 == 0 else "usual", None)):
        began = time.thread_time()
        if work is not None:
            work()
        else:
            for values in collector.collect(at_s):
                count += len(values)
        costs[name].append(time.thread_time() - began)
    at_s += 10.0
print(json.dumps({name: min(seconds) for name, seconds in costs.items()} | {"start": min(starts), "series": count}))
"""


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    rounds = 2 if quick else 100
    with tempfile.TemporaryDirectory() as folder:
        bare = _measure(folder, {}, rounds)
        best = {"six calls of psutil": bare["floor"], "a pass, no GPU": bare["usual"]}
        library = _compile(Path(folder))
        if library is None:
            print("\n  no C compiler: no fake driver, so no figures for GPUs")
        else:
            (Path(folder) / "nvml.conf").write_text("count 8\n")
            fake = {"LD_LIBRARY_PATH": str(library.parent), "FAKENVML": str(Path(folder) / "nvml.conf")}
            found = _measure(folder, fake, rounds)
            best |= {"a pass, 8 GPUs": found["usual"], "a pass, 8 GPUs, each minute": found["minute"]}
        show("CPU of the sampling thread", best, floor="six calls of psutil", unit_s=1e-3, unit="ms")
        print(f"  starting the sampler keeps the caller {bare['start'] * 1e3:.3f} ms")
        if library is not None:
            a_minute = 60 / DEFAULT_INTERVAL_S
            share = ((a_minute - 1) * found["usual"] + found["minute"]) / 60
            print(f"  8 GPUs, {found['series']} series: {100 * share:.3f} % of one core at {DEFAULT_INTERVAL_S:g} s")


def _compile(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O2", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(library), str(_SOURCE)], check=True)
    return library


def _measure(folder: str, variables: dict[str, str], rounds: int) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, str(rounds)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
