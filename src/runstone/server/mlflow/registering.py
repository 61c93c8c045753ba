"""The routes of the registry."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response

from runstone.ledger import acting_as
from runstone.models import Registration, describe_files, register
from runstone.runinfo import RunInfo
from runstone.server.mlflow.artifacts import Place, checked, find_place, sent_content
from runstone.server.mlflow.asking import MOST_KEY, Fields, paged
from runstone.server.mlflow.errors import MlflowError, invalid, missing
from runstone.server.mlflow.registry import (
    MODEL_ID,
    MODELS,
    RUN_ID,
    RUN_LINK,
    SOURCE,
    STAGES,
    VERSIONS,
    Registered,
    Version,
    own_alias,
)
from runstone.server.mlflow.service import Call
from runstone.server.mlflow.values import HIDDEN
from runstone.server.roles import Role
from runstone.values import FileEntry

Answer = dict[str, Any]
_ALIAS = re.compile(r"[\w-]{1,255}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_COPY = re.compile(r"models:/([^/@]+)/(\d{1,12})")
_MOST_TAG = 100_000


# --- models -----------------------------------------------------------------------------------------------------------


def create_model(call: Call) -> Answer:
    """POST registered-models/create."""
    fields = call.fields
    with acting_as(call.principal.name):
        found = call.mlflow.registry.create(fields.required("name"), _tags(fields), fields.text("description"))
    return {"registered_model": found.shown()}


def rename_model(call: Call) -> Answer:
    """POST registered-models/rename."""
    found = call.mlflow.registry.rename(call.fields.required("name"), call.fields.required("new_name"))
    return {"registered_model": found.shown()}


def update_model(call: Call) -> Answer:
    """PATCH registered-models/update."""
    found = _model(call)
    with acting_as(call.principal.name):
        found.model.set_notes(call.fields.text("description") or None)
    return {"registered_model": _model(call).shown()}


def delete_model(call: Call) -> Answer:
    """DELETE registered-models/delete."""
    with acting_as(call.principal.name):
        call.mlflow.registry.delete(call.fields.required("name"))
    return {}


def get_model(call: Call) -> Answer:
    """GET registered-models/get."""
    return {"registered_model": _model(call).shown()}


def search_models(call: Call) -> Answer:
    """GET registered-models/search."""
    fields = call.fields
    clauses, orders = MODELS.clauses(fields.text("filter")), MODELS.orders(fields.texts("order_by"))
    most, offset = fields.most(100, 1_000), fields.offset()
    found = [one for one in call.mlflow.registry.all() if one.fits(clauses)]
    found.sort(key=lambda one: one.name)
    for order in reversed(orders):
        _check_order(order.entity)
        found.sort(key=lambda one: _key(one.attribute(order.key)), reverse=order.is_descending)
    return paged("registered_models", [one.shown() for one in found], offset, most)


def latest_versions(call: Call) -> Answer:
    """GET and POST registered-models/get-latest-versions."""
    stages = [stage.lower() for stage in call.fields.texts("stages")]
    for stage in stages:
        if stage not in {word.lower() for word in STAGES}:
            raise invalid(f"Invalid Model Version stage: {stage:.80}. Value must be one of {', '.join(STAGES)}.")
    found = [one.shown() for one in _model(call).latest() if not stages or one.stage.lower() in stages]
    return {"model_versions": found} if found else {}


def set_model_tag(call: Call) -> Answer:
    """POST registered-models/set-tag."""
    found, (key, value) = _model(call), _tag(call.fields)
    with acting_as(call.principal.name):
        found.model.set_tags({key: value})
    return {}


def delete_model_tag(call: Call) -> Answer:
    """DELETE registered-models/delete-tag."""
    found, key = _model(call), _key_that_goes(call.fields)
    if key in found.tags:
        with acting_as(call.principal.name):
            found.model.remove_tags(key)
    return {}


def set_alias(call: Call) -> Answer:
    """POST registered-models/alias."""
    found, alias = _model(call), _alias(call.fields)
    one = found.version(call.fields.required("version"))
    with acting_as(call.principal.name):
        found.model.set_alias(own_alias(alias, one.stages), one.own.key)
    return {}


def delete_alias(call: Call) -> Answer:
    """DELETE registered-models/alias."""
    found, alias = _model(call), call.fields.required("alias")
    if not _ALIAS.fullmatch(alias):
        raise invalid(f"Invalid alias name: '{alias:.80}': use letters, digits, '_' and '-'")
    if alias in found.aliases:
        with acting_as(call.principal.name):
            found.model.remove_alias(own_alias(alias, found.model.state().stages))
    return {}


def get_alias(call: Call) -> Answer:
    """GET registered-models/alias."""
    found, alias = _model(call), call.fields.required("alias")
    if alias.lower() == "latest":
        if not found.versions:
            raise missing(f"The model {found.name:.200} has no version")
        return {"model_version": found.versions[max(found.versions)].shown()}
    if alias not in found.aliases:
        raise invalid(f"Registered model alias {alias} not found.")
    return {"model_version": found.versions[found.aliases[alias]].shown()}


# --- versions ---------------------------------------------------------------------------------------------------------


def create_version(call: Call) -> Answer:
    """POST model-versions/create."""
    fields, mlflow = call.fields, call.mlflow
    name, source, run_id, model_id = (
        fields.required("name"),
        fields.required("source"),
        fields.text("run_id"),
        fields.text("model_id"),
    )
    found = _model(call)
    folder = mlflow.run_folder(run_id)
    if folder is not None:
        mlflow.reach(call.principal, run_id)
    _check_source(source, run_id)
    model_id = model_id or (source.removeprefix("models:/") if source.startswith("models:/m-") else "")
    told = {SOURCE: source, RUN_ID: run_id, RUN_LINK: fields.text("run_link"), MODEL_ID: model_id}
    tags = {**_tags(fields), **{key: value for key, value in told.items() if value}}
    files = _files_at(call, source)
    manifest = describe_files(
        files.values(),
        run=RunInfo(folder) if folder is not None else None,
        metadata={"source": source},
    )
    with mlflow.registry.lock, acting_as(call.principal.name):
        made = register(
            mlflow.registry.models_for(run_id if folder is not None else ""),
            mlflow.workspace.blobs,
            manifest,
            Registration(found.model.name, tags=tags, notes=fields.text("description") or None),
        )
        found = mlflow.registry.get(name)
        one = next(one for one in found.versions.values() if one.own.key == made.key)
    model = mlflow.models.find(model_id) if model_id else None
    if model is not None:
        try:
            standing = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
        except ValueError:
            standing = []
        standing = [*(standing if isinstance(standing, list) else []), {"name": name, "version": one.number}]
        mlflow.models.change(model.id, tags={"mlflow.modelVersions": json.dumps(standing)})
    return {"model_version": one.shown()}


def update_version(call: Call) -> Answer:
    """PATCH model-versions/update."""
    found, one = _version(call)
    with acting_as(call.principal.name):
        found.model.set_notes(call.fields.text("description") or None, version=one.own.key)
    return {"model_version": _version(call)[1].shown()}


def transition(call: Call) -> Answer:
    """POST model-versions/transition-stage: it passes our gates."""
    stage, archives = call.fields.required("stage"), call.fields.flag("archive_existing_versions")
    if archives and stage.lower() in ("none", "archived"):
        raise invalid(f"'archive_existing_versions' cannot be set where versions come to {stage}")
    own = _model(call).own_stage(stage)
    found, one = _version(call)
    with acting_as(call.principal.name):
        call.mlflow.registry.move(found, one, own, archives=archives)
    return {"model_version": _version(call)[1].shown()}


def delete_version(call: Call) -> Answer:
    """DELETE model-versions/delete."""
    found, one = _version(call)
    with acting_as(call.principal.name):
        call.mlflow.registry.withdraw(found, one)
    return {}


def get_version(call: Call) -> Answer:
    """GET model-versions/get."""
    return {"model_version": _version(call)[1].shown()}


def search_versions(call: Call) -> Answer:
    """GET model-versions/search."""
    fields = call.fields
    clauses, orders = VERSIONS.clauses(fields.text("filter")), VERSIONS.orders(fields.texts("order_by"))
    most, offset = fields.most(10_000, 200_000), fields.offset()
    found = [one for model in call.mlflow.registry.all() for one in model.versions.values() if one.fits(clauses)]
    found.sort(key=lambda one: (-round(one.updated_s * 1000), one.name, -one.number))
    if orders:
        found.sort(key=lambda one: one.name)
    for order in reversed(orders):
        _check_order(order.entity)
        found.sort(key=lambda one: _key(one.attribute(order.key)), reverse=order.is_descending)
    return paged("model_versions", [one.shown() for one in found], offset, most)


def download_uri(call: Call) -> Answer:
    """GET model-versions/get-download-uri."""
    one = _origin(call, _version(call)[1])
    if one.source.startswith("models:/m-"):
        model = call.mlflow.models.get(one.source.removeprefix("models:/"))
        experiment = call.mlflow.experiments.of_project(model.project)
        return {"artifact_uri": f"{experiment.artifact_location}/models/{model.id}/artifacts"}
    return {"artifact_uri": one.source}


def _origin(call: Call, one: Version) -> Version:
    """Return the version of which another is a copy; of one that is none, itself."""
    seen: set[tuple[str, int]] = set()
    while (copied := _COPY.fullmatch(one.source)) is not None and (one.name, one.number) not in seen:
        seen.add((one.name, one.number))
        found = call.mlflow.registry.find(copied[1])
        if found is None or int(copied[2]) not in found.versions:
            break
        one = found.versions[int(copied[2])]
    return one


def set_version_tag(call: Call) -> Answer:
    """POST model-versions/set-tag."""
    (found, one), (key, value) = _version(call), _tag(call.fields)
    with acting_as(call.principal.name):
        found.model.set_tags({key: value}, version=one.own.key)
    return {}


def delete_version_tag(call: Call) -> Answer:
    """DELETE model-versions/delete-tag."""
    (found, one), key = _version(call), _key_that_goes(call.fields)
    if key in one.tags:
        with acting_as(call.principal.name):
            found.model.remove_tags(key, version=one.own.key)
    return {}


def read_artifact(call: Call) -> Response:
    """GET model-versions/get-artifact."""
    path = checked(call.fields.required("path"))
    one = _version(call)[1]
    entry = call.mlflow.registry.files(one).get(path)
    if entry is None:
        raise missing(f"No such artifact: '{path:.200}'")
    return sent_content(call.mlflow, entry, path, call.request.headers.get("range"))


# --- parts ------------------------------------------------------------------------------------------------------------


def _model(call: Call) -> Registered:
    return call.mlflow.registry.get(call.fields.required("name"))


def _version(call: Call) -> tuple[Registered, Version]:
    found = _model(call)
    text = (
        call.fields.required("version") if not call.fields.is_number("version") else str(call.fields.integer("version"))
    )
    return found, found.version(text)


def _tag(fields: Fields) -> tuple[str, str]:
    key, value = fields.key(), fields.text("value")
    if key.startswith(HIDDEN):
        raise invalid(f"Tags that begin with {HIDDEN!r} are the server's own; choose another name than {key!r:.80}")
    if len(value) > _MOST_TAG:
        raise invalid(f"'value' exceeds the maximum length of {_MOST_TAG} characters")
    return key, value


def _key_that_goes(fields: Fields) -> str:
    """Return the name of a tag to remove; one that is too long to be there is just not there."""
    key = fields.required("key")
    return key if len(key) > MOST_KEY else fields.key()


def _tags(fields: Fields) -> dict[str, str]:
    return dict(_tag(one) for one in fields.objects("tags"))


def _alias(fields: Fields) -> str:
    alias = fields.required("alias")
    is_taken = alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE)
    if not _ALIAS.fullmatch(alias) or is_taken:
        raise invalid(
            f"Invalid alias name: '{alias:.80}': use letters, digits, '_' and '-'; not 'latest', nor a version"
        )
    return alias


def _check_order(entity: str) -> None:
    if entity != "attribute":
        raise invalid("Models and versions can only be ordered by their attributes")


def _key(value: Any) -> tuple[int, Any]:
    return (1, "") if value is None else (0, value)


def _check_source(source: str, run_id: str) -> None:
    """Refuse a source that could lead elsewhere than it says."""
    scheme, separator, rest = source.partition(":")
    unfolded = unquote(unquote(rest))
    leads_up = ".." in re.split(r"[/\\]", unfolded) or "%2f" in rest.lower() or "\0" in unfolded
    if separator and scheme.lower() in ("mlflow-artifacts", "runs", "models"):
        if leads_up or "?" in rest:
            raise _leads_elsewhere(source)
        return
    if separator and _SCHEME.fullmatch(scheme) and scheme.lower() != "file":
        if leads_up or (scheme.lower() == "dbfs" and any(sign in rest for sign in "?#")):
            raise _leads_elsewhere(source)
        return
    raise invalid(
        f"Invalid model version source: '{source:.200}'. To use a local path as a model version source, the run_id "
        f"request parameter has to be specified and the local path has to be contained within the artifact directory "
        f"of the run ({run_id or 'none was named'})."
    )


def _leads_elsewhere(source: str) -> MlflowError:
    return invalid(
        f"Invalid model version source: '{source:.200}'. If supplying a source as an http, https, local file path, "
        "ftp, objectstore, or hdfs uri, an absolute path must be provided without relative path references"
    )


def _files_at(call: Call, source: str) -> dict[str, FileEntry]:
    """Return the files at a source, by their paths below it; none where they are not here."""
    scheme, _separator, rest = source.partition(":")
    place: Place | None = None
    path = ""
    if scheme == "models" and rest.startswith("/m-"):
        place = Place.of_model(call.mlflow, call.mlflow.models.get(rest[1:].partition("/")[0]))
    elif scheme == "models":
        name, _slash, number = rest.strip("/").rpartition("/")
        found = call.mlflow.registry.find(name)
        return dict(call.mlflow.registry.files(found.version(number))) if found is not None else {}
    elif scheme == "runs":
        run_id, _slash, path = rest.strip("/").partition("/")
        try:
            place = Place(call.mlflow, call.mlflow.reach(call.principal, run_id))
        except MlflowError:
            return {}  # of a run that is elsewhere, or gone: MLflow's servers do not look for it
    elif scheme == "mlflow-artifacts":
        path = re.sub(r"^//[^/]*", "", rest).strip("/") if rest.startswith("//") else rest.strip("/")
        place, path = find_place(call, checked(path), Role.VIEWER)
    if place is None:
        return {}
    before = f"{path}/" if path else ""
    files: dict[str, FileEntry] = {}
    for name, entry in place.files().items():
        if name == path:
            files[name.rpartition("/")[2]] = entry
        elif name.startswith(before):
            files[name.removeprefix(before)] = entry
    return {name: FileEntry(name, entry.hash, entry.size_bytes) for name, entry in files.items()}
