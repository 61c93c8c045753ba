"""In a notebook runs, tables, comparisons and versions show themselves, and plots are figures of plotly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.comparison import PLOT_KINDS, compare

go = pytest.importorskip("plotly.graph_objects")
EVIL = '"><img src=x onerror=alert(1)>'

CELLS = (
    "import runstone\nworkspace = runstone.open_workspace({home!r})\nruns = workspace.runs('params.seed < 3')",
    "runs",
    "runs[0]",
    "runstone.compare(runs, by='params.model', metrics=['val/acc.max'])",
    "runs[0].plot('val/loss')",
    "runstone.compare(runs).plot('val/acc')",
    "workspace.plot('val/acc', by='params.model')",
    "run = runstone.start_run(project='q', workspace=workspace, environment=False)\nrun.log({{'x': 1.0}}, step=0)\nrun",
    "run.finish()",
)  # fmt: skip


def test_a_notebook_shows_runs_comparisons_and_figures(made: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    home = tmp_path / "copy"
    shutil.copytree(made, home)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell.format(home=str(home))) for cell in CELLS]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources={}).execute()
    shown = [cell.outputs[-1]["data"] if cell.outputs else {} for cell in notebook.cells]
    assert "RunTable: 9 runs" in shown[1]["text/html"]
    assert "<b>Run " in shown[2]["text/html"]
    assert "beats" in shown[3]["text/html"]
    for place in (4, 5, 6):
        figure = shown[place]["application/vnd.plotly.v1+json"]
        assert figure["data"], place
    assert "metrics.x" in shown[7]["text/html"]


def test_values_of_a_plot_are_those_of_the_run(workspace: runstone.Workspace) -> None:
    run = workspace.run("vit-3")
    figure = run.plot("val/loss")
    series = run.series("val/loss")
    assert isinstance(figure, go.Figure)
    (trace,) = figure.data
    assert trace.x.tolist() == series.step.tolist()
    assert trace.y.tolist() == series.value.tolist()
    from runstone.figures import color

    assert trace.line.color == color(run.id)
    assert run.plot("val/loss", theme="dark").data[0].line.color == color(run.id, is_dark=True)
    both = run.plot("val/loss", "train/loss", smoothing=0.5, x="relative", log_y=True)
    assert {trace.name for trace in both.data if trace.name} == {"val/loss", "train/loss"}
    assert both.layout.yaxis.type == "log"
    over = run.plot("val/acc", x="train/loss").data[0]
    assert over.x.tolist() == run.series("train/loss").value.tolist()
    with pytest.raises(runstone.InvalidValue, match="name a metric"):
        run.plot()
    with pytest.raises(runstone.MetricNotFound, match="val/los"):
        run.plot("val/los")


def test_a_run_has_one_colour_in_every_figure(workspace: runstone.Workspace) -> None:
    alone = workspace.run("vit-3").plot("val/loss").data[0].line.color
    among = compare(workspace.runs()).plot("val/loss")
    (line,) = (trace for trace in among.data if trace.name == "vit-3")
    assert line.line.color == alone


@pytest.mark.parametrize("kind", PLOT_KINDS)
def test_a_workspace_plots_every_kind(workspace: runstone.Workspace, kind: str) -> None:
    metrics = ("val/acc", "train/loss") if kind == "front" else ("val/acc",)
    fields: dict[str, Any] = {"x": "params.model", "y": "params.seed"} if kind == "heatmap" else {}
    if kind == "scatter":
        fields = {"x": "params.seed", "y": "metrics.val/acc.max"}
    by = "params.model" if kind in ("groups", "spread", "curves") else ()
    figure = workspace.plot(*metrics, kind=kind, by=by, **fields)
    assert isinstance(figure, go.Figure)
    assert len(figure.data)


def test_a_plot_that_lacks_something_says_what(workspace: runstone.Workspace) -> None:
    for options, message in (
        ({"kind": "pie"}, "kind is 'pie'"), ({"kind": "scatter"}, "needs x"), ({"kind": "groups"}, "needs by"),
        ({"kind": "front"}, "two metrics"), ({"goal": "up"}, "goal is 'up'"),
    ):  # fmt: skip
        with pytest.raises(runstone.InvalidValue, match=message):
            workspace.plot("val/acc", **options)  # type: ignore[arg-type]
    nothing = workspace.plot("val/acc", filter="name = 'nobody'")
    assert not len(nothing.data)
    assert "No run fits" in nothing.layout.title.text


def test_a_comparison_plots_what_it_holds(workspace: runstone.Workspace) -> None:
    plain = compare(workspace.runs("params.seed = 1"))
    assert len(plain.plot().data) == 3
    with pytest.raises(runstone.InvalidValue, match="nothing is grouped"):
        plain.plot(kind="groups")
    with pytest.raises(runstone.InvalidValue, match="takes two metrics"):
        plain.plot(kind="front")
    with pytest.raises(runstone.InvalidValue, match="none of the runs has a metric 'x'"):
        plain.plot("x")
    grouped = compare(workspace.runs(), by="params.model", metrics=["val/acc.max", "train/loss.min"])
    for kind in ("groups", "spread", "parallel", "front", "curves"):
        assert grouped.plot(kind=kind).data
    (points,) = grouped.plot().data
    assert list(points.y) == ["vit", "cnn", "mlp"]


def test_nothing_that_a_user_named_is_markup_in_a_notebook(home: Path) -> None:
    infos = []
    for number in range(2):
        with runstone.start_run(
            project=EVIL, name=f"{EVIL}{number}", params={EVIL: EVIL}, tags={EVIL: f"{number}{EVIL}"}, group=EVIL,
            workspace=home, environment=False,
        ) as run:  # fmt: skip
            run.log({EVIL: number}, step=0)
            assert "<img" not in run._repr_html_()
        infos.append(run.read())
    table = runstone.open_workspace(home).runs()
    for shown in (table, infos[0], compare(table), compare(table, by=f"tags.'{EVIL}'", metrics=[EVIL])):
        text = shown._repr_html_()
        assert "<img" not in text
        assert "&lt;img" in text
    assert "<img" not in json.dumps(infos[0].plot(EVIL).to_plotly_json(), default=str)


def test_a_version_shows_itself(home: Path) -> None:
    with runstone.start_run(project="p", workspace=home, environment=False) as run:
        (home / "weights.bin").write_bytes(b"x")
        run.log_artifact(home / "weights.bin")
    version = runstone.open_workspace(home).register_model("credit", run.id, notes=EVIL)
    text = version._repr_html_()
    assert "credit@1.0.0" in text
    assert "<img" not in text
