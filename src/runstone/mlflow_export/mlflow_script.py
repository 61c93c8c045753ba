"""Writes runs into a store of MLflow and counts what MLflow reads back. Needs MLflow, and nothing of Runstone.

Run by `runstone.mlflow_export` in a process of its own, as `python -I mlflow_script.py STORE ARTIFACTS`; standard input
has a line of JSON for each run's head, for its points in batches, and for its end.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_METRICS, _WORDS = 1000, 100
"""How many MLflow takes in one call."""
_RUN_TAG, _MARK_TAG = "runstone.run_id", "runstone.mark"


def main(store: str, artifacts: str) -> int:
    """Write all runs; return 3 where MLflow is not there."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    warnings.simplefilter("ignore")
    try:
        from mlflow import MlflowClient  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return 3
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    client = MlflowClient(store)
    made: dict[str, str] = {}
    for head, batches in _runs():
        told = _write(client, artifacts, head, batches, made)
        out.write(json.dumps(told) + "\n")
        out.flush()
    return 0


def _runs() -> Iterator[tuple[dict[str, Any], Iterator[dict[str, Any]]]]:
    lines = (json.loads(line) for line in sys.stdin)
    for head in lines:
        batches = iter(lambda: next(lines, {"done": True}), {"done": True})
        yield head, batches
        for _rest in batches:
            pass


def _write(
    client: Any, artifacts: str, head: dict[str, Any], batches: Iterator[dict[str, Any]], made: dict[str, str]
) -> dict[str, Any]:
    from mlflow.entities import Metric, Param, RunTag  # type: ignore[import-not-found, unused-ignore]

    experiment = _experiment(client, head["project"], artifacts)
    outcome = "new"
    for standing in _find(client, [experiment], head["id"]):
        if standing.data.tags.get(_MARK_TAG) == head["mark"] and standing.info.status != "RUNNING":
            made[head["id"]] = standing.info.run_id
            return {"id": head["id"], "outcome": "unchanged", **_held(client, standing.info.run_id, head)}
        client.delete_run(standing.info.run_id)  # MLflow keeps it until its own `gc`
        outcome = "replaced"
    tags = dict(head["tags"])
    parent = head["parent"] and (made.get(head["parent"]) or _parent(client, head["parent"]))
    if parent:
        tags["mlflow.parentRunId"] = parent
    run = client.create_run(experiment, start_time=head["start_ms"], run_name=head["name"])
    run_id = made[head["id"]] = run.info.run_id
    words = [RunTag(name, text) for name, text in tags.items()]
    for start in range(0, len(words), _WORDS):
        client.log_batch(run_id, tags=words[start : start + _WORDS])
    params = [Param(name, text) for name, text in head["params"].items()]
    for start in range(0, len(params), _WORDS):
        client.log_batch(run_id, params=params[start : start + _WORDS])
    for batch in batches:
        rows = zip(batch["values"], batch["times_ms"], batch["steps"], strict=True)
        metrics = [Metric(batch["name"], value, ms, step) for value, ms, step in rows]
        for start in range(0, len(metrics), _METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + _METRICS])
    if head["folder"]:
        client.log_artifacts(run_id, head["folder"])
    # Last: a run without them is half written, and is replaced by the next export.
    client.log_batch(run_id, tags=[RunTag(_RUN_TAG, head["id"]), RunTag(_MARK_TAG, head["mark"])])
    client.set_terminated(run_id, head["status"], head["end_ms"])
    held = _held(client, run_id, head)
    if head["is_deleted"]:
        client.delete_run(run_id)
    return {"id": head["id"], "outcome": outcome, **held}


def _experiment(client: Any, name: str, artifacts: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=(Path(artifacts) / _slug(name)).as_uri()))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _slug(name: str) -> str:
    import hashlib

    return hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def _find(client: Any, experiments: list[str], run_id: str) -> list[Any]:
    from mlflow.entities import ViewType  # type: ignore[import-not-found, unused-ignore]

    found = client.search_runs(experiments, f"tags.`{_RUN_TAG}` = '{run_id}'", ViewType.ACTIVE_ONLY)
    return list(found)


def _parent(client: Any, run_id: str) -> str | None:
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = _find(client, experiments, run_id)
    return found[0].info.run_id if found else None


def _held(client: Any, run_id: str, head: dict[str, Any]) -> dict[str, Any]:
    run = client.get_run(run_id)
    points = sum(len(client.get_metric_history(run_id, name)) for name in run.data.metrics)
    return {
        "mlflow_id": run_id,
        "points": points,
        "params": sum(name in run.data.params for name in head["params"]),
        "tags": sum(name in run.data.tags for name in head["tags"]),
        "files": sum(1 for _file in _files(client, run_id, None)),
    }


def _files(client: Any, run_id: str, folder: str | None) -> Iterator[str]:
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            yield from _files(client, run_id, one.path)
        else:
            yield one.path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
