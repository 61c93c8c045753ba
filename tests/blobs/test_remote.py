"""Stores elsewhere: what is sent arrives whole, what is fetched is checked, what breaks off goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import settings
from runstone.blobs import Blobs, open_blobs
from runstone.blobs.remote import Remote
from tests.blobs.test_checkpoints import safetensors_file

fsspec = pytest.importorskip("fsspec")


class Flaky:
    """A file system that fails each time but every n-th, as a bad network does. Everything else is the real one."""

    def __init__(self, real: Any, every: int) -> None:
        self._real, self._every, self._calls = real, every, 0
        self.sent: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in ("info", "put_file", "open"):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls % self._every:
                raise ConnectionResetError("the network broke")
            if name == "put_file":
                self.sent.append(str(arguments[1]).rpartition("/")[2])
            return found(*arguments, **options)

        return call


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/elsewhere" if request.param == "file" else f"memory://{tmp_path.name}/store"


def test_what_was_pushed_is_read_from_another_workspace(tmp_path: Path, url: str) -> None:
    here, there = Blobs(tmp_path / "a" / "blobs", remote=url), Blobs(tmp_path / "b" / "blobs", remote=url)
    for blobs in (here, there):
        blobs.root.parent.mkdir()
    safetensors_file(tmp_path / "c", {"x": os.urandom(2 << 20), "y": os.urandom(1000)})
    contents = [here.put_bytes(b"small", "x").hash, here.put_bytes(b"", "x").hash, here.put(tmp_path / "c", "c").hash]
    moved = here.push(contents, check=True)
    assert moved.count == sum(1 for _ in here.objects())
    assert here.push().there_already == moved.count
    assert here.push().count == 0
    assert there.size(contents[0]) == 5
    assert contents[0] not in there  # nothing comes for that
    assert there.read(contents[0]) == b"small"
    assert there.read(contents[2]) == (tmp_path / "c").read_bytes()
    assert there.local_path(contents[1]).read_bytes() == b""
    assert there.pull(contents).there_already == 3
    there.verify(contents[2])
    with pytest.raises(runstone.NotFound, match=r"elsewhere|memory"):
        there.open("0" * 64)
    assert not list(tmp_path.glob("*.partial"))


def test_broken_push_goes_on_where_it_was(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    for number in range(20):
        blobs.put_bytes(os.urandom(100 + number), "x")
    flaky = Flaky(fsspec.filesystem("file"), every=3)
    waited: list[float] = []
    remote = Remote(str(tmp_path / "elsewhere"), file_system=flaky, pause=waited.append)
    assert blobs.push(to=remote).count == 20  # it tries again
    assert waited
    gone = Flaky(fsspec.filesystem("file"), every=10**9)
    with pytest.raises(OSError, match="network broke"):
        blobs.push(to=Remote(str(tmp_path / "elsewhere"), file_system=gone, pause=waited.append))
    some = sorted((tmp_path / "elsewhere").glob("??/*"))[:3]
    for path in some:
        path.unlink()
    flaky.sent.clear()
    assert blobs.push(to=remote).count == 3
    assert len(flaky.sent) == 3


def test_fetch_over_a_bad_network_comes_whole(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "a" / "blobs")
    blobs.root.parent.mkdir()
    content = os.urandom(20 << 20)
    entry = blobs.put_bytes(content, "x")
    elsewhere = str(tmp_path / "elsewhere")
    blobs.push(to=Remote(elsewhere, file_system=fsspec.filesystem("file")))
    flaky = Remote(elsewhere, file_system=Flaky(fsspec.filesystem("file"), every=3), pause=lambda _seconds: None)
    (tmp_path / "b").mkdir()
    other = Blobs(tmp_path / "b" / "blobs", remote=flaky)
    assert other.read(entry.hash) == content


def test_damage_is_neither_sent_nor_kept(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/elsewhere"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = Blobs(tmp_path / "a" / "blobs", remote=url), Blobs(tmp_path / "b" / "blobs", remote=url)
    good, bad = here.put_bytes(b"good", "x").hash, here.put_bytes(b"bad!", "x").hash
    here.push([good])
    place = here.local_path(bad)
    place.chmod(0o644)
    place.write_bytes(b"BAD!")
    with pytest.raises(runstone.FormatError, match="not sent"):
        here.push([bad])
    assert not (tmp_path / "elsewhere" / bad[:2] / bad).exists()
    sent = tmp_path / "elsewhere" / good[:2] / good
    sent.chmod(0o644)
    sent.write_bytes(b"g00d")
    with pytest.raises(runstone.FormatError, match="damaged"):
        there.read(good)
    assert list(there.objects()) == []
    assert not list(there.root.glob("*.partial"))


def test_workspace_names_its_store_and_artifacts_go_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("content")
    with runstone.start_run(environment=False) as run:
        (home / "settings.json").write_text(f'{{"blobs": "file://{tmp_path}/elsewhere"}}')
        artifact = run.log_artifact(tmp_path / "file")
        assert artifact is not None
        content = artifact.files[0].hash
        assert (tmp_path / "elsewhere" / content[:2] / content).read_text() == "content"
        (tmp_path / "elsewhere2").write_text("in the way")
        monkeypatch.setenv("RUNSTONE_BLOBS", f"file://{tmp_path}/elsewhere2")
        with pytest.warns(runstone.TrackingWarning, match="runstone blobs push"):
            assert run.log_artifact(tmp_path / "file", name="again") is not None
    monkeypatch.setenv("RUNSTONE_BLOBS", "off")
    assert open_blobs(home).remote is None
    monkeypatch.setenv("RUNSTONE_BLOBS", "nowhere")
    with pytest.raises(runstone.InvalidConfig, match="no URL"):
        settings.blob_store(home)
    monkeypatch.delenv("RUNSTONE_BLOBS")
    for wrong in ("{", "[]", '{"blobs": 3}'):
        (home / "settings.json").write_text(wrong)
        with pytest.raises(runstone.InvalidConfig, match=r"settings\.json"):
            settings.blob_store(home)


def test_credentials_of_a_url_are_not_shown() -> None:
    assert str(Remote("sftp://user:secret@host/folder/")) == "sftp://…@host/folder"


def test_unknown_protocol_is_told(tmp_path: Path) -> None:
    with pytest.raises(runstone.InvalidConfig, match="nosuch://x"):
        Blobs(tmp_path / "blobs", remote="nosuch://x").open("0" * 64)
