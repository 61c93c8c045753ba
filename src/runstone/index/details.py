"""What the index keeps of a run beside its record: links, artifacts, attempts, its snapshot. Knows files, no SQL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.params import flatten_params
from runstone.runlog.reader import JournalState
from runstone.values import JSON

_LONG = 100
_MOST_BYTES = 4 << 20
_PACKAGES = ("packages", "installed")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a snapshot that other runs may have, too: values by path, as `flatten_params` writes it."""

    digest: bytes
    place: str | None
    content: Any = field(repr=False)

    def values(self) -> dict[str, JSON]:
        """Return its values, other than null."""
        content = _by_name(self.content) if self.place == _PACKAGES[0] else self.content
        nested = content if self.place is None else {self.place: content}
        return {path: value for path, value in flatten_params(nested).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Details:
    """What a run used, made and ran on.

    Attributes:
        rows: Links, artifacts and attempts, in the order of the columns of their tables, the run left out.
        snapshot: Name, size and time of the file that the environment was read from; empty where there is none.
        sections: Of the environment; `None` where it is the same file as before.
    """

    rows: Mapping[str, list[list[Any]]]
    snapshot: str = ""
    sections: tuple[Section, ...] | None = None

    def to_json(self) -> str:
        """Return all but the sections as text, equal for details that say the same."""
        return json.dumps({"rows": self.rows, "snapshot": self.snapshot}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Details:
        """Return what `to_json` wrote, without sections.

        Raises:
            ValueError, LookupError: it is damaged.
        """
        content = json.loads(text)
        return cls(content["rows"], content["snapshot"])


def details_of(path: Path, journal: JournalState, before: Details | None) -> Details:
    """Return the details of a run, the snapshot only where it is another file than before."""
    rows = {
        "links": [
            [number, direction, link.kind, link.name, link.version, link.hash, link.role, link.source]
            for number, (direction, link) in enumerate(_links(journal))
        ],
        "artifacts": [
            [one.name, int(one.is_folder), len(one.files), one.size_bytes, one.logged_at.timestamp()]
            for one in journal.artifacts.values()
        ],
        "attempts": [
            [
                *(one.number, one.status.value, one.started_at.timestamp()),
                *(one.ended_at.timestamp() if one.ended_at is not None else None, one.host, one.pid),
            ]
            for one in journal.attempts
        ],
    }
    file, mark = _snapshot_file(path, journal)
    if file is None or (before is not None and before.snapshot == mark):
        return Details(rows, mark, None if file is not None else ())
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    return Details(rows, mark, tuple(_sections(found)) if isinstance(found, dict) else ())


def _links(journal: JournalState) -> Iterator[tuple[str, Any]]:
    for direction, links in (("input", journal.inputs), ("output", journal.outputs)):
        yield from ((direction, link) for link in links.values())


def _snapshot_file(path: Path, journal: JournalState) -> tuple[Path | None, str]:
    """Return the snapshot of the latest attempt's first rank, as `RunInfo.environment` chooses it, and its mark."""
    writers = sorted(journal.writers, key=lambda one: (-one.attempt, one.role == "launcher", one.rank, one.started_at))
    for writer in writers:
        file = path / f"environment.{writer.writer}.json"
        try:
            stat = file.stat()
        except OSError:
            continue
        if 2 <= stat.st_size <= _MOST_BYTES:
            return file, f"{file.name} {stat.st_size} {stat.st_mtime_ns}"
    return None, ""


def _sections(snapshot: dict[str, Any]) -> Iterator[Section]:
    """Cut a snapshot into sections: what is long lies apart from the short values that differ between runs."""
    opened = {key: value for key, value in snapshot.items() if isinstance(value, dict) and value}
    yield from _cut(None, {key: value for key, value in snapshot.items() if key not in opened})
    for key, value in opened.items():
        yield from _cut(key, value)


def _cut(place: str | None, values: dict[str, Any]) -> Iterator[Section]:
    short: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict | list) or (isinstance(value, str) and len(value) > _LONG):
            yield _section(place, {key: value})
        else:
            short[key] = value
    if short:
        yield _section(place, short)


def _section(place: str | None, content: dict[str, Any]) -> Section:
    text = json.dumps([place, content], separators=(",", ":"))
    return Section(hashlib.blake2b(text.encode(), digest_size=16).digest(), place, content)


def _by_name(packages: dict[str, Any]) -> dict[str, Any]:
    """Return packages that are listed as versions by name."""
    found = dict(packages)
    listed = found.pop(_PACKAGES[1], None)
    if not isinstance(listed, list):
        return packages
    versions = {one.get("name"): one.get("version") for one in listed if isinstance(one, dict)}
    return {**found, **{name: version for name, version in versions.items() if isinstance(name, str)}}
