"""Installed distributions, read from the names of their folders; and what conda installed.

`importlib.metadata` opens and parses a file for each. Here it is one failing `open` for most: beside a program that
keeps the interpreter busy, each call to the system costs a wait of milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone.capture import redact
from runstone.capture.context import Context
from runstone.capture.facts import Facts, absent

_HEAD_BYTES = 4096
_CONDA_FOLDER = "conda-meta"
_LARGEST_CONDA_FILE = 32 << 20
_NAME = re.compile(r"^Name:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_VERSION = re.compile(r"^Version:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_CONDA_URL = re.compile(rb'"url":\s*"([^"]+)"')
_CONDA_MD5 = re.compile(rb'"md5":\s*"([0-9a-f]{32})"')


def read_packages(facts: Facts, context: Context) -> None:
    """Normalized name (PEP 503), version and origin of each distribution; of two, the one that is imported."""
    found: dict[str, dict[str, Any]] = {}
    unreadable: list[str] = []
    for number, entry in enumerate(_entries()):
        if number % 16 == 0:
            context.pause()
        try:
            package = _package(Path(entry.path), entry.name)
        except (OSError, ValueError) as error:
            unreadable.append(f"{entry.name}: {error}")
            continue
        found.setdefault(package["name"], package)
    facts.put("installed", [found[name] for name in sorted(found)])
    facts.put("unreadable", [*unreadable])


def search_path() -> tuple[str, ...]:
    """Return the folders that distributions are looked for in, each once, with when they last changed."""
    folders = dict.fromkeys(os.path.realpath(folder) for folder in sys.path if folder)
    return tuple(folders)


def packages_key() -> tuple[tuple[str, float], ...]:
    """Return what tells that the packages are still the same: folders, and when they last changed."""
    return tuple((folder, _changed_at(folder)) for folder in search_path())


def _changed_at(folder: str) -> float:
    try:
        return os.stat(folder).st_mtime  # noqa: PTH116  # strings all the way: this is asked for each trial of a sweep
    except OSError:
        return 0.0


def _entries() -> Iterator[os.DirEntry[str]]:
    for folder in search_path():
        try:
            with os.scandir(folder) as entries:
                yield from [entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:  # a zip file, or a folder that is not there
            continue


def _package(path: Path, file_name: str) -> dict[str, Any]:
    # `<name>-<version>.dist-info`: Binary distribution format, "The .dist-info directory".
    name, _, rest = file_name.rsplit(".", 1)[0].partition("-")
    version = rest.partition("-")[0]
    if not version:
        name, version = _stated(path)
    package: dict[str, Any] = {"name": re.sub(r"[-_.]+", "-", name).lower(), "version": version}
    if file_name.endswith(".egg-info"):
        return package
    try:
        with (path / "direct_url.json").open("rb") as file:
            origin = json.loads(file.read(1 << 16))
    except (FileNotFoundError, NotADirectoryError):
        return package
    # Installed from an address: what `pip freeze` writes after the @.
    package["url"] = redact.url(str(origin.get("url", "")))
    package["is_editable"] = bool(origin.get("dir_info", {}).get("editable", False))
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        package["commit"] = str(commit)
    if subdirectory := origin.get("subdirectory"):
        package["subdirectory"] = str(subdirectory)
    hashes = origin.get("archive_info", {}).get("hashes") or {}
    if hashes:
        package["hash"] = "=".join(map(str, next(iter(hashes.items()))))
    return package


def _stated(path: Path) -> tuple[str, str]:
    """Return what the metadata states, for a folder whose name has no version."""
    for place in (path / "METADATA", path / "PKG-INFO", path):
        try:
            with place.open("rb") as file:
                head = file.read(_HEAD_BYTES).decode(errors="replace").replace("\r\n", "\n").partition("\n\n")[0]
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        name, version = _NAME.search(head), _VERSION.search(head)
        if name and version:
            return name[1], version[1]
    raise ValueError("states no name or no version")


def conda_key(context: Context) -> list[Any]:
    """Return what tells that conda's packages are still the same: the environment, and when it last changed."""
    prefix = context.environment.get("CONDA_PREFIX") or sys.prefix
    return [prefix, _changed_at(f"{prefix}/{_CONDA_FOLDER}")]


def read_conda(facts: Facts, context: Context) -> None:
    """The addresses that conda would install this environment from again, as `conda list --explicit` has them."""
    prefix = Path(context.environment.get("CONDA_PREFIX") or sys.prefix)
    folder = prefix / _CONDA_FOLDER
    if not folder.is_dir():
        raise absent("not a conda environment")
    facts.put("prefix", str(prefix))
    explicit: list[str] = []
    unreadable: list[str] = []
    for path in sorted(folder.glob("*.json")):
        context.pause()
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST_CONDA_FILE)
        except OSError as error:
            unreadable.append(f"{path.name}: {error.strerror}")
            continue
        addresses, sums = _CONDA_URL.findall(data), _CONDA_MD5.findall(data)
        address = redact.url(addresses[-1].decode(errors="replace")) if addresses else path.stem
        explicit.append(f"{address}#{sums[-1].decode()}" if addresses and sums else address)
    facts.put("explicit", [*explicit])
    facts.put("unreadable", [*unreadable])
