"""One trial on a worker: where it records, what is sent of that, and how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import Workspace, ensure_workspace
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.messages import Message, Talk
from runstone_sweeps.workers.runfiles import RUN_FOLDER, close_writers, earlier_writers, kind_of
from runstone_sweeps.workers.shipping import BlobShipper, RunShipper

# What lies in the connection already; blobs wait, so that points do not wait for them.
_MOST_WAITING_BYTES = 4 << 20
_MOST_WAITING_FOR_BLOBS = 1 << 20


@dataclass(frozen=True, slots=True)
class Name:
    """What a trial is called on both sides.

    Attributes:
        sweep: Id of the sweep.
        key, attempt: As its coordinator counts.
    """

    sweep: str
    key: int
    attempt: int

    @classmethod
    def of(cls, sweep: str, message: Message) -> Name:
        """Return which trial a message is about."""
        return cls(sweep, message.number("key"), message.number("attempt"))


class HostedTrial:
    """A trial on a worker, from its first file to the moment when its coordinator has all of it.

    Args:
        name: Of the trial.
        home: Folder for what it records here; `None`: it records in the workspace of the coordinator.
        workspace: That workspace.
        is_here: Whether that one is seen from here.
    """

    def __init__(self, name: Name, *, home: Path, workspace: Path, is_here: bool) -> None:
        self.name = name
        self.home = home
        self.is_shared = is_here
        self.workspace = workspace if is_here else home / "workspace"
        self.run = ""
        self.order: dict[str, Any] = {}
        self.pid = 0
        self.is_started = False
        self.result: dict[str, Any] | None = None
        """What is told of its end; `None`: it runs."""
        self.is_to_die = False
        self._shipper: RunShipper | None = None
        self._blobs: BlobShipper | None = None
        self._is_told = False
        self._was_started_told = False
        self._has_to_catch_up = False

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.workspace / "runs" / self.run

    # --- before its start ------------------------------------------------------------------------------------------

    def take_seed(self, message: Message) -> None:
        """Write a piece of what earlier attempts recorded; it is put into its place by `prepare`."""
        name = message.text("name")
        if kind_of(name) is None:
            raise LinkBroken(f"{name!r:.60} is not a file of a run")
        folder = self.home / "seeds"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, message.data, message.number("offset"))
        finally:
            os.close(fd)

    def prepare(self, message: Message) -> None:
        """Take the order to start, and make what the trial finds.

        Raises:
            LinkBroken: it names no run.
            OSError: the disk refuses.
        """
        self.order = dict(message.fields)
        run = message.text("run")
        if not RUN_FOLDER.fullmatch(run):
            raise LinkBroken(f"{run!r:.80} is not where a run lies")
        self.run = run
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.is_shared:
            return
        ensure_workspace(self.workspace)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        seeds = self.home / "seeds"
        seeds.mkdir(exist_ok=True)
        seeds.rename(self.folder)
        self._shipper = RunShipper(self.folder, frozenset(earlier_writers(self.folder, self.name.attempt)))
        self._blobs = BlobShipper(self.workspace / "blobs")

    def files(self) -> dict[str, str]:
        """Write the files that the command line names; return where they lie here, by their names there."""
        found = {}
        if not self.is_shared:
            for number, (name, text) in enumerate(sorted(self.order.get("files", {}).items())):
                path = self.home / f"params.{number}.json"
                path.write_text(str(text), encoding="utf-8")
                found[str(name)] = str(path)
        return found

    # --- while it runs ---------------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Set its stop word."""
        with contextlib.suppress(OSError):
            Workspace(self.workspace).request_stop(self.folder.name, "prune" if reason == "prune" else "stop")

    def reconnect(self, there: dict[str, Any]) -> None:
        """Take note that the connection is a new one, and what the coordinator has of this trial."""
        self._is_told = self._was_started_told = False
        self._has_to_catch_up = True
        if self._shipper is not None:
            sums = {}
            for name, found in there.items():
                if isinstance(found, list) and len(found) == 2 and all(type(number) is int for number in found):
                    sums[name] = (found[0], found[1])
            self._shipper.check(sums)
        if self._blobs is not None:
            self._blobs.again()

    def hear_of_content(self, message: Message) -> None:
        """Take note of whether the coordinator wants the content that it was offered."""
        if self._blobs is not None:
            self._blobs.answered(message.text("hash"), message.text("answer"))

    def ship(self, talk: Talk) -> bool:
        """Send what is new; return whether there was anything.

        Raises:
            LinkBroken: the connection is over.
        """
        if self.is_started and not self._was_started_told:
            self._was_started_told = True
            talk.say("started", key=self.name.key, attempt=self.name.attempt, pid=self.pid)
        if talk.link.waiting_bytes > _MOST_WAITING_BYTES or self._is_told or not self.run:
            return False
        has_sent = False if self.is_shared else self._ship_files(talk)
        if self._has_to_catch_up:
            self._has_to_catch_up = False
            talk.say("caught_up", key=self.name.key, attempt=self.name.attempt)
        if self.result is not None and (self._blobs is None or self._blobs.is_done):
            self._is_told = has_sent = True
            talk.say("ended", key=self.name.key, attempt=self.name.attempt, **self.result)
        return has_sent

    def _ship_files(self, talk: Talk) -> bool:
        shipper, blobs = self._shipper, self._blobs
        if shipper is None or blobs is None:
            return False
        self._connect(blobs, talk)
        if self.result is not None:
            blobs.look()
        pieces, gone = shipper.poll(is_last=self.result is not None)
        for piece in pieces:
            told = {"name": piece.name, "offset": piece.offset, "end": piece.end}
            talk.say("piece", piece.data, key=self.name.key, attempt=self.name.attempt, **told)
        for name in gone:
            talk.say("gone", key=self.name.key, attempt=self.name.attempt, name=name)
        has_sent = bool(pieces or gone)
        while talk.link.waiting_bytes < _MOST_WAITING_FOR_BLOBS and blobs.step():
            has_sent = True
        return has_sent

    def look_for_blobs(self) -> None:
        """Offer what the trial has stored by its content since the last look."""
        if self._blobs is not None:
            self._blobs.look()

    def _connect(self, blobs: BlobShipper, talk: Talk) -> None:
        key, attempt = self.name.key, self.name.attempt

        def offer(content_hash: str, size: int) -> None:
            talk.say("offer", key=key, attempt=attempt, hash=content_hash, size=size)

        def send(content_hash: str, offset: int, size: int, data: bytes) -> None:
            talk.say("content", data, key=key, attempt=attempt, hash=content_hash, offset=offset, size=size)

        blobs.through(offer=offer, send=send)

    # --- after its end ---------------------------------------------------------------------------------------------

    def end(self, result: dict[str, Any]) -> None:
        """Take note that no process of it is left."""
        if self.run:
            close_writers(self.folder, self.name.attempt)
        self.result = result

    def remove(self) -> None:
        """Remove what lies here of it."""
        shutil.rmtree(self.home, ignore_errors=True)
