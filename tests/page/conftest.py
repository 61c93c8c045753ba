"""A real browser before a real server. Everything that it asks for, logs or fails at is watched."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.seeding import seed_usual

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--expose-gc",
]
_START_S = 60
_END_S = 20


class Server:
    """`runstone ui` over a workspace, in a process of its own."""

    def __init__(self, workspace: Path, port: int = 0) -> None:
        self.workspace = workspace
        command = [
            sys.executable,
            "-m",
            "runstone.cli.main",
            "-w",
            str(workspace),
            "ui",
            "--no-open",
            "--port",
            str(port),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._next_url().partition("?")[0]
        self._first = True
        self.cookies: Any = None

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next_url(self) -> str:
        told = ""
        while True:
            line = self._lines.get(timeout=_START_S)
            told += line
            if found := re.search(r"http://\S+\?key=\S+", line):
                self.key = found.group()
                return self.key
            if not line:
                raise RuntimeError(f"the server did not start: {told}")

    def open_url(self) -> str:
        """Return an address that lets in once."""
        if not self._first:
            self._next_url()
        self._first = False
        return self.key

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def end(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def quiet_machine() -> Iterator[None]:
    """Runs made for the page record only what their test logs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNSTONE_SYSTEM_METRICS", "0")
        patch.setenv("RUNSTONE_ON_ERROR", "raise")
        yield


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, quiet_machine: None) -> Iterator[Server]:
    """A server over the usual workspace, which no test changes."""
    path = tmp_path_factory.mktemp("page") / ".runstone"
    seed_usual(path)
    server = Server(path)
    yield server
    server.end()


@pytest.fixture
def serve(quiet_machine: None) -> Iterator[Callable[..., Server]]:
    """Serve a workspace of one's own."""
    servers: list[Server] = []

    def start(workspace: Path, port: int = 0) -> Server:
        servers.append(Server(workspace, port))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. Not for longer than a file: Playwright keeps an event loop running in this thread."""
    if not CHROMIUM.exists():
        reason = "there is no /usr/bin/chromium; install it with: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open the page: `look(server, "?project=digits")` returns a Playwright page.

    A test fails where the page asks for anything outside this machine, an answer is 4xx or 5xx, or an error is logged,
    but for what it adds to `page.excused` (parts of texts).
    """
    contexts, pages = [], []

    def open_page(
        server: Server, query: str = "?", *, width: int = 1400, height: int = 900, fresh: bool = False, **how: Any
    ) -> Any:
        state = None if fresh else server.cookies
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", storage_state=state, **how
        )
        contexts.append(context)
        if state is None:
            first = context.new_page()
            first.goto(server.open_url())
            server.cookies = context.storage_state()
            first.close()
        page = context.new_page()
        page.excused = []
        page.troubles = []
        page.requests_seen = []
        page.on("pageerror", lambda error: page.troubles.append(f"error: {error}"))
        page.on("console", lambda line: line.type == "error" and page.troubles.append(f"console: {line.text}"))
        page.on(
            "response", lambda answer: answer.status >= 400 and page.troubles.append(f"{answer.status}: {answer.url}")
        )
        page.on("request", lambda asked: _note(page, asked.url))
        page.goto(server.url + query)
        pages.append(page)
        return page

    yield open_page
    troubles = [one for page in pages for one in page.troubles if not any(part in one for part in page.excused)]
    for context in contexts:
        context.close()
    assert not troubles


def _note(page: Any, url: str) -> None:
    page.requests_seen.append(url)
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        page.troubles.append(f"outside: {url}")
