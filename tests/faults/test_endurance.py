"""A training that goes on and on (F38): memory, descriptors, threads and disk stay what they were.

`make soak` gives it ten minutes, or as many as RUNSTONE_SOAK_MINUTES says: 1440 are a day.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import runstone

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
SECONDS = 60.0 * float(os.environ.get("RUNSTONE_SOAK_MINUTES", "10")) if IS_SOAK else 4.0
RATE = 1_000 if SECONDS > 36_000 else 10_000 if IS_SOAK else 50_000
"""Points a second; more where there is less time, so that segments have grown to their full size soon."""
MOST_SLOTS = 131_072 if IS_SOAK else 8_192
"""Of a segment; small ones where there is little time, so that many come and go."""
PROGRAM = """
import json, os, sys, threading, time
import psutil
import runstone
from runstone.runlog import format as fmt
fmt.MOST_SLOTS = min(fmt.MOST_SLOTS, int(os.environ["MOST_SLOTS"]))
seconds, rate = float(os.environ["SECONDS"]), float(os.environ["RATE"])
run = runstone.start_run(run_id="one", system_metrics=0.5)
own, looks, step, begin, next_look = psutil.Process(), [], 0, time.monotonic(), 0.0
while (now := time.monotonic() - begin) < seconds:
    for _ in range(10):
        run.log({"loss": float(step), "epoch": step, "phase": "on"} if step % 1000 == 0 else
                {"loss": float(step), "epoch": step}, step=step)
        step += 1
    if now >= next_look:
        looks.append([now, own.memory_info().rss, own.num_fds(), own.num_threads(), step])
        next_look = now + seconds / 40
    time.sleep(max(0.0, 2 * step / rate - now))
print(json.dumps(looks))
run.finish()
"""


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 600)
def test_long_training_keeps_to_its_memory_descriptors_threads_and_disk(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]
) -> None:
    ended = start(PROGRAM, SECONDS=str(SECONDS), RATE=str(RATE), MOST_SLOTS=str(MOST_SLOTS)).end(
        timeout_s=SECONDS + 300
    )
    assert ended.code == 0, ended.errors
    looks = np.array(json.loads(ended.output))
    settled = looks[looks[:, 0] > max(2.0, SECONDS / 8)]  # what is loaded and started later is there by then
    at, rss, fds, threads, steps = settled.T
    slope = np.polyfit(at / 3600, rss / 1e6, 1)[0]
    print(f"{steps[-1]:.0f} steps, {slope:.2f} MB an hour, {fds.max():.0f} descriptors, {threads.max():.0f} threads")
    if IS_SOAK:  # a page more or less says nothing about a few minutes
        hours = (at[-1] - at[0]) / 3600
        assert slope * hours < max(4.0, hours)
    # segments in use: they are mapped, of 4 MiB at most, and let go of when they are full
    assert rss.max() - rss.min() < 24e6
    assert fds.max() - fds.min() <= 4
    assert threads.max() - threads.min() <= 1
    info = only_run()
    assert info.dropped == 0
    loss = info.series("loss")
    assert np.array_equal(loss.value, np.arange(len(loss)))
    points = 2 * len(loss) + len(info.series("phase"))
    on_disk = sum(path.stat().st_blocks * 512 for path in info.path.glob("*.wal"))
    assert on_disk <= 1.2 * 32 * points + (4 << 20) + 65536  # the last segment is reserved whole
