"""What a bundle says that it holds. Knows JSON and which names are legal; reads no file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from runstone.blobs.objects import is_hash
from runstone.errors import FormatError, InvalidName
from runstone.names import check_name, check_run_id, folder_name
from runstone.runlog.copying import LEGAL_FILE

FORMAT = 1
NAME = "manifest.json"
MOST_BYTES = 128 << 20
_MOST_FILE_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class BundledFile:
    """One file: its name, what its bytes hash to (BLAKE3), how many they are, whether only its owner may read it."""

    name: str
    hash: str
    size_bytes: int
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class BundledRun:
    """One run: whose it is, and its files by name."""

    run_id: str
    project: str
    name: str
    files: tuple[BundledFile, ...]

    @property
    def folder(self) -> str:
        """Where its files lie, in the bundle and below a workspace."""
        return f"runs/{folder_name(self.project)}/{self.run_id}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is in a bundle.

    Attributes:
        runs: The runs.
        contents: What they refer to, by hash; `name` is the hash.
        missing: Hashes of contents that they refer to, but that were not to be had.
    """

    runs: tuple[BundledRun, ...] = ()
    contents: tuple[BundledFile, ...] = ()
    missing: tuple[str, ...] = ()

    def members(self) -> Iterator[tuple[str, BundledFile]]:
        """Yield each file with its name in the archive."""
        for run in self.runs:
            for file in run.files:
                yield f"{run.folder}/{file.name}", file
        for content in self.contents:
            yield content_name(content.hash), content

    def to_json(self) -> bytes:
        """Return it as it stands in the archive: the same bytes for the same runs."""
        told = {
            "format": FORMAT,
            "kind": "runs",
            "runs": [
                {"id": run.run_id, "project": run.project, "name": run.name, "files": _told(run.files)}
                for run in self.runs
            ],
            "contents": [{"hash": content.hash, "size": content.size_bytes} for content in self.contents],
            "missing": list(self.missing),
        }
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Return what `to_json` wrote.

        Args:
            data: The bytes.
            where: Whose they are, for the message.

        Raises:
            FormatError: they are none, of a newer version, or hold a name or size that is not legal.
        """
        try:
            told = json.loads(data)
            version = told["format"]
            if version != FORMAT or told["kind"] != "runs":
                raise FormatError(
                    f"{where} holds {told['kind']!r:.40} of format {version!r:.20}; this version knows runs of format "
                    f"{FORMAT}: upgrade runstone"
                )
            runs = tuple(_run(one) for one in told["runs"])
            contents = tuple(_content(one) for one in told["contents"])
            missing = tuple(_hash(one) for one in told["missing"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"the manifest of {where} is damaged or not legal: {error}") from None
        _check_unique((run.run_id for run in runs), where)
        found = cls(runs, contents, missing)
        _check_unique((name for name, _file in found.members()), where)
        return found


def content_name(content: str) -> str:
    """Return the name of a content in the archive."""
    return f"blobs/{content[:2]}/{content}"


def check_path(path: str) -> str:
    """Return a path inside something if it stays inside.

    Raises:
        InvalidName: it leads out.
    """
    pure = PurePosixPath(path)
    if not path or "\0" in path or pure.is_absolute() or ".." in pure.parts:
        raise InvalidName(f"the path {path!r:.200} leads out of where it belongs")
    return path


def _told(files: Iterable[BundledFile]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "hash": one.hash, "size": one.size_bytes, **({"private": True} if one.is_private else {})}
        for one in files
    ]


def _run(told: Any) -> BundledRun:
    run_id = check_run_id(told["id"])
    project, name = check_name(told["project"], "project"), check_name(told["name"], "run")
    files = tuple(
        BundledFile(_file_name(one["name"]), _hash(one["hash"]), _size(one["size"]), bool(one.get("private")))
        for one in told["files"]
    )
    return BundledRun(run_id, project, name, files)


def _content(told: Any) -> BundledFile:
    content = _hash(told["hash"])
    return BundledFile(content, content, _size(told["size"]))


def _file_name(name: Any) -> str:
    if not isinstance(name, str) or not LEGAL_FILE.fullmatch(name):
        raise ValueError(f"{name!r:.200} is no file of a run")
    return name


def _hash(text: Any) -> str:
    if not is_hash(text):
        raise ValueError(f"{text!r:.100} is no content hash")
    return str(text)


def _size(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _MOST_FILE_BYTES:
        raise ValueError(f"{number!r:.40} is no size in bytes")
    return number


def _check_unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FormatError(f"{where} names {name!r:.200} twice")
        seen.add(name)
