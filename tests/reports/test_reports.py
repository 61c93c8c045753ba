"""A report is Markdown with live blocks; nothing in it can run, load or lead astray."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.cli.main import run
from runstone.reports import TEMPLATE, Reports, render_fragment, render_page, title_of

pytest.importorskip("yaml")
pytest.importorskip("scipy")

EVERYTHING = """# Which model? *Really*

```runs
sort: metrics.val/acc.max desc
```
```table
columns: [name, id, status, params.lr, metrics.val/acc.max, tags.sweep, notes, group, duration]
runs: [run-0, run-1]
```
```compare
by: params.model
metrics: [val/acc.max, loss.min]
show: [verdicts, figures, runs, differences, metrics]
```
```plot
metric: val/acc
```
```sweep
sweep: sweep-1
metric: val/acc.max
```
"""
KINDS = {
    "curves": "metrics: [val/acc]\nsmoothing: 0.5\nlog: [x, y]",
    "curves over time": "kind: curves\nmetric: val/acc\nx: time",
    "curves over a metric": "kind: curves\nmetric: val/acc\nx: loss",
    "curves by group": "kind: curves\nmetric: val/acc\nby: params.model",
    "groups": "kind: groups\nmetric: val/acc.max\nby: params.model",
    "spread": "kind: spread\nmetric: val/acc.max\nby: [params.model]",
    "scatter": "kind: scatter\nx: params.lr\ny: metrics.val/acc.max\nlog: x",
    "histogram": "kind: histogram\nmetric: val/acc.max\nbins: 4",
    "heatmap": "kind: heatmap\nx: params.model\ny: params.seed\nmetric: val/acc",
    "parallel": "kind: parallel\nmetric: val/acc.max",
    "front": "kind: front\nmetrics: [val/acc.max, loss.min]",
    "history": "kind: history\nmetric: val/acc.max\ntitle: Over time",
}


class Page(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def figures(text: str) -> list[Any]:
    return [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)</script>', text)]


def block(workspace: runstone.Workspace, kind: str, text: str) -> str:
    return render_fragment(workspace, f"```{kind}\n{text}\n```\n")


def test_every_block_is_drawn(workspace: runstone.Workspace) -> None:
    text = render_fragment(workspace, EVERYTHING)
    assert "rs-error" not in text
    assert "<h1>Which model? <em>Really</em></h1>" in text
    assert "b by params" not in text
    assert "beats" in text
    assert len(figures(text)) >= 8
    assert "run-0" in text


def test_nothing_that_a_user_named_is_markup(workspace: runstone.Workspace) -> None:
    for text in (render_fragment(workspace, EVERYTHING), render_page(workspace, EVERYTHING)):
        page = Page(text)
        assert page.of("img") == []
        assert all(not name.startswith("on") for _tag, attributes in page.tags for name in attributes)
        allowed = {"application/json", None}
        assert {attributes.get("type") for attributes in page.of("script")} <= allowed
        assert html.escape('"><img src=x') in text
    assert len(Page(render_page(workspace, EVERYTHING)).of("script")) == len(figures(text)) + 2  # plotly.js, page.js


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_plot_is_drawn(workspace: runstone.Workspace, name: str) -> None:
    text = block(workspace, "plot", KINDS[name])
    assert "rs-error" not in text, text
    (figure,) = figures(text)
    assert figure["data"]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("plot", "kind: pie", "kind is 'pie'; it must be curves"),
        ("plot", "metric: accc", "No run has logged accc"),
        ("plot", "kind: histogram\nmetric: val/ac", "there is 'val/acc'"),
        ("plot", "", "needs a metric"),
        ("plot", "smoothing: hello\nmetric: loss", "smoothing must be a number"),
        ("runs", "filter: nonsense ===", "nonsense"),
        ("runs", "limit: 0", "whole number from 1"),
        ("runs", "limitt: 3", "'limitt' is no key of a runs block; there is columns, filter, limit"),
        ("runs", "runs: [nobody]", "nobody"),
        ("runs", "runs: [run-0]\nfilter: status = 'finished'", "exclude each other"),
        ("runs", "- a\n- b", "lines such as"),
        ("runs", "a: b: c", "mapping values"),
        ("runs", "!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("table", "limit: 3", "needs columns"),
        ("compare", "limit: 1", "two runs or more"),
        ("compare", "show: [all]", "show has 'all'"),
        ("model", "model: nobody", "nobody"),
        ("model", "", "needs `model: NAME`"),
        ("sweep", "sweep: nobody", "no run belongs to a sweep 'nobody'"),
    ],
)
def test_a_block_that_cannot_be_shown_says_why(
    workspace: runstone.Workspace, kind: str, text: str, message: str
) -> None:
    rendered = html.unescape(render_fragment(workspace, f"before\n\n```{kind}\n{text}\n```\n\nafter"))
    assert message in rendered
    assert "before" in rendered
    assert "after" in rendered


def test_a_sweep_is_found_by_its_name_too(workspace: runstone.Workspace) -> None:
    assert block(workspace, "sweep", "sweep: search").count("<tr>") == 7


def test_runs_stand_in_the_order_named(workspace: runstone.Workspace) -> None:
    text = block(workspace, "table", "columns: [name]\nruns: [run-3, run-0, run-1]")
    assert re.findall(r"run-\d</th>", text) == ["run-3</th>", "run-0</th>", "run-1</th>"]


def test_a_model_is_shown_with_its_versions(home: Path) -> None:
    with runstone.start_run(project="p", workspace=home, environment=False) as started:
        (home / "weights.bin").write_bytes(b"x")
        started.log_artifact(home / "weights.bin")
        started.log({"auc": 0.93125}, step=0)
    workspace = runstone.open_workspace(home)
    workspace.register_model("credit", started.id, notes="first")
    text = block(workspace, "model", "model: credit")
    assert "1.0.0" in text
    assert started.name in text
    assert "0.93125" in text
    assert "rs-error" not in block(workspace, "model", "model: credit@1.0.0")


# --- Markdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "&#106;avascript:alert(1)",
        "vbscript:x", "data:text/html,<script>alert(1)</script>", "file:///etc/passwd", "blob:x", "\x01javascript:x",
    ],
)  # fmt: skip
def test_links_lead_only_where_a_click_may_go(workspace: runstone.Workspace, link: str) -> None:
    for text in (f"[a]({link})", f"[a](<{link}>)", f"![a](<{link}>)", f"[a][b]\n\n[b]: {link}", f"<{link}>"):
        page = Page(render_fragment(workspace, text))
        for attributes in page.of("a"):
            target = html.unescape(attributes["href"] or "").lower().replace("\t", "").replace("%09", "")
            assert target.startswith(("http:", "https:", "mailto:", "#")) or ":" not in target.split("/")[0], target
        assert page.of("img") == []


def test_good_links_stay(workspace: runstone.Workspace) -> None:
    page = Page(
        render_fragment(workspace, "[a](https://x.org/a:b?c#d) [b](other/page.html) [c](#top) [d](mailto:a@b.c)")
    )
    assert [one["href"] for one in page.of("a")] == ["https://x.org/a:b?c#d", "other/page.html", "#top", "mailto:a@b.c"]
    assert all(one["rel"] == "noopener noreferrer nofollow" for one in page.of("a"))


def test_raw_html_is_shown_as_text(workspace: runstone.Workspace) -> None:
    text = render_fragment(
        workspace, "<div onclick=x>a</div>\n\nb <script>alert(1)</script> `<b>`\n\n```html\n<i>\n```"
    )
    assert {tag for tag, _ in Page(text).tags} <= {"p", "code", "pre"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_pictures_of_the_reports_folder_become_part_of_the_page(workspace: runstone.Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    text = render_fragment(
        workspace, "![one](a.png) ![two](../secret.png) ![three](https://x/y.png) ![four](link.png)", folder=folder
    )
    page = Page(text)
    data = f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    assert [one["src"] for one in page.of("img")] == [data]
    assert [one["href"] for one in page.of("a")] == ["../secret.png", "https://x/y.png", "link.png"]
    assert Page(render_fragment(workspace, "![one](a.png)")).of("img") == []


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_page_may_run_only_its_own_scripts_and_load_nothing(workspace: runstone.Workspace) -> None:
    text = render_page(workspace, EVERYTHING)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert len(hashes) == 2
    assert all(f"'sha256-{one}'" in policy for one in hashes)
    page = Page(text)
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")


def test_a_page_weighs_what_it_holds(workspace: runstone.Workspace) -> None:
    without = render_page(workspace, "# Runs\n\n```runs\n```\n")
    assert len(without.encode()) < 20_000
    assert "plotly" not in without.lower()
    assert "script-src 'none'" in without
    assert "<title>Runs</title>" in without
    once, often = (render_page(workspace, "```plot\nmetric: loss\n```\n" * times) for times in (1, 3))
    assert len(often.encode()) < 5_500_000
    assert len(often) - len(once) < 60_000


def test_values_of_a_page_are_those_of_the_runs(workspace: runstone.Workspace) -> None:
    (figure,) = figures(block(workspace, "plot", "metric: val/acc\nruns: [run-1]"))
    series = workspace.run("run-1").series("val/acc")
    (trace,) = figure["data"]
    assert base64.b64decode(trace["y"]["bdata"]) == series.value.astype("<f8").tobytes()


def test_a_page_without_plotly_says_so(workspace: runstone.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    text = render_page(workspace, "```plot\nmetric: loss\n```\n")
    assert "pip install &#x27;runstone[plots]&#x27;" in text
    assert len(text) < 30_000


# --- kept in the workspace --------------------------------------------------------------------------------------------


def test_reports_are_kept_under_any_name(home: Path) -> None:
    runstone.start_run(workspace=home, environment=False).finish()
    reports = Reports(home)
    assert reports.list() == []
    names = ["plain", "../../evil", "Grüße & <b>", "PLAIN"]
    for name in names:
        made = reports.create(name, f"# {name}\n")
        assert made.path.parent.parent == home / "reports"
    assert [report.name for report in reports.list()] == sorted(names)
    assert reports.get("../../evil").read() == "# ../../evil\n"
    with pytest.raises(runstone.AlreadyExists, match="plain"):
        reports.create("plain", "")
    with pytest.raises(runstone.NotFound, match="no report 'x'; there is"):
        reports.get("x")
    before = reports.get("plain")
    after = reports.write("plain", "new")
    assert (after.read(), after.created_at) == ("new", before.created_at)
    with pytest.raises(runstone.InvalidValue, match="longer than 4 MiB"):
        reports.write("plain", "x" * (5 << 20))
    assert not list((home / "reports").rglob("*.partial"))


def test_a_damaged_report_hides_no_other(home: Path) -> None:
    runstone.start_run(workspace=home, environment=False).finish()
    reports = Reports(home)
    reports.create("a", "text")
    broken = reports.create("b", "text")
    (broken.path.parent / "report.json").write_text("{")
    (home / "reports" / "stray").write_text("")
    assert [report.name for report in reports.list()] == ["a"]
    (broken.path.parent / "report.json").write_text('{"format": 9, "name": "b", "created_at": 0}')
    with pytest.raises(runstone.FormatError, match="format 9"):
        reports.get("b")


def test_the_title_is_the_first_heading() -> None:
    assert title_of("text\n\n## A title ##\n\n# B") == "A title"
    assert title_of("no heading") == ""


def test_reports_on_the_command_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str, code: int = 0) -> str:
        assert run(["-w", str(made), "report", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    assert "no reports" in told("list")
    path = Path(told("new", "Q3: {results}").strip())
    assert path.read_text() == TEMPLATE.format(name="Q3: {results}")
    path.write_text(EVERYTHING)
    assert told("show", "Q3: {results}") == EVERYTHING
    assert json.loads(told("list", "--json"))[0]["name"] == "Q3: {results}"
    assert Path(told("render", "Q3: {results}").strip()) == path.with_suffix(".html")
    assert "Which model?" in path.with_suffix(".html").read_text()
    (tmp_path / "own.md").write_text("# Own\n")
    target = tmp_path / "out.html"
    assert told("render", str(tmp_path / "own.md"), "-o", str(target)).strip() == str(target)
    assert "<h1>Own</h1>" in target.read_text()
    assert Path(told("new", "copy", "--from", str(tmp_path / "own.md")).strip()).read_text() == "# Own\n"
    assert "there is no report 'nope'" in told("render", "nope", code=1)
    assert "there is no file" in told("render", str(tmp_path / "no.md"), code=1)
    assert "did you mean 'render'" in told("rendr", "x", code=2)
