"""Gates: what they refuse and what they let pass; files with mistakes; evidence from a real workspace."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import InvalidConfig
from runstone.models.better import Check
from runstone.models.gates import check_gates, parse_gates, read_gates, to_record
from runstone.models.proof import WorkspaceEvidence
from runstone.statistics import gain_bound
from tests.models.made import registry, train


def ask(home: Path, version: str, *entries: dict[str, Any], stage: str = "production", **options: Any) -> list[Check]:
    model = registry(home)
    gates = parse_gates({"gates": {stage: list(entries)}})
    evidence = WorkspaceEvidence(runstone.open_workspace(home))
    return check_gates(gates, model.state(), model.find(version), stage, evidence, **options)


def passed(home: Path, version: str, *entries: dict[str, Any], **options: Any) -> list[bool]:
    return [check.is_passed for check in ask(home, version, *entries, **options)]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("gates: [", "while parsing"),
        ("- a", "must be a mapping with the key gates"),
        ("gates: {production: {}}", r"gates\.production: must be a list"),
        ("gates: {production: [clean]}", r"production\.0: must be one gate"),
        ("gates: {production: [{cod: clean}]}", "there is no such gate; there is metric, better_than"),
        ("gates: {production: [{code: dirty}]}", "the only word here is clean"),
        ("gates: {production: [{metric: {name: x}}]}", "needs a number as min or max"),
        ("gates: {production: [{metric: {name: x, min: true}}]}", "needs a number"),
        ("gates: {production: [{metric: {name: x, min: .nan}}]}", "needs a number"),
        ("gates: {production: [{metric: {name: x, min: 2, max: 1}}]}", "min is above max"),
        ("gates: {production: [{metric: {name: 3, min: 2}}]}", "name must be the name of a metric"),
        ("gates: {production: [{metric: {name: x, mim: 1}}]}", "mim is not a key here"),
        ("gates: {production: [{better_than: {metric: x, goal: up}}]}", "maximize or minimize"),
        ("gates: {production: [{better_than: {metric: x, goal: minimize, margin: -1}}]}", "worse would count"),
        (
            "gates: {production: [{better_than: {metric: x, goal: minimize, confidence: 95}}]}",
            "at least 0.5 and below 1",
        ),
        ("gates: {production: [{tags: {reviewed: yes}}]}", "quote it"),
        ("gates: {production: [{evaluations: []}]}", "must be a list of metrics or artifacts"),
        ("gates:\n  production: [{code: clean}]\n  production: []", "'production' stands there twice"),
        ("gates: {production: [{metric: {name: !!python/name:os.system , min: 1}}]}", "could not determine"),
        ("\ud800", "surrogates|utf-8"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, mistake: str) -> None:
    path = tmp_path / "gates.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidConfig, match=mistake):
        read_gates(path)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("gates: {a: [{code: x}, {data: y}], b: 3}")
    with pytest.raises(InvalidConfig) as caught:
        read_gates(tmp_path / "g.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_a_metric_is_held_against_its_bounds(home: Path) -> None:
    train(home, "a", metrics={"auc": 0.9, "bad": math.nan})
    bound = {"metric": {"name": "auc", "min": 0.9}}
    assert passed(home, "1.0.0", bound, {"metric": {"name": "auc", "max": 0.9}}) == [True, True]
    assert passed(home, "1.0.0", {"metric": {"name": "auc", "min": 0.9000001}}) == [False]
    assert passed(home, "1.0.0", {"metric": {"name": "bad", "min": 0}}, {"metric": {"name": "f1", "min": 0}}) == [
        False,
        False,
    ]
    (check,) = ask(home, "1.0.0", {"metric": {"name": "auc", "min": 0.90000001}})
    assert (check.gate, check.detail) == ("auc is at least 0.90000001", "it is 0.9")


def test_a_version_must_be_better_than_the_champion_by_the_margin(home: Path) -> None:
    train(home, "a", params={"lr": 1}, metrics={"auc": 0.8, "loss": 0.5})
    train(home, "b", params={"lr": 2}, metrics={"auc": 0.85, "loss": 0.4})
    gate = {"better_than": {"metric": "auc", "goal": "maximize", "margin": 0.04}}
    assert passed(home, "1.1.0", gate) == [True]  # nobody is there yet
    registry(home).set_stage("1.0.0", "production")
    assert passed(home, "1.1.0", gate) == [True]
    assert passed(home, "1.1.0", {"better_than": {"metric": "auc", "goal": "maximize", "margin": 0.06}}) == [False]
    assert passed(home, "1.1.0", {"better_than": {"metric": "loss", "goal": "minimize"}}) == [True]
    assert passed(home, "1.1.0", {"better_than": {"metric": "loss", "goal": "maximize"}}) == [False]
    assert passed(home, "1.1.0", {"better_than": {"metric": "f1", "goal": "maximize"}}) == [False]


def test_equal_is_not_better(home: Path) -> None:
    for name in "ab":
        train(home, name, metrics={"auc": 0.8})
    registry(home).set_stage("1.0.0", "production")
    assert passed(home, "1.0.1", {"better_than": {"metric": "auc", "goal": "maximize"}}) == [False]


def test_a_champion_that_does_not_exist_or_is_the_version_itself_lets_nothing_pass(home: Path) -> None:
    for name in "ab":
        train(home, name, metrics={"auc": 0.8})

    def gate(version: str) -> dict[str, Any]:
        return {"better_than": {"metric": "auc", "goal": "maximize", "version": version}}

    assert "no version, alias or stage 'champoin'" in ask(home, "1.0.1", gate("champoin"))[0].detail
    assert passed(home, "1.0.1", gate("champoin")) == [False]
    registry(home).set_alias("champion", "1.0.1")
    assert passed(home, "1.0.1", gate("champion"), gate("latest")) == [False, False]
    assert passed(home, "1.0.1", {"signature": {"compatible_with": "champoin"}}) == [False]


def test_confidence_takes_several_seeds_and_grows_with_them(home: Path) -> None:
    for number, auc in enumerate((0.80, 0.81, 0.79, 0.80)):
        model = "credit-risk" if number == 0 else None
        train(home, f"old-{number}", params={"lr": 1, "seed": number}, metrics={"auc": auc}, model=model)
    registry(home).set_stage("1.0.0", "production")
    train(home, "new-0", params={"lr": 2, "seed": 0}, metrics={"auc": 0.85})
    gate = {"better_than": {"metric": "auc", "goal": "maximize", "margin": 0.02, "confidence": 0.95}}
    (check,) = ask(home, "1.1.0", gate)
    assert not check.is_passed
    assert "at least two seeds" in check.detail
    for number, auc in enumerate((0.86, 0.84, 0.85), 1):
        train(home, f"new-{number}", params={"lr": 2, "seed": number}, metrics={"auc": auc}, model=None)
    (check,) = ask(home, "1.1.0", gate)
    assert check.is_passed
    assert "4 and 4 seeds" in check.detail
    unsure = {**gate["better_than"], "margin": 0.045}  # the means differ by 0.05, for certain by 0.0388
    assert passed(home, "1.1.0", {"better_than": unsure}) == [False]
    del unsure["confidence"]
    assert passed(home, "1.1.0", {"better_than": unsure}) == [True]


def test_seeds_count_once_and_only_with_the_same_recipe_data_and_group(home: Path) -> None:
    data = ("loans", "3", "b")

    def make(name: str, *, value: float = 0.8, model: str | None = None, **options: Any) -> None:
        options = {"params": {"lr": 1, "seed": 1}, "data": data, "group": "g"} | options
        train(home, name, metrics={"auc": value}, model=model, **options)

    make("own", model="credit-risk")
    make("again", value=0.7)  # the same seed
    make("lr", params={"lr": 2, "seed": 2})
    make("data", params={"lr": 1, "seed": 2}, data=("loans", "4", "c"))
    make("group", params={"lr": 1, "seed": 2}, group=None)
    make("good", params={"lr": 1, "seed": 2}, value=0.9)
    with runstone.start_run(
        project="credit", params={"lr": 1, "seed": 3}, group="g", workspace=home, environment=False
    ) as run:
        run._event("input", kind="dataset", name="loans", version="3", hash="b" * 64, role="train")
        run.log({"auc": 0.1}, step=0)
        run.finish("stopped")
    evidence = WorkspaceEvidence(runstone.open_workspace(home))
    assert list(evidence.over_seeds(registry(home).find("1.0.0"), "auc")) == [0.8, 0.9]


def test_what_welch_bounds_is_kept_as_often_as_promised() -> None:
    dice = random.Random(0)
    kept = 0
    for _ in range(2000):
        ours = [dice.gauss(1.0, 0.3) for _ in range(5)]
        theirs = [dice.gauss(0.5, 0.1) for _ in range(4)]
        kept += gain_bound(ours, theirs, 0.95) <= 0.5
    assert 0.935 < kept / 2000 < 0.965


def test_evaluations_may_come_from_later_runs_that_used_the_version(home: Path) -> None:
    train(home, "a", metrics={"auc": 0.9})
    gate = {"evaluations": ["fairness", "report.txt"]}
    assert ask(home, "1.0.0", gate)[0].detail == "fairness, report.txt is missing"
    (home.parent / "report.txt").write_text("fine")
    with runstone.start_run(project="checks", workspace=home, environment=False) as run:
        run.use_model("credit-risk@1.0.0")
        run.log({"fairness/gap": 0.01, "auc": 0.1}, step=0)
        run.log_artifact(home.parent / "report.txt")
    assert passed(home, "1.0.0", gate, {"metric": {"name": "fairness/gap", "max": 0.02}}) == [True, True]
    assert passed(home, "1.0.0", {"metric": {"name": "auc", "min": 0.9}}) == [True]  # its own counts most


def test_who_approves_is_another_than_who_made_it(home: Path) -> None:
    train(home, "a")
    gate = {"approver": "not_author"}
    assert passed(home, "1.0.0", gate, {"approval": "approved"}) == [False, False]
    assert passed(home, "1.0.0", gate, approver="somebody else") == [True]
    registry(home).judge("1.0.0", "approved")
    assert passed(home, "1.0.0", gate, {"approval": "approved"}, approver="somebody else") == [False, True]


def test_code_tags_and_signature_are_asked_for(home: Path) -> None:
    train(home, "a")
    registry(home).set_tags({"reviewed": "yes", "tier": "1"}, version="1.0.0")
    gates = {"code": "clean"}, {"tags": {"reviewed": "yes", "tier": 1}}, {"tags": {"reviewed": "no"}}
    assert passed(home, "1.0.0", *gates, {"signature": "compatible"}) == [False, True, False, False]


def test_gates_for_stages_that_the_model_lacks_do_not_pass_for_none(home: Path) -> None:
    train(home, "a")
    model = registry(home)
    evidence = WorkspaceEvidence(runstone.open_workspace(home))
    gates = parse_gates({"gates": {"prodution": [{"code": "clean"}]}})
    with pytest.raises(InvalidConfig, match="no such stage, and there are no gates for 'production'"):
        check_gates(gates, model.state(), model.find("1.0.0"), "production", evidence)
    both = parse_gates({"gates": {"*": [{"approval": "approved"}], "live": [{"code": "clean"}]}})
    checks = check_gates(both, model.state(), model.find("1.0.0"), "production", evidence)
    assert to_record(checks) == {
        "passed": False,
        "checks": [{"gate": "it is approved", "passed": False, "detail": "it is pending"}],
    }
