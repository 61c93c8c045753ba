"""Long runs are sealed some time after their end, and only where nobody may still write to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.runlog import format as fmt
from runstone.runlog.liveness import read_status, write_copied_status
from runstone.runlog.reader import read_journal
from runstone.sealing.process import sealed_meanwhile
from runstone.sealing.sealer import Sealer
from runstone.sync.spool import MARK, open_spool
from runstone.sync.wholes import mark_whole, unmark
from runstone.workspace import ensure_workspace
from tests.sync.conftest import Team, contents, here, send, serving, spool_of, there

POINTS = 40_000
LATER_S = 3_600.0


def record(workspace: Path | None, points: int = POINTS, **options: object) -> runstone.Run:
    with runstone.start_run(
        workspace=workspace, project="digits", environment=False, system_metrics=False, **options
    ) as run:  # type: ignore[arg-type]
        loss = run.metric("loss")
        for step in range(points):
            loss(1 / (step + 1), step=step)
    return run


def look(workspace: Path, *, later_s: float = LATER_S) -> int:
    """Look once, some time later; return how many runs were sealed."""
    sealer = Sealer(workspace, settle_s=600.0, clock=lambda: time.time() + later_s)
    sealer.look()
    return len(sealer.sealed)


def is_sealed(folder: Path) -> bool:
    return (folder / "metrics.parquet").exists() and not list(folder.glob("*.wal"))


def test_a_long_run_is_sealed_some_time_after_its_end_and_reads_the_same(tmp_path: Path) -> None:
    run = record(tmp_path / "w")
    before = run.read().series("loss")
    assert look(tmp_path / "w", later_s=0) == 0
    assert look(tmp_path / "w") == 1
    assert is_sealed(run.path)
    after = runstone.open_workspace(tmp_path / "w").run(run.id).series("loss")
    np.testing.assert_array_equal(after.step, before.step)
    np.testing.assert_array_equal(after.value, before.value)
    assert look(tmp_path / "w") == 0


def test_a_short_run_stays_as_it_is(tmp_path: Path) -> None:
    run = record(tmp_path / "w", points=1_000)
    assert look(tmp_path / "w") == 0
    assert list(run.path.glob("*.wal"))


def test_a_run_that_lives_is_not_sealed_however_long_nothing_came(tmp_path: Path) -> None:
    run = runstone.start_run(workspace=tmp_path / "w", environment=False, system_metrics=False)
    for step in range(POINTS):
        run.log({"loss": 1.0}, step=step)
    assert look(tmp_path / "w", later_s=30 * 86_400) == 0
    run.finish()
    assert look(tmp_path / "w") == 1


def test_an_ended_run_that_another_attempt_goes_on_with_is_not_sealed(tmp_path: Path) -> None:
    first = record(tmp_path / "w")
    again = runstone.start_run(workspace=tmp_path / "w", run_id=first.id, environment=False, system_metrics=False)
    assert look(tmp_path / "w") == 0
    again.log({"loss": 0.0}, step=POINTS)
    again.finish()
    assert look(tmp_path / "w") == 1
    assert len(again.read().series("loss", attempt="all")) == POINTS + 1


KILLED = """
import os, signal, sys, runstone
run = runstone.start_run(workspace=sys.argv[1], environment=False, system_metrics=False)
for step in range(40_000): run.log({"loss": 1.0}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(workspace: Path) -> Path:
    ensure_workspace(workspace)
    subprocess.run([sys.executable, "-c", KILLED, str(workspace)], check=False)
    (folder,) = (workspace / "runs").glob("*/*")
    return folder


def test_a_run_that_was_killed_on_this_very_kernel_is_sealed(tmp_path: Path) -> None:
    folder = killed(tmp_path / "w")
    assert look(tmp_path / "w") == 1
    assert is_sealed(folder)


def test_a_run_of_another_machine_that_fell_silent_is_not_sealed(tmp_path: Path) -> None:
    # its machine may only be suspended: it would write on, into a file that is not there any more
    folder = killed(tmp_path / "w")
    (journal,) = folder.glob("journal.*.jsonl")
    boot = read_journal(folder).writers[0].boot_id
    journal.write_bytes(journal.read_bytes().replace(boot.encode(), b"0" * len(boot)))
    assert look(tmp_path / "w") == 0
    assert look(tmp_path / "w", later_s=30 * 86_400) == 0
    assert list(folder.glob("*.wal"))


def test_where_nothing_may_be_written_and_where_runs_wait_to_be_sent_nothing_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = ensure_workspace(tmp_path / "w")
    assert Sealer(workspace.path, settle_s=0).may_write
    spool = open_spool("http://127.0.0.1:9/")
    assert (spool.path / MARK).exists()
    assert not Sealer(spool.path, settle_s=0).may_write
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # as root, no folder is read-only
    assert not Sealer(workspace.path, settle_s=0).may_write


def test_a_damaged_run_does_not_keep_the_others_from_being_sealed(tmp_path: Path) -> None:
    first, second = record(tmp_path / "w"), record(tmp_path / "w")
    damaged = min(first.path, second.path)
    (damaged / "metrics.parquet").write_bytes(b"PAR1 no PAR1")
    assert look(tmp_path / "w") == 1
    assert list(damaged.glob("*.wal"))


# --- runs that were sent ----------------------------------------------------------------------------------------------
@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
    server = serving(tmp_path / "server" / ".runstone")
    team = next(server)
    monkeypatch.setenv("RUNSTONE_WORKSPACE", team.url)
    monkeypatch.setenv("RUNSTONE_TOKEN", team.tokens["ann"])
    yield team  # type: ignore[misc]
    next(server, None)


def test_a_run_that_was_sent_is_sealed_there_when_its_sender_has_compared_it(team: Team, tmp_path: Path) -> None:
    run = record(None)
    send(team)
    folder = there(team, run.id)
    unmark(folder)
    now = [time.time() + LATER_S]
    sealer = Sealer(team.workspace.path, settle_s=600.0, clock=lambda: now[0])
    sealer.look()
    assert not sealer.sealed  # all came, and nobody has said so yet
    mark_whole(folder)
    now[0] += 3_700
    sealer.look()
    assert len(sealer.sealed) == 1
    assert is_sealed(folder)
    assert send(team).sent.runs == 0  # nothing is left to do here
    with runstone.start_run(run_id=run.id, environment=False, system_metrics=False) as again:
        for step in range(POINTS):
            again.log({"loss": 0.0}, step=POINTS + step)
        assert look(team.workspace.path) == 0
        sender = send_once(team)
        assert look(team.workspace.path) == 0  # it lives
    send(team)
    assert sender.sent.refused == 0
    assert look(team.workspace.path) == 1
    assert len(team.workspace.run(run.id).series("loss", attempt="all")) == 2 * POINTS


def send_once(team: Team) -> object:
    from runstone.sync.sending import Sender

    sender = Sender(spool_of(team.url), team.client())
    while sender.cycle()[0]:
        pass
    return sender


def test_a_run_whose_sender_fell_silent_is_not_sealed(team: Team, tmp_path: Path) -> None:
    run = record(None)
    send(team)
    folder = there(team, run.id)
    (status,) = folder.glob("*.status")
    directory = os.open(folder, os.O_RDONLY)
    write_copied_status(directory, status.name, beat=time.time() - 86_400, is_alive=True)
    os.close(directory)
    head = read_status(status)
    assert head is not None
    assert (head.state, head.is_copied) == (fmt.STATE_OPEN, True)
    assert look(team.workspace.path) == 0
    assert contents(here(team, run.id), tmp_path) == contents(folder, tmp_path)


# --- the helper -------------------------------------------------------------------------------------------------------
def eventually(is_so: object, timeout_s: float = 60.0) -> None:
    limit = time.monotonic() + timeout_s
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)


def test_a_helper_seals_beside_a_server_and_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record(tmp_path / "w")
    monkeypatch.setenv("RUNSTONE_SEAL_MINUTES", "0.0001")
    time.sleep(0.1)
    with sealed_meanwhile(tmp_path / "w", pytest.fail):
        eventually(lambda: is_sealed(run.path))
    eventually(lambda: not helpers(tmp_path / "w"))


def test_the_helper_ends_where_its_server_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = ensure_workspace(tmp_path / "w")
    program = (
        "import sys, time; from pathlib import Path; from runstone.sealing.process import sealed_meanwhile\n"
        "with sealed_meanwhile(Path(sys.argv[1]), print): time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", program, str(workspace.path)])
    try:
        eventually(lambda: helpers(workspace.path))
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    eventually(lambda: not helpers(workspace.path))


def test_zero_minutes_mean_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = ensure_workspace(tmp_path / "w")
    monkeypatch.setenv("RUNSTONE_SEAL_MINUTES", "0")
    with sealed_meanwhile(workspace.path, pytest.fail):
        assert not helpers(workspace.path)


def helpers(workspace: Path) -> list[int]:
    """Return the processes that seal in a workspace."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"runstone.sealing" in words and os.fsencode(workspace) in words:
            found.append(int(place.parent.name))
    return found
