"""Reports: Markdown with live blocks, as one HTML file that needs nothing beside it, or as a part of the page."""

from __future__ import annotations

from pathlib import Path

from runstone.comparison import Comparison
from runstone.reports.blocks import KINDS, render_block
from runstone.reports.comparing import comparison_html
from runstone.reports.document import document
from runstone.reports.markdown import title_of, to_html
from runstone.reports.pieces import text as _escaped
from runstone.reports.store import Reports, StoredReport, read_text
from runstone.workspace import Workspace

__all__ = [
    "KINDS",
    "TEMPLATE",
    "Reports",
    "StoredReport",
    "comparison_page",
    "read_text",
    "render_fragment",
    "render_page",
    "title_of",
]

TEMPLATE = """# {name}

What was asked, what was done, what came out.

```runs
limit: 20
```
"""
"""What a new report begins with."""


def render_fragment(workspace: Workspace, text: str, *, theme: str | None = "light", folder: Path | None = None) -> str:
    """Return a report as HTML to be put into a page, without any script that runs.

    A figure is a `div.rs-figure` with what plotly takes in a `script` of type `application/json`, and an empty
    `div.rs-drawn` to draw into, as `page.js` does. All text is escaped; a block that cannot be shown says why in a
    `div.rs-error`.

    Args:
        workspace: What live blocks read.
        text: Markdown; raw HTML in it is shown as text.
        theme: Colours of figures: `light`, `dark`, or `None`: names of CSS variables such as `--run-3`.
        folder: Where the report lies: pictures in it become part of the HTML.

    Raises:
        InvalidConfig: markdown-it-py is not installed.
    """
    return to_html(
        text, kinds=KINDS, block=lambda kind, inner: render_block(workspace, kind, inner, theme), folder=folder
    )


def render_page(workspace: Workspace, text: str, *, title: str = "", folder: Path | None = None) -> str:
    """Return a report as one HTML file that needs no network; it is light or dark as the system is.

    Args:
        workspace: What live blocks read.
        text: Markdown.
        title: Of the window; default: the first heading.
        folder: Where the report lies.

    Raises:
        InvalidConfig: markdown-it-py is not installed.
    """
    body = render_fragment(workspace, text, theme=None, folder=folder)
    return document(title or title_of(text) or "Report", body)


def comparison_page(found: Comparison) -> str:
    """Return a comparison as one HTML file that needs no network."""
    names = ", ".join(member.name for member in found.members[:4]) + (", …" if len(found.members) > 4 else "")
    title = f"Comparison of {len(found.members):,} runs"
    body = f"<h1>{_escaped(title)}</h1>\n<p>{_escaped(names)}</p>\n{comparison_html(found, None)}"
    return document(title, body)
