"""Stores that the real tools wrote, unpacked; a workspace to import them into."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone.workspace import Workspace, ensure_workspace

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return ensure_workspace(home)


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack a store: `golden("wandb")` is the folder in which the tool wrote."""

    def unpack(name: str) -> Path:
        folder = tmp_path / "stores" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
                archive.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture
def told() -> Callable[[str], dict[str, Any]]:
    """Return what the tool itself said of a store."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_bytes())


def interpreter_with(library: str) -> str:
    """Return an interpreter that has a tool's library: this one, or the one that a variable names; else skip."""
    candidates = [os.environ.get(f"RUNSTONE_TEST_{library.upper()}_PYTHON"), sys.executable]
    for candidate in candidates:
        if candidate and shutil.which(candidate):
            found = subprocess.run([candidate, "-I", "-c", f"import {library}"], capture_output=True, check=False)
            if found.returncode == 0:
                return candidate
    pytest.skip(f"no interpreter has {library}; name one by RUNSTONE_TEST_{library.upper()}_PYTHON")
