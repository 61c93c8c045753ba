"""Full, read-only, renamed and deleted storage: training goes on, and what is lost is counted and told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status
from tests.recording.disk import fill

MIB = 1 << 20


def fill_page(journal: Path) -> None:
    """Bring a journal to the end of its last page, so that a full disk has no room for its next line."""
    with journal.open("ab") as file:
        file.write(b" " * (-journal.stat().st_size % 4096 - 1) + b"\n")


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_training_survives_a_full_disk_and_every_point_is_there_or_counted(
    run_program: Callable[..., Any], small_disk: Path, backend: str
) -> None:
    ended = run_program(
        """
        import json, os, time, warnings
        import runstone
        warnings.simplefilter("always")
        run = runstone.start_run(run_id="one", workspace="disk", on_error="warn", environment=False)
        def log(begin, end):
            for step in range(begin, end):
                run.log({"x": float(step), "y": step, "n": {"z": 0.5}}, step=step)
        log(0, 100)
        filler = open("disk/filler", "ab", buffering=0)
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
        log(100, 20_000)
        run.log({"new name": 1.0}, step=0)
        run.log_params({"a": 1})
        lost = run.dropped
        filler.truncate(0)
        time.sleep(1.1)  # it tries again each second
        log(20_000, 20_100)
        run.log_params({"b": 1})
        run.finish()
        print(json.dumps([lost, run.dropped]))
        """,
        RUNSTONE_LOG=backend,
        RUNSTONE_SPILL="off",
    )
    assert ended.code == 0, ended.errors
    lost, dropped = json.loads(ended.output)
    assert lost == dropped > 20_000
    kinds = [line for line in ended.errors.splitlines() if "TrackingWarning" in line]
    assert len(kinds) <= 3, kinds
    assert len([line for line in kinds if "could not record metrics: OSError" in line]) == 1
    info = runstone.RunInfo(small_disk / "runs" / "default" / "one")
    assert info.status is Status.FINISHED
    assert info.dropped == dropped
    assert info.params["b"] == 1
    found = {name: len(info.series(name)) for name in info.metrics}
    assert sum(found.values()) + dropped == 3 * 20_100 + 1
    steps = info.series("x").step
    assert np.array_equal(steps[:100], np.arange(100))
    assert np.array_equal(steps[-100:], np.arange(20_000, 20_100))
    assert np.array_equal(info.series("x").value, steps)


def test_full_disk_raises_where_the_user_wants_that(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_SPILL", "off")
    run = runstone.start_run(workspace=small_disk, on_error="raise", environment=False)
    run.log({"x": 0.0})
    filler = fill(small_disk)

    def train() -> None:
        for step in range(1, 10_000):  # more than was reserved
            run.log({"x": float(step)}, step=step)

    with pytest.raises(OSError, match="No space left"):
        train()
    fill(small_disk)  # the keeper may have held some while it tried to get more
    with pytest.raises(OSError, match="No space left"):
        run.log_params({"text": "x" * 10_000})
    (small_disk / "model").touch()
    filler.unlink()
    assert run.dropped == 1
    run.finish()
    assert "text" not in run.read().params


def test_run_that_ends_on_a_full_disk_is_not_taken_for_crashed(small_disk: Path) -> None:
    def train() -> None:
        with run:
            run.log({"x": 0.0})
            raise LookupError("the user's own")

    run = runstone.start_run(workspace=small_disk, environment=False)
    journal = next(run.path.glob("journal.*"))
    run.log({"x": 0.0})
    fill_page(journal)
    fill(small_disk)
    with (
        pytest.warns(runstone.TrackingWarning, match="could not record the end"),
        pytest.raises(LookupError, match="the user's own"),
    ):
        train()
    assert b'"end"' not in journal.read_bytes()
    assert run.read().status is Status.FAILED
    assert run.is_finished
    (small_disk / "filler").unlink()
    run = runstone.start_run(workspace=small_disk, environment=False)
    fill(small_disk)
    run.finish("pruned")  # fits into the page that the journal has
    assert run.read().status is Status.PRUNED


def test_failed_end_raises_where_the_user_wants_that_and_lets_go_of_the_run(small_disk: Path) -> None:
    run = runstone.start_run(workspace=small_disk, environment=False)
    journal = next(run.path.glob("journal.*"))
    fill_page(journal)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        run.finish()
    assert run.is_finished
    assert runstone.current_run() is None
    assert run.read().status is Status.FINISHED


def test_run_that_cannot_begin_on_a_full_disk_records_nothing_says_so_and_leaves_nothing(small_disk: Path) -> None:
    workspace = runstone.ensure_workspace(small_disk / "ws")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        runstone.start_run(workspace=workspace)
    with pytest.raises(OSError, match="No space left"):
        workspace.create_run(project="p")
    with pytest.raises(OSError, match="No space left"):
        runstone.start_run(workspace=small_disk / "another")
    with pytest.warns(runstone.TrackingWarning, match="cannot be recorded: OSError: .* No space left"):
        run = runstone.start_run(workspace=workspace, on_error="warn")
    run.log({"x": 1.0})
    run.finish()
    (small_disk / "filler").unlink()
    left = [path for path in small_disk.rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == [".gitignore", "FORMAT"]
    assert list(workspace.run_folders()) == []


def test_artifact_that_does_not_fit_leaves_nothing_behind(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(4 * MIB))
    (tmp_path / "small").write_bytes(b"x")
    with runstone.start_run(workspace=small_disk, environment=False) as run:
        with pytest.raises(OSError, match="No space left"):
            run.log_artifact(tmp_path / "big")
        assert [path for path in (small_disk / "blobs").rglob("*") if path.is_file()] == []
        run.log_artifact(tmp_path / "small")
    assert [artifact.name for artifact in run.read().artifacts] == ["small"]


def test_artifact_on_a_disk_that_takes_a_part_of_it_is_never_stored_in_part(small_disk: Path, tmp_path: Path) -> None:
    from blake3 import blake3

    with runstone.start_run(workspace=small_disk, environment=False) as run:
        filler = fill(small_disk)
        stored = 0
        for free_kib in range(0, 100, 4):
            os.truncate(filler, filler.stat().st_size - 4096)
            content = os.urandom(60 * 1024)  # one chunk: `write` takes as much of it as there is room
            (tmp_path / "file").write_bytes(content)
            try:
                run.log_artifact(tmp_path / "file", name=f"{free_kib}")
            except OSError:
                continue
            stored += 1
        for blob in (path for path in (small_disk / "blobs").rglob("*") if path.is_file()):
            assert blake3(blob.read_bytes()).hexdigest() == blob.name
    assert stored == len(run.read().artifacts) > 0


def test_read_only_workspace_records_nothing_and_says_so(small_disk: Path) -> None:
    workspace = runstone.ensure_workspace(small_disk / "ws")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        runstone.start_run(workspace=workspace)
    with pytest.warns(runstone.TrackingWarning, match="Read-only file system.*training goes on without a record"):
        run = runstone.start_run(workspace=workspace, on_error="warn", params={"a": 1}, tags={"b": "c"})
    run.log({"x": 1.0})
    run.metric("x")(1.0)
    run.log_params({"a": 2})
    assert run.log_artifact(small_disk) is None
    assert not run.should_stop
    with pytest.raises(runstone.WorkspaceNotFound, match="records nothing"):
        assert run.workspace
    run.finish()
    assert list(workspace.run_folders()) == []


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_workspace_renamed_while_a_run_lives_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path, backend: str
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    run = runstone.start_run(run_id="one", environment=False)
    (tmp_path / "file").write_text("x")
    for step in range(5000):
        run.log({"x": float(step)}, step=step)
        if step == 100:
            home.rename(tmp_path / "moved")
            with pytest.raises(FileNotFoundError):
                run.log_artifact(tmp_path / "file")
        if step % 1000 == 0:
            run.log({f"new/{step}": 1})
            run.log_params({f"p{step}": step})
    run.finish()
    assert not home.exists()  # and is not begun anew under its old name
    info = runstone.RunInfo(tmp_path / "moved" / "runs" / "default" / "one")
    assert info.status is Status.FINISHED
    assert np.array_equal(info.series("x").value, np.arange(5000.0))
    assert len(info.metrics) == 6
    assert len(info.params) == 5
    assert info.dropped == 0


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_run_folder_deleted_while_it_lives_is_counted_and_told_once(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, backend: str
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    run = runstone.start_run(on_error="warn", environment=False)
    for step in range(100):
        run.log({"x": float(step)}, step=step)
    while run.path.exists():  # the keeper may be making a segment in it
        shutil.rmtree(run.path, ignore_errors=True)
    run._log.care()  # what the keeper does each second
    for step in range(100, 10_000):
        run.log({"x": float(step), "y": 1}, step=step)
    run.log_params({"a": 1})
    run.finish()
    assert [str(warning.message).partition(": ")[2][:40] for warning in recwarn] == [
        "could not record metrics: FileNotFoundEr",
        "could not record params: FileNotFoundErr",
        "could not record end: FileNotFoundError:",
    ]
    assert run.dropped == 100 + 2 * 9_900
    assert not run.path.exists()


def test_disk_that_is_gone_is_survived(small_disk: Path) -> None:
    run = runstone.start_run(workspace=small_disk / "ws", on_error="warn", environment=False)
    run.log({"x": 1.0})
    subprocess.run(["umount", "--lazy", small_disk], check=True)
    begin = time.monotonic()
    for step in range(10_000):
        run.log({"x": float(step)}, step=step)
    run.finish()
    assert time.monotonic() - begin < 30
    assert not (small_disk / "ws").exists()
    # so that the fixture finds something to unmount
    subprocess.run(["mount", "-t", "tmpfs", "none", small_disk], check=True)
