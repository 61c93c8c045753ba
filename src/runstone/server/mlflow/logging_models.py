"""The routes of models that clients of MLflow 3 log."""

from __future__ import annotations

import math
import time
from typing import Any

from starlette.responses import Response

from runstone.names import check_run_id
from runstone.server.mlflow.artifacts import Place, folder_listing, sent_file
from runstone.server.mlflow.asking import LARGEST_INT, paged
from runstone.server.mlflow.errors import invalid, missing
from runstone.server.mlflow.logged import GRAMMAR, STATUSES, LoggedModel
from runstone.server.mlflow.service import Call, check_experiment_id, check_role
from runstone.server.mlflow.values import HOLDER
from runstone.server.roles import Role
from runstone.status import Status

Answer = dict[str, Any]
_MOST_LISTED = 50_000
_FORBIDDEN = "/:.%\"'"


def create(call: Call) -> Answer:
    """POST logged-models."""
    fields = call.fields
    one = call.experiment(Role.CONTRIBUTOR)
    if one.is_deleted:
        raise invalid(f"The experiment {one.id} must be in the 'active' state. Current state is deleted.")
    name = fields.text("name")
    if any(sign in name for sign in _FORBIDDEN):
        raise invalid(f"Invalid model name {name!r:.200}: it cannot hold any of {_FORBIDDEN}")
    params = {told.key(): told.text("value") for told in fields.objects("params")}
    source = fields.text("source_run_id")
    if call.mlflow.run_folder(source) is not None:
        run_id = call.mlflow.reach(call.principal, source, Role.CONTRIBUTOR).name
    else:  # its files need a run that keeps them
        run_id = call.mlflow.writers.create(
            project=one.project, name=name or "logged model", parent=None, started_s=time.time(), tags={HOLDER: "1"}
        ).name
        with call.mlflow.writers.writing(call.mlflow.reach(call.principal, run_id)) as writer:
            writer.end(Status.FINISHED, None)
    made = call.mlflow.models.create(
        project=one.project,
        run_id=run_id,
        name=name,
        type=fields.text("model_type"),
        source_run_id=source,
        params=params,
        tags=fields.tags(),
    )
    return {"model": _shown(call, made)}


def get(call: Call) -> Answer:
    """GET logged-models/ID."""
    return {"model": _shown(call, _reach(call))}


def finalize(call: Call) -> Answer:
    """PATCH logged-models/ID."""
    one, status = _reach(call, Role.CONTRIBUTOR), call.fields.required("status")
    if status not in STATUSES:
        raise call.fields.wrong("status", status)
    if status == STATUSES[1]:
        Place.of_model(call.mlflow, one).gather(one.name)
    return {"model": _shown(call, call.mlflow.models.change(one.id, status=status))}


def delete(call: Call) -> Answer:
    """DELETE logged-models/ID."""
    call.mlflow.models.change(_reach(call, Role.MAINTAINER).id, is_deleted=True)
    return {}


def set_tags(call: Call) -> Answer:
    """PATCH logged-models/ID/tags."""
    one = _reach(call, Role.CONTRIBUTOR)
    call.mlflow.models.change(one.id, tags=call.fields.tags())
    return {}


def delete_tag(call: Call) -> Answer:
    """DELETE logged-models/ID/tags/KEY."""
    one, key = _reach(call, Role.CONTRIBUTOR), call.path["key"]
    if key not in one.tags:
        raise missing(f"No tag with key {key!r:.80} found for model with ID {one.id}")
    call.mlflow.models.change(one.id, untagged=[key])
    return {}


def log_params(call: Call) -> Answer:
    """POST logged-models/ID/params."""
    one = _reach(call, Role.CONTRIBUTOR)
    params = {told.key(): told.text("value") for told in call.fields.objects("params")}
    call.mlflow.models.change(one.id, params=params)
    return {}


def search(call: Call) -> Answer:
    """POST logged-models/search."""
    fields = call.fields
    projects = set()
    for experiment_id in fields.texts("experiment_ids"):
        check_experiment_id(experiment_id)
        experiment = call.mlflow.experiments.find(experiment_id)
        if experiment is not None and call.principal.may(Role.VIEWER, experiment.project):
            projects.add(experiment.project)
    clauses = GRAMMAR.clauses(fields.text("filter"))
    datasets = [(told.required("dataset_name"), told.text("dataset_digest")) for told in fields.objects("datasets")]
    orders = [
        (
            GRAMMAR.orders([told.required("field_name")])[0],
            not told.has("ascending") or told.flag("ascending"),
            told.text("dataset_name"),
            told.text("dataset_digest"),
        )
        for told in fields.objects("order_by")
    ]
    most, offset = min(fields.most(50, LARGEST_INT), _MOST_LISTED), fields.offset()
    found = [one for one in call.mlflow.models.all() if one.project in projects and one.fits(clauses)]
    if datasets:
        found = [
            one
            for one in found
            if any(name == told[2] and digest in ("", told[3]) for told in one.metrics for name, digest in datasets)
        ]
    found.sort(key=lambda one: (-one.created_ms, one.id))
    for order, is_ascending, dataset, digest in reversed(orders):
        values = {one.id: one.value(order.entity, order.key, dataset, digest) for one in found}
        there = [one for one in found if values[one.id] is not None and not _is_nan(values[one.id])]
        there.sort(key=lambda one: values[one.id], reverse=not is_ascending)
        found = there + [one for one in found if one not in there]
    return paged("models", [_shown(call, one) for one in found], offset, most)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def list_artifacts(call: Call) -> Answer:
    """GET logged-models/ID/artifacts/directories."""
    one = _reach(call)
    files = Place.of_model(call.mlflow, one).files()
    listed = folder_listing(files, call.fields.text("artifact_directory_path"), is_relative=False)
    return {"root_uri": _root(call, one), **({"files": listed} if listed else {})}


def read_artifact(call: Call) -> Response:
    """GET logged-models/ID/artifacts/files."""
    return sent_file(call.mlflow, Place.of_model(call.mlflow, _reach(call)), call.fields.required("artifact_file_path"))


def _reach(call: Call, role: Role = Role.VIEWER) -> LoggedModel:
    """Return the model that a request names, where somebody may reach it."""
    model_id = call.path["model_id"]
    found = call.mlflow.models.get(model_id)
    if not call.principal.may(Role.VIEWER, found.project):
        raise missing(f"Logged model with ID '{model_id:.80}' not found.")
    check_role(call.principal, role, found.project)
    check_run_id(found.run_id)
    return found


def _root(call: Call, one: LoggedModel) -> str:
    experiment = call.mlflow.experiments.of_project(one.project)
    return f"{experiment.artifact_location}/models/{one.id}/artifacts"


def _shown(call: Call, one: LoggedModel) -> Answer:
    return one.shown(call.mlflow.experiments.of_project(one.project).id, _root(call, one))
