"""A table of runs: items, columns, dicts, frames, and how it shows itself."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import runstone
from runstone import RunTable, Workspace

pytestmark = pytest.mark.usefixtures("place_of_index")


@pytest.fixture
def workspace(home: Path) -> Workspace:
    for number in range(3):
        with runstone.start_run(
            project="digits",
            name=f"run-{number}",
            params={"lr": 10.0**-number, "net": {"layers": [8, 8]}, "a.b": number, "<b>": "<i>"},
            tags={"<stage>": "dev"} if number else None,
            workspace=home,
            environment=False,
        ) as run:
            for step in range(5):
                run.log(
                    {"loss": 1.0 / (step + 1), "top 5": math.nan, **({"late": step} if number == 2 else {})}, step=step
                )
    return runstone.open_workspace(home)


def test_items_are_runs_read_from_their_files(workspace: Workspace) -> None:
    found = workspace.runs(order_by="name")
    assert isinstance(found, RunTable)
    assert [run.name for run in found] == ["run-0", "run-1", "run-2"]
    assert found[0].series("loss").value.tolist() == [1.0, 0.5, 1 / 3, 0.25, 0.2]
    assert found[-1].name == "run-2"
    assert [run.name for run in found[1:]] == ["run-1", "run-2"]
    with pytest.raises(IndexError):
        found[3]


def test_columns_are_those_that_hold_a_value(workspace: Workspace) -> None:
    assert workspace.runs().columns == [
        "id", "name", "project", "status", "started_at", "ended_at", "duration", "attempts",
        "params.lr", "params.net.layers", "params.a\\.b", "params.<b>",
        "metrics.late", "metrics.loss", "metrics.top 5", "tags.<stage>",
    ]  # fmt: skip


def test_dicts_hold_attributes_params_last_values_and_tags(workspace: Workspace) -> None:
    first = workspace.runs(order_by="name").to_dicts()[0]
    assert first["name"] == "run-0"
    assert first["status"] == "finished"
    assert first["params.net.layers"] == [8, 8]
    assert first["metrics.loss"] == 0.2
    assert math.isnan(first["metrics.top 5"])
    assert isinstance(first["started_at"], datetime)
    assert first["started_at"].utcoffset() == timedelta(0)
    assert "metrics.late" not in first


def test_a_frame_has_one_row_a_run_and_the_same_columns(workspace: Workspace) -> None:
    pandas = pytest.importorskip("pandas")
    found = workspace.runs(order_by="name")
    frame = found.to_pandas()
    assert list(frame.columns) == found.columns
    assert frame["params.lr"].tolist() == [1.0, 0.1, 0.01]
    assert frame["metrics.loss"].tolist() == [0.2] * 3
    assert frame["metrics.late"].isna().tolist() == [True, True, False]
    assert isinstance(frame["started_at"].dtype, pandas.DatetimeTZDtype)
    empty = workspace.runs("name = 'x'").to_pandas()
    assert len(empty) == 0


def test_a_column_is_a_field_or_a_name_of_a_column(workspace: Workspace) -> None:
    found = workspace.runs(order_by="name")
    assert found.values("metrics.loss.max") == [1.0, 1.0, 1.0]
    assert found.values("metrics.late") == [None, None, 4.0]
    assert found.values("params.a\\.b") == found.values("params.a.b") == found.values("params.'a.b'") == [0, 1, 2]
    assert found.values("params.net.layers") == [[8, 8]] * 3
    assert found.values("tags.<stage>") == [None, "dev", "dev"]
    with pytest.raises(runstone.InvalidFilter, match="unknown field"):
        found.values("nme")


def test_a_limit_cuts_the_table_and_the_total_tells(workspace: Workspace) -> None:
    found = workspace.runs(limit=2, order_by="name desc")
    assert [record.name for record in found.records] == ["run-2", "run-1"]
    assert (len(found), found.total) == (2, 3)
    assert (len(workspace.runs(limit=0)), workspace.runs(limit=0).total) == (0, 3)
    with pytest.raises(runstone.InvalidValue, match="limit"):
        workspace.runs(limit=-1)


def test_it_shows_itself_as_text(workspace: Workspace) -> None:
    found = workspace.runs(order_by="name", limit=2)
    lines = repr(found).splitlines()
    assert lines[0] == "RunTable: 2 runs of 3:"
    assert lines[1].split() == ["id", "name", "project", "status", "duration", "params.lr", "params.a\\.b"]
    assert lines[2].split()[1:4] == ["run-0", "digits", "finished"]
    assert repr(workspace.runs("name = 'x'")) == "RunTable: no runs"


def test_names_in_html_are_escaped(home: Path) -> None:
    with runstone.start_run(name="<script>alert(1)</script>", params={"<b>": "<i>"}, workspace=home, environment=False):
        pass
    html = runstone.open_workspace(home).runs()._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html


def test_a_run_removed_from_disk_after_the_question_is_not_found(workspace: Workspace) -> None:
    import shutil

    found = workspace.runs(order_by="name")
    shutil.rmtree(found[0].path)
    with pytest.raises(runstone.RunNotFound):
        found[0]


def test_a_table_becomes_arrow_and_parquet(workspace: Workspace, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    found = workspace.runs(order_by="name")
    table = found.to_arrow()
    assert table.column_names == found.columns
    kinds = {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)}
    assert kinds["params.lr"] == kinds["metrics.loss"] == kinds["duration"] == "double"
    assert kinds["params.a\\.b"] == kinds["attempts"] == "int64"
    assert kinds["started_at"] == "timestamp[us, tz=UTC]"
    assert table["params.net.layers"].to_pylist() == ["[8, 8]"] * 3
    assert table["metrics.late"].to_pylist() == [None, None, 4.0]
    path = tmp_path / "runs.parquet"
    found.to_parquet(path)
    written = pq.read_table(path)
    without_nan = [name for name in table.column_names if name != "metrics.top 5"]  # NaN equals nothing
    assert written.column_names == table.column_names
    assert written.select(without_nan).equals(table.select(without_nan))
    assert workspace.runs("name = 'x'").to_arrow().num_rows == 0


def test_columns_of_mixed_types_become_text(home: Path) -> None:
    for value in (1, "auto", True, 2**70, "\ud800"):
        with runstone.start_run(params={"x": value, "n": 2**70}, workspace=home, environment=False):
            pass
    table = runstone.open_workspace(home).runs(order_by="started_at").to_arrow()
    assert table["params.x"].to_pylist() == ["1", "auto", "true", str(2**70), "?"]
    assert table["params.n"].to_pylist() == [float(2**70)] * 5


def test_values_of_fields_beyond_the_record_are_asked_for(workspace: Workspace) -> None:
    found = workspace.runs(order_by="name desc")
    assert found.values("metrics.loss@1") == [0.5, 0.5, 0.5]
    assert found.values("metrics.late@2") == [2.0, None, None]
    assert found.values("count(metrics.*)") == [3, 2, 2]
    assert found.values("environment.gpu.name") == found.values("dataset") == [None] * 3
    assert found.values("pinned") == [False] * 3
    assert found[1:].values("metrics.late@2") == [None, None]
