"""Removing deleted runs for good."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run as call
from runstone.gc import collect
from tests.keep.conftest import Record


def test_purging_frees_the_folder_and_says_whose_content_is_nobodys(
    workspace: runstone.Workspace, record: Record
) -> None:
    shared, own = os.urandom(5000), os.urandom(7000)
    kept, gone = record("kept", artifact=shared), record("gone", artifact=shared)
    third = record("third", artifact=own)
    for run_id in (gone, third):
        workspace.delete(run_id)
    folder = workspace.run(gone).path
    size = sum(path.stat().st_size for path in folder.iterdir())
    planned = workspace.purge([gone, third], dry_run=True)
    assert folder.is_dir()
    assert planned.gone[0].size_bytes == size
    assert planned.content_bytes == 7000
    done = workspace.purge([gone, third])
    assert [run.run_id for run in done.gone] == [gone, third]
    assert done.freed_bytes == planned.freed_bytes
    assert done.content_bytes == 7000
    assert not folder.exists()
    assert not any((workspace.path / "trash").rglob("*.jsonl"))
    assert collect(workspace.path, grace_s=0.0).freed_bytes == 7000
    assert [info.id for info in workspace.runs(archived=None)] == [kept]


def test_a_run_that_is_not_deleted_or_still_written_stays(workspace: runstone.Workspace, record: Record) -> None:
    ended = record()
    (refused,) = workspace.purge([ended]).refused
    assert "not deleted" in refused.reason
    with runstone.start_run(workspace=workspace, environment=False) as run:
        workspace.delete(run.id)
        (refused,) = workspace.purge([run.id]).refused
        assert "writes to it" in refused.reason
        run.log({"x": 1.0})
    assert len(workspace.run(run.id).series("x")) == 1
    assert workspace.purge([run.id]).gone


def test_a_run_that_a_registered_version_came_from_stays_until_that_is_withdrawn(
    workspace: runstone.Workspace, record: Record
) -> None:
    run_id = record(artifact=b"weights")
    workspace.register_model("digits", run_id)
    workspace.delete(run_id)
    (refused,) = workspace.purge([run_id]).refused
    assert "digits@" in refused.reason
    assert workspace.run(run_id).is_deleted
    model = workspace.models.get("digits")
    model.withdraw(str(model.versions()[0].version), reason="a test")
    assert [run.run_id for run in workspace.purge([run_id]).gone] == [run_id]


def test_a_filter_of_purge_and_restore_looks_among_the_deleted_runs(
    workspace: runstone.Workspace, record: Record
) -> None:
    gone, here = record("gone"), record("here")
    workspace.delete(gone)
    assert [run.run_id for run in workspace.purge("project = 'digits'", dry_run=True).gone] == [gone]
    assert workspace.edit("project = 'digits'", deleted=False).changed_ids == (gone,)
    assert {info.id for info in workspace.runs()} == {gone, here}


def test_a_purge_that_was_killed_is_brought_to_its_end_by_gc(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    workspace.delete(run_id)
    folder = workspace.run(run_id).path
    trash = workspace.path / "trash" / folder.parent.name
    trash.mkdir(parents=True)
    folder.rename(trash / run_id)  # as far as a kill after the first step
    collect(workspace.path, grace_s=0.0, purge_deleted=True)
    assert not (trash / run_id).exists()


def test_the_command_asks_at_a_terminal_and_needs_yes_elsewhere(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = record()
    assert call(["runs", "delete", "amber"]) == 0
    folder = workspace.run(run_id).path
    assert _at_terminal(workspace.path, b"n\n", "runs", "purge", run_id) == 130
    assert folder.is_dir()
    assert _at_terminal(workspace.path, b"y\n", "runs", "purge", run_id) == 0
    assert not folder.exists()
    again = record("brass")
    assert call(["runs", "delete", again]) == 0
    assert call(["runs", "purge", again, "--dry-run"]) == 0
    assert "would free" in capsys.readouterr().out
    assert call(["runs", "purge", again, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gone"][0]["run_id"] == again


def test_without_a_terminal_nothing_is_removed_unasked(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    workspace.delete(run_id)
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(workspace.path), "runs", "purge", run_id]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert workspace.run(run_id).is_deleted


def _at_terminal(workspace: Path, answer: bytes, *arguments: str) -> int:
    main, replica = pty.openpty()
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(workspace), *arguments]
    process = subprocess.Popen(command, stdin=replica, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(replica)
    os.write(main, answer)
    process.communicate(timeout=60)
    os.close(main)
    return process.returncode
