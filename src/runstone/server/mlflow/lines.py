"""A file of JSON lines that only grows: what is told last of a thing stands. Several processes may write it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Lines:
    """The file, and how much of it was read.

    Args:
        path: Of the file; it is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others, of other processes too, from writing until the block ends."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    def news(self) -> list[dict[str, Any]]:
        """Return the whole lines that came since the last call; a damaged one is passed over."""
        with self._lock:
            try:
                if self._path.stat().st_size == self._read_bytes:
                    return []
                with self._path.open("rb") as file:
                    file.seek(self._read_bytes)
                    data = file.read()
            except FileNotFoundError:
                return []
            data = data[: data.rfind(b"\n") + 1]
            self._read_bytes += len(data)
        found = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                one = json.loads(line)
                if isinstance(one, dict):
                    found.append(one)
        return found

    def add(self, *records: dict[str, Any]) -> None:
        """Append lines; when it returns, they are on the disk.

        Raises:
            OSError: the disk refuses.
        """
        data = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a line that a power cut tore
            os.write(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)
