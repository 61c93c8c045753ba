"""A whole workspace elsewhere and back, while runs write, and with a kill in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import runstone
from runstone import views
from runstone.backup import (
    check_backup,
    find_snapshot,
    list_snapshots,
    make_backup,
    open_place,
    packing,
    restore_backup,
)
from runstone.cli.main import run as call
from runstone.errors import AlreadyExists, FormatError, InvalidValue, NotFound
from tests.keep.conftest import Record, same_points


@pytest.fixture(params=["folder", "url"])
def dest(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "backup")
    pytest.importorskip("fsspec")
    return f"file://{tmp_path / 'backup'}"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as steady at once, for tests that cannot wait."""
    monkeypatch.setattr(packing, "_STEADY_S", -1.0)


def assert_same(one: runstone.Workspace, other: runstone.Workspace) -> None:
    runs = {folder.name: folder for folder in one.run_folders()}
    assert {folder.name for folder in other.run_folders()} == set(runs)
    for folder in other.run_folders():
        here, there = runstone.RunInfo(runs[folder.name]), runstone.RunInfo(folder)
        for name in ("id", "name", "params", "tags", "status", "attempts", "artifacts", "is_deleted"):
            assert getattr(here, name) == getattr(there, name), name
        assert same_points(here, there)
    assert {name for name, _status in one.blobs.objects()} == {name for name, _status in other.blobs.objects()}
    for name, _status in other.blobs.objects():
        if not name.endswith(".parts"):
            other.blobs.verify(name)


def filled(workspace: runstone.Workspace, record: Record) -> list[str]:
    run_ids = [record("amber", artifact=os.urandom(20_000)), record("brass", project="Ünïcode / x")]
    workspace.delete(record("gone"))
    workspace.register_model("digits", run_ids[0])
    views.save(workspace.path, views.View("best"))
    workspace.seal(run_ids[1])
    return run_ids


# --- out and back -----------------------------------------------------------------------------------------------------


def test_a_workspace_comes_back_whole(workspace: runstone.Workspace, record: Record, dest: str, tmp_path: Path) -> None:
    filled(workspace, record)
    (workspace.path / "sweeps" / "s1").mkdir(parents=True)
    (workspace.path / "sweeps" / "s1" / "journal.jsonl").write_text("{}\n")
    (workspace.path / "settings.json").write_text("{}")
    workspace.runs()  # makes the index, which is not taken
    made = make_backup(workspace.path, open_place(dest))
    assert made.troubles == []
    assert check_backup(open_place(dest)).problems == []
    restore_backup(open_place(dest), tmp_path / "new")
    back = runstone.Workspace(tmp_path / "new")
    assert_same(workspace, back)
    assert back.models.find("digits").version
    assert [view.name for view in views.list_views(back.path)] == ["best"]
    assert (back.path / "sweeps" / "s1" / "journal.jsonl").read_text() == "{}\n"
    assert (back.path / "settings.json").read_text() == "{}"
    assert not any(path.name.endswith(".partial") or path.name == "restore.json" for path in back.path.rglob("*"))
    assert [info.name for info in back.runs("status = 'finished'", order_by="name")] == ["amber", "brass"]


@pytest.mark.usefixtures("settled")
def test_the_second_backup_sends_only_what_changed(
    workspace: runstone.Workspace, record: Record, dest: str, tmp_path: Path
) -> None:
    run_ids = filled(workspace, record)
    first = make_backup(workspace.path, open_place(dest))
    again = make_backup(workspace.path, open_place(dest))
    assert (again.sent, again.sent_bytes) == (0, 0)
    assert again.unchanged == len(first.snapshot.units)
    workspace.set_tags(run_ids[0], {"new": "tag"})
    record("copper", artifact=b"new content")
    third = make_backup(workspace.path, open_place(dest))
    assert third.sent == 3  # a run that was edited, one that is new, and its content
    restore_backup(open_place(dest), tmp_path / "new")
    assert_same(workspace, runstone.Workspace(tmp_path / "new"))
    restore_backup(open_place(dest), tmp_path / "old", snapshot=first.snapshot.name)
    assert len(list(runstone.Workspace(tmp_path / "old").run_folders())) == 3
    assert runstone.Workspace(tmp_path / "old").run(run_ids[0]).tags == {}


def test_what_was_written_lately_is_looked_at_again(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    place = open_place(tmp_path / "backup")
    run_id = record()
    make_backup(workspace.path, place)
    (log,) = workspace.run(run_id).path.glob("*.wal")
    times = log.stat()
    data = bytearray(log.read_bytes())
    data[4096 + 16] ^= 1
    log.write_bytes(data)  # what a mapped write does: same size, same time
    os.utime(log, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert make_backup(workspace.path, place).sent == 1


def test_only_the_newest_snapshots_stay_where_asked(
    workspace: runstone.Workspace, record: Record, dest: str, tmp_path: Path
) -> None:
    place = open_place(dest)
    gone = record("gone", artifact=os.urandom(3000))
    make_backup(workspace.path, place)
    shutil.rmtree(workspace.run(gone).path)
    shutil.rmtree(workspace.path / "blobs")
    record("kept", artifact=os.urandom(3000))
    make_backup(workspace.path, place)
    made = make_backup(workspace.path, place, keep=1)
    assert made.removed >= 2
    assert list_snapshots(place) == [made.snapshot.name]
    assert check_backup(place).problems == []
    restore_backup(place, tmp_path / "new")
    assert_same(workspace, runstone.Workspace(tmp_path / "new"))
    with pytest.raises(InvalidValue):
        make_backup(workspace.path, place, keep=0)


# --- while runs write -------------------------------------------------------------------------------------------------


def test_a_run_that_is_written_meanwhile_restores_to_what_it_was_at_a_moment(
    workspace: runstone.Workspace, tmp_path: Path
) -> None:
    place = open_place(tmp_path / "backup")
    is_over = threading.Event()
    with runstone.start_run(workspace=workspace, environment=False) as run:
        (tmp_path / "a.bin").write_bytes(b"artifact")

        def write() -> None:
            step = 0
            while not is_over.is_set():
                # names, texts and contents that come all the time must be there for the points that need them
                run.log({"loss": float(step), f"m{step // 500}": 1.0, "word": f"w{step}"}, step=step)
                if step % 200 == 0:
                    (tmp_path / "a.bin").write_bytes(str(step).encode())
                    run.log_artifact(tmp_path / "a.bin", name=f"a{step}")
                step += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            names = [make_backup(workspace.path, place).snapshot.name for _ in range(6)]
        finally:
            is_over.set()
            thread.join()
    lengths = []
    for number, name in enumerate(names):
        restore_backup(place, tmp_path / f"new{number}", snapshot=name)
        back = runstone.Workspace(tmp_path / f"new{number}")
        info = back.run(run.id)
        if "loss" not in info.metrics:
            lengths.append(0)
            continue
        steps = info.series("loss").step
        assert steps.tolist() == list(range(len(steps)))
        assert info._log.unnamed == 0
        words = [record.text for record in info.records("word")]
        assert words == [f"w{step}" for step in range(len(words))]
        for artifact in info.artifacts:
            assert back.blobs.read(artifact.files[0].hash).decode() == artifact.name[1:]
        lengths.append(len(steps))
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]
    make_backup(workspace.path, place)
    restore_backup(place, tmp_path / "last")
    assert_same(workspace, runstone.Workspace(tmp_path / "last"))


def test_a_run_that_is_sealed_meanwhile_loses_nothing(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.runlog import copying

    run_id = record(points=300)
    honest = copying._copy_segment
    calls = []

    def seal_between(source: Path, place: Path) -> None:
        honest(source, place)
        if not calls:
            calls.append(workspace.seal(run_id))

    monkeypatch.setattr(copying, "_copy_segment", seal_between)
    make_backup(workspace.path, open_place(tmp_path / "backup"))
    assert calls
    restore_backup(open_place(tmp_path / "backup"), tmp_path / "new")
    assert len(runstone.Workspace(tmp_path / "new").run(run_id).series("loss")) == 300


# --- faults -----------------------------------------------------------------------------------------------------------

_BACKUP = """
import sys, runstone
from runstone.backup import make_backup, open_place
make_backup(runstone.Workspace(sys.argv[1]).path, open_place(sys.argv[2]))
"""
_RESTORE = """
import sys, pathlib
from runstone.backup import open_place, restore_backup
restore_backup(open_place(sys.argv[2]), pathlib.Path(sys.argv[1]))
"""
# Dies by itself at the n-th time that it brings a file into its place: a kill at every step, without luck.
_DYING = """
import os, sys, signal
from runstone.blobs.partial import Partial
left = int(sys.argv[3])
honest = Partial.place
def place(self, target, mode):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    honest(self, target, mode)
Partial.place = place
"""


def _killed(program: str, workspace: Path, dest: Path, after: int) -> bool:
    """Run a program that is killed at its n-th file; return whether it was."""
    command = [sys.executable, "-c", _DYING + program, str(workspace), str(dest), str(after)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_a_backup_that_is_killed_leaves_those_before_and_goes_on(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    dest = tmp_path / "backup"
    filled(workspace, record)
    first = make_backup(workspace.path, open_place(dest)).snapshot.name
    for number in range(3):
        record(f"more {number}", artifact=os.urandom(5000))
    after = 1
    while _killed(_BACKUP, workspace.path, dest, after):
        assert list_snapshots(open_place(dest)) == [first]
        assert check_backup(open_place(dest)).problems == []
        after += 2
    assert after > 3
    assert len(list_snapshots(open_place(dest))) == 2
    assert not list(dest.glob("*.partial"))
    restore_backup(open_place(dest), tmp_path / "new")
    assert_same(workspace, runstone.Workspace(tmp_path / "new"))


def test_a_restore_that_is_killed_is_no_workspace_and_goes_on(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    dest, target = tmp_path / "backup", tmp_path / "new"
    filled(workspace, record)
    make_backup(workspace.path, open_place(dest))
    after = 2
    while _killed(_RESTORE, target, dest, after):
        assert not (target / "FORMAT").exists()
        with pytest.raises(NotFound):
            runstone.open_workspace(target)
        after += 1
        if after == 4:  # where a newer one came meanwhile, the old one is gone on with
            record("newer")
            make_backup(workspace.path, open_place(dest))
    back = runstone.Workspace(target)
    assert "newer" not in {info.name for info in back.runs()}
    assert len(list(back.run_folders())) == 3
    for name, _status in back.blobs.objects():
        back.blobs.verify(name)
    assert not (target / "restore.json").exists()
    assert not (target / "restore.partial").exists()


def test_killed_at_any_time_is_as_good(workspace: runstone.Workspace, record: Record, tmp_path: Path) -> None:
    dest = tmp_path / "backup"
    for number in range(4):
        record(f"run {number}", artifact=os.urandom(300_000))
    for delay in (0.25, 0.35, 0.45):
        process = subprocess.Popen([sys.executable, "-c", _BACKUP, str(workspace.path), str(dest)])
        time.sleep(delay)
        process.kill()
        process.wait()
        for name in list_snapshots(open_place(dest)):
            assert check_backup(open_place(dest), snapshot=name).problems == []
    make_backup(workspace.path, open_place(dest))
    restore_backup(open_place(dest), tmp_path / "new")
    assert_same(workspace, runstone.Workspace(tmp_path / "new"))


def test_damaged_content_is_not_backed_up_as_if_it_were_good(
    workspace: runstone.Workspace, record: Record, dest: str
) -> None:
    run_id = record(artifact=b"x" * 5000)
    content = workspace.run(run_id).artifacts[0].files[0].hash
    place = workspace.blobs.object_path(content)
    place.chmod(0o644)
    place.write_bytes(b"y" * 5000)
    made = make_backup(workspace.path, open_place(dest))
    assert len(made.troubles) == 1
    assert content[:16] in made.troubles[0]
    assert content not in made.snapshot.blobs
    assert check_backup(open_place(dest)).problems == []


@pytest.mark.parametrize("what", ["flip", "cut", "gone"])
def test_a_damaged_backup_is_found_and_never_restored(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, what: str
) -> None:
    dest = tmp_path / "backup"
    record(artifact=os.urandom(5000))
    make_backup(workspace.path, open_place(dest))
    damages: dict[str, Callable[[Path], object]] = {
        "flip": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "gone": lambda path: path.unlink(),
    }
    files = [path for path in (dest / "packs").rglob("*") if path.is_file()]
    files += [path for path in (dest / "blobs").rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        honest = path.read_bytes()
        damages[what](path)
        assert len(check_backup(open_place(dest)).problems) == 1
        with pytest.raises((FormatError, NotFound)):
            restore_backup(open_place(dest), tmp_path / f"new{number}")
        assert not (tmp_path / f"new{number}" / "FORMAT").exists()
        path.write_bytes(honest)
        restore_backup(open_place(dest), tmp_path / f"new{number}")
        assert_same(workspace, runstone.Workspace(tmp_path / f"new{number}"))
    (snapshot,) = (dest / "snapshots").iterdir()
    snapshot.write_bytes(snapshot.read_bytes()[:-2] + b" \n")
    with pytest.raises(FormatError, match="damaged"):
        find_snapshot(open_place(dest))


def test_a_snapshot_that_would_write_outside_is_refused(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    from runstone.backup.snapshot import Unit, write_snapshot

    record()
    place = open_place(tmp_path / "backup")
    honest = make_backup(workspace.path, place).snapshot
    for folder in ("../out", "/tmp/out", "runs/../../out"):
        units = [Unit(folder, honest.units[0].pack, honest.units[0].size_bytes)]
        write_snapshot(place, time.time(), "x", units, {})
        with pytest.raises(FormatError):
            restore_backup(place, tmp_path / "new" / "deep")
        assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_not_written_over(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    record()
    make_backup(workspace.path, open_place(tmp_path / "backup"))
    with pytest.raises(AlreadyExists):
        restore_backup(open_place(tmp_path / "backup"), workspace.path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(AlreadyExists):
        restore_backup(open_place(tmp_path / "backup"), tmp_path / "mine")
    with pytest.raises(NotFound):
        restore_backup(open_place(tmp_path / "nothing"), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["file"]


def test_environments_stay_their_owners(workspace: runstone.Workspace, tmp_path: Path) -> None:
    with runstone.start_run(workspace=workspace) as run:
        run.read()
    make_backup(workspace.path, open_place(tmp_path / "backup"))
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "backup" / "packs").rglob("*") if path.is_file()
    )
    restore_backup(open_place(tmp_path / "backup"), tmp_path / "new")
    (environment,) = (tmp_path / "new").rglob("environment.*.json")
    assert environment.stat().st_mode & 0o077 == 0


def test_s38_folders_are_for_their_owner_only_whatever_the_umask_is(
    workspace: runstone.Workspace, record: Record, dest: str, tmp_path: Path
) -> None:
    record("amber", artifact=b"w")
    before = os.umask(0)
    try:
        make_backup(workspace.path, open_place(dest))
        restore_backup(open_place(dest), tmp_path / "deep" / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "new").stat().st_mode & 0o777 == 0o700
    if "://" not in dest:
        for path in (tmp_path / "backup").rglob("*"):
            assert not path.is_dir() or path.stat().st_mode & 0o777 == 0o700, path
    made = tmp_path / "made"  # what somebody made for it stays as they made it
    made.mkdir(mode=0o750)
    restore_backup(open_place(dest), made)
    assert made.stat().st_mode & 0o777 == 0o750


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_backs_up_checks_lists_and_restores(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber", artifact=b"w")
    dest = str(tmp_path / "backup")
    assert call(["backup", dest]) == 0
    assert "1 run" in capsys.readouterr().out
    assert call(["backup", dest, "--json", "--keep", "5"]) == 0
    name = json.loads(capsys.readouterr().out)["snapshot"]
    assert call(["backup", dest, "--list"]) == 0
    assert name in capsys.readouterr().out
    assert call(["backup", dest, "--check"]) == 0
    assert "all as it was written" in capsys.readouterr().out
    assert call(["-w", str(tmp_path / "new"), "restore", dest, "--at", name[:15]]) == 0
    assert runstone.Workspace(tmp_path / "new").run("amber").name == "amber"
    assert call(["-w", str(tmp_path / "new"), "restore", dest]) == 1
    (blob,) = (path for path in (tmp_path / "backup" / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o600)
    blob.write_bytes(b"v")
    assert call(["backup", dest, "--check"]) == 1
    assert call(["restore", dest, "--check"]) == 1
    capsys.readouterr()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_log_whose_pages_are_seen_at_different_moments_is_copied_without_a_gap(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.runlog import copying

    run_id = record(points=5)
    (log,) = workspace.run(run_id).path.glob("*.wal")
    honest = log.read_bytes()
    at = 4096 + 2 * 32  # not there yet when its page was taken; those of the page behind it are
    looks = [honest[:at] + bytes(64) + honest[at + 64 :], honest, honest]
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: looks.pop(0) if path == log else whole(path))
    copying.copy_run(log.parent, tmp_path / run_id)
    monkeypatch.undo()
    assert looks == []
    assert runstone.RunInfo(tmp_path / run_id).series("loss").step.tolist() == list(range(5))


def test_a_point_that_is_written_while_its_log_is_copied_is_whole_or_left_out(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.runlog import copying

    run_id = record(points=5)
    (log,) = workspace.run(run_id).path.glob("*.wal")
    honest = log.read_bytes()
    at = 4096 + 4 * 32  # those behind it are whole: several threads log at once
    # At the first looks the slot is not whole; at the last its commit word is there and the rest is not, as a copy
    # from low to high addresses sees what is stored meanwhile.
    not_whole = honest[: at + 28] + bytes(4) + honest[at + 32 :]
    looks = [not_whole, not_whole, honest[:at] + bytes(24) + honest[at + 24 :]]
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: looks.pop(0) if path == log else whole(path))
    copying.copy_run(log.parent, tmp_path / run_id)
    monkeypatch.undo()
    assert looks == []
    counts = [len(runstone.RunInfo(tmp_path / run_id).series(name)) for name in ("loss", "seen")]
    assert sum(counts) == 9


def test_a_database_that_is_written_meanwhile_is_copied_whole(workspace: runstone.Workspace, tmp_path: Path) -> None:
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(workspace.path / "accounts.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE users (name TEXT)")
        database.execute("INSERT INTO users VALUES ('ada')")
        database.commit()  # it lies in the log beside the database, which is not copied
        database.execute("INSERT INTO users VALUES ('not committed')")
        make_backup(workspace.path, open_place(tmp_path / "backup"))
        database.rollback()
    restore_backup(open_place(tmp_path / "backup"), tmp_path / "new")
    assert not list((tmp_path / "new").glob("*.sqlite-*"))
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "accounts.sqlite")) as database:
        assert database.execute("SELECT name FROM users").fetchall() == [("ada",)]


def test_what_is_derived_or_of_the_moment_is_left_out(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    record()
    workspace.runs()
    for name in ("cache", "trash", "imports", "tensorboard", "changes"):
        (workspace.path / name).mkdir(exist_ok=True)
        (workspace.path / name / "file").write_text("x")
    (workspace.path / "link").symlink_to("/etc")
    half_sent = workspace.path / "mlflow" / "uploads" / "0123"
    half_sent.mkdir(parents=True)
    (half_sent / "upload.json").write_text('{"key": "secret"}')
    made = make_backup(workspace.path, open_place(tmp_path / "backup"))
    assert {unit.folder.partition("/")[0] for unit in made.snapshot.units} == {".", "mlflow", "runs"}
    restore_backup(open_place(tmp_path / "backup"), tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"FORMAT", ".gitignore", "mlflow", "runs", "blobs"}
    assert list((tmp_path / "new" / "mlflow").iterdir()) == []
