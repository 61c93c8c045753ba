"""A page that shows lineage and needs nothing else: no script, no font, no connection."""

from __future__ import annotations

from html import escape

from runstone.lineage.drawing import to_svg
from runstone.lineage.graph import Lineage
from runstone.lineage.tree import to_tree

STYLE = (
    ":root{color-scheme:light dark;--ink:#1b1f24;--soft:#68717c;--box:#fff;--line:#c3c9d0;--bad:#c62828;--back:#f6f7f9}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--box:#20252b;--line:#48515b;--bad:#ff8a80;"
    "--back:#15181c}}"
    "body{margin:0;padding:24px 32px;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}"
    "h1{font-size:20px;margin:0 0 12px}h2{font-size:16px;margin:28px 0 8px}"
    ".scroll{overflow:auto}pre{font:12.5px/1.5 ui-monospace,monospace;overflow:auto}"
    ".warning{border:1px solid var(--bad);border-radius:8px;padding:8px 14px;color:var(--bad)}"
)


def to_html(found: Lineage) -> str:
    """Return the page."""
    root = found.nodes[found.root]
    revoked = "".join(
        f"<p class=warning>Revoked: <b>{_text(key)}</b>: {_text(reason)}</p>" for key, reason in found.revoked.items()
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Lineage of {_text(root.label)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>Lineage of {_text(found.root)}</h1>{revoked}\n<div class=scroll>{to_svg(found)}</div>\n"
        f"<h2>As text</h2><pre>{_text(to_tree(found))}</pre>\n</body></html>\n"
    )


def _text(text: str) -> str:
    return escape("".join(c if c.isprintable() or c == "\n" else "·" for c in text))
