"""Event files of every kind, and programs of users that are mirrored."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("tensorboardX") is None else []

Write = Callable[..., Path]


@pytest.fixture
def write_events() -> Write:
    """Write an event file: `write_events(path, event, event, …)`; an event is `(step, wall_s, summary value, …)`."""
    from runstone.tensorboard.protos import Event, Summary
    from runstone.tensorboard.records import framed

    def write(path: Path, *events: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = [Event(wall_time=1.7e9, file_version="brain.Event:2")]
        for event in events:
            if isinstance(event, Event):
                made.append(event)
                continue
            step, wall_s, *values = event
            made.append(Event(step=step, wall_time=wall_s, summary=Summary(value=values)))
        with path.open("ab") as file:
            file.write(b"".join(framed(event.SerializeToString()) for event in made))
        return path

    return write


@pytest.fixture
def scalar() -> Callable[[str, float], Any]:
    """Make a summary value as the first version of TensorBoard has it."""
    from runstone.tensorboard.protos import Summary

    return lambda tag, value: Summary.Value(tag=tag, simple_value=value)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start Python programs; those that still run at the end of the test are killed."""
    programs: list[subprocess.Popen[str]] = []

    def start_one(source: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source)],
            cwd=tmp_path,
            env=dict(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        return program

    yield start_one
    for program in programs:
        program.kill()
        program.communicate()
