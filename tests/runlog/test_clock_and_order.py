"""Whatever the clock tells, points stay in the order in which one writer logged them, and none is lost."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.runlog.reader import read_journal
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.writer import RunLog

HOUR, YEAR = 3600.0, 365 * 86400.0


def ticking(*times: float) -> Callable[[], float]:
    """Return a clock that tells these times over and over."""
    return itertools.cycle(times).__next__


CLOCKS = {
    "steady": itertools.count(1e9, 0.5).__next__,
    "back an hour": ticking(1e9, 1e9 + 1, 1e9 - HOUR, 1e9 - HOUR + 1),
    "forward a year": ticking(1e9, 1e9 + YEAR, 1e9 + 2),
    "frozen": ticking(1e9),
    "not a number": ticking(math.nan),
    "sometimes not": ticking(1e9, math.nan, 1e9 + 1),
    "infinite": ticking(math.inf, -math.inf, 1e9),
    "before all time": ticking(-1e18, 0.0, -1.0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    return tmp_path / "one"


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_points_stay_in_order_under_any_clock(folder: Path, backend: str, clock: Callable[[], float]) -> None:
    log = RunLog(folder, backend=backend, clock=clock, created={"run_id": "one", "project": "p", "name": "n"})  # type: ignore[arg-type]
    values = [number if number % 3 else float(number) for number in range(3000)]  # two types: two keys
    for number, value in enumerate(values):
        log.points.log({"mixed": value, "x": float(number)}, number)
    log.write("params", params={"a": 1})
    log.write("params", params={"a": 2})
    log.write("end", status="finished", failure=None, dropped=0)
    log.close("finished")
    found = MetricLog(folder)
    assert np.array_equal(found.series("x").value, np.arange(3000.0))
    assert np.array_equal(found.series("mixed").value, np.arange(3000.0))
    summary = found.summaries()["x"]
    assert (summary.last, summary.last_step) == (2999.0, 2999)
    info = runstone.RunInfo(folder)
    assert info.params == {"a": 2}
    assert info.status is runstone.Status.FINISHED
    assert info.duration_s >= 0
    assert info.started_at.tzinfo is UTC
    assert info.ended_at is not None


# A clock is broken for the whole process, from before anything of Runstone was loaded.
PROGRAM = """
import itertools, math, os, sys, time
begin, real = time.time(), time.time
clocks = {
    "back an hour": lambda n: real() - (3600.0 if n > 20 else 0.0),
    "forward a year": lambda n: real() + (365 * 86400.0 if n > 20 else 0.0),
    "to and fro": lambda n: real() + (-3600.0 if n % 2 else 365 * 86400.0),
    "frozen": lambda n: begin,
    "not a number": lambda n: math.nan,
    "infinite": lambda n: math.inf if n % 3 else -math.inf,
    "before all time": lambda n: -1e18 if n % 2 else 1e300,
}
count = itertools.count()
clock = clocks[os.environ["CLOCK"]]
time.time = lambda: clock(next(count))
import runstone
for attempt in (1, 2):
    run = runstone.start_run(run_id="one", environment=False, params={f"a{attempt}": attempt}, system_metrics=0.5)
    for step in range(3000 * (attempt - 1), 3000 * attempt):
        run.log({"x": float(step), "text": f"{step}"}, step=step)
        if step % 1000 == 0:
            run.set_tags({"at": step})
    if attempt == 2:
        time.sleep(1.2)  # for the keeper and the sampler
    run.finish("pruned" if attempt == 1 else None)
"""
BROKEN = ["back an hour", "forward a year", "to and fro", "frozen", "not a number", "infinite", "before all time"]


@pytest.fixture(scope="module")
def broken_clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Workspaces of runs under broken clocks, by clock; recorded at once, since they mostly wait."""
    homes = {clock: tmp_path_factory.mktemp("clock") / "workspace" for clock in BROKEN}
    programs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            env={**os.environ, "CLOCK": clock, "RUNSTONE_WORKSPACE": str(home), "RUNSTONE_ON_ERROR": "raise"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for clock, home in homes.items()
    ]
    ends = [(program.communicate(timeout=60)[1], program.returncode) for program in programs]
    assert ends == [("", 0)] * len(BROKEN)
    return homes


@pytest.mark.parametrize("clock", BROKEN)
def test_run_under_a_broken_clock_is_whole_living_on_paper_and_sealed(
    broken_clocks: dict[str, Path], clock: str
) -> None:
    workspace = runstone.Workspace(broken_clocks[clock])

    def assert_whole() -> None:
        (info,) = workspace.runs()
        assert info.status is runstone.Status.FINISHED
        info = workspace.run("one")
        assert [attempt.status for attempt in info.attempts] == [runstone.Status.PRUNED, runstone.Status.FINISHED]
        assert info.params == {"a1": 1, "a2": 2}
        assert info.tags == {"at": "5000"}
        assert np.array_equal(info.series("x", attempt=1).value, np.arange(3000.0))
        assert np.array_equal(info.series("x", attempt=2).value, np.arange(3000.0, 6000.0))
        assert np.array_equal(np.sort(info.series("x").value), np.arange(6000.0))
        assert info.series("text", attempt=2).value.tolist() == [str(step) for step in range(3000, 6000)]
        summary = info.metrics["x"]
        assert (summary.count, summary.min, summary.max) == (6000, 0.0, 5999.0)
        assert info.duration_s >= 0
        for attempt in info.attempts:
            assert attempt.ended_at is not None
            assert attempt.started_at.tzinfo is UTC
        if clock != "before all time":  # seconds since the run began have no 64 bits then
            assert (np.diff(info.series("system/process/rss_bytes").step) >= 0).all()
        assert info.points().num_rows >= 12_000
        assert info.zoom("x", buckets=10).step.max() == 5999
        json.loads(json.dumps(workspace.runs("metrics.x.count = 6000").to_dicts(), default=str))

    assert_whole()
    assert workspace.seal("one") is not None
    assert_whole()


def test_curve_goes_on_where_the_attempt_before_ended_although_its_clock_is_behind(folder: Path) -> None:
    for attempt, begin in ((1, 1e9), (2, 1e9 - 300.0), (3, 1e9 - 600.0)):  # moved from host to host
        log = RunLog(folder, attempt=attempt, clock=itertools.count(begin, 1.0).__next__, created={"run_id": "one"})
        log.write("params", params={"lr": attempt})
        for step in range(10 * (attempt - 1), 10 * attempt):
            log.points.log({"x": float(step)}, step)
        log.write("end", status="finished", failure=None, dropped=0)
        log.close("finished")
    for _sealed in (False, True):
        info = runstone.RunInfo(folder)
        assert info.params == {"lr": 3}
        assert info.series("x").step.tolist() == list(range(30))
        assert info.metrics["x"].last == 29.0
        assert info.duration_s >= 0
        seal(folder)


def test_points_in_portions_keep_the_order_that_they_have_as_a_whole(folder: Path) -> None:
    log = RunLog(folder, backend="mmap", clock=ticking(1e9, 1e9 - HOUR, 1e9 + 5))
    reader = MetricLog(folder)
    for number in range(500):
        log.points.log({"x": number if number % 2 else float(number)}, number)
        if number % 7 == 0:
            reader.poll()
    reader.poll()
    log.close()
    assert np.array_equal(reader.series("x").value, np.arange(500.0))


def test_points_of_several_writers_are_merged_by_time(folder: Path) -> None:
    def every_second(begin: float) -> Iterator[float]:
        yield from itertools.count(begin, 1.0)

    first = RunLog(folder, clock=every_second(1e9).__next__)
    second = RunLog(folder, clock=every_second(1e9 + 0.5).__next__, rank=1)
    for log, offset in ((second, 0.5), (first, 0.0)):
        for number in range(10):
            log.points.log({"x": number + offset}, number)
        log.close()
    walls = MetricLog(folder).series("x").wall_s
    assert np.array_equal(np.sort(walls), walls)
    assert len(walls) == 20


def test_summary_of_a_metric_does_not_depend_on_how_it_was_cut() -> None:
    from runstone.runlog.summary import Figures

    generator = np.random.default_rng(1)
    values = generator.normal(size=1000) * 10.0 ** generator.integers(-8, 8, 1000)
    values[::17] = np.nan
    steps, walls = np.arange(1000), np.arange(1000.0)
    summaries = []
    for size in (1000, 1, 7, 333):
        figures = Figures(1)
        for begin in range(0, 1000, size):
            figures.add(0, steps[begin : begin + size], values[begin : begin + size], walls[begin : begin + size])
        summaries.append(figures.summary(0, "x"))
    assert all(summary == summaries[0] for summary in summaries)
    assert summaries[0].nan_count == 59
    assert summaries[0].min == np.nanmin(values)
    assert summaries[0].max == np.nanmax(values)
    assert summaries[0].max_step == int(np.nanargmax(values))
    assert summaries[0].mean == pytest.approx(np.nanmean(values))


def test_metric_of_nan_alone_and_of_infinities_has_a_summary() -> None:
    with runstone.start_run(environment=False) as run:
        for value in (math.nan, math.nan):
            run.log({"nan": value})
        for value in (math.inf, -math.inf):
            run.log({"inf": value}, step=0)
    nan, inf = run.read().metrics["nan"], run.read().metrics["inf"]
    assert (nan.min, nan.max, nan.mean, nan.count, nan.nan_count) == (None, None, None, 2, 2)
    assert math.isnan(nan.last)
    assert (inf.min, inf.max, inf.last) == (-math.inf, math.inf, -math.inf)


def test_metric_that_was_never_logged_names_the_nearest() -> None:
    with runstone.start_run(environment=False) as run:
        run.log({"train/loss": 1.0, "lr": 2.0})
    with pytest.raises(runstone.MetricNotFound, match="it has 'train/loss'"):
        run.read().series("train/los")
    with runstone.start_run(environment=False) as run:
        pass
    with pytest.raises(runstone.MetricNotFound, match="has logged no metric"):
        run.read().series("x")


def test_edit_comes_after_what_it_edits_although_its_clock_is_behind(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = runstone.ensure_workspace(home)
    folder = workspace.make_run_folder("p", "one")
    ahead = RunLog(folder, clock=ticking(datetime.now(UTC).timestamp() + YEAR), created={"run_id": "one"})
    ahead.write("tags", set={"stage": "by the run"}, remove=[])
    ahead.close()
    workspace.set_tags("one", {"stage": "by hand"})
    workspace.delete("one")
    assert read_journal(folder).tags == {"stage": "by hand"}
    assert read_journal(folder).is_deleted
    workspace.restore("one")
    assert not read_journal(folder).is_deleted
    workspace.set_tags("one", {}, remove=("stage",))
    assert read_journal(folder).tags == {}
