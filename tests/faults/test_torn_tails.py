"""Files that end anywhere (F6): what is torn is lost, nothing else is, and a writer that comes later is not misled."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import runstone
from runstone.runlog import format as fmt
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from tests.faults.damage import Points, points_of

RECORDS = 3
"""Of each file, every byte of so many records at its end is the last one once."""
STEPS = 40


@pytest.fixture(params=["mmap", "append"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    with runstone.start_run(run_id="one", params={"lr": 0.1}, environment=False) as run:
        for step in range(STEPS):
            run.log({"x": step + 0.5, f"n{step % 4}": step}, step=step)
            run.log({"text": f"line {step}"}, step=step)
            run.log_histogram("h", [float(step)], bins=1, step=step)
        run.set_tags({"a": "b"})
    return run.path


def records_of(file: Path) -> list[int]:
    """Return where the last records of a file begin, and where it ends."""
    data = file.read_bytes()
    ends = [len(data)]
    if file.suffix == ".wal":
        used = -(-len(data.rstrip(b"\0")) // fmt.SLOT_BYTES) * fmt.SLOT_BYTES
        ends = [used - number * fmt.SLOT_BYTES for number in range(RECORDS, -1, -1)]
    elif file.suffix == ".jsonl":
        lines = data.splitlines(keepends=True)
        ends = [sum(map(len, lines[: len(lines) - number])) for number in range(RECORDS, -1, -1)]
    elif file.suffix in (".keys", ".blob"):
        ends = [0]
        while ends[-1] < len(data):
            ends.append(ends[-1] + fmt.side_length(data[ends[-1] :]))
        ends = ends[-RECORDS - 1 :]
    return ends


def cuts(file: Path) -> Iterator[int]:
    begins = records_of(file)
    yield from range(begins[0], begins[-1])


@pytest.mark.parametrize("suffix", [".wal", ".keys", ".blob", ".jsonl"])
def test_file_cut_at_any_byte_of_its_last_three_records_loses_those_that_are_torn(recorded: Path, suffix: str) -> None:
    (file,) = recorded.glob(f"*{suffix}")
    whole, before, begins = file.read_bytes(), points_of(recorded), records_of(file)
    total = sum(map(len, before.values()))
    for size in cuts(file):
        file.write_bytes(whole[:size])
        torn = sum(begin >= size or end > size for begin, end in itertools.pairwise(begins))
        log, found, info = MetricLog(recorded), points_of(recorded), runstone.RunInfo(recorded)
        assert all(set(points) <= set(before[name]) for name, points in found.items())
        lost = total - sum(map(len, found.values()))
        if suffix == ".wal":
            assert lost == torn
        elif suffix == ".blob":
            assert lost == torn == log.unnamed
        elif suffix == ".keys":
            assert len(found) == len(before) - torn
            assert lost == log.unnamed
        else:
            assert lost == 0
            assert info.status is runstone.Status.FINISHED  # the status file tells it as well
            assert info.params == ({} if torn >= 3 else {"lr": 0.1})
            assert info.tags == ({} if torn >= 2 else {"a": "b"})


@pytest.mark.parametrize("suffix", [".wal", ".keys", ".blob", ".jsonl"])
def test_writer_that_comes_after_a_tear_writes_files_of_its_own(recorded: Path, suffix: str, home: Path) -> None:
    (file,) = recorded.glob(f"*{suffix}")
    begin, end = records_of(file)[-2:]
    whole = recorded.parent / "whole"
    recorded.rename(whole)
    for size in sorted({begin, begin + 1, (begin + end) // 2, end - 1}):
        shutil.copytree(whole, recorded)
        (recorded / file.name).write_bytes((whole / file.name).read_bytes()[:size])
        torn, before = {path.name: path.read_bytes() for path in recorded.iterdir()}, points_of(recorded)
        with runstone.start_run(run_id="one", environment=False) as run:
            assert run.attempt == 2
            run.log({"x": -1.0, "text": "late"}, step=STEPS)
            run.log_params({"late": True})
        assert {name: (recorded / name).read_bytes() for name in torn} == torn
        expected: Points = {**before, "x": [*before["x"], (STEPS, "-1.0")], "text": [*before["text"], (STEPS, "late")]}
        assert points_of(recorded) == expected
        assert runstone.RunInfo(recorded).params == {"lr": 0.1, "late": True}
        assert runstone.RunInfo(recorded).status is runstone.Status.FINISHED
        shutil.rmtree(recorded)


def test_status_file_cut_at_any_byte_breaks_no_reader_and_is_believed_when_it_is_whole(recorded: Path) -> None:
    (file,), (journal,) = recorded.glob("*.status"), recorded.glob("journal.*")
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))  # the end is told here alone
    whole = file.read_bytes()
    needed = fmt.STATUS_WORD_OFFSET + fmt.STATUS_WORD.size
    for size in [*range(needed), len(whole)]:
        file.write_bytes(whole[:size])
        info = runstone.RunInfo(recorded)
        assert info.status is (runstone.Status.CRASHED if size < needed else runstone.Status.FINISHED)
        assert (info.dropped, info.params) == (0, {"lr": 0.1})


def test_sealed_file_cut_anywhere_is_refused_and_never_read_in_part(recorded: Path) -> None:
    before = points_of(recorded)
    seal(recorded)
    file = recorded / "metrics.parquet"
    whole = file.read_bytes()
    for size in [*range(0, len(whole), 97), *range(len(whole) - 32, len(whole))]:
        new = file.with_name("new")
        new.write_bytes(whole[:size])
        new.replace(file)
        with pytest.raises(runstone.FormatError):
            points_of(recorded)
        assert runstone.RunInfo(recorded).params == {"lr": 0.1}  # what is not in it is there
    file.write_bytes(whole)
    assert points_of(recorded) == before


def test_snapshot_of_the_machine_cut_anywhere_is_none(recorded: Path) -> None:
    (writer,) = (path.stem for path in recorded.glob("*.status"))
    text = json.dumps({"python": {"version": "3.11"}, "why": {}})
    for size in range(len(text)):
        (recorded / f"environment.{writer}.json").write_text(text[:size])
        assert runstone.RunInfo(recorded).environment is None
    (recorded / f"environment.{writer}.json").write_text(text)
    assert runstone.RunInfo(recorded).environment == json.loads(text)
