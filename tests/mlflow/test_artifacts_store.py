"""Files in parts where content lies in a store elsewhere (`--blobs s3://…`), and clients that send too slowly."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runstone.blobs.trimming import SMALL_BYTES
from runstone.cli.main import run as runstone_command
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed
from runstone.workspace import ensure_workspace
from tests.s3 import bucket, s3_proxy
from tests.server.test_blobs import Team, team, until

__all__ = ["bucket", "s3_proxy", "team"]
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")
API = "/api/2.0/mlflow-artifacts"


@pytest.mark.parametrize("team", ["files"], indirect=True)
def test_files_in_parts_go_to_the_store_and_come_from_there(team: Team) -> None:
    pieces = [os.urandom(SMALL_BYTES), os.urandom(SMALL_BYTES), b"end"]
    whole = b"".join(pieces)
    with team.client as client:
        run = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
        root = f"0/{run}/artifacts"
        made = client.post(f"{API}/mpu/create/{root}", json={"path": "x.bin", "num_parts": 3}).json()
        parts: list[dict[str, Any]] = []
        for one, piece in zip(made["credentials"], pieces, strict=True):
            answer = httpx2.put(one["url"], content=piece, headers=one["headers"], timeout=60)
            parts.append({"part_number": one["part_number"], "etag": answer.headers["etag"]})
        body = {"path": "x.bin", "upload_id": made["upload_id"], "parts": parts}
        assert client.post(f"{API}/mpu/complete/{root}", json=body).status_code == 200
        until(lambda: len(whole) in team.bucket.contents().values(), team.bucket.contents)
        team.age()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNSTONE_BLOBS", team.bucket.url)
            assert runstone_command(["blobs", "trim", "-w", str(team.home.path)]) == 0
        assert not [name for name, status in team.home.blobs.objects() if status.st_size == len(whole)]
        told = client.get(f"{API}/presigned/{root}/x.bin").json()
        assert told["file_size"] == len(whole)
        span = {"Range": f"bytes={SMALL_BYTES - 5}-{SMALL_BYTES + 4}"}
        ranged = httpx2.get(told["url"], headers={**told["headers"], **span}, timeout=60)
        assert ranged.content == whole[SMALL_BYTES - 5 : SMALL_BYTES + 5]
        assert client.get(f"{API}/artifacts/{root}/x.bin").content == whole


SERVER = """
import sys
from dataclasses import replace
from runstone.server.config import Limits, ServerConfig
from runstone.server.serving import serve
from runstone.workspace import Workspace
config = ServerConfig(local_name=None, limits=replace(Limits(), body_s=1.0))
serve(Workspace(sys.argv[1]), config, announce=lambda url, _key: print(url, flush=True))
"""


def test_a_client_that_drips_is_told_so_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = ensure_workspace(tmp_path / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    accounts.add_token("ann", hashed("rst_of_ann"))
    command = [sys.executable, "-c", SERVER, str(workspace.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            host, port = server.stdout.readline().strip().removeprefix("http://").rstrip("/").split(":")
            answer = dripped(host, int(port), "rst_of_ann")
        finally:
            server.terminate()
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"send at least 1,024 a second" in answer
    assert [path.name for path in (workspace.path / "mlflow" / "uploads").iterdir()] == ["swept"]


def dripped(host: str, port: int, token: str) -> bytes:
    """Send a byte now and then, until there is an answer; return it."""
    limit = time.monotonic() + 60
    with socket.create_connection((host, port), timeout=60) as sender:
        head = f"PUT {API}/artifacts/x.bin HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        sender.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
        while time.monotonic() < limit:
            sender.sendall(b"x")
            if select.select([sender], [], [], 0.05)[0]:
                break
        parts = []
        while part := sender.recv(4_000):  # until the server closes
            parts.append(part)
    return b"".join(parts)
