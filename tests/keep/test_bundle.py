"""Runs as one file: the same for the same runs, checked when it comes in, joined to what is there."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import runstone
from runstone.blobs.intake import hash_of_bytes
from runstone.bundle import Bundle, import_bundle, write_bundle
from runstone.bundle import archive as archives
from runstone.cli.main import run as call
from runstone.errors import AlreadyExists, FormatError
from runstone.workspace import ensure_workspace
from tests.keep.conftest import Record, same_points


@pytest.fixture
def other(tmp_path: Path) -> runstone.Workspace:
    """Another workspace, to import into."""
    return ensure_workspace(tmp_path / "other" / ".runstone")


def bundle_of(workspace: runstone.Workspace, *run_ids: str, name: str = "runs.zip", content: bool = True) -> Path:
    target = workspace.path.parent / name
    folders = [workspace.run(run_id).path for run_id in run_ids]
    write_bundle(folders, target, workspace.blobs, with_content=content)
    return target


def outcomes(workspace: runstone.Workspace, file: Path, **options: bool) -> list[str]:
    return [run.outcome for run in import_bundle(workspace, file, **options).runs]


def assert_same(one: runstone.RunInfo, other: runstone.RunInfo) -> None:
    for name in ("id", "name", "project", "group", "notes", "params", "tags", "status", "attempts", "artifacts"):
        assert getattr(one, name) == getattr(other, name), name
    assert same_points(one, other)


# --- out and in -------------------------------------------------------------------------------------------------------


def test_a_run_comes_in_as_it_was_with_media_artifacts_and_attempts(
    workspace: runstone.Workspace, other: runstone.Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(os.urandom(9000))
    with runstone.start_run(
        project="Läufe ~ !", params={"a": {"b": [1, 2]}}, tags={"x": "y"}, workspace=workspace
    ) as run:
        for step in range(3000):
            run.log({"loss": 1.0 / (step + 1), "n": step, "ok": step % 2 == 0}, step=step)
        run.log({"word": "text \ud83d\ude00", "odd": float("nan")}, step=1)
        run.log_image("image", Image.new("RGB", (8, 8), "red"), step=2)
        run.log_artifact(folder.parent, name="folder")
        run.read()  # waits for the environment
    with runstone.start_run(run_id=run.id, resume=True, project="Läufe ~ !", workspace=workspace) as again:
        again.rewind(1000)
        for step in range(1000, 1500):
            again.log({"loss": 5.0}, step=step)
        again.read()  # likewise: it may be written after the end, and the bundle would lack it
    result = import_bundle(other, bundle_of(workspace, run.id))
    assert [one.outcome for one in result.runs] == ["new"]
    assert not result.missing
    here, there = workspace.run(run.id), other.run(run.id)
    assert_same(here, there)
    environments = [info.environment or {} for info in (here, there)]
    for environment in environments:
        environment.pop("later", None)  # a second look, which may come after the end
    assert environments[0] == environments[1] != {}
    (image,) = there.records("image")
    assert image.path is not None
    assert image.path.read_bytes() == here.records("image")[0].path.read_bytes()  # type: ignore[union-attr]
    assert other.blobs.read(there.artifacts[0].files[0].hash) == (folder / "a.bin").read_bytes()
    assert (there.path / f"environment.{_writer(there)}.json").stat().st_mode & 0o077 == 0
    # it can be gone on with
    with runstone.start_run(run_id=run.id, resume=True, project="Läufe ~ !", workspace=other) as third:
        assert third.attempt == 3


def _writer(info: runstone.RunInfo) -> str:
    return next(info.path.glob("environment.*.json")).name.split(".")[1]


def test_the_same_runs_make_the_same_bytes(workspace: runstone.Workspace, record: Record) -> None:
    first, second = record("amber", artifact=b"x" * 5000), record("brass")
    one = bundle_of(workspace, first, second, name="one.zip").read_bytes()
    time.sleep(0.01)
    assert bundle_of(workspace, second, first, name="two.zip").read_bytes() == one
    with zipfile.ZipFile(io.BytesIO(one)) as file:
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in file.infolist())


def test_importing_again_changes_nothing(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    file = bundle_of(workspace, record(artifact=b"w"), record("brass"))
    assert outcomes(other, file) == ["new", "new"]
    before = {path: path.stat().st_mtime_ns for path in other.path.rglob("*") if path.is_file() and path.name != "lock"}
    assert outcomes(other, file) == ["unchanged", "unchanged"]
    after = {path: path.stat().st_mtime_ns for path in other.path.rglob("*") if path.is_file() and path.name != "lock"}
    assert before == after
    assert sorted(path.name for path in (other.path / "imports").iterdir()) == ["lock"]


def test_content_can_be_left_out(workspace: runstone.Workspace, other: runstone.Workspace, record: Record) -> None:
    run_id = record(artifact=os.urandom(3000))
    result = import_bundle(other, bundle_of(workspace, run_id, content=False))
    assert result.contents == 0
    assert other.run(run_id).artifacts[0].files[0].hash not in other.blobs


def test_a_dry_run_changes_nothing(workspace: runstone.Workspace, other: runstone.Workspace, record: Record) -> None:
    file = bundle_of(workspace, record(artifact=b"w"))
    result = import_bundle(other, file, dry_run=True)
    assert [run.outcome for run in result.runs] == ["new"]
    assert result.contents_new == 1
    assert list(other.run_folders()) == []
    assert not (other.path / "blobs").exists()


# --- what is there already --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed_here", [False, True])
@pytest.mark.parametrize("sealed_there", [False, True])
def test_a_run_that_went_on_takes_what_the_bundle_has_more(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record, sealed_here: bool, sealed_there: bool
) -> None:
    run_id = record(points=500)
    early = bundle_of(workspace, run_id, name="early.zip")
    assert outcomes(other, early) == ["new"]
    if sealed_there:
        other.seal(run_id)
    with runstone.start_run(
        run_id=run_id, resume=True, project="digits", workspace=workspace, environment=False
    ) as run:
        for step in range(500, 900):
            run.log({"loss": 0.1, "new": 1}, step=step)
    if sealed_here:
        workspace.seal(run_id)
    workspace.set_tags(run_id, {"here": "1"})
    late = bundle_of(workspace, run_id, name="late.zip")
    other.set_tags(run_id, {"there": "2"})
    assert outcomes(other, late) == ["grown"]
    found = other.run(run_id)
    assert found.points().drop_columns("time").equals(workspace.run(run_id).points().drop_columns("time"))
    assert found.tags == {"here": "1", "there": "2"}
    assert len(found.attempts) == 2
    assert outcomes(other, late) == ["unchanged"]
    assert outcomes(other, early) == ["unchanged"]
    other.seal(run_id)
    assert outcomes(other, late) == ["unchanged"]
    assert len(other.run(run_id).series("loss")) == 900


def test_a_bundle_of_a_living_run_is_a_prefix_and_grows_later(
    workspace: runstone.Workspace, other: runstone.Workspace
) -> None:
    with runstone.start_run(workspace=workspace, project="p", environment=False) as run:
        for step in range(100):
            run.log({"loss": float(step), "word": str(step)}, step=step)
        early = bundle_of(workspace, run.id, name="early.zip")
        for step in range(100, 5000):
            run.log({"loss": float(step), "word": str(step)}, step=step)
    assert outcomes(other, early) == ["new"]
    series = other.run(run.id).series("loss")
    assert series.step.tolist() == list(range(100))
    assert [record.text for record in other.run(run.id).records("word")] == [str(step) for step in range(100)]
    assert outcomes(other, bundle_of(workspace, run.id, name="late.zip")) == ["grown"]
    assert_same(workspace.run(run.id), other.run(run.id))


def test_a_run_that_says_something_else_is_refused_and_the_others_come_in(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    same = record("same", run_id="one")
    free = record("free", run_id="two")
    with runstone.start_run(run_id="one", project="digits", workspace=other, environment=False) as run:
        run.log({"loss": 7.0}, step=0)
    before = other.run("one").points()
    file = bundle_of(workspace, same, free)
    result = import_bundle(other, file)
    # other processes' journals could stand beside each other, but two runs may not become one
    assert {run.run_id: run.outcome for run in result.runs} == {"one": "different", "two": "new"}
    assert "another run has this id" in "".join(run.reason for run in result.runs)
    assert other.run("one").points().equals(before)
    assert outcomes(other, file, as_new=True) == ["new", "new"]
    assert len(list(other.run_folders())) == 4


def test_points_that_differ_are_refused(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    run_id = record(points=50)
    file = bundle_of(workspace, run_id)
    assert outcomes(other, file) == ["new"]
    (log,) = other.run(run_id).path.glob("*.wal")
    data = bytearray(log.read_bytes())
    data[4096 + 16] ^= 0xFF
    log.write_bytes(data)
    (run,) = import_bundle(other, file).runs
    assert run.outcome == "different"
    assert "points of 'loss'" in run.reason


def test_as_new_gives_a_run_of_its_own_that_says_where_it_came_from(
    workspace: runstone.Workspace, record: Record
) -> None:
    run_id = record(points=10, params={"lr": 1})
    (run,) = import_bundle(workspace, bundle_of(workspace, run_id), as_new=True).runs
    assert run.run_id != run_id
    assert run.original_id == run_id
    new = workspace.run(run.run_id)
    assert new.params == {"lr": 1}
    assert new.series("loss").value.tolist() == workspace.run(run_id).series("loss").value.tolist()
    assert any('"imported"' in path.read_text() and run_id in path.read_text() for path in new.path.glob("journal.*"))


def test_a_run_is_not_taken_over_while_it_is_written_here(
    workspace: runstone.Workspace, other: runstone.Workspace
) -> None:
    with runstone.start_run(run_id="one", project="p", workspace=workspace, environment=False) as run:
        run.log({"x": 1.0}, step=0)
        early = bundle_of(workspace, "one", name="early.zip")
        run.log({"x": 2.0}, step=1)
        assert outcomes(workspace, early) == ["unchanged"]
        assert outcomes(other, early) == ["new"]


def test_two_imports_at_once_are_refused(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    import fcntl

    file = bundle_of(workspace, record())
    (other.path / "imports").mkdir()
    with (other.path / "imports" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AlreadyExists, match="another import"):
            import_bundle(other, file)


def test_a_second_look_at_the_environment_is_taken_and_never_a_conflict(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    run_id = record()
    folder = workspace.run(run_id).path
    file = folder / f"environment.{next(folder.glob('*.status')).stem}.json"
    file.write_text('{"schema": 1}')
    early = bundle_of(workspace, run_id, name="early.zip")
    file.write_text('{"schema": 1, "later": {}}')
    late = bundle_of(workspace, run_id, name="late.zip")
    assert [outcomes(other, one) for one in (early, late, late, early)] == [
        ["new"],
        ["grown"],
        ["unchanged"],
        ["unchanged"],
    ]
    assert other.run(run_id).environment == {"schema": 1, "later": {}}


# --- hostile and damaged files ----------------------------------------------------------------------------------------


def _rewritten(file: Path, change: Callable[[dict[str, bytes]], None], **how: object) -> Path:
    """Return a bundle whose members were changed, in a zip file that is whole."""
    with zipfile.ZipFile(file) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    target = file.with_name("hostile.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return target


def _manifest(members: dict[str, bytes]) -> dict[str, object]:
    return json.loads(members["manifest.json"])  # type: ignore[no-any-return]


def _replace_manifest(members: dict[str, bytes], change: Callable[[dict[str, object]], None]) -> None:
    told = _manifest(members)
    change(told)
    members["manifest.json"] = json.dumps(told).encode()


def _extra(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: b"owned"})


def _told(path: list[object], value: object) -> Callable[[dict[str, bytes]], None]:
    def change(told: dict[str, object]) -> None:
        place: object = told
        for key in path[:-1]:
            place = place[key]  # type: ignore[index]
        place[path[-1]] = value  # type: ignore[index]

    return lambda members: _replace_manifest(members, change)


HOSTILE: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a member that leads up": _extra("../../owned"),
    "an absolute member": _extra("/tmp/owned"),
    "a member that is not named": _extra("runs/digits/x/owned"),
    "a run id that leads up": _told(["runs", 0, "id"], "../../up"),
    "an absolute run id": _told(["runs", 0, "id"], "/etc"),
    "a file name that leads up": _told(["runs", 0, "files", 0, "name"], "../../../owned"),
    "a file name with a folder": _told(["runs", 0, "files", 0, "name"], "a/b"),
    "a hidden file": _told(["runs", 0, "files", 0, "name"], ".bashrc"),
    "a hash that is none": _told(["runs", 0, "files", 0, "hash"], "../../x"),
    "a hash of other bytes": _told(["runs", 0, "files", 0, "hash"], "0" * 64),
    "another size": _told(["runs", 0, "files", 0, "size"], 1),
    "a size below zero": _told(["runs", 0, "files", 0, "size"], -1),
    "a content that leads up": _told(["contents"], [{"hash": "../../../../owned", "size": 5}]),
    "a content that is not there": _told(["contents"], [{"hash": "0" * 64, "size": 5}]),
    "the wrong project": _told(["runs", 0, "project"], "other"),
    "a newer format": _told(["format"], 2),
    "another kind": _told(["kind"], "tree"),
    "runs that are none": _told(["runs"], [1, 2]),
    "deep nesting": lambda members: members.update({"manifest.json": b"[" * 100_000}),
    "no manifest": lambda members: members.pop("manifest.json") and None,
    "no json": lambda members: members.update({"manifest.json": b"\xff"}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_bundle_is_refused_and_leaves_nothing(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record, what: str
) -> None:
    file = _rewritten(bundle_of(workspace, record(artifact=b"w")), HOSTILE[what])
    _assert_refused(other, file)


def _assert_refused(workspace: runstone.Workspace, file: Path, why: str = ".") -> None:
    before = sorted(path for path in workspace.path.parent.rglob("*"))
    with pytest.raises(FormatError, match=why):
        import_bundle(workspace, file)
    left = set(workspace.path.parent.rglob("*")) - set(before)
    assert {path.name for path in left} <= {"imports", "lock"}
    assert not list(workspace.run_folders())


def test_links_devices_bombs_and_twice_the_same_are_refused(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    good = bundle_of(workspace, record())
    with zipfile.ZipFile(good) as source:
        members = {name: source.read(name) for name in source.namelist()}
    (name, *_rest) = [name for name in members if name.endswith(".jsonl")]
    for kind in (0o120777, 0o020666, 0o060666, 0o010666, 0o040755):
        with zipfile.ZipFile(good.with_name("hostile.zip"), "w") as out:
            for one, data in members.items():
                info = zipfile.ZipInfo(one)
                info.create_system, info.external_attr = 3, (kind if one == name else 0o100644) << 16
                out.writestr(info, data)
        _assert_refused(other, good.with_name("hostile.zip"))
    bomb = bytes(50 << 20)
    entry = {"name": "console.bomb.log", "hash": hash_of_bytes(bomb), "size": len(bomb)}
    told = json.loads(members["manifest.json"])
    told["runs"][0]["files"].append(entry)
    bombed = {**members, "manifest.json": json.dumps(told).encode(), f"{name.rpartition('/')[0]}/{entry['name']}": bomb}
    with zipfile.ZipFile(good.with_name("hostile.zip"), "w", zipfile.ZIP_DEFLATED) as out:
        for one, data in bombed.items():
            out.writestr(one, data)
    _assert_refused(other, good.with_name("hostile.zip"), "more than 100 times")
    with zipfile.ZipFile(good.with_name("hostile.zip"), "w") as out:
        for one, data in members.items():
            out.writestr(one, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr(name, b"other")
    _assert_refused(other, good.with_name("hostile.zip"))


def test_a_million_members_are_refused_before_they_are_read(
    other: runstone.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 1000)  # the same with fewer; a million takes its time to make
    file = tmp_path / "many.zip"
    with zipfile.ZipFile(file, "w") as out:
        for number in range(1001):
            out.writestr(f"m{number}", b"")
    with pytest.raises(FormatError, match="1,001 members"):
        import_bundle(other, file)


def test_journals_of_another_run_and_artifacts_that_lead_out_are_refused(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    run_id = record(run_id="one")
    journal = next(workspace.run(run_id).path.glob("journal.*"))
    honest = journal.read_bytes()
    rest = b'"hash":"%b","size":1' % (b"0" * 64)
    for change in (
        (b'"run_id":"one"', b'"run_id":"two"'),
        (b'"project":"digits"', b'"project":"other"'),
        (
            b"\n",
            b'\n{"event":"artifact","at":1.0,"name":"a","files":[{"path":"../../x",%b}]}\n' % rest,
        ),
        (
            b"\n",
            b'\n{"event":"artifact","at":1.0,"name":"a","files":[{"path":"/etc/passwd",%b}]}\n' % rest,
        ),
    ):
        journal.write_bytes(honest.replace(change[0], change[1], 1))
        target = workspace.path.parent / "x.zip"
        write_bundle([journal.parent], target, workspace.blobs)
        with zipfile.ZipFile(target) as source:
            members = {name: source.read(name) for name in source.namelist()}
        if b"other" in change[1]:  # whose journals would be those of the run in its folder
            members["manifest.json"] = members["manifest.json"].replace(b'"project":"other"', b'"project":"digits"')
            members = {name.replace("runs/other", "runs/digits"): data for name, data in members.items()}
        with zipfile.ZipFile(target, "w") as out:
            for name, data in members.items():
                out.writestr(name, data)
        _assert_refused(other, target)


def test_any_damaged_byte_is_found_before_anything_is_taken(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    file = bundle_of(workspace, record(points=50, artifact=os.urandom(2000)))
    data = file.read_bytes()
    refused = 0
    for place in range(0, len(data), max(1, len(data) // 60)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            outcome = import_bundle(other, file, dry_run=True)
        except FormatError:
            refused += 1
        else:  # a byte that says nothing, such as the time of a member
            assert [run.outcome for run in outcome.runs] == ["new"]
    assert refused > 40
    for end in (0, 10, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:end])
        _assert_refused(other, file)


def test_an_import_that_is_killed_is_gone_on_with(
    workspace: runstone.Workspace, other: runstone.Workspace, record: Record
) -> None:
    run_ids = [record(f"run {n}", artifact=os.urandom(400_000)) for n in range(6)]
    file = bundle_of(workspace, *run_ids)
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(other.path), "import", "bundle", str(file)]
    program = (
        "import sys, pathlib; from runstone.bundle import import_bundle; import runstone;"
        "import_bundle(runstone.Workspace(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(other.path), str(file)]
    for delay in (0.05, 0.3, 0.35, 0.4, 0.45):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for folder in other.run_folders():  # whole or not there
            assert len(runstone.RunInfo(folder).series("loss")) == 20
            content = runstone.RunInfo(folder).artifacts[0].files[0].hash
            other.blobs.verify(content)
    assert set(outcomes(other, file)) <= {"new", "unchanged"}
    for run_id in run_ids:
        assert_same(workspace.run(run_id), other.run(run_id))
    assert sorted(path.name for path in (other.path / "imports").iterdir()) == ["lock"]


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_line_takes_runs_out_and_in(
    workspace: runstone.Workspace,
    other: runstone.Workspace,
    record: Record,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record("amber", artifact=b"w" * 100)
    record("brass")
    file = tmp_path / "both.runstone.zip"
    assert call(["export", "-f", "project = 'digits'", "--bundle", "-o", str(file)]) == 0
    assert "2 runs with 1 content" in capsys.readouterr().out
    assert call(["export", "amber", "--bundle", "-o", str(file)]) == 1
    assert "--force" in capsys.readouterr().err
    with Bundle(file) as bundle:
        assert {run.name for run in bundle.manifest.runs} == {"amber", "brass"}
        bundle.verify()
    assert call(["-w", str(other.path), "import", "bundle", str(file), "--dry-run"]) == 0
    assert call(["-w", str(other.path), "import", "bundle", str(file)]) == 0
    assert "2 new" in capsys.readouterr().out
    assert call(["-w", str(other.path), "import", "bundle", str(file), "--json"]) == 0
    assert {run["outcome"] for run in json.loads(capsys.readouterr().out)["runs"]} == {"unchanged"}
    file.write_bytes(b"PK nothing")
    assert call(["-w", str(other.path), "import", "bundle", str(file)]) == 1
    assert "no bundle" in capsys.readouterr().err
