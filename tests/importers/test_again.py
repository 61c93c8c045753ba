"""Stores that grow, imports that are killed, runs that were changed here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone import AlreadyExists, Status
from runstone.importers import import_store
from runstone.importers.importing import only_import
from runstone.workspace import Workspace

Unpack = Callable[[str], Path]


def test_points_that_were_added_to_a_store_are_added_to_its_run(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,loss,text\n0,1.0,a\n1,nan,b\n1,nan,b\n")
    (first,) = import_store(workspace, "csv", path).runs
    assert (first.outcome, first.held.points, first.held.media) == ("new", 3, 3)
    with path.open("a") as file:
        file.write("2,inf,c\n1,nan,b\n")
    (second,) = import_store(workspace, "csv", path).runs
    assert (second.outcome, second.run_id) == ("grown", first.run_id)
    assert (second.found.points, second.added.points, second.held.points) == (5, 2, 5)
    assert (second.found.media, second.added.media, second.held.media) == (5, 2, 5)
    info = workspace.run(first.run_id)
    assert sorted(info.series("loss").step.tolist()) == [0, 1, 1, 1, 2]
    assert info.status is Status.FINISHED


def test_a_run_whose_end_is_told_later_ends_as_told(golden: Unpack, workspace: Workspace) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (meta,) = [path for path in store.glob("*/*/meta.yaml") if "run_name: bad" in path.read_text()]
    whole = meta.read_text()
    lines = [line for line in whole.splitlines() if not line.startswith("end_time")]
    running = "\n".join(line.replace("status: 4", "status: 1") for line in lines)
    meta.write_text(f"{running}\nend_time: null\n")
    (first,) = [one for one in import_store(workspace, "mlflow", store).runs if one.name == "bad"]
    assert workspace.run(first.run_id).status is Status.CRASHED
    meta.write_text(whole)
    (second,) = [one for one in import_store(workspace, "mlflow", store).runs if one.name == "bad"]
    assert second.outcome == "grown"
    assert workspace.run(first.run_id).status is Status.FAILED


def test_artifacts_params_and_tags_that_came_later_are_added(golden: Unpack, workspace: Workspace) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (outer,) = [path.parent for path in store.glob("*/*/meta.yaml") if "run_name: outer" in path.read_text()]
    import_store(workspace, "mlflow", store)
    (outer / "params" / "later").write_text("7")
    (outer / "tags" / "later").write_text("yes")
    (outer / "artifacts" / "late.txt").write_text("late")
    with (outer / "metrics" / "loss").open("a") as file:
        file.write("1795449696631 0.1 5\n")
    (one,) = [run for run in import_store(workspace, "mlflow", store).runs if run.name == "outer"]
    assert (one.added.params, one.added.tags, one.added.files, one.added.points) == (1, 1, 1, 1)
    info = workspace.run(one.run_id)
    assert (info.params["later"], info.tags["later"]) == (7, "yes")
    assert sorted(artifact.name for artifact in info.artifacts) == ["late.txt", "notes", "top.txt"]


def test_lines_of_output_that_came_later_are_added(golden: Unpack, workspace: Workspace, tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "session"
    with zipfile.ZipFile(golden("clearml") / "session.zip") as archive:
        archive.extractall(folder)
    (first,) = import_store(workspace, "clearml", folder).runs
    with (folder / "log.jsonl").open("a") as file:
        file.write('[{"timestamp": 1895449999000, "type": "log", "level": "info", "msg": "one more\\nand one"}]\n')
    (second,) = import_store(workspace, "clearml", folder).runs
    assert second.added.lines == 2
    assert second.held.lines == first.held.lines + 2
    assert [line.text for line in workspace.run(first.run_id).console()][-2:] == ["one more", "and one"]


def test_a_run_that_was_deleted_here_stays_deleted(golden: Unpack, workspace: Workspace) -> None:
    (one,) = import_store(workspace, "dvclive", golden("dvclive")).runs
    workspace.delete(one.run_id)
    (again,) = import_store(workspace, "dvclive", golden("dvclive")).runs
    assert again.outcome == "deleted"
    assert workspace.run(one.run_id).is_deleted


def test_what_was_changed_here_is_not_changed_back(golden: Unpack, workspace: Workspace) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (one,) = [run for run in import_store(workspace, "mlflow", store).runs if run.name == "outer"]
    workspace.set_tags(one.run_id, {"team": "ours"})
    workspace.models.get("odd model").set_alias("champion", "1.0.0")
    (outer,) = [path.parent for path in store.glob("*/*/meta.yaml") if "run_name: outer" in path.read_text()]
    (outer / "tags" / "later").write_text("yes")
    import_store(workspace, "mlflow", store)
    assert workspace.run(one.run_id).tags["team"] == "ours"
    assert str(workspace.models.get("odd model").find("champion").version) == "1.0.0"


def test_an_import_that_was_killed_is_gone_on_with(tmp_path: Path, workspace: Workspace) -> None:
    store = tmp_path / "many"
    store.mkdir()
    for number in range(8):
        rows = "\n".join(f"{step},{step * number}" for step in range(2000))
        (store / f"run{number}.csv").write_text(f"step,loss\n{rows}\n")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom runstone.importers import import_store\n"
        "from runstone.workspace import open_workspace\nfrom runstone.runlog.writer import RunLog\n"
        "class Killed(RunLog):\n    left = 5\n    def write(self, event, **fields):\n"
        "        Killed.left -= event == 'imported'\n        Killed.left or os.kill(os.getpid(), 9)\n"
        "        super().write(event, **fields)\n"
        "import runstone.importers.writing as writing\nwriting.RunLog = Killed\n"
        "import_store(open_workspace(Path(sys.argv[1])), 'csv', Path(sys.argv[2]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(workspace.path), str(store)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(workspace.run_folders())) == 4
    assert list(workspace.path.glob("imports/*.partial"))
    result = import_store(workspace, "csv", store)
    assert sorted(one.outcome for one in result.runs) == ["new"] * 4 + ["unchanged"] * 4
    assert all(one.held.points == 2000 for one in result.runs)
    assert not list(workspace.path.glob("imports/*.partial"))


def test_two_imports_at_once_are_refused(golden: Unpack, workspace: Workspace) -> None:
    with only_import(workspace), pytest.raises(AlreadyExists, match="another import"):
        import_store(workspace, "dvclive", golden("dvclive"))


def test_a_store_that_was_moved_gives_the_same_runs(golden: Unpack, workspace: Workspace) -> None:
    for name, tool in (("wandb", "wandb"), ("dvclive", "dvclive"), ("neptune", "neptune"), ("mlflow_db", "mlflow")):
        store = golden(name)
        first = import_store(workspace, tool, store)
        moved = store.with_name(f"{name}-moved")
        shutil.copytree(store, moved)
        again = import_store(workspace, tool, moved)
        assert [one.run_id for one in again.runs] == [one.run_id for one in first.runs]
        assert not any(one.added.points for one in again.runs)


def test_a_store_is_left_as_it_was(golden: Unpack, workspace: Workspace) -> None:
    for name, tool in (("wandb", "wandb"), ("mlflow_db", "mlflow"), ("trackio", "trackio"), ("neptune", "neptune")):
        store = golden(name) / ("trackio" if name == "trackio" else "")
        before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}
        import_store(workspace, tool, store)
        after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}
        assert after == before, name


def test_a_read_only_store_is_read(golden: Unpack, workspace: Workspace) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is read-only for root")
    store = golden("mlflow_db")
    for path in [*store.rglob("*"), store]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert len(import_store(workspace, "mlflow", store).runs) == 4


def test_the_parts_of_a_run_of_wandb_that_was_resumed_are_one_run(golden: Unpack, workspace: Workspace) -> None:
    store = golden("wandb") / "wandb"
    (folder,) = store.glob("*killed01")
    shutil.copytree(folder, folder.with_name("offline-run-20261124_000000-killed01"))
    result = import_store(workspace, "wandb", store)
    (one,) = [run for run in result.runs if run.name == "killed"]
    assert one.held.points == one.found.points
    steps = workspace.run(one.run_id).series("loss").step.tolist()
    assert len(steps) == 2 * len(set(steps))
