"""Where a folder lies: the quick way by its device tells the same as the way by its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runstone.runlog import filesystem
from runstone.runlog.filesystem import _type_by_device, choose_backend, filesystem_type

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def test_the_device_tells_the_same_as_the_place(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/proc"), Path("/sys"), Path("/dev/shm"), Path("/")):
        if path.is_dir():
            assert _type_by_device(path) in (filesystem_type(path), None), path
    assert _type_by_device(tmp_path / "missing") is None
    assert _type_by_device(Path("/proc")) == "proc"
    assert choose_backend(Path("/proc")) == "append"


def test_where_no_mount_has_the_number_the_place_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = choose_backend(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(filesystem.os, "major", lambda _device: 999_999)
        assert _type_by_device(tmp_path) is None
        assert choose_backend(tmp_path) == expected
