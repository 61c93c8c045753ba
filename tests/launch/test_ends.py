"""How a launched program ends, who may be killed meanwhile, and what the run says of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runstone.cli.main import run as command
from runstone.console import console_text
from runstone.launch import verdict
from runstone.runinfo import RunInfo
from runstone.runlog.reader import read_events
from runstone.values import Failure, Status
from runstone.workspace import Workspace
from tests.launch.conftest import RUN

Script = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `runstone run` and let the test go on beside it."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*RUN, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


def only_run(home: Path) -> RunInfo:
    (folder,) = Workspace(home).run_folders()
    return RunInfo(folder)


def until(is_so: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def lines_until(process: subprocess.Popen[bytes], wanted: bytes) -> list[bytes]:
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        found.append(line)
        if wanted in line:
            return found
    raise AssertionError(f"{wanted!r} did not come: {found}")


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "code_told", "status", "kind", "message"),
    [
        ("exit 0", 0, "finished", None, None),
        ("echo the reason >&2; exit 7", 7, "failed", "ExitCode", "exit code 7: the reason"),
        ("kill -SEGV $$", 139, "failed", "SIGSEGV", "killed by SIGSEGV"),
        ("kill -KILL $$", 137, "failed", "SIGKILL", "killed by SIGKILL; was memory short?"),
        ("kill -TERM $$", 143, "stopped", None, None),
        ("kill -INT $$", 130, "stopped", None, None),
    ],
)
def test_the_exit_code_is_that_of_the_program_and_the_run_says_why(
    code: str, code_told: int, status: str, kind: str | None, message: str | None, launched: Callable[..., object]
) -> None:
    done = launched("bash", "-c", code)
    failure = done.run.failure
    assert (done.code, done.run.status) == (code_told, status)
    assert (failure and failure.type, failure and failure.message) == (kind, message)
    (exited,) = [event for _writer, event in read_events(done.run.path) if event["event"] == "exited"]
    assert exited["code"] == code_told


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no-such-program"], 127, "there is no program 'no-such-program'"),
        (["./nothing"], 127, "there is no program ./nothing"),
        (["trian.py"], 127, "there is no file trian.py; did you mean train.py?"),
        (["train.py.txt"], 127, "did you mean ./train.py.txt?"),
        (["./train.py.txt"], 126, "it is not executable (chmod +x ./train.py.txt)"),
        (["./"], 126, "./ is a folder"),
        ([], 2, "Missing argument 'COMMAND...'"),
        (["--tag", "x", "true"], 2, "write --tag x=VALUE"),
        (["--system-metrics", "fast", "true"], 2, "'fast'"),
        (["--project", " ", "true"], 2, "the name of a project is empty"),
        (["--params-from", "train.py", "true"], 2, "train.py"),
        (["--params-from", "none.json", "true"], 1, "none.json"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_nothing_is_recorded(
    words: list[str], code: int, message: str, script: Script, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    script("x", "train.py")
    script("x", "train.py.txt")
    assert command(["run", *words]) == code  # before anything is started
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not home.exists()


def test_a_file_that_the_system_cannot_run_is_told_and_recorded(
    script: Script, launched: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / script("\0\1", "odd")).chmod(0o755)
    done = launched("./odd")
    assert done.code == 126
    assert b"runstone: cannot start ./odd: Exec format error" in done.err
    assert done.run.failure.message.startswith("cannot start ./odd")


@pytest.mark.parametrize(
    ("code", "word", "was_signalled", "kinds", "status"),
    [
        (0, 0, True, (), Status.FINISHED),
        (1, 0, True, (), Status.STOPPED),
        (1, 0, False, ("KeyboardInterrupt", "BaseException"), Status.STOPPED),
        (1, 0, False, ("TrialPruned", "Exception"), Status.PRUNED),
        (1, 0, False, ("ValueError", "Exception"), Status.FAILED),
        (0, 1, False, (), Status.STOPPED),
        (-15, 2, False, (), Status.PRUNED),
        (143, 0, False, (), Status.STOPPED),
        (-9, 1, False, (), Status.STOPPED),
    ],
)
def test_an_end_is_judged_by_code_word_signal_and_exception(
    code: int, word: int, was_signalled: bool, kinds: tuple[str, ...], status: Status
) -> None:
    told = verdict.Told(Failure(kinds[0], "m", "t"), kinds) if kinds else None
    assert verdict.judge(code, word=word, was_signalled=was_signalled, told=told, tail="")[0] is status


# --- signals ----------------------------------------------------------------------------------------------------------

_COUNTS = """
    import signal, time, os, subprocess, sys
    seen = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: seen.append(number))
    print("ready", flush=True)
    while not seen: time.sleep(0.01)
    time.sleep(0.4)
    print("seen", *map(int, seen), flush=True)
    """


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_program_once_whoever_was_sent_it(
    number: signal.Signals, whole_group: bool, script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path
) -> None:
    process = start(script(_COUNTS))
    lines_until(process, b"ready")
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert lines_until(process, b"seen")[-1] == b"seen %d\n" % number
    assert process.wait(30) == 0
    assert only_run(home).status == "finished"


def test_what_the_program_started_in_its_group_is_sent_the_signal_too(
    start: Callable[..., subprocess.Popen[bytes]], home: Path
) -> None:
    process = start("bash", "-c", "sleep 300 & echo $! ready; wait")
    pid = int(lines_until(process, b"ready")[-1].split()[0])
    process.terminate()
    assert process.wait(30) == 143
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert only_run(home).status == "stopped"


# --- being killed -----------------------------------------------------------------------------------------------------


def _family(process: subprocess.Popen[bytes]) -> tuple[psutil.Process, psutil.Process]:
    """Return the recorder and the program of a front."""
    (recorder,) = psutil.Process(process.pid).children()
    program = next(child for child in recorder.children() if "snapshot" not in " ".join(child.cmdline()))
    return recorder, program


def test_what_a_killed_program_printed_last_is_there(
    script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path
) -> None:
    name = script("import os\nfor n in range(5000): os.write(1, b'%d\\n' % n)\nos.kill(os.getpid(), 9)")
    out, _err = start(name).communicate(timeout=30)
    assert out.splitlines()[-1] == b"4999"
    assert console_text(only_run(home).path).splitlines() == [str(n) for n in range(5000)]


def test_a_killed_launcher_costs_neither_the_program_nor_its_record(
    script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path, tmp_path: Path
) -> None:
    name = script(
        """
        import pathlib, time
        print("ready", flush=True)
        while not pathlib.Path("go").exists(): time.sleep(0.01)
        print("still here", flush=True)
        raise SystemExit(3)
        """
    )
    process = start(name)
    lines_until(process, b"ready")
    process.kill()
    process.wait(30)
    (tmp_path / "go").touch()
    until(lambda: only_run(home).status.is_ended)
    run = only_run(home)
    assert (run.status, run.failure.message) == ("failed", "exit code 3")
    assert console_text(run.path) == "ready\nstill here\n"


def test_a_killed_recorder_costs_the_record_and_nothing_else(
    script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path, tmp_path: Path
) -> None:
    name = script(
        """
        import pathlib, sys, time
        print("ready", flush=True)
        while not pathlib.Path("go").exists(): time.sleep(0.01)
        for n in range(20_000): print("line", n)
        raise SystemExit(3)
        """
    )
    process = start(name)
    lines_until(process, b"ready")
    recorder, _program = _family(process)
    recorder.kill()
    recorder.wait(30)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == [b"line %d" % n for n in range(20_000)]
    assert err == b"runstone: the recorder was killed; the command goes on without a record\n"
    assert process.returncode == 3
    assert only_run(home).status == "crashed"


def test_a_run_that_cannot_be_recorded_runs_all_the_same(
    script: Script, launched: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    name = script("print('trained')")
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")
    done = launched("-w", str(blocked / "w"), name)
    assert (done.code, done.out) == (0, b"trained\n")
    assert b"cannot be recorded" in done.err
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "raise")
    done = launched("-w", str(blocked / "w"), name)
    assert (done.code, done.out) == (1, b"")


def test_a_run_folder_that_cannot_be_made_costs_the_record_only(
    script: Script, launched: Callable[..., object], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    Workspace_runs = home / "runs"
    home.mkdir()
    (home / "FORMAT").write_text("1\n")
    Workspace_runs.write_text("in the way")
    name = script("print('trained')")
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "warn")
    done = launched(name)
    assert (done.code, done.out) == (0, b"trained\n")
    assert b"goes on without a record" in done.err
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "raise")
    done = launched(name)
    assert (done.code, done.out) == (1, b"")


def test_disabled_runs_the_command_and_records_nothing(
    script: Script, launched: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    done = launched(script("import sys; print('x'); sys.exit(4)"))
    assert (done.code, done.out, done.runs) == (4, b"x\n", [])


# --- scripts that record by themselves --------------------------------------------------------------------------------


def test_a_script_of_runstone_records_into_the_very_run(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import runstone
        with runstone.start_run(project="other") as run:
            for n in range(3): run.log({"loss": 1.0 / (n + 1)})
        with runstone.start_run(project="second") as run: run.log({"x": 1})
        """
    )
    done = launched("-p", "digits", "-n", "first", "-t", "a=b", "-g", "some", name)
    assert done.code == 0, done.err
    first, second = sorted(done.runs, key=lambda run: run.started_at)
    assert (first.project, first.name, first.group, first.tags) == ("digits", "first", "some", {"a": "b"})
    assert (first.status, len(first.attempts), first.metrics["loss"].count) == ("finished", 1, 3)
    assert first.environment["process"]["entry"].endswith("train.py")  # which the script itself recorded
    assert (second.project, second.status) == ("second", "finished")
    assert second.name != "first"


def test_what_a_script_says_of_its_run_is_taken(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import runstone
        with runstone.start_run(name="mine", tags={"a": "script"}, notes="why", params={"lr": 1}) as run:
            print(run.name)
        """
    )
    done = launched("-p", "digits", "-t", "b=line", name)
    assert (done.code, done.out, done.err) == (0, b"mine\n", b"")
    assert (done.run.project, done.run.name, done.run.notes) == ("digits", "mine", "why")
    assert (done.run.tags, done.run.params) == ({"a": "script", "b": "line"}, {"lr": 1})


def test_what_a_script_cannot_choose_any_more_is_said_once(
    script: Script, launched: Callable[..., object], tmp_path: Path
) -> None:
    name = script(
        """
        import runstone
        for n in range(2):
            with runstone.start_run(project="other", group="mine", workspace="elsewhere", name="mine") as run:
                run.log({"n": n})
        """
    )
    done = launched("-p", "digits", "-n", "first", name)
    words = done.err.decode()
    assert done.code == 0, words
    assert (done.run.project, done.run.name, done.run.group) == ("digits", "first", None)
    for told in ("project 'other'", "group 'mine'", f"workspace '{tmp_path / 'elsewhere'}'"):
        assert words.count(f"{told} of start_run is left out") == 1, words
    assert "`runstone run --project …`" in words
    second = Workspace(tmp_path / "elsewhere").run("mine")  # the second run of the process is the script's own
    assert (second.project, second.group) == ("other", "mine")


def test_a_script_that_joined_and_was_killed_failed(script: Script, launched: Callable[..., object]) -> None:
    name = script("import os, runstone\nrun = runstone.start_run()\nrun.log({'x': 1})\nos.kill(os.getpid(), 9)")
    done = launched(name)
    assert (done.code, done.run.status) == (137, "failed")
    assert done.run.failure.message == "killed by SIGKILL; was memory short?"
    assert done.run.metrics["x"].count == 1


def test_a_stop_ends_a_program_that_knows_nothing_of_it(
    script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path
) -> None:
    name = script(
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(0.1)"
    )
    process = start("--grace", "0.5", name)
    lines_until(process, b"ready")
    Workspace(home).request_stop(only_run(home).id)
    lines_until(process, b"asked")
    assert process.wait(30) == 137  # it went on for longer than it may
    assert only_run(home).status == "stopped"


def test_a_stop_is_left_to_a_program_that_reads_it(
    script: Script, start: Callable[..., subprocess.Popen[bytes]], home: Path
) -> None:
    name = script(
        """
        import runstone, signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("never", flush=True))
        with runstone.start_run() as run:
            print("ready", flush=True)
            while not run.should_stop: time.sleep(0.01)
            time.sleep(0.5)
            print("stopped by itself", flush=True)
        """
    )
    process = start("--grace", "0.1", name)
    lines_until(process, b"ready")
    Workspace(home).request_stop(only_run(home).id, "prune")
    assert lines_until(process, b"stopped") == [b"stopped by itself\n"]
    assert process.wait(30) == 0
    assert only_run(home).status == "pruned"


def test_a_trial_of_a_sweep_is_recorded_into_the_run_of_the_trial(
    script: Script, launched: Callable[..., object], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "FORMAT").write_text("1\n")
    trial = Workspace(home).create_run(project="s", name="t-0", params={"lr": 1})
    monkeypatch.setenv("RUNSTONE_RUN_ID", trial.id)
    monkeypatch.setenv("RUNSTONE_TRIAL", '{"lr": 1}')
    done = launched(script("import runstone\nwith runstone.start_run() as run: run.log({'x': 1})"), "--seed=3")
    trial.close()
    assert (done.run.name, done.run.project, done.run.params) == ("t-0", "s", {"lr": 1, "seed": 3})
    assert (done.run.status, len(done.run.attempts)) == ("finished", 1)


# --- system metrics ---------------------------------------------------------------------------------------------------


def test_the_machine_is_sampled_for_a_program_that_does_not(launched: Callable[..., object]) -> None:
    inner = "b = bytearray(150_000_000); import time; time.sleep(1.8)"
    run = launched("--system-metrics", "0.5", "bash", "-c", f"{sys.executable} -c '{inner}'; true").run
    assert run.metrics["system/process/tree_rss_bytes"].max > 150_000_000
    assert run.metrics["system/process/rss_bytes"].max < 20_000_000  # of the shell, not of ours
    steps = run.series("system/process/tree_rss_bytes").step.tolist()
    assert len(steps) >= 2
    assert steps == sorted(steps)


def test_a_script_that_samples_by_itself_is_not_sampled_twice(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import runstone, time
        with runstone.start_run(system_metrics=1) as run:
            run.log({"x": 1})
            time.sleep(2.3)
        """
    )
    run = launched("--system-metrics", "1", name).run
    steps = run.series("system/process/threads").step.tolist()
    assert len(steps) >= 2
    assert len(set(steps)) == len(steps)


def test_no_system_metrics_means_none(script: Script, launched: Callable[..., object]) -> None:
    name = script("import runstone, time\nwith runstone.start_run() as run:\n    time.sleep(1.2)")
    assert list(launched("--system-metrics", "off", name).run.metrics) == []
