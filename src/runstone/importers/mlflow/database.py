"""MLflow's SQLite database: tables and columns of MLflow 1 to 3; what a version lacks is empty."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.importers.items import FoundModel, FoundRun, NotCarried
from runstone.importers.mlflow.common import (
    Artifacts,
    Dataset,
    LoggedModel,
    Metric,
    StoredRun,
    StoredVersion,
    found_model,
    found_run,
    inf_of,
)
from runstone.importers.values import as_number
from runstone.index.foreign import ForeignDatabase

_NAMES = ("mlflow.db", "mlruns.db")


def find(path: Path) -> Path | None:
    """Return the database that a path is or holds, `None` where there is none."""
    candidates = [path] if path.is_file() else [path / name for name in _NAMES]
    for candidate in candidates:
        try:
            with ForeignDatabase(candidate) as database:
                if database.columns("experiments") and "run_uuid" in database.columns("runs"):
                    return candidate
        except (OSError, FormatError):
            continue
    return None


def read(path: Path, artifacts: Artifacts, not_carried: NotCarried) -> Iterator[FoundRun | FoundModel]:
    """Yield runs and registered models.

    Raises:
        FormatError: it is damaged.
        OSError: it cannot be read.
    """
    with ForeignDatabase(path) as database:
        yield from _Database(database, artifacts, not_carried).all()


class _Database:
    def __init__(self, database: ForeignDatabase, artifacts: Artifacts, not_carried: NotCarried) -> None:
        self._database, self._artifacts, self._not_carried = database, artifacts, not_carried

    def all(self) -> Iterator[FoundRun | FoundModel]:
        rows = self._database.rows
        experiments = {
            row[0]: str(row[1]) for row in rows("experiments", ["experiment_id", "name"]) if row[1] is not None
        }
        counts = {
            table: self._database.counts(table, by)
            for table, by in (("metrics", "run_uuid"), ("params", "run_uuid"), ("tags", "run_uuid"))
        }
        datasets = {row[0]: row[1:] for row in rows("datasets", ["dataset_uuid", "name", "digest", "dataset_source"])}
        inputs = self._inputs()
        models = self._logged_models()
        columns = ["run_uuid", "name", "status", "start_time", "end_time", "lifecycle_stage", "user_id", "artifact_uri"]
        runs = list(rows("runs", [*columns, "experiment_id"], order_by=["start_time"]))
        for row in runs:
            self._artifacts.of_run[str(row[0])] = (str(row[8]), str(row[7] or ""))
        for run_id, name, status, start, end, stage, user, uri, experiment in runs:
            run_id = str(run_id)
            run = StoredRun(
                run_id,
                experiments.get(experiment, ""),
                str(experiment),
                str(name or ""),
                status,
                start,
                end,
                stage == "deleted",
                str(user or ""),
                str(uri or ""),
                self._words("params", [("run_uuid", run_id)]),
                self._words("tags", [("run_uuid", run_id)]),
                lambda run_id=run_id: self._metrics(run_id),  # type: ignore[misc]
                models=models.get(run_id, []),
                marks={
                    "end": end if isinstance(end, int) else 0,
                    "deleted": int(stage == "deleted"),
                    "inputs": len(inputs.get(run_id, ())),
                    **{f"{table}.{what}": counts[table].get(run_id, (0, 0))[number]
                       for table in counts for number, what in enumerate(("count", "last"))},
                },
            )  # fmt: skip
            for kind, source, role in inputs.get(run_id, []):
                if kind == "DATASET" and source in datasets:
                    told = datasets[source]
                    run.datasets.append(Dataset(str(told[0]), str(told[1] or ""), str(told[2] or ""), role))
                else:
                    run.not_carried["input or output that is no dataset"] += 1
            yield found_run(run, self._artifacts)
        yield from self._models()
        for table, kind in (
            ("trace_info", "trace"),
            ("experiment_tags", "tag of an experiment"),
            ("logged_model_metrics", "metric of a logged model"),
            ("evaluation_datasets", "evaluation dataset"),
            ("scorers", "scorer"),
            ("webhooks", "webhook"),
        ):
            self._not_carried[kind] += sum(1 for _row in rows(table, ["rowid"]))

    def _metrics(self, run_id: str) -> Iterator[Metric]:
        rows = self._database.rows(
            "metrics",
            ["key", "value", "timestamp", "step", "is_nan"],
            where=[("run_uuid", run_id)],
            order_by=["key", "timestamp", "step"],
        )
        for name, value, ms, step, is_nan in rows:
            number = math.nan if is_nan else as_number(value)
            if number is None or not isinstance(ms, int) or not isinstance(step or 0, int):
                self._not_carried["metric that is no number"] += 1
                continue
            yield str(name), inf_of(float(number)), ms, step or 0

    def _words(self, table: str, where: list[tuple[str, Any]]) -> dict[str, str]:
        rows = self._database.rows(table, ["key", "value"], where=where)
        return {str(name): "" if text is None else str(text) for name, text in rows}

    def _inputs(self) -> dict[str, list[tuple[str, str, str | None]]]:
        roles = {
            row[0]: str(row[2])
            for row in self._database.rows("input_tags", ["input_uuid", "name", "value"])
            if row[1] == "mlflow.data.context"
        }
        found: dict[str, list[tuple[str, str, str | None]]] = defaultdict(list)
        columns = ["input_uuid", "source_type", "source_id", "destination_type", "destination_id"]
        for key, kind, source, to, run_id in self._database.rows("inputs", columns):
            if to == "RUN":
                found[str(run_id)].append((str(kind), str(source), roles.get(key)))
            else:
                found[str(source)].append((str(to), str(run_id), None))
        return found

    def _logged_models(self) -> dict[str, list[LoggedModel]]:
        rows = self._database.rows
        params: dict[str, dict[str, str]] = defaultdict(dict)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for model, name, text in rows("logged_model_params", ["model_id", "param_key", "param_value"]):
            params[model][str(name)] = str(text)
        for model, name, text in rows("logged_model_tags", ["model_id", "tag_key", "tag_value"]):
            tags[model][str(name)] = str(text)
        found: dict[str, list[LoggedModel]] = defaultdict(list)
        columns = ["model_id", "name", "artifact_location", "model_type", "source_run_id", "experiment_id"]
        for model, name, location, kind, run_id, experiment in rows("logged_models", columns):
            facts = {"model_id": model, "type": kind, "params": params[model], "tags": tags[model]}
            self._artifacts.of_model[str(model)] = (str(experiment), str(location or ""))
            if run_id:
                found[str(run_id)].append(LoggedModel(str(model), str(name or ""), str(location or ""), facts))
            else:
                self._not_carried["logged model of no run"] += 1
        return found

    def _models(self) -> Iterator[FoundModel]:
        rows = self._database.rows
        columns = ["version", "source", "run_id", "current_stage", "description", "creation_time", "storage_location"]
        for name, description in rows("registered_models", ["name", "description"]):
            versions = []
            for number, source, run_id, stage, told, created, storage in rows(
                "model_versions", columns, where=[("name", name)]
            ):
                if stage == "Deleted_Internal" or not isinstance(number, int):
                    self._not_carried["deleted version of a model"] += 1
                    continue
                words = self._words("model_version_tags", [("name", name), ("version", number)])
                address = str(storage or source or "")
                versions.append(StoredVersion(number, address, run_id, stage, words, told, created))
            aliases = {
                str(alias): version
                for alias, version in rows("registered_model_aliases", ["alias", "version"], where=[("name", name)])
                if isinstance(version, int)
            }
            tags = self._words("registered_model_tags", [("name", name)])
            yield found_model(str(name), versions, aliases, tags, description, self._artifacts, self._not_carried)
