"""Puts a recorded commit and the uncommitted changes of then into a new folder. Reads the old checkout, writes only
into the new one.

The new folder is a repository of its own with one commit in it: it borrows nothing from the old checkout, so that
neither can break the other. No hook runs, and only git's own transports are allowed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.capture.command import Output, run
from runstone.capture.redact import REDACTED
from runstone.environments import patch_files
from runstone.errors import NotFound
from runstone.reproduce.plan import field_of, is_safe_relative, text_of, texts_of, with_home

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_FETCH_S = 600.0
_QUICK_S = 60.0
_MOST_OUTPUT = 4 << 20
_QUIET = (
    "--no-pager",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "advice.detachedHead=false",
)


@dataclass(slots=True)
class Checkout:
    """The code as far as it could be restored.

    Attributes:
        folder: Where it is.
        source: What the commit came from; empty where there is no code.
        applied: Files to which the uncommitted changes of then were applied.
        lost: What could not be restored, in words.
    """

    folder: Path
    source: str = ""
    applied: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def restore_code(
    snapshot: Mapping[str, Any], patch: bytes | None, folder: Path, *, home: str, repository: str | None = None
) -> Checkout:
    """Make a checkout of the recorded commit with the recorded changes.

    Args:
        snapshot: The environment of the run; it has a `git` section.
        patch: The changes on top of the commit, if they were kept.
        folder: Where to; it is there and empty.
        home: What `~` stands for.
        repository: A clone, or an address, to take the commit from, instead of the recorded ones.

    Raises:
        NotFound: git is missing, or the commit is nowhere to be had.
    """
    git = _Git(folder)
    root = with_home(text_of(snapshot, "git.root"), home)
    commit = text_of(snapshot, "git.commit")
    found = Checkout(folder)
    if commit and not _COMMIT.fullmatch(commit):
        raise NotFound(f"the run recorded the commit {commit[:80]!r}, which is none")
    git("init", "--quiet", "--template=", *(("--object-format=sha256",) if len(commit) == 64 else ()))
    if commit:
        found.source = _fetch(git, commit, _sources(snapshot, root, repository))
        git("checkout", "--quiet", "--detach", commit, timeout_s=_FETCH_S)
        _restore_submodules(snapshot, found, root)
    else:
        found.source = "the changes alone: there was no commit yet"
    _restore_changes(git, found, snapshot, patch)
    return found


def not_kept(root: Path, code: Path, *, but: Path) -> list[str]:
    """Return what the old checkout has, that git does not keep and the new one lacks: data, outputs, environments.

    Args:
        root: The old checkout; it may be gone.
        code: The new one.
        but: A folder that may lie in the old one, and is left out.
    """
    if not (root / ".git").exists():
        return []
    output = _Git(root).ask("ls-files", "--others", "--directory", "--no-empty-directory", "-z")
    found = [os.fsdecode(entry).rstrip("/") for entry in output.data.split(b"\0") if entry]
    return [path for path in found if not _is_by_the_way(root / path, but) and not (code / path).exists()]


def _is_by_the_way(path: Path, but: Path) -> bool:
    """Return whether tools make this anew, or it is hidden."""
    name = path.name
    is_made = name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".egg-info"))
    return is_made or path in (but, *but.parents) or (path / "pyvenv.cfg").is_file()


class _Git:
    """git in one folder."""

    def __init__(self, folder: Path) -> None:
        environment = settings.process_environment()
        program = shutil.which("git", path=environment.get("PATH"))
        if program is None:
            raise NotFound("git is not on PATH, and it is needed to restore the code of the run: install git")
        self._program = program
        self._folder = folder
        # Inherited GIT_* name other repositories and programs to run.
        self._environment = {name: value for name, value in environment.items() if not name.startswith("GIT_")} | {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "LC_ALL": "C",
        }

    def __call__(self, *arguments: str, timeout_s: float = _QUICK_S) -> Output:
        output = self.ask(*arguments, timeout_s=timeout_s)
        if output.code != 0:
            raise NotFound(f"git {arguments[0]} failed: {_said(output)}")
        return output

    def ask(self, *arguments: str, timeout_s: float = _QUICK_S) -> Output:
        """Run a command that may fail."""
        try:
            return run(
                [self._program, *_QUIET, *arguments],
                cwd=self._folder,
                environment=self._environment,
                timeout_s=timeout_s,
                max_bytes=_MOST_OUTPUT,
            )
        except TimeoutError as error:
            return Output(b"", f"{error}: given up after {timeout_s:.0f} s", 1)


def _said(output: Output) -> str:
    lines = [line for line in output.error.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or ["no message"])[0][:300]


def _sources(snapshot: Mapping[str, Any], root: str, repository: str | None) -> list[str]:
    if repository is not None:
        return [str(Path(repository).expanduser().absolute()) if "://" not in repository else repository]
    remote = text_of(snapshot, "git.remote")
    found = [root] if root and Path(root).is_dir() else []
    # An address that begins with a dash would be taken for an option; what was redacted leads nowhere.
    if remote and not remote.startswith("-") and REDACTED not in remote:
        # A user name is never recorded; hosts of repositories go by this one.
        found.append(remote.replace("ssh://", "ssh://git@", 1) if "@" not in remote else remote)
    return found


def _fetch(git: _Git, commit: str, sources: list[str]) -> str:
    refusals = []
    for source in sources:
        # One commit without its history: enough to run it, and small.
        arguments = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", source, commit)
        output = git.ask("-c", "protocol.version=2", *arguments, timeout_s=_FETCH_S)
        if output.code == 0:
            return source
        refusals.append(f"{source}: {_said(output)}")
    tried = "; ".join(refusals) or "the recorded checkout is gone, and it had no remote"
    raise NotFound(
        f"commit {commit[:12]} is nowhere to be had ({tried}); name a clone that has it: --repository PATH-OR-ADDRESS"
    )


def _restore_submodules(snapshot: Mapping[str, Any], found: Checkout, root: str) -> None:
    modules = field_of(snapshot, "git.submodules")
    for module in modules if isinstance(modules, list) else ():
        path, commit = str(module.get("path")), str(module.get("commit"))
        place, source = found.folder / path, Path(root) / path
        if not is_safe_relative(path) or not _COMMIT.fullmatch(commit) or not _is_empty_folder(found.folder, place):
            found.lost.append(f"submodule {path!r}: the checkout has no place for it")
            continue
        if not root or not source.is_dir():
            found.lost.append(f"submodule {path!r} at {commit[:12]}: {source} is gone")
            continue
        git = _Git(place)
        try:
            git("init", "--quiet", "--template=")
            _fetch(git, commit, [str(source)])
            git("checkout", "--quiet", "--detach", commit, timeout_s=_FETCH_S)
        except NotFound as error:
            shutil.rmtree(place / ".git", ignore_errors=True)
            found.lost.append(f"submodule {path!r}: {error}")


def _is_empty_folder(top: Path, place: Path) -> bool:
    """Return whether the checkout made this folder, empty, without a link on the way."""
    return place.resolve() == top.resolve() / place.relative_to(top) and place.is_dir() and not any(place.iterdir())


def _restore_changes(git: _Git, found: Checkout, snapshot: Mapping[str, Any], patch: bytes | None) -> None:
    if patch is None:
        if field_of(snapshot, "git.is_dirty"):
            found.lost.append("the uncommitted changes of then: none were kept with the run")
        return
    parts = patch_files(patch)
    for path in [path for path, part in parts.items() if b"\nBinary files " in part]:
        found.lost.append(f"changes of {path!r}: a binary file, of which no patch is kept")
        del parts[path]
    for path in [path for path, part in parts.items() if re.search(rb"\n[-+]Subproject commit ", part)]:
        found.lost.append(f"changes of {path!r}: another commit of a submodule")
        del parts[path]
    if parts and git_apply(git, b"".join(parts.values())) is None:
        found.applied += parts
    else:
        for path, part in parts.items():  # one that does not fit must not cost the others
            refusal = git_apply(git, part)
            if refusal is None:
                found.applied.append(path)
            else:
                found.lost.append(
                    f"changes of {path!r}: the patch does not apply ({refusal}); code.patch has it, to apply by hand"
                )
    for path in found.applied:
        if re.search(rb"\n\+[^\n]*" + re.escape(REDACTED.encode()), parts[path]):
            found.lost.append(f"a secret in {path!r}: it reads {REDACTED} there now")
    found.lost += [
        f"{path!r}: changed or untracked then, and not kept" for path in texts_of(snapshot, "git.diff.omitted")
    ]
    if field_of(snapshot, "git.diff.is_truncated"):
        found.lost.append("some uncommitted changes: there were more than are kept")


def git_apply(git: _Git, patch: bytes) -> str | None:
    """Apply a patch whole or not at all; return why not. git refuses names that lead out of the folder."""
    with tempfile.NamedTemporaryFile(suffix=".patch") as file:
        file.write(patch)
        file.flush()
        output = git.ask("apply", "--whitespace=nowarn", "--", file.name)
    return None if output.code == 0 else _said(output)
