"""Runs another program within bounds of time and bytes, and leaves nothing of it behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 16
_ERROR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Output:
    """What a program said.

    Attributes:
        data: Standard output, cut at the bound.
        error: Start of standard error.
        code: Exit status; `None` where it was ended because it had said enough.
    """

    data: bytes
    error: str
    code: int | None

    @property
    def is_truncated(self) -> bool:
        """Whether there would have been more."""
        return self.code is None


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    max_bytes: int,
    stdin: bytes = b"",
) -> Output:
    """Run a program without a terminal, in a process group of its own that is ended with it.

    Args:
        stdin: At most a few kilobytes, so that writing it never waits.

    Raises:
        TimeoutError: it had not ended after `timeout_s`.
        OSError: it cannot be started.
    """
    until = time.monotonic() + timeout_s
    process = subprocess.Popen(
        arguments,
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # no terminal to ask on, and a group that can be ended whole
    )
    try:
        return _read(process, arguments, until=until, max_bytes=max_bytes, stdin=stdin)
    finally:
        _end(process)


def _read(
    process: subprocess.Popen[bytes], arguments: Sequence[str], *, until: float, max_bytes: int, stdin: bytes
) -> Output:
    assert process.stdout is not None  # noqa: S101 - for the type checker: both are pipes
    assert process.stderr is not None  # noqa: S101
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
    data, error = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, data)
        selector.register(process.stderr, selectors.EVENT_READ, error)
        while selector.get_map():
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"{Path(arguments[0]).name} did not end in time")
            for key, _ in selector.select(left_s):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data is data:
                    data += chunk
                    if len(data) > max_bytes:
                        return Output(bytes(data[:max_bytes]), error.decode(errors="replace"), None)
                else:
                    error += chunk[: _ERROR_BYTES - len(error)]
    try:
        code = process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{Path(arguments[0]).name} did not end in time") from None
    return Output(bytes(data), error.decode(errors="replace"), code)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, also what the program itself started and left."""
    # ProcessLookupError: all of it has ended. PermissionError: what macOS says of a group of dead processes.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep: it ends when the kernel lets it
        process.wait(0.5)
