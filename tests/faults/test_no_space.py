"""Disks that are full while something other than a point is written (F5): no object in part, no litter that stays."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from tests.faults.damage import points_of

PAGE = 4096
STEPS = 4000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, free_pages: int = 0) -> Path:
    """Leave so many pages free."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    os.truncate(filler, filler.stat().st_size - free_pages * PAGE)
    return filler


def record(disk: Path, run_id: str = "one") -> Path:
    generator = np.random.default_rng(1)  # numbers that cannot be made small
    with runstone.start_run(workspace=disk / "ws", run_id=run_id, environment=False) as run:
        run.log_series("x", range(STEPS), generator.normal(size=STEPS))
        run.log_series("y", range(STEPS), generator.normal(size=STEPS))
        run.log({"text": "a line"}, step=0)
    return run.path


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name or path.suffix in (".tmp", ".new")]


def test_sealing_on_a_disk_that_takes_any_part_of_it_changes_nothing_or_is_whole(disk: Path) -> None:
    folder = record(disk)
    before, names = points_of(folder), {path.name for path in folder.iterdir()}
    refused = 0
    for free_pages in range(200):
        filler = fill(disk, free_pages)
        try:
            seal(folder)
        except OSError:
            refused += 1
        else:
            break
        assert points_of(folder) == before
        assert {path.name for path in folder.iterdir()} - {"seal.lock"} == names
        filler.unlink()
    assert refused > 10  # it failed at many places of the file
    assert points_of(folder) == before
    assert not list(folder.glob("*.wal"))
    assert not partials(disk)


def test_sealing_that_was_killed_while_it_wrote_leaves_nothing_to_the_next(disk: Path) -> None:
    folder = record(disk)
    before = points_of(folder)
    for name in ("metrics.parquet", "levels.parquet"):
        (folder / f"{name}.{'0' * 32}.partial").write_bytes(b"PAR1 half")
    assert points_of(folder) == before  # nobody takes them for what they would have become
    seal(folder)
    assert points_of(folder) == before
    assert not partials(disk)


def test_index_answers_although_its_commit_finds_no_room_and_is_whole_afterwards(disk: Path) -> None:
    workspace = runstone.Workspace(record(disk).parents[2])
    expected = workspace.runs("metrics.x.count = 4000").to_dicts()
    (workspace.path / "index.sqlite").unlink()
    stopped = 0
    for free_pages in range(40):
        for file in workspace.path.glob("index.sqlite*"):
            file.unlink()
        filler = fill(disk, free_pages)
        assert workspace.runs("metrics.x.count = 4000").to_dicts() == expected
        index = workspace.path / "index.sqlite"
        stopped += not index.exists() or index.stat().st_size == 0 or not rows_of(index)
        filler.unlink()
        assert workspace.runs("metrics.x.count = 4000").to_dicts() == expected
        assert rows_of(index) == 1
        with contextlib.closing(sqlite3.connect(index)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert stopped > 3


def rows_of(index: Path) -> int:
    with contextlib.closing(sqlite3.connect(index)) as connection, contextlib.suppress(sqlite3.Error):
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
    return 0


def test_index_that_was_whole_before_the_disk_was_full_is_not_harmed_by_a_commit_that_fails(disk: Path) -> None:
    workspace = runstone.Workspace(record(disk).parents[2])
    workspace.runs()
    for number in range(6):
        with runstone.start_run(workspace=workspace, run_id=f"r{number}", environment=False) as run:
            run.log_params({f"p{other}": "x" * 500 for other in range(40)})
        filler = fill(disk, number % 3)
        assert len(workspace.runs()) == number + 2
        filler.unlink()
        assert len(workspace.runs()) == number + 2
    with contextlib.closing(sqlite3.connect(workspace.path / "index.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_names_that_find_no_room_are_whole_or_absent_and_their_points_are_counted(
    monkeypatch: pytest.MonkeyPatch, disk: Path, backend: str
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    monkeypatch.setenv("RUNSTONE_SPILL", "off")  # nor is there room anywhere else
    run = runstone.start_run(workspace=disk / "ws", environment=False, on_error="warn")
    run.log({"x": 0.0}, step=0)
    filler = fill(disk)

    def train() -> None:
        for number in range(200):
            run.log({"x": 0.5, f"{number:04d} {'n' * 200}": float(number)}, step=number + 1)

    with pytest.warns(runstone.TrackingWarning, match="could not record metrics"):
        train()
    lost = run.dropped
    assert lost > 0
    (keys,) = run.path.glob("*.keys")
    size = keys.stat().st_size
    filler.unlink()
    run._log.points._files.retry_at = 0.0  # type: ignore[union-attr]  # it would wait a second
    for number in range(200, 400):
        run.log({f"{number:04d} {'n' * 200}": float(number)}, step=number + 1)
    run.finish()
    assert keys.stat().st_size > size
    found = points_of(run.path)
    assert sum(map(len, found.values())) + run.dropped == 1 + 200 + 200 + 200
    assert run.dropped == lost
    for name, points in found.items():
        if name != "x":
            number = int(name[:4])
            assert points == [(number + 1, str(float(number)))]
    assert MetricLog(run.path).unnamed == 0


def test_litter_of_processes_that_were_killed_is_never_an_object(
    start: Callable[..., Any], home: Path, only_run: Callable[[], runstone.RunInfo]
) -> None:
    workspace = runstone.ensure_workspace(home)
    (home / "blobs").mkdir()
    litter = home / "blobs" / f"{'0' * 32}.partial"
    litter.write_bytes(b"half of a file")
    (home / f"FORMAT.{'0' * 32}.partial").write_text("")
    with runstone.start_run(environment=False) as run:
        (home.parent / "file").write_text("content")
        run.log_artifact(home.parent / "file")
    assert len(workspace.runs()) == 1
    (artifact,) = only_run().artifacts
    assert workspace.blobs.local_path(artifact.files[0].hash).read_text() == "content"
    with pytest.raises(runstone.NotFound):
        workspace.blobs.local_path("0" * 64)
