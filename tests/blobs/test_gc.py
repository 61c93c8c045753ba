"""Collecting garbage: nothing that is reachable ever goes, what is said is what is done, a kill does no harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import runstone
from runstone.blobs import Blobs, open_blobs
from runstone.gc import check, collect, purge
from runstone.ledger import Ledger
from runstone.workspace import ensure_workspace
from tests.blobs.test_checkpoints import safetensors_file

DAY_S = 86_400.0


def age(blobs: Blobs, seconds: float = 3 * DAY_S) -> None:
    """Make all content look unused for long."""
    then = time.time() - seconds
    for name, _status in blobs.objects():
        os.utime(blobs.object_path(name), (then, then))


def all_bytes(home: Path) -> int:
    """Return what all files take, but for the index and the words that tell it of changes."""
    files = [path for path in home.rglob("*") if path.is_file() and "index" not in path.name]
    return sum(path.stat().st_size for path in files if path.parent.name != "changes")


def artifact_run(tmp_path: Path, content: bytes, name: str = "file", **options: object) -> tuple[str, str]:
    """Log a file and return the ids of run and content."""
    (tmp_path / name).write_bytes(content)
    with runstone.start_run(environment=False, **options) as run:  # type: ignore[arg-type]
        artifact = run.log_artifact(tmp_path / name)
    assert artifact is not None
    return run.id, artifact.files[0].hash


def test_unused_content_goes_and_used_content_stays(home: Path, tmp_path: Path) -> None:
    _run, kept = artifact_run(tmp_path, b"kept" * 100)
    blobs = open_blobs(home)
    loose = blobs.put_bytes(b"loose" * 100, "x").hash
    assert collect(home).freed_count == 0  # it was stored just now
    age(blobs)
    told = collect(home, dry_run=True)
    before = all_bytes(home)
    assert (told.freed_count, told.freed_bytes, told.held_bytes, told.store_bytes) == (1, 500, 400, 900)
    assert loose in blobs
    done = collect(home)
    assert (done.freed_count, done.freed_bytes) == (1, 500)
    assert before - all_bytes(home) == told.all_freed_bytes == done.all_freed_bytes == 500
    assert loose not in blobs
    assert kept in blobs
    assert collect(home).all_freed_bytes == 0


@pytest.mark.parametrize("is_sealed", [False, True])
def test_media_and_texts_of_runs_stay(home: Path, is_sealed: bool) -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("PIL")
    with runstone.start_run(environment=False) as run:
        run.log({"x": 1.0}, step=0)
        for step in range(3):
            run.log_image("picture", np.full((8, 8), step * 50, np.uint8), step=step)
    workspace = runstone.Workspace(home)
    if is_sealed:
        assert workspace.seal(run.id) is not None
        assert not list(run.path.glob("*.blob"))
    age(workspace.blobs)
    assert collect(home, grace_s=0).freed_count == 0
    assert [record.path is not None for record in workspace.run(run.id).records("picture")] == [True] * 3
    assert check(home).problems == []


def test_live_run_keeps_what_it_has(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with runstone.start_run(environment=False) as run:
        run.log_artifact(tmp_path / "file")
        age(run.workspace.blobs)
        assert collect(home).freed_count == 0
        with pytest.raises(runstone.InvalidValue, match="while a run is written"):
            collect(home, grace_s=0)


def test_removed_and_replaced_artifacts_go(home: Path, tmp_path: Path) -> None:
    with runstone.start_run(environment=False) as run:
        for text in ("one", "two"):
            (tmp_path / "file").write_text(text)
            run.log_artifact(tmp_path / "file", name="best")
        run.log_artifact(tmp_path / "file", name="other")
        (tmp_path / "file").write_text("three")
        run.log_artifact(tmp_path / "file", name="gone")
        run.remove_artifact("gone")
    age(run.workspace.blobs)
    assert collect(home).freed_bytes == len("one") + len("three")


def test_deleted_run_can_be_restored_until_it_is_purged(home: Path, tmp_path: Path) -> None:
    run_id, content = artifact_run(tmp_path, b"content" * 50)
    other, _shared = artifact_run(tmp_path, b"content" * 50)
    workspace = runstone.Workspace(home)
    workspace.delete(run_id)
    age(workspace.blobs)
    assert collect(home).all_freed_bytes == 0
    assert collect(home, purge_deleted=True, older_than_s=DAY_S).purged == []
    workspace.restore(run_id)
    assert collect(home, purge_deleted=True).purged == []
    workspace.delete(run_id)
    told = collect(home, dry_run=True, purge_deleted=True)
    before = all_bytes(home)
    done = collect(home, purge_deleted=True)
    assert [run for run, _size in done.purged] == [run_id]
    assert before - all_bytes(home) == told.all_freed_bytes == done.all_freed_bytes > 0
    assert content in workspace.blobs  # the other run has it too
    workspace.delete(other)
    assert collect(home, purge_deleted=True).freed_bytes == 350
    assert content not in workspace.blobs
    assert list(workspace.run_folders()) == []
    assert len(workspace.runs(deleted=True)) == 0


def test_run_that_is_restored_while_it_is_purged_comes_back(home: Path, tmp_path: Path) -> None:
    run_id, content = artifact_run(tmp_path, b"x")
    workspace = runstone.Workspace(home)
    workspace.delete(run_id)
    folder = workspace.find_run_folder(run_id)
    assert folder is not None
    workspace.restore(run_id)  # after it was chosen
    assert purge.purge(home, folder, before=time.time() + 5) is None
    assert workspace.run(run_id).artifacts[0].files[0].hash == content


def test_purge_that_was_broken_off_is_brought_to_its_end_or_undone(home: Path, tmp_path: Path) -> None:
    undecided, content = artifact_run(tmp_path, b"undecided")
    decided, _gone = artifact_run(tmp_path, b"decided")
    workspace = runstone.Workspace(home)
    for run_id, ending in ((undecided, ""), (decided, ".purged")):
        folder = workspace.find_run_folder(run_id)
        assert folder is not None
        place = home / "trash" / folder.parent.name / (run_id + ending)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
    age(workspace.blobs)
    told = collect(home, dry_run=True)
    done = collect(home)
    assert told.all_freed_bytes == done.all_freed_bytes
    assert done.freed_bytes == len("decided")
    assert workspace.run(undecided).artifacts[0].files[0].hash == content
    assert content in workspace.blobs
    with pytest.raises(runstone.RunNotFound):
        workspace.run(decided)


@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_registered_versions_keep_their_content_when_their_run_is_gone(home: Path, tmp_path: Path, kind: str) -> None:
    run_id, content = artifact_run(tmp_path, b"weights" * 10)
    workspace = runstone.Workspace(home)
    files = [{"path": "model", "hash": content, "size": 70}]
    manifest = workspace.blobs.put_bytes(json.dumps({"format": 1, "files": files}).encode(), "manifest").hash
    ledger = Ledger(home / kind / "credit" / "events")
    ledger.append("created", {"name": "Credit Risk"})
    ledger.append("registered", {"version": "1.0.0", "manifest": manifest})
    workspace.delete(run_id)
    age(workspace.blobs)
    done = collect(home, purge_deleted=True)
    assert done.freed_count == 0
    assert content in workspace.blobs
    assert manifest in workspace.blobs
    (held,) = done.held
    assert (held.holder.kind, held.holder.name, held.own_bytes) == (kind[:-1], "Credit Risk", done.store_bytes)
    event = home / kind / "credit" / "events" / "00000002.json"
    event.chmod(0o644)
    event.write_bytes(event.read_bytes().replace(b"1.0.0", b"1.0.1"))
    workspace.blobs.put_bytes(b"loose", "x")
    age(workspace.blobs)
    with pytest.raises(runstone.FormatError, match="nothing was removed"):
        collect(home)
    assert [problem.what for problem in check(home).problems].count("history") == 1


def test_nothing_goes_while_something_cannot_be_read(home: Path, tmp_path: Path) -> None:
    with runstone.start_run(environment=False) as run:
        run.log({"x": 1.0}, step=0)
    workspace = runstone.Workspace(home)
    workspace.seal(run.id)
    sealed = run.path / "metrics.parquet"
    sealed.write_bytes(sealed.read_bytes()[:-20])
    loose = workspace.blobs.put_bytes(b"loose", "x").hash
    age(workspace.blobs)
    with pytest.raises(runstone.FormatError, match=r"metrics\.parquet"):
        collect(home)
    assert loose in workspace.blobs
    assert collect(home, dry_run=True).freed_count == 1


def test_own_and_shared_bytes_are_told_apart(home: Path, tmp_path: Path) -> None:
    big, small = os.urandom(2 << 20), os.urandom(300_000)
    ids = []
    for number in range(2):
        safetensors_file(tmp_path / "c", {"backbone": big, "head": small[number:]})
        with runstone.start_run(environment=False, name=f"run-{number}") as run:
            run.log_artifact(tmp_path / "c")
        ids.append(run.id)
    told = {held.holder.id: held for held in collect(home, dry_run=True).held}
    for run_id in ids:
        assert told[run_id].size_bytes > len(big) + len(small) - 10
        assert 299_000 < told[run_id].own_bytes < 320_000
    workspace = runstone.Workspace(home)
    workspace.delete(ids[0])
    age(workspace.blobs)
    assert collect(home, purge_deleted=True).freed_bytes == told[ids[0]].own_bytes
    workspace.blobs.verify(workspace.run(ids[1]).artifacts[0].files[0].hash)


# --- at the same time -------------------------------------------------------------------------------------------------


def test_content_that_is_used_between_plan_and_removal_stays(home: Path, tmp_path: Path) -> None:
    artifact_run(tmp_path, b"first")
    blobs = open_blobs(home)
    safetensors_file(tmp_path / "c", {"x": os.urandom(2 << 20), "y": os.urandom(100_000)})
    again = [blobs.put_bytes(b"content", "x").hash, blobs.put(tmp_path / "c", "x").hash]
    loose = blobs.put_bytes(b"loose", "x").hash
    age(blobs)

    def use() -> None:
        blobs.put_bytes(b"content", "y")
        assert blobs.keep(again[1])

    done = collect(home, before_removal=use)
    assert done.freed_count == 1
    assert loose not in blobs
    for content in again:
        blobs.verify(content)


def test_reuse_races_removal_and_nothing_that_was_put_is_ever_lost(home: Path, tmp_path: Path) -> None:
    artifact_run(tmp_path, b"first")
    blobs = open_blobs(home)
    contents = [os.urandom(64) for _ in range(40)]
    safetensors_file(tmp_path / "c", {"x": os.urandom(1 << 20), "y": os.urandom(100_000)})
    is_over = threading.Event()
    lost: list[str] = []

    def put_all() -> None:
        while not is_over.is_set():
            put = [blobs.put_bytes(content, "x").hash for content in contents] + [blobs.put(tmp_path / "c", "x").hash]
            # from now on each is safe for the time of grace, although nothing refers to it
            lost.extend(content for content in put if content not in blobs)
            age_unless_put.wait()
            age_unless_put.wait()

    age_unless_put = threading.Barrier(2)
    writer = threading.Thread(target=put_all)
    collected = 0
    writer.start()
    for _ in range(30):
        age_unless_put.wait()
        age(blobs)  # they were put long ago; now they are put again while they are collected
        age_unless_put.wait()
        collected += collect(home).freed_count
    is_over.set()
    age_unless_put.wait()
    age_unless_put.wait()
    writer.join()
    assert lost == []
    assert collected  # some were removed, and stored anew


COLLECT = """
import sys
from pathlib import Path
from runstone.gc import collect
print("ready", flush=True)
collect(Path(sys.argv[1]), purge_deleted=True)
"""


def test_killed_collection_leaves_a_valid_store(home: Path, tmp_path: Path) -> None:
    kept_run, kept = artifact_run(tmp_path, os.urandom(100))
    workspace = runstone.Workspace(home)
    blobs = workspace.blobs
    for round_number in range(8):
        deleted, _content = artifact_run(tmp_path, os.urandom(100))
        workspace.delete(deleted)
        for number in range(150):
            blobs.put_bytes(os.urandom(10 + number), "x")
        safetensors_file(tmp_path / "c", {"x": os.urandom(1 << 20), "y": os.urandom(100_000)})
        blobs.put(tmp_path / "c", "x")
        age(blobs)
        process = subprocess.Popen([sys.executable, "-c", COLLECT, str(home)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.002 * 2**round_number)
        process.kill()
        process.communicate()
        for name, _status in blobs.objects():
            blobs.verify(name.removesuffix(".parts"))  # every recipe that is left has all of its parts
        assert check(home).problems == []
    collect(home, purge_deleted=True)
    assert [info.name for info in workspace.run_folders()] == [kept_run]
    assert [name for name, _status in blobs.objects()] == [kept]
    assert not list((home / "trash").glob("*/*"))


def test_unfinished_files_of_dead_writers_go_and_those_of_living_ones_stay(home: Path, tmp_path: Path) -> None:
    artifact_run(tmp_path, b"x")
    blobs = open_blobs(home)
    (blobs.root / f"{'0' * 32}.partial").write_bytes(bytes(1000))
    then = time.time() - 2 * DAY_S
    os.utime(blobs.root / f"{'0' * 32}.partial", (then, then))
    program = (
        "import sys, time; from pathlib import Path; from runstone.blobs.partial import Partial; "
        "p = Partial(Path(sys.argv[1])); p.write(bytes(500)); print(p.path, flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(blobs.root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    living = Path(writer.stdout.readline().strip())
    os.utime(living, (then, then))
    assert collect(home, dry_run=True).partial_bytes == 1000
    assert collect(home).partial_bytes == 1000
    assert living.exists()
    writer.kill()
    writer.communicate()
    assert collect(home).partial_bytes == 500
    assert not list(blobs.root.glob("*.partial"))


def test_cache_of_content_in_parts_goes_when_it_is_not_used(home: Path, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "c", {"x": os.urandom(2 << 20)})
    with runstone.start_run(environment=False) as run:
        artifact = run.log_artifact(tmp_path / "c")
    assert artifact is not None
    path = run.workspace.blobs.local_path(artifact.files[0].hash)
    assert collect(home).cache_count == 0
    os.utime(path, (0, 0))
    assert collect(home).cache_bytes == (tmp_path / "c").stat().st_size
    assert not path.exists()
    assert run.workspace.blobs.local_path(artifact.files[0].hash) == path


def test_run_whose_points_wait_on_another_host_keeps_what_came_since(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.runlog import format as fmt

    artifact_run(tmp_path, b"x")
    blobs = open_blobs(home)
    loose = blobs.put_bytes(b"told of elsewhere", "x").hash
    old = blobs.put_bytes(b"before the run", "x").hash
    os.utime(blobs.object_path(old), (1e9, 1e9))
    status = next((home / "runs").rglob("*.status"))
    with status.open("r+b") as file:
        file.seek(fmt.STATUS_SPILLED_OFFSET)
        file.write(fmt.STATUS_SPILLED.pack(1))
    monkeypatch.setattr("runstone.gc.collection._clock", lambda _folder: time.time() + 9 * DAY_S)
    assert collect(home).freed_count == 1
    assert loose in blobs
    assert old not in blobs


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_names_what_is_damaged_or_missing_and_who_has_it(home: Path, tmp_path: Path) -> None:
    _run, content = artifact_run(tmp_path, b"content", name="a", run_id="one")
    artifact_run(tmp_path, b"content", name="b", run_id="two")
    _third, missing = artifact_run(tmp_path, b"missing", name="c", run_id="three")
    blobs = open_blobs(home)
    assert check(home).problems == []
    place = blobs.local_path(content)
    place.chmod(0o644)
    place.write_bytes(b"c0ntent")
    blobs.local_path(missing).unlink()
    problems = {problem.what: problem for problem in check(home).problems}
    assert set(problems) == {"damaged", "missing"}
    assert problems["damaged"].path == str(place)
    assert {holder.rpartition(" ")[2] for holder in problems["damaged"].holders} == {"(one)", "(two)"}
    assert problems["missing"].path == missing


def test_verify_finds_any_changed_byte_of_a_store(home: Path, tmp_path: Path) -> None:
    safetensors_file(tmp_path / "c", {"x": os.urandom(1 << 20), "y": os.urandom(100_000)})
    with runstone.start_run(environment=False, run_id="one") as run:
        run.log_artifact(tmp_path / "c")
    blobs = open_blobs(home)
    shutil.copytree(blobs.root, tmp_path / "good")
    for name, status in list(blobs.objects()):
        path = blobs.object_path(name)
        path.chmod(0o644)
        whole = path.read_bytes()
        for place in {0, status.st_size // 2, status.st_size - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = check(home).problems
            assert any(name in problem.path or name in problem.reason for problem in found), (name, place)
            assert any("(one)" in holder for problem in found for holder in problem.holders)
        path.write_bytes(whole)
    assert check(home).problems == []


def test_copies_of_datasets_go_when_nobody_uses_them(home: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes(b"abc")
    workspace = ensure_workspace(home)
    version = workspace.datasets.add(tmp_path / "data", name="d")
    assert (workspace.datasets.find("d").path / "a.txt").read_bytes() == b"abc"
    assert collect(home).cache_count == 0  # it was used just now
    folder = home / "cache" / "datasets" / version.hash
    with runstone.start_run(workspace=home, environment=False) as run:
        run.use_dataset("d@1")
        make_old(folder)
        assert collect(home).cache_count == 0  # a run that goes on uses it
    make_old(folder)
    assert collect(home, dry_run=True).cache_count == 2
    assert folder.exists()
    assert collect(home).cache_count == 2
    assert list((home / "cache" / "datasets").iterdir()) == []
    assert (workspace.datasets.find("d").path / "a.txt").read_bytes() == b"abc"  # and comes again


def make_old(folder: Path) -> None:
    then = time.time() - 2 * DAY_S
    for path in (folder, folder / "used", folder / "data"):
        os.utime(path, (then, then))


def test_what_was_fetched_and_broken_off_goes(home: Path) -> None:
    ensure_workspace(home)
    incoming = home / "cache" / "incoming" / "0123"
    incoming.mkdir(parents=True)
    (incoming / "half.bin").write_bytes(b"x" * 100)
    then = time.time() - 2 * DAY_S
    os.utime(incoming, (then, then))
    assert collect(home).partial_count == 0  # a file in it still grows
    os.utime(incoming / "half.bin", (then, then))
    found = collect(home)
    assert (found.partial_count, found.partial_bytes) == (1, 100)
    assert not incoming.exists()


def test_a_copy_that_somebody_wrote_into_is_put_right(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    workspace = ensure_workspace(home)
    workspace.datasets.add(tmp_path / "a.txt", name="d")
    copy = workspace.datasets.find("d").path
    copy.unlink()
    copy.write_bytes(b"xyz")
    assert workspace.datasets.find("d").path.read_bytes() == b"abc"
