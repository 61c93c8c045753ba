"""The copy of a sweep in an Optuna storage: the same trials, whatever happens to the process that writes it."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

import runstone_sweeps
from runstone_sweeps.mirror import Mirror, _only_one, absolute_url, copy_once, follow, shown_url
from runstone_sweeps.record.journal import Journal, encode
from runstone_sweeps.store import SweepFolder, SweepIsRunning
from runstone_sweeps.store.followed import RecordFollower
from runstone_sweeps.study import to_optuna
from runstone_sweeps.study.storing import StoredStudy, stored_name

from . import made
from .conftest import Place

pytestmark = pytest.mark.filterwarnings("ignore:.*is experimental:optuna.exceptions.ExperimentalWarning")


def study_in(url: str, folder: Path) -> optuna.Study:
    record = SweepFolder(folder).read()
    return optuna.load_study(study_name=stored_name(record), storage=url)


def told_of(study: optuna.Study) -> list[tuple[Any, ...]]:
    """Return all that Optuna's tools may read of the trials."""
    return [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.distributions,
            t.intermediate_values,
            t.user_attrs,
            t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
        )
        for t in study.get_trials(deepcopy=False)
    ]


def expected(folder: Path, config: dict[str, Any] = made.CONFIG) -> list[tuple[Any, ...]]:
    return told_of(to_optuna(made.spec_of(config), SweepFolder(folder).read()))


def quiet(text: str) -> None:
    raise AssertionError(text)


TWO = {
    **{key: value for key, value in made.CONFIG.items() if key != "metric"},
    "metrics": [{"name": "loss", "goal": "minimize"}, {"name": "speed", "goal": "maximize"}],
    "constraints": [{"metric": "speed", "min": 0.3}],
}


@pytest.mark.parametrize("config", [made.CONFIG, TWO])
def test_the_copy_has_the_trials_of_to_optuna(tmp_path: Path, config: dict[str, Any]) -> None:
    events = made.searched(25, config, running=2)
    for event in events:
        if event["event"] == "told" and event["state"] == "complete" and config is TWO:
            event["constraints"] = [0.3 - event["values"][1]]
    folder = made.write(tmp_path / "s1", events)
    url = f"sqlite:///{tmp_path}/study.db"
    assert follow(SweepFolder(folder), url, say=quiet)
    study = study_in(url, folder)
    assert told_of(study) == expected(folder, config)
    assert study.metric_names == [m["name"] for m in config.get("metrics", [config.get("metric")])]
    assert study.user_attrs["sweep_id"] == "s1"
    states = {trial.state for trial in study.trials}
    assert states == {OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL, OptunaState.RUNNING}


def test_a_copy_that_goes_on_is_the_same_as_one_made_at_once(tmp_path: Path) -> None:
    events = made.numbered(made.searched(12))
    folder, url = tmp_path / "s1", f"sqlite:///{tmp_path}/study.db"
    folder.mkdir()
    journal = Journal(folder)
    for begin in range(0, len(events), 7):
        for event in events[begin : begin + 7]:
            journal.append(event)
        assert follow(SweepFolder(folder), url, say=quiet)
        assert [trial[:6] for trial in told_of(study_in(url, folder))] == [trial[:6] for trial in expected(folder)]
    journal.close()
    assert told_of(study_in(url, folder)) == expected(folder)


def test_what_a_copy_cannot_take_back_is_made_again(tmp_path: Path) -> None:
    folder, url = tmp_path / "s1", f"sqlite:///{tmp_path}/study.db"
    params = {"lr": 0.1, "hidden": 20, "optimizer": "sgd"}
    begun = [*made.created(), made.asked(0, params), {"event": "started", "number": 0}]
    made.write(folder, [*begun, {"event": "reported", "number": 0, "points": [[0, 3.0], [1, 2.0], [2, 1.5]]}])
    assert follow(SweepFolder(folder), url, say=quiet)
    assert study_in(url, folder).trials[0].intermediate_values == {0: 3.0, 1: 2.0, 2: 1.5}
    journal = Journal(folder, next_seq=len(begun) + 1)
    # A new attempt from the beginning, which logs less; then someone has the trial run again.
    journal.append({"event": "requeued", "number": 0, "reason": "gone", "at": made.AT + 20})
    journal.append({"event": "started", "number": 0, "at": made.AT + 21})
    journal.append({"event": "reported", "number": 0, "points": [[0, 9.0]], "at": made.AT + 22})
    journal.append({**made.told(0, 9.0), "at": made.AT + 23})
    assert follow(SweepFolder(folder), url, say=quiet)
    assert told_of(study_in(url, folder)) == expected(folder)
    assert study_in(url, folder).trials[0].intermediate_values == {0: 9.0}
    journal.append({"event": "rerun", "numbers": [0], "at": made.AT + 30})
    assert follow(SweepFolder(folder), url, say=quiet)
    journal.close()
    assert study_in(url, folder).trials[0].state is OptunaState.RUNNING
    assert len(optuna.get_all_study_names(url)) == 1


def test_a_parameter_of_another_kind_than_before_stands_in_the_attributes(tmp_path: Path) -> None:
    folder, url = tmp_path / "s1", f"sqlite:///{tmp_path}/study.db"
    made.write(folder, [*made.created(), made.asked(0, {"lr": 0.1, "optimizer": "sgd"}), made.told(0, 1.0)])
    assert follow(SweepFolder(folder), url, say=quiet)
    other = {**made.CONFIG, "parameters": {**made.CONFIG["parameters"], "optimizer": {"values": ["sgd", "rmsprop"]}}}
    journal = Journal(folder, next_seq=5)
    journal.append({"event": "edited", "config": other, "at": made.AT + 20})
    journal.append({**made.asked(1, {"lr": 0.2, "optimizer": "rmsprop"}), "at": made.AT + 21})
    journal.append({**made.told(1, 2.0), "at": made.AT + 22})
    journal.close()
    assert follow(SweepFolder(folder), url, say=quiet)
    trial = study_in(url, folder).trials[1]
    assert trial.params == {"lr": 0.2}
    assert trial.user_attrs["parameters"] == {"optimizer": "rmsprop"}


def test_a_locked_database_is_told_once_and_then_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone_sweeps.study.storing._SQLITE_PATIENCE_S", 0.05)
    monkeypatch.setattr("runstone_sweeps.mirror._FIRST_WAIT_S", 0.01)
    folder = made.write(tmp_path / "s1", made.searched(3))
    database = tmp_path / "study.db"
    url = f"sqlite:///{database}"
    StoredStudy(url, made.spec_of(made.CONFIG), SweepFolder(folder).read()).close()
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if other.in_transaction and len(said) == 1:
            other.execute("ROLLBACK")

    assert follow(SweepFolder(folder), url, say=say)
    other.close()
    assert "database is locked; tried again" in said[0]
    assert said[1:] == ["storage: it is there again, and nothing is missing"]
    assert told_of(study_in(url, folder)) == expected(folder)


def test_a_database_out_of_reach_ends_the_copy_with_words_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone_sweeps.mirror._FIRST_WAIT_S", 0.01)
    folder = made.write(tmp_path / "s1", made.searched(3))
    said: list[str] = []
    url = f"sqlite:///{tmp_path}/no/such/folder.db"
    assert not follow(SweepFolder(folder), url, say=said.append, patience_s=0.1)
    assert "unable to open database file" in said[0]
    assert "sweep to-optuna s1 --storage URL" in said[-1]
    assert shown_url("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_path_in_the_url_is_seen_from_the_config(tmp_path: Path) -> None:
    assert absolute_url("sqlite:///study.db", Path("/a")) == "sqlite:////a/study.db"
    assert absolute_url("sqlite:////b/study.db", Path("/a")) == "sqlite:////b/study.db"
    assert absolute_url("postgresql://host/db", Path("/a")) == "postgresql://host/db"


def test_a_mirror_that_is_killed_anywhere_writes_no_trial_twice(tmp_path: Path) -> None:
    folder, url = tmp_path / "s1", f"sqlite:///{tmp_path}/study.db"
    made.write(folder, made.searched(260, steps=4))
    for _ in range(3):
        with SweepFolder(folder).lock():
            mirror = Mirror(folder, url)
            until = time.monotonic() + 120
            before = _count(tmp_path / "study.db")
            while _count(tmp_path / "study.db") < before + 5 and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(mirror.pid, signal.SIGKILL)
            assert mirror.close() is not None
    mirror = Mirror(folder, url)
    assert mirror.close(60) is None
    assert told_of(study_in(url, folder)) == expected(folder)


def test_a_mirror_follows_a_sweep_while_it_runs_and_ends_with_it(place: Place, tmp_path: Path) -> None:
    running = place.start("run", place.config("  steps: {value: 10}\n  slow: {value: 0.2}\n", trials=4))
    place.until(lambda: bool(place.events_of("reported")), running)
    mirror = Mirror(place.folder.path, f"sqlite:///{tmp_path}/study.db")
    place.until(lambda: _count(tmp_path / "study.db") > 0, running)
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert mirror.close(60) is None
    study = study_in(f"sqlite:///{tmp_path}/study.db", place.folder.path)
    assert told_of(study) == told_of(runstone_sweeps.to_optuna("toy", workspace=place.home))
    assert len(study.trials) == 4
    assert (place.folder.path / "mirror.log").read_text() == ""


def test_two_mirrors_of_a_sweep_write_each_trial_once(tmp_path: Path) -> None:
    folder, url = tmp_path / "s1", f"sqlite:///{tmp_path}/study.db"
    made.write(folder, made.searched(20))
    mirrors = [Mirror(folder, url) for _ in range(2)]
    assert [mirror.close(60) for mirror in mirrors] == [None, None]
    assert told_of(study_in(url, folder)) == expected(folder)
    with _only_one(folder), pytest.raises(SweepIsRunning, match="is being copied"):
        copy_once(SweepFolder(folder), url)


def test_the_url_of_a_storage_is_no_argument_of_a_process(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "s1", made.searched(1))
    with SweepFolder(folder).lock():
        mirror = Mirror(folder, "sqlite:////nowhere/secret.db")
        try:
            deadline = time.monotonic() + 120
            while not (words := Path(f"/proc/{mirror.pid}/cmdline").read_bytes().split(b"\0"))[0]:
                assert time.monotonic() < deadline  # it is about to become another program
            assert b"runstone_sweeps.mirror" in words
            assert not any(b"secret" in word for word in words)
        finally:
            os.kill(mirror.pid, signal.SIGKILL)
            mirror.close()


def test_a_follower_reads_torn_lines_late_events_and_new_files(tmp_path: Path) -> None:
    events = made.numbered(made.searched(6))
    follower = RecordFollower(tmp_path)
    assert follower.poll() == []
    path = tmp_path / "journal.a.jsonl"
    lines = [encode(event) for event in events]
    path.write_bytes(b"".join(lines[:9]) + lines[9][:20])
    assert [event["seq"] for event in follower.poll()] == list(range(9))
    with path.open("ab") as file:
        file.write(lines[9][20:-1])
    # All of it but the newline, which may never come.
    assert [event["seq"] for event in follower.poll()] == [9]
    (tmp_path / "journal.b.jsonl").write_bytes(b"".join(lines[12:]))
    assert len(follower.poll()) == len(lines) - 12
    (tmp_path / "journal.c.jsonl").write_bytes(b"".join(lines[10:12]))
    assert [event["seq"] for event in follower.poll()] == list(range(len(lines)))
    assert follower.record.counts == SweepFolder(tmp_path).read().counts


def _count(database: Path) -> int:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            found = int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.Error:
        return 0
    connection.close()
    return found
