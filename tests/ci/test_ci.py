"""`runstone ci`: how a branch did against another, gates on runs and versions, one comment."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

import runstone
from runstone.ci import comment_body, find_side, report
from runstone.ci.comment import MOST_CHARACTERS
from runstone.cli.main import cli
from runstone.errors import InvalidName, InvalidValue, RunNotFound
from tests.ci.conftest import Repository

pytest.importorskip("scipy")
pytest.importorskip("yaml")


def called(repository: Repository, *words: str) -> Result:
    return CliRunner().invoke(cli, ["-w", str(repository.home), "ci", *words])


def test_a_report_says_what_changed_and_how_sure_that_is(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.place)
    written, images = tmp_path / "report.md", tmp_path / "images"
    done = called(
        repository, "report", "--markdown", str(written), "--images", str(images), "--image-url", "https://x/y/"
    )
    assert done.exit_code == 0, done.output
    text = written.read_text()
    assert text.startswith("### ✅ Metrics: 1 better\n")
    head, base = repository.git("rev-parse", "HEAD"), repository.git("rev-parse", "main")
    assert f"(3 runs, commit {head[:10]}) against **main** (3 runs, commit {base[:10]})" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| val/auc |")]
    assert "| 0.751 ± 0.001 | 0.851 ± 0.001 | +0.1 |" in line
    assert line.endswith("| ✅ better |")
    (line,) = [line for line in text.splitlines() if line.startswith("| train/loss |")]
    assert line.endswith("| equal |")
    assert "| c | 0.8 | 0.9 |" in text
    assert "Data: nothing differs" in text
    pictures = sorted(path.name for path in images.iterdir())
    assert pictures == ["01-train-loss.svg", "02-val-auc.svg"]
    assert "![val/auc](https://x/y/02-val-auc.svg)" in text
    drawn = ElementTree.parse(images / "02-val-auc.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 6


def test_runs_are_found_by_what_git_knows_and_by_what_they_recorded(repository: Repository) -> None:
    workspace = runstone.open_workspace(repository.home)
    head = repository.git("rev-parse", "better")
    by_commit = find_side(workspace, head[:12])
    assert (len(by_commit.runs), by_commit.commit) == (3, head)
    # the run was made of a detached commit, so only the checkout knows its branch
    assert find_side(workspace, "better", checkout=repository.place).commit == head
    with pytest.raises(RunNotFound, match="no finished run for 'better'"):
        find_side(workspace, "better")
    assert find_side(workspace, "branch:main").commit == repository.git("rev-parse", "main")
    one = find_side(workspace, "params.c = 0.8 and params.seed = 1")
    assert [run.params["seed"] for run in one.runs] == [1]
    assert find_side(workspace, one.runs[0].id).runs[0].id == one.runs[0].id
    assert len(find_side(workspace, "main", among="params.seed > 0").runs) == 2
    with pytest.raises(InvalidValue, match="both sides are the run"):
        report(one, one)


def test_one_run_a_side_gives_no_verdict(repository: Repository) -> None:
    workspace = runstone.open_workspace(repository.home)
    sides = [find_side(workspace, f"params.c = {c} and params.seed = 0") for c in (0.8, 0.9)]
    text = report(*sides).to_markdown()
    assert text.startswith("### How this change did")
    assert "takes two of each" in text
    with pytest.raises(InvalidValue, match="'nothing'"):
        report(*sides, metrics=["nothing"])


def test_a_worse_change_is_told_as_such(repository: Repository) -> None:
    workspace = runstone.open_workspace(repository.home)
    found = report(find_side(workspace, "params.c = 0.9"), find_side(workspace, "params.c = 0.8"))
    assert {metric.name: metric.word for metric in found.metrics} == {"val/auc": "worse", "train/loss": "equal"}
    assert found.to_markdown().startswith("### ❌ Metrics: 1 worse\n")


def test_gates_hold_for_a_run_or_not(repository: Repository, tmp_path: Path) -> None:
    gates = tmp_path / "gates.yaml"
    run = find_side(runstone.open_workspace(repository.home), "params.c = 0.9").runs[0].id
    for least, code in ((0.8, 0), (0.95, 1)):
        metric = f"{{metric: {{name: val/auc, min: {least}}}}}"
        gates.write_text(f"gates: {{runs: [{metric}, {{code: clean}}, {{tags: {{team: 'a|b'}}}}]}}")
        done = called(repository, "gate", run, "--gates", str(gates), "--json")
        assert done.exit_code == code, done.output
        told = json.loads(done.output)
        assert told["allowed"] is (code == 0)
        assert [check["passed"] for check in told["checks"]] == [True, code == 0, True, True]
    gates.write_text("gates: {runs: [{approval: approved}]}")
    done = CliRunner().invoke(cli, ["-w", str(repository.home), "ci", "gate", run, "--gates", str(gates)])
    assert "approval is for versions" in str(done.exception)
    assert called(repository, "gate", run).exit_code == 2


def test_a_run_must_be_better_than_the_base(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.place)
    workspace = runstone.open_workspace(repository.home)
    better, base = (find_side(workspace, f"params.c = {c} and params.seed = 0").runs[0].id for c in (0.9, 0.8))
    gates = tmp_path / "gates.yaml"

    def asked(run: str, **options: object) -> tuple[int, str]:
        told = json.dumps({"metric": "val/auc", "goal": "maximize", **options})
        gates.write_text(f"gates: {{runs: [{{better_than: {told}}}]}}")
        done = called(repository, "gate", run, "--gates", str(gates), "--json")
        return done.exit_code, json.loads(done.output)["checks"][1]["detail"] if done.output else str(done.exception)

    code, detail = asked(better, version="branch:main", margin=0.05, confidence=0.95)
    assert code == 0, detail
    assert "+0.1 against" in detail
    assert "(3 and 3 seeds), and at least +0.0" in detail
    assert asked(better, version="branch:main", margin=0.2)[0] == 1
    assert asked(base, version="branch:better")[0] == 1
    assert asked(base, version=f"run:{better}", goal="minimize")[0] == 0
    assert asked(better, version=base)[0] == 0
    assert asked(better, version="branch:nobody")[0] == 1
    assert "no metric 'f1'" in asked(better, version=base, metric="f1")[1]
    code, detail = asked(better)
    assert code != 0
    assert "better_than needs version" in detail


def test_a_run_must_be_better_than_a_version(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    for auc in (0.8, 0.9):
        with runstone.start_run(project="p", workspace=home, environment=False, name=f"auc-{auc}") as run:
            run.log({"val/auc": auc})
            if auc == 0.8:
                run.log_model(str(path), name="credit")
    gates = tmp_path / "gates.yaml"
    for goal, code in (("maximize", 0), ("minimize", 1)):
        gates.write_text(f"gates: {{runs: [{{better_than: {{metric: val/auc, goal: {goal}, version: credit@1}}}}]}}")
        done = CliRunner().invoke(cli, ["-w", str(home), "ci", "gate", "auc-0.9", "--gates", str(gates)])
        assert done.exit_code == code, done.output
        assert "against auc-0.8 (1 and 1 seeds)" in done.output, "without params nothing tells repetitions apart"
    done = CliRunner().invoke(cli, ["-w", str(home), "ci", "gate", "auc-0.8", "--gates", str(gates)])
    assert "credit@1.0.0 is of this very run" in done.output


def test_gates_hold_for_a_version_or_not(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    with runstone.start_run(project="p", workspace=home, environment=False) as run:
        run.log({"val/auc": 0.9})
        run.log_model(str(path), name="credit")
    gates = tmp_path / "gates.yaml"
    for least, code in ((0.8, 0), (0.95, 1)):
        gates.write_text(f"gates: {{production: [{{metric: {{name: val/auc, min: {least}}}}}], runs: []}}")
        words = ["-w", str(home), "ci", "gate", "credit@1", "--gates", str(gates)]
        assert CliRunner().invoke(cli, words).exit_code == code
    assert runstone.open_workspace(home).models.find("credit@1").stage == "none"


def test_a_comment_is_known_by_its_marker_and_never_too_long(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("### Report\n")
    assert called(repository, "comment", str(path)).output == "<!-- runstone:report -->\n### Report\n"
    assert called(repository, "comment", str(path), "--key", "a/b", "--marker").output == "<!-- runstone:a/b -->\n"
    assert len(comment_body("line\n" * 40_000)) <= MOST_CHARACTERS
    with pytest.raises(InvalidName):
        comment_body("", "a --> <script>")
