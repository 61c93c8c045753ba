"""`runstone console`: what a run printed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import click

from runstone.cli._output import clean, is_terminal, say
from runstone.cli.main import workspace_of, workspace_option
from runstone.console import ConsoleLine, ConsoleTail, console_lines
from runstone.runlog.reader import read_journal

_POLL_S = 0.2
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")


@click.command("console")
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="NUMBER", help="Only so many lines of the end.")
@click.option("-T", "--times", is_flag=True, help="Begin each line with when it was written (UTC).")
@click.option("--errors", is_flag=True, help="Only what was written to standard error.")
@workspace_option
@click.pass_context
def console_command(ctx: click.Context, run: str, follow: bool, lines: int | None, times: bool, errors: bool) -> None:
    """Show what RUN printed: an id, its last 8 characters as lists show them, or a name.

    Of a progress bar the last state is kept. What `runstone run` started and the trials of sweeps are kept.
    """
    info = workspace_of(ctx).run(run)
    if follow:
        tail = ConsoleTail(info.path)
        first = True
        while True:
            is_ended = read_journal(info.path).status.is_ended  # before the poll: what came until then is in it
            new = tail.poll(is_ended=is_ended)
            if first and lines is not None:
                new = new[len(new) - min(lines, len(new)) :]
            first = False
            _print(new, times=times, errors=errors)
            if is_ended:
                return
            time.sleep(_POLL_S)
    kept = [line for line in console_lines(info.path) if not errors or line.stream == 2]
    if not kept:
        say(f"nothing that {clean(info.name)} printed was kept", stderr=True)
    _print(kept if lines is None else kept[len(kept) - min(lines, len(kept)) :], times=times, errors=False)


def _print(lines: Iterable[ConsoleLine], *, times: bool, errors: bool) -> None:
    has_colours = is_terminal()
    for line in lines:
        if errors and line.stream != 2:
            continue
        begin = ""
        if times:
            at = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if line.at else " " * 23
            begin = f"{at}  "
        say(f"{begin}{_shown(line.text, has_colours=has_colours)}")


def _shown(text: str, *, has_colours: bool) -> str:
    """Return a line that can do nothing to a terminal but colour it."""
    if not has_colours:
        return _SEQUENCE.sub("", text)
    parts = _COLOUR.split(text)
    shown = "".join(
        part if place % 2 else clean(_SEQUENCE.sub("", part), lines=True) for place, part in enumerate(parts)
    )
    return shown + ("\x1b[0m" if len(parts) > 1 else "")
