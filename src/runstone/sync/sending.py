"""Sending all runs of a spool: living ones as they go on, then those that ended, the oldest first."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.blobs import Blobs
from runstone.errors import FormatError, RunstoneError
from runstone.gc import collect
from runstone.sync.address import token_for
from runstone.sync.client import Client, Refused, Unreachable
from runstone.sync.shipping import BEAT_S, RunShipper, print_of
from runstone.sync.spool import Spool

_POLL_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_PATIENCE_S = 86_400.0
_SLICE_S = 0.5
_TIDY_S = 600.0
_CONTENT_GRACE_S = 3_600.0
_MANY = 50
_CONNECTIONS = 6
_UNAUTHORIZED = 401


@dataclass(slots=True)
class Sent:
    """What was sent: runs that the server has as a whole now, bytes of runs, contents and their bytes; what is left."""

    runs: int = 0
    bytes: int = 0
    contents: int = 0
    content_bytes: int = 0
    left: int = 0
    refused: int = 0


class Sender:
    """Sends the runs of one spool.

    Args:
        spool: It.
        client: To its server; default: several connections, so that nothing waits for another run's disk.
        clock: Seconds since the epoch.
        sleep: Waits so many seconds.
        days: How long a run stays here that the server has; default: as the settings say.
    """

    def __init__(
        self,
        spool: Spool,
        client: Client | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
        days: float | None = None,
    ) -> None:
        self._spool = spool
        if client is not None:
            self._clients = [client]
        else:
            token = token_for(spool.address)
            self._clients = [Client(spool.address, token) for _number in range(_CONNECTIONS)]
        self._next_lane = 0
        self._lane_of: dict[Path, int] = {}
        self._counting = threading.Lock()
        self._clock = clock
        self._sleep = sleep
        self._days = settings.spool_days() if days is None else days
        self._blobs: Blobs = spool.workspace.blobs
        self._shippers: dict[Path, RunShipper] = {}
        self._seen: dict[Path, tuple[int, float]] = {}
        self._order: list[Path] = []
        self._tidied_at = -1e18
        self.sent = Sent()

    def send_until_done(self, *, patience_s: float = _PATIENCE_S, watch: bool = False) -> Sent:
        """Send until the server has every run that can be sent.

        Args:
            patience_s: How long the server may be away before it is given up, while nothing is written here.
            watch: Go on for ever.

        Raises:
            Unreachable: it was away for longer.
        """
        pause_s, answered_at = _FIRST_PAUSE_S, self._clock()
        while True:
            try:
                has_sent, is_done = self.cycle()
            except Unreachable as error:
                is_living = any(one.is_living for one in self._shippers.values())
                if self._clock() - answered_at >= patience_s and not is_living:
                    raise
                wait_s = max(pause_s, min(error.wait_s or 0.0, _LONGEST_PAUSE_S)) * random.uniform(0.8, 1.2)  # noqa: S311
                self._spool.tell(problem=str(error), left=len(self._shippers), retry_at=self._clock() + wait_s)
                self._sleep(wait_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s, answered_at = _FIRST_PAUSE_S, self._clock()
            if is_done and not watch:
                self._tidy()
                self._spool.tell(problem="", left=0)
                return self.sent
            if not has_sent:
                self._spool.tell(problem="", left=len(self._shippers))
                self._sleep(_POLL_S)

    @property
    def has_work(self) -> bool:
        """Whether there is a run that the server does not have as a whole."""
        self._find()
        return bool(self._shippers)

    def cycle(self) -> tuple[bool, bool]:
        """Send a part of what there is; return whether something was, and whether nothing is left.

        Raises:
            Unreachable: the server cannot now.
        """
        self._find()
        if self._clock() - self._tidied_at >= _TIDY_S:
            self._tidy()
        lanes: list[list[Path]] = [[] for _client in self._clients]
        for path in self._order:
            if path in self._shippers:
                lanes[self._lane_of[path]].append(path)
        busy = [lane for lane in lanes if lane]
        has_sent = False
        if len(busy) == 1:
            has_sent = self._send_lane(busy[0])
        elif busy:
            with ThreadPoolExecutor(len(busy), "runstone-sync") as pool:
                results = [pool.submit(self._send_lane, lane) for lane in busy]
            has_sent = any([result.result() for result in results])  # noqa: C419 (whoever raised is to be heard)
        self.sent.left = len(self._shippers)
        return has_sent, not self._shippers

    def _send_lane(self, lane: list[Path]) -> bool:
        """Send a part of some runs over one connection; return whether something was sent."""
        shippers = self._shippers
        living = [path for path in lane if shippers[path].is_living]
        alive = set(living)
        waiting = [path for path in lane if path not in alive]
        beat_s = BEAT_S if len(living) * len(self._clients) <= _MANY else 4 * BEAT_S
        has_sent = False
        for path in living:
            has_sent |= self._guarded(path, lambda one: one.step(beat_s=beat_s) or one.step_content())
        limit = time.monotonic() + _SLICE_S
        for path in waiting:
            if living and time.monotonic() > limit:
                break
            has_sent |= self._guarded(path, lambda one: self._send_ended(one, living=bool(living), limit=limit))
        return has_sent

    def _send_ended(self, shipper: RunShipper, *, living: bool, limit: float) -> bool:
        """Send what is left of a run that ended; as a whole, or for a moment where others go on."""
        has_sent = False
        while True:
            if shipper.step() or shipper.step_content():
                has_sent = True
            elif not shipper.is_open:
                return has_sent  # nobody has said yet what run it is
            else:
                before = print_of(shipper.folder)
                if not shipper.finish():
                    return has_sent
                if not shipper.is_living and print_of(shipper.folder) == before:
                    self._done(shipper, before)
                    return True
            if living and time.monotonic() > limit:
                return has_sent

    def _guarded(self, path: Path, work: Callable[[RunShipper], bool]) -> bool:
        """Do something with a run; one that the server refuses, or that cannot be read, stands back for the others."""
        shipper = self._shippers[path]
        before = shipper.sent_bytes, shipper.content_bytes, shipper.content_count
        try:
            was_open = shipper.is_open
            has_sent = work(shipper)
            if shipper.is_open and not was_open and self._spool.noted("opened", shipper.run_id) is None:
                self._spool.note("opened", shipper.run_id, {"at": self._clock()})
            return has_sent
        except Refused as error:
            if error.status == _UNAUTHORIZED:
                raise Unreachable(
                    f"{error}; `runstone login {self._spool.address}` keeps a new token", _LONGEST_PAUSE_S
                ) from None
            self._refuse(path, str(error))
        except FormatError as error:
            self._refuse(path, str(error))
        except OSError as error:
            if path.is_dir():
                self._refuse(path, f"{type(error).__name__}: {error}")
        finally:
            with self._counting:
                self.sent.bytes += shipper.sent_bytes - before[0]
                self.sent.content_bytes += shipper.content_bytes - before[1]
                self.sent.contents += shipper.content_count - before[2]
        return True

    def _find(self) -> None:
        """Take up runs that are new, or went on since the server had them."""
        folders = set(self._spool.workspace.run_folders())
        if set(self._order) != folders:
            self._order = [path for path in self._spool.runs() if path in folders]
        for path in self._order:
            if path in self._shippers:
                continue
            run_id = path.name
            stamp = path.stat().st_mtime_ns if path.is_dir() else 0
            seen = self._seen.get(path)
            if seen is not None and seen[0] == stamp and self._clock() - seen[1] < 60.0:
                continue
            self._seen[path] = stamp, self._clock()
            done = self._spool.noted("done", run_id)
            if done is not None and done.get("print") == print_of(path):
                continue
            if self._spool.noted("refused", run_id) is not None:
                continue
            foreign = frozenset(self._spool.noted("foreign", run_id) or ())
            if path not in self._lane_of:
                self._lane_of[path] = self._next_lane
                self._next_lane = (self._next_lane + 1) % len(self._clients)
            self._shippers[path] = RunShipper(
                path,
                self._blobs,
                self._clients[self._lane_of[path]],
                foreign=foreign,
                was_opened=self._spool.noted("opened", run_id) is not None,
                clock=self._clock,
            )
        for path in set(self._shippers) - folders:
            del self._shippers[path]

    def _done(self, shipper: RunShipper, found: list[list[Any]]) -> None:
        self._spool.note("done", shipper.run_id, {"at": self._clock(), "print": found})
        self._shippers.pop(shipper.folder, None)
        self._seen[shipper.folder] = shipper.folder.stat().st_mtime_ns, self._clock()
        with self._counting:
            self.sent.runs += 1

    def _refuse(self, path: Path, reason: str) -> None:
        self._spool.note("refused", path.name, {"at": self._clock(), "reason": reason})
        self._shippers.pop(path, None)
        with self._counting:
            self.sent.refused += 1

    def _tidy(self) -> None:
        """Remove runs that the server has had as a whole for long enough, and content that only they referred to."""
        self._tidied_at = self._clock()
        has_removed = False
        for path in list(self._spool.workspace.run_folders()):
            done = self._spool.noted("done", path.name)
            if path in self._shippers or done is None or self._clock() - done["at"] < self._days * 86_400.0:
                continue
            shipper = RunShipper(path, self._blobs, self._clients[0], clock=self._clock)
            if shipper.is_living or done.get("print") != print_of(path):
                continue
            # Renamed first: nobody who comes now finds half a run.
            going = self._spool.path / "trash" / f"{path.name}.purged"
            going.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                path.rename(going)
                shutil.rmtree(going, ignore_errors=True)
                for kind in ("done", "foreign"):
                    self._spool.forget(kind, path.name)
                has_removed = True
        if has_removed:
            with contextlib.suppress(RunstoneError, OSError):  # the next time
                collect(self._spool.path, grace_s=_CONTENT_GRACE_S)


def send_all(spool: Spool, **options: Any) -> Sent | None:
    """Send what is in a spool, from this process; `None` where another process does.

    Args:
        spool: It.
        **options: Of `Sender.send_until_done`.

    Raises:
        Unreachable: as `Sender.send_until_done`.
    """
    while True:
        with spool.sending(wait_s=1.0) as is_alone:
            if not is_alone:
                return None
            sent = Sender(spool).send_until_done(**options)
        # A run that began meanwhile saw that somebody sends: it must not be left.
        with spool.sending() as is_alone:
            if not is_alone:
                return sent
            if not Sender(spool).has_work:
                return sent
