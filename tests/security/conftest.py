"""The server of tests/server, and what a program does with files, sockets and processes while it is watched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import fresh, limited, world

__all__ = ["fresh", "limited", "world"]

_FILES = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}
_OUTSIDE = {"socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
_seen: list[tuple[str, tuple[Any, ...]]] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and (event in _FILES or event in _OUTSIDE):
        _seen.append((event, arguments))


sys.addaudithook(_audit)


class Watched:
    """What the interpreter was asked for, each as an event of its audit hooks with its arguments."""

    def __init__(self, seen: list[tuple[str, tuple[Any, ...]]]) -> None:
        self._seen = seen

    @property
    def places(self) -> list[str]:
        """Paths of files and folders that were opened, listed, made or removed."""
        found = [argument for event, arguments in self._seen if event in _FILES for argument in arguments[:2]]
        return [os.fsdecode(one) for one in found if isinstance(one, (str, bytes, os.PathLike))]

    @property
    def outside(self) -> list[str]:
        """Connections and processes that were begun."""
        return [f"{event} {arguments}" for event, arguments in self._seen if event in _OUTSIDE]


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Watch this process, all threads of it."""
    global _seen
    _seen = seen = []
    stat, lstat = os.stat, os.lstat  # for which there are no events

    def noting(call: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def noted(path: Any, *words: Any, **how: Any) -> os.stat_result:
            seen.append(("open", (path,)))
            return call(path, *words, **how)

        return noted

    os.stat, os.lstat = noting(stat), noting(lstat)
    try:
        yield Watched(seen)
    finally:
        os.stat, os.lstat = stat, lstat
        _seen = None


class Canary:
    """Somebody who listens, and counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.visits: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._socket.accept()
                with connection:
                    connection.settimeout(5)
                    with contextlib.suppress(OSError):
                        self.visits.append(connection.recv(4_096))

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def canary() -> Iterator[Canary]:
    """Somebody who listens, and whom nobody should visit."""
    made = Canary()
    yield made
    made.close()


def tree_hash(folder: Path) -> dict[str, str]:
    """Return a hash of each file below a folder, but for what is derived and the audit log; links as what they say."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and not path.name.startswith(("index.", "accounts.")) and "/changes/" not in f"/{name}":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
