"""Ended runs in one Parquet file: nothing is lost, at no moment, and readers notice no difference."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import runstone
from runstone.runlog import seal as sealing
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail

VALUES = [1.0, -0.0, 5e-324, math.inf, -math.inf, math.nan, 1e308, 0.1]


def record(home: Path, *, run_id: str = "r1", first: int = 0, count: int = 3000, resume: bool | None = None) -> Path:
    with runstone.start_run(workspace=home, run_id=run_id, resume=resume, environment=False) as run:
        for step in range(first, first + count):
            run.log({"loss": VALUES[step % 8] * (step + 1), "epoch": step, "is_best": step % 3 == 0}, step=step)
    return run.path


def content(folder: Path, attempt: int | str | None = None) -> dict[str, tuple[list[int], list[str], list[float]]]:
    log = MetricLog(folder)
    found = {}
    for name in log.names:
        series = log.series(name, attempt=attempt)
        found[name] = (series.step.tolist(), [repr(v) for v in series.value.tolist()], series.wall_s.round(2).tolist())
    return found


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_sealed_points_are_those_that_were_logged(home: Path) -> None:
    folder = record(home)
    before = content(folder)
    result = seal(folder)
    assert result is not None
    assert (result.points, result.bytes_before > 5 * result.bytes_after) == (9000, True)
    assert not files(folder) & {".wal", ".keys", ".partial", ".lock"}
    after = content(folder)
    assert {name: rows[:2] for name, rows in after.items()} == {name: rows[:2] for name, rows in before.items()}
    for name in before:
        assert np.allclose(before[name][2], after[name][2], atol=0.011)


def test_sealing_again_changes_nothing(home: Path) -> None:
    folder = record(home)
    seal(folder)
    identity = (folder / "metrics.parquet").stat().st_ino
    assert seal(folder) is None
    assert (folder / "metrics.parquet").stat().st_ino == identity


def test_integers_keep_every_digit(home: Path) -> None:
    numbers = [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 7]
    with runstone.start_run(workspace=home, environment=False) as run:
        for step, number in enumerate(numbers):
            run.log({"n": number}, step=step)
    seal(run.path)
    series = runstone.RunInfo(run.path).series("n")
    assert series.value.dtype == np.int64
    assert series.value.tolist() == numbers
    rows = pq.read_table(run.path / "metrics.parquet").to_pylist()
    assert [row["integer"] if row["integer"] is not None else int(row["value"]) for row in rows] == numbers


def test_other_tools_read_the_file_as_it_is(home: Path) -> None:
    folder = record(home, count=100)
    seal(folder)
    frame = pd.read_parquet(folder / "metrics.parquet")
    assert list(frame.columns) == ["metric", "step", "time", "value", "integer", "text", "attempt", "superseded"]
    loss = frame[frame["metric"] == "loss"]
    assert loss["step"].tolist() == list(range(100))
    assert loss["time"].dt.tz is not None
    assert not frame["superseded"].any()


def test_a_living_run_is_left_alone(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log({"x": 1.0})
        assert seal(run.path) is None
        run.log({"x": 2.0})
        assert runstone.RunInfo(run.path).series("x").value.tolist() == [1.0, 2.0]
    assert seal(run.path) is not None


def test_a_sealed_run_can_be_resumed_and_sealed_again(home: Path) -> None:
    folder = record(home, count=100)
    seal(folder)
    with runstone.start_run(workspace=home, run_id="r1", resume=True, environment=False) as run:
        run.rewind(50)
        for step in range(50, 60):
            run.log({"loss": 7.0}, step=step)

    def points() -> list[dict[str, tuple[list[int], list[str]]]]:
        found = [content(folder, attempt) for attempt in (None, "all", 1, 2)]
        return [{name: rows[:2] for name, rows in metrics.items()} for metrics in found]

    before = points()
    assert before[0]["loss"][0] == list(range(60))
    seal(folder)
    assert not files(folder) & {".wal"}
    assert points() == before
    frame = pd.read_parquet(folder / "metrics.parquet")
    loss = frame[frame["metric"] == "loss"]
    assert int(loss["superseded"].sum()) == 50
    assert loss[~loss["superseded"]]["step"].tolist() == list(range(60))


def test_whoever_follows_a_run_sees_each_point_once_through_its_sealing(home: Path) -> None:
    run = runstone.start_run(workspace=home, environment=False)
    tail = MetricTail(run.path)
    run.log({"x": 1.0, "y": 1.0})
    seen = [tail.poll()["x"].value.tolist()]
    run.log({"x": 2.0, "z": 5.0})  # not polled before it is sealed
    run.finish()
    seal(run.path)
    last = tail.poll()
    seen.append(last["x"].value.tolist())
    assert seen == [[1.0], [2.0]]
    assert set(last) == {"x", "z"}
    assert tail.poll() == {}
    assert {name: series.value.tolist() for name, series in MetricTail(run.path).poll().items()} == {
        "x": [1.0, 2.0],
        "y": [1.0],
        "z": [5.0],
    }


def test_a_reader_from_before_goes_on_after_the_sealing(home: Path) -> None:
    folder = record(home, count=50)
    log = MetricLog(folder)
    seal(folder)
    assert not log.poll()
    assert len(log.series("loss")) == 50


def test_a_damaged_page_is_told_and_never_read_as_points(home: Path) -> None:
    folder = record(home)
    seal(folder)
    path = folder / "metrics.parquet"
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0x40
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(runstone.FormatError, match="damaged"):
        _ = runstone.RunInfo(folder).metrics


@pytest.mark.parametrize("junk", [b"", b"PAR1", b"x" * 100])
def test_a_file_that_is_no_sealed_file_is_told(home: Path, junk: bytes) -> None:
    folder = record(home, count=3)
    seal(folder)
    (folder / "metrics.parquet").write_bytes(junk)
    with pytest.raises(runstone.FormatError, match=r"metrics\.parquet"):
        _ = runstone.RunInfo(folder).metrics


def test_a_full_disk_leaves_all_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = record(home, count=50)
    before, names = content(folder), files(folder)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealing, "write_sealed", full)
    with pytest.raises(OSError, match="No space"):
        seal(folder)
    assert (content(folder), files(folder) - {".lock"}) == (before, names)
    monkeypatch.undo()
    assert seal(folder) is not None


KILLED = """
import os, sys
from pathlib import Path
from runstone.runlog import seal as sealing
moment, folder = sys.argv[1], Path(sys.argv[2])
def die(*_, **__): os.kill(os.getpid(), 9)
if moment == "written":
    from runstone.runlog import sealed
    sealed.sync_folder = die
elif moment == "published": sealing.write_levels = die
elif moment == "unlinking":
    real = Path.unlink
    def unlink(self, *a, **k):
        real(self, *a, **k)
        if self.suffix in (".wal", ".keys"): die()
    Path.unlink = unlink
elif moment == "writing":
    import pyarrow.parquet as pq
    pq.ParquetWriter.write_table = die
sealing.seal(folder)
"""


@pytest.mark.parametrize("moment", ["writing", "written", "published", "unlinking"])
def test_a_sealing_that_is_killed_loses_and_doubles_nothing(home: Path, moment: str) -> None:
    folder = record(home, count=500)
    before = content(folder)
    code = subprocess.run([sys.executable, "-c", KILLED, moment, str(folder)], check=False).returncode
    assert code == -signal.SIGKILL
    assert {name: rows[:2] for name, rows in content(folder).items()} == {n: rows[:2] for n, rows in before.items()}
    seal(folder)
    assert not files(folder) & {".wal", ".keys", ".partial"}
    assert {name: rows[:2] for name, rows in content(folder).items()} == {n: rows[:2] for n, rows in before.items()}


def test_sealing_touches_no_file_that_another_part_is_writing(home: Path) -> None:
    folder = record(home, count=50)
    others = folder / "environment.0123.json.partial"
    others.write_text("half")
    left = folder / "metrics.parquet.0123.partial"
    left.write_text("half")
    seal(folder)
    assert (others.exists(), left.exists()) == (True, False)


def test_of_two_sealers_one_does_the_work(home: Path) -> None:
    folder = record(home)
    before = content(folder)
    program = "import sys; from pathlib import Path; from runstone.runlog.seal import seal; seal(Path(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(folder)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert {name: rows[:2] for name, rows in content(folder).items()} == {n: rows[:2] for n, rows in before.items()}
    assert not files(folder) & {".wal", ".keys", ".partial"}


def test_the_index_gives_the_same_answers_before_and_after(home: Path) -> None:
    record(home, count=200)
    workspace = runstone.Workspace(home)

    def answers() -> list[dict[str, object]]:
        return [{k: repr(v) for k, v in row.items()} for row in workspace.runs("metrics.epoch > 100").to_dicts()]

    before = answers()
    workspace.seal("r1")
    assert answers() == before
    for path in home.glob("index.sqlite*"):
        path.unlink()
    assert answers() == before


def test_forked_writers_that_still_live_keep_their_logs(home: Path) -> None:
    run = runstone.start_run(workspace=home, environment=False)
    run.log({"x": 1.0})
    told, tell = os.pipe()
    go, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        run.log({"child": 1.0})
        os.write(tell, b"x")
        os.read(go, 1)
        run.log({"child": 2.0})
        os._exit(0)
    os.read(told, 1)
    run.finish()
    seal(run.path)
    assert sorted(MetricLog(run.path).names) == ["child", "x"]
    os.write(let_go, b"x")
    os.waitpid(pid, 0)
    assert MetricLog(run.path).series("child").value.tolist() == [1.0, 2.0]
    seal(run.path)
    assert MetricLog(run.path).series("child").value.tolist() == [1.0, 2.0]
    assert not files(run.path) & {".wal"}
    for fd in (told, tell, go, let_go):
        os.close(fd)


def test_points_as_a_table_are_all_points(home: Path) -> None:
    folder = record(home, count=10)
    table = runstone.RunInfo(folder).points()
    assert (table.num_rows, table.column_names[:4]) == (30, ["metric", "step", "time", "value"])
    seal(folder)
    again = runstone.RunInfo(folder).points()
    assert (
        again.select(["step", "value"]).to_pydict().__repr__() == table.select(["step", "value"]).to_pydict().__repr__()
    )
    with runstone.start_run(workspace=home, run_id="none", environment=False) as empty:
        pass
    assert empty.read().points().num_rows == 0


def test_follow_gives_what_is_there_and_what_comes_until_the_end(home: Path) -> None:
    program = (
        "import runstone, sys, time\n"
        "with runstone.start_run(run_id='followed', environment=False) as run:\n"
        "    for step in range(40): run.log({'x': float(step)}, step=step); time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "RUNSTONE_WORKSPACE": str(home)})
    while not (home / "runs" / "default" / "followed").is_dir() or not list(home.glob("runs/*/followed/journal.*")):
        assert process.poll() is None
    portions = [new["x"].value.tolist() for new in runstone.Workspace(home).run("followed").follow() if "x" in new]
    assert process.wait() == 0
    assert [value for portion in portions for value in portion] == [float(step) for step in range(40)]
    assert len(portions) > 3
