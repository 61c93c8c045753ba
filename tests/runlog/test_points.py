"""Segments of the metric log: how they grow, shrink on a full disk, and what is left of a run that used few of them."""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.runlog import format as fmt
from runstone.runlog.appended import AppendedPoints
from runstone.runlog.filesystem import choose_backend, filesystem_type, reserve
from runstone.runlog.mapped import MappedPoints
from runstone.runlog.points import open_points
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail
from runstone.runlog.writer import RunLog

Points = MappedPoints | AppendedPoints


@pytest.fixture(params=["mmap", "append"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Points]]:
    directory = os.open(tmp_path, os.O_RDONLY)
    made: list[Points] = []

    def make_one() -> Points:
        made.append(open_points(request.param, directory, os.urandom(16)))
        return made[-1]

    yield make_one
    for points in made:
        points.close()
    os.close(directory)


def sizes(folder: Path) -> list[int]:
    return [file.stat().st_size for file in sorted(folder.glob("*.wal"))]


def test_nothing_is_on_disk_before_the_first_point(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    points.tend()
    points.sync()
    points.log({}, 0)
    assert list(tmp_path.iterdir()) == []
    points.log({"x": 1.0}, 0)
    assert len(list(tmp_path.iterdir())) == 2


def test_points_are_readable_the_moment_log_returns(make: Callable[[], Points], tmp_path: Path) -> None:
    points, tail = make(), MetricTail(tmp_path)
    for number in range(100):
        points.log({"x": float(number), f"new/{number}": number}, number)
        found = {name: series.value.tolist() for name, series in tail.poll().items()}
        assert found == {"x": [number], f"new/{number}": [number]}
    assert tail.poll() == {}
    assert not tail.has_holes


def test_segments_double_and_the_unused_one_is_removed(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = MappedPoints(directory, os.urandom(16))
    for number in range(10_000):
        points.log({"x": float(number)}, number)
        points.tend()
    kib = [(size - fmt.HEADER_BYTES) // 1024 for size in sizes(tmp_path)]
    assert kib == [64, 128, 256, 512]
    points.close()
    assert [(size - fmt.HEADER_BYTES) // 1024 for size in sizes(tmp_path)] == [64, 128, 256]
    assert np.array_equal(MetricLog(tmp_path).series("x").value, np.arange(10_000.0))
    assert [fmt.slots_of_segment(seq) for seq in (0, 1, 6, 7, 99)] == [2048, 4096, 131072, 131072, 131072]
    os.close(directory)


def test_keeper_and_threads_share_segments_without_a_hole(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    rings = threading.Semaphore(0)
    points = MappedPoints(directory, os.urandom(16), wake=rings.release)
    is_over = False

    def keep() -> None:
        while not is_over:
            rings.acquire()
            points.tend()
            points.sync()

    def log(thread: int) -> None:
        for number in range(20_000):
            points.log({"x": float(thread * 20_000 + number)}, number)

    keeper = threading.Thread(target=keep)
    keeper.start()
    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_over = True
    rings.release()
    keeper.join()
    points.close()
    assert np.array_equal(np.sort(MetricLog(tmp_path).series("x").value), np.arange(60_000.0))
    os.close(directory)


def test_handler_for_one_metric_and_a_dict_write_the_same(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    for value in (1.5, 2, True, np.float32(0.5)):
        points.log_one("one", value, 3)
        points.log({"dict": value}, 3)
    log = MetricLog(tmp_path)
    assert log.series("one").value.tolist() == log.series("dict").value.tolist() == [1.5, 2.0, 1.0, 0.5]


def test_closed_log_counts_and_says_so(make: Callable[[], Points]) -> None:
    points = make()
    points.log({"x": 1.0}, 0)
    points.close()
    with pytest.raises(OSError, match="closed"):
        points.log({"x": 2.0, "y": {"a": 1, "b": 2.0}}, 1)
    with pytest.raises(OSError, match="closed"):
        points.log_one("x", 3.0, 1)
    assert points.dropped == 4


def test_limit_on_file_size_makes_segments_smaller_and_then_drops(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = MappedPoints(directory, os.urandom(16))
    points.log({"x": 0.0}, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, hard))  # the second segment would take 132 KiB
        for number in range(1, 6000):
            points.log({"x": float(number)}, number)
        assert [size // 1024 for size in sizes(tmp_path)] == [68, 68, 68]
        resource.setrlimit(resource.RLIMIT_FSIZE, (50 * 1024, hard))
        refused = 0
        for number in range(6000, 7000):
            try:
                points.log({"x": float(number)}, number)
            except OSError:
                refused += 1
        assert refused == points.dropped == 7000 - 3 * 2048
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    points._files.retry_at = 0.0  # a second later
    points.log({"x": 7000.0}, 7000)
    points.close()
    assert MetricLog(tmp_path).series("x").value.tolist() == [*np.arange(3 * 2048.0), 7000.0]
    os.close(directory)


def test_appended_log_under_a_limit_on_file_size_leaves_no_torn_slot(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = AppendedPoints(directory, os.urandom(16))
    points.log({"x": 0.0, "y": 0.0, "z": 0.0}, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        for number in range(1, 100):
            try:
                points.log({"x": float(number), "y": 0.0, "z": 0.0}, number)
            except OSError:
                refused += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert points.dropped == 3 * refused > 0
    assert sizes(tmp_path) == [fmt.HEADER_BYTES + 3 * (100 - refused) * fmt.SLOT_BYTES]
    points.log({"x": 100.0}, 100)
    points.close()
    kept = MetricLog(tmp_path).series("x").value.tolist()
    assert kept == [*map(float, range(100 - refused)), 100.0]
    os.close(directory)


def test_log_whose_files_are_deleted_counts_what_it_loses(make: Callable[[], Points], tmp_path: Path) -> None:
    points = make()
    for number in range(10):
        points.log({"x": float(number)}, number)
    for file in tmp_path.iterdir():
        file.unlink()
    points.sync()
    assert points.dropped == 10
    with pytest.raises(FileNotFoundError, match="the files of the run were deleted"):
        points.log({"x": 1.0, "y": 1}, 1)
    points.tend()
    assert points.dropped == 12
    assert list(tmp_path.glob("*.wal")) == []


def test_appended_log_goes_to_the_next_file_when_one_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "MOST_SLOTS", 10)
    directory = os.open(tmp_path, os.O_RDONLY)
    points = AppendedPoints(directory, os.urandom(16))
    for number in range(25):
        points.log({"a": float(number), "b": number}, number)
    points.log({f"many/{number}": 1.0 for number in range(50)}, 0)
    points.tend()
    points.sync()
    points.close()
    log = MetricLog(tmp_path)
    assert len(sizes(tmp_path)) == 6
    assert log.series("a").value.tolist() == list(range(25))
    assert log.series("b").value.tolist() == list(range(25))
    assert len(log.names) == 52
    os.close(directory)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for backend in ("mmap", "append"):
        directory = os.open(tmp_path, os.O_RDONLY)
        points = open_points(backend, directory, os.urandom(16))  # type: ignore[arg-type]
        for number in range(20_000):
            points.log({"x": float(number)}, number)
            if number % 5000 == 0:
                points.tend()
        points.close()
        os.close(directory)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_names_of_new_files_are_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    folder = tmp_path / "ws" / "runs" / "project" / "one"
    folder.mkdir(parents=True)
    log = RunLog(folder, role="edit")  # which has no keeper beside this test
    log.care()
    assert synced == [str(folder), *map(str, folder.parents[:4])]  # a run's own entry may be as new
    time.sleep(0.15)
    log.care()
    synced.clear()
    log.care()
    assert synced == []
    log.points.log({"x": 1.0}, 0)
    log.care()
    assert synced == [str(folder)]
    log.close()


# --- file systems --------------------------------------------------------------------------------------------------


def test_type_of_a_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:2 / /data rw shared:1 - nfs4 host:/x rw\n"
        "3 2 0:3 / /data/fast\\040disk rw - xfs /dev/sdb rw\n"
        "4 1 0:4 / /data rw - tmpfs none rw\n"
        "garbage\n"
        "5 1 0:5 / /database rw - zfs pool rw\n"
    )
    expected = {
        "/": "ext4",
        "/home/x": "ext4",
        "/data": "tmpfs",
        "/data/x": "tmpfs",
        "/data/fast disk/x": "xfs",
        "/database/x": "zfs",
        "/datab": "ext4",
    }
    assert {path: filesystem_type(Path(path), mounts) for path in expected} == expected
    assert filesystem_type(tmp_path, tmp_path / "missing") is None


def test_way_to_write_can_be_forced_and_a_wrong_word_makes_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    assert choose_backend(tmp_path) in ("mmap", "append")
    for backend in ("mmap", "append"):
        monkeypatch.setenv("RUNSTONE_LOG", backend)
        with runstone.start_run(environment=False) as run:
            run.log({"x": 1.0})
        (file,) = (file for file in run.path.glob("*.wal"))
        assert (file.stat().st_size > 60_000) == (backend == "mmap")
    before = list((home / "runs").rglob("*"))
    monkeypatch.setenv("RUNSTONE_LOG", "magnetic tape")
    with pytest.raises(runstone.InvalidValue, match="must be 'mmap' or 'append'"):
        runstone.start_run()
    assert list((home / "runs").rglob("*")) == before


def test_reserved_bytes_exist(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        reserve(file.fileno(), 3_000_001)
        stat = os.fstat(file.fileno())
    assert stat.st_size == 3_000_001
    assert stat.st_blocks * 512 >= 3_000_000


def test_clock_and_ids_of_a_writer_can_be_handed_in(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    points = open_points("mmap", directory, bytes(range(16)), clock=itertools.count(5.0).__next__)
    points.log({"a": 1.0, "b": 2.0}, 0)
    points.log({"a": 3.0}, 1)
    points.close()
    os.close(directory)
    assert MetricLog(tmp_path).series("a").wall_s.tolist() == [5.0, 6.0]
    assert (tmp_path / "000102030405060708090a0b0c0d0e0f.keys").exists()
