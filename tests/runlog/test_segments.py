"""What the keeper and threads do to each other while segments go elsewhere and come home, one step at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runstone.runlog import format as fmt
from runstone.runlog.mapped import MappedPoints
from runstone.runlog.segments import SegmentFiles
from runstone.runlog.series import MetricLog
from runstone.runlog.spill import Spill
from tests.recording.disk import disk_of, fill

WRITER = bytes(range(16))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[int]:
    """An open folder on a disk of its own, which is full but for a page: names fit, segments do not."""
    with disk_of("1m", tmp_path / "disk") as disk:
        (disk / "run").mkdir()
        (disk / "run" / f"{WRITER.hex()}.keys").touch()
        os.truncate(fill(disk), (disk / "filler").stat().st_size - 4096)
        directory = os.open(disk / "run", os.O_RDONLY)
        yield directory
        os.close(directory)


@pytest.fixture
def points(home: int, tmp_path: Path) -> Iterator[MappedPoints]:
    points = MappedPoints(
        home, WRITER, spill=Spill(home, WRITER.hex(), lambda: tmp_path / "spill", 1 << 20, is_mapped=True)
    )
    yield points
    points.close()


def test_segment_waits_elsewhere_for_the_thread_that_is_about_to_store_in_it(
    points: MappedPoints, tmp_path: Path
) -> None:
    points.log({"x": 0.0}, 0)
    memory, next_slot, end, salt = points.current
    offset = next_slot()  # as a thread does, before it is put to sleep
    points.log({"x": 2.0}, 2)
    (tmp_path / "disk" / "filler").unlink()
    for _ in range(3):
        points.tend()
    assert offset < end
    assert list((tmp_path / "spill").glob("*.wal")) != []
    fmt.FLOAT_SLOT.pack_into(memory, offset, 1, 0.0, 1.0, 1, salt)
    points.tend()
    assert not (tmp_path / "spill").exists()
    points.log({"x": 3.0}, 3)
    assert sorted(MetricLog(tmp_path / "disk" / "run").series("x").value) == [0.0, 1.0, 2.0, 3.0]


def test_thread_that_never_stores_holds_its_segment_up_for_some_looks_only(
    points: MappedPoints, tmp_path: Path
) -> None:
    points.log({"x": 0.0}, 0)
    points.current[1]()
    (tmp_path / "disk" / "filler").unlink()
    for _ in range(12):
        points.tend()
    assert not (tmp_path / "spill").exists()


def test_segment_that_comes_home_gives_no_slot_to_a_thread_that_still_has_it(
    points: MappedPoints, tmp_path: Path
) -> None:
    points.log({"x": 0.0}, 0)
    _memory, next_slot, end, _salt = points.current
    (tmp_path / "disk" / "filler").unlink()
    points.tend()
    assert points.current[1] is not next_slot
    assert next_slot() >= end
    assert not (tmp_path / "spill").exists() or list((tmp_path / "spill").glob("*.wal"))


def test_room_that_was_booked_for_what_could_not_be_made_is_given_back(home: int, tmp_path: Path) -> None:
    with disk_of("100k", tmp_path / "small") as small:
        spill = Spill(home, WRITER.hex(), lambda: small / "spill", 1 << 20)
        files = SegmentFiles(home, WRITER, spill, is_reserved=True)
        filler = fill(small)
        for _ in range(50):
            files.retry_at = spill._retry_at = 0.0  # a second later
            with pytest.raises(OSError, match="No space left on device") as raised:
                files.make(2048, 2048)
            assert raised.value.errno == errno.ENOSPC
        filler.unlink()
        files.retry_at = spill._retry_at = 0.0
        file = files.make(2048, 2048)
        assert file.is_spilled
        files.let_go(file, 0)
        spill.close()


def test_a_disk_that_refuses_is_asked_each_second_however_often_somebody_logs(home: int, tmp_path: Path) -> None:
    files = SegmentFiles(home, WRITER, Spill(home, WRITER.hex()), is_reserved=True)
    with pytest.raises(OSError, match="No space left"):
        files.make(2048, 2048)
    asked_again_at = files.retry_at
    for _ in range(10):
        with pytest.raises(OSError, match="No space left"):
            files.make(2048, 2048)
        with pytest.raises(OSError, match="as before"):
            files.make_elsewhere(2048, 2048, OSError(errno.ENOSPC, "as before"), is_spilled=True)
    assert files.retry_at == asked_again_at
