"""Reading models again: their histories against the chain, and what their versions consist of against its hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.errors import FormatError, NotFound
from runstone.ledger import Ledger
from runstone.models.manifest import Manifest
from runstone.names import folder_name

if TYPE_CHECKING:
    from runstone.blobs import Blobs
    from runstone.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written: of which model or version, where, and what is wrong."""

    of: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was read, and what was found; `heads` has the hash that stands for each model's history."""

    models: int
    versions: int
    files: int
    faults: tuple[Fault, ...]
    heads: dict[str, str]


def verify_models(workspace: Workspace, name: str | None = None) -> Verified:
    """Check the history of every model, or of one, and rehash the manifests and files of all its versions.

    Raises:
        ModelNotFound: there is no model of this name.
    """
    if name is not None and not (workspace.models.root / folder_name(name) / "events").is_dir():
        workspace.models.get(name)  # tells what there is
    faults: list[Fault] = []
    checked: dict[str, str | None] = {}
    heads: dict[str, str] = {}
    versions = count = 0
    for folder in _folders(workspace.models.root, name):
        count += 1
        events = list(_events(folder))
        called = next((str(event["name"]) for event in events if event.get("event") == "created"), folder.parent.name)
        damages = Ledger(folder).verify()
        faults += [Fault(called, str(damage.path), damage.what) for damage in damages]
        if not damages:
            heads[called] = Ledger(folder).head
        for event in events:
            if event.get("event") == "registered" and isinstance(event.get("manifest"), str):
                versions += 1
                faults += _of_version(workspace.blobs, f"{called}@{event.get('version')}", event["manifest"], checked)
            for word in ("profile", "report_hash"):
                if isinstance(event.get(word), str) and (what := _check(workspace.blobs, event[word], checked)):
                    faults.append(Fault(f"{called}@{event.get('version')}", f"{word} {event[word][:16]}…", what))
    return Verified(count, versions, len(checked), tuple(faults), heads)


def _folders(root: Path, name: str | None) -> list[Path]:
    """Return the folders of events; also of a model whose first event is gone."""
    if name is not None:
        return [root / folder_name(name) / "events"]
    return sorted(folder for folder in root.glob("*/events") if folder.is_dir())


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what can be read of the events, though the chain may be broken."""
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            event = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event


def _of_version(blobs: Blobs, called: str, manifest: str, checked: dict[str, str | None]) -> Iterator[Fault]:
    what = _check(blobs, manifest, checked)
    if what is not None:
        yield Fault(called, f"manifest {manifest[:16]}…", what)
        return
    try:
        content = Manifest.from_bytes(blobs.read(manifest))
    except (FormatError, NotFound, OSError) as error:
        yield Fault(called, f"manifest {manifest[:16]}…", str(error))
        return
    for entry in (*content.files, *([content.example] if content.example is not None else ())):
        what = _check(blobs, entry.hash, checked)
        if what is not None:
            yield Fault(called, entry.path, what)


def _check(blobs: Blobs, content: str, checked: dict[str, str | None]) -> str | None:
    if content not in checked:
        try:
            blobs.verify(content)
            checked[content] = None
        except (FormatError, NotFound, OSError) as error:
            checked[content] = str(error)
    return checked[content]
