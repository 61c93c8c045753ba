"""Which folders a question looks at, in workspaces too large for a look at all of them each time."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Workspace
from runstone.index.ingest import SMALL_S, Before
from runstone.index.store import FILE, Index
from runstone.query import OpenIndex


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return runstone.ensure_workspace(home)


def make(workspace: Workspace, name: str, **arguments: Any) -> str:
    with runstone.start_run(name=name, workspace=workspace, environment=False, **arguments) as run:
        run.log({"loss": 0.5})
        return run.id


def names(workspace: Workspace, filter: str = "") -> list[str]:
    return sorted(record.name for record in workspace.runs(filter).records)


def settle(workspace: Workspace) -> None:
    """Let the last change of each run be some time ago."""
    then = time.time() - 60
    for folder in workspace.run_folders():
        os.utime(folder, (then, then))


def pretend_large(workspace: Workspace, scan_s: float = 1_000.0, ago_s: float = 0.0) -> None:
    """Let the index believe that it has just compared all folders, and that this took long."""
    names(workspace)
    set_state(workspace, scan_s=scan_s, scanned_at=time.time() - ago_s)


def set_state(workspace: Workspace, **values: float) -> None:
    connection = sqlite3.connect(workspace.path / FILE)
    with connection:
        connection.executemany("UPDATE state SET value = ? WHERE name = ?", [(v, name) for name, v in values.items()])
    connection.close()


def state(workspace: Workspace, name: str) -> float:
    connection = sqlite3.connect(workspace.path / FILE)
    try:
        return float(connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def large(workspace: Workspace) -> Workspace:
    """A workspace whose next questions do not compare all folders."""
    for name in "abc":
        make(workspace, name)
    settle(workspace)
    pretend_large(workspace)
    return workspace


def test_all_folders_are_compared_always_or_for_a_twentieth_of_the_time() -> None:
    assert Before().is_scan_due(1000.0)
    assert Before(scan_s=SMALL_S / 2, scanned_at=1000.0).is_scan_due(1000.0)
    assert not Before(scan_s=0.5, scanned_at=1000.0).is_scan_due(1009.0)
    assert Before(scan_s=0.5, scanned_at=1000.0).is_scan_due(1010.1)
    assert Before(scan_s=0.5, scanned_at=1000.0).is_scan_due(900.0)  # the clock was turned back


def test_a_quiet_question_looks_at_no_folder(large: Workspace) -> None:
    for folder in large.run_folders():  # what only a look at it would tell
        os.utime(folder, (time.time() - 30,) * 2)
    shutil.rmtree(large.path / "runs" / "default")
    assert names(large) == ["a", "b", "c"]
    set_state(large, scanned_at=0.0)
    assert names(large) == []


@pytest.mark.parametrize(
    ("change", "filter", "expected"),
    [
        (lambda ws, _id: make(ws, "new"), "", ["a", "b", "c", "new"]),
        (lambda ws, _id: make(ws, "new", project="other"), "", ["a", "b", "c", "new"]),
        (lambda ws, run: ws.set_tags(run, {"x": "y"}), "tags.x = 'y'", ["a"]),
        (lambda ws, run: ws.delete(run), "", ["b", "c"]),
        (lambda ws, run: ws.archive(run), "archived", ["a"]),
        (lambda ws, run: make(ws, "a", run_id=run), "attempts = 2", ["a"]),
        (lambda ws, run: ws.launched_run(run).end("pruned"), "status = 'pruned'", ["a"]),
        (lambda ws, _id: ws.create_run(project="p", name="launched").close(), "name = 'launched'", ["launched"]),
    ],
    ids=["new", "project", "tags", "deleted", "archived", "resumed", "launched again", "launched"],
)
def test_what_runstone_writes_is_seen_at_once(
    large: Workspace, change: Callable[[Workspace, str], Any], filter: str, expected: list[str]
) -> None:
    change(large, large.runs("name = 'a'").records[0].id)
    scanned_at = state(large, "scanned_at")
    assert names(large, filter) == expected
    assert state(large, "scanned_at") == scanned_at


def test_living_runs_are_followed_and_their_deaths_seen(large: Workspace) -> None:
    program = (
        "import runstone, time\n"
        f"run = runstone.start_run(name='victim', workspace={str(large.path)!r}, environment=False)\n"
        "run.log({'loss': 0.25}, step=7); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert names(large, "status = 'running' and metrics.loss = 0.25") == ["victim"]
        process.kill()
        process.wait()
    assert names(large, "status = 'crashed'") == ["victim"]
    with runstone.start_run(name="live", workspace=large, environment=False) as run:
        for value in (1.0, 2.0, 3.0):
            run.log({"loss": value})
            assert names(large, f"metrics.loss = {value}") == ["live"]
    assert names(large, "status = 'finished' and metrics.loss = 3") == ["live"]


def test_what_others_copy_in_is_seen_with_the_next_comparison(large: Workspace, tmp_path: Path) -> None:
    elsewhere = runstone.ensure_workspace(tmp_path / "elsewhere")
    make(elsewhere, "guest")
    shutil.copytree(elsewhere.path / "runs", large.path / "runs", dirs_exist_ok=True)
    set_state(large, scanned_at=time.time() - 20 * 1_000 - 1)
    assert names(large, "name = 'guest'") == ["guest"]


def test_announcements_that_cannot_be_followed_lead_to_a_comparison(large: Workspace) -> None:
    shutil.rmtree(large.runs("name = 'a'")[0].path)
    assert names(large) == ["a", "b", "c"]
    shutil.rmtree(large.path / "changes")
    assert names(large) == ["b", "c"]


def test_a_copy_of_a_workspace_answers_as_the_original(large: Workspace, tmp_path: Path) -> None:
    for tool in (["cp", "-a"], ["cp", "-r"], ["rsync", "-a"]):
        if shutil.which(tool[0]) is None:
            continue
        copy = tmp_path / f"copy-{tool[0]}{tool[1]}"
        subprocess.run([*tool, f"{large.path}/.", str(copy)], check=True)
        moved = runstone.open_workspace(copy)
        large.set_tags(large.runs("name = 'a'").records[0].id, {tool[0]: tool[1]})
        subprocess.run([*tool, f"{large.path}/.", str(copy)], check=True)
        assert names(moved, f"tags.{tool[0]} = '{tool[1]}'") == ["a"]
        assert names(moved) == ["a", "b", "c"]


def test_a_folder_without_a_journal_becomes_a_run_when_it_has_one(large: Workspace) -> None:
    folder = large.make_run_folder("p", "late")
    set_state(large, scan_s=0.0)
    assert names(large, "id = 'late'") == []
    pretend_large(large)
    with runstone.start_run(run_id="late", name="late", project="p", workspace=large, environment=False, resume=None):
        assert names(large, "id = 'late'") == ["late"]
    shutil.rmtree(folder)


def test_a_crash_of_another_machine_is_looked_at_until_it_is_long_ago(workspace: Workspace) -> None:
    make(workspace, "away")
    (folder,) = workspace.run_folders()
    (journal,) = folder.glob("journal.*")
    lines = [line for line in journal.read_text().splitlines() if '"end"' not in line]
    text = "\n".join(lines).replace('"boot_id":"', '"boot_id":"x')
    journal.write_text(text + "\n")
    (status,) = folder.glob("*.status")
    data = bytearray(status.read_bytes())
    data[32:36] = (1).to_bytes(4, "little")  # open, with a heartbeat of now
    status.write_bytes(data)
    assert names(workspace, "status = 'running'") == ["away"]

    def watched() -> int:
        connection = sqlite3.connect(workspace.path / FILE)
        try:
            return int(connection.execute("SELECT watch FROM runs").fetchone()[0])
        finally:
            connection.close()

    assert watched() == 2
    import struct

    data[16:24] = struct.pack("<d", time.time() - 120)
    status.write_bytes(data)
    assert names(workspace, "status = 'crashed'") == ["away"]
    assert watched() == 3
    data[16:24] = struct.pack("<d", time.time())  # it comes back
    status.write_bytes(data)
    assert names(workspace, "status = 'running'") == ["away"]


def test_cursors_tell_what_changed(workspace: Workspace) -> None:
    with OpenIndex(workspace.path) as index:
        first = index.changes()
        assert (first.changed, first.removed, first.is_complete) == ((), (), False)
        a, b = make(workspace, "a"), make(workspace, "b")
        then = index.changes(first.cursor)
        assert (set(then.changed), then.removed, then.is_complete) == ({a, b}, (), True)
        assert index.changes(then.cursor) == (then.cursor, (), (), True)
        workspace.set_tags(a, {"x": "y"})
        shutil.rmtree(workspace.run(b).path)
        later = index.changes(then.cursor)
        assert (later.changed, later.removed) == ((a,), (b,))
        assert set(index.changes(first.cursor).changed) == {a}
    with OpenIndex(workspace.path) as other:  # another process, the same file
        assert other.changes(then.cursor)[1:] == ((a,), (b,), True)
    (workspace.path / FILE).unlink()
    with OpenIndex(workspace.path) as index:
        assert not index.changes(later.cursor).is_complete
        for nonsense in ("x", "a.b", "1.9999999999999999999", f"{first.cursor}9", "٣.٣"):
            assert not index.changes(nonsense).is_complete


def test_a_living_run_changes_when_something_is_recorded_and_not_with_time(workspace: Workspace) -> None:
    with (
        OpenIndex(workspace.path) as index,
        runstone.start_run(name="live", workspace=workspace, environment=False) as run,
    ):
        cursor = index.changes(index.changes().cursor).cursor
        run.log({"x": 1.0})
        cursor, changed, _removed, _complete = index.changes(cursor)
        assert changed == (run.id,)
        cursor, changed, _removed, _complete = index.changes(cursor)
        assert changed == ()
        run.set_tags(stage="late")
        assert index.changes(cursor).changed == (run.id,)


def test_a_run_that_came_back_under_its_id_is_not_gone(workspace: Workspace, tmp_path: Path) -> None:
    run_id = make(workspace, "a")
    with OpenIndex(workspace.path) as index:
        cursor = index.changes().cursor
        folder = workspace.run(run_id).path
        shutil.move(folder, tmp_path / "away")
        assert index.changes(cursor).removed == (run_id,)
        assert index.page_of_runs("metrics.loss = 0.5").ids == ()
        shutil.move(tmp_path / "away", folder)
        changes = index.changes(cursor)
        assert (changes.changed, changes.removed) == ((run_id,), ())
        assert index.page_of_runs("metrics.loss = 0.5").ids == (run_id,)


def test_many_who_ask_may_share_one_look_at_the_disk(workspace: Workspace) -> None:
    with OpenIndex(workspace.path, refresh_s=1_000.0) as index, OpenIndex(workspace.path) as other:
        assert index.page_of_runs().total == 0
        make(workspace, "a")
        assert index.page_of_runs().total == 0
        assert other.page_of_runs().total == 1  # takes it in, for all who use the file
        assert index.page_of_runs().total == 1


def test_an_open_index_notices_that_its_file_was_deleted(workspace: Workspace) -> None:
    make(workspace, "a")
    with Index(workspace.path) as index, OpenIndex(workspace.path) as other:
        from runstone.index.conditions import EVERY_RUN

        assert index.find(EVERY_RUN).total == other.page_of_runs().total == 1
        for file in workspace.path.glob(f"{FILE}*"):
            file.unlink()
        make(workspace, "b")
        assert index.find(EVERY_RUN).total == other.page_of_runs().total == 2
        assert (workspace.path / FILE).exists()
