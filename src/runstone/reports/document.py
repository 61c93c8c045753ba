"""One HTML file that needs nothing beside it and no network: style, script and plotly.js are in it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files

from runstone.reports.pieces import color_variables, error, text


def document(title: str, body: str) -> str:
    """Return the whole page.

    plotly.js is put in once, from the installed package, and only where the body has a figure. Only these scripts may
    run, and nothing may be loaded: the page's content security policy names their hashes.

    Args:
        title: Of the window.
        body: HTML.
    """
    scripts: list[str] = []
    if 'class="rs-figure"' in body:
        plotly = _plotly_js()
        if plotly is None:
            body = error("Figures are missing.", "They take plotly: pip install 'runstone[plots]'") + body
        else:
            scripts = [plotly, asset("page.js")]
    hashes = " ".join(_hash(script) for script in scripts) or "'none'"
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    told = "\n".join(f"<script>{script}</script>" for script in scripts)
    written = f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by Runstone."
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{color_variables()}{asset("page.css")}</style>
</head>
<body>
<main class="rs-report">
{body}
<footer>{written}</footer>
</main>
{told}
</body>
</html>
"""


def asset(name: str) -> str:
    """Return one of the files beside this module."""
    return files("runstone.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _plotly_js() -> str | None:
    try:
        from plotly.offline import get_plotlyjs  # 5 MB of text, only for pages with figures
    except ImportError:
        return None
    script: str = get_plotlyjs()
    # What the browser hashes ends where the element does, and has line feeds alone.
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")
