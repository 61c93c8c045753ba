"""The picture of a running sweep, drawn from its record, no higher than the terminal. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runstone_sweeps.record import RunRecord, SweepRecord, TrialRecord, TrialState
from runstone_sweeps.record.journal import Event
from runstone_sweeps.record.usage import Usage
from runstone_sweeps.results.standings import best_so_far
from runstone_sweeps.results.text import clean, duration, energy, number, numbers_text, params_text, size, sparkline
from runstone_sweeps.spec import SweepSpec

STYLES = {
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAILED: "red",
    TrialState.RUNNING: "cyan",
    TrialState.WAITING: "dim",
}
_BAR_WIDTH = 16
_FAILURES = 3
# Narrower than this there is no room for curves beside the numbers.
_CURVE_FROM, _CURVE_WIDTH = 70, 24


@dataclass(frozen=True, slots=True)
class Row:
    """One run that is at work.

    Attributes:
        trial: Its trial.
        run: Which run of the trial.
        mark: Why it is about to end, in one word; empty where it is not.
        last: Step and value that it logged last; `None`: as the trial's record says.
    """

    trial: TrialRecord
    run: RunRecord
    mark: str = ""
    last: tuple[int, float] | None = None


def rows_of(record: SweepRecord) -> list[Row]:
    """Return the runs that are at work, as the record alone tells it."""
    return [
        Row(trial, run, "pruning" if trial.prune_step is not None and not trial.is_audited else "")
        for trial in record.trials.values()
        if trial.state is TrialState.RUNNING
        for run in trial.runs
        if run.state is TrialState.RUNNING
    ]


class Panel:
    """Draws a sweep; keeps what would be slow to find again for each picture.

    Args:
        record: The sweep as it stands.
        spec: What it searches.
    """

    def __init__(self, record: SweepRecord, spec: SweepSpec) -> None:
        self._spec = spec
        self._constants = spec.space.constants.keys()
        self._failures: tuple[int, list[Text]] = (0, [])
        self._bests = [best for _, best in best_so_far(record)]

    def on_event(self, event: Event, record: SweepRecord) -> None:
        """Take note of one event that is now part of the record."""
        if event["event"] == "told" and (best := record.best) is not None and best.value is not None:
            self._bests.append(best.value)

    def draw(
        self, record: SweepRecord, rows: Sequence[Row], *, width: int, height: int, now: float | None = None
    ) -> Group:
        """Return the picture.

        Args:
            record: The sweep as it stands.
            rows: The runs that are at work.
            width, height: Of the terminal, in characters; every line is cut, none is wrapped.
            now: Seconds since the Unix epoch; default this moment.
        """
        now = time.time() if now is None else now
        above = [self._progress(record, rows, now), *self._best(record, width), *self._budget(record, rows, now, width)]
        below = self._failure_lines(record)
        # The cursor stands on a line of its own below; the table has a head.
        room = max(0, height - 1 - len(above) - 1)
        below = below[: max(0, room - 1 - min(len(rows), 3))]
        room -= len(below)
        drawn: list[RenderableType] = []
        if rows and room:
            drawn = self._running(rows, room, width, now)
        return Group(*(above + drawn + below)[: max(1, height - 1)])

    def _running(self, rows: Sequence[Row], room: int, width: int, now: float) -> list[RenderableType]:
        rows = sorted(rows, key=lambda row: (row.trial.number, row.run.index))
        shown = rows if len(rows) <= room else rows[: max(0, room - 1)]
        has_gpus, has_hosts = any(row.run.gpus for row in rows), any(row.run.host for row in rows)
        curve_width = _CURVE_WIDTH if width >= _CURVE_FROM else 0
        columns = ["trial", "step", clean(self._spec.metric.name), *(["curve"] if curve_width else []), "time"]
        columns += [*(["gpus"] if has_gpus else []), *(["host"] if has_hosts else [])]
        lines: list[list[Text]] = [[Text(column) for column in columns]]
        for row in shown:
            trial, run = row.trial, row.run
            step, value = row.last or trial.last_report or ("", None)
            which = f"{trial.number}" + (f".{run.index}" if len(trial.runs) > 1 else "")
            cells = [Text(f"{which} {row.mark}".rstrip(), style="cyan"), Text(str(step)), Text(number(value))]
            if curve_width:
                reports = trial.reports if run.index == 0 else {}
                cells.append(Text(sparkline([reports[step] for step in sorted(reports)], curve_width), style="cyan"))
            cells.append(Text(duration(max(0.0, now - (run.started_at or now)))))
            if has_gpus:
                cells.append(Text(f"{run.gpus:g}"))
            if has_hosts:
                cells.append(Text(clean(run.host or "here")))
            lines.append(cells)
        table = _table(lines, [Text(self._params(row.trial), style="dim") for row in shown], width)
        more = len(rows) - len(shown)
        return [table, *([_line(f"… and {more} more at work", style="dim")] if more else [])]

    def _progress(self, record: SweepRecord, rows: Sequence[Row], now: float) -> Text:
        ended, total = record.ended, record.trials_expected
        line = _line(f"{ended}/{total} trials" if total else f"{ended} trials", style="bold")
        for state in STYLES:
            if state.is_ended and (count := record.counts[state]):
                line.append(f"  {count} {state}", style=STYLES[state])
        if record.is_paused:
            line.append("  paused", style="bold yellow")
        forecast = record.forecast(now_s=worked_s(record, rows, now))
        if forecast.left_s is not None and rows:
            line.append(f"   about {duration(forecast.left_s)} left", style="dim")
        if forecast.trials_per_hour is not None:
            line.append(f"   {forecast.trials_per_hour:.3g} trials an hour", style="dim")
        return line

    def _best(self, record: SweepRecord, width: int) -> list[RenderableType]:
        best = record.best
        if best is None:
            return []
        metrics = self._spec.metrics
        line = _line("best ", style="bold green")
        values = best.values or (best.value,)
        if len(metrics) > 1:
            named = (f"{clean(m.name)} {number(value)}" for m, value in zip(metrics, values, strict=False))
            line.append(", ".join(named), style="bold green")
            line.append(f" (trial {best.number}, one of {len(record.front())} on the Pareto front)")
        else:
            line.append(number(best.value), style="bold green")
            line.append(f" (trial {best.number})")
        if best.spread is not None:
            line.append(f" ± {number(best.spread)}")
        line.append(f"  {sparkline(self._history(), min(40, width // 3))}", style="green")
        gain = record.forecast().gain_per_hour
        if gain is not None:
            line.append(f"  better by {number(gain)} an hour lately", style="dim")
        return [line, _line(f"  {self._params(best)}", style="dim")]

    def _params(self, trial: TrialRecord) -> str:
        return params_text({name: value for name, value in trial.params.items() if name not in self._constants})

    def _history(self) -> Sequence[float]:
        """Return the best result after each trial; the first ones, which dwarf the rest, are cut off at the top."""
        limit = self._bests[len(self._bests) // 10]
        better = max if self._spec.metrics[0].goal == "maximize" else min
        return [better(limit, best) for best in self._bests]

    def _budget(self, record: SweepRecord, rows: Sequence[Row], now: float, width: int) -> list[RenderableType]:
        worked = worked_s(record, rows, now)
        used = record.usage
        for row in rows:
            seconds = max(0.0, now - (row.run.started_at or now))
            used = used + Usage(gpu_s=row.run.gpus * seconds, wall_s=seconds)
        amounts: list[tuple[str, float, float | None, Callable[[float], str]]] = [
            ("time", worked, record.timeout_s, duration)
        ]
        shown_as = {"gpu_hours": ("GPU hours", _plain), "energy_j": ("energy", energy), "cost": ("cost", _plain)}
        for key, spent, limit in record.spending(used):
            if spent or limit is not None:
                amounts.append((shown_as[key][0], spent, limit, shown_as[key][1]))
        parts = []
        for name, spent, limit, said in amounts:
            part = Text(f"{name} ", style="dim").append(said(spent), style="not dim")
            parts.append(part.append(f" of {said(limit)} {_bar(spent / limit)}") if limit else part)
        if used.cpu_s:
            parts.append(Text("CPU ", style="dim").append(duration(used.cpu_s), style="not dim"))
        if used.max_rss_bytes:
            parts.append(Text("memory up to ", style="dim").append(size(used.max_rss_bytes), style="not dim"))
        lines: list[RenderableType] = []
        line = _line()
        for part in parts:
            if line.cell_len and line.cell_len + 3 + part.cell_len > width:
                lines.append(line)
                line = _line()
            line.append("   " if line.cell_len else "").append_text(part)
        return [*lines, line]

    def _failure_lines(self, record: SweepRecord) -> list[RenderableType]:
        count = record.counts[TrialState.FAILED]
        if self._failures[0] != count:
            self._failures = (count, [_cut(line) for line in failure_lines(record, limit=_FAILURES)])
        return list(self._failures[1])


def failure_lines(record: SweepRecord, *, limit: int | None = None) -> list[Text]:
    """Return one line for each kind of failure, the most frequent first.

    Args:
        record: The sweep.
        limit: Lines at most; the last one then says how many there are beside.
    """
    groups = record.failures()
    shown = groups if limit is None or len(groups) <= limit else groups[: limit - 1]
    lines = []
    for reason, trials in shown:
        which = numbers_text([trial.number for trial in trials])
        lines.append(Text(f"failed: {which}: {clean(reason)}", style="red"))
    if len(shown) < len(groups):
        rest = sum(len(trials) for _, trials in groups[len(shown) :])
        lines.append(Text(f"failed: {rest} more in {len(groups) - len(shown)} other ways", style="red"))
    return lines


def worked_s(record: SweepRecord, rows: Sequence[Row], now: float) -> float:
    """Return the seconds at work by `now`, seconds since the Unix epoch; a session that has ended adds none."""
    is_idle = record.closed is not None or not record.sessions or (record.is_paused and not rows)
    return record.active_s + (0.0 if is_idle else max(0.0, now - record.last_at))


def _table(lines: Sequence[Sequence[Text]], last: Sequence[Text], width: int) -> Table:
    """Return lines as a table whose last column, the params, takes what the others leave.

    Args:
        lines: The head, and a line for each of `last`.
        last: The cells of the last column.
        width: In characters.
    """
    widths = [min(max(8, width // 3), max(cell.cell_len for cell in column)) for column in zip(*lines, strict=True)]
    left = width - sum(widths) - 2 * len(widths)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True, header_style="dim")
    for cell, cells in zip(lines[0], widths, strict=True):
        table.add_column(cell, no_wrap=True, overflow="ellipsis", width=cells)
    if left >= 8:
        table.add_column("params", no_wrap=True, overflow="ellipsis", max_width=left)
    for line, cell in zip(lines[1:], last, strict=True):
        table.add_row(*line, *([cell] if left >= 8 else []))
    return table


def _line(text: str = "", *, style: str = "") -> Text:
    line = _cut(Text())
    return line.append(text, style=style or None) if text else line


def _cut(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _bar(share: float) -> str:
    full = round(min(1.0, max(0.0, share)) * _BAR_WIDTH)
    return "█" * full + "░" * (_BAR_WIDTH - full)
