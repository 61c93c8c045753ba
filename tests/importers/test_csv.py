"""CSV files of every shape."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from runstone import FormatError
from runstone.importers import import_store
from runstone.workspace import Workspace


def write(folder: Path, text: str, name: str = "points.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_a_wide_file_is_one_run_with_a_metric_for_each_column(tmp_path: Path, workspace: Workspace) -> None:
    path = write(tmp_path, "step,loss,val/acc,note\n0,1.0,,start\n10,nan,0.5,\n20,-inf,1,\n")
    (one,) = import_store(workspace, "csv", path, project="p").runs
    info = workspace.run(one.run_id)
    assert (info.name, info.project) == ("points", "p")
    loss = info.series("loss")
    assert loss.step.tolist() == [0, 10, 20]
    assert loss.value[0] == 1.0
    assert math.isnan(loss.value[1])
    assert loss.value[2] == -math.inf
    assert info.series("val/acc").step.tolist() == [10, 20]
    assert [record.text for record in info.records("note")] == ["start"]


def test_a_long_file_is_a_run_for_each_name(tmp_path: Path, workspace: Workspace) -> None:
    path = write(
        tmp_path,
        "run,step,metric,value,time\na,0,loss,1,1700000000\nb,0,loss,2,2023-11-14T22:13:20Z\na,1,acc,3,\n",
    )
    result = import_store(workspace, "csv", path)
    infos = {one.name: workspace.run(one.run_id) for one in result.runs}
    assert set(infos) == {"a", "b"}
    assert {name: info.group for name, info in infos.items()} == {"a": "points", "b": "points"}
    assert set(infos["a"].metrics) == {"loss", "acc"}
    assert infos["a"].series("loss").wall_s.tolist() == infos["b"].series("loss").wall_s.tolist() == [1.7e9]


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_the_separator_is_found_out(separator: str, tmp_path: Path, workspace: Workspace) -> None:
    path = write(tmp_path, f"\ufeffstep{separator}loss\r\n0{separator}0.5\r\n")
    (one,) = import_store(workspace, "csv", path).runs
    assert workspace.run(one.run_id).series("loss").value.tolist() == [0.5]


def test_integers_stay_integers_and_large_ones_exact(tmp_path: Path, workspace: Workspace) -> None:
    (one,) = import_store(workspace, "csv", write(tmp_path, f"step,n\n0,{2**60 + 1}\n")).runs
    assert workspace.run(one.run_id).series("n").value.tolist() == [2**60 + 1]


def test_a_file_without_steps_counts_its_rows(tmp_path: Path, workspace: Workspace) -> None:
    (one,) = import_store(workspace, "csv", write(tmp_path, "loss\n1\n2\n")).runs
    info = workspace.run(one.run_id)
    assert (info.series("loss").step.tolist(), info.tags["import.step"]) == ([0, 1], "row")


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path, workspace: Workspace) -> None:
    (one,) = import_store(workspace, "csv", write(tmp_path, "step,loss\n0,1\n1\nx,2\n0.5,3\n2,4\n")).runs
    assert one.found.points == one.held.points == 2
    assert one.not_carried == {"row that is torn": 1, "row without a whole step": 2}


@pytest.mark.parametrize("text", ["", "step,loss\n", "step\n1\n"])
def test_a_file_without_points_is_refused_in_words(text: str, tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(FormatError, match="points"):
        import_store(workspace, "csv", write(tmp_path, text))


def test_names_that_no_metric_may_have_are_counted(tmp_path: Path, workspace: Workspace) -> None:
    (one,) = import_store(workspace, "csv", write(tmp_path, f"step,{'x' * 2000},loss\n0,1,2\n")).runs
    assert one.not_carried == {"point without a legal name": 1}
    assert one.held.points == 1


def test_another_file_of_the_same_name_is_another_run(tmp_path: Path, workspace: Workspace) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = write(tmp_path / "a", "step,loss\n0,1\n")
    second = write(tmp_path / "b", "step,loss\n0,2\n")
    ids = {import_store(workspace, "csv", path).runs[0].run_id for path in (first, second)}
    assert len(ids) == 2
