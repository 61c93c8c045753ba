"""What writers announce is found by readers, whatever happens to the files between."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

import runstone
from runstone.runlog.changes import FOLDER, announce, forget_old, news
from runstone.runlog.seal import seal
from runstone.runlog.writer import RunLog


@pytest.fixture
def workspace(home: Path) -> Path:
    return runstone.ensure_workspace(home).path


def run_folder(workspace: Path, name: str = "r") -> Path:
    folder = workspace / "runs" / "p" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def told(workspace: Path, offsets: dict[str, int]) -> set[str]:
    """Return what is new, and go on from there."""
    found, read, goes_on = news(workspace, offsets)
    assert goes_on
    offsets.clear()
    offsets.update(read)
    return found


def test_a_writer_announces_its_run_when_it_comes_and_an_edit_when_it_stands(workspace: Path) -> None:
    offsets: dict[str, int] = {}
    log = RunLog(run_folder(workspace), created={"run_id": "r", "project": "p", "name": "r"})
    assert told(workspace, offsets) == {"p/r"}
    log.write("params", params={"a": 1})
    log.close("finished")
    assert told(workspace, offsets) == set()
    edit = RunLog(run_folder(workspace), role="edit")
    edit.write("tags", set={"a": "b"}, remove=[])
    assert told(workspace, offsets) == set()
    edit.close()
    assert told(workspace, offsets) == {"p/r"}


def test_sealing_is_announced(workspace: Path) -> None:
    with runstone.start_run(project="p", run_id="r", workspace=workspace, environment=False) as run:
        run.log({"x": 1.0})
    offsets: dict[str, int] = {}
    told(workspace, offsets)
    seal(run.path)
    assert told(workspace, offsets) == {"p/r"}


def test_a_folder_outside_of_a_workspace_announces_nothing(tmp_path: Path) -> None:
    announce(tmp_path)
    folder = tmp_path / "runs" / "p" / "r"
    folder.mkdir(parents=True)
    announce(folder)
    assert not (tmp_path / FOLDER).exists()
    announce(Path("r"))


def test_where_nothing_can_be_written_the_run_goes_on(workspace: Path) -> None:
    (workspace / FOLDER).write_text("no folder")
    with runstone.start_run(project="p", workspace=workspace, environment=False) as run:
        run.log({"x": 1.0})
    assert news(workspace, {}) == (set(), {}, True)
    assert runstone.open_workspace(workspace).runs().total == 1


def test_a_torn_line_takes_no_other_with_it(workspace: Path) -> None:
    announce(run_folder(workspace, "a"))
    (file,) = (workspace / FOLDER).iterdir()
    with file.open("ab") as feed:
        feed.write(b"\np/to")  # its writer died
    offsets: dict[str, int] = {}
    assert told(workspace, offsets) == {"p/a"}
    announce(run_folder(workspace, "b"))
    assert told(workspace, offsets) - {"p/to"} == {"p/b"}


def test_a_file_that_was_replaced_or_removed_is_told(workspace: Path) -> None:
    announce(run_folder(workspace, "a"))
    offsets: dict[str, int] = {}
    told(workspace, offsets)
    (file,) = (workspace / FOLDER).iterdir()
    file.write_bytes(b"\n")
    assert not news(workspace, offsets)[2]
    file.unlink()
    assert not news(workspace, offsets)[2]
    (workspace / FOLDER).rmdir()
    assert not news(workspace, offsets)[2]


def test_names_that_are_no_run_folders_are_passed_over(workspace: Path) -> None:
    announce(run_folder(workspace, "a"))
    (file,) = (workspace / FOLDER).iterdir()
    file.write_bytes(b"\n../../etc/passwd\n/\np/\n\xff/\xfe\np/ok\n" + b"x" * 5_000 + b"/y\n")
    assert news(workspace, {})[0] - {"\udcff/\udcfe"} == {"p/ok"}


def _announce_many(workspace: Path, number: int, count: int) -> None:
    for turn in range(count):
        announce(workspace / "runs" / "p" / f"{number}-{turn}")


def test_processes_that_announce_at_once_lose_nothing(workspace: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_announce_many, args=(workspace, n, 200)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert len(list((workspace / FOLDER).iterdir())) == 1
    assert news(workspace, {})[0] == {f"p/{n}-{turn}" for n in range(4) for turn in range(200)}


def test_old_files_are_removed_and_no_others(workspace: Path) -> None:
    announce(run_folder(workspace))
    (new,) = (workspace / FOLDER).iterdir()
    old, foreign = (workspace / FOLDER / name for name in ("2020-01-01.0123456789abcdef", "notes.txt"))
    for file in (old, foreign):
        file.write_text("x")
        os.utime(file, (time.time() - 10 * 86_400,) * 2)
    forget_old(workspace)
    assert set((workspace / FOLDER).iterdir()) == {new, foreign}
