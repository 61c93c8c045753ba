"""The same requests for files to `mlflow server` and to ours: statuses, error codes and bodies are the same.

Where ours answers otherwise on purpose, `OTHERWISE` says so; what stands there must still differ.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest

from tests.mlflow.conftest import Real
from tests.sync.conftest import free_port

# Requests of it are sent as they stand here: `{root}` is the path of the artifacts of a run.
FILES, LIST, RUN_LIST = "/api/2.0/mlflow-artifacts/artifacts", "LIST", "RUN LIST"
NAMES = [
    *("a.txt", "d/b.json", "d/deep/x.bin", "sp%20ace.csv", "%C3%BC.md", "q%3Fm.txt", "d/plus+.txt", "d/empty.txt"),
    *("MLmodel", "d/x.pkl", "semi;c.txt", "quote%22.txt", "%F0%9F%98%80.txt", "noext", "d/a%26b.txt", "d/colon:x.yaml"),
    *("tilde~", "pct%2525.txt", "hash%23.txt", "x.png", "x.svg", "x.pdf", "x.tar", "x.html", "back%5Cslash"),
]
# What leads out, or would if somebody read it once too often; `C:/x` and `..;/x` are names like others.
PATHS = [
    *("../x", "%2e%2e/x", "..%2fx", "%252e%252e/x", "a/%2e%2e/%2e%2e/x", "a/..", "/etc/passwd", "%2fetc/passwd"),
    *("./a", "a/./b", "a%2f..%2fb", "..%5cx", "%00", "C:/x", "..;/x", "file:///etc/passwd", "%c0%ae%c0%ae/x"),
]
FOLDERS = [
    *("", "d", "d/", "d/deep", "%C3%BC", "a.txt", "d/x", "none", "d/none", "a.txt/x", ".", "./d", "d//deep"),
    *("d/../d", "..", "%2e%2e", "../..", "/d", "d/.."),
]
RANGES = [
    *("bytes=0-9", "bytes=95-", "bytes=-5", "bytes=0-", "bytes=99-500", "bytes=200-", "bytes=0-0,5-6", "lines=1-2"),
]
OTHERWISE = {
    "RUN LIST .": "paths begin with './' there",
    "RUN LIST ./d": "paths begin with './' there",
    "RUN LIST d//deep": "paths have '//' there",
    "pct%2525.txt": "MLflow's decodes twice: the file gets another name there",
    "hash%23.txt": "refused there",
    "back%5Cslash": "refused here: a folder on other systems",
    "..%5cx": "refused here, as above",
    "%2fetc/passwd": "500, or another place, there",
    "/etc/passwd": "500, or another place, there",
    "./a": "500 there",
    "a/./b": "500 there",
    "%00": "kept under a name of its own there",
    "file:///etc/passwd": "500 there",
    "x.html": "bytes to a browser here",
    "%C3%BC.md": "a second name, in ASCII, there",
    "%F0%9F%98%80.txt": "a second name, in ASCII, there",
    "PUT over a folder": "500 there",
    "PUT below a file": "500 there",
    "RANGE bytes=0-0,5-6": "the whole file here",
    "RANGE lines=1-2": "400 there: HTTP says that it is passed over",
}


@pytest.fixture(scope="module")
def peer(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server, in the Python that has it."""
    root, port = tmp_path_factory.mktemp("peer"), free_port()
    names = {key: value for key, value in os.environ.items() if not key.startswith(("RUNSTONE_", "MLFLOW_"))}
    words = [f"--backend-store-uri=sqlite:///{root}/db", f"--artifacts-destination={root}/files", "--workers", "1"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [real.python, "-m", "mlflow", "server", "--serve-artifacts", "--port", str(port), *words],
            env={**names, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"},
            cwd=root,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url, limit = f"http://127.0.0.1:{port}", time.monotonic() + 150
    try:
        while not is_up(url):
            assert process.poll() is None, (root / "log").read_text()
            assert time.monotonic() < limit, (root / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def is_up(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=10).status_code == 200
    except httpx2.TransportError:
        return False


@dataclass
class Answer:
    """What a server said."""

    verb: str
    status: int
    headers: dict[str, str]
    content: bytes


class Side:
    """One of the two servers, with an experiment and a run of its own."""

    def __init__(self, url: str, auth: tuple[str, str] | None) -> None:
        self.place = url.removeprefix("http://")
        words = base64.b64encode(":".join(auth).encode()).decode() if auth is not None else ""
        self.headers = {"Authorization": f"Basic {words}"} if words else {}
        self.experiment = self.post("experiments/create", name=os.urandom(8).hex())["experiment_id"]
        self.run = self.post("runs/create", experiment_id=self.experiment)["run"]["info"]["run_id"]
        self.root = f"{self.experiment}/{self.run}/artifacts"

    def post(self, path: str, **fields: Any) -> Any:
        """Ask for something that is there then."""
        told = {"Content-Type": "application/json"}
        return json.loads(self.ask("POST", f"/api/2.0/mlflow/{path}", json.dumps(fields).encode(), told).content)

    def ask(self, verb: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        """Ask, with the path as it stands."""
        if path.startswith(LIST):
            path = f"{FILES}?path={self.root}/{path.removeprefix(LIST + ' ')}"
        elif path.startswith(RUN_LIST):
            path = f"/api/2.0/mlflow/artifacts/list?run_id={self.run}&path={path.removeprefix(RUN_LIST + ' ')}"
        elif not path.startswith("/api"):
            path = f"{FILES}/{self.root}{'/' if path else ''}{path}"
        connection = HTTPConnection(self.place, timeout=60)  # no client that puts paths in order
        try:
            connection.request(verb, path, body=data, headers={**self.headers, **headers})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(verb, answer.status, told, answer.read())
        finally:
            connection.close()

    def said(self, answer: Answer) -> Any:
        """Return what is to be the same of an answer."""
        headers = [answer.headers.get(name) for name in ("content-type", "content-range", "content-disposition")]
        try:
            told = json.loads(answer.content)
        except ValueError:
            told = None
        if answer.status >= 400:  # MLflow's newer servers say some in another form, which clients read as ours
            return answer.status, (told or {}).get("error_code", "INVALID_PARAMETER_VALUE"), headers[1]
        if answer.verb in ("PUT", "DELETE"):
            return answer.status
        if not isinstance(told, dict) or headers[2]:
            return answer.status, answer.content, headers
        files = [{**one, "file_size": one.get("file_size", 0)} for one in told.get("files", [])]
        root = told.get("root_uri", "").replace(self.run, "RUN").replace(f"/{self.experiment}/", "/EXPERIMENT/")
        return answer.status, sorted(files, key=lambda one: str(one["path"])), root


def questions() -> Iterator[tuple[str, str, str, bytes | None, dict[str, str]]]:
    """Yield name, verb, path, body and headers of requests, in order."""
    for name in NAMES:
        yield name, "PUT", name, b"" if "empty" in name else b"0123456789" * 10, {}
        yield name, "GET", name, None, {}
        yield name, "HEAD", name, None, {}
        yield name, "DELETE", name, None, {}
        yield name, "GET", name, None, {}
    for name in ("a.txt", "d/b.json", "d/deep/x.bin", "d/deep/y.bin", "d/x", "%C3%BC/%20.txt"):
        yield name, "PUT", name, b"0123456789" * 10, {}
    for folder in FOLDERS:
        yield f"{LIST} {folder}", "GET", f"{LIST} {folder}", None, {}
        yield f"{RUN_LIST} {folder}", "GET", f"{RUN_LIST} {folder}", None, {}
    yield "tokens", "GET", f"{RUN_LIST} d&page_token=abc", None, {}
    for path in ("d", "d/", "none", "d/none", "a.txt/x", ""):
        yield f"GET {path}", "GET", path, None, {}
        yield f"HEAD {path}", "HEAD", path, None, {}
    for span in RANGES:
        yield f"RANGE {span}", "GET", "a.txt", None, {"Range": span}
    for path in PATHS:
        for verb in ("PUT", "GET", "DELETE"):
            yield path, verb, path, b"x" if verb == "PUT" else None, {}
    yield "PUT over a folder", "PUT", "d", b"x", {}
    yield "PUT below a file", "PUT", "a.txt/x", b"x", {}
    for path in ("d/x", "d/x", "d/deep", "d/none"):
        yield f"DELETE {path}", "DELETE", path, None, {}
        yield "what is left", "GET", f"{LIST} d", None, {}
    yield "DELETE all", "DELETE", "", None, {}
    yield "what is left in the end", "GET", f"{LIST} ", None, {}


def test_files_are_answered_for_as_mlflows_own_server_does(real: Real, peer: str) -> None:
    theirs, ours = Side(peer, None), Side(real.url, ("ann", real.token))
    differs: dict[str, list[str]] = {}
    asked = 0
    for name, verb, path, data, headers in questions():
        found = [side.said(side.ask(verb, path, data, headers)) for side in (theirs, ours)]
        asked += 1
        assert not str(found[1]).startswith("(5"), (name, verb, path, found[1])
        if found[0] != found[1]:
            differs.setdefault(name, []).append(f"{verb} {path}\n  MLflow: {found[0]}\n  ours:   {found[1]}")
    unexpected = [line for name, lines in differs.items() if name not in OTHERWISE for line in lines]
    assert not unexpected, f"{len(unexpected)} of {asked} answers differ:\n" + "\n".join(unexpected)
    assert sorted(set(OTHERWISE) - set(differs)) == [], "these are the same by now"


CLIENT = """
import os, pathlib, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
seen = []
def note(what):
    try:
        seen.append(what())
    except Exception as error:
        seen.append([type(error).__name__, getattr(error, "error_code", None)])
names = ["a.txt", "sp ace.csv", "ü.md", "d/b.json", "d/e/empty.bin", "d/e/l" + "o" * 150 + "ng", "q&m=1.txt", "50%.txt"]
for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"" if "empty" in name else name.encode() * 1000)
run = client.create_run(client.create_experiment(os.urandom(8).hex())).info.run_id
note(lambda: client.log_artifacts(run, str(folder)))
note(lambda: client.log_artifacts(run, str(folder), "below/it"))
note(lambda: client.log_artifact(run, str(folder / "a.txt"), "../out"))
note(lambda: client.log_text(run, "text", "t/t.txt"))
note(lambda: client.log_dict(run, {"a": 1}, "t/d.json"))
def tree(path=""):
    for one in client.list_artifacts(run, path):
        yield [one.path, one.is_dir, one.file_size or 0]
        if one.is_dir:
            yield from tree(one.path)
note(lambda: list(tree()))
for path in ("a.txt", "none", "d/none", "../x", "/d", "d/../d", "d/e/empty.bin"):
    note(lambda: [[one.path, one.is_dir] for one in client.list_artifacts(run, path)])
for path in ("a.txt", "d", "d/e/empty.bin", "sp ace.csv", "none", "../x", "ü.md", "q&m=1.txt", "50%.txt", "below/it/d"):
    def fetch():
        there = pathlib.Path(client.download_artifacts(run, path, tempfile.mkdtemp()))
        files = [there] if there.is_file() else sorted(one for one in there.rglob("*") if one.is_file())
        return [[one.name, len(one.read_bytes())] for one in files]
    note(fetch)
repository = mlflow.artifacts.get_artifact_repository(client.get_run(run).info.artifact_uri)
note(lambda: repository.delete_artifacts("d/e"))
note(lambda: repository.delete_artifacts("none"))
note(lambda: list(tree()))
note(lambda: repository.delete_artifacts())
note(lambda: list(tree()))
print(json.dumps({"seen": seen}))
"""


def test_the_client_sees_the_same_files_as_of_mlflows_own_server(real: Real, peer: str) -> None:
    env = {"PYTHONWARNINGS": "ignore", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    theirs = Real(real.python, peer, "", real.workspace).do(CLIENT, **env)["seen"]
    ours = real.do(CLIENT, **env)["seen"]
    pairs = enumerate(zip(theirs, ours, strict=True))
    assert [f"{number}: MLflow {one}\n  ours {two}" for number, (one, two) in pairs if one != two] == []
    assert len(theirs) > 25
