"""`runstone compare` tells people and programs which group is better, and writes a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run

pytest.importorskip("scipy")


def told(home: Path, *arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert run(["-w", str(home), "compare", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_groups_and_verdicts_are_shown(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(made, "-f", "", "-b", "params.model", "-m", "val/acc.max", "-m", "train/loss.min", capsys=capsys)
    lines = [line.split() for line in out.splitlines()]
    assert ["vit", "8"] in [line[:2] for line in lines]
    assert ["vit", "beats", "cnn"] in [line[:3] for line in lines]
    assert "8 pairs" in out
    assert "Pareto front" in out
    assert "24 runs; --all shows them, too" in out
    assert "vit-3" not in out
    assert "vit-3" in told(made, "-f", "", "-b", "params.model", "-m", "val/acc", "--all", capsys=capsys)


def test_json_holds_groups_verdicts_and_the_front(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("-f", "", "-b", "params.model", "-m", "val/acc.max", "-m", "val/loss", "--baseline", "mlp", "--json")
    found = json.loads(told(made, *arguments, capsys=capsys))
    first = found["groups"][0]
    assert [group["label"] for group in first["groups"]] == ["vit", "cnn", "mlp"]
    assert {verdict["loser"] for verdict in first["verdicts"]} == {"mlp"}
    assert first["verdicts"][0]["word"] == "better"
    assert 0 < first["verdicts"][0]["corrected_p"] < 0.05
    assert found["front"]["best"] == ["vit"]
    assert set(found["measures"]) == {"val/acc max", "val/loss last"}


def test_markdown_of_many_runs_has_a_row_for_each(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(made, "-f", "", "-m", "val/acc", "--at", "val/loss.min", "-s", "name", "--markdown", capsys=capsys)
    assert "| val/acc at val/loss min |" in text
    assert sum(line.startswith(("| vit-", "| cnn-", "| mlp-")) for line in text.splitlines()) == 24
    assert "Names that differ: params 3, tags 1" in text


def test_the_page_stands_alone(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    target = tmp_path / "page.html"
    out = told(made, "-f", "", "-b", "params.model", "-m", "val/acc.max", "--html", str(target), capsys=capsys)
    assert out.strip() == str(target)
    page = target.read_text()
    assert page.count('class="rs-figure"') == 4
    assert "beats" in page
    assert len(page.encode()) < 5_500_000


def test_the_code_of_two_runs_is_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for number in range(2):
        with runstone.start_run(project="p", workspace=home, name=f"r{number}") as started:
            started.read()
        info = started.read()
        (path,) = info.path.glob("environment.*.json")
        snapshot = json.loads(path.read_bytes())
        snapshot["git"] = {"commit": str(number) * 40, "is_dirty": True, "changed": ["a.py"], "untracked": []}
        path.write_text(json.dumps(snapshot))
        patch = f"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+\x1b[31m{number}\n"
        (info.path / f"code.{snapshot['writer']}.patch").write_text(patch)
        runs.append(info)
    out = told(home, "r0", "r1", "--code", capsys=capsys)
    assert f"commit: {'0' * 40} → {'1' * 40}" in out
    assert "\x1b" not in out
    assert "-+␛[31m0" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", "", "-b", "params.model"], "name the metric"),
        (["-f", "", "-m", "acc"], "none of the runs has a metric 'acc'"),
        (["-f", "", "--json", "--markdown"], "exclude each other"),
        (["-f", "", "-m", "val/acc", "-b", "params.model", "--baseline", "x"], "there is no group 'x'"),
        (["-f", "", "-m", "val/acc", "-b", "nonsense"], "nonsense"),
        (["vit-1", "cnn-1", "mlp-1", "--code"], "two runs, got 3"),
        (["-f", "", "--goal", "up"], "'up'"),
    ],
)
def test_what_cannot_be_compared_is_told(
    made: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(made, *arguments, capsys=capsys, code=2)
