"""What released formats wrote stays readable, with the same answers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

import runstone
from runstone import Status

GOLDEN = sorted(path for path in Path(__file__).parent.glob("format-*") if path.is_dir())


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> runstone.Workspace:
    # a copy: reading makes an index, and the golden files must never change
    shutil.copytree(request.param, tmp_path / "golden")
    return runstone.Workspace(tmp_path / "golden")


def test_there_is_a_golden_workspace() -> None:
    assert [path.name for path in GOLDEN] == ["format-1", "format-1-sealed-2"]


def test_statuses_and_names(workspace: runstone.Workspace) -> None:
    found = {info.id: info.status for info in workspace.runs()}
    assert found == {
        "plain": Status.FINISHED,
        "resumed": Status.FINISHED,
        "failed": Status.FAILED,
        "crashed": Status.CRASHED,
        "sealed": Status.FINISHED,
    }
    assert [info.id for info in workspace.runs(deleted=True)] == ["deleted"]
    plain = workspace.run("plain, with 'quotes' and emoji 🎯")
    assert (plain.id, plain.project, plain.group, plain.notes) == ("plain", "golden ✓/../x", "g", "Two\nlines.")
    assert plain.tags == {"kind": "plain", "with space": "ü"}
    failure = workspace.run("failed").failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "bad input")


def test_params_and_points(workspace: runstone.Workspace) -> None:
    plain = workspace.run("plain")
    assert plain.params["lr"] == 0.1
    assert plain.params["$odd"] == {"$float": "text"}
    nested = plain.params["nested"]
    assert isinstance(nested, dict)
    assert nested["layers"] == [64, 32]
    assert isinstance(nested["gap"], float)
    assert math.isnan(nested["gap"])
    loss = plain.series("loss")
    assert loss.step.tolist() == [0, 1, 2, 3, 4, -3]
    assert loss.value[:5].tolist() == [1 / (step + 1) for step in range(5)]
    assert math.isnan(loss.value[5])
    assert plain.series("epoch").value.tolist() == [0, 1, 2, 3, 4]
    assert plain.series("is_best").value.tolist() == [False, False, False, False, True]
    assert plain.series("a/b c").value.tolist() == [math.inf] * 5
    assert plain.series("big").value.tolist() == [2**53 + 1]
    assert workspace.run("crashed").series("loss").step.tolist() == [7]
    assert workspace.run("sealed").series("loss").value.tolist() == [step / 3 for step in range(100)]


def test_texts_and_records(workspace: runstone.Workspace) -> None:
    plain = workspace.run("plain")
    assert plain.series("phase").value.tolist() == ["warm-up"]
    (histogram,) = plain.records("weights")
    assert (histogram.kind, histogram.step) == ("histogram", 1)
    assert histogram.metadata["counts"] == [1, 2]
    (text,) = plain.records("sample")
    assert text.read_text() == "long " * 20_000


def test_attempts(workspace: runstone.Workspace) -> None:
    resumed = workspace.run("resumed")
    assert [attempt.rewind_step for attempt in resumed.attempts] == [None, 3]
    assert resumed.series("loss").step.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert resumed.series("loss").value.tolist() == [0, 1, 2, 33, 34, 35, 36, 37]
    assert resumed.series("loss", attempt="all").step.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7]


def test_artifacts(workspace: runstone.Workspace) -> None:
    (artifact,) = workspace.run("plain").artifacts
    assert (artifact.name, artifact.metadata) == ("notes", {"kind": "text"})
    assert workspace.blobs.local_path(artifact.files[0].hash).read_text() == "content\n"
