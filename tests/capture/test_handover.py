"""Processes of one host hand each other what they read; never what may have changed since."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone.capture.collect import collect

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="no git"),
    pytest.mark.skipif(sys.platform != "linux", reason="handed over on Linux only"),
]


class Host:
    """A checkout, the folder for what is handed over, and a git that counts its calls."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.work, self.facts = path / "work", path / "facts"
        self.environment = environment
        self._calls = path / "calls"
        self._runs = path / "runs"
        real = shutil.which("git")
        (path / "bin").mkdir()
        wrapper = path / "bin" / "git"
        wrapper.write_text(f'#!/bin/sh\necho "$*" >> {self._calls}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
        environment["PATH"] = f"{wrapper.parent}:{environment['PATH']}"
        for folder in (self.work, self.facts, self._runs):
            folder.mkdir()

    def git(self, *arguments: str) -> None:
        """Run git as a user would."""
        identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=self.work, capture_output=True, check=True)

    def settle(self) -> None:
        """Wait until a further change could not carry the same time."""
        time.sleep(0.15)

    def trial(self) -> tuple[dict[str, Any], str, int]:
        """Take the snapshot of one trial; return it, its patch, and how often git was asked."""
        self._calls.unlink(missing_ok=True)
        run = self._runs / str(sum(1 for _ in self._runs.iterdir()))
        run.mkdir()

        def keep(patch: bytes) -> str:
            (run / "code.patch").write_bytes(patch)
            return "code.patch"

        found = collect(
            store=run, environment=self.environment, handed_over=self.facts, keep_patch=keep, writer=run.name
        )
        patch = run / "code.patch"
        calls = len(self._calls.read_text().splitlines()) if self._calls.exists() else 0
        return found, patch.read_text() if patch.exists() else "", calls

    @property
    def file(self) -> Path:
        """What was handed over."""
        (found,) = self.facts.glob("*.json")
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")})
    monkeypatch.chdir(made.work)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return made


@pytest.fixture
def checkout(host: Host) -> Host:
    host.git("init", "-b", "main")
    (host.work / "src").mkdir()
    (host.work / "train.py").write_text("lr = 1\n")
    (host.work / "src" / "net.py").write_text("depth = 2\n")
    (host.work / ".gitignore").write_text("*.log\n/outputs/\n")
    host.git("add", ".")
    host.git("commit", "-m", "first")
    host.settle()
    return host


def complete(snapshot: dict[str, Any]) -> set[str]:
    """Return the sections that are there, or null with a reason of their own."""
    return {name for name in snapshot if snapshot[name] is not None or name in snapshot["why"]}


def test_the_second_trial_asks_git_nothing_and_its_snapshot_is_as_complete(checkout: Host) -> None:
    (checkout.work / "train.py").write_text("lr = 2\n")
    checkout.settle()
    first, first_patch, calls = checkout.trial()
    assert calls > 3
    second, second_patch, calls = checkout.trial()
    assert calls == 0
    assert complete(second) == complete(first)
    assert "+lr = 2" in second_patch
    assert second_patch == first_patch
    moment = {"captured_at", "duration_ms", "writer", "os", "memory", "disk"}
    assert {name: value for name, value in second.items() if name not in moment} == {
        name: value for name, value in first.items() if name not in moment
    }
    assert second["os"]["uptime_s"] > first["os"]["uptime_s"]
    assert second["disk"]["store"]["path"].endswith("/1")
    assert second["memory"]["total_bytes"] == first["memory"]["total_bytes"]


def _edit(host: Host) -> None:
    (host.work / "src" / "net.py").write_text("depth = 3\n")


def _edit_without_a_trace_in_size_and_time(host: Host) -> None:
    before = (host.work / "train.py").stat()
    (host.work / "train.py").write_text("lr = 7\n")
    os.utime(host.work / "train.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def _add_untracked(host: Host) -> None:
    (host.work / "src" / "new.py").write_text("new = 1\n")


def _add_folder(host: Host) -> None:
    (host.work / "more").mkdir()
    (host.work / "more" / "new.py").write_text("new = 1\n")


def _remove(host: Host) -> None:
    (host.work / "src" / "net.py").unlink()


def _commit(host: Host) -> None:
    host.git("commit", "--allow-empty", "-m", "second")


def _tag(host: Host) -> None:
    host.git("tag", "v1")


def _branch(host: Host) -> None:
    host.git("checkout", "-b", "other")


def _ignore(host: Host) -> None:
    (host.work / ".git" / "info" / "exclude").write_text("loose.txt\n")


def _set_remote(host: Host) -> None:
    host.git("remote", "add", "origin", "https://example.org/x.git")


@pytest.mark.parametrize(
    "change",
    [
        _edit,
        _edit_without_a_trace_in_size_and_time,
        _add_untracked,
        _add_folder,
        _remove,
        _commit,
        _tag,
        _branch,
        _ignore,
        _set_remote,
    ],
)
def test_what_changes_in_the_checkout_is_in_the_snapshot_of_the_next_trial(
    checkout: Host, change: Callable[[Host], None]
) -> None:
    (checkout.work / "loose.txt").write_text("loose\n")
    checkout.settle()
    before, _, _ = checkout.trial()
    assert checkout.trial()[2] == 0
    change(checkout)
    after, patch, calls = checkout.trial()
    assert calls > 3
    assert after["git"] != before["git"]
    if change is _edit:
        assert after["git"]["changed"] == ["src/net.py"]
        assert "+depth = 3" in patch
    if change is _edit_without_a_trace_in_size_and_time:
        assert after["git"]["changed"] == ["train.py"]
        assert "+lr = 7" in patch


def test_what_a_trial_writes_into_ignored_folders_is_no_change(checkout: Host) -> None:
    (checkout.work / "outputs").mkdir()
    checkout.settle()
    checkout.trial()
    (checkout.work / "outputs" / "weights.pt").write_text("1")
    assert checkout.trial()[2] == 0


def test_a_change_in_the_last_moment_is_handed_to_nobody(checkout: Host) -> None:
    (checkout.work / "train.py").write_text("lr = 2\n")
    _, patch, _ = checkout.trial()
    assert "+lr = 2" in patch
    (checkout.work / "train.py").write_text("lr = 3\n")  # perhaps within the same tick
    _, patch, _ = checkout.trial()
    assert "+lr = 3" in patch


def test_that_there_is_no_checkout_is_handed_over_until_there_is_one(host: Host) -> None:
    assert "git" in host.trial()[0]["why"]
    found, _, calls = host.trial()
    assert (calls, found["git"], found["why"]["git"]) == (0, None, "absent: not a git repository")
    host.git("init", "-b", "main")
    assert host.trial()[0]["git"]["root"] == str(host.work)


def test_a_trial_in_another_folder_looks_for_itself(
    checkout: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.trial()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found, _, calls = checkout.trial()
    assert calls > 0
    assert found["git"] is None


def _plant(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads(file.read_text())
    change(told)
    file.write_text(json.dumps(told))


def _lie(told: dict[str, Any]) -> None:
    told["sections"]["cpu"]["values"]["model"] = "a lie"


def test_what_was_handed_over_is_taken_at_all(checkout: Host) -> None:
    """Else the tests below could not fail."""
    checkout.trial()
    _plant(checkout.file, _lie)
    assert checkout.trial()[0]["cpu"]["model"] == "a lie"


def _of_another_version(told: dict[str, Any]) -> None:
    told["identity"] = told["identity"].replace('[1, "', '[1, "0.0.0+', 1)


def _of_another_boot(told: dict[str, Any]) -> None:
    told["booted_at"] -= 3600


def _from_long_ago(told: dict[str, Any]) -> None:
    told["sections"]["cpu"]["at"] -= 61


def _from_the_future(told: dict[str, Any]) -> None:
    told["sections"]["cpu"]["at"] += 3600


@pytest.mark.parametrize("change", [_of_another_version, _of_another_boot, _from_long_ago, _from_the_future])
def test_what_does_not_fit_is_not_believed(checkout: Host, change: Callable[[dict[str, Any]], None]) -> None:
    checkout.trial()
    _plant(checkout.file, _lie)
    _plant(checkout.file, change)
    assert checkout.trial()[0]["cpu"]["model"] != "a lie"


@pytest.mark.parametrize("way", ["others may write it", "a link", "damaged"])
def test_a_file_that_others_could_have_made_is_not_believed(checkout: Host, way: str, tmp_path: Path) -> None:
    checkout.trial()
    _plant(checkout.file, _lie)
    if way == "a link":
        kept = checkout.file
        kept.rename(tmp_path / "planted.json")
        kept.symlink_to(tmp_path / "planted.json")
    elif way == "damaged":
        checkout.file.write_bytes(checkout.file.read_bytes()[:-20])
    else:
        checkout.file.chmod(0o622)
    found, _, calls = checkout.trial()
    assert found["cpu"]["model"] != "a lie"
    assert calls > 0


def test_only_this_user_can_read_it(checkout: Host) -> None:
    (checkout.work / "train.py").write_text("lr = 2\n")
    checkout.settle()
    checkout.trial()
    files = list(checkout.facts.iterdir())
    assert {file.suffix for file in files} == {".json", ".patch"}
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_a_patch_that_does_not_belong_to_it_is_not_taken(checkout: Host) -> None:
    (checkout.work / "train.py").write_text("lr = 2\n")
    checkout.settle()
    checkout.trial()
    (patch,) = checkout.facts.glob("*.patch")
    patch.write_text("another one")
    _, found, calls = checkout.trial()
    assert calls > 0
    assert "+lr = 2" in found


def test_a_folder_that_is_not_there_costs_nothing_but_the_reading(checkout: Host) -> None:
    shutil.rmtree(checkout.facts)
    found, _, calls = checkout.trial()
    assert calls > 3
    assert found["git"]["branch"] == "main"
    assert not checkout.facts.exists()
