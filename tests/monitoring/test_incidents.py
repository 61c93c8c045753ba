"""From a verdict to an incident and what it starts, and to its end when what was trained for it is promoted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import runstone
from runstone import monitoring
from runstone.errors import InvalidConfig
from runstone.lineage.revoking import revoke
from runstone.models.promotion import promote
from runstone.monitoring import actions_of, check, checks_of, read_report, read_watching, standings
from runstone.monitoring.configfile import parse_watching
from runstone.workspace import Workspace
from tests.monitoring.made import LABEL, NAME, patients, register


@pytest.fixture
def workspace(home: Path) -> Workspace:
    """A workspace with a model in production."""
    register(home)
    found = runstone.open_workspace(home)
    promote(found, f"{NAME}@1.0.0", "production")
    return found


def shifted(seed: int = 5) -> pd.DataFrame:
    """Return a batch in another unit."""
    batch = patients(500, seed)
    return batch.assign(**{"mean radius": batch["mean radius"] * 2.54})


def test_a_batch_as_before_opens_nothing_and_is_kept(workspace: Workspace) -> None:
    found = check(f"{NAME}@production", patients(500, 5), workspace=workspace)
    assert (found.verdict, found.incident) == ("ok", None)
    (kept,) = checks_of(workspace.path, NAME)
    assert found.check == kept
    assert read_report(workspace.path, NAME, kept.id)["verdict"] == "ok"
    (standing,) = standings(workspace)
    assert (standing.health, standing.places, standing.check_count) == ("ok", ("production",), 1)


def test_drift_opens_one_incident_with_its_report(workspace: Workspace) -> None:
    found = check(f"{NAME}@production", shifted(), workspace=workspace)
    assert found.is_new
    assert found.incident is not None
    assert (str(found.incident), found.incident.kind, found.incident.version) == (f"{NAME}#1", "drift", "1.0.0")
    assert "'mean radius' moved" in found.incident.summary
    assert found.incident.report_hash is not None
    assert json.loads(workspace.blobs.read(found.incident.report_hash))["verdict"] == "drift"
    again = check(f"{NAME}@production", shifted(6), workspace=workspace)
    assert (again.is_new, again.incident) == (False, found.incident)
    broken = check(f"{NAME}@production", patients(500, 5).drop(columns="mean radius"), workspace=workspace)
    assert broken.incident is not None
    assert (broken.incident.number, broken.incident.kind) == (2, "schema")
    (standing,) = standings(workspace)
    assert [one.number for one in standing.incidents] == [1, 2]
    assert [one.verdict for one in standing.checks] == ["drift", "drift", "error"]


def test_a_dry_run_leaves_no_trace(workspace: Workspace) -> None:
    before = len(workspace.models.get(NAME).history())
    assert check(f"{NAME}@production", shifted(), workspace=workspace, is_dry=True).verdict == "drift"
    assert len(workspace.models.get(NAME).history()) == before
    assert checks_of(workspace.path, NAME) == []


def test_labels_are_judged_against_what_the_model_did_on_its_test_data(workspace: Workspace) -> None:
    batch = patients(500, 5)
    batch["said"] = 1 - batch[LABEL]
    found = check(f"{NAME}@production", batch, labels=LABEL, predictions="said", workspace=workspace)
    assert found.report.performance is not None
    assert found.report.performance.value == 0.0
    assert found.report.performance.baseline_name == "test@1"
    assert found.incident is not None
    assert found.incident.kind == "performance"


def test_a_command_runs_with_the_incident_in_its_environment(workspace: Workspace, tmp_path: Path) -> None:
    script = tmp_path / "note.py"
    script.write_text("import os, sys; print(os.environ['RUNSTONE_INCIDENT']); sys.exit(3)")
    (workspace.path / "monitoring.yaml").write_text(
        f"monitoring:\n  - model: tum*\n    on_incident:\n      - command: [{sys.executable}, {script}]\n"
    )
    found = check(f"{NAME}@production", shifted(), workspace=workspace)
    (started,) = found.started
    assert started.is_done
    assert started.process is not None
    assert started.process.wait(60) == 3
    assert started.log is not None
    assert started.log.read_text().split() == [f"{NAME}#1"]
    (action,) = actions_of(workspace.path, NAME, 1)
    assert action["exit_code"] == 3
    assert check(f"{NAME}@production", shifted(6), workspace=workspace).started == ()


def test_hooks_are_told_of_the_incident_too(workspace: Workspace, tmp_path: Path) -> None:
    script = tmp_path / "note.py"
    script.write_text(f"import os; open({str(tmp_path / 'told')!r}, 'w').write(os.environ['RUNSTONE_INCIDENT'])")
    (workspace.path / "hooks.yaml").write_text(
        "hooks:\n  - name: note\n    on: [incident_opened]\n    timeout_s: 60\n"
        f"    command: [{sys.executable}, {script}]\n"
    )
    check(f"{NAME}@production", shifted(), workspace=workspace)
    assert (tmp_path / "told").read_text() == f"{NAME}#1"


def test_an_incident_closes_when_a_version_that_was_trained_for_it_is_promoted(
    workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(f"{NAME}@production", shifted(), workspace=workspace)
    unrelated = register(home, seed=2)
    promote(workspace, f"{NAME}@{unrelated}", "production")
    model = workspace.models.get(NAME)
    assert model.state().incidents[1].is_open  # that one was not trained for it
    monkeypatch.setenv("RUNSTONE_INCIDENT", f"{NAME}#1")
    trained = register(home, seed=3)
    promote(workspace, f"{NAME}@{trained}", "staging")
    closed = workspace.models.get(NAME).state().incidents[1]
    assert not closed.is_open
    assert closed.resolution == f"{NAME}@{trained}, which was trained for it, came to staging"
    assert closed.resolved_by == model.find(trained).run_id


def test_moving_an_alias_to_it_closes_it_too(workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.models.get(NAME).set_alias("champion", "1.0.0")
    check(f"{NAME}@champion", shifted(), workspace=workspace)
    monkeypatch.setenv("RUNSTONE_INCIDENT", f"{NAME}#1")
    trained = register(home, seed=3)
    workspace.models.get(NAME).set_alias("candidate", trained)  # not in place of the version that has it
    assert workspace.models.get(NAME).state().incidents[1].is_open
    workspace.models.get(NAME).set_alias("champion", trained)
    assert not workspace.models.get(NAME).state().incidents[1].is_open


def test_lineage_tells_of_the_incident_and_inherits_nothing_by_it(
    workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(f"{NAME}@production", shifted(), workspace=workspace)
    monkeypatch.setenv("RUNSTONE_INCIDENT", f"{NAME}#1")
    trained = register(home, seed=3)
    found = workspace.lineage(f"model:{NAME}@{trained}")
    assert f"incident:{NAME}#1" in found.nodes
    assert f"model:{NAME}@1.0.0" in found.nodes
    assert "incident tumours#1  (open" in found.to_tree()
    for text in (found.to_dot(), found.to_svg(), found.to_html(), json.dumps(found.to_prov())):
        assert f"{NAME}#1" in text or f"{NAME}%231" in text
    # what was revoked with the old version is no stain on the one that replaces it
    revoked = revoke(workspace, f"model:{NAME}@1.0.0", reason="poisoned")
    assert f"model:{NAME}@{trained}" not in [node.key for node in revoked.affected]
    assert promote(workspace, f"{NAME}@{trained}", "production").is_done


def test_a_wrong_incident_in_the_environment_is_warned_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_INCIDENT", "oops")
    with (
        pytest.warns(runstone.TrackingWarning, match="names no incident"),
        runstone.start_run(workspace=home, environment=False) as run,
    ):
        pass
    assert run.read().inputs == ()


def test_two_watchers_open_one_incident(workspace: Workspace) -> None:
    model = workspace.models.get(NAME)
    model.open_incident("1.0.0", kind="drift", summary="first", is_single=True)
    with pytest.raises(runstone.AlreadyExists, match=r"tumours#1 of kind 'drift' is open"):
        model.open_incident("1.0.0", kind="drift", summary="second", is_single=True)
    model.open_incident("1.0.0", kind="performance", summary="another", is_single=True)
    model.close_incident(1, reason="seen to")
    assert model.open_incident("1.0.0", kind="drift", summary="again", is_single=True).number == 3


def test_the_configuration_tells_all_its_mistakes(workspace: Workspace) -> None:
    with pytest.raises(InvalidConfig) as told:
        parse_watching(
            {
                "monitoring": [
                    {
                        "model": 3,
                        "incident": "often",
                        "thresholds": {"psy": 1, "alpha": 7},
                        "on_incident": [{"sweep": 1}],
                    },
                    {"on_incident": [{"command": "rm"}, {"url": "ftp://x"}, {}], "colour": "red"},
                ]
            }
        )
    text = str(told.value)
    for part in (
        "model must be text",
        "incident must be one of",
        "'psy'",
        "alpha must lie",
        "sweep must be",
        "'colour'",
    ):
        assert part in text
    assert text.count("on_incident.") == 4
    assert read_watching(workspace.path, NAME).incident == "drift"


def test_the_command_line_tells_the_whole_story(workspace: Workspace, tmp_path: Path) -> None:
    shifted().to_csv(tmp_path / "batch.csv", index=False)
    patients(500, 8).to_parquet(tmp_path / "fine.parquet")

    def call(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "runstone.cli.main", "-w", str(workspace.path), "monitor", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        return done.stdout

    assert "ok  tumours@1.0.0" in call("check", f"{NAME}@production", "--data", str(tmp_path / "fine.parquet"))
    page = tmp_path / "report.html"
    told = call("check", f"{NAME}@production", "--data", str(tmp_path / "batch.csv"), "--html", str(page), code=1)
    assert "incident tumours#1 of 1.0.0 (drift) opened" in told
    assert page.read_text().startswith("<!doctype html>")
    raw = json.loads(
        call("check", f"{NAME}@production", "--data", str(tmp_path / "batch.csv"), "--json", "--dry-run", code=1)
    )
    assert raw["verdict"] == "drift"
    assert raw["incident"] is None
    assert "tumours#1" in call("list")
    assert "'mean radius' moved" in call("show", f"{NAME}#1")
    assert "### 🔶" in call("show", f"{NAME}#1", "--markdown", "-")
    assert "#1 drift" in call("status")
    call("close", f"{NAME}#1", "--reason", "known")
    assert "no open incidents" in call("list")
    call("check", f"{NAME}@production", "--data", str(tmp_path / "none.csv"), code=1)
    call("show", "tumours", code=2)


def test_reports_that_are_not_there_are_told(workspace: Workspace) -> None:
    with pytest.raises(runstone.NotFound, match="there is no report"):
        read_report(workspace.path, NAME, "../../../etc/passwd")
    assert monitoring.standings(workspace, name=NAME)[0].health == "unknown"
