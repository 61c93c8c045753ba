"""A network between both that fails in every way (F22): nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import socket
import threading
import time
from pathlib import Path

import pytest

import runstone
from runstone.sync.address import Address
from runstone.sync.client import Client
from runstone.sync.sending import Sender
from tests.sync.conftest import Team, contents, here, spool_of, there

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"


class Network:
    """Stands between client and server, and does to each connection what its plan says.

    `pass`: nothing. `busy`: answers 503 itself. `refuse`: closes at once. `lose answer`: the server gets all of the
    request, the client nothing. `cut answer`: the client gets the first 100 bytes. `cut request`: the server gets half.
    `twice`: the server gets the request a second time, over a connection of its own.
    """

    def __init__(self, target: int, plan: list[str]) -> None:
        self._target = target
        self._plan = plan
        self.done: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._listening.close()

    def _run(self) -> None:
        while True:
            try:
                client, _address = self._listening.accept()
            except OSError:
                return
            with client:
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(10)
        fault = self._plan.pop(0) if self._plan else "pass"
        self.done.append(fault)
        if fault == "refuse":
            return
        request = _message(client)
        if not request:
            return
        if fault == "busy":
            client.sendall(BUSY)
            return
        if fault == "cut request":
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(request[: len(request) // 2])
            return
        answer = self._ask(request)
        if fault == "twice":
            answer = self._ask(request)
        if fault == "lose answer":
            return
        client.sendall(answer[:100] if fault == "cut answer" else answer)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            server.settimeout(10)
            try:
                server.sendall(request)
                return _message(server)
            except OSError:
                return b""


def _message(connection: socket.socket) -> bytes:
    """Return one whole message of HTTP, with the end of its connection announced."""
    data = b""
    while b"\r\n\r\n" not in data:
        some = _receive(connection)
        if not some:
            return data
        data += some
    head, _, body = data.partition(b"\r\n\r\n")
    size = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    while len(body) < size:
        some = _receive(connection)
        if not some:
            break
        body += some
    return head + b"\r\nConnection: close\r\n\r\n" + body


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


FAULTS = ["busy", "refuse", "lose answer", "cut answer", "cut request", "twice"]


@pytest.fixture
def chance() -> random.Random:
    return random.Random(22)


def through(team: Team, plan: list[str], run_id: str, tmp_path: Path) -> Network:
    """Send all that is here through a network that fails, and compare."""
    network = Network(Address.parse(team.url).port, plan)
    try:
        address = Address("http", "127.0.0.1", network.port)
        client = Client(address, team.tokens["ann"], timeout_s=2)
        waits: list[float] = []
        sender = Sender(spool_of(team.url), client, sleep=lambda seconds: (waits.append(seconds), time.sleep(0.001))[0])
        sender.send_until_done(patience_s=1e9)
        client.close()
    finally:
        network.close()
    assert sender.sent.refused == 0
    assert contents(here(team, run_id), tmp_path) == contents(there(team, run_id), tmp_path)
    return network


def record(tmp_path: Path, *, steps: int) -> str:
    blob = tmp_path / "weights.bin"
    blob.write_bytes(random.Random(1).randbytes(5 << 20))
    with runstone.start_run(project="digits", environment=False) as run:
        for step in range(steps):
            run.log({"loss": 1 / (step + 1), "note": "x" * 20}, step=step)
        run.log_artifact(blob, name="weights")
    return run.id


@pytest.mark.parametrize("fault", FAULTS)
def test_f22_each_fault_at_each_request(team: Team, tmp_path: Path, fault: str) -> None:
    run_id = record(tmp_path, steps=60_000)
    plan = [word for _number in range(14) for word in (fault, "pass")]
    network = through(team, plan, run_id, tmp_path)
    assert network.done.count(fault) >= 4
    info = team.workspace.run(run_id)
    assert len(info.series("loss")) == 60_000
    content = info.artifacts[0].files[0].hash
    assert team.workspace.blobs.read(content) == (tmp_path / "weights.bin").read_bytes()


def test_f22_a_server_that_is_busy_five_times_and_then_everything_at_once(
    team: Team, tmp_path: Path, chance: random.Random
) -> None:
    run_id = record(tmp_path, steps=30_000)
    plan = ["busy"] * 5 + [chance.choice([*FAULTS, "pass"]) for _number in range(60)]
    through(team, plan, run_id, tmp_path)
    assert len(team.workspace.run(run_id).series("loss")) == 30_000
