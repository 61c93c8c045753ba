"""Server and sender are killed at every phase of sending (F22, F23): nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import RunstoneError
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed, new_token
from runstone.sync.address import Address
from runstone.sync.client import Client
from runstone.sync.landing import Landing
from runstone.sync.sending import Sender
from runstone.sync.shipping import RunShipper
from runstone.sync.spool import Spool, open_spool
from runstone.sync.wholes import is_whole
from runstone.sync.wire import PARCEL_BYTES, Parcel
from runstone.workspace import Workspace, ensure_workspace
from tests.sync.conftest import Team, contents, eventually, free_port, spool_of

SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
HOW = ("before", "half", "after")
LOST = range(2, 12) if SOAK else (6, 8)


class Forker:
    """Starts servers and senders in a moment, and ends them."""

    def __init__(self, workspace: Path, port: int, spool: Path, scratch: Path) -> None:
        self.port = port
        self._count = scratch / "commits"
        command = [sys.executable, "-m", "tests.sync.forker", str(workspace), str(port), str(spool)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._children: list[int] = []

    def start(self, **told: Any) -> int:
        """Start a child; return its id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        self._children.append(int(self._process.stdout.readline()))
        return self._children[-1]

    def serve(self, at: int = -1, how: str = "before") -> int:
        """Start a server that ends at a commit; return its id when it listens."""
        child = self.start(do="serve", at=at, how=how, count=str(self._count))
        eventually(lambda: self._listens() or not is_there(child))
        return child

    @property
    def commits(self) -> int:
        """How many commits the server that was started last made."""
        return self._count.stat().st_size

    def end(self, child: int) -> None:
        """Kill a child, and wait until it is gone."""
        if is_there(child):
            os.kill(child, signal.SIGKILL)
        eventually(lambda: not is_there(child))

    def close(self) -> None:
        """End everything."""
        for child in self._children:
            self.end(child)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def is_there(process: int) -> bool:
    """Return whether a process lives."""
    return Path(f"/proc/{process}").exists()


class World:
    """A server's workspace and a spool for it, and what is sent from one to the other."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.workspace = ensure_workspace(path / "server" / ".runstone")
        accounts = Accounts(self.workspace.path)
        accounts.add_user("ann")
        accounts.set_role("ann", "*", "admin")
        self.token, self.port = new_token(), free_port()
        accounts.add_token("ann", hashed(self.token))
        accounts.close()
        self.url = f"http://127.0.0.1:{self.port}/"
        monkeypatch.setenv("RUNSTONE_WORKSPACE", self.url)
        monkeypatch.setenv("RUNSTONE_TOKEN", self.token)
        monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
        self.spool = Spool(open_spool(self.url).path)
        self.forker = Forker(self.workspace.path, self.port, self.spool.path, path)
        self._made = 0

    def record(self) -> str:
        """Record a run with some of everything; each third is sealed before it is sent."""
        self._made += 1
        blob = self.path / f"weights {self._made}"
        blob.write_bytes(random.Random(self._made).randbytes(200_000))
        with runstone.start_run(project=f"digits {self._made % 5}", environment=False) as run:
            for step in range(400):
                run.log({"loss": 1 / (step + 1), "note": f"at {step}"}, step=step)
            run.log_text("words", f"hello {self._made}", step=2)
            run.log_artifact(blob, name="weights")
        if self._made % 3 == 0:
            self.spool.workspace.seal(run.id)
        return run.id

    def send(self, server: int) -> int:
        """Send all that is here; where the server is gone, another comes. Return how many runs were refused."""
        servers = [server]

        def wait(_seconds: float) -> None:
            if not is_there(servers[-1]):
                servers.append(self.forker.serve())
            time.sleep(0.01)

        client = Client(Address.parse(self.url), self.token, timeout_s=20)
        sender = Sender(self.spool, client, sleep=wait)
        sender.send_until_done(patience_s=1e9)
        client.close()
        for one in servers:
            self.forker.end(one)
        return sender.sent.refused

    def compare(self, run_id: str) -> None:
        """See that the server has a run as it is here, and everything that it refers to."""
        there, here = (one.find_run_folder(run_id) for one in (Workspace(self.workspace.path), self.spool.workspace))
        assert here is not None
        assert there is not None, f"the run {run_id} is not on the server"
        assert contents(there, self.path) == contents(here, self.path)
        info = self.workspace.run(run_id)
        assert len(info.series("loss")) == 400
        content = info.artifacts[0].files[0].hash
        assert self.workspace.blobs.read(content) == self.spool.workspace.blobs.read(content)
        assert is_whole(there)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.forker.close()


@pytest.mark.soak
def test_f22_a_server_that_is_killed_at_any_commit_ends_with_what_the_client_has(world: World) -> None:
    most = 0
    for _kind in range(3):
        world.record()
        world.send(world.forker.serve())
        most = max(most, world.forker.commits)
    assert most > 30
    points = [(at, how) for at in range(most) for how in HOW]
    if not SOAK:
        points = random.Random(22).sample(points, 8)
    for at, how in points:
        run_id = world.record()
        assert world.send(world.forker.serve(at, how)) == 0, (at, how)
        world.compare(run_id)


def test_f22_a_write_that_the_servers_disk_lost_is_never_taken_for_sent(world: World) -> None:
    for at in LOST:
        run_id = world.record()
        if world.send(world.forker.serve(at, "lose")):
            # other bytes stand there now, which nobody may change: the run stays here, and says so
            assert world.spool.noted("done", run_id) is None
            assert world.spool.noted("refused", run_id) is not None
        else:
            world.compare(run_id)


def test_f22_planted_without_comparing_a_lost_write_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunShipper, "is_same", lambda _self, _state: True)
    lost = 0
    for at in LOST:
        run_id = world.record()
        world.send(world.forker.serve(at, "lose"))
        try:
            world.compare(run_id)
        except (AssertionError, RunstoneError):
            lost += 1
    assert lost > 0


@pytest.mark.soak
def test_f23_a_sender_that_is_killed_again_and_again_sends_nothing_twice(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 100 if SOAK else 10
    counted = {"landed": 0}
    land = Landing.land

    def counting(self: Landing, folder: Path, parcel: Parcel) -> Any:
        landed = land(self, folder, parcel)
        counted["landed"] += parcel.size_bytes
        return landed

    monkeypatch.setattr(Landing, "land", counting)
    runs = []
    for number in range(2):
        with runstone.start_run(project="digits", name=f"run {number}", environment=False) as run:
            loss = run.metric("loss")
            for step in range(kills * 25_000):
                loss(1 / (step + 1), step=step)
        runs.append(run.id)
    spool = spool_of(team.url)
    forker = Forker(team.workspace.path, Address.parse(team.url).port, spool.path, tmp_path)
    chance, resent = random.Random(23), []
    try:
        for _kill in range(kills):
            before, here = counted["landed"], size_of(team)
            enough = before + chance.randrange(1, 900_000)
            helper = forker.start(do="send")
            eventually(lambda: counted["landed"] >= enough or not is_there(helper))  # noqa: B023
            forker.end(helper)
            settled(team)
            resent.append(counted["landed"] - before - (size_of(team) - here))
        before, here = counted["landed"], size_of(team)
        helper = forker.start(do="send")
        eventually(lambda: not is_there(helper), timeout_s=300)
        resent.append(counted["landed"] - before - (size_of(team) - here))
    finally:
        forker.close()
    print(f"{kills} kills; resent at most {max(resent):,} bytes after one, {sum(resent):,} in all")
    assert max(resent) <= PARCEL_BYTES
    for run_id in runs:
        there, spooled = team.workspace.find_run_folder(run_id), spool.workspace.find_run_folder(run_id)
        assert there is not None
        assert spooled is not None
        assert spool.noted("done", run_id) is not None
        assert contents(there, tmp_path) == contents(spooled, tmp_path)
        assert len(team.workspace.run(run_id).series("loss")) == kills * 25_000


def size_of(team: Team) -> int:
    """Return how many bytes of runs are on the server, but for what it writes itself."""
    paths = [path for folder in team.workspace.run_folders() for path in folder.iterdir()]
    return sum(path.stat().st_size for path in paths if path.suffix in (".wal", ".jsonl", ".keys", ".blob"))


def settled(team: Team) -> None:
    """Wait until the server has done what it was asked last."""
    before = -1
    while before != (before := size_of(team)):
        time.sleep(0.05)
