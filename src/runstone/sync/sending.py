"""Sending all runs of a spool: living ones as they go on, then those that ended, the oldest first."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections import deque
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
from runstone.sync.batches import AT_ONCE, Problems, Sending, finish_runs, open_runs, send_parcels
from runstone.sync.client import Client, Refused, Unreachable
from runstone.sync.shipping import BEAT_S, RunShipper, print_of
from runstone.sync.spool import Spool

_POLL_S, _SHORTEST_POLL_S = 1.0, 0.2
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
            began = time.monotonic()
            try:
                has_more, is_done = self.cycle()
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
            if not has_more:
                self._spool.tell(problem="", left=len(self._shippers))
                self._sleep(max(_SHORTEST_POLL_S, _POLL_S - (time.monotonic() - began)))

    @property
    def has_work(self) -> bool:
        """Whether there is a run that the server does not have as a whole."""
        self._find()
        return bool(self._shippers)

    def cycle(self) -> tuple[bool, bool]:
        """Send a part of what there is; return whether there is more to send now, and whether no run is left.

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
        busy = [number for number, lane in enumerate(lanes) if lane]
        has_more = False
        if len(busy) == 1:
            has_more = self._send_lane(busy[0], lanes[busy[0]])
        elif busy:
            with ThreadPoolExecutor(len(busy), "runstone-sync") as pool:
                results = [pool.submit(self._send_lane, number, lanes[number]) for number in busy]
            has_more = any([result.result() for result in results])  # noqa: C419 (whoever raised is to be heard)
        self.sent.left = len(self._shippers)
        return has_more, not self._shippers

    def _send_lane(self, number: int, lane: list[Path]) -> bool:
        """Send a part of some runs over one connection; return whether there is more to send now.

        Raises:
            Unreachable: the server cannot now, at least for one of them.
        """
        client, shippers = self._clients[number], [self._shippers[path] for path in lane]
        living = [one for one in shippers if one.is_living]
        alive = set(living)
        beat_s = BEAT_S if len(living) * len(self._clients) <= _MANY else 4 * BEAT_S
        has_more = self._send_living(client, living, beat_s)
        limit = time.monotonic() + _SLICE_S if living else float("inf")
        return self._send_ended(client, [one for one in shippers if one not in alive], limit) or has_more

    def _send_living(self, client: Client, living: list[RunShipper], beat_s: float) -> bool:
        """Send what is new of runs that go on, a parcel of each; return whether there is more."""
        self._opened(client, living)
        waiting, has_more = self._known(living), False
        while waiting:
            sending = self._sent(client, waiting, beat_s)
            for one in sending.idle:
                has_more |= self._send_content(one)
            has_more |= bool(sending.more)
            waiting = sending.rest
        return has_more

    def _send_ended(self, client: Client, ended: list[RunShipper], limit: float) -> bool:
        """Send what is left of runs that ended, until a time where others go on; return whether there is more."""
        queue, window = deque(ended), list[RunShipper]()
        place = {one: number for number, one in enumerate(ended)}
        whole: list[RunShipper] = []
        while queue or window or whole:
            if time.monotonic() > limit:
                return True
            while queue and len(window) < AT_ONCE:
                window.append(queue.popleft())
            self._opened(client, window)
            window = self._known(window)  # of the others nobody has said yet what run they are
            sending = self._sent(client, window)
            with_content = {one for one in sending.idle if self._send_content(one)}
            whole += self._known([one for one in sending.idle if one not in with_content])
            if len(whole) >= AT_ONCE or not (sending.sent or with_content or queue):
                self._finish(client, sorted(whole, key=lambda one: place[one]))
                whole = []
            left = {*sending.sent, *sending.rest, *with_content}
            window = [one for one in window if one in left and one.folder in self._shippers]
        return False

    def _finish(self, client: Client, shippers: list[RunShipper]) -> None:
        """Have the server say that it has runs as a whole; those that went on meanwhile stay for the next time."""
        before = {one: print_of(one.folder) for one in shippers}
        same, problems = finish_runs(client, shippers)
        self._take(problems)
        for one in same:
            if not one.is_living and print_of(one.folder) == before[one]:
                self._done(one, before[one])

    def _opened(self, client: Client, shippers: list[RunShipper]) -> None:
        """Tell the server of those runs that it was not told of."""
        closed = [one for one in shippers if not one.is_open]
        problems = open_runs(client, closed)
        for one in closed:
            if one.is_open and self._spool.noted("opened", one.run_id) is None:
                self._spool.note("opened", one.run_id, {"at": self._clock()})
        self._take(problems)

    def _known(self, shippers: list[RunShipper]) -> list[RunShipper]:
        return [one for one in shippers if one.is_open and one.folder in self._shippers]

    def _sent(self, client: Client, shippers: list[RunShipper], beat_s: float = BEAT_S) -> Sending:
        """Send a parcel of each of some runs, of as many as go into one request."""
        before = sum(one.sent_bytes for one in shippers)
        try:
            sending = send_parcels(client, shippers, beat_s=beat_s)
        finally:
            with self._counting:
                self.sent.bytes += sum(one.sent_bytes for one in shippers) - before
        self._take(sending.problems)
        return sending

    def _send_content(self, shipper: RunShipper) -> bool:
        """Send a part of a content that a run refers to; return whether there was one."""
        before = shipper.content_bytes, shipper.content_count
        try:
            return shipper.step_content()
        except (Refused, FormatError, OSError) as error:
            self._take({shipper: error})
        finally:
            with self._counting:
                self.sent.content_bytes += shipper.content_bytes - before[0]
                self.sent.contents += shipper.content_count - before[1]
        return False

    def _take(self, problems: Problems) -> None:
        """Let runs that the server refuses, or that cannot be read, stand back for the others.

        Raises:
            Unreachable: the server cannot now, for one of them.
        """
        later: Unreachable | None = None
        for shipper, error in problems.items():
            if isinstance(error, Unreachable):
                later = error
            elif isinstance(error, Refused) and error.status == _UNAUTHORIZED:
                later = Unreachable(
                    f"{error}; `runstone login {self._spool.address}` keeps a new token", _LONGEST_PAUSE_S
                )
            elif isinstance(error, OSError):
                if shipper.folder.is_dir():
                    self._refuse(shipper.folder, f"{type(error).__name__}: {error}")
                else:
                    self._shippers.pop(shipper.folder, None)
            else:
                self._refuse(shipper.folder, str(error))
        if later is not None:
            raise later

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
