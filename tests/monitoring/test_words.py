"""What a new user gets wrong is told in words that help: columns, stages, files of settings."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.main import cli
from runstone.errors import InvalidConfig, NotFound
from runstone.monitoring import check, profile_of, read_watching
from tests.monitoring.made import COLUMNS, LABEL, NAME, fitted, patients, register


def test_a_label_that_is_no_column_names_the_columns(home: Path) -> None:
    register(home)
    with pytest.raises(NotFound) as told:
        check(f"{NAME}@1.0.0", patients(100, 5), labels="diagnosis", workspace=home)
    assert "'diagnosis' is neither a column of the data nor a file that could hold the label" in str(told.value)
    assert f"its columns are {', '.join([*COLUMNS, LABEL])}" in str(told.value)


def test_a_stage_that_is_misspelt_is_guessed(home: Path) -> None:
    register(home)
    models = runstone.open_workspace(home).models
    with pytest.raises(NotFound, match=r"'productoin'; did you mean 'production'\? it has 1\.0\.0"):
        models.find(f"{NAME}@productoin")
    with pytest.raises(NotFound, match=r"'xyz'; it has 1\.0\.0"):
        models.find(f"{NAME}@xyz")


def test_the_index_that_pandas_writes_into_a_file_is_no_column(home: Path, tmp_path: Path) -> None:
    data = patients(400, 5)
    train, batch = data.sample(300, random_state=0), data.sample(200, random_state=1)
    train.to_parquet(tmp_path / "train.parquet")
    batch.to_parquet(tmp_path / "batch.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "batch.parquet").names
    with runstone.start_run(workspace=home, environment=False) as run:
        run.use_dataset(tmp_path / "train.parquet", role="train")
        run.log_model(fitted(train), name=NAME, example=train[COLUMNS].head())
    workspace = runstone.open_workspace(home)
    profile = profile_of(workspace, workspace.models.find(NAME))
    assert profile.label == LABEL, "the one column that is no feature"
    report = check(f"{NAME}@1.0.0", tmp_path / "batch.parquet", workspace=home, is_dry=True).report
    assert not [note for note in report.notes if "__index_level" in note]


def test_a_check_says_first_of_whom_and_then_each_reason_once(home: Path, tmp_path: Path) -> None:
    register(home)
    batch = patients(300, 5)
    for name, shift, first in (("same", 0, "ok  tumours@1.0.0: 300 rows of same.csv, nothing has changed"),
                               ("moved", 9, "drift  tumours@1.0.0: 300 rows of moved.csv")):  # fmt: skip
        batch.assign(**{"mean radius": batch["mean radius"] + shift}).to_csv(tmp_path / f"{name}.csv", index=False)
        arguments = ["-w", str(home), "monitor", "check", f"{NAME}@1.0.0", "--data", str(tmp_path / f"{name}.csv")]
        found = CliRunner().invoke(cli, arguments).output
        assert found.splitlines()[0] == first
        assert found.count("'mean radius' moved from a mean") == (1 if shift else 0)


def test_settings_that_do_not_parse_are_told_with_their_line(home: Path) -> None:
    register(home)
    (home / "monitoring.yaml").write_text("monitoring:\n - model: [\n")
    with pytest.raises(InvalidConfig) as told:
        read_watching(home, NAME)
    assert "in line 3, column 1" in str(told.value)
    assert "unicode string" not in str(told.value)
