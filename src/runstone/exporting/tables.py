"""The points of a run as a file of columns: metric, step, time, value, integer, text, attempt, superseded."""

from __future__ import annotations

from pathlib import Path

from runstone.runinfo import RunInfo


def write_parquet(info: RunInfo, path: Path) -> int:
    """Write all points of a run as Parquet and return how many that are.

    Raises:
        FormatError: the run is sealed and damaged.
        OSError: it cannot be written.
    """
    import pyarrow.parquet as pq  # heavy, only here

    table = info.points()
    pq.write_table(table, path, compression="zstd")
    return len(table)


def write_csv(info: RunInfo, path: Path) -> int:
    """Write all points of a run as CSV and return how many that are.

    Raises:
        FormatError: the run is sealed and damaged.
        OSError: it cannot be written.
    """
    import pyarrow.csv  # heavy, only here

    table = info.points()
    pyarrow.csv.write_csv(table.set_column(0, "metric", table["metric"].cast("string")), path)
    return len(table)
