"""Another interpreter that has a tool's own library: what it prints, line by line, and what it says when it fails."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from runstone import settings
from runstone.errors import FormatError, RunstoneError

_SILENCE_S = 600.0
_MOST_LINE = 512 << 20
_NO_LIBRARY = 3
"""The exit code by which the scripts say that the library is not there."""
# What would lead another interpreter astray, or a library to a server.
_NOT_HANDED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def run_script(
    script: Path, arguments: Sequence[str], *, library: str, python: str | None, given: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects that a script prints, one a line.

    Args:
        script: A file that needs nothing but the library.
        arguments: Of the script.
        library: What it needs, as pip names it.
        python: The interpreter; default: this one.
        given: A file that it reads as its standard input.

    Raises:
        RunstoneError: the library is not there, or the script failed; the message says what it said.
    """
    interpreter = python or sys.executable
    environment = {k: v for k, v in settings.process_environment().items() if k not in _NOT_HANDED_ON}
    with tempfile.TemporaryFile() as errors, (given or Path(os.devnull)).open("rb") as source:
        try:
            process = subprocess.Popen(
                [interpreter, "-I", str(script), *arguments],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        except OSError as error:
            raise RunstoneError(f"{interpreter} cannot be started: {error.strerror or error}") from None
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            yield from _lines(process.stdout, library)
            code = process.wait(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if code == _NO_LIBRARY:
            raise RunstoneError(
                f"{interpreter} has no {library}, which this takes: pip install {library} into an environment of its "
                "own, and name its interpreter by --python PATH"
            )
        if code:
            raise RunstoneError(f"the process with {library} failed (exit code {code}): {_last_words(errors)}")


def _lines(pipe: IO[bytes], library: str) -> Iterator[dict[str, Any]]:
    """Yield what comes; a process that says nothing for ten minutes hangs."""
    buffer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_SILENCE_S):
                raise RunstoneError(f"the process with {library} said nothing for {_SILENCE_S:.0f} s, and was ended")
            chunk = os.read(pipe.fileno(), 1 << 20)
            if not chunk:
                break
            buffer += chunk
            if len(buffer) > _MOST_LINE:
                raise FormatError(f"the process with {library} wrote a line of more than {_MOST_LINE >> 20} MiB")
            if b"\n" not in chunk:
                continue
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                yield from _parsed(line)
    yield from _parsed(bytes(buffer))


def _parsed(line: bytes) -> Iterator[dict[str, Any]]:
    if not line.startswith(b"{"):
        return  # a library that prints
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        yield told


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 4000))
    lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:1000] if lines else "it said nothing"
