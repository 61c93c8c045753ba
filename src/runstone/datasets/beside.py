"""What lies beside data and says which version of it this is: DVC's files, and the commit that is checked out.

Both are read as files: neither DVC nor git need be there, and no process is started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PAIR = re.compile(r"(\s*)(- )?(\w+):(?:\s+(.*?))?\s*")
_MOST_BYTES = 64 << 20
_OID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def find_dvc(path: Path) -> dict[str, Any] | None:
    """Return what DVC says of a file or folder, `None` where it tracks neither it nor a folder around it.

    Returns:
        `file` (the `.dvc` file or `dvc.lock`) and `path` (of what it tracks), both from the folder in which DVC was set
        up; `md5`, and where they stand `size` and `nfiles`; `is_part` where `path` is a folder around the data.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (links stay: DVC replaces data by links)
    root = next((folder for folder in path.parents if (folder / ".dvc").is_dir()), None)
    if root is None:
        return None
    for data in (path, *(folder for folder in path.parents if root in folder.parents)):
        homes = [folder for folder in data.parents if folder == root or root in folder.parents]
        for file in (data.with_name(f"{data.name}.dvc"), *(home / "dvc.lock" for home in homes)):
            for told in _outputs(file):
                if Path(os.path.normpath(file.parent / told["path"])) == data:
                    names: dict[str, Any] = {"file": str(file.relative_to(root)), "path": str(data.relative_to(root))}
                    found = names | {"md5": told["md5"]}
                    found |= {key: int(told[key]) for key in ("size", "nfiles") if told.get(key, "").isdigit()}
                    return found | ({"is_part": True} if data != path else {})
    return None


def _outputs(file: Path) -> Iterator[dict[str, str]]:
    """Yield what a file of DVC lists with path and md5. It is YAML of a form that needs no parser of all YAML."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            return
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    item: dict[str, str] = {}
    depth = -1
    for line in [*lines, "- end:"]:
        match = _PAIR.fullmatch(line)
        if match is None:
            continue
        indent = len(match[1]) + (2 if match[2] else 0)
        if match[2] or indent < depth:
            if {"path", "md5"} <= item.keys():
                yield item
            item, depth = {}, indent
        if indent == depth and match[4] is not None:
            item[match[3]] = _unquoted(match[4])


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return text


def find_git(path: Path) -> dict[str, Any] | None:
    """Return `commit`, `branch` and `path` in the repository for data that lies in one, else `None`."""
    path = Path(os.path.realpath(path))
    for folder in (path, *path.parents):
        git = folder / ".git"
        if git.is_dir() or git.is_file():
            try:
                commit, branch = _head(git)
            except (OSError, ValueError):
                return None
            return {"commit": commit, "branch": branch, "path": str(path.relative_to(folder))}
    return None


def _head(git: Path) -> tuple[str, str | None]:
    if git.is_file():  # of a worktree or submodule: a line that says where it is
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return _oid(head), None
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    homes = [git, git / common.read_text().strip()] if common.is_file() else [git]
    for home in homes:
        if (home / name).is_file():
            return _oid((home / name).read_text().strip()), name.removeprefix("refs/heads/")
    for home in homes:
        if (home / "packed-refs").is_file():
            for line in (home / "packed-refs").read_text().splitlines():
                if line.endswith(f" {name}"):
                    return _oid(line.split(" ")[0]), name.removeprefix("refs/heads/")
    raise ValueError(f"{name} has no commit yet")


def _oid(text: str) -> str:
    if not _OID.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no commit")
    return text
