"""In what the trials of a sweep differ besides their params, as the report tells it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone_sweeps.report.writing import render
from runstone_sweeps.results.surroundings import Difference, compare, find_differences
from runstone_sweeps.store import SweepFolder, recorded_spec

from .conftest import Place

RECORDS = """\
import runstone
with runstone.start_run(system_metrics=False) as run:
    run.log({"loss": runstone.trial_params()["x"] ** 2}, step=0)
"""


def snapshot(**sections: Any) -> dict[str, Any]:
    return {"identity": {"host": "node1"}, "python": {"version": "3.12.1"}, "packages": None, **sections}


def packages(**versions: str) -> dict[str, Any]:
    return {"installed": [{"name": name, "version": version} for name, version in versions.items()]}


def test_what_is_the_same_or_not_known_is_no_difference() -> None:
    assert compare({}) == []
    assert compare({0: snapshot(), 1: snapshot()}) == []
    assert compare({0: snapshot(git=None), 1: snapshot(git={"commit": "a" * 40})}) == []


def test_each_difference_names_its_values_and_trials_the_most_common_first() -> None:
    clean, edited = {"commit": "a" * 40, "changed": []}, {"commit": "a" * 40, "changed": ["train.py"]}
    gpus = {"driver": "570.1", "devices": [{"name": "H100"}, {"name": "H100"}]}
    found = compare(
        {
            0: snapshot(git=clean, packages=packages(torch="2.12", numpy="2.4")),
            1: snapshot(git=edited, packages=packages(torch="2.13", numpy="2.4"), identity={"host": "node2"}),
            2: snapshot(git=edited, packages=packages(torch="2.13"), gpu=gpus),
        }
    )
    assert found == [
        Difference("host", [("node1", [0, 2]), ("node2", [1])]),
        Difference("code", [("aaaaaaaaaaaa, changed: train.py", [1, 2]), ("aaaaaaaaaaaa", [0])]),
        Difference("numpy", [("2.4", [0, 1]), ("not installed", [2])]),
        Difference("torch", [("2.13", [1, 2]), ("2.12", [0])]),
    ]
    others = compare({0: snapshot(gpu=gpus), 1: snapshot(gpu={**gpus, "devices": [{"name": "A100"}]})})
    assert others == [Difference("GPUs", [("2 × H100", [0]), ("1 × A100", [1])])]


def test_of_many_packages_the_first_are_named_and_the_others_counted() -> None:
    many = compare(
        {n: snapshot(packages=packages(**{f"p{i:02}": f"{n}.{i}" for i in range(30)})) for n in range(2)},
    )
    assert len(many) == 21
    assert many[-1] == Difference("10 packages more", ())


@pytest.mark.parametrize("damage", [{"git": []}, {"gpu": {"devices": 7}}, {"packages": {"installed": [1, None]}}])
def test_a_snapshot_of_another_form_is_passed_over(damage: dict[str, Any]) -> None:
    assert compare({0: snapshot(**damage), 1: snapshot()}) == []


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_report_tells_that_code_was_edited_between_two_trials(place: Place) -> None:
    place.script("train.py", RECORDS)
    config = place.config(trials=2, parallel=1)
    (place.path / ".gitignore").write_text(".runstone/\n__pycache__/\n")
    identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org"]
    for words in (["init", "-b", "main"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run(["git", *identity, *words], cwd=place.path, capture_output=True, check=True)
    place.run_here(config)
    folder = place.folder
    spec = recorded_spec(place.record, is_for_reading=True)
    same = find_differences(folder, place.record)
    assert (same.looked_at, same.differences) == (2, [])
    assert "The same for all 2 trials" in render(folder, place.record, spec)
    place.script("train.py", RECORDS + "print('<b>edited</b>')\n")
    place.resume_here(trials=3)
    found = find_differences(folder, place.record)
    (difference,) = found.differences
    assert difference.what == "code"
    assert [numbers for _, numbers in difference.values] == [[0, 1], [2]]
    assert difference.values[1][0].endswith(", changed: train.py")
    page = render(folder, place.record, spec)
    assert "Not the same for all 3 trials" in page
    assert "changed: train.py" in page


def test_text_of_a_snapshot_is_no_markup(place: Place) -> None:
    place.script("train.py", RECORDS)
    place.run_here(place.config(trials=2, parallel=1))
    workspace = runstone.open_workspace(place.home)
    run = workspace.run(place.record.trials[1].run_id)
    (path,) = run.path.glob("environment.*.json")
    told = json.loads(path.read_text())
    told["identity"]["host"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(told))
    page = render(place.folder, place.record, recorded_spec(place.record, is_for_reading=True))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_sweep_without_its_runs_tells_nothing(tmp_path: Path, place: Place) -> None:
    place.script("train.py", RECORDS)
    place.run_here(place.config(trials=2))
    copy = tmp_path / "elsewhere" / "sweeps" / place.folder.id
    shutil.copytree(place.folder.path, copy)
    folder = SweepFolder(copy)
    assert find_differences(folder, folder.read()).looked_at == 0
    assert "Code, versions and machines" not in render(folder, folder.read(), recorded_spec(folder.read()))
