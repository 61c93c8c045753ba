"""How the command line looks: tables, colours, times and sizes for people, plain and stable text for pipes.

Everything that a user named goes through `clean`: no name can move the cursor, colour the terminal or pass for markup.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from runstone.query.table import plain
from runstone.status import Status

_STATUS = {
    Status.RUNNING: ("●", "bold cyan"),
    Status.FINISHED: ("✓", "green"),
    Status.FAILED: ("✗", "bold red"),
    Status.STOPPED: ("■", "yellow"),
    Status.PRUNED: ("✂", "magenta"),
    Status.CRASHED: ("✗", "red"),
}
# Characters that reorder or hide the text around them (bidirectional controls and the like).
_FORMATTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = {"\u200d", "\u200c"}  # emoji and several scripts need these


def console(*, stderr: bool = False) -> Console:
    """Return a console for the command's output, as wide as the terminal; plain where it is not one."""
    stream: IO[str] = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000  # a pipe has no width: nothing is cut or wrapped
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)


def show(*parts: RenderableType) -> None:
    """Print what rich can render; into a pipe without spaces at the ends of lines."""
    screen = console()
    if screen.is_terminal:
        screen.print(*parts, sep="\n")
        return
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def fitting(widths: Sequence[int], importance: Sequence[int]) -> list[int]:
    """Return the indices of the columns that fit the terminal together, the least important left out first.

    Args:
        widths: Of each column.
        importance: Of each column; 0 is always kept, and a smaller number goes before a larger one.
    """
    kept = list(range(len(widths)))
    width = console().width
    while sum(widths[index] + 2 for index in kept) - 2 > width:
        least = max(kept, key=lambda index: (importance[index], index))
        if not importance[least]:
            break
        kept.remove(least)
    return kept


def is_terminal() -> bool:
    """Return whether a person reads the output directly."""
    return sys.stdout.isatty()


def clean(text: object, *, lines: bool = False) -> str:
    """Return text that cannot steer a terminal: control and formatting characters become visible escapes.

    Args:
        text: Anything.
        lines: Whether newlines and tabs stay.
    """
    kept = "\n\t" if lines else ""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in kept or c in _JOINERS or unicodedata.category(c) not in _FORMATTING else _visible(c) for c in text
    )


def _visible(character: str) -> str:
    named = {"\n": "⏎", "\t": " ", "\r": "␍", "\x1b": "␛"}
    code = ord(character)
    if character in named:
        return named[character]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def say(text: str = "", *, stderr: bool = False, newline: bool = True) -> None:
    """Print plain text."""
    click.echo(text, err=stderr, nl=newline)


def cell(value: Any) -> Text:
    """Return a value as one line of a table."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float) and math.isnan(value):
        return Text("nan", style="yellow")
    return Text(clean(plain(value)))


def status(value: Status | str, *, word: bool = True) -> Text:
    """Return a status with its mark and colour."""
    mark, style = _STATUS[Status(value)]
    return Text(f"{mark} {Status(value).value}" if word else mark, style=style)


def short_id(run_id: str) -> str:
    """Return the end of an id, which tells runs apart; any command takes it. Short ids stay whole."""
    return run_id[-8:] if len(run_id) == 32 else run_id


def duration(seconds: float) -> str:
    """Return a duration for people: `20 ms`, `0.3 s`, `42 s`, `3 min 05 s`, `2 h 14 min`, `3 d 4 h`."""
    if seconds < 0.095:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago something was: `just now`, `3 min ago`, `5 h ago`, `2 d ago`, then the date (UTC)."""
    seconds = (now - moment).total_seconds()
    if seconds < -5:
        return f"{moment:%Y-%m-%d %H:%M}"
    if seconds < 10:
        return "just now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 3_600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3_600:.0f} h ago"
    if seconds < 7 * 86_400:
        return f"{seconds // 86_400:.0f} d ago"
    return f"{moment:%Y-%m-%d}"


def moment_text(moment: datetime | None) -> str:
    """Return a time in full: `2026-11-23 14:02:11 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "-"


def size(count: int) -> str:
    """Return a number of bytes for people: `512 B`, `1.2 MiB`."""
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return `1 run`, `1,234 runs`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(headers: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Text]], *, header: bool = True) -> Table:
    """Return a table in the product's one style.

    Args:
        headers: Titles; as a pair with `"right"` or `"fold"` for numbers and long text.
        rows: Cells.
        header: Whether to show the titles.
    """
    made = Table(
        box=box.SIMPLE_HEAD if is_terminal() else None,
        show_header=header,
        pad_edge=False,
        padding=(0, 2 if not is_terminal() else 1, 0, 0),
        header_style="bold",
        show_edge=False,
    )
    for title in headers:
        name, kind = (title, "") if isinstance(title, str) else title
        made.add_column(
            Text(clean(name)),
            justify="right" if kind == "right" else "left",
            no_wrap=kind != "fold",
            overflow="fold" if kind == "fold" else "ellipsis",
        )
    for row in rows:
        made.add_row(*row)
    return made


def width_of(text: Text | str) -> int:
    """Return how many columns of a terminal a text takes."""
    return cell_len(text.plain if isinstance(text, Text) else text)


def to_json(value: Any) -> str:
    """Return JSON that every parser reads: NaN and ±Inf, which JSON lacks, as the texts `nan`, `inf` and `-inf`."""
    # On a terminal all but ASCII is escaped: some characters would steer it.
    text = json.dumps(_jsonable(value), indent=2, ensure_ascii=is_terminal())
    return text.encode("utf-8", "replace").decode()


def _jsonable(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(key): _jsonable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_jsonable(inner) for inner in value]
        case datetime():
            return value.isoformat()
        case _:
            return value
