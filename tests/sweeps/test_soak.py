"""Kills at random, and a disk that is full: no trial is lost or counted twice, nothing is left running."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import runstone
from runstone_sweeps.record import TrialState

from .conftest import Place

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
KILLS = 200 if IS_SOAK else 10
TRIALS = 120 if IS_SOAK else 12


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def zombies_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ended children of a coordinator, and of its children, that nobody has waited for."""
    found = []
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    for child in family:
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_random_kills_lose_and_double_nothing(place: Place) -> None:
    chance = random.Random(11)
    more = (
        "  steps: {value: 6}\n  slow: {value: 0.02}\nretries: {crash: 1000, backoff: 0}\nreplicates: 2\npruner: none\n"
    )
    config = place.config(more, trials=TRIALS, parallel=3)
    process, killed = None, Counter[str]()
    while killed.total() < KILLS:
        if process is None or process.poll() is not None:
            process = place.start("run", config, "--trials", str(TRIALS + killed.total()))
            place.until_opened(process)
        time.sleep(chance.uniform(0.0, 0.4))
        what = chance.choice(["runner", "trial", "trial", "both", "supervisor"])
        trials = place.living()
        if what in ("trial", "both"):
            killed["trial"] += sum(kill(pid) for pid in trials[: 1 if what == "trial" else None])
        if what == "supervisor":
            try:
                (supervisor,) = psutil.Process(process.pid).children()[:1]
                killed["supervisor"] += kill(supervisor.pid)
            except (psutil.NoSuchProcess, ValueError):
                continue
        if what in ("runner", "both"):
            killed["runner"] += kill(process.pid)
        if what != "trial":
            process.communicate(timeout=180)
            place.until(lambda: not place.living())
    if process is not None and process.poll() is None:
        kill(process.pid)
    if process is not None:
        process.communicate()
    total = TRIALS + KILLS + 20
    place.sweep("run", config, "--trials", str(total))
    record = place.record
    assert sorted(record.trials) == list(range(total))
    assert [event["number"] for event in place.events_of("asked")] == list(range(total))
    assert sorted(event["number"] for event in place.events_of("told")) == list(range(total))
    assert record.counts == {TrialState.COMPLETE: total}
    assert record.is_finished
    assert record.unknown == 0
    run_ids = sorted(run.run_id for trial in record.trials.values() for run in trial.runs)
    assert run_ids == sorted(path.name for path in runstone.open_workspace(place.home).run_folders())
    for trial in record.trials.values():
        assert trial.value == pytest.approx(trial.params["x"] ** 2 + 1 / 6)
        assert [len(run.values or ()) for run in trial.runs] == [1, 1]
    place.until(lambda: not place.living())


def test_no_zombie_is_left_while_many_short_trials_run(place: Place) -> None:
    config = place.config("  steps: {value: 1}\n", trials=12, parallel=3)
    process = place.start("run", config)
    place.until_opened(process)
    seen = 0
    while process.poll() is None:
        for pid in zombies_of(process):
            place.until(lambda pid=pid: pid not in zombies_of(process))  # type: ignore[misc]
        seen += 1
        time.sleep(0.02)
    assert seen > 3
    assert process.returncode == 0, process.communicate()


def test_a_full_disk_stops_the_trials_and_the_sweep_goes_on_when_there_is_room(place: Place) -> None:
    config = place.config("  steps: {value: 400}\n  slow: {value: 0.005}\nstart: cold\n", trials=3)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("reported")) > 4, process)
    (journal,) = [p for p in place.folder.path.glob("journal.*") if b'"opened"' in p.read_bytes()]
    # What the coordinator writes may grow by a part of a line, as on a disk that is full; trials write on.
    limit = journal.stat().st_size + 20
    psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (limit, limit))
    out, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "takes no more events" in err
    assert f"Make room, then `sweep resume {place.folder.id}` goes on" in err
    assert "Traceback" not in out + err
    assert not place.living()
    assert place.record.unknown == 0
    more = place.config("  steps: {value: 400}\n  slow: {value: 0.005}\nstart: cold\n", trials=3)
    assert Path(more) == config
    place.sweep("resume", "toy")
    record = place.record
    assert record.is_finished
    assert record.counts == {TrialState.COMPLETE: 3}
    assert sorted(event["number"] for event in place.events_of("told")) == [0, 1, 2]
