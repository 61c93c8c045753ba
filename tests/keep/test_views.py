"""Saved views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runstone
from runstone import views
from runstone.cli.main import run as call
from runstone.errors import FormatError, InvalidFilter, InvalidName, InvalidValue, NotFound
from tests.keep.conftest import Record


def test_a_view_comes_back_as_it_was_saved_whatever_its_name(workspace: runstone.Workspace) -> None:
    for name in ("best", "Best", "../../etc/passwd", "läuft gut", "con"):
        view = views.View(
            name, "params.lr < 0.5", "metrics.loss.min", ("name", "energy_j"), ("params.lr",), {"any": [1, None]}
        )
        assert not views.save(workspace.path, view)
        assert views.load(workspace.path, name) == view
    assert len(views.list_views(workspace.path)) == 5
    assert not (workspace.path.parent / "etc").exists()
    assert {path.parent for path in workspace.path.rglob("*.json")} == {workspace.path / "views"}


def test_saving_replaces_and_deleting_returns_what_was(workspace: runstone.Workspace) -> None:
    views.save(workspace.path, views.View("best"))
    assert views.save(workspace.path, views.View("best", "status = 'failed'"))
    assert views.delete(workspace.path, "best").filter == "status = 'failed'"
    with pytest.raises(NotFound, match="none yet"):
        views.load(workspace.path, "best")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"filter": "params.lr <"}, InvalidFilter),
        ({"order_by": "metrics."}, InvalidFilter),
        ({"columns": ["nosuchfield"]}, InvalidFilter),
        ({"columns": "name"}, InvalidValue),
        ({"name": " "}, InvalidName),
        ({"name": None}, InvalidValue),
    ],
)
def test_a_view_that_could_not_be_shown_is_not_saved(wrong: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        views.View.from_dict({"name": "v", **wrong})


def test_charts_must_be_json_and_not_too_large(workspace: runstone.Workspace) -> None:
    for charts in (float("nan"), object(), "x" * (5 << 20)):
        with pytest.raises(InvalidValue):
            views.save(workspace.path, views.View("v", charts=charts))  # type: ignore[arg-type]
    assert views.list_views(workspace.path) == []


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "name": "v"}', '{"format": "1", "name": 3}']
)
def test_a_damaged_view_is_told_and_hides_no_other(workspace: runstone.Workspace, damage: str) -> None:
    views.save(workspace.path, views.View("good"))
    (workspace.path / "views" / "v.json").write_text(damage)
    with pytest.raises(FormatError):
        views.load(workspace.path, "v")
    assert [view.name for view in views.list_views(workspace.path)] == ["good"]


def test_a_list_of_runs_follows_a_view(
    workspace: runstone.Workspace, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber", params={"lr": 0.3})
    record("brass", params={"lr": 0.1})
    record("copper", params={"lr": 0.9})
    charts = tmp_path / "charts.json"
    charts.write_text('[{"metric": "loss"}]')
    assert call(["views", "save", "small", "-f", "params.lr < 0.5", "--order-by", "params.lr", "--column", "name",
                 "--column", "params.lr", "--charts", str(charts)]) == 0  # fmt: skip
    capsys.readouterr()
    assert call(["runs", "list", "--view", "small", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["name,params.lr", "brass,0.1", "amber,0.3"]
    assert call(["runs", "list", "params.lr > 0.2", "--view", "small", "--columns", "name", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["name", "amber"]
    assert call(["views", "show", "small"]) == 0
    assert json.loads(capsys.readouterr().out)["charts"] == [{"metric": "loss"}]
    assert call(["views", "list"]) == 0
    assert "small" in capsys.readouterr().out
    assert call(["runs", "list", "--view", "smal"]) == 1
    assert "'small'" in capsys.readouterr().err
    assert call(["views", "delete", "small", "nosuch"]) == 1
    assert views.load(workspace.path, "small").name == "small"
    assert call(["views", "delete", "small"]) == 0
