"""What a version of a dataset consists of: paths, hashes, sizes. Written so that the same content is the same bytes.

Nothing stands in it that does not belong to the content: no source, no time, no profile. So its own hash is the hash of
the data: equal in every workspace and on every machine.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runstone.errors import FormatError

FORMAT = 1
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One entry of a dataset.

    Attributes:
        path: Where it lies in the dataset, with `/`; bytes that are no text are kept as Python does (surrogateescape).
            A single file is there under its own name.
        hash: BLAKE3 of its content, hex; `None` for links, empty folders, and data that was only pinned.
        size_bytes: Of its content.
        is_executable: Whether its owner may execute it.
        link: Where a symbolic link points; always inside the dataset.
        is_folder: Whether it is an empty folder.
    """

    path: str
    hash: str | None
    size_bytes: int = 0
    is_executable: bool = False
    link: str | None = None
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a version.

    Attributes:
        form: `tree` (a folder), `file`, `table`, `array`, `object` (told by facts), `url` (pinned, not downloaded).
        files: Its files, sorted by path.
        facts: What else tells this content from another, for data that is not all in files.
        not_hashed: What of the data no hash proves, in words.
    """

    form: str
    files: tuple[TreeFile, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    not_hashed: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Sum over the files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def hashes(self) -> set[str]:
        """Contents that it consists of."""
        return {file.hash for file in self.files if file.hash is not None}

    @property
    def contents(self) -> Iterator[TreeFile]:
        """The files that have content."""
        return (file for file in self.files if file.hash is not None)

    def pack(self) -> bytes:
        """Return it as JSON, the same bytes for the same content."""
        content: dict[str, Any] = {"format": FORMAT, "kind": "dataset", "form": self.form}
        if self.facts:
            content["facts"] = dict(self.facts)
        if self.not_hashed:
            content["not_hashed"] = list(self.not_hashed)
        content["files"] = [_packed(file) for file in self.files]
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Manifest:
        """Read it.

        Raises:
            FormatError: it is no manifest of a dataset, a newer version wrote it, or a path in it leads out of it.
        """
        try:
            content = json.loads(data)
            if content["kind"] != "dataset":
                raise FormatError(f"it is the manifest of a {content['kind']!s:.40}, not of a dataset")
            if content["format"] > FORMAT:
                raise FormatError(f"it has format {content['format']}; this version reads {FORMAT}: update runstone")
            files = tuple(_unpacked(entry) for entry in content["files"])
            return cls(str(content["form"]), files, content.get("facts", {}), tuple(content.get("not_hashed", ())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"it is no manifest of a dataset: {type(error).__name__}: {error}") from None


def sorted_files(files: Iterable[TreeFile]) -> tuple[TreeFile, ...]:
    """Return files in the one order that manifests have: by the bytes of their paths."""
    return tuple(sorted(files, key=lambda file: file.path.encode("utf-8", "surrogateescape")))


def shown_path(path: str) -> str:
    """Return a path as text that can be printed and written as UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def leads_out(path: str, target: str) -> bool:
    """Return whether a link at `path` with this target leads out of the folder that `path` is relative to."""
    parts = target.split("/")
    first_name = next((at for at, part in enumerate(parts) if part not in ("..", ".", "")), len(parts))
    # Behind a folder's name, which may itself be a link, `..` leads nobody knows where.
    if target.startswith("/") or ".." in parts[first_name:]:
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return end == ".." or end.startswith("../")


def _packed(file: TreeFile) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    _put_text(entry, "path", file.path)
    if file.link is not None:
        _put_text(entry, "link", file.link)
    elif file.is_folder:
        entry["folder"] = True
    else:
        entry["hash"] = file.hash
        entry["size"] = file.size_bytes
        if file.is_executable:
            entry["executable"] = True
    return entry


def _unpacked(entry: Mapping[str, Any]) -> TreeFile:
    path, link = _text(entry, "path"), _text(entry, "link")
    content, size = entry.get("hash"), entry.get("size", 0)
    if path is None or path.startswith("/") or not set(path.split("/")).isdisjoint({"", ".", ".."}) or "\0" in path:
        raise FormatError(f"it holds the path {path!r:.120}, which is none inside a dataset")
    if link is not None and (leads_out(path, link) or "\0" in link or not link):
        raise FormatError(f"it holds a link that leads out of the dataset: {path!r:.120} to {link!r:.120}")
    if content is not None and not (isinstance(content, str) and _HASH.fullmatch(content)):
        raise FormatError(f"it holds {content!r:.80} as a hash")
    if not isinstance(size, int) or size < 0:
        raise FormatError(f"it holds {size!r:.40} as a size")
    return TreeFile(path, content, size, bool(entry.get("executable")), link, bool(entry.get("folder")))


def _put_text(entry: dict[str, Any], key: str, value: str) -> None:
    entry[key] = shown_path(value)
    if not value.isascii():
        raw = value.encode("utf-8", "surrogateescape")
        if shown_path(value).encode() != raw:  # bytes that are no text: readable for people, exact for us
            entry[f"{key}_hex"] = raw.hex()


def _text(entry: Mapping[str, Any], key: str) -> str | None:
    if f"{key}_hex" in entry:
        return bytes.fromhex(entry[f"{key}_hex"]).decode("utf-8", "surrogateescape")
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"it holds {value!r:.80} as a path")
    return value
