"""The open logs of runs that clients of MLflow write: one a run, closed when it ends or rests, opened again at need.

Such a run is written by launchers, which share one keeper thread, and is held: it goes on until its client says how it
ended, whatever becomes of the server meanwhile. A run that a program writes by itself gets a helper beside it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runstone.names import new_run_id
from runstone.runinfo import RunInfo
from runstone.runlog.reader import JournalState, read_events, read_journal
from runstone.runlog.writer import RunLog, clear_stop, stop_word
from runstone.server.mlflow.errors import MlflowError, invalid
from runstone.server.mlflow.values import HIDDEN, Metric, param_text, plain_params, typed
from runstone.status import Status
from runstone.values import JSON
from runstone.workspace import Workspace, attempt_to_join

UNORDERED = HIDDEN + "unordered"
"""Tag of a run with a metric whose steps or times went back, so that its last point is not its latest to MLflow."""
_MOST_OPEN = 64
_RESTS_S = 300.0
_REMEMBERED = 4_096


class _Clock:
    """Seconds since the epoch, never before what the run's journals say already; or a time that was told."""

    def __init__(self) -> None:
        self.floor_s = 0.0
        self.told_s: float | None = None

    def __call__(self) -> float:
        return max(time.time(), self.floor_s) if self.told_s is None else self.told_s


class Writer:
    """One run that is open for writing. Its methods are called by one thread at a time.

    Attributes:
        folder: Of the run.
        lock: Held while somebody writes.
    """

    def __init__(self, folder: Path, log: RunLog, clock: _Clock, journal: JournalState, *, is_ours: bool) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.used_at = time.monotonic()
        self.is_ours = is_ours
        self.is_closed = False
        self._log = log
        self._clock = clock
        self._wall_s = 0.0
        log.points.clock = lambda: self._wall_s
        self._journal = journal
        self._params = plain_params(journal.params)
        self._changed_ns = folder.stat().st_mtime_ns
        self._seen: tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]] = (set(), set())
        self._highest: dict[str, tuple[int, float, float]] | None = None
        self._inputs: tuple[int, set[str]] | None = None

    @property
    def journal(self) -> JournalState:
        """What stands in the journals, others' words too."""
        changed_ns = self.folder.stat().st_mtime_ns
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            self._journal = read_journal(self.folder)
            self._params = plain_params(self._journal.params)
        return self._journal

    def check_active(self) -> None:
        """Refuse to write to a deleted run.

        Raises:
            MlflowError: it is deleted.
        """
        if self.journal.is_deleted:
            run_id = self.folder.name
            raise invalid(f"The run {run_id} must be in the 'active' state. Current state is deleted.")

    @property
    def stop_word(self) -> str | None:
        """What somebody, a sweep or a person, asked of the run: `stop` or `prune`; `None` where nobody asked."""
        return stop_word(self.folder) if self._log.control[0] else None

    def log_metrics(self, metrics: Iterable[Metric]) -> None:
        """Add points, each with its own time; one that came before, as at a client's second try, counts once.

        Raises:
            MlflowError: the run was asked to stop: the protocol has no other word for that.
            OSError: the disk refuses.
        """
        word = self.stop_word
        if word is not None:
            told = "its sweep has pruned it" if word == "prune" else "somebody stopped it"
            raise MlflowError("ABORTED", f"The run {self.folder.name} takes no more metrics: {told}. End the training.")
        log = self._log.points.log
        recent, before = self._seen
        highest = self._ranks()
        for one in metrics:
            key, value, at_ms, step = one
            point = one if value == value else (key, None, at_ms, step)
            if point in recent or point in before:
                continue
            recent.add(point)
            if len(recent) > _REMEMBERED:
                self._seen = recent, before = set(), recent
            rank, at_s = highest.get(key), at_ms / 1000
            if rank is None or (at_s >= rank[1] and (step > rank[0] or one.rank >= rank)):
                highest[key] = (step, at_s, value if value == value else 0.0)
            elif UNORDERED not in self._journal.tags:
                self.set_tags({UNORDERED: "1"})  # its last point is not the one that MLflow takes for the latest
            self._wall_s = at_s
            log({key: value}, step)

    def _ranks(self) -> dict[str, tuple[int, float, float]]:
        """Return the rank of each metric's point that is the latest to MLflow."""
        if self._highest is None:
            known = RunInfo(self.folder).metrics if self._journal.writers else {}
            # Of points of the same time the files do not say which of two writers came first: a later one has to be so.
            self._highest = {
                name: (found.last_step, math.nextafter(found.last_at, math.inf), -math.inf)
                for name, found in known.items()
            }
        return self._highest

    def check_params(self, params: Mapping[str, str]) -> dict[str, JSON]:
        """Return the params that are new, as they are kept.

        Raises:
            MlflowError: one is there with another value.
        """
        _journal = self.journal  # somebody else may have written some
        fresh: dict[str, JSON] = {}
        for key, value in params.items():
            standing = self._params.get(key)
            if standing is None:
                fresh[key] = typed(value)
            elif standing != value:
                raise invalid(
                    f"Changing param values is not allowed. Param with key='{key}' was already logged with "
                    f"value='{standing:.200}' for run ID='{self.folder.name}'. Attempted logging new value "
                    f"'{value:.200}'."
                )
        return fresh

    def log_params(self, fresh: Mapping[str, JSON]) -> None:
        """Record params that `check_params` returned.

        Raises:
            OSError: the disk refuses.
        """
        if fresh:
            self._log.write("params", params=dict(fresh))
            self._journal.params.update(fresh)
            self._params.update({key: param_text(value) for key, value in fresh.items()})

    def set_tags(self, tags: Mapping[str, str], remove: Iterable[str] = ()) -> None:
        """Set and remove tags.

        Raises:
            OSError: the disk refuses.
        """
        gone = [key for key in remove if key in self._journal.tags]
        fresh = {key: value for key, value in tags.items() if self._journal.tags.get(key) != value}
        if fresh or gone:
            self._log.write("tags", set=fresh, remove=gone)
            self._journal.tags.update(fresh)
            for key in gone:
                del self._journal.tags[key]

    def write(self, event: str, **fields: Any) -> None:
        """Append an event to the journal.

        Raises:
            OSError: the disk refuses.
        """
        self._log.write(event, **fields)
        self._journal = read_journal(self.folder)

    def tell(self, event: str, **fields: Any) -> None:
        """Append an event that changes nothing of what is asked here.

        Raises:
            OSError: the disk refuses.
        """
        self._log.write(event, **fields)

    def known_inputs(self, read: Callable[[Path], set[str]]) -> set[str]:
        """Return the keys of what the run is said to have used, for whoever adds to them.

        Args:
            read: Reads them from the files of a run; called when another writer may have added some.
        """
        _journal = self.journal  # looks whether there is another writer
        if self._inputs is None or self._inputs[0] != self._changed_ns:
            self._inputs = (self._changed_ns, read(self.folder))
        return self._inputs[1]

    def go_on(self) -> None:
        """Say that a run that had ended goes on; what it was asked for before is done.

        Raises:
            OSError: the disk refuses.
        """
        clear_stop(self.folder)
        self.write("held", value=True)

    def end(self, status: Status, at_s: float | None) -> None:
        """Say how the run ended, and let go of it. One that was asked to stop did not fail by itself.

        Raises:
            OSError: the disk refuses.
        """
        word = self.stop_word
        if word is not None and status is not Status.FINISHED:
            status = Status.PRUNED if word == "prune" else Status.STOPPED
        self._clock.told_s = max(at_s, self._clock.floor_s) if at_s is not None else None
        self._log.write("end", status=str(status), failure=None, dropped=self._log.points.dropped)
        self._log.write("held", value=False)
        self.close(str(status))

    def close(self, word: str = "") -> None:
        """Let go of the files."""
        self.is_closed = True
        self._log.close(word)


class Writers:
    """The writers that are open.

    Args:
        workspace: Where the runs are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Writer] = OrderedDict()
        self._opening: dict[Path, threading.Lock] = {}

    def create(self, *, project: str, name: str, parent: str | None, started_s: float, tags: Mapping[str, str]) -> Path:
        """Make a run that goes on until its client says how it ended; return its folder.

        Raises:
            OSError: the disk refuses.
        """
        run_id = new_run_id()
        clock = _Clock()
        clock.told_s = started_s
        created = {
            "run_id": run_id,
            "project": project,
            "name": name,
            "group": None,
            "notes": tags.get("mlflow.note.content"),
            "parent": parent,
        }
        log = self._workspace.open_new_run(created, role="launcher", clock=clock)
        clock.told_s, clock.floor_s = None, started_s
        log.write("held", value=True)
        if tags:
            log.write("tags", set=dict(tags), remove=[])
        journal = JournalState(run_id, log.path, project=project, name=name, tags=dict(tags), parent=parent)
        journal.created_at, journal.status, journal.is_held = started_s, Status.RUNNING, True
        self._keep(Writer(log.path, log, clock, journal, is_ours=True))
        return log.path

    @contextmanager
    def writing(self, folder: Path, *, checks: bool = True) -> Iterator[Writer]:
        """Hold a run open for writing until the block ends; nobody else writes it here meanwhile.

        Args:
            folder: Of the run.
            checks: Refuse a deleted run.

        Raises:
            MlflowError: it is deleted, or its files are gone.
        """
        while True:
            writer = self._get(folder)
            with writer.lock:
                if writer.is_closed:
                    continue
                writer.used_at = time.monotonic()
                try:
                    if checks:
                        writer.check_active()
                    yield writer
                except FileNotFoundError:
                    writer.close()
                    raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"Run with id={folder.name} not found") from None
                finally:
                    if writer.is_closed:
                        self._forget(writer)
                return

    def _get(self, folder: Path) -> Writer:
        with self._lock:
            found = self._open.get(folder)
            if found is not None:
                self._open.move_to_end(folder)
                return found
            opening = self._opening.setdefault(folder, threading.Lock())
        with opening:
            with self._lock:
                found = self._open.get(folder)
            if found is None:
                found = self._opened(folder)
                self._keep(found)
        with self._lock:
            self._opening.pop(folder, None)
        return found

    def _opened(self, folder: Path) -> Writer:
        journal = read_journal(folder)
        clock = _Clock()
        clock.floor_s = max((event["at"] for _writer, event in read_events(folder)), default=0.0)
        is_ours = journal.is_held is not None
        role, attempt = ("launcher", 1) if is_ours else ("child", _standing_attempt(journal))
        log = RunLog(folder, role=role, attempt=attempt, clock=clock)
        return Writer(folder, log, clock, journal, is_ours=is_ours)

    def _keep(self, writer: Writer) -> None:
        now = time.monotonic()
        with self._lock:
            self._open[writer.folder] = writer
            others = [one for one in self._open.values() if one is not writer]
        spare = len(others) + 1 - _MOST_OPEN
        for number, one in enumerate(others):
            if number >= spare and now - one.used_at < _RESTS_S:
                break  # they lie in the order of their last use
            if one.lock.acquire(blocking=False):
                try:
                    one.close()
                finally:
                    one.lock.release()
                self._forget(one)

    def _forget(self, writer: Writer) -> None:
        with self._lock:
            if self._open.get(writer.folder) is writer:
                del self._open[writer.folder]

    def close(self) -> None:
        """Let go of all runs; those that go on are held."""
        with self._lock:
            writers, self._open = list(self._open.values()), OrderedDict()
        for writer in writers:
            with writer.lock:
                writer.close()


def _standing_attempt(journal: JournalState) -> int:
    """Return the attempt whose points a helper's stand beside: the latest that there is."""
    return journal.attempts[-1].number if journal.attempts else attempt_to_join(journal)
