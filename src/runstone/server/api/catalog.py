"""`api/datasets`, `api/models`, `api/lineage`: what belongs to the workspace as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from runstone.datasets.diff import diff
from runstone.errors import InvalidValue
from runstone.ledger import acting_as
from runstone.models import read_manifest
from runstone.models.card import card_of
from runstone.models.comparing import compare_versions
from runstone.models.promotion import promote
from runstone.models.shapes import version_as_dict
from runstone.server.api import shapes
from runstone.server.api.models import Value
from runstone.server.api.routing import NamedRoute
from runstone.server.jsons import Json
from runstone.server.roles import Role
from runstone.server.state import PrincipalOf, State, StateOf, access

router = APIRouter(prefix="/api", tags=["catalog"], route_class=NamedRoute)
_LOOK = access(Role.VIEWER, "workspace")
_CHANGE = access(Role.CONTRIBUTOR, "workspace")
_DECIDE = access(Role.MAINTAINER, "workspace")
_MOST_FILES = 10_000
Text = Annotated[str, Field(max_length=100_000)]
Selector = Annotated[str, Query(max_length=200, description="A number, an alias, a stage, or `latest`.")]


class Datasets(BaseModel):
    """All datasets."""

    datasets: list[dict[str, Value]]


class Models(BaseModel):
    """All models."""

    models: list[dict[str, Value]]


class WithHistory(BaseModel):
    """One dataset or model: what stands, its versions, newest first, and all that ever happened, oldest first."""

    model_config = ConfigDict(extra="allow")
    name: str
    versions: list[dict[str, Value]]
    history: list[dict[str, Value]]


class Answer(BaseModel):
    """What was asked for."""

    model_config = ConfigDict(extra="allow")


class Card(BaseModel):
    """A model card, as Markdown and part by part."""

    markdown: str
    notes: list[str]
    warnings: list[str]
    tables: list[dict[str, Value]]


class LineageOut(BaseModel):
    """Nodes, and edges as source, target, role, relation."""

    root: str
    nodes: list[dict[str, Value]]
    edges: list[tuple[str, str, str | None, str]]


class Judgement(BaseModel):
    """Why, for the history."""

    model_config = ConfigDict(extra="forbid")
    reason: Text | None = None


class AliasEdit(BaseModel):
    """An alias to point to the version, or to remove."""

    model_config = ConfigDict(extra="forbid")
    alias: str = Field(max_length=255)
    remove: bool = False


class StageEdit(BaseModel):
    """A stage to move the version to; the gates are asked."""

    model_config = ConfigDict(extra="forbid")
    stage: str = Field(max_length=1024)
    reason: Text | None = None
    keep_others: bool = False
    dry_run: bool = False


class TagsEdit(BaseModel):
    """Tags and notes of a version to change; what is not named stays."""

    model_config = ConfigDict(extra="forbid")
    set: dict[str, Text] = {}
    remove: list[str] = []
    notes: Text | None = None


class Rollback(BaseModel):
    """A stage in which the version before is to stand again."""

    model_config = ConfigDict(extra="forbid")
    stage: str = Field(max_length=1024)
    reason: str = Field(min_length=1, max_length=100_000)


# --- datasets -------------------------------------------------------------------------------------------------------


@router.get("/datasets", response_model=Datasets, openapi_extra=_LOOK)
def datasets(state: StateOf) -> Json:
    """Return all datasets with their latest versions."""
    return Json({"datasets": [shapes.dataset_as_dict(one) for one in state.workspace.datasets]})


@router.get("/datasets/{name:path}/versions/{version}", response_model=Answer, openapi_extra=_LOOK)
def dataset_version(
    name: str,
    version: str,
    state: StateOf,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=_MOST_FILES)] = 1_000,
) -> Json:
    """Return a version with a window of its files, its schema and the profile of its first table."""
    found = state.workspace.datasets.get(name).find(version)
    files = found.files
    return Json(
        shapes.dataset_version_as_dict(found)
        | {
            "schema": found.schema,
            "profile": found.profile,
            "tables": found.tables,
            "tree": [shapes.tree_file_as_dict(one) for one in files[offset : offset + limit]],
            "tree_total": len(files),
        }
    )


@router.get("/datasets/{name:path}/diff", response_model=Answer, openapi_extra=_LOOK)
def dataset_diff(
    name: str,
    state: StateOf,
    a: Selector,
    b: Selector,
    rows: bool = False,
    samples: Annotated[int, Query(ge=0, le=100)] = 5,
    limit: Annotated[int, Query(ge=0, le=_MOST_FILES)] = 500,
) -> Json:
    """Return what two versions have apart: files, columns, and where asked for rows."""
    dataset = state.workspace.datasets.get(name)
    found = diff(dataset.find(a), dataset.find(b), rows=rows, samples=samples)
    return Json({"a": str(dataset.find(a)), "b": str(dataset.find(b))} | shapes.difference_as_dict(found, limit))


@router.get("/datasets/{name:path}/profile", response_model=Answer, openapi_extra=_LOOK)
def dataset_profile(name: str, state: StateOf, version: Selector = "latest") -> Json:
    """Return what the values of each column are."""
    found = state.workspace.datasets.get(name).find(version)
    return Json({"version": str(found), "schema": found.schema, "columns": found.profile, "tables": found.tables})


@router.get("/datasets/{name:path}", response_model=WithHistory, openapi_extra=_LOOK)
def dataset(name: str, state: StateOf) -> Json:
    """Return a dataset with all of its versions, and its history."""
    found = state.workspace.datasets.get(name)
    return Json(
        shapes.dataset_as_dict(found)
        | {
            "versions": [shapes.dataset_version_as_dict(one) for one in found.versions()],
            "history": [shapes.event_as_dict(event) for event in found.history()],
        }
    )


# --- models ---------------------------------------------------------------------------------------------------------


@router.get("/models", response_model=Models, openapi_extra=_LOOK)
def models(state: StateOf) -> Json:
    """Return all models with what stands in their stages."""
    return Json({"models": [shapes.model_as_dict(one) for one in state.workspace.models]})


@router.get("/models/{name:path}/versions/{version}", response_model=Answer, openapi_extra=_LOOK)
def model_version(name: str, version: str, state: StateOf) -> Json:
    """Return a version with what it consists of."""
    found = state.workspace.models.get(name).find(version)
    manifest = read_manifest(found, state.workspace.blobs)
    return Json(version_as_dict(found) | {"manifest": manifest})


@router.get("/models/{name:path}/versions/{version}/card", response_model=Card, openapi_extra=_LOOK)
def model_card(name: str, version: str, state: StateOf) -> Json:
    """Return the card of a version."""
    card = card_of(state.workspace, _ref(state, name, version))
    tables = [
        {"title": one.title, "heads": list(one.heads), "rows": [list(row) for row in one.rows], "note": one.note}
        for one in card.tables
    ]
    return Json({"markdown": card.to_markdown(), "notes": card.notes, "warnings": card.warnings, "tables": tables})


@router.get("/models/{name:path}/compare", response_model=Answer, openapi_extra=_LOOK)
def model_compare(name: str, state: StateOf, a: Selector, b: Selector) -> Json:
    """Return what differs between two versions."""
    return Json(compare_versions(state.workspace, _ref(state, name, a), _ref(state, name, b)).to_dict())


@router.get("/models/{name:path}", response_model=WithHistory, openapi_extra=_LOOK)
def model(name: str, state: StateOf) -> Json:
    """Return a model with all of its versions, and its history."""
    return Json(_model(state, name))


@router.post("/models/{name:path}/versions/{version}/{word}", response_model=WithHistory, openapi_extra=_DECIDE)
def judge(
    name: str,
    version: str,
    word: Literal["approve", "reject", "reopen"],
    given: Judgement,
    state: StateOf,
    principal: PrincipalOf,
) -> Json:
    """Approve or reject a version, or open the question again; the history says who did."""
    found = state.workspace.models.get(name)
    key = found.find(version).key
    with acting_as(principal.name):
        found.judge(
            key,
            {"approve": "approved", "reject": "rejected", "reopen": "pending"}[word],  # type: ignore[arg-type]
            reason=given.reason,
        )
    return Json(_model(state, name))


@router.put("/models/{name:path}/versions/{version}/alias", response_model=WithHistory, openapi_extra=_DECIDE)
def alias(name: str, version: str, given: AliasEdit, state: StateOf, principal: PrincipalOf) -> Json:
    """Point an alias to a version, or remove it."""
    found = state.workspace.models.get(name)
    key = found.find(version).key
    with acting_as(principal.name):
        if given.remove:
            found.remove_alias(given.alias)
        else:
            found.set_alias(given.alias, key)
    return Json(_model(state, name))


@router.put("/models/{name:path}/versions/{version}/tags", response_model=WithHistory, openapi_extra=_CHANGE)
def tags(name: str, version: str, given: TagsEdit, state: StateOf, principal: PrincipalOf) -> Json:
    """Change tags and notes of a version."""
    found = state.workspace.models.get(name)
    key = found.find(version).key
    with acting_as(principal.name):
        if given.set:
            found.set_tags(given.set, version=key)
        if given.remove:
            found.remove_tags(*given.remove, version=key)
        if "notes" in given.model_fields_set:
            found.set_notes(given.notes, version=key)
    return Json(_model(state, name))


@router.put("/models/{name:path}/versions/{version}/stage", response_model=Answer, openapi_extra=_DECIDE)
def stage(name: str, version: str, given: StageEdit, state: StateOf, principal: PrincipalOf) -> Json:
    """Move a version into a stage if all gates hold; the answer says what each of them found."""
    with acting_as(principal.name):
        found = promote(
            state.workspace,
            _ref(state, name, version),
            given.stage,
            reason=given.reason,
            keeps_others=given.keep_others,
            is_dry=given.dry_run,
        )
    return Json(found.to_dict() | {"headline": found.headline})


@router.post("/models/{name:path}/rollback", response_model=WithHistory, openapi_extra=_DECIDE)
def rollback(name: str, given: Rollback, state: StateOf, principal: PrincipalOf) -> Json:
    """Bring the version back that was in a stage before the one that is there now."""
    with acting_as(principal.name):
        state.workspace.models.get(name).roll_back(given.stage, reason=given.reason)
    return Json(_model(state, name))


# --- lineage --------------------------------------------------------------------------------------------------------


@router.get("/lineage", response_model=LineageOut, openapi_extra=_LOOK)
def lineage(
    state: StateOf,
    ref: Annotated[str, Query(max_length=2_000, description="A run, `model:NAME@V`, `dataset:NAME@V`, a hash.")],
    direction: Literal["both", "up", "down"] = "both",
    depth: Annotated[int | None, Query(ge=0, le=1_000)] = None,
) -> Json:
    """Return what a thing came of and what came of it."""
    found = state.workspace.lineage(ref, up=direction != "down", down=direction != "up", depth=depth)
    return Json(shapes.lineage_as_dict(found))


def _model(state: State, name: str) -> dict[str, Any]:
    found = state.workspace.models.get(name)
    return shapes.model_as_dict(found) | {
        "versions": [version_as_dict(one) for one in found.versions()],
        "history": [shapes.event_as_dict(event) for event in found.history()],
    }


def _ref(state: State, name: str, selector: str) -> str:
    """Return the reference of a version that stands now.

    Raises:
        ModelNotFound: there is no such model or version.
        InvalidValue: it names a time.
    """
    if "?" in selector:
        raise InvalidValue(f"{selector!r:.80} names a time; only what stands now is meant here")
    found = state.workspace.models.get(name).find(selector)
    return str(found)
