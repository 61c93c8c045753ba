"""The folder: what is in it, what could not be put there, and that nothing recorded leads out of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import runstone
from runstone import AlreadyExists, InvalidValue, NotFound
from runstone.runinfo import RunInfo
from tests.reproduce.conftest import Project, edit


def test_commit_command_and_lock_are_put_into_a_folder(project: Project) -> None:
    run = project.run("train.py", "3", environment={"PL_GLOBAL_SEED": "9"})
    commit = project.git("rev-parse", "HEAD")
    project.write("helper.py", "LR = 99\n")
    project.commit()  # the project goes on
    made = project.restore(run)
    assert made.checkout is not None
    code = made.folder / "code"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=code, capture_output=True, text=True, check=True)
    assert head.stdout.strip() == commit
    assert (code / "helper.py").read_text() == "LR = 0.1\n"
    assert made.words == ("train.py", "3")
    assert made.working_folder == code
    assert made.set["PL_GLOBAL_SEED"] == "9"
    assert made.obstacles == []
    assert made.lost == []
    lock = (made.folder / "requirements.lock.txt").read_text().splitlines()
    installed = {entry["name"]: entry["version"] for entry in (run.environment or {})["packages"]["installed"]}
    assert f"numpy=={installed['numpy']}" in lock
    plan = json.loads((made.folder / "reproduce.json").read_text())
    assert plan["command"] == ["train.py", "3"]
    assert plan["seeds"]["param seed"] == 3
    readme = (made.folder / "README.md").read_text()
    assert commit[:12] in readme
    assert "python train.py 3" in readme


def test_the_script_of_the_folder_does_the_run_again(
    project: Project, interpreter: Callable[[Path], subprocess.CompletedProcess[str]]
) -> None:
    made = project.restore(project.run("train.py", "3", environment={"PL_GLOBAL_SEED": 'it\'s "9"; $(x)'}))
    done = interpreter(made.folder / "run.sh")
    assert done.returncode == 0, done.stderr
    tags = [RunInfo(path).tags for path in project.runs()]
    assert tags == [{"data": 'it\'s "9"; $(x)'}] * 2


def test_uncommitted_changes_and_untracked_files_are_applied(project: Project) -> None:
    project.write("helper.py", "from new import LR\n")
    project.write("new.py", "LR = 0.5\n")
    made = project.restore(project.run("train.py", "1"))
    assert (made.folder / "code" / "helper.py").read_text() == "from new import LR\n"
    assert (made.folder / "code" / "new.py").read_text() == "LR = 0.5\n"
    assert made.checkout is not None
    assert sorted(made.checkout.applied) == ["helper.py", "new.py"]
    assert made.lost == []


def test_changes_that_were_not_kept_are_named(project: Project) -> None:
    (project.root / "data.bin").write_bytes(bytes(100))
    (project.root / "table.bin").write_bytes(b"\0a")
    project.git("add", "table.bin")
    project.commit()
    (project.root / "table.bin").write_bytes(b"\0b")
    (project.root / "weights.bin").write_bytes(bytes(1 << 17))
    project.write("login.py", 'API_KEY = "hunter2hunter2hunter2"\n')
    made = project.restore(project.run("train.py", "1"))
    lost = "\n".join(made.lost)
    assert "'table.bin': a binary file" in lost
    assert "'weights.bin': changed or untracked then, and not kept" in lost
    assert "a secret in 'login.py'" in lost
    assert "hunter2" not in "".join(path.read_text() for path in made.folder.glob("*") if path.is_file())


def test_a_patch_that_does_not_apply_costs_only_its_file(project: Project) -> None:
    project.write("helper.py", "LR = 0.2\n")
    project.write("extra.py", "A = 1\n")
    run = project.run("train.py", "1")
    patch = next(run.path.glob("code.*.patch"))
    patch.write_text(patch.read_text().replace("-LR = 0.1", "-LR = 7"))
    made = project.restore(run)
    assert made.checkout is not None
    assert made.checkout.applied == ["extra.py"]
    assert any("'helper.py': the patch does not apply" in line for line in made.lost)
    assert any("code.patch has it, to apply by hand" in line for line in made.lost)
    assert "+LR = 0.2" in (made.folder / "code.patch").read_text()
    assert (made.folder / "code" / "helper.py").read_text() == "LR = 0.1\n"


def test_a_commit_that_is_gone_is_named_and_leaves_nothing(project: Project) -> None:
    run = edit(project.run("train.py", "1"), git__commit="0123456789" * 4)
    with pytest.raises(NotFound, match=r"commit 012345678901 is nowhere to be had .*--repository"):
        project.restore(run)
    assert not (project.root.parent / "again").exists()


def test_a_commit_that_no_branch_holds_any_more_is_found(project: Project) -> None:
    project.write("helper.py", "LR = 0.7\n")
    project.commit()
    run = project.run("train.py", "1")
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    made = project.restore(run)
    assert (made.folder / "code" / "helper.py").read_text() == "LR = 0.7\n"


def test_the_commit_comes_from_the_remote_or_a_named_clone_where_the_checkout_is_gone(project: Project) -> None:
    remote = project.root.parent / "remote.git"
    project.git("clone", "--quiet", "--bare", ".", str(remote))
    project.git("remote", "add", "origin", str(remote))
    run = project.run("train.py", "1")
    project.root.rename(project.root.parent / "elsewhere")
    made = project.restore(run)
    assert made.checkout is not None
    assert made.checkout.source == str(remote)
    shutil.rmtree(remote)
    with pytest.raises(NotFound, match="nowhere to be had"):
        project.restore(run, "third")
    assert project.restore(run, "third", repository=str(project.root.parent / "elsewhere")).checkout is not None


def test_no_program_of_the_repository_is_run(project: Project) -> None:
    mark = project.root.parent / "mark"
    program = project.root.parent / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    program.chmod(0o755)
    for hook in ("post-checkout", "pre-commit", "reference-transaction"):
        (project.root / ".git" / "hooks" / hook).write_text(program.read_text())
        (project.root / ".git" / "hooks" / hook).chmod(0o755)
    run = project.run("train.py", "1")
    project.git("config", "uploadpack.packObjectsHook", str(program))
    project.git("config", "core.fsmonitor", str(program))
    mark.unlink(missing_ok=True)
    edit(run, git__remote=f"ext::{program}")
    project.restore(RunInfo(run.path))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside.txt", ".git/hooks/post-commit", "/tmp/outside.txt"])
def test_a_patch_cannot_write_outside_the_checkout(project: Project, name: str) -> None:
    project.write("helper.py", "LR = 0.2\n")
    run = project.run("train.py", "1")
    next(run.path.glob("code.*.patch")).write_text(
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,1 @@\n+x\n"
    )
    made = project.restore(run)
    assert made.checkout is not None
    assert made.checkout.applied == []
    assert not (made.folder / "outside.txt").exists()
    assert not (made.folder / "code/.git/hooks/post-commit").exists()


def test_names_of_a_recording_are_not_paths(project: Project) -> None:
    run = edit(
        project.run("train.py", "1"),
        git__submodules=[{"path": "../../out", "commit": "a" * 40}],
        writer="../../../etc/passwd",
        packages__installed=[
            {"name": "-r /etc/passwd", "version": "1"},
            {"name": "a", "version": "1\n--index-url=http://x"},
            {"name": "b", "version": "1", "url": "https://x/y.whl\n-r z"},
            {"name": "c", "version": "1", "url": "https://example.org/c.git", "commit": "abcdef1"},
        ],
        env={"A=B": "x", "PATH\n": "y", "OMP_NUM_THREADS": "2", "LD_PRELOAD": "/evil.so"},
    )
    made = project.restore(run)
    assert any("'../../out'" in line for line in made.lost)
    assert made.set == {"OMP_NUM_THREADS": "2"}
    lock = (made.folder / "requirements.lock.txt").read_text().splitlines()
    assert [line for line in lock if not line.startswith("#")] == ["c @ git+https://example.org/c.git@abcdef1"]
    assert len([line for line in made.lost if line.startswith("package ")]) == 3


def test_a_run_outside_git_is_told_and_the_rest_is_made(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "loose"
    folder.mkdir()
    (folder / "one.py").write_text("import runstone\nwith runstone.start_run() as run:\n    run.log({'x': 1.0})\n")
    made = project.restore(project.run("one.py", cwd=folder))
    assert made.checkout is None
    assert made.lost[0] == "the code: none was recorded (not a git repository)"
    assert made.obstacles[0].startswith("its code was not recorded (not a git repository)")
    assert (made.folder / "requirements.lock.txt").exists()


def test_a_run_without_environment_is_refused(project: Project) -> None:
    with runstone.start_run(workspace=project.home, environment=False) as run:
        pass
    with pytest.raises(NotFound, match="has no environment"):
        project.restore(RunInfo(run.path))


def test_a_folder_with_something_in_it_is_left_alone(project: Project) -> None:
    run = project.run("train.py", "1")
    folder = project.root.parent / "again"
    folder.mkdir()
    (folder / "mine.txt").write_text("x")
    with pytest.raises(AlreadyExists, match="--output"):
        project.restore(run)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_data_that_git_does_not_keep_can_be_linked(project: Project) -> None:
    project.write(".gitignore", "data\n")
    project.commit()
    project.write("data/a.txt", "1")
    run = project.run("train.py", "1")
    made = project.restore(run, links=["data"])
    assert (made.folder / "code" / "data" / "a.txt").read_text() == "1"
    for link, error in (("../project", InvalidValue), ("nothing", NotFound), ("train.py", AlreadyExists)):
        with pytest.raises(error, match="--link"):
            project.restore(run, "third", links=[link])
    assert not (project.root.parent / "third").exists()


def test_folders_and_arguments_of_the_checkout_are_those_of_the_copy(project: Project) -> None:
    project.write("conf/a.yaml", "x")
    project.write("sub/__init__.py", "")
    project.commit()
    script, config, gone = project.root / "train.py", project.root / "conf/a.yaml", project.root / "data/x"
    run = project.run(
        "-X", "dev", str(script), "2", f"--config={config}", str(gone), cwd=project.root / "sub",
        environment={"PYTHONPATH": str(project.root)},
    )  # fmt: skip
    made = project.restore(run)
    code = made.folder / "code"
    assert made.working_folder == code / "sub"
    assert made.words == ("-X", "dev", str(code / "train.py"), "2", f"--config={code / 'conf/a.yaml'}", str(gone))
    assert made.set["PYTHONPATH"] == str(code)
    assert any("data/x names the old checkout" in note for note in made.notes)


def test_redacted_words_and_variables_are_asked_for(project: Project) -> None:
    run = project.run("train.py", "1", "--api-key", "sk-abcdefgh12345678", environment={"TF_API_TOKEN": "x" * 20})
    made = project.restore(run)
    assert made.obstacles == ["word 4 of its command was redacted: put the value into run.sh and run that"]
    assert any("TF_API_TOKEN" in line for line in [*made.lost, *made.notes])
    assert "sk-abcdefgh" not in (made.folder / "run.sh").read_text()


def test_submodules_are_restored_from_the_old_checkout(project: Project, tmp_path: Path, home: Path) -> None:
    other = Project(tmp_path / "other", home)
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.root), "lib")
    project.commit()
    run = project.run("train.py", "1")
    made = project.restore(run)
    assert (made.folder / "code/lib/helper.py").read_text() == "LR = 0.1\n"
    assert made.lost == []


def test_params_of_a_trial_are_given_again(project: Project) -> None:
    project.run("train.py", "1")
    workspace = runstone.open_workspace(project.home)
    launched = workspace.create_run(project="p", params={"model": {"lr": 0.3}})
    environment = {"RUNSTONE_RUN_ID": launched.id, "RUNSTONE_TRIAL": '{"model": {"lr": 0.3}}'}
    code = "import runstone as r; run = r.start_run(); run.log_params({'own': 1}); run.finish()"
    environment = {**os.environ, "RUNSTONE_WORKSPACE": str(project.home), **environment}
    subprocess.run([sys.executable, "-c", code], cwd=project.root, env=environment, check=True, timeout=60)
    launched.close()
    made = project.restore(workspace.run(launched.id))
    assert json.loads(made.set["RUNSTONE_TRIAL"]) == {"model": {"lr": 0.3}}
    assert made.words == ("-c", code)
