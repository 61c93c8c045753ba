"""`runstone serve --blobs s3://…`: what comes to the server goes to the store, and comes from there when asked."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

import runstone
from runstone.blobs.trimming import SMALL_BYTES
from runstone.cli.main import run as runstone_command
from runstone.errors import InvalidConfig
from runstone.workspace import Workspace, ensure_workspace
from tests.postgres import running
from tests.s3 import KEY, SECRET, Bucket, bucket, refusal, s3_proxy
from tests.server.test_serving import Served, served

__all__ = ["bucket", "s3_proxy"]
# botocore and s3fs are not ours: what they warn of is theirs to mend
pytestmark = pytest.mark.filterwarnings("ignore")
LARGE = 18 << 20  # sent in parts
MLFLOW = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
TRAINING = """
import runstone, sys
with runstone.start_run(project="digits", environment=False) as run:
    run.log({"loss": 0.5})
    run.log_artifact(sys.argv[1], name="out")
print(run.id)
"""


@dataclass
class Team:
    """A server, its workspace, and somebody who may do all."""

    home: Workspace
    server: Served
    url: str
    token: str
    bucket: Bucket

    @property
    def client(self) -> httpx2.Client:
        """What asks the server."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)

    def train(self, folder: Path) -> str:
        """Train on another machine, which knows the server and nothing of its store; return the run's id."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RUNSTONE_"))}
        environment |= {"RUNSTONE_WORKSPACE": self.url, "RUNSTONE_TOKEN": self.token}
        environment["XDG_STATE_HOME"] = str(folder.parent / "elsewhere")
        run_id = done([sys.executable, "-c", TRAINING, str(folder)], environment)
        done([sys.executable, "-m", "runstone.cli.main", "sync"], environment)
        return run_id

    def age(self) -> None:
        """Let all that lies here count as unused for a day."""
        for name, _status in list(self.home.blobs.objects()):
            before = time.time() - 86_400
            os.utime(self.home.blobs.object_path(name), (before, before))


def done(command: list[str], environment: dict[str, str]) -> str:
    """Run a program to its end, which must be a good one, and return what it says."""
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def until(what: Callable[[], object], told: Callable[[], object]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + 120
    while not what():
        assert time.monotonic() < limit, told()
        time.sleep(0.1)


def figures(client: httpx2.Client) -> dict[str, float]:
    """Return what the server tells of content, by name."""
    lines = [line.split() for line in client.get("/metrics").text.splitlines() if line.startswith("runstone_content_")]
    return {name.removeprefix("runstone_"): float(value) for name, value in lines}


@pytest.fixture(params=["files", "PostgreSQL"])
def team(
    request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Team]:
    home = ensure_workspace(tmp_path / "server")
    database = running() if request.param == "PostgreSQL" else None
    options = ["--blobs", bucket.url]
    if database is not None:
        address = next(database).url
        options += ["--index", address]
        monkeypatch.setenv("RUNSTONE_INDEX", address)
    assert runstone_command(["-w", str(home.path), "users", "add", "ann", "--role", "admin"]) == 0
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(home.path), "tokens", "create", "ann"]
    token = done(command, dict(os.environ))
    with served("-w", str(home.path), "serve", *options) as server:
        url = server.line().partition("?key=")[0]
        yield Team(home, server, url, token, bucket)
        assert server.end() == 0, server.log
        said = "".join(server.log)
        assert SECRET not in said
        assert KEY not in said
    if database is not None:
        next(database, None)


def test_artifacts_go_to_the_store_and_come_from_there(team: Team, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    data = {
        "small.csv": b"x,y\n1,2\n",
        "large.bin": os.urandom(LARGE),
        "middle.csv": b"a,b\n3,4\n" * (SMALL_BYTES // 4),
    }
    for name, content in data.items():
        (folder / name).write_bytes(content)
    run_id = team.train(folder)
    theirs = os.urandom(SMALL_BYTES)
    with team.client as client:
        answer = client.post(f"{MLFLOW}/runs/create", json={"experiment_id": "0"})
        assert answer.status_code == 200, answer.text
        made = answer.json()["run"]["info"]["run_id"]
        place = f"{FILES}/0/{made}/artifacts/deep/model.bin"
        assert client.put(place, content=theirs).status_code == 200
        until(lambda: {LARGE, SMALL_BYTES} <= set(team.bucket.contents().values()), team.bucket.contents)
        until(lambda: len(team.bucket.contents()) == 4, team.bucket.contents)
        assert team.bucket.unfinished() == []

        team.age()
        assert team.home.blobs.remote is None  # this process was told of no store
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNSTONE_BLOBS", team.bucket.url)
            assert runstone_command(["blobs", "trim", "-w", str(team.home.path)]) == 0
        here = sum(status.st_size for _name, status in team.home.blobs.objects())
        assert here < SMALL_BYTES, "what the store has was to go here"

        files = f"api/runs/{run_id}/artifacts/out"
        listed = {one["path"]: one for one in client.get(files).json()["files"]}
        assert {name: one["is_here"] for name, one in listed.items()} == dict.fromkeys(data, True)
        part = client.get(f"{files}/file", params={"path": "large.bin"}, headers={"Range": "bytes=10000000-10000099"})
        assert (part.status_code, part.content) == (206, data["large.bin"][10_000_000:10_000_100])
        for name, content in data.items():
            assert client.get(f"{files}/file", params={"path": name}).content == content, name
        shown = client.get(f"{files}/preview", params={"path": "middle.csv"}).json()
        assert (shown["kind"], shown["columns"], shown["is_cut"]) == ("table", ["a", "b"], True)
        with zipfile.ZipFile(io.BytesIO(client.get(f"{files}/zip").content)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == data
        assert client.get(place).content == theirs


def test_a_store_that_is_away_holds_up_nobody(team: Team, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large.bin").write_bytes(os.urandom(SMALL_BYTES * 2))
    run_id = team.train(tmp_path / "out")
    until(lambda: len(team.bucket.contents()) == 1, team.bucket.contents)
    content = next(iter(team.bucket.contents()))
    team.home.blobs.object_path(content).unlink()
    team.bucket.proxy.fault = lambda _asked, _forward: refusal(503, "SlowDown")
    with team.client as client:
        files = f"api/runs/{run_id}/artifacts/out/file"
        answer = client.get(files, params={"path": "large.bin"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert "Retry-After" in answer.headers
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "new.bin").write_bytes(os.urandom(SMALL_BYTES))
        second = team.train(tmp_path / "more")  # taken all the same
        new, expected = f"api/runs/{second}/artifacts/out/file", (tmp_path / "more" / "new.bin").read_bytes()
        until(lambda: client.get(new, params={"path": "new.bin"}).content == expected, lambda: team.server.log)
        until(lambda: any('"content_not_sent"' in line for line in team.server.log), lambda: team.server.log)
        until(lambda: figures(client)["content_waiting_files"] == 1, lambda: figures(client))
        waiting = client.get("/api/info").json()["content_elsewhere"]
        assert (waiting["waiting_files"], waiting["waiting_bytes"], waiting["is_away"]) == (1, SMALL_BYTES, True)
        assert 0 < waiting["oldest_s"] < 600
        told = figures(client)
        assert told["content_waiting_bytes"] == SMALL_BYTES
        assert told["content_waiting_oldest_seconds"] >= waiting["oldest_s"]
        assert told["content_store_away"] == 1
        team.bucket.proxy.fault = None
        until(lambda: len(team.bucket.contents()) == 2, team.bucket.contents)
        until(lambda: not any(figures(client).values()), lambda: figures(client))
        assert client.get("/api/info").json()["content_elsewhere"] == {
            "waiting_files": 0,
            "waiting_bytes": 0,
            "oldest_s": 0.0,
            "is_away": False,
        }
        assert client.get(files, params={"path": "large.bin"}).content == (tmp_path / "out/large.bin").read_bytes()


def test_what_nobody_refers_to_goes_there_too(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.bin").write_bytes(os.urandom(SMALL_BYTES))
        ids.append(team.train(tmp_path / name))
    until(lambda: len(team.bucket.contents()) == 2, team.bucket.contents)
    kept = next(one for one in runstone.open_workspace(team.home.path).runs() if one.id == ids[1]).artifacts[0].files[0]
    with team.client as client:
        assert client.request("DELETE", f"api/runs/{ids[0]}").status_code < 300
    monkeypatch.setenv("RUNSTONE_BLOBS", team.bucket.url)
    at = ["-w", str(team.home.path), "--grace", "0s"]
    assert runstone_command(["gc", "--purge-deleted", *at]) == 0
    assert len(team.bucket.contents()) == 2  # there it was not asked to
    assert runstone_command(["gc", "--remote", *at]) == 0
    assert set(team.bucket.contents()) == {kept.hash}


def test_what_cannot_be_a_store_is_refused_at_the_start(tmp_path: Path) -> None:
    ensure_workspace(tmp_path / "server")
    for url, reason in {
        "s3://key:word@bucket/x": "a URL with a password is seen",
        "bucket/x": "is no URL",
        "nothing://bucket/x": "cannot be used",
    }.items():
        with served("-w", str(tmp_path / "server"), "serve", "--blobs", url) as server:
            assert server.process.wait(60) != 0
            until(lambda: server.log, lambda: "it says nothing")
            assert reason in "".join(server.log)
            assert "word" not in "".join(server.log).replace("password", "")


def test_the_size_of_the_cache_is_checked() -> None:
    from runstone import settings

    with settings.variable_kept("RUNSTONE_BLOBS_CACHE"), pytest.raises(InvalidConfig, match="is no size"):
        settings.use_blob_store(None, cache="much")
