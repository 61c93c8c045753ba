"""What a question about many runs costs: a filter, an order and a page; taking runs in; the same search with MLflow.

`RUNSTONE_BENCH_RUNS` sets the number of runs of the large workspace (100,000). MLflow is measured where
`python -m benchmarks.peers --install mlflow` has made its environment.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import runstone
from benchmarks.peers.environments import process_environment, python_of
from runstone.index.details import Details
from runstone.index.figures import PackedFigures
from runstone.index.ingest import Known, Reading, Watch
from runstone.index.records import RunRecord
from runstone.index.store import Index, _make_tables, _transaction
from runstone.index.writing import Names, put
from runstone.query import OpenIndex, find_runs
from runstone.runlog.writer import RunLog
from runstone.status import Status

_NAMES = 50
_MODELS = ("mlp", "cnn", "vit", "lstm", "gbm")
_POINTS = 20
FILTER, ORDER = "metrics.m01 > 0.5 and params.model = 'mlp'", "metrics.m02 desc"
QUESTIONS: dict[str, tuple[str, str | None]] = {
    "newest first": ("", None),
    "filter by metric and param, sort by metric": (FILTER, ORDER),
    "sort all by a metric": ("", "metrics.m03.min"),
    "four conditions, three orders": (
        "metrics.m04.max > 0 and params.p05 < 0.9 and tags.stage = 'dev' and not name like '%99'",
        "params.model, params.p06 desc, metrics.m05",
    ),
    "text of each name": ("name ilike '%RUN-77%'", "name"),
    "count and environment": ("count(metrics.m0*) = 10 and environment.gpu.name is null", None),
}


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    large = 300 if quick else int(os.environ.get("RUNSTONE_BENCH_RUNS", "100000"))
    small = 100 if quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        _large(Path(folder) / "large" / ".runstone", large)
        _first(Path(folder) / "real" / ".runstone", small)
        _beside_mlflow(Path(folder), small, rounds=1 if quick else 5)


def runs(count: int) -> Iterator[dict[str, Any]]:
    """Yield runs of 50 params and 50 metrics, the same each time."""
    rng = random.Random(0)
    for number in range(count):
        params: dict[str, Any] = {f"p{n:02d}": rng.random() if n % 2 else number % (n + 2) for n in range(_NAMES - 1)}
        metrics = {f"m{n:02d}": rng.gauss(0, 1) for n in range(_NAMES)}
        params["model"] = rng.choice(_MODELS)
        started_at = 1.7e9 + number
        yield {
            "id": f"{number:032x}",
            "name": f"run-{number}",
            "params": params,
            "metrics": metrics,
            "started_at": started_at,
        }


# --- many runs --------------------------------------------------------------------------------------------------------


def _large(home: Path, count: int) -> None:
    print(f"\n{count:,} runs with {_NAMES} params and {_NAMES} metrics each: a question and its first page of 50, ms")
    _fill_index(home, count)
    print(f"  index.sqlite: {(home / 'index.sqlite').stat().st_size / 1e6:,.0f} MB")
    print(f"  floor: the same filter and order over arrays in memory {_floor_ms(count):26.1f}")
    print(f"  {'':44} {'first':>9} {'warm':>9} {'its CPU':>9}   (first: of this handle, columns are read)")
    with OpenIndex(home) as index:
        began, cpu = time.perf_counter(), time.thread_time()
        index.page_of_runs(limit=0)
        wall, cpu = (time.perf_counter() - began) * 1e3, (time.thread_time() - cpu) * 1e3
        print(f"  {'opened, all folders compared':44} {wall:9.1f} {'':9} {cpu:9.1f}")
        for what, (filter, order_by) in QUESTIONS.items():
            _tell(what, partial(_page, index, filter, order_by))
        groups = partial(index.page_of_runs, FILTER, group_by=["params.model"], columns=["metrics.m02"])
        _tell("grouped by a param, mean of a metric", groups)
        _tell("what changed since? nothing", partial(index.changes, index.changes().cursor))
        _one_changed(home, index)
        _tell("names of all fields", index.fields)
    with OpenIndex(home) as index:  # the file is in the page cache; nothing is at hand in this handle
        times = _times(lambda: index.page_of_runs(FILTER, order_by=ORDER, limit=50), rounds=1)
        print(f"  {'a new handle: filter, sort, page':44} {times[0]:9.1f}")


def _tell(what: str, action: Callable[[], object]) -> None:
    """Print what a question costs at first and then, and the CPU time of that: the machine may do other work, too."""
    first = _times(action, rounds=0)[0]
    cpu = time.thread_time()
    times = _times(action, rounds=6)
    cpu = (time.thread_time() - cpu) / len(times) * 1e3
    print(f"  {what:44} {first:9.1f} {median(times):9.1f} {cpu:9.1f}")


def _page(index: OpenIndex, filter: str, order_by: str | None) -> object:
    return index.page_of_runs(filter, order_by=order_by, limit=50, columns=["metrics.m02"])


def _fill_index(home: Path, count: int) -> None:
    """Make an index as if it had read so many runs; of their folders only the names and times are there."""
    runstone.ensure_workspace(home)
    base = home / "runs" / "bench"
    base.mkdir(parents=True)
    names = [f"m{n:02d}" for n in range(_NAMES)]
    hundred, zero = np.full(_NAMES, 100), np.zeros(_NAMES, np.int64)
    steps = dict.fromkeys(("count", "last_step", "min_step", "max_step"), hundred) | {
        "nan_count": zero,
        "first_step": zero,
    }
    batch: list[Reading] = []
    keys = Names()
    with Index(home) as index:
        connection = index._connect()
        with _transaction(connection, "BEGIN IMMEDIATE"):
            _make_tables(connection)
        for run in runs(count):
            folder = base / run["id"]
            folder.mkdir()
            os.utime(folder, (run["started_at"],) * 2)
            value = np.array(list(run["metrics"].values()))
            columns = {**steps, "last": value, "min": value - 1, "max": value + 1, "mean": value, "last_at": value * 0}
            record = RunRecord(
                run["id"],
                f"bench/{run['id']}",
                "bench",
                run["name"],
                Status.FINISHED,
                run["started_at"],
                PackedFigures.of(names, columns),
                ended_at=run["started_at"] + 100,
                params=run["params"],
                tags={"stage": "dev"},
            )
            known = Known(folder.stat().st_mtime_ns, "-", Watch.SETTLED, time.time_ns())
            batch.append(Reading(record.folder, record, known, Details({})))
            if len(batch) == 2_000 or run["id"] == f"{count - 1:032x}":
                with _transaction(connection, "BEGIN IMMEDIATE"):
                    put(connection, keys, batch)
                batch.clear()


def _floor_ms(count: int) -> float:
    rng = np.random.default_rng(0)
    first, second, model = rng.normal(size=count), rng.normal(size=count), rng.integers(0, 5, count)

    def answer() -> Any:
        found = np.flatnonzero((first > 0.5) & (model == 0))
        return found[np.argsort(-second[found], kind="stable")][:50]

    return median(_times(answer))


def _one_changed(home: Path, index: OpenIndex) -> None:
    """Print what the next question costs when one run of 50 params and 50 metrics has changed."""
    workspace = runstone.open_workspace(home)
    with runstone.start_run(workspace=home, run_id="changed", params=next(runs(1))["params"], environment=False) as run:
        for step in range(_POINTS):
            run.log(_row(step), step=step)

    def told(what: str, change: Callable[[int], object]) -> None:
        times, cpus, cursor = [], [], index.changes().cursor
        for turn in range(7):
            change(turn)
            began, cpu = time.perf_counter(), time.thread_time()
            cursor, changed, _removed, _complete = index.changes(cursor)
            times.append((time.perf_counter() - began) * 1e3)
            cpus.append((time.thread_time() - cpu) * 1e3)
            assert changed == ("changed",)
        print(f"  {what:44} {times[0]:9.1f} {median(times[1:]):9.1f} {median(cpus[1:]):9.1f}")

    told("one ended run was edited", lambda turn: workspace.set_tags("changed", {"turn": str(turn)}))
    with runstone.start_run(workspace=home, run_id="changed", resume=True, environment=False) as run:
        told("one running run has logged", lambda turn: run.log(_row(turn), step=_POINTS + turn))


def _row(step: int) -> dict[str, float]:
    return {f"m{n:02d}": float(step) for n in range(_NAMES)}


# --- taking in --------------------------------------------------------------------------------------------------------


def _first(home: Path, count: int) -> None:
    _make_real(home, count)
    began, cpu = time.perf_counter(), time.thread_time()
    with OpenIndex(home) as index:
        total = index.page_of_runs(limit=0).total
    wall, cpu = time.perf_counter() - began, time.thread_time() - cpu
    assert total == count
    print(
        f"\nFirst index of {count:,} run folders with {_NAMES} params, {_NAMES} metrics of {_POINTS} points, a snapshot"
    )
    floor = _read_all_s(home)
    print(
        f"  {wall:.1f} s ({cpu:.1f} s CPU), {wall / count * 1e3:.2f} ms a run; floor: reading all files {floor:.1f} s"
    )


def _make_real(home: Path, count: int) -> None:
    """Make run folders: the journal is each run's own, the points and the snapshot are copies of a first run's."""
    runstone.ensure_workspace(home)
    template = home / "runs" / "bench" / "template"
    template.mkdir(parents=True)
    log = RunLog(template, backend="append", created={"run_id": "template", "project": "bench", "name": "template"})
    for step in range(_POINTS):
        log.points.log({f"m{n:02d}": step / (n + 1) for n in range(_NAMES)}, step)
    log.write("end", status="finished", failure=None, dropped=0)
    log.close("finished")
    snapshot = {"cpu": {"model": "X", "cores": 2}, "gpu": {"devices": [{"name": "H100", "index": n} for n in range(8)]}}
    packages = [{"name": f"package-{n}", "version": "1.0"} for n in range(300)]
    (template / f"environment.{log.writer.hex()}.json").write_text(
        json.dumps({**snapshot, "packages": {"installed": packages}, "process": {"pid": 1}})
    )
    contents = {path.name: path.read_bytes() for path in template.iterdir()}
    journal = next(name for name in contents if name.startswith("journal."))
    first, created, end = contents[journal].decode().splitlines()
    for run in runs(count):
        folder = template.with_name(run["id"])
        folder.mkdir()
        own = created.replace('"template"', f'"{run["name"]}"')
        params = json.dumps({"event": "params", "at": json.loads(end)["at"], "params": run["params"]})
        for name, content in contents.items():
            whole = "\n".join([first, own, params, end, ""]).encode() if name == journal else content
            (folder / name).write_bytes(whole.replace(b'"pid": 1}', f'"pid": {run["name"][4:]}}}'.encode()))
    for path in template.iterdir():
        path.unlink()
    template.rmdir()


def _read_all_s(home: Path) -> float:
    began = time.perf_counter()
    for folder in (home / "runs" / "bench").iterdir():
        for path in folder.iterdir():
            path.read_bytes()
    return time.perf_counter() - began


# --- beside MLflow ----------------------------------------------------------------------------------------------------


def _beside_mlflow(folder: Path, count: int, *, rounds: int) -> None:
    print(f"\nThe same search of {count:,} runs, 50 found runs with all that they have: {FILTER}; {ORDER}")
    home = folder / "same" / ".runstone"
    _fill_index(home, count)
    with OpenIndex(home) as index:
        times = _times(lambda: index.find_runs(FILTER, order_by=ORDER, limit=50).to_dicts(), rounds=5 * rounds)
        names = [record.name for record in index.find_runs(FILTER, order_by=ORDER, limit=50).records]
    opened = median(times[1:])
    print(f"  {'Runstone, an open index':44} {opened:9.1f} ms (first {times[0]:.1f})")
    workspace = runstone.open_workspace(home)
    times = _times(lambda: workspace.runs(FILTER, order_by=ORDER, limit=50).to_dicts(), rounds=5 * rounds)
    ours = median(times[1:])
    print(f"  {'Runstone, workspace.runs()':44} {ours:9.1f} ms (first {times[0]:.1f})")
    times = _times(lambda: find_runs(home, FILTER, order_by=ORDER, limit=50).to_dicts(), rounds=rounds)
    print(f"  {'Runstone, nothing at hand':44} {median(times[1:]):9.1f} ms")
    python = python_of("mlflow", None)
    if python is None:
        print("  MLflow: no environment; `python -m benchmarks.peers --install mlflow` makes it")
        return
    lines = folder / "runs.jsonl"
    lines.write_text("".join(json.dumps(run) + "\n" for run in runs(count)))
    program = Path(__file__).parent / "peers" / "mlflow_search.py"
    arguments = [str(python), str(program), str(lines), str(folder), FILTER, "metrics.m02 DESC", str(rounds)]
    done = subprocess.run(
        arguments, env=process_environment("mlflow", folder), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"  MLflow failed: {done.stderr.strip().splitlines()[-1:]}")
        return
    told = json.loads(done.stdout.splitlines()[-1])
    theirs = median(told["seconds"]) * 1e3
    agree = "the same 50 runs" if told["names"] == names else "NOT the same runs"
    name = f"MLflow {told['version']}, search_runs on SQLite"
    print(f"  {name:44} {theirs:9.1f} ms (first {told['first_s'] * 1e3:.1f})")
    print(f"  {agree}; {theirs / opened:.1f} × an open index, {theirs / ours:.1f} × workspace.runs()")


def _times(action: Callable[[], object], *, rounds: int = 7) -> list[float]:
    """Return milliseconds of calls, the first one apart."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        action()
        found.append((time.perf_counter() - began) * 1e3)
    return found


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
