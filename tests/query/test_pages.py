"""Windows of columns, groups, fields, completion: what the page and the server ask."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import InvalidFilter, InvalidValue, Workspace
from runstone.index.opening import open_index
from runstone.query import OpenIndex, changes, complete, fields, page_of_runs
from runstone.query.pages import ALWAYS

pytestmark = pytest.mark.usefixtures("place_of_index")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    home = tmp_path_factory.mktemp("pages") / ".runstone"
    for number in range(6):
        with runstone.start_run(
            project="digits",
            name=f"run-{number}",
            group="even" if number % 2 == 0 else None,
            params={"lr": 10.0**-number, "model": ["mlp", "cnn"][number % 2], "a b": [1, 2], "seed": number},
            tags={"stage": "dev"} if number < 3 else None,
            workspace=home,
            environment=False,
        ) as run:
            for step in range(3):
                run.log({"loss": number + 1 / (step + 1), "val acc": 0.5, "x.max": 1.0}, step=step * 10)
            if number == 5:
                run.log({"late": math.nan})
            snapshot: dict[str, Any] = {
                "gpu": {"devices": [{"name": "H100"}, {"name": f"T{number}"}]},
                "cpu": {"n": number},
            }
            snapshot["packages"] = {"installed": [{"name": "ruamel.yaml", "version": "1"}]}
            assert run._log is not None
            (run.path / f"environment.{run._log.writer.hex()}.json").write_text(json.dumps(snapshot))
    return runstone.open_workspace(home)


@pytest.fixture
def index(workspace: Workspace) -> Iterator[OpenIndex]:
    with OpenIndex(workspace.path) as index:
        yield index


def names(index: OpenIndex, filter: str = "", **options: Any) -> list[Any]:
    return index.page_of_runs(filter, **options).columns["name"]


def test_a_page_is_a_window_of_columns(index: OpenIndex) -> None:
    asked = ["metrics.loss.min", "metrics.loss@10", "params.lr", "params.'a b'", "tags.stage", "count(metrics.*)"]
    page = index.page_of_runs("params.lr < 1", order_by="metrics.loss.min", offset=1, limit=3, columns=asked)
    assert page.total == 5
    assert page.columns["name"] == ["run-2", "run-3", "run-4"]
    assert list(page.columns) == [*ALWAYS, *asked]
    assert page.columns["id"] == list(page.ids)
    assert page.columns["metrics.loss.min"] == [2 + 1 / 3, 3 + 1 / 3, 4 + 1 / 3]
    assert page.columns["metrics.loss@10"] == [2.5, 3.5, 4.5]
    assert page.columns["params.'a b'"] == ["[1, 2]"] * 3
    assert page.columns["tags.stage"] == ["dev", None, None]
    assert page.columns["group"] == ["even", None, "even"]
    assert page.columns["count(metrics.*)"] == [3, 3, 3]
    assert page.columns["pinned"] == [False] * 3
    assert all(isinstance(moment, float) for moment in page.columns["started_at"])
    assert index.page_of_runs(offset=100).ids == ()
    assert index.page_of_runs(limit=0).total == 6


def test_values_keep_their_types_and_several_become_a_list(index: OpenIndex) -> None:
    page = index.page_of_runs(
        order_by="name",
        columns=["params.seed", "metrics.late", "metrics.loss.count", "environment.gpu.name", "environment.gpu.1.name"],
    )
    assert page.columns["params.seed"] == [0, 1, 2, 3, 4, 5]
    assert all(type(seed) is int for seed in page.columns["params.seed"])
    assert page.columns["metrics.late"][:5] == [None] * 5
    assert math.isnan(page.columns["metrics.late"][5])
    assert page.columns["metrics.loss.count"] == [3] * 6
    assert page.columns["environment.gpu.name"][2] == ["H100", "T2"]
    assert page.columns["environment.gpu.1.name"][2] == "T2"


def test_everything_can_be_sorted_by(index: OpenIndex) -> None:
    ascending = [f"run-{number}" for number in range(6)]
    fields = (
        "metrics.loss",
        "metrics.loss@20",
        "environment.cpu.n",
        "name",
        "started_at",
        "params.seed",
        "environment.gpu.1.name",
    )
    for field in fields:
        assert names(index, order_by=field) == ascending, field
        assert names(index, order_by=f"{field} desc") == ascending[::-1], field
    assert names(index, order_by="count(metrics.*) desc, name")[:2] == ["run-5", "run-0"]
    assert names(index, order_by="tags.stage, params.seed desc") == [f"run-{n}" for n in (2, 1, 0, 5, 4, 3)]


def test_groups_have_figures_of_their_columns(index: OpenIndex) -> None:
    page = index.page_of_runs(group_by=["params.model"], columns=["metrics.loss.max", "params.model", "metrics.late"])
    assert (page.total, page.ids, page.columns) == (2, (), {})
    cnn, mlp = sorted(page.groups, key=lambda group: group.key)
    assert (cnn.key, cnn.runs, mlp.key, mlp.runs) == (("cnn",), 3, ("mlp",), 3)
    figures = cnn.columns["metrics.loss.max"]
    assert (figures.mean, figures.std, figures.min, figures.max, figures.n) == (4.0, 2.0, 2.0, 6.0, 3)
    assert "params.model" not in cnn.columns
    assert "metrics.late" not in cnn.columns


def test_groups_are_sorted_and_windowed(index: OpenIndex) -> None:
    def keys(order_by: str | None, **options: Any) -> list[Any]:
        page = index.page_of_runs(
            group_by=["tags.stage", "group"], columns=["metrics.loss"], order_by=order_by, **options
        )
        assert page.total == 4
        return [group.key for group in page.groups]

    assert keys("metrics.loss desc") == [(None, None), (None, "even"), ("dev", "even"), ("dev", None)]
    assert keys("tags.stage, group") == [("dev", "even"), ("dev", None), (None, "even"), (None, None)]
    assert keys(None)[:2] == keys("runs desc", limit=2)
    assert sorted(map(str, keys("runs", offset=2))) == ["('dev', 'even')", "(None, None)"]
    with pytest.raises(InvalidFilter, match="groups are sorted by"):
        keys("params.lr")


def test_the_runs_of_a_group_are_found_by_its_key(index: OpenIndex) -> None:
    for group in index.page_of_runs(group_by=["group"]).groups:
        (key,) = group.key
        condition = f"group = '{key}'" if key is not None else "group is null"
        assert index.page_of_runs(condition, limit=0).total == group.runs


@pytest.mark.parametrize(
    "options",
    [
        {"offset": -1},
        {"limit": -1},
        {"limit": True},
        {"limit": 1.5},
        {"columns": ["name"] * 501},
        {"group_by": ["name"] * 6},
    ],
)
def test_what_is_no_window_is_refused(index: OpenIndex, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        index.page_of_runs(**options)


@pytest.mark.parametrize(
    "options", [{"columns": ["nmae"]}, {"group_by": ["x y"]}, {"order_by": "1"}, {"filter": "name ="}]
)
def test_what_is_no_field_is_refused(index: OpenIndex, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter):
        index.page_of_runs(**options)


def test_archived_and_deleted_runs_are_shown_where_asked_for(home: Path) -> None:
    ids = {}
    for name in ("plain", "away", "gone", "both"):
        with runstone.start_run(name=name, workspace=home, environment=False) as run:
            ids[name] = run.id
    workspace = runstone.open_workspace(home)
    for name in ("away", "both"):
        workspace.archive(ids[name])
    for name in ("gone", "both"):
        workspace.delete(ids[name])
    with OpenIndex(home) as index:

        def found(filter: str = "", **options: Any) -> list[str]:
            return sorted(names(index, filter, **options))

        assert found() == ["plain"]
        assert found(archived=True) == found("archived") == ["away"]
        assert found(archived=None) == found("archived or not archived") == ["away", "plain"]
        assert found(deleted=True) == ["both", "gone"]
        assert found(deleted=True, archived=True) == ["both"]
        assert [record.name for record in workspace.runs().records] == ["plain"]
        assert [record.name for record in workspace.runs(archived=True).records] == ["away"]


def test_what_is_at_hand_follows_the_runs(home: Path) -> None:
    for name in ("a", "b"):
        with runstone.start_run(
            run_id=name, name=name, params={"x": 1, "y": "t"}, workspace=home, environment=False
        ) as run:
            run.log({"loss": 1.0})
    workspace = runstone.open_workspace(home)
    with OpenIndex(home) as index:
        assert sorted(names(index, "params.x = 1 and params.y = 't' and metrics.loss = 1")) == ["a", "b"]
        assert names(index, "tags.late is not null or count(tags) > 0") == []
        with runstone.start_run(run_id="a", resume=True, workspace=home, environment=False) as run:
            run.log_params({"x": 2, "y": "new"})
            run.log({"loss": 3.0})
        workspace.set_tags("b", {"late": "yes"})
        assert (
            names(index, "params.x = 1") == names(index, "params.y = 't'") == names(index, "metrics.loss = 1") == ["b"]
        )
        assert (
            names(index, "params.x = 2")
            == names(index, "params.y = 'new'")
            == names(index, "metrics.loss = 3")
            == ["a"]
        )
        assert names(index, "tags.late is not null") == names(index, "count(tags) > 0") == ["b"]
        assert names(index, order_by="params.y") == ["a", "b"]
        workspace.set_tags("b", {}, remove=("late",))
        assert names(index, "tags.late is not null or count(tags) > 0") == []


def test_the_values_at_a_step_follow_the_run(home: Path) -> None:
    with OpenIndex(home if home.exists() else runstone.ensure_workspace(home).path) as index:

        def value(step: int) -> Any:
            return index.page_of_runs(columns=[f"metrics.x@{step}"]).columns[f"metrics.x@{step}"][0]

        with runstone.start_run(run_id="r", workspace=home, environment=False) as run:
            run.log({"x": 1.0}, step=1)
            assert (value(1), value(2)) == (1.0, None)
            run.log({"x": 2.0}, step=2)
            run.log({"x": 3.0}, step=1)  # the last point of a step counts
            assert (value(1), value(2)) == (3.0, 2.0)
            run.log({"x": math.nan}, step=5)
            assert math.isnan(value(5))
            assert value(4) is None
        with runstone.start_run(run_id="r", resume=True, workspace=home, environment=False) as run:
            run.log({"x": 7.0}, step=2)  # supersedes what came from step 2 on
        assert (value(1), value(2), value(5)) == (3.0, 7.0, None)
        assert index.page_of_runs("metrics.x@2 = 7 and not metrics.x@5 > 0").total == 1
        assert index.page_of_runs("metrics.x@5 is not null").total == 0


def test_the_values_at_a_step_are_read_from_the_files_once(home: Path) -> None:
    with runstone.start_run(run_id="r", workspace=home, environment=False) as run:
        for step in range(10):
            run.log({"x": float(step)}, step=step)
    assert page_of_runs(home, "metrics.x@3 = 3").total == 1
    (wal,) = run.path.glob("*.wal")
    times = run.path.stat()
    data = bytearray(wal.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    wal.write_bytes(data)
    with open_index(home) as index:  # as if its last look had been long after the last change
        index._connect().execute("UPDATE runs SET watch = 0")
    os.utime(run.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert page_of_runs(home, "metrics.x@3 = 3").total == 1
    assert page_of_runs(home, "metrics.x@4 = 4").total == 0
    assert page_of_runs(home, "metrics.x@11 = 4").total == 0


# --- fields and completion --------------------------------------------------------------------------------------------


def test_fields_are_named_as_a_filter_names_them(index: OpenIndex) -> None:
    found = {one.name: one for one in index.fields()}
    assert (found["params.lr"].kind, found["params.lr"].type, found["params.lr"].runs) == ("params", "number", 6)
    assert found['metrics."val acc"'].runs == 6
    assert found['metrics."x.max"'].type == "number"
    assert found["tags.stage"].runs == 3
    assert found["environment.gpu.name"].runs == 6
    assert found['environment.packages."ruamel.yaml"'].type == "text"
    assert (found["started_at"].type, found["pinned"].type, found["status"].kind) == ("time", "bool", "attributes")
    for name, one in found.items():
        page = index.page_of_runs(f"exists({name})", limit=0)
        assert page.total == one.runs or one.kind == "attributes", name


def test_fields_of_some_runs_are_counted_there(index: OpenIndex) -> None:
    found = {one.name: one.runs for one in index.fields("params.seed < 4")}
    assert (found["params.lr"], found["tags.stage"], found["environment.gpu.name"], found["id"]) == (4, 3, 4, 4)
    assert "metrics.late" not in found


def test_counts_of_fields_follow_the_runs(home: Path) -> None:
    def counts() -> dict[str, tuple[str, int]]:
        return {one.name: (one.type, one.runs) for one in fields(home) if one.kind != "attributes"}

    workspace = runstone.ensure_workspace(home)
    for value in (1, "auto"):
        with runstone.start_run(params={"lr": value}, tags={"a": "b"}, workspace=home, environment=False) as run:
            run.log({"loss": 1.0})
    assert counts() == {"params.lr": ("mixed", 2), "tags.a": ("text", 2), "metrics.loss": ("number", 2)}
    workspace.set_tags(run.id, {"c": "d"}, remove=("a",))
    assert counts() == {
        "params.lr": ("mixed", 2),
        "tags.a": ("text", 1),
        "tags.c": ("text", 1),
        "metrics.loss": ("number", 2),
    }
    import shutil

    shutil.rmtree(run.path)
    assert counts() == {"params.lr": ("number", 1), "tags.a": ("text", 1), "metrics.loss": ("number", 1)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["id", "name", "params.lr", "metrics.loss", "environment.", "count(", "NOT"]),
        ("met", ["metrics.loss", 'metrics."val acc"']),
        ("los", ["metrics.loss"]),
        ("metrics.loss", ["metrics.loss"]),
        ("metrics.loss ", ["<", ">=", "IS NULL", "IN ("]),
        ("metrics.loss > 1 ", ["AND", "OR"]),
        ("metrics.loss > 1 an", ["AND"]),
        ("metrics.loss > 1 and not par", ["params.lr", "params.seed"]),
        ("(params.model = ", ["'mlp'", "'cnn'"]),
        ("params.model = 'm", ["'mlp'"]),
        ("params.model in ('mlp', ", ["'cnn'"]),
        ("params.model in ('mlp' ", [")"]),
        ("params.'a", ['params."a b"']),
        ("status = ", ["'running'", "'crashed'"]),
        ("status in (", ["'finished'"]),
        ("environment.gpu.", ["environment.gpu.name"]),
        ("environment.gpu.name = ", ["'H100'", "'T1'"]),
        ("started_at > ", ["now() - 7d", "today()"]),
        ("pinned ", ["= true", "AND"]),
        ("count(met", ["metrics.loss"]),
        ("count(metrics.*) ", [">", "="]),
        ("name is ", ["NULL", "NOT NULL"]),
        ("tags.stage ", ["LIKE", "GLOB"]),
    ],
)
def test_completion_offers_what_may_follow(index: OpenIndex, text: str, expected: list[str]) -> None:
    options = index.complete(text, len(text))
    assert set(expected) <= {option.text for option in options}
    assert all(0 <= option.start <= option.end == len(text) for option in options)


def test_what_completion_offers_parses(index: OpenIndex) -> None:
    for start in ("metrics.", "params.", "tags.", "environment."):
        for option in index.complete(start, len(start)):
            assert index.page_of_runs(f"{option.text} is not null or exists({option.text})", limit=0).total >= 0
    for field in ("params.model", "params.seed", "environment.gpu.name", "project", "status", "started_at", "duration"):
        text = f"{field} = "
        options = index.complete(text, len(text))
        assert options
        for option in options:
            index.page_of_runs(text[: option.start] + option.text, limit=0)


@pytest.mark.parametrize(
    "text", ["'", "((((", "name = 'x", "\0", "metrics.`", "= = =", "in in", "a" * 11_000, "é.ü", "\ud800"]
)
def test_completion_of_nonsense_is_calm(index: OpenIndex, text: str) -> None:
    for at in (-1, 0, len(text), len(text) + 5):
        assert len(index.complete(text, at)) <= 50


def test_functions_answer_as_the_open_index_does(workspace: Workspace, index: OpenIndex) -> None:
    path = workspace.path
    assert page_of_runs(path, "params.seed > 2").ids == index.page_of_runs("params.seed > 2").ids
    assert fields(path) == index.fields()
    assert complete(path, "met", 3) == index.complete("met", 3)
    assert changes(path, index.changes().cursor).is_complete


def test_threads_share_an_open_index(workspace: Workspace, index: OpenIndex) -> None:
    errors: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            for turn in range(10):
                seed = (number + turn) % 6
                assert names(index, f"params.seed = {seed} and metrics.loss@10 > 0") == [f"run-{seed}"]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
