"""Folders of batches and prediction logs that are followed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import runstone
from runstone.errors import NotFound
from runstone.models.promotion import promote
from runstone.monitoring import FolderWatch, checks_of
from runstone.workspace import Workspace
from tests.monitoring.made import COLUMNS, LABEL, NAME, patients, register


@pytest.fixture
def workspace(home: Path) -> Workspace:
    """A workspace with a model in production."""
    register(home)
    found = runstone.open_workspace(home)
    promote(found, f"{NAME}@1.0.0", "production")
    return found


def settle(path: Path) -> None:
    """Let a file look as if it had been written a while ago."""
    moment = time.time() - 60
    os.utime(path, (moment, moment))


def predictions(data: pd.DataFrame, version: str = "1.0.0", *, with_labels: bool = False) -> list[dict[str, Any]]:
    """Return rows of a prediction log."""
    return [
        {
            "at": 1.0,
            "version": version,
            "request": "r",
            "row": 0,
            "inputs": {name: row[name] for name in COLUMNS},
            "outputs": {"prediction": int(row[LABEL])},
            **({"label": int(row[LABEL])} if with_labels else {}),
        }
        for row in data.to_dict("records")
    ]


def test_each_batch_of_a_folder_is_checked_once(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "batches"
    folder.mkdir()
    watch = FolderWatch(workspace, folder, f"{NAME}@production")
    assert list(watch.look()) == []
    patients(300, 5).to_csv(folder / "1.csv", index=False)
    assert list(watch.look()) == []  # somebody may be writing it still
    settle(folder / "1.csv")
    assert [one.verdict for one in watch.look()] == ["ok"]
    (folder / "2.csv").write_text('mean radius\n"1\n')
    (folder / "3.parquet").write_bytes(b"broken")
    (folder / "notes.txt").write_text("no table")
    found = list(FolderWatch(workspace, folder, f"{NAME}@production").look(is_last=True))  # it goes on where that ended
    assert [one.verdict for one in found] == ["error", "error"]
    assert "cannot be judged" in found[1].report.reasons[0].text
    assert found[0].incident == found[1].incident
    assert [one.data for one in checks_of(workspace.path, NAME)] == ["1.csv", "2.csv", "3.parquet"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_prediction_log_is_judged_when_it_has_rows_enough(workspace: Workspace, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "log"
    folder.mkdir()

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = folder / f"{name}.{form}"
        if form == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        settle(path)

    watch = FolderWatch(workspace, folder, f"{NAME}@production", rows=200)
    write("1", predictions(patients(120, 5), with_labels=True))
    assert list(watch.look()) == []
    write("2", predictions(patients(500, 6), "0.9.0"))  # of another version
    assert list(watch.look()) == []
    write("3", predictions(patients(120, 7), with_labels=True))
    (found,) = watch.look()
    assert (found.verdict, found.report.rows) == ("ok", 240)
    assert found.report.performance is not None
    assert found.report.performance.value == 1.0
    assert {one.role for one in found.report.features} == {"feature", "label", "prediction"}
    write("4", predictions(patients(50, 8)))
    assert list(watch.look()) == []
    shifted = patients(180, 9)
    shifted["worst area"] *= 3
    write("5", predictions(shifted))
    (found,) = watch.look()
    assert found.verdict == "drift"
    assert found.incident is not None
    assert list(watch.look(is_last=True)) == []


def test_a_folder_that_is_not_there_is_told(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        FolderWatch(workspace, tmp_path / "none", NAME)
