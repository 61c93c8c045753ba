"""Which packages a run had, as lines that pip installs again. Installs nothing and asks no index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from runstone.capture.redact import REDACTED
from runstone.reproduce.plan import field_of, inside, texts_of, with_home

OWN = "runstone"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]+")
_ADDRESS = re.compile(r"(https?|ssh|git)://[^\s#]+")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_HASH = re.compile(r"[a-z0-9]+=[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of a run.

    Attributes:
        lines: Of a requirements file, for `pip install --no-deps`; a comment stands for what pip cannot install.
        in_place: Folders of packages that were installed with `pip install -e`, as far as they are there.
        lost: What cannot be installed again, in words.
        notes: What is not quite what it was then, in words.
        own: Version of Runstone then, empty where it was not installed.
    """

    lines: tuple[str, ...] = ()
    in_place: tuple[Path, ...] = ()
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    own: str = ""


def packages_of(snapshot: Mapping[str, Any], *, home: str = "", root: str = "", code: Path | None = None) -> Packages:
    """Return how to install the recorded packages here.

    Args:
        snapshot: The environment of the run.
        home: What `~` stands for.
        root: Folder of the old checkout.
        code: Folder of the new one, where there is one: what was installed from the old one comes from here.
    """
    reader = _Reader(home, root, code, is_conda=bool(texts_of(snapshot, "conda.explicit")))
    installed = field_of(snapshot, "packages.installed")
    for package in installed if isinstance(installed, list) else ():
        if isinstance(package, Mapping):
            reader.read(package)
    return Packages(
        tuple(reader.lines), tuple(reader.in_place), tuple(reader.lost), tuple(reader.notes), own=reader.own
    )


class _Reader:
    def __init__(self, home: str, root: str, code: Path | None, *, is_conda: bool) -> None:
        self.lines: list[str] = []
        self.in_place: list[Path] = []
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.own = ""
        self._home, self._root, self._code = home, root, code
        self._is_conda = is_conda

    def read(self, package: Mapping[str, Any]) -> None:
        """Add one package."""
        name, version = str(package.get("name")), str(package.get("version"))
        url = str(package.get("url") or "")
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            self.lost.append(f"{_one_line(name)} {_one_line(version)}: not a legal name and version")
        elif name == "pip":
            return  # a new environment brings its own
        elif not url:
            self._pin(name, version)
        elif url.startswith("file://"):
            place, is_moved = self._place(url)
            self._local(name, version, place, package, is_moved=is_moved)
        elif not _ADDRESS.fullmatch(url) or REDACTED in url:
            self._give_up(name, version, f"its address {_one_line(url)} cannot be used: part of it was left out")
        elif _COMMIT.fullmatch(str(package.get("commit"))):
            # A name of its own to log in with is never recorded; hosts of git repositories go by this one.
            login = url.replace("ssh://", "ssh://git@", 1) if "@" not in url else url
            fragment = f"#subdirectory={quote(str(package['subdirectory']))}" if package.get("subdirectory") else ""
            self.lines.append(f"{name} @ git+{login}@{package['commit']}{fragment}")
        else:
            self.lines.append(f"{name} @ {url}{_digest(package)}")
        if name == OWN and not self.own:
            self.own = version

    def _pin(self, name: str, version: str) -> None:
        self.lines.append(f"{name}=={version}")

    def _give_up(self, name: str, version: str, why: str) -> None:
        self.lost.append(f"{name} {version}: {why}")
        self.lines.append(f"# {name}=={version} cannot be installed again: {why}")

    def _place(self, url: str) -> tuple[Path, bool]:
        """Return what a `file:` address names here, and whether it is in the new checkout."""
        path = unquote(with_home(url.removeprefix("file://"), self._home))
        relative = inside(path, self._root)
        if relative is not None and self._code is not None:
            return self._code / relative, True
        return Path(path), False

    def _local(self, name: str, version: str, place: Path, package: Mapping[str, Any], *, is_moved: bool) -> None:
        """Add what was installed from a file or folder, in place or not."""
        is_editable, is_file = bool(package.get("is_editable")), bool(package.get("hash"))
        manner = "in place from" if is_editable else "from"
        if name == OWN and not is_moved:
            # It records the run and has no part in it: the one at hand serves, and needs no folder of then.
            self.lines.append(f"# {name} {version} was installed {manner} {_one_line(str(place))}")
        elif not place.is_absolute() or not (place.is_file() if is_file else place.is_dir()):
            if self._is_conda and not is_editable:
                self._pin(name, version)  # conda names the folder that it was built in, on another machine
            elif is_moved:
                self._give_up(name, version, f"it was installed {manner} {place}, and the commit has nothing there")
            else:
                self._give_up(name, version, f"it was installed {manner} {_one_line(str(place))}, which is gone")
        elif is_editable:
            self.in_place.append(place)
            self.lines.append(f"-e {place.as_uri()}")
        else:
            self.lines.append(f"{name} @ {place.as_uri()}{_digest(package)}")
        if not is_moved and not is_file and name != OWN and place.is_dir():
            self.notes.append(f"{name} was installed {manner} {place}, outside the checkout: it is as it is now")


def _digest(package: Mapping[str, Any]) -> str:
    digest = str(package.get("hash") or "")
    return f"#{digest}" if _HASH.fullmatch(digest) else ""


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
