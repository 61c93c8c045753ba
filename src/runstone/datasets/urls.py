"""Data at a URL that fsspec knows: pinned by what the store says of it, fetched when that is asked for."""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from runstone.blobs.remote import Remote
from runstone.capture import redact
from runstone.datasets.manifest import Manifest, TreeFile, leads_out, sorted_files
from runstone.errors import InvalidConfig, InvalidValue, NotFound

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(::[^:]+)?://.+", re.DOTALL)
# What stores call that which changes with the content.
_MARKS = (
    "ETag", "etag", "versionId", "version_aware_id", "generation", "Content-MD5", "content_md5", "md5Hash", "md5",
    "checksum", "crc32c", "Digest", "Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated",
    "created",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pinned:
    """Data at a URL as it stands now.

    Attributes:
        url: Where, without secrets.
        files: Path in the dataset, and where it lies on the file system.
        sizes: In bytes by path; -1 where the store does not say.
        pins: What the store says of each file, by path; equal as long as it did not change.
        is_folder: Whether it is one.
    """

    url: str
    files: Mapping[str, str]
    sizes: Mapping[str, int]
    pins: Mapping[str, Mapping[str, Any]]
    is_folder: bool
    file_system: Any

    @property
    def size_bytes(self) -> int:
        """Sum over the files, as far as the store says."""
        return sum(max(0, size) for size in self.sizes.values())

    def manifest(self) -> Manifest:
        """Return what is known without fetching anything."""
        files = [TreeFile(path, None, max(0, size)) for path, size in self.sizes.items()]
        weak = sorted(path for path, pin in self.pins.items() if not set(pin) - {"size"})
        not_hashed = [f"the bytes at {self.url}: the store's own marks stand for them"]
        if weak:
            not_hashed.append(f"the store says only the size of {len(weak)} files, such as {weak[0]}")
        return Manifest("url", sorted_files(files), {"url": self.url, "pins": dict(self.pins)}, tuple(not_hashed))

    def fetch(self, folder: Path) -> Path:
        """Fetch everything into a folder, and return what came: that folder, or the one file in it.

        Raises:
            InvalidValue: it changed while it was fetched.
            OSError: the store does not answer, or the disk is full.
        """
        for path, there in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            above, _, name = there.rpartition("/")
            size = 0
            with target.open("xb") as file:
                for chunk in Remote(above, file_system=self.file_system).receive(name):
                    file.write(chunk)
                    size += len(chunk)
            if self.sizes[path] >= 0 and size != self.sizes[path]:
                raise InvalidValue(
                    f"{self.url}: {path} has {size:,} bytes, not {self.sizes[path]:,}: it changed meanwhile"
                )
        return folder if self.is_folder else folder / next(iter(self.files))


def is_url(data: object) -> bool:
    """Return whether it is a URL, not a path."""
    return isinstance(data, str) and bool(_URL.match(data))


def pin(url: str, *, pause: Callable[[float], object] = time.sleep) -> Pinned:
    """Return what lies at a URL, as its store describes it. Nothing is fetched.

    Raises:
        NotFound: nothing is there.
        InvalidConfig: fsspec is missing, or what it needs for this URL.
        OSError: the store does not answer.
    """
    try:
        import fsspec  # type: ignore[import-untyped]  # an extra, only for data elsewhere
    except ImportError:
        raise InvalidConfig("data at a URL needs fsspec; install it: pip install 'runstone[remote]'") from None
    shown = redact.url(url)
    try:
        file_system, place = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InvalidConfig(f"{shown} cannot be read: {error}") from None
    place = str(place).rstrip("/")
    info = _asked(lambda: file_system.info(place), shown, pause)
    if info.get("type") != "directory":
        name = posixpath.basename(re.split(r"[?#]", place)[0]) or "data"
        return _pinned(shown, {name: (place, info)}, False, file_system)
    found = _asked(lambda: file_system.find(place, detail=True), shown, pause)
    files: dict[str, tuple[str, Any]] = {}
    for there, told in found.items():
        inside = posixpath.relpath(str(there), place)
        if leads_out("", inside) or told.get("type") == "directory":
            continue
        files[inside] = (str(there), told)
    if not files:
        raise NotFound(f"there is no file at {shown}")
    return _pinned(shown, files, True, file_system)


def _asked(ask: Callable[[], Any], shown: str, pause: Callable[[float], object]) -> Any:
    for attempt in range(3):
        try:
            return ask()
        except FileNotFoundError:
            raise NotFound(f"there is nothing at {shown}") from None
        except (PermissionError, NotImplementedError) as error:
            raise OSError(f"{shown} cannot be read: {error}") from None
        except OSError as error:
            if attempt == 2:
                raise OSError(f"{shown} does not answer: {error}") from None
            pause(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def _pinned(url: str, files: Mapping[str, tuple[str, Any]], is_folder: bool, file_system: Any) -> Pinned:
    sizes, pins = {}, {}
    for path, (_there, info) in files.items():
        size = info.get("size")
        sizes[path] = int(size) if size is not None else -1
        marks = {mark: _plain(info[mark]) for mark in _MARKS if info.get(mark) is not None}
        pins[path] = marks | ({"size": int(size)} if size is not None else {})
    return Pinned(url, {path: there for path, (there, _info) in files.items()}, sizes, pins, is_folder, file_system)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool | int | float | str):
        return value
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
