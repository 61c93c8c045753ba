"""The command: what it named then it names now; and where it cannot be given again, why and what to do instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runstone import NotFound, Workspace
from runstone.reproduce import rerun
from tests.reproduce.conftest import Project, command_line, edit

MODULE = """
import sys, runstone
with runstone.start_run(name="m") as run:
    run.log({"x": float(open(sys.argv[1].removeprefix("--data=")).read())})
"""


@pytest.fixture
def package(project: Project) -> Project:
    """Return a project with a package, and data that git does not keep."""
    project.write("pkg/__init__.py", "")
    project.write("pkg/fit.py", MODULE)
    project.write("jobs/list.txt", "x")
    project.write(".gitignore", "data\nruns\n")
    project.commit()
    project.write("data/deep/x.txt", "3")
    project.write("runs/old.txt", "3")
    return project


def test_a_module_run_below_the_checkout_with_relative_data_asks_for_the_link_that_makes_it_work(
    package: Project,
) -> None:
    arguments = ("-m", "pkg.fit", "--data=../data/deep/x.txt")
    run = package.run(*arguments, cwd=package.root / "jobs", environment={"PYTHONPATH": str(package.root)})
    made = package.restore(run)
    assert made.words == arguments
    assert made.working_folder == made.folder / "code/jobs"
    hint = f"--link data links it from {package.root}, as it is now"
    assert made.lost == [f"the argument --data=../data/deep/x.txt: git did not keep it; {hint}"]
    assert [note for note in made.notes if "git does not keep runs:" in note]
    linked = package.restore(run, "linked", links=["data"])
    assert linked.lost == []
    with Path(os.devnull).open("wb") as nowhere:
        assert rerun(linked, Workspace(package.home), output=nowhere).verdict == "equal"


def test_a_relative_path_out_of_the_checkout_leads_to_the_same_place(package: Project) -> None:
    (package.root.parent / "x.txt").write_text("4")
    made = package.restore(package.run("-m", "pkg.fit", "--data=../x.txt"))
    assert made.words == ("-m", "pkg.fit", f"--data={package.root.parent}/x.txt")
    assert any("led out of the checkout" in note for note in made.notes)


def test_a_script_that_git_did_not_keep_is_asked_for(project: Project) -> None:
    large = (project.root / "train.py").read_text() + "#" * (1 << 17)
    project.write("large.py", large)
    run = project.run("large.py", "1")
    made = project.restore(run)
    assert made.obstacles == [
        "its script large.py is not in the checkout: it was neither committed nor kept; "
        f"--link large.py links it from {project.root}, as it is now"
    ]
    assert project.restore(run, "linked", links=["large.py"]).obstacles == []
    (project.root / "large.py").unlink()
    gone = project.restore(run, "gone")
    assert f"if you have it, copy it to {gone.folder}/code/large.py and run run.sh" in gone.obstacles[0]


def test_a_script_outside_of_the_checkout_is_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    script = tmp_path / "other/one.py"
    script.write_text("import runstone\nwith runstone.start_run() as run:\n    run.log({'x': 1.0})\n")
    made = project.restore(project.run(str(script)))
    expected = f"its script {script} lies outside of the checkout {project.root}, and was not recorded"
    assert made.obstacles == [expected]


def test_a_notebook_and_an_interpreter_have_no_command(project: Project) -> None:
    project.write("nb/a.ipynb", "{}")
    project.commit()
    run = project.run("train.py", "1")
    run = edit(run, process__kind="notebook", notebook={"path": str(project.root / "nb/a.ipynb")})
    made = project.restore(run)
    expected = "it was started in the notebook nb/a.ipynb, which has no command to give again: open "
    assert made.obstacles == [f"{expected}{made.folder}/code/nb/a.ipynb"]
    with pytest.raises(NotFound, match="cannot be run again: it was started in the notebook"):
        rerun(made, Workspace(project.home))
    unknown = project.restore(edit(run, notebook=None), "unknown")
    assert unknown.obstacles[0].startswith("it was started in a notebook, which has no command to give again")
    typed = project.restore(edit(run, process__kind="repl", process__argv=["python"]), "typed")
    assert typed.obstacles[0].startswith("it was typed into an interactive interpreter")


def test_a_rank_of_a_larger_job_is_not_run_alone(project: Project) -> None:
    run = project.run("-u", "train.py", "1", environment={"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"})
    code, said, error = command_line("reproduce", run.id, "--run", cwd=project.root.parent)
    assert code == 1
    assert "it ran as 4 processes" in said
    assert "`torchrun --no-python --nproc-per-node 4 run.sh`" in said
    assert "it is not run, for the reasons above" in error
    assert len(project.runs()) == 1


def test_a_redacted_variable_is_named_until_it_is_set(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.run("train.py", "1", environment={"TF_API_TOKEN": "x" * 20})
    missing = "variable TF_API_TOKEN: its value was redacted; set it before you run the command"
    assert project.restore(run).lost == [missing]
    monkeypatch.setenv("TF_API_TOKEN", "y")
    made = project.restore(run, "set")
    assert made.lost == []
    assert "variable TF_API_TOKEN was redacted; its value of now is used" in made.notes


def test_a_program_of_a_package_is_the_one_beside_the_interpreter(project: Project, tmp_path: Path) -> None:
    run = edit(
        project.run("train.py", "1"),
        python__executable="/old/env/bin/python",
        process__argv=["/old/env/bin/python", "/old/env/bin/fit-it", "--x=1"],
    )
    made = project.restore(run)
    assert made.words == ("fit-it", "--x=1")
    with pytest.raises(NotFound, match=r"was started by fit-it, which is not in .*--install"):
        rerun(made, Workspace(project.home))
    folder = tmp_path / "env"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    (folder / "fit-it").write_text("import sys\nprint('fitted', sys.argv[1])\n")
    environment = {**os.environ, "PYTHON": str(folder / "python")}
    done = subprocess.run([made.folder / "run.sh"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "fitted --x=1\n"


def test_without_git_it_is_told_what_is_needed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project.run("train.py", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="git is not on PATH, and it is needed to restore the code of the run: install"):
        project.restore(run)


def test_the_next_free_folder_is_taken_and_hidden_from_a_repository_around_it(project: Project) -> None:
    run = project.run("train.py", "1")
    for _ in range(2):
        assert command_line("reproduce", run.id, cwd=project.root)[0] == 0
    made = sorted(path.name for path in project.root.glob("reproduce-*"))
    assert made == [f"reproduce-{run.id[-8:]}", f"reproduce-{run.id[-8:]}-2"]
    assert project.git("status", "--porcelain") == ""
