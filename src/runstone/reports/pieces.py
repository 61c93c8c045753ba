"""Pieces of HTML: tables, figures, notes. All text of users passes through `text`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runstone.figures import Figure
from runstone.figures.theme import COLORS, run_color


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What it says.
        is_number: Whether it stands at the right.
        kind: A class of the style sheet, such as `rs-better`.
        chip: Name of a colour that is shown before the text.
        title: What is shown over it.
    """

    text: str
    is_number: bool = False
    kind: str = ""
    chip: str = ""
    title: str = ""


def text(value: object) -> str:
    """Return text as HTML that is nothing but text; what cannot be printed becomes a dot."""
    told = str(value)
    if not told.isprintable():
        told = "".join(c if c.isprintable() or c == "\n" else "·" for c in told)
    return html.escape(told)


def table(headers: Sequence[str | Cell], rows: Iterable[Sequence[str | Cell]]) -> str:
    """Return a table that scrolls where it is too wide; the first cell of a row is its head."""
    head = "".join(_cell(header, "th", 'scope="col"') for header in headers)
    body = "".join(
        "<tr>"
        + "".join(
            _cell(cell, "th" if not place else "td", 'scope="row"' if not place else "")
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="rs-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: str | Cell, tag: str, attributes: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    kinds = " ".join(
        kind for kind in (cell.kind, "num" if cell.is_number else "", "rs-whole" if cell.chip else "") if kind
    )
    attributes += f' class="{kinds}"' if kinds else ""
    attributes += f' title="{text(cell.title)}"' if cell.title else ""
    chip = f'<span class="rs-chip" style="background:var({cell.chip})"></span>' if cell.chip else ""
    return f"<{tag} {attributes.strip()}>".replace(" >", ">") + f"{chip}{text(cell.text)}</{tag}>"


def run_cell(run_id: str, name: str) -> Cell:
    """Return the cell of a run or group: its name after its colour."""
    return Cell(name, chip=run_color(run_id), title=run_id)


def card(*parts: str, kind: str = "") -> str:
    """Return parts in a frame."""
    return f'<section class="rs-card{f" {kind}" if kind else ""}">{"".join(parts)}</section>'


def heading(title: str, level: int = 3) -> str:
    """Return a heading."""
    return f"<h{level}>{text(title)}</h{level}>"


def note(said: str) -> str:
    """Return what is to be known, in small print."""
    return f'<p class="rs-note">{text(said)}</p>' if said else ""


def error(title: str, said: str) -> str:
    """Return what went wrong."""
    return f'<div class="rs-error"><b>{text(title)}</b> {text(said)}</div>'


def figure(drawn: Figure, theme: str | None, *, level: int = 3) -> str:
    """Return the place of a figure with what plotly takes inside; `page.js` draws it."""
    kind = "rs-wide" if drawn.is_wide else ""
    if drawn.reason:
        return card(heading(drawn.title, level), f"<p>{text(drawn.reason)}</p>", kind=kind)
    place = (
        f'<div class="rs-figure" role="img" aria-label="{text(drawn.title)}">'
        f'<script type="application/json">{script_json(drawn.to_dict(theme))}</script>'
        f'<div class="rs-drawn" style="height:{drawn.height}px"></div></div>'
    )
    return card(heading(drawn.title, level), place, note(drawn.note), kind=kind)


def figures(drawn: Sequence[Figure], theme: str | None) -> str:
    """Return figures side by side, wide ones below each other."""
    if not drawn:
        return ""
    pieces, is_left_free = [], True
    for place, one in enumerate(drawn):
        is_last_of_row = place + 1 == len(drawn) or drawn[place + 1].is_wide
        if not one.is_wide and is_left_free and is_last_of_row:
            one = replace(one, is_wide=True)  # nothing stands beside it
        is_left_free = one.is_wide or not is_left_free
        pieces.append(figure(one, theme))
    return f'<div class="rs-figures">{"".join(pieces)}</div>'


def script_json(value: Any) -> str:
    """Return JSON that no HTML parser takes for the end of its element."""
    told = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def color_variables() -> str:
    """Return the colours of figures as CSS variables, dark ones where the system is dark; paper is light."""
    light, dark = (";".join(f"{name}:{value}" for name, value in COLORS[theme].items()) for theme in ("light", "dark"))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
