"""Artifacts: files and folders by content, each content once, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone.blobs import Blobs


@pytest.fixture
def run() -> runstone.Run:
    return runstone.start_run(environment=False)


def stored(home: Path) -> list[Path]:
    return sorted(path for path in (home / "blobs").rglob("*") if path.is_file())


def test_file_comes_back_by_content(run: runstone.Run, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights" * 1000)
    artifact = run.log_artifact(tmp_path / "model.bin", metadata={"epoch": 3, "path": tmp_path})
    (found,) = run.read().artifacts
    assert artifact is not None
    assert found == dataclasses.replace(artifact, logged_at=found.logged_at)
    assert (found.name, found.is_folder, found.size_bytes) == ("model.bin", False, 7000)
    assert found.metadata == {"epoch": 3, "path": str(tmp_path)}
    (entry,) = found.files
    blob = run.workspace.blobs.local_path(entry.hash)
    assert blob.read_bytes() == b"weights" * 1000
    assert entry.hash == blake3(blob.read_bytes()).hexdigest()
    assert blob.stat().st_mode & 0o222 == 0  # nobody writes into it by mistake


def test_folder_keeps_its_files_under_their_paths(run: runstone.Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    names = ["a.txt", "deep/b", "deep/er/ü 😀", "deep/empty", "new\nline"]
    for name in names:
        (folder / name).write_text(name if name != "deep/empty" else "")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("no UTF-8")
    (folder / "link").symlink_to(folder / "a.txt")
    (folder / "linked folder").symlink_to(folder / "deep")
    artifact = run.log_artifact(folder, name="results")
    assert artifact is not None
    assert artifact.is_folder
    assert run.read().artifacts[0].files == artifact.files
    contents = {entry.path: run.workspace.blobs.local_path(entry.hash).read_text() for entry in artifact.files}
    assert contents == {
        **{name: name for name in names},
        "deep/empty": "",
        "\\xff": "no UTF-8",
        "link": "a.txt",
    }


def test_same_content_is_stored_once_in_a_workspace(run: runstone.Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(5):
        (folder / str(number)).write_text("the same")
    run.log_artifact(folder)
    run.log_artifact(folder / "3")
    run.finish()
    with runstone.start_run(environment=False) as other:
        other.log_artifact(folder / "1", name="again")
    assert len(stored(home)) == 1


def test_later_artifact_of_a_name_takes_the_place_of_the_earlier(run: runstone.Run, tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        run.log_artifact(tmp_path / "file", name="best")
    (artifact,) = run.read().artifacts
    assert run.workspace.blobs.local_path(artifact.files[0].hash).read_text() == "two"


def test_what_is_no_file_is_refused_at_once(run: runstone.Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    begin = time.monotonic()
    for path, error in (
        (folder / "fifo", runstone.InvalidValue),
        (folder / "socket", runstone.InvalidValue),
        (folder, runstone.InvalidValue),
        (Path("/dev/zero"), runstone.InvalidValue),
        (tmp_path / "missing", runstone.NotFound),
        (tmp_path / "dangling", runstone.NotFound),
        (tmp_path / "loop", (runstone.NotFound, OSError)),
        (Path("~no-such-user/x"), (RuntimeError, runstone.NotFound)),
        (Path("/"), runstone.InvalidName),
    ):
        with pytest.raises(error):
            run.log_artifact(path)
    listener.close()
    assert time.monotonic() - begin < 10
    assert run.read().artifacts == ()
    assert stored(home) == []


def test_folder_that_cannot_be_listed_whole_is_not_stored_in_part(run: runstone.Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("x")
    place = os.open(tmp_path / "out", os.O_RDONLY)
    for _ in range(25):  # deeper than a path may be long
        os.mkdir("d" * 200, dir_fd=place)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    with pytest.raises(OSError, match="name too long"):
        run.log_artifact(tmp_path / "out")
    assert run.read().artifacts == ()
    shutil.rmtree(tmp_path / "out")


def test_file_that_changes_while_it_is_read_is_refused_or_whole(run: runstone.Run, home: Path, tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(bytes(3 << 20))
    is_over = threading.Event()

    def grow() -> None:
        with growing.open("ab", buffering=0) as file:
            while not is_over.is_set():
                file.write(b"more")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        refused = 0
        for _ in range(20):
            try:
                run.log_artifact(growing)
            except runstone.InvalidValue as error:
                refused += "changed while it was read" in str(error)
    finally:
        is_over.set()
        thread.join()
    assert refused
    for blob in stored(home):
        assert blake3(blob.read_bytes()).hexdigest() == blob.name
    assert run.log_artifact(growing) is not None


def test_process_killed_while_it_copies_leaves_nothing_that_is_seen(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], tmp_path: Path, home: Path
) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(4 << 30)  # without bytes on the disk; the copy has them
    program = start(
        """
        import runstone
        run = runstone.start_run(environment=False)
        print("ready", flush=True)
        run.log_artifact("big")
        """
    )
    program.wait_until_ready()
    blobs = Blobs(home / "blobs")
    while not any(path.stat().st_size for path in stored(home)):
        assert program.process.poll() is None
        os.sched_yield()
    program.send(signal.SIGKILL)
    program.end()
    assert only_run().artifacts == ()
    (partial,) = stored(home)
    assert partial.name.endswith(".partial")
    with pytest.raises(runstone.NotFound):
        blobs.local_path(partial.stem)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000) | st.integers(0, 3 << 20).map(bytes))
def test_any_content_comes_back(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source").write_bytes(content)
    blobs = Blobs(tmp_path / "blobs")
    entry = blobs.put(tmp_path / "source", "x")
    assert blobs.local_path(entry.hash).read_bytes() == content
    assert entry.hash == blake3(content).hexdigest()
    assert [path.suffix for path in (tmp_path / "blobs").iterdir()].count(".partial") == 0


@pytest.mark.parametrize("reference", ["", "a" * 64, "../../FORMAT", "A" * 64, "é" * 64, "0" * 63])
def test_content_that_is_not_there_is_not_found(tmp_path: Path, reference: str) -> None:
    with pytest.raises(runstone.NotFound):
        Blobs(tmp_path).local_path(reference)


def test_many_runs_that_store_the_same_at_once_agree(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(2 << 20))
    runs = [runstone.start_run(environment=False) for _ in range(4)]
    threads = [threading.Thread(target=run.log_artifact, args=(tmp_path / "file",)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.read().artifacts[0].files[0].hash for run in runs}) == 1
    assert len(stored(home)) == 1
    for run in runs:
        run.finish()


def test_artifact_of_a_finished_run_is_refused_before_it_is_copied(
    run: runstone.Run, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    run.finish()
    with pytest.raises(runstone.RunFinished):
        run.log_artifact(tmp_path / "file")
    assert stored(home) == []
