"""Servers behind proxies and with TLS of their own: the page, the API, sync and MLflow's protocol below a prefix."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

import runstone
from runstone.errors import InvalidConfig
from runstone.server.app import create_app
from runstone.server.config import ServerConfig
from runstone.server.forwarding import FORWARDED_HOST, resolve
from runstone.sync.address import Address
from runstone.sync.client import Client
from runstone.sync.sending import Sender
from tests.server.conftest import CONFIG, World
from tests.server.test_serving import Served, served
from tests.sync.conftest import free_port, spool_of

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PREFIX = "/proxy/6006"
# As examples/team/nginx.conf, but for the places.
CONF = """
daemon off; pid {root}/pid; error_log {root}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
    server {{
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {cert}; ssl_certificate_key {key};
        {location}
    }}
}}
"""
LOCATION = """
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{server}{rest};
            proxy_http_version 1.1;
            proxy_set_header Host {host};
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            client_max_body_size 0; proxy_request_buffering off;
        }}
"""


@dataclass
class Behind:
    """A server behind nginx."""

    server: Served
    url: str
    tls_url: str
    token: str
    workspace: Path
    tls: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    root = tmp_path_factory.mktemp("tls")
    cert, key = root / "cert.pem", root / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def workspace_with_somebody(path: Path) -> str:
    """Make a workspace with a run and an admin; return their token."""
    with runstone.start_run(workspace=path, project="digits", name="one", environment=False) as run:
        for step in range(20):
            run.log({"loss": 1 / (step + 1)}, step=step)
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(path)]
    subprocess.run([*command, "users", "add", "ann", "--role", "admin"], check=True, capture_output=True)
    made = subprocess.run([*command, "tokens", "create", "ann"], check=True, capture_output=True, text=True)
    return made.stdout.split()[0]


@pytest.fixture(scope="module", params=["taken away", "left", "taken away, with another host"])
def behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[Behind]:
    """A server behind nginx, which takes the prefix away or leaves it."""
    if NGINX is None:
        pytest.skip("there is no nginx; install it with: apt-get install nginx-light")
    root = tmp_path_factory.mktemp("proxied")
    token = workspace_with_somebody(root / ".runstone")
    words = ["-w", str(root / ".runstone"), "serve", "--root-path", PREFIX, "--trusted-proxy", "127.0.0.1"]
    with served(*words, "--port", str(free_port())) as server:
        found = re.search(r":(\d+)/", server.line())
        assert found is not None
        location = LOCATION.format(
            prefix=PREFIX,
            server=found[1],
            rest="" if request.param == "left" else "/",
            host="127.0.0.1" if "another host" in request.param else "$http_host",
        )
        port, tls_port = free_port(), free_port()
        places = {"cert": certificate[0], "key": certificate[1], "port": port, "tls_port": tls_port}
        (root / "nginx.conf").write_text(CONF.format(root=root, location=location, **places))
        command = [NGINX, "-p", str(root), "-c", str(root / "nginx.conf"), "-e", str(root / "error.log")]
        proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url, tls_url = f"http://127.0.0.1:{port}{PREFIX}/", f"https://127.0.0.1:{tls_port}{PREFIX}/"
            wait_for(url, proxy, root / "error.log")
            tls = ssl.create_default_context(cafile=str(certificate[0]))
            yield Behind(server, url, tls_url, token, root / ".runstone", tls)
        finally:
            proxy.terminate()
            proxy.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 60
    while True:
        try:
            if httpx2.get(f"{url}healthz", timeout=20).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
def test_the_page_and_its_changes_work_behind_a_proxy(behind: Behind, is_tls: bool) -> None:
    base = behind.tls_url if is_tls else behind.url
    origin = re.match(r"https?://[^/]+", base)
    assert origin is not None
    with httpx2.Client(base_url=base, timeout=60, verify=behind.tls) as client:
        index = client.get("")
        assert index.status_code == 200
        for address in re.findall(r'(?:href|src)="(static/[^"]+)"', index.text)[:6]:
            assert client.get(address).status_code == 200, address
        assert client.get("api/runs").status_code == 401
        own = {"Origin": origin[0], "X-Runstone": "1"}
        answer = client.post("api/login", json={"token": behind.token}, headers=own)
        assert answer.status_code == 200, answer.text
        cookie = answer.headers["set-cookie"]
        assert f"Path={PREFIX}" in cookie
        assert ("Secure" in cookie) is is_tls
        run = client.get("api/runs").json()["ids"][0]
        changed = client.patch(f"api/runs/{run}", json={"notes": "x"}, headers=own)
        assert changed.status_code == 200, changed.text
        evil = {**own, "Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"}
        assert client.patch(f"api/runs/{run}", json={"notes": "y"}, headers=evil).status_code == 403
        name = client.get("api/runs/x%2Fy")
        assert name.status_code == 404
        assert client.get("api/lineage", params={"ref": f"run:{run}"}).status_code == 200


def test_runs_are_sent_and_mlflow_is_spoken_behind_a_proxy(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone.sync.process.ensure_sender", lambda _workspace: None)
    monkeypatch.setenv("RUNSTONE_WORKSPACE", behind.url)
    monkeypatch.setenv("RUNSTONE_TOKEN", behind.token)
    with runstone.start_run(project="digits", name="from elsewhere", environment=False) as run:
        run.log({"loss": 0.5}, step=0)
    client = Client(Address.parse(behind.url), behind.token, timeout_s=60)
    Sender(spool_of(behind.url), client, days=1.0).send_until_done(patience_s=0)
    found = runstone.Workspace(behind.workspace).run(run.id)
    assert found.name == "from elsewhere"
    assert found.series("loss").value.tolist() == [0.5]
    with httpx2.Client(base_url=behind.url, timeout=60, auth=("ann", behind.token)) as mlflow:
        made = mlflow.post("api/2.0/mlflow/experiments/create", json={"name": run.id})
        assert made.status_code == 200, made.text
        started = mlflow.post("api/2.0/mlflow/runs/create", json={"experiment_id": made.json()["experiment_id"]})
        run_id = started.json()["run"]["info"]["run_id"]
        root = f"api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts"
        assert mlflow.put(f"{root}/a%20b.txt", content=b"hello").status_code == 200
        assert mlflow.get(f"{root}/a%20b.txt").content == b"hello"
        told = {"run_id": run_id, "key": "loss", "value": 1.0, "timestamp": 1, "step": 1}
        assert mlflow.post("api/2.0/mlflow/runs/log-metric", json=told).status_code == 200


@pytest.mark.skipif(not os.environ.get("RUNSTONE_TEST_MLFLOW_PYTHON"), reason="names no Python that has MLflow")
def test_mlflows_own_client_works_behind_a_proxy(behind: Behind) -> None:
    script = (
        "import mlflow; mlflow.set_experiment('proxied')\n"
        "with mlflow.start_run() as run: mlflow.log_metric('a', 2.0); mlflow.log_text('hi', 'x.txt')\n"
        "text = mlflow.artifacts.load_text(run.info.artifact_uri + '/x.txt')\n"
        "print(text, mlflow.get_run(run.info.run_id).data.metrics)"
    )
    names = {
        "MLFLOW_TRACKING_URI": behind.url.rstrip("/"),
        "MLFLOW_TRACKING_USERNAME": "ann",
        "MLFLOW_TRACKING_PASSWORD": behind.token,
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    python = os.environ["RUNSTONE_TEST_MLFLOW_PYTHON"]
    done = subprocess.run(
        [python, "-c", script], env={**os.environ, **names}, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "hi {'a': 2.0}" in done.stdout


def test_the_server_speaks_tls_itself(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    token = workspace_with_somebody(tmp_path / ".runstone")
    cert, key = certificate
    with served("-w", str(tmp_path / ".runstone"), "serve", "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        url = server.line().partition("?")[0].split()[-1]
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(cert))
        with httpx2.Client(base_url=url, timeout=60, verify=trusting) as client:
            answer = client.post("api/login", json={"token": token}, headers={"Origin": url.rstrip("/")})
            assert "Secure" in answer.headers["set-cookie"]
            assert client.get("api/runs").json()["total"] == 1
        with pytest.raises(httpx2.ConnectError):  # nobody has said that this certificate is to be trusted
            httpx2.get(f"{url}healthz", timeout=60)
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"{url}healthz".replace("https:", "http:"), timeout=60)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(cert)
        assert old.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert server.end() == 0


# --- forwarded headers ------------------------------------------------------------------------------------------------


def resolved(config: ServerConfig, path: str = "/", peer: str = "10.0.0.1", **headers: str) -> dict[str, Any]:
    """Return a scope as the gate sees it."""
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "client": (peer, 5),
        "headers": told,
    }
    resolve(scope, config)
    return scope


TRUSTING = replace(CONFIG, trusted_proxies=("10.0.0.0/8", "::1"))


@pytest.mark.parametrize(
    ("config", "peer", "forwarded", "client"),
    [
        (CONFIG, "10.0.0.1", "1.2.3.4", "10.0.0.1"),
        (TRUSTING, "10.0.0.1", "1.2.3.4", "1.2.3.4"),
        (TRUSTING, "192.168.0.1", "1.2.3.4", "192.168.0.1"),
        (TRUSTING, "10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        (TRUSTING, "10.0.0.1", "1.2.3.4:5555", "1.2.3.4"),
        (TRUSTING, "::1", "[2001:db8::1]:80", "2001:db8::1"),
        (TRUSTING, "10.0.0.1", "evil\x1b[31m", "10.0.0.1"),
        (TRUSTING, "10.0.0.1", "1.2.3.4, unknown", "10.0.0.1"),
        (TRUSTING, "10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.1"),
        (TRUSTING, "10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_only_a_proxy_that_is_trusted_says_where_a_request_comes_from(
    config: ServerConfig, peer: str, forwarded: str, client: str
) -> None:
    scope = resolved(
        config, peer=peer, x_forwarded_for=forwarded, x_forwarded_proto="https", x_forwarded_host="runs.example.org"
    )
    assert scope["client"][0] == client
    is_believed = config is TRUSTING and peer != "192.168.0.1"
    assert scope["scheme"] == ("https" if is_believed else "http")
    assert scope.get(FORWARDED_HOST) == ("runs.example.org" if is_believed else None)


@pytest.mark.parametrize("address", ["*", "proxy.example.org", "10.0.0.0/33", ""])
def test_a_proxy_is_named_by_address(address: str) -> None:
    with pytest.raises(InvalidConfig, match="trusted-proxy"):
        ServerConfig(trusted_proxies=(address,))


@pytest.mark.parametrize(
    ("asked", "raw", "below"),
    [
        ("/runs/api/info", "/runs/api/info", "/api/info"),
        ("/api/info", "/api/info", "/api/info"),
        ("/runs", "/runs", "/"),
        ("/runsapi/info", "/runsapi/info", "/runsapi/info"),
        ("/runs/runs/api", "/runs/runs/api", "/runs/api"),
        ("/runs/api/datasets/a/b", "/runs/api/datasets/a%2Fb", "/api/datasets/a/b"),
        ("/runs/api/x", "/r%75ns/api/x", "/api/x"),
    ],
)
def test_the_gate_and_the_routes_see_one_path(asked: str, raw: str, below: str) -> None:
    scope: dict[str, Any] = {"path": asked, "raw_path": raw.encode(), "headers": [], "client": None}
    resolve(scope, replace(CONFIG, root_path="/runs"))
    assert scope["runstone.path"] == below
    assert scope["path"] == "/runs" + below
    assert scope["root_path"] == "/runs"
    assert scope["raw_path"].startswith(b"/runs/")
    assert (b"%2F" in scope["raw_path"]) == ("%2F" in raw)


def test_a_prefix_opens_no_way_around_the_door(world: World) -> None:
    server = create_app(world.workspace, replace(CONFIG, root_path="/runs"))
    with TestClient(server, base_url="http://127.0.0.1:6060") as client:
        for path in (
            "/runs/api/runs",
            "/api/runs",
            "/runs/static/../api/runs",
            "/runs//api/runs",
            "/runs/runs/api/runs",
        ):
            assert client.get(path).status_code in (401, 404), path
        assert client.get("/runs/api/runs", headers=world.headers("ann")).status_code == 200
        assert client.get("/runs/healthz").text == "ok\n"
