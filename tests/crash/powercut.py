"""Cuts the power of a training process on a real ext4, and counts what its run lost. Prints one JSON object.

The process logs into a file system in an image file, mounted by root. At a random moment the image is copied: that is
what had reached the disk. The copy is mounted, which replays the file system's journal, and read. What lay only in the
page cache is gone. Every point acknowledged longer ago than `--age` seconds must be there, under its name.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np

import runstone
from runstone.runlog.series import MetricLog

NEW_NAME_EVERY = 20_000


def shell(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def train(home: Path, acknowledged: mmap.mmap) -> None:
    count = memoryview(acknowledged).cast("q")
    run = runstone.start_run(workspace=home, project="cut", run_id="cut", environment=False)
    for step in range(10**9):
        run.log({"x": step * 1.5, f"late{step // NEW_NAME_EVERY}": 1.0}, step=step)
        count[0] = step + 1
        if step % 10 == 0:
            time.sleep(0.0001)


def one_round(image: Path, mount: Path, age_s: float, rng: random.Random, totals: dict[str, int]) -> None:
    shell("truncate", "-s", "128M", image)
    shell("mkfs.ext4", "-q", "-F", "-m", "0", image)
    shell("mount", "-o", "loop", image, mount)
    acknowledged = mmap.mmap(-1, 4096)
    count = memoryview(acknowledged).cast("q")
    pid = os.fork()
    if pid == 0:
        try:
            train(mount / ".runstone", acknowledged)
        finally:
            os._exit(3)
    history: deque[tuple[float, int]] = deque()
    end = time.monotonic() + rng.uniform(2.0, 4.0)
    while time.monotonic() < end:
        history.append((time.monotonic(), count[0]))
        time.sleep(0.002)
    os.kill(pid, signal.SIGSTOP)
    cut = time.monotonic()
    copy = image.with_suffix(".cut")
    shutil.copyfile(image, copy)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shell("umount", mount)
    shell("mount", "-o", "loop", copy, mount)
    try:
        must = max((n for at, n in history if at <= cut - age_s), default=0)
        folder = mount / ".runstone" / "runs" / "cut" / "cut"
        log = MetricLog(folder) if folder.is_dir() else None
        totals["cuts"] += 1
        totals["acknowledged"] += 2 * count[0]
        totals["unnamed_young"] += log.unnamed if log is not None else 0
        expected = {"x": range(must)}
        for first in range(0, must, NEW_NAME_EVERY):
            expected[f"late{first // NEW_NAME_EVERY}"] = range(first, min(first + NEW_NAME_EVERY, must))
        for name, steps in expected.items():
            found = log.series(name) if log is not None and name in log.names else None
            there = found.step if found is not None else np.empty(0, np.int64)
            totals["old_lost"] += len(steps) - int(np.isin(np.arange(steps.start, steps.stop), there).sum())
            totals["found"] += len(there)
            if found is not None:
                totals["wrong"] += int((found.value != (found.step * 1.5 if name == "x" else 1.0)).sum())
    finally:
        shell("umount", mount)
        image.unlink()
        copy.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=12)
    parser.add_argument("--age", type=float, default=1.0, help="seconds after which an acknowledged point must be safe")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    totals = dict.fromkeys(("cuts", "acknowledged", "found", "old_lost", "wrong", "unnamed_young"), 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        mount = Path(folder, "mount")
        mount.mkdir()
        for _ in range(options.cuts):
            one_round(Path(folder, "image"), mount, options.age, rng, totals)
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
