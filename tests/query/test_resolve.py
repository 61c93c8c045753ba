"""Which run a short reference means."""

from __future__ import annotations

from pathlib import Path

import pytest

import runstone
from runstone import AmbiguousName, RunNotFound, Workspace

pytestmark = pytest.mark.usefixtures("place_of_index")


def make(home: Path, name: str, run_id: str | None = None, project: str = "p") -> str:
    with runstone.start_run(name=name, run_id=run_id, project=project, workspace=home, environment=False) as run:
        return run.id


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return runstone.ensure_workspace(home)


def test_a_full_id_is_found_without_the_index(workspace: Workspace) -> None:
    run_id = make(workspace.path, "a", project="Größe / 7")
    assert workspace.run(run_id).name == "a"
    assert not (workspace.path / "index.sqlite").exists()


def test_the_beginning_or_the_end_of_an_id_is_enough(workspace: Workspace) -> None:
    make(workspace.path, "a", "alpha-one-x1")
    make(workspace.path, "b", "beta-two-y2")
    assert workspace.run("alph").name == "a"
    assert workspace.run("o-y2").name == "b"
    assert workspace.run("O-Y2").name == "b"
    with pytest.raises(RunNotFound, match="at least 4 characters"):
        workspace.run("alp")


def test_a_name_of_one_run_is_enough(workspace: Workspace) -> None:
    run_id = make(workspace.path, "größte 'Probe' 100%")
    assert workspace.run("größte 'Probe' 100%").id == run_id


def test_an_ambiguous_reference_lists_the_newest_first(workspace: Workspace) -> None:
    ids = [make(workspace.path, "twin", f"twin-{number}") for number in range(8)]
    with pytest.raises(AmbiguousName) as caught:
        workspace.run("twin")
    lines = str(caught.value).splitlines()
    assert lines[0] == "'twin' fits 8 runs; use the id of one:"
    assert [line.split()[0] for line in lines[1:7]] == ids[:1:-1]
    assert lines[7] == "  … and 2 more"


def test_what_is_not_found_names_the_nearest(workspace: Workspace) -> None:
    with pytest.raises(RunNotFound, match="has no runs"):
        workspace.run("amber")
    make(workspace.path, "amber-falcon-417")
    with pytest.raises(RunNotFound, match="did you mean 'amber-falcon-417'"):
        workspace.run("amber-falcon-471")
    with pytest.raises(RunNotFound, match="runstone runs list"):
        workspace.run("zzzzzzzz")


@pytest.mark.parametrize("reference", ["", "  ", "../../etc", "a/b", "%", "*", "[a]", "x" * 100_000, "\0", "\ud800"])
def test_hostile_references_are_not_found(workspace: Workspace, reference: str) -> None:
    make(workspace.path, "a")
    with pytest.raises(RunNotFound):
        workspace.run(reference)


def test_a_deleted_run_is_found_where_no_other_fits(workspace: Workspace) -> None:
    first, second = make(workspace.path, "twin"), make(workspace.path, "twin")
    workspace.delete(first)
    assert workspace.run("twin").id == second
    workspace.delete(second)
    with pytest.raises(AmbiguousName):
        workspace.run("twin")
    assert workspace.run(first).is_deleted
