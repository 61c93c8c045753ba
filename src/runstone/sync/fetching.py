"""Runs of a server as files on this machine: what is here is not fetched again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blake3 import blake3

from runstone.blobs import Blobs
from runstone.errors import FormatError, InvalidName
from runstone.gc.holders import run_holder
from runstone.names import check_run_id
from runstone.runlog import format as fmt
from runstone.runlog.changes import announce
from runstone.runlog.copying import LEGAL_FILE
from runstone.runlog.liveness import read_status, write_copied_status
from runstone.sync.client import Client, NotThere, segment
from runstone.sync.kinds import Kind, is_private, kind_of, names_in

_GROWS = (Kind.JOURNAL, Kind.KEYS, Kind.SIDE, Kind.SLOTS, Kind.CONSOLE)
# Points before what they need, and that before the journals: what is there then can be read.
_ORDER = [Kind.SLOTS, Kind.SIDE, Kind.KEYS, Kind.CONSOLE, Kind.WHOLE, Kind.JOURNAL]


def fetch_run(client: Client, workspace: Path, run_id: str) -> tuple[Path, int]:
    """Fetch what a server has of a run, and is not here; return its folder and how many bytes came.

    Args:
        client: To the server.
        workspace: Folder of the workspace that only holds what was fetched.
        run_id: The run.

    Raises:
        NotThere: there is no such run, or not for this user.
        Unreachable: the server does not answer.
        OSError: the disk is full.
    """
    check_run_id(run_id)
    listing = client.get(f"/api/sync/runs/{run_id}/files")
    state = client.get(f"/api/sync/runs/{run_id}")["files"]
    project = str(listing["project"])
    folder = workspace / "runs" / _checked(project) / run_id
    folder.mkdir(parents=True, exist_ok=True)
    names = {_checked(name) for name in listing["files"]}
    came = 0
    kinds = {name: kind for name in names if (kind := kind_of(name)) is not None}
    for name in sorted(kinds, key=lambda name: (_ORDER.index(kinds[name]), name)):
        came += _fetch_file(client, folder, name, state.get(name))
    for name in sorted(names):
        if name.endswith(".status"):
            _fetch_status(client, folder, name)
    for name in set(names_in(folder)) - names:  # sealed there meanwhile
        (folder / name).unlink(missing_ok=True)
    if came:
        announce(folder)
    return folder, came


def fetch_contents(client: Client, folder: Path, blobs: Blobs, *, beside: Blobs | None = None) -> tuple[int, int]:
    """Fetch the contents that a run refers to and that are not here; return how many came, and their bytes.

    What the server lacks, or does not give to this user, is left out; so is what lies in the store `beside`.
    """
    held = run_holder(folder, [])
    count = size = 0
    for content in sorted(held.hashes if held is not None else ()):
        if not blobs.keep(content) and (beside is None or not beside.keep(content)):
            came = fetch_content(client, f"/api/sync/runs/{folder.name}/contents/{content}", content, blobs)
            count, size = count + (came is not None), size + (came or 0)
    blobs.sync()
    return count, size


def fetch_content(client: Client, path: str, content: str, blobs: Blobs) -> int | None:
    """Fetch one content into a store, checked; return its bytes, `None` where the server has it not."""
    blobs.root.mkdir(exist_ok=True)
    partial = blobs.root / f"{os.urandom(16).hex()}.partial"
    hasher, size = blake3(), 0
    try:
        with partial.open("xb") as file:
            for data in client.stream(path):
                hasher.update(data)
                file.write(data)
                size += len(data)
        if hasher.hexdigest() != content:
            raise FormatError(f"the content {content[:16]}… came damaged")
        blobs.put(partial, content)
    except NotThere:
        return None
    finally:
        partial.unlink(missing_ok=True)
    return size


def _fetch_file(client: Client, folder: Path, name: str, told: dict[str, Any] | None) -> int:
    """Bring one file to what the server has; return how many bytes came."""
    if told is None:
        return 0
    path, came = folder / name, 0
    size, found = _prefix(path, told["size"])
    if (size, found) == (told["size"], told["hash"]) and path.exists():
        return 0
    offset = size if kind_of(name) in _GROWS and 0 < size < told["size"] else 0
    for start in dict.fromkeys((offset, 0)):
        came += _download(client, folder, name, start)
        if _prefix(path, told["size"])[1] == told["hash"]:
            break  # else what is here was not the beginning of it, or it goes on: then it is fetched as it is now
    return came


def _download(client: Client, folder: Path, name: str, offset: int) -> int:
    came = 0
    partial = folder / f"{name}.{os.urandom(8).hex()}.partial"
    mode = 0o600 if is_private(name) else 0o644
    try:
        if offset:
            shutil.copyfile(folder / name, partial)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            for data in client.stream(f"/api/sync/runs/{folder.name}/files/{segment(name)}", query={"offset": offset}):
                file.write(data)
                came += len(data)
        partial.replace(folder / name)
    except NotThere:
        pass  # it went meanwhile
    finally:
        partial.unlink(missing_ok=True)
    return came


def _fetch_status(client: Client, folder: Path, name: str) -> None:
    """Bring a status file here: this machine has no lock that would tell whether its writer lives."""
    _download(client, folder, name, 0)
    status = read_status(folder / name)
    if status is None:
        return
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_copied_status(
            directory,
            name,
            beat=status.beat,
            is_alive=status.state == fmt.STATE_OPEN,
            dropped=status.dropped,
            word=status.word,
            is_spilled=status.is_spilled,
        )
    finally:
        os.close(directory)


def _prefix(path: Path, size: int) -> tuple[int, str]:
    hasher, at = blake3(), 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        while at < size and (data := file.read(min(1 << 20, size - at))):
            hasher.update(data)
            at += len(data)
    return at, hasher.hexdigest()


def _checked(name: str) -> str:
    if not LEGAL_FILE.fullmatch(name.replace("~", "-")) or name in (".", ".."):
        raise InvalidName(f"the server names a file {name!r:.80}, which is none of a run")
    return name


def ids_of(client: Client, filter: str, **options: Any) -> tuple[list[str], int]:
    """Return the ids of the runs that a filter finds on a server, in order, and how many there are without a limit."""
    answer = client.get("/api/runs", filter=filter, **{key: one for key, one in options.items() if one is not None})
    return [str(one) for one in answer["ids"]], int(answer["total"])


def quoted(ids: Iterable[str]) -> str:
    """Return the filter that finds just these runs."""
    return f"id in ({', '.join(repr(check_run_id(one)) for one in ids)})"
