"""What a workspace keeps between questions: it saves reading, is never stale, and holds no file open."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import runstone
from runstone import Workspace
from runstone.index.store import FILE
from runstone.query import OpenIndex
from runstone.query.standing import StandingIndex

QUESTION = "metrics.loss > 0.25"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    """Three runs, asked about once."""
    workspace = runstone.ensure_workspace(home)
    for number in range(3):
        make(workspace, f"run-{number}", number / 2)
    settle(workspace)
    assert names(workspace) == ["run-1", "run-2"]
    return workspace


def make(workspace: Workspace, name: str, loss: float) -> str:
    with runstone.start_run(name=name, workspace=workspace.path, environment=False) as run:
        run.log({"loss": loss})
        return run.id


def names(workspace: Workspace, filter: str = QUESTION) -> list[str]:
    return sorted(record.name for record in workspace.runs(filter).records)


def settle(workspace: Workspace) -> None:
    """Let the last change of each run be some time ago, and the index have seen that."""
    then = time.time() - 60
    for folder in workspace.run_folders():
        os.utime(folder, (then, then))
    workspace.runs()


def in_child(action: Callable[[], object], limit_s: int = 60) -> int:
    """Return how a forked process ended that did something: 0, 1 where it raised, or minus the signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where there are threads
        child = os.fork()
    if not child:
        signal.alarm(limit_s)
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_second_question_reads_only_what_changed(workspace: Workspace) -> None:
    connection = sqlite3.connect(workspace.path / FILE)
    with connection:  # told nobody: the revision stays
        connection.execute("UPDATE metrics SET last = 0.0")
    connection.close()
    assert names(workspace) == ["run-1", "run-2"], "the column was read again"
    assert names(Workspace(workspace.path)) == [], "another workspace has nothing at hand"


def test_what_another_process_writes_is_in_the_next_answer(workspace: Workspace) -> None:
    program = (
        "import sys, runstone\n"
        "with runstone.start_run(name='other', workspace=sys.argv[1], environment=False) as run:\n"
        "    run.log({'loss': 1.0})\n"
        "workspace = runstone.open_workspace(sys.argv[1])\n"
        "workspace.runs('metrics.loss > 0.25')\n"  # which takes the run in, so that only the revision tells of it
        "workspace.delete(workspace.run('run-1').id)\n"
        "workspace.runs('metrics.loss > 0.25')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(workspace.path)], check=True)
    assert names(workspace) == ["other", "run-2"]


def test_no_file_is_open_between_questions(workspace: Workspace) -> None:
    names(workspace)
    opened = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]  # noqa: PTH115 (a link to no path)
    assert [path for path in opened if str(workspace.path) in path] == []
    assert sorted(path.name for path in workspace.path.glob("index*")) == [FILE], "its log is merged into it"


def test_an_index_that_was_deleted_is_made_again(workspace: Workspace) -> None:
    (workspace.path / FILE).unlink()
    make(workspace, "later", 0.75)
    assert names(workspace) == ["later", "run-1", "run-2"]


def test_an_index_in_the_place_of_another_is_read_anew(workspace: Workspace, tmp_path: Path) -> None:
    """A whole other workspace in its place: neither its runs nor its columns may be mixed with those at hand."""
    other = runstone.ensure_workspace(tmp_path / "other")
    for number in range(6):
        make(other, f"other-{number}", 0.0 if number else 1.0)
    settle(other)
    assert names(other) == ["other-0"]
    for part in ("runs", FILE, "changes"):
        place = workspace.path / part
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        shutil.copytree(other.path / part, place) if place.name != FILE else shutil.copy2(other.path / part, place)
    assert names(workspace) == ["other-0"]


def test_a_damaged_index_is_made_again(workspace: Workspace) -> None:
    content = (workspace.path / FILE).read_bytes()
    (workspace.path / FILE).write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    assert names(workspace) == ["run-1", "run-2"]


def test_a_fork_in_the_midst_of_a_question_can_ask(workspace: Workspace) -> None:
    standing = StandingIndex(workspace.path)
    asked, end = threading.Event(), threading.Event()

    def wait(_question: object) -> None:
        asked.set()
        assert end.wait(60)

    def ask_in_child() -> None:
        assert standing.opened().find_runs(QUESTION).total == 2

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(standing.opened()._index.ask, wait)
        assert asked.wait(60)
        try:
            assert in_child(ask_in_child) == 0
        finally:
            end.set()
        slow.result()
    assert standing.opened().find_runs(QUESTION).total == 2


def test_forks_and_their_parent_write_one_index(workspace: Workspace) -> None:
    for turn in range(3):

        def make_and_ask(turn: int = turn) -> None:
            make(workspace, f"forked-{turn}", 1.0)
            assert f"forked-{turn}" in names(workspace)

        assert in_child(make_and_ask) == 0
        make(workspace, f"own-{turn}", 1.0)
        assert {f"forked-{turn}", f"own-{turn}"} <= set(names(workspace))
    with OpenIndex(workspace.path) as index:
        assert sorted(record.name for record in index.find_runs(QUESTION).records) == names(workspace)


def test_threads_ask_one_workspace_at_once(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    make(workspace, "first", 1.0)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: names(workspace), range(40)))
    assert answers == [["first"]] * 40


def test_a_workspace_that_was_asked_can_be_pickled(workspace: Workspace) -> None:
    assert names(pickle.loads(pickle.dumps(workspace))) == ["run-1", "run-2"]


def test_a_database_that_is_named_later_is_asked_from_then_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTONE_INDEX", "mysql://db")
    with pytest.raises(runstone.InvalidConfig, match="mysql"):
        names(workspace)
    monkeypatch.delenv("RUNSTONE_INDEX")
    assert names(workspace) == ["run-1", "run-2"]
