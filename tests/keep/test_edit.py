"""Changing runs, one or many, and taking it back."""

from __future__ import annotations

import json
import threading

import pytest

import runstone
from runstone.cli.main import run as call
from runstone.errors import InvalidFilter, InvalidName, InvalidValue, RunNotFound
from tests.keep.conftest import Record


def test_each_field_of_a_run_can_be_changed_after_its_end(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record(tags={"stage": "dev", "old": "1"})
    workspace.set_name(run_id, "brass")
    workspace.set_notes(run_id, "two\nlines")
    workspace.set_group(run_id, "first")
    workspace.set_tags(run_id, {"stage": "prod"}, remove=("old", "never there"))
    workspace.pin(run_id)
    workspace.archive(run_id)
    info = workspace.run(run_id)
    assert (info.name, info.notes, info.group, info.tags) == ("brass", "two\nlines", "first", {"stage": "prod"})
    assert info.is_pinned
    assert info.is_archived
    assert len(info.series("loss")) == 20
    workspace.set_notes(run_id, None)
    workspace.set_group(run_id, None)
    workspace.pin(run_id, False)
    workspace.archive(run_id, False)
    info = workspace.run(run_id)
    assert (info.notes, info.group, info.is_pinned, info.is_archived) == (None, None, False, False)


def test_a_living_run_is_edited_without_touching_its_files(workspace: runstone.Workspace) -> None:
    with runstone.start_run(workspace=workspace, environment=False) as run:
        before = {path.name: path.read_bytes() for path in run.path.glob("journal.*")}
        workspace.edit([run.id], name="seen", pinned=True)
        assert {name: (run.path / name).read_bytes() for name in before} == before
        assert run.read().name == "seen"
        run.log({"x": 1.0})
    assert workspace.run(run.id).is_pinned


def test_many_runs_are_chosen_by_a_filter_and_a_dry_run_writes_nothing(
    workspace: runstone.Workspace, record: Record
) -> None:
    wanted = {record(params={"lr": 0.1}), record(params={"lr": 0.2})}
    record(params={"lr": 0.9})
    files = sorted(workspace.path.rglob("journal.*"))
    planned = workspace.edit("params.lr < 0.5", set_tags={"small": "yes"}, dry_run=True)
    assert set(planned.changed_ids) == wanted
    assert planned.is_dry
    assert sorted(workspace.path.rglob("journal.*")) == files
    assert workspace.edit("params.lr < 0.5", set_tags={"small": "yes"}).changes == planned.changes
    assert {info.id for info in workspace.runs("tags.small = 'yes'")} == wanted


def test_what_is_as_it_should_be_is_not_written_again(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    workspace.pin(run_id)
    files = sorted(workspace.path.rglob("journal.*"))
    edited = workspace.edit([run_id], pinned=True, name="amber")
    assert edited.changes == ()
    assert edited.run_ids == (run_id,)
    assert sorted(workspace.path.rglob("journal.*")) == files


def test_undo_puts_every_old_value_back(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record(tags={"kept": "a", "gone": "b"}, notes="old", group="g")
    before = workspace.run(run_id)
    edited = workspace.edit(
        [run_id],
        name="other",
        notes=None,
        group="h",
        set_tags={"kept": "z", "new": "1"},
        remove_tags=("gone",),
        pinned=True,
        archived=True,
        deleted=True,
    )
    for undo in json.loads(json.dumps(edited.undo())):
        workspace.edit([undo.pop("run_id")], **undo)
    after = workspace.run(run_id)
    for name in ("name", "notes", "group", "tags", "is_pinned", "is_archived", "is_deleted"):
        assert getattr(after, name) == getattr(before, name), name


def test_archived_runs_are_hidden_unless_asked_for(workspace: runstone.Workspace, record: Record) -> None:
    away, here = record("away"), record("here")
    workspace.archive(away)
    assert [info.id for info in workspace.runs()] == [here]
    assert [info.id for info in workspace.runs(archived=True)] == [away]
    assert {info.id for info in workspace.runs(archived=None)} == {away, here}
    assert [info.id for info in workspace.runs("archived = true")] == [away]
    assert workspace.run("away").id == away
    # an edit means all that its filter describes, and says so before
    assert set(workspace.edit("project = 'digits'", pinned=True).run_ids) == {away, here}


def test_nothing_is_changed_where_one_value_or_one_run_is_wrong(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    files = sorted(workspace.path.rglob("journal.*"))
    with pytest.raises(RunNotFound):
        workspace.edit([run_id, "nosuchrun"], name="x")
    with pytest.raises(InvalidName):
        workspace.edit([run_id], name="")
    with pytest.raises(InvalidName):
        workspace.edit([run_id], set_tags={"": "x"})
    with pytest.raises(InvalidValue, match="both set and removed"):
        workspace.edit([run_id], set_tags={"a": "x"}, remove_tags=("a",))
    with pytest.raises(InvalidValue, match="'colour'"):
        workspace.edit([run_id], colour="red")
    with pytest.raises(InvalidValue, match="True or False"):
        workspace.edit([run_id], pinned="yes")
    with pytest.raises(InvalidFilter):
        workspace.edit("params.lr <", pinned=True)
    assert sorted(workspace.path.rglob("journal.*")) == files


def test_an_edit_comes_after_what_a_clock_ahead_wrote(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    journal = next(workspace.run(run_id).path.glob("journal.*"))
    with journal.open("a") as file:
        file.write('{"event":"name","at":4000000000.0,"value":"from the future"}\n')
    workspace.set_name(run_id, "now")
    assert workspace.run(run_id).name == "now"


def test_a_flag_that_is_no_flag_is_passed_over(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    workspace.pin(run_id)
    journal = sorted(workspace.run(run_id).path.glob("journal.*"), key=lambda path: path.stat().st_mtime)[-1]
    with journal.open("a") as file:
        file.write('{"event":"pinned","at":4000000000.0,"value":"no"}\n')
    assert workspace.run(run_id).is_pinned


def test_editors_at_once_lose_nothing(workspace: runstone.Workspace, record: Record) -> None:
    run_id = record()
    threads = [threading.Thread(target=workspace.set_tags, args=(run_id, {f"t{n}": str(n)})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert workspace.run(run_id).tags == {f"t{n}": str(n) for n in range(8)}


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_changes_by_name_or_by_filter(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = record("amber"), record("brass")
    assert call(["runs", "tag", "amber", "-t", "stage=prod", "-t", "flag"]) == 0
    assert workspace.run(first).tags == {"stage": "prod", "flag": ""}
    assert call(["runs", "untag", "amber", "-t", "flag"]) == 0
    assert call(["runs", "rename", "amber", "--to", "copper"]) == 0
    assert call(["runs", "note", "copper", "-m", "good"]) == 0
    assert call(["runs", "group", "copper", "--to", "best"]) == 0
    assert call(["runs", "pin", "-f", "project = 'digits'"]) == 0
    info = workspace.run(first)
    assert (info.name, info.notes, info.group, info.tags) == ("copper", "good", "best", {"stage": "prod"})
    assert workspace.run(second).is_pinned
    capsys.readouterr()
    assert call(["runs", "archive", "-f", "project = 'digits'", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.count("would change") == 2
    assert not workspace.run(first).is_archived
    assert call(["runs", "archive", "copper", "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    assert told_json["undo"] == [{"run_id": first, "archived": False}]
    assert call(["runs", "show", "copper"]) == 0
    assert "archived" in capsys.readouterr().out


def test_the_command_line_wants_runs_or_a_filter(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber")
    assert call(["runs", "pin"]) == 2
    assert call(["runs", "pin", "amber", "-f", ""]) == 2
    assert call(["runs", "note", "amber"]) == 2
    assert call(["runs", "note", "amber", "-m", "x", "--clear"]) == 2
    assert call(["runs", "rename", "amber", "--to", " "]) == 1
    capsys.readouterr()


def test_names_that_would_steer_the_terminal_are_shown_harmless(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = record("amber")
    assert call(["runs", "rename", run_id, "--to", "evil\x1b[2J"]) == 0
    assert call(["runs", "tag", run_id, "-t", "a\x1b=b\x1b"]) == 0
    assert "\x1b" not in capsys.readouterr().out
