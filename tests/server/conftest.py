"""A workspace with runs of two projects, a server over it, and people who may do this and that."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import runstone
from runstone.index.accounts import Accounts
from runstone.server.app import Server, create_app
from runstone.server.auth import LocalKeys, hashed, new_token
from runstone.server.config import Limits, ServerConfig
from runstone.server.logs import Log
from runstone.workspace import Workspace

BASE = "http://127.0.0.1:6060"
# Tests ask more than one person would.
CONFIG = ServerConfig(port=6060, limits=replace(Limits(), rate=1e6, burst=1_000_000, wrong_tokens=100_000))


@dataclass
class World:
    """A server and those who use it."""

    workspace: Workspace
    server: Server
    client: TestClient
    keys: LocalKeys
    accounts: Accounts
    log: io.StringIO
    tokens: dict[str, str]
    runs: dict[str, str]

    def headers(self, user: str) -> dict[str, str]:
        """Return what shows who somebody is."""
        return {"Authorization": f"Bearer {self.tokens[user]}"}

    def add(self, user: str, *roles: tuple[str, str]) -> None:
        """Add a user with roles by project, and a token."""
        self.accounts.add_user(user)
        for project, role in roles:
            self.accounts.set_role(user, project, role)
        self.tokens[user] = new_token()
        self.accounts.add_token(user, hashed(self.tokens[user]))


def make_runs(path: Path, artifacts: Path) -> dict[str, str]:
    """Record runs: two of `digits`, one of `secret`."""
    folder = artifacts / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / "table.csv").write_text("x,y\n1,2\n3,4\n")
    (folder / "page.html").write_text("<script>alert(1)</script>")
    (folder / "sub" / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    found = {}
    for name, project in (("first", "digits"), ("second", "digits"), ("hidden", "secret")):
        with runstone.start_run(
            workspace=path, project=project, name=name, params={"lr": 0.1, "deep": {"er": [1, 2]}}, environment=False
        ) as run:
            for step in range(40):
                run.log({"loss": 1 / (step + 1), "epoch": step // 10}, step=step)
            run.log({"odd": float("nan")}, step=0)
            run.log_text("words", "hello", step=2)
            run.log_image("val/picture", np.zeros((3, 4, 3), np.uint8), step=3)
            run.log_table("rows", {"a": [1, 2], "b": ["x", "y"]}, step=1)
            run.log_artifact(folder, name="out/put")
            found[name] = run.id
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server over one workspace, for all tests of a file: they leave its runs as they are."""
    root = tmp_path_factory.mktemp("server")
    runs = make_runs(root / ".runstone", root)
    yield from opened(root / ".runstone", runs)


def opened(path: Path, runs: dict[str, str], config: ServerConfig = CONFIG) -> Iterator[World]:
    """Yield a server over a workspace."""
    workspace = Workspace(path)
    keys = LocalKeys("me")
    log = io.StringIO()
    server = create_app(workspace, config, keys=keys, log=Log(log))
    with TestClient(server, base_url=BASE, follow_redirects=False) as client:
        world = World(workspace, server, client, keys, server.state.accounts, log, {}, runs)
        world.add("ann", ("*", "admin"))
        world.add("mia", ("*", "maintainer"))
        world.add("vic", ("*", "viewer"))
        world.add("dan", ("digits", "contributor"))
        world.add("out")
        yield world


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """A server over a workspace of its own, which a test may change."""
    yield from opened(tmp_path / ".runstone", make_runs(tmp_path / ".runstone", tmp_path))


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes a server with other limits."""
    generators = []

    def make(**limits: float) -> World:
        path = tmp_path / ".runstone"
        runs = make_runs(path, tmp_path)
        generator = opened(path, runs, replace(CONFIG, limits=replace(CONFIG.limits, **limits)))  # type: ignore[arg-type]
        generators.append(generator)
        return next(generator)

    yield make
    for generator in generators:
        next(generator, None)
