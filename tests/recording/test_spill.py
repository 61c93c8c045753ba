"""A disk that takes nothing for a while: the points of a run lie elsewhere meanwhile, and come back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone import Status
from runstone.runlog.liveness import read_status
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.spill import recover_spill
from tests.recording.conftest import RunProgram, Start
from tests.recording.disk import disk_of, fill

_SOURCE = Path(__file__).parent.parent / "refusing" / "refusing.c"
WAIT_S = 15.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for what these tests log."""
    with disk_of("24m", tmp_path / "disk") as place:
        yield place


@pytest.fixture(params=["mmap", "append"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    return str(request.param)


@pytest.fixture
def run(small_disk: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> runstone.Run:
    """An open run on a small disk."""
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")
    return runstone.start_run(run_id="one", workspace=small_disk / "ws", environment=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where points are kept while the disk of their run takes nothing."""
    return tmp_path / "state" / "runstone" / "spill"


def kept(state: Path) -> list[str]:
    """Return what is kept, by ending."""
    return sorted({path.suffix for path in state.rglob("*") if path.is_file()})


def wait_until(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def steps(run: runstone.Run, name: str = "x") -> list[int]:
    return list(run.read().series(name).step)


GOES_ELSEWHERE = pytest.mark.filterwarnings("ignore:.*its folder takes nothing:runstone.TrackingWarning")


def test_points_that_a_full_disk_refuses_lie_elsewhere_and_come_back(
    run: runstone.Run, small_disk: Path, state: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for step in range(100):
        run.log({"x": float(step), "y": step}, step=step)
    filler = fill(small_disk)
    loss = run.metric("loss")
    for step in range(100, 30_000):
        run.log({"x": float(step), "y": step}, step=step)
        loss(0.5, step=step)
        if step % 3000 == 0:
            run.log({f"new/{step}/{'long' * 200}": 1.0, "text": f"ü {step}", "flag": True}, step=step)
            run.log_histogram("weights", [1.0, 2.0], step=step)
    run.log_series("many", range(50_000), np.arange(50_000.0))
    assert run.dropped == 0
    assert {".wal", ".keys", ".frames", ".lock"} == set(kept(state))
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (state, state / "one")} == {0o700}
    filler.unlink()
    wait_until(lambda: not list(state.iterdir()))
    (status,) = run.path.glob("*.status")
    for step in range(30_000, 30_100):
        run.log({"x": float(step), "y": step}, step=step)
    run.finish()
    assert run.dropped == 0
    assert steps(run) == steps(run, "y") == list(range(30_100))
    info = run.read()
    assert np.array_equal(info.series("x").value, np.arange(30_100.0))
    assert np.array_equal(info.series("many").value, np.arange(50_000.0))
    assert len(info.series("loss")) == 29_900
    whole = MetricLog(run.path)
    assert whole.unnamed == 0
    assert [text for *_rest, text in whole.records("text")] == [f"ü {step}" for step in range(3000, 30_000, 3000)]
    assert len(whole.records("weights")) == 9
    assert [str(warning.message).partition("; points go to ")[0] for warning in recwarn] == [
        f"run {run.name}: its folder takes nothing now ([Errno 28] No space left on device)"
    ]
    assert info.warnings[-1] == f"its folder takes files again: what lay in {state / 'one'} is back"
    head = read_status(status)
    assert head is not None
    assert (head.is_spilled, head.dropped) == (False, 0)
    assert list(run.path.glob("*.partial")) == []


@GOES_ELSEWHERE
def test_run_that_ends_while_its_disk_is_full_is_whole_when_it_is_asked_for_again(
    run: runstone.Run, small_disk: Path, state: Path
) -> None:
    run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    for step in range(1, 10_000):
        run.log({"x": float(step), "late": 1.0}, step=step)
    with pytest.warns(runstone.TrackingWarning, match=f"points lie in {state / 'one'}: make room, then"):
        run.finish()
    status = run.path / f"{run._log.writer.hex()}.status"
    before = read_status(status)
    assert before is not None
    assert (before.is_spilled, before.dropped) == (True, 0)
    assert not recover_spill(run.path)  # there is still no room
    assert steps(run) != list(range(10_000))
    filler.unlink()
    assert recover_spill(run.path)
    assert steps(run) == list(range(10_000))
    assert run.read().dropped == run.dropped == 0
    after = read_status(status)
    assert after is not None
    assert not after.is_spilled
    assert after.word == before.word
    assert list(state.iterdir()) == []
    assert recover_spill(run.path)


PROGRAM = """
import os, sys, time
import runstone
run = runstone.start_run(run_id="one", workspace="disk/ws", on_error="warn", environment=False)
run.log({"x": 0.0}, step=0)
filler = open("disk/filler", "ab", buffering=0)
try:
    while True:
        filler.write(bytes(4096))
except OSError:
    pass
filler.close()
for step in range(1, 20_000):
    run.log({"x": float(step), "late": step, "text": f"{step}"}, step=step)
for number in range(8):
    run.log({f"{number}/{'long' * 200}": 1.0}, step=0)  # more names than the last page of their file takes
print("ready", flush=True)
"""


def test_run_killed_while_its_disk_is_full_is_whole_once_it_is_joined(
    start: Start, small_disk: Path, backend: str, state: Path
) -> None:
    program = start(PROGRAM + "time.sleep(60)", RUNSTONE_LOG=backend)
    program.wait_until_ready()
    program.send(signal.SIGSTOP)
    (small_disk / "filler").unlink()
    assert not recover_spill(small_disk / "ws" / "runs" / "default" / "one")  # it lives
    program.send(signal.SIGKILL)
    program.end()
    run = runstone.start_run(run_id="one", workspace=small_disk / "ws", environment=False)
    run.log({"x": 20_000.0})
    run.finish()
    assert steps(run) == list(range(20_001))
    assert len(run.read().series("late")) == 19_999
    assert len(run.read().metrics) == 2 + 8
    assert len(MetricLog(run.path).records("text")) == 19_999
    assert run.read().dropped == 0
    assert list(state.iterdir()) == []


def test_sealing_waits_for_what_lies_elsewhere_and_takes_it_along(
    start: Start, small_disk: Path, backend: str, state: Path
) -> None:
    program = start(PROGRAM + "time.sleep(60)", RUNSTONE_LOG=backend)
    program.wait_until_ready()
    path = small_disk / "ws" / "runs" / "default" / "one"
    (status,) = path.glob("*.status")
    end = time.monotonic() + 20
    while not ((head := read_status(status)) and head.is_spilled):  # the keeper tells with its next beat
        assert time.monotonic() < end
        time.sleep(0.02)
    program.send(signal.SIGKILL)
    program.end()
    assert seal(path) is None  # sealed now, the run could not take them any more
    assert list(path.glob("*.wal"))
    (small_disk / "filler").unlink()
    assert seal(path) is not None
    assert list(path.glob("*.wal")) == list(state.iterdir()) == []
    assert np.array_equal(MetricLog(path).series("x").value, np.arange(20_000.0))


def test_bringing_points_home_may_be_cut_short_and_done_again(
    start: Start, small_disk: Path, backend: str, state: Path, tmp_path: Path
) -> None:
    program = start(PROGRAM + "time.sleep(60)", RUNSTONE_LOG=backend)
    program.wait_until_ready()
    program.send(signal.SIGKILL)
    program.end()
    path = small_disk / "ws" / "runs" / "default" / "one"
    shutil.copytree(state, tmp_path / "copy")
    names = sorted(file.name for file in (state / "one").iterdir() if file.suffix != ".lock")
    for left_out in names:  # as if a kill had come before this one was removed
        (small_disk / "filler").unlink(missing_ok=True)
        (path / f"{left_out}.partial").write_bytes(b"torn")
        assert recover_spill(path)
        (state / "one").mkdir()
        shutil.copy(tmp_path / "copy" / "one" / left_out, state / "one")
    assert recover_spill(path)
    log = MetricLog(path)
    assert np.array_equal(log.series("x").value, np.arange(20_000.0))
    assert np.array_equal(log.series("late").value, np.arange(1, 20_000))
    assert [text for *_rest, text in log.records("text")] == [str(step) for step in range(1, 20_000)]
    assert log.unnamed == 0
    assert [file.name for file in path.glob("*.partial") if file.name.removesuffix(".partial") not in names] == []


def test_name_torn_by_a_kill_does_not_swallow_those_that_follow(
    start: Start, small_disk: Path, backend: str, state: Path
) -> None:
    program = start(PROGRAM + "time.sleep(60)", RUNSTONE_LOG=backend)
    program.wait_until_ready()
    program.send(signal.SIGKILL)
    program.end()
    (small_disk / "filler").unlink()
    path = small_disk / "ws" / "runs" / "default" / "one"
    (keys,) = path.glob("*.keys")
    with keys.open("ab") as file:
        file.write(b"\x20\0\0\0\1\2\3\4\5")
    assert recover_spill(path)
    assert len(MetricLog(path).names) == 3 + 8


@GOES_ELSEWHERE
def test_what_fits_nowhere_is_counted_exactly_and_recording_goes_on_after(
    small_disk: Path, backend: str, state: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("RUNSTONE_SPILL", "300k")
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")
    run = runstone.start_run(run_id="one", workspace=small_disk / "ws", environment=False)
    run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    for step in range(1, 40_000):
        run.log({"x": float(step), "late": step}, step=step)
    lost = run.dropped
    assert 50_000 < lost < 80_000 - 300 * 1024 // 32 + 4096
    assert sum(file.stat().st_size for file in state.rglob("*") if file.is_file()) <= 300 * 1024
    filler.unlink()
    wait_until(lambda: not list(state.iterdir()))
    time.sleep(1.1)  # the disk is asked again each second
    for step in range(40_000, 40_100):
        run.log({"x": float(step)}, step=step)
    run.finish()
    assert run.dropped == lost
    assert run.read().dropped == lost
    found = steps(run), steps(run, "late")
    assert len(found[0]) + len(found[1]) + lost == 1 + 2 * 39_999 + 100
    assert found[0][-100:] == list(range(40_000, 40_100))
    assert all(here == sorted(set(here)) for here in found)
    told = [str(warning.message) for warning in recwarn]
    assert len([text for text in told if "could not record metrics" in text]) == 1


@pytest.mark.parametrize("how", ["off", "same disk", "not allowed"])
def test_where_nothing_may_lie_elsewhere_points_are_counted_as_before(
    small_disk: Path, backend: str, state: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "off":
        monkeypatch.setenv("RUNSTONE_SPILL", "off")
    elif how == "same disk":
        monkeypatch.setenv("XDG_STATE_HOME", str(small_disk / "state"))
    else:
        state.parent.parent.mkdir()
        state.parent.write_text("a file is in the way")
    run = runstone.start_run(run_id="one", workspace=small_disk / "ws", environment=False)
    run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    refused = 0
    for step in range(1, 20_000):
        try:
            run.log({"x": float(step)}, step=step)
        except OSError as error:
            refused += error.errno == errno.ENOSPC
    filler.unlink()
    run.finish()
    assert run.dropped == refused > 10_000
    assert len(steps(run)) == 20_000 - refused
    assert not (small_disk / "state").exists()
    assert not state.is_dir()


@GOES_ELSEWHERE
def test_run_deleted_while_its_points_lie_elsewhere_is_counted_and_leaves_nothing(
    run: runstone.Run, small_disk: Path, state: Path
) -> None:
    run.log({"x": 0.0}, step=0)
    fill(small_disk)
    for step in range(1, 10_000):
        run.log({"x": float(step)}, step=step)
    while run.path.exists():
        shutil.rmtree(run.path, ignore_errors=True)
    run._log.care()  # what the keeper does each second
    with pytest.warns(runstone.TrackingWarning, match="could not record end"):
        run.finish()
    assert run.dropped == 10_000  # also those that were there: nobody will read them
    assert list(state.iterdir()) == []


@GOES_ELSEWHERE
def test_points_deleted_elsewhere_are_counted(run: runstone.Run, small_disk: Path, state: Path) -> None:
    run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    for step in range(1, 10_000):
        run.log({"x": float(step)}, step=step)
    before = len(steps(run))
    shutil.rmtree(state)
    filler.unlink()
    wait_until(lambda: run.dropped > 0)
    run.log({"x": 10_000.0}, step=10_000)
    run.finish()
    assert run.dropped == 10_000 - before
    assert len(steps(run)) == before + 1


@GOES_ELSEWHERE
def test_fork_while_points_lie_elsewhere_leaves_them_to_the_parent(
    run: runstone.Run, small_disk: Path, state: Path
) -> None:
    run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    for step in range(1, 10_000):
        run.log({"x": float(step)}, step=step)
    child = os.fork()
    if child == 0:
        run.log({"x": -1.0}, step=-1)  # its files cannot be made: counted there
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    filler.unlink()
    run.finish()
    assert steps(run) == list(range(10_000))
    assert list(state.iterdir()) == []


@GOES_ELSEWHERE
def test_runs_of_one_id_in_two_workspaces_get_their_own_back(
    small_disk: Path, backend: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")
    runs = [runstone.start_run(run_id="one", workspace=small_disk / name, environment=False) for name in ("a", "b")]
    for run in runs:
        run.log({"x": 0.0}, step=0)
    filler = fill(small_disk)
    for step in range(1, 10_000):
        for number, run in enumerate(runs):
            run.log({"x": float(number)}, step=step)
    for run in runs:
        run.finish()
    filler.unlink()
    assert recover_spill(runs[0].path)
    assert len(list(state.iterdir())) == 1
    assert recover_spill(runs[1].path)
    assert list(state.iterdir()) == []
    for number, run in enumerate(runs):
        assert steps(run) == list(range(10_000))
        assert set(run.read().series("x").value[1:]) == {number}


@GOES_ELSEWHERE
def test_threads_that_log_while_points_come_home_lose_none(
    run_program: RunProgram, small_disk: Path, backend: str, state: Path
) -> None:
    ended = run_program(
        """
        import sys, threading, time
        import runstone
        sys.setswitchinterval(1e-5)
        run = runstone.start_run(run_id="one", workspace="disk/ws", on_error="warn", environment=False)
        run.log({"x": 0.0}, step=0)
        end = time.monotonic() + 6
        counts = [0, 0, 0]
        def work(number):
            while time.monotonic() < end:
                for _ in range(20):
                    run.log({f"t{number}": float(counts[number])}, step=counts[number])
                    counts[number] += 1
                time.sleep(0.001)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end - 2:
            filler = open("disk/filler", "wb", buffering=0)
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
            time.sleep(0.6)
            filler.truncate(0)
            time.sleep(0.4)
        for thread in threads:
            thread.join()
        run.finish()
        print(run.dropped, *counts)
        """,
        RUNSTONE_LOG=backend,
    )
    assert ended.code == 0, ended.errors
    dropped, *counts = map(int, ended.output.split())
    assert dropped == 0
    log = MetricLog(small_disk / "ws" / "runs" / "default" / "one")
    for number, count in enumerate(counts):
        assert np.array_equal(np.sort(log.series(f"t{number}").value), np.arange(float(count)))
    assert list(state.iterdir()) == []


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that makes a folder refuse, with any error."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("refusing") / "refusing.so"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("error", ["EROFS", "EDQUOT", "EIO"])
def test_disk_that_refuses_for_another_reason_costs_no_point_either(
    run_program: RunProgram, small_disk: Path, refusing: Path, backend: str, error: str, tmp_path: Path, state: Path
) -> None:
    ended = run_program(
        f"""
        import errno, json, time
        from pathlib import Path
        import runstone
        run = runstone.start_run(run_id="one", workspace="disk/ws", on_error="warn", environment=False)
        def log(begin, end):
            for step in range(begin, end):
                run.log({{"x": float(step), "y": step}}, step=step)
        log(0, 1000)
        flag = Path("flag")
        flag.write_text(str(errno.{error}))
        log(1000, 20_000)
        run.log({{"late": 1.0, "text": "t"}}, step=0)
        elsewhere = len(list(Path("state/runstone/spill/one").glob("*.wal")))
        flag.unlink()
        time.sleep(2.5)
        log(20_000, 20_100)
        left = len(list(Path("state/runstone/spill").iterdir()))
        run.finish()
        print(json.dumps([elsewhere, left, run.dropped]))
        """,
        RUNSTONE_LOG=backend,
        LD_PRELOAD=str(refusing),
        REFUSE_BELOW=str(small_disk),
        REFUSE_FLAG=str(tmp_path / "flag"),
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    assert ended.code == 0, ended.errors
    elsewhere, left, dropped = json.loads(ended.output)
    assert elsewhere > 0
    assert left == dropped == 0
    info = runstone.RunInfo(small_disk / "ws" / "runs" / "default" / "one")
    assert info.status is Status.FINISHED
    assert list(info.series("x").step) == list(info.series("y").step) == list(range(20_100))
    assert len(info.series("late")) == 1
    assert "its folder takes nothing now" in ended.errors


@pytest.mark.parametrize(
    ("said", "size"), [("off", 0), ("0", 0), ("64M", 64 << 20), ("1 GiB".replace(" ", ""), 1 << 30), ("5kb", 5 << 10)]
)
def test_size_of_what_lies_elsewhere_can_be_said(said: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from runstone import settings

    monkeypatch.setenv("RUNSTONE_SPILL", said)
    assert settings.spill_bytes() == size


def test_wrong_size_makes_no_run(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("RUNSTONE_SPILL", "much")
    with pytest.raises(runstone.InvalidValue, match="must be 'off' or a size such as '64M'"):
        runstone.start_run(environment=False)
    assert [path for path in (home / "runs").rglob("*") if path.is_file()] == []


def test_state_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from runstone import settings

    assert settings.spill_folder() == tmp_path / "state" / "runstone" / "spill"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert settings.spill_folder() == Path("/home/somebody/.local/state/runstone/spill")
