"""What the tests of the snapshot share: the fake driver, other processes, and one section at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runstone.capture.context import Context
from runstone.capture.facts import Facts, Section, explain

_SOURCE = Path(__file__).parent.parent / "fakenvml" / "fakenvml.c"


@pytest.fixture(scope="session")
def fakenvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds the fake `libnvidia-ml.so.1`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("fakenvml")
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(library), str(_SOURCE)], check=True)
    return folder


Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Return a function that runs a program in an interpreter of its own, in `tmp_path`."""

    def run(
        code: str, *arguments: str, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, sys.executable, "-W", "error", "-c", code, *arguments],
            cwd=tmp_path,
            env=dict(os.environ) | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def snapshot_of(python: Python) -> Callable[..., dict[str, Any]]:
    """Return a function that takes a snapshot in a process of its own, with other environment variables."""

    def take(
        *, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = (), arguments: str = ""
    ) -> dict[str, Any]:
        code = f"import json, runstone.capture as c; print(json.dumps(c.snapshot({arguments})))"
        done = python(code, environment=environment, before=before)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return take


@pytest.fixture
def section_of() -> Callable[[Callable[[Facts, Context], None], Context], Section]:
    """Return a function that runs one collector."""

    def read(collector: Callable[[Facts, Context], None], context: Context) -> Section:
        facts = Facts("section")
        try:
            collector(facts, context)
        except Exception as error:
            facts.fail(explain(error))
        return facts.close()

    return read
