"""Labels for predictions of versions that were replaced or withdrawn since: judged, and told under their own name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.main import cli
from runstone.errors import NotFound
from runstone.models.promotion import promote
from runstone.monitoring import FolderWatch, Outcome, checks_of, standings
from runstone.monitoring.tables import labelled_folder
from runstone.workspace import Workspace
from tests.monitoring.made import COLUMNS, NAME, fitted, patients, register
from tests.monitoring.test_watching import predictions, settle


@pytest.fixture
def left(home: Path) -> tuple[Workspace, Path, str, str]:
    """A workspace, the log of its model, the version that was in production, and the one that is now."""
    first = register(home)
    workspace = runstone.open_workspace(home)
    promote(workspace, f"{NAME}@{first}", "production")
    second = register(home, seed=2)
    promote(workspace, f"{NAME}@{second}", "production")
    log = home / "predictions" / NAME
    log.mkdir(parents=True)
    return workspace, log, first, second


def labelled(log: Path, name: str, *parts: tuple[str, int, float]) -> None:
    """Write a part of rows that have got their labels: of each version so many, this share of which is wrong."""
    rows = []
    for version, count, wrong in parts:
        data = patients(count, count)
        rows += predictions(data, version, with_labels=True)
        flips = np.random.default_rng(1).random(count) < wrong
        for row, is_wrong in zip(rows[-count:], flips, strict=True):
            row["outputs"]["prediction"] = abs(row["label"] - int(is_wrong))
    folder = labelled_folder(log)
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settle(path)


def told(found: list[Outcome]) -> list[tuple[str | None, int, str]]:
    """Return of which versions how many rows were judged, and how."""
    return [(one.report.version, one.report.rows, one.verdict) for one in found]


def test_the_version_that_predicted_is_judged_when_another_is_in_its_place(
    left: tuple[Workspace, Path, str, str],
) -> None:
    workspace, log, first, second = left
    watch = FolderWatch(workspace, log, f"{NAME}@production", rows=200)
    labelled(log, "1", (first, 150, 0.3), (second, 150, 0.0))
    assert told(list(watch.look())) == [], "neither has rows enough"
    labelled(log, "2", (first, 100, 0.3), ("9.9.9", 500, 0.5))
    found = list(watch.look())
    assert told(found) == [(first, 250, "drift")]
    assert f"250 labelled predictions of {first} up to 2.jsonl" == found[0].report.data
    assert "accuracy fell from" in found[0].report.headline
    incident = found[0].incident
    assert incident is not None
    assert (incident.version, incident.kind) == (first, "performance")
    labelled(log, "3", (second, 60, 0.0))
    again = FolderWatch(workspace, log, f"{NAME}@production", rows=200)  # it goes on where that ended
    assert told(list(again.look())) == [(second, 210, "ok")], "its rows of the first part were not judged before"
    assert told(list(again.look(is_last=True))) == [], "each row once"
    assert [one.version for one in checks_of(workspace.path, NAME)] == [first, second]
    fixed = FolderWatch(workspace, log, f"{NAME}@{second}", rows=200)
    assert told(list(fixed.look(is_last=True))) == [(second, 210, "ok")], "who watches one version hears of no other"


def test_a_version_that_was_withdrawn_is_judged_and_its_name_is_given_to_what_is_started(
    left: tuple[Workspace, Path, str, str], tmp_path: Path
) -> None:
    workspace, log, first, second = left
    model = workspace.models.get(NAME)
    model.withdraw(first, reason="a leak")
    model.withdraw(second, reason="a leak", is_forced=True)
    write = "import os, sys; open(sys.argv[1], 'w').write(repr([os.environ['RUNSTONE_INCIDENT'],"
    write += " *(os.environ['RUNSTONE_EVENT_' + one] for one in ('MODEL', 'VERSION', 'KIND'))]))"
    command = [sys.executable, "-c", write, str(tmp_path / "said")]
    (workspace.path / "monitoring.yaml").write_text(
        json.dumps({"monitoring": [{"model": NAME, "on_incident": [{"command": command}]}]})
    )
    labelled(log, "1", (first, 250, 0.3), (second, 250, 0.0))
    watch = FolderWatch(workspace, log, f"{NAME}@production", rows=200)
    found = list(watch.look())
    assert sorted(told(found)) == [(first, 250, "drift"), (second, 250, "ok")]
    (bad,) = (one for one in found if one.incident is not None)
    assert [one.is_done for one in bad.started] == [True]
    assert bad.started[0].process is not None
    assert bad.started[0].process.wait(60) == 0
    assert (tmp_path / "said").read_text() == repr([f"{NAME}#1", NAME, first, "performance"])
    with pytest.raises(NotFound, match="no version of model 'tumours' is in stage 'production'"):
        list(watch.look(is_last=True))
    (shown,) = standings(workspace)
    assert (shown.version, shown.places, [str(one) for one in shown.incidents]) == (first, (), [f"{NAME}#1"])
    printed = CliRunner().invoke(cli, ["-w", str(workspace.path), "monitor", "status"])
    assert "no longer" in printed.output
    assert first in printed.output
    listed = CliRunner().invoke(cli, ["-w", str(workspace.path), "monitor", "list"])
    assert f"{first}" in listed.output


def test_without_a_profile_it_is_held_against_what_its_run_logged(home: Path) -> None:
    register(home)
    version = _without_profile(home)
    workspace = runstone.open_workspace(home)
    for one in (version, "1.0.0"):
        promote(workspace, f"{NAME}@{one}", "production")
    log = home / "predictions" / NAME
    log.mkdir(parents=True)
    labelled(log, "1", (version, 250, 0.3))
    (found,) = FolderWatch(workspace, log, f"{NAME}@production").look(is_last=True)
    assert (found.report.version, found.verdict) == (version, "drift")
    assert found.report.performance is not None
    assert (found.report.performance.baseline, found.report.performance.baseline_name) == (0.95, "test/acc")


def _without_profile(home: Path) -> str:
    data = patients(300, 4)
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log({"test/acc": 0.95})
        made = run.log_model(fitted(data), name=NAME, example=data[COLUMNS].head(), profile=False)
    assert made is not None
    return str(made.version)


def test_training_for_a_version_that_left_closes_its_incident_under_the_alias_it_had(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register(home)
    workspace = runstone.open_workspace(home)
    model = workspace.models.get(NAME)
    model.set_alias("champion", first)
    second = register(home, seed=2)
    model.set_alias("champion", second)
    log = home / "predictions" / NAME
    log.mkdir(parents=True)
    labelled(log, "1", (first, 250, 0.3))
    (found,) = FolderWatch(workspace, log, f"{NAME}@champion").look(is_last=True)
    assert found.incident is not None
    model.set_alias("champion", first)
    model.set_alias("champion", second)
    assert model.state().incidents[1].is_open, "neither was trained for it"
    monkeypatch.setenv("RUNSTONE_INCIDENT", str(found.incident))
    model.set_alias("champion", register(home, seed=3))
    assert not model.state().incidents[1].is_open


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("production", ["1.1.0", "1.0.0"]),
        ("champion", ["1.0.0", "2.0.0", "1.1.0"]),
        ("1.0.0", ["1.0.0"]),
        ("v1.1.0", ["1.1.0"]),
        ("1", ["1.1.0", "1.0.0"]),
        ("1.0", ["1.0.0"]),
        ("latest", ["2.0.0", "1.1.0", "1.0.0"]),
    ],
)
def test_what_a_selector_has_ever_meant(home: Path, selector: str, expected: list[str]) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        (home.parent / "weights").write_text("w")
        for number in ("1.0.0", "1.1.0", "2.0.0"):
            run.log_model(str(home.parent / "weights"), name=NAME, version=number)
    model = runstone.open_workspace(home).models.get(NAME)
    model.set_stage("1.0.0", "production")
    model.set_stage("1.1.0", "production")
    for number in ("1.1.0", "2.0.0", "1.0.0"):
        model.set_alias("champion", number)
    model.withdraw("1.0.0", reason="x", is_forced=True)
    assert [str(one.version) for one in model.ever(selector)] == expected
    for unknown in ("nothing", "3", "1.0.9"):
        with pytest.raises(NotFound, match="has no version, alias or stage"):
            model.ever(unknown)
