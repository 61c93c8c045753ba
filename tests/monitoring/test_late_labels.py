"""Labels that come after the prediction: served, asked, labelled by a table or one by one, judged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import runstone
from runstone.cli.main import cli
from runstone.errors import InvalidValue, NotFound
from runstone.models.promotion import promote
from runstone.monitoring import FolderWatch, check
from runstone.monitoring.tables import labelled_folder
from tests.monitoring.made import COLUMNS, LABEL, NAME, patients, register

for _needed in ("fastapi", "httptools", "orjson", "uvloop"):
    pytest.importorskip(_needed)

_ROWS = 300


def invoke(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-w", str(home), *arguments])


@pytest.fixture
def asked(home: Path) -> Iterator[tuple[Path, Any, pd.DataFrame]]:
    """A workspace, a client of its model in production, and what it was asked: request, row, truth."""
    from fastapi.testclient import TestClient

    from runstone.serving import LogConfig, Place, ServingConfig, create_app, log_folder

    register(home)
    workspace = runstone.open_workspace(home)
    promote(workspace, f"{NAME}@1.0.0", "production")
    folder = log_folder(workspace, NAME)
    config = ServingConfig(reload_s=0.0, log=LogConfig(folder=folder, sample=1.0, rows=100))
    data = patients(_ROWS, 5)
    told: list[dict[str, Any]] = []
    app = create_app(Place(home, f"{NAME}@production"), config)
    with TestClient(app, base_url="http://127.0.0.1:8060") as client:
        for start in range(0, _ROWS, 10):
            rows = data.iloc[start : start + 10]
            answer = client.post("/predict", json={"inputs": rows[COLUMNS].to_dict("records")}).json()
            truth = enumerate(rows[LABEL].tolist())
            told += [{"request": answer["request"], "row": row, "label": label} for row, label in truth]
        until = time.monotonic() + 30
        while "logged_rows_total 300\n" not in client.get("/metrics").text:
            assert time.monotonic() < until, "the log was not written"
            time.sleep(0.05)
        while list(folder.glob("*.partial")):
            assert time.monotonic() < until, "the last part was not closed"
            time.sleep(0.05)
        yield home, client, pd.DataFrame(told)


def test_labels_from_a_table_tell_how_the_model_does(asked: tuple[Path, Any, pd.DataFrame], tmp_path: Path) -> None:
    home, client, told = asked
    first = told.iloc[0]
    given = {"request_id": first["request"], "row": int(first["row"]), "label": int(first["label"])}
    assert client.post("/feedback", json=given).json() == {"joined": 1}
    assert client.post("/feedback", json=given).json() == {"joined": 0}, "asked twice, counted once"
    other = pd.DataFrame([{"request": "f" * 32, "row": 0, "label": 1}])
    pd.concat([told, other]).to_csv(tmp_path / "labels.csv", index=False)
    found = invoke(home, "monitor", "label", NAME, "--data", str(tmp_path / "labels.csv"), "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.output) == {"joined": _ROWS - 1, "known": 1, "unknown": 1}
    again = invoke(home, "monitor", "label", NAME, "--data", str(tmp_path / "labels.csv"))
    assert "0 predictions got a label; 300 had one before, 1 labels are of requests" in again.output

    folder = home / "predictions" / NAME
    report = check(f"{NAME}@production", labelled_folder(folder), workspace=home, is_dry=True).report
    assert report.rows == _ROWS
    assert report.performance is not None
    assert report.performance.now.count == _ROWS
    assert report.performance.value > 0.85
    assert report.performance.baseline is not None
    watched = list(FolderWatch(runstone.open_workspace(home), folder, f"{NAME}@production").look(is_last=True))
    assert [(one.verdict, one.report.rows) for one in watched] == [("ok", _ROWS), ("ok", _ROWS)]
    assert watched[0].report.performance is None
    assert watched[1].report.performance is not None
    assert "labelled predictions" in watched[1].report.data
    assert list(FolderWatch(runstone.open_workspace(home), folder, f"{NAME}@production").look(is_last=True)) == []
    assert invoke(home, "monitor", "predictions", NAME, "--parquet", str(tmp_path / "log.parquet")).exit_code == 0
    table = pq.read_table(tmp_path / "log.parquet")
    assert table.num_rows == _ROWS
    joined = table.select(["request", "row", "label"]).to_pandas().merge(told, on=["request", "row"])
    assert (joined["label_x"] == joined["label_y"]).all()
    assert table.schema.field("inputs").type.num_fields == len(COLUMNS)


def test_labels_that_say_that_it_fails_open_an_incident_of_performance(
    asked: tuple[Path, Any, pd.DataFrame], tmp_path: Path
) -> None:
    home, _client, told = asked
    wrong = np.random.default_rng(1).random(_ROWS) < 0.3
    told["truth"] = np.where(wrong, 1 - told["label"], told["label"])
    told.drop(columns="label").iloc[:250].to_parquet(tmp_path / "labels.parquet")
    arguments = ("--data", str(tmp_path / "labels.parquet"), "--label", "truth")
    assert "250 predictions got a label" in invoke(home, "monitor", "label", f"{NAME}@production", *arguments).output
    folder = home / "predictions" / NAME
    watched = list(FolderWatch(runstone.open_workspace(home), folder, f"{NAME}@production").look(is_last=True))
    (found,) = [one for one in watched if one.report.performance is not None]
    assert found.verdict == "drift"
    assert "accuracy fell from" in found.report.headline
    assert found.incident is not None
    assert found.incident.kind == "performance"
    assert not [one for one in found.report.reasons if one.cause == "schema"]


def test_tables_of_labels_that_cannot_be_joined_say_why(tmp_path: Path) -> None:
    from runstone.serving.labels import join_labels

    folder = tmp_path / "log"
    with pytest.raises(NotFound, match="no prediction log"):
        join_labels(folder, {"request": ["a"], "label": [1]})
    folder.mkdir()
    with pytest.raises(InvalidValue, match="no column 'label'; it has request, truth"):
        join_labels(folder, {"request": ["a"], "truth": [1]})
    with pytest.raises(InvalidValue, match="two labels for row 0 of request a"):
        join_labels(folder, {"request": ["a", "a"], "label": [1, 2]})
    found = join_labels(folder, pd.DataFrame({"request": ["a", None, "b"], "label": [1.0, 2.0, np.nan]}))
    assert (found.joined, found.known, found.unknown) == (0, 0, 1)
    assert list(labelled_folder(folder).iterdir()) == []
