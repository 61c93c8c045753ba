"""A process that has imported everything, and forks servers that die at a chosen commit, and senders: many in a moment.

`python -m tests.sync.forker WORKSPACE PORT SPOOL`; a line of JSON on its input starts a child, whose id it prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from runstone.server.app import create_app
from runstone.server.config import Limits, ServerConfig
from runstone.server.logs import Log
from runstone.sync.sending import send_all
from runstone.sync.spool import Spool
from runstone.workspace import Workspace

COMMITS = ("mkdir", "pwrite", "ftruncate", "fsync", "fdatasync", "rename", "replace", "unlink", "link")
"""What the server asks of its disk, in whatever order."""


class Nowhere:
    def write(self, line: str) -> int:
        return len(line)

    def flush(self) -> None:
        pass


class Fault:
    """Ends this process at one of its commits: before it, after it, or in the middle of a write; or loses a write.

    Args:
        at: At which, counted from the first; -1: at none.
        how: `before`, `half`, `after`, `lose`.
        count: A file that is made longer by a byte at each commit.
    """

    def __init__(self, at: int, how: str, count: Path) -> None:
        self._at = at
        self._how = how
        self._lock = threading.Lock()
        self._seen = 0
        self._fd = os.open(count, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
        self._write = os.write
        for name in COMMITS:
            setattr(os, name, self._around(name, getattr(os, name)))

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def commit(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                number, self._seen = self._seen, self._seen + 1
                self._write(self._fd, b".")
            if number != self._at:
                return real(*arguments, **options)
            if self._how == "lose" and name == "pwrite":
                return len(arguments[1])
            if self._how == "half" and name == "pwrite":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], arguments[2])
            elif self._how == "after":
                real(*arguments, **options)
            if self._how != "lose":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return commit


def serve(workspace: Path, port: int, told: dict[str, Any]) -> None:
    """Serve until somebody ends this process."""
    limits = replace(Limits(), rate=1e6, burst=1_000_000)
    app = create_app(Workspace(workspace), ServerConfig(port=port, limits=limits), log=Log(Nowhere()))
    Fault(told["at"], told["how"], Path(told["count"]))
    uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none")).run()


def main() -> None:
    """Fork what is asked for."""
    workspace, port, spool = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who is gone is gone at once
    print("ready", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(0)
            if told["do"] == "serve":
                serve(workspace, port, told)
            else:
                send_all(Spool(spool))
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
