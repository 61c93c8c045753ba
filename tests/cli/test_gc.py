"""`runstone gc`, `verify` and `blobs` as people and scripts use them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run


def log_file(tmp_path: Path, content: bytes) -> tuple[runstone.Run, Path]:
    (tmp_path / "model.bin").write_bytes(content)
    with runstone.start_run(environment=False, name="amber") as started:
        artifact = started.log_artifact(tmp_path / "model.bin")
    assert artifact is not None
    return started, started.workspace.blobs.local_path(artifact.files[0].hash)


def test_gc_says_who_holds_what_and_frees_what_nobody_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started, _path = log_file(tmp_path, bytes(2048))
    loose = started.workspace.blobs.local_path(started.workspace.blobs.put_bytes(b"x" * 1024, "x").hash)
    assert run(["gc", "--dry-run"]) == 0
    assert "kept: 1 file, 1.0 KiB, which nothing refers to yet" in capsys.readouterr().out
    os.utime(loose, (time.time() - 200_000,) * 2)
    assert run(["gc", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "amber" in told
    assert "2.0 KiB" in told
    assert "would free 1.0 KiB: 1 unused file (1.0 KiB)" in told
    assert loose.exists()
    assert run(["gc", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["freed_bytes"] == found["unused"]["bytes"] == 1024
    assert found["held"][0]["own_bytes"] == 2048
    assert not loose.exists()


def test_gc_purges_deleted_runs_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started, path = log_file(tmp_path, bytes(2048))
    started.workspace.delete(started.id)
    assert run(["gc", "--grace", "0s"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert path.exists()
    assert run(["gc", "--grace", "0s", "--purge-deleted", "--older-than", "30d"]) == 0
    assert path.exists()
    assert run(["gc", "--grace", "0s", "--purge-deleted"]) == 0
    assert "1 deleted run" in capsys.readouterr().out
    assert not path.exists()
    assert not started.path.exists()


def test_wrong_durations_and_options_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with runstone.start_run(environment=False):
        pass
    assert run(["gc", "--grace", "soon"]) == 2
    assert run(["gc", "--older-than", "3d"]) == 2
    assert "--purge-deleted" in capsys.readouterr().err


def test_verify_names_damage_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started, path = log_file(tmp_path, b"content")
    assert run(["verify"]) == 0
    assert "all as written" in capsys.readouterr().out
    path.chmod(0o644)
    path.write_bytes(b"c0ntent")
    assert run(["verify", "--blobs"]) == 1
    told = capsys.readouterr().out
    assert f"damaged: {path}" in told
    assert f"held by run amber ({started.id})" in told
    assert run(["verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["what"] == "damaged"


def test_push_sends_what_the_remote_store_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    _started, path = log_file(tmp_path, b"content")
    assert run(["blobs", "push"]) == 1
    assert "RUNSTONE_BLOBS" in capsys.readouterr().err
    monkeypatch.setenv("RUNSTONE_BLOBS", f"file://{tmp_path}/elsewhere")
    assert run(["blobs", "push", "--check"]) == 0
    assert "sent 1 file (7 B)" in capsys.readouterr().out
    assert (tmp_path / "elsewhere" / path.parent.name / path.name).read_bytes() == b"content"
    assert run(["blobs", "push"]) == 0
    assert "1 lay there already" in capsys.readouterr().out
