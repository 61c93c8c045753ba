"""Forks at any moment (F9): the child writes files of its own, nothing is lost, nothing hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
LIMIT_S = 60.0
BACKENDS = ["mmap", "append"]


def in_fork(work: Callable[[], object]) -> Callable[[], int]:
    """Run `work` in a forked child; return what waits for its exit code, at most `LIMIT_S`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)

    def wait() -> int:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise AssertionError("the child hangs")

    return wait


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[runstone.Run]:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    with runstone.start_run(environment=False) as run:
        run.log({"x": 0.0}, step=0)
        yield run


def locks_of(run: runstone.Run) -> dict[str, Any]:
    """Return every lock of the writer, each once, by where it is. Bells, which are locks too, are left out."""
    found: dict[str, Any] = {}
    kinds = (type(threading.Lock()), type(threading.RLock()))

    def visit(place: str, owner: object, depth: int) -> None:
        slots = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*vars(owner), *slots] if hasattr(owner, "__dict__") else slots:
            value = getattr(owner, name, None)
            if isinstance(value, kinds):
                if name != "_is_silent" and all(value is not other for other in found.values()):
                    found[f"{place}.{name}"] = value
            elif type(value).__module__.startswith("runstone.") and depth < 4:
                visit(f"{place}.{name}", value, depth + 1)

    visit("log", run._log, 0)
    return found


@pytest.mark.parametrize("is_forking_thread", [False, True], ids=["another thread", "the thread that forks"])
def test_fork_while_a_thread_holds_every_lock_leaves_the_child_free(run: runstone.Run, is_forking_thread: bool) -> None:
    locks = locks_of(run)
    assert "log._lock" in locks
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks.values():
            lock.acquire()
        held.set()
        release.wait(LIMIT_S)
        for lock in locks.values():
            lock.release()

    def child() -> None:
        for step in range(3000):  # several segments
            run.log({"x": float(step), f"new/{step % 50}": 1.0, "text": "t"}, step=step)
        run.log_params({"child": True})
        run.finish()

    if is_forking_thread:
        release.set()
        for lock in locks.values():
            lock.acquire()
        wait = in_fork(child)
        for lock in locks.values():
            lock.release()
    else:
        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        assert held.wait(LIMIT_S)
        wait = in_fork(child)
        release.set()
        holder.join()
    assert wait() == 0
    run.log({"x": -1.0}, step=3000)
    info = runstone.RunInfo(run.path)
    assert sorted(info.series("x").value.tolist()) == [-1.0, 0.0, *map(float, range(3000))]
    assert len(info.series("text")) == 3000
    assert info.params == {"child": True}
    assert info.status is Status.RUNNING


OVERWRITE = """
import os
import runstone
from runstone.runlog import writer
if os.environ.get("BROKEN"):
    writer.RunLog._become_child = lambda self: None
run = runstone.start_run(run_id="one", environment=False)
run.log({"who": 0.0}, step=0)
pid = os.fork()
for step in range(1, 1001):
    run.log({"who": 1.0 if pid else 2.0}, step=step)
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
run.finish()
"""


@pytest.mark.parametrize("is_broken", [False, True], ids=["as it is", "without the hook"])
def test_parent_and_child_that_write_at_once_keep_all_and_without_the_hook_they_would_not(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], is_broken: bool
) -> None:
    ended = run_program(OVERWRITE, RUNSTONE_LOG="mmap", BROKEN="1" if is_broken else "")
    assert ended.code == 0, ended.errors
    who = only_run().series("who").value
    kept = [int((who == writer).sum()) for writer in (0.0, 1.0, 2.0)]
    assert (kept == [1, 1000, 1000]) != is_broken


def test_storm_of_forks_while_threads_log_loses_nothing(run: runstone.Run) -> None:
    is_over = threading.Event()
    acknowledged = [0, 0]

    def work(thread: int) -> None:
        step = 0
        while not is_over.is_set():
            run.log({f"t{thread}": float(step), f"t{thread}/new{step % 500}": 1.0}, step=step)
            step += 1
            acknowledged[thread] = step

    def child(number: int) -> None:
        for step in range(50):
            run.log({"child": number * 50.0 + step}, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        waits = [in_fork(lambda number=number: child(number)) for number in range(20)]
        assert [wait() for wait in waits] == [0] * 20
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    info = runstone.RunInfo(run.path)
    assert np.array_equal(np.sort(info.series("child").value), np.arange(1000.0))
    for thread, count in enumerate(acknowledged):
        assert np.array_equal(info.series(f"t{thread}").value, np.arange(float(count)))
    assert info.dropped == 0


@pytest.mark.heavy
@pytest.mark.soak
@pytest.mark.parametrize(
    "method",
    [
        "fork",
        # both load torch in each worker, which takes long; processes without torch are tested in tests/recording
        pytest.param("spawn", marks=pytest.mark.skipif(not IS_SOAK, reason="`make soak` runs it")),
        pytest.param("forkserver", marks=pytest.mark.skipif(not IS_SOAK, reason="`make soak` runs it")),
    ],
)
def test_workers_of_a_data_loader_log_beside_the_training(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], method: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "training.py").write_text(
        """
import sys
import torch
import runstone

class Data(torch.utils.data.Dataset):
    def __init__(self, run):
        self.run = run
    def __len__(self):
        return 200
    def __getitem__(self, index):
        self.run.log({"read": float(index)}, step=index)
        return torch.tensor(float(index))

if __name__ == "__main__":
    torch.set_num_threads(1)
    with runstone.start_run(run_id="one", environment=False) as run:
        seen = 0
        loader = torch.utils.data.DataLoader(
            Data(run), batch_size=10, num_workers=2, multiprocessing_context=sys.argv[1], timeout=60
        )
        for epoch in range(int(sys.argv[2])):  # new workers each time
            for batch in loader:
                run.log({"loss": float(batch.sum())}, step=seen)
                seen += 1
"""
    )
    epochs = 2
    start = (
        f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, 'training.py', {method!r}, '{epochs}']))"
    )
    ended = run_program(start)
    assert ended.code == 0, ended.errors
    info = only_run()
    assert info.status is Status.FINISHED
    assert len(info.attempts) == 1
    assert sorted(info.series("read").value.tolist()) == sorted([float(index) for index in range(200)] * epochs)
    assert info.series("loss").step.tolist() == list(range(20 * epochs))
    assert info.dropped == 0
