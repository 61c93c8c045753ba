"""A user at a command line in a project of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runstone.cli.main import run

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


class User:
    """Types commands, as `user("data add data")`."""

    def __init__(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.project = project
        self._capsys = capsys

    def __call__(self, line: str | list[str], *, code: int = 0) -> str:
        """Run `runstone` with these words and return what it prints; it must exit with `code`."""
        self._capsys.readouterr()
        found = run(line.split() if isinstance(line, str) else line)
        out, err = self._capsys.readouterr()
        assert found == code, f"{line}: exit code {found}\n{out}{err}"
        return out + err

    def json(self, line: str | list[str]) -> Any:
        """Run it with `--json` and return that."""
        words = line.split() if isinstance(line, str) else line
        return json.loads(self([*words, "--json"]))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def git(self, *arguments: str) -> str:
        """Run git in the project."""
        done = subprocess.run(
            ["git", *IDENTITY, *arguments], cwd=self.project, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> User:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("RUNSTONE_WORKSPACE", str(project / ".runstone"))
    monkeypatch.setenv("COLUMNS", "200")
    return User(project, capsys)
