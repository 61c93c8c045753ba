"""What people did with SageMaker's Model Registry, done here. Each test is a row of the table in docs/models.md."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

import runstone
from runstone.ledger import acting_as
from tests.catalog.conftest import User
from tests.models.made import add_dataset, registry, train


@pytest.fixture
def home(user: User) -> Path:
    """A model with two versions, made of a dataset that came from a lake."""
    home = user.project / ".runstone"
    add_dataset(home, "loans", 1, "a", url="s3://lake/loans")
    train(home, "one", params={"lr": 1}, metrics={"auc": 0.8, "bias/gap": 0.02}, data=("loans", "1", "a"))
    train(home, "two", params={"lr": 2}, metrics={"auc": 0.9}, data=("loans", "1", "a"))
    return home


def test_versions_of_a_group_count_up(user: User, home: Path) -> None:
    assert [one["version"] for one in user.json("models show credit-risk")["versions"]] == ["1.1.0", "1.0.0"]


def test_a_version_is_pending_until_somebody_approves_or_rejects_it(user: User, home: Path) -> None:
    assert user.json("models show credit-risk@1.0.0")["approval"]["state"] == "pending"
    user("models stages credit-risk --requires-approval")
    assert "it is pending" in user("models promote credit-risk@1.0.0 production", code=1)
    user("models approve credit-risk@1.0.0 --reason measured")
    user("models reject credit-risk@1.1.0 --reason slow")
    approved = user.json("models show credit-risk@1.0.0")["approval"]
    assert (approved["state"], approved["by"], approved["reason"]) == ("approved", getpass.getuser(), "measured")
    assert approved["at"] > 0
    user("models promote credit-risk@1.0.0 production")
    assert "rejected" in user("models promote credit-risk@1.1.0 production", code=1)


def test_stage_and_status_stand_by_version_and_a_rule_says_who_may_set_them(user: User, home: Path) -> None:
    pytest.importorskip("yaml")
    gates = user.write("gates.yaml", "gates: {production: [{approval: approved}, {approver: not_author}]}")
    promote = f"models promote credit-risk@1.0.0 production --gates {gates}"
    user("models approve credit-risk@1.0.0")
    assert "approves it" in user(promote, code=1)
    with acting_as("somebody-else"):
        user("models approve credit-risk@1.0.0")
    user(promote)
    shown = user.json("models show credit-risk@1.0.0")
    assert (shown["stage"], shown["approval"]["state"]) == ("production", "approved")


def test_approving_starts_a_deployment_and_rejecting_does_not(user: User, home: Path) -> None:
    pytest.importorskip("yaml")
    deploy = user.write(
        "deploy.py",
        "import json, sys, runstone\n"
        "event = json.load(sys.stdin)\n"
        "model = runstone.open_workspace('.runstone').models.get(event['model'])\n"
        "model.record_deployment(event['version'], 'eu/scoring', replicas=2)\n",
    )
    hook = {"name": "deploy", "on": ["approved"], "command": [sys.executable, str(deploy)], "timeout_s": 60}
    (home / "hooks.yaml").write_text(json.dumps({"hooks": [hook]}))
    user("models reject credit-risk@1.1.0 --reason slow")
    assert user.json("models show credit-risk")["deployed"] == []
    assert "hook deploy: delivered" in user("models approve credit-risk@1.0.0")
    (deployed,) = user.json("models show credit-risk")["deployed"]
    assert (deployed["version"], deployed["target"], deployed["replicas"]) == ("1.0.0", "eu/scoring", 2)


def test_metadata_metrics_and_a_card_belong_to_a_version(user: User, home: Path) -> None:
    user.write("weights.bin", b"w")
    with runstone.start_run(project="p", workspace=home) as run:
        run.log({"quality/auc": 0.8, "bias/gap": 0.02, "explainability/top_share": 0.4})
        run.log_model(
            "weights.bin",
            name="m",
            metadata={"container": "registry.example.org/score:3", "content_types": ["text/csv"], "team": "risk"},
        )
    content = user.json("models show m@1.0.0")["content"]
    assert content["metadata"]["content_types"] == ["text/csv"]
    assert set(content["metrics"]) == {"quality/auc", "bias/gap", "explainability/top_share"}
    card = user("models card m@1.0.0")
    for part in ("registry.example.org/score:3", "bias/gap", "python.version"):
        assert part in card
    user("models card m@1.0.0 -o card.html")
    assert Path("card.html").read_text().startswith("<!doctype html>")


def test_lineage_is_asked_up_and_down(user: User, home: Path) -> None:
    user("models deployed credit-risk@1.1.0 eu/scoring")
    down = user("lineage source:s3://lake/loans --down")
    assert "deployment eu/scoring" in down
    up = user("lineage deployment:credit-risk@eu/scoring --up")
    assert "raw s3://lake/loans" in up
    found = runstone.open_workspace(home).lineage("model:credit-risk@1.1.0")
    assert {node.kind for node in found.nodes.values()} == {"source", "dataset", "run", "model", "deployment"}


def test_a_baseline_is_stored_on_the_version(user: User, home: Path) -> None:
    """What monitoring compares with; the monitoring itself is elsewhere."""
    workspace = runstone.open_workspace(home)
    shutil.rmtree(home / "datasets")  # of which this test's world has only the names
    baseline = workspace.blobs.put_bytes(b'{"income": {"mean": 50}}', "baseline.json").hash
    registry(home).set_profile("1.0.0", baseline)
    registry(home).open_incident("1.0.0", kind="drift", summary="income shifted")
    assert user.json("models show credit-risk@1.0.0")["profile"] == baseline
    assert "#1 drift" in user("models show credit-risk@1.0.0")
    assert "income shifted" in user("models incidents")
    user("gc --grace 0s")
    assert workspace.blobs.read(baseline).startswith(b"{")


def test_versions_are_compared_side_by_side(user: User, home: Path) -> None:
    told = user("models compare credit-risk@1.0.0 credit-risk@1.1.0")
    assert "credit-risk@1.0.0" in told.splitlines()[1]
    assert "+0.1" in told


def test_every_action_stands_in_an_audit_log_that_can_be_proved(user: User, home: Path) -> None:
    user("models approve credit-risk@1.0.0 --reason fine")
    user("models promote credit-risk@1.0.0 production --reason go")
    events = user.json("models history credit-risk")
    assert [event["event"] for event in events][-2:] == ["judged", "staged"]
    assert all(event["by"]["user"] and event["by"]["host"] and event["at"] for event in events)
    assert "the history holds" in user("models verify credit-risk")
    place = registry(home).ledger.folder / "00000003.json"
    place.write_bytes(place.read_bytes().replace(b"1.1.0", b"1.2.0"))
    assert "00000003.json: it was changed" in user("models verify credit-risk", code=1)


def test_runs_stand_in_a_tree_with_params_and_metrics(user: User, home: Path) -> None:
    outer = train(home, "search", model=None)
    train(home, "trial", model="best", params={"lr": 3}, parent=outer.id)
    assert "run search" in user("lineage model:best@1.0.0")
    shown = user.json("runs show trial")
    assert (shown["params"], shown["parent"]) == ({"lr": 3}, outer.id)


def test_a_group_is_shared_read_only(user: User, home: Path, tmp_path: Path) -> None:
    user(f"models copy credit-risk@1.0.0 --to {tmp_path}/theirs")
    assert "credit-risk@1.0.0" in user(f"models show credit-risk@1.0.0 -w {tmp_path}/theirs")
    # or a workspace that others may only read: nothing is written for reading it
    if os.geteuid() == 0:
        before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "index" not in path.name}
    else:
        for path in [home, *home.rglob("*")]:
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        before = {}
    for line in (
        "list",
        "show credit-risk",
        "show credit-risk@1.0.0",
        "history credit-risk",
        "verify",
        "at 2099-01-01",
    ):
        user(f"models {line}")
    assert runstone.load_model("credit-risk@1.0.0", workspace=home).native.exists()
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "index" not in path.name}
    for path in [home, *home.rglob("*")] if not before else []:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert not before or {path for path in before if before[path] != after.get(path)} <= {
        path for path in before if "cache" in path.parts or path == home
    }
    shutil.rmtree(tmp_path / "theirs")
