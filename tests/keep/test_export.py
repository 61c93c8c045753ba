"""Runs as files that other tools read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import runstone
from runstone.cli.main import run as call
from tests.keep.conftest import Record


@pytest.fixture
def odd(workspace: runstone.Workspace) -> str:
    """A run with all kinds of points."""
    with runstone.start_run(
        project="digits", name="odd", params={"a": {"b": [1, float("inf")]}}, workspace=workspace, environment=False
    ) as run:
        run.log({"loss": 1.5, "big": 2**60 + 1, "ok": True, "word": "häus"}, step=0)
        run.log({"loss": float("nan"), "big": -1, "ok": False}, step=1)
        run.log({"loss": float("-inf")}, step=2)
    return run.id


def test_json_holds_all_of_a_run_and_every_parser_reads_it(
    workspace: runstone.Workspace, odd: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    assert call(["export", "odd", "--json", "-o", str(file)]) == 0
    told = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told["format"] == 1
    assert (told["id"], told["name"], told["params"]) == (odd, "odd", {"a": {"b": [1, "inf"]}})
    assert told["points"]["loss"]["step"] == [0, 1, 2]
    assert told["points"]["loss"]["value"] == [1.5, "nan", "-inf"]
    assert told["points"]["big"]["value"] == [2**60 + 1, -1]
    assert told["points"]["ok"]["value"] == [True, False]
    assert told["records"]["word"][0]["text"] == "häus"
    assert len(told["points"]["loss"]["time"]) == 3


def test_several_runs_chosen_by_a_filter_become_a_file_each(
    workspace: runstone.Workspace, record: Record, tmp_path: Path
) -> None:
    record("amber", points=7)
    archived = record("brass/../x", points=5)
    workspace.archive(archived)
    for form, ending in (("--parquet", "parquet"), ("--csv", "csv"), ("--json", "json")):
        assert call(["export", "-f", "project = 'digits'", form, "-o", str(tmp_path / ending)]) == 0
        assert len(list((tmp_path / ending).glob(f"*.{ending}"))) == 2
        assert not list((tmp_path / ending).glob("*.partial"))
    tables = [pq.read_table(path) for path in (tmp_path / "parquet").iterdir()]
    assert sorted(table.num_rows for table in tables) == [10, 14]
    rows = [len(list(csv.DictReader(io.StringIO(path.read_text())))) for path in (tmp_path / "csv").iterdir()]
    assert sorted(rows) == [10, 14]


def test_event_files_come_back_as_the_same_run(workspace: runstone.Workspace, record: Record, tmp_path: Path) -> None:
    run_id = record(points=30)
    assert call(["export", run_id, "--tensorboard", "-o", str(tmp_path / "logs")]) == 0
    assert list((tmp_path / "logs").rglob("*tfevents*"))
    assert call(["-w", str(tmp_path / "back"), "import", "tensorboard", str(tmp_path / "logs")]) == 0
    (folder,) = runstone.Workspace(tmp_path / "back").run_folders()
    assert runstone.RunInfo(folder).series("loss").step.tolist() == list(range(30))


def test_a_command_line_that_names_nothing_or_two_things_is_told(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber")
    assert call(["export"]) == 2
    assert call(["export", "amber", "-f", ""]) == 2
    assert call(["export", "-f", "name = 'nobody'"]) == 2
    assert call(["export", "amber", "--csv", "--no-content"]) == 2
    capsys.readouterr()


def test_mlflow_is_asked_of_the_interpreter_that_is_named(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber")
    out = str(tmp_path / "mlflow")
    assert call(["export", "amber", "--mlflow", "-o", out, "--python", str(tmp_path / "nothing")]) == 1
    assert "error:" in capsys.readouterr().err
    assert call(["export", "amber", "--csv", "--python", "python"]) == 2
    capsys.readouterr()
