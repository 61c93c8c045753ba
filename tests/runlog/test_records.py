"""The side file: texts and records come back whole, in order, through kills, damage, forks, full disks and sealing."""

from __future__ import annotations

import os
import resource
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone.runlog import format as fmt
from runstone.runlog.appended import AppendedPoints
from runstone.runlog.mapped import MappedPoints
from runstone.runlog.points import open_points
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail
from runstone.runlog.writer import RunLog

Points = MappedPoints | AppendedPoints


@pytest.fixture(params=["mmap", "append"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Points]]:
    directory = os.open(tmp_path, os.O_RDONLY)
    made: list[Points] = []

    def make_one() -> Points:
        made.append(open_points(request.param, directory, os.urandom(16)))
        return made[-1]

    yield make_one
    for points in made:
        points.close()
    os.close(directory)


def records(log: MetricLog, name: str) -> list[tuple[int, Any]]:
    return [
        (step, payload if kind == fmt.TYPE_STRING else fmt.unpack_record(payload))
        for step, _wall, kind, payload in log.records(name)
    ]


def test_side_file_has_the_format_that_is_promised(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    points.log({"x": 1.0}, 0)
    assert not list(tmp_path.glob("*.blob"))  # nobody needs it yet
    points.log({"x": 2.0, "text": "ü"}, 1)
    points.log_record("medium", {"kind": "image", "width": 3, "nan": float("nan")}, 2)
    (blob,) = tmp_path.glob("*.blob")
    first, second = "ü".encode(), b'{"kind":"image","width":3,"nan":{"$float":"nan"}}'
    frames = [
        len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little") + data for data in (first, second)
    ]
    assert blob.read_bytes() == b"".join(frames)
    (keys,) = tmp_path.glob("*.keys")
    found = fmt.unpack_keys(keys.read_bytes())
    assert found == ([1, 2, 3], [0, 3, 4], ["x", "text", "medium"], keys.stat().st_size)
    (wal,) = tmp_path.glob("*.wal")
    slots = np.frombuffer(wal.read_bytes()[4096:], "<i8").reshape(-1, 4)
    assert slots[:4, 0].tolist() == [0, 1, 1, 2]
    assert slots[2:4, 2].tolist() == [0, len(frames[0])]


def test_texts_and_records_are_readable_the_moment_the_call_returns(make: Callable[[], Points], tmp_path: Path) -> None:
    points, log = make(), MetricLog(tmp_path)
    for number in range(50):
        points.log({"text": f"{number}", "x": number}, number)
        points.log_record("r", {"kind": "k", "n": number}, number)
        assert log.poll()
        assert log.series("text").value.tolist() == [str(n) for n in range(number + 1)]
        assert records(log, "r")[-1] == (number, {"kind": "k", "n": number})
    assert not log.poll()


def test_followers_of_metrics_see_numbers_only(make: Callable[[], Points], tmp_path: Path) -> None:
    points, tail = make(), MetricTail(tmp_path)
    points.log({"text": "a"}, 0)
    points.log_record("r", {"kind": "k"}, 0)
    assert tail.poll() == {}
    points.log({"text": "a", "x": 1.0}, 1)
    assert {name: series.value.tolist() for name, series in tail.poll().items()} == {"x": [1.0]}
    assert tail.unnamed == 0


def test_a_name_of_everything_keeps_everything_apart(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    for step in range(5):
        points.log({"a": float(step)}, step)
        points.log({"a": f"text {step}"}, step)
        points.log_record("a", {"kind": "k", "n": step}, step)
    log = MetricLog(tmp_path)
    assert log.series("a").value.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    found = records(log, "a")
    assert len(found) == 10
    assert [item for item in found if isinstance(item[1], str)] == [(step, f"text {step}") for step in range(5)]
    assert set(log.summaries()) == {"a"}
    assert log.record_names == log.names == ["a"]


def test_what_was_asked_for_under_the_wrong_kind_is_told(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    points.log({"number": 1.0, "text": "a"}, 0)
    points.log_record("medium", {"kind": "k"}, 0)
    log = MetricLog(tmp_path)
    with pytest.raises(runstone.MetricNotFound, match=r"are media: records\('medium'\)"):
        log.series("medium")
    with pytest.raises(runstone.MetricNotFound, match=r"it logged numbers: series\('number'\)"):
        log.records("number")
    with pytest.raises(runstone.MetricNotFound, match=r"it logged texts: series\('text'\)"):
        log.curve("text")
    with pytest.raises(runstone.MetricNotFound, match="has no metric 'texd'; it has 'text'"):
        log.records("texd")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(max_size=200) | st.integers(0, 60_000).map(lambda n: "x" * n), max_size=20), data=st.data()
)
def test_any_texts_come_back_in_any_portions_and_sealed(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    log = RunLog(folder, backend=data.draw(st.sampled_from(["mmap", "append"])))
    follower = MetricLog(folder)
    for step, text in enumerate(texts):
        log.points.log({"t": text, "x": 1.0}, step)
        if data.draw(st.booleans()):
            follower.poll()
    follower.poll()
    expected = [(step, text.encode("utf-8", "backslashreplace").decode()) for step, text in enumerate(texts)]
    if texts:
        assert records(follower, "t") == records(MetricLog(folder), "t") == expected
    log.close()
    seal(folder)
    assert not list(folder.glob("*.blob"))
    if texts:
        assert records(MetricLog(folder), "t") == expected
        assert MetricLog(folder).series("t").value.tolist() == [text for _step, text in expected]


# --- damage ----------------------------------------------------------------------------------------------------------


def test_torn_or_damaged_side_file_costs_what_is_damaged_and_says_so(
    make: Callable[[], Points], tmp_path: Path
) -> None:
    points = make()
    for number in range(10):
        points.log({"text": f"text {number}", "x": float(number)}, number)
    points.close()
    (blob,) = tmp_path.glob("*.blob")
    whole = blob.read_bytes()
    frame = len(whole) // 10
    for cut in range(len(whole)):
        blob.write_bytes(whole[:cut])
        log = MetricLog(tmp_path)
        there = cut // frame
        found = log.series("text").step.tolist() if there else []
        assert found == list(range(there))
        assert log.unnamed == 10 - there
        assert len(log.series("x")) == 10
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        blob.write_bytes(damaged)
        log = MetricLog(tmp_path)
        assert log.series("text").value.tolist() == [f"text {n}" for n in range(10) if n != at // frame]
        assert log.unnamed == 1
    blob.unlink()
    log = MetricLog(tmp_path)
    assert len(log.series("text")) == 0
    assert log.unnamed == 10


def test_record_that_is_no_json_is_shown_as_unknown() -> None:
    for payload in ("", "[1]", "{", '{"kind":', "null", "[" * 100_000):
        assert fmt.unpack_record(payload) is None
    assert fmt.unpack_side(b"", 0) is None
    assert fmt.unpack_side(fmt.pack_side(b"abc"), -1) is None
    assert fmt.unpack_side(fmt.pack_side(b"abc"), 0) == b"abc"
    assert fmt.side_length(b"\0\0\0") == 0


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60), offset=st.integers(-5, 70))
def test_random_bytes_are_no_side_file(data: bytes, offset: int) -> None:
    found = fmt.unpack_side(data, offset)
    assert found is None or data[offset + 8 : offset + 8 + len(found)] == found


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_limit_on_file_size_loses_no_text_that_was_acknowledged(tmp_path: Path, backend: str) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = open_points(backend, directory, os.urandom(16))  # type: ignore[arg-type]
    points.log({"t": "first"}, -1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
        for number in range(100):
            try:
                points.log({"t": "x" * (number * 50), "y": number}, number)
            except OSError:
                continue
            kept.append(number)
        with pytest.raises(OSError):
            points.log_record("r", {"kind": "k" * 5000}, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 0 < len(kept) < 100
    assert points.dropped == 100 - len(kept) + 1
    points.log({"t": "last"}, 100)
    points.close()
    os.close(directory)
    log = MetricLog(tmp_path)
    assert log.series("t").step.tolist() == [-1, *kept, 100]
    assert log.series("t").value.tolist() == ["first", *("x" * (number * 50) for number in kept), "last"]
    assert log.series("y").step.tolist() == list(range(100))
    assert log.unnamed == 0


def test_closed_log_refuses_texts_and_makes_no_file(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    points.close()
    with pytest.raises(OSError, match="closed"):
        points.log({"t": "late"}, 0)
    with pytest.raises(OSError, match="closed"):
        points.log_record("r", {"kind": "k"}, 0)
    with pytest.raises(OSError, match="closed"):
        points.log_series("x", range(100), np.ones(100))
    assert points.dropped == 102
    assert not list(tmp_path.glob("*.blob"))
    assert not list(tmp_path.glob("*.wal"))


# --- at once ---------------------------------------------------------------------------------------------------------


def test_threads_and_a_signal_handler_share_the_side_file(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    handled = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal handled
        own, handled = handled, handled + 1  # another one may stand in the middle of the next line
        if own >= 300:  # on a busy machine a handler may take longer than the time to the next one, without end
            signal.setitimer(signal.ITIMER_REAL, 0)
        points.log({"handler": f"handler {own:06d}"}, own)

    def work(thread: int) -> None:
        for step in range(1500):
            points.log({f"t{thread}": f"{thread}:{step}" * (step % 7 + 1)}, step)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
        for thread in threads:
            thread.start()
        work(0)
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    log = MetricLog(tmp_path)
    for thread in range(4):
        assert log.series(f"t{thread}").value.tolist() == [f"{thread}:{s}" * (s % 7 + 1) for s in range(1500)]
    assert handled > 0
    assert sorted(log.series("handler").value) == [f"handler {number:06d}" for number in range(handled)]


def test_fork_writes_a_side_file_of_its_own(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.points.log({"who": "parent", "x": 1.0}, 0)
    pid = os.fork()
    if pid == 0:
        try:
            for step in range(100):
                log.points.log({"who": f"child {step}"}, step)
            log.close()
        finally:
            os._exit(0)
    for step in range(1, 100):
        log.points.log({"who": f"parent {step}"}, step)
    assert os.waitpid(pid, 0)[1] == 0
    log.close()
    assert len(list(tmp_path.glob("*.blob"))) == 2
    values = MetricLog(tmp_path).series("who").value.tolist()
    assert [value for value in values if value[0] == "p"] == ["parent", *(f"parent {s}" for s in range(1, 100))]
    assert [value for value in values if value[0] == "c"] == [f"child {s}" for s in range(100)]


def test_whole_arrays_of_several_threads_do_not_mix(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()

    def work(thread: int) -> None:
        for part in range(20):
            steps = np.arange(part * 700, (part + 1) * 700)
            points.log_series(f"a{thread}", steps, steps * 0.5 + thread)
            for step in range(50):
                points.log({f"b{thread}": float(step)}, step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = MetricLog(tmp_path)
    for number in range(4):
        series = log.series(f"a{number}")
        assert np.array_equal(series.step, np.arange(14_000))
        assert np.array_equal(series.value, np.arange(14_000) * 0.5 + number)
        assert len(log.series(f"b{number}")) == 1000


def test_array_that_does_not_fit_is_counted_to_the_point(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = MappedPoints(directory, os.urandom(16))
    points.log({"x": -1.0}, -1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(OSError):
            points.log_series("x", range(10_000), np.arange(10_000.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    points.close()
    os.close(directory)
    series = MetricLog(tmp_path).series("x")
    assert len(series) == 2048
    assert points.dropped == 10_001 - 2048
    assert np.array_equal(series.value, np.arange(-1.0, 2047.0))


# --- several attempts, sealing ---------------------------------------------------------------------------------------


def test_resumed_run_supersedes_texts_and_records_like_numbers(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with runstone.start_run(run_id="one", workspace=tmp_path / "w", environment=False) as run:
            for step in range(0 if attempt == 1 else 3, 6 if attempt == 1 else 5):
                run.log({"x": float(attempt)}, step=step)
                run.log({"text": f"attempt {attempt}"}, step=step)
                run.log_histogram("h", [attempt], step=step)
    for _sealing in range(2):
        info = runstone.RunInfo(run.path)
        assert info.series("text").value.tolist() == ["attempt 1"] * 3 + ["attempt 2"] * 2
        assert [record.step for record in info.records("h")] == [0, 1, 2, 3, 4]
        assert [record.step for record in info.records("h", attempt=1)] == [0, 1, 2, 3, 4, 5]
        assert [record.step for record in info.records("h", attempt="all")] == [0, 1, 2, 3, 4, 5, 3, 4]
        assert info.series("text", attempt=2).step.tolist() == [3, 4]
        run.workspace.seal("one")


def test_sealing_keeps_texts_and_records_and_other_tools_read_them(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(3000):
        log.points.log({"x": float(step), "text": f"line {step}\n"}, step)
        if step % 100 == 0:
            log.points.log_record("r", {"kind": "k", "step": step, "inf": float("inf")}, step)
    log.close()
    before = MetricLog(tmp_path)
    seal(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir() if log.writer.hex() in path.name) == [".jsonl", ".status"]
    after = MetricLog(tmp_path)
    assert after.names == ["r", "text", "x"]
    assert after.record_names == ["r", "text"]
    assert after.series("text").value.tolist() == before.series("text").value.tolist()
    assert records(after, "r") == records(before, "r")
    assert after.series("x").value.tolist() == before.series("x").value.tolist()
    table = pq.read_table(tmp_path / "metrics.parquet")
    frame = table.to_pandas()
    assert frame[frame.metric == "text"]["text"].tolist() == [f"line {step}\n" for step in range(3000)]
    assert frame[frame.metric == "text"]["value"].isna().all()
    assert frame[frame.metric == "x"]["text"].isna().all()


def test_follower_sees_each_text_once_through_sealing(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    tail = MetricTail(tmp_path)
    seen: list[str] = []

    def follow() -> None:
        for portion in tail.poll_portions().get("text", []):
            seen.extend(portion.values().tolist())

    log.points.log({"text": "a", "x": 1.0}, 0)
    follow()
    log.points.log({"text": "b", "x": "text too"}, 1)
    log.close()
    seal(tmp_path)
    follow()
    follow()
    assert seen == ["a", "b"]


def test_long_texts_of_many_kinds_are_read_in_windows(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    texts = [chr(ord("a") + number % 26) * (number * 997 % 60_000) for number in range(200)]  # some MiB
    for step, text in enumerate(texts):
        points.log({"t": text, f"other{step % 3}": text[:5]}, step)
    log = MetricLog(tmp_path)
    assert log.series("t").value.tolist() == texts
    assert sum(len(log.series(f"other{number}")) for number in range(3)) == 200
