"""`api/reports`: Markdown with live blocks, as text, as a part of the page, or as one file."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from runstone.reports import Reports, StoredReport, render_fragment, render_page, title_of
from runstone.server.api.routing import NamedRoute
from runstone.server.files import SANDBOX, disposition
from runstone.server.jsons import Json
from runstone.server.roles import Role
from runstone.server.state import State, StateOf, access

router = APIRouter(prefix="/api", tags=["reports"], route_class=NamedRoute)
_LOOK = access(Role.VIEWER, "workspace")
_CHANGE = access(Role.CONTRIBUTOR, "workspace")
Text = Annotated[str, Field(max_length=500_000)]
Theme = Annotated[Literal["light", "dark", "css"], Query(description="Colours of figures; css: names of variables.")]


class ReportOut(BaseModel):
    """A report of the workspace."""

    name: str
    title: str
    created_at: float
    changed_at: float


class Listed(BaseModel):
    """All reports."""

    reports: list[ReportOut]


class Whole(ReportOut):
    """A report with its text, and as HTML to be put into a page: no script in it runs."""

    text: str
    html: str


class ReportIn(BaseModel):
    """The text of a report, Markdown."""

    model_config = ConfigDict(extra="forbid")
    text: Text


class Preview(BaseModel):
    """A text as HTML, not kept."""

    title: str
    html: str


@router.get("/reports", response_model=Listed, openapi_extra=_LOOK)
def reports(state: StateOf) -> Json:
    """Return all reports by name."""
    return Json({"reports": [_told(one) for one in _reports(state).list()]})


@router.post("/reports/preview", response_model=Preview, openapi_extra=_LOOK)
def preview(given: ReportIn, state: StateOf, theme: Theme = "light") -> Json:
    """Return a text as a report would show it."""
    html = render_fragment(state.workspace, given.text, theme=None if theme == "css" else theme)
    return Json({"title": title_of(given.text), "html": html})


@router.get("/reports/{name:path}/page", response_class=Response, openapi_extra=_LOOK)
def page(name: str, state: StateOf) -> Response:
    """Return a report as one HTML file that needs nothing beside it, to be saved."""
    report = _reports(state).get(name)
    text = render_page(state.workspace, report.read(), folder=report.path.parent)
    headers = {"Content-Disposition": disposition(f"{name}.html"), "Content-Security-Policy": SANDBOX}
    return Response(text, media_type="application/octet-stream", headers=headers)


@router.get("/reports/{name:path}", response_model=Whole, openapi_extra=_LOOK)
def report(name: str, state: StateOf, theme: Theme = "light") -> Json:
    """Return a report: its text, and what it shows now."""
    return Json(_whole(state, _reports(state).get(name), theme))


@router.put("/reports/{name:path}", response_model=Whole, openapi_extra=_CHANGE)
def save(name: str, given: ReportIn, state: StateOf, theme: Theme = "light") -> Json:
    """Keep the text of a report, in place of the one of its name."""
    found = _reports(state)
    is_there = any(one.name == name for one in found.list())
    kept = found.write(name, given.text) if is_there else found.create(name, given.text)
    return Json(_whole(state, kept, theme))


def _reports(state: State) -> Reports:
    return Reports(state.workspace.path)


def _told(report: StoredReport) -> dict[str, object]:
    return {
        "name": report.name,
        "title": title_of(report.read()) or report.name,
        "created_at": report.created_at,
        "changed_at": report.changed_at,
    }


def _whole(state: State, report: StoredReport, theme: str) -> dict[str, object]:
    text = report.read()
    colours = None if theme == "css" else theme
    html = render_fragment(state.workspace, text, theme=colours, folder=report.path.parent)
    return _told(report) | {"text": text, "html": html}
