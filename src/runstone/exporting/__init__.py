"""Runs in forms that other tools read: points as Parquet or CSV, all of a run as JSON, TensorBoard event files."""

from __future__ import annotations

from runstone.exporting.plain import run_as_dict, write_json
from runstone.exporting.tables import write_csv, write_parquet
from runstone.exporting.tensorboard import write_event_files

__all__ = ["run_as_dict", "write_csv", "write_event_files", "write_json", "write_parquet"]
