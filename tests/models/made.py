"""A small world for tests of the registry: datasets, runs of a sweep, versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import runstone
from runstone.ledger import Ledger
from runstone.models import Model
from runstone.names import folder_name


def add_dataset(
    home: Path, name: str, number: int, content: str, *, run_id: str | None = None, url: str | None = None
) -> None:
    """Enter a version of a dataset into its history, as `runstone data add` does."""
    ledger = Ledger(home / "datasets" / folder_name(name) / "events")
    if not ledger.exists:
        ledger.append("created", {"name": name, "notes": None})
    source = {"type": "url", "url": url} if url else {}
    fields = {"version": number, "manifest": content * 64, "stored": True, "files": 3, "size": 900, "source": source}
    ledger.append("added", fields, run_id=run_id)


def train(
    home: Path,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    data: tuple[str, str, str] | None = None,
    model: str | None = "credit-risk",
    **options: Any,
) -> runstone.Run:
    """Make a run that used a dataset `(name, version, content)`, logged metrics and, if told, a model."""
    with runstone.start_run(
        project="credit", name=name, params=dict(params or {}), workspace=home, environment=False, **options
    ) as run:
        if data is not None:
            dataset, version, content = data
            run._event("input", kind="dataset", name=dataset, version=version, hash=content * 64, role="train")
        run.log(dict(metrics or {}), step=0)
        if model is not None:
            path = home.parent / f"{name}.bin"
            path.write_bytes(name.encode() * 100)
            run.log_model(str(path), name=model)
    return run


def registry(home: Path, name: str = "credit-risk") -> Model:
    """Return the model as the registry has it now."""
    return runstone.open_workspace(home).models.get(name)
