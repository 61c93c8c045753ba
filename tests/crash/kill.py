"""Kills a training process with SIGKILL at random moments and counts what its run lost. Prints one JSON object.

The process logs values that are a function of thread and step, and counts in shared memory each call of `log` that has
returned: those are acknowledged. After the kill every acknowledged point must be there, and no other value than the
right one.

`--mutation` breaks the writer, or the reader that follows it, on purpose: to show that this check can fail.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import runstone
from runstone.runlog import beside, mapped
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail


def expected(thread: int, step: np.ndarray | int) -> Any:
    return step * 1.0000001 + thread * 0.125 + 1.0


def text_of(thread: int, step: int) -> str:
    return f"thread {thread}, step {step} " + "ü" * (step % 50)


def train(home: Path, run_id: str, acknowledged: mmap.mmap, threads: int, with_records: bool) -> None:
    sys.setswitchinterval(1e-5)  # many more thread switches than usual, at many more places
    run = runstone.start_run(
        workspace=home, run_id=run_id, project="kill", params={"threads": threads}, environment=False
    )

    counts = memoryview(acknowledged).cast("q")

    def work(thread: int) -> None:
        log, first, second = run.log, f"t{thread}/x", f"t{thread}/y"
        for step in range(10**9):
            log({first: expected(thread, step), second: -expected(thread, step)}, step=step)
            if with_records:
                log({f"t{thread}/text": text_of(thread, step)}, step=step)
                if step % 100 == 0:
                    run.log_histogram(f"t{thread}/histogram", [float(step)], bins=1, step=step)
            counts[thread] = step + 1  # one store of 8 bytes; struct.pack_into would write zeros first
            if step % 997 == 0:  # new names all the time
                log({f"t{thread}/late{step}": expected(thread, step)}, step=step)

    for thread in range(1, threads):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    work(0)


def mutate(mutation: str) -> None:
    if mutation == "commit-first":
        commit, rest = struct.Struct("<I").pack_into, struct.Struct("<qddI").pack_into

        def pack(memory: Any, offset: int, step: int, wall: float, value: float, key: int, salt: int) -> None:
            commit(memory, offset + 28, salt)
            rest(memory, offset, step, wall, value, key)

        mapped._PACK_FLOAT = pack  # type: ignore[assignment]
    elif mutation == "slot-first":
        put = beside.SideFile.put

        def put_later(self: beside.SideFile, payload: bytes) -> int:
            offset = self._end  # the slot is stored before the bytes are there
            threading.Timer(0.001, put, (self, payload)).start()
            return offset

        beside.SideFile.put = put_later  # type: ignore[method-assign]
    elif mutation == "buffer":
        real, waiting = mapped.MappedPoints.log, []

        def log(self: mapped.MappedPoints, metrics: Any, step: int) -> None:
            waiting.append((metrics, step))
            if len(waiting) >= 100:
                for item in waiting:
                    real(self, *item)
                waiting.clear()

        mapped.MappedPoints.log = log  # type: ignore[method-assign]


def mutate_reader(mutation: str) -> None:
    poll = MetricTail.poll

    def poll_badly(self: MetricTail) -> Any:
        found = poll(self)
        for tail in self._tails.values():
            for position in tail.segments.values():
                if (
                    mutation == "forget-holes"
                ):  # a slot that was empty below one that was whole is never looked at again
                    position.holes.clear()
                elif position.next_slot:  # the last slot is given once more
                    position.next_slot -= 1
        return found

    if mutation in ("forget-holes", "read-again"):
        MetricTail.poll = poll_badly  # type: ignore[method-assign]


def one_round(home: Path, number: int, options: argparse.Namespace, rng: random.Random, totals: dict[str, int]) -> None:
    run_id, acknowledged = f"r{number:05d}", mmap.mmap(-1, 4096)
    counts = memoryview(acknowledged).cast("q")
    pid = os.fork()
    if pid == 0:
        try:
            mutate(options.mutation)
            train(home, run_id, acknowledged, options.threads, options.records)
        finally:
            os._exit(3)
    while counts[0] == 0:
        time.sleep(0.0005)
    folder = home / "runs" / "kill" / run_id
    end = time.perf_counter() + rng.uniform(0.0, 0.12)
    tail, seen = MetricTail(folder), {}
    while time.perf_counter() < end:
        if options.live:
            collect(seen, tail, totals)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    info = runstone.RunInfo(folder)
    totals["not_crashed"] += info.status is not runstone.Status.CRASHED
    totals["params_lost"] += info.params != {"threads": options.threads}
    log = MetricLog(folder)
    totals["unnamed"] += log.unnamed
    for thread in range(options.threads):
        count = counts[thread]
        for name, sign in ((f"t{thread}/x", 1), (f"t{thread}/y", -1)):
            totals["acknowledged"] += count
            if name not in log.names:
                totals["lost"] += count
                continue
            series = log.series(name)
            totals["found"] += len(series)
            totals["lost"] += count - int(np.isin(np.arange(count), series.step).sum())
            totals["wrong"] += int((series.value != sign * expected(thread, series.step)).sum())
            totals["wrong"] += len(series) - len(np.unique(series.step))
        if options.records:
            check_records(info, log, thread, counts[thread], totals)
    if options.live:
        collect(seen, tail, totals)
        whole = {
            name: {(int(s), float(v)) for s, v in zip(log.series(name).step, log.series(name).value, strict=True)}
            for name in log.names
            if name not in log.record_names
        }
        totals["live_differs"] += whole != seen
    totals["kills"] += 1
    shutil.rmtree(folder)


def check_records(info: runstone.RunInfo, log: MetricLog, thread: int, count: int, totals: dict[str, int]) -> None:
    for name, every in ((f"t{thread}/text", 1), (f"t{thread}/histogram", 100)):
        wanted = len(range(0, count, every))
        totals["acknowledged"] += wanted
        records = info.records(name) if name in log.record_names else []
        totals["found"] += len(records)
        totals["lost"] += wanted - len({record.step for record in records} & set(range(0, count, every)))
        for record in records:
            right = (
                record.text == text_of(thread, record.step) if every == 1 else record.metadata.get("min") == record.step
            )
            totals["wrong"] += not right


def collect(seen: dict[str, set[tuple[int, float]]], tail: MetricTail, totals: dict[str, int]) -> None:
    for name, series in tail.poll().items():
        new = {(int(s), float(v)) for s, v in zip(series.step, series.value, strict=True)}
        standing = seen.setdefault(name, set())
        totals["live_twice"] += len(new & standing) + len(series) - len(new)
        standing |= new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--live", action="store_true", help="follow the run while it is written")
    parser.add_argument("--records", action="store_true", help="log texts and histograms too")
    mutations = ["none", "commit-first", "buffer", "slot-first", "forget-holes", "read-again"]
    parser.add_argument("--mutation", choices=mutations, default="none")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    mutate_reader(options.mutation)
    rng = random.Random(options.seed)
    names = (
        "kills",
        "acknowledged",
        "found",
        "lost",
        "wrong",
        "unnamed",
        "not_crashed",
        "params_lost",
        "live_differs",
        "live_twice",
    )
    totals = dict.fromkeys(names, 0)
    home = Path(tempfile.mkdtemp(prefix="runstone-kill-"))
    try:
        with runstone.start_run(
            workspace=home, project="bystander", run_id="bystander", environment=False
        ) as bystander:
            for step in range(1000):
                bystander.log({"x": float(step)}, step=step)
        for number in range(options.kills):
            one_round(home, number, options, rng, totals)
        after = bystander.read()
        disturbed = after.status is not runstone.Status.FINISHED or len(after.series("x")) != 1000
        print(json.dumps({**totals, "bystander_disturbed": int(disturbed)}))
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
