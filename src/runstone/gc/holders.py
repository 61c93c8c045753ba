"""Who refers to content: runs, versions of datasets and models, unfinished imports. Reads files only, and misses none.

Where something that refers to content cannot be read, that is told as a trouble: nothing may be removed then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.blobs import Blobs
from runstone.blobs.objects import is_hash
from runstone.errors import FormatError, NotFound
from runstone.ledger import Ledger, ledgers
from runstone.runlog import format as fmt
from runstone.runlog.liveness import read_status
from runstone.runlog.reader import JournalState, is_run, journal_files, read_journal
from runstone.runlog.tail import SEALED

_HASH = re.compile(rb'"hash"\s*:\s*"([0-9a-f]{64})"')
_ANY_HASH = re.compile(rb"(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])")
_MOST_MANIFEST_BYTES = 1 << 30


@dataclass(slots=True)
class Holder:
    """One that refers to content.

    Attributes:
        kind: `run`, `dataset`, `model` or `import`.
        name: As the user called it.
        id: Of a run, or its folder's name.
        hashes: Contents that it refers to.
        is_deleted: A run that was deleted, and can be restored.
        is_alive: A run that something writes to.
        spilled_since: Where points of a run lie on another host: since when it may have stored content, in seconds
            since the epoch.
    """

    kind: str
    name: str
    id: str
    hashes: set[str] = field(default_factory=set)
    is_deleted: bool = False
    is_alive: bool = False
    spilled_since: float | None = None


def run_folders(workspace: Path) -> Iterator[Path]:
    """Yield the folder of every run of a workspace."""
    for project in _folders(workspace / "runs"):
        yield from _folders(project)


def folders_in_doubt(workspace: Path) -> Iterator[Path]:
    """Yield the folders of runs whose removal was broken off before it was decided."""
    for project in _folders(workspace / "trash"):
        yield from (folder for folder in _folders(project) if not folder.name.endswith(".purged"))


def find_holders(workspace: Path, blobs: Blobs, troubles: list[str]) -> list[Holder]:
    """Return all that refer to content in a workspace.

    Args:
        workspace: Its folder.
        blobs: Its store, which holds the manifests of versions.
        troubles: Takes, in words, what could not be read.
    """
    folders = [*run_folders(workspace), *folders_in_doubt(workspace)]
    holders = [holder for folder in folders if (holder := run_holder(folder, troubles)) is not None]
    for kind in ("dataset", "model"):
        for folder in ledgers(workspace / f"{kind}s"):
            holders.append(_catalogued(kind, folder, blobs, troubles))
    for folder in _folders(workspace / "imports"):
        found = Holder("import", folder.name, folder.name)
        _read(troubles, folder, lambda folder=folder, found=found: found.hashes.update(_in_files(_files(folder))))
        holders.append(found)
    return holders


def run_holder(folder: Path, troubles: list[str]) -> Holder | None:
    """Return what a run refers to, `None` where it is gone or no run."""
    if not is_run(folder):
        return None
    journals = journal_files(folder)
    journal = read_journal(folder)
    if not journal.is_deleted:  # what a lost journal referred to must not go, unless the user gave the run up
        troubles += [f"{folder / damage.file} {damage.reason}" for damage in journal.damage if damage.is_whole]
    is_alive = any(writer.is_alive for writer in journal.writers)
    found = Holder("run", journal.name, folder.name, is_deleted=journal.is_deleted, is_alive=is_alive)
    for artifact in journal.artifacts.values():
        found.hashes |= {entry.hash for entry in artifact.files}
    for path in journals:
        _read(troubles, path, lambda path=path: found.hashes.update(_in_journal(path)))
    # Side files before what they are sealed into: a sealing that goes on takes them away when all is there.
    side = sorted(folder.glob("*.blob"))
    _read(troubles, folder, lambda: found.hashes.update(_in_files(side)))
    _read(troubles, folder / SEALED, lambda: found.hashes.update(_in_sealed(folder / SEALED)))
    _take_spilled(folder, journal, found)
    return found if folder.is_dir() else None


def _read(troubles: list[str], what: Path, read: Any) -> None:
    try:
        read()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it went meanwhile, or was never there
    except (OSError, FormatError, NotFound) as error:
        troubles.append(f"{what} cannot be read: {error}")


def _in_journal(path: Path) -> set[str]:
    """Return inputs and outputs; all hashes where a line is damaged, since nobody knows what it said."""
    data = path.read_bytes()
    events = fmt.decode_events(data)
    lines = [line for line in data.split(b"\n")[:-1] if line.strip()]
    if len(events) < len(lines):
        return {match.decode() for match in _ANY_HASH.findall(data)}
    told = {str(event.get("hash")) for event in events if event.get("event") in ("input", "output")}
    return {content for content in told if is_hash(content)}


def _in_files(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        yield from (match.decode() for match in _HASH.findall(data))


def _in_sealed(path: Path) -> set[str]:
    if not path.exists():
        return set()
    import pyarrow as pa  # heavy, only for collecting
    import pyarrow.parquet as pq

    found: set[str] = set()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, thrift_string_size_limit=1 << 30) as file:
            column = file.schema_arrow.get_field_index("text")
            for group in range(file.metadata.num_row_groups):
                part = file.metadata.row_group(group)
                statistics = part.column(column).statistics
                if statistics is not None and statistics.null_count == part.num_rows:
                    continue
                for batch in file.iter_batches(row_groups=[group], columns=["text"]):
                    for text in batch.column(0).drop_null().to_pylist():
                        found |= {match.decode() for match in _HASH.findall(text.encode("utf-8", "replace"))}
    except (pa.ArrowException, ValueError) as error:
        raise FormatError(f"damaged: {error}") from None
    return found


def _take_spilled(folder: Path, journal: JournalState, found: Holder) -> None:
    """Add what is told of in files that wait on another disk of this host; note where they are on another host."""
    spill = settings.spill_folder()
    frames = sorted((spill / folder.name).glob("*.frames")) if spill is not None else []
    found.hashes.update(_in_files(frames))
    here = {path.name.partition("-")[0] for path in frames}
    for writer in journal.writers:
        status = read_status(folder / f"{writer.writer}.status")
        if status is not None and status.is_spilled and writer.writer not in here:
            found.spilled_since = min(found.spilled_since or writer.started_at, writer.started_at)


def _catalogued(kind: str, folder: Path, blobs: Blobs, troubles: list[str]) -> Holder:
    found = Holder(kind, folder.parent.name, folder.parent.name)
    manifests: set[str] = set()

    def read_events() -> None:
        for event in Ledger(folder).events():
            if event.seq == 1:
                found.name = str(event.fields.get("name", found.name))
            told = event.fields.get("manifest")
            if is_hash(told):
                manifests.add(str(told))
            found.hashes.update(_hashes_in(event.fields))

    _read(troubles, folder, read_events)
    for content in sorted(found.hashes):
        if content in manifests or content in blobs:
            try:
                found.hashes |= _in_manifest(blobs, content)
            except (NotFound, FormatError, OSError) as error:
                if content in manifests:
                    troubles.append(f"{kind} {found.name!r}: the manifest of a version cannot be read: {error}")
    return found


def _in_manifest(blobs: Blobs, content: str) -> set[str]:
    """Return the hashes in a manifest; none where the content is something else."""
    with blobs.open(content) as file:
        if file.read(1) != b"{" or blobs.size(content) > _MOST_MANIFEST_BYTES:
            return set()
    data = blobs.read(content)
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return set()
    return {match.decode() for match in _ANY_HASH.findall(data)}


def _hashes_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            if is_hash(value):
                yield value
        case dict():
            for inner in value.values():
                yield from _hashes_in(inner)
        case list():
            for inner in value:
                yield from _hashes_in(inner)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []
