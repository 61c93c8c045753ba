"""Which workspaces use a store elsewhere: each leaves a small file there, so that nobody collects what another needs.

A file `workspaces/<id>.json` in the store says who, where and since when. The id is made once for a workspace and kept
beside its store, with the number of the file itself: a workspace that was copied is another one, and gets another id.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs.partial import Partial
from runstone.blobs.remote import Remote
from runstone.errors import FormatError

FOLDER = "workspaces"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class StoreUser:
    """A workspace that uses a store: its id, host and folder, and since when (seconds since the Unix epoch)."""

    id: str
    host: str
    path: str
    at: float

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.id} ({self.host}:{self.path})"


def workspace_id(workspace: Path) -> str:
    """Return the id of a workspace, which is made when it is asked for first.

    Raises:
        OSError: it cannot be written.
    """
    place = workspace / "blobs.id"
    with contextlib.suppress(FileNotFoundError, ValueError):
        found, number = place.read_text().split()
        if int(number) == place.stat().st_ino:
            return found
    made = os.urandom(8).hex()
    with Partial(workspace) as partial:
        partial.write(f"{made} {os.fstat(partial.fd).st_ino}\n".encode())
        partial.place(place, 0o644)
    return made


def note_user(remote: Remote, workspace: Path) -> str:
    """Leave the file of a workspace in a store, unless it lies there; return the workspace's id.

    Raises:
        OSError: the store does not answer, or the workspace or the store cannot be written.
    """
    own = workspace_id(workspace)
    name = f"{FOLDER}/{own}.json"
    if remote.size(name) is None:
        told = {"format": _FORMAT, "host": socket.gethostname(), "path": str(workspace.absolute()), "at": time.time()}
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            json.dump(told, file)
            file.flush()
            remote.send(Path(file.name), name, content_hash=None)
    return own


def users_of(remote: Remote) -> list[StoreUser]:
    """Return all workspaces that left their file in a store.

    Raises:
        FormatError: one of the files cannot be read: somebody uses the store, and nobody knows who.
        OSError: the store does not answer.
    """
    found = []
    for name in sorted(remote.files(FOLDER)):
        try:
            told = json.loads(b"".join(remote.receive(f"{FOLDER}/{name}")))
            if told["format"] > _FORMAT:
                raise ValueError(f"it has format {told['format']}; this version reads {_FORMAT}")
            found.append(StoreUser(name.removesuffix(".json"), str(told["host"]), str(told["path"]), float(told["at"])))
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{remote}/{FOLDER}/{name} cannot be read: {error}") from None
    return found


def forget_user(remote: Remote, user_id: str) -> None:
    """Remove the file of a workspace that is gone from a store."""
    remote.remove(f"{FOLDER}/{user_id}.json")
