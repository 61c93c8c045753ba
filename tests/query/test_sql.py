"""SQL of users: what it answers, and that it can do nothing else."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
from pathlib import Path

import pytest

import runstone
from runstone import InvalidValue, Workspace
from runstone.index.sql import VIEWS
from runstone.query import SqlTable, select

DOCS = Path(__file__).parents[2] / "docs" / "sql.md"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = tmp_path_factory.mktemp("sql") / ".runstone"
    for number in range(3):
        with runstone.start_run(
            project="digits",
            name=f"run-{number}",
            params={"lr": 10.0**-number, "model": "mlp", "amp": True, "none": None, "a.b": {"c": [1]}},
            tags={"stage": "dev"},
            workspace=home,
            environment=False,
        ) as run:
            run.log({"loss": 1.0 + number, "bad": math.nan}, step=number)
            assert run._log is not None
            run._log.write("input", kind="dataset", name="loans", version="3", hash="ab", role="train", source=None)
            run._log.write("output", kind="model", name="churn", version="1.0.0", hash="cd", role=None, source=None)
            run._log.write(
                "artifact", name="w", folder=False, files=[{"path": "w", "hash": "e", "size": 7}], metadata={}
            )
            (run.path / f"environment.{run._log.writer.hex()}.json").write_text(json.dumps({"cpu": {"model": "X"}}))
    return runstone.open_workspace(home)


def rows(workspace: Workspace, statement: str) -> list[tuple[object, ...]]:
    return list(select(workspace.path, statement))


def test_views_answer_questions(workspace: Workspace) -> None:
    ids = [record.id for record in workspace.runs(order_by="name").records]
    assert rows(workspace, "select name, status, attempts, pinned, deleted from runs order by name limit 1") == [
        ("run-0", "finished", 1, 0, 0)
    ]
    assert rows(
        workspace, "select distinct name, kind, value from params where run_id = 'x' or name != 'lr' order by 1"
    ) == [
        ("a\\.b.c", "text", "[1]"),
        ("amp", "bool", 1),
        ("model", "text", "mlp"),
        ("none", "null", None),
    ]
    joined = """select r.id, p.value, m.min from runs r join params p on p.run_id = r.id and p.name = 'lr'
        join metrics m on m.run_id = r.id and m.name = 'loss' where p.value < 0.5 order by m.min"""
    assert rows(workspace, joined) == [(ids[1], 0.1, 2.0), (ids[2], 0.01, 3.0)]
    assert rows(workspace, "select last, min, count, nan_count from metrics where name = 'bad' limit 1") == [
        (None, None, 1, 1)
    ]
    assert rows(workspace, "select name, version, runs from datasets") == [("loans", "3", 3)]
    assert rows(workspace, "select name, version, hash, runs from models") == [("churn", "1.0.0", "cd", 3)]
    assert rows(workspace, "select direction, role from links where kind = 'dataset' limit 1") == [("input", "train")]
    assert rows(workspace, "select name, size_bytes, files from artifacts limit 1") == [("w", 7, 1)]
    assert rows(workspace, "select count(*), max(number) from attempts") == [(3, 1)]
    assert rows(workspace, "select count(*), max(value) from environment where name = 'cpu.model'") == [(3, "X")]
    assert rows(workspace, "select value from tags limit 1") == [("dev",)]
    assert rows(workspace, "with t as (select count(*) n from runs) select n + 1 from t") == [(4,)]
    assert rows(workspace, "select value from json_each('[1, 2]')") == [(1,), (2,)]
    (started,) = rows(workspace, "select started_at from runs limit 1")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(started))


def test_the_views_are_those_of_the_documentation(workspace: Workspace) -> None:
    text = DOCS.read_text()
    for view in VIEWS:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{view}` |")]
        told = re.findall(r"`([a-z_]+)`", line)[1:]
        assert select(workspace.path, f"select * from {view}").columns == told


def test_what_was_recorded_a_moment_ago_is_in_the_answer(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    for number in range(1, 3):
        with runstone.start_run(workspace=home, environment=False):
            pass
        assert rows(workspace, "select count(*) from runs") == [(number,)]


def content(workspace: Workspace) -> list[str]:
    """Return all that is in the file, but how its folders are watched."""
    connection = sqlite3.connect(workspace.path / "index.sqlite")
    try:
        connection.execute("UPDATE runs SET watch = 0, seen_at = 0")
        connection.execute("UPDATE state SET value = 0 WHERE name IN ('scanned_at', 'scan_s')")
        return list(connection.iterdump())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("insert into runs (id) values ('x')", "only SELECT"),
        ("delete from main.runs", "only SELECT"),
        ("update main.runs set name = 'x'", "only SELECT"),
        ("drop table main.runs", "only SELECT"),
        ("drop view runs", "only SELECT"),
        ("create table t (x)", "only SELECT"),
        ("create temp table t (x)", "only SELECT"),
        ("create temp trigger t after insert on main.runs begin select 1; end", "only SELECT"),
        ("attach '/tmp/x.db' as x", "only SELECT"),
        ("pragma query_only = off", "only SELECT"),
        ("pragma writable_schema = on", "only SELECT"),
        ("vacuum into '/tmp/x.db'", "only SELECT"),
        ("begin exclusive", "only SELECT"),
        ("reindex", "only SELECT"),
        ("select load_extension('x')", "'load_extension' cannot be used"),
        ("select zeroblob(1000000000)", "'zeroblob' cannot be used"),
        ("select printf('%.*c', 100000000, 'x')", "'printf' cannot be used"),
        ("select * from sqlite_master", "no table 'sqlite_master'"),
        ("select * from pragma_database_list", "only SELECT"),
        ("select * from absent", "there are runs, params"),
        ("select 1; delete from runs", "one statement"),
        ("select absent from runs", "no such column"),
        ("selec 1", "syntax error"),
        ("", "selects nothing"),
        ("-- nothing", "selects nothing"),
        ("select '\0'", "NUL"),
        ("select 1 -- " + "x" * 100_001, "characters"),
        ("select " + "(" * 500 + "1" + ")" * 500, "SQL:"),
        ("select " + ",".join(["1"] * 1000), "SQL:"),
        ("select ?", "SQL:"),
    ],
)
def test_nothing_but_reading_is_possible(workspace: Workspace, statement: str, words: str) -> None:
    before = content(workspace)
    with pytest.raises(InvalidValue, match=re.escape(words)):
        select(workspace.path, statement)
    assert content(workspace) == before
    assert not Path("/tmp/x.db").exists()


def test_statements_without_an_end_are_given_up(workspace: Workspace) -> None:
    began = time.monotonic()
    for statement in (
        "with recursive t(x) as (select 1 union all select x + 1 from t) select count(*) from t",
        "select count(*) from params a, params b, params c, params d, params e, params f, params g, params h, params i",
    ):
        with pytest.raises(InvalidValue, match=r"longer than 0\.2 s"):
            select(workspace.path, statement, time_limit_s=0.2)
    assert time.monotonic() - began < 20


def test_values_are_not_made_larger_than_memory_allows(workspace: Workspace) -> None:
    grow = "with recursive t(x) as (select 'a' union all select x || x from t) select length(max(x)) from t"
    with pytest.raises(InvalidValue, match="too big"):
        select(workspace.path, grow)


def test_rows_are_cut_and_that_is_told(workspace: Workspace) -> None:
    found = select(workspace.path, "select name from params", limit=4)
    assert (len(found), found.is_cut) == (4, True)
    assert not select(workspace.path, "select name from runs", limit=3).is_cut
    assert select(workspace.path, "select name from runs", limit=0).is_cut
    with pytest.raises(InvalidValue):
        select(workspace.path, "select 1", limit=-1)


def test_results_become_dicts_arrow_parquet_and_frames(workspace: Workspace, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    found = select(workspace.path, "select name, started_s, 1 as x, 2 as x, null as n from runs order by name")
    assert isinstance(found, SqlTable)
    assert found.columns == ["name", "started_s", "x", "x_2", "n"]
    assert found.to_dicts()[1]["name"] == found[1][0] == "run-1"
    table = found.to_arrow()
    assert table.column_names == found.columns
    assert [str(kind) for kind in table.schema.types] == ["string", "double", "int64", "int64", "null"]
    found.to_parquet(tmp_path / "runs.parquet")
    assert pq.read_table(tmp_path / "runs.parquet").to_pylist() == found.to_dicts()
    assert list(tmp_path.iterdir()) == [tmp_path / "runs.parquet"]
    pytest.importorskip("pandas")
    assert found.to_pandas()["x_2"].tolist() == [2, 2, 2]
    mixed = select(workspace.path, "select value from params where name in ('lr', 'model') order by kind, value")
    assert mixed.to_arrow()["value"].to_pylist()[:2] == ["0.01", "0.1"]


def test_where_the_index_cannot_be_written_sql_answers_all_the_same(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    with runstone.start_run(name="a", workspace=home, environment=False):
        pass
    (workspace.path / "index.sqlite").mkdir()
    assert rows(workspace, "select name from runs") == [("a",)]


def test_another_process_may_write_while_a_statement_reads(workspace: Workspace) -> None:
    writer = sqlite3.connect(workspace.path / "index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        connection = sqlite3.connect(f"file:{workspace.path / 'index.sqlite'}?mode=ro", uri=True)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        connection.close()
    finally:
        writer.execute("ROLLBACK")
        writer.close()
