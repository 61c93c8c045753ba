"""The checkout: real git, in every state that a working folder is found in."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone import settings
from runstone.capture.code import PATCH_BYTES, read_git
from runstone.capture.context import Context, Privacy
from runstone.capture.facts import Section

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")

Read = Callable[..., tuple[Section, str]]


def git(folder: Path, *arguments: str) -> str:
    """Run git as a user would, and return what it prints."""
    identity = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org", "-c", "protocol.file.allow=always"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=dict(os.environ) | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-b", "main")
    (folder / "train.py").write_text("lr = 0.1\n")
    (folder / "data.txt").write_text("a\nb\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


@pytest.fixture
def read(
    monkeypatch: pytest.MonkeyPatch, section_of: Callable[..., Section], tmp_path: Path
) -> Callable[..., tuple[Section, str]]:
    """Return a function that reads the checkout around a folder: the section, and the patch."""

    def take(folder: Path, **context: Any) -> tuple[Section, str]:
        patch = tmp_path / "code.w.patch"
        patch.unlink(missing_ok=True)

        def keep(data: bytes) -> str:
            patch.write_bytes(data)
            return patch.name

        monkeypatch.chdir(folder)
        context.setdefault("environment", settings.process_environment())
        section = section_of(read_git, Context(keep_patch=keep, **context))
        return section, patch.read_text() if patch.exists() else ""

    return take


def values(section: Section) -> dict[str, Any]:
    """Return the fields of a section that has some."""
    assert section.values is not None, section.why
    return section.values


def test_clean_checkout_has_commit_and_branch_and_no_patch(checkout: Path, read: Read) -> None:
    git(checkout, "tag", "v1")
    section, patch = read(checkout)
    assert values(section) == {
        "root": str(checkout),
        "commit": git(checkout, "rev-parse", "HEAD"),
        "branch": "main",
        "describe": "v1",
        "changed": [],
        "untracked": [],
        "is_dirty": False,
        "remote": None,
        "submodules": None,
        "superproject": None,
        "diff": None,
    }
    assert set(section.why.values()) == {
        "absent: no remote is set",
        "absent: no submodules",
        "absent: not a submodule itself",
        "absent: nothing is changed",
    }
    assert patch == ""


def test_patch_brings_a_clone_to_the_same_state(checkout: Path, read: Read, tmp_path: Path) -> None:
    (checkout / "train.py").write_text("lr = 0.2\nsteps = 7\n")
    (checkout / "data.txt").unlink()
    (checkout / "sub").mkdir()
    (checkout / "sub" / "new file ä.py").write_text("print('no newline at the end')")
    (checkout / "empty.py").write_text("")
    (checkout / "staged.py").write_text("x = 1\n\f\ny = 2\r\n")
    git(checkout, "add", "staged.py")
    (checkout / 'odd"\t.txt').write_text("odd\n")
    section, _ = read(checkout / "sub")
    found = values(section)
    assert found["changed"] == ["data.txt", "staged.py", "train.py"]
    assert sorted(found["untracked"]) == sorted(["empty.py", 'odd"\t.txt', "sub/new file ä.py"])
    assert found["is_dirty"] is True
    assert found["diff"] == {
        "file": "code.w.patch",
        "size_bytes": (tmp_path / "code.w.patch").stat().st_size,
        "is_truncated": False,
        "redacted_lines": 0,
        "omitted": [],
    }
    git(tmp_path, "clone", str(checkout), "clone")
    git(tmp_path / "clone", "apply", str(tmp_path / "code.w.patch"))
    for name in ("train.py", "sub/new file ä.py", "staged.py", 'odd"\t.txt', "empty.py"):
        assert (tmp_path / "clone" / name).read_bytes() == (checkout / name).read_bytes()
    assert not (tmp_path / "clone" / "data.txt").exists()


def test_repository_without_a_commit_keeps_what_is_staged(tmp_path: Path, read: Read) -> None:
    git(tmp_path, "init", "-b", "main")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    (tmp_path / "a.py").write_text("a = 2\n")
    section, patch = read(tmp_path)
    assert values(section)["commit"] is None
    assert section.why["section.commit"] == "absent: no commit yet"
    assert values(section)["branch"] == "main"
    assert "+a = 2" in patch


def test_detached_head_has_a_commit_and_no_branch(checkout: Path, read: Read) -> None:
    git(checkout, "checkout", "--detach")
    section, _ = read(checkout)
    assert values(section)["commit"] == git(checkout, "rev-parse", "HEAD")
    assert values(section)["branch"] is None
    assert section.why["section.branch"] == "absent: detached HEAD"


def test_worktree_is_a_checkout_of_its_own(checkout: Path, read: Read, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-b", "side", str(tmp_path / "side"))
    section, _ = read(tmp_path / "side")
    assert values(section)["root"] == str(tmp_path / "side")
    assert values(section)["branch"] == "side"


def test_submodules_are_listed_and_know_whose_they_are(checkout: Path, read: Read, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-b", "main")
    (library / "lib.py").write_text("x = 1\n")
    git(library, "add", ".")
    git(library, "commit", "-m", "library")
    git(checkout, "submodule", "add", str(library), "lib")
    git(checkout, "commit", "-m", "add library")
    recorded = git(library, "rev-parse", "HEAD")
    section, _ = read(checkout)
    assert values(section)["submodules"] == [{"path": "lib", "commit": recorded, "is_changed": False}]
    inner, _ = read(checkout / "lib")
    assert values(inner)["superproject"] == str(checkout)
    git(checkout / "lib", "commit", "--allow-empty", "-m", "further")
    section, patch = read(checkout)
    assert values(section)["submodules"] == [{"path": "lib", "commit": recorded, "is_changed": True}]
    assert "Subproject commit" in patch


def test_folder_that_is_no_checkout_says_so(tmp_path: Path, read: Read) -> None:
    section, _ = read(tmp_path)
    assert section.values is None
    assert section.why == {"section": "absent: not a git repository"}


def test_bare_repository_has_no_files_to_compare(tmp_path: Path, read: Read) -> None:
    git(tmp_path, "init", "--bare")
    section, _ = read(tmp_path)
    assert section.why == {"section": "absent: a repository without working tree"}


def test_machine_without_git_says_so(checkout: Path, read: Read, tmp_path: Path) -> None:
    section, _ = read(checkout, environment={"PATH": str(tmp_path / "nothing")})
    assert section.why == {"section": "absent: git is not installed"}


def test_git_that_hangs_is_ended_with_its_children(checkout: Path, read: Read, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\nsleep 61 &\necho $! >{tmp_path}/child\nsleep 61\n")
    (folder / "git").chmod(0o755)
    began = time.monotonic()
    section, _ = read(checkout, environment={"PATH": f"{folder}:/usr/bin:/bin"})
    assert time.monotonic() - began < 4.5
    assert section.why == {"section": "timeout: git did not end in time"}
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not _is_running(child):
            break
        time.sleep(0.02)
    assert not _is_running(child)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_gigabyte_that_changed_costs_neither_time_nor_the_other_changes(checkout: Path, read: Read) -> None:
    (checkout / "train.py").write_text("lr = 0.3\n")
    with (checkout / "data.txt").open("r+b") as file:
        file.truncate(1 << 30)
    with (checkout / "untracked.bin").open("wb") as file:
        file.truncate(1 << 30)
    began = time.monotonic()
    section, patch = read(checkout)
    assert time.monotonic() - began < 4
    assert "+lr = 0.3" in patch
    assert "data.txt" not in patch
    assert values(section)["changed"] == ["data.txt", "train.py"]
    assert sorted(values(section)["diff"]["omitted"]) == ["data.txt", "untracked.bin"]


def test_patch_ends_at_its_bound_between_two_files(checkout: Path, read: Read, tmp_path: Path) -> None:
    for name in "abc":
        (checkout / f"{name}.txt").write_text("".join(f"{name} line {number}\n" for number in range(30_000)))
    git(checkout, "add", ".")
    section, patch = read(checkout)
    diff = values(section)["diff"]
    assert diff["is_truncated"] is True
    assert len(patch) < PATCH_BYTES + 4096
    assert "There were more changes" in patch
    git(tmp_path, "clone", str(checkout), "clone")
    git(tmp_path / "clone", "apply", str(tmp_path / "code.w.patch"))


def test_untracked_files_that_are_not_small_text_stay_out(checkout: Path, read: Read) -> None:
    (checkout / "weights.bin").write_bytes(b"\0\1\2")
    (checkout / "latin.txt").write_bytes("ä".encode("latin-1"))
    (checkout / "large.csv").write_text("1,2\n" * 20_000)
    (checkout / "link.py").symlink_to("/etc/passwd")
    os.mkfifo(checkout / "pipe")
    (checkout / "kept.py").write_text("kept = 1\n")
    section, patch = read(checkout)
    # A pipe is nothing that git counts as a file.
    assert sorted(values(section)["diff"]["omitted"]) == ["large.csv", "latin.txt", "link.py", "weights.bin"]
    assert "+kept = 1" in patch
    assert "root:" not in patch


def test_files_made_of_secrets_are_never_in_the_patch(checkout: Path, read: Read) -> None:
    (checkout / ".env").write_text("A=planted-one\n")
    (checkout / "deep").mkdir()
    (checkout / "deep" / ".env.local").write_text("A=planted-one\n")
    git(checkout, "add", "-f", ".")
    git(checkout, "commit", "-m", "oops")
    (checkout / ".env").write_text("A=planted-two\n")
    (checkout / "deep" / ".env.local").write_text("A=planted-two\n")
    (checkout / "id_rsa").write_text("planted-three\n")
    (checkout / "Server.PEM").write_text("planted-four\n")
    section, patch = read(checkout)
    assert "planted" not in patch
    assert sorted(values(section)["diff"]["omitted"]) == [".env", "Server.PEM", "deep/.env.local", "id_rsa"]


def test_remote_loses_user_and_password(checkout: Path, read: Read) -> None:
    git(checkout, "remote", "add", "origin", "https://jane:planted@host.example/a/b.git")
    section, _ = read(checkout)
    assert values(section)["remote"] == "https://host.example/a/b.git"


def test_uncommitted_code_can_be_left_out(checkout: Path, read: Read) -> None:
    (checkout / "train.py").write_text("lr = 0.2\n")
    section, patch = read(checkout, privacy=Privacy(keep_code=False))
    assert patch == ""
    assert section.why["section.diff"] == "redacted: switched off by privacy.keep_code"
    assert values(section)["changed"] == ["train.py"]


def test_reading_writes_nothing_into_the_repository(checkout: Path, read: Read) -> None:
    (checkout / "train.py").write_text("lr = 0.2\n")
    os.utime(checkout / "data.txt", (1, 1))  # git would like to refresh its index

    def state() -> dict[str, tuple[int, int]]:
        files = (path for path in (checkout / ".git").rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    section, patch = read(checkout)
    assert state() == before
    assert values(section)["changed"] == ["train.py"]
    assert patch.count("diff --git") == 1, "a file that was only touched has not changed"


def test_nothing_that_a_hostile_configuration_names_is_run(checkout: Path, read: Read, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    trap.chmod(0o755)
    (checkout / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (checkout / "train.py").write_text("lr = 0.9\n")
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "core.askPass",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "filter.evil.clean",
        "filter.evil.smudge",
        "credential.helper",
        "gpg.program",
    ):
        git(checkout, "config", key, str(trap))
    git(checkout, "config", "filter.evil.required", "true")
    git(checkout, "config", "log.showSignature", "true")
    git(checkout, "config", "core.hooksPath", str(tmp_path / "hooks"))
    (tmp_path / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc"):
        shutil.copy(trap, tmp_path / "hooks" / hook)
    section, patch = read(checkout)
    assert not canary.exists()
    assert values(section)["is_dirty"] is True
    assert "+lr = 0.9" in patch
    # The same questions, asked as anybody asks them, do run it: the trap works.
    git(checkout, "diff", "HEAD")
    assert canary.exists()


def test_filter_that_cannot_be_switched_off_is_not_risked(checkout: Path, read: Read, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (checkout / ".gitattributes").write_text("* filter=a=b\n")
    (checkout / "train.py").write_text("lr = 0.9\n")
    with (checkout / ".git" / "config").open("a") as file:
        file.write(f'[filter "a=b"]\n\tclean = touch {canary}; cat\n')
    section, patch = read(checkout)
    assert not canary.exists()
    assert section.why["section.commit"].startswith("denied: a filter of this repository")
    assert patch == ""


def test_variables_that_point_elsewhere_do_not_count(checkout: Path, read: Read, tmp_path: Path) -> None:
    other = {"GIT_DIR": str(tmp_path / "other"), "GIT_INDEX_FILE": str(tmp_path / "index"), "GIT_TRACE": "1"}
    section, _ = read(checkout, environment={**settings.process_environment(), **other})
    assert values(section)["root"] == str(checkout)
