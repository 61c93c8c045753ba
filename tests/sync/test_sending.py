"""Runs for a server: written here first, sent there byte for byte, and read there as any run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.runlog.reader import read_journal
from runstone.sync.client import Unreachable
from runstone.sync.sending import Sender
from runstone.values import Status
from tests.sync.conftest import ServerProcess, Team, contents, eventually, here, send, spool_of, there


def record(**options: object) -> str:
    """Record a run with everything in it; return its id."""
    with runstone.start_run(environment=False, project="digits", params={"lr": 0.1}, **options) as run:  # type: ignore[arg-type]
        for step in range(3_000):
            run.log({"loss": 1 / (step + 1), "epoch": step // 100, "note": f"at {step}"}, step=step)
        run.log_text("words", "hello", step=2)
        run.log_image("picture", np.zeros((3, 4, 3), np.uint8), step=3)
        return run.id


def test_a_run_is_written_here_and_is_the_same_there(team: Team, tmp_path: Path) -> None:
    artifact = tmp_path / "weights.bin"
    artifact.write_bytes(os.urandom(5 << 20))
    with runstone.start_run(project="digits", name="far", params={"lr": 0.1}, environment=False) as run:
        assert str(tmp_path / "state") in str(run.path)
        for step in range(5_000):
            run.log({"loss": 1 / (step + 1), "text": f"at {step}"}, step=step)
        run.log_image("picture", np.zeros((3, 4, 3), np.uint8), step=3)
        run.log_artifact(artifact, name="weights")
    send(team)
    assert contents(here(team, run.id), tmp_path) == contents(there(team, run.id), tmp_path)
    info = team.workspace.run("far")
    assert info.status is Status.FINISHED
    assert info.params == {"lr": 0.1}
    assert len(info.series("loss")) == 5_000
    assert team.workspace.blobs.read(info.artifacts[0].files[0].hash) == artifact.read_bytes()
    assert all(record.path is not None for record in info.records("picture"))


def test_sending_again_sends_nothing(team: Team) -> None:
    record()
    assert send(team).sent.runs == 1
    again = send(team).sent
    assert (again.runs, again.bytes, again.contents) == (0, 0, 0)


def test_a_living_run_is_seen_there_while_it_goes_on(team: Team, tmp_path: Path) -> None:
    run = runstone.start_run(project="digits", environment=False)
    sender = Sender(spool_of(team.url), team.client())
    for step in range(100):
        run.log({"loss": float(step)}, step=step)
        if step % 25 == 24:
            while sender.cycle()[0]:
                pass
            info = team.workspace.run(run.id)
            assert info.status is Status.RUNNING
            assert len(info.series("loss")) == step + 1
    run.finish()
    sender.send_until_done()
    assert team.workspace.run(run.id).status is Status.FINISHED
    assert contents(here(team, run.id), tmp_path) == contents(there(team, run.id), tmp_path)


def test_a_stop_that_is_asked_for_there_stops_the_run_here(team: Team) -> None:
    run = runstone.start_run(project="digits", environment=False)
    sender = Sender(spool_of(team.url), team.client())
    sender.cycle()
    runstone.open_workspace(team.url).request_stop(run.id)
    run.log({"x": 1.0})
    sender.cycle()
    assert run.should_stop
    run.finish()
    sender.send_until_done()
    assert team.workspace.run(run.id).status is Status.STOPPED
    again = runstone.start_run(run_id=run.id, environment=False)
    sender.cycle()
    assert not again.should_stop  # what the attempt before was asked is not asked of this one
    again.finish()
    sender.send_until_done()
    assert team.workspace.run(run.id).status is Status.FINISHED


def test_a_run_that_was_killed_reads_as_crashed_there(team: Team) -> None:
    program = (
        "import runstone, os, signal\n"
        "import runstone.sync.process as process; process.ensure_sender = lambda workspace: None\n"
        "run = runstone.start_run(project='digits', name='killed', environment=False)\n"
        "for step in range(500): run.log({'loss': 1.0}, step=step)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    send(team)
    info = team.workspace.run("killed")
    assert info.status is Status.CRASHED
    assert len(info.series("loss")) == 500


def test_a_run_whose_machine_is_gone_reads_as_crashed_after_a_minute(team: Team) -> None:
    run = runstone.start_run(project="digits", environment=False)
    Sender(spool_of(team.url), team.client()).cycle()
    folder = there(team, run.id)
    assert read_journal(folder).status is Status.RUNNING
    assert read_journal(folder, now=time.time() + 50).status is Status.RUNNING
    assert read_journal(folder, now=time.time() + 70).status is Status.CRASHED
    run.finish()


def test_the_oldest_backlog_goes_first_and_nothing_is_lost_or_doubled_after_days_offline(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F24: the clock is the test's; the server is away for two days of it
    monkeypatch.setattr("runstone.sync.sending.AT_ONCE", 2)
    runs = [record(name=f"run {number}") for number in range(5)]
    now = [time.time()]
    asked: list[float] = []
    arrived: list[str] = []

    class Away(type(team.client())):  # type: ignore[misc]
        def ask(self, method: str, path: str, **options: object) -> object:
            if now[0] < started + 2 * 86_400:
                asked.append(now[0])
                raise Unreachable("no network")
            if path.endswith("/finish"):
                arrived.extend(options["body"]["run_ids"])  # type: ignore[index]
            return super().ask(method, path, **options)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    started = now[0]
    real = team.client()
    client = Away(real.address, team.tokens["ann"])
    sender = Sender(spool_of(team.url), client, clock=lambda: now[0], sleep=sleep)
    sender.send_until_done(patience_s=30 * 86_400)
    assert arrived == runs
    assert 2 * 86_400 / 80 < len(asked) < 2 * 86_400 / 40  # once a minute, not more
    for run_id in runs:
        assert contents(here(team, run_id), tmp_path) == contents(there(team, run_id), tmp_path)
        assert len(team.workspace.run(run_id).series("loss")) == 3_000


def test_what_the_server_has_is_tidied_here_when_its_time_is_over(team: Team) -> None:
    run_id = record()
    now = [time.time()]
    spool = spool_of(team.url)
    sender = Sender(spool, team.client(), clock=lambda: now[0], days=2.0)
    sender.send_until_done()
    assert here(team, run_id).is_dir()
    now[0] += 3 * 86_400
    sender.send_until_done()
    assert spool.workspace.find_run_folder(run_id) is None
    assert len(team.workspace.run(run_id).series("loss")) == 3_000


def test_a_run_that_is_only_on_the_server_goes_on_here(team: Team, tmp_path: Path) -> None:
    run_id = record(name="long")
    send(team, days=0.0)
    assert spool_of(team.url).workspace.find_run_folder(run_id) is None
    with runstone.start_run(run_id=run_id, resume=True, environment=False) as run:
        assert (run.attempt, run.is_resumed, run.name, run.project) == (2, True, "long", "digits")
        for step in range(3_000, 3_100):
            run.log({"loss": 0.0}, step=step)
    send(team)
    info = team.workspace.run(run_id)
    assert [attempt.number for attempt in info.attempts] == [1, 2]
    assert len(info.series("loss")) == 3_100


def test_a_run_that_must_be_there_and_is_not_says_so(team: Team) -> None:
    with pytest.raises(runstone.RunNotFound):
        runstone.start_run(run_id="nowhere", resume=True, environment=False)


def test_a_run_that_was_removed_there_is_not_made_again(team: Team) -> None:
    run = runstone.start_run(project="digits", environment=False)
    sender = Sender(spool_of(team.url), team.client())
    sender.cycle()
    run.finish()
    folder = there(team, run.id)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    sender.send_until_done()
    assert team.workspace.find_run_folder(run.id) is None
    assert sender.sent.refused == 1
    assert spool_of(team.url).noted("refused", run.id) is not None


def test_training_goes_on_without_a_server_and_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_WORKSPACE", "http://127.0.0.1:9/")
    monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
    started = time.thread_time()
    with runstone.start_run(project="digits", run_id="mine", environment=False) as run:
        for step in range(2_000):
            run.log({"loss": 1.0}, step=step)
    assert time.thread_time() - started < 5
    assert len(run.read().series("loss")) == 2_000


def test_a_run_sealed_here_arrives_sealed(team: Team) -> None:
    run = runstone.start_run(project="digits", environment=False)
    run.log({"loss": 1.0}, step=0)
    sender = Sender(spool_of(team.url), team.client())
    sender.cycle()
    for step in range(1, 500):
        run.log({"loss": 1.0}, step=step)
    run.finish()
    spool_of(team.url).workspace.seal(run.id)
    sender.send_until_done()
    assert len(team.workspace.run(run.id).series("loss")) == 500
    assert (there(team, run.id) / "metrics.parquet").read_bytes() == (
        here(team, run.id) / "metrics.parquet"
    ).read_bytes()


def test_a_run_sealed_there_is_not_sent_again(team: Team) -> None:
    run_id = record()
    send(team)
    team.workspace.seal(run_id)
    runstone.start_run(run_id=run_id, environment=False).finish()
    sender = send(team)
    assert sender.sent.refused == 0
    assert not list(there(team, run_id).glob("*-00000000.wal"))[1:]
    assert len(team.workspace.run(run_id).series("loss")) == 3_000


def test_the_helper_of_a_run_sends_it_and_ends(server_process: ServerProcess) -> None:
    server_process.start()
    run_id = record(name="by itself")
    server = runstone.open_workspace(server_process.path)
    eventually(lambda: spool_of(server_process.url).noted("done", run_id) is not None)
    assert len(server.run(run_id).series("loss")) == 3_000
    eventually(lambda: not spool_of(server_process.url).is_sent)


def test_f22_a_server_that_is_killed_at_any_moment_ends_with_what_the_client_has(
    server_process: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
    server_process.start()
    blob = tmp_path / "weights.bin"
    blob.write_bytes(os.urandom(12 << 20))
    with runstone.start_run(project="digits", environment=False) as run:
        for step in range(60_000):
            run.log({"loss": 1 / (step + 1), "acc": 0.5}, step=step)
        run.log_artifact(blob, name="weights")
    command = [sys.executable, "-m", "runstone.sync", str(spool_of(server_process.url).path)]
    helper = subprocess.Popen(command, start_new_session=True)
    try:
        for pause_s in (0.6, 0.1, 0.2) if os.environ.get("RUNSTONE_SOAK") else (0.5,):
            time.sleep(pause_s)
            server_process.kill()
            server_process.start()
        assert helper.wait(timeout=120) == 0
    finally:
        helper.kill()
        helper.wait()
    server = runstone.open_workspace(server_process.path)
    folder, spooled = server.find_run_folder(run.id), spool_of(server_process.url).workspace.find_run_folder(run.id)
    assert folder is not None
    assert spooled is not None
    assert contents(spooled, tmp_path) == contents(folder, tmp_path)
    info = server.run(run.id)
    assert len(info.series("loss")) == 60_000
    assert server.blobs.read(info.artifacts[0].files[0].hash) == blob.read_bytes()
