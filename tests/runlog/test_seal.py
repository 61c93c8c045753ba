"""Ended runs in one Parquet file: nothing is lost, at no moment, and readers notice no difference."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
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


def test_a_point_is_followed_within_a_tenth_of_a_second(home: Path) -> None:
    """The run logs its next point only when the follower has the last one, so none comes with another or the end."""
    program = (
        "import runstone, sys\n"
        "with runstone.start_run(run_id='followed', environment=False) as run:\n"
        "    print('ready', flush=True)\n"
        "    while sys.stdin.readline():\n"
        "        run.log({'x': 1.0})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "RUNSTONE_WORKSPACE": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        follower = runstone.Workspace(home).run("followed").follow()
        delays = []
        for _ in range(20):
            began = time.perf_counter()
            print(file=process.stdin, flush=True)
            assert next(follower)["x"].value.tolist() == [1.0]
            delays.append(time.perf_counter() - began)
        process.stdin.close()
        assert list(follower) == []
    assert sorted(delays)[5] < 0.1  # on a busy machine some may take longer


def test_a_series_is_numpy_pandas_and_arrow(home: Path) -> None:
    folder = record(home, count=20)
    for _sealed in range(2):
        info = runstone.RunInfo(folder)
        for name, kind in (("loss", "f"), ("epoch", "i"), ("is_best", "b")):
            series = info.series(name)
            frame, table = series.to_pandas(), series.to_arrow()
            assert series.value.dtype.kind == kind
            assert list(frame.columns) == table.column_names == ["step", "value", "wall_s"]
            for column in frame.columns:
                assert np.array_equal(frame[column].to_numpy(), getattr(series, column), equal_nan=True)
                assert np.array_equal(table[column].to_numpy(), getattr(series, column), equal_nan=True)
            series.value[0] = 0  # it is the caller's own
        assert math.isclose(info.series("loss").value[0], 1.0)
        seal(folder)


def test_a_log_of_any_length_is_sealed_and_read_in_batches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, writers, types and texts among each other, in batches and row groups of a few points."""
    rng = np.random.default_rng(0)
    for attempt in range(3):
        with runstone.start_run(workspace=home, run_id="r1", environment=False) as run:
            for step in range(30 * attempt, 30 * attempt + 60):
                run.log({f"m{number}": step if rng.random() < 0.3 else step / 2 for number in range(9)}, step=step)
                if step % 5 == 0:
                    run.log({f"m{step % 3}": f"text {step}", "phase": "é😀"}, step=step)
            run.log_series("long", np.arange(2000), np.arange(2000) * (0.5 if attempt else 1))
    folder = run.path
    expected = [content(folder, attempt) for attempt in (None, "all", 1, 2, 3)]
    texts = [MetricLog(folder).records(name) for name in ("m0", "m1", "m2", "phase")]
    summaries = repr(MetricLog(folder).summaries())
    from runstone.runlog import live, sealed

    for module, name, size in ((live, "BATCH_POINTS", 700), (sealed, "BATCH_POINTS", 700), (sealed, "GROUP_ROWS", 333)):
        monkeypatch.setattr(module, name, size)

    def assert_the_same() -> None:
        found = [content(folder, attempt) for attempt in (None, "all", 1, 2, 3)]
        assert [{name: rows[:2] for name, rows in metrics.items()} for metrics in found] == [
            {name: rows[:2] for name, rows in metrics.items()} for metrics in expected
        ]
        again = [MetricLog(folder).records(name) for name in ("m0", "m1", "m2", "phase")]
        assert [[(row[0], *row[2:]) for row in rows] for rows in again] == [
            [(row[0], *row[2:]) for row in rows] for rows in texts
        ]

    assert_the_same()
    assert repr(MetricLog(folder).summaries()) == summaries
    seal(folder)
    assert_the_same()
    groups = pq.ParquetFile(folder / "metrics.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups - 1)] == [333] * (
        groups.num_row_groups - 1
    )
    frame = pd.read_parquet(folder / "metrics.parquet")
    assert frame["metric"].tolist() == sorted(frame["metric"].tolist())
    beside = sum(len(MetricLog(folder).records(name, attempt="all")) for name in ("m0", "m1", "m2"))
    assert len(frame) == sum(len(rows[0]) for rows in expected[1].values()) + beside


def test_many_names_share_row_groups_and_a_small_footer(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        for number in range(20_000):
            run.log({f"layer {number}/norm": float(number)}, step=number)
    seal(run.path)
    path = run.path / "metrics.parquet"
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 1
    assert path.stat().st_size < 20 * 20_000
    for value in (metadata.metadata or {}).values():
        value.decode("ascii")  # other readers want text
    log = MetricLog(run.path)
    assert len(log.names) == 20_000
    assert log.series("layer 12345/norm").value.tolist() == [12345.0]
    assert log.summaries()["layer 19999/norm"].first_step == 19999
    frame = pd.read_parquet(path, filters=[("metric", "==", "layer 7/norm")])
    assert frame["value"].tolist() == [7.0]


def test_a_damaged_footer_is_told(home: Path) -> None:
    folder = record(home)
    seal(folder)
    path = folder / "metrics.parquet"
    data = path.read_bytes()
    place = data.rindex(b"runstone.places") + 60
    path.chmod(0o644)
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(runstone.FormatError, match="damaged"):
        runstone.RunInfo(folder).series("loss")
