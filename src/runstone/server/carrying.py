"""Content that came to a server goes on to its store elsewhere, from a thread beside the requests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.blobs.carrier import Carried, Carrier, Waiting
from runstone.blobs.remote import Remote
from runstone.blobs.users import note_user
from runstone.server.logs import Log
from runstone.workspace import Workspace

_EVERY_S = 2.0
_LONGEST_PAUSE_S = 60.0
_END_S = 8.0


class ContentElsewhere:
    """How the sending of content to the store elsewhere stands, for who looks after the server."""

    def __init__(self) -> None:
        self._carrier: Carrier | None = None
        self.problem = ""
        """Why nothing can be sent now; empty where it can."""

    def begin(self, carrier: Carrier | None) -> None:
        """Note who sends here; `None`: nobody, or another server over the same folder."""
        self._carrier = carrier
        self.problem = ""

    def waiting(self) -> Waiting | None:
        """Return what waits to be sent; `None` where this server sends nothing."""
        carrier = self._carrier
        return carrier.waiting() if carrier is not None else None

    def gauges(self, now: float) -> dict[str, float]:
        """Return it as figures by name, none where this server sends nothing.

        Args:
            now: Seconds since the epoch.
        """
        waiting = self.waiting()
        if waiting is None:
            return {}
        return {
            "content_waiting_files": waiting.count,
            "content_waiting_bytes": waiting.size_bytes,
            "content_waiting_oldest_seconds": _age(waiting, now),
            "content_store_away": int(bool(self.problem)),
        }

    def as_dict(self, now: float) -> dict[str, Any] | None:
        """Return it for a program, `None` where this server sends nothing."""
        waiting = self.waiting()
        if waiting is None:
            return None
        return {
            "waiting_files": waiting.count,
            "waiting_bytes": waiting.size_bytes,
            "oldest_s": _age(waiting, now),
            "is_away": bool(self.problem),
        }


def _age(waiting: Waiting, now: float) -> float:
    return round(max(0.0, now - waiting.oldest_at), 3) if waiting.oldest_at is not None else 0.0


@contextlib.contextmanager
def content_carried(workspace: Workspace, log: Log, state: ContentElsewhere | None = None) -> Iterator[None]:
    """Send content to the store elsewhere while the block runs, if the workspace has one.

    Of several servers over one folder one does it; when that ends, another.

    Args:
        workspace: Whose content.
        log: Takes what was sent, and why something was not.
        state: Takes how it stands.

    Raises:
        InvalidConfig: the store's settings are none, or what it needs is not installed.
    """
    url = settings.blob_store(workspace.path)
    if url is None:
        yield
        return
    remote = Remote(url)  # its own: it is closed when the server ends, and no other use of the store is
    remote.check()
    carrying = _Carrying(workspace, remote, log, state or ContentElsewhere())
    thread = threading.Thread(target=carrying.run, name="runstone-carry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        carrying.ended.set()
        remote.close()
        thread.join(_END_S)


class _Carrying:
    def __init__(self, workspace: Workspace, remote: Remote, log: Log, state: ContentElsewhere) -> None:
        self.ended = threading.Event()
        self._workspace = workspace
        self._remote = remote
        self._log = log
        self._state = state
        self._cache_bytes = settings.blob_cache_bytes(workspace.path)
        self._told = ""

    def run(self) -> None:
        pause_s = _EVERY_S
        carrier = self._workspace.blobs.carrier(self._remote, cache_bytes=self._cache_bytes, is_ended=self.ended.is_set)
        while not self.ended.is_set():
            try:
                with _alone(self._workspace.path) as is_alone:
                    self._state.begin(carrier if is_alone else None)
                    if is_alone:
                        self._carry(carrier)
                pause_s = _EVERY_S
            except Exception as error:  # whatever it is, the server goes on, and tries again
                if not self.ended.is_set():
                    self._state.problem = f"{type(error).__name__}: {error}"
                    self._tell("content_not_sent", f"{type(error).__name__}: {error}")
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
            self.ended.wait(pause_s)

    def _carry(self, carrier: Carrier) -> None:
        if self._workspace.path not in self._remote.noted:
            note_user(self._remote, self._workspace.path)
            self._remote.noted.add(self._workspace.path)
        while not self.ended.is_set():
            done = carrier.step()
            self._state.problem = ""
            self._tell_of(done)
            self._told = ""
            self.ended.wait(_EVERY_S)

    def _tell_of(self, done: Carried) -> None:
        if done.count:
            self._log("content_sent", store=str(self._remote), files=done.count, bytes=done.size_bytes)
        if done.given_back:
            self._log("content_given_back", files=done.given_back, bytes=done.given_back_bytes)
        for problem in done.damaged:
            self._log("content_damaged", problem=problem)

    def _tell(self, event: str, problem: str) -> None:
        if problem != self._told:  # once, however long it lasts
            self._told = problem
            self._log(event, store=str(self._remote), problem=problem)


@contextlib.contextmanager
def _alone(workspace: Path) -> Iterator[bool]:
    """Yield whether no other process carries for this workspace; none does while the block runs."""
    folder = workspace / "cache"
    folder.mkdir(exist_ok=True)
    fd = os.open(folder / "carrier.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: sending twice does no harm
            pass
        yield True
    finally:
        os.close(fd)
