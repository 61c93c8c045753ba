"""Runs of which a file cannot be read any more: they are shown, with what is lost and what is not (F7)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run as cli
from runstone.gc import check, collect
from runstone.runlog.reader import read_journal
from runstone.runlog.seal import seal
from runstone.workspace import Workspace

COUNT = 3000  # of points: two segments


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    return runstone.workspace.ensure_workspace(tmp_path / "w")


def record(home: Workspace, name: str = "hurt", **options: object) -> Path:
    with runstone.start_run(
        project="p", name=name, params={"lr": 0.1}, workspace=home, environment=False, **options
    ) as run:
        log = run.metric("loss")
        for step in range(COUNT):
            log(step / 2, step=step)
    return run.path


def journal(folder: Path) -> Path:
    return next(folder.glob("journal.*.jsonl"))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def overwritten(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size - 1) + b"\n")


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def first_line_lost(file: Path) -> None:
    first, rest = file.read_bytes().split(b"\n", 1)
    file.write_bytes(b"\xff" * len(first) + b"\n" + rest)


def removed(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [emptied, overwritten, zeroed, first_line_lost, removed])
def test_a_run_whose_journal_cannot_be_read_is_listed_with_its_points_and_told(
    home: Workspace, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    record(home, "whole")
    folder = record(home)
    file = journal(folder)
    damage(file)
    for _ in range(2):  # the second question finds it in the index
        found = home.runs()
        assert {one.id: one.warnings for one in found.records}[folder.name] == 1, found.records
        assert [trouble for trouble in found.troubles if file.name in trouble and folder.name in trouble]
    info = home.run(folder.name)
    assert info.series("loss").value.tolist() == [step / 2 for step in range(COUNT)]
    assert (info.project, info.status.value) == ("p", "finished")  # the folder, and the status file, tell that
    assert abs(info.started_at.timestamp() - home.run("whole").started_at.timestamp()) < 60
    (told,) = info.damage
    assert told.file == file.name
    assert "backup" in info.warnings[0]
    for command in (["runs", "list"], ["runs", "show", folder.name], ["doctor", folder.name], ["verify"]):
        assert cli([*command, "-w", str(home.path)]) == (1 if command == ["verify"] else 0)
        said = capsys.readouterr()
        assert file.name in (said.out + said.err).replace("\n", ""), (command, said)


def test_a_whole_run_has_no_damage_and_neither_has_one_in_the_making(home: Workspace) -> None:
    whole = record(home)
    info = home.run(whole.name)
    assert (info.damage, info.warnings, home.runs().troubles) == ((), (), ())
    with runstone.start_run(workspace=home, environment=False) as living:
        living.log({"loss": 1.0})
        assert home.run(living.id).damage == ()
        # what stands between making the status file and writing the first line is no run yet
        made = home.path / "runs" / "p" / "made"
        made.mkdir(parents=True)
        (made / "journal.00.jsonl").touch()
        assert read_journal(made).writers == []
        assert [one.id for one in home.runs().records if one.id == "made"] == []


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_torn_last_line_is_told_of_a_writer_that_is_gone_only(home: Workspace, is_ended: bool) -> None:
    run = runstone.start_run(workspace=home, environment=False)
    try:
        if is_ended:
            run.finish()
        with journal(run.path).open("ab") as file:
            file.write(b'{"event": "tags", "at": 1.')
        told = [str(damage) for damage in home.run(run.id).damage]
        assert bool(told) is is_ended, told
        assert all("cut off" in one for one in told)
    finally:
        run.finish()


def test_content_of_a_run_whose_journal_is_lost_is_not_collected(home: Workspace, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(os.urandom(1000))
    with runstone.start_run(workspace=home, environment=False) as run:
        artifact = run.log_artifact(tmp_path / "weights")
    assert artifact is not None
    content, kept = artifact.files[0].hash, journal(run.path).read_bytes()
    emptied(journal(run.path))
    with pytest.raises(runstone.FormatError, match="journal"):
        collect(home.path, grace_s=0.0)
    assert content in home.blobs
    journal(run.path).write_bytes(kept)
    assert home.run(run.id).artifacts[0].files[0].hash == content
    emptied(journal(run.path))
    home.delete(run.id)  # who gives the run up gives up what it held
    collect(home.path, grace_s=0.0, purge_deleted=True)
    assert content not in home.blobs


def half_gone(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def sectors_gone(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8192 : 8192 + 1024] = bytes(1024)
    file.write_bytes(data)


def slots_overwritten(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8192 : 8192 + 1024] = b"\xa5" * 1024
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [emptied, overwritten, zeroed, half_gone, sectors_gone, slots_overwritten])
def test_a_metric_log_that_cannot_be_read_is_told_and_costs_its_own_points_only(
    home: Workspace, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = record(home)
    before = home.run(folder.name).series("loss")
    file = sorted(folder.glob("*.wal"))[0]
    whole = file.read_bytes()
    damage(file)
    info = home.run(folder.name)
    found = info.series("loss")
    assert 0 < len(found) < COUNT
    assert set(found.step.tolist()) <= set(before.step.tolist())
    assert [one.file for one in info.damage] == [file.name], info.damage
    assert [trouble for trouble in home.runs().troubles if file.name in trouble]
    assert [problem.path for problem in check(home.path).problems] == [str(file)]
    assert cli(["runs", "show", folder.name, "-w", str(home.path)]) == 0
    assert file.name in capsys.readouterr().out.replace("\n", "")
    # sealing would remove the only copy of what may be mended
    assert seal(folder) is None
    file.write_bytes(whole)
    assert home.run(folder.name).damage == ()
    assert home.runs().troubles == ()
    assert seal(folder) is not None
    assert home.run(folder.name).series("loss").value.tolist() == before.value.tolist()


def test_a_log_of_which_nothing_is_left_is_told_and_one_that_was_never_begun_is_not(home: Workspace) -> None:
    folder = record(home)
    for file in folder.glob("*.wal"):
        emptied(file)
    assert len(home.run(folder.name).damage) == 2
    assert dict(home.run(folder.name).metrics) == {}
    unused = record(home, "unused")
    writer = next(unused.glob("*.keys")).stem
    (unused / f"{writer}-00000009.wal").write_bytes(bytes(70_000))  # killed between making it and its header
    assert home.run(unused.name).damage == ()


def test_a_sealed_file_that_cannot_be_read_leaves_the_run_in_the_list(
    home: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = record(home)
    seal(folder)
    emptied(folder / "metrics.parquet")
    found = home.runs()
    assert [one.params for one in found.records] == [{"lr": 0.1}]
    assert [trouble for trouble in found.troubles if "metrics.parquet" in trouble]
    assert cli(["runs", "show", folder.name, "-w", str(home.path)]) == 0
    assert "metrics.parquet" in capsys.readouterr().out
    assert cli(["verify", "--json", "-w", str(home.path)]) == 1
    (problem,) = [one for one in json.loads(capsys.readouterr().out)["problems"] if one["what"] == "run"]
    assert problem["path"] == str(folder / "metrics.parquet")


def test_a_run_that_lost_its_journal_can_be_gone_on_with_under_its_id(home: Workspace) -> None:
    folder = record(home)
    emptied(journal(folder))
    with runstone.start_run(run_id=folder.name, name="again", workspace=home, environment=False) as run:
        run.log({"loss": 7.0}, step=COUNT)
        assert run.attempt == 2
    info = home.run(folder.name)
    assert (info.name, len(info.series("loss"))) == ("again", COUNT + 1)
