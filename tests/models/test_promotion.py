"""Promotion: the gates decide, the record stays, also of a refusal; what stands at that moment counts."""

from __future__ import annotations

from pathlib import Path

import pytest

import runstone
from runstone.errors import InvalidConfig, InvalidValue
from runstone.models import ModelNotFound
from runstone.models.promotion import promote
from tests.models.made import add_dataset, registry, train


@pytest.fixture
def workspace(home: Path) -> runstone.Workspace:
    train(home, "a", params={"lr": 1}, metrics={"auc": 0.8}, data=("loans", "3", "b"))
    train(home, "b", params={"lr": 2}, metrics={"auc": 0.9})
    return runstone.open_workspace(home)


def gates(workspace: runstone.Workspace, text: str) -> Path:
    path = workspace.path.parent / "gates.yaml"
    path.write_text(text)
    return path


def test_a_promotion_keeps_what_the_gates_found_and_which_gates_they_were(workspace: runstone.Workspace) -> None:
    path = gates(workspace, "gates: {production: [{metric: {name: auc, min: 0.75}}]}")
    found = promote(workspace, "credit-risk@1.0.0", "production", gates=path, reason="first")
    assert (found.is_done, found.replaced) == (True, ())
    found = promote(workspace, "credit-risk@1.1.0", "production", gates=path, reason="better")
    assert (found.is_done, found.replaced, found.before) == (True, ("1.0.0",), "none")
    event = registry(workspace.path).history()[-1]
    assert event.kind == "staged"
    record = event.fields["record"]
    assert record["passed"]
    assert {"gate": "auc is at least 0.75", "passed": True, "detail": "it is 0.9"} in record["checks"]
    assert workspace.blobs.read(record["gates"]["hash"]) == path.read_bytes()
    assert str(registry(workspace.path).find("production")) == "credit-risk@1.1.0"


def test_a_refusal_moves_nothing_and_stands_in_the_history_with_every_reason(workspace: runstone.Workspace) -> None:
    path = gates(workspace, "gates: {production: [{metric: {name: auc, min: 0.95}}, {code: clean}]}")
    found = promote(workspace, "credit-risk@latest", "production", gates=path, reason="try")
    assert (found.is_done, found.is_allowed) == (False, False)
    model = registry(workspace.path)
    assert model.find("1.1.0").stage == "none"
    event = model.history()[-1]
    assert (event.kind, event.fields["stage"], event.fields["reason"]) == ("refused", "production", "try")
    failed = [check["gate"] for check in event.fields["record"]["checks"] if not check["passed"]]
    assert failed == ["auc is at least 0.95", "the code is a commit without changes"]
    assert model.verify() == []


def test_a_dry_run_writes_nothing(workspace: runstone.Workspace) -> None:
    before = sorted(path for path in workspace.path.rglob("*") if path.is_file() and "lock" not in path.name)
    path = gates(workspace, "gates: {production: [{metric: {name: auc, min: 0.95}}]}")
    assert not promote(workspace, "credit-risk@1.1.0", "production", gates=path, is_dry=True).is_allowed
    assert promote(workspace, "credit-risk@1.1.0", "staging", gates=path, is_dry=True).is_allowed
    after = sorted(path for path in workspace.path.rglob("*") if path.is_file() and "lock" not in path.name)
    assert before == after


def test_without_a_file_revoked_rejected_and_withdrawn_are_refused(workspace: runstone.Workspace) -> None:
    add_dataset(workspace.path, "loans", 3, "b")
    from runstone.lineage import revoke

    revoke(workspace, "dataset:loans@3", reason="wrong labels")
    found = promote(workspace, "credit-risk@1.0.0", "production")
    assert [check.detail for check in found.checks] == ["dataset:loans@3 was revoked: wrong labels"]
    assert promote(workspace, "credit-risk@1.1.0", "production").is_done
    assert promote(workspace, "credit-risk@1.0.0", "archived").is_done
    model = registry(workspace.path)
    model.judge("1.1.0", "rejected", reason="slow")
    assert "it is rejected by" in promote(workspace, "credit-risk@1.1.0", "staging").checks[0].detail
    model.withdraw("1.1.0", reason="gone", is_forced=True)
    assert promote(workspace, "credit-risk@1.1.0", "staging").checks[0].detail == "it was withdrawn: gone"
    kinds = [event.kind for event in registry(workspace.path).history()]
    assert kinds.count("refused") == 3


def test_a_model_that_asks_for_approval_gets_it_first(workspace: runstone.Workspace) -> None:
    model = registry(workspace.path)
    model.define(requires_approval=True)
    assert not promote(workspace, "credit-risk@1.1.0", "production").is_allowed
    model.judge("1.1.0", "approved")
    assert promote(workspace, "credit-risk@1.1.0", "production").is_done


def test_the_last_of_the_teams_own_stages_needs_approval_too(workspace: runstone.Workspace) -> None:
    registry(workspace.path).define(stages=["none", "shadow", "live"], requires_approval=True)
    assert not promote(workspace, "credit-risk@1.1.0", "live").is_done


def test_gates_in_the_workspace_hold_without_being_named(workspace: runstone.Workspace) -> None:
    (workspace.path / "gates.yaml").write_text("gates: {'*': [{approval: approved}]}")
    found = promote(workspace, "credit-risk@1.1.0", "production")
    assert (found.is_done, found.gates) == (False, "gates.yaml")
    (workspace.path / "gates.yaml").write_text("gates: {'*': [{aproval: approved}]}")
    with pytest.raises(InvalidConfig, match="no such gate"):
        promote(workspace, "credit-risk@1.1.0", "production")


def test_gates_are_asked_again_where_another_writer_was_faster(workspace: runstone.Workspace) -> None:
    """The judgement comes between the question and the event."""
    path = gates(workspace, "gates: {production: [{approval: approved}]}")
    model = registry(workspace.path)
    model.judge("1.1.0", "approved")
    other = registry(workspace.path)
    asked = []

    class Interrupting(type(workspace)):  # type: ignore[misc]
        @property
        def blobs(self):  # type: ignore[no-untyped-def]
            if not asked:
                asked.append(other.judge("1.1.0", "pending"))
            return super().blobs

    found = promote(Interrupting(workspace.path), "credit-risk@1.1.0", "production", gates=path)
    assert asked
    assert not found.is_done
    assert registry(workspace.path).find("1.1.0").stage == "none"


def test_wrong_references_and_stages_are_told(workspace: runstone.Workspace) -> None:
    with pytest.raises(ModelNotFound):
        promote(workspace, "credit-risk@9", "production")
    with pytest.raises(InvalidValue, match="has no stage 'prod'"):
        promote(workspace, "credit-risk@1.0.0", "prod")
    with pytest.raises(InvalidValue, match="names a time"):
        promote(workspace, "credit-risk@1.0.0?as_of=2026-01-01", "production")


def test_markdown_holds_no_markup_of_names(workspace: runstone.Workspace) -> None:
    registry(workspace.path).judge("1.1.0", "rejected", reason="a | b <img src=x> @all\n# no")
    text = promote(workspace, "credit-risk@1.1.0", "production", is_dry=True).to_markdown()
    assert "a \\| b \\<img src=x\\> \\@all·\\# no" in text
    assert text.startswith("### ❌ credit-risk\\@1.1.0 would be refused for production: 1 of 2 gates failed\n")
