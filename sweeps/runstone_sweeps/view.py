"""What a terminal shows of a sweep: while it runs, and when it is done. Changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runstone_sweeps.journal import Event
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.verdict import failure_key

if TYPE_CHECKING:
    from runstone_sweeps.runner import RunningTrial
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder

STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAILED: "red",
    TrialState.RUNNING: "cyan",
    TrialState.WAITING: "dim",
}
_REDRAW_S = 0.25


class LineView:
    """One line for each trial that ends: for logs, pipes and CI."""

    def __init__(self, console: Console, folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> None:
        self._console = console
        self._spec = spec
        print_line(console, headline(folder, record, spec))

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Print what concerns the user."""
        if event["event"] in ("told", "requeued"):
            print_line(self._console, _outcome(event, record, self._spec))

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Print what is being waited for."""
        print_line(self._console, _ending(reason, running, grace_s))

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Print nothing between events."""

    def close(self) -> None:
        """Leave what was printed."""


class LiveView:
    """A table that follows the running trials, above it what has ended. Redrawn by the coordinator's own thread."""

    def __init__(self, console: Console, folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> None:
        self._console = console
        self._spec = spec
        self._next_s = 0.0
        self._ended_s: list[float] = []
        self._start_s = time.monotonic()
        self._ended_before = record.ended
        print_line(console, headline(folder, record, spec))
        # A thread that redraws would be one more in a process that must stay simple.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Print the outcome of a trial above the table."""
        if event["event"] in ("told", "requeued"):
            print_line(self._console, _outcome(event, record, self._spec))
            self._next_s = 0.0

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        """Print what is being waited for, above the table."""
        print_line(self._console, _ending(reason, running, grace_s))

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None:
        """Redraw, four times a second at most."""
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + _REDRAW_S
        self._live.update(self._draw(record, running, now), refresh=True)

    def close(self) -> None:
        """Take the table away."""
        self._live.stop()

    def _draw(self, record: SweepRecord, running: Sequence[RunningTrial], now: float) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("trial", "step", self._spec.metric.name, "time", "params"):
            table.add_column(Text(clean(column)), no_wrap=True, overflow="ellipsis")
        for entry in sorted(running, key=lambda entry: entry.trial.number):
            step, value = entry.last or ("", None)
            seconds = duration(now - entry.started_s)
            mark = {"prune": " pruning", "stop": " stopping", "trial_timeout": " timed out"}.get(entry.cause or "", "")
            table.add_row(
                Text(f"{entry.trial.number}{mark}", style="cyan"),
                str(step),
                number(value),
                seconds,
                Text(params_text(entry.trial.params), style="dim"),
            )
        return Group(table, self._progress(record, now))

    def _progress(self, record: SweepRecord, now: float) -> Text:
        ended, total = record.ended, self._spec.trials
        line = Text(f"{ended}/{total} trials" if total else f"{ended} trials", style="bold")
        for state, count in sorted(record.counts.items()):
            if state.is_ended:
                line.append(f"  {count} {state}", style=STYLES[state])
        if (best := record.best) is not None:
            line.append(f"   best {number(best.value)} (trial {best.number})", style="bold green")
        done = ended - self._ended_before
        left_s = (now - self._start_s) / done * (total - ended) if done and total else None
        if self._spec.timeout_s is not None:
            until_s = max(0.0, self._spec.timeout_s - record.active_s)
            left_s = until_s if left_s is None else min(left_s, until_s)
        if left_s is not None:
            line.append(f"   about {duration(left_s)} left", style="dim")
        return line


def headline(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> Text:
    """Return the line that says what is about to run."""
    how_many = f"{spec.trials} trials" if spec.trials else f"trials for {duration(spec.timeout_s or 0)}"
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}\n", style="dim")
    line.append(f"{how_many}, {spec.parallel} at once; {spec.metric.goal} {clean(spec.metric.name)}; ")
    line.append(f"sampler {spec.sampler.name}, pruner {spec.pruner.name}")
    return line


def leaderboard(record: SweepRecord, *, limit: int, hidden: Mapping[str, Any]) -> Table:
    """Return the ranked table: complete trials from the best, then the others.

    Args:
        record: The sweep.
        limit: Rows at most.
        hidden: Parameters that are the same for every trial.
    """
    names = [name for name in next(iter(record.trials.values())).params if name not in hidden] if record.trials else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rank", "trial", "state"):
        table.add_column(column, no_wrap=True)
    for column in (str(record.created.get("metric", "value")), "time", *names, "run"):
        table.add_column(Text(clean(column)), overflow="fold")
    for rank, trial in ranked_rows(record)[:limit]:
        table.add_row(
            "" if rank is None else str(rank),
            str(trial.number),
            Text(str(trial.state), style=STYLES[trial.state]),
            number(trial.value),
            duration(trial.duration_s) if trial.duration_s is not None else "",
            *(Text(value_text(trial.params.get(name))) for name in names),
            Text(trial.run_id[-8:], style="dim"),
        )
    return table


def ranked_rows(record: SweepRecord) -> list[tuple[int | None, TrialRecord]]:
    """Return all trials: the complete ones with their rank, then pruned, failed and unfinished ones."""
    ranked = record.ranked()
    rest = [trial for trial in record.trials.values() if trial.state is not TrialState.COMPLETE]
    order = list(STYLES)
    rest.sort(key=lambda trial: (order.index(trial.state), trial.number))
    return [*enumerate(ranked, 1), *((None, trial) for trial in rest)]


def counts_text(record: SweepRecord) -> str:
    """Return `9 complete, 3 pruned`."""
    counts = record.counts
    return ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state]) or "no trials yet"


def failure_lines(record: SweepRecord) -> list[Text]:
    """Return one line for each kind of failure, the most frequent first."""
    groups: dict[str, list[TrialRecord]] = {}
    for reason, trials in record.failures():
        groups.setdefault(failure_key(reason), []).extend(trials)
    lines = []
    for trials in sorted(groups.values(), key=lambda group: -len(group)):
        numbers = ", ".join(str(trial.number) for trial in trials[:8]) + (", …" if len(trials) > 8 else "")
        which = f"trial {numbers}" if len(trials) == 1 else f"{len(trials)} trials ({numbers})"
        lines.append(Text(f"failed: {which}: {clean(trials[0].reason or 'for no known reason')}", style="red"))
    return lines


def _outcome(event: Event, record: SweepRecord, spec: SweepSpec) -> Text:
    """Return the line for a trial that has just ended."""
    trial = record.trials[event["number"]]
    total = f"/{spec.trials}" if spec.trials else ""
    line = Text(f"[{record.ended}{total}] ", style="dim")
    line.append(f"trial {trial.number} ")
    word = "to be run again" if trial.state is TrialState.WAITING else str(trial.state)
    line.append(word, style=STYLES[trial.state])
    if trial.value is not None:
        line.append(f"  {clean(spec.metric.name)} {number(trial.value)}")
        if trial.state is TrialState.PRUNED and trial.last_report is not None:
            line.append(f" at step {trial.last_report[0]}")
    if trial.duration_s is not None:
        line.append(f"  {duration(trial.duration_s)}", style="dim")
    if trial.reason:
        line.append(f"  {clean(trial.reason)}")
    line.append(f"  {params_text(trial.params)}", style="dim")
    if record.best is trial:
        line.append("  best so far", style="bold green")
    return line


def _ending(reason: str, running: int, grace_s: float) -> Text:
    """Return the line that says why no more trials start, and what is being waited for."""
    words = {"timeout": "time is up", "failing": "the first trials all failed in the same way"}
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


def clean(text: str) -> str:
    """Return text without what a terminal would take as a command."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def value_text(value: Any) -> str:
    """Return a parameter's value as a table shows it."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, dict)):
        return clean(json.dumps(value, ensure_ascii=False))
    return clean(str(value))


def params_text(params: Mapping[str, Any]) -> str:
    """Return `lr=0.01 hidden=64`."""
    return " ".join(f"{clean(name)}={value_text(value)}" for name, value in params.items())


def number(value: float | None) -> str:
    """Return a value with five digits that matter."""
    return "" if value is None else f"{value:.5g}"


def duration(seconds: float) -> str:
    """Return `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
