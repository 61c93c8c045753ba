"""How each tracker logs steps and reads a series back, as its documentation shows. Imported in its environment.

A tracker is opened in the current folder and gives a function that logs the steps handed to it; the next open in the
same process is its next run. Nothing is batched by hand where steps are timed. The libraries are imported inside, since
each environment has one of them.
"""

from __future__ import annotations

import math
import mmap
import random
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

NAMES = ("train/loss", "train/acc", "val/loss", "val/acc", "lr")
READ = NAMES[0]

Rows = list[dict[str, float]]
LogSteps = Callable[[Iterable[int]], None]
Open = Callable[[Rows], AbstractContextManager[LogSteps]]


def make_rows(names: Iterable[str] = NAMES) -> Rows:
    """Return the metrics of 1,000 steps, logged over and over: floats with all their digits, as training makes them."""
    noise = random.Random(7)
    return [{name: math.exp(-step / 500) + noise.gauss(0, 0.01) for name in names} for step in range(1000)]


@dataclass(frozen=True, slots=True)
class Tracker:
    """One way to log, what to import for it, and how many steps are enough."""

    module: str
    open: Open
    steps: int
    read: Callable[[], int] | None = None  # counts the points of READ in the only run
    prepare: Callable[[], None] | None = None  # what a reader needs beforehand, not timed
    fill: Callable[[Rows, int], None] | None = None  # stores the same as logging does, but in batches
    pack: Callable[[], None] | None = None  # makes an ended run compact, as its documentation shows

    def fill_with(self, rows: Rows, steps: int) -> None:
        """Store a run of so many steps, its cost of no interest."""
        if self.fill is not None:
            self.fill(rows, steps)
            return
        with self.open(rows) as log_steps:
            log_steps(range(steps))


@contextmanager
def open_nothing(rows: Rows) -> Iterator[LogSteps]:
    def log_steps(steps: Iterable[int]) -> None:
        for _step, _row in zip(steps, cycle(rows), strict=False):
            pass

    yield log_steps


@contextmanager
def open_list(rows: Rows) -> Iterator[LogSteps]:
    points: list[tuple[int, float, str, float]] = []
    append, clock = points.append, time.time

    def log_steps(steps: Iterable[int]) -> None:
        for step, row in zip(steps, cycle(rows), strict=False):
            now = clock()
            for name, value in row.items():
                append((step, now, name, value))

    yield log_steps


def read_list() -> int:
    return 0  # nothing of it outlives the process


@contextmanager
def open_mmap(rows: Rows) -> Iterator[LogSteps]:
    """The floor of whatever keeps points through a kill: five bare stores of 32 bytes a step into a mapped file."""
    store, size = struct.Struct("<qddII").pack_into, 160
    with Path("floor.bin").open("w+b") as file:
        file.truncate(size * 100_000)
        page = mmap.mmap(file.fileno(), 0)

        def log_steps(steps: Iterable[int]) -> None:
            for step, _row in zip(steps, cycle(rows), strict=False):
                place = step * size
                store(page, place, step, 0.1, 0.2, 1, 7)
                store(page, place + 32, step, 0.1, 0.2, 1, 7)
                store(page, place + 64, step, 0.1, 0.2, 1, 7)
                store(page, place + 96, step, 0.1, 0.2, 1, 7)
                store(page, place + 128, step, 0.1, 0.2, 1, 7)

        yield log_steps


def read_mmap() -> int:
    return sum(mark == 7 for (mark,) in struct.iter_unpack("<28xI128x", Path("floor.bin").read_bytes()))


@contextmanager
def open_runstone(rows: Rows) -> Iterator[LogSteps]:
    import runstone

    with runstone.start_run(workspace=".runstone", project="bench", name="run") as run:
        log = run.log

        def log_steps(steps: Iterable[int]) -> None:
            for step, row in zip(steps, cycle(rows), strict=False):
                log(row, step=step)

        yield log_steps


def read_runstone() -> int:
    import runstone

    return len(runstone.open_workspace(".runstone").run("run").series(READ))


def pack_runstone() -> None:
    import runstone

    workspace = runstone.open_workspace(".runstone")
    for folder in workspace.run_folders():  # not asked for by name: that would make the index, which is derived
        workspace.seal(folder.name)


@contextmanager
def open_wandb(rows: Rows) -> Iterator[LogSteps]:
    import wandb

    # No samples of CPU and memory: the others here take none either.
    settings = wandb.Settings(silent=True, x_disable_stats=True)
    with wandb.init(project="bench", dir=".", mode="offline", settings=settings) as run:
        log = run.log

        def log_steps(steps: Iterable[int]) -> None:
            for step, row in zip(steps, cycle(rows), strict=False):
                log(row, step=step)

        yield log_steps


def read_wandb() -> int:
    from wandb.proto import wandb_internal_pb2

    from benchmarks.peers.wandb_log import records

    (path,) = Path("wandb").glob("offline-run-*/*.wandb")
    record, found = wandb_internal_pb2.Record(), 0
    for data in records(path.read_bytes()):
        record.ParseFromString(data)
        found += any(READ in (item.key, *item.nested_key) for item in record.history.item)
    return found


@contextmanager
def open_mlflow(rows: Rows) -> Iterator[LogSteps]:
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    with mlflow.start_run():
        log = mlflow.log_metrics

        def log_steps(steps: Iterable[int]) -> None:
            for step, row in zip(steps, cycle(rows), strict=False):
                log(row, step=step)

        yield log_steps


@contextmanager
def open_mlflow_async(rows: Rows) -> Iterator[LogSteps]:
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    with mlflow.start_run():
        log = mlflow.log_metrics

        def log_steps(steps: Iterable[int]) -> None:
            for step, row in zip(steps, cycle(rows), strict=False):
                log(row, step=step, synchronous=False)

        yield log_steps
        mlflow.flush_async_logging()


def fill_mlflow(rows: Rows, steps: int) -> None:
    import mlflow
    from mlflow.entities import Metric

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    now = int(time.time() * 1000)
    logged = zip(range(steps), cycle(rows), strict=False)
    points = [Metric(name, value, now + step, step) for step, row in logged for name, value in row.items()]
    with mlflow.start_run() as run:
        client = mlflow.MlflowClient()
        for first in range(0, len(points), 1000):  # the most that one batch may have
            client.log_batch(run.info.run_id, metrics=points[first : first + 1000])


def read_mlflow() -> int:
    import mlflow

    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs(["0"])
    return len(client.get_metric_history(run.info.run_id, READ))


@contextmanager
def open_trackio(rows: Rows) -> Iterator[LogSteps]:
    import trackio

    trackio.init(project="bench", name=f"run-{uuid.uuid4().hex}", embed=False)
    log = trackio.log

    def log_steps(steps: Iterable[int]) -> None:
        for step, row in zip(steps, cycle(rows), strict=False):
            log(row, step=step)

    yield log_steps
    trackio.finish()


def read_trackio() -> int:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage  # what its own page and command line read with

    try:
        (run,) = trackio.Api().runs("bench")
    except ValueError:  # no such project: nothing had been written yet
        return 0
    return sum(READ in row for row in SQLiteStorage.get_logs("bench", run.name))


@contextmanager
def open_aim(rows: Rows) -> Iterator[LogSteps]:
    import aim

    run = aim.Run(repo=".", system_tracking_interval=None, log_system_params=False)
    track = run.track

    def log_steps(steps: Iterable[int]) -> None:
        for step, row in zip(steps, cycle(rows), strict=False):
            track(row, step=step)

    yield log_steps
    run.close()


def prepare_aim() -> None:
    """Make the index again, without which the reader finds no point of a run that the user interface has not seen."""
    command = Path(sys.executable).with_name("aim")
    subprocess.run([command, "storage", "--repo", ".", "reindex", "--yes"], check=True, capture_output=True)


def read_aim() -> int:
    import aim

    for metric in aim.Repo(".").query_metrics(f"metric.name == '{READ}'", report_mode=0).iter():
        steps, _values = metric.values.sparse_list()
        return len(steps)
    return 0


@contextmanager
def open_tensorboardx(rows: Rows) -> Iterator[LogSteps]:
    import tensorboardX

    with tensorboardX.SummaryWriter(f"runs/{uuid.uuid4().hex}") as writer:
        add = writer.add_scalar

        def log_steps(steps: Iterable[int]) -> None:
            for step, row in zip(steps, cycle(rows), strict=False):
                for name, value in row.items():
                    add(name, value, step)

        yield log_steps


def read_tensorboardx() -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = Path("runs").iterdir()
    events: Any = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0: all; else it silently drops points
    events.Reload()
    return len(events.Scalars(READ)) if READ in events.Tags()["scalars"] else 0


TRACKERS = {
    "floor: empty loop": Tracker("json", open_nothing, 20_000),
    "floor: five list appends": Tracker("json", open_list, 20_000, read_list),
    "floor: five pack_into mmap": Tracker("json", open_mmap, 20_000, read_mmap),
    "runstone": Tracker("runstone", open_runstone, 20_000, read_runstone, pack=pack_runstone),
    "trackio": Tracker("trackio", open_trackio, 20_000, read_trackio),
    "wandb": Tracker("wandb", open_wandb, 10_000, read_wandb),
    "tensorboardX": Tracker("tensorboardX", open_tensorboardx, 10_000, read_tensorboardx),
    "aim": Tracker("aim", open_aim, 4_000, read_aim, prepare_aim),
    "mlflow": Tracker("mlflow", open_mlflow, 400, read_mlflow, fill=fill_mlflow),
    "mlflow, async": Tracker("mlflow", open_mlflow_async, 400, read_mlflow, fill=fill_mlflow),
}
