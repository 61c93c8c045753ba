"""`runstone lineage` and `runstone revoke` on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from runstone.cli.main import run
from tests.models.made import add_dataset, registry, train


@pytest.fixture
def home(home: Path) -> Path:
    train(home, "a", params={"lr": 1}, data=("loans", "3", "b"))
    add_dataset(home, "loans", 3, "b", url="s3://lake/loans")
    registry(home).set_stage("1.0.0", "production")
    return home


def output(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out


def test_every_format_is_written(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = output(capsys, "lineage", "dataset:loans@3")
    assert "raw s3://lake/loans" in tree
    assert "stage production since" in tree
    assert "came of" not in output(capsys, "lineage", "dataset:loans@3", "--down")
    assert "led to" not in output(capsys, "lineage", "dataset:loans@3", "--up")
    found = json.loads(output(capsys, "lineage", "dataset:loans@3", "--format", "json", "--depth", "1", "--down"))
    assert [node["kind"] for node in found["nodes"]] == ["dataset", "run"]
    assert "prefix" in json.loads(output(capsys, "lineage", "dataset:loans@3", "--format", "prov"))
    assert output(capsys, "lineage", "dataset:loans@3", "--format", "dot").startswith("digraph lineage {")
    page = tmp_path / "x.html"
    output(capsys, "lineage", "dataset:loans@3", "--format", "html", "-o", str(page))
    assert "http://www.w3.org/2000/svg" in page.read_text()
    output(capsys, "lineage", "dataset:nothing@3", code=1)
    output(capsys, "lineage", "\0", code=1)


def test_a_revocation_blocks_the_promotion_and_lists_what_descends(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = output(capsys, "revoke", "dataset:loans@3", "--dry-run")
    assert "would be revoked: 3 things came of it" in dry
    assert "! revoked" not in output(capsys, "lineage", "dataset:loans@3")
    listed = output(capsys, "revoke", "dataset:loans@3", "--reason", "GDPR", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(listed)))
    assert [row["kind"] for row in rows] == ["run", "model", "stage"]
    assert {row["through"] for row in rows} == {"dataset:loans@3"}
    assert "dataset:loans@3 was revoked: GDPR" in output(
        capsys, "models", "promote", "credit-risk@1.0.0", "staging", code=1
    )
    assert "in use: model:credit-risk@1.0.0 (production)" in output(capsys, "revoke", "dataset:loans@3", "--dry-run")
    target = tmp_path / "list.json"
    output(capsys, "revoke", "dataset:loans@3", "--undo", "--format", "json", "-o", str(target))
    assert json.loads(target.read_text())["reason"] is None
    output(capsys, "models", "promote", "credit-risk@1.0.0", "staging")
    for arguments in (
        ["dataset:loans@3"],
        ["dataset:loans@3", "--undo", "--reason", "x"],
        ["loans@3", "--reason", "x"],
    ):
        output(capsys, "revoke", *arguments, code=2)
