"""Ranks of a distributed job (F10), two processes under one id, and a resume after a crash elsewhere (F8)."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status
from runstone.runlog import format as fmt
from runstone.runlog.reader import read_journal

RANKS = 8
POINTS = 500
RANK = f"""
import os, sys
import runstone
rank = int(os.environ["RANK"])
run = runstone.start_run(
    run_id="job", params={{f"rank{{rank}}": rank}}, environment=False, system_metrics=0.5 if rank == 3 else False
)
print("ready", flush=True)
sys.stdin.readline()
for step in range({POINTS}):
    run.log({{"loss": step * {RANKS}.0 + rank, f"rank{{rank}}/loss": float(step)}}, step=step)
if rank == 5:
    print("ready", flush=True)
    sys.stdin.readline()
if rank == 3:
    import time
    time.sleep(1.2)  # for a pass over the machine
run.finish()
"""


@pytest.fixture
def launch(start: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Start ranks as a launcher does, and let them go on when all are there."""

    def launch_all(**environment: str) -> list[Any]:
        programs = [
            start(RANK, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS), **environment)
            for rank in range(RANKS)
        ]
        for program in programs:
            program.wait_until_ready()
        for program in programs:
            program.go_on()
        programs[5].wait_until_ready()
        return programs

    return launch_all


def test_ranks_make_one_run_that_knows_who_is_who_and_the_death_of_one_is_its_end(
    launch: Callable[..., list[Any]], only_run: Callable[[], runstone.RunInfo]
) -> None:
    programs = launch()
    assert [(p.end().code, rank) for rank, p in enumerate(programs) if rank != 5] == [
        (0, rank) for rank in range(RANKS) if rank != 5
    ]
    assert only_run().status is Status.RUNNING  # one of them lives
    programs[5].send(signal.SIGKILL)
    programs[5].end()
    info = only_run()
    assert info.status is Status.CRASHED
    assert len(info.attempts) == 1
    assert info.params == {f"rank{rank}": rank for rank in range(RANKS)}
    assert np.array_equal(np.sort(info.series("loss").value), np.arange(float(RANKS * POINTS)))
    for rank in range(RANKS):
        assert np.array_equal(info.series(f"rank{rank}/loss").value, np.arange(float(POINTS)))
    writers = read_journal(info.path).writers
    assert sorted(writer.rank for writer in writers) == list(range(RANKS))
    assert {writer.rank for writer in writers if writer.status is None} == {5}
    assert any(name.startswith("system/rank.3/") for name in info.metrics)
    assert not any(name.startswith("system/") for name in info.metrics if not name.startswith("system/rank.3/"))


def test_ranks_that_are_switched_off_write_nothing(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], home: Path
) -> None:
    programs = [
        start(RANK, RANK=str(rank), WORLD_SIZE="3", **({"RUNSTONE_DISABLED": "1"} if rank else {})) for rank in range(3)
    ]
    for program in programs:
        program.wait_until_ready()
        program.go_on()
    assert [program.end().code for program in programs] == [0, 0, 0]
    info = only_run()
    assert info.status is Status.FINISHED
    assert sorted(info.metrics) == ["loss", "rank0/loss"]
    assert [writer.rank for writer in read_journal(info.path).writers] == [0]


@pytest.mark.parametrize("silent_s", [0.0, 3600.0], ids=["just now", "long ago"])
def test_run_that_crashed_on_another_host_is_gone_on_with_and_keeps_all(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], silent_s: float
) -> None:
    program = """
        import os
        import runstone
        run = runstone.start_run(run_id="one", environment=False)
        first = int(os.environ["FIRST"])
        for step in range(first, first + 2000):
            run.log({"x": step * 10.0 + run.attempt, f"only/{first}": 1.0}, step=step)
        if not first:
            os._exit(1)
    """
    assert run_program(program, FIRST="0").code == 1
    folder = only_run().path
    (journal,), (status,) = folder.glob("journal.*"), folder.glob("*.status")
    lines = journal.read_bytes().splitlines(keepends=True)
    told = {**json.loads(lines[0]), "boot_id": "of another machine", "host": "elsewhere"}
    journal.write_bytes(json.dumps(told).encode() + b"\n" + b"".join(lines[1:]))
    content = bytearray(status.read_bytes())
    (beat,) = fmt.STATUS_BEAT.unpack_from(content, fmt.STATUS_BEAT_OFFSET)[:1]
    fmt.STATUS_BEAT.pack_into(content, fmt.STATUS_BEAT_OFFSET, beat - silent_s, 0.0)
    status.write_bytes(content)
    assert only_run().status is (Status.CRASHED if silent_s else Status.RUNNING)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "control"}
    assert run_program(program, FIRST="1000").code == 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    info = only_run()
    everything = info.series("x", attempt="all")
    assert len(everything) == 4000
    assert (len(info.series("only/0")), len(info.series("only/1000"))) == (2000, 2000)
    if silent_s:
        assert [attempt.status for attempt in info.attempts] == [Status.CRASHED, Status.FINISHED]
        expected = [step * 10.0 + (1 if step < 1000 else 2) for step in range(3000)]
        assert info.series("x").value.tolist() == expected
    else:
        # it may live for all that can be known here: both write one attempt, until its heart is found silent
        assert len(info.attempts) == 1
        assert info.status is Status.RUNNING
        assert read_journal(folder, now=beat + 120).status is Status.CRASHED
