"""Stores that the real tools wrote become runs, with everything that these say of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone import RunstoneError, Status
from runstone.importers import Import, detect, import_store
from runstone.importers.aim import runs_of
from runstone.importers.mlflow.common import param_value
from runstone.importers.writing import import_run, run_id_of
from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

from .conftest import GOLDEN, interpreter_with

LOSS = [1.0, 0.5, 0.3333333333333333, 0.25, 0.2]
ODD = [math.nan, math.inf, -math.inf]
PARAMS = {"lr": 0.1, "layers": [64, 32], "model": {"act": "relu", "width": 64}, "long": "y" * 5000, "odd näme": True}
Unpack = Callable[[str], Path]
Told = Callable[[str], dict[str, Any]]


def values(info: RunInfo, name: str) -> list[float]:
    return [float(value) for value in info.series(name).value.tolist()]


def same(left: list[float], right: list[float]) -> bool:
    return len(left) == len(right) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(left, right, strict=True)
    )


def named(workspace: Workspace, result: Import, name: str) -> RunInfo:
    (found,) = [one for one in result.runs if one.name == name]
    return workspace.run(found.run_id)


def check_counts(result: Import) -> None:
    assert result.troubles == []
    for one in result.runs:
        assert one.found == one.added == one.held, one.name


# --- W&B --------------------------------------------------------------------------------------------------------------


def test_offline_runs_of_wandb_become_runs(golden: Unpack, told: Told, workspace: Workspace) -> None:
    result = import_store(workspace, "wandb", golden("wandb"))
    check_counts(result)
    assert len(result.runs) == told("wandb")["runs"]
    info = named(workspace, result, "first näme")
    assert (info.project, info.group, info.notes) == ("digits", "g1", "some *notes*")
    assert info.params == PARAMS
    assert info.tags["baseline"] == info.tags["a b"] == "true"
    assert (info.tags["job_type"], info.tags["wandb.id"]) == ("train", told("wandb")["id"])
    assert info.status is Status.FAILED
    assert info.tags["exit_code"] == "3"
    assert values(info, "loss") == LOSS
    assert info.series("loss").step.tolist() == [0, 1, 2, 3, 4]
    assert info.series("big").value.tolist() == [2**60 + step for step in range(5)]
    assert info.series("ok").value.tolist() == [True, False, True, False, True]
    assert values(info, "nested.a.b") == [0, 1, 2, 3, 4]
    assert same(values(info, "odd @=[δ]"), ODD)
    assert values(info, "best") == [0.5]
    assert values(info, "summary/loss") == [0.1]
    assert any(name.startswith("system/wandb/") for name in info.metrics)


def test_times_of_wandb_are_kept(golden: Unpack, workspace: Workspace) -> None:
    info = named(workspace, import_store(workspace, "wandb", golden("wandb")), "first näme")
    start = info.started_at.timestamp()
    wall = info.series("loss").wall_s.tolist()
    assert all(start - 1 <= at <= start + 60 for at in wall)
    assert wall == sorted(wall)
    assert info.ended_at is not None
    assert info.ended_at > info.started_at


def test_media_and_files_of_wandb_are_kept(golden: Unpack, workspace: Workspace) -> None:
    info = named(workspace, import_store(workspace, "wandb", golden("wandb")), "first näme")
    (picture,) = info.records("img")
    assert (picture.kind, picture.format, picture.metadata) == (
        "image",
        "png",
        {"width": 4, "height": 4, "caption": "black"},
    )
    (histogram,) = info.records("hist")
    assert histogram.metadata["counts"] == [1, 0, 1, 3]
    (table,) = info.records("tab")
    assert (table.kind, table.metadata["rows"]) == ("table", 2)
    assert [one.text for one in info.records("text")] == ["hello wörld"]
    assert [one.text for one in info.records("alerts")] == ["title: alert text"]
    (files,) = [one for one in info.artifacts if one.name == "files"]
    assert {entry.path.rpartition("/")[2].split("_")[0] for entry in files.files} == {"html", "saved.txt"}
    assert [line.text for line in info.console()] == ["hello from the run"]
    environment = info.environment
    assert environment is not None
    assert {one["name"] for one in environment["packages"]["installed"]} >= {"wandb", "numpy"}


def test_artifacts_of_wandb_outside_of_the_store_are_told_not_read(golden: Unpack, workspace: Workspace) -> None:
    result = import_store(workspace, "wandb", golden("wandb"))
    (one,) = [run for run in result.runs if run.name == "first näme"]
    assert one.not_carried["file of an artifact outside of the store (--also-from takes it)"] == 2
    assert "ds" not in [artifact.name for artifact in workspace.run(one.run_id).artifacts]


def test_a_run_of_wandb_that_was_killed_keeps_its_points(golden: Unpack, told: Told, workspace: Workspace) -> None:
    info = named(workspace, import_store(workspace, "wandb", golden("wandb")), "killed")
    steps = info.series("loss").step.tolist()
    # what was in wandb's own memory went with it; what reached the file is all there
    assert 50 < len(steps) <= told("wandb")["killed_logged"]
    assert steps == list(range(len(steps)))
    assert info.status is Status.CRASHED
    assert info.ended_at is not None
    assert info.duration_s < 60


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlflow_db", "mlflow_folder"])
def test_stores_of_mlflow_hold_what_mlflow_reads_in_them(
    name: str, golden: Unpack, told: Told, workspace: Workspace
) -> None:
    expected = told(name)
    store = golden(name)
    assert detect(store) == "mlflow"
    result = import_store(workspace, "mlflow", store)
    check_counts(result)
    assert len(result.runs) == len(expected["runs"])
    words = {"FINISHED": Status.FINISHED, "FAILED": Status.FAILED}
    for mlflow_id, run in expected["runs"].items():
        info = workspace.run(run_id_of("mlflow", mlflow_id))
        assert (info.name, info.project, info.status) == (run["name"], "digits, odd: näme", words[run["status"]])
        assert info.is_deleted is (run["stage"] == "deleted")
        assert round(info.started_at.timestamp() * 1000) == run["start"]
        assert info.ended_at is not None
        assert round(info.ended_at.timestamp() * 1000) == run["end"]
        assert {key: str(value) for key, value in info.flat_params.items()} == run["params"]
        assert {key: text for key, text in info.tags.items() if key != "imported_from"} == run["tags"]
        assert set(info.metrics) == set(run["metrics"])
        for metric, points in run["metrics"].items():
            series = info.series(metric)
            infinite = [math.copysign(math.inf, p[2]) if abs(p[2]) > 1e308 else p[2] for p in points]
            ours = sorted(
                zip(
                    series.step.tolist(), series.wall_s.round(3).tolist(), map(repr, values(info, metric)), strict=False
                )
            )
            theirs = sorted(
                zip([p[0] for p in points], [p[1] / 1000 for p in points], map(repr, infinite), strict=False)
            )
            assert ours == theirs
        files = [
            f"{artifact.name}/{entry.path}" if artifact.is_folder else entry.path
            for artifact in info.artifacts
            for entry in artifact.files
        ]
        assert sorted(files) == sorted(run["artifacts"])
        assert [[link.name, link.version] for link in info.inputs] == run["inputs"]


@pytest.mark.parametrize("name", ["mlflow_db", "mlflow_folder"])
def test_registered_models_of_mlflow_become_models(name: str, golden: Unpack, told: Told, workspace: Workspace) -> None:
    result = import_store(workspace, "mlflow", golden(name))
    (one,) = result.models
    assert (one.found, one.added, one.held, one.aliases_found, one.aliases_held) == (2, 2, 2, 1, 1)
    model = workspace.models.get("odd model")
    assert model.state().notes == "what it is"
    assert model.state().tags == {"imported_from": "mlflow", "team": "x"}
    second, first = model.versions()
    assert (str(first.version), first.stage, first.notes) == ("1.0.0", "production", "v one")
    assert (first.tags["mlflow.version"], first.tags["q"]) == ("1", "1")
    assert (str(second.version), second.stage, second.aliases) == ("2.0.0", "none", ("champion",))
    assert model.find("champion").run_id == named(workspace, result, "outer").id
    manifest = json.loads(workspace.blobs.read(first.manifest))
    assert [entry["path"] for entry in manifest["files"]] == ["a.txt"]
    assert workspace.blobs.read(manifest["files"][0]["hash"]) == b"hello"


def test_nested_runs_of_mlflow_stay_nested(golden: Unpack, workspace: Workspace) -> None:
    result = import_store(workspace, "mlflow", golden("mlflow_db"))
    assert named(workspace, result, "inner").parent == named(workspace, result, "outer").id


def test_runs_that_mlflow_moved_from_a_folder_into_a_database_are_the_same(
    golden: Unpack, workspace: Workspace
) -> None:
    folder = golden("mlflow_folder")
    first = import_store(workspace, "mlflow", folder)
    moved = folder.with_name("moved")
    folder.rename(moved)
    again = import_store(workspace, "mlflow", moved / "mlruns")
    assert [one.run_id for one in again.runs] == [one.run_id for one in first.runs]
    assert {one.outcome for one in again.runs} == {"unchanged"}


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), ("64", 64), ("True", True), ("None", None), ("1e3", "1e3"), ("007", "007")]
)
def test_params_of_mlflow_get_the_type_that_writes_them_the_same_way(text: str, value: object) -> None:
    assert param_value(text) == value
    assert str(param_value(text)) == text


# --- the others -------------------------------------------------------------------------------------------------------


def test_projects_of_trackio_become_runs(golden: Unpack, told: Told, workspace: Workspace) -> None:
    store = golden("trackio") / "trackio"
    assert detect(store) == "trackio"
    result = import_store(workspace, "trackio", store)
    check_counts(result)
    assert len(result.runs) == told("trackio")["runs"]
    info = named(workspace, result, "first näme")
    assert (info.project, info.group, info.params) == ("digits", "g1", PARAMS)
    assert values(info, "loss") == LOSS
    assert values(info, "train/acc") == [0, 1, 2, 3, 4]
    assert same(values(info, "odd @=[δ]"), ODD)
    assert info.series("nested/a").step.tolist() == [100]
    assert {name: info.records(name)[0].kind for name in info.record_names} == {
        "alerts": "text",
        "hist": "histogram",
        "img": "image",
        "tab": "table",
        "text": "text",
    }
    (artifact,) = named(workspace, result, "second").artifacts
    assert workspace.blobs.read(artifact.files[0].hash) == b"some data"
    waiting = named(workspace, result, "third")
    assert (waiting.project, waiting.params) == ("waiting", {"lr": 1})
    assert same(values(waiting, "loss"), [math.nan])


def test_folders_of_dvclive_become_runs(golden: Unpack, workspace: Workspace) -> None:
    store = golden("dvclive")
    assert detect(store) == "dvclive"
    result = import_store(workspace, "dvclive", store, project="digits")
    check_counts(result)
    info = named(workspace, result, "dvclive")
    assert (info.project, info.params) == ("digits", PARAMS)
    assert values(info, "train/loss") == LOSS
    assert all(at > 1.7e9 for at in info.series("train/loss").wall_s)
    assert same(values(info, "odd @=[δ]"), ODD)
    assert info.records("pic.png")[0].kind == "image"
    (artifact,) = info.artifacts
    assert [entry.path for entry in artifact.files] == ["plots/sklearn/confusion_matrix.json"]


def test_offline_sessions_of_clearml_become_runs(golden: Unpack, told: Told, workspace: Workspace) -> None:
    store = golden("clearml") / "session.zip"
    assert detect(store) == "clearml"
    result = import_store(workspace, "clearml", store)
    check_counts(result)
    info = named(workspace, result, "first näme")
    assert (info.project, info.notes, info.tags["clearml.id"]) == ("digits", "some notes", told("clearml")["id"])
    assert info.tags["base"] == "true"
    flat = info.flat_params
    assert (flat["lr"], flat["long"], flat["layers"]) == (0.1, "y" * 5000, [64, 32])
    assert values(info, "loss/train") == LOSS
    assert values(info, "final") == [0.5]
    assert info.records("img/black")[0].kind == "image"
    assert info.records("h/s")[0].format == "plotly.json"
    assert "a printed line" in [line.text for line in info.console()]
    contents = {one.name: workspace.blobs.read(one.files[0].hash) for one in info.artifacts}
    assert contents["file"] == b"some data"
    assert json.loads(contents["data"]) == {"x": 1}


def test_exports_of_neptune_become_runs(golden: Unpack, workspace: Workspace) -> None:
    store = golden("neptune") / "exports"
    assert detect(store) == "neptune"
    result = import_store(workspace, "neptune", store)
    check_counts(result)
    assert all(one.not_carried == {} for one in result.runs)
    parent, child = sorted(
        (workspace.run(one.run_id) for one in result.runs), key=lambda info: "sys/forking/parent" in info.tags
    )
    assert child.parent == parent.id
    assert parent.project == "org/digits"
    assert parent.params == {"params": {"lr": 0.1, "width": 64, "long": "y" * 5000}}
    assert parent.tags["baseline"] == "true"
    assert same(values(parent, "metrics/train/loss"), [*LOSS, *ODD])
    # steps of a half: all steps of the run count twice
    assert parent.tags["import.step_multiplier"] == "10"
    assert parent.series("metrics/train/loss").step.tolist() == [number * 5 for number in range(8)]
    assert parent.records("hist")[0].metadata["counts"] == [3, 4]
    assert [line.text for line in parent.console()] == ["a line"]
    (artifact,) = parent.artifacts
    assert workspace.blobs.read(artifact.files[0].hash) == b"some data"


def check_aim(workspace: Workspace, run_id: str) -> None:
    info = workspace.run(run_id)
    assert (info.name, info.project, info.notes, info.tags["baseline"]) == (
        "first näme",
        "digits",
        "some notes",
        "true",
    )
    assert info.params["hparams"] == PARAMS
    assert values(info, "train/loss") == LOSS
    assert values(info, 'loss {"fold": 1, "subset": "val"}') == [value / 2 for value in LOSS]
    assert same(values(info, "odd @=[δ]"), ODD)
    assert {name: info.records(name)[0].kind for name in info.record_names} == {
        "dist": "histogram",
        "img": "image",
        "text": "text",
    }
    assert "a printed line" in [line.text for line in info.console()]
    assert info.status is Status.FINISHED


def test_what_aim_says_of_a_repository_becomes_runs(told: Told, workspace: Workspace, tmp_path: Path) -> None:
    events = [json.loads(line) for line in (GOLDEN / "aim.jsonl").read_bytes().splitlines()]
    for found in runs_of(events, "a repository", lambda _run: {}):
        one = import_run(workspace, tmp_path, "aim", found, project="digits")
        assert one.found == one.added == one.held
        assert one.run_id == run_id_of("aim", told("aim")["hash"])
        check_aim(workspace, one.run_id)


def test_a_repository_of_aim_is_read_by_aim_on_a_copy(golden: Unpack, workspace: Workspace) -> None:
    python = interpreter_with("aim")
    store = golden("aim")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    (one,) = import_store(workspace, "aim", store, python=python).runs
    check_aim(workspace, one.run_id)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    (again,) = import_store(workspace, "aim", store, python=python).runs
    assert again.outcome == "unchanged"


def test_without_aim_it_is_said_what_to_install(golden: Unpack, workspace: Workspace, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\nexit 3\n")
    bare.chmod(0o755)
    with pytest.raises(RunstoneError, match="pip install aim"):
        import_store(workspace, "aim", golden("aim"), python=str(bare))


# --- again ------------------------------------------------------------------------------------------------------------

ALL = ["wandb", "mlflow_db", "mlflow_folder", "trackio/trackio", "dvclive", "clearml", "neptune/exports"]


@pytest.mark.parametrize("name", ALL)
def test_importing_again_changes_nothing(name: str, golden: Unpack, workspace: Workspace) -> None:
    base, _slash, below = name.partition("/")
    store = golden(base) / below
    tool = detect(store)
    first = import_store(workspace, tool, store)
    files = {path: path.stat().st_mtime_ns for path in workspace.path.rglob("runs/*/*/*")}
    again = import_store(workspace, tool, store)
    assert {one.outcome for one in again.runs} == {"unchanged"}
    assert [one.held for one in again.runs] == [one.held for one in first.runs]
    assert [one.not_carried for one in again.runs] == [one.not_carried for one in first.runs]
    assert {path: path.stat().st_mtime_ns for path in workspace.path.rglob("runs/*/*/*")} == files


@pytest.mark.parametrize("name", ALL)
def test_reading_a_store_anew_adds_nothing_twice(
    name: str, golden: Unpack, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _slash, below = name.partition("/")
    store = golden(base) / below
    tool = detect(store)
    first = import_store(workspace, tool, store)
    monkeypatch.setattr("runstone.importers.writing._READING", 2)  # as by a later version, which reads all again
    again = import_store(workspace, tool, store)
    assert {one.outcome for one in again.runs} == {"unchanged"}
    assert all(not any(vars_of(one.added)) for one in again.runs)
    assert [one.held for one in again.runs] == [one.held for one in first.runs]


def vars_of(counts: object) -> list[int]:
    return [getattr(counts, name) for name in ("params", "tags", "points", "media", "files", "lines", "links")]


@pytest.mark.parametrize("name", ALL)
def test_a_dry_run_counts_the_same_and_writes_nothing(name: str, golden: Unpack, workspace: Workspace) -> None:
    base, _slash, below = name.partition("/")
    store = golden(base) / below
    tool = detect(store)
    dry = import_store(workspace, tool, store, is_dry=True)
    assert list(workspace.run_folders()) == []
    assert list(workspace.models) == []
    real = import_store(workspace, tool, store)
    assert [(one.run_id, one.found) for one in dry.runs] == [(one.run_id, one.found) for one in real.runs]
