"""The files of the page: named by their content, complete, and nothing beside them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from runstone.server.app import create_app
from runstone.server.config import ServerConfig
from runstone.server.errors import ApiError
from runstone.server.pages import PLOTLY, Page, plotly_file
from tests.server.conftest import World

INDEX = """<!doctype html><link rel="stylesheet" href="static/css/base.css"><!-- modulepreload -->
<script type="module" src="static/main.js"></script>"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page" / "css").mkdir(parents=True)
    (tmp_path / "page" / "index.html").write_text(INDEX)
    (tmp_path / "page" / "main.js").write_text("export {}")
    (tmp_path / "page" / "css" / "base.css").write_text("a {}")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "page" / "link.txt").symlink_to(tmp_path / "secret.txt")
    return tmp_path / "page"


def test_addresses_hold_the_hash_of_all_files(folder: Path) -> None:
    page = Page(folder)
    text = bytes(page.index().body).decode()
    assert f'href="static/{page.version}/css/base.css"' in text
    assert f'<link rel="modulepreload" href="static/{page.version}/main.js">' in text
    assert f'src="static/{page.version}/main.js"' in text
    answer = page.file(page.version, "css/base.css")
    assert answer.headers["Cache-Control"].endswith("immutable")
    assert answer.media_type == "text/css"
    before = page.version
    (folder / "main.js").write_text("export const x = 1")
    assert page.version == before
    assert Page(folder).version != before
    assert Page(folder, is_fixed=False).version != before


@pytest.mark.parametrize("name", ["../secret.txt", "link.txt", "index.html", "", "main.js/../../secret.txt", "%2e%2e"])
def test_only_files_of_the_page_are_sent(folder: Path, name: str) -> None:
    page = Page(folder)
    with pytest.raises(ApiError):
        page.file(page.version, name)
    with pytest.raises(ApiError):
        page.file("0" * 16, "main.js")


def test_without_a_page_the_api_is_there(tmp_path: Path) -> None:
    assert b"The page is not part" in bytes(Page(tmp_path).index().body)


def test_plotly_comes_from_its_package(folder: Path) -> None:
    found = plotly_file()
    assert found is not None
    page = Page(folder)
    assert page.file(page.version, PLOTLY).media_type == "text/javascript"


def test_the_page_of_this_version_is_whole(world: World) -> None:
    answer = world.client.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    for address in re.findall(r'(?:href|src)="(static/[^"]+)"', answer.text):
        assert world.client.get(f"/{address}").status_code == 200, address


def test_it_works_under_a_prefix(world: World) -> None:
    config = replace(ServerConfig(), root_path="/proxy/6006")
    server = create_app(world.workspace, config)
    from fastapi.testclient import TestClient

    with TestClient(server, base_url="http://127.0.0.1", root_path="/proxy/6006") as client:
        for prefix in ("", "/proxy/6006"):  # some proxies take it away, some do not
            assert client.get(f"{prefix}/healthz").status_code == 200
            assert client.get(f"{prefix}/").status_code == 200
            assert client.get(f"{prefix}/api/info").status_code == 401
            assert client.get(f"{prefix}/api/info", headers=world.headers("vic")).status_code == 200
        assert 'href="/' not in client.get("/").text
        answer = client.post("/api/login", json={"token": world.tokens["vic"]})
        assert "Path=/proxy/6006" in answer.headers["set-cookie"]
