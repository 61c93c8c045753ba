"""The trials of a sweep share what they know of their host, and still each tell of their own code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

import runstone
from tests.sweeps.conftest import Place

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or sys.platform != "linux", reason="needs git, and facts are shared on Linux only"
)
# Trial 2 changes a file of the repository when it has ended its run; what the others find is in their snapshots.
_SCRIPT = """\
import argparse, os, pathlib, time
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
x = parser.parse_args().x
with runstone.start_run(system_metrics=False) as run:
    run.log({"loss": x * x}, step=0)
name = run.name
if name.endswith("-2"):
    while not list(run.path.glob("environment.*.json")): time.sleep(0.01)
    pathlib.Path("notes.txt").write_text("edited between two trials\\n")
elif name.endswith("-1"):
    time.sleep(0.3)  # what is as young as the repository is not handed over
"""


def _environments(place: Place) -> list[dict[str, Any]]:
    """Return the snapshots in the order of the trials, each with the text of its patch."""
    workspace = runstone.open_workspace(place.home)
    found = []
    for _, trial in sorted(place.record.trials.items()):
        path = workspace.run(trial.run_id).path
        (file,) = path.glob("environment.*.json")
        snapshot = json.loads(file.read_text())
        diff = (snapshot["git"] or {}).get("diff") or {}
        snapshot["patch"] = (path / diff["file"]).read_text() if diff.get("file") else ""
        found.append(snapshot)
    return found


def _commit(place: Place) -> None:
    (place.path / "notes.txt").write_text("as committed\n")
    (place.path / ".gitignore").write_text("__pycache__/\n*.log\n")
    identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org"]
    for words in (["init", "-b", "main"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run(["git", *identity, *words], cwd=place.path, capture_output=True, check=True)


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_an_edit_between_two_trials_is_in_the_snapshot_of_the_later_one(place: Place, start: str) -> None:
    place.script("train.py", _SCRIPT)
    config = place.config(f"start: {start}\n", trials=5, parallel=1)
    _commit(place)
    place.sweep("run", config)
    found = _environments(place)
    assert [snapshot["git"]["is_dirty"] for snapshot in found] == [False, False, False, True, True]
    assert [snapshot["git"]["changed"] for snapshot in found[3:]] == [["notes.txt"]] * 2
    assert all("+edited between two trials" in snapshot["patch"] for snapshot in found[3:])
    assert len({snapshot["process"]["pid"] for snapshot in found}) == 5
    assert len({snapshot["disk"]["store"]["path"] for snapshot in found}) == 5
    assert len({tuple(snapshot) for snapshot in found}) == 1  # all sections in each
    assert not place.folder.facts.exists()


def test_trials_take_over_what_the_first_one_read(place: Place) -> None:
    """The folder is there while the sweep runs, for this user only; what lies in it is used."""
    place.script(
        "train.py",
        "import argparse, json, os, pathlib, runstone\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--x', type=float)\nx = parser.parse_args().x\n"
        "folder = pathlib.Path(os.environ['RUNSTONE_FACTS'])\n"
        "print(oct(folder.stat().st_mode & 0o777))\n"
        "for file in folder.glob('*.json'):\n"
        "    told = json.loads(file.read_text())\n"
        "    told['sections']['cpu']['values']['model'] = 'taken over'\n"
        "    file.write_text(json.dumps(told))\n"
        "with runstone.start_run(system_metrics=False) as run:\n    run.log({'loss': x}, step=0)\n",
    )
    place.sweep("run", place.config(trials=3, parallel=1))
    models = [snapshot["cpu"]["model"] for snapshot in _environments(place)]
    assert models[0] != "taken over"
    assert models[1:] == ["taken over"] * 2
    workspace = runstone.open_workspace(place.home)
    run = workspace.run(place.record.trials[0].run_id)
    assert (run.path / "console.1.log").read_text().startswith("0o700")


def test_a_run_of_its_own_inside_a_trial_hands_nothing_over(place: Place) -> None:
    place.script(
        "train.py",
        "import argparse, os, pathlib, sys, subprocess, runstone\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--x', type=float)\nx = parser.parse_args().x\n"
        "with runstone.start_run(environment=False, system_metrics=False) as run:\n    run.log({'loss': x}, step=0)\n"
        "runstone.start_run(system_metrics=False, name='inner').finish()\n"
        "import time\ntime.sleep(0.5)\n"
        "print(os.listdir(os.environ['RUNSTONE_FACTS']))\n",
    )
    place.sweep("run", place.config(trials=1, parallel=1))
    run = runstone.open_workspace(place.home).run(place.record.trials[0].run_id)
    assert (run.path / "console.1.log").read_text() == "[]\n"


def test_a_function_whose_module_imports_the_package_prints_no_warning(place: Place) -> None:
    place.script(
        "objectives.py",
        "import runstone_sweeps.coordinator.session\n"
        "def square(params):\n    print('called')\n    return params['x'] ** 2\n",
    )
    text = place.config(trials=6, parallel=1).read_text().replace("script: train.py", "function: objectives:square")
    (place.path / "toy.yaml").write_text(text)
    place.sweep("run", place.path / "toy.yaml")
    for trial in place.record.trials.values():
        run = runstone.open_workspace(place.home).run(trial.run_id)
        assert (run.path / "console.1.log").read_text() == "called\n"
