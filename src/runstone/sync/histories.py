"""Histories of datasets and models, event by event, as another workspace takes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from runstone.blobs import Blobs
from runstone.blobs.objects import is_hash
from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.ledger import Ledger, LedgerDamaged, ledgers
from runstone.names import check_name, folder_name

Kind = Literal["datasets", "models"]
KINDS: tuple[Kind, ...] = ("datasets", "models")
_MOST_MANIFEST_BYTES = 64 << 20


def histories_in(workspace: Path, kind: str) -> dict[str, tuple[int, str]]:
    """Return, by name, how many events each dataset or model has, and the hash of the last.

    Raises:
        LedgerDamaged: one is damaged.
    """
    found = {}
    for folder in ledgers(workspace / kind):
        ledger = Ledger(folder)
        events = ledger.events()
        if events:
            found[str(events[0].fields.get("name", folder.parent.name))] = (len(events), ledger.head)
    return found


def ledger_of(workspace: Path, kind: str, name: str) -> Ledger:
    """Return the history of a dataset or model by its name; it may have no event yet."""
    return Ledger(workspace / kind / folder_name(check_name(name, kind.removesuffix("s"))) / "events")


def events_of(workspace: Path, kind: str, name: str) -> list[str]:
    """Return the events of a history as they stand in their files, in order; none where there is none."""
    ledger = ledger_of(workspace, kind, name)
    return [(ledger.folder / f"{event.seq:08d}.json").read_text() for event in ledger.events()]


def take_event(workspace: Path, blobs: Blobs, kind: str, name: str, line: str) -> bool:
    """Add an event to a history; return whether it was not here.

    Raises:
        AlreadyExists: the history went on otherwise here.
        NotFound: a content that the event names is not here.
        InvalidValue: it begins the history of something else.
        FormatError: it is damaged, or a newer version wrote it.
    """
    data = line.encode()
    told = _told(data)
    if told.get("seq") == 1 and told.get("name") != name:
        raise InvalidValue(f"the history of {told.get('name')!r:.80} does not begin that of {name!r:.80}")
    for content in blobs.lacking(_hashes(told)):
        raise NotFound(f"an event of {name!r:.80} names the content {content[:16]}…, which is not here: send it first")
    return ledger_of(workspace, kind, name).take(data)


def contents_of(workspace: Path, blobs: Blobs, kind: str, name: str) -> set[str]:
    """Return the contents that a history names and that are here, and those that its manifests name."""
    found: set[str] = set()
    for line in events_of(workspace, kind, name):
        found |= set(_hashes(_told(line.encode())))
    here = found - blobs.lacking(found)
    for content in sorted(here):
        inner = set(_in_manifest(blobs, content))
        here |= inner - blobs.lacking(inner)
    return here


def _told(data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise LedgerDamaged("this is no event of a history") from None
    if not isinstance(told, dict):
        raise LedgerDamaged("this is no event of a history")
    return told


def _hashes(told: dict[str, Any]) -> Iterator[str]:
    """Yield the contents that an event itself names: its manifest, what is known of it, the profile."""
    for key in ("manifest", "about", "profile"):
        if is_hash(told.get(key)):
            yield str(told[key])


def _in_manifest(blobs: Blobs, content: str) -> Iterator[str]:
    if blobs.size(content) <= _MOST_MANIFEST_BYTES:
        with contextlib.suppress(NotFound, FormatError):
            yield from hashes_in(blobs.read(content))


def hashes_in(manifest: bytes) -> Iterator[str]:
    """Yield all hashes in a content that may be a manifest; none where it is something else."""
    try:
        waiting: list[Any] = [json.loads(manifest)]
    except (ValueError, RecursionError):
        return
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif is_hash(one):
            yield str(one)
