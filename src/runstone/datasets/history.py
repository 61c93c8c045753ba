"""What the events of one dataset come down to. Changes nothing, knows no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runstone.catalog import State
from runstone.datasets.refs import LATEST, number_in
from runstone.errors import NotFound
from runstone.ledger import LedgerEvent


class DatasetNotFound(NotFound):
    """No dataset has this name, or no version of it is meant by this."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """A version that must not be used any more: since when (seconds since the Unix epoch), by whom, and why."""

    name: str
    version: int
    reason: str
    at: float
    by: str


@dataclass(slots=True)
class Recorded:
    """One version as its events tell it.

    Attributes:
        dataset: Name of the dataset.
        version: Its number, counted from 1.
        manifest: Hash of the blob that lists its files: the hash of the data.
        about: Hash of the blob with schemas and profiles of its tables; `None` where it has none.
        is_stored: Whether its content was put into the workspace; else it is by reference.
        file_count, size_bytes: Of its files.
        source: Where it came from: `path`, `url`, `pins`, `query`, `type`.
        dvc: What DVC says of it: `file`, `md5`, `path`, …
        git: The commit that was checked out where it lay.
        author, added_at, run_id: Who added it, when (seconds since the Unix epoch), and on behalf of which run.
        tags, aliases, notes, revoked: What was said of it up to now.
    """

    dataset: str
    version: int
    manifest: str
    about: str | None
    is_stored: bool
    file_count: int
    size_bytes: int
    author: str
    added_at: float
    run_id: str | None
    source: Mapping[str, Any] = field(default_factory=dict)
    dvc: Mapping[str, Any] | None = None
    git: Mapping[str, Any] | None = None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    notes: str | None = None
    revoked: Revocation | None = None

    @property
    def key(self) -> int:
        """How events name it."""
        return self.version

    def __str__(self) -> str:
        """Write it as a reference."""
        return f"{self.dataset}@{self.version}"


class DatasetState(State[Recorded]):
    """One dataset as its events tell it.

    Attributes:
        by_manifest: The number of each content: the same content is the same version.
    """

    what = "dataset"
    missing = DatasetNotFound

    def __init__(self) -> None:
        super().__init__()
        self.by_manifest: dict[str, int] = {}

    def _apply(self, event: LedgerEvent, version: Recorded | None) -> None:
        said = event.fields
        match event.kind:
            case "added":
                self._add(event)
            case "stored" if version:
                version.is_stored = True
                version.about = said.get("about") or version.about
            case "profiled" if version:
                version.about = said["about"]
            case "moved" if version:
                version.source = said["source"]
            case "revoked" if version:
                reason = said.get("reason")
                version.revoked = None  # a revocation without a reason takes the one before it back
                if reason is not None:
                    version.revoked = Revocation(self.name, version.version, reason, event.at, event.by["user"])

    def _add(self, event: LedgerEvent) -> None:
        said = event.fields
        number = said["version"]
        self.versions[number] = Recorded(
            dataset=self.name,
            version=number,
            manifest=said["manifest"],
            about=said.get("about"),
            is_stored=bool(said.get("stored")),
            file_count=said.get("files", 0),
            size_bytes=said.get("size", 0),
            author=event.by["user"],
            added_at=event.at,
            run_id=event.by.get("run"),
            source=said.get("source") or {},
            dvc=said.get("dvc"),
            git=said.get("git"),
            tags=dict(said.get("tags") or {}),
            notes=said.get("notes"),
        )
        self.by_manifest.setdefault(said["manifest"], number)

    def find(self, selector: str) -> Recorded:
        """Return the version that a selector means: a number, an alias, `latest`, or at least 8 digits of its hash.

        Raises:
            DatasetNotFound: there is none; the message says what there is.
        """
        number: int | None = self.aliases.get(selector, number_in(selector))
        if selector == LATEST and self.versions:
            number = max(self.versions)
        if number is not None and number in self.versions:
            return self.versions[number]
        if len(selector) >= 8:
            found = [version for version in self.versions.values() if version.manifest.startswith(selector)]
            if len(found) == 1:
                return found[0]
        raise DatasetNotFound(f"dataset {self.name!r} has no version or alias {selector!r:.80}; {self._there()}")

    def _there(self) -> str:
        if not self.versions:
            return "it has no version yet"
        count = max(self.versions)
        return f"it has {'version 1' if count == 1 else f'the versions 1 to {count}'}{self._and_aliases()}"
