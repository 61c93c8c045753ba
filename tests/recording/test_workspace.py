"""A workspace: found, made, launched from, edited; the contract with `sweep run`; recording switched off."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Status

# --- finding and making --------------------------------------------------------------------------------------------


def test_first_run_makes_a_workspace_here_and_later_ones_find_it_from_below(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RUNSTONE_WORKSPACE")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(runstone.WorkspaceNotFound, match="the first run makes one"):
        runstone.open_workspace()
    runstone.start_run(environment=False).finish()
    monkeypatch.chdir(tmp_path / "deep" / "er")
    runstone.start_run(environment=False).finish()
    assert runstone.open_workspace().path == tmp_path / ".runstone"
    assert len(list(runstone.open_workspace().run_folders())) == 2
    assert (tmp_path / ".runstone" / "FORMAT").read_text() == "1\n"
    assert (tmp_path / ".runstone" / ".gitignore").read_text() == "*\n"
    names = sorted(path.name for path in (tmp_path / ".runstone").iterdir())
    assert names == [".gitignore", "FORMAT", "changes", "runs"]


def test_argument_wins_over_the_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_PROJECT", "from the environment")
    monkeypatch.setenv("RUNSTONE_GROUP", "group of it")
    monkeypatch.setenv("RUNSTONE_NAME", "name of it")
    for number, workspace in enumerate((None, tmp_path / "a", str(tmp_path / "b"), runstone.ensure_workspace(home))):
        with runstone.start_run(workspace=workspace, environment=False) as run:
            info = run.read()
            assert (info.project, info.group) == ("from the environment", "group of it")
            assert (info.name == "name of it") == (number == 0)  # it names the first run that has no name
    with runstone.start_run(project="mine", group="own", name="me", environment=False) as run:
        assert (run.read().project, run.read().group, run.read().name) == ("mine", "own", "me")
    assert len(list(runstone.Workspace(home).run_folders())) == 3


@pytest.mark.parametrize("content", [b"2", b"x", b"", b"\xff\xfe", "²".encode(), b"9" * 5000, b"-1"])
def test_workspace_of_another_format_is_refused(home: Path, content: bytes) -> None:
    home.mkdir()
    (home / "FORMAT").write_bytes(content)
    for act in (lambda: runstone.open_workspace(home), lambda: runstone.start_run(on_error="warn")):
        with pytest.raises(runstone.FormatError):
            act()


def test_what_is_no_workspace_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, why in (
        (tmp_path, "the first run in it makes one"),
        (tmp_path / "missing", "no such folder"),
        (tmp_path / "file", "no such folder"),
    ):
        with pytest.raises(runstone.WorkspaceNotFound, match=why):
            runstone.open_workspace(path)
    for open_it in (runstone.open_workspace, runstone.ensure_workspace):
        with pytest.raises(runstone.InvalidValue, match="neither a folder nor a server"):
            open_it("s3://bucket/ws")
        with pytest.raises(runstone.InvalidConfig, match="https"):
            open_it("http://runs.example.org/ws")
    with pytest.raises(runstone.InvalidValue, match="must be a path"):
        runstone.start_run(workspace=3)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"exists|directory"):
        runstone.start_run(workspace=tmp_path / "file")


def make_workspace(path: str) -> None:
    runstone.ensure_workspace(path)


def test_processes_that_make_one_workspace_at_once_agree(home: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(make_workspace, [str(home)] * 40)
    assert sorted(path.name for path in home.iterdir()) == [".gitignore", "FORMAT"]


def test_files_that_lie_about_in_a_workspace_disturb_nothing(home: Path) -> None:
    with runstone.start_run(run_id="one", environment=False):
        pass
    (home / "runs" / "file").write_text("x")
    (home / "runs" / "default" / "file").write_text("x")
    (home / "runs" / "default" / "empty").mkdir()
    workspace = runstone.Workspace(home)
    assert sorted(folder.name for folder in workspace.run_folders()) == ["empty", "one"]
    assert workspace.find_run_folder("one") == home / "runs" / "default" / "one"
    assert workspace.find_run_folder("two") is None
    # the folder of a run whose first writer was killed before it wrote anything
    with runstone.start_run(run_id="empty", name="filled", environment=False) as run:
        assert (run.attempt, run.is_resumed) == (1, False)
    assert run.read().name == "filled"


def test_id_is_unique_over_all_projects_of_a_workspace() -> None:
    runstone.start_run(project="a", run_id="one", environment=False).finish()
    with runstone.start_run(project="b", run_id="one", environment=False) as run:
        assert run.project == "a"  # its project stands
    with pytest.raises(runstone.AlreadyExists):
        run.workspace.create_run(project="b", run_id="one")


# --- launching -----------------------------------------------------------------------------------------------------


def test_launched_run_is_joined_by_the_first_run_of_the_process_only(
    run_program: Callable[..., Any], home: Path
) -> None:
    workspace = runstone.ensure_workspace(home)
    launched = workspace.create_run(project="p", name="trial-0", params={"lr": 0.1}, tags={"a": "b"}, group="sweep")
    assert runstone.RunInfo(launched.path).status is Status.RUNNING
    ended = run_program(
        """
        import runstone
        assert runstone.trial_params() == {"lr": 0.1, "nested": {"a": 1}}
        with runstone.start_run(project="mine", name="mine", group="mine", params={"own": 1}, environment=False) as run:
            run.log({"x": 1.0})
            print(run.id, run.name, run.project, run.group, run.attempt, run.is_resumed)
        with runstone.start_run(project="second", environment=False) as run:
            pass
        """,
        RUNSTONE_RUN_ID=launched.id,
        RUNSTONE_TRIAL='{"lr": 0.1, "nested": {"a": 1}}',
    )
    assert ended.output == f"{launched.id} trial-0 p sweep 1 False\n", ended.errors
    launched.set_tags({"c": 1})  # type: ignore[dict-item]
    launched.log_params({"lr": 0.2})
    launched.close()
    info = runstone.RunInfo(launched.path)
    assert info.status is Status.FINISHED
    assert info.params == {"lr": 0.2, "own": 1}
    assert info.tags == {"a": "b", "c": "1"}
    assert info.series("x").value.tolist() == [1.0]
    assert len(info.attempts) == 1
    assert len(list(workspace.run_folders())) == 2


def test_launcher_prunes_and_names_the_end_of_a_process_that_could_not(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    launched = workspace.create_run(project="p", run_id="one")
    with runstone.start_run(run_id="one", environment=False) as run:
        assert not run.should_stop
        assert run.stop_reason is None
        launched.request_stop("prune")
        assert run.should_stop
        assert run.stop_reason == "prune"
        launched.request_stop("stop")
        assert run.stop_reason == "prune"
    assert run.read().status is Status.PRUNED
    launched.end("failed", failure=runstone.Failure("Timeout", "too long", ""))
    assert run.read().status is Status.PRUNED  # the run's own word stands
    again = workspace.launched_run("one")
    assert again.attempt == 2
    assert run.read().status is Status.RUNNING
    again.end("failed", failure=runstone.Failure("Timeout", "too long", ""))
    info = run.read()
    assert info.status is Status.FAILED
    assert info.failure == runstone.Failure("Timeout", "too long", "")
    with pytest.raises(runstone.InvalidValue, match="no way to end"):
        workspace.launched_run("one").end("crashed")


def test_launcher_that_comes_back_holds_the_attempt_that_lives(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    workspace.create_run(project="p", run_id="one").close()
    first = workspace.launched_run("one")
    assert first.attempt == 1
    with runstone.start_run(run_id="one", environment=False):
        back = workspace.launched_run("one")
        assert back.attempt == 1
        back.close()
    first.close()
    late = workspace.launched_run("one")
    late.close()
    info = runstone.RunInfo(late.path)
    assert info.status is Status.FINISHED
    assert len(info.attempts) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_params_of_a_trial_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RUNSTONE_TRIAL", text)
    if text:
        with pytest.raises(runstone.InvalidValue, match="must hold a JSON object"):
            runstone.trial_params()
    else:
        assert runstone.trial_params() == {}


# --- editing -------------------------------------------------------------------------------------------------------


def test_runs_are_stopped_deleted_restored_and_tagged_by_id(home: Path) -> None:
    run = runstone.start_run(run_id="one", tags={"a": "1", "b": "2"}, environment=False)
    workspace = runstone.Workspace(home)
    workspace.set_tags("one", {"a": "3"}, remove=("b", "not there"))
    assert run.read().tags == {"a": "3"}
    workspace.request_stop("one")
    assert run.should_stop
    run.finish()
    assert run.read().status is Status.STOPPED
    files = len(list(run.path.iterdir()))
    workspace.delete("one")
    assert run.read().is_deleted
    assert len(list(run.path.iterdir())) == files + 1  # nothing is gone
    workspace.restore("one")
    assert not run.read().is_deleted
    assert run.read().status is Status.STOPPED
    assert len(run.read().attempts) == 1
    for act in (workspace.delete, workspace.restore, workspace.request_stop, workspace.follow, workspace.launched_run):
        with pytest.raises(runstone.RunNotFound, match="no run has the id 'two'"):
            act("two")
        with pytest.raises(runstone.InvalidName):
            act("../one")
    with pytest.raises(runstone.InvalidValue, match="must be 'stop' or 'prune'"):
        workspace.request_stop("one", "now")  # type: ignore[arg-type]


def test_follower_sees_each_point_once(home: Path) -> None:
    run = runstone.start_run(run_id="one", environment=False)
    tail = runstone.Workspace(home).follow("one")
    assert tail.poll() == {}
    run.log({"x": 1.0, "y": 2})
    assert {name: series.value.tolist() for name, series in tail.poll().items()} == {"x": [1.0], "y": [2]}
    run.log({"x": 3.0})
    run.finish()
    assert {name: series.value.tolist() for name, series in tail.poll().items()} == {"x": [3.0]}
    assert tail.poll() == {}


# --- the current run, and none -------------------------------------------------------------------------------------


def test_convenience_functions_mean_the_run_opened_last_that_is_open() -> None:
    assert runstone.current_run() is None
    with pytest.raises(runstone.RunNotFound, match=r"call runstone\.start_run"):
        runstone.log({"x": 1.0})
    first, second, third = (runstone.start_run(environment=False) for _ in range(3))
    runstone.log({"x": 3.0}, step=7)
    second.finish()
    assert runstone.current_run() is third
    third.finish()
    assert runstone.current_run() is first
    first.finish()
    assert runstone.current_run() is None
    assert third.read().series("x").step.tolist() == [7]
    assert not first.read().metrics


def test_finished_run_refuses_everything_and_says_how_to_go_on() -> None:
    run = runstone.start_run(environment=False)
    handle = run.metric("x")
    run.finish()
    for act in (
        lambda: run.log({"x": 1.0}),
        lambda: handle(1.0),
        lambda: run.log_params({"a": 1}),
        lambda: run.set_tags({"a": "b"}),
        lambda: run.remove_tags("a"),
        lambda: run.set_notes("x"),
        lambda: run.set_name("x"),
        lambda: run.rewind(3),
    ):
        with pytest.raises(runstone.RunFinished, match=r"reopen\(\)"):
            act()
    assert run.is_finished
    assert run.read().status is Status.FINISHED
    assert run.read().params == {}
    assert run.name == run.read().name


def test_with_warnings_a_finished_run_drops_and_counts(recwarn: pytest.WarningsRecorder) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    run.finish()
    for _ in range(10):
        run.log({"x": 1.0, "y": 2.0})
    assert run.dropped == 20
    assert len(recwarn) == 1


def test_switched_off_recording_takes_every_call_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    monkeypatch.chdir(tmp_path)
    with runstone.start_run(project="p", name="n", group="g", params={"a": 1}, tags={"b": "c"}) as run:
        run.log({"x": 1.0})
        runstone.log({"x": 1.0}, step=3)
        run.metric("x")(1.0)
        run.log_params({"a": 2})
        run.set_tags({"d": "e"})
        run.set_notes("x")
        run.rewind(3)
        assert run.log_artifact(tmp_path) is None
        assert (run.project, run.name, run.group) == ("p", "n", "g")
        assert not run.should_stop
        assert run.stop_reason is None
        assert runstone.current_run() is run
    assert run.is_finished
    with pytest.raises(runstone.RunNotFound):
        run.read()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["0", "false", "No", "OFF"])
def test_recording_is_not_switched_off_by_a_word_for_no(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", word)
    with runstone.start_run(environment=False) as run:
        assert run.workspace


def test_wrong_settings_are_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    with pytest.raises(runstone.InvalidValue, match="must be 'warn' or 'raise'"):
        runstone.start_run(on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(runstone.InvalidValue, match="needs the run_id"):
        runstone.start_run(resume=True)
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "explode")
    with pytest.raises(runstone.InvalidValue, match="'explode'"):
        runstone.start_run()
    assert not home.exists()


def test_ranks_that_live_at_once_share_an_attempt(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]
) -> None:
    program = """
        import os, sys, runstone
        with runstone.start_run(run_id="ddp", environment=False) as run:
            run.log({"x": float(os.environ["RANK"])}, step=0)
            print("ready", flush=True)
            sys.stdin.readline()
            if os.environ["RANK"] == "1":
                raise RuntimeError("rank one")
    """
    ranks = [start(program, RANK=str(rank)) for rank in range(3)]
    for rank in ranks:
        rank.wait_until_ready()
    for rank in ranks:
        rank.go_on()
    assert [rank.end().code for rank in ranks] == [0, 1, 0]
    info = only_run()
    assert info.status is Status.FAILED
    assert info.failure is not None
    assert (info.failure.rank, info.failure.message) == (1, "rank one")
    assert len(info.attempts) == 1
    assert sorted(info.series("x").value.tolist()) == [0.0, 1.0, 2.0]


def test_environment_of_the_latest_attempt_is_read(home: Path) -> None:
    with runstone.start_run(run_id="one") as first:
        assert first.read().environment is not None
    first.read()  # waits for the second look, which writes the file anew
    with runstone.start_run(run_id="one", environment=False) as run:
        pass
    assert isinstance(run.read().environment, dict)
    for file in run.path.glob("environment.*"):
        file.write_text("damaged")
    assert run.read().environment is None
