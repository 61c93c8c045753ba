"""Runs go to MLflow, written and read back by MLflow's own library in a process of its own. See docs/import.md."""

from __future__ import annotations

from runstone.mlflow_export.sending import ExportedRun, MlflowExport, export_lines, export_to_mlflow

__all__ = ["ExportedRun", "MlflowExport", "export_lines", "export_to_mlflow"]
