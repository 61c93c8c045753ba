"""Safety of the modules, and what happens when things go wrong: criteria 37 to 40."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import runstone
from tests.page.acting import Proxy, chart, rows, until
from tests.page.seeding import HOSTILE, seed_usual

STATIC = Path(runstone.__file__).parent / "server" / "static"
MODULES = sorted(path for path in STATIC.rglob("*.js"))
PURE = [
    "core/colour.js",
    "core/format.js",
    "core/pattern.js",
    "core/store.js",
    "chart/scale.js",
    "chart/ticks.js",
    "chart/series.js",
    "chart/reduce.js",
    "chart/layout.js",
    "chart/groups.js",
    "pages/lineage_layout.js",
    "pages/figure_data.js",
    "pages/steps.js",
    "pages/compare_rows.js",
    "pages/artifact_tree.js",
    "pages/python.js",
    "table/columns.js",
]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_c40_modules_are_short_and_make_no_markup_of_text(module: Path) -> None:
    text = module.read_text("utf-8")
    assert len(text.splitlines()) <= 500
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_c40_pure_modules_run_without_a_browser(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed; the page needs none, only this test does")
    copied = tmp_path / "static"
    shutil.copytree(STATIC, copied)
    (copied / "package.json").write_text('{"type": "module"}')
    tests = Path(__file__).with_name("pure.test.mjs")
    found = subprocess.run(
        [node, "--test", str(tests)],
        env={"STATIC": str(copied), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    for name in PURE:
        assert f"/{name}" in tests.read_text("utf-8"), f"{name} has no test"


def test_c37_the_server_goes_and_comes_back(tmp_path: Path, serve: Any, look: Any) -> None:
    path = tmp_path / "w"
    seed_usual(path, runs=3, steps=20)
    server = serve(path)
    page = look(server, "?project=digits&filter=params.seed+<+9")
    page.excused += ["ERR_CONNECTION", "net::", "401"]
    chart(page, "epoch")
    server.end(signal.SIGKILL)
    banner = page.locator(".banner-text")
    until(lambda: banner.is_visible(), "a banner tells of it", 15)
    assert len(rows(page)) == 3, "what was there stays"
    again = serve(path, server.port)
    # whoever is let in again needs no reload
    page.context.request.get(again.open_url())
    until(lambda: not banner.is_visible(), "the banner goes", 20)
    with runstone.start_run(
        project="digits", name="after", params={"seed": 1}, workspace=path, environment=False
    ) as run:
        run.log({"epoch": 1.0})
    until(lambda: "after" in rows(page), "what came since is there", 20)


def test_c37_an_empty_workspace_says_what_to_do(tmp_path: Path, serve: Any, look: Any) -> None:
    with runstone.start_run(project="p", workspace=tmp_path / "w", environment=False) as run:
        pass
    workspace = runstone.open_workspace(tmp_path / "w")
    workspace.edit([run.id], deleted=True)
    page = look(serve(tmp_path / "w"), "?")
    assert page.get_by_text("runstone.start_run").first.wait_for() is None
    page.goto(page.url.partition("?")[0] + "?filter=name+%3D+'none'")
    page.get_by_text("No run fits").wait_for()


def test_c38_hostile_names_are_text(look: Any, usual: Any) -> None:
    page = look(usual, "?project=strange&columns=tags.owner")
    until(lambda: HOSTILE in rows(page), "the name is shown as it is")
    assert page.title().endswith("Runstone")
    run = next(
        run for run in runstone.open_workspace(usual.workspace).runs("project = 'strange'") if run.name == HOSTILE
    )
    for tab in ("", "charts", "params", "metrics"):
        page.goto(usual.url + f"?page=run&run={run.id}&tab={tab}")
        page.get_by_role("heading", name=HOSTILE).wait_for()
        until(lambda: page.locator(".loading").count() == 0, "it is there")
        assert page.locator(".main script, .main img[src=x], .main u").count() == 0
    assert page.title() != "broken"


def test_c39_the_page_works_below_a_prefix(usual: Any, browser: Any, look: Any) -> None:
    look(usual, "?")  # so that there is a session
    proxy = Proxy(usual.port)
    try:
        context = browser.new_context(storage_state=usual.cookies)
        page = context.new_page()
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and troubles.append(f"{answer.status} {answer.url}"))
        page.goto(f"http://127.0.0.1:{proxy.port}/proxy/6006/?project=digits")
        chart(page, "val/acc")
        until(lambda: len(rows(page)) == 12, "all rows")
        assert not troubles
        context.close()
    finally:
        proxy.close()
