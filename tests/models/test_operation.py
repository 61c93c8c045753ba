"""What becomes of versions where they work: deployments, incidents, profiles; all of it on record, none of it lost."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

import runstone
from runstone.errors import InvalidName, InvalidValue, NotFound
from runstone.gc import collect
from runstone.models import Model, ModelNotFound, Models, VersionInUse
from runstone.models.comparing import copy_version
from runstone.models.telling import told
from runstone.models.verifying import verify_models
from runstone.workspace import ensure_workspace
from tests.models.made import add_dataset, registry, train

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    model = Models(tmp_path / "models").create("credit-risk")
    for number in ("1.0.0", "1.1.0"):
        model.register("c" * 64, version=number)
    return model


def reread(model: Model) -> Model:
    """Return the model as another process would see it."""
    return Model(type(model.ledger)(model.ledger.folder))


def open_many(root: Path, count: int) -> None:
    model = Models(root).get("credit-risk")
    for _ in range(count):
        model.open_incident("1.0.0", kind="drift", summary="amount shifted")


def test_a_version_is_deployed_until_another_takes_its_place(model: Model) -> None:
    first = model.record_deployment("1.0.0", "eu", url="https://eu.example.org/score", replicas=3, reason="go")
    assert (first.target, first.url, first.replicas, first.reason) == ("eu", "https://eu.example.org/score", 3, "go")
    model.record_deployment("1.0.0", "us")
    second = model.record_deployment("latest", "eu")
    state = reread(model).state()
    assert [(one.target, one.version) for one in state.deployed()] == [("eu", "1.1.0"), ("us", "1.0.0")]
    ended = state.versions["1.0.0"].deployments[0]
    assert (ended.is_standing, ended.ended_at) == (False, second.at)
    assert [told(event) for event in model.history()][-3:] == [
        "deployed 1.0.0 to eu with 3 replicas at https://eu.example.org/score: go",
        "deployed 1.0.0 to us",
        "deployed 1.1.0 to eu, replacing 1.0.0",
    ]


def test_two_versions_share_a_place_where_that_is_said(model: Model) -> None:
    model.record_deployment("1.0.0", "eu", replicas=9)
    model.record_deployment("1.1.0", "eu", replicas=1, keeps_others=True)
    assert {one.version for one in model.state().deployed("eu")} == {"1.0.0", "1.1.0"}
    model.record_deployment("1.1.0", "eu", replicas=5, keeps_others=True)  # more of the same
    assert [(one.version, one.replicas) for one in model.state().deployed("eu")] == [("1.1.0", 5), ("1.0.0", 9)]
    (ended,) = model.end_deployment("eu", version="1.0.0", reason="all on the new one")
    assert ended.version == "1.0.0"
    assert [one.version for one in reread(model).state().deployed()] == ["1.1.0"]
    model.end_deployment("eu")
    assert model.state().deployed() == []
    with pytest.raises(ModelNotFound, match="not at 'eu'; the model is deployed at: nowhere"):
        model.end_deployment("eu")


def test_what_was_deployed_on_a_day_is_known(model: Model) -> None:
    model.record_deployment("1.0.0", "eu")
    before = model.history()[-1].at
    model.record_deployment("1.1.0", "eu")
    assert [one.version for one in model.state(before).deployed("eu")] == ["1.0.0"]


def test_a_deployed_version_is_not_withdrawn_in_passing(model: Model) -> None:
    model.record_deployment("1.0.0", "eu")
    with pytest.raises(VersionInUse, match="deployment 'eu'"):
        model.withdraw("1.0.0", reason="wrong")
    model.end_deployment("eu")
    model.withdraw("1.0.0", reason="wrong")


def test_an_incident_has_a_number_of_its_own_and_is_closed_once(model: Model) -> None:
    first = model.open_incident("1.0.0", kind="drift", summary="amount shifted", report_hash="d" * 64, run_id="r1")
    second = model.open_incident("1.1.0", kind="quality", summary="auc fell")
    assert (str(first), str(second)) == ("credit-risk#1", "credit-risk#2")
    assert (first.is_open, first.report_hash, first.run_id) == (True, "d" * 64, "r1")
    done = model.close_incident(1, reason="trained again", run_id="r2")
    assert (done.is_open, done.resolution, done.resolved_by) == (False, "trained again", "r2")
    state = reread(model).state()
    assert state.versions["1.0.0"].incidents == (done,)
    assert [one.number for one in state.versions["1.1.0"].incidents] == [2]
    with pytest.raises(InvalidValue, match="was closed already: trained again"):
        model.close_incident(1, reason="again")
    with pytest.raises(NotFound, match="no incident #7; there is #1, #2"):
        model.close_incident(7, reason="x")
    assert [told(event) for event in model.history()][-3:] == [
        "opened incident #1 (drift) of 1.0.0: amount shifted",
        "opened incident #2 (quality) of 1.1.0: auc fell",
        "closed incident #1 of 1.0.0 by run r2: trained again",
    ]


def test_incidents_opened_at_once_get_different_numbers(model: Model) -> None:
    root = model.ledger.folder.parents[1]
    workers = [SPAWN.Process(target=open_many, args=(root, 10)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(reread(model).state().incidents) == list(range(1, 31))
    assert model.verify() == []


def test_a_profile_is_one_blob_that_a_later_one_replaces(model: Model) -> None:
    assert model.set_profile("1.0.0", "e" * 64).profile_hash == "e" * 64
    model.set_profile("1.0.0", "f" * 64)
    assert reread(model).find("1.0.0").profile_hash == "f" * 64
    assert model.find("1.1.0").profile_hash is None


def test_what_cannot_be_is_refused(model: Model) -> None:
    before = len(model.history())
    with pytest.raises(InvalidValue, match="-1 replicas"):
        model.record_deployment("1.0.0", "eu", replicas=-1)
    with pytest.raises(InvalidName):
        model.record_deployment("1.0.0", "")
    with pytest.raises(InvalidValue, match="no hash of a blob"):
        model.set_profile("1.0.0", "abc")
    with pytest.raises(InvalidValue, match="no hash of a blob"):
        model.open_incident("1.0.0", kind="drift", summary="x", report_hash="abc")
    with pytest.raises(ModelNotFound):
        model.open_incident("9", kind="drift", summary="x")
    assert len(model.history()) == before


def test_profiles_and_reports_are_never_garbage(home: Path) -> None:
    train(home, "a")
    workspace = runstone.open_workspace(home)
    profile = workspace.blobs.put_bytes(b"a profile", "profile.json").hash
    report = workspace.blobs.put_bytes(b"a report", "report.json").hash
    other = workspace.blobs.put_bytes(b"nobody's", "x").hash
    registry(home).set_profile("1.0.0", profile)
    registry(home).open_incident("1.0.0", kind="drift", summary="x", report_hash=report)
    collect(home, grace_s=0)
    assert [content in workspace.blobs for content in (profile, report, other)] == [True, True, False]


def test_a_changed_profile_is_found_and_a_copy_has_its_own(home: Path, tmp_path: Path) -> None:
    train(home, "a")
    workspace = runstone.open_workspace(home)
    profile = workspace.blobs.put_bytes(b"a profile", "profile.json").hash
    registry(home).set_profile("1.0.0", profile)
    there = ensure_workspace(tmp_path / "prod")
    assert copy_version(workspace, "credit-risk@1.0.0", there).profile_hash == profile
    assert there.blobs.read(profile) == b"a profile"
    path = workspace.blobs.local_path(profile)
    path.chmod(0o644)
    path.write_bytes(b"A profile")
    (fault,) = verify_models(workspace).faults
    assert (fault.of, fault.where) == ("credit-risk@1.0.0", f"profile {profile[:16]}…")
    assert verify_models(there).faults == ()


def test_lineage_leads_from_raw_data_to_the_place_where_a_version_works(home: Path) -> None:
    add_dataset(home, "loans", 3, "b", url="s3://lake/loans")
    train(home, "a", data=("loans", "3", "b"))
    registry(home).record_deployment("1.0.0", "eu/scoring")
    workspace = runstone.open_workspace(home)
    down = workspace.lineage("source:s3://lake/loans", up=False)
    assert [node.label for node in down.of_kind("deployment")] == ["eu/scoring"]
    up = workspace.lineage("deployment:credit-risk@eu/scoring", down=False)
    assert "source:s3://lake/loans" in up.nodes
    assert "deployment eu/scoring since " in down.to_tree()
    for text in (down.to_dot(), down.to_svg(), str(down.to_prov())):
        assert "eu/scoring" in text
    from runstone.lineage import revoke

    assert [node.key for node in revoke(workspace, "dataset:loans@3", reason="x").in_use] == ["model:credit-risk@1.0.0"]
