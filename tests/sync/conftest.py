"""A server over a workspace of its own, people who may do this and that there, and a machine that sends runs to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvicorn

from runstone import settings
from runstone.index.accounts import Accounts
from runstone.runlog.copying import copy_run
from runstone.server.app import create_app
from runstone.server.auth import LocalKeys, hashed, new_token
from runstone.server.config import Limits, ServerConfig
from runstone.server.logs import Log
from runstone.sync.address import Address
from runstone.sync.client import Client
from runstone.sync.kinds import Kind, kind_of
from runstone.sync.sending import Sender
from runstone.sync.spool import Spool
from runstone.workspace import Workspace, ensure_workspace


class _Nowhere:
    def write(self, line: str) -> int:
        return len(line)

    def flush(self) -> None:
        pass


@dataclass
class Team:
    """A server that runs in this process, and its users' tokens."""

    workspace: Workspace
    url: str
    accounts: Accounts
    tokens: dict[str, str] = field(default_factory=dict)

    def add(self, user: str, *roles: tuple[str, str]) -> str:
        """Add a user with roles by project; return a token."""
        self.accounts.add_user(user)
        for project, role in roles:
            self.accounts.set_role(user, project, role)
        self.tokens[user] = new_token()
        self.accounts.add_token(user, hashed(self.tokens[user]))
        return self.tokens[user]

    def client(self, user: str = "ann") -> Client:
        """Return a connection of a user."""
        return Client(Address.parse(self.url), self.tokens[user], timeout_s=20)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(path: Path) -> Iterator[Team]:
    """Yield a server over a workspace, in a thread."""
    workspace = ensure_workspace(path)
    port = free_port()
    config = ServerConfig(port=port, limits=replace(Limits(), rate=1e6, burst=1_000_000, wrong_tokens=100_000))
    app = create_app(workspace, config, keys=LocalKeys("me"), log=Log(_Nowhere()))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 30
    while not server.started and time.monotonic() < limit:
        time.sleep(0.01)
    team = Team(workspace, f"http://127.0.0.1:{port}/", app.state.accounts)
    team.add("ann", ("*", "admin"))
    team.add("dan", ("digits", "contributor"))
    team.add("sue", ("secret", "contributor"))
    team.add("vic", ("*", "viewer"))
    yield team
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """A server, and this machine set up to send runs to it, with no helper: tests send themselves."""
    monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
    for team in serving(tmp_path / "server" / ".runstone"):
        monkeypatch.setenv("RUNSTONE_WORKSPACE", team.url)
        monkeypatch.setenv("RUNSTONE_TOKEN", team.tokens["ann"])
        yield team


def spool_of(url: str) -> Spool:
    """Return the spool of a server on this machine."""
    root = settings.spool_folder()
    assert root is not None
    return Spool(root / Address.parse(url).folder)


def send(team: Team, *, user: str = "ann", days: float = 1.0) -> Sender:
    """Send all that is here, until the server has it; return who sent."""
    sender = Sender(spool_of(team.url), team.client(user), days=days, sleep=lambda _s: time.sleep(0.02))
    sender.send_until_done(patience_s=0)
    return sender


def contents(folder: Path, scratch: Path) -> dict[str, bytes]:
    """Return what a reader can see of a run, file by file, but for what says that a writer lives."""
    target = scratch / f"{folder.name}.{os.urandom(4).hex()}"
    copy_run(folder, target)
    return {
        path.name: path.read_bytes()
        for path in target.iterdir()
        if kind_of(path.name) is not None and not (kind_of(path.name) is Kind.SLOTS and path.stat().st_size <= 4096)
    }


def there(team: Team, run_id: str) -> Path:
    """Return the folder of a run on the server."""
    folder = team.workspace.find_run_folder(run_id)
    assert folder is not None
    return folder


def here(team: Team, run_id: str) -> Path:
    """Return the folder of a run on this machine."""
    folder = spool_of(team.url).workspace.find_run_folder(run_id)
    assert folder is not None
    return folder


@dataclass
class ServerProcess:
    """A server in a process of its own, which can be killed and comes back under the same address."""

    path: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "runstone.cli.main", "serve", "--port", str(self.port)),
                *("--workspace", str(self.path)),
            ],
            env={**os.environ, "RUNSTONE_WORKSPACE": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """A server in a process of its own; an admin's token stands in the environment."""
    workspace = ensure_workspace(tmp_path / "server" / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    token = new_token()
    accounts.add_token("ann", hashed(token))
    server = ServerProcess(workspace.path, free_port())
    monkeypatch.setenv("RUNSTONE_WORKSPACE", server.url)
    monkeypatch.setenv("RUNSTONE_TOKEN", token)
    yield server
    server.kill()


def eventually(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)
