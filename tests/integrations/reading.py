"""How tests read what a run has recorded."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

import runstone


def table(run: runstone.RunInfo, name: str, *, step: int = 0) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    (record,) = [record for record in run.records(name) if record.step == step]
    assert record.path is not None
    rows: list[dict[str, Any]] = pq.read_table(record.path).to_pylist()
    return rows


def last(run: runstone.RunInfo, name: str) -> float:
    """Return the last value of a metric."""
    return run.metrics[name].last
