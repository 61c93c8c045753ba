"""Real servers: how they start, what they refuse, how they end."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.main import cli
from runstone.errors import InvalidConfig
from runstone.index.accounts import MIGRATIONS, Accounts
from runstone.index.accounts_file import FILE
from runstone.server.config import ServerConfig
from runstone.server.serving import bound_socket
from runstone.workspace import Workspace


class Served:
    """A server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "runstone.cli.main", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.log: list[str] = []
        self._told: queue.Queue[str] = queue.Queue()
        for stream, take in ((self.process.stdout, self._told.put), (self.process.stderr, self.log.append)):
            threading.Thread(target=lambda s=stream, t=take: [t(line) for line in s], daemon=True).start()

    def line(self) -> str:
        """Return the next line that it prints."""
        return self._told.get(timeout=60).strip()

    def line_of_log(self, part: str) -> str:
        """Return the first line of its log that holds some text."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            found = next((line for line in self.log if part in line), None)
            if found is not None:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{part!r} is not in {self.log}")

    def end(self) -> int:
        """Ask it to end and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
        return code


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Served]:
    made = Served(*arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait(30)
        for stream in (made.process.stdout, made.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError, ValueError):
                stream.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    with runstone.start_run(workspace=tmp_path / ".runstone", name="one", environment=False) as run:
        run.log({"loss": 1.0})
    return run.workspace


def invoked(workspace: Workspace, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["-w", str(workspace.path), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ui_opens_the_page_for_who_has_the_key_and_ends_when_asked(workspace: Workspace) -> None:
    with served("-w", str(workspace.path), "ui", "--no-open") as server:
        address = server.line()
        base, key = address.split("?key=")
        assert base.startswith("http://127.0.0.1:")
        with httpx2.Client(base_url=base, timeout=60) as client:
            assert client.get("api/info").status_code == 401
            answer = client.get("", params={"key": key})
            assert (answer.status_code, answer.headers["location"]) == (303, "./")
            assert client.get("api/runs").json()["total"] == 1
            assert re.search(r"\?key=", server.line())  # for the next browser
            spent = time.monotonic()
            for _ in range(20):
                client.get("healthz")
            assert time.monotonic() - spent < 20 * 0.04 + 2  # no answer waits for an acknowledgement
        assert server.end() == 0


def is_listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_requests_that_are_begun_are_answered_before_the_end(workspace: Workspace) -> None:
    with served("-w", str(workspace.path), "serve") as server:
        base = server.line().split("?key=")[0]
        host, port = re.match(r"http://([\d.]+):(\d+)/", base).groups()  # type: ignore[union-attr]
        head = f"POST /api/login HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=30) as half:
            half.sendall(f"{head}Content-Length: 17\r\nExpect: 100-continue\r\n\r\n".encode())
            assert half.recv(1_000).startswith(b"HTTP/1.1 100 ")  # so it reads the body: the request is begun
            server.process.send_signal(signal.SIGTERM)
            limit = time.monotonic() + 30
            while is_listening(host, int(port)) and time.monotonic() < limit:
                time.sleep(0.05)
            assert not is_listening(host, int(port)), "it takes no new connections"
            half.sendall(b'{"token":"wrong"}')
            assert half.recv(1_000).startswith(b"HTTP/1.1 401 ")
        assert server.process.wait(60) == 0
    events = [json.loads(line)["event"] for line in server.log if line.startswith("{")]
    assert events[0] == "started"
    assert events[-1] == "ended"


def test_s18_beyond_this_machine_it_starts_only_with_a_token(workspace: Workspace) -> None:
    refused = ["-w", str(workspace.path), "serve", "--host", "0.0.0.0"]
    assert "runstone tokens create" in str(CliRunner().invoke(cli, refused).exception)
    invoked(workspace, "users", "add", "ann", "--role", "admin")
    with served(*refused) as server:
        assert server.process.wait(60) == 1
        assert server.line_of_log("runstone tokens create")
    token = invoked(workspace, "tokens", "create", "ann").splitlines()[0]
    assert len(token) >= 43
    with served(
        "-w", str(workspace.path), "serve", "--host", "0.0.0.0", "--allowed-hosts", "runs.example.org"
    ) as server:
        line = server.line()
        assert "key=" not in line  # nobody gets in by a key from outside
        port = int(re.search(r":(\d+)/", line)[1])  # type: ignore[index]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            told = {"Authorization": f"Bearer {token}"}
            assert client.get("/api/info", headers=told).json()["user"]["name"] == "ann"
            for host, code in (("runs.example.org", 200), ("10.0.0.7:80", 200), ("evil.example", 421)):
                assert client.get("/api/info", headers={**told, "Host": host}).status_code == code
        assert server.end() == 0


def test_s26_who_drips_bytes_is_let_go(workspace: Workspace) -> None:
    program = (
        "import sys; from dataclasses import replace; from runstone.workspace import Workspace\n"
        "from runstone.server.config import Limits, ServerConfig; from runstone.server.serving import serve\n"
        "limits = replace(Limits(), head_s=1.0, body_s=1.0)\n"
        "tell = lambda url, key: print(url, key, flush=True)\n"
        "serve(Workspace(sys.argv[1]), ServerConfig(limits=limits), announce=tell)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(workspace.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url, _key = process.stdout.readline().split()
        host, port = re.match(r"http://([\d.]+):(\d+)/", url).groups()  # type: ignore[union-attr]
        address = (host, int(port))
        with socket.create_connection(address, timeout=30) as silent, socket.create_connection(address) as half:
            half.sendall(b"GET / HTTP/1.1\r\nHo")
            assert silent.recv(100) == b""  # closed by the server
            half.settimeout(30)
            assert half.recv(1_000) == b""
        with socket.create_connection(address, timeout=30) as slow:
            head = f"POST /api/login HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 50\r\n\r\n{{".encode())
            answer = slow.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 408 ")
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert client.get("healthz").status_code == 200
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def test_s21_s36_the_log_of_a_whole_session_holds_no_token(workspace: Workspace) -> None:
    invoked(workspace, "users", "add", "ann", "--role", "admin")
    token = invoked(workspace, "tokens", "create", "ann").splitlines()[0]
    with served("-w", str(workspace.path), "serve") as server:
        base, key = server.line().split("?key=")
        with httpx2.Client(base_url=base, timeout=60) as client:
            client.post("api/login", json={"token": token})
            client.get("api/runs", headers={"Authorization": f"Bearer {token}"})
            client.get("api/runs/%1b%5b31m%0d%0a", headers={"Authorization": f"Bearer {token}"})
            client.get("", params={"key": key})
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()
        assert server.end() == 0
    log = "".join(server.log)
    assert log.count('"event": "request"') == 4
    for secret in (token, key):
        assert secret not in log + arguments
    assert "\x1b" not in log


def test_a_port_that_is_taken_is_told(workspace: Workspace) -> None:
    taken = bound_socket(ServerConfig())
    try:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidConfig, match="choose another"):
            bound_socket(ServerConfig(port=port))
        other = bound_socket(ServerConfig())
        assert other.getsockname()[1] != port
        other.close()
    finally:
        taken.close()


@pytest.mark.parametrize(
    "options",
    [
        {"tls_cert": Path("x")},
        {"root_path": "runs"},
        {"root_path": "/runs/"},
        {"allowed_hosts": ("*",)},
        {"allowed_hosts": ("http://x",)},
        {"allowed_hosts": ("a.*.org",)},
        {"port": 70_000},
    ],
)
def test_a_setup_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        ServerConfig(**options)  # type: ignore[arg-type]


def test_names_below_a_name_can_be_allowed() -> None:
    config = ServerConfig(allowed_hosts=("*.example.org",))
    assert config.is_known_host("a.example.org")
    assert not config.is_known_host("example.org.evil")
    assert not config.is_known_host("evilexample.org")
    assert not config.is_known_host("10.0.0.1")
    assert ServerConfig(host="0.0.0.0").is_known_host("10.0.0.1")
    assert not ServerConfig(host="0.0.0.0").is_known_host("evil.example")


# --- accounts -------------------------------------------------------------------------------------------------------


def test_users_and_tokens_are_kept_on_the_command_line(workspace: Workspace) -> None:
    assert "no users yet" in invoked(workspace, "users", "list")
    assert "no tokens yet" in invoked(workspace, "tokens", "list")
    assert not (workspace.path / FILE).exists()
    invoked(workspace, "users", "add", "ann", "--project", "digits")
    invoked(workspace, "users", "role", "ann", "viewer")
    token = invoked(workspace, "tokens", "create", "ann", "--label", "laptop", "--days", "30").splitlines()[0]
    assert json.loads(invoked(workspace, "users", "list", "--json"))[0]["roles"] == {
        "*": "viewer",
        "digits": "contributor",
    }
    assert "laptop" in invoked(workspace, "tokens", "list")
    assert token not in invoked(workspace, "tokens", "list", "--json")
    invoked(workspace, "tokens", "revoke", "1")
    assert "revoked" in invoked(workspace, "tokens", "list")
    invoked(workspace, "users", "role", "ann", "none")
    invoked(workspace, "users", "remove", "ann")
    actions = [line["action"] for line in json.loads(invoked(workspace, "audit", "--json"))]
    assert actions == ["users remove", "users role", "tokens revoke", "tokens create", "users role", "users add"]
    assert stat.S_IMODE((workspace.path / FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "arguments",
    [("users", "remove", "x"), ("tokens", "create", "x"), ("tokens", "revoke", "7"), ("users", "role", "x", "viewer")],
)
def test_what_is_not_there_cannot_be_changed(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    invoked(workspace, "users", "add", "ann")
    result = CliRunner().invoke(cli, ["-w", str(workspace.path), *arguments])
    assert result.exit_code == 1


def test_accounts_of_an_earlier_schema_are_brought_to_this_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accounts(workspace.path).add_user("ann")
    more = (*MIGRATIONS, ("CREATE TABLE further (x INTEGER)",))
    monkeypatch.setattr("runstone.index.accounts.MIGRATIONS", more)
    accounts = Accounts(workspace.path)
    assert [user.name for user in accounts.users()] == ["ann"]
    monkeypatch.setattr("runstone.index.accounts.MIGRATIONS", MIGRATIONS)
    with pytest.raises(runstone.FormatError, match="upgrade"):
        Accounts(workspace.path).users()


def test_a_token_works_until_it_expires(workspace: Workspace) -> None:
    now = [1_000.0]
    accounts = Accounts(workspace.path, clock=lambda: now[0])
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "viewer")
    accounts.add_token("ann", "a" * 64, lasts_s=60.0)
    accounts.begin_session("a" * 64, "b" * 64, lasts_s=600.0)
    assert accounts.has_usable_token
    assert accounts.owner_of_session("b" * 64) is not None
    now[0] += 61.0
    assert accounts.owner_of_token("a" * 64) is None
    assert accounts.owner_of_session("b" * 64) is None
    assert not accounts.has_usable_token


def test_serving_loads_nothing_where_it_is_not_used() -> None:
    heavy = "('fastapi', 'uvicorn', 'sqlalchemy')"
    code = f"import sys, runstone.cli.main, runstone.cli.serve; print([m for m in sys.modules if m in {heavy}])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
