"""Runs as event files: read back with our reader and, through an import, as runs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.tensorboard import tensorboard_command
from runstone.tensorboard import start_mirror
from runstone.tensorboard.importer import import_logdir
from runstone.tensorboard.mirror import RunMirror, mirror_until_ended
from runstone.tensorboard.reader import RunEvents, event_files, read_events
from runstone.workspace import ensure_workspace

Start = Callable[[str], subprocess.Popen[str]]
NAMES = ["loss", "Übung/ä «x»", "../../up", "/etc/passwd", "a\nb", "💡", "x" * 1024, "<b>&", "%00", " space "]


@pytest.fixture
def tb(tmp_path: Path) -> Path:
    return tmp_path / "tb"


def mirror(run: Path, logdir: Path) -> int:
    return mirror_until_ended(run, logdir, poll_s=0.02)


def only_folder(logdir: Path) -> Path:
    (folder,) = {path.parent for path in logdir.rglob("*tfevents*")}
    return folder


def in_files(logdir: Path) -> RunEvents:
    folder = only_folder(logdir)
    return read_events(folder, event_files(folder))


def new_run(**options: Any) -> runstone.Run:
    return runstone.start_run(environment=False, **options)


def assert_same_points(found: runstone.RunInfo, expected: runstone.RunInfo) -> None:
    assert found.metrics.keys() == expected.metrics.keys()
    for name in expected.metrics:
        one, other = found.series(name, attempt="all"), expected.series(name, attempt="all")
        assert one.value.dtype == other.value.dtype
        for column in ("step", "value", "wall_s"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column), err_msg=name)


def test_a_run_comes_back_from_event_files_as_it_was(tb: Path, tmp_path: Path) -> None:
    params = {"lr": 1e-3, "model": {"name": "mlp", "deep": {"x": True}}, "a.b": 1.5, "text": "ä\n|"}
    with new_run(
        project="p", name="r", params=params, tags={"team": "blue", "odd/../name": "1"}, notes="# Hi\nyou"
    ) as r:
        for step in (0, 1, 5, 5, -3, 2**62):
            r.log({name: math.pi * index / 7 for index, name in enumerate(NAMES)}, step=step)
            r.log({"int": step, "bool": step > 0, "huge": 1e300, "tiny": 5e-324, "third": np.float32(1 / 3)}, step=step)
            r.log({"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0": -0.0}, step=step)
    mirror(r.path, tb)
    workspace = ensure_workspace(tmp_path / "other")
    (result,) = import_logdir(workspace, tb, project="back")
    found = workspace.run(result.run_id)
    expected = r.read()
    assert_same_points(found, expected)
    assert found.params == params
    assert found.tags == {**expected.tags, "imported_from": "tensorboard"}
    assert (found.notes, found.name, found.project) == (expected.notes, "p/r", "back")
    assert math.copysign(1, found.series("-0").value[0]) == -1
    assert (found.started_at, found.warnings) == (expected.started_at, ())


def test_names_are_tags_and_never_paths(tb: Path) -> None:
    with new_run(project="../..", name="/etc/../passwd") as run:
        run.log(dict.fromkeys(NAMES, 1.0))
    mirror(run.path, tb)
    folder = only_folder(tb)
    assert folder.parent.parent == tb
    assert set(in_files(tb).points) == set(NAMES)


def test_runs_of_one_name_have_folders_of_their_own(tb: Path) -> None:
    runs = []
    for number in range(3):
        with new_run(project="p", name="twin") as run:
            run.log({"x": float(number)})
        runs.append(run.path)
    for path in [*runs, *reversed(runs)]:
        mirror(path, tb)
    folders = {path.parent.name for path in tb.rglob("*tfevents*")}
    assert len(folders) == 3
    assert "twin" in folders
    assert all(folder.startswith("twin") for folder in folders)


def test_a_folder_of_something_else_is_left_alone(tb: Path) -> None:
    theirs = tb / "p" / "mine"
    theirs.mkdir(parents=True)
    (theirs / "events.out.tfevents.1.host").write_bytes(b"")
    with new_run(project="p", name="mine") as run:
        run.log({"x": 1.0})
    mirror(run.path, tb)
    assert [path.name for path in theirs.iterdir()] == ["events.out.tfevents.1.host"]
    assert len(list(tb.rglob("*.runstone"))) == 1


def test_a_renamed_run_keeps_its_folder(tb: Path) -> None:
    with new_run(project="p", name="before") as run:
        run.log({"x": 1.0})
        follower = RunMirror(run.path, tb)
        follower.update()
        follower.close()
        run.set_name("after")
        run.log({"x": 2.0})
    mirror(run.path, tb)
    assert only_folder(tb).name == "before"
    assert len(in_files(tb).points["x"]) == 2


def test_a_second_mirror_writes_nothing(tb: Path) -> None:
    with new_run(params={"a": 1}, tags={"b": "c"}, notes="n") as run:
        for step in range(100):
            run.log({"x": step / 7, "y": math.nan})
    assert mirror(run.path, tb) == 200
    before = {path: path.stat().st_mtime_ns for path in tb.rglob("*")}
    assert mirror(run.path, tb) == 0
    assert {path: path.stat().st_mtime_ns for path in tb.rglob("*")} == before
    (only_folder(tb) / "runstone.done").unlink()
    assert mirror(run.path, tb) == 0
    assert len(event_files(only_folder(tb))) == 2  # points, and params


def test_a_mirror_that_was_cut_off_anywhere_is_completed(tb: Path) -> None:
    with new_run(notes="n") as run:
        for step in range(20):
            run.log({"x": step / 7, "y": step})
    mirror(run.path, tb)
    (name,) = event_files(only_folder(tb))
    path = only_folder(tb) / name
    whole = path.read_bytes()
    for length in (*range(0, 200, 7), *range(200, len(whole), 61)):
        for other in only_folder(tb).glob("*tfevents*"):
            other.unlink()
        path.write_bytes(whole[:length])
        mirror(run.path, tb)
        found = in_files(tb)
        assert [sorted(found.points[tag].step) for tag in ("x", "y")] == [list(range(20))] * 2
        assert [text for _step, _wall, text in found.texts["runstone/notes"]] == ["n"]


def test_points_come_while_the_run_lives(tb: Path) -> None:
    with new_run(tags={"phase": "one"}) as run:
        follower = RunMirror(run.path, tb)
        for step in range(5):
            run.log({"x": float(step)})
            assert follower.update()
            assert in_files(tb).points["x"].step.tolist() == list(range(step + 1))
        run.set_tags(phase="two")
        follower.update()
    assert not follower.update()
    follower.close()
    assert [text for _step, _wall, text in in_files(tb).texts["runstone/tags/phase"]] == ["one", "two"]
    assert in_files(tb).not_carried == {}


def test_params_that_come_late_are_there_in_the_end(tb: Path) -> None:
    with new_run(params={"a": 1}) as run:
        follower = RunMirror(run.path, tb)
        run.log({"x": 1.0})
        follower.update()
        assert in_files(tb).hparams == {"a": 1.0}
        run.log_params({"b": {"c": [1, {"d": None}], "e": 2**60}})
    follower.update()
    follower.close()
    found = in_files(tb)
    assert found.hparams == {"a": 1.0, "b.c.0": 1.0, "b.c.1.d": "null", "b.e": str(2**60)}
    assert found.status is runstone.Status.FINISHED


def test_a_resumed_run_goes_on_in_its_folder_and_says_where(tb: Path) -> None:
    with new_run(run_id="again") as run:
        for step in range(10):
            run.log({"x": float(step)})
    mirror(run.path, tb)
    with new_run(run_id="again") as run:
        run.rewind(6)
        for _ in range(4):
            run.log({"x": -1.0})
    assert mirror(run.path, tb) == 4
    found = in_files(tb)
    assert found.points["x"].step.tolist() == [*range(10), 6, 7, 8, 9]
    assert [step for step, _wall in found.restarts] == [6]
    (only_folder(tb) / "runstone.done").unlink()
    assert mirror(run.path, tb) == 0
    assert len(in_files(tb).restarts) == 1


def test_one_process_at_a_time_mirrors_a_run(tb: Path) -> None:
    with new_run() as run:
        run.log({"x": 1.0})
        first, second = RunMirror(run.path, tb), RunMirror(run.path, tb)
        first.update()
        second.update()
        assert second.is_busy_elsewhere
        first.close()
        run.log({"x": 2.0})
        second.update()
        assert (first.written, second.written) == (1, 1)
    second.close()
    assert in_files(tb).points["x"].step.tolist() == [0, 1]


LIVE = """
    import runstone, sys
    run = runstone.start_run(project="p", name="live", environment=False)
    print(run.path, flush=True)
    for step in range(1000):
        run.log({"x": step / 3, "y": float("nan")})
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(1000):
        run.log({"x": step / 3})
    print("done", flush=True)
    sys.stdin.readline()
    %s
"""


def path_of(program: subprocess.Popen[str]) -> Path:
    assert program.stdout is not None
    path = Path(program.stdout.readline().strip())
    assert program.stdout.readline() == "ready\n"
    return path


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def go_on(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("\n")
    program.stdin.flush()


@pytest.mark.parametrize("end", ["finish", "kill"])
def test_a_living_process_is_mirrored_to_its_end(tb: Path, start: Start, end: str) -> None:
    program = start(LIVE % "run.finish()")
    path = path_of(program)
    written: list[int] = []
    thread = threading.Thread(target=lambda: written.append(mirror(path, tb)))
    thread.start()
    wait_for(lambda: list(tb.rglob("*tfevents*")))
    go_on(program)
    assert program.stdout is not None
    assert program.stdout.readline() == "done\n"
    if end == "kill":
        program.send_signal(signal.SIGKILL)
    else:
        go_on(program)
    thread.join(20)
    assert written == [3000]
    assert in_files(tb).points["x"].step.tolist() == list(range(2000))
    assert runstone.RunInfo(path).status is (runstone.Status.CRASHED if end == "kill" else runstone.Status.FINISHED)


@pytest.mark.parametrize("end", ["finish", "kill"])
def test_the_helper_process_outlives_a_kill_and_ends_with_the_run(tb: Path, start: Start, end: str) -> None:
    program = start(LIVE % "run.finish()")
    path = path_of(program)
    helper = start_mirror(path, tb)
    assert os.getpgid(helper.pid) == helper.pid  # no Ctrl-C and no kill of the training's group reaches it
    wait_for(lambda: list(tb.rglob("*tfevents*")))
    go_on(program)
    assert program.stdout is not None
    assert program.stdout.readline() == "done\n"
    assert helper.is_alive
    if end == "kill":
        program.send_signal(signal.SIGKILL)
    else:
        go_on(program)
    assert helper.wait(30)
    assert not helper.is_alive
    assert in_files(tb).points["x"].step.tolist() == list(range(2000))
    assert not list(tb.glob("*.log"))


def test_the_helper_tells_its_trouble_in_a_file(tb: Path, tmp_path: Path) -> None:
    helper = start_mirror(tmp_path / "runs" / "p" / "nothing", tb)
    assert not helper.wait(30)
    assert "RunNotFound" in (tb / "runstone-trouble-nothing.log").read_text()


def test_mirroring_loads_no_framework_and_starting_it_next_to_nothing(start: Start) -> None:
    program = start(
        """
        import sys
        import runstone.tensorboard
        print({"numpy", "tensorboardX", "google"} & set(sys.modules))
        import runstone.tensorboard.mirror, runstone.tensorboard.importer
        print({"torch", "sqlalchemy"} & set(sys.modules))
        """
    )
    assert program.communicate(timeout=30)[0] == "set()\nset()\n"


def test_without_tensorboardx_the_message_says_what_to_install(tmp_path: Path, start: Start) -> None:
    program = start(
        """
        import pathlib, sys
        sys.modules["tensorboardX"] = None
        from runstone.errors import RunstoneError
        from runstone.tensorboard import start_mirror
        try:
            start_mirror(pathlib.Path("/w/runs/p/r"))
        except RunstoneError as error:
            print(error)
        try:
            import runstone.tensorboard.mirror
        except RunstoneError as error:
            print(error)
        """
    )
    lines = program.communicate(timeout=30)[0].splitlines()
    assert len(lines) == 2
    assert all('pip install "runstone[tensorboard]"' in line for line in lines)


def test_the_command_mirrors_all_runs_and_follows_those_that_live(home: Path, tb: Path, start: Start) -> None:
    for number in range(2):
        with new_run(project="p", name=f"r{number}") as run:
            run.log({"x": 1.0})
    with new_run(project="p", name="deleted") as run:
        run.log({"x": 1.0})
    runstone.open_workspace().delete(run.id)
    program = start(
        """
        import pathlib, runstone, time
        run = runstone.start_run(project="p", name="live", environment=False)
        run.log({"x": 1.0})
        print("ready", flush=True)
        while not list(pathlib.Path("tb").glob("p/live/*tfevents*")):
            time.sleep(0.02)
        run.log({"x": 2.0})
        run.finish()
        """
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    result = CliRunner().invoke(tensorboard_command, ["--logdir", str(tb)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "3 runs, 4 new points"
    assert sorted(path.name for path in (tb / "p").iterdir()) == ["live", "r0", "r1"]
    again = CliRunner().invoke(tensorboard_command, ["r0", "r1", "--logdir", str(tb)], catch_exceptions=False)
    assert again.output.splitlines()[-1] == "2 runs, 0 new points"


def test_looking_once_does_not_wait(home: Path) -> None:
    with new_run(project="p", name="live") as run:
        run.log({"x": 1.0})
        result = CliRunner().invoke(tensorboard_command, ["--once"], catch_exceptions=False)
        assert result.output.splitlines()[-1] == "1 run, 1 new point"
    assert in_files(home / "tensorboard").points["x"].step.tolist() == [0]


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_tensorboard_itself_reads_a_mirror(tb: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with new_run(project="p", name="r", params={"lr": 0.1}) as run:
        for step in range(10):
            run.log({"../ä": step / 7})
        run.log_image("picture", np.zeros((4, 6, 3)), step=3)
        run.log_histogram("weights", [0.0, 1.0, 1.0], bins=2, step=4)
        run.log_text("remark", "fine", step=5)
    mirror(run.path, tb)
    found = accumulator.EventAccumulator(str(only_folder(tb)))
    found.Reload()
    assert [event.step for event in found.Scalars("../ä")] == list(range(10))
    assert [event.value for event in found.Scalars("../ä")] == [float(np.float32(step / 7)) for step in range(10)]
    assert "_hparams_/session_start_info" in found.summary_metadata
    assert [(event.step, event.width, event.height) for event in found.Images("picture")] == [(3, 6, 4)]
    (weights,) = found.Tensors("weights")
    assert weights.tensor_proto.tensor_content == np.array([[0, 0.5, 1], [0.5, 1, 2]]).tobytes()
    assert [event.tensor_proto.string_val[0] for event in found.Tensors("remark")] == [b"fine"]
    plugins = {tag: data.plugin_data.plugin_name for tag, data in found.summary_metadata.items()}
    assert (plugins["weights"], plugins["remark"]) == ("histograms", "text")
