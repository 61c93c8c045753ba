"""Several processes write at once: runs of their own, one run together, forks, copies by pickle, later attempts."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone import Status

POINTS = 2000
WRITER = f"""
import os, sys
import runstone
run = runstone.start_run(
    run_id=os.environ.get("ID"), name="run " + os.environ["NUMBER"], params={{"p" + os.environ["NUMBER"]: 1}},
    tags={{"t" + os.environ["NUMBER"]: "yes"}}, environment=False,
)
print("ready", flush=True)
sys.stdin.readline()
number = int(os.environ["NUMBER"])
for step in range({POINTS}):
    run.log({{"x": step * 8.0 + number, f"own/{{number}}": step}}, step=step)
if number == int(os.environ.get("STAYS", -1)):
    print("ready", flush=True)
    sys.stdin.readline()
run.finish()
"""


def info_of(home: Path, run_id: str) -> runstone.RunInfo:
    folder = runstone.Workspace(home).find_run_folder(run_id)
    assert folder is not None
    return runstone.RunInfo(folder)


def test_eight_processes_log_to_one_workspace_at_once(start: Callable[..., Any], home: Path) -> None:
    programs = [start(WRITER, NUMBER=str(number), ID=f"r{number}") for number in range(8)]
    for program in programs:
        program.wait_until_ready()
    for program in programs:
        program.go_on()
    assert [(ended.code, ended.errors) for ended in (program.end() for program in programs)] == [(0, "")] * 8
    for number in range(8):
        info = info_of(home, f"r{number}")
        assert info.status is Status.FINISHED
        assert info.name == f"run {number}"
        assert info.series("x").value.tolist() == [step * 8.0 + number for step in range(POINTS)]
        assert info.dropped == 0


def test_eight_processes_log_to_one_run_at_once_and_one_is_killed(start: Callable[..., Any], home: Path) -> None:
    programs = [start(WRITER, NUMBER=str(number), ID="one", STAYS="5") for number in range(8)]
    for program in programs:
        program.wait_until_ready()
    assert info_of(home, "one").status is Status.RUNNING
    for program in programs:
        program.go_on()
    programs[5].wait_until_ready()
    others = [program.end() for number, program in enumerate(programs) if number != 5]
    assert [(ended.code, ended.errors) for ended in others] == [(0, "")] * 7
    assert info_of(home, "one").status is Status.RUNNING  # one of them lives
    programs[5].send(signal.SIGKILL)
    programs[5].end()
    info = info_of(home, "one")
    assert info.status is Status.CRASHED
    assert len(info.attempts) == 1
    assert info.params == {f"p{number}": 1 for number in range(8)}
    assert info.tags == {f"t{number}": "yes" for number in range(8)}
    assert sorted(info.series("x").value.tolist()) == [float(value) for value in range(8 * POINTS)]
    for number in range(8):
        assert info.series(f"own/{number}").value.tolist() == list(range(POINTS))


def test_resumed_run_is_a_second_attempt_that_supersedes_from_its_first_step(
    run_program: Callable[..., Any], home: Path
) -> None:
    program = """
        import os
        import runstone
        run = runstone.start_run(run_id="one", params={"lr": float(os.environ["LR"])}, environment=False)
        assert run.attempt == int(os.environ["ATTEMPT"]) and run.is_resumed == (run.attempt > 1)
        for step in range(int(os.environ["FIRST"]), int(os.environ["LAST"])):
            run.log({"x": step * 10.0 + run.attempt}, step=step)
        if run.attempt == 1:
            run.log({"only/first": 1.0}, step=99)
            os._exit(1)
    """
    run_program(program, ATTEMPT="1", FIRST="0", LAST="6", LR="0.1")
    run_program(program, ATTEMPT="2", FIRST="4", LAST="8", LR="0.2")
    info = info_of(home, "one")
    assert info.status is Status.FINISHED
    assert [(attempt.number, attempt.status) for attempt in info.attempts] == [
        (1, Status.CRASHED),
        (2, Status.FINISHED),
    ]
    assert info.params == {"lr": 0.2}
    assert info.series("x").value.tolist() == [1.0, 11.0, 21.0, 31.0, 42.0, 52.0, 62.0, 72.0]
    assert info.series("x", attempt=1).value.tolist() == [step * 10.0 + 1 for step in range(6)]
    assert info.series("x", attempt=2).value.tolist() == [42.0, 52.0, 62.0, 72.0]
    assert len(info.series("x", attempt="all")) == 10
    # what the second attempt did not log again stands
    assert info.series("only/first").value.tolist() == [1.0]
    assert info.metrics["x"].count == 8


def test_rewind_supersedes_in_every_metric_from_the_lowest_step_that_was_said() -> None:
    with runstone.start_run(run_id="one", environment=False) as run:
        for step in range(6):
            run.log({"x": step + 0.1, "only/first": step + 0.1}, step=step)
    with runstone.start_run(run_id="one", environment=False) as run:
        run.rewind(3)
        run.log({"x": 3.2})
        run.log({"x": 4.2})
        run.rewind(4)
        run.log({"x": 4.25})
    info = run.read()
    assert info.series("x").value.tolist() == [0.1, 1.1, 2.1, 3.2, 4.2, 4.25]
    assert info.series("x").step.tolist() == [0, 1, 2, 3, 4, 4]
    assert info.series("only/first").value.tolist() == [0.1, 1.1, 2.1]
    assert len(info.series("only/first", attempt="all")) == 6
    assert info.attempts[1].rewind_step == 3
    with runstone.start_run(run_id="one", environment=False) as run:
        run.rewind(0)
    assert len(run.read().series("x")) == 0
    assert "x" not in run.read().metrics


def test_attempt_that_logs_from_before_its_rewind_supersedes_from_there() -> None:
    with runstone.start_run(run_id="one", environment=False) as run:
        for step in range(6):
            run.log({"x": 1.0, "y": 1.0}, step=step)
    with runstone.start_run(run_id="one", environment=False) as run:
        run.rewind(4)
        run.log({"x": 2.0}, step=2)
        run.log({"y": 2.0}, step=5)
    assert run.read().series("x").step.tolist() == [0, 1, 2]
    assert run.read().series("y").step.tolist() == [0, 1, 2, 3, 5]


def test_first_step_that_counts_is_the_one_logged_first_not_the_lowest() -> None:
    with runstone.start_run(run_id="one", environment=False) as run:
        for step in (0, 1, 2, 3):
            run.log({"x": 1.0}, step=step)
    with runstone.start_run(run_id="one", environment=False) as run:
        for step in (2, 3, 0, 1):  # a step that begins again each epoch
            run.log({"x": 2.0}, step=step)
    assert run.read().series("x").step.tolist() == [0, 1, 2, 3, 0, 1]
    assert run.read().series("x").value.tolist() == [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]


def test_resumed_run_counts_steps_on_from_where_its_files_end() -> None:
    with runstone.start_run(run_id="one", environment=False) as run:
        run.log({"x": 0.0, "y": 0.0})
        run.log({"x": 1.0})
    with runstone.start_run(run_id="one", environment=False) as run:
        run.log({"x": 2.0})
        run.log({"x": 3.0})
        handle = run.metric("y")
        handle(1.0)
        handle(2.0)
        run.metric("z")(0.0)
    assert run.read().series("x").step.tolist() == [0, 1, 2, 3]
    assert run.read().series("y").step.tolist() == [0, 1, 2]
    assert run.read().series("z").step.tolist() == [0]


def test_resumed_run_is_not_stopped_by_what_its_predecessor_was_told(home: Path) -> None:
    with runstone.start_run(run_id="one", environment=False) as run:
        run.workspace.request_stop("one")
        assert run.should_stop
    assert run.read().status is Status.STOPPED
    with runstone.start_run(run_id="one", environment=False) as run:
        assert not run.should_stop
        with runstone.start_run(run_id="one", environment=False) as beside:
            run.workspace.request_stop("one", "prune")
            assert (run.stop_reason, beside.stop_reason) == ("prune", "prune")
    assert run.read().status is Status.PRUNED


@pytest.mark.parametrize("resume", [None, True, False])
def test_resume_says_whether_the_run_must_be_there(resume: bool | None) -> None:
    if resume:
        with pytest.raises(runstone.RunNotFound, match="no run 'one' to resume"):
            runstone.start_run(run_id="one", resume=True)
    runstone.start_run(run_id="one", environment=False).finish()
    if resume is False:
        with pytest.raises(runstone.AlreadyExists, match="resume=False"):
            runstone.start_run(run_id="one", resume=False)
    else:
        with runstone.start_run(run_id="one", resume=resume, environment=False) as run:
            assert run.attempt == 2


# --- forks ---------------------------------------------------------------------------------------------------------


def in_fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked child and return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_forked_child_writes_files_of_its_own_and_touches_none_of_its_parent(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    run = runstone.start_run(environment=False)
    for step in range(100):
        run.log({"x": float(step)}, step=step)
    before = hashes(run.path)

    def child() -> None:
        for step in range(100, 200):
            run.log({"x": float(step), "child": step}, step=step)
        run.log_params({"from": "child"})
        assert {name: found for name, found in hashes(run.path).items() if name in before and "status" not in name} == {
            name: found for name, found in before.items() if "status" not in name
        }

    assert in_fork(child) == 0
    for step in range(200, 300):
        run.log({"x": float(step)}, step=step)
    run.finish()
    info = run.read()
    assert info.status is Status.FINISHED  # a child tells nothing about the end
    assert sorted(info.series("x").value.tolist()) == [float(step) for step in range(300)]
    assert info.series("child").value.tolist() == list(range(100, 200))
    assert info.params == {"from": "child"}
    assert len(info.attempts) == 1


def test_forked_child_that_records_nothing_leaves_no_trace() -> None:
    with runstone.start_run(environment=False) as run:
        run.log({"x": 1.0})

        def files() -> set[str]:  # without segments, which the parent prepares whenever it likes
            return {file.name for file in run.path.iterdir() if file.suffix != ".wal"}

        before = files()

        def child() -> None:
            run.finish()
            with pytest.raises(runstone.RunFinished):
                run.log({"x": 2.0})

        assert in_fork(child) == 0
        assert files() == before
        assert not run.is_finished
    assert run.read().series("x").value.tolist() == [1.0]


def test_child_of_a_child_is_a_writer_too() -> None:
    with runstone.start_run(environment=False) as run:
        assert in_fork(lambda: (run.log({"x": 1.0}, step=1), in_fork(lambda: run.log({"x": 2.0}, step=2)))) == 0
    assert sorted(run.read().series("x").value.tolist()) == [1.0, 2.0]


def test_fork_while_another_thread_is_in_the_middle_of_everything_hangs_nothing() -> None:
    run = runstone.start_run(environment=False)
    is_over = threading.Event()

    def work() -> None:
        step = 0
        while not is_over.is_set():
            run.log({"x": float(step), f"new/{step % 5000}": 1.0}, step=step)
            run.set_tags({"step": step})
            step += 1

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        codes = []
        for number in range(20):
            codes.append(in_fork(lambda number=number: (run.log({"forked": float(number)}, step=number), run.finish())))
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    run.finish()
    assert codes == [0] * 20
    assert run.read().series("forked").value.tolist() == [float(number) for number in range(20)]
    assert run.read().status is Status.FINISHED


def test_child_that_outlives_its_killed_parent_does_not_keep_the_run_running(
    start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]
) -> None:
    program = start(
        """
        import os, sys
        import runstone
        run = runstone.start_run(environment=False)
        run.log({"x": 1.0}, step=0)
        if os.fork() == 0:
            run.log({"child": 1.0}, step=0)
            print("ready", flush=True)
            sys.stdin.readline()
            run.log({"child": 2.0}, step=1)
            os._exit(0)
        os.wait()
        """
    )
    program.wait_until_ready()
    assert only_run().status is Status.RUNNING
    program.process.kill()
    program.process.wait()
    assert only_run().status is Status.CRASHED
    program.go_on()  # the child lives, and logs
    program.end()  # its end closes the pipes
    assert only_run().series("child").value.tolist() == [1.0, 2.0]


# --- multiprocessing and pickle ------------------------------------------------------------------------------------


def log_ten(run: runstone.Run, number: int) -> tuple[int, bool]:
    for step in range(10):
        run.log({"x": number * 10.0 + step}, step=number * 10 + step)
    return run.attempt, run.is_finished


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_processes_of_multiprocessing_log_to_the_run_they_are_handed(method: str) -> None:
    context = multiprocessing.get_context(method)
    with runstone.start_run(environment=False) as run:
        processes = [context.Process(target=log_ten, args=(run, number)) for number in range(1, 3)]
        for process in processes:
            process.start()
        log_ten(run, 0)
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
    info = run.read()
    assert sorted(info.series("x").value.tolist()) == [float(value) for value in range(30)]
    # children that end by `os._exit`, or are terminated by their pool, say nothing about the run
    assert info.status is Status.FINISHED
    assert len(info.attempts) == 1


def test_workers_of_a_pool_that_is_terminated_do_not_stop_the_run() -> None:
    with runstone.start_run(environment=False) as run, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.starmap(log_ten, [(run, 0), (run, 1)]) == [(1, False), (1, False)]
    assert run.read().status is Status.FINISHED
    assert len(run.read().series("x")) == 20
    assert len(list(run.path.glob("*.keys"))) == 1  # one writer a process, however many copies arrive


def test_pickled_run_is_the_same_object_where_it_came_from() -> None:
    with runstone.start_run(environment=False) as run:
        assert pickle.loads(pickle.dumps(run)) is run
        assert copy.deepcopy(run) is run
        assert copy.copy(run) is run
        handle = pickle.loads(pickle.dumps(run.metric("x")))
        handle(1.0)
    assert run.read().series("x").value.tolist() == [1.0]
    assert pickle.loads(pickle.dumps(run)) is run


def test_loading_a_pickle_of_a_run_changes_nothing_until_it_records(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], tmp_path: Path
) -> None:
    run = runstone.start_run(environment=False)
    run.log({"x": 1.0})
    (tmp_path / "open").write_bytes(pickle.dumps(run))
    run.finish("pruned")
    (tmp_path / "ended").write_bytes(pickle.dumps(run))
    before = hashes(run.path)
    load = """
        import pickle, pathlib, runstone
        run = pickle.loads(pathlib.Path({name!r}).read_bytes())
        assert runstone.current_run() is None
    """
    assert run_program(load.format(name="open")).errors == ""
    assert run_program(load.format(name="ended") + "    assert run.is_finished\n").errors == ""
    assert hashes(run.path) == before
    assert only_run().status is Status.PRUNED
    assert run_program(load.format(name="open") + "    run.log({'x': 2.0})\n").errors == ""
    assert [attempt.status for attempt in only_run().attempts] == [Status.PRUNED, Status.FINISHED]
    assert only_run().series("x").step.tolist() == [0, 1]


def test_pickle_of_a_run_whose_workspace_is_elsewhere_loads_and_says_so(
    run_program: Callable[..., Any], tmp_path: Path
) -> None:
    run = runstone.start_run(workspace=tmp_path / "gone", environment=False, on_error="warn")
    (tmp_path / "run").write_bytes(pickle.dumps(run))
    run.finish()
    (tmp_path / "gone").rename(tmp_path / "away")
    ended = run_program(
        """
        import pickle, pathlib
        run = pickle.loads(pathlib.Path("run").read_bytes())
        run.log({"x": 1.0})
        """
    )
    assert ended.code == 0
    assert "cannot be recorded here" in ended.errors
    assert not (tmp_path / "gone").exists()


# --- threads and signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_threads_that_log_at_once_lose_nothing(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with runstone.start_run(environment=False) as run:

            def work(number: int) -> None:
                for step in range(5000):
                    run.log({"all": float(number * 5000 + step), f"{number}/x": float(step)}, step=step)
                    if step % 50 == 0:
                        run.log({f"late/{step}": number}, step=step)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    info = run.read()
    assert np.array_equal(np.sort(info.series("all").value), np.arange(20000.0))
    for number in range(4):
        assert np.array_equal(info.series(f"{number}/x").value, np.arange(5000.0))
    for step in range(0, 5000, 50):
        assert sorted(info.series(f"late/{step}").value.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_signal_handler_that_logs_between_any_two_steps_of_a_log_call_loses_nothing(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], backend: str
) -> None:
    ended = run_program(
        """
        import json, signal
        import runstone
        run = runstone.start_run(environment=False)
        from_handler, is_inside = 0, False
        def handler(*_):
            global from_handler, is_inside
            if is_inside:
                return
            is_inside = True
            for _ in range(40):  # enough of them to fill segments inside the handler
                run.log({"handler": float(from_handler), f"new/{from_handler % 1000}": 1}, step=from_handler)
                from_handler += 1
            is_inside = False
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        for step in range(60000):
            run.log({"main": float(step), f"late/{step % 2000}": 1.0}, step=step)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps([from_handler, run.dropped]))
        """,
        RUNSTONE_LOG=backend,
    )
    assert ended.code == 0, ended.errors
    handled, dropped = (int(number) for number in ended.output.strip("[]\n").split(","))
    assert dropped == 0
    assert handled > 100
    info = only_run()
    assert np.array_equal(info.series("main").value, np.arange(60000.0))
    assert np.array_equal(np.sort(info.series("handler").value), np.arange(float(handled)))
