"""Collecting in a store that workspaces share: what any of them refers to stays, what is not known stays, too."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import runstone
from runstone.blobs.users import users_of, workspace_id
from runstone.cli.main import run
from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.gc import StoreIsShared, collect, collect_elsewhere
from runstone.workspace import ensure_workspace

pytest.importorskip("fsspec")
DAY_S = 86_400.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNSTONE_BLOBS", f"file://{tmp_path}/store")
    return tmp_path / "store"


def log_file(home: Path, content: bytes) -> tuple[str, str]:
    """Log an artifact of 1 MiB and return the ids of run and content."""
    path = home.parent / "file"
    path.write_bytes(content * (1 << 20))
    with runstone.start_run(workspace=home, environment=False) as started:
        artifact = started.log_artifact(path)
    assert artifact is not None
    return started.id, artifact.files[0].hash


def remove_run(home: Path, run_id: str) -> None:
    runstone.open_workspace(home).delete(run_id)
    collect(home, purge_deleted=True, grace_s=0)


def later() -> float:
    return time.time() + 2 * DAY_S


def lies(store: Path, content: str) -> bool:
    return (store / content[:2] / content).exists()


def test_what_nobody_refers_to_goes_after_a_day(home: Path, store: Path) -> None:
    kept = log_file(home, b"a")[1]
    gone_run, gone = log_file(home, b"b")
    remove_run(home, gone_run)
    assert collect_elsewhere(home, now=time.time()).freed_count == 0  # it came just now
    told = collect_elsewhere(home, now=later(), dry_run=True)
    assert (told.count, told.held_count, told.freed_count, told.freed_bytes) == (2, 1, 1, 1 << 20)
    assert lies(store, gone)
    assert collect_elsewhere(home, now=later()).freed_count == 1
    assert (lies(store, kept), lies(store, gone)) == (True, False)
    assert collect_elsewhere(home, now=later()).freed_count == 0


def test_another_workspace_that_is_not_at_hand_stops_it(home: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / ".runstone"
    ensure_workspace(other)
    mine_run, mine = log_file(home, b"a")
    theirs = log_file(other, b"b")[1]
    remove_run(home, mine_run)
    with pytest.raises(StoreIsShared, match=r"nothing was removed.*other/\.runstone.*--with"):
        collect_elsewhere(home, now=later())
    assert lies(store, mine)
    found = collect_elsewhere(home, others=[other], now=later())
    assert (len(found.users), found.freed_count) == (2, 1)
    assert (lies(store, mine), lies(store, theirs)) == (False, True)


def test_one_that_is_gone_is_forgotten_by_name_alone(home: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / ".runstone"
    ensure_workspace(other)
    mine = log_file(home, b"a")[1]
    theirs = log_file(other, b"b")[1]
    user = workspace_id(other)
    assert collect_elsewhere(home, forget=[user], now=later(), dry_run=True).freed_count == 1
    remote = runstone.open_workspace(home).blobs.remote
    assert remote is not None
    assert len(users_of(remote)) == 2
    with pytest.raises(NotFound, match="no workspace 'nonsense' uses the store"):
        collect_elsewhere(home, forget=["nonsense"], now=later())
    with pytest.raises(InvalidValue, match="is at hand"):
        collect_elsewhere(home, forget=[workspace_id(home)], now=later())
    assert collect_elsewhere(home, forget=[user], now=later()).freed_count == 1
    assert (lies(store, mine), lies(store, theirs)) == (True, False)


def test_one_that_only_reads_is_known_too(home: Path, store: Path, tmp_path: Path) -> None:
    content = log_file(home, b"a")[1]
    other = ensure_workspace(tmp_path / "other" / ".runstone")
    assert other.blobs.size(content) == 1 << 20
    with pytest.raises(StoreIsShared):
        collect_elsewhere(home, now=later())


def test_a_copied_workspace_is_another_one_and_a_moved_one_is_the_same(home: Path, tmp_path: Path) -> None:
    ensure_workspace(home)
    before = workspace_id(home)
    assert workspace_id(home) == before
    shutil.copytree(home, tmp_path / "copy")
    assert workspace_id(tmp_path / "copy") != before
    home.rename(tmp_path / "moved")
    assert workspace_id(tmp_path / "moved") == before


def test_datasets_that_were_pushed_there_hold_their_content(home: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(os.urandom(5000))
    assert run(["data", "add", str(tmp_path / "data.bin"), "-w", str(home)]) == 0
    assert run(["data", "push", "-w", str(home)]) == 0
    content = runstone.open_workspace(home).datasets.find("data.bin").manifest.files[0].hash
    assert content is not None
    shutil.rmtree(home / "datasets")  # the history in the store still names the content
    assert collect_elsewhere(home, now=later()).freed_count == 0
    assert lies(store, content)


def test_what_cannot_be_read_stops_it(home: Path, store: Path) -> None:
    gone_run, gone = log_file(home, b"b")
    remove_run(home, gone_run)
    (store / "workspaces" / "abc.json").write_text("nonsense")
    with pytest.raises(FormatError, match="cannot be read"):
        collect_elsewhere(home, now=later())
    (store / "workspaces" / "abc.json").unlink()
    (home / "models" / "m" / "events").mkdir(parents=True)
    (home / "models" / "m" / "events" / "00000001.json").write_text("{}")
    with pytest.raises(FormatError, match="nothing was removed"):
        collect_elsewhere(home, now=later())
    assert lies(store, gone)


def test_a_store_inside_a_workspace_is_not_touched(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ensure_workspace(tmp_path / "other")
    monkeypatch.setenv("RUNSTONE_BLOBS", f"file://{other.path}/blobs")
    ensure_workspace(home)
    with pytest.raises(InvalidValue, match=r"beside .* lies 'FORMAT'"):
        collect_elsewhere(home, now=later())


def test_the_command_says_what_it_did(home: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file(home, b"a")
    assert run(["gc", "--remote", "-w", str(home)]) == 0
    told = capsys.readouterr().out
    assert f"is used by {workspace_id(home)}" in told
    assert "1 file, of which 1 are referred to" in told
    assert run(["gc", "--remote", "--json", "-w", str(home)]) == 0
    assert json.loads(capsys.readouterr().out)["held_count"] == 1
    assert run(["gc", "--with", str(home), "-w", str(home)]) == 2
    assert run(["gc", "--remote", "--purge-deleted", "-w", str(home)]) == 2
