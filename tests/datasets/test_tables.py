"""Profiles, rows and columns of tables, against what is counted the plain way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstone.datasets import Datasets
from runstone.datasets.diff import diff
from runstone.datasets.profile import DISTINCT_BOUND, describe
from runstone.datasets.rows import compare_rows
from runstone.datasets.sketch import Moments, Quantiles
from runstone.datasets.tables import MemoryTable
from runstone.workspace import ensure_workspace


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return ensure_workspace(tmp_path / ".runstone").datasets


def frame(rows: int = 1000) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "x": generator.normal(5.0, 2.0, rows),
            "k": generator.integers(0, 7, rows),
            "s": generator.choice(["a", "b", "c"], rows),
        }
    )


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "feather", "arrow", "jsonl"])
def test_every_kind_of_table_has_the_same_profile(datasets: Datasets, tmp_path: Path, ending: str) -> None:
    data = frame()
    path = tmp_path / f"t.{ending}"
    table = pa.Table.from_pandas(data)
    match ending:
        case "csv" | "tsv":
            data.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
        case "parquet":
            pyarrow.parquet.write_table(table, path)
        case "feather":
            pyarrow.feather.write_feather(table, path)
        case "arrow":
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
        case "jsonl":
            data.to_json(path, orient="records", lines=True, double_precision=15)
    version = datasets.add(path)
    assert list(version.schema) == ["x", "k", "s"]
    x = version.profile["x"]
    assert (x["count"], x["nulls"]) == (1000, 0)
    assert x["mean"] == pytest.approx(data["x"].mean())
    assert x["std"] == pytest.approx(data["x"].std())
    assert x["min"] == pytest.approx(data["x"].min())
    assert x["quantiles"][50] == pytest.approx(data["x"].median(), abs=0.02)
    assert sum(x["histogram"]["counts"]) == 1000
    assert version.profile["k"]["distinct"] == 7
    assert dict(version.profile["s"]["top"]) == data["s"].value_counts().to_dict()


def test_text_that_does_not_keep_to_its_first_rows_is_read_less_strictly(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "1,2\n" * 1_500_000 + "1.5,word\n")
    version = datasets.add(path)
    assert version.schema["y"] == "string"
    assert version.tables[0]["rows"] == 1_500_001


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=2, max_size=300))
def test_moments_are_those_of_numpy_however_they_come(values: list[float]) -> None:
    moments = Moments()
    for start in range(0, len(values), 7):
        moments.add(np.array(values[start : start + 7]))
    known = np.array([value for value in values if value == value])
    assert moments.nan_count == len(values) - len(known)
    if len(known) > 1:
        assert moments.mean == pytest.approx(known.mean(), rel=1e-6, abs=1e-6 * np.abs(known).max())
        assert moments.std == pytest.approx(known.std(ddof=1), rel=1e-4, abs=1e-6 * np.abs(known).max())
        assert (moments.min, moments.max) == (known.min(), known.max())


def test_quantiles_of_a_million_values_are_close_and_small() -> None:
    quantiles = Quantiles()
    values = np.random.default_rng(1).permutation(1_000_000).astype(np.float64)
    for start in range(0, len(values), 65_536):
        quantiles.add(values[start : start + 65_536])
    found = quantiles.at(np.array([0.01, 0.25, 0.5, 0.75, 0.99]))
    assert found == pytest.approx(np.array([0.01, 0.25, 0.5, 0.75, 0.99]) * 1e6, abs=3_000)
    kept, weights = quantiles.weighted()
    assert len(kept) < 150_000
    assert weights.sum() == 1_000_000


def test_more_values_than_the_bound_are_not_counted_but_the_most_frequent_are() -> None:
    values = [f"v{number}" for number in range(DISTINCT_BOUND * 2)] + ["often"] * 500
    table = pa.table({"s": ["often"] * 500 + values})
    (found,) = describe([MemoryTable("t", table)], with_profile=True)
    column = found["columns"]["s"]
    assert column["distinct"] is None
    assert column["distinct_over"] == DISTINCT_BOUND
    assert column["top"][0] == ["often", 1000]


def test_nested_null_and_binary_columns_are_profiled_as_far_as_they_can_be() -> None:
    table = pa.table(
        {
            "list": [[1], None, [2, 3]],
            "none": pa.array([None, None, None]),
            "raw": [b"a", b"b", None],
            "when": pa.array([0, 1, None], pa.timestamp("ms")),
            "flag": [True, False, None],
            "code": pa.array(["x", "y", "x"]).dictionary_encode(),
        }
    )
    (found,) = describe([MemoryTable("t", table)], with_profile=True)
    columns = found["columns"]
    assert {name: column["nulls"] for name, column in columns.items()} == {
        "list": 1,
        "none": 3,
        "raw": 1,
        "when": 1,
        "flag": 1,
        "code": 0,
    }
    assert columns["when"]["min"] == "1970-01-01 00:00:00"
    assert columns["code"]["top"][0] == ["x", 2]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "b", None])), max_size=40),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "b", None])), max_size=40),
)
def test_rows_are_compared_as_bags(before: list[tuple[int, str | None]], after: list[tuple[int, str | None]]) -> None:
    def table(rows: list[tuple[int, str | None]]) -> MemoryTable:
        schema = pa.schema([("k", pa.int64()), ("s", pa.string())])
        return MemoryTable("t", pa.table([[row[0] for row in rows], [row[1] for row in rows]], schema=schema))

    found = compare_rows([table(before)], [table(after)])
    assert found.added == (Counter(after) - Counter(before)).total()
    assert found.removed == (Counter(before) - Counter(after)).total()
    assert len(found.added_samples) == min(5, found.added)


def test_the_order_of_rows_and_a_wider_type_change_nothing(datasets: Datasets, tmp_path: Path) -> None:
    data = frame(500)
    data.to_parquet(tmp_path / "t.parquet")
    first = datasets.add(tmp_path / "t.parquet")
    shuffled = data.sample(frac=1.0, random_state=1)
    shuffled["k"] = shuffled["k"].astype(float)
    shuffled.to_parquet(tmp_path / "t.parquet", index=False)
    second = datasets.add(tmp_path / "t.parquet")
    found = diff(first, second)
    assert found.rows is not None
    assert (found.rows.added, found.rows.removed) == (0, 0)
    columns = {column.name: column for column in found.columns}
    assert columns["k"].before == "int64"
    assert columns["k"].after == "double"
    assert columns["k"].psi == pytest.approx(0.0)


def test_a_drift_shows_in_its_column_only(datasets: Datasets, tmp_path: Path) -> None:
    data = frame(5_000)
    data.to_parquet(tmp_path / "t.parquet")
    first = datasets.add(tmp_path / "t.parquet")
    data["x"] += 3.0
    data.to_parquet(tmp_path / "t.parquet")
    columns = {column.name: column for column in diff(first, datasets.add(tmp_path / "t.parquet")).columns}
    assert (columns["x"].psi or 0) > 0.25
    assert (columns["x"].js or 0) > 0.1
    assert columns["x"].figures["mean"][1] - columns["x"].figures["mean"][0] == pytest.approx(3.0)
    assert columns["s"].psi == pytest.approx(0.0)
    assert columns["k"].js == pytest.approx(0.0)


def test_files_are_told_apart_by_path_and_content(datasets: Datasets, tmp_path: Path) -> None:
    tree = tmp_path / "d"
    tree.mkdir()
    for name in "abcd":
        (tree / name).write_text(name * 10)
    first = datasets.add(tree)
    (tree / "a").rename(tree / "z")
    (tree / "b").unlink()
    (tree / "c").write_text("changed")
    (tree / "new").write_text("new")
    found = diff(first, datasets.add(tree))
    assert [one.path for one in found.added] == ["new"]
    assert [one.path for one in found.removed] == ["b"]
    assert [one.path for one in found.changed] == ["c"]
    assert [(one.before.path, one.path) for one in found.renamed if one.before] == [("a", "z")]


def test_the_same_rows_in_memory_are_the_same_version(datasets: Datasets) -> None:
    data = frame(200)
    data.loc[::7, "x"] = None
    first = datasets.add(data, name="t", store=False)
    again = datasets.add(data.copy(), name="t", store=False)
    chunked = pa.concat_tables([pa.Table.from_pandas(data).slice(0, 50), pa.Table.from_pandas(data).slice(50)])
    assert again == first
    assert datasets.add(chunked, name="t", store=False) == first
    stored = datasets.add(data, name="t")
    assert stored == first
    assert pa.ipc.open_stream(stored.path.read_bytes()).read_all().num_rows == 200
    data.loc[3, "s"] = "other"
    assert datasets.add(data, name="t").version == 2
