"""Handles on one metric: the short way to a slot keeps the promises of the long one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.runlog.series import MetricLog


@pytest.fixture(params=["mmap", "append"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> runstone.Run:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    return runstone.start_run(environment=False)


def points(run: runstone.Run, name: str) -> list[tuple[int, float]]:
    series = run.read().series(name)
    return list(zip(series.step.tolist(), series.value.tolist(), strict=True))


def test_handle_and_log_write_one_series_in_order_over_many_segments(run: runstone.Run) -> None:
    handle = run.metric("x")
    for step in range(0, 20_000, 2):
        handle(float(step), step=step)
        run.log({"x": float(step + 1)}, step=step + 1)
    run.finish()
    assert points(run, "x") == [(step, float(step)) for step in range(20_000)]
    assert run.dropped == 0


def test_steps_of_handle_and_run_are_counted_apart(run: runstone.Run) -> None:
    handle = run.metric("x")
    run.log({"y": 0.0})
    handle(0.5)
    run.log({"y": 1.0}, step=10)
    handle(1.5)
    handle(2.5, step=np.int64(2**62))
    handle(3.5)
    run.log({"y": 2.0})
    handle(4)
    handle(5.5, step=True)
    handle(6.5)
    run.finish()
    assert [step for step, _value in points(run, "y")] == [0, 10, 11]
    assert [step for step, _value in points(run, "x")] == [0, 1, 2**62, 2**62 + 1, 2**62 + 2, 1, 2]


def test_step_that_is_none_is_refused_and_changes_nothing(run: runstone.Run) -> None:
    handle = run.metric("x")
    handle(0.5, step=2**63 - 1)
    for wrong in (2**63, 1.5, "3"):
        with pytest.raises(runstone.InvalidValue, match="step must be an integer of 64 bits"):
            handle(1.5, step=wrong)  # type: ignore[arg-type]
    with pytest.raises(runstone.InvalidValue, match="step must be an integer of 64 bits"):
        handle(1.5)  # one more than the last
    handle(2.5, step=7)
    handle(3.5)
    run.finish()
    assert points(run, "x") == [(2**63 - 1, 0.5), (7, 2.5), (8, 3.5)]


def test_handle_of_a_finished_run_says_so_and_writes_again_when_it_is_reopened(run: runstone.Run) -> None:
    handle = run.metric("x")
    handle(0.5)
    handle(1.5)
    run.finish()
    with pytest.raises(runstone.RunFinished):
        handle(2.5)
    assert run.dropped == 1
    run.reopen()
    handle(3.5)
    handle(4.5)
    run.finish()
    assert points(run, "x") == [(0, 0.5), (1, 1.5), (2, 3.5), (3, 4.5)]


def test_handle_writes_for_the_process_that_calls_it(run: runstone.Run) -> None:
    handle = run.metric("x")
    handle(0.0, step=0)
    handle(1.0, step=1)
    child = os.fork()
    if child == 0:
        for step in range(2, 3000):
            handle(-float(step), step=step)
        os._exit(0)
    for step in range(2, 3000):
        handle(float(step), step=step)
    assert os.waitpid(child, 0)[1] == 0
    run.finish()
    values = run.read().series("x").value
    assert sorted(values) == [*range(-2999, -1), *range(3000)]
    assert len(MetricLog(run.path).portions("x")) == 2


def test_threads_share_a_handle_without_losing_a_point(run: runstone.Run) -> None:
    handle = run.metric("x")

    def work(thread: int) -> None:
        for number in range(5000):
            handle(float(thread * 5000 + number), step=number)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    assert sorted(run.read().series("x").value) == list(range(20_000))


def test_no_slot_is_left_empty_by_what_a_handle_cannot_store_at_once(run: runstone.Run) -> None:
    handle = run.metric("x")
    for value in (1, 0.5, True, "text", np.float32(2.5), 3.5):
        handle(value)
    (segment,) = run.path.glob("*-00000000.wal")
    commits = np.frombuffer(segment.read_bytes()[4096:], "<u4").reshape(-1, 8)[:, 7]
    assert np.flatnonzero(commits).tolist() == list(range(6))
    run.finish()


def test_handle_on_a_name_that_cannot_be_kept_is_refused_before_the_loop(home: Path) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    with pytest.raises(runstone.InvalidName):
        run.metric("")
    run.finish()
