"""A part of a workspace as one file: which parts there are, copying one while it is written, packing and unpacking."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone.blobs.objects import is_hash
from runstone.bundle.archive import ArchiveReader, ArchiveWriter
from runstone.bundle.manifest import check_path
from runstone.errors import FormatError, InvalidName
from runstone.runlog.copying import copy_run
from runstone.runlog.liveness import boot_id
from runstone.runlog.reader import read_journal

FORMAT = 1
_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 128 << 20
_PACKED = (".parquet", ".png", ".jpg", ".gz", ".zst")
# Derived, unfinished, or kept by content.
_NOT_KEPT = frozenset({"blobs", "trash", "cache", "imports", "tensorboard", "changes", ".gitignore", "restore.json"})
_UNFINISHED = frozenset({"mlflow/uploads"})  # parts of files on their way in, and the keys that let further ones in
_PASSED_OVER = re.compile(r"index\.sqlite.*|.*\.(partial|lock)|.*\.sqlite-(wal|shm|journal)")
_STEADY_S = 10.0
"""Files are trusted by their times once those are that old: clocks of file systems are coarse."""


def units_of(workspace: Path) -> Iterator[str]:
    """Yield the parts of a workspace; what refers to others comes before them, so that it is never without them."""
    yield "."
    top = sorted(entry.name for entry in os.scandir(workspace) if entry.is_dir(follow_symlinks=False))
    folders = [name for name in top if name not in _NOT_KEPT and not _PASSED_OVER.fullmatch(name)]
    for name in sorted(folders, key=lambda one: (one == "runs", one)):
        for below in _folders(workspace / name):
            if name != "runs":
                if f"{name}/{below}" not in _UNFINISHED:
                    yield f"{name}/{below}"
                continue
            for run in _folders(workspace / name / below):
                yield f"{name}/{below}/{run}"
        if name != "runs":
            yield name


def _folders(path: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def signature_of(workspace: Path, unit: str) -> str:
    """Return a hash over names, sizes and times of the files of a part; empty where it is gone."""
    found = []
    try:
        for path in _files(workspace, unit):
            status = path.stat(follow_symlinks=False)
            found.append((path.relative_to(workspace).as_posix(), status.st_size, status.st_mtime_ns))
    except OSError:
        return ""
    return hashlib.blake2b(repr(found).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_steady(workspace: Path, unit: str) -> bool:
    """Return whether names, sizes and times of the files of a part will tell when it changes.

    Points go into mapped memory, which leaves no mark at its file for a while; so nobody may be writing a run.
    """
    now = time.time()
    try:
        if any(path.stat().st_mtime > now - _STEADY_S for path in _files(workspace, unit)):
            return False
    except OSError:
        return False
    if not unit.startswith("runs/"):
        return True
    here = boot_id()
    return all(
        writer.status is not None or writer.role == "edit" or (not writer.is_alive and here and writer.boot_id == here)
        for writer in read_journal(workspace / unit).writers
    )


def _files(workspace: Path, unit: str) -> Iterator[Path]:
    """Yield the regular files of a part in order; of `.` and of top folders only those that lie in them directly."""
    root = workspace / unit
    is_flat = "/" not in unit
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            skipped = _PASSED_OVER.fullmatch(name) or (unit == "." and name in _NOT_KEPT)
            if not skipped and not path.is_symlink() and path.is_file():
                yield path
        if is_flat:
            return


def copy_unit(workspace: Path, unit: str, target: Path) -> None:
    """Copy a part into a new folder as it stands.

    Raises:
        RunNotFound: it is a run, and gone.
        OSError: it cannot be read, or the disk is full.
    """
    if unit.startswith("runs/"):
        copy_run(workspace / unit, target)
        return
    target.mkdir()
    for path in _files(workspace, unit):
        place = target / path.relative_to(workspace / unit)
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.suffix == ".sqlite":
                from runstone.index.copies import copy_database  # a database has to be copied by what knows it

                copy_database(path, place)
            else:
                shutil.copyfile(path, place)
            if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0:
                place.chmod(0o600)


def pack(folder: Path, target: Path) -> None:
    """Write all files below a folder into one, the same bytes for the same files.

    Raises:
        OSError: the disk is full.
    """
    told = []
    with target.open("w+b") as file:
        archive = ArchiveWriter(file)
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            status, name = path.stat(), path.relative_to(folder).as_posix()
            with path.open("rb", buffering=0) as source:
                content = archive.add(f"files/{name}", source, status.st_size, compress=path.suffix not in _PACKED)
            told.append({"path": name, "hash": content, "size": status.st_size, "private": not status.st_mode & 0o077})
        data = json.dumps({"format": FORMAT, "kind": "tree", "files": told}, separators=(",", ":")).encode() + b"\n"
        manifest = target.with_name(f"{target.name}.manifest")
        manifest.write_bytes(data)
        with manifest.open("rb") as source:
            archive.add(_MANIFEST, source, len(data), compress=True)
        manifest.unlink()
        archive.close()


def unpack(source: Path, target: Path, where: str) -> None:
    """Write the files of a pack into a new folder, checked.

    Args:
        source: The pack.
        target: The folder.
        where: What the pack is called, for messages.

    Raises:
        FormatError: it is damaged, of a newer version, or could do harm.
        OSError: the disk is full.
    """
    with source.open("rb") as file:
        archive = ArchiveReader(file, where)
        entries = _entries(archive.read(_MANIFEST, most=_MOST_MANIFEST_BYTES), where)
        if archive.names != {_MANIFEST, *(f"files/{path}" for path in entries)}:
            raise FormatError(f"{where} does not hold what its manifest names")
        target.mkdir()
        for path, (content, size, is_private) in entries.items():
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if is_private else 0o644
            archive.extract(f"files/{path}", place, content_hash=content, size=size, mode=mode)


def _entries(data: bytes, where: str) -> dict[str, tuple[str, int, bool]]:
    try:
        told = json.loads(data)
        if told["format"] != FORMAT or told["kind"] != "tree":
            raise FormatError(
                f"{where} has format {told['format']!r:.20}; this version knows {FORMAT}: upgrade runstone"
            )
        return dict(_entry(one) for one in told["files"])
    except (ValueError, TypeError, KeyError, InvalidName, RecursionError) as error:
        raise FormatError(f"the manifest of {where} is damaged or not legal: {error}") from None


def _entry(one: Any) -> tuple[str, tuple[str, int, bool]]:
    if not is_hash(one["hash"]) or type(one["size"]) is not int:
        raise ValueError(f"{one!r:.120} is no file")
    return check_path(one["path"]), (one["hash"], one["size"], bool(one.get("private")))
