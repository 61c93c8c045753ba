"""The program in the terminal: a list of runs, their curves above each other, and what stands of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, Input, Static
from textual_plotext import PlotextPlot

from runstone.cli._output import clean, duration
from runstone.cli._output import status as status_text
from runstone.errors import InvalidFilter, RunstoneError
from runstone.index.records import RunRecord
from runstone.runlog.reader import to_datetime
from runstone.terminal.curves import RunCurves, shared_names
from runstone.terminal.drawing import Line, Look, colour_of, draw

if TYPE_CHECKING:
    from runstone.workspace import Workspace

_POLL_S = 1.0
_LIST_S = 3.0
_MOST_LISTED = 200
_MOST_CHOSEN = 8
_MOST_PLOTS = 4


class TerminalApp(App[None]):
    """Shows runs and their curves.

    Args:
        workspace: Where they are.
        runs: Ids of the runs to show, without a list; default: a list of all.
        metrics: Which metrics to show at first.
        filter: Which runs the list shows at first.
    """

    CSS = """
    #runs { width: 34%; min-width: 24; max-width: 48; border-right: solid $panel; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    #said { height: auto; max-height: 8; padding: 0 1; }
    #message { height: 1; padding: 0 1; color: $text-muted; }
    PlotextPlot { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "choose", priority=True),
        Binding("enter", "only", "only this", priority=True),
        Binding("n", "metric(1)", "next metric"),
        Binding("p", "metric(-1)", "previous", show=False),
        Binding("l", "log", "log"),
        Binding("s", "smooth", "smooth"),
        Binding("t", "axis", "time/step"),
        Binding("y", "system", "system"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "leave_filter", show=False),
        Binding("q", "quit", "quit"),
    ]
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None

    def __init__(
        self, workspace: Workspace, *, runs: Sequence[str] = (), metrics: Sequence[str] = (), filter: str = ""
    ) -> None:
        super().__init__()
        self._workspace = workspace
        self._fixed = tuple(runs)
        self._asked = tuple(metrics)[:_MOST_PLOTS]
        self._filter = filter
        self._look = Look()
        self._records: dict[str, RunRecord] = {}
        self._curves: dict[str, RunCurves] = {}
        self._chosen: list[str] = list(runs)[:_MOST_CHOSEN]
        self._metric: str | None = None
        self._is_system = False
        self._is_busy = False
        self._listed_at = 0.0
        self._drawn: list[str] | None = None
        self._shown: list[str] = []

    # --- what is on the screen --------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Yield what is on the screen."""
        if not self._fixed:
            yield Input(placeholder="metrics.val/acc.max > 0.9 and status = 'running'", id="filter", value=self._filter)
        with Horizontal():
            if not self._fixed:
                yield DataTable[Text](id="runs", cursor_type="row", show_header=False)
            with Vertical():
                yield Vertical(PlotextPlot(), id="plots")
                yield Static(id="said")
        yield Static(id="message")
        yield Footer()

    async def on_mount(self) -> None:
        """Begin to follow."""
        self.title = "runstone"
        if not self._fixed:
            table = self.query_one("#runs", DataTable)
            table.add_column("run", key="run")
            table.focus()
        await self._refresh()
        self.set_interval(_POLL_S, self._refresh)

    async def _refresh(self) -> None:
        """Look at the files, in a thread, and show what is new."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            now = time.monotonic()
            if not self._fixed and now - self._listed_at >= _LIST_S:
                self._listed_at = now
                await self._list()
            if await asyncio.to_thread(self._poll) or self._drawn != self._chosen:
                self._drawn = list(self._chosen)
                await self._show()  # not each time: a screen costs ssh some kilobytes
            else:
                self._tell()
        finally:
            self._is_busy = False

    async def _list(self) -> None:
        try:
            found = await asyncio.to_thread(self._workspace.runs, self._filter, limit=_MOST_LISTED)
        except InvalidFilter as error:
            self._say(str(error).splitlines()[0], is_wrong=True)
            return
        except (RunstoneError, OSError) as error:
            self._say(str(error), is_wrong=True)
            return
        self._records = {record.id: record for record in found.records}
        if not self._chosen and found.records:
            self._chosen = [found.records[0].id]
        more = f" of {found.total:,}" if found.total > len(found.records) else ""
        self._say(f"{len(found.records):,}{more} runs{f'  {self._filter}' if self._filter else ''}")
        self._fill()

    def _fill(self) -> None:
        """Write the list of runs, the cursor staying at its run."""
        table = self.query_one("#runs", DataTable)
        at = self._at_cursor()
        table.clear()
        for run_id, record in self._records.items():
            line = Text("● " if run_id in self._chosen else "  ", style=self._colour(run_id))
            line.append_text(status_text(record.status, word=False))
            line.append(f" {clean(record.name)}")
            table.add_row(line, key=run_id)
        ids = list(self._records)
        if at in ids:
            table.move_cursor(row=ids.index(at), animate=False)

    def _poll(self) -> bool:
        """Read what came since; return whether something did."""
        is_new = False
        for run_id in list(self._chosen):
            if run_id not in self._curves:
                path = self._folder(run_id)
                if path is None:
                    continue
                self._curves[run_id] = RunCurves(path)
            try:
                is_new = self._curves[run_id].poll() or is_new
            except (RunstoneError, OSError, ValueError) as error:
                self.call_from_thread(self._say, f"{run_id[-8:]}: {error}", is_wrong=True)
        return is_new

    def _folder(self, run_id: str) -> Path | None:
        record = self._records.get(run_id)
        if record is not None:
            return self._workspace.path / "runs" / record.folder
        return self._workspace.find_run_folder(run_id)

    async def _show(self) -> None:
        runs = [self._curves[run_id] for run_id in self._chosen if run_id in self._curves]
        names = shared_names(runs, system=self._is_system)
        if self._metric not in names:
            self._metric = names[0] if names else None
        shown = self._shown_metrics(names)
        plots = self.query_one("#plots", Vertical)
        there = list(plots.query(PlotextPlot))
        for _ in range(len(there), max(1, len(shown))):
            await plots.mount(PlotextPlot())
        for extra in there[max(1, len(shown)) :]:
            await extra.remove()
        for plot, name in zip(plots.query(PlotextPlot), shown or [""], strict=False):
            draw(plot.plt, clean(name) or "no metrics yet", self._lines(name), self._look, max(10, plot.size.width))
            plot.refresh()
        self._shown = shown
        self._tell()

    def _tell(self) -> None:
        self.query_one("#said", Static).update(self._said(self._shown))

    def _shown_metrics(self, names: Sequence[str]) -> list[str]:
        asked = [name for name in self._asked if name in names]
        if asked and self._metric in asked:
            return asked
        return [self._metric] if self._metric is not None else []

    def _lines(self, metric: str) -> list[Line]:
        lines = []
        for place, run_id in enumerate(self._chosen):
            curve = self._curves[run_id].curve(metric) if run_id in self._curves else None
            if curve is not None:
                lines.append(Line(self._called(run_id), curve, place))
        return lines

    def _said(self, metrics: Sequence[str]) -> Text:
        """Return what stands of the runs that were chosen, a line each."""
        lines = []
        for run_id in self._chosen:
            run = self._curves.get(run_id)
            if run is None:
                continue
            journal = run.journal
            end = to_datetime(journal.ended_at) if journal.ended_at is not None else datetime.now(UTC)
            line = Text("● ", style=self._colour(run_id))
            line.append(f"{self._called(run_id)} ")
            line.append_text(status_text(journal.status))
            line.append(f" {duration(max(0.0, (end - to_datetime(journal.created_at)).total_seconds()))}")
            for metric in metrics:
                curve = run.curve(metric)
                if curve is not None and len(curve.value):
                    step = f" @{curve.step[-1]:.0f}" if len(metrics) == 1 else ""
                    line.append(f"  {curve.last:.5g}{step}", style="bold")
                    if len(metrics) == 1:
                        line.append(f"  {curve.value.min():.4g} … {curve.value.max():.4g}", style="dim")
                if curve is not None and curve.nan_count:
                    line.append(f"  {curve.nan_count:,} nan", style="yellow")
            line.no_wrap = True
            line.overflow = "ellipsis"
            lines.append(line)
        look = self._look
        facts = [f"smoothing {look.smoothing:g}" if look.smoothing else "", "log" if look.is_log else ""]
        return Text("\n").join(lines) if lines else Text(" ".join(filter(None, facts)), style="dim")

    def _called(self, run_id: str) -> str:
        run = self._curves.get(run_id)
        return clean(run.journal.name if run is not None and run.journal.name else run_id)

    def _colour(self, run_id: str) -> str:
        return colour_of(self._chosen.index(run_id)) if run_id in self._chosen else "dim"

    def _say(self, text: str, *, is_wrong: bool = False) -> None:
        self.query_one("#message", Static).update(Text(clean(text), style="red" if is_wrong else "dim"))

    # --- what the user does -----------------------------------------------------------------------------------------

    def _at_cursor(self) -> str | None:
        if self._fixed:
            return None
        table = self.query_one("#runs", DataTable)
        if not table.row_count:
            return None
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave keys to the filter while it is written."""
        if action in ("choose", "only"):
            return not self._fixed and isinstance(self.focused, DataTable)
        if action == "filter":
            return not self._fixed
        return True

    async def action_choose(self) -> None:
        """Show the run under the cursor with the others, or leave it out."""
        run_id = self._at_cursor()
        if run_id is None:
            return
        if run_id in self._chosen:
            self._chosen.remove(run_id)
        elif len(self._chosen) < _MOST_CHOSEN:
            self._chosen.append(run_id)
        else:
            self._say(f"at most {_MOST_CHOSEN} runs at once", is_wrong=True)
            return
        self._fill()
        await self._refresh()

    async def action_only(self) -> None:
        """Show the run under the cursor alone."""
        run_id = self._at_cursor()
        if run_id is not None:
            self._chosen = [run_id]
            self._fill()
            await self._refresh()

    async def action_metric(self, by: int) -> None:
        """Show the next metric, or the one before."""
        runs = [self._curves[run_id] for run_id in self._chosen if run_id in self._curves]
        names = shared_names(runs, system=self._is_system)
        if names:
            place = names.index(self._metric) if self._metric in names else -1
            self._metric = names[(place + by) % len(names)]
            await self._show()

    async def action_log(self) -> None:
        """Draw logarithms, or the values."""
        await self._draw_as(replace(self._look, is_log=not self._look.is_log))

    async def action_smooth(self) -> None:
        """Draw smoother, or as it is."""
        look = self._look.next_smoothing()
        self._say(f"smoothing {look.smoothing:g}")
        await self._draw_as(look)

    async def action_axis(self) -> None:
        """Draw against steps, or seconds."""
        await self._draw_as(replace(self._look, axis="step" if self._look.axis == "time" else "time"))

    async def action_system(self) -> None:
        """Show metrics of the system, or of the run."""
        self._is_system = not self._is_system
        self._metric = None
        await self._show()

    async def _draw_as(self, look: Look) -> None:
        self._look = look
        await self._show()

    def action_filter(self) -> None:
        """Write a filter."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def action_leave_filter(self) -> None:
        """Go back to the list."""
        if not self._fixed:
            self.query_one("#filter", Input).remove_class("shown")
            self.query_one("#runs", DataTable).focus()

    @on(Input.Submitted, "#filter")
    async def filter_by(self, event: Input.Submitted) -> None:
        """Show the runs that the filter describes."""
        self._filter = event.value.strip()
        self._listed_at = 0.0
        self.action_leave_filter()
        await self._refresh()
