"""The packages of then in an environment of the folder's own: real wheels and a real pip, without an index."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from runstone import NotFound, Workspace, __version__
from runstone.reproduce import install
from tests.reproduce.conftest import Project, command_line, edit

SCRIPT = """
import os, sys
import knack, runstone
from extra import FACTOR
with runstone.start_run(name="k", params={"seed": 3}) as run:
    run.log({"x": knack.VALUE * FACTOR, "hash": hash("a") % 10_007})
    run.set_tags(knack=knack.__file__, prefix=sys.prefix, venv=os.environ.get("VIRTUAL_ENV", ""))
"""


def build(source: Path, wheels: Path, name: str, version: str) -> None:
    """Build a wheel of one module from its source."""
    source.mkdir()
    (source / f"{name}.py").write_text("VALUE = 1.5\n")
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["{name}.py"]\n'
    )
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
        cwd=source,
        capture_output=True,
        check=True,
        timeout=60,
    )


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of wheels, which is all that pip has."""
    folder = tmp_path / "wheels"
    build(tmp_path / "knack", folder, "knack", "1.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


def pin(name: str, version: str) -> dict[str, str]:
    """Return a package as it is recorded."""
    return {"name": name, "version": version}


def test_a_run_is_done_again_with_the_code_packages_and_seeds_of_then(
    project: Project, wheels: Path, tmp_path: Path
) -> None:
    project.write("train.py", "raise SystemExit('the commit')\n")
    project.commit()
    project.write("train.py", SCRIPT)  # a change that is not committed
    project.write("extra.py", "FACTOR = 2.0\n")  # and a file that is not tracked
    run = project.run("train.py", environment={"PYTHONPATH": str(tmp_path / "knack"), "PYTHONHASHSEED": "5"})
    in_place = {**pin("runstone", "0.0.7"), "url": "file:///gone/runstone", "is_editable": True}
    # Of what Runstone itself needs there are no wheels here: it comes from the environment of the tests.
    run = edit(run, packages__installed=[pin("knack", "1.0"), in_place], env__PYTHONPATH=sysconfig.get_path("purelib"))
    (tmp_path / "elsewhere").mkdir()
    code, said, told = command_line(
        "reproduce", run.id, "--install", "--run", "-o", "again", cwd=tmp_path / "elsewhere"
    )
    assert code == 0, said + told
    assert "with the changes of then in 2 files" in said
    assert "1 in requirements.lock.txt, to be installed" in said
    because = "the one that runs this; runstone 0.0.7 was installed in place from /gone/runstone"
    assert f"Runstone {__version__} records the new run: {because}" in said
    assert "equal  2 equal" in said
    folder = tmp_path / "elsewhere/again"
    verdict = json.loads((folder / "verdict.json").read_text())
    assert [metric["verdict"] for metric in verdict["judgement"]["metrics"]] == ["equal", "equal"]
    new = Workspace(project.home).run(verdict["run"]["id"])
    assert new.tags["prefix"] == new.tags["venv"] == str(folder / ".venv")
    assert Path(new.tags["knack"]).is_relative_to(folder / ".venv")
    assert new.tags["reproduction"] == "equal"
    assert list(folder.glob(".venv/lib/python*/site-packages/runstone/run.py"))
    assert because in (folder / "README.md").read_text()
    # The script takes the environment by itself.
    done = subprocess.run([folder / "run.sh"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(project.runs()) == 3


def test_all_packages_that_cannot_be_had_are_named_at_once_and_an_edited_lock_goes_on(
    project: Project, wheels: Path, tmp_path: Path
) -> None:
    build(tmp_path / "own", wheels, "runstone", "0.0.8")
    installed = [
        pin("knack", "2.0"),
        pin("knack-knack", "1.0"),
        pin("runstone", "0.0.8"),
        pin("torch", "2.13.0+cu128"),
    ]
    made = project.restore(edit(project.run("train.py", "1"), packages__installed=installed))
    with pytest.raises(NotFound) as refusal:
        install(made)
    assert str(refusal.value).splitlines()[:4] == [
        "3 packages of 3 cannot be installed:",
        "  knack==2.0: no index has this version; there is 1.0",
        "  knack-knack==1.0: no index has a package of this name for this Python",
        "  torch==2.13.0+cu128: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu128 is the index of this build",
    ]
    lock = made.folder / "requirements.lock.txt"
    assert f"--install --lock {lock}" in str(refusal.value)
    lock.write_text("knack==1.0\n")
    told: list[str] = []
    install(made, lock=lock, tell=told.append)
    (packages,) = made.folder.glob(".venv/lib/python*/site-packages")
    assert (packages / "knack.py").exists()
    assert made.interpreter == str(made.folder / ".venv/bin/python")
    assert (packages / "runstone-0.0.8.dist-info").is_dir()  # an index has the version of then
    assert told[-1] == "installed runstone==0.0.8"


def test_a_package_from_a_file_that_is_gone_is_told_before_anything_is_made(project: Project) -> None:
    gone = {**pin("thing", "1.0"), "url": "file:///gone/thing-1.0.whl", "hash": "sha256=" + "ab" * 32}
    made = project.restore(edit(project.run("train.py", "1"), packages__installed=[gone, pin("other", "1.0")]))
    with pytest.raises(NotFound, match=r"(?s)1 package of 2 .*thing 1.0: .*/gone/thing-1.0.whl, which is gone.*--lock"):
        install(made)
    assert not (made.folder / ".venv").exists()
