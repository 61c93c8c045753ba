"""`api/monitoring`: how versions in use are doing, what checks found, and their reports."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from runstone.errors import NotFound
from runstone.ledger import acting_as
from runstone.monitoring.incidents import actions_of
from runstone.monitoring.pages import to_html
from runstone.monitoring.profile import Profile
from runstone.monitoring.records import checks_of, plain, read_report
from runstone.monitoring.standing import standings
from runstone.server.api.models import Value
from runstone.server.api.routing import NamedRoute
from runstone.server.jsons import Json
from runstone.server.references import against, references_of
from runstone.server.roles import Role
from runstone.server.state import PrincipalOf, State, StateOf, access

router = APIRouter(prefix="/api", tags=["monitoring"], route_class=NamedRoute)
_LOOK = access(Role.VIEWER, "workspace")
_DECIDE = access(Role.MAINTAINER, "workspace")
_PAGE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
Reference = Annotated[
    str,
    Query(max_length=1_024, description="Another version to compare with, or another check, for the batch of that."),
]
Last = Annotated[int, Query(ge=0, le=1_000, description="How many checks, the newest ones.")]


class Monitoring(BaseModel):
    """Versions in use with their newest checks, and all open incidents."""

    versions: list[dict[str, Value]]
    incidents: list[dict[str, Value]]


class ModelMonitoring(BaseModel):
    """One model: versions in use, checks, the oldest first, and all incidents with what was started for them."""

    model: str
    versions: list[dict[str, Value]]
    checks: list[dict[str, Value]]
    incidents: list[dict[str, Value]]


class ReportOut(BaseModel):
    """What a check found."""

    model_config = ConfigDict(extra="allow")
    verdict: str
    headline: str
    references: list[str]


class Closing(BaseModel):
    """Why an incident is over."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=1, max_length=100_000)


@router.get("/monitoring", response_model=Monitoring, openapi_extra=_LOOK)
def everything(state: StateOf, last: Last = 30) -> Json:
    """Return how all versions in use are doing."""
    states = [model.state() for model in state.workspace.models]
    incidents = [one for each in states for one in each.incidents.values() if one.is_open]
    found = standings(state.workspace, last=last)
    return Json(
        {
            "versions": [one.to_dict() for one in found],
            "incidents": [dataclasses.asdict(one) for one in incidents],
        }
    )


@router.get("/monitoring/{name:path}/reports/{report}", response_model=ReportOut, openapi_extra=_LOOK)
def report(name: str, report: str, state: StateOf, html: bool = False, reference: Reference = "") -> Response:
    """Return the report of a check, by its own reference or by that of another version; `html=1`: as a page."""
    return _answer(state, name, read_report(state.workspace.path, name, report), reference, is_page=html)


@router.get("/monitoring/{name:path}/incidents/{number}/report", response_model=ReportOut, openapi_extra=_LOOK)
def incident_report(name: str, number: int, state: StateOf, html: bool = False, reference: Reference = "") -> Response:
    """Return the report that an incident was opened with; otherwise as the report of a check."""
    one = state.workspace.models.get(name).state().incidents.get(number)
    if one is None or one.report_hash is None:
        raise NotFound(f"model {name!r:.80} has no incident #{number} with a report")
    found = json.loads(state.workspace.blobs.read(one.report_hash))
    if not isinstance(found, dict) or "reasons" not in found:
        raise NotFound(f"incident {one} was not opened by a check; it has another kind of report")
    return _answer(state, name, found, reference, is_page=html)


@router.post("/monitoring/{name:path}/incidents/{number}/close", response_model=ModelMonitoring, openapi_extra=_DECIDE)
def close(name: str, number: int, given: Closing, state: StateOf, principal: PrincipalOf) -> Json:
    """Close an incident by hand."""
    with acting_as(principal.name):
        state.workspace.models.get(name).close_incident(number, reason=given.reason)
    return Json(_model(state, name, 30))


@router.get("/monitoring/{name:path}/profile/{version}", response_model=dict[str, Value], openapi_extra=_LOOK)
def profile(name: str, version: str, state: StateOf) -> Json:
    """Return what the data of a version looked like, without the rows that were kept of it."""
    found = state.workspace.models.get(name).find(version)
    if found.profile_hash is None:
        raise NotFound(f"{found} has no profile")
    told = Profile.from_bytes(state.workspace.blobs.read(found.profile_hash)).to_dict()
    return Json({key: value for key, value in told.items() if key != "sample"})


@router.get("/monitoring/{name:path}", response_model=ModelMonitoring, openapi_extra=_LOOK)
def of_model(name: str, state: StateOf, last: Last = 100) -> Json:
    """Return how the versions of one model are doing, and what was found."""
    return Json(_model(state, name, last))


def _model(state: State, name: str, last: int) -> dict[str, Any]:
    path = state.workspace.path
    incidents = state.workspace.models.get(name).state().incidents.values()
    checks = checks_of(path, name)
    return {
        "model": name,
        "versions": [one.to_dict() for one in standings(state.workspace, name=name, last=last)],
        "checks": [one.to_dict() for one in (checks[-last:] if last else [])],
        "incidents": [dataclasses.asdict(one) | {"actions": actions_of(path, name, one.number)} for one in incidents],
    }


def _answer(state: State, name: str, found: dict[str, Any], reference: str, *, is_page: bool) -> Response:
    model = state.workspace.models.get(name)
    if reference:
        found = plain(against(state.workspace, found, reference))
    if is_page:
        return Response(to_html(found), media_type="text/html; charset=utf-8", headers=_PAGE)
    return Json(found | {"references": references_of(model)})
