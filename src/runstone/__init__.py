"""Runstone records training runs, versions what they produce, and searches for better ones.

```python
import runstone

with runstone.start_run(project="digits", params={"lr": 1e-3}) as run:
    run.log({"train/loss": 0.5, "train/acc": 0.9}, step=0)
```

Public names are those in `__all__`; everything else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstone._version import __version__
from runstone.autolog import is_autolog_on
from runstone.companions import RankReports
from runstone.current import current_run, log
from runstone.ending import hand_over_sigterm
from runstone.errors import (
    AlreadyExists,
    AmbiguousName,
    FormatError,
    InvalidConfig,
    InvalidFilter,
    InvalidName,
    InvalidValue,
    MetricNotFound,
    NotFound,
    RunFinished,
    RunNotFound,
    RunstoneError,
    TrackingWarning,
    Unavailable,
    WorkspaceNotFound,
)
from runstone.params import flatten_params
from runstone.recording.recorder import MetricHandle
from runstone.run import Run
from runstone.starting import start_run, trial_params
from runstone.status import Status
from runstone.workspace import LaunchedRun, Workspace, ensure_workspace, open_workspace

if TYPE_CHECKING:
    from runstone.comparison import Comparison, compare
    from runstone.datasets import DatasetVersion
    from runstone.models import LoadedModel, ModelVersion, load_model
    from runstone.query import RunTable
    from runstone.runinfo import RunInfo
    from runstone.runlog.tail import MetricTail
    from runstone.values import JSON, Artifact, Attempt, Failure, FileEntry, Link, MetricSummary, Record, Series

__all__ = [
    "JSON",
    "AlreadyExists",
    "AmbiguousName",
    "Artifact",
    "Attempt",
    "Comparison",
    "DatasetVersion",
    "Failure",
    "FileEntry",
    "FormatError",
    "InvalidConfig",
    "InvalidFilter",
    "InvalidName",
    "InvalidValue",
    "LaunchedRun",
    "Link",
    "LoadedModel",
    "MetricHandle",
    "MetricNotFound",
    "MetricSummary",
    "MetricTail",
    "ModelVersion",
    "NotFound",
    "RankReports",
    "Record",
    "Run",
    "RunFinished",
    "RunInfo",
    "RunNotFound",
    "RunTable",
    "RunstoneError",
    "Series",
    "Status",
    "TrackingWarning",
    "Unavailable",
    "Workspace",
    "WorkspaceNotFound",
    "__version__",
    "compare",
    "current_run",
    "ensure_workspace",
    "flatten_params",
    "hand_over_sigterm",
    "is_autolog_on",
    "load_model",
    "log",
    "open_workspace",
    "start_run",
    "trial_params",
]

# Readers need NumPy or SQL; a process that only records must not pay for them.
_LAZY = {
    **dict.fromkeys(
        ("JSON", "Artifact", "Attempt", "Failure", "FileEntry", "Link", "MetricSummary", "Record", "Series"),
        "runstone.values",
    ),
    **dict.fromkeys(("LoadedModel", "ModelVersion", "load_model"), "runstone.models"),
    "Comparison": "runstone.comparison",
    "DatasetVersion": "runstone.datasets",
    "MetricTail": "runstone.runlog.tail",
    "RunInfo": "runstone.runinfo",
    "RunTable": "runstone.query",
    "compare": "runstone.comparison",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'runstone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
