"""Media, figures to take along, artifacts, the machine, drift: criteria 28, 29, 31, 33 and 34 of the page."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runstone
from runstone.monitoring import checks_of, read_report
from runstone.monitoring.checking import compare_profiles
from runstone.monitoring.profiling import profile_rows
from runstone.monitoring.reference import profile_of, set_profile
from runstone.monitoring.tables import rows_of
from runstone.server.api.artifacts import spans
from tests.page.acting import address, axes, chart, place, until
from tests.page.conftest import Server
from tests.page.seeding_areas import DATA, MADE, MODEL, TRIALS, seed_catalog, seed_checks, seed_sweep
from tests.page.seeding_criteria import seed_artifacts, seed_environments, seed_media, seed_system

STEPS = 40
EVERY = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quiet_machine: None) -> Iterator[tuple[Server, dict[str, Any]]]:
    """A server over all of it, and the ids of runs by project."""
    path = tmp_path_factory.mktemp("parts") / ".runstone"
    ids: dict[str, Any] = {"vision": seed_media(path, steps=STEPS, each=EVERY), "files": seed_artifacts(path)}
    ids["places"] = seed_environments(path, path.parent / "place.py")
    ids["machine"] = seed_system(path)
    seed_sweep(path, MADE, TRIALS)
    seed_catalog(path)
    seed_checks(path)
    server = Server(path)
    yield server, ids
    server.end()


def shows(page: Any, run: str, name: str) -> Any:
    """Return the place of a medium of a run, brought into sight."""
    found = page.locator(f"figure[data-run='{run}'][data-medium='{name}']")
    found.scroll_into_view_if_needed()
    return found


def to_step(page: Any, index: int) -> None:
    """Move the slider."""
    page.get_by_label("Step", exact=True).evaluate(
        "(one, at) => { one.value = at; one.dispatchEvent(new Event('input', {bubbles: true})); }", index
    )


def colour_of(picture: Any) -> list[int]:
    """Return the colour of the middle of a picture."""
    until(lambda: picture.evaluate("one => one.complete && one.naturalWidth > 0"), "the picture is there")
    return list(
        picture.evaluate("""one => {
          const sheet = Object.assign(document.createElement('canvas'), {width: 24, height: 24});
          const g = sheet.getContext('2d');
          g.drawImage(one, 0, 0, 24, 24);
          return [...g.getImageData(12, 12, 1, 1).data.slice(0, 3)];
        }""")
    )


# --- 28: media ------------------------------------------------------------------------------------------------------


def test_criterion_28_one_slider_and_two_keys_step_through_media_of_several_runs(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    first, second = ids["vision"]
    page = look(server, f"?page=compare&project=vision&runs={first},{second}", height=1400)
    page.locator("section[aria-label=Media]").scroll_into_view_if_needed()
    shows(page, first, "samples").locator("img").wait_for()
    to_step(page, 10)
    for k, run in enumerate((first, second)):
        until(lambda: "item=10" in address(page), "the step is in the address")
        note = shows(page, run, "notes")
        until(lambda note=note, k=k: f"step 10 of net-{k}" in note.inner_text(), "the text of this step")
        colour = shows(page, run, "samples").locator("img")
        until(lambda colour=colour, k=k: colour_of(colour) == [10, 60 + 90 * k, 160], "the picture of this step")
    page.locator("h1").click()
    page.keyboard.press("]")
    for k, run in enumerate((first, second)):
        note = shows(page, run, "notes")
        until(lambda note=note, k=k: f"step 11 of net-{k}" in note.inner_text(), "the next step, of both")
        samples = shows(page, run, "samples")
        until(lambda samples=samples: "of step 10" in samples.inner_text(), "what was not logged says of which step")
    page.keyboard.press("[")
    until(lambda: "step 10 of net-1" in shows(page, second, "notes").inner_text(), "the step before")
    assert "Not logged by this run" in shows(page, second, "roc").inner_text()


def test_criterion_28_every_kind_of_medium_is_shown_as_what_it_is(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    run = ids["vision"][0]
    page = look(server, f"?page=run&run={run}&tab=media&item=20", height=1400)
    matrix = shows(page, run, "confusion").get_by_role("table", name="Confusion matrix")
    matrix.wait_for()
    cells = [row.get_by_role("cell").all_inner_texts() for row in matrix.get_by_role("row").all()[1:]]
    assert cells == [["25", "3", "3"], ["3", "25", "3"], ["3", "3", "25"]]
    record = next(
        one for one in runstone.open_workspace(server.workspace).run(run).records("weights") if one.step == 20
    )
    bars = shows(page, run, "weights").locator("svg.bars")
    bars.wait_for()
    heights = bars.locator("rect").evaluate_all("all => all.map(one => Number(one.getAttribute('height')))")
    most = max(record.metadata["counts"])
    assert heights == pytest.approx([60 * n / most for n in record.metadata["counts"]], rel=1e-9)
    page.wait_for_selector("figure[data-medium=roc] .main-svg")
    assert shows(page, run, "samples").locator("img").get_attribute("alt") == "epoch 20"


def test_criterion_28_only_what_is_seen_of_many_steps_is_fetched(
    tmp_path: Path, serve: Any, look: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    _only_what_is_seen(tmp_path, serve, look, steps=1_000)


@pytest.mark.soak
def test_criterion_28_only_what_is_seen_of_ten_thousand_steps_is_fetched(
    tmp_path: Path, serve: Any, look: Callable[..., Any]
) -> None:
    _only_what_is_seen(tmp_path, serve, look, steps=10_000)


def _only_what_is_seen(tmp_path: Path, serve: Any, look: Callable[..., Any], *, steps: int) -> None:
    (run,) = seed_media(tmp_path / "w", runs=1, steps=steps, each=steps // 20)
    page = look(serve(tmp_path / "w"), f"?page=run&run={run}&tab=media")
    sizes: list[int] = []
    page.on(
        "response", lambda answer: "/api/runs/" in answer.url and sizes.append(int(answer.headers["content-length"]))
    )
    page.reload()
    until(lambda: f"step {steps - 1} of net-0" in shows(page, run, "notes").inner_text(), "the last step")
    assert page.get_by_label("Step", exact=True).get_attribute("max") == str(steps - 1)
    page.wait_for_load_state("networkidle")
    assert sum(sizes) < 60_000, "what all steps hold is not sent"
    before = len(sizes)
    page.get_by_label("Step", exact=True).evaluate("""async one => {
      for (let at = 0; at < 200; at++) {
        one.value = at;
        one.dispatchEvent(new Event('input', {bubbles: true}));
        if (at % 20 === 0) await new Promise(requestAnimationFrame);
      }
    }""")
    until(lambda: "step 199 of net-0" in shows(page, run, "notes").inner_text(), "where the slider rests")
    page.wait_for_load_state("networkidle")
    assert len(sizes) - before < 60, "steps that the slider only passed are not asked for"
    print(f"{steps} steps: {sum(sizes[:before]):,} bytes at first, {len(sizes) - before} questions for 200 moves")


@given(st.lists(st.integers(-(1 << 40), 1 << 40), unique=True, max_size=60).map(sorted))
def test_criterion_28_stretches_hold_every_step_once(steps: list[int]) -> None:
    told = spans(steps)
    assert [first + k * distance for first, distance, count in told for k in range(count)] == steps
    assert spans(list(range(0, 100_000, 10))) == [(0, 10, 10_000)]


# --- 29: figures to take along --------------------------------------------------------------------------------------


def taken(page: Any, title: str, item: str) -> bytes:
    """Download something of a figure."""
    page.get_by_role("button", name=f"More for {title}", exact=True).first.click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name=item).click()
    return Path(saved.value.path()).read_bytes()


def python_of(page: Any, title: str) -> str:
    """Copy the Python of a figure."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=f"More for {title}", exact=True).first.click()
    page.get_by_role("menuitem", name="Copy Python").click()
    page.get_by_text("Python code copied").last.wait_for()
    return str(page.evaluate("() => navigator.clipboard.readText()"))


def drawn(code: str, workspace: Path) -> Any:
    """Run copied Python in a workspace and return its figure."""
    names: dict[str, Any] = {}
    given = code.replace("open_workspace()", f"open_workspace({str(workspace)!r})").replace("figure.show()", "")
    given = re.sub(r"(plot_sweep\(.*)\)", rf"\1, workspace={str(workspace)!r})", given)
    exec(given, names)
    return names["figure"]


PARALLEL = ".parallel[data-state=ready]"
FIGURES = {
    "a figure of a sweep": (f"?page=sweeps&item={MADE}", "History", ".figure-card[data-state=ready]", True),
    "parallel coordinates of a sweep": (f"?page=sweeps&item={MADE}", "Parallel coordinates", PARALLEL, False),
    "parallel coordinates of runs": ("?page=compare&project=credit", "Parallel coordinates", PARALLEL, False),
    "a scatter plot": ("?page=compare&project=credit", "Scatter plot", ".scatter[data-state=ready]", False),
    "a column of data": (f"?page=datasets&item={DATA}&tab=profile", "income", ".bars", True),
    "a histogram": ("VISION&tab=media&item=20", "weights", ".bars", True),
    "a figure of a run": ("VISION&tab=media&item=20", "roc", ".main-svg", True),
    "a column of a check": ("DRIFT", "income", ".bars", True),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_criterion_29_every_figure_is_taken_along_enlarged_named_and_told(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any], name: str
) -> None:
    server, ids = made
    query, title, ready, has_svg = FIGURES[name]
    query = query.replace("VISION", f"?page=run&run={ids['vision'][0]}")
    query = query.replace("DRIFT", f"?page=monitoring&item={MODEL}&ref={checks_of(server.workspace, MODEL)[-1].id}")
    page = look(server, query, height=1300)
    page.wait_for_selector(ready)
    assert taken(page, title, "Download PNG").startswith(b"\x89PNG")
    rows = list(csv.reader(taken(page, title, "Download CSV").decode().splitlines()))
    assert len(rows) > 2
    assert len({len(row) for row in rows}) == 1, "every row has the same columns"
    if has_svg:
        assert taken(page, title, "Download SVG").lstrip().startswith(b"<svg")
    page.get_by_role("button", name=f"{title} as a table").first.click()
    assert page.get_by_role("dialog").get_by_role("row").count() == min(len(rows), 2001)
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"{title}, full screen").first.click()
    large = page.get_by_role("dialog").locator("canvas, svg.bars, .js-plotly-plot").first
    until(lambda: (large.bounding_box() or {"height": 0})["height"] > 600, "it is large")
    page.keyboard.press("Escape")
    page.wait_for_selector(ready)
    figure = drawn(python_of(page, title), server.workspace)
    assert type(figure).__module__.startswith("plotly.graph_objs")
    assert len(figure.data) > 0
    named = page.locator(f"{ready.split('[')[0]}").first.evaluate(
        "one => one.getAttribute('aria-label') || one.closest('[aria-label]')?.getAttribute('aria-label')"
    )
    assert named, "it has an accessible name"


def test_criterion_29_python_of_the_page_makes_the_same_figure(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, _ids = made
    page = look(server, f"?page=sweeps&item={MADE}")
    page.wait_for_selector(".figure-card[aria-label=History][data-state=ready] .main-svg")
    figure = drawn(python_of(page, "History"), server.workspace)
    shown = page.evaluate("() => document.querySelector('.figure-place').data.map(trace => [...trace.y])")
    assert [list(trace.y) for trace in figure.data] == shown
    page.goto(server.url + "?page=compare&project=credit")
    page.wait_for_selector(".scatter[data-state=ready]")
    rows = list(csv.DictReader(taken(page, "Scatter plot", "Download CSV").decode().splitlines()))
    x, y = list(rows[0])[1:]
    scatter = drawn(python_of(page, "Scatter plot"), server.workspace).data[0]
    made_of = sorted(zip(scatter.text, scatter.x, scatter.y, strict=True))
    assert made_of == sorted((row["name"], float(row[x]), float(row[y])) for row in rows)


# --- 31: artifacts --------------------------------------------------------------------------------------------------


def test_criterion_31_a_tree_of_files_with_previews_of_each_kind(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    run = ids["files"][1]
    info = runstone.open_workspace(server.workspace).run(run)
    page = look(server, f"?page=run&run={run}&tab=artifacts&item=bundle")
    page.excused.append("Blocked script execution")  # what the sandbox is for; the browser tells of it
    nav = page.get_by_role("navigation", name="Artifacts")
    nav.get_by_text("down/").wait_for()
    assert nav.locator("details details a").all_inner_texts()[0].split("\n")[0] == "weights.safetensors"
    assert nav.get_by_text("checkpoints/best").locator("..").locator(".badge").all_inner_texts() == ["best"]
    assert nav.get_by_text("checkpoints/last").locator("..").locator(".badge").all_inner_texts() == ["last"]
    preview = page.get_by_label("Preview")
    for file, said in (
        ("notes.txt", "words of run 1"),
        ("config.json", "layers"),
        ("rows.csv", "grace"),
        ("weights.safetensors", "3 × 4"),
    ):
        nav.get_by_role("link", name=file).click()
        preview.get_by_text(said).first.wait_for()
    entry = next(one for one in info.artifacts[0].files if one.path == "rows.csv")
    nav.get_by_role("link", name="rows.csv").click()
    preview.get_by_text(f"blake3 {entry.hash}").wait_for()
    nav.get_by_role("link", name="picture.png").click()
    assert colour_of(preview.locator("img")) == [130, 90, 160]
    nav.get_by_role("link", name="page.html").click()
    preview.get_by_role("button", name="As a page").click()
    frame = preview.locator("iframe")
    frame.wait_for()
    assert frame.get_attribute("sandbox") == ""
    page.frame_locator("iframe").get_by_role("heading", name="Hello").wait_for()
    assert page.title() != "broken"
    nav.get_by_role("link", name="lost").click()
    preview.get_by_text("This file is missing").wait_for()


def test_criterion_31_a_download_has_the_bytes_and_two_versions_are_compared(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, (before, after) = made[0], made[1]["files"]
    page = look(server, f"?page=run&run={after}&tab=artifacts&item=bundle//deep/down/weights.safetensors")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download").click()
    wanted = server.workspace.parent / "bundle-1" / "deep" / "down" / "weights.safetensors"
    assert (
        hashlib.sha256(Path(saved.value.path()).read_bytes()).digest() == hashlib.sha256(wanted.read_bytes()).digest()
    )
    page.get_by_label("Compare with the artifact of").select_option(before)
    table = page.get_by_role("table", name="Files that differ")
    table.wait_for()
    rows = {
        row.get_by_role("rowheader").inner_text(): row.locator(".badge").inner_text()
        for row in table.locator("tbody tr").all()
    }
    assert rows == {"deep/picture.png": "changed", "extra.txt": "added", "notes.txt": "changed"}
    assert f"other={before}" in address(page)


def test_criterion_31_a_content_tells_who_produced_and_who_uses_it(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    run = runstone.open_workspace(server.workspace).run("fit-1")
    page = look(server, f"?page=run&run={ids['files'][0]}&tab=artifacts&item=checkpoints/best")
    page.get_by_text("Producer and consumers").click()
    preview = page.get_by_label("Preview")
    until(lambda: "Produced by make-0" in " ".join(preview.inner_text().split()), "the run that made it")
    assert run.artifacts or run.outputs


# --- 33: the machine and the environment ----------------------------------------------------------------------------


def test_criterion_33_what_the_machine_did_lies_along_the_same_time_as_training(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    run = runstone.open_workspace(server.workspace).run(ids["machine"])
    page = look(server, f"?page=run&run={run.id}&tab=system", height=1400)
    loss, cpu = chart(page, "train/loss"), chart(page, "system/cpu/percent")
    assert page.get_by_label("x axis").input_value() == "relative"
    for plot, metric in ((loss, "train/loss"), (cpu, "system/cpu/percent")):
        walls = run.series(metric).wall_s - run.started_at.timestamp()
        assert axes(plot)["x"] == pytest.approx([walls[0], walls[-1]], abs=0.05), metric
    middle = sum(axes(cpu)["x"]) / 2
    page.mouse.move(*place(loss, middle))
    page.mouse.move(*place(loss, middle + 0.01))
    column = """plot => {
      const over = plot.querySelectorAll('canvas')[1];
      if (!over) return null;
      const {left, top, width, x} = JSON.parse(plot.dataset.axes);
      const line = over.getContext('2d').getImageData(0, top + 2, over.width, 1).data;
      for (let i = 0; i < over.width; i++) if (line[i * 4 + 3] > 250) return x[0] + (i - left) / width * (x[1] - x[0]);
      return null;
    }"""
    for plot in (loss, cpu):
        at = until(lambda plot=plot: plot.evaluate(column), "a crosshair in both")
        assert at == pytest.approx(middle, abs=0.05)
    page.get_by_role("button", name="Leave out train/loss").click()
    until(lambda: page.locator(".slot[data-metric='train/loss']").count() == 0, "another choice")
    page.get_by_role("tab", name="Charts").click()
    chart(page, "train/loss")
    assert page.get_by_label("x axis").input_value() == "step", "elsewhere it is as it was"


def test_criterion_33_an_environment_is_compared_with_that_of_any_run(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, ids = made
    first, second = ids["places"]
    page = look(server, f"?page=run&run={first}&tab=environment")
    other = page.get_by_label("Compare the environment with")
    until(lambda: other.locator(f"option[value='{second}']").count() == 1, "the other run is offered")
    assert other.locator(f"option[value='{ids['machine']}']").inner_text() == "machine: busy", "those of other projects"
    other.select_option(second)
    row = page.get_by_role("row", name="OMP_NUM_THREADS")
    row.wait_for()
    assert row.get_by_role("cell").all_inner_texts() == ["1", "2"]
    other.select_option(label="Another, by its id…")
    page.get_by_role("dialog").get_by_label("Id of the run").fill(first)
    page.keyboard.press("Enter")
    page.get_by_text("The two environments are the same.").wait_for()


# --- 34: drift ------------------------------------------------------------------------------------------------------


def figures_of(page: Any) -> dict[str, dict[str, float]]:
    """Return the table of columns: by name, figures by title."""
    table = page.get_by_role("table", name="Columns")
    table.wait_for()
    titles = [re.sub(r" [↓↑]", "", one) for one in table.locator("thead button").all_inner_texts()]
    found = {}
    for row in table.locator("tbody tr").all():
        values = [one.get_attribute("title") for one in row.locator("td").all()]
        found[row.locator("th").inner_text()] = {
            title: float(value) for title, value in zip(titles[1:], values, strict=True) if value
        }
    return found


@pytest.mark.parametrize(("title", "key"), [("PSI", "psi"), ("KS", "statistic"), ("p", "p")])
def test_criterion_34_columns_are_sorted_by_each_figure_that_python_gives(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any], title: str, key: str
) -> None:
    server, _ids = made
    last = checks_of(server.workspace, MODEL)[-1]
    report = read_report(server.workspace, MODEL, last.id)
    expected = {
        one["name"]: one["p"] if key == "p" else one["distance"][key] for one in report["features"] if one["distance"]
    }
    page = look(server, f"?page=monitoring&item={MODEL}&ref={last.id}")
    shown = figures_of(page)
    assert {name: row[title] for name, row in shown.items() if title in row} == pytest.approx(expected)
    button = (
        page.get_by_role("table", name="Columns")
        .locator("thead")
        .get_by_role("button", name=re.compile(f"^{title}( |$)"))
    )
    button.click()
    assert [row[title] for row in figures_of(page).values()] == sorted(expected.values(), reverse=True)
    button.click()
    assert [row[title] for row in figures_of(page).values()] == sorted(expected.values())
    thresholds = page.locator("details", has_text="Thresholds")
    thresholds.locator("summary").click()
    for name, value in report["thresholds"].items():
        assert thresholds.locator("dt", has_text=re.compile(f"^{name.replace('_', ' ')}$")).locator(
            "xpath=following-sibling::dd[1]"
        ).inner_text() == str(value)


def test_criterion_34_another_reference_is_chosen_and_judged_as_python_does(
    made: tuple[Server, dict[str, Any]], look: Callable[..., Any]
) -> None:
    server, _ids = made
    workspace = runstone.open_workspace(server.workspace)
    near = server.workspace.parent / "near.csv"
    near.write_text("income,housing,risk\n" + "\n".join(f"{58 + k % 9},own,0.{k % 10}" for k in range(400)) + "\n")
    set_profile(workspace, f"{MODEL}@1.0.0", near)
    last = checks_of(server.workspace, MODEL)[-1]
    page = look(server, f"?page=monitoring&item={MODEL}&ref={last.id}")
    own = figures_of(page)
    page.get_by_label("Reference version").select_option("1.0.0")
    until(lambda: "other=1.0.0" in address(page) and figures_of(page) != own, "judged by another reference")
    before = profile_of(workspace, workspace.models.find(f"{MODEL}@1.0.0"))
    batch = profile_rows(rows_of(server.workspace.parent / "today.csv"), expected=before.columns)
    exact = {one.name: one.distance for one in compare_profiles(before, batch).features if one.distance is not None}
    shown = figures_of(page)
    assert set(exact) <= set(shown)
    for name, distance in exact.items():
        assert shown[name]["PSI"] == pytest.approx(distance.psi, rel=1e-9), name
        assert shown[name]["KS"] == pytest.approx(distance.statistic, rel=1e-9), name
    answer = json.loads(
        page.request.get(
            f"{server.url}api/monitoring/{MODEL.replace('/', '%2F')}/reports/{last.id}?reference=1.0.0"
        ).text()
    )
    assert {one["name"]: one["distance"]["psi"] for one in answer["features"] if one["distance"]} == pytest.approx(
        {name: row["PSI"] for name, row in shown.items()}
    )
    page.get_by_text("the batch is the same").wait_for()
