"""F27: many processes write into one workspace and ask its index; none of them ever hears of a locked database."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Workspace
from runstone.index.conditions import EVERY_RUN
from runstone.index.store import FILE, Index

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
WRITERS = 8
TRANSACTIONS = 1_000 if IS_SOAK else 20
MOST_WAL_BYTES = 64 << 20


def _write(path: Path, run_id: str, start: Any, results: Any) -> None:
    """Change a run again and again; each question takes that into the index, in a transaction that writes."""
    workspace = Workspace(path)
    problems: list[str] = []
    waits: list[float] = []
    start.wait()
    try:
        with Index(path) as index:
            for turn in range(TRANSACTIONS):
                workspace.set_tags(run_id, {"turn": str(turn)})
                began = time.perf_counter()
                records = {record.id: record for record in index.find(EVERY_RUN).records}
                waits.append(time.perf_counter() - began)
                if records[run_id].tags.get("turn") != str(turn):
                    problems.append(f"turn {turn} is not seen")
                if index.is_in_memory:
                    problems.append("the file was given up")
                    break
    except BaseException as error:
        problems.append(f"{type(error).__name__}: {error}")
    results.put((problems, waits))


@pytest.mark.soak
def test_no_writer_of_eight_hears_of_a_lock_and_the_death_of_one_damages_nothing(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    ids = []
    for number in range(WRITERS + 1):
        with runstone.start_run(name=f"r{number}", workspace=workspace, environment=False) as run:
            run.log({"loss": 1.0}, step=0)
        ids.append(run.id)
    context = multiprocessing.get_context("spawn")
    start, results, ignored = context.Barrier(WRITERS + 1), context.Queue(), context.Queue()
    processes = [
        context.Process(target=_write, args=(home, run_id, start, results if number else ignored))
        for number, run_id in enumerate(ids)
    ]
    for process in processes:
        process.start()
    time.sleep(0.5)
    while not (home / FILE).exists():
        time.sleep(0.05)
    processes[0].kill()
    told = [results.get(timeout=250 if not IS_SOAK else 3_000) for _ in range(WRITERS)]
    for process in processes:
        process.join(timeout=60)
    for queue in (results, ignored):
        queue.close()
        queue.join_thread()
    assert [problem for problems, _waits in told for problem in problems] == []
    waits = np.concatenate([waits for _problems, waits in told])
    assert len(waits) == WRITERS * TRANSACTIONS
    if IS_SOAK:
        assert np.quantile(waits, 0.99) < 1.0  # seconds; a machine that does other things, too, tells nothing
    with contextlib.closing(sqlite3.connect(home / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    wal = home / f"{FILE}-wal"
    assert not wal.exists() or wal.stat().st_size < MOST_WAL_BYTES
