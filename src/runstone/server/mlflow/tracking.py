"""Experiments and runs: made, changed, found."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from runstone.errors import InvalidName, RunNotFound
from runstone.index.conditions import Attribute, Compare
from runstone.names import check_name, check_run_id, new_run_name
from runstone.runinfo import RunInfo
from runstone.server.jsons import dumps
from runstone.server.mlflow.asking import LARGEST_INT, Fields, paged, token_of
from runstone.server.mlflow.errors import MlflowError, invalid, missing
from runstone.server.mlflow.experiments import GRAMMAR, MOST_NAME, Experiment
from runstone.server.mlflow.searching import search_runs
from runstone.server.mlflow.service import Call, check_experiment_id, input_key, links_of, points_of
from runstone.server.mlflow.values import (
    END_TIME,
    HIDDEN,
    INPUTS,
    NAME_TAG,
    NOTE_TAG,
    OUTPUTS,
    PARENT_TAG,
    STATUS,
    STATUSES,
    TO_STATUS,
    USER,
    USER_TAG,
    Metric,
    shown_metric,
)
from runstone.server.mlflow.writers import Writer
from runstone.server.roles import Role

Answer = dict[str, Any]
_MOST_EXPERIMENTS = 50_000
_MOST_RUNS = 50_000
_MOST_POINTS = 25_000
_MOST_BULK_RUNS = 100
_MOST_INTERVAL = 2_500
_MOST_OF_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
_MOST_IN_ALL = 1000
_MOST_TAG, _MOST_PARAM, _MOST_EXPERIMENT_TAG = 8_000, 6_000, 20_000
_MOST_INPUT_KEY = 255
_VIEWS = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_OF_HISTORY = frozenset({"run_id", "artifact_path", "flavors", "utc_time_created"})
_HISTORY_TAG = "mlflow.log-model.history"
_LAST_MS = 253_402_300_800_000


# --- experiments ------------------------------------------------------------------------------------------------------


def create_experiment(call: Call) -> Answer:
    """POST experiments/create."""
    fields = call.fields
    name, location, tags = fields.required("name"), fields.text("artifact_location"), fields.tags()
    is_elsewhere = urlsplit(location).scheme not in ("", "file", "mlflow-artifacts")
    if "#" in location or (not is_elsewhere and ("?" in location or ".." in location.split("/"))):
        raise invalid(f"Invalid artifact location {location!r:.200}: no fragment, and no query or '..' here")
    if not call.principal.may(Role.CONTRIBUTOR, name):
        raise MlflowError("PERMISSION_DENIED", f"this needs the role 'contributor' in the project {name!r:.80}")
    call.mlflow.projects()
    _check_experiment_tags(tags)
    if location and not location.startswith("/") and not urlsplit(location).scheme:
        location = str(Path.cwd() / location)  # as MLflow's servers do, so that it means one place
    return {"experiment_id": call.mlflow.experiments.create(name, tags, location).id}


def get_experiment(call: Call) -> Answer:
    """GET experiments/get."""
    return {"experiment": call.experiment().shown()}


def get_experiment_by_name(call: Call) -> Answer:
    """GET experiments/get-by-name."""
    name = call.fields.required("experiment_name")
    found = call.mlflow.experiments.named(name)
    if found is None:
        call.mlflow.projects()
        found = call.mlflow.experiments.named(name)
    if found is None or not call.principal.may(Role.VIEWER, found.project):
        raise missing(f"Could not find experiment with name '{name:.200}'")
    return {"experiment": found.shown()}


def search_experiments(call: Call) -> Answer:
    """GET and POST experiments/search."""
    fields = call.fields
    most, offset, view = fields.most(0, _MOST_EXPERIMENTS, needs_it=True), fields.offset(), _view(fields, "view_type")
    clauses, orders = GRAMMAR.clauses(fields.text("filter")), GRAMMAR.orders(fields.texts("order_by"))
    if any(order.entity != "attribute" for order in orders):
        raise invalid("Experiments can only be ordered by their attributes")
    wanted = {"ACTIVE_ONLY": (False,), "DELETED_ONLY": (True,)}.get(view, (False, True))
    found = [
        one
        for one in call.mlflow.projects()
        if one.is_deleted in wanted and call.principal.may(Role.VIEWER, one.project) and one.fits(clauses)
    ]
    found.sort(key=lambda one: int(one.id), reverse=bool(orders))
    if not orders:
        found.sort(key=lambda one: -one.created_ms)
    for order in reversed(orders):
        found.sort(key=lambda one: _sortable(one.attribute(order.key)), reverse=order.is_descending)
    return paged("experiments", [one.shown() for one in found], offset, most)


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int) else (1, value)


def update_experiment(call: Call) -> Answer:
    """POST experiments/update."""
    one, name = call.experiment(Role.CONTRIBUTOR), call.fields.required("new_name")
    _check_active(one)
    try:
        check_name(name, "experiment")
    except InvalidName as error:
        raise invalid(f"Invalid experiment name: {error}") from None
    if len(name) > MOST_NAME:
        raise invalid(f"'name' exceeds the maximum length of {MOST_NAME} characters")
    call.mlflow.projects()
    try:
        call.mlflow.experiments.change(one.id, name=name)
    except MlflowError as error:
        raise MlflowError("BAD_REQUEST", error.message) from None
    return {}


def delete_experiment(call: Call) -> Answer:
    """POST experiments/delete: its runs are deleted with it."""
    return _set_deleted(call, value=True)


def restore_experiment(call: Call) -> Answer:
    """POST experiments/restore: its runs are restored with it."""
    return _set_deleted(call, value=False)


def _set_deleted(call: Call, *, value: bool) -> Answer:
    one = call.experiment(Role.MAINTAINER)
    if one.is_deleted is value:
        raise missing(f"No Experiment with id={one.id} exists")
    records, _total = call.mlflow.state.index.records(
        Compare(Attribute("project"), "=", one.project), deleted=not value, archived=None
    )
    for record in records:
        try:
            call.mlflow.workspace.edit([record.id], deleted=value)
        except RunNotFound:
            continue  # it went meanwhile
    call.mlflow.experiments.change(one.id, is_deleted=value)
    return {}


def set_experiment_tag(call: Call) -> Answer:
    """POST experiments/set-experiment-tag."""
    one, key, value = call.experiment(Role.CONTRIBUTOR), call.fields.key(), call.fields.text("value")
    _check_active(one)
    _check_experiment_tags({key: value})
    call.mlflow.experiments.change(one.id, tags={**one.tags, key: value})
    return {}


def delete_experiment_tag(call: Call) -> Answer:
    """POST experiments/delete-experiment-tag."""
    one, key = call.experiment(Role.CONTRIBUTOR), call.fields.required("key")
    _check_active(one)
    if key not in one.tags:
        raise missing(f"No tag with name: {key} in experiment with id {one.id}")
    call.mlflow.experiments.change(one.id, tags={name: text for name, text in one.tags.items() if name != key})
    return {}


def search_datasets(call: Call) -> Answer:
    """POST experiments/search-datasets."""
    ids = call.fields.texts("experiment_ids")
    if not ids:
        raise invalid("SearchDatasets request must specify at least one experiment_id.")
    if len(ids) > 20:
        raise invalid("SearchDatasets request cannot specify more than 20 experiment_ids.")
    found: dict[tuple[str, ...], Answer] = {}
    for experiment_id in ids:
        one = call.mlflow.experiment(call.principal, experiment_id)
        page = search_runs(
            call.mlflow, [one], filter="datasets.name LIKE '%'", order_by=[], view="ACTIVE_ONLY", window=slice(0, None)
        )
        for record in page.records:
            for told in call.mlflow.completed(record).dataset_inputs:
                summary = {
                    "experiment_id": one.id,
                    "name": told["dataset"]["name"],
                    "digest": told["dataset"]["digest"],
                }
                tags = {tag["key"]: tag["value"] for tag in told.get("tags", ())}
                if "mlflow.data.context" in tags:
                    summary["context"] = tags["mlflow.data.context"]
                found[tuple(summary.values())] = summary
    return {"dataset_summaries": list(found.values())} if found else {}


def _check_active(one: Experiment) -> None:
    if one.is_deleted:
        raise invalid(f"The experiment {one.id} must be in the 'active' state. Current state is deleted.")


def _check_experiment_tags(tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if len(value) > _MOST_EXPERIMENT_TAG:
            raise invalid(f"'{key}' exceeds the maximum length of {_MOST_EXPERIMENT_TAG} characters")


def _view(fields: Fields, name: str) -> str:
    word = fields.text(name, "ACTIVE_ONLY")
    return word if word in _VIEWS else "ACTIVE_ONLY"


# --- runs -------------------------------------------------------------------------------------------------------------


def create_run(call: Call) -> Answer:
    """POST runs/create."""
    fields = call.fields
    one = call.mlflow.experiment(call.principal, fields.text("experiment_id") or "0", Role.CONTRIBUTOR)
    _check_active(one)
    tags = _tags(fields)
    name, told = fields.text("run_name"), tags.pop(NAME_TAG, "")
    if name and told and name != told:
        raise invalid(
            f"Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{name:.80}', mlflow.runName='{told:.80}')."
        )
    start_ms = fields.integer("start_time", 0) or time.time_ns() // 1_000_000
    user = fields.text("user_id")
    if user and user != tags.get(USER_TAG):
        tags[USER] = user
    folder = call.mlflow.writers.create(
        project=one.project,
        name=_run_name(name or told or new_run_name()),
        parent=_parent(tags),
        started_s=min(max(0, start_ms), _LAST_MS - 1) / 1000,
        tags=tags,
    )
    return {"run": call.mlflow.shown_run(call.mlflow.seen(folder))}


def _parent(tags: dict[str, str]) -> str | None:
    try:
        return check_run_id(tags.get(PARENT_TAG))
    except InvalidName:
        return None


def _run_name(name: str) -> str:
    try:
        return check_name(name[:1000], "run")
    except InvalidName as error:
        raise invalid(str(error)) from None


def get_run(call: Call) -> Answer:
    """GET runs/get."""
    return {"run": call.mlflow.shown_run(call.mlflow.seen(call.run()))}


def update_run(call: Call) -> Answer:
    """POST runs/update."""
    fields = call.fields
    folder, word, name = call.run(Role.CONTRIBUTOR), fields.text("status"), fields.text("run_name")
    end_ms = fields.integer("end_time") if fields.has("end_time") else None
    with call.mlflow.writers.writing(folder) as writer:
        if name:
            _rename(writer, name)
        if writer.is_ours:
            _set_status(writer, word if word in STATUSES else "", end_ms)
    seen = call.mlflow.seen(folder)
    one = call.mlflow.experiments.of_project(seen.project)
    return {"run_info": seen.info(one.id, call.mlflow.root(one, seen.id))}


def _set_status(writer: Writer, word: str, end_ms: int | None) -> None:
    """Take in how a client says that its run stands. Of a run that a program writes itself, that program says it."""
    tags: dict[str, str] = {}
    gone = [STATUS] if word else []
    if end_ms is not None:
        tags[END_TIME] = str(end_ms)  # as told: a clock of another machine may be behind what was logged
    elif word in TO_STATUS:
        gone.append(END_TIME)
    if word == "SCHEDULED":
        tags[STATUS], gone = word, []
    writer.set_tags(tags, gone)
    if word in TO_STATUS:
        writer.end(TO_STATUS[word], end_ms / 1000 if end_ms is not None and 0 <= end_ms < _LAST_MS else None)
    elif word and not writer.journal.is_held:
        writer.go_on()


def delete_run(call: Call) -> Answer:
    """POST runs/delete."""
    return _delete(call, value=True)


def restore_run(call: Call) -> Answer:
    """POST runs/restore."""
    return _delete(call, value=False)


def _delete(call: Call, *, value: bool) -> Answer:
    folder = call.run(Role.MAINTAINER)
    with call.mlflow.writers.writing(folder, checks=False) as writer:
        if writer.journal.is_deleted is not value:
            writer.write("deleted" if value else "restored")
    return {}


def log_metric(call: Call) -> Answer:
    """POST runs/log-metric."""
    folder, one = call.run(Role.CONTRIBUTOR), _metric(call.fields)
    with call.mlflow.writers.writing(folder) as writer:
        writer.log_metrics([one])
    _note_of_model(call, folder.name, [(call.fields, one)])
    return {}


def log_param(call: Call) -> Answer:
    """POST runs/log-parameter."""
    folder, params = call.run(Role.CONTRIBUTOR), {call.fields.key(): call.fields.text("value")}
    with call.mlflow.writers.writing(folder) as writer:
        writer.log_params(writer.check_params(params))
    return {}


def set_tag(call: Call) -> Answer:
    """POST runs/set-tag."""
    folder, key, value = call.run(Role.CONTRIBUTOR), call.fields.key(), call.fields.text("value")
    _check_tag(key)
    with call.mlflow.writers.writing(folder) as writer:
        _set_tags(writer, {key: value})
    return {}


def delete_tag(call: Call) -> Answer:
    """POST runs/delete-tag."""
    folder, key = call.run(Role.CONTRIBUTOR), call.fields.required("key")
    with call.mlflow.writers.writing(folder) as writer:
        if key == NAME_TAG:
            return {}  # a run has a name for as long as there is the run
        if key not in writer.journal.tags or key.startswith(HIDDEN):
            raise missing(f"No tag with name: {key} in run with id {folder.name}")
        writer.set_tags({}, [key])
        if key == NOTE_TAG:
            writer.write("notes", value=None)
    return {}


def log_batch(call: Call) -> Answer:
    """POST runs/log-batch: all that is sent is checked before any of it is kept."""
    fields, folder = call.fields, _run_by_id(call)
    told = {name: len(fields.dicts(name)) for name in _MOST_OF_BATCH}
    for name, most in _MOST_OF_BATCH.items():
        if told[name] > most:
            raise invalid(
                f"A batch logging request can contain at most {most} {name}. Got {told[name]} {name}. "
                "Please split up them across multiple requests and try again."
            )
    if sum(told.values()) > _MOST_IN_ALL:
        raise invalid(f"A batch logging request can contain at most {_MOST_IN_ALL} metrics, params, and tags in all.")
    metrics, of_models = _batch_of_metrics(fields)
    params = [(one.key(), one.text("value")) for one in fields.objects("params")]
    if len({key for key, _value in params}) < len(params):
        raise invalid(f"Duplicate parameter keys have been submitted: {[key for key, _value in params]!r:.300}")
    tags = _tags(fields)
    with call.mlflow.writers.writing(folder) as writer:
        fresh = writer.check_params({key: value[:_MOST_PARAM] for key, value in params})
        writer.log_metrics(metrics)
        writer.log_params(fresh)
        _set_tags(writer, tags)
    _note_of_model(call, folder.name, of_models)
    return {}


def _run_by_id(call: Call) -> Path:
    """Return the folder of the run; what cannot be an id is wrong here, where elsewhere it is one that is not there."""
    run_id = call.fields.run_id()
    if _RUN_ID.fullmatch(run_id) is None:
        raise invalid(f"Invalid run ID: '{run_id:.80}'")
    return call.run(Role.CONTRIBUTOR)


def _batch_of_metrics(fields: Fields) -> tuple[list[Metric], list[tuple[Fields, Metric]]]:
    """Return the points of a batch; and those of them that name a logged model, with what is said of each."""
    found, of_models = [], []
    names: set[str] = set()
    new = tuple.__new__
    for number, one in enumerate(fields.dicts("metrics")):
        key, value, at_ms, step = one.get("key"), one.get("value"), one.get("timestamp"), one.get("step", 0)
        # A batch holds few names, many times each, and most often plain numbers: what needs no look is not looked at.
        if (
            value.__class__ is float
            and at_ms.__class__ is step.__class__ is int
            and key.__class__ is str
            and key in names
            and 0 <= at_ms < LARGEST_INT
            and -LARGEST_INT <= step < LARGEST_INT
            and "model_id" not in one
        ):
            found.append(new(Metric, (key, value, at_ms, step)))  # what the class does, without its own look
            continue
        told = Fields(one, f"metrics[{number}].")
        metric = _metric(told)
        names.add(metric.key)
        found.append(metric)
        if told.text("model_id"):
            of_models.append((told, metric))
    return found, of_models


def _metric(fields: Fields) -> Metric:
    key, value, at_ms = fields.key(), fields.number("value"), fields.integer("timestamp")
    if not at_ms >= 0:
        raise fields.wrong("timestamp", at_ms)
    return Metric(key, value, at_ms, fields.integer("step", 0))


def _note_of_model(call: Call, run_id: str, points: list[tuple[Fields, Metric]]) -> None:
    """Let models have the metrics that were logged with their id."""
    for fields, one in points:
        model_id = fields.text("model_id")
        if model_id:
            dataset = (fields.text("dataset_name"), fields.text("dataset_digest"))
            call.mlflow.models.add_metric(model_id, run_id, one, *dataset)


def _tags(fields: Fields) -> dict[str, str]:
    found = fields.tags()
    for key in found:
        _check_tag(key)
    return {key: value[:_MOST_TAG] for key, value in found.items()}


def _check_tag(key: str) -> None:
    if key.startswith(HIDDEN):
        raise invalid(f"Tags that begin with {HIDDEN!r} are the server's own; choose another name than {key!r:.80}")


def _set_tags(writer: Writer, tags: dict[str, str]) -> None:
    name = tags.get(NAME_TAG)
    if name is not None:
        _rename(writer, name)
    if NOTE_TAG in tags and writer.journal.notes != tags[NOTE_TAG]:
        writer.write("notes", value=tags[NOTE_TAG])
    writer.set_tags({key: value for key, value in tags.items() if key != NAME_TAG})


def _rename(writer: Writer, name: str) -> None:
    checked = _run_name(name)
    if writer.journal.name != checked:
        writer.write("name", value=checked)


def log_inputs(call: Call) -> Answer:
    """POST runs/log-inputs."""
    folder = _run_by_id(call)
    told: list[Answer] = []
    for one in call.fields.objects("datasets"):
        dataset = one.object("dataset")
        shown: Answer = {"name": dataset.required("name"), "digest": dataset.required("digest")}
        for name, most in (("name", 500), ("digest", 36)):
            if len(shown[name]) > most:
                raise invalid(f"'dataset.{name}' exceeds the maximum length of {most} characters")
        shown |= {"source_type": dataset.required("source_type"), "source": dataset.required("source")}
        shown |= {name: dataset.text(name) for name in ("schema", "profile") if dataset.has(name)}
        tags = [{"key": tag.required("key"), "value": tag.text("value")} for tag in one.objects("tags")]
        if any(len(tag["key"]) > _MOST_INPUT_KEY for tag in tags):
            raise invalid(f"'tags.key' of a dataset exceeds the maximum length of {_MOST_INPUT_KEY} characters")
        told.append({"dataset_input": {"tags": tags, "dataset": shown} if tags else {"dataset": shown}})
    told += [{"model_input": {"model_id": one.required("model_id")}} for one in call.fields.objects("models")]
    with call.mlflow.writers.writing(folder) as writer:
        known = writer.known_inputs(lambda of: {input_key(there) for there in links_of(of)[0]})
        for new in told:
            if input_key(new) in known:
                continue
            known.add(input_key(new))
            writer.tell("mlflow_input", input=new)
            _link(writer, new)
        if told:
            writer.set_tags({INPUTS: str(len(known))})
    return {}


def _link(writer: Writer, told: Answer) -> None:
    """Say of a dataset what a run says of those that it uses."""
    given = told.get("dataset_input")
    if given is None:
        return
    dataset = given["dataset"]
    contexts = [tag["value"] for tag in given.get("tags", ()) if tag["key"] == "mlflow.data.context"]
    role = contexts[0] if contexts else None
    writer.tell(
        "input",
        kind="dataset",
        name=dataset["name"],
        version=None,
        hash=None,
        role=role,
        source=dataset["source"][:2000],
    )


def log_outputs(call: Call) -> Answer:
    """POST runs/outputs."""
    folder = call.run(Role.CONTRIBUTOR)
    told = [
        {"model_id": one.required("model_id"), "step": one.integer("step", 0)} for one in call.fields.objects("models")
    ]
    with call.mlflow.writers.writing(folder) as writer:
        for one in told:
            writer.tell("mlflow_output", output=one)
        if told:
            writer.set_tags({OUTPUTS: "1"})
    return {}


def log_model_history(call: Call) -> Answer:
    """POST runs/log-model: what clients before MLflow 3 say of a model."""
    folder, text = call.run(Role.CONTRIBUTOR), call.fields.required("model_json")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(f"Malformed model info. Model JSON: {text!r:.200}") from None
    if not isinstance(told, dict) or not told.keys() >= _OF_HISTORY:
        raise invalid(f"Malformed model info. Model JSON: {text!r:.200}")
    flavors = told.pop("flavors")
    told = {**told, "model_uuid": told.get("model_uuid"), "flavors": flavors}
    with call.mlflow.writers.writing(folder) as writer:
        try:
            standing = json.loads(writer.journal.tags.get(_HISTORY_TAG, "[]"))
        except ValueError:
            standing = []
        writer.set_tags({_HISTORY_TAG: json.dumps([*(standing if isinstance(standing, list) else []), told])})
    return {}


def search(call: Call) -> Response:
    """POST runs/search."""
    fields = call.fields
    experiments = []
    most, offset, view = fields.most(1000, _MOST_RUNS), fields.offset(), _view(fields, "run_view_type")
    for experiment_id in fields.texts("experiment_ids"):
        one = call.mlflow.experiments.find(experiment_id)
        if one is None:
            check_experiment_id(experiment_id)
            call.mlflow.projects()
            one = call.mlflow.experiments.find(experiment_id)
        if one is not None and call.principal.may(Role.VIEWER, one.project):
            experiments.append(one)
    page = search_runs(
        call.mlflow,
        experiments,
        filter=fields.text("filter"),
        order_by=fields.texts("order_by"),
        view=view,
        window=slice(offset, offset + most),
    )
    parts = []
    if page.records:
        parts.append(b'"runs":[' + b",".join(map(call.mlflow.shown_record, page.records)) + b"]")
    if offset + most < page.total:
        parts.append(b'"next_page_token":' + dumps(token_of(offset + most)))
    return Response(b"{" + b",".join(parts) + b"}", media_type="application/json")


# --- history ----------------------------------------------------------------------------------------------------------


def metric_history(call: Call) -> Answer:
    """GET metrics/get-history."""
    fields = call.fields
    folder, key = call.run(), fields.required("metric_key")
    found = points_of(RunInfo(folder), key)
    most = fields.integer("max_results", len(found) or 1)
    if most < 1:
        raise fields.wrong("max_results", most)
    offset = fields.offset()
    answer = paged("metrics", found, offset, most)
    if "metrics" in answer:
        answer["metrics"] = [shown_metric(one) for one in answer["metrics"]]
    return answer


def metric_history_bulk(call: Call) -> Answer:
    """GET metrics/get-history-bulk."""
    fields = call.fields
    ids, key = fields.texts("run_id"), fields.text("metric_key")
    if not ids:
        raise invalid("GetMetricHistoryBulk request must specify at least one run_id.")
    if len(ids) > _MOST_BULK_RUNS:
        raise invalid(f"GetMetricHistoryBulk request cannot specify more than {_MOST_BULK_RUNS} run_ids.")
    if not key:
        raise invalid("GetMetricHistoryBulk request must specify a metric_key.")
    most = min(fields.most(_MOST_POINTS, 1 << 31), _MOST_POINTS)
    found: list[Answer] = []
    for run_id in sorted(set(ids)):
        folder = call.mlflow.reach(call.principal, run_id)
        found += [
            {**shown_metric(one), "run_id": run_id} for one in points_of(RunInfo(folder), key)[: most - len(found)]
        ]
        if len(found) >= most:
            break
    return {"metrics": found} if found else {}


def metric_history_interval(call: Call) -> Answer:
    """GET metrics/get-history-bulk-interval: some of the steps of each run, evenly, the first and the last always."""
    fields = call.fields
    ids = fields.texts("run_ids")
    if not ids:
        raise fields.absent("run_ids")
    key, most = fields.required("metric_key"), fields.integer("max_results", _MOST_INTERVAL)
    if not 0 < most <= _MOST_INTERVAL:
        raise invalid(f"max_results must be between 1 and {_MOST_INTERVAL}, not {most}")
    if len(ids) > _MOST_BULK_RUNS:
        raise invalid(f"GetMetricHistoryBulkInterval request must specify at most {_MOST_BULK_RUNS} run_ids.")
    if fields.has("start_step") != fields.has("end_step"):
        raise invalid("If either start step or end step are specified, both must be specified.")
    first = fields.integer("start_step") if fields.has("start_step") else -math.inf
    last = fields.integer("end_step") if fields.has("end_step") else math.inf
    if first > last:
        raise invalid(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
    by_run: dict[str, list[Metric]] = {}
    for run_id in sorted(set(ids)):
        points = points_of(RunInfo(call.mlflow.reach(call.principal, run_id)), key)
        by_run[run_id] = sorted(
            (one for one in points if first <= one.step <= last), key=lambda one: (one.step, one.timestamp_ms)
        )
    steps = sorted({one.step for points in by_run.values() for one in points})
    kept = {steps[number * len(steps) // most] for number in range(min(most, len(steps)))} if steps else set()
    if len(steps) <= most:
        kept = set(steps)
    kept |= {one.step for points in by_run.values() for one in (*points[:1], *points[-1:])}
    found = [
        {**shown_metric(one), "run_id": run_id}
        for run_id, points in by_run.items()
        for one in points
        if one.step in kept
    ]
    return {"metrics": found} if found else {}
