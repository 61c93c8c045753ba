"""A name is any text, comes back as it was given, and never is a path. What cannot be kept is refused before it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone.names import check_name, check_run_id, folder_name, new_run_id, new_run_name

GOOD = [
    "plain",
    "with spaces",
    "train/loss",
    "a//b",
    "/absolute",
    "../x",
    "..",
    ".",
    "~",
    "CON",
    "nul",
    "😀 emoji",
    "Größe_模型",
    "e\u0301 is not \u00e9",
    "line\nbreak",
    "tab\tand \r",
    "quotes \" and ' and `",
    "100%",
    "%s %(x)d {0}",
    "back\\slash",
    "$float",
    "$",
    "Loss",
    "loss",
    "LOSS",
    "LOß",
    "LOSS ",
    "\u202eright to left",
    "\ufeffmark",
    "\x7f\x01",
    "x" * 300,
    "😀" * 300,
    "y" * 1024,
]
BAD: list[Any] = [
    "",
    " ",
    "\n\t",
    "a\0b",
    "\0",
    "half \ud83d",
    "\udcff",
    "x" * 1025,
    "x" * 100_000,
    None,
    3,
    b"bytes",
    (),
]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50).filter(
    lambda text: not text.isspace()
)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_every_good_name_comes_back_equal_everywhere(monkeypatch: pytest.MonkeyPatch, home: Path, backend: str) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    for name in GOOD:
        with runstone.start_run(project=name, name=name, group=name, environment=False) as run:
            run.log({other: float(number) for number, other in enumerate(GOOD)}, step=0)
            run.metric(name)(-1.0, step=1)
            run.log_params({name: name, "nested": {name: [name]}})
            run.set_tags({name: name})
            run.set_notes(name)
        info = run.read()
        assert (info.project, info.name, info.group, info.notes) == (name, name, name, name)
        assert info.params == {name: name, "nested": {name: [name]}}
        assert info.tags == {name: name}
        assert set(info.metrics) == set(GOOD)
        for number, other in enumerate(GOOD):
            expected = [float(number), -1.0] if other == name else [float(number)]
            assert info.series(other).value.tolist() == expected
        assert run.path.parent.parent == home / "runs"
    # folders of their own, on file systems too that tell no case apart
    folders = [folder.name for folder in (home / "runs").iterdir()]
    assert len({folder.casefold() for folder in folders}) == len(GOOD)
    assert all(len(os.fsencode(folder)) <= 100 for folder in folders)
    # and nothing outside the workspace
    assert [path.name for path in home.parent.iterdir()] == [home.name]


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
def test_bad_name_is_refused_before_a_byte_is_written(home: Path, name: Any) -> None:
    refused = pytest.raises(runstone.InvalidName, match=r"name of a|run id")
    if name is not None:
        for given in ({"project": name}, {"name": name}, {"group": name}, {"run_id": name}, {"parent": name}):
            with refused:
                runstone.start_run(**given)
    with refused:
        runstone.start_run(tags={name: "x"})
    workspace = runstone.ensure_workspace(home)
    before = files(home)
    with refused:
        workspace.create_run(project=name)
    for given in ({"name": name}, {"group": name}, {"run_id": name}) if name is not None else ():
        with refused:
            workspace.create_run(project="p", **given)
    with refused:
        workspace.create_run(project="p", tags={name: "x"})
    assert files(home) == before
    with runstone.start_run(environment=False) as run:
        journal = next(run.path.glob("journal.*"))
        size = journal.stat().st_size
        with refused:
            run.log({name: 1.0})
        with refused:
            run.metric(name)
        with refused:
            run.set_tags({"good": "x", name: "x"})
        with refused:
            run.set_name(name)
        if name is not None:
            (home.parent / "file").write_text("x")
            with refused:
                run.log_artifact(home.parent / "file", name=name)
        with refused:
            workspace.set_tags(run.id, {name: "x"})
        assert journal.stat().st_size == size
        assert not list(run.path.glob("*.keys"))
    assert not (home / "blobs").exists()
    assert run.read().tags == {}


@pytest.mark.parametrize("run_id", ["A", "a b", "a/b", "..", "-a", "_a", "con", "nul", "ü", "a" * 65, "a\n"])
def test_run_id_that_is_no_folder_everywhere_is_refused(run_id: str, home: Path) -> None:
    with pytest.raises(runstone.InvalidName, match="put free text into name="):
        runstone.start_run(run_id=run_id)
    with pytest.raises(runstone.InvalidName):
        check_run_id(run_id)
    assert not home.exists()


def test_names_from_the_environment_are_checked_too(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for variable in ("RUNSTONE_PROJECT", "RUNSTONE_GROUP", "RUNSTONE_NAME", "RUNSTONE_RUN_ID"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "not UTF-8: \udcff")
            with pytest.raises(runstone.InvalidName):
                runstone.start_run()
    assert not (home / "runs").exists() or not any((home / "runs").iterdir())


@settings(max_examples=200, deadline=None)
@given(first=texts, second=texts)
def test_two_names_never_share_a_folder(first: str, second: str) -> None:
    folders = [folder_name(check_name(name, "project")) for name in (first, second)]
    assert (folders[0].casefold() == folders[1].casefold()) == (first == second)
    for folder in folders:
        assert "/" not in folder
        assert folder.strip(".")
        assert len(os.fsencode(folder)) <= 64


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(texts, min_size=1, max_size=20, unique=True))
def test_any_names_of_metrics_params_and_tags_come_back(tmp_path: Path, names: list[str]) -> None:
    with runstone.start_run(environment=False, workspace=tmp_path / "any") as run:
        run.log({name: float(number) for number, name in enumerate(names)}, step=0)
        run.log_params({name: name for name in names})
        run.set_tags({name: name for name in names})
    info = run.read()
    assert {name: info.series(name).value.tolist() for name in info.metrics} == {
        name: [float(number)] for number, name in enumerate(names)
    }
    assert info.params == info.tags == {name: name for name in names}
    journal = next(run.path.glob("journal.*")).read_bytes()
    assert all(json.loads(line) for line in journal.splitlines())


def test_ids_sort_by_time_and_names_are_readable() -> None:
    ids = [new_run_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(check_run_id(run_id) == run_id and run_id[12] == "7" for run_id in ids)
    assert [run_id[:12] for run_id in ids] == sorted(run_id[:12] for run_id in ids)
    assert new_run_name().count("-") == 2


def test_processes_that_start_one_run_at_once_agree_on_its_name() -> None:
    assert new_run_name("one") == new_run_name("one")
    assert len({new_run_name(new_run_id()) for _ in range(200)}) > 190
