"""Living runs are read on from where the last question ended, with the very figures that a look at all points gives."""

from __future__ import annotations

import itertools
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import runstone
from runstone.index.store import FILE
from runstone.runlog import format as fmt
from runstone.runlog.progress import MOST_NAMES, Progress
from runstone.runlog.reader import read_journal
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.writer import RunLog
from runstone.values import MetricSummary, Series

NAMES = ["loss", "acc", "system/cpu"]
values = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, math.inf, math.nan, 0.1, 1e16]),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(max_size=3),
)


def summary_of(series: Series) -> MetricSummary:
    """Return the figures of a curve, computed the slow way, point by point."""
    last_at = series.wall_s.tolist()[-1]
    numbers = [float(value) for value in series.value.tolist()]
    steps = series.step.tolist()
    total, lowest, highest, nans = 0.0, None, None, 0
    for step, number in zip(steps, numbers, strict=True):
        if math.isnan(number):
            nans += 1
            continue
        total += number
        lowest = (number, step) if lowest is None or number < lowest[0] else lowest
        highest = (number, step) if highest is None or number > highest[0] else highest
    mean = total / (len(numbers) - nans) if lowest else None
    extremes = [*(lowest or (None, None)), *(highest or (None, None))]
    counts = (len(numbers), nans, min(steps), max(steps), numbers[-1])
    return MetricSummary(series.name, *counts, *extremes, mean, last_at)  # type: ignore[arg-type]


def reference(folder: Path) -> dict[str, str]:
    log = MetricLog(folder)
    found = {}
    for name in log.names:
        if {portion.kind for portion in log.portions(name)} <= set(fmt.BESIDE):
            continue
        series = log.series(name)
        if len(series):
            found[name] = repr(summary_of(series))
    return found


class LivingRun(RuleBasedStateMachine):
    """A run that lives, dies, is gone on with, rewound and sealed, while its index is asked, and deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=os.environ["RUNSTONE_TEST_FOLDER"]))
        self.workspace = runstone.ensure_workspace(self.folder / ".runstone")
        self.run = self.workspace.make_run_folder("p", "r")
        self.now = 1e9
        self.attempt = 0
        self.logs: list[RunLog] = []
        self.kept: bytes | None = None

    def start_writer(self, rank: int, backend: str) -> RunLog:
        created = {"run_id": "r", "project": "p", "name": "r"}
        return RunLog(
            self.run,
            attempt=self.attempt,
            rank=rank,
            backend=backend,  # type: ignore[arg-type]
            clock=self.clock,
            created=created if self.attempt == 1 and not rank else None,
        )

    def clock(self) -> float:
        self.now += 0.25
        return self.now

    @initialize(backend=st.sampled_from(["mmap", "append"]))
    def begin(self, backend: str) -> None:
        self.resume(backend, rewind=None)

    @rule(seconds=st.sampled_from([-0.3, -1.0]), count=st.integers(1, 4))
    @precondition(lambda self: len(self.logs) > 1)
    def record_in_turn(self, seconds: float, count: int) -> None:
        for log in self.logs * count:
            log.points.log({"loss": self.now % 7}, 3)
            self.now += seconds

    @rule(step=st.integers(-5, 30), logged=st.dictionaries(st.sampled_from(NAMES), values, min_size=1), data=st.data())
    @precondition(lambda self: self.logs)
    def record(self, step: int, logged: dict[str, Any], data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.logs)).points.log(logged, step)

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 3000), start=st.integers(0, 50), data=st.data())
    @precondition(lambda self: self.logs)
    def record_many(self, name: str, count: int, start: int, data: st.DataObject) -> None:
        numbers = np.random.default_rng(count).normal(size=count) * 1e3
        data.draw(st.sampled_from(self.logs)).points.log_series(name, np.arange(start, start + count), numbers)

    @rule(seconds=st.floats(-20.0, 20.0))
    def turn_the_clock(self, seconds: float) -> None:
        self.now += seconds

    @rule(backend=st.sampled_from(["mmap", "append"]))
    @precondition(lambda self: 0 < len(self.logs) < 3)
    def join(self, backend: str) -> None:
        self.logs.append(self.start_writer(len(self.logs), backend))

    @rule()
    @precondition(lambda self: self.logs)
    def die(self) -> None:
        for log in self.logs:
            log.close()  # without the word of how it ended
        self.logs = []

    @rule(backend=st.sampled_from(["mmap", "append"]), rewind=st.none() | st.integers(0, 20))
    @precondition(lambda self: not self.logs)
    def resume(self, backend: str, rewind: int | None) -> None:
        self.attempt += 1
        self.logs = [self.start_writer(0, backend)]
        if rewind is not None:
            self.logs[0].write("rewind", step=rewind)

    @rule(step=st.integers(0, 20))
    @precondition(lambda self: self.logs)
    def rewind(self, step: int) -> None:
        self.logs[0].write("rewind", step=step)

    @rule()
    @precondition(lambda self: not self.logs)
    def seal(self) -> None:
        seal(self.run)

    @rule()
    def delete_the_index(self) -> None:
        for file in self.workspace.path.glob(f"{FILE}*"):
            file.unlink()

    @rule()
    def ask(self) -> None:
        (record,) = self.workspace.runs().records
        assert {name: repr(summary) for name, summary in record.metrics.items()} == reference(self.run)

    @invariant()
    def figures_are_those_of_the_curves(self) -> None:
        expected = reference(self.run)
        assert {name: repr(one) for name, one in MetricLog(self.run).summaries().items()} == expected
        journal = read_journal(self.run)
        progress = Progress.from_bytes(self.run, self.kept) if self.kept is not None else None
        if progress is None or not progress.advance(journal):
            progress = Progress(MetricLog(self.run, journal), journal)
        assert {name: repr(one) for name, one in progress.summaries().items()} == expected
        self.kept = progress.to_bytes()

    def teardown(self) -> None:
        for log in self.logs:
            log.close()
        shutil.rmtree(self.folder)


def test_figures_are_the_same_however_often_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_TEST_FOLDER", str(tmp_path))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    LivingRun.TestCase.settings = settings(
        max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=checks
    )
    LivingRun.TestCase("runTest").runTest()


# --- what is read, and what is not ------------------------------------------------------------------------------------


def ask(home: Path) -> dict[str, str]:
    (record,) = runstone.open_workspace(home).runs().records
    return {name: repr(summary) for name, summary in record.metrics.items()}


def make_unreadable(folder: Path, slots: int) -> None:
    """Let the first slots of the log look as if they had never been written."""
    wal = min(folder.glob("*-00000000.wal"))
    with wal.open("r+b") as file:
        file.seek(fmt.HEADER_BYTES)
        file.write(bytes(slots * fmt.SLOT_BYTES))


def test_a_question_reads_only_what_came_since_the_last(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        for step in range(1000):
            run.log({"x": float(step)}, step=step)
        first = ask(home)
        make_unreadable(run.path, 1000)
        assert ask(home) == first
        run.log({"x": -7.0, "y": 1.0}, step=1000)
        (record,) = runstone.open_workspace(home).runs().records
        assert (record.metrics["x"].count, record.metrics["x"].min, record.metrics["x"].max) == (1001, -7.0, 999.0)
        assert record.metrics["x"].mean == pytest.approx((sum(range(1000)) - 7) / 1001)
        assert record.metrics["y"].count == 1
        for file in home.glob(f"{FILE}*"):
            file.unlink()
        assert "x" not in ask(home)  # the index was all that knew


def test_another_process_reads_on_where_the_last_one_ended(home: Path) -> None:
    program = "import runstone; (r,) = runstone.open_workspace().runs().records; print(r.metrics['x'].count)"
    with runstone.start_run(workspace=home, environment=False) as run:
        for step in range(100):
            run.log({"x": float(step)}, step=step)
        environment = {**os.environ, "RUNSTONE_WORKSPACE": str(home)}
        counts = []
        for _ in range(2):
            told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
            counts.append(int(told.stdout))
            make_unreadable(run.path, 100)
            run.log({"x": 0.0}, step=100)
    assert counts == [100, 101]


def test_what_was_kept_goes_with_the_end_of_the_run(home: Path) -> None:
    import sqlite3

    def kept() -> int:
        connection = sqlite3.connect(home / FILE)
        try:
            return int(connection.execute("SELECT count(*) FROM progress").fetchone()[0])
        finally:
            connection.close()

    with runstone.start_run(workspace=home, environment=False) as run:
        run.log({"x": 1.0})
        ask(home)
        assert kept() == 1
    ask(home)
    assert kept() == 0


def progress_of(folder: Path) -> Progress:
    journal = read_journal(folder)
    return Progress(MetricLog(folder, journal), journal)


@pytest.fixture
def logs(tmp_path: Path) -> Any:
    made: list[RunLog] = []

    def make(**options: Any) -> RunLog:
        made.append(RunLog(tmp_path, created={"run_id": "r", "project": "p", "name": "r"}, **options))
        return made[-1]

    yield make
    for log in made:
        log.close()


def test_a_second_attempt_is_read_on_after_one_look_at_all(tmp_path: Path, logs: Any) -> None:
    first = logs(clock=itertools.count(1e9).__next__)
    for step in range(10):
        first.points.log({"x": 1.0}, step)
    progress = progress_of(tmp_path)
    first.close()
    second = logs(attempt=2, clock=itertools.count(1e9 - 600).__next__)  # on a host whose clock is behind
    second.points.log({"x": 2.0}, 5)
    assert not progress.advance(read_journal(tmp_path))
    progress = progress_of(tmp_path)
    assert progress.summaries()["x"].count == 6
    for step in range(6, 9):
        second.points.log({"x": 3.0}, step)
        assert progress.advance(read_journal(tmp_path))
        assert dict(progress.summaries()) == dict(MetricLog(tmp_path).summaries())
    second.points.log({"y": 3.0}, 0)
    assert progress.advance(read_journal(tmp_path))
    second.write("rewind", step=2)
    assert not progress.advance(read_journal(tmp_path))


def test_a_metric_that_an_attempt_logs_late_supersedes_what_was_counted(tmp_path: Path, logs: Any) -> None:
    first = logs()
    for step in range(10):
        first.points.log({"x": 1.0, "y": 1.0}, step)
    first.close()
    second = logs(attempt=2)
    second.points.log({"x": 2.0}, 5)
    progress = progress_of(tmp_path)
    second.points.log({"y": 2.0}, 5)
    assert not progress.advance(read_journal(tmp_path))
    assert progress_of(tmp_path).summaries()["y"].count == 6


def test_points_of_an_earlier_attempt_that_still_lives_are_told(tmp_path: Path, logs: Any) -> None:
    first, second = logs(), logs(attempt=2)
    first.points.log({"x": 1.0}, 0)
    second.points.log({"x": 2.0}, 5)
    progress = progress_of(tmp_path)
    first.points.log({"x": 1.0}, 6)
    assert not progress.advance(read_journal(tmp_path))
    assert progress_of(tmp_path).summaries()["x"].count == 2


def test_points_that_belong_between_others_are_told(tmp_path: Path, logs: Any) -> None:
    first, second = logs(clock=itertools.count(1e9).__next__), logs(rank=1, clock=itertools.count(1e9 + 100).__next__)
    first.points.log({"x": 1.0}, 0)
    progress = progress_of(tmp_path)
    second.points.log({"x": 2.0}, 0)
    assert progress.advance(read_journal(tmp_path))
    first.points.log({"x": 3.0}, 1)
    assert not progress.advance(read_journal(tmp_path))
    progress = progress_of(tmp_path)  # whose last point in the order of time is that of `second`
    first.points.log({"x": 4.0}, 2)
    assert not progress.advance(read_journal(tmp_path))


def test_a_hole_that_is_filled_is_told(tmp_path: Path, logs: Any) -> None:
    log = logs(backend="append")
    for step in range(3):
        log.points.log({"x": float(step)}, step)
    (wal,) = tmp_path.glob("*.wal")
    data = bytearray(wal.read_bytes())
    whole = bytes(data)
    data[fmt.HEADER_BYTES : fmt.HEADER_BYTES + fmt.SLOT_BYTES] = bytes(fmt.SLOT_BYTES)
    wal.write_bytes(data)
    progress = progress_of(tmp_path)
    assert progress.summaries()["x"].count == 2
    wal.write_bytes(whole)
    assert not progress.advance(read_journal(tmp_path))


def test_what_is_kept_survives_as_bytes_and_damage_is_seen(tmp_path: Path, logs: Any) -> None:
    log = logs()
    for step in range(50):
        log.points.log({"x": 1 / (step + 1), "n": step, "t": "text", "é😀": math.nan}, step)
    data = progress_of(tmp_path).to_bytes()
    assert data is not None
    log.points.log({"x": -0.0, "z": True}, 51)
    progress = Progress.from_bytes(tmp_path, data)
    assert progress is not None
    assert progress.advance(read_journal(tmp_path))
    assert repr(progress.summaries()) == repr(MetricLog(tmp_path).summaries())
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        assert Progress.from_bytes(tmp_path, bytes(damaged)) is None
    for cut in (0, 3, 4, 11, len(data) - 1):
        assert Progress.from_bytes(tmp_path, data[:cut]) is None


def test_files_that_do_not_fit_are_seen(tmp_path: Path, logs: Any) -> None:
    log = logs(backend="append")
    for step in range(50):
        log.points.log({"x": 1.0}, step)
    data = progress_of(tmp_path).to_bytes()
    assert data is not None
    (wal,) = tmp_path.glob("*.wal")
    whole = wal.read_bytes()
    wal.write_bytes(whole[:-32])
    assert Progress.from_bytes(tmp_path, data) is None
    header = fmt.unpack_header(whole)
    assert header is not None
    wal.write_bytes(fmt.pack_header(header._replace(salt=header.salt ^ 1)) + whole[struct.calcsize("<76x") :])
    assert Progress.from_bytes(tmp_path, data) is None
    wal.unlink()
    assert Progress.from_bytes(tmp_path, data) is None
    wal.write_bytes(whole)
    assert Progress.from_bytes(tmp_path, data) is not None


def test_of_too_many_names_nothing_is_kept(tmp_path: Path, logs: Any) -> None:
    log = logs()
    for number in range(MOST_NAMES + 1):
        log.points.log({f"{number}": 1.0}, 0)
    assert progress_of(tmp_path).to_bytes() is None


def test_a_question_about_a_long_living_run_takes_no_time(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_series("x", np.arange(2_000_000), np.ones(2_000_000))
        workspace = runstone.open_workspace(home)
        began = time.process_time()
        workspace.runs()
        first = time.process_time() - began
        again = []
        for _ in range(5):
            run.log({"x": 1.0})
            began = time.process_time()
            (record,) = workspace.runs().records
            again.append(time.process_time() - began)
        assert record.metrics["x"].count == 2_000_005
    assert min(again) < first / 2
