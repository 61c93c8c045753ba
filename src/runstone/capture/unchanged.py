"""Tells whether a checkout is still as git last described it, from the times of its files alone.

A witness is a list of paths and one hash of their states: tracked and untracked files, every folder of the working tree
that is not ignored (a new file changes the time of its folder), and git's own files: HEAD, index, refs, configuration.
The time of the last change of an inode (`ctime`) is part of the state: nobody can set it back. What changed just before
git looked gets no witness, as it might change again within one tick of the file system's clock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runstone.capture.code import Checkout, find_checkout, starting_points
from runstone.capture.context import Context
from runstone.capture.disk import file_system
from runstone.capture.facts import Section

_MOST_PATHS = 20_000
_LIST_BYTES = 4 << 20
# Whose times come from this machine's own clock, to its tick; a server's do not.
_LOCAL = frozenset({"ext4", "xfs", "btrfs", "tmpfs", "zfs", "overlay", "f2fs", "bcachefs"})
_TICK_S = 0.1
_NOT_GIT = "absent: not a git repository"


def checkout_key(context: Context) -> list[Any]:
    """Return what decides which checkout is looked at, and by which git."""
    names = ("PATH", "XDG_CONFIG_HOME")
    return [[str(folder) for folder in starting_points()], [context.environment.get(name) for name in names]]


def make_witness(section: Section, context: Context, *, since: float) -> dict[str, Any] | None:
    """Return the witness of a checkout that was just described, `None` where there can be none.

    Args:
        section: What `read_git` found.
        context: What it was found with.
        since: When it began, seconds since the epoch.
    """
    try:
        if section.why.get("git") == _NOT_GIT:
            paths = sorted(set(_where_none_is()))
        elif section.values and section.values.get("submodules") is None and "git" not in section.why:
            paths = sorted(set(_where_one_is(context)))
        else:
            return None
    except (Exception, _TooMany):  # it only saves time
        return None
    state, latest, has_fractions = _state(paths)
    if latest and (latest > since - _TICK_S or not has_fractions):
        return None
    return {"paths": paths, "state": state}


def holds(witness: dict[str, Any]) -> bool:
    """Return whether everything is as it was."""
    return bool(_state(witness["paths"])[0] == witness["state"])


class _TooMany(Exception):
    """The working tree is so large that git itself is as fast."""


def _where_none_is() -> Iterator[str]:
    """Yield what would be there if one of the folders became a part of a checkout."""
    for start in starting_points():
        for folder in (start, *start.parents):
            yield from (str(folder / name) for name in (".git", "HEAD"))


def _where_one_is(context: Context) -> Iterator[str]:
    program = shutil.which("git", path=context.environment.get("PATH"))
    checkout = find_checkout(program or "git", context)
    if file_system(checkout.root, context) not in _LOCAL:
        raise _TooMany
    yield from _of_git(checkout, context)
    tracked = _listed(checkout, "ls-files", "-z")
    untracked = _listed(checkout, "ls-files", "--others", "--exclude-standard", "-z")
    ignored = _listed(checkout, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
    root = str(checkout.root)
    yield from (f"{root}/{name}" for name in (*tracked, *untracked))
    # A nested checkout is listed with a slash, too, and is no part of this one.
    left_out = {f"{root}/{name[:-1]}" for name in (*untracked, *ignored) if name.endswith("/")}
    count = len(tracked) + len(untracked)
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name != ".git" and f"{folder}/{name}" not in left_out]
        count += 1
        if count > _MOST_PATHS:
            raise _TooMany
        yield folder
        if ".gitignore" in files:  # it may be ignored itself
            yield f"{folder}/.gitignore"
    # Whether a nearer checkout has come between.
    for start in starting_points():
        yield from (f"{folder}/.git" for folder in (start, *start.parents) if checkout.root in folder.parents)


def _of_git(checkout: Checkout, context: Context) -> Iterator[str]:
    places = checkout.git("rev-parse", "--absolute-git-dir", "--git-common-dir").data
    own, common = (Path(checkout.root, os.fsdecode(line)) for line in places.splitlines())
    for folder in {own, common}:
        names = ("HEAD", "index", "config", "config.worktree", "packed-refs", "info/exclude", "info/attributes")
        yield from (str(folder / name) for name in (*names, "info/sparse-checkout", "reftable", "objects/info"))
        for inside, _, _ in os.walk(folder / "refs"):
            yield inside
            yield from (entry.path for entry in os.scandir(inside) if not entry.is_dir())
    settings = context.environment.get("XDG_CONFIG_HOME") or f"{context.home}/.config"
    yield from (f"{context.home}/.gitconfig", "/etc/gitconfig", f"{settings}/git/config", f"{settings}/git/ignore")
    excludes = checkout.git("config", "--type=path", "--get", "core.excludesFile", accept=(0, 1)).data.strip()
    if excludes:
        yield os.fsdecode(excludes)


def _listed(checkout: Checkout, *arguments: str) -> list[str]:
    output = checkout.git(*arguments, max_bytes=_LIST_BYTES)
    names = [os.fsdecode(entry) for entry in output.data.split(b"\0") if entry]
    if output.is_truncated or len(names) > _MOST_PATHS:
        raise _TooMany
    for name in names:
        name.encode()  # what is no text does not come back from JSON
    return names


def _state(paths: Sequence[str]) -> tuple[str, float, bool]:
    """Return a hash of the state of each path, when the last of them changed, and whether times have fractions."""
    states: list[tuple[int, ...] | None] = []
    latest, has_fractions = 0, False
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            states.append(None)
            continue
        changed = found.st_ctime_ns
        states.append((changed, found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode))
        latest = max(latest, changed)
        has_fractions |= changed % 1_000_000_000 != 0
    return hashlib.blake2b(repr(states).encode(), digest_size=16).hexdigest(), latest / 1e9, has_fractions
