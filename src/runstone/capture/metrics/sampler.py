"""The thread that samples: when it makes a pass, where the values go, and how it ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runstone.capture.forks import importing
from runstone.errors import InvalidValue
from runstone.names import SYSTEM

if TYPE_CHECKING:  # imported by the thread, on its own time
    from runstone.capture.metrics.collector import Collector

DEFAULT_INTERVAL_S = 10.0
_LEAST_INTERVAL_S = 0.5  # more often would disturb the GPUs that it looks at
# The program's first steps come first, and a run of less than a second has nothing to tell.
_FIRST_AFTER_S = 1.0
# The last pass is left out where the one before it is as young as this.
_LAST_AFTER_S = 0.5
_STOP_S = 1.0
_IN_STEPS = (
    *("dataclasses", "ctypes", "psutil", "runstone.settings"),
    *(f"runstone.capture.{name}" for name in ("facts", "context", "cgroup", "nvml", "gpu")),
    *(f"runstone.capture.metrics.{name}" for name in ("place", "readings", "meters", "gpm", "gpus", "machine")),
    *(f"runstone.capture.metrics.{name}" for name in ("processes", "groups", "rapl", "collector")),
)

Log = Callable[[Mapping[str, float | int], int], None]
Joules = Mapping[str, float]
_METERS = ("/energy_j", "/energy_estimate_j")


class Clock(Protocol):
    """Time as the sampler sees it."""

    def now(self) -> float:
        """Return seconds of a clock that never goes back."""

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s`, or as soon as `ring` is called."""

    def ring(self) -> None:
        """Wake up who waits, or will."""


class _Bell:
    """The clock of the machine. A bare lock, so that a signal handler or a forked child can ring it at any time."""

    def __init__(self) -> None:
        self._is_silent = threading.Lock()
        self._is_silent.acquire()

    def now(self) -> float:
        return time.monotonic()

    def wait(self, timeout_s: float) -> None:
        self._is_silent.acquire(timeout=max(0.0, timeout_s))

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # rung before
            self._is_silent.release()


def interval_of(system_metrics: bool | float) -> float | None:
    """Return the seconds between two passes that `start_run(system_metrics=...)` asks for; `None`: it wants none.

    Raises:
        InvalidValue: it is neither a bool nor a number of at least 0.5.
    """
    if isinstance(system_metrics, bool):
        return DEFAULT_INTERVAL_S if system_metrics else None
    try:
        interval_s = float(system_metrics)
    except (TypeError, ValueError):
        interval_s = 0.0
    if not _LEAST_INTERVAL_S <= interval_s < float("inf"):
        raise InvalidValue(
            f"system_metrics is {system_metrics!r}; it must be True, False, or seconds between two samples, at least "
            f"{_LEAST_INTERVAL_S}"
        )
    return interval_s


def start_sampler(
    log: Log,
    *,
    interval_s: float = DEFAULT_INTERVAL_S,
    started_at: float | None = None,
    rank: int = 0,
    place: tuple[int, int | None] | None = None,
    store: Path | None = None,
    pid: int | None = None,
    note: Callable[[str], None] = lambda _: None,
    own: Callable[[], Mapping[str, float | int]] = dict,
    spent: Callable[[], Joules] = dict,
) -> Sampler:
    """Begin to sample the machine, until `stop`. Costs the caller the start of a thread, and never raises.

    Args:
        log: Keeps values by name at a step. Called from the sampling thread.
        interval_s: Seconds between two passes.
        started_at: When the run was created, seconds since the epoch: the step 0. By default now.
        rank: Rank in a distributed job; a rank other than 0 is part of the names: `system/rank.3/...`.
        place: Local rank, and how many ranks its host has if known: decides what this process reports. By default what
            the environment says.
        store: Folder whose file system is watched; by default the working folder.
        pid: Root of the tree of processes that belongs to the run; by default this process.
        note: Told, once each, what a reader of the run should know: a GPU lost, a driver that hangs.
        own: What the run says of itself, such as `{"dropped_points": 0}`; kept under `system/runstone/`.
        spent: Asked once, by the thread: joules that earlier lives of the run counted, as `Sampler.joules` tells them.
    """
    return Sampler(
        log,
        interval_s=interval_s,
        started_at=started_at,
        rank=rank,
        place=place,
        store=store,
        pid=pid,
        note=note,
        own=own,
        spent=spent,
    )


def joules_in(values: Mapping[str, float | int]) -> dict[str, float]:
    """Return the meters of energy among series."""
    return {name: value for name, value in values.items() if name.endswith(_METERS)}


def prefix_of(rank: int) -> str:
    """Return what the names of a rank's series begin with: `system/`, or `system/rank.3/`."""
    return f"{SYSTEM}rank.{rank}/" if rank > 0 else SYSTEM


class Sampler:
    """Samples the machine in a thread of its own, which does not keep the process alive.

    Whatever fails costs a gap; a driver that hangs costs the series from then on, and nobody else waits for it.
    A forked child does not sample.
    """

    def __init__(
        self,
        log: Log,
        *,
        interval_s: float = DEFAULT_INTERVAL_S,
        started_at: float | None = None,
        rank: int = 0,
        place: tuple[int, int | None] | None = None,
        store: Path | None = None,
        pid: int | None = None,
        note: Callable[[str], None] = lambda _: None,
        own: Callable[[], Mapping[str, float | int]] = dict,
        spent: Callable[[], Joules] = dict,
        make: Callable[[Callable[[str], None]], Collector] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._prefix = prefix_of(rank)
        self._place = place
        self._store = store or Path()
        self._tree = pid
        self._note = note
        self._own = own
        self._spent = spent
        self._make = make or self._make_collector
        self._clock: Clock = clock or _Bell()
        self._pid = os.getpid()
        # Steps are seconds since the run was created, on this process's monotonic clock: they never go back.
        self._zero_s = self._clock.now() - (max(0.0, time.time() - started_at) if started_at is not None else 0.0)
        self._collector: Collector | None = None
        self._busy_since_s: float | None = None
        self._cost: dict[str, float] = {}
        self._is_stopping = False
        self._is_closed = False
        #: What its meters of energy stand at, by series without the leading `system/`; replaced whole.
        self.joules: Joules = {}
        #: Why the thread ended by itself, if it did.
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="runstone-system-metrics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread to be had
            self.error = error
            self._is_closed = True

    @property
    def why(self) -> dict[str, str]:
        """The reason for each series that is missing, as far as anything has been read."""
        return dict(self._collector.why) if self._collector is not None else {}

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """Make a last pass and end; return whether the thread is gone. A second call does nothing.

        Args:
            timeout_s: The caller waits at most so long, and not at all for a driver that hangs already.
        """
        if os.getpid() != self._pid or self._is_closed:
            return True
        self._is_stopping = True
        self._clock.ring()
        busy_since_s = self._busy_since_s
        hangs = busy_since_s is not None and self._clock.now() - busy_since_s > timeout_s
        if self._thread is not threading.current_thread():
            self._thread.join(0 if hangs else timeout_s)
        self._is_closed = True  # the log may be closed after this: what comes later goes nowhere
        if not self._thread.is_alive():
            return True
        doing = self._collector.doing if self._collector is not None else "the libraries"
        self._tell(f"system metrics end early: reading {doing} did not return; that thread was left behind")
        return False

    def _tell(self, message: str) -> None:
        with contextlib.suppress(Exception):  # the note is a courtesy
            self._note(message)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._sample()
        except Exception as error:  # whatever it is, the run goes on
            self.error = error
            if not self._is_closed:
                self._tell(f"system metrics end early: {type(error).__name__}: {error}")

    def _sample(self) -> None:
        clock = self._clock
        next_s = clock.now() + min(_FIRST_AFTER_S, self._interval_s)
        last_s: float | None = None
        while True:
            while not self._is_stopping and (left_s := next_s - clock.now()) > 0:
                clock.wait(left_s)
            now_s = clock.now()
            if self._is_stopping and (last_s is None or now_s - last_s < _LAST_AFTER_S):
                break
            self._busy_since_s = now_s
            if self._collector is None:
                for module in _IN_STEPS:
                    with importing:
                        importlib.import_module(module)
                self._collector = self._make(self._tell)
            self._pass(self._collector, now_s)
            self._busy_since_s = None
            if self._is_stopping:
                break
            last_s = now_s
            # A pass that took long, or a machine that slept, shifts the next: there is no point in catching up.
            next_s = max(next_s + self._interval_s, clock.now() + self._interval_s / 2)
        if self._collector is not None:
            self._busy_since_s = clock.now()
            self._collector.close()

    def _make_collector(self, note: Callable[[str], None]) -> Collector:
        from runstone.capture.metrics.collector import Collector
        from runstone.capture.metrics.place import Place

        with contextlib.suppress(Exception):  # without them the meters begin at 0 again
            self.joules = dict(self._spent())
        place = Place(*self._place) if self._place is not None else None
        return Collector(store=self._store, pid=self._tree, place=place, note=note, joules=self.joules)

    def _pass(self, collector: Collector, now_s: float) -> None:
        began_cpu_s, began_s = time.thread_time(), time.monotonic()
        step = int(now_s - self._zero_s)
        self._keep({f"runstone/{name}": value for name, value in self._own().items()} | self._cost, step)
        for values in collector.collect(now_s, is_last=self._is_stopping):
            self.joules = {**self.joules, **joules_in(values)}
            self._keep(values, step)
        self._cost = {
            "runstone/sampler_cpu_ms": 1000 * (time.thread_time() - began_cpu_s),
            "runstone/sampler_ms": 1000 * (time.monotonic() - began_s),
        }

    def _keep(self, values: Mapping[str, float | int], step: int) -> None:
        if values and not self._is_closed:
            with contextlib.suppress(OSError):  # a full disk: counted by the log, and it may have room again
                self._log({self._prefix + name: value for name, value in values.items()}, step)
