"""Hands on the page: criteria 21 to 29."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.figures import color
from tests.page.acting import calm, chart, place, rows, tooltip, until
from tests.page.seeding import seed_usual


@pytest.fixture
def own(tmp_path: Path, serve: Any) -> Any:
    """A server over a workspace that the test may change."""
    seed_usual(tmp_path / ".runstone", runs=4, steps=50)
    return serve(tmp_path / ".runstone")


def _run(server: Any, name: str) -> Any:
    return next(run for run in runstone.open_workspace(server.workspace).runs(f"name = '{name}'"))


def test_c21_a_run_has_the_colour_of_its_id_in_both_languages(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits")
    ids = ["a", "run-1", "run-2", "01936f2a7b1c7e00a1b2c3d4e5f60718", "01936f2a7b1c7e00a1b2c3d4e5f60719", "日本"]
    said = page.evaluate(
        """async ids => {
          const base = document.querySelector('script[type=module]').src.replace(/main\\.js$/, '');
          const {runColour} = await import(base + 'core/colour.js');
          return ids.map(id => [runColour(id), runColour(id, 'dark')]);
        }""",
        ids,
    )
    assert said == [[color(one), color(one, is_dark=True)] for one in ids]
    eye = page.locator(".row-eye").first
    until(lambda: eye.evaluate("one => one.style.getPropertyValue('--colour')"), "rows have a colour")
    name = page.locator(".row-name").first.text_content()
    colour = eye.evaluate("one => one.style.getPropertyValue('--colour')")
    page.goto(usual.url + f"?page=run&run={_run(usual, name).id}")
    dot = page.locator(".run-title .dot")
    dot.wait_for()
    assert dot.evaluate("one => getComputedStyle(one).backgroundColor") == "rgb({}, {}, {})".format(
        *(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    )


def test_c22_pinned_runs_and_the_baseline_stay_on_top_and_columns_tell_the_difference(look: Any, usual: Any) -> None:
    run = _run(usual, "adam-0")
    page = look(
        usual,
        f"?project=digits&view=table&columns=metrics.val/acc.max,metrics.val/loss.min&pins={run.id}&baseline={run.id}&sort=-metrics.val/acc.max&filter=params.seed+>+3",
    )
    until(lambda: len(rows(page)) > 3, "there are rows")
    assert rows(page)[0] == "adam-0"
    assert page.locator(".row.baseline").count() == 1
    assert page.locator(".delta.good").count() > 0
    assert page.locator(".delta.bad").count() >= 0


def test_c23_comparing_shows_only_what_differs_and_what_is_missing(look: Any, usual: Any) -> None:
    ids = [_run(usual, name).id for name in ("adam-0", "sgd-1", "rmsprop-2")]
    page = look(usual, f"?page=compare&project=digits&runs={','.join(ids)}")
    table = page.locator(".compare-table")
    until(lambda: table.get_by_text("optimizer.name").is_visible(), "the params are there")
    assert table.locator("th[title='params.optimizer.momentum']").count() == 0
    page.get_by_role("button", name="Only differences").click()
    until(lambda: table.locator("th[title='params.optimizer.momentum']").is_visible(), "all params are there")
    page.wait_for_selector(".parallel[data-state=ready]")
    page.wait_for_selector(".scatter[data-state=ready]")


def test_c23_a_stretch_of_an_axis_filters_table_and_charts(look: Any, usual: Any) -> None:
    page = look(usual, "?page=compare&project=digits", height=1400)
    page.wait_for_selector(".parallel[data-state=ready]")
    until(lambda: page.locator(".compare-table thead th").count() == 11, "ten runs")
    page.wait_for_load_state("networkidle")
    box = page.locator(".parallel").bounding_box()
    page.mouse.move(box["x"] + 64, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 64, box["y"] + 200)
    page.mouse.up()
    until(lambda: 1 < page.locator(".compare-table thead th").count() < 11, "fewer runs")


def test_c24_sorting_grouping_and_columns(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=table&columns=params.seed,metrics.val/loss.min,params.optimizer.name")
    until(lambda: len(rows(page)) == 12, "all rows")
    page.get_by_role("columnheader", name="seed").locator(".head-name").click()
    until(lambda: rows(page)[0].endswith("-0"), "sorted by seed")
    page.get_by_role("columnheader", name="optimizer.name").locator(".head-name").click(modifiers=["Shift"])
    until(lambda: "sort=params.seed,params.optimizer.name" in page.url, "sorted by two")
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Search columns").fill("depth")
    page.locator(".picker-item", has_text="depth").locator("input").check()
    page.keyboard.press("Escape")
    until(lambda: page.get_by_role("columnheader", name="depth").count() == 1, "a column more")
    page.get_by_role("columnheader", name="optimizer.name").get_by_role("button", name="Column").click(force=True)
    page.get_by_role("menuitem", name="Group by it").click()
    until(lambda: page.locator(".row.group:not([hidden])").count() == 3, "three groups")
    page.locator(".row.group").first.click()
    until(lambda: page.locator(".row.inner:not([hidden])").count() == 4, "a group of four is open")


def test_c24_the_csv_holds_the_stored_values(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=table&columns=params.lr,metrics.val/loss.min,metrics.lr")
    until(lambda: len(rows(page)) == 12, "all rows")
    page.get_by_role("button", name="More", exact=True).click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Download CSV").click()
    with Path(saved.value.path()).open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 12
    for row in found:
        metrics = _run(usual, row["name"]).metrics
        assert float(row["metrics.val/loss.min"]) == metrics["val/loss"].min
        assert float(row["metrics.lr"]) == metrics["lr"].last


def test_c24_bulk_tags_archive_and_delete_can_be_undone(look: Any, own: Any) -> None:
    page = look(own, "?project=digits&view=table")
    until(lambda: len(rows(page)) == 4, "all rows")
    for k in range(2):
        page.locator(".row-check").nth(k).click()
    page.locator(".bulk").get_by_role("button", name="Archive").click()
    until(lambda: len(rows(page)) == 2, "two are archived")
    page.keyboard.press("Control+z")
    until(lambda: len(rows(page)) == 4, "they are back")
    page.locator(".row-check").first.click()
    page.locator(".bulk").get_by_role("button", name="Delete").click()
    until(lambda: len(rows(page)) == 3, "one is deleted")
    page.get_by_role("button", name="Undo").click()
    until(lambda: len(rows(page)) == 4, "it is back")


def test_c25_the_address_is_the_whole_state(look: Any, usual: Any) -> None:
    query = (
        "?project=digits&filter=params.seed+<+6&sort=-metrics.val/acc.max&columns=metrics.val/acc.max,params.lr"
        "&x=relative&smooth=ema:0.5&logy=1&pinned=val/acc&theme=dark&first=3"
    )
    seen = []
    for _ in range(2):
        page = look(usual, query)
        chart(page, "val/acc")
        until(lambda page=page: len(rows(page)) == 6, "six runs fit")
        seen.append(
            (
                rows(page),
                page.locator("html").get_attribute("data-theme"),
                page.locator("details.section").first.get_attribute("data-section"),
                page.get_by_label("x axis").input_value(),
            )
        )
        page.close()
    assert seen[0] == seen[1]
    assert seen[0][1:] == ("dark", "Pinned", "relative")


def test_c25_back_and_forward_step_through_states(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=table")
    until(lambda: len(rows(page)) == 12, "all runs")
    page.get_by_label("Filter of runs").fill("params.seed < 2")
    page.keyboard.press("Enter")
    until(lambda: len(rows(page)) == 2, "two runs fit")
    page.locator(".row-name").first.click()
    page.wait_for_selector(".run-title")
    page.go_back()
    until(lambda: len(rows(page)) == 2, "the filter is there again")
    page.go_back()
    until(lambda: len(rows(page)) == 12, "and not there")
    page.go_forward()
    until(lambda: len(rows(page)) == 2, "and there")


def test_c26_the_keyboard_reaches_everything(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits")
    until(lambda: len(rows(page)) == 12, "all runs")
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Filter of runs"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press(" ")
    until(lambda: page.locator(".bulk").is_visible(), "a row is selected")
    page.keyboard.press("k")
    page.keyboard.press("p")
    until(lambda: "pins=" in page.url, "a run is pinned")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    until(lambda: "logy=1" in page.url, "y is logarithmic")
    theme = page.locator("html").get_attribute("data-theme")
    page.keyboard.press("d")
    until(lambda: page.locator("html").get_attribute("data-theme") != theme, "the theme changes")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search").fill("sgd-4")
    until(lambda: page.locator(".search-results a", has_text="sgd-4").count() == 1, "the run is found")
    page.keyboard.press("Enter")
    page.wait_for_selector(".run-title")
    page.keyboard.press("2")
    page.wait_for_selector(".compare-table")


def test_c26_the_filter_completes_and_says_where_it_is_wrong(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=table")
    until(lambda: len(rows(page)) == 12, "all runs")
    box = page.get_by_label("Filter of runs")
    box.click()
    page.keyboard.type("params.se")
    until(lambda: page.locator(".suggestions [role=option]", has_text="params.seed").count() == 1, "a completion")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert box.input_value().strip() == "params.seed"
    page.excused += ["400"]
    page.keyboard.type(" = '")
    page.keyboard.press("Enter")
    until(lambda: page.locator("#filter-error").is_visible(), "what is wrong")
    assert len(rows(page)) == 12, "what was there stays"


def test_c27_the_theme_follows_the_system_and_changes_without_a_reload(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits", color_scheme="dark")
    plot = chart(page, "val/acc")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    before = plot.evaluate("plot => plot.querySelector('canvas').toDataURL()")
    page.emulate_media(color_scheme="light")
    until(lambda: page.locator("html").get_attribute("data-theme") == "light", "it is light")
    until(
        lambda: plot.evaluate("plot => plot.querySelector('canvas').toDataURL()") != before,
        "the charts are painted again",
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_c27_text_stands_out_from_its_ground(look: Any, usual: Any, theme: str) -> None:
    page = look(usual, f"?project=digits&theme={theme}")
    chart(page, "epoch")
    ratios = page.evaluate("""() => {
      const style = getComputedStyle(document.documentElement);
      const light = name => {
        const hex = style.getPropertyValue(name).trim();
        const [r, g, b] = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => {
        const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
        return (x + 0.05) / (y + 0.05);
      };
      const pairs = {};
      for (const text of ['--text', '--faint', '--accent', '--good', '--bad', '--warn']) {
        for (const ground of ['--ground', '--surface', '--raised', '--hover']) {
          pairs[`${text} on ${ground}`] = ratio(text, ground);
        }
      }
      for (const kind of ['good', 'bad', 'warn']) pairs[`--${kind} on its soft`] = ratio(`--${kind}`, `--${kind}-soft`);
      pairs['accent on its soft'] = ratio('--accent', '--accent-soft');
      pairs['on accent'] = ratio('--on-accent', '--accent');
      return pairs;
    }""")
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [390, 700, 1024])
@pytest.mark.parametrize(
    "query", ["?project=digits", "?project=digits&view=charts", "?page=compare&project=digits", "RUN"]
)
def test_c27_nothing_scrolls_the_page_sideways(look: Any, usual: Any, width: int, query: str) -> None:
    if query == "RUN":
        query = f"?page=run&run={_run(usual, 'adam-0').id}"
    page = look(usual, query, width=width, height=800)
    page.wait_for_selector(".table, .card, .compare-table, .facts", state="attached")
    calm(page)
    assert page.evaluate("""() => {
      const main = document.querySelector('.main');
      return [document.documentElement.scrollWidth, main.scrollWidth - main.clientWidth];
    }""") == [width, 0]


def test_c29_every_chart_has_a_name_a_table_and_its_python(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=charts&first=2")
    plot = chart(page, "val/loss")
    assert re.fullmatch(r"Chart of val/loss over step, 2 lines: .*", plot.get_attribute("aria-label"))
    page.get_by_role("button", name="More for val/loss").click()
    page.get_by_role("menuitem", name="Show as table").click()
    assert page.get_by_role("dialog").locator("tbody tr").count() >= 300
    page.keyboard.press("Escape")
    page.get_by_role("button", name="More for val/loss").click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Download CSV").click()
    with Path(saved.value.path()).open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["name"] == "rmsprop-11"]
    assert [float(row["value"]) for row in found] == _run(usual, "rmsprop-11").series("val/loss").value.tolist()
    page.get_by_role("button", name="More for val/loss").click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name="Download PNG").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    code = page.evaluate(
        """async ids => {
          const base = document.querySelector('script[type=module]').src.replace(/main\\.js$/, '');
          const {pythonOf} = await import(base + 'chart/export.js');
          const runs = ids.map(id => ({id, label: id, colour: '#123456'}));
          return pythonOf('val/loss', {runs, x: 'step', logX: false, logY: true, range: [10, 20], smooth: 'none:0'});
        }""",
        [_run(usual, "adam-0").id],
    )
    pytest.importorskip("plotly")
    names: dict[str, Any] = {}
    workspace = f"runstone.open_workspace({str(usual.workspace)!r})"
    exec(code.replace("runstone.open_workspace()", workspace).replace("figure.show()", ""), names)
    assert list(names["figure"].data[0].y) == _run(usual, "adam-0").series("val/loss").value.tolist()


def test_c29_full_screen_and_its_arrows(look: Any, usual: Any) -> None:
    page = look(usual, "?project=digits&view=charts")
    plot = chart(page, "train/acc")
    page.mouse.move(*place(plot, 100))
    page.keyboard.press("f")
    dialog = page.get_by_role("dialog")
    until(lambda: dialog.locator(".plot[data-state=ready]").count() == 1, "the large chart is painted")
    assert dialog.locator("article").get_attribute("data-metric") == "train/acc"
    page.keyboard.press("ArrowRight")
    until(lambda: dialog.locator("article").get_attribute("data-metric") == "train/loss", "the next chart")
    assert tooltip(page, dialog.locator(".plot"), 100)
