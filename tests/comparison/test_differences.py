"""What is not the same in all runs: nothing missing counts as equal, and nothing is read before it is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.comparison import compare


def a_run(home: Path, name: str, params: dict[str, Any], **options: Any) -> runstone.RunInfo:
    with runstone.start_run(project="p", name=name, params=params, workspace=home, environment=False, **options) as run:
        run.log({"loss": 0.5}, step=0)
    return run.read()


def test_missing_is_not_equal(home: Path) -> None:
    one = a_run(home, "a", {"x": 1, "none": None, "same": [1, 2], "nan": float("nan")})
    other = a_run(home, "b", {"none": None, "same": [1, 2], "nan": float("nan"), "y": None})
    found = compare([one, other])
    assert {row.name: dict(row.values) for row in found.params} == {"x": {one.id: 1}, "y": {other.id: None}}
    assert found.equal_params == 3
    cells = {name: texts for section, name, texts in found.rows() if section == "params"}
    assert cells == {"x": ["1", ""], "y": ["", "null"]}


def test_types_are_told_apart(home: Path) -> None:
    one, other = (a_run(home, name, {"a": flag, "b": number}) for name, flag, number in (("a", True, 1), ("b", 1, 1.0)))
    found = compare([one, other])
    assert [row.name for row in found.params] == ["a"]  # 1 and 1.0 are one number, True is none


def test_of_a_table_no_run_is_opened_for_params_metrics_and_verdicts(made: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(made, copied)
    table = runstone.open_workspace(copied).runs()
    shutil.rmtree(copied / "runs")  # whoever opens a run now finds nothing
    found = compare(table, by="params.model", metrics=["val/acc.max"], order_by="metrics.val/acc.max")
    assert len(found.metrics) == 3
    assert found.groupings[0].verdicts[0].word == "better"
    assert {row.name for row in found.params} == {"model", "seed", "width"}
    with pytest.raises(runstone.RunNotFound):
        _ = found.environment


def test_a_list_of_runs_compares_as_the_table_does(workspace: runstone.Workspace) -> None:
    table = workspace.runs("params.seed < 2", order_by="name")
    left, right = compare(table).to_dict(), compare(list(table)).to_dict()
    for run in (*left["runs"], *right["runs"]):
        run["duration_s"] = round(run["duration_s"], 3)
        run["started_at"] = run["started_at"][:19]
    assert left == right


def test_a_thousand_runs_cost_no_more_than_they_must(made: Path) -> None:
    """The time is that of this thread alone; on a quiet machine it is a quarter of this."""
    import time

    workspace = runstone.open_workspace(made)
    table = workspace.runs()
    many = runstone.RunTable(workspace.path, [_renamed(table.records[n % len(table)], n) for n in range(1_000)])
    begun = time.thread_time()
    found = compare(many, by="params.model", metrics=["val/acc.max"], order_by="metrics.val/acc.max desc")
    rows = [found.differences(section) for section in ("params", "tags")]
    assert len(found.metrics) == 3
    assert len(found.members) == 1_000
    assert len(rows) == 2
    assert time.thread_time() - begun < 2


def _renamed(record: Any, number: int) -> Any:
    from dataclasses import replace

    return replace(record, id=f"{number:032x}")


# --- environment, code, data ------------------------------------------------------------------------------------------


@pytest.fixture
def pair(home: Path) -> tuple[runstone.RunInfo, runstone.RunInfo]:
    """Two runs whose snapshots are real but for what is changed by hand."""
    runs = []
    for place, name in enumerate(("left", "right")):
        with runstone.start_run(project="p", name=name, workspace=home, params={"seed": place}) as run:
            run.log({"loss": 1.0}, step=0)
            run.read()  # waits for the snapshot
        runs.append(run.read())
    for place, run in enumerate(runs):
        (path,) = run.path.glob("environment.*.json")
        snapshot = json.loads(path.read_bytes())
        snapshot["git"] = {"commit": "c" * 40, "branch": "main", "is_dirty": True, "changed": ["a.py"], "untracked": []}
        snapshot["process"] = {"argv": ["train.py", "--seed", str(place)], "pid": place}
        snapshot["packages"] = {
            "installed": [{"name": "torch", "version": f"2.{place}"}, {"name": "x", "version": "1"}]
        }
        if place:
            snapshot["env"] = {**(snapshot.get("env") or {}), "OMP_NUM_THREADS": "4"}
        path.write_text(json.dumps(snapshot))
        patch = f"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 0\n+x = {place}\n"
        (run.path / f"code.{snapshot['writer']}.patch").write_text(patch)
    first, second = runs
    return first, second


def test_environments_differ_in_what_tells(pair: tuple[runstone.RunInfo, runstone.RunInfo]) -> None:
    one, other = pair
    found = compare(pair)
    rows = {row.name: row.values for row in found.environment}
    assert rows["packages.torch"] == {one.id: "2.0", other.id: "2.1"}
    assert rows["env.OMP_NUM_THREADS"] == {other.id: "4"}
    assert "packages.x" not in rows
    assert not [name for name in rows if "pid" in name or name.startswith("git")]
    assert found.equal_environment > 10


def test_code_differs_down_to_the_changed_file(pair: tuple[runstone.RunInfo, runstone.RunInfo]) -> None:
    one, other = pair
    found = compare(pair)
    rows = {row.name: row.values for row in found.code}
    assert set(rows) == {"command", "uncommitted", "file a.py"}
    assert rows["command"] == {one.id: "train.py --seed 0", other.id: "train.py --seed 1"}
    assert str(rows["file a.py"][one.id]).startswith("+1 −1 (")
    assert rows["file a.py"][one.id] != rows["file a.py"][other.id]
    assert found.equal_code == 2  # commit and branch
    diff = found.code_diff(one.id, other.id)
    assert "-+x = 0" in diff
    assert "++x = 1" in diff
    assert found.code_diff(one.id, one.id) == ""
    with pytest.raises(runstone.InvalidValue, match="no run"):
        found.code_diff(one.id, "x")


def test_versions_of_data_differ(home: Path, tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        (tmp_path / "data.csv").write_text(f"a\n{number}\n")
        with runstone.start_run(project="p", workspace=home, environment=False) as run:
            run.use_dataset(tmp_path / "data.csv", name="iris", role="train")
            if number:
                run.use_dataset(tmp_path / "data.csv", name="more", role="test")
        runs.append(run.read())
    found = compare(runs)
    rows = {row.name: row.values for row in found.data}
    assert set(rows) == {"dataset:iris (train)", "dataset:more (test)"}
    assert len(set(map(str, rows["dataset:iris (train)"].values()))) == 2
    assert set(rows["dataset:more (test)"]) == {runs[1].id}
