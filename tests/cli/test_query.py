"""The list of runs in other forms and by other fields, and SQL at the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run


@pytest.fixture
def home(home: Path) -> Path:
    for number in range(3):
        with runstone.start_run(
            name=f"run-{number}", params={"lr": 10.0**-number}, workspace=home, environment=False
        ) as started:
            for step in range(3):
                started.log({"loss": number + 1 / (step + 1)}, step=step)
    return home


def output(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def listed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output("runs", "list", "--csv", *arguments, capsys=capsys))))


def test_any_field_is_a_column_and_an_order(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(
        "metrics.loss@1 > 0 and started_at > now() - 1h",
        "--order-by",
        "metrics.loss@1 desc",
        "--columns",
        "name, metrics.loss@1, count(metrics.*), environment.cpu.model, pinned",
        capsys=capsys,
    )
    assert rows[0] == {
        "name": "run-2",
        "metrics.loss@1": "2.5",
        "count(metrics.*)": "1",
        "environment.cpu.model": "",
        "pinned": "false",
    }
    assert [row["name"] for row in rows] == ["run-2", "run-1", "run-0"]


def test_a_plain_list_shows_what_was_asked_about(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = output("runs", "list", "metrics.loss@1 < 2 and count(metrics.*) = 1", capsys=capsys).splitlines()
    assert "metrics.loss@1" in header
    assert "count(metrics.*)" in header
    assert len(rows) == 2


def test_a_list_becomes_a_parquet_file(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    assert output("runs", "list", "--order-by", "name", "--parquet", str(tmp_path / "all.parquet"), capsys=capsys) == ""
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["name"].to_pylist() == ["run-0", "run-1", "run-2"]
    assert table["params.lr"].to_pylist() == [1.0, 0.1, 0.01]
    chosen = ("--columns", "name, metrics.loss.max", "--parquet", str(tmp_path / "some.parquet"))
    output("runs", "list", "params.lr < 1", *chosen, capsys=capsys)
    assert pq.read_table(tmp_path / "some.parquet").column_names == ["name", "metrics.loss.max"]
    assert run(["runs", "list", "--csv", "--parquet", str(tmp_path / "x")]) == 2
    capsys.readouterr()


def test_archived_runs_are_listed_where_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = runstone.open_workspace(home)
    workspace.archive(workspace.runs("name = 'run-1'").records[0].id)
    assert [row["name"] for row in listed("--order-by", "name", capsys=capsys)] == ["run-0", "run-2"]
    (row,) = listed("--archived", capsys=capsys)
    assert (row["name"], row["archived"]) == ("run-1", "true")
    output("runs", "list", "--archived", "name = 'x'", capsys=capsys)


def test_sql_prints_a_table_json_csv_and_parquet(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    statement = "select name, min as low from runs join metrics on run_id = id where name = 'loss' order by min"
    statement = statement.replace("select name", "select runs.name").replace("where name", "where metrics.name")
    header, first, *_rest = output("sql", statement, capsys=capsys).splitlines()
    assert header.split() == ["name", "low"]
    assert first.split() == ["run-0", "0.333333"]
    assert json.loads(output("sql", statement, "--json", capsys=capsys))[0] == {"name": "run-0", "low": 1 / 3}
    assert output("sql", statement, "--csv", "-n", "1", capsys=capsys) == "name,low\nrun-0,0.3333333333333333\n"
    output("sql", statement, "--parquet", str(tmp_path / "x.parquet"), capsys=capsys)
    assert pq.read_table(tmp_path / "x.parquet")["name"].to_pylist() == ["run-0", "run-1", "run-2"]


def test_what_sql_cannot_do_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "only SELECT" in output("sql", "delete from runs", capsys=capsys, code=2)
    assert "there are runs, params" in output("sql", "select * from experiments", capsys=capsys, code=2)
    assert run(["sql", "select 1 union select 2", "-n", "1"]) == 0
    assert "only the first 1 row" in capsys.readouterr().err
