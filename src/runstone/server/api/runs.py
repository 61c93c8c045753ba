"""`api/runs` and what lists of runs need: finding, showing, editing, stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from runstone.environments import recorded_patch
from runstone.errors import FormatError
from runstone.query import parse_filter
from runstone.runinfo import RunInfo
from runstone.runlog.writer import stop_word
from runstone.server.api import models
from runstone.server.errors import ApiError, without_places
from runstone.server.jsons import Json
from runstone.server.roles import Principal, Role
from runstone.server.state import PrincipalOf, State, StateOf, access, reach_folder, reach_run, visible_filter
from runstone.values import MetricSummary

MOST_RUNS = 20_000
MOST_COLUMNS = 500
router = APIRouter(prefix="/api", tags=["runs"])

Filter = Annotated[str, Query(max_length=10_000, description="In the filter language, see docs/filters.md.")]
Words = Annotated[list[str] | None, Query(max_length=MOST_COLUMNS)]
_LOOK = access(Role.VIEWER)
_CHANGE = access(Role.CONTRIBUTOR)
_REMOVE = access(Role.MAINTAINER)


class Edits(BaseModel):
    """What changes of a run; what is not named stays."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field("", max_length=1024)
    notes: str | None = Field(None, max_length=100_000)
    group: str | None = Field(None, max_length=1024)
    set_tags: dict[str, str] = Field({}, max_length=1_000)
    remove_tags: list[str] = Field([], max_length=1_000)
    pinned: bool = False
    archived: bool = False
    deleted: bool = False

    def given(self) -> dict[str, Any]:
        """Return what was named, as `Workspace.edit` takes it."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Undo(Edits):
    """What takes an edit of one run back."""

    run_id: str = Field(max_length=64)

    def given(self) -> dict[str, Any]:
        """Return the edits."""
        return {name: value for name, value in super().given().items() if name != "run_id"}


class Bulk(BaseModel):
    """An edit of many runs: those of `ids`, or those that a filter finds."""

    model_config = ConfigDict(extra="forbid")
    ids: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=MOST_RUNS)
    filter: str | None = Field(None, max_length=10_000)
    edits: Edits
    dry_run: bool = False


class UndoBulk(BaseModel):
    """What an edit answered with as its `undo`."""

    model_config = ConfigDict(extra="forbid")
    undo: list[Undo] = Field(max_length=MOST_RUNS)


class ChangeOut(BaseModel):
    """One thing that changed of one run."""

    run_id: str
    name: str
    project: str
    field: str
    before: Any
    after: Any


class Edited(BaseModel):
    """What an edit did, or would do."""

    count: int
    ids: list[str]
    changes: list[ChangeOut]
    undo: list[dict[str, Any]]
    dry_run: bool


class Stopped(BaseModel):
    """A run that was asked to stop."""

    id: str
    status: str
    stop_requested: str


@router.get("/projects", response_model=models.Projects, openapi_extra=_LOOK)
def projects(state: StateOf, principal: PrincipalOf) -> Json:
    """Return all projects that one may see, the one used last first."""
    found: dict[str, dict[str, Any]] = {}
    page = state.index.page_of_runs(
        visible_filter(principal, ""),
        archived=None,
        limit=10_000,
        group_by=("project", "status"),
        columns=("started_at",),
    )
    for group in page.groups:
        name, status = group.key
        one = found.setdefault(name, {"name": name, "runs": 0, "running": 0, "last_started_at": None})
        one["runs"] += group.runs
        one["running"] += group.runs if status == "running" else 0
        latest = group.columns["started_at"].max if "started_at" in group.columns else None
        one["last_started_at"] = max(filter(None, (one["last_started_at"], latest)), default=None)
    rows = sorted(found.values(), key=lambda one: one["last_started_at"] or 0.0, reverse=True)
    return Json({"projects": rows})


@router.get("/changes", response_model=models.Changes, openapi_extra=_LOOK)
def changes(state: StateOf, principal: PrincipalOf, cursor: Annotated[str, Query(max_length=400)] = "") -> Json:
    """Return what changed since a cursor: what a page that is open asks again and again."""
    runs_cursor, _, rest = cursor.partition("|")
    found = state.index.changes(runs_cursor)
    changed, removed = list(found.changed), list(found.removed)
    if principal.projects() is not None and changed:
        own = state.index.page_of_runs(visible_filter(principal, ""), archived=None, limit=MOST_RUNS).ids
        changed, removed = [one for one in changed if one in set(own)], []
    before = rest.split("|") if rest.count("|") == len(_LEDGERS) - 1 else [""] * len(_LEDGERS)
    now = [ledger_stamp(state, name) for name in _LEDGERS]
    differs = dict(zip(_LEDGERS, (old != new for old, new in zip(before, now, strict=True)), strict=True))
    return Json(
        {
            "cursor": "|".join([found.cursor, *now]),
            "runs": changed,
            "removed": removed,
            "is_complete": found.is_complete,
            "projects_changed": bool(changed or removed),
            "models_changed": differs["models"],
            "datasets_changed": differs["datasets"],
            "sweeps_changed": differs["sweeps"],
        }
    )


_LEDGERS = ("models", "datasets", "sweeps")


def ledger_stamp(state: State, folder: str) -> str:
    """Return a short text that differs when something in a folder of the workspace was written."""
    latest, count = 0, 0
    waiting = [(state.workspace.path / folder, 3)]
    while waiting:
        place, depth = waiting.pop()
        try:
            latest = max(latest, place.stat().st_mtime_ns)
            entries = list(place.iterdir()) if depth and place.is_dir() else []
        except OSError:
            continue
        count += len(entries)
        waiting += [(entry, depth - 1) for entry in entries if entry.suffix != ".partial"]
    return f"{latest:x}.{count:x}"


@router.get("/fields", response_model=models.Fields, openapi_extra=_LOOK)
def fields(
    state: StateOf,
    principal: PrincipalOf,
    filter: Filter = "",
    kind: Annotated[str | None, Query(pattern="^(metrics|params|tags|environment|attributes)$")] = None,
) -> Json:
    """Return the fields that the runs of a filter have values of."""
    parse_filter(filter)
    found = state.index.fields(visible_filter(principal, filter))
    rows = [
        {"name": one.name, "kind": one.kind, "type": one.type, "runs": one.runs}
        for one in found
        if kind in (None, one.kind)
    ]
    return Json({"fields": rows})


@router.get("/complete", response_model=models.Completions, openapi_extra=_LOOK)
def complete(
    state: StateOf, principal: PrincipalOf, filter: Filter = "", at: Annotated[int | None, Query(ge=0)] = None
) -> Json:
    """Return what may be written next in a filter at a place, the best first."""
    if principal.projects() is not None:
        return Json({"options": []})  # the words come from the runs of all projects
    place = len(filter) if at is None else min(at, len(filter))
    options = [
        {"start": one.start, "end": one.end, "text": one.text, "detail": one.detail}
        for one in state.index.complete(filter, place)
    ]
    return Json({"options": options})


@router.get("/runs", response_model=models.RunsPage, openapi_extra=_LOOK)
def runs(
    state: StateOf,
    principal: PrincipalOf,
    filter: Filter = "",
    order_by: Annotated[str | None, Query(max_length=2_000)] = None,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=0, le=MOST_RUNS)] = 200,
    columns: Words = None,
    group_by: Words = None,
    deleted: bool = False,
    archived: Annotated[str, Query(pattern="^(0|1|false|true|all)$", description="0: not; 1: only; all: both.")] = "0",
) -> Json:
    """Return a window of the runs that a filter finds, column by column; with `group_by`, groups of them."""
    parse_filter(filter)
    page = state.index.page_of_runs(
        visible_filter(principal, filter),
        order_by=order_by or None,
        offset=offset,
        limit=limit,
        columns=tuple(columns or ()),
        deleted=deleted,
        archived={"all": None, "1": True, "true": True}.get(archived, False),
        group_by=tuple(group_by or ()),
    )
    told: dict[str, Any] = {
        "total": page.total,
        "cursor": page.cursor,
        "ids": page.ids,
        "columns": page.columns,
        "troubles": [without_places(one) for one in page.troubles] if principal.projects() is None else [],
    }
    if group_by:
        told["groups"] = [
            {"key": list(group.key), "runs": group.runs, "columns": group.columns} for group in page.groups
        ]
    return Json(told)


@router.post("/runs/bulk", response_model=Edited, openapi_extra=_CHANGE)
def bulk(wanted: Bulk, state: StateOf, principal: PrincipalOf) -> Json:
    """Change many runs, or say what would change."""
    if (wanted.ids is None) == (wanted.filter is None):
        raise ApiError("invalid", "give either ids or a filter")
    chosen: str | list[str]
    if wanted.ids is not None:
        for run_id in wanted.ids:
            reach_folder(state, principal, run_id, _role_for(wanted.edits))
        chosen = wanted.ids
    else:
        parse_filter(wanted.filter or "")
        role = _role_for(wanted.edits)
        chosen = visible_filter(principal, wanted.filter or "")
        if not principal.may(role):
            found = state.index.page_of_runs(chosen, archived=None, limit=MOST_RUNS).ids
            chosen = [run_id for run_id in found if _reaches(state, principal, run_id, role)]
    edited = state.workspace.edit(chosen, dry_run=wanted.dry_run, **wanted.edits.given())
    return Json(_edited(edited))


@router.post("/runs/undo", response_model=Edited, openapi_extra=_CHANGE)
def undo(wanted: UndoBulk, state: StateOf, principal: PrincipalOf) -> Json:
    """Take an edit back: what it answered with as `undo`."""
    for one in wanted.undo:
        reach_folder(state, principal, one.run_id, _role_for(one))
    told: dict[str, Any] = {"count": 0, "ids": [], "changes": [], "undo": [], "dry_run": False}
    for one in wanted.undo:
        edited = _edited(state.workspace.edit([one.run_id], **one.given()))
        told = {name: told[name] + edited[name] if name != "dry_run" else False for name in told}
    return Json(told)


@router.get("/runs/{run_id}", response_model=models.RunOut, openapi_extra=_LOOK)
def run(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return everything of a run but its points."""
    return Json(run_as_dict(reach_run(state, principal, run_id)))


@router.patch("/runs/{run_id}", response_model=Edited, openapi_extra=_CHANGE)
def edit_run(run_id: str, edits: Edits, state: StateOf, principal: PrincipalOf) -> Json:
    """Change what is said of a run: name, notes, group, tags, pinned, archived, deleted."""
    reach_folder(state, principal, run_id, _role_for(edits))
    return Json(_edited(state.workspace.edit([run_id], **edits.given())))


@router.delete("/runs/{run_id}", response_model=Edited, openapi_extra=_REMOVE)
def delete_run(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Hide a run from lists; its files stay, and it can be restored."""
    reach_folder(state, principal, run_id, Role.MAINTAINER)
    return Json(_edited(state.workspace.edit([run_id], deleted=True)))


@router.post("/runs/{run_id}/restore", response_model=Edited, openapi_extra=_REMOVE)
def restore_run(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Show a deleted run again."""
    reach_folder(state, principal, run_id, Role.MAINTAINER)
    return Json(_edited(state.workspace.edit([run_id], deleted=False)))


@router.post("/runs/{run_id}/stop", response_model=Stopped, openapi_extra=_CHANGE)
def stop_run(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Ask a running run to stop: it ends as `stopped`, after what its framework saves then."""
    info = reach_run(state, principal, run_id, Role.CONTRIBUTOR)
    if info.status.is_ended:
        raise ApiError("conflict", f"run {info.name!r:.80} has ended already: {info.status.value}")
    state.workspace.request_stop(run_id)
    return Json({"id": run_id, "status": info.status.value, "stop_requested": stop_word(info.path) or "stop"})


def _role_for(edits: Edits) -> Role:
    return Role.MAINTAINER if "deleted" in edits.model_fields_set else Role.CONTRIBUTOR


def _reaches(state: State, principal: Principal, run_id: str, role: Role) -> bool:
    try:
        reach_folder(state, principal, run_id, role)
    except ApiError:
        return False
    return True


def _edited(edited: Any) -> dict[str, Any]:
    return {
        "count": len(edited.run_ids),
        "ids": list(edited.run_ids),
        "changes": [
            {
                "run_id": change.run_id,
                "name": change.name,
                "project": change.project,
                "field": change.field,
                "before": change.before,
                "after": change.after,
            }
            for change in edited.changes
        ],
        "undo": edited.undo(),
        "dry_run": edited.is_dry,
    }


def run_as_dict(info: RunInfo) -> dict[str, Any]:
    """Return a run as `RunOut` describes it; of one whose metrics cannot be read the warnings say so."""
    metrics: Mapping[str, MetricSummary] = {}
    records: list[str] = []
    with contextlib.suppress(FormatError):
        metrics, records = info.metrics, info.record_names
    return {
        "id": info.id,
        "name": info.name,
        "project": info.project,
        "group": info.group,
        "notes": info.notes,
        "parent": info.parent,
        "status": info.status.value,
        "failure": info.failure,
        "params": info.params,
        "flat_params": info.flat_params,
        "tags": info.tags,
        "artifacts": [
            {
                "name": artifact.name,
                "is_folder": artifact.is_folder,
                "size_bytes": artifact.size_bytes,
                "files": len(artifact.files),
                "metadata": artifact.metadata,
                "logged_at": artifact.logged_at,
            }
            for artifact in info.artifacts
        ],
        "attempts": list(info.attempts),
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "duration_s": info.duration_s,
        "metrics": metrics_as_dict(metrics),
        "records": records,
        "inputs": list(info.inputs),
        "outputs": list(info.outputs),
        "warnings": [without_places(one) for one in info.warnings],
        "alerts": list(info.alerts),
        "dropped": info.dropped,
        "consoles": sum(1 for _path in info.path.glob("console.*.log")),
        "has_environment": info.environment is not None,
        "has_patch": recorded_patch(info) is not None,
        "pinned": info.is_pinned,
        "archived": info.is_archived,
        "is_deleted": info.is_deleted,
        "stop_requested": stop_word(info.path),
    }


def metrics_as_dict(metrics: Mapping[str, MetricSummary]) -> dict[str, dict[str, Any]]:
    """Return what metrics come down to, by name."""
    return {
        name: {
            "last": one.last,
            "min": one.min,
            "min_step": one.min_step,
            "max": one.max,
            "max_step": one.max_step,
            "mean": one.mean,
            "count": one.count,
            "nan": one.nan_count,
            "first_step": one.first_step,
            "last_step": one.last_step,
            "last_at": one.last_at,
        }
        for name, one in metrics.items()
    }
