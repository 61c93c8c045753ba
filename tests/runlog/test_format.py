"""The bytes of a run's files: what is written is read back, and no bytes at all make a reader fall over."""

from __future__ import annotations

import math
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import runstone
from runstone.params import is_equal
from runstone.runlog import format as fmt
from runstone.runlog.keys import KeyTable
from runstone.runlog.reader import read_journal
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail, WriterTail
from runstone.runlog.writer import RunLog

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
any_text = st.text(st.characters(), max_size=10)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(any_text | st.just("$float") | st.just("$"), inner, max_size=3)
    ),
    max_leaves=10,
)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
headers = st.builds(
    fmt.SegmentHeader, u32, u32, st.binary(min_size=16, max_size=16), u32, u64, st.floats(), st.floats()
)
key_tables = st.dictionaries(u32, st.tuples(texts, st.integers(0, 255)), max_size=8)


def pack_keys(keys: dict[int, tuple[str, int]]) -> bytes:
    return b"".join(fmt.pack_key(key, kind, name) for key, (name, kind) in keys.items())


@given(header=headers)
def test_headers_of_segments_round_trip(header: fmt.SegmentHeader) -> None:
    packed = fmt.pack_header(header)
    assert len(packed) == 76
    found = fmt.unpack_header(packed + b"more")
    assert found is not None
    assert fmt.pack_header(found) == packed


@given(header=headers, position=st.integers(0, 75), flip=st.integers(1, 255))
def test_damaged_header_is_none(header: fmt.SegmentHeader, position: int, flip: int) -> None:
    packed = bytearray(fmt.pack_header(header))
    packed[position] ^= flip
    assert fmt.unpack_header(bytes(packed)) is None
    assert fmt.unpack_header(bytes(packed[:position])) is None


def test_segment_of_a_later_format_is_refused_and_a_later_minor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    header = fmt.SegmentHeader(1, 1, bytes(16), 0, 1, 0.0, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(fmt, "WAL_MINOR", 9)
        minor = fmt.pack_header(header)
        patch.setattr(fmt, "WAL_MAJOR", 2)
        major = fmt.pack_header(header)
    assert fmt.unpack_header(minor) == header
    with pytest.raises(runstone.FormatError, match="format 2 cannot be read"):
        fmt.unpack_header(major)


def unpacked(data: bytes) -> dict[int, tuple[str, int]]:
    found = fmt.unpack_keys(data)
    assert found.end <= len(data)
    return dict(zip(found.ids, zip(found.names, found.kinds, strict=True), strict=True))


@given(keys=key_tables, torn=st.binary(max_size=7))
def test_names_of_metrics_round_trip_and_a_torn_tail_is_left_out(keys: dict[int, tuple[str, int]], torn: bytes) -> None:
    assert unpacked(pack_keys(keys) + torn) == keys


@given(keys=key_tables, data=st.data())
def test_damaged_name_costs_no_other_name(keys: dict[int, tuple[str, int]], data: st.DataObject) -> None:
    packed = bytearray(pack_keys(keys))
    if not packed:
        return
    records, offset = [], 0
    for key, (name, kind) in keys.items():
        size = len(fmt.pack_key(key, kind, name))
        records.append((offset, size, key))
        offset += size
    begin, size, hit = data.draw(st.sampled_from(records))
    packed[begin + data.draw(st.integers(4, size - 1))] ^= data.draw(st.integers(1, 255))  # all but its length
    assert unpacked(bytes(packed)) == {key: value for key, value in keys.items() if key != hit}


@given(event=st.dictionaries(any_text.filter(lambda key: key != "event"), json_values, max_size=4), torn=any_text)
@example(event={"params": {"$float": "nan", "a": math.nan, "$x": [{"$float": 1}]}}, torn="")
def test_events_round_trip_and_a_torn_line_is_left_out(event: dict[str, Any], torn: str) -> None:
    event = {"event": "x", **event}
    line = fmt.encode_event(event)
    assert line.count(b"\n") == 1
    torn_line = torn.encode("utf-8", "replace").replace(b"\n", b"")
    (found,) = fmt.decode_events(line + torn_line)
    assert is_equal(found, event)
    # a damaged line costs no other
    assert len(fmt.decode_events(line + b'{"event": "x", ' + torn_line + b"\n" + line)) == 2


@pytest.mark.parametrize(
    "line", [b'{"event":"x","v":{"$float":"much"}}', b"[" * 100_000, b'{"event":1}', b"\xff", b"3"]
)
def test_line_that_is_no_event_is_skipped(line: bytes) -> None:
    good = fmt.encode_event({"event": "good"})
    assert fmt.decode_events(good + line + b"\n" + good) == [{"event": "good"}] * 2


@settings(max_examples=300)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_read_as_nothing_or_something_but_never_crash(data: bytes) -> None:
    fmt.unpack_keys(data)
    fmt.decode_events(data)
    fmt.unpack_header(data)


events = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda event, fields: fmt.encode_event({**fields, "event": event}).rstrip(),
        st.sampled_from(
            "writer created params tags notes name group artifact rewind warning end deleted restored what".split()
        ),
        st.dictionaries(
            st.sampled_from(
                "at format writer role attempt rank pid host boot_id run_id project name group notes parent params set "
                "remove value folder files metadata step kind message status failure dropped".split()
            ),
            json_values | st.sampled_from([{}, [], [{"path": "a"}], "finished", "nan", 10**400, -1, {"type": 3}]),
            max_size=8,
        ),
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(events, max_size=8), status=st.binary(max_size=80), has_status=st.booleans())
def test_journal_of_anything_is_read(tmp_path: Path, lines: list[bytes], status: bytes, has_status: bool) -> None:
    (tmp_path / "journal.w.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "w.status").unlink(missing_ok=True)
    if has_status:
        (tmp_path / "w.status").write_bytes(fmt.STATUS_MAGIC + status)
    try:
        state = read_journal(tmp_path)
    except runstone.FormatError:
        return
    assert state.writers or not has_status or not state.is_created
    if state.writers:
        info = runstone.RunInfo(tmp_path)
        assert info.status in runstone.Status
        for name in (name for name in dir(runstone.RunInfo) if name[0] != "_" and name not in ("series",)):
            getattr(info, name)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    slots=st.binary(max_size=400),
    keys=st.binary(max_size=100) | key_tables.map(pack_keys),
    header=st.binary(max_size=100) | headers.map(fmt.pack_header),
)
def test_metric_log_of_anything_is_read(tmp_path: Path, slots: bytes, keys: bytes, header: bytes) -> None:
    writer = "0" * 32
    (tmp_path / f"{writer}.keys").write_bytes(keys)
    (tmp_path / f"{writer}-00000000.wal").write_bytes(header.ljust(fmt.HEADER_BYTES, b"\0") + slots)
    tail = MetricTail(tmp_path)
    for _ in range(2):
        for series in tail.poll().values():
            assert len(series.step) == len(series.value) == len(series.wall_s)
    MetricLog(tmp_path).summaries()


# --- damage to the files of a real run ------------------------------------------------------------------------------


@pytest.fixture(params=["mmap", "append"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    with runstone.start_run(run_id="one", params={"lr": 0.1}, tags={"a": "b"}, environment=False) as run:
        for step in range(300):
            run.log({"x": step + 0.5, f"n{step % 7}": step}, step=step)
    return run.path


def points_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    log = MetricLog(folder)
    return {
        name: list(zip(log.series(name).step.tolist(), log.series(name).value.tolist(), strict=True))
        for name in log.names
    }


def test_journal_cut_at_any_byte_of_its_last_events_loses_only_those(recorded: Path) -> None:
    (journal,) = recorded.glob("journal.*")
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in range(len(whole) - sum(map(len, lines[-3:])), len(whole)):
        journal.write_bytes(whole[:size])
        info = runstone.RunInfo(recorded)
        left = whole[:size].count(b"\n")
        assert info.params == ({"lr": 0.1} if left >= 3 else {})
        assert info.tags == ({"a": "b"} if left >= 4 else {})
        assert info.project == "default"
        # the end is told by the status file as well
        assert info.status is runstone.Status.FINISHED


def test_names_cut_at_any_byte_of_the_last_ones_lose_only_those(recorded: Path) -> None:
    before = points_of(recorded)
    (file,) = recorded.glob("*.keys")
    whole = file.read_bytes()
    for size in range(len(whole) - 3 * len(fmt.pack_key(1, 0, "n0")), len(whole)):
        file.write_bytes(whole[:size])
        found = points_of(recorded)
        assert 4 <= len(found) < len(before)
        assert all(before[name] == points for name, points in found.items())


def test_points_cut_at_any_byte_of_the_last_ones_lose_only_those(recorded: Path) -> None:
    before = points_of(recorded)
    file = max(recorded.glob("*.wal"))
    whole = file.read_bytes()
    used = fmt.HEADER_BYTES + 600 * fmt.SLOT_BYTES
    assert not any(whole[used:])
    for size in range(used - 3 * fmt.SLOT_BYTES, used):
        file.write_bytes(whole[:size])
        found = points_of(recorded)
        assert sum(map(len, found.values())) == (size - fmt.HEADER_BYTES) // fmt.SLOT_BYTES
        assert all(before[name][: len(points)] == points for name, points in found.items())


def test_new_writer_goes_on_after_torn_files(recorded: Path) -> None:
    for file in (*recorded.glob("journal.*"), *recorded.glob("*.keys"), *recorded.glob("*.wal")):
        file.write_bytes(file.read_bytes()[:-5])
    with runstone.start_run(run_id="one", environment=False) as run:
        run.log({"x": -1.0}, step=300)
        run.log_params({"late": True})
    info = run.read()
    assert info.series("x").value.tolist() == [step + 0.5 for step in range(300)] + [-1.0]
    assert info.params == {"lr": 0.1, "late": True}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_flipped_bits_and_zeroed_sectors_cost_points_but_never_the_reader(recorded: Path, data: st.DataObject) -> None:
    copy = recorded.parent / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(recorded, copy)
    file = data.draw(st.sampled_from(sorted(copy.iterdir())))
    content = bytearray(file.read_bytes())
    used = min(len(content), 24_000)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, used - 1))
        if data.draw(st.booleans()):
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        else:
            sector = place // 512 * 512
            content[sector : sector + 512] = bytes(len(content[sector : sector + 512]))
    file.write_bytes(content)
    before = points_of(recorded)
    try:
        found = points_of(copy)
        info = runstone.RunInfo(copy)
    except (runstone.FormatError, runstone.RunNotFound):
        assert file.suffix in (".wal", ".jsonl")
        return
    assert info.status in runstone.Status
    assert len(info.metrics) == len(found)
    if file.suffix not in (".wal", ".keys"):
        assert found == before


def test_zeroed_pages_in_a_segment_are_holes_and_nothing_else(recorded: Path) -> None:
    file = max(recorded.glob("*.wal"))
    content = bytearray(file.read_bytes())
    content[8192:12288] = bytes(4096)
    file.write_bytes(content)
    found = sum(map(len, points_of(recorded).values()))
    assert found == 600 - 128
    tail = MetricTail(recorded)
    tail.poll()
    assert tail.has_holes
    # a slot that is filled later is found
    whole = struct.pack("<qddII", 7, 1.0, 2.0, 1, fmt.unpack_header(bytes(content)).salt)  # type: ignore[union-attr]
    content[8192 : 8192 + 32] = whole
    file.write_bytes(content)
    assert {name: series.step.tolist() for name, series in tail.poll().items()} == {"x": [7]}
    assert tail.poll() == {}


def test_journal_whose_first_line_is_damaged_is_still_a_run(recorded: Path) -> None:
    (journal,) = recorded.glob("journal.*")
    journal.write_bytes(b"\0" * 10 + journal.read_bytes()[10:])
    info = runstone.RunInfo(recorded)
    assert info.status is runstone.Status.FINISHED
    assert info.params == {"lr": 0.1}


def test_run_of_a_later_format_is_refused(recorded: Path) -> None:
    (journal,) = recorded.glob("journal.*")
    journal.write_bytes(journal.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(runstone.FormatError, match="journal format 2"):
        runstone.RunInfo(recorded)


def test_folder_without_a_run_is_not_found(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(runstone.RunNotFound):
            runstone.RunInfo(folder)


def test_later_words_are_read_as_far_as_they_are_known(recorded: Path) -> None:
    (journal,) = recorded.glob("journal.*")
    text = journal.read_bytes().replace(b'"status":"finished"', b'"status":"exploded","more":[1]')
    journal.write_bytes(text + b'{"event":"sung","at":1.0,"song":{}}\n')
    assert runstone.RunInfo(recorded).status is runstone.Status.FINISHED


def test_points_stay_in_order_while_the_writer_goes_on_to_its_next_segment(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    steps = iter(range(10_000))

    def record(count: int) -> None:
        for _ in range(count):
            log.points.log({"x": 1.0}, next(steps))

    record(fmt.FIRST_SLOTS - 10)  # the first segment is nearly full
    log.points.tend()  # and the second prepared
    tail = WriterTail(tmp_path, log.writer.hex())
    found: list[int] = []
    for slots in tail.poll([0, 1]):
        found += slots["step"].tolist()
        if len(found) == fmt.FIRST_SLOTS - 10:
            record(30)  # while a reader stands between the two
    for slots in tail.poll([0, 1]):
        found += slots["step"].tolist()
    log.close()
    assert found == list(range(fmt.FIRST_SLOTS + 20))


def test_names_that_come_later_are_read_on_from_where_the_file_ended(tmp_path: Path) -> None:
    table, path = KeyTable(tmp_path / "w.keys"), tmp_path / "w.keys"
    assert not table.knows(np.array([1], np.uint32)).any()
    path.write_bytes(fmt.pack_key(1, 0, "a") + fmt.pack_key(2, 1, "b")[:-1])
    assert table.knows(np.array([1, 2], np.uint32)).tolist() == [True, False]
    whole = fmt.pack_key(1, 0, "a") + fmt.pack_key(2, 1, "b") + fmt.pack_key(3, 77, "of a later version")
    path.write_bytes(bytes(len(fmt.pack_key(1, 0, "a"))) + whole[len(fmt.pack_key(1, 0, "a")) :])  # read once only
    assert table.knows(np.array([2, 1, 3, 2**32 - 1], np.uint32)).tolist() == [True, True, False, False]
    path.write_bytes(whole + fmt.pack_key(2**31, 0, "no writer counts so far"))
    assert not table.knows(np.array([2**31], np.uint32)).any()
    assert (table.names[1], table.names[2], len(table)) == ("a", "b", 3)
