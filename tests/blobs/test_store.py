"""The store: content in once, out whole, whatever the files are and whoever writes at the same time."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

import runstone
from runstone.blobs import Blobs
from runstone.blobs.source import Source
from tests.recording.disk import disk_of


def stored(blobs: Blobs) -> list[Path]:
    return sorted(path for path in blobs.root.rglob("*") if path.is_file())


@pytest.fixture
def cloning_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares bytes between files."""
    image, place = tmp_path / "xfs.img", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    place.mkdir()
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system with reflinks can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def free_bytes(place: Path) -> int:
    os.sync()
    state = os.statvfs(place)
    return state.f_bavail * state.f_bsize


@pytest.mark.parametrize("size", [0, 1, 70_000, (1 << 20) - 1, 1 << 20, (40 << 20) + 3])
def test_content_of_any_size_comes_back_each_way(blobs: Blobs, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    entry = blobs.put(tmp_path / "file", "x")
    assert (entry.hash, entry.size_bytes) == (blake3(content).hexdigest(), size)
    assert blobs.read(entry.hash) == content
    with blobs.open(entry.hash, check=True) as file:
        assert file.read() == content
    assert blobs.size(entry.hash) == size
    assert blobs.local_path(entry.hash).read_bytes() == content
    assert blobs.copy_to(entry.hash, tmp_path / "copy") in ("copy", "reflink")
    assert (tmp_path / "copy").read_bytes() == content
    assert os.access(tmp_path / "copy", os.W_OK)
    blobs.verify(entry.hash)


def test_open_content_can_be_read_from_any_place(blobs: Blobs) -> None:
    entry = blobs.put_bytes(bytes(range(256)), "x")
    with blobs.open(entry.hash) as file:
        assert file.seek(-2, io.SEEK_END) == 254
        assert file.read() == b"\xfe\xff"


def test_content_that_is_there_is_hashed_but_not_copied(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(5 << 20))
    entry = blobs.put(tmp_path / "large", "x")
    blobs.root.chmod(0o555)
    seen = [path.stat().st_ino for path in stored(blobs)]
    assert blobs.put(tmp_path / "large", "y").hash == entry.hash
    assert [path.stat().st_ino for path in stored(blobs)] == seen


def test_torn_content_is_stored_anew(blobs: Blobs) -> None:
    entry = blobs.put_bytes(b"all of it", "x")
    place = blobs.local_path(entry.hash)
    place.chmod(0o644)
    place.write_bytes(b"all")
    blobs.put_bytes(b"all of it", "x")
    assert blobs.read(entry.hash) == b"all of it"


def test_changed_byte_is_found_and_named(blobs: Blobs, tmp_path: Path) -> None:
    entry = blobs.put_bytes(b"content", "x")
    place = blobs.local_path(entry.hash)
    place.chmod(0o644)
    place.write_bytes(b"c0ntent")
    for read in (
        lambda: blobs.verify(entry.hash),
        lambda: blobs.read(entry.hash),
        lambda: blobs.open(entry.hash, check=True),
        lambda: blobs.copy_to(entry.hash, tmp_path / "copy"),
        lambda: blobs.copy_to(entry.hash, tmp_path / "copy", link=True),
    ):
        with pytest.raises(runstone.FormatError, match=entry.hash[:16]):
            read()
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_checked_out_file_replaces_only_when_told(blobs: Blobs, tmp_path: Path) -> None:
    entry = blobs.put_bytes(b"new", "x")
    (tmp_path / "there").write_text("old")
    with pytest.raises(runstone.AlreadyExists):
        blobs.copy_to(entry.hash, tmp_path / "there")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(runstone.AlreadyExists):
        blobs.copy_to(entry.hash, tmp_path / "dangling")
    blobs.copy_to(entry.hash, tmp_path / "there", replace=True)
    assert (tmp_path / "there").read_text() == "new"


def test_link_on_request_takes_no_space_and_cannot_be_written(blobs: Blobs, tmp_path: Path) -> None:
    entry = blobs.put_bytes(b"content", "x")
    assert blobs.copy_to(entry.hash, tmp_path / "link", link=True) == "hardlink"
    assert (tmp_path / "link").stat().st_ino == blobs.local_path(entry.hash).stat().st_ino
    assert (tmp_path / "link").stat().st_mode & 0o222 == 0
    assert blobs.copy_to(entry.hash, tmp_path / "link", link=True, replace=True) == "hardlink"
    assert not list(tmp_path.glob("*.partial"))


def test_users_file_is_never_linked_into_the_store(blobs: Blobs, tmp_path: Path) -> None:
    for size in (10, 3 << 20):
        (tmp_path / "mine").write_bytes(bytes(size))
        entry = blobs.put(tmp_path / "mine", "x")
        assert (tmp_path / "mine").stat().st_nlink == 1
        with (tmp_path / "mine").open("r+b") as file:
            file.write(b"written in place")
        blobs.verify(entry.hash)


def test_bytes_are_shared_where_the_file_system_can(cloning_disk: Path) -> None:
    blobs = Blobs(cloning_disk / "blobs")
    content = os.urandom(100 << 20)
    (cloning_disk / "large").write_bytes(content)
    before = free_bytes(cloning_disk)
    entry = blobs.put(cloning_disk / "large", "x")
    assert blobs.copy_to(entry.hash, cloning_disk / "again") == "reflink"
    assert before - free_bytes(cloning_disk) < 10 << 20
    with (cloning_disk / "again").open("r+b") as file:
        file.write(b"changed")
    assert blobs.read(entry.hash) == content
    (cloning_disk / "small").write_bytes(content[:100_000])
    assert blobs.read(blobs.put(cloning_disk / "small", "y").hash) == content[:100_000]
    assert blobs.put(cloning_disk / "large", "z").hash == entry.hash
    assert len(stored(blobs)) == 2


# --- files that are odd -----------------------------------------------------------------------------------------------


def test_links_are_followed_and_what_is_no_file_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    assert blobs.read(blobs.put(tmp_path / "link", "x").hash) == b"content"
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "socket", "/dev/zero", "/dev/null", "."):
        with pytest.raises(runstone.InvalidValue, match="not a regular file"):
            blobs.put(tmp_path / name, "x")
    for name in ("missing", "loop"):
        with pytest.raises(OSError, match=r"No such file|Too many levels"):
            blobs.put(tmp_path / name, "x")
    listener.close()
    assert len(stored(blobs)) == 1


def test_fifo_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    as_it_was = (tmp_path / "file").stat()
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    monkeypatch.setattr(Path, "stat", lambda _path, **_options: as_it_was)
    with pytest.raises(runstone.InvalidValue, match="exchanged"):
        Source(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_told_by_name(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(PermissionError, match="secret"):
        blobs.put(tmp_path / "secret", "x")


def test_file_that_the_disk_cannot_read_is_told(blobs: Blobs) -> None:
    with pytest.raises(OSError, match=r"Input/output|Invalid|Bad address|not permitted"):
        blobs.put(Path("/proc/self/mem"), "x")
    assert stored(blobs) == []


def test_names_of_any_bytes_are_stored(blobs: Blobs, tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", b"-rf", "ü😀".encode(), b"a" * 255, b'"; rm', b"\\xff"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    entries = blobs.put_all((Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), "x") for name in names)
    assert [blobs.read(entry.hash) for entry in entries] == names


def test_names_that_would_read_the_same_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "\\xff").write_text("text")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("bytes")
    with runstone.start_run(environment=False) as run, pytest.raises(runstone.InvalidName, match="two files"):
        run.log_artifact(folder)


@pytest.mark.parametrize("size", [60_000, 6 << 20])
def test_file_that_grows_or_shrinks_meanwhile_is_refused(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    original = os.preadv if size > 1 << 20 else os.pread
    for change in (b"more", None):
        (tmp_path / "file").write_bytes(os.urandom(size))

        def read_and_change(*arguments: object, change: bytes | None = change) -> object:
            found = original(*arguments)  # type: ignore[arg-type]
            if change is None:
                os.truncate(tmp_path / "file", 100)
            else:
                with (tmp_path / "file").open("ab") as file:
                    file.write(change)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(os, original.__name__, read_and_change)
            with pytest.raises(runstone.InvalidValue, match="changed while it was read"):
                blobs.put(tmp_path / "file", "x")
    assert stored(blobs) == []


# --- many files, several writers --------------------------------------------------------------------------------------


def test_many_files_keep_their_order_and_are_stored_once(blobs: Blobs, tmp_path: Path) -> None:
    contents = [os.urandom(50) if number % 3 else b"the same" for number in range(700)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    entries = blobs.put_all((tmp_path / str(number), f"n{number}") for number in range(700))
    assert [entry.path for entry in entries] == [f"n{number}" for number in range(700)]
    assert [blobs.read(entry.hash) for entry in entries] == contents
    assert len(stored(blobs)) == len(set(contents))


def open_below(folder: Path) -> list[str]:
    """Return what this process has open there. Not a count of all: other tests' files may be closed at any moment."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(link.readlink())
    return [str(path) for path in found if path.is_relative_to(folder)]


def test_failure_among_many_leaves_nothing_unfinished(blobs: Blobs, tmp_path: Path) -> None:
    for number in range(450):
        (tmp_path / str(number)).write_bytes(os.urandom(50))
    for bad in (30, 349, 449):
        (tmp_path / str(bad)).unlink()
        with pytest.raises(FileNotFoundError):
            blobs.put_all((tmp_path / str(number), "x") for number in range(450))
        (tmp_path / str(bad)).write_bytes(b"again")

    def breaking() -> Iterator[tuple[Path, str]]:
        yield from ((tmp_path / str(number), "x") for number in range(250))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.put_all(breaking())
    assert not list(blobs.root.glob("*.partial"))
    assert open_below(tmp_path) == []


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with disk_of("4m", tmp_path / "disk") as disk:
        blobs = Blobs(disk / "blobs")
        (tmp_path / "file").write_bytes(os.urandom(6 << 20))
        with pytest.raises(OSError, match="No space"):
            blobs.put(tmp_path / "file", "x")
        assert stored(blobs) == []
        for number in range(60):
            (tmp_path / str(number)).write_bytes(os.urandom(100_000))
        with pytest.raises(OSError, match="No space"):
            blobs.put_all((tmp_path / str(number), "x") for number in range(60))
        assert not list(blobs.root.glob("*.partial"))
        for path in stored(blobs):
            assert blake3(path.read_bytes()).hexdigest() == path.name


WRITER = """
import os, sys
from pathlib import Path
from runstone.blobs import Blobs
blobs = Blobs(Path(sys.argv[1]))
while True:
    for name in sys.argv[2:]:
        blobs.put(Path(name), "x")
    for path in blobs.root.glob("??/*"):
        if path.stat().st_size > 1000000: path.unlink()
    print("x", flush=True)
"""


def test_writers_that_race_and_die_leave_only_whole_content(blobs: Blobs, tmp_path: Path) -> None:
    sources = []
    for number, size in enumerate((10, 300_000, 3 << 20)):
        sources.append(tmp_path / f"s{number}")
        sources[-1].write_bytes(os.urandom(size))
    blobs.root.mkdir()
    for round_number in range(4):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(blobs.root), *map(str, sources)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.01 * round_number)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        for path in blobs.root.glob("??/*"):
            assert blake3(path.read_bytes()).hexdigest() == path.name


def test_threads_that_store_the_same_agree(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(blobs.put(tmp_path / "file", "x").hash)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(stored(blobs)) == 1


def test_fork_hashes_large_files_too(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(40 << 20))
    blobs.put(tmp_path / "large", "x")  # threads that a fork does not have
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        blobs.put(tmp_path / "large", "x")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(300 << 20)
    program = """
import resource, sys
from pathlib import Path
from runstone.blobs import Blobs
blobs = Blobs(Path(sys.argv[1]) / "blobs")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
entry = blobs.put(Path(sys.argv[1]) / "large", "x")
blobs.copy_to(entry.hash, Path(sys.argv[1]) / "copy")
blobs.verify(entry.hash)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(result.stdout) < 100  # MiB
