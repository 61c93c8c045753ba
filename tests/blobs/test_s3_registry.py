"""Datasets and models of a workspace whose content lies in S3 only: sent, fetched, checked out, served, verified."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.cli.main import run as cli
from runstone.serving.exporting import export_model
from runstone.workspace import Workspace, ensure_workspace
from tests.blobs.test_checkpoints import safetensors_file
from tests.s3 import Bucket, bucket, s3_proxy

pytest.importorskip("sklearn")
pytest.importorskip("skops")
from tests.serving.test_process import asked, running

__all__ = ["bucket", "s3_proxy"]
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = [[1.0, 2.0, 3.0, 4.0], [-1.0, 0.5, 0.0, 2.0]]


def neighbours() -> Any:
    """Return a model that is too large to stay when room is made."""
    from sklearn.neighbors import KNeighborsRegressor

    random = np.random.default_rng(3)
    return KNeighborsRegressor(algorithm="brute").fit(random.normal(size=(20_000, 4)), random.normal(size=20_000))


def give_back(home: Workspace) -> None:
    """Let the store have everything, and nothing large stay here."""
    assert cli(["blobs", "push", "-w", str(home.path)]) == 0
    for name, _status in list(home.blobs.objects()):
        before = time.time() - 86_400
        os.utime(home.blobs.object_path(name), (before, before))
    assert cli(["blobs", "trim", "-w", str(home.path)]) == 0
    assert all(status.st_size < 256 << 10 for _name, status in home.blobs.objects())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images.bin").write_bytes(os.urandom(600_000))
    (folder / "labels.csv").write_text("x,y\n1,2\n")
    return folder


@pytest.fixture
def home(bucket: Bucket, tmp_path: Path, data: Path) -> Workspace:
    """A workspace with a dataset and a model, of which only what is small lies here."""
    made = ensure_workspace(tmp_path / "home")
    (made.path / "settings.json").write_text(json.dumps({"blobs": bucket.url}))
    assert cli(["data", "add", str(data), "--name", "digits", "-w", str(made.path)]) == 0
    with runstone.start_run(project="p", workspace=made, environment=False) as run:
        run.log_model(neighbours(), name="near", example=np.array(ROWS))
        run.log_artifact(data / "images.bin", name="images")
    give_back(made)
    return made


def same_data(folder: Path, data: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in data.iterdir()
    }


def at(workspace: Workspace) -> list[str]:
    return ["-w", str(workspace.path)]


def test_a_dataset_goes_to_a_folder_and_comes_from_there(home: Workspace, data: Path, tmp_path: Path) -> None:
    assert cli(["data", "push", "--to", str(tmp_path / "there"), *at(home)]) == 0
    other = ensure_workspace(tmp_path / "other")
    assert cli(["data", "pull", "--from", str(tmp_path / "there"), *at(other)]) == 0
    assert other.blobs.remote is None
    assert cli(["data", "checkout", "digits", str(tmp_path / "out"), *at(other)]) == 0
    same_data(tmp_path / "out", data)


def test_a_dataset_goes_to_the_store_that_has_its_content_already(
    home: Workspace, bucket: Bucket, data: Path, tmp_path: Path
) -> None:
    images = next(content for content, size in bucket.contents().items() if size == 600_000)
    bucket.proxy.seen.clear()
    assert cli(["data", "push", *at(home)]) == 0
    asked_for = [one for one in bucket.proxy.seen if images in str(one)]
    assert asked_for
    assert {one[0] for one in asked_for} == {"HEAD"}, "what lies there was fetched to be sent there"
    other = ensure_workspace(tmp_path / "other")
    (other.path / "settings.json").write_text(json.dumps({"blobs": bucket.url}))
    assert cli(["data", "pull", *at(other)]) == 0
    assert cli(["data", "checkout", "digits", str(tmp_path / "out"), *at(other)]) == 0
    same_data(tmp_path / "out", data)


@pytest.mark.parametrize("way", ["push", "pull"])
def test_runs_datasets_and_models_come_to_a_workspace_without_that_store(
    home: Workspace, data: Path, tmp_path: Path, way: str
) -> None:
    other = ensure_workspace(tmp_path / "other")
    what = ["-d", "*", "-m", "*", "-r", ""]
    command = (
        ["push", str(other.path), *what, *at(home)] if way == "push" else ["pull", str(home.path), *what, *at(other)]
    )
    assert cli(command) == 0
    assert other.blobs.remote is None
    assert cli(["verify", *at(other)]) == 0
    assert cli(["models", "verify", *at(other)]) == 0
    assert cli(["data", "verify", *at(other)]) == 0
    assert cli(["data", "checkout", "digits", str(tmp_path / "out"), *at(other)]) == 0
    same_data(tmp_path / "out", data)
    (run,) = other.runs()
    kept = run.artifacts[0].files[0]
    assert other.blobs.read(kept.hash) == (data / "images.bin").read_bytes()


def test_a_dataset_is_checked_out_and_a_model_loaded_copied_exported(
    home: Workspace, data: Path, tmp_path: Path
) -> None:
    assert cli(["data", "checkout", "digits", str(tmp_path / "out"), *at(home)]) == 0
    same_data(tmp_path / "out", data)
    expected = neighbours().predict(ROWS).tolist()
    assert runstone.load_model("near@1.0.0", workspace=home).predict(np.array(ROWS)).tolist() == expected
    give_back(home)
    export_model(home, "near@1.0.0", tmp_path / "exported")
    assert sum(path.stat().st_size for path in (tmp_path / "exported").rglob("*")) > 500_000
    give_back(home)
    other = ensure_workspace(tmp_path / "other")
    assert cli(["models", "copy", "near@1.0.0", "--to", str(other.path), *at(home)]) == 0
    assert runstone.load_model("near@1.0.0", workspace=other).predict(np.array(ROWS)).tolist() == expected


def test_a_model_is_served(home: Workspace, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("runstone"))
    command = [program, *at(home), "models", "serve", "near@1.0.0", "--port", "0"]
    with running(command, tmp_path) as (url, _process):
        answer = asked(f"{url}/predict", {"inputs": ROWS})
    assert answer["predictions"] == pytest.approx(neighbours().predict(ROWS).tolist())


def test_a_bundle_holds_what_lies_there_only(home: Workspace, data: Path, tmp_path: Path) -> None:
    (run,) = home.runs()
    assert cli(["export", run.id, "--bundle", "-o", str(tmp_path / "b.runstone.zip"), *at(home)]) == 0
    other = ensure_workspace(tmp_path / "other")
    assert cli(["import", "bundle", str(tmp_path / "b.runstone.zip"), *at(other)]) == 0
    (came,) = other.runs()
    assert other.blobs.read(came.artifacts[0].files[0].hash) == (data / "images.bin").read_bytes()


# --- verify -----------------------------------------------------------------------------------------------------------


def verified(home: Workspace, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli(["verify", "--json", *options, *at(home)])
    return code, json.loads(capsys.readouterr().out)


def test_verify_says_what_it_did_not_read_and_reads_it_where_asked(
    home: Workspace, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {name for name, _status in home.blobs.objects()}
    away = {name: size for name, size in bucket.contents().items() if name not in here}
    assert away
    code, told = verified(home, capsys)
    assert (code, told["problems"]) == (0, [])
    assert (told["remote"]["not_read"], told["remote"]["files"]) == (len(away), 0)
    assert cli(["verify", *at(home)]) == 0
    said = capsys.readouterr().out
    assert f"not read: {len(away)} files of content" in said
    assert bucket.url in said
    assert "--remote" in said
    code, told = verified(home, capsys, "--remote")
    assert (code, told["problems"]) == (0, [])
    assert told["remote"] == {
        "store": bucket.url,
        "files": len(away),
        "bytes": sum(away.values()),
        "not_read": 0,
    }
    assert {name for name, _status in home.blobs.objects()} == here, "what was read there does not stay here"


def test_verify_finds_what_is_damaged_or_gone_there(
    home: Workspace, bucket: Bucket, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = home.runs()
    content = run.artifacts[0].files[0].hash
    bucket.put(content, bytes(600_000))
    assert verified(home, capsys)[0] == 0  # its size is right, and nobody asked for more
    code, told = verified(home, capsys, "--remote")
    (problem,) = told["problems"]
    assert (code, problem["what"]) == (1, "damaged")
    assert problem["path"] == f"{bucket.url}/{content[:2]}/{content}"
    assert any(run.id in holder for holder in problem["holders"])
    bucket.files.rm(f"{bucket.name}/store/{content[:2]}/{content}")
    for options in ((), ("--remote",)):
        code, told = verified(home, capsys, *options)
        assert (code, [(one["what"], one["path"]) for one in told["problems"]]) == (1, [("missing", content)])


def test_verify_knows_parts_that_lie_there_only(
    home: Workspace, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors_file(tmp_path / "c.safetensors", {"x": os.urandom(2 << 20), "y": os.urandom(3 << 20)})
    with runstone.start_run(project="p", workspace=home, environment=False) as run:
        artifact = run.log_artifact(tmp_path / "c.safetensors")
    assert artifact is not None
    recipe = home.blobs.find_recipe(artifact.files[0].hash)
    assert recipe is not None
    give_back(home)
    (part, *_others) = [one for one in recipe.hashes if not home.blobs.object_path(one).exists()]
    for options in ((), ("--remote",)):
        assert verified(home, capsys, *options)[1]["problems"] == []
    bucket.put(part, b"x" * len(bucket.data(part)))
    (problem,) = verified(home, capsys, "--remote")[1]["problems"]
    assert problem["path"].endswith(part)
    bucket.files.rm(f"{bucket.name}/store/{part[:2]}/{part}")
    (problem,) = verified(home, capsys)[1]["problems"]
    assert "missing" in problem["reason"]


def test_verify_needs_a_store_to_read_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = ensure_workspace(tmp_path / "alone")
    assert cli(["verify", "--remote", *at(alone)]) == 1
    assert "RUNSTONE_BLOBS" in capsys.readouterr().err
