"""All sources of system metrics, in the order in which they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runstone import settings
from runstone.capture.context import Context
from runstone.capture.facts import explain
from runstone.capture.metrics.gpus import Gpus
from runstone.capture.metrics.place import Place, place_of
from runstone.capture.metrics.readings import Number, Readings, Source

_SLOW_S = 60.0


class Collector:
    """Makes passes over the sources. Not for two threads at once.

    Args:
        store: Folder whose file system is watched.
        pid: Root of the tree of processes that belongs to the run.
        context: Where to look; by default this machine and environment.
        place: Place in a distributed job; by default what the environment says.
        note: Told what a reader of the run should know.
        joules: What the meters of energy start from, by series; by default 0.
    """

    def __init__(
        self,
        *,
        store: Path,
        pid: int | None = None,
        context: Context | None = None,
        place: Place | None = None,
        note: Callable[[str], None] = lambda _: None,
        joules: Mapping[str, float] | None = None,
    ) -> None:
        context = context or Context(environment=settings.process_environment())
        place = place or place_of(context.environment)
        self.why: dict[str, str] = {}
        self._slow_at_s = float("-inf")
        self._readings = Readings(at_s=0.0, is_slow=False, why=self.why)
        self._portions = self._make_sources(store, pid or os.getpid(), context, place, note, joules or {})

    def _make_sources(
        self,
        store: Path,
        pid: int,
        context: Context,
        place: Place,
        note: Callable[[str], None],
        joules: Mapping[str, float],
    ) -> tuple[list[Source], list[Source]]:
        """Return the sources in two portions: a driver that hangs then costs the second only."""
        first: list[Source] = []
        try:
            from runstone.capture.metrics.machine import Machine  # psutil may be what is broken
            from runstone.capture.metrics.processes import Processes
        except ImportError as error:
            self.why["machine"] = self.why["process"] = explain(error)
        else:
            first.append(Processes(pid, root=context.root))
            if place.speaks_for_host:
                first.append(Machine(store))
        if place.speaks_for_host:
            from runstone.capture.metrics.groups import Groups
            from runstone.capture.metrics.rapl import Rapl

            first += [Groups(context, os.cpu_count() or 1), Rapl(context.root, joules)]
        return first, [Gpus(context, place, note, joules)]

    @property
    def doing(self) -> str:
        """What is being read."""
        return self._readings.doing

    def collect(self, at_s: float, *, is_last: bool = False) -> Iterator[dict[str, Number]]:
        """Yield the values of one pass by series name, in portions.

        Args:
            at_s: Now, on the monotonic clock.
            is_last: The run waits for it: what is costly is left out.
        """
        is_slow = at_s >= self._slow_at_s and not is_last
        if is_slow:
            self._slow_at_s = at_s + _SLOW_S
        readings = self._readings = Readings(at_s=at_s, is_slow=is_slow, why=self.why)
        for portion in self._portions:
            for source in portion:
                with readings.attempt(source.name):
                    source.read(readings)
            if readings.values:
                yield readings.values
            readings.values = {}

    def close(self) -> None:
        """Let go of what the sources hold open."""
        for portion in self._portions:
            for source in portion:
                with self._readings.attempt(source.name):
                    source.close()
