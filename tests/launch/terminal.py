"""A terminal with a program in it, as a user has one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Self

import psutil


class Terminal:
    """Runs a command as the leader of a session whose terminal this is."""

    def __init__(self, words: Sequence[str], *, columns: int = 80) -> None:
        self._fd, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        self._read = b""

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=take_terminal
        )
        os.close(theirs)

    def until(self, wanted: bytes, *, timeout_s: float = 30.0) -> bytes:
        """Return what is printed until `wanted` has been, `wanted` included."""
        end = time.monotonic() + timeout_s
        while wanted not in self._read:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{wanted!r} did not come; there was {self._read!r}")
            if select.select([self._fd], [], [], left_s)[0]:
                try:
                    self._read += os.read(self._fd, 1 << 16)
                except OSError:
                    raise EOFError(f"{wanted!r} did not come; there was {self._read!r}") from None
        place = self._read.index(wanted) + len(wanted)
        found, self._read = self._read[:place], self._read[place:]
        return found

    def write(self, keys: bytes) -> None:
        """Type keys."""
        os.write(self._fd, keys)

    def resize(self, columns: int) -> None:
        """Change the size of the window."""
        termios.tcsetwinsize(self._fd, (24, columns))

    def processes(self) -> list[psutil.Process]:
        """Return the processes that the command has started."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def wait(self) -> int:
        """Read on until the command has ended, and return its exit code."""
        with contextlib.suppress(EOFError):
            self.until(b"\0never\0")
        return self._process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        os.close(self._fd)
