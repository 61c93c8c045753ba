"""`log` from where nobody expects it, up to the last moment of the interpreter (F19): no deadlock, nothing lost."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status

# Each place counts what `log` acknowledged in a file that outlives the process.
BEGIN = """
import atexit, gc, mmap, os, signal, sys, threading, time, weakref
import runstone
file = open("acknowledged", "wb+")
file.truncate(4096)
counts = memoryview(mmap.mmap(file.fileno(), 4096)).cast("q")
atexit.register(lambda: signal.setitimer(signal.ITIMER_REAL, 0))  # at last: it would kill a process without handlers
run = runstone.start_run(run_id="one", environment=False, on_error="warn")

def tell(place, name):
    step = counts[place]
    run.log({name: float(step), f"{name}/new{step % 300}": step, f"{name}/text": "t"}, step=step)
    if not run.is_finished:
        counts[place] = step + 1
"""
NAMES = ("main", "thread", "handler", "del", "weakref", "atexit")
EVERYWHERE = """
is_inside = False
def handler(*_):
    global is_inside
    if not is_inside:
        is_inside = True
        for _ in range(20):
            tell(2, "handler")
        is_inside = False
class Dying:
    def __del__(self):
        tell(3, "del")
class Watched:
    pass
keep = []
def watch():
    watched = Watched()
    watched.myself = watched
    keep.append(weakref.ref(watched, lambda _: tell(4, "weakref")))
def work():
    while True:
        tell(1, "thread")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
sys.setswitchinterval(1e-5)
threading.Thread(target=work, daemon=True).start()
atexit.register(lambda: [tell(5, "atexit") for _ in range(500)])
gc.set_threshold(50)
for step in range(4000):
    tell(0, "main")
    a, b = Dying(), Dying()
    a.other, b.other = b, a
    watch()
left = Dying()
"""
ENDINGS = {
    "end": (0, Status.FINISHED, ""),
    "exit": (3, Status.FAILED, "sys.exit(3)"),
    "exception": (1, Status.FAILED, "raise LookupError"),
    "term": (-15, Status.STOPPED, "signal.raise_signal(signal.SIGTERM)"),
    "finish": (0, Status.FINISHED, "run.finish()"),
    "kill": (-9, Status.CRASHED, "signal.raise_signal(signal.SIGKILL)"),
}


def check(info: runstone.RunInfo, folder: Path, needed: tuple[str, ...]) -> None:
    acknowledged = struct.unpack("6q", (folder / "acknowledged").read_bytes()[:48])
    for name, count in zip(NAMES, acknowledged, strict=True):
        assert count > 0 or name not in needed
        if not count:
            continue
        series, texts = info.series(name), info.series(f"{name}/text")
        assert np.isin(np.arange(count), series.step).all(), f"{name}: {count} acknowledged, {len(series)} found"
        assert np.isin(np.arange(count), texts.step).all()
        assert np.array_equal(series.value, series.step)
        found = np.concatenate([info.series(f"{name}/new{number}").step for number in range(min(300, count))])
        assert np.isin(np.arange(count), found).all()


@pytest.mark.parametrize("backend", ["mmap", "append"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_all_that_was_acknowledged_anywhere_is_there_however_the_process_ends(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], tmp_path: Path, ending: str, backend: str
) -> None:
    code, status, last = ENDINGS[ending]
    ended = start(BEGIN + EVERYWHERE + last, RUNSTONE_LOG=backend).end(timeout_s=60)
    assert ended.code == code, ended.errors
    info = only_run()
    assert info.status is status
    needed = ("main", "thread", "handler", "del", "weakref")
    check(info, tmp_path, (*needed, "atexit") if ending in ("end", "exit", "exception") else needed)


def test_thread_that_outlives_the_main_one_is_waited_for_and_loses_nothing(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], tmp_path: Path
) -> None:
    program = BEGIN + "threading.Thread(target=lambda: [tell(1, 'thread') for _ in range(20_000)]).start()"
    ended = start(program).end(timeout_s=60)
    assert (ended.code, ended.errors) == (0, "")
    check(only_run(), tmp_path, ("thread",))
    assert len(only_run().series("thread")) == 20_000
    assert only_run().status is Status.FINISHED


def test_buffer_in_front_of_the_log_is_found_out(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], tmp_path: Path
) -> None:
    buffer = """
waiting, real = [], run.log
def log(*arguments, **named):
    waiting.append((arguments, named))
    if len(waiting) >= 100:
        for arguments, named in waiting:
            real(*arguments, **named)
        waiting.clear()
run.log = log
for step in range(150):
    tell(0, "main")
os._exit(0)
"""
    assert start(BEGIN + buffer).end().code == 0
    with pytest.raises(AssertionError, match="150 acknowledged, 100 found"):
        check(only_run(), tmp_path, ("main",))
