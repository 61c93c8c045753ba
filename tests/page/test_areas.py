"""Models, data, lineage, monitoring, reports, the server, alerts: criteria 1, 2, 26, 27, 31, 32, 34, 37, 38, 39."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.figures import palette
from tests.page.acting import Proxy, until
from tests.page.conftest import Server
from tests.page.seeding import HOSTILE
from tests.page.seeding_areas import DATA, MADE, MODEL, seed_areas

STATIC = Path(runstone.__file__).parent / "server" / "static"
PAGES = {
    "sweeps": ("?page=sweeps", "made"),
    "models": ("?page=models", MODEL),
    "a model": (f"?page=models&item={MODEL}&version=1.1.0", "Default within a year."),
    "comparing versions": (f"?page=models&item={MODEL}&tab=compare", "val/auc"),
    "a history": (f"?page=models&item={MODEL}&tab=history", "registered 1.0.0"),
    "operation": (f"?page=models&item={MODEL}&tab=operation", "eu/scoring"),
    "datasets": ("?page=datasets", DATA),
    "a dataset": (f"?page=datasets&item={DATA}", "labels of round 2"),
    "files": (f"?page=datasets&item={DATA}&tab=files", "train.csv"),
    "a profile": (f"?page=datasets&item={DATA}&tab=profile", "income"),
    "a difference": (f"?page=datasets&item={DATA}&tab=diff", "extra.csv"),
    "lineage": ("?page=lineage", f"model:{MODEL}@1.2.0"),
    "a lineage": (f"?page=lineage&ref=model:{MODEL}@1.1.0", "eu/scoring"),
    "monitoring": ("?page=monitoring", "income shifted"),
    "checks": (f"?page=monitoring&item={MODEL}", "today.csv"),
    "reports": ("?page=reports", "What was found"),
    "users": ("?page=admin", "Add user"),
    "the audit log": ("?page=admin&tab=audit", "Audit log"),
}
EMPTY = {
    "sweeps": "No sweep yet",
    "models": "No model yet",
    "datasets": "No dataset yet",
    "lineage": "What came of what",
    "monitoring": "Nothing is in use yet",
    "reports": "No report yet",
}


@pytest.fixture(scope="module")
def areas(tmp_path_factory: pytest.TempPathFactory, quiet_machine: None) -> Iterator[Server]:
    """A server over a workspace with all of it. Tests that change something change what no other one looks at."""
    path = tmp_path_factory.mktemp("areas") / ".runstone"
    seed_areas(path)
    server = Server(path)
    yield server
    server.end()


def shown(page: Any, text: str) -> None:
    """Wait until a text is there."""
    page.locator(".main").get_by_text(text).first.wait_for()


def goto(page: Any, server: Server, query: str, text: str) -> None:
    """Open a page and wait for it."""
    page.goto(server.url + query)
    shown(page, text)


# --- all pages ------------------------------------------------------------------------------------------------------


def test_c01_c02_c27_every_page_opens_is_light_and_fits_a_phone(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, "?page=models", width=390, height=800, color_scheme="dark")
    for name, (query, text) in PAGES.items():
        goto(page, areas, query, text)
        until(lambda: page.locator(".loading").count() == 0, f"{name} is there")
        wide = page.evaluate(
            "() => [document.documentElement, document.querySelector('.main')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert wide == [0, 0], f"{name} scrolls sideways"
        sizes = page.evaluate(
            """() => performance.getEntriesByType('resource')
              .filter(e => /\\.(js|css|svg)$/.test(e.name)).map(e => e.decodedBodySize)"""
        )
        assert 0 < sum(sizes) <= 300_000, (name, sum(sizes))
    assert not [url for url in page.requests_seen if "plotly" in url]


def test_c21_colours_of_reports_are_those_of_the_figures() -> None:
    css = (STATIC / "css" / "areas.css").read_text("utf-8")
    for colours, block in zip(
        (palette.LIGHT, palette.DARK), re.findall(r"^:root[^{]*\{(.*?)^\}", css, re.M | re.S), strict=True
    ):
        assert re.findall(r"--run-\d+: (#\w+);", block) == list(colours)


def test_c26_digits_open_the_pages(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, "?page=models")
    shown(page, MODEL)
    for key, name in (
        ("3", "sweeps"),
        ("5", "datasets"),
        ("6", "lineage"),
        ("7", "monitoring"),
        ("8", "reports"),
        ("9", "admin"),
        ("4", "models"),
    ):
        page.keyboard.press(key)
        until(lambda name=name: f"page={name}" in page.url, f"{name} is open")
    page.go_back()
    until(lambda: "page=admin" in page.url, "Back leads to the page before")


def test_c37_pages_without_anything_say_what_to_do_and_what_is_missing_is_told(
    tmp_path: Path, serve: Any, look: Callable[..., Any]
) -> None:
    runstone.ensure_workspace(tmp_path / "w")
    server = serve(tmp_path / "w")
    page = look(server, "?page=models")
    for name, text in EMPTY.items():
        goto(page, server, f"?page={name}", text)
    page.excused.extend(["404", "no-such"])
    for query, text in (
        ("models&item=no-such", "There is no model"),
        ("datasets&item=no-such", "There is no dataset"),
        ("reports&item=no-such", "There is no report"),
        ("lineage&ref=model:no-such@1", "Nothing is called"),
    ):
        goto(page, server, f"?page={query}", text)
    goto(page, server, f"?page=sweeps&item={'f' * 32}", "there is no sweep")


def test_c38_hostile_text_is_text_and_reports_hold_no_script(areas: Server, look: Callable[..., Any]) -> None:
    run = runstone.open_workspace(areas.workspace).run("fit-0")
    page = look(areas, f"?page=run&run={run.id}")
    page.excused.append("inline event handler")  # the browser tells of what it does not run
    shown(page, HOSTILE)
    assert page.locator(".alert").get_by_text("Loss rose").is_visible()
    goto(page, areas, "?page=reports&item=findings", "matters most")
    assert "<script>" in page.locator(".report p").first.inner_text()
    assert page.locator(".main script, .main iframe, .main [onerror]").count() == 0
    made = page.evaluate(
        """async (base) => {
          const {fromHtml} = await import(base + 'pages/markup.js');
          const place = document.createElement('div');
          place.append(...fromHtml(`<p onclick="x()" style="position:fixed;background:url(//e.example/x)">a<img
            src=x onerror=alert(1)>
            <a href="javascript:alert(1)">b</a><svg><script>1</script></svg><style>*{}</style>
            <iframe src="//e.example"></iframe>
            <input autofocus onfocus="x()"><b class="nav">c</b></p>`));
          return place.innerHTML;
        }""",
        page.evaluate("() => document.querySelector('script[type=module]').src.replace(/main\\.js$/, '')"),
    )
    assert re.sub(r"\s+", " ", made) == "<p>a<img> <a>b</a> <b>c</b></p>", made
    assert page.title() != "broken"


def test_c39_the_pages_work_below_a_prefix(areas: Server, browser: Any, look: Callable[..., Any]) -> None:
    look(areas, "?page=reports")  # so that there is a session
    proxy = Proxy(areas.port)
    context = browser.new_context(storage_state=areas.cookies)
    try:
        page = context.new_page()
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("response", lambda answer: answer.status >= 400 and troubles.append(f"{answer.status} {answer.url}"))
        page.goto(f"http://127.0.0.1:{proxy.port}/proxy/6006/?page=sweeps&item={MADE}")
        page.wait_for_selector("article[aria-label=History][data-state=ready]")
        for name in ("models", "datasets", "lineage", "monitoring", "reports"):
            page.locator(f".nav a[href*='page={name}']").click()
            until(
                lambda: page.locator(".main table, .main .badge").count() > 0 and page.locator(".loading").count() == 0,
                name,
            )
        assert not troubles
    finally:
        context.close()
        proxy.close()


# --- data -----------------------------------------------------------------------------------------------------------


def test_c31_two_versions_of_data_are_compared(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, f"?page=datasets&item={DATA}&tab=diff")
    shown(page, "extra.csv")
    row = page.get_by_role("table", name="Columns").get_by_role("row").nth(1)
    dataset = runstone.open_workspace(areas.workspace).datasets.get(DATA)
    from runstone.datasets.diff import diff

    income = next(one for one in diff(dataset.find(1), dataset.find(2)).columns if one.name == "income")
    assert row.locator("th").inner_text() == "income", "what moved most comes first"
    assert row.locator("td").first.inner_text() == f"{income.psi:.3g}"
    page.get_by_label("Rows too").check()
    shown(page, "A few that were added")
    page.get_by_label("Version on the left").select_option("2")
    page.get_by_text("The two versions are the same.").wait_for()
    goto(page, areas, f"?page=datasets&item={DATA}&tab=files", "train.csv")
    file = next(one for one in dataset.find(2).files if one.path == "train.csv")
    assert page.get_by_role("table", name="Files").locator(f"[title='{file.hash}']").count() == 1


# --- models ---------------------------------------------------------------------------------------------------------


def test_c32_a_version_is_approved_and_promoted_when_its_gates_hold(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, f"?page=models&item={MODEL}")
    page.get_by_role("table", name="Versions").get_by_role("link", name="1.2.0").click()
    version = page.get_by_label("Version 1.2.0")
    version.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    dialog.locator(".gate[data-passed=false]", has_text="approved").wait_for()
    assert dialog.locator(".gate[data-passed=true]", has_text="val/auc").is_visible()
    assert dialog.get_by_role("button", name="Promote").is_disabled()
    page.keyboard.press("Escape")
    version.get_by_role("button", name="Approve").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("better by 0.03")
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    version.get_by_text("approved", exact=True).first.wait_for()
    version.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    until(lambda: dialog.get_by_role("button", name="Promote").is_enabled(), "all gates hold")
    assert dialog.get_by_text("1.1.0 leaves production").is_visible()
    dialog.get_by_label("Reason").fill("second release")
    dialog.get_by_role("button", name="Promote").click()
    until(lambda: "1.2.0" in page.locator(".stage", has_text="production").inner_text(), "it is in production")
    model = runstone.open_workspace(areas.workspace).models.get(MODEL)
    assert model.find("production").version == model.find("1.2.0").version
    page.get_by_role("tab", name="History").click()
    first = page.get_by_role("list", name="History").get_by_role("listitem").first
    until(lambda: "second release" in first.inner_text(), "the history tells of it")
    assert "3 gates passed" in first.inner_text()


def test_c32_two_versions_of_a_model_are_compared(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, f"?page=models&item={MODEL}&tab=compare&other=1.0.0&version=1.1.0")
    row = page.get_by_role("row", name="val/auc")
    row.wait_for()
    assert row.locator("td").all_inner_texts()[:2] == ["0.81", "0.88"]
    assert page.get_by_role("row", name="loans").locator("td").all_inner_texts()[:2] == ["1", "2"]


# --- lineage --------------------------------------------------------------------------------------------------------


def test_c32_a_lineage_leads_both_ways_and_is_walked_with_keys(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, f"?page=lineage&ref=dataset:{DATA}@2")
    page.wait_for_selector(".lineage[data-state=ready]")
    kinds = page.locator(".node").evaluate_all("nodes => nodes.map(node => node.dataset.kind)")
    assert {"source", "dataset", "run", "model", "alias", "deployment", "incident"} <= set(kinds)
    at = dict(
        page.locator(".node").evaluate_all("nodes => nodes.map(n => [n.dataset.id, n.getBoundingClientRect().left])")
    )
    edges = json.loads(page.request.get(f"{areas.url}api/lineage?ref=dataset:{DATA}@2").text())["edges"]
    assert all(at[source] < at[target] for source, target, *_ in edges), "what came of something lies behind it"
    root = page.locator(f".node[data-id='dataset:{DATA}@2']")
    root.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".node[data-kind=run]:focus").wait_for()
    page.keyboard.press("ArrowRight")
    focus = page.locator(".node[data-kind=model]:focus")
    focus.wait_for()
    assert focus.get_attribute("class").split().count("lit") == 1
    page.keyboard.press("Enter")
    until(lambda: f"page=models&item={MODEL}" in page.url, "Enter opens the model")
    page.go_back()
    page.get_by_text("As a list").click()
    table = page.get_by_role("table", name="Lineage")
    assert table.get_by_role("row").count() == len(kinds) + 1
    page.get_by_label("Direction").select_option("up")
    until(lambda: page.locator(".node").count() == 2, "only what it came of")
    until(lambda: "way=up" in page.url, "it is in the address")


def test_c32_five_hundred_nodes_are_laid_out_within_a_second(areas: Server, look: Callable[..., Any]) -> None:
    rng = random.Random(1)
    nodes = [f"run:{k}" for k in range(500)]
    edges = [[nodes[rng.randrange(max(0, k - 60), k)], nodes[k]] for k in range(1, 500) for _ in range(3)]
    page = look(areas, "?page=none")  # a page of its own would clear away what is put there
    base = page.evaluate("() => document.querySelector('script[type=module]').src.replace(/main\\.js$/, '')")
    spent = page.evaluate(
        """async ([base, nodes, edges]) => {
          const {graph} = await import(base + 'pages/lineage_graph.js');
          const began = performance.now();
          const made = graph({signal: new AbortController().signal, root: nodes[0], edges,
            nodes: nodes.map(id => ({id, kind: 'run', label: id, descends_from_revoked: []})),
            onChoose() {}, onOpen() {}});
          document.querySelector('.main').append(made.element);
          return performance.now() - began;
        }""",
        [base, nodes, edges],
    )
    page.wait_for_selector(".lineage[data-state=ready]")
    assert page.locator(".node").count() == 500
    assert spent <= 3_000, "one second on a machine of its own"
    print(f"500 nodes, {len(edges)} edges: {spent:.0f} ms")


# --- monitoring -----------------------------------------------------------------------------------------------------


def test_c34_a_report_of_drift_has_the_figures_of_python_and_is_sorted(areas: Server, look: Callable[..., Any]) -> None:
    from runstone.monitoring import checks_of, read_report

    last = checks_of(areas.workspace, MODEL)[-1]
    report = read_report(areas.workspace, MODEL, last.id)
    page = look(areas, f"?page=monitoring&item={MODEL}")
    checks = page.get_by_role("table", name="Checks")
    checks.wait_for()
    assert checks.locator("tbody .badge").all_inner_texts() == ["drift", "ok"]
    checks.locator("tbody a").first.click()
    table = page.get_by_role("table", name="Columns")
    table.wait_for()
    titles = table.locator("thead button").all_inner_texts()
    place = next(i for i, title in enumerate(titles) if title.startswith("PSI"))

    def column() -> dict[str, float]:
        rows = table.locator("tbody tr")
        return {
            rows.nth(i).locator("th").inner_text(): float(
                rows.nth(i).locator("td").nth(place - 1).get_attribute("title")
            )
            for i in range(rows.count())
        }

    expected = {one["name"]: one["distance"]["psi"] for one in report["features"]}
    assert column() == pytest.approx(expected)
    table.get_by_role("button", name="PSI").click()
    assert list(column().values()) == sorted(expected.values(), reverse=True)
    table.get_by_role("button", name="PSI").click()
    assert list(column().values()) == sorted(expected.values())
    assert page.locator(".profile .bars").count() == len(report["features"])
    assert page.locator(".profile .bars rect.before").count() > 10
    assert page.get_by_text("boat").first.is_visible()


def test_c34_an_incident_is_closed_with_a_reason(areas: Server, look: Callable[..., Any]) -> None:
    model = runstone.open_workspace(areas.workspace).models.get(MODEL)
    incident = model.open_incident("1.0.0", kind="performance", summary="recall fell")
    page = look(areas, f"?page=monitoring&item={MODEL}")
    row = page.get_by_role("table", name="Incidents").get_by_role("row", name=f"#{incident.number}")
    row.get_by_role("button", name="Close").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("labels were late")
    page.get_by_role("dialog").get_by_role("button", name="Close", exact=True).last.click()
    until(lambda: "labels were late" in row.inner_text(), "it is closed")
    assert model.state().incidents[incident.number].closed_at is not None


# --- reports, the server --------------------------------------------------------------------------------------------


def test_a_report_is_read_written_and_kept(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, "?page=reports&item=findings")
    page.wait_for_selector(".rs-figure[data-state=ready] .main-svg")
    run = runstone.open_workspace(areas.workspace).run("fit-2")
    page.get_by_role("link", name="fit-2").click()
    until(lambda: f"run={run.id}" in page.url, "the name of a run leads to it")
    page.go_back()
    page.locator(".nav").get_by_role("link", name="Reports").click()
    page.get_by_role("button", name="New report").click()
    page.get_by_role("dialog").get_by_label("Name").fill("mine")
    page.keyboard.press("Enter")
    text = page.get_by_label("Markdown")
    until(lambda: text.is_enabled(), "it can be written")
    text.fill("# Mine\n\nSee **this**.")
    page.locator(".writing .report strong", has_text="this").wait_for()
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved", exact=True).wait_for()
    assert json.loads(page.request.get(f"{areas.url}api/reports/mine").text())["text"] == "# Mine\n\nSee **this**."
    with page.expect_download() as saved:
        page.goto(areas.url + "?page=reports&item=mine")
        page.get_by_role("link", name="One HTML file").click()
    assert "<strong>this</strong>" in Path(saved.value.path()).read_text("utf-8")


def test_an_admin_adds_a_user_and_a_token_is_shown_once(areas: Server, look: Callable[..., Any]) -> None:
    page = look(areas, "?page=admin")
    page.get_by_role("button", name="Add user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("ada")
    dialog.get_by_label("Role").select_option("contributor")
    dialog.get_by_role("button", name="Add").click()
    row = page.get_by_role("row", name="ada")
    row.get_by_text("*: contributor").wait_for()
    row.get_by_role("button", name="Token").click()
    page.get_by_role("dialog").get_by_label("Label").fill("laptop")
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    token = page.locator(".token").inner_text()
    answer = page.request.get(f"{areas.url}api/projects", headers={"Authorization": f"Bearer {token}", "Cookie": ""})
    assert answer.ok
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Tokens").click()
    row = page.get_by_role("row", name="laptop")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    row.get_by_text("revoked").wait_for()
    assert token not in page.content()
    page.get_by_role("tab", name="Audit log").click()
    page.get_by_role("table", name="Audit log").get_by_text("tokens").first.wait_for()
