"""The index keeps in step with the run folders, whatever happens to its file and however many ask at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Workspace
from runstone.index import ingest
from runstone.index.conditions import EVERY_RUN
from runstone.index.store import BESIDE, FILE, Index
from runstone.runlog.writer import RunLog


def make(home: Path, name: str = "a", **arguments: Any) -> str:
    with runstone.start_run(name=name, workspace=home, environment=False, **arguments) as run:
        for step in range(3):
            run.log({"loss": 1.0 / (step + 1)}, step=step)
        return run.id


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return runstone.ensure_workspace(home)


def names(workspace: Workspace, filter: str = "") -> list[str]:
    return sorted(record.name for record in workspace.runs(filter).records)


def age(folder: Path, seconds: float = 60) -> None:
    """Let the last change of a folder be some time ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


def is_read_again(workspace: Workspace) -> list[str]:
    """Return the runs that the next question would read."""
    from runstone.index.store import States, _before

    with Index(workspace.path) as index:
        connection = index._connect()
        before = _before(connection)
        assert before is not None
        return list(ingest.find_changes(workspace.path, before, States(connection)).stale)


# --- in step with the disk --------------------------------------------------------------------------------------------


def test_each_question_sees_what_was_recorded_before_it(workspace: Workspace) -> None:
    assert names(workspace) == []
    first = make(workspace.path, "a")
    assert names(workspace) == ["a"]
    make(workspace.path, "b", project="other")
    assert names(workspace) == ["a", "b"]
    workspace.set_tags(first, {"stage": "best"})
    assert names(workspace, "tags.stage = 'best'") == ["a"]
    workspace.delete(first)
    assert names(workspace) == ["b"]
    assert [record.name for record in workspace.runs(deleted=True).records] == ["a"]
    workspace.restore(first)
    assert names(workspace) == ["a", "b"]


def test_a_living_run_is_followed(workspace: Workspace) -> None:
    with runstone.start_run(name="live", workspace=workspace, environment=False) as run:
        for step in range(4):
            run.log({"loss": 1.0 - step}, step=step)
            assert names(workspace, f"metrics.loss = {1 - step} and status = 'running'") == ["live"]
            assert names(workspace, f"metrics.loss.count = {step + 1} and ended_at is null") == ["live"]
    assert names(workspace, "status = 'finished' and ended_at is not null") == ["live"]


def test_a_killed_run_is_crashed_in_the_next_answer(workspace: Workspace) -> None:
    script = textwrap.dedent(
        f"""
        import runstone, time
        run = runstone.start_run(name="victim", workspace={str(workspace.path)!r}, environment=False)
        run.log({{"loss": 0.5}}, step=7)
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert names(workspace, "status = 'running'") == ["victim"]
        process.kill()
        process.wait()
    assert names(workspace, "status = 'crashed' and metrics.loss = 0.5") == ["victim"]


def test_a_resumed_run_is_read_again(workspace: Workspace) -> None:
    run_id = make(workspace.path, "a")
    age(workspace.run(run_id).path)
    assert names(workspace, "attempts = 1 and metrics.loss.count = 3") == ["a"]
    with runstone.start_run(run_id=run_id, resume=True, workspace=workspace, environment=False) as run:
        run.log({"loss": 0.1}, step=3)
    assert names(workspace, "attempts = 2 and metrics.loss.count = 4") == ["a"]


def test_a_run_that_ended_long_ago_is_not_looked_into(workspace: Workspace) -> None:
    run_id = make(workspace.path, "a")
    folder = workspace.run(run_id).path
    age(folder)
    assert names(workspace) == ["a"]
    age_before = folder.stat().st_mtime_ns
    for journal in folder.glob("journal.*"):  # damage that only a look into the folder could see
        journal.write_bytes(journal.read_bytes().replace(b'"a"', b'"z"'))
    os.utime(folder, ns=(age_before, age_before))
    assert names(workspace) == ["a"]
    age(folder, 30)
    assert names(workspace) == ["z"]


def test_what_is_written_into_an_existing_journal_is_seen_though_the_folder_does_not_change(
    workspace: Workspace,
) -> None:
    run_id = make(workspace.path, "a")
    folder = workspace.run(run_id).path
    log = RunLog(folder, role="edit")
    try:
        before = folder.stat().st_mtime_ns
        assert names(workspace, "tags.late = 'yes'") == []
        log.write("tags", set={"late": "yes"}, remove=[])
        assert folder.stat().st_mtime_ns == before
        assert names(workspace, "tags.late = 'yes'") == ["a"]
    finally:
        log.close()


def test_only_what_changed_is_read_again(workspace: Workspace) -> None:
    ids = [make(workspace.path, name) for name in "abc"]
    assert names(workspace) == ["a", "b", "c"]
    assert is_read_again(workspace) == []
    workspace.set_tags(ids[1], {"x": "y"})
    assert [folder.partition("/")[2] for folder in is_read_again(workspace)] == [ids[1]]


def test_runs_removed_from_disk_vanish(workspace: Workspace) -> None:
    first = make(workspace.path, "a")
    make(workspace.path, "b", project="other")
    assert names(workspace) == ["a", "b"]
    shutil.rmtree(workspace.run(first).path)
    assert names(workspace) == ["b"]
    shutil.rmtree(workspace.path / "runs")
    assert names(workspace) == []


def test_runs_copied_in_are_found(workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = runstone.ensure_workspace(tmp_path / "elsewhere")
    make(elsewhere.path, "guest", project="Größe 7")
    shutil.copytree(elsewhere.path / "runs", workspace.path / "runs", dirs_exist_ok=True)
    assert names(workspace, "project = 'Größe 7'") == ["guest"]


def test_folders_that_are_no_runs_are_passed_over_and_damaged_ones_told(workspace: Workspace) -> None:
    make(workspace.path, "a")
    (workspace.path / "runs" / "default" / "empty").mkdir(parents=True)
    (workspace.path / "runs" / "stray.txt").write_text("x")
    newer = workspace.path / "runs" / "default" / "newer"
    newer.mkdir()
    (newer / "journal.00.jsonl").write_text('{"event": "writer", "at": 1.0, "format": 99}\n')
    (workspace.path / "runs" / "default" / "torn").mkdir()
    (workspace.path / "runs" / "default" / "torn" / "journal.00.jsonl").write_bytes(b'{"event": "wri\xff')
    for _ in range(2):
        found = workspace.runs()
        assert [record.name for record in found.records] == ["a"]
        assert [trouble for trouble in found.troubles if "format 99" in trouble]


def test_values_come_back_equal(workspace: Workspace) -> None:
    params = {
        "big": 2**70,
        "exact": 2**53 + 1,
        "tiny": 5e-324,
        "inf": float("-inf"),
        "text": "\0é\x1b語😀",
        "list": [1, [2, {"a": None}]],
        "a.b": {"c\\d": {}},
        "true": True,
        "null": None,
        "": "empty key",
    }
    name = "../x 😀 " + "n" * 290
    with runstone.start_run(name=name, params=params, tags={name: name}, workspace=workspace, environment=False) as run:
        run.log({name: float("inf"), "nan": float("nan"), "int": 2**60}, step=-5)
        run.log({name: float("nan")}, step=-9)
    (record,) = workspace.runs().records
    info = workspace.run(run.id)
    assert (record.name, record.params, record.tags) == (name, info.params, {name: name})
    assert record.params["big"] == 2**70
    assert repr(record.metrics) == repr(dict(info.metrics))


def test_params_that_sqlite_cannot_tell_apart_do_no_harm(workspace: Workspace) -> None:
    make(workspace.path, "a", params={"x\0": 1, "x␀": 2})
    assert names(workspace, "params.'x␀' in (1, 2)") == ["a"]


# --- the file ---------------------------------------------------------------------------------------------------------


def answers(workspace: Workspace) -> list[Any]:
    return [
        [repr(record) for record in workspace.runs(filter, order_by="metrics.loss.min, name").records]
        for filter in ("", "metrics.loss < 0.5", "not params.n = 1", "name like '%a%' or tags.x is null")
    ]


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    for number, name in enumerate(("aa", "ab", "ba", "bb")):
        make(workspace.path, name, params={"n": number}, tags={"x": "y"} if number % 2 else None)
    return workspace


def test_deleting_the_index_changes_no_answer(filled: Workspace) -> None:
    before = answers(filled)
    (filled.path / FILE).unlink()
    assert answers(filled) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a database at all" * 400),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(len(path.read_bytes()) - 4096)),
        lambda path: execute(path, "PRAGMA user_version = 1"),
        lambda path: execute(path, "DROP TABLE metrics"),
        lambda path: execute(path, "ALTER TABLE runs RENAME COLUMN seen_at TO read_at"),
        lambda path: execute(path, "DROP TABLE runs; CREATE TABLE runs (x); PRAGMA user_version = 0"),
    ],
    ids=["empty", "text", "cut", "noise", "older version", "table missing", "column missing", "foreign tables"],
)
def test_a_damaged_or_foreign_index_is_made_again(filled: Workspace, damage: Any) -> None:
    before = answers(filled)
    damage(filled.path / FILE)
    assert answers(filled) == before
    with Index(filled.path) as index:
        assert index.find(EVERY_RUN).total == 4
        assert not index.is_in_memory


def test_an_index_of_a_newer_version_is_left_alone_and_one_made_beside_it(filled: Workspace) -> None:
    before = answers(filled)
    execute(filled.path / FILE, "CREATE TABLE later (x); PRAGMA user_version = 77")
    with Index(filled.path) as index:
        assert index.find(EVERY_RUN).total == 4
        assert not index.is_in_memory
    assert answers(filled) == before
    newer, own = sqlite3.connect(filled.path / FILE), sqlite3.connect(filled.path / BESIDE)
    with contextlib.closing(newer), contextlib.closing(own):
        assert newer.execute("PRAGMA user_version").fetchone() == (77,)
        assert newer.execute("SELECT count(*) FROM later").fetchone() == (0,)
        assert own.execute("SELECT count(*) FROM runs").fetchone() == (4,)


def test_a_newer_version_that_takes_over_meanwhile_is_left_alone_too(filled: Workspace) -> None:
    with Index(filled.path) as index:
        assert index.find(EVERY_RUN).total == 4
        execute(filled.path / FILE, "DROP TABLE runs; PRAGMA user_version = 77")
        make(filled.path, "later")
        assert index.find(EVERY_RUN).total == 5
    assert (filled.path / BESIDE).exists()


def execute(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()


def test_where_the_file_cannot_be_made_the_index_is_in_memory(filled: Workspace) -> None:
    before = answers(filled)
    (filled.path / FILE).unlink()
    (filled.path / FILE).mkdir()  # as good as a folder that may not be written, and true for root as well
    assert answers(filled) == before
    with Index(filled.path) as index:
        assert index.find(EVERY_RUN).total == 4
        assert index.is_in_memory
        make(filled.path, "new")
        assert index.find(EVERY_RUN).total == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workspace_is_answered_from_memory(filled: Workspace) -> None:
    before = answers(filled)
    (filled.path / FILE).unlink()
    filled.path.chmod(0o555)
    try:
        assert answers(filled) == before
    finally:
        filled.path.chmod(0o755)


def test_a_lock_that_another_process_never_lets_go_of_stops_nobody(filled: Workspace) -> None:
    before = answers(filled)
    make(filled.path, "new")
    blocker = sqlite3.connect(filled.path / FILE, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with Index(filled.path, busy_s=0.2) as index:
            assert index.find(EVERY_RUN).total == 5
            assert index.is_in_memory
    finally:
        blocker.rollback()
        blocker.close()
    assert len(answers(filled)[0]) == len(before[0]) + 1


# --- many at once -----------------------------------------------------------------------------------------------------


def _ask(home: Path, number: int, start: Any, results: Any) -> None:
    try:
        start.wait()
        workspace = runstone.open_workspace(home)
        for turn in range(4):
            run_id = make(home, f"run-{number}-{turn}")
            if turn == 2:
                workspace.set_tags(run_id, {"edited": "yes"})
            seen = names(workspace, f"name like 'run-{number}-%'")
            assert seen == [f"run-{number}-{n}" for n in range(turn + 1)], seen
        assert names(workspace, f"tags.edited = 'yes' and name like 'run-{number}-%'") == [f"run-{number}-2"]
        results.put((number, ""))
    except BaseException as error:
        results.put((number, f"{type(error).__name__}: {error}"))


def test_processes_that_write_and_ask_at_once_each_see_their_own_runs(workspace: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=_ask, args=(workspace.path, n, start, results)) for n in range(6)]
    for process in processes:
        process.start()
    start.set()
    told = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    assert [error for _number, error in told if error] == []
    assert workspace.runs().total == 24
    results.close()
    results.join_thread()


def test_threads_may_ask_at_once(filled: Workspace) -> None:
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(5):
                assert filled.runs("metrics.loss < 1").total == 4
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_later_reading_is_not_overwritten_by_an_earlier_one(workspace: Workspace) -> None:
    from runstone.index.store import _transaction
    from runstone.index.writing import Names, put

    run_id = make(workspace.path, "a")
    assert names(workspace) == ["a"]
    (folder,) = ingest.scan(workspace.path)
    early = ingest.read(workspace.path, folder, ingest.scan(workspace.path)[folder])
    workspace.set_tags(run_id, {"x": "y"})
    assert names(workspace, "tags.x = 'y'") == ["a"]
    with Index(workspace.path) as index:
        connection = index._connect()
        with _transaction(connection, "BEGIN IMMEDIATE"):
            put(connection, Names(), [early])
    assert names(workspace, "tags.x = 'y'") == ["a"]


# --- speed ------------------------------------------------------------------------------------------------------------


def test_a_thousand_runs_are_taken_in_within_seconds_and_asked_within_tenths(workspace: Workspace) -> None:
    template = workspace.run(make(workspace.path, "a", params={f"p{n}": n for n in range(20)})).path
    for number in range(999):
        shutil.copytree(template, template.with_name(f"copy-{number:04d}"))
    began = time.perf_counter()
    assert workspace.runs().total == 1000
    first = time.perf_counter() - began
    began = time.perf_counter()
    assert workspace.runs("metrics.loss.min < 0.4 and params.p3 = 3", limit=20).total == 1000
    warm = time.perf_counter() - began
    assert first < 15
    assert warm < 1.0
