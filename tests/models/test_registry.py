"""The registry: numbers, aliases, stages, approvals, and a history that answers what stood when."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from runstone.errors import AlreadyExists, InvalidName, InvalidValue
from runstone.models import Model, ModelNotFound, Models, ModelState, NotApproved, VersionInUse

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models")


@pytest.fixture
def model(models: Models) -> Model:
    """Return a model with the versions 1.0.0, 1.1.0, 1.2.0-rc.1 and 2.0.0."""
    model = models.create("credit-risk")
    for number in ("1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"):
        model.register(f"hash of {number}", version=number)
    return model


def numbers(found: list[object]) -> list[str]:
    return [str(version).partition("@")[2] for version in found]


def following(state: ModelState) -> str:
    found = state.usable()
    return str(found[0].version.bump("patch")) if found else "1.0.0"


def register_many(root: Path, count: int) -> None:
    model = Models(root).create("shared", is_there_ok=True)
    for _ in range(count):
        model.register(f"by {os.getpid()}", version=following)


def register_for_ever(root: Path) -> None:
    register_many(root, 1_000_000)


def test_a_version_is_found_by_its_number_its_begin_and_as_the_latest(model: Model) -> None:
    assert str(model.find("1.0.0")) == str(model.find("v1.0.0")) == "credit-risk@1.0.0"
    assert str(model.find("1")) == "credit-risk@1.1.0"
    assert str(model.find("1.0")) == "credit-risk@1.0.0"
    assert str(model.find()) == str(model.find("latest")) == "credit-risk@2.0.0"
    assert numbers(list(model.versions())) == ["2.0.0", "1.2.0-rc.1", "1.1.0", "1.0.0"]
    assert model.find("1.1.0").manifest == "hash of 1.1.0"
    with pytest.raises(ModelNotFound, match=r"it has 2\.0\.0, 1\.2\.0-rc\.1, 1\.1\.0, 1\.0\.0"):
        model.find("3")
    with pytest.raises(ModelNotFound, match="no version, alias or stage 'champion'"):
        model.find("champion")


def test_a_prerelease_is_the_latest_only_where_there_is_no_release(models: Models) -> None:
    model = models.create("m")
    with pytest.raises(ModelNotFound, match="no version yet"):
        model.find()
    model.register("a", version="1.0.0-rc.2")
    assert str(model.find().version) == "1.0.0-rc.2"
    model.register("b", version="0.1.0")
    assert str(model.find().version) == "0.1.0"


def test_a_number_is_never_given_twice_also_after_it_was_withdrawn(model: Model) -> None:
    with pytest.raises(AlreadyExists, match=r"has a version 1\.1\.0 already; numbers are never given twice"):
        model.register("other", version="v1.1.0")
    model.withdraw("1.1.0", reason="trained on wrong labels")
    with pytest.raises(AlreadyExists, match="was withdrawn"):
        model.register("other", version="1.1.0")
    assert str(model.find("1").version) == "1.0.0"
    assert model.find("1.1.0").withdrawn == "trained on wrong labels"
    with pytest.raises(InvalidValue, match="trained on wrong labels"):
        model.set_alias("champion", "1.1.0")
    with pytest.raises(InvalidValue, match="withdrawn"):
        model.set_stage("1.1.0", "production")


def test_an_alias_moves_in_one_step_and_keeps_a_version_from_being_withdrawn(model: Model) -> None:
    model.set_alias("champion", "1")
    assert str(model.find("champion").version) == "1.1.0"
    model.set_alias("champion", "2.0.0")
    assert model.find("champion").aliases == ("champion",)
    assert model.find("1.1.0").aliases == ()
    with pytest.raises(VersionInUse, match="alias 'champion'"):
        model.withdraw("2.0.0", reason="x")
    model.remove_alias("champion")
    with pytest.raises(ModelNotFound, match="no alias 'champion'"):
        model.remove_alias("champion")
    model.withdraw("2.0.0", reason="x")
    assert str(model.find().version) == "1.1.0"


def test_a_new_version_in_a_stage_archives_the_one_before(model: Model) -> None:
    model.set_stage("1.0.0", "production", reason="first")
    model.set_stage("1.1.0", "production", reason="better")
    assert str(model.find("production").version) == "1.1.0"
    assert model.find("1.0.0").stage == "archived"
    model.set_stage("2.0.0", "production", keeps_others=True)
    assert numbers(list(model.state().in_stage("production"))) == ["2.0.0", "1.1.0"]
    with pytest.raises(InvalidValue, match="no stage 'prod'; it has none, staging, production, archived"):
        model.set_stage("2.0.0", "prod")
    with pytest.raises(VersionInUse, match="stage 'production'"):
        model.withdraw("2.0.0", reason="x")
    model.withdraw("2.0.0", reason="x", is_forced=True)
    assert str(model.find("production").version) == "1.1.0"


def test_a_rollback_goes_back_one_version_each_time(model: Model) -> None:
    for number in ("1.0.0", "1.1.0", "2.0.0"):
        model.set_stage(number, "production")
    assert str(model.roll_back("production", reason="errors").version) == "1.1.0"
    assert str(model.roll_back("production", reason="errors").version) == "1.0.0"
    with pytest.raises(ModelNotFound, match="no earlier version was in stage 'production'"):
        model.roll_back("production", reason="errors")
    assert str(model.find("production").version) == "1.0.0"
    assert {model.find(number).stage for number in ("1.1.0", "2.0.0")} == {"archived"}


def test_a_rollback_passes_over_what_was_withdrawn_or_rejected(model: Model) -> None:
    for number in ("1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"):
        model.set_stage(number, "production")
    model.withdraw("1.2.0-rc.1", reason="x")
    model.judge("1.1.0", "rejected", reason="biased")
    assert str(model.stage_before("production")) == "credit-risk@1.0.0"
    assert str(model.roll_back("production", reason="errors").version) == "1.0.0"


def test_what_was_in_production_on_a_day_is_answered_from_the_history(models: Models, model: Model) -> None:
    model.set_stage("1.0.0", "production")
    model.set_alias("champion", "1.0.0")
    then = model.history()[-1].at
    time.sleep(0.02)
    model.set_stage("2.0.0", "production")
    model.set_alias("champion", "2.0.0")
    assert str(model.find("production", as_of=then)) == "credit-risk@1.0.0"
    assert str(model.find("champion", as_of=then)) == "credit-risk@1.0.0"
    assert str(model.find("champion")) == "credit-risk@2.0.0"
    assert str(models.find("credit-risk@production?as_of=2099-01-01")) == "credit-risk@2.0.0"
    with pytest.raises(ModelNotFound):
        models.find("credit-risk@production?as_of=2020-01-01")


def test_a_model_that_asks_for_approval_refuses_a_version_without_one(models: Models) -> None:
    model = models.create("m", requires_approval=True)
    model.register("a", version="1.0.0")
    model.set_alias("challenger", "1.0.0")
    with pytest.raises(NotApproved, match="not approved"):
        model.set_stage("1.0.0", "production")
    model.judge("1.0.0", "rejected", reason="too slow")
    with pytest.raises(NotApproved, match="too slow"):
        model.set_stage("1.0.0", "staging")
    model.set_stage("1.0.0", "archived")
    approved = model.judge("challenger", "approved", reason="measured again")
    assert (approved.approval.state, approved.approval.reason) == ("approved", "measured again")
    assert approved.approval.by
    assert model.set_stage("1.0.0", "production").stage == "production"
    with pytest.raises(InvalidValue, match="no judgement"):
        model.judge("1.0.0", "maybe")  # type: ignore[arg-type]


def test_a_team_has_stages_of_its_own(models: Models) -> None:
    model = models.create("m", stages=["new", "shadow", "live"])
    version = model.register("a", version="1.0.0")
    assert version.stage == "new"
    model.set_stage("1.0.0", "live")
    model.register("b", version="1.1.0")
    model.set_stage("1.1.0", "live")
    assert model.find("1.0.0").stage == "new"
    with pytest.raises(VersionInUse, match="'live'"):
        model.define(stages=["new", "shadow"])
    model.set_alias("beta", "1.1.0")
    with pytest.raises(InvalidName, match="alias"):
        model.define(stages=["new", "shadow", "live", "beta"])
    model.define(stages=["new", "canary", "live"], requires_approval=True)
    assert model.state().requires_approval
    assert model.state().stages == ("new", "canary", "live")
    for wrong in ([], ["a", "a"], ["1.0"], ["latest"], "abc"):
        with pytest.raises(InvalidName):
            models.create("other", stages=wrong)


def test_tags_and_notes_belong_to_the_model_or_to_a_version(model: Model) -> None:
    model.set_tags({"team": "risk", "tier": 1})  # type: ignore[dict-item]
    model.set_tags({"market": "eu"}, version="latest")
    model.set_notes("# What it is for")
    model.set_notes("Retrained.", version="2.0.0")
    model.remove_tags("tier", "nothing")
    state = model.state()
    assert (state.tags, state.notes) == ({"team": "risk"}, "# What it is for")
    assert (model.find("2").tags, model.find("2").notes) == ({"market": "eu"}, "Retrained.")
    assert model.find("1").tags == {}
    with pytest.raises(InvalidValue, match="at most 100,000"):
        model.set_notes("x" * 100_001)


def test_names_are_any_text_and_never_a_path(models: Models) -> None:
    for name in ("../../etc", "Größe / eu", "CON", "a" * 300, "m"):
        models.create(name).register("a", version="1.0.0")
        assert str(models.find(f"{name}@latest").version) == "1.0.0"
        assert name in models
    assert {model.name for model in models} == {"../../etc", "Größe / eu", "CON", "a" * 300, "m"}
    assert all(path.is_relative_to(models.root) for path in models.root.rglob("*"))
    for wrong in ("a@b", "", "x?as_of=1"):
        with pytest.raises(InvalidName):
            models.create(wrong)
    with pytest.raises(ModelNotFound, match="no model has the name 'n'; there is"):
        models.get("n")
    with pytest.raises(AlreadyExists):
        models.create("m")


def test_1000_registrations_from_16_processes_give_1000_numbers(models: Models) -> None:
    writers = [SPAWN.Process(target=register_many, args=(models.root, 63)) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    model = models.get("shared")
    assert [str(version.version) for version in reversed(model.versions())] == [f"1.0.{i}" for i in range(16 * 63)]
    assert model.verify() == []


def test_kill_9_while_registering_leaves_a_valid_history(models: Models) -> None:
    writers = [SPAWN.Process(target=register_for_ever, args=(models.root,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    while "shared" not in models or len(models.get("shared").versions()) < 40:
        assert all(writer.is_alive() for writer in writers)
        time.sleep(0.01)
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    model = models.get("shared")
    assert model.verify() == []
    count = len(model.versions())
    assert str(model.register("after", version=following).version) == f"1.0.{count}"
