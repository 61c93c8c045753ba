"""The coordinator is quick: it prunes at once, and what a trial costs it does not grow with their number.

Bounds are generous, for machines that do other things too; `benchmarks` has the figures.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone_sweeps.config import load_spec
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import Event, Journal, RecordNotWritten, read_events
from runstone_sweeps.store import SweepFolder, Sweeps
from runstone_sweeps.study import Search

from .conftest import Place


def test_a_trial_sees_the_decision_to_prune_soon_after_the_point_that_decides_it(place: Place) -> None:
    place.script(
        "train.py",
        "import time, runstone\nrun = runstone.start_run(environment=False)\nrun.log({'loss': 9.0}, step=0)\n"
        "at = time.monotonic()\nwhile not run.should_stop: time.sleep(0.0005)\n"
        "run.log({'waited': time.monotonic() - at})\n",
    )
    place.run_here(place.config("pruner: {name: threshold, upper: 1.0}\n", trials=12, parallel=2))
    workspace = runstone.open_workspace(place.home)
    waited = sorted(workspace.run(t.run_id).metrics["waited"].last for t in place.record.trials.values())
    assert len(waited) == 12
    # The median of an idle machine is below 20 ms; on one that does other things, that of the undisturbed ones counts.
    assert waited[len(waited) // 4] < 0.05
    assert waited[-1] < 10.0


def write_trials(folder: SweepFolder, count: int, *, reports: int = 3) -> None:
    """Write the record of a sweep of so many complete trials, as the coordinator would have."""
    journal = Journal(folder.path, next_seq=folder.read().next_seq, sync_every_s=60.0)
    at = time.time()

    def emit(kind: str, **fields: Any) -> None:
        nonlocal at
        at += 0.001
        journal.append({"event": kind, "at": at, **fields})

    emit("opened", pid=1, version="0")
    emit("budget", trials=count + 1, parallel=2, timeout_s=None)
    for number in range(count):
        x = (number * 0.6180339887) % 2 - 1
        run_id = f"{number:032x}"
        emit("asked", number=number, run_id=run_id, params={"x": x}, attrs={}, study_attrs={})
        emit("started", number=number, pid=1, pid_started=1.0)
        for step in range(reports):
            emit("reported", number=number, points=[[step, x * x + 1 / (step + 1)]])
        emit(
            "told", number=number, state="complete", value=x * x, values=[x * x], reason=None, attrs={}, study_attrs={}
        )
    emit("closed", reason="stopped")
    journal.close()


def sweep_of(place: Place, count: int) -> SweepFolder:
    spec = load_spec(place.config("start: cold\n", trials=count + 1, name=f"sweep{count}"))
    folder = Sweeps(runstone.ensure_workspace(place.home)).create(spec, seed=1)
    write_trials(folder, count)
    return folder


def test_a_sweep_of_ten_thousand_trials_is_resumed_within_seconds_of_cpu(place: Place) -> None:
    folder = sweep_of(place, 10_000)
    before = time.process_time()
    record = folder.read()
    read_s = time.process_time() - before
    spec = load_spec(place.path / "sweep10000.yaml")
    before = time.process_time()
    Search(spec, seed=1, record=record)
    search_s = time.process_time() - before
    assert record.ended == 10_000
    assert read_s + search_s < 6.0, f"{read_s:.2f} s to read, {search_s:.2f} s to build the search"


def test_what_an_event_costs_does_not_grow_with_the_number_of_trials(tmp_path: Path) -> None:
    def cost_s(record: SweepRecord, first: int) -> float:
        best = float("inf")
        for batch in range(5):
            begun = time.process_time()
            for number in range(first + batch * 200, first + (batch + 1) * 200):
                for event in events_of_one(number):
                    event["seq"] = record.next_seq
                    record.apply(event)
                    assert record.counts
                    assert record.ended >= 0
                    assert record.best is None or record.best.value is not None
                record.forecast()
            best = min(best, time.process_time() - begun)
        return best

    record = SweepRecord()
    record.apply({"event": "created", "seq": 0, "at": 0.0, "sweep_id": "s", "goal": "minimize"})
    record.apply({"event": "opened", "seq": 1, "at": 0.0})
    few = cost_s(record, 0)
    for number in range(1000, 20_000):
        for event in events_of_one(number):
            event["seq"] = record.next_seq
            record.apply(event)
    many = cost_s(record, 20_000)
    assert many < 3 * few, f"{few * 5:.3f} ms an trial at first, {many * 5:.3f} ms at the 20,000th"


def events_of_one(number: int) -> list[Event]:
    value = (number * 0.6180339887) % 1
    at = float(number)
    return [
        {"event": "asked", "at": at, "number": number, "run_id": "r", "params": {"x": value}},
        {"event": "started", "at": at, "number": number, "pid": 1},
        {"event": "reported", "at": at, "number": number, "points": [[0, value]]},
        {"event": "told", "at": at, "number": number, "state": "complete", "value": value, "values": [value]},
    ]


def test_many_short_trials_share_the_writes_to_the_disk_itself(tmp_path: Path, monkeypatch: Any) -> None:
    from runstone_sweeps.record import journal as module

    now_s, synced = 1000.0, []
    monkeypatch.setattr(module.os, "fsync", synced.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    me = threading.current_thread()

    def told(journal: Journal, *, after_s: float) -> None:
        nonlocal now_s
        now_s += after_s
        journal.append({"event": "told"}, is_durable=True)
        for thread in threading.enumerate():
            if thread is not me and thread.name == "runstone-sweep-sync":
                thread.join()

    journal = Journal(tmp_path, sync_every_s=0.2)
    for _ in range(100):  # a second
        told(journal, after_s=0.01)
    assert 4 <= len(synced) <= 6
    told(journal, after_s=0.01)
    count = len(synced)
    journal.close()
    assert len(synced) == count + 1  # what was still to be synced is, at the end
    journal = Journal(tmp_path, next_seq=10**6, sync_every_s=0.2)
    told(journal, after_s=0.0)  # one that comes alone waits for nothing
    assert len(synced) == count + 2
    told(journal, after_s=60.0)
    assert len(synced) == count + 3
    journal.close()
    assert len(synced) == count + 3
    assert read_events(tmp_path)[1] == 0


def test_a_disk_that_fails_beside_the_loop_is_told_by_the_next_event(tmp_path: Path, monkeypatch: Any) -> None:
    from runstone_sweeps.record import journal as module

    now_s = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    journal = Journal(tmp_path, sync_every_s=0.2)
    journal.append({"event": "told"}, is_durable=True)

    def fails(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(module.os, "fsync", fails)
        now_s += 0.3  # such events come one after the other: a thread syncs
        journal.append({"event": "told"}, is_durable=True)
        for thread in threading.enumerate():
            if thread.name == "runstone-sweep-sync":
                thread.join()
        with pytest.raises(RecordNotWritten, match="Input/output error"):
            journal.append({"event": "told"})
    journal.close()
