"""A run ends as its process ends, says why, and changes nothing of how that looks to the user."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Status

Read = Callable[[], runstone.RunInfo]

START = """
import os, signal, sys, threading, atexit
import runstone
run = runstone.start_run(run_id="one", environment=False)
run.log({"x": 1.0}, step=0)
"""
WITH = """
import os, signal, sys
import runstone
with runstone.start_run(run_id="one", environment=False) as run:
    run.log({"x": 1.0}, step=0)
    """
WAIT = "print('ready', flush=True); sys.stdin.readline()\n"
LIMIT_S = 2.0
"""How much longer a process may take to end than it would without a run; and how long the tests let it take in all."""


@pytest.mark.parametrize(
    ("program", "code", "status", "failure"),
    [
        pytest.param(START, 0, Status.FINISHED, None, id="end"),
        pytest.param(START + "sys.exit()", 0, Status.FINISHED, None, id="exit"),
        pytest.param(START + "sys.exit(0)", 0, Status.FINISHED, None, id="exit-0"),
        pytest.param(START + "sys.exit(3)", 3, Status.FAILED, ("SystemExit", "3"), id="exit-3"),
        pytest.param(START + "sys.exit('no data')", 1, Status.FAILED, ("SystemExit", "no data"), id="exit-text"),
        pytest.param(START + "1 / 0", 1, Status.FAILED, ("ZeroDivisionError", "division by zero"), id="exception"),
        pytest.param(START + "raise KeyboardInterrupt", -2, Status.STOPPED, None, id="interrupt"),
        pytest.param(START + "signal.raise_signal(signal.SIGINT)", -2, Status.STOPPED, None, id="int"),
        pytest.param(START + "os._exit(5)", 5, Status.CRASHED, None, id="os-exit"),
        pytest.param(START + "os.abort()", -6, Status.CRASHED, None, id="abort"),
        pytest.param(START + "os.kill(os.getpid(), signal.SIGKILL)", -9, Status.CRASHED, None, id="kill"),
        pytest.param(START + "os.kill(os.getpid(), signal.SIGHUP)", -1, Status.CRASHED, None, id="hangup"),
        pytest.param(START + "os.kill(os.getpid(), signal.SIGTERM)", -15, Status.STOPPED, None, id="term"),
        pytest.param(START + "run.finish('failed')", 0, Status.FAILED, None, id="told-failed"),
        pytest.param(START + "run.fail(ValueError('x'))", 0, Status.FAILED, ("ValueError", "x"), id="told-why"),
        pytest.param(WITH + "pass", 0, Status.FINISHED, None, id="with-end"),
        pytest.param(WITH + "sys.exit(0)", 0, Status.FINISHED, None, id="with-exit-0"),
        pytest.param(WITH + "sys.exit(3)", 3, Status.FAILED, ("SystemExit", "3"), id="with-exit-3"),
        pytest.param(WITH + "1 / 0", 1, Status.FAILED, ("ZeroDivisionError", "division by zero"), id="with-exception"),
        pytest.param(WITH + "raise KeyboardInterrupt", -2, Status.STOPPED, None, id="with-interrupt"),
        pytest.param(WITH + "os.kill(os.getpid(), signal.SIGTERM)", -15, Status.STOPPED, None, id="with-term"),
        pytest.param(WITH + "os._exit(0)", 0, Status.CRASHED, None, id="with-os-exit"),
        # a thread that nobody waits for, and an exception in one: neither is the end of the program
        pytest.param(
            START + "threading.Thread(target=lambda: [run.log({'y': 1.0}) for _ in iter(int, 1)], daemon=True).start()",
            0,
            Status.FINISHED,
            None,
            id="daemon-thread",
        ),
        pytest.param(
            START + "threading.Thread(target=lambda: 1 / 0).start()", 0, Status.FINISHED, None, id="thread-exception"
        ),
        # what the program does after the exception shows that it was not the end of it
        pytest.param(
            START + "try:\n    sys.exit(3)\nexcept SystemExit:\n    pass\n"
            "run.finish()\nrun = runstone.start_run(run_id='one', environment=False)",
            0,
            Status.FINISHED,
            None,
            id="caught-exit",
        ),
    ],
)
def test_run_tells_the_cause_of_its_end_and_the_exit_code_stays(
    run_program: Callable[..., object], only_run: Read, program: str, code: int, status: Status, failure: object
) -> None:
    ended = run_program(program)
    info = only_run()
    assert (ended.code, info.status) == (code, status), ended.errors
    assert info.attempts[0].ended_at is not None
    assert info.series("x").value.tolist() == [1.0]
    told = (info.failure.type, info.failure.message) if info.failure else None
    assert told == failure
    if status is Status.FAILED and failure and "told" not in program and "fail(" not in program:
        assert "Traceback (most recent call last)" in info.failure.traceback
        assert '"<string>", line ' in info.failure.traceback


RAISE = "def f():\n    raise LookupError('nothing')\n"
CHAIN = "try:\n    f()\nexcept LookupError as error:\n    raise ValueError('more') from error\n"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("", id="end"),
        pytest.param("sys.exit(7)", id="exit"),
        pytest.param("sys.exit('why')", id="exit-text"),
        pytest.param(RAISE + "f()", id="exception"),
        pytest.param(RAISE + CHAIN, id="chain"),
        pytest.param("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])", id="group"),
        pytest.param("signal.raise_signal(signal.SIGINT)", id="int"),
        pytest.param("signal.raise_signal(signal.SIGTERM)", id="term"),
        pytest.param("signal.raise_signal(signal.SIGHUP)", id="hangup"),
        pytest.param("signal.raise_signal(signal.SIGKILL)", id="kill"),
        pytest.param("os._exit(9)", id="os-exit"),
        pytest.param("os.close(1); os.close(2)", id="closed-output"),
        pytest.param(
            "threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()\n" + RAISE + "f()",
            id="exception-beside-a-daemon-thread",
        ),
    ],
)
def test_process_ends_as_it_would_without_a_run_and_hardly_later(
    start: Callable[..., Any], ending: str, tmp_path: Path
) -> None:
    program = START + "pathlib.Path('last').write_text(str(time.monotonic()))\n" + ending
    plain = program.replace("import runstone", "").replace("run = ", "run = 0 #").replace("run.log", "#")
    found = []
    for source in (program, plain):
        ended = start("import pathlib, time\n" + source).end()
        after_s = time.monotonic() - float((tmp_path / "last").read_text())
        found.append((ended.code, ended.output, ended.errors))
        assert after_s < LIMIT_S
    assert found[0] == found[1]


def test_process_with_everything_switched_on_ends_within_two_seconds(
    start: Callable[..., Any], only_run: Read, tmp_path: Path
) -> None:
    program = start(
        """
        import pathlib, threading, time
        import runstone
        run = runstone.start_run(run_id="one", system_metrics=0.5)
        def log():
            for step in iter(int, 1):
                run.log({"y": 1.0})
        threading.Thread(target=log, daemon=True).start()
        run.log({"x": 1.0}, step=0)
        time.sleep(1.0)
        pathlib.Path("last").write_text(str(time.monotonic()))
        """,
        RUNSTONE_ON_ERROR="warn",
    )
    ended = program.end()
    assert time.monotonic() - float((tmp_path / "last").read_text()) < LIMIT_S
    assert ended.code == 0
    assert only_run().status is Status.FINISHED
    assert only_run().environment is not None


def test_run_ends_within_two_seconds_of_its_process_while_the_snapshot_is_slow(
    run_program: Callable[..., object], only_run: Read, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin" / "git"
    git.write_text("#!/bin/sh\nexec sleep 30\n")
    git.chmod(0o755)
    ended = run_program(
        """
        import atexit, time
        import runstone
        begin = []
        atexit.register(lambda: print(time.monotonic() - begin[0]))  # runs after those registered later
        run = runstone.start_run()
        begin.append(time.monotonic())
        """,
        PATH=f"{git.parent}:{os.environ['PATH']}",
    )
    assert ended.code == 0
    assert float(ended.output) < 2.5
    assert only_run().status is Status.FINISHED


def test_exception_is_told_although_a_later_hook_hides_it(run_program: Callable[..., object], only_run: Read) -> None:
    ended = run_program(START + "sys.excepthook = lambda *error: print('mine', flush=True)\n1 / 0")
    assert (ended.code, ended.output, ended.errors) == (1, "mine\n", "")
    assert only_run().status is Status.FAILED
    assert only_run().failure.type == "ZeroDivisionError"


def test_hook_that_was_there_before_is_called(run_program: Callable[..., object], only_run: Read) -> None:
    ended = run_program("import sys\nsys.excepthook = lambda *error: print('mine')\n" + START + "1 / 0")
    assert (ended.code, ended.output, ended.errors) == (1, "mine\n", "")
    assert only_run().status is Status.FAILED


def test_exception_at_a_prompt_is_not_the_end(run_program: Callable[..., object], only_run: Read) -> None:
    prompt = "import code, sys\nsys.ps1 = '>>> '\n"
    ended = run_program(START + prompt + "code.InteractiveInterpreter().runsource('1 / 0')\n")
    assert ended.code == 0
    assert only_run().status is Status.FINISHED


@pytest.mark.parametrize("is_before", [True, False])
def test_handler_of_the_user_for_sigterm_stays(
    run_program: Callable[..., object], only_run: Read, is_before: bool
) -> None:
    handler = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: (print('mine', flush=True), sys.exit(0)))\n"
    raised = "signal.raise_signal(signal.SIGTERM)"
    ended = run_program(handler + START + raised if is_before else START + handler + raised)
    assert (ended.code, ended.output) == (0, "mine\n")
    assert only_run().status is Status.FINISHED


def test_run_opened_in_a_thread_first_does_not_keep_the_next_from_hearing_sigterm(
    run_program: Callable[..., object], home: Path
) -> None:
    ended = run_program(
        """
        import signal, threading
        import runstone
        def other():
            runstone.start_run(run_id="other", environment=False).finish()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        run = runstone.start_run(run_id="one", environment=False)
        signal.raise_signal(signal.SIGTERM)
        """
    )
    assert ended.code == -signal.SIGTERM
    workspace = runstone.Workspace(home)
    assert runstone.RunInfo(workspace.find_run_folder("one")).status is Status.STOPPED


def test_sigterm_while_a_thread_logs_ends_the_run_within_two_seconds(
    start: Callable[..., object], only_run: Read
) -> None:
    program = start(
        START
        + "def work():\n    for step in iter(int, 1):\n        run.log({'y': 1.0, 'z': 2}, step=step)\n"
        + "for _ in range(3):\n    threading.Thread(target=work, daemon=True).start()\n"
        + WAIT
    )
    program.wait_until_ready()
    begin = time.monotonic()
    program.send(signal.SIGTERM)
    assert program.end().code == -signal.SIGTERM
    assert time.monotonic() - begin < 8.0  # it has not hung
    assert only_run().status is Status.STOPPED


def test_what_is_logged_at_exit_before_the_run_ends_is_kept(run_program: Callable[..., object], only_run: Read) -> None:
    # functions registered later run earlier
    ended = run_program(START + "atexit.register(lambda: run.log({'x': 2.0}, step=1))")
    assert (ended.code, ended.errors) == (0, "")
    assert only_run().series("x").value.tolist() == [1.0, 2.0]


def test_what_is_logged_after_the_run_ended_is_refused_and_disturbs_nothing(
    run_program: Callable[..., object], only_run: Read
) -> None:
    ended = run_program("import atexit\natexit.register(lambda: run.log({'x': 2.0}, step=1))\n" + START)
    assert ended.code == 0
    assert only_run().status is Status.FINISHED
    assert only_run().series("x").value.tolist() == [1.0]


def test_objects_that_log_when_they_die_hang_nothing(run_program: Callable[..., object], only_run: Read) -> None:
    ended = run_program(
        START
        + """
class Dying:
    def __del__(self):
        run.log({"died": 1.0}, step=0)
import gc, weakref
for _ in range(100):
    a, b = Dying(), Dying()
    a.other, b.other = b, a
    weakref.finalize(a, run.log, {"finalized": 1.0}, step=0)
    run.log({"x": 1.0, "new": 2})
del a, b
gc.collect()
left = Dying()
""",
        RUNSTONE_ON_ERROR="warn",
    )
    assert ended.code == 0
    info = only_run()
    assert info.status is Status.FINISHED
    assert len(info.series("finalized")) == 100
    assert len(info.series("died")) >= 200


def test_message_of_an_exception_that_cannot_be_shown_hides_nothing_else(home: Path) -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(Unshowable), runstone.start_run(environment=False) as run:
        raise Unshowable
    assert run.read().status is Status.FAILED
    assert run.read().failure.type == "Unshowable"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("TrialPruned", Status.PRUNED), ("SIGTERMException", Status.STOPPED), ("Other", Status.FAILED)],
)
def test_exceptions_of_other_libraries_that_mean_an_end_are_known_by_name(kind: str, status: Status) -> None:
    with pytest.raises(RuntimeError), runstone.start_run(environment=False) as run:
        raise type(kind, (RuntimeError,), {})
    assert run.read().status is status


@pytest.mark.parametrize("word", ["running", "crashed", "ended", "", 3, Status.CRASHED])
def test_a_run_cannot_be_told_to_end_in_a_way_that_is_none(word: object) -> None:
    run = runstone.start_run(environment=False)
    with pytest.raises(runstone.InvalidValue, match="no way to end"):
        run.finish(word)  # type: ignore[arg-type]
    assert not run.is_finished
    run.finish()
    assert run.read().status is Status.FINISHED


def test_with_warnings_a_wrong_word_for_the_end_ends_the_run_all_the_same() -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    run.fail(ValueError("x"))
    with pytest.warns(runstone.TrackingWarning, match="no way to end"):
        run.finish("ended")
    assert run.read().status is Status.FAILED


def test_second_finish_does_nothing() -> None:
    run = runstone.start_run(environment=False)
    run.finish("pruned")
    run.finish("failed")
    assert run.read().status is Status.PRUNED


def test_failed_run_that_is_resumed_and_finishes_tells_no_failure(home: Path) -> None:
    with pytest.raises(ValueError, match="first"), runstone.start_run(run_id="one", environment=False):
        raise ValueError("first")
    with runstone.start_run(run_id="one", environment=False) as run:
        pass
    assert run.read().status is Status.FINISHED
    assert run.read().failure is None
    assert [attempt.status for attempt in run.read().attempts] == [Status.FAILED, Status.FINISHED]


def test_reopened_run_goes_on_in_the_same_attempt() -> None:
    with runstone.start_run(environment=False) as run:
        run.log({"x": 1.0})
    run.reopen()
    assert runstone.current_run() is run
    assert run.read().status is Status.RUNNING
    run.log({"x": 2.0})
    run.finish()
    assert run.read().series("x").step.tolist() == [0, 1]
    assert [(attempt.number, attempt.status) for attempt in run.read().attempts] == [(1, Status.FINISHED)]
