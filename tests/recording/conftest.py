"""Programs of users, run as processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import runstone
from tests.recording.disk import disk_of


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    errors: str


class Program:
    """A running Python program that says `ready` on its standard output when it has got where the test wants it."""

    def __init__(self, source: str, folder: Path, environment: dict[str, str]) -> None:
        # its output goes to a pipe that it must not fill before `end` reads it: programs here say little
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source)],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, self.process.communicate()[1])

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def send(self, signal: int) -> None:
        self.process.send_signal(signal)

    def end(self, timeout_s: float = 60.0) -> Ended:
        output, errors = self.process.communicate(timeout=timeout_s)
        return Ended(self.process.returncode, output, errors)

    def close(self) -> None:
        """Kill it if it still runs, and close what leads to it: a test that killed it has not read it to its end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was to be written has no reader any more
                    pipe.close()


Start = Callable[..., Program]
RunProgram = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _no_run_is_left_open() -> Iterator[None]:
    yield
    while (run := runstone.current_run()) is not None:
        with contextlib.suppress(OSError):  # tests that take the disk away
            run.finish()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start programs; those that still run at the end of the test are killed."""
    programs: list[Program] = []

    def start_one(source: str, **environment: str) -> Program:
        programs.append(Program(source, tmp_path, environment))
        return programs[-1]

    yield start_one
    for program in programs:
        program.close()


@pytest.fixture
def run_program(start: Start) -> RunProgram:
    """Run a program to its end."""
    return lambda source, **environment: start(source, **environment).end()


@pytest.fixture
def only_run(home: Path) -> Callable[[], runstone.RunInfo]:
    """Read the one run of the workspace."""

    def read() -> runstone.RunInfo:
        (folder,) = runstone.Workspace(home).run_folders()
        return runstone.RunInfo(folder)

    return read


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 3 MiB."""
    with disk_of("3m", tmp_path / "disk") as place:
        yield place
