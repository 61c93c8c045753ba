"""The whole loop: trained, promoted, served, shifted, found, trained again by a sweep, promoted, closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pandas as pd
import pytest

import runstone
from runstone.models.promotion import promote
from runstone.monitoring import FolderWatch, actions_of
from tests.monitoring.made import COLUMNS, LABEL, NAME, patients

_TRAIN = f"""
import sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
import runstone

data, columns, label = sys.argv[1], {COLUMNS!r}, {LABEL!r}
params = runstone.trial_params() or {{"C": 1.0}}
with runstone.start_run(project="tumours", params=params, environment=False, system_metrics=False) as run:
    train, test = (pd.read_parquet(f"{{data}}/{{part}}.parquet") for part in ("train", "test"))
    for part in ("train", "test"):
        run.use_dataset(f"{{data}}/{{part}}.parquet", name=part, role=part)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=params["C"]))
    model.fit(train[columns], train[label])
    run.log({{"test/accuracy": float(model.score(test[columns], test[label]))}})
    run.log_model(model, name={NAME!r}, example=train[columns].head())
"""


def shifted(data: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a new machine measures them."""
    return data.assign(**{"mean radius": data["mean radius"] * 2.54, "worst area": data["worst area"] * 6.45})


def ask(home: Path, log: Path, data: pd.DataFrame) -> None:
    """Ask the version in production, served over HTTP, for predictions, all of which are logged."""
    for needed in ("fastapi", "httptools", "orjson", "uvloop"):
        pytest.importorskip(needed)
    from fastapi.testclient import TestClient

    from runstone.serving import LogConfig, Place, ServingConfig, create_app

    config = ServingConfig(reload_s=0.0, log=LogConfig(folder=log, sample=1.0))
    with TestClient(create_app(Place(home, f"{NAME}@production"), config), base_url="http://127.0.0.1:8060") as client:
        for start in range(0, len(data), 100):
            rows = data[COLUMNS].iloc[start : start + 100].to_dict("records")
            answer = client.post("/predict", json={"inputs": rows})
            assert answer.status_code == 200, answer.text


@pytest.mark.timeout(600)
def test_drift_leads_to_a_new_version_in_production_and_the_lineage_tells_why(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    script = tmp_path / "train.py"
    script.write_text(_TRAIN)
    data = tmp_path / "data"
    data.mkdir()
    patients(1000, 1).to_parquet(data / "train.parquet")
    patients(600, 2).to_parquet(data / "test.parquet")
    home.mkdir()

    # train, register, promote through gates
    subprocess.run([sys.executable, str(script), str(data)], check=True, timeout=240, cwd=tmp_path)
    (home / "gates.yaml").write_text("gates:\n  production:\n    - metric: {name: test/accuracy, min: 0.8}\n")
    workspace = runstone.open_workspace(home)
    first = promote(workspace, f"{NAME}@1.0.0", "production")
    assert first.is_done
    assert [check.is_passed for check in first.checks] == [True, True]

    # what is done when it drifts: two trials with the newest data
    recent = tmp_path / "recent"
    recent.mkdir()
    shifted(patients(1000, 3)).to_parquet(recent / "train.parquet")
    shifted(patients(600, 4)).to_parquet(recent / "test.parquet")
    (tmp_path / "retrain.yaml").write_text(
        dedent(
            f"""
            name: retrain
            command: [{sys.executable}, {script}, {recent}]
            metric: {{name: test/accuracy, goal: maximize}}
            parameters: {{C: {{values: [0.1, 1.0]}}}}
            sampler: grid
            """
        )
    )
    (home / "monitoring.yaml").write_text(
        "monitoring:\n  - model: tum*\n    on_incident:\n      - sweep: retrain.yaml\n"
    )

    # traffic: at first as before, then from another machine
    traffic = tmp_path / "traffic"
    ask(home, traffic, patients(500, 5))
    watch = FolderWatch(workspace, traffic, f"{NAME}@production")
    assert [one.verdict for one in watch.look(is_last=True)] == ["ok"]
    ask(home, traffic, shifted(patients(500, 6)))
    (found,) = watch.look(is_last=True)
    assert (found.verdict, found.report.rows) == ("drift", 500)
    assert str(found.incident) == f"{NAME}#1"
    (started,) = found.started
    assert started.process is not None
    assert started.log is not None
    assert started.process.wait(500) == 0, started.log.read_text()
    assert actions_of(home, NAME, 1)[0]["exit_code"] == 0

    # both trials have registered what they made, and say what for
    model = workspace.models.get(NAME)
    trained = [version for version in model.versions() if str(version.version) != "1.0.0"]
    assert len(trained) == 2
    for version in trained:
        assert version.run_id is not None
        links = [link for link in workspace.run(version.run_id).inputs if link.kind == "incident"]
        assert [(link.name, link.version, link.role) for link in links] == [(NAME, "1", "retrain")]
        assert version.profile_hash is not None
    assert model.state().incidents[1].is_open

    # the better one comes to production through the same gates, and that ends the incident
    best = max(trained, key=lambda version: workspace.run(str(version.run_id)).metrics["test/accuracy"].last)
    assert promote(workspace, str(best), "production").is_done
    incident = workspace.models.get(NAME).state().incidents[1]
    assert not incident.is_open
    assert incident.resolved_by == best.run_id
    ask(home, traffic, shifted(patients(500, 7)))
    assert [one.verdict for one in watch.look(is_last=True)] == ["ok"]

    # from the data that was new, and from the version that it had drifted away from, to the stage where it stands
    lineage = workspace.lineage(f"model:{best}")
    for key in (f"incident:{NAME}#1", f"model:{NAME}@1.0.0", f"run:{best.run_id}", f"stage:{NAME}@production"):
        assert key in lineage.nodes
    relations = {(edge.source, edge.relation, edge.target) for edge in lineage.edges}
    assert (f"model:{NAME}@1.0.0", "caused", f"incident:{NAME}#1") in relations
    assert (f"incident:{NAME}#1", "caused", f"run:{best.run_id}") in relations
    data_used = [node.label for node in lineage.of_kind("dataset")]
    assert {"train@2", "test@2"} <= set(data_used)
