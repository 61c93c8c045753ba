"""Runs in MLflow: what MLflow reads back is what was sent, and coming back from there they are what they were."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runstone
from runstone import RunstoneError
from runstone.importers import import_store
from runstone.mlflow_export import export_lines, export_to_mlflow
from runstone.mlflow_export.names import mlflow_names
from runstone.workspace import Workspace

from .conftest import interpreter_with


@given(st.lists(st.text(min_size=1, max_size=300), max_size=10))
def test_names_for_mlflow_are_legal_and_each_is_its_own(names: list[str]) -> None:
    import posixpath
    import re

    found = mlflow_names(names)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(set(names))
    for name in found.values():
        assert re.fullmatch(r"[/\w.\- ]{1,250}", name)
        assert posixpath.normpath(name) == name
        assert not name.startswith(("/", ".."))
        assert name != "."


def test_legal_names_stay_as_they_are() -> None:
    assert mlflow_names(["train/loss", "a b", "c"]) == {"train/loss": "train/loss", "a b": "a b", "c": "c"}
    assert mlflow_names(["a@b", "a=b", "a_b"]) == {"a_b": "a_b", "a@b": "a_b_2", "a=b": "a_b_3"}


def test_runs_in_mlflow_have_the_points_params_tags_and_files_that_were_sent(tmp_path: Path, home: Path) -> None:
    python = interpreter_with("mlflow")
    artifact = tmp_path / "weights.bin"
    artifact.write_bytes(b"some weights")
    params = {"lr": 0.1, "model": {"layers": [64, 32]}, "long": "y" * 9000, "odd @=[δ]": "x"}
    with runstone.start_run(
        project="digits", name="first näme", params=params, tags={"team": "vision"}, notes="# notes", environment=False
    ) as outer:
        for step in range(1500):
            outer.log({"loss": 1 / (step + 1), "MAP@k[δ=1.3]": step})
        outer.log({"odd": math.nan}, step=0)
        outer.log({"odd": -math.inf}, step=0)
        outer.log({"same": 1.0}, step=7)
        outer.log({"same": 1.0}, step=7)
        outer.log_text("note", "a text", step=3)
        outer.log_artifact(artifact)
    with runstone.start_run(project="digits", name="inner", parent=outer.id, environment=False) as inner:
        inner.log({"m": 1.0})
    workspace = runstone.open_workspace(home)
    infos = [workspace.run(inner.id), workspace.run(outer.id)]
    result = export_to_mlflow(infos, tmp_path / "out", python=python)
    assert [one.outcome for one in result.runs] == ["new", "new"]
    first = next(one for one in result.runs if one.run_id == outer.id)
    assert (first.points_out, first.points_held) == (3004, 3004)
    assert (first.params_out, first.params_held) == (3, 3)
    assert first.files_out == first.files_held
    assert first.not_carried["param of more than 6000 characters (whole in runstone/run.json)"] == 1
    assert any("read back by MLflow" in line for line in export_lines(result))
    again = export_to_mlflow(infos, tmp_path / "out", python=python)
    assert [one.outcome for one in again.runs] == ["unchanged", "unchanged"]
    assert [one.mlflow_id for one in again.runs] == [one.mlflow_id for one in result.runs]
    check_way_back(tmp_path, outer.id)


def check_way_back(tmp_path: Path, run_id: str) -> None:
    """Import what was exported into another workspace."""
    from runstone.workspace import ensure_workspace

    back = ensure_workspace(tmp_path / "back" / ".runstone")
    moved = shutil.move(tmp_path / "out", tmp_path / "moved")
    found = import_store(back, "mlflow", Path(moved))
    (one,) = [run for run in found.runs if run.name == "first näme"]
    (nested,) = [run for run in found.runs if run.name == "inner"]
    info = back.run(one.run_id)
    assert back.run(nested.run_id).parent == info.id
    assert info.tags["runstone.run_id"] == run_id
    assert (info.notes, info.tags["team"]) == ("# notes", "vision")
    assert info.params["lr"] == 0.1
    assert len(info.series("loss")) == 1500
    odd = sorted(info.series("odd").value.tolist(), key=math.isnan)
    assert odd[0] == -math.inf
    assert math.isnan(odd[1])
    assert len(info.series("same")) == 2
    told = {f"{a.name}/{entry.path}": entry.hash for a in info.artifacts for entry in a.files}
    assert back.blobs.read(told["artifacts/weights.bin"]) == b"some weights"
    names = json.loads(back.blobs.read(told["runstone/names.json"]))
    assert set(names) == {"odd @=[δ]", "MAP@k[δ=1.3]"}
    whole = json.loads(back.blobs.read(told["runstone/run.json"]))
    assert whole["params"]["long"] == "y" * 9000


def test_without_mlflow_it_is_said_what_to_install(workspace: Workspace, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\nexit 3\n")
    bare.chmod(0o755)
    with pytest.raises(RunstoneError, match="pip install mlflow"):
        export_to_mlflow([], tmp_path / "out", python=bare)


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(RunstoneError, match="the disk is on fire"):
        export_to_mlflow([], tmp_path / "out", python=broken)
