"""What a checked batch looked like is kept beside its report, so that it can be compared with anything later."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import FormatError, NotFound
from runstone.monitoring import Batch, Profile, batches, check, checks_of, compare, read_batch, read_report
from runstone.monitoring.front import compare_batch
from runstone.monitoring.reference import NoProfile, set_profile
from runstone.server.references import against
from runstone.workspace import Workspace
from tests.monitoring.made import COLUMNS, LABEL, NAME, patients, register

_GOLDEN = Path(__file__).parents[1] / "golden" / "monitoring-1"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    """A workspace with two versions, the second with another reference."""
    register(home)
    register(home, seed=2)
    found = runstone.open_workspace(home)
    other = patients(700, 9)
    other["worst area"] *= 1.2
    set_profile(found, f"{NAME}@1.1.0", other, labels=LABEL)
    return found


def same(found: dict[str, Any]) -> dict[str, Any]:
    """Return what does not say when and by whom it was made."""
    left_out = ("at", "notes", "reference", "model", "version", "headline")
    return {name: value for name, value in found.items() if name not in left_out}


@pytest.mark.parametrize("ignored", [(), ("mean texture",)])
def test_a_check_is_judged_by_another_reference_as_if_it_had_been_made_with_it(
    workspace: Workspace, ignored: tuple[str, ...]
) -> None:
    batch = patients(500, 5).drop(columns=LABEL)
    outcome = check(f"{NAME}@1.0.0", batch, workspace=workspace, ignore=ignored)
    assert outcome.check is not None
    report = read_report(workspace.path, NAME, outcome.check.id)
    expected = check(f"{NAME}@1.1.0", batch, workspace=workspace, ignore=ignored, is_dry=True).report.to_dict()
    found = against(workspace, report, "1.1.0")
    assert same(found) == same(expected)
    assert found["classifier"] is not None
    assert found["correlations"] == expected["correlations"]
    assert found["verdict"] != report["verdict"], "the other reference has another area"
    assert any("the batch is the same" in note for note in found["notes"])
    assert [one["name"] for one in found["features"] if one["name"] in ignored] == []


def test_any_two_batches_can_be_compared_and_each_figure_is_that_of_their_rows(workspace: Workspace) -> None:
    first, second = patients(400, 5), patients(300, 6)
    second["mean radius"] += 3
    checks = [check(f"{NAME}@1.0.0", one, workspace=workspace).check for one in (first, second)]
    ids = [one.id for one in checks if one is not None]
    kept = [read_batch(workspace.path, NAME, one) for one in ids]
    assert kept[0] is not None
    assert kept[1] is not None
    told = compare(kept[0].profile, kept[1].profile).to_dict()
    direct = compare(first, second).to_dict()
    psi = {one["name"]: one["distance"]["psi"] for one in direct["features"] if one["distance"]}
    assert set(COLUMNS) <= psi.keys()
    assert {one["name"]: one["distance"]["psi"] for one in told["features"] if one["distance"]} == {
        name: value for name, value in psi.items() if name in COLUMNS or name == LABEL
    }
    found = against(workspace, read_report(workspace.path, NAME, ids[1]), ids[0])
    assert found["reference"]["check"] == ids[0]
    assert found["reference"]["rows"] == 400
    assert found["verdict"] == "drift"
    with pytest.raises(NotFound):
        against(workspace, found, "20200101T000000-00000000")


def test_performance_stays_part_of_the_verdict_whatever_the_reference_is(workspace: Workspace) -> None:
    batch = patients(500, 5)
    batch["said"] = [1 - label if row % 3 == 0 else label for row, label in enumerate(batch[LABEL])]
    outcome = check(f"{NAME}@1.0.0", batch, labels=LABEL, predictions="said", workspace=workspace)
    assert outcome.check is not None
    report = read_report(workspace.path, NAME, outcome.check.id)
    found = against(workspace, report, "1.1.0")
    assert found["performance"] == report["performance"]
    assert "accuracy fell" in " ".join(one["text"] for one in found["reasons"])
    assert found["verdict"] == "drift"


def test_a_batch_comes_back_as_it_was_kept_and_as_many_rows_as_the_workspace_says(workspace: Workspace) -> None:
    config = workspace.path / "monitoring.yaml"
    for rows, kept in ((None, 300), (40, 40), (0, 0)):
        if rows is not None:
            config.write_text(f"monitoring: [{{sample_rows: {rows}}}]\n")
        outcome = check(f"{NAME}@1.0.0", patients(300, 5), workspace=workspace)
        assert outcome.check is not None
        assert outcome.report.batch is not None
        found = read_batch(workspace.path, NAME, outcome.check.id)
        assert found is not None
        assert found.profile.columns == outcome.report.batch.profile.columns, "all figures are exact"
        assert max(map(len, found.profile.sample.values()), default=0) == kept
    told = against(workspace, read_report(workspace.path, NAME, checks_of(workspace.path, NAME)[-1].id), "1.1.0")
    assert told["classifier"] is None
    assert "no domain classifier was trained: the batch keeps no rows to compare with" in told["notes"]


def test_the_oldest_batches_make_room_and_then_reports_say_what_is_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        check(f"{NAME}@1.0.0", patients(300, seed), workspace=workspace)
        sizes = [path.stat().st_size for path in (workspace.path / "monitoring" / NAME / "batches").iterdir()]
        monkeypatch.setattr(batches, "MOST_BYTES", int(2.5 * max(sizes)))
    ids = [one.id for one in checks_of(workspace.path, NAME)]
    there = [read_batch(workspace.path, NAME, one) is not None for one in ids]
    assert there == [False, False, True, True], "the oldest made room"
    found = against(workspace, read_report(workspace.path, NAME, ids[0]), "1.1.0")
    assert any("only its bars were kept" in note for note in found["notes"])
    with pytest.raises(NoProfile, match="is not kept any more"):
        against(workspace, read_report(workspace.path, NAME, ids[-1]), ids[0])
    assert read_batch(workspace.path, NAME, ids[0]) is None
    with pytest.raises(NotFound, match="no check"):
        read_batch(workspace.path, NAME, "../checks")


def test_what_is_damaged_or_of_a_newer_version_is_told(workspace: Workspace) -> None:
    outcome = check(f"{NAME}@1.0.0", patients(300, 5), workspace=workspace)
    assert outcome.check is not None
    path = next((workspace.path / "monitoring" / NAME / "batches").glob("*.json.z"))
    good = path.read_bytes()
    newer = zlib.compress(json.dumps({"format": 2, "kind": "batch"}).encode())
    for bad, words in ((good[: len(good) // 2], "damaged"), (b"", "damaged"), (b"x" * 99, "damaged"), (newer, "newer")):
        with pytest.raises(FormatError, match=words):
            Batch.from_bytes(bad)
        path.write_bytes(bad)
        with pytest.raises(FormatError, match=words):
            read_batch(workspace.path, NAME, outcome.check.id)
        found = against(workspace, read_report(workspace.path, NAME, outcome.check.id), "1.1.0")
        assert any("only its bars were kept" in note for note in found["notes"])


def test_the_golden_batch_and_report_of_format_1_stay_readable(tmp_path: Path) -> None:
    shutil.copytree(_GOLDEN, tmp_path / "monitoring")
    expected = json.loads((_GOLDEN / "expected.json").read_bytes())
    before = Profile.from_bytes((_GOLDEN / "profile.json").read_bytes())
    batch = read_batch(tmp_path, "golden", expected["id"])
    assert batch is not None
    assert (batch.profile.rows, batch.ignore, batch.is_labels_only) == (120, (), False)
    assert set(batch.profile.columns["kind"].counts or ()) == {"☃", "ä", "a"}
    found = compare_batch(before, batch).to_dict()
    assert {one["name"]: one["distance"]["psi"] for one in found["features"] if one["distance"]} == pytest.approx(
        expected["psi"], rel=1e-9
    )
    assert Batch.from_bytes(batch.to_bytes()) == batch
    report = read_report(tmp_path, "golden", expected["id"])
    assert report["format"] == 1
    assert report["verdict"] == "drift"
