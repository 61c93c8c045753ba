"""Moving runs, datasets and models between workspaces, each a folder or on a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run as cli
from runstone.errors import InvalidConfig, InvalidValue, NotFound
from runstone.sync import address
from runstone.sync.address import Address, keep_token, token_for
from runstone.sync.moving import Choice, Moving, pull, push
from runstone.values import Status
from runstone.workspace import Workspace, ensure_workspace
from tests.sync.conftest import Team, contents, send

ALL = Choice(datasets=("*",), models=("*",))


@pytest.fixture
def full(tmp_path: Path) -> Workspace:
    """A folder with two runs, a dataset of two versions and a model."""
    workspace = ensure_workspace(tmp_path / "full")
    weights = tmp_path / "weights.txt"
    weights.write_text("1 2 3")
    for name in ("one", "two"):
        with runstone.start_run(workspace=workspace, project="digits", name=name, environment=False) as run:
            for step in range(100):
                run.log({"loss": float(step)}, step=step)
            run.log_artifact(weights, name="weights")
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n")
    workspace.datasets.add(data, name="rows")
    data.write_text("a,b\n1,2\n3,4\n")
    workspace.datasets.add(data, name="rows")
    workspace.register_model("net", run.id, artifact="weights")
    return workspace


def words(moving: Moving) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in moving.items:
        found.setdefault(one.kind, []).append(one.outcome)
    return found


def check(full: Workspace, other: Workspace, tmp_path: Path) -> None:
    for info in full.runs():
        assert contents(info.path, tmp_path) == contents(other.run(info.id).path, tmp_path)
        assert other.blobs.read(info.artifacts[0].files[0].hash) == b"1 2 3"
    assert sorted(one.version for one in other.datasets.get("rows").versions()) == [1, 2]
    assert other.datasets.find("rows@2").files
    assert [one.version for one in other.models.get("net").versions()] == ["1.0.0"] or other.models.get(
        "net"
    ).versions()


NEW = {"runs": ["new", "new"], "datasets": ["new"], "models": ["new"]}
SAME = {"runs": ["unchanged", "unchanged"], "datasets": ["unchanged"], "models": ["unchanged"]}


def test_folder_to_folder(full: Workspace, tmp_path: Path) -> None:
    assert words(push(full, tmp_path / "other", ALL)) == NEW
    other = Workspace(tmp_path / "other")
    check(full, other, tmp_path)
    again = push(full, other, ALL)
    assert words(again) == SAME
    assert again.contents == 0
    third = ensure_workspace(tmp_path / "third")
    assert words(pull(third, other, ALL)) == NEW
    check(full, third, tmp_path)


def test_to_a_server_and_from_it(full: Workspace, team: Team, tmp_path: Path) -> None:
    assert words(push(full, team.url, ALL)) == NEW
    check(full, team.workspace, tmp_path)
    again = push(full, team.url, ALL)
    assert words(again) == SAME
    assert again.contents == 0
    other = ensure_workspace(tmp_path / "other")
    assert words(pull(other, team.url, ALL)) == NEW
    check(full, other, tmp_path)
    back = pull(other, team.url, ALL)
    assert words(back) == SAME
    assert back.contents == 0


def test_what_grew_goes_on(full: Workspace, team: Team, tmp_path: Path) -> None:
    push(full, team.url, ALL)
    run_id = full.run("one").id
    with runstone.start_run(workspace=full, run_id=run_id, environment=False) as run:
        run.log({"loss": 0.0}, step=100)
    moving = push(full, team.url, Choice("name = 'one'"))
    assert words(moving) == {"runs": ["grown"]}
    assert len(team.workspace.run(run_id).series("loss")) == 101


def test_a_history_that_went_on_in_two_places_is_left_alone(full: Workspace, team: Team, tmp_path: Path) -> None:
    push(full, team.url, ALL)
    data = tmp_path / "more.csv"
    for workspace, text in ((full, "a\n1\n"), (team.workspace, "b\n2\n")):
        data.write_text(text)
        workspace.datasets.add(data, name="rows")
    moving = push(full, team.url, Choice(None, datasets=("rows",)))
    assert words(moving) == {"datasets": ["different"]}
    assert len(team.workspace.datasets.get("rows").versions()) == 3


def test_a_filter_chooses_and_a_name_that_is_not_there_says_so(full: Workspace, tmp_path: Path) -> None:
    assert words(push(full, tmp_path / "other", Choice("name = 'two'"))) == {"runs": ["new"]}
    assert [info.name for info in Workspace(tmp_path / "other").runs()] == ["two"]
    with pytest.raises(NotFound, match="there are rows"):
        push(full, tmp_path / "other", Choice(None, datasets=("row",)))


# --- reading a workspace on a server ---------------------------------------------------------------------------------
def test_a_workspace_on_a_server_is_read_as_any(full: Workspace, team: Team) -> None:
    push(full, team.url, ALL)
    far = runstone.open_workspace(team.url)
    assert [info.name for info in far.runs("project = 'digits'", order_by="name")] == ["one", "two"]
    assert far.runs("metrics.loss.max > 1e9").total == 0
    info = far.run("one")
    assert info.status is Status.FINISHED
    assert len(info.series("loss")) == 100
    assert far.run(info.id[-8:]).id == info.id
    with pytest.raises(runstone.RunNotFound):
        far.run("nowhere")
    with runstone.start_run(workspace=full, name="one", project="digits", environment=False):
        pass
    push(full, team.url, Choice())
    with pytest.raises(runstone.AmbiguousName):
        far.run("one")
    for act in (lambda: far.datasets, lambda: far.models, lambda: far.follow(info.id), lambda: far.delete(info.id)):
        with pytest.raises(InvalidValue, match="pull"):
            act()


def test_a_run_that_goes_on_is_read_again(team: Team) -> None:
    far = runstone.open_workspace(team.url)
    with runstone.start_run(project="digits", name="on", environment=False) as run:
        run.log({"x": 1.0}, step=0)
    send(team)
    assert len(far.run("on").series("x")) == 1
    with runstone.start_run(run_id=run.id, environment=False) as run:
        run.log({"x": 2.0}, step=1)
    send(team)
    assert len(far.run("on").series("x")) == 2
    assert len(far.runs()[0].series("x")) == 2


# --- the command line ------------------------------------------------------------------------------------------------
def test_commands(full: Workspace, team: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["-w", str(full.path), "push", team.url, "--runs", "", "-d", "*", "-m", "*"]) == 0
    assert "2 new" in capsys.readouterr().out
    assert cli(["-w", team.url, "runs", "list"]) == 0
    assert "two" in capsys.readouterr().out
    assert cli(["-w", team.url, "runs", "show", "one"]) == 0
    capsys.readouterr()
    assert cli(["-w", team.url, "gc"]) == 2
    assert "pull" in capsys.readouterr().err
    assert cli(["-w", str(tmp_path / "other"), "pull", team.url, "--json"]) == 0
    assert [one["outcome"] for one in json.loads(capsys.readouterr().out)["items"]] == ["new", "new"]
    with runstone.start_run(project="digits", environment=False) as run:
        run.log({"x": 1.0})
    assert cli(["sync", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["runs"][0]["state"] == "waiting"
    assert cli(["sync"]) == 0
    assert "sent 1 run" in capsys.readouterr().out
    assert cli(["sync", "status"]) == 0
    assert "there" in capsys.readouterr().out
    assert cli(["sync"]) == 0
    assert "has everything" in capsys.readouterr().out
    assert cli(["push", "x"]) == 2  # the workspace is a server


def test_login_keeps_a_token_that_works_for_nobody_else(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RUNSTONE_TOKEN")
    assert cli(["login", team.url, "--token", "wrong"]) == 1
    assert token_for(Address.parse(team.url)) is None
    assert cli(["login", team.url, "--token", team.tokens["ann"]]) == 0
    file = tmp_path / "config" / "runstone" / address.TOKENS
    assert file.stat().st_mode & 0o777 == 0o600
    assert team.tokens["ann"] not in capsys.readouterr().out
    assert token_for(Address.parse(team.url)) == team.tokens["ann"]
    file.chmod(0o644)
    with pytest.raises(InvalidConfig, match="chmod"):
        token_for(Address.parse(team.url))
    file.chmod(0o600)
    assert cli(["logout", team.url]) == 0
    assert token_for(Address.parse(team.url)) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://runs.example.org/",
        "https://user:pass@runs.example.org",
        "ftp://x",
        "https://",
        "https://x/?a=1",
        "https://x:99999",
    ],
)
def test_urls_that_would_give_a_token_away_or_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidConfig):
        Address.parse(url)


def test_one_server_has_one_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    told = {
        str(Address.parse(url))
        for url in ("https://Runs.example.org", "https://runs.example.org:443//", "HTTPS://runs.example.org/")
    }
    assert told == {"https://runs.example.org/"}
    keep_token(Address.parse("https://runs.example.org/a/"), "t")
    assert token_for(Address.parse("https://runs.example.org/a")) == "t"
    assert token_for(Address.parse("https://runs.example.org/b")) is None
    assert (tmp_path / "runstone").stat().st_mode & 0o077 == 0
