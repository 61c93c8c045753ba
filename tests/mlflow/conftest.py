"""A server over a workspace of its own, asked as MLflow's clients ask it; and one for the real client."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from runstone.index.accounts import Accounts
from runstone.server.app import Server, create_app
from runstone.server.auth import hashed, new_token
from runstone.server.config import Limits, ServerConfig
from runstone.server.logs import Log
from runstone.workspace import Workspace, ensure_workspace

BASE = "http://127.0.0.1:6060"
CONFIG = ServerConfig(port=6060, limits=replace(Limits(), rate=1e6, burst=1_000_000, wrong_tokens=100_000))
API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
# Where it is not named, a venv is made where this names a folder; that takes about two minutes.
PYTHON, VENV = "RUNSTONE_TEST_MLFLOW_PYTHON", "RUNSTONE_TEST_MLFLOW_VENV"
RELEASE = "mlflow==3.17.2"


class Asked(AssertionError):
    """An answer other than was expected."""


@dataclass
class World:
    """A server and how it is asked."""

    workspace: Workspace
    server: Server
    client: TestClient
    tokens: dict[str, str]

    def headers(self, user: str = "ann") -> dict[str, str]:
        """Return what shows who somebody is."""
        return {"Authorization": f"Bearer {self.tokens[user]}"}

    def add(self, user: str, *roles: tuple[str, str]) -> None:
        """Add a user with roles by project, and a token."""
        accounts = Accounts(self.workspace.path)
        accounts.add_user(user)
        for project, role in roles:
            accounts.set_role(user, project, role)
        self.tokens[user] = new_token()
        accounts.add_token(user, hashed(self.tokens[user]))

    def raw(self, method: str, path: str, user: str = "ann", /, **fields: Any) -> Any:
        """Ask; fields go into the query of a GET and into the body of everything else."""
        path = path if path.startswith("/") else f"{API}/{path}"
        if method == "GET":
            return self.client.request(method, path, params=fields, headers=self.headers(user))
        return self.client.request(method, path, json=fields, headers=self.headers(user))

    def ask(self, method: str, path: str, user: str = "ann", /, **fields: Any) -> dict[str, Any]:
        """Ask, and return the answer, which is a success."""
        answer = self.raw(method, path, user, **fields)
        if answer.status_code != 200:
            raise Asked(f"{method} {path}: {answer.status_code} {answer.text}")
        found: dict[str, Any] = json.loads(answer.content)
        return found

    def get(self, path: str, /, **fields: Any) -> dict[str, Any]:
        """GET."""
        return self.ask("GET", path, **fields)

    def post(self, path: str, /, **fields: Any) -> dict[str, Any]:
        """POST."""
        return self.ask("POST", path, **fields)

    def refused(self, method: str, path: str, user: str = "ann", /, **fields: Any) -> tuple[int, str, str]:
        """Ask, and return status, code and message of the refusal."""
        answer = self.raw(method, path, user, **fields)
        if answer.status_code == 200:
            raise Asked(f"{method} {path}: {answer.text}")
        found = answer.json()
        return answer.status_code, found["error_code"], found["message"]

    def run(self, experiment_id: str = "0", **fields: Any) -> str:
        """Make a run and return its id."""
        made: str = self.post("runs/create", experiment_id=experiment_id, **fields)["run"]["info"]["run_id"]
        return made

    def put(self, path: str, data: bytes, user: str = "ann") -> Any:
        """Upload a file."""
        return self.client.put(f"{PROXY}/{path}", content=data, headers=self.headers(user))


def opened(path: Path, tokens: dict[str, str] | None = None, config: ServerConfig = CONFIG) -> Iterator[World]:
    """Yield a server over a workspace; where tokens are given, after a restart."""
    workspace = ensure_workspace(path)
    server = create_app(workspace, config, log=Log(io.StringIO()))
    with TestClient(server, base_url=BASE, follow_redirects=False) as client:
        world = World(workspace, server, client, tokens or {})
        if not tokens:
            world.add("ann", ("*", "admin"))
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server over an empty workspace."""
    yield from opened(tmp_path / ".runstone")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that all tests of a file share."""
    yield from opened(tmp_path_factory.mktemp("mlflow") / ".runstone")


# --- the real client --------------------------------------------------------------------------------------------------


@dataclass
class Real:
    """A server process, and a Python that has MLflow."""

    python: str
    url: str
    token: str
    workspace: Workspace

    def do(self, script: str, timeout_s: float = 200.0, **environment: str) -> dict[str, Any]:
        """Run a script with the client, and return what it prints last, as JSON."""
        names = {key: value for key, value in os.environ.items() if not key.startswith(("RUNSTONE_", "MLFLOW_"))}
        done = subprocess.run(
            [self.python, "-c", f"import json, mlflow\nclient = mlflow.MlflowClient()\n{script}"],
            env={
                **names,
                "MLFLOW_TRACKING_URI": self.url,
                "MLFLOW_TRACKING_USERNAME": "ann",
                "MLFLOW_TRACKING_PASSWORD": self.token,
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
                "GIT_PYTHON_REFRESH": "quiet",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise Asked(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


def mlflow_python(cache: Path) -> str:
    """Return a Python that has MLflow: the one that is named, or one of a venv that is made where that is asked for."""
    named = os.environ.get(PYTHON)
    if named:
        return named
    folder = os.environ.get(VENV)
    if not folder:
        pytest.skip(f"needs MLflow in a Python of its own: name one as {PYTHON}, or a folder to make it in as {VENV}")
    python = Path(folder).absolute() / "bin" / "python"
    if not (cache / "installed").exists() and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", RELEASE], check=False, timeout=900, capture_output=True
        )
        if done.returncode != 0:
            pytest.skip(f"MLflow cannot be installed: {done.stderr[-500:].decode(errors='replace')}")
    return str(python)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """A server in a process of its own, and the real client."""
    root = tmp_path_factory.mktemp("real")
    python = mlflow_python(root)
    workspace = ensure_workspace(root / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    token = new_token()
    accounts.add_token("ann", hashed(token))
    with serving(workspace, root / "log") as url:
        yield Real(python, url, token, workspace)


def serving(workspace: Workspace, log: Path) -> Served:
    """Return a server in a process of its own, as a context."""
    return Served(workspace, log)


class Served:
    """A server in a process of its own."""

    def __init__(self, workspace: Workspace, log: Path) -> None:
        self._workspace = workspace
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> str:
        script = (
            "import sys; from runstone.server.config import ServerConfig; from runstone.server.serving import serve; "
            "from runstone.workspace import Workspace; serve(Workspace(sys.argv[1]), ServerConfig(local_name=None), "
            "announce=lambda url, _key: print(url, flush=True))"
        )
        with self._log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", script, str(self._workspace.path)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip().rstrip("/")

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()

    def peak_kib(self) -> int:
        """Return how much memory it had at most, in KiB."""
        assert self._process is not None
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def __exit__(self, *_error: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
