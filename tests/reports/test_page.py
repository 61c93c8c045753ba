"""A report in a browser without a network: drawn, dark and light, zoomed, printed. Criterion 35 of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.comparison import compare
from runstone.figures import color
from runstone.reports import render_page

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("plotly")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
REPORT = """# Report

```plot
metric: val/acc
runs: [run-0, run-1]
```
```plot
kind: parallel
metric: val/acc.max
```
```runs
```
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


def opened(browser: Any, path: Path, scheme: str = "light") -> tuple[Any, list[str]]:
    context = browser.new_context(
        viewport={"width": 1200, "height": 900}, color_scheme=scheme, offline=True, reduced_motion="reduce"
    )
    page = context.new_page()
    bad: list[str] = []
    page.on("pageerror", lambda error: bad.append(str(error)))
    page.on("console", lambda said: bad.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: (bad.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda sent: None if sent.url.startswith(("file:", "data:", "blob:")) else bad.append(sent.url))
    page.goto(path.as_uri())
    figures = page.locator(".rs-figure")
    for place in range(figures.count()):
        playwright.expect(figures.nth(place)).to_have_attribute("data-state", "ready", timeout=60_000)
    return page, bad


def test_a_report_is_drawn_zoomed_and_printed_without_a_network(
    workspace: runstone.Workspace, tmp_path: Path, browser: Any
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_page(workspace, REPORT))
    page, bad = opened(browser, path)
    first = page.locator(".rs-figure").first
    assert first.locator(".scatterlayer .trace").count() == 2
    values = page.evaluate("Array.from(document.querySelector('.rs-drawn')._fullData[0].y)")
    expected = {name: workspace.run(name).series("val/acc").value.tolist() for name in ("run-0", "run-1")}
    assert values in expected.values()
    before = page.evaluate("document.querySelector('.rs-drawn').layout.xaxis.range")
    box = first.locator(".nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 160, steps=5)
    page.mouse.up()
    after = page.evaluate("document.querySelector('.rs-drawn').layout.xaxis.range")
    assert before[0] < after[0] < after[1] < before[1]
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert bad == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_run(
    workspace: runstone.Workspace, tmp_path: Path, browser: Any, scheme: str
) -> None:
    path = tmp_path / "page.html"
    path.write_text(compare(workspace.runs()[:2]).to_html())
    page, bad = opened(browser, path, scheme)
    drawn = page.evaluate("Array.from(document.querySelector('.rs-drawn').data, trace => trace.line.color)")
    assert drawn == [color(run.id, is_dark=scheme == "dark") for run in workspace.runs()[:2]]
    other = "light" if scheme == "dark" else "dark"
    page.emulate_media(color_scheme=other)
    expected = [color(run.id, is_dark=other == "dark") for run in workspace.runs()[:2]]
    changed: list[str] = []
    for _ in range(300):
        changed = page.evaluate("Array.from(document.querySelector('.rs-drawn').data, trace => trace.line.color)")
        if changed == expected:
            break
        page.wait_for_timeout(100)
    assert changed == expected
    assert bad == []


def test_names_that_are_markup_do_nothing(workspace: runstone.Workspace, tmp_path: Path, browser: Any) -> None:
    path = tmp_path / "page.html"
    path.write_text(compare(workspace.runs(), by="params.model", metrics=["val/acc.max", "loss.min"]).to_html())
    page, bad = opened(browser, path)
    assert page.locator("img").count() == 0
    assert bad == []
