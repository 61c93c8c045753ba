"""Models that clients of MLflow 3 log: kept beside the runs, a file each that only grows; their files are a run's."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.names import new_run_name
from runstone.server.mlflow.asking import pairs
from runstone.server.mlflow.errors import missing
from runstone.server.mlflow.filters import NULLABLE, NUMERIC, Clause, Grammar, holds
from runstone.server.mlflow.lines import Lines
from runstone.server.mlflow.values import Metric, shown_metric

MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
STATUSES = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
_TEXTS = ("name", "model_id", "model_type", "status", "source_run_id")
_ATTRIBUTES = ("attribute", "attributes", "attr")
GRAMMAR = Grammar(
    entities={
        **dict.fromkeys(_ATTRIBUTES, "attribute"),
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("param", "params"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
    },
    default="attribute",
    aliases={
        "creation_time": "creation_timestamp",
        "creation_timestamp_ms": "creation_timestamp",
        "last_updated_timestamp_ms": "last_updated_timestamp",
    },
    operators={
        **dict.fromkeys((f"attribute.{name}" for name in _TEXTS), NULLABLE | {"IN", "NOT IN"}),
        "attribute.creation_timestamp": NUMERIC,
        "attribute.last_updated_timestamp": NUMERIC,
        "metric": NUMERIC,
        "param": NULLABLE,
        "tag": NULLABLE,
    },
    numbers=frozenset({"creation_timestamp", "last_updated_timestamp"}),
)


@dataclass(slots=True)
class LoggedModel:
    """A model that a client logged.

    Attributes:
        id: `m-` and 32 hex digits.
        project: Of its experiment.
        run_id: The run whose artifacts hold its files.
        source_run_id: The run that made it; empty where none did.
        metrics: As they were logged with its id: run, point, name and digest of a dataset.
    """

    id: str
    project: str
    run_id: str
    name: str = ""
    type: str = ""
    source_run_id: str = ""
    status: str = STATUSES[0]
    created_ms: int = 0
    updated_ms: int = 0
    is_deleted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, Metric, str, str]] = field(default_factory=list)

    def take(self, told: dict[str, Any]) -> None:
        """Take in a line of its file."""
        for name in ("project", "run_id", "name", "type", "source_run_id", "status", "created_ms", "is_deleted"):
            if name in told:
                setattr(self, name, told[name])
        self.updated_ms = max(self.updated_ms, int(told.get("at", 0)))
        self.tags.update(told.get("tags", {}))
        for key in told.get("untagged", ()):
            self.tags.pop(key, None)
        self.params.update(told.get("params", {}))
        for run_id, key, value, at_ms, step, dataset, digest in told.get("metrics", ()):
            self.metrics.append((run_id, Metric(key, float(value), at_ms, step), dataset, digest))

    def shown(self, experiment_id: str, root: str) -> dict[str, Any]:
        """Return it as the protocol has it."""
        data: dict[str, Any] = {}
        if self.params:
            data["params"] = pairs(self.params)
        if self.metrics:
            data["metrics"] = [self._shown_metric(*one) for one in self.latest().values()]
        info: dict[str, Any] = {
            "model_id": self.id,
            "experiment_id": experiment_id,
            "name": self.name,
            "creation_timestamp_ms": self.created_ms,
            "last_updated_timestamp_ms": self.updated_ms,
            "artifact_uri": root,
            "status": self.status,
            "model_type": self.type,
            "source_run_id": self.source_run_id,
        }
        if self.tags:
            info["tags"] = pairs(self.tags)
        return {"info": info, "data": data}

    def latest(self) -> dict[tuple[str, str, str], tuple[str, Metric, str, str]]:
        """Return the latest point of each metric on each dataset."""
        found: dict[tuple[str, str, str], tuple[str, Metric, str, str]] = {}
        for one in self.metrics:
            key = (one[1].key, one[2], one[3])
            if key not in found or one[1].rank >= found[key][1].rank:
                found[key] = one
        return found

    def _shown_metric(self, run_id: str, one: Metric, dataset: str, digest: str) -> dict[str, Any]:
        shown = {**shown_metric(one), "model_id": self.id, "run_id": run_id}
        if dataset:
            shown |= {"dataset_name": dataset, "dataset_digest": digest}
        return shown

    def fits(self, clauses: list[Clause]) -> bool:
        """Return whether all clauses of a filter hold."""
        return all(holds(clause, self.value(clause.entity, clause.key)) for clause in clauses)

    def value(self, entity: str, key: str, dataset: str = "", digest: str = "") -> Any:
        """Return what a filter or an order speaks of; `None` where it has none."""
        if entity == "tag":
            return self.tags.get(key)
        if entity == "param":
            return self.params.get(key)
        if entity == "metric":
            values = [
                one[1]
                for one in self.metrics
                if one[1].key == key and dataset in ("", one[2]) and digest in ("", one[3])
            ]
            return max(values, key=lambda one: one.rank).value if values else None
        return {
            "name": self.name,
            "model_id": self.id,
            "model_type": self.type or None,
            "status": self.status,
            "source_run_id": self.source_run_id or None,
            "creation_timestamp": self.created_ms,
            "last_updated_timestamp": self.updated_ms,
        }[key]


class LoggedModels:
    """The logged models of a workspace.

    Args:
        folder: Where this is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "models"
        self._lock = threading.RLock()
        self._lines: dict[str, Lines] = {}
        self._known: dict[str, LoggedModel] = {}
        self._listed_ns = 0

    def create(self, *, project: str, run_id: str, name: str, **told: Any) -> LoggedModel:
        """Make one, whose files are on their way."""
        model_id = f"m-{os.urandom(16).hex()}"
        now = time.time_ns() // 1_000_000
        line = {"project": project, "run_id": run_id, "name": name or new_run_name(), "created_ms": now, **told}
        with self._lock:
            self._add(model_id, line)
            return self._known[model_id]

    def change(self, model_id: str, **told: Any) -> LoggedModel:
        """Say something of one.

        Raises:
            MlflowError: there is none.
        """
        with self._lock:
            self.get(model_id)
            self._add(model_id, told)
            return self._known[model_id]

    def add_metric(self, model_id: str, run_id: str, one: Metric, dataset: str, digest: str) -> None:
        """Let one have a point that was logged with its id; of a model that is not here nothing is kept."""
        with self._lock:
            if self.find(model_id) is not None:
                value = str(one.value)  # NaN and infinities are no JSON
                self._add(
                    model_id, {"metrics": [[run_id, one.key, value, one.timestamp_ms, one.step, dataset, digest]]}
                )

    def _add(self, model_id: str, told: dict[str, Any]) -> None:
        self._file(model_id).add({"at": time.time_ns() // 1_000_000, **told})
        self._refresh(model_id)

    def _file(self, model_id: str) -> Lines:
        return self._lines.setdefault(model_id, Lines(self._folder / f"{model_id}.jsonl"))

    def _refresh(self, model_id: str) -> None:
        for told in self._file(model_id).news():
            if model_id not in self._known:
                self._known[model_id] = LoggedModel(model_id, "", "")
            try:
                self._known[model_id].take(told)
            except (TypeError, ValueError):
                continue  # damage

    def find(self, model_id: str) -> LoggedModel | None:
        """Return one that was not deleted."""
        if MODEL_ID.fullmatch(model_id) is None:
            return None
        with self._lock:
            self._refresh(model_id)
            found = self._known.get(model_id)
        return found if found is not None and not found.is_deleted else None

    def get(self, model_id: str) -> LoggedModel:
        """Return one.

        Raises:
            MlflowError: there is none.
        """
        found = self.find(model_id)
        if found is None:
            raise missing(f"Logged model with ID '{model_id:.80}' not found.")
        return found

    def all(self) -> list[LoggedModel]:
        """Return all that were not deleted."""
        with self._lock:
            try:
                changed_ns = self._folder.stat().st_mtime_ns
            except FileNotFoundError:
                return []
            if changed_ns != self._listed_ns:
                for path in self._folder.glob("m-*.jsonl"):
                    self._file(path.stem)
                self._listed_ns = changed_ns
            for model_id in list(self._lines):
                self._refresh(model_id)
            return [one for one in self._known.values() if not one.is_deleted]
