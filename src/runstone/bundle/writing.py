"""Runs into a bundle: first a copy of each as it stands, then the content that it refers to, then what says so."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runstone.blobs import Blobs
from runstone.blobs.objects import is_hash
from runstone.blobs.partial import Partial
from runstone.bundle import manifest as manifests
from runstone.bundle.archive import ArchiveWriter
from runstone.bundle.manifest import BundledFile, BundledRun, Manifest
from runstone.errors import FormatError, NotFound
from runstone.gc.holders import run_holder
from runstone.runlog.copying import copy_run
from runstone.runlog.reader import JournalState, read_journal

_PACKED = (".parquet",)
_MOST_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Bundled:
    """What went into a bundle.

    Attributes:
        path: The bundle.
        size_bytes: Its size.
        manifest: What is in it.
        living: Ids of runs that something was writing to: they are in it as they stood.
        troubles: What could not be read, in words.
    """

    path: Path
    size_bytes: int
    manifest: Manifest
    living: tuple[str, ...]
    troubles: tuple[str, ...]


def write_bundle(folders: Sequence[Path], target: Path, blobs: Blobs, *, with_content: bool = True) -> Bundled:
    """Write runs into one file; it is there whole or not at all, and the same for the same runs.

    Args:
        folders: Of the runs, each once.
        target: The bundle; replaced where it is there.
        blobs: Where their content lies.
        with_content: Whether artifacts and media go in, and the files of the models and datasets that the runs made.

    Raises:
        RunNotFound: a run is gone.
        FormatError: a content is damaged, or a run is of a newer version.
        InvalidValue: these are too many files for one bundle.
        OSError: the disk is full.
    """
    with Partial(target.absolute().parent) as partial:
        with open(partial.fd, "r+b", closefd=False) as file:
            manifest, living, troubles = write_members(folders, file, blobs if with_content else None)
        partial.sync()
        partial.place(target, 0o600)  # environments and patches are their owner's
    return Bundled(target, target.stat().st_size, manifest, tuple(living), tuple(troubles))


def write_members(
    folders: Sequence[Path], file: BinaryIO, blobs: Blobs | None
) -> tuple[Manifest, list[str], list[str]]:
    """Write an archive; return what is in it, which runs were living, and what could not be read.

    Raises:
        RunNotFound, FormatError, InvalidValue, OSError: as `write_bundle` does.
    """
    archive = ArchiveWriter(file)
    runs: list[BundledRun] = []
    living: list[str] = []
    troubles: list[str] = []
    wanted: set[str] = set()
    for folder in sorted(folders, key=lambda one: (one.parent.name, one.name)):
        with tempfile.TemporaryDirectory(prefix="runstone-") as scratch:
            copy = Path(scratch) / folder.name
            names = copy_run(folder, copy)
            if any(writer.is_alive for writer in read_journal(folder).writers):
                living.append(folder.name)
            journal = read_journal(copy)
            run = BundledRun(journal.run_id, journal.project, journal.name or journal.run_id, ())
            files = tuple(_add_file(archive, run, copy / name) for name in names)
            runs.append(BundledRun(run.run_id, run.project, run.name, files))
            if blobs is not None:
                wanted |= set(_contents_of(copy, journal, blobs, troubles))
    contents, missing = _add_contents(archive, blobs, wanted) if blobs is not None else ([], [])
    manifest = Manifest(tuple(runs), tuple(contents), tuple(missing))
    told = manifest.to_json()
    with tempfile.TemporaryFile() as source:
        source.write(told)
        source.seek(0)
        archive.add(manifests.NAME, source, len(told), compress=True)
    archive.close()
    return manifest, living, troubles


def _add_file(archive: ArchiveWriter, run: BundledRun, path: Path) -> BundledFile:
    status = path.stat()
    with path.open("rb", buffering=0) as source:
        content = archive.add(f"{run.folder}/{path.name}", source, status.st_size, compress=path.suffix not in _PACKED)
    return BundledFile(path.name, content, status.st_size, is_private=not status.st_mode & 0o077)


def _add_contents(archive: ArchiveWriter, blobs: Blobs, wanted: Iterable[str]) -> tuple[list[BundledFile], list[str]]:
    """Add contents; return those that are in, and the hashes of those that could not be had."""
    contents: list[BundledFile] = []
    missing: list[str] = []
    for content in sorted(wanted):
        try:
            size = blobs.size(content)
            with blobs.open(content) as source:
                archive.add(manifests.content_name(content), source, size, compress=False, expected=content)
        except NotFound:
            missing.append(content)
            continue
        contents.append(BundledFile(content, content, size))
    return contents, missing


def _contents_of(copy: Path, journal: JournalState, blobs: Blobs, troubles: list[str]) -> Iterator[str]:
    holder = run_holder(copy, troubles)
    if holder is None:
        return
    yield from holder.hashes
    for link in journal.outputs.values():
        if link.kind in ("model", "dataset") and is_hash(link.hash):
            yield from _files_in(blobs, str(link.hash))


def _files_in(blobs: Blobs, content: str) -> Iterable[str]:
    """Return the contents that a manifest of a version names; none where it is not here, or none."""
    try:
        if blobs.size(content) > _MOST_MANIFEST_BYTES:
            return []
        told = json.loads(blobs.read(content))
        return [str(entry["hash"]) for entry in told["files"] if is_hash(entry.get("hash"))]
    except (NotFound, FormatError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
