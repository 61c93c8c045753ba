"""What files hashed to: known as long as they are as they were, never longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from runstone.blobs.statcache import StatCache

LATER_NS = 60_000_000_000


def hash_of(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "stat" / "tree"


def test_unchanged_files_are_known_to_the_next_process(tmp_path: Path, cache_path: Path) -> None:
    cache = StatCache(cache_path)
    files = [tmp_path / str(number) for number in range(50)]
    for file in files:
        file.write_text(file.name)
        assert cache.find(file.stat()) is None
        assert cache.remember(file.stat(), hash_of(file), read_at_ns=time.time_ns() + LATER_NS)
    cache.save()
    again = StatCache(cache_path)
    assert [again.find(file.stat()) for file in files] == [hash_of(file) for file in files]


@pytest.mark.parametrize("change", ["content", "same size, time set back", "exchanged", "touched"])
def test_changed_file_is_not_known(tmp_path: Path, cache_path: Path, change: str) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    status = file.stat()
    cache = StatCache(cache_path)
    cache.remember(status, hash_of(file), read_at_ns=time.time_ns() + LATER_NS)
    time.sleep(0.03)  # a tick of the file system's clock
    if change == "exchanged":
        (tmp_path / "other").write_text("after!")
        os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
        (tmp_path / "other").replace(file)
    elif change == "touched":
        file.touch()
    else:
        file.write_text("after!" if change != "content" else "longer than before")
        if change != "content":
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.find(file.stat()) is None


def test_file_that_was_just_written_is_read_once_more(tmp_path: Path, cache_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    cache = StatCache(cache_path)
    assert not cache.remember(file.stat(), hash_of(file), read_at_ns=time.time_ns())
    assert cache.find(file.stat()) is None
    time.sleep(0.05)
    assert cache.remember(file.stat(), hash_of(file), read_at_ns=time.time_ns())


def test_files_that_are_gone_are_dropped(tmp_path: Path, cache_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    cache = StatCache(cache_path)
    for name in "ab":
        cache.remember((tmp_path / name).stat(), "0" * 64, read_at_ns=time.time_ns() + LATER_NS)
    cache.save()
    size = cache_path.stat().st_size
    again = StatCache(cache_path)
    again.find((tmp_path / "a").stat())
    again.save()
    assert cache_path.stat().st_size < size
    assert StatCache(cache_path).find((tmp_path / "b").stat()) is None


def test_damaged_cache_knows_nothing(tmp_path: Path, cache_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    cache = StatCache(cache_path)
    cache.remember((tmp_path / "a").stat(), "0" * 64, read_at_ns=time.time_ns() + LATER_NS)
    cache.save()
    whole = cache_path.read_bytes()
    for place in range(0, len(whole), 5):
        cache_path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert StatCache(cache_path).find((tmp_path / "a").stat()) is None
        cache_path.write_bytes(whole[:place])
        assert StatCache(cache_path).find((tmp_path / "a").stat()) is None
