"""What a browser does with names, notes and files that somebody made to run code in it: S12 to S14."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from tests.page.acting import until
from tests.page.conftest import Server, browser, quiet_machine
from tests.security.conftest import Canary

__all__ = ["browser", "quiet_machine"]


def words(canary: str) -> list[str]:
    """Return what each would run, ask for, or lead to, where it is taken for markup."""
    return [
        f'<img src="{canary}img" onerror="alert(1)">',
        f'"><script src="{canary}script"></script><b x="',
        f"javascript:fetch('{canary}link')//",
        "</script><svg/onload=alert(2)>",
        f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{canary}svg"/></svg>',
        f"'-fetch(`{canary}quote`)-'",
    ]


def note(canary: str) -> str:
    """Return notes in Markdown that would run code or ask for pictures."""
    return (
        f"# Notes\n\n<script>alert(3)</script><img src={canary}raw onerror=alert(4)>\n\n"
        f"[click](javascript:alert(5)) [data](data:text/html,<script>alert(6)</script>) ![pixel]({canary}pixel)\n\n"
        f'<iframe src="{canary}frame"></iframe> <a href="{canary}" onmouseover="alert(7)">over</a>\n'
    )


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    """Somebody who listens, and whom no browser should visit."""
    made = Canary()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, canary: Canary, quiet_machine: None) -> Iterator[Server]:
    """A server over runs in which everything that has a name is hostile."""
    root = tmp_path_factory.mktemp("hostile")
    texts, folder = words(canary.url), root / "files"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}{text.replace('/', '_')[:80]}.txt").write_text(text)
    page = f"<html><body><script>document.title='ran';fetch('{canary.url}page')</script></body></html>"
    for name in ("x.html", "x.svg", "x.xml"):
        (folder / name).write_text(page)
    for number, text in enumerate(texts):
        with runstone.start_run(
            workspace=root / ".runstone", project="p" if number else text, name=text, group=text, environment=False,
            params={text: text, "n": number}, tags={text: text},
        ) as run:  # fmt: skip
            run.set_notes(note(canary.url) if number % 2 else text)
            run.log_series(text, np.arange(5), np.arange(5.0))
            run.log_text(text, text, step=0)
            run.log_artifact(folder, name=text)
    workspace = runstone.open_workspace(root / ".runstone")
    workspace.register_model("net", run.id, artifact=texts[-1])
    server = Server(workspace.path)
    yield server
    server.end()


@pytest.fixture(scope="module")
def page(hostile: Server, browser: Any) -> Iterator[Any]:
    """A page that keeps what it was asked to show, to run and to ask for."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    made = context.new_page()
    made.dialogs, made.asked = [], []
    made.on("dialog", lambda one: (made.dialogs.append(one.message), one.dismiss()))
    made.on("request", lambda one: made.asked.append(one.url))
    made.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', "
        "e => window.broken.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`))"
    )
    made.goto(hostile.open_url())
    yield made
    context.close()


def test_s12_s14_names_and_notes_are_text_on_every_page(page: Any, hostile: Server, canary: Canary) -> None:
    texts = words(canary.url)
    runs = runstone.open_workspace(hostile.workspace).runs("")
    assert len(runs) == len(texts)
    queries = ["?page=runs", "?page=runs&group_by=group", "?page=models&item=net", "?page=lineage&ref=model:net@latest"]
    for run in list(runs)[:2]:
        queries += [
            f"?page=run&run={run.id}&tab={tab}" for tab in ("", "charts", "params", "metrics", "media", "artifacts")
        ]
    queries.append("?page=compare&" + "&".join(f"run={run.id}" for run in list(runs)[:3]))
    broken: list[str] = []
    for query in queries:
        page.goto(hostile.url + query)
        page.wait_for_load_state("networkidle")
        until(lambda: page.locator(".loading").count() == 0, f"{query} is there")
        broken += page.evaluate("window.broken")
        made = page.locator(
            ".main script, .main iframe, .main [onerror], .main [onload], .main img[src*='http']"
        ).count()
        assert made == 0, query
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.protocol)")
        assert set(links) <= {"http:"}, (query, links)
    page.goto(hostile.url + "?page=runs")
    until(lambda: page.get_by_text(texts[0]).count() > 0, "a hostile name is shown as it is")
    assert page.dialogs == []
    assert [url for url in page.asked if url.startswith(canary.url)] == []
    assert broken == []
    page.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", texts[0])
    until(lambda: len(page.evaluate("window.broken")) > 0, "what was planted is seen, and refused by the browser")
    assert page.dialogs == []
    assert canary.visits == []


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.xml"])
def test_s13_a_file_that_is_opened_is_saved_and_runs_nothing(
    page: Any, hostile: Server, canary: Canary, name: str, tmp_path: Path
) -> None:
    run = next(iter(runstone.open_workspace(hostile.workspace).runs("")))
    artifact = run.artifacts[0].name
    address = f"{hostile.url}api/runs/{run.id}/artifacts/" + "".join(f"%{byte:02x}" for byte in artifact.encode())
    with page.expect_download() as download:
        page.evaluate("address => { location.href = address }", f"{address}/file?path={name}")
    saved = tmp_path / name
    download.value.save_as(saved)
    assert b"document.title='ran'" in saved.read_bytes()
    assert page.title() != "ran"
    assert page.dialogs == []
    assert canary.visits == []
