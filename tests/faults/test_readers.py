"""Readers of every kind while runs are written, sealed, resumed and deleted (F20): no exception, no torn picture."""

from __future__ import annotations

import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import runstone
from runstone.runlog.tail import MetricTail

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
SECONDS = 600.0 if IS_SOAK else 5.0
RATE = 10_000
"""Points a second."""
WRITER = f"""
import sys, time
import runstone
number, end = 0, time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 1e9)
print("ready", flush=True)
while True:
    run = runstone.start_run(run_id=f"r{{number // 2}}", environment=False, params={{"number": number}})
    first = 10_000 * (number % 2)  # each is resumed once
    begin = time.monotonic()
    for step in range(first, first + 10_000):
        run.log({{"x": float(step), "half": step / 2}}, step=step)
        if step % 100 == 0:
            run.log({{"text": f"line {{step}}", f"new/{{step}}": step}}, step=step)
            time.sleep(max(0.0, begin + 2 * (step - first) / {RATE} - time.monotonic()))
    run.finish()
    number += 1
"""


class Reader:
    """One kind of reading, over and over, in a thread; what it raises that it may not is kept."""

    def __init__(self, read: Callable[[], None]) -> None:
        self.times, self.errors, self._read = 0, list[str](), read
        self._is_over = False
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        while not self._is_over and len(self.errors) < 5:
            try:
                self._read()
            except runstone.RunNotFound:  # it was removed meanwhile
                continue
            except Exception:
                self.errors.append(traceback.format_exc())
            self.times += 1
            time.sleep(0.001)

    def stop(self) -> None:
        self._is_over = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def assert_whole(series: runstone.Series, scale: float) -> None:
    """A picture of a series is the beginning of what the run logs: no gap, no other value."""
    assert np.array_equal(series.step, np.arange(len(series)))
    assert np.array_equal(series.value, series.step * scale)


@pytest.fixture
def writing(start: Callable[..., Any], home: Path) -> Iterator[Path]:
    runstone.ensure_workspace(home)
    program = start(WRITER)
    program.wait_until_ready()
    yield home
    assert program.process.poll() is None, program.end().errors
    program.process.kill()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_readers_see_whole_pictures_while_runs_are_written_sealed_and_deleted(writing: Path, tmp_path: Path) -> None:
    workspace = runstone.Workspace(writing)
    tails: dict[Path, tuple[MetricTail, dict[str, int]]] = {}
    rng = np.random.default_rng(1)

    def any_folder() -> Path:
        folders = sorted(workspace.run_folders(), key=lambda folder: int(folder.name[1:]))
        if not folders:
            raise runstone.RunNotFound("none yet")
        return folders[-1] if rng.random() < 0.5 else folders[int(rng.integers(len(folders)))]

    def snapshot() -> None:
        info = runstone.RunInfo(any_folder())
        metrics = info.metrics
        assert info.duration_s >= 0
        if "x" in metrics:
            assert_whole(info.series("x"), 1.0)
            summary = metrics["x"]
            assert (summary.count - 1, summary.last) == (summary.last_step, summary.max)
        if "half" in metrics:
            assert_whole(info.series("half"), 0.5)
            info.zoom("half", buckets=50)

    def table() -> None:
        table = runstone.RunInfo(any_folder()).points()
        table = table.filter(pc.equal(table["metric"], "text"))
        steps = np.sort(table["step"].to_numpy())
        assert steps.tolist() == [100 * number for number in range(len(steps))]
        assert table["text"].to_pylist() == [f"line {step}" for step in table["step"].to_pylist()]

    def follow() -> None:
        folder = any_folder()
        tail, counts = tails.setdefault(folder, (MetricTail(folder), {}))
        for name, series in tail.poll().items():
            if name in ("x", "half"):
                first = counts.get(name, 0)
                assert np.array_equal(series.step, np.arange(first, first + len(series)))
                counts[name] = first + len(series)

    def query() -> None:
        for info in workspace.runs("metrics.x.count > 0"):
            assert info.metrics["x"].count >= 1

    def copy() -> None:
        target = tmp_path / "copies" / "runs" / "default"
        folder = any_folder()
        try:
            shutil.copytree(folder, target / folder.name)
        except (shutil.Error, FileNotFoundError):  # of a run that vanished, or was sealed, meanwhile: as with rsync
            return
        finally:
            info = runstone.RunInfo(target / folder.name) if (target / folder.name).exists() else None
            if info is not None and "x" in info.metrics:
                assert np.array_equal(info.series("x").value, info.series("x").step)
            shutil.rmtree(target / folder.name, ignore_errors=True)

    def seal_and_delete() -> None:
        folder = any_folder()
        if len(list(workspace.run_folders())) > 4 and runstone.RunInfo(folder).status.is_ended:
            shutil.rmtree(folder)
        else:
            workspace.seal(folder.name)

    readers = {read.__name__: Reader(read) for read in (snapshot, table, follow, query, copy, seal_and_delete)}
    time.sleep(SECONDS)
    for reader in readers.values():
        reader.stop()
    print({name: reader.times for name, reader in readers.items()})
    errors = [error for reader in readers.values() for error in reader.errors]
    assert not errors, "\n".join(errors)
    assert min(reader.times for reader in readers.values()) > 0
