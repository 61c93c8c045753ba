"""What a terminal shows of a sweep: while it runs, and when it is done. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runstone_sweeps.journal import Event
from runstone_sweeps.panel import STYLES, Panel, Row, failure_lines
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.text import at_once, clean, counts_text, duration, number, params_text, value_text

if TYPE_CHECKING:
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder
    from runstone_sweeps.work import RunningTrial

__all__ = [
    "STYLES", "LineView", "LiveView", "clean", "counts_text", "duration", "failure_lines", "headline", "leaderboard",
    "number", "params_text", "print_line", "ranked_rows", "value_text",
]  # fmt: skip

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
        print_line(self._console, _ending(reason, running, grace_s))

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
        self._lines.append(_ending(reason, running, grace_s))
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


def headline(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> Text:
    """Return the line that says what is about to run."""
    how_many = f"{spec.trials} trials" if spec.trials else "trials until the budget is spent"
    if spec.trials is None and spec.timeout_s is not None:
        how_many = f"trials for {duration(spec.timeout_s)}"
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}\n", style="dim")
    line.append(f"{how_many}, {at_once(spec.parallel)}; {goals_text(spec)}; ")
    line.append(f"sampler {spec.sampler.name}, pruner {spec.pruner.name}")
    return line


def goals_text(spec: SweepSpec) -> str:
    """Return `minimize val/loss, maximize val/acc`."""
    return ", ".join(f"{metric.goal} {clean(metric.name)}" for metric in spec.metrics)


def leaderboard(record: SweepRecord, *, limit: int, hidden: Mapping[str, Any]) -> Table:
    """Return the ranked table: complete trials from the best, then the others.

    Args:
        record: The sweep.
        limit: Rows at most.
        hidden: Parameters that are the same for every trial.
    """
    rows = ranked_rows(record)[:limit]
    trials = [trial for _, trial in rows]
    names = list(dict.fromkeys(name for trial in trials for name in trial.params if name not in hidden))
    metrics = metric_names(record)
    front = {trial.number for trial in record.front()} if len(metrics) > 1 else set()
    has_spread = any(trial.spread is not None for trial in trials)
    has_bounds = any(trial.constraints for trial in trials)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rank", "trial", "state"):
        table.add_column(column, no_wrap=True)
    bounds = ["breaks"] if has_bounds else []
    for column in (*metrics, *(["±"] if has_spread else []), *bounds, "time", *names, "run"):
        table.add_column(Text(clean(column)), overflow="fold")
    for rank, trial in rows:
        note = " = " + str(trial.same_as) if trial.same_as is not None else ""
        cells = [*values_text(trial, len(metrics))]
        if has_spread:
            runs = len([run for run in trial.runs if run.values])
            cells.append("" if trial.spread is None else f"{number(trial.spread)} ({runs})")
        if has_bounds:
            cells.append(", ".join(number(v) for v in trial.constraints if v > 0))
        table.add_row(
            ("" if rank is None else str(rank)) + ("*" if trial.number in front else ""),
            f"{trial.number}{note}",
            Text(state_text(trial), style=STYLES[trial.state] if trial.is_feasible else "yellow"),
            *cells,
            duration(trial.duration_s) if trial.duration_s is not None else "",
            *(Text(value_text(trial.params[name]) if name in trial.params else "–") for name in names),
            Text(trial.run_id[-8:], style="dim"),
        )
    return table


def legend(record: SweepRecord) -> list[str]:
    """Return what the marks of the leaderboard mean, as far as there are any."""
    trials = record.trials.values()
    lines = []
    if len(record.goals) > 1:
        lines.append("* on the Pareto front: no other trial is better in every metric")
    if any(not trial.is_feasible for trial in trials):
        lines.append("infeasible: breaks a constraint, by as much as stands in that column")
    if any(trial.spread is not None for trial in trials):
        lines.append("±: standard deviation of the first metric over the replicates (their number)")
    if any(trial.same_as is not None for trial in trials):
        lines.append("= N: the same point as trial N, whose result was taken")
    return lines


def state_text(trial: TrialRecord) -> str:
    """Return a trial's state in words, with what is special about it."""
    if trial.state is TrialState.COMPLETE and not trial.is_feasible:
        return "infeasible"
    if trial.same_as is not None and trial.state.is_ended:
        return f"{trial.state} (reused)"
    return f"{trial.state} (audited)" if trial.is_audited else str(trial.state)


def values_text(trial: TrialRecord, count: int) -> list[str]:
    """Return the trial's results, one for each of `count` metrics."""
    values = trial.values or (() if trial.value is None else (trial.value,))
    return [number(value) for value in values[:count]] + [""] * (count - len(values))


def metric_names(record: SweepRecord) -> list[str]:
    """Return the names of the sweep's metrics, in order."""
    metrics = record.created.get("metrics") or [{"name": record.created.get("metric", "value")}]
    return [str(metric["name"]) for metric in metrics]


def ranked_rows(record: SweepRecord) -> list[tuple[int | None, TrialRecord]]:
    """Return all trials: the complete ones with their rank, then pruned, failed and unfinished ones."""
    ranked = record.ranked()
    rest = [trial for trial in record.trials.values() if trial.state is not TrialState.COMPLETE]
    order = list(STYLES)
    rest.sort(key=lambda trial: (order.index(trial.state), trial.number))
    return [*enumerate(ranked, 1), *((None, trial) for trial in rest)]


def event_line(event: Event, record: SweepRecord) -> Text | None:
    """Return the line that tells of an event, or `None` where it concerns nobody."""
    match event["event"]:
        case "told" | "requeued" if event["number"] in record.trials:
            return _outcome(event, record)
        case "paused":
            return Text("paused: no new trials start", style="bold yellow")
        case "unpaused":
            return Text("going on", style="bold")
    return None


def _outcome(event: Event, record: SweepRecord) -> Text:
    """Return the line for a trial that has just ended."""
    trial = record.trials[event["number"]]
    total = f"/{record.trials_expected}" if record.trials_expected else ""
    line = Text(f"[{record.ended}{total}] ", style="dim")
    line.append(f"trial {trial.number} ")
    word = "to be run again" if event["event"] == "requeued" else state_text(trial)
    line.append(word, style=STYLES[trial.state])
    names = metric_names(record)
    values = [] if event["event"] == "requeued" else values_text(trial, len(names))
    for name, value in zip(names, values, strict=False):
        line.append(f"  {clean(name)} {value}" if value else "")
    if trial.value is not None and trial.spread is not None:
        line.append(f" ± {number(trial.spread)}")
    if trial.state is TrialState.PRUNED and trial.value is not None and trial.last_report is not None:
        line.append(f" at step {trial.last_report[0]}")
    if trial.duration_s is not None:
        line.append(f"  {duration(trial.duration_s)}", style="dim")
    if reason := event.get("reason") or trial.reason:
        line.append(f"  {clean(str(reason))}")
    line.append(f"  {params_text(trial.params)}", style="dim")
    if record.best is trial:
        line.append("  best so far", style="bold green")
    return line


def _ending(reason: str, running: int, grace_s: float) -> Text:
    """Return the line that says why no more trials start, and what is being waited for."""
    words = {
        "timeout": "time is up",
        "budget": "the budget is spent",
        "failing": "the first trials all failed in the same way",
        "converged": "no further improvement is to be expected",
        "target": "the target is reached",
        "exhausted": "the whole space is tried",
    }
    line = Text(words.get(reason, "stopping"), style="bold yellow")
    if running:
        line.append(
            f": {running} running trials are asked to stop and have {duration(grace_s)} for it", style="default"
        )
        if reason == "stopped":
            line.append("; Ctrl-C once more kills them", style="default")
    return line


def print_line(console: Console, line: Text) -> None:
    """Print text that may be longer than the terminal is wide."""
    console.print(line, soft_wrap=True)
