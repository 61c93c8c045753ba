"""What a terminal shows of a sweep: while it runs, and when it is done. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import Event
from runstone_sweeps.results.text import clean
from runstone_sweeps.terminal.lines import ending_line, event_line, headline, print_line
from runstone_sweeps.terminal.panel import Panel, Row

if TYPE_CHECKING:
    from runstone_sweeps.coordinator.work import RunningTrial
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder

REDRAW_S = 0.25
_MARKS = {"prune": "pruning", "stop": "stopping", "trial_timeout": "timed out", "no_report_timeout": "silent"}


class LineView:
    """One line for each trial that ends: for logs, pipes and CI."""

    def __init__(self, console: Console, folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> None:
        self._console = console
        self._spec = spec
        print_line(console, headline(folder, record, spec))

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Print what concerns the user."""
        if (line := event_line(event, record)) is not None:
            print_line(self._console, line)

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Print what is being waited for."""
        print_line(self._console, ending_line(reason, running, grace_s))

    def on_note(self, note: str) -> None:
        """Print what happened beside."""
        print_line(self._console, Text(clean(note), style="yellow"))

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Print nothing between events."""

    def close(self) -> None:
        """Leave what was printed."""


class LiveView:
    """A picture that follows the running trials, above it what has ended. Redrawn by the coordinator's own thread.

    Args:
        console: The terminal.
        folder, record, spec: The sweep.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        console: Console,
        folder: SweepFolder,
        record: SweepRecord,
        spec: SweepSpec,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._spec = spec
        self._clock = clock
        self._next_s = float("-inf")
        self._lines: list[Text] = []
        self._panel = Panel(record, spec)
        print_line(console, headline(folder, record, spec))
        # A thread that redraws would be one more in a process that must stay simple.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Keep the outcome of a trial, to be printed above the picture when that is drawn next."""
        self._panel.on_event(event, record)
        if (line := event_line(event, record)) is not None:
            self._lines.append(line)

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Print what is being waited for, above the picture."""
        self._lines.append(ending_line(reason, running, grace_s))
        self._flush()

    def on_note(self, note: str) -> None:
        """Keep what happened beside, to be printed above the picture."""
        self._lines.append(Text(clean(note), style="yellow"))

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Redraw, four times a second at most."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        begun_s = time.process_time()
        rows = [Row(r.trial, r.record, _MARKS.get(r.cause or "", ""), r.last) for r in running]
        self._flush()
        width, height = self._console.size
        self._live.update(self._panel.draw(record, rows, width=width, height=height), refresh=True)
        # Counted from the end of the drawing: a terminal that is slow to take it gets less of it. And a picture of
        # many trials comes less often, so that all of them take a fiftieth of a core at most.
        self._next_s = self._clock() + max(REDRAW_S, 50 * (time.process_time() - begun_s))

    def close(self) -> None:
        """Take the picture away."""
        self._flush()
        self._live.stop()

    def _flush(self) -> None:
        if self._lines:
            # In one piece: each print above the picture draws the picture again.
            print_line(self._console, Text("\n").join(self._lines))
            self._lines = []
