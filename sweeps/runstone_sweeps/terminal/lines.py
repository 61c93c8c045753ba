"""A sweep in lines for a terminal: its headline, the outcome of a trial, the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.journal import Event
from runstone_sweeps.results.standings import goals_text, metric_names, ranked_rows, state_text, values_text
from runstone_sweeps.results.text import at_once, clean, duration, number, params_text, value_text
from runstone_sweeps.terminal.panel import STYLES

if TYPE_CHECKING:
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder


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


def ending_line(reason: str, running: int, grace_s: float) -> Text:
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
