"""What data looked like: read as it streams by, kept with the version that it belongs to."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.main import cli
from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.monitoring import NoProfile, Profile, Reference, check, profile_of, profile_rows, set_profile
from runstone.monitoring.tables import rows_of
from tests.monitoring.made import COLUMNS, LABEL, NAME, fitted, patients, register


def test_a_version_gets_the_profile_of_the_data_that_its_run_used(home: Path) -> None:
    register(home)
    workspace = runstone.open_workspace(home)
    version = workspace.models.find(f"{NAME}@latest")
    profile = profile_of(workspace, version)
    assert profile.features == tuple(COLUMNS)
    assert profile.label == LABEL
    assert profile.rows == 1000
    assert profile.source["role"] == "train"
    assert profile.columns["mean radius"].kind == "number"
    assert set(profile.columns[LABEL].counts or {}) == {"0", "1"}
    # what the model says of rows that it was not trained with
    assert profile.performance is not None
    assert profile.performance.count == 600
    assert 0.85 < profile.performance.figures["accuracy"] <= 1
    assert profile.prediction == "prediction"
    names, matrix = profile.correlations
    assert matrix[names.index("mean radius")][names.index("worst area")] > 0.9


def test_a_model_is_registered_without_a_profile_where_that_is_asked_for(home: Path) -> None:
    register(home, profile=False)
    workspace = runstone.open_workspace(home)
    with pytest.raises(NoProfile, match=r"runstone monitor profile tumours@1\.0\.0"):
        profile_of(workspace, workspace.models.find(NAME))


def test_a_profile_can_be_given_with_the_model(home: Path) -> None:
    data = patients(300, 3)
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_model(fitted(data), name=NAME, profile=Reference(data, labels=LABEL, role="test"))
    workspace = runstone.open_workspace(home)
    profile = profile_of(workspace, workspace.models.find(NAME))
    assert (profile.rows, profile.label) == (300, LABEL)
    assert profile.performance is not None


def test_rows_of_the_data_are_kept_only_as_far_as_they_may_be(home: Path) -> None:
    home.mkdir()
    (home / "monitoring.yaml").write_text("monitoring:\n  - {model: tum*, sample_rows: 0}\n")
    register(home)
    workspace = runstone.open_workspace(home)
    version = workspace.models.find(NAME)
    profile = profile_of(workspace, version)
    assert profile.sample == {}
    assert profile.performance is not None, "the model was asked before the rows were left out"
    changed = patients(500, 9)
    changed["mean radius"] = np.random.default_rng(0).permutation(changed["mean radius"].to_numpy())
    found = check(NAME, changed, workspace=home, is_dry=True).report
    assert found.classifier is None
    assert any("keeps no rows" in note for note in found.notes)
    assert any("go together otherwise" in one.text for one in found.reasons), "correlations are compared all the same"
    assert check(NAME, patients(500, 10), workspace=home, is_dry=True).verdict == "ok"
    path = home.parent / "data.csv"
    patients(400, 3).to_csv(path, index=False)
    done = CliRunner().invoke(
        cli, ["-w", str(home), "monitor", "profile", NAME, "--data", str(path), "--sample-rows", "100"]
    )
    assert done.exit_code == 0, done.output
    profile = profile_of(workspace, workspace.models.find(NAME))
    assert {len(values) for values in profile.sample.values()} == {100}
    assert profile.sampled == 400


def test_an_array_is_a_reference_too(home: Path) -> None:
    values = np.random.default_rng(0).normal(size=(200, 3))
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_model(_file(home), name=NAME, profile=values)
    workspace = runstone.open_workspace(home)
    assert profile_of(workspace, workspace.models.find(NAME)).features == ("x0", "x1", "x2")


def test_of_data_in_memory_the_profile_of_its_dataset_is_taken(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        run.use_dataset(patients(400, 5), name="train", role="train")
        run.log_model(_file(home), name=NAME)
    workspace = runstone.open_workspace(home)
    profile = profile_of(workspace, workspace.models.find(NAME))
    assert profile.columns["mean radius"].kind == "number"
    assert profile.sample == {}
    assert "only the profile is known" in profile.notes[0]


def test_a_profile_survives_being_kept() -> None:
    profile = profile_rows(rows_of(patients(100, 1)), label=LABEL)
    assert Profile.from_bytes(profile.to_bytes()) == profile
    with pytest.raises(FormatError, match="no profile"):
        Profile.from_bytes(b'{"kind": "other"}')
    with pytest.raises(FormatError, match="damaged"):
        Profile.from_bytes(b'{"kind": "profile", "format": 1}')


def test_csv_parquet_pandas_and_numpy_say_the_same(tmp_path: Path) -> None:
    data = patients(500, 2)
    data.to_csv(tmp_path / "a.csv", index=False)
    data.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", data.to_numpy())
    one, two, three, four = (
        profile_rows(rows_of(given)) for given in (data, tmp_path / "a.csv", tmp_path / "a.parquet", tmp_path / "a.npy")
    )
    for name in COLUMNS:
        assert one.columns[name].values == pytest.approx(two.columns[name].values)
        assert one.columns[name].values == three.columns[name].values
    assert one.columns[COLUMNS[0]].values == four.columns["x0"].values


def test_a_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    for part in range(3):
        patients(100, part).to_csv(tmp_path / f"part-{part}.csv", index=False)
    assert profile_rows(rows_of(tmp_path)).rows == 300


def test_the_distribution_of_many_rows_is_that_of_all_of_them() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=300_000)
    column = profile_rows(rows_of(values)).columns["x0"]
    points = np.quantile(values, np.linspace(0.01, 0.99, 50))
    exact = np.searchsorted(np.sort(values), points, side="right") / len(values)
    assert np.abs(column.share_up_to(points) - exact).max() < 0.004
    assert len(column.values) <= 1_001


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.parquet"
        draw = np.random.default_rng(0)
        schema = pa.schema([("a", pa.float64()), ("b", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for _ in range(rows // 50_000):
                words = draw.choice(["x", "y", "z"], 50_000)
                writer.write_table(pa.table({"a": draw.normal(size=50_000), "b": words}, schema=schema))
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        pool = pa.default_memory_pool()
        profile_rows(rows_of(path))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - before < 16 << 20
        assert pool.bytes_allocated() < 64 << 20
        return found

    peak(50_000)
    small, large = peak(200_000), peak(1_000_000)
    assert large < 1.5 * small + (4 << 20)


def test_what_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(FormatError, match="cannot be read as a table"):
        profile_rows(rows_of(tmp_path / "bad.parquet"))
    with pytest.raises(NotFound, match="no file or folder"):
        rows_of(tmp_path / "none.csv")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InvalidValue, match="holds no table"):
        rows_of(tmp_path / "notes.txt")
    with pytest.raises(InvalidValue, match="has no column 'truth'"):
        profile_rows(rows_of(patients(10, 1)), label="truth")
    with pytest.raises(InvalidValue, match="too many to watch"):
        profile_rows(rows_of({f"c{place}": [1.0] for place in range(2_500)}))


def test_numbers_that_turn_into_text_late_in_a_csv_are_counted(tmp_path: Path) -> None:
    lines = ["a,b", *(f"{row},x" for row in range(500_000)), "oops,x", "12,x"]
    (tmp_path / "late.csv").write_text("\n".join(lines))
    expected = profile_rows(rows_of(pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}))).columns
    column = profile_rows(rows_of(tmp_path / "late.csv"), expected=expected).columns["a"]
    assert (column.kind, column.unreadable, column.missing) == ("number", 1, 1)


def test_a_profile_can_be_made_later(home: Path, tmp_path: Path) -> None:
    register(home, profile=False)
    workspace = runstone.open_workspace(home)
    patients(200, 9).to_csv(tmp_path / "later.csv", index=False)
    labels = tmp_path / "said.csv"
    pd.DataFrame({"said": patients(200, 9)[LABEL], "other": 1}).to_csv(labels, index=False)
    profile = set_profile(
        workspace, f"{NAME}@1.0.0", str(tmp_path / "later.csv"), labels=LABEL, predictions=f"{labels}:said"
    )
    assert profile.performance is not None
    assert profile.performance.figures["accuracy"] == 1.0
    assert profile_of(workspace, workspace.models.find(NAME)) == profile
    with pytest.raises(InvalidValue, match="say which holds the prediction"):
        set_profile(workspace, NAME, str(tmp_path / "later.csv"), predictions=str(labels))
    with pytest.raises(InvalidValue, match="fewer label than rows"):
        set_profile(workspace, NAME, str(tmp_path / "later.csv"), labels=[1, 0])


def _file(home: Path) -> str:
    path = home.parent / "weights.bin"
    path.write_bytes(b"1")
    return str(path)
