"""A private PostgreSQL server on a unix socket, for tests: it ends with them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Debian's lie beside each other by version; the last one here is taken.
BINARIES = [
    *(Path(found) for found in [shutil.which("postgres")] if found),
    *sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")),
]


class Postgres:
    """A server of one test. It refuses to run as root: then it is the user `postgres` that runs it."""

    def __init__(self, binaries: Path, user: str | None) -> None:
        self._binaries = binaries
        self._user = user
        # Not below tmp_path: other users may not enter it, and the name of a socket is 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if user is not None:
            shutil.chown(self.folder, user)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        options = ("--auth=trust", "--username=tester", "--encoding=UTF8", "--no-locale", "--no-sync")
        self._run("initdb", f"--pgdata={self._data}", *options)

    @property
    def url(self) -> str:
        """Its address, for libpq."""
        return f"postgresql://tester:secret@/postgres?host={self.folder}"

    def start(self) -> None:
        words = ["-D", str(self._data), "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *words],
                user=self._user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + 60
        while not self._is_ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < limit, (self.folder / "log").read_text()
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, as a crash of its host would end all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=60)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *words: str) -> None:
        command = [self._binaries / program, *words]
        done = subprocess.run(command, user=self._user, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def running() -> Iterator[Postgres]:
    """Yield a server that runs; the test is skipped where none can."""
    pytest.importorskip("psycopg")
    user = None
    if not BINARIES:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    if os.geteuid() == 0:
        user = "postgres"
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
    server = Postgres(BINARIES[-1].parent, user)
    try:
        server.start()
        yield server
    finally:
        server.close()
