"""Data of any kind becomes a version of a dataset: read once, hashed, stored where that is asked for, described."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.blobs.intake import hash_of_bytes
from runstone.datasets.beside import find_dvc, find_git
from runstone.datasets.kinds import table_kind
from runstone.datasets.manifest import Manifest, shown_path
from runstone.datasets.objects import InMemory, in_memory
from runstone.datasets.places import cache_for, scratch
from runstone.datasets.registry import Datasets
from runstone.datasets.scan import Scan
from runstone.datasets.urls import Pinned, is_url, pin
from runstone.datasets.version import DatasetVersion
from runstone.errors import InvalidName, InvalidValue

PROFILE_BYTES = 64 << 20
"""Tables up to this size, all together, are profiled where nobody says otherwise."""


def add(
    datasets: Datasets,
    data: Any,
    *,
    name: str | None = None,
    store: bool = True,
    profile: bool | None = True,
    query: str | None = None,
    tags: Mapping[str, str] | None = None,
    notes: str | None = None,
) -> DatasetVersion:
    """Add data as a version. Data that was not changed is the version that is there already.

    Args:
        datasets: Of which workspace.
        data: A file or folder; a table of pandas, polars or Arrow; an array or tensor, or several; a dataset of
            torch or Hugging Face; a URL that fsspec knows.
        name: Of the dataset; default: the last part of the path or URL.
        store: Whether its content is put into the store (a URL is fetched for that). Without it the version is by
            reference: its hashes prove it, and the data stays where it is.
        profile: Whether tables are read whole for their profile; `None`: where they have 64 MiB or less together.
        query: What made the data, such as SQL; kept with its source.
        tags, notes: Of the version, where it is new.

    Raises:
        InvalidName: there is no name, or it cannot be kept.
        InvalidValue: the data is of no kind that has fixed bytes, or it changed while it was read.
        NotFound: there is nothing.
        OSError: it cannot be read, or the disk is full.
    """
    said = {"tags": tags, "notes": notes}
    source = {"query": query} if query is not None else {}
    if is_url(data):
        return _add_url(datasets, pin(data), name, source, store=store, profile=profile, **said)
    if isinstance(data, str | os.PathLike):
        return _add_path(datasets, Path(data).expanduser(), name, source, store=store, profile=profile, **said)
    found = in_memory(data)
    if name is None:
        raise InvalidName(f"give this {type(data).__name__} a name: name='train'")
    return _add_object(datasets, found, name, source, store=store, profile=profile, **said)


def update(datasets: Datasets, name: str, *, store: bool | None = None, profile: bool | None = True) -> DatasetVersion:
    """Look at the source of the newest version again, and add a version where it changed.

    Args:
        datasets: Of which workspace.
        name: Of the dataset.
        store: Whether its content is put into the store; default: as that of the newest version.
        profile: As for `add`.

    Raises:
        InvalidValue: it came from neither a path nor a URL.
        NotFound: there is no such dataset, or its source is gone.
    """
    newest = datasets.get(name).find()
    path, url = newest.source.get("path"), newest.source.get("url")
    keep = newest.is_stored if store is None else store
    if url is not None:
        pinned = pin(url)
        if newest.source.get("pins") == pinned.pins and newest.is_stored == keep:
            return newest
        return _add_url(datasets, pinned, name, {}, store=keep, profile=profile)
    if path is None:
        raise InvalidValue(f"{newest} came from neither a path nor a URL: there is nothing to look at again")
    return _add_path(
        datasets, Path(os.fsdecode(path.encode("utf-8", "surrogateescape"))), name, {}, store=keep, profile=profile
    )


def _add_path(
    datasets: Datasets,
    path: Path,
    name: str | None,
    source: dict[str, Any],
    *,
    store: bool,
    profile: bool | None,
    **said: Any,
) -> DatasetVersion:
    path = Path(os.path.abspath(path))  # noqa: PTH100 (a link stays one: its name is the data's)
    name = name if name is not None else shown_path(path.name)
    scan = Scan(path, cache_for(datasets.workspace, path), leave_out=datasets.workspace)
    dataset = datasets.create(name, is_there_ok=True) if name in datasets else None
    if scan.is_unchanged and dataset is not None:
        # Nothing is to be read or stored, so nothing but the states of the files was looked at.
        manifest = scan.manifest()
        known = dataset.find_content(hash_of_bytes(manifest.pack()), path=path)
        if known is not None and (known.is_stored or not store) and _is_described(known, manifest, profile):
            return known
    manifest = scan.store(datasets.blobs) if store else scan.hash()
    scan.save()
    source |= {"path": shown_path(str(path))}
    beside = {"dvc": find_dvc(path), "git": find_git(path)}
    return _register(datasets, manifest, name, source, store=store, profile=profile, path=path, **beside, **said)


def _add_url(
    datasets: Datasets,
    pinned: Pinned,
    name: str | None,
    source: dict[str, Any],
    *,
    store: bool,
    profile: bool | None,
    **said: Any,
) -> DatasetVersion:
    name = name if name is not None else pinned.url.rstrip("/").rpartition("/")[2].partition("?")[0] or "data"
    source |= {"url": pinned.url, "pins": {path: dict(marks) for path, marks in pinned.pins.items()}}
    if not store:
        return _register(datasets, pinned.manifest(), name, source, store=False, profile=False, path=None, **said)
    folder = scratch(datasets.workspace) / os.urandom(16).hex()
    folder.mkdir(parents=True)
    try:
        scan = Scan(pinned.fetch(folder), cache_for(datasets.workspace, folder), leave_out=datasets.workspace)
        manifest = scan.store(datasets.blobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _register(datasets, manifest, name, source, store=True, profile=profile, path=None, **said)


def _add_object(
    datasets: Datasets,
    found: InMemory,
    name: str,
    source: dict[str, Any],
    *,
    store: bool,
    profile: bool | None,
    **said: Any,
) -> DatasetVersion:
    manifest = found.manifest(datasets.blobs if store else None, scratch(datasets.workspace))
    source |= {"type": found.type}
    is_stored = store and not manifest.not_hashed
    return _register(
        datasets, manifest, name, source, store=is_stored, profile=profile, path=None, tables=found.tables, **said
    )


def _register(
    datasets: Datasets,
    manifest: Manifest,
    name: str,
    source: Mapping[str, Any],
    *,
    store: bool,
    profile: bool | None,
    path: Path | None,
    tables: Mapping[str, Any] | None = None,
    **said: Any,
) -> DatasetVersion:
    data = manifest.pack()
    dataset = datasets.create(name, is_there_ok=True)
    content = datasets.blobs.put_bytes(data, "manifest.json").hash
    known = dataset.find_content(content, path=path)
    about = None
    if known is None or not _is_described(known, manifest, profile):
        about = _describe(datasets, manifest, profile, path, tables)
    if store:
        datasets.blobs.sync()
    return dataset.register(
        content,
        about=about,
        is_stored=store,
        file_count=sum(1 for _ in manifest.contents),
        size_bytes=manifest.size_bytes,
        source=source,
        path=path,
        **said,
    )


def _describe(
    datasets: Datasets,
    manifest: Manifest,
    profile: bool | None,
    path: Path | None,
    in_memory_tables: Mapping[str, Any] | None,
) -> str | None:
    """Store what is known of the tables in data; return the hash of that, `None` where there are none."""
    with_tables = [file for file in manifest.contents if table_kind(file.path)]
    if not with_tables:
        return None
    from runstone.datasets.profile import describe  # Arrow, only for tables
    from runstone.datasets.tables import MemoryTable, Table, TableFile

    size = sum(file.size_bytes for file in with_tables)
    files: list[Table] = [MemoryTable(name, table) for name, table in (in_memory_tables or {}).items()]
    if in_memory_tables is None:
        for file in with_tables:
            content = str(file.hash)
            place = _place(path, manifest, file.path) if path is not None else None
            if content in datasets.blobs:
                files.append(TableFile(file.path, _blob_opener(datasets, content)))
            elif place is not None:
                files.append(TableFile(file.path, _file_opener(place)))
    wanted = size <= PROFILE_BYTES if profile is None else profile
    told = describe(files, with_profile=wanted)
    text = json.dumps({"format": 1, "kind": "about", "tables": told}, ensure_ascii=False, separators=(",", ":"))
    return datasets.blobs.put_bytes(text.encode("utf-8", "backslashreplace"), "about.json").hash


def _is_described(known: DatasetVersion, manifest: Manifest, profile: bool | None) -> bool:
    """Return whether what is known of the tables of a version is all that is asked for."""
    if known.recorded.about is None:
        return not any(table_kind(file.path) for file in manifest.contents)
    return profile is not True or all("rows" in table or "trouble" in table for table in known.tables)


def _place(path: Path, manifest: Manifest, inside: str) -> Path:
    return path if manifest.form == "file" else path / os.fsdecode(inside.encode("utf-8", "surrogateescape"))


def _blob_opener(datasets: Datasets, content: str) -> Any:
    return lambda: datasets.blobs.open(content)


def _file_opener(place: Path) -> Any:
    return lambda: place.open("rb")
