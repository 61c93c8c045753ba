"""Who still writes, and how a run stands: by lock on this boot of this host, by heartbeat elsewhere."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Status
from runstone.runlog.liveness import boot_id, is_alive, read_status
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.writer import RunLog

Open = Callable[..., RunLog]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    return tmp_path / "one"


@pytest.fixture
def opened(folder: Path) -> Iterator[Open]:
    logs: list[RunLog] = []

    def open_one(**options: Any) -> RunLog:
        logs.append(RunLog(folder, **options))
        return logs[-1]

    yield open_one
    for log in logs:
        log.close()


def end(log: RunLog, status: str, **fields: Any) -> None:
    log.write("end", status=status, failure=None, dropped=0, **fields)
    log.close(status)


def move_to_another_host(folder: Path) -> None:
    """Make the journals say what they would on another machine."""
    for journal in folder.glob("journal.*"):
        lines = journal.read_bytes().splitlines(keepends=True)
        first = json.loads(lines[0])
        first["boot_id"] = "another"
        journal.write_bytes(json.dumps(first).encode() + b"\n" + b"".join(lines[1:]))


def test_writer_of_this_boot_lives_as_long_as_its_lock(opened: Open, folder: Path) -> None:
    log = opened()
    status = folder / f"{log.writer.hex()}.status"
    assert is_alive(status, boot_id())
    # whatever its heart says
    assert is_alive(status, boot_id(), now=time.time() + 1e6)
    copied = folder / "copied.status"
    copied.write_bytes(status.read_bytes())
    assert not is_alive(copied, boot_id())
    log.close()
    assert not is_alive(status, boot_id())
    assert not is_alive(folder / "missing.status", boot_id())


@pytest.mark.parametrize(
    ("age_s", "lives"), [(0, True), (59, True), (61, False), (1e9, False), (-100, True), (-3600, True), (-1e6, False)]
)
def test_writer_of_another_host_lives_by_its_heart(opened: Open, folder: Path, age_s: float, lives: bool) -> None:
    log = opened()
    log.beat()
    status = read_status(folder / f"{log.writer.hex()}.status")
    assert status is not None
    assert status.beat == pytest.approx(time.time(), abs=5)
    move_to_another_host(folder)
    state = read_journal(folder, now=status.beat + age_s)
    assert state.status is (Status.RUNNING if lives else Status.CRASHED)
    log.close()
    assert read_journal(folder, now=status.beat).status is not Status.RUNNING


@pytest.mark.parametrize("beat", [float("nan"), float("inf"), float("-inf"), 1e300])
def test_heart_that_tells_nonsense_is_dead_and_breaks_no_reader(opened: Open, folder: Path, beat: float) -> None:
    opened()
    move_to_another_host(folder)
    for status in folder.glob("*.status"):
        content = bytearray(status.read_bytes())
        struct.pack_into("<d", content, 16, beat)
        status.write_bytes(content)
    state = read_journal(folder)
    assert state.status is Status.CRASHED
    assert runstone.RunInfo(folder).ended_at is not None


def test_crashed_run_ended_with_its_last_sign_of_life(opened: Open, folder: Path) -> None:
    log = opened()
    log.beat()
    move_to_another_host(folder)
    beat = read_status(folder / f"{log.writer.hex()}.status")
    assert beat is not None
    state = read_journal(folder, now=beat.beat + 100)
    assert state.ended_at == pytest.approx(beat.beat, abs=1e-5)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (["finished"], Status.FINISHED),
        (["finished", "finished"], Status.FINISHED),
        (["finished", None], Status.CRASHED),
        (["finished", "failed", None], Status.FAILED),
        (["stopped", "finished"], Status.STOPPED),
        (["pruned", "finished"], Status.PRUNED),
        (["pruned", "stopped", "finished"], Status.STOPPED),
        (["stopped", None], Status.CRASHED),
    ],
)
def test_worst_end_of_the_ranks_is_the_end_of_the_run(
    opened: Open, folder: Path, ends: list[str | None], expected: Status
) -> None:
    for rank, status in enumerate(ends):
        log = opened(rank=rank)
        assert read_journal(folder).status is Status.RUNNING
        if status is None:
            log.close()
        else:
            end(log, status)
    assert read_journal(folder).status is expected
    assert len(read_journal(folder).attempts) == 1


@pytest.mark.parametrize(
    ("main", "launcher", "expected"),
    [
        (None, None, Status.CRASHED),
        (None, "pruned", Status.PRUNED),
        (None, "stopped", Status.STOPPED),
        (None, "failed", Status.FAILED),
        (None, "finished", Status.CRASHED),
        ("finished", "failed", Status.FINISHED),
        ("finished", None, Status.FINISHED),
        ("failed", "pruned", Status.FAILED),
        ("none came", "failed", Status.FAILED),
        ("none came", "pruned", Status.PRUNED),
        ("none came", None, Status.CRASHED),
    ],
)
def test_launcher_decides_where_the_process_could_not(
    opened: Open, folder: Path, main: str | None, launcher: str | None, expected: Status
) -> None:
    holder = opened(role="launcher")
    assert read_journal(folder).status is Status.RUNNING
    if main != "none came":
        log = opened()
        if main is None:
            log.close()
            assert read_journal(folder).status is Status.RUNNING  # its launcher has not said anything yet
        else:
            end(log, main)
    if launcher is None:
        holder.close()
    else:
        end(holder, launcher)
    assert read_journal(folder).status is expected


def test_launcher_that_looks_in_and_leaves_makes_no_attempt(opened: Open, folder: Path) -> None:
    end(opened(), "finished")
    opened(role="launcher", attempt=2).close()
    state = read_journal(folder)
    assert state.status is Status.FINISHED
    assert len(state.attempts) == 1


def test_children_and_editors_tell_nothing_about_the_end(opened: Open, folder: Path) -> None:
    end(opened(), "finished")
    child = opened(role="child")
    child.write("end", status="failed", failure={"type": "E", "message": "", "traceback": ""}, dropped=0)
    opened(role="child")
    opened(role="edit").write("notes", value="x")
    state = read_journal(folder)
    assert state.status is Status.FINISHED
    assert state.failure is None
    assert state.notes == "x"


def test_writer_whose_journal_is_full_still_tells_its_end_by_the_status_file(opened: Open, folder: Path) -> None:
    log = opened()
    log.points.log({"x": 1.0}, 0)
    log.close("pruned")  # without an `end` event
    assert read_journal(folder).status is Status.PRUNED


def test_dropped_points_of_a_living_and_a_dead_writer_are_told(opened: Open, folder: Path) -> None:
    log = opened()
    log.points.dropped = 7
    log.beat()
    assert read_journal(folder).dropped == 7
    log.points.dropped = 9
    log.close()
    assert read_journal(folder).dropped == 9


def test_stop_word_grows_only_and_reaches_runs_with_and_without_a_map(folder: Path, opened: Open) -> None:
    from runstone.runlog.writer import clear_stop, request_stop

    mapped, unmapped = opened(backend="mmap"), opened(backend="append")
    request_stop(folder, 2)
    assert mapped.control[0] == 2
    unmapped.beat()
    assert unmapped.control[0] == 2
    request_stop(folder, 1)
    assert mapped.control[0] == 2
    clear_stop(folder)
    assert mapped.control[0] == 0
    with pytest.raises(FileNotFoundError):
        request_stop(folder / "missing", 1)
    clear_stop(folder / "missing")


def test_trouble_of_the_storage_is_noted_in_the_run_once(opened: Open, folder: Path) -> None:
    log = opened(backend="append")
    log.points.log({"x": 1.0}, 0)
    os.close(log.points._file.fd)  # type: ignore[union-attr]  # as if the file system had gone
    for _ in range(3):
        log.care()
    log.points._file = None  # type: ignore[union-attr]
    (warning,) = read_journal(folder).warnings
    assert warning.startswith("the storage below the run is in trouble: ")


WRITER = """
import ctypes, sys, time
import runstone
run = runstone.start_run(run_id="stopped", environment=False)
run.log({"x": 1.0}, step=0)
print("ready", flush=True)
if sys.argv[1:] == ["hold"]:
    ctypes.PyDLL(None).usleep(1_000_000)  # nothing of Python runs meanwhile, the keeper neither
    print("held", flush=True)
sys.stdin.readline()
run.log({"x": 2.0}, step=1)
run.finish()
"""


@pytest.fixture
def writer(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a training, as a process."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments],
            env={**os.environ, "RUNSTONE_WORKSPACE": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def assert_running_at_any_time(home: Path) -> None:
    workspace = runstone.Workspace(home)
    path = home / "runs" / "default" / "stopped"
    minute, hour, year = 60.0, 3600.0, 365 * 86400.0
    for later in (0, minute, 10 * minute, hour, year, -hour, -year):
        state = read_journal(path, now=time.time() + later)
        assert state.status is Status.RUNNING, later
        assert state.ended_at is None
    assert runstone.RunInfo(path).status is Status.RUNNING
    assert [info.status for info in workspace.runs("status = 'running'")] == [Status.RUNNING]


def test_stopped_process_runs_for_whatever_a_clock_says_and_one_that_is_killed_does_not(
    writer: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = writer()
    process.send_signal(signal.SIGSTOP)
    (status,) = (home / "runs" / "default" / "stopped").glob("*.status")
    head = read_status(status)
    time.sleep(1.0)  # of silence: longer than from one beat to the next
    assert read_status(status) == head
    assert_running_at_any_time(home)
    process.send_signal(signal.SIGCONT)
    process.communicate("go\n", timeout=30)
    info = runstone.Workspace(home).run("stopped")
    assert info.status is Status.FINISHED
    assert info.series("x").value.tolist() == [1.0, 2.0]
    again = writer()
    again.send_signal(signal.SIGSTOP)
    assert_running_at_any_time(home)
    begin = time.monotonic()
    again.send_signal(signal.SIGKILL)
    again.wait(30)
    assert runstone.Workspace(home).run("stopped").status is Status.CRASHED
    assert time.monotonic() - begin < 5


def test_process_that_does_not_let_go_of_the_interpreter_runs(
    writer: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = writer("hold")
    assert_running_at_any_time(home)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.communicate("go\n", timeout=30)
    assert runstone.Workspace(home).run("stopped").status is Status.FINISHED


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_log_that_cannot_make_its_files_leaves_none_and_holds_nothing(folder: Path) -> None:
    before = open_files()
    (folder / "in the way").mkdir()
    with pytest.raises(TypeError):
        RunLog(folder, created={"run_id": object()})  # cannot be written
    assert [path.name for path in folder.iterdir()] == ["in the way"]
    assert open_files() == before


def test_state_of_a_run_without_files_is_empty(tmp_path: Path) -> None:
    state = read_journal(tmp_path)
    assert isinstance(state, JournalState)
    assert (state.writers, state.attempts, state.failure, state.dropped) == ([], [], None, 0)
