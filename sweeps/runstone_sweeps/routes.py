"""Sweeps over HTTP, for the server and its page: what they found, as numbers and figures, and how they are steered.

The server finds `routes` by the entry point `sweeps` of the group `runstone.routes`, mounts it under `/api` and turns
`RunstoneError` into its answers. Numbers that JSON lacks are text: `"NaN"`, `"Infinity"`, `"-Infinity"`; times are
seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from runstone import Workspace
from runstone_sweeps.report.figures import KINDS, Figures
from runstone_sweeps.store.followed import Followed
from runstone_sweeps.web import steering
from runstone_sweeps.web.records import Records
from runstone_sweeps.web.tables import details, dumps, table

WorkspaceOf = Callable[[Request], Workspace]
_MOST_TRIALS = 100_000
# Who may stop a run may stop a sweep; what starts programs on the machine takes more.
_LOOKS = {"x-role": "viewer", "x-scope": "workspace"}
_STOPS = {"x-role": "contributor", "x-scope": "workspace"}
_STARTS_PROGRAMS = {"x-role": "maintainer", "x-scope": "workspace"}


class MoreTrials(BaseModel):
    """How many trials a sweep is to run beyond its budget."""

    add: int = Field(ge=1, le=_MOST_TRIALS)


def routes(workspace_of: WorkspaceOf) -> APIRouter:
    """Return the routes.

    Args:
        workspace_of: Returns the workspace that a request is about.
    """
    router = APIRouter(prefix="/sweeps", tags=["sweeps"])
    records, figures = Records(), Figures()

    def followed(request: Request, sweep_id: str) -> Followed:
        return records.of(workspace_of(request), sweep_id)

    @router.get("", openapi_extra=_LOOKS)
    def list_sweeps(request: Request) -> Response:
        """List the sweeps of the workspace, the newest first."""
        return _json({"sweeps": records.summaries(workspace_of(request))})

    @router.get("/{sweep_id}", openapi_extra=_LOOKS)
    def show_sweep(request: Request, sweep_id: str) -> Response:
        """Tell where a sweep stands: config, metrics, best trial, forecast, what it has used, failures by cause."""
        with followed(request, sweep_id) as sweep:
            return _json(details(sweep))

    @router.get("/{sweep_id}/trials", openapi_extra=_LOOKS)
    def list_trials(
        request: Request,
        sweep_id: str,
        after: int = Query(-1, ge=-1, description="`seq` of an earlier answer; if nothing is new, no table."),
    ) -> Response:
        """List all trials, in columns; texts are cut to 300 characters."""
        with followed(request, sweep_id) as sweep:
            return _json(table(sweep, after=after))

    @router.get("/{sweep_id}/figures/{kind}", openapi_extra=_LOOKS)
    def show_figure(
        request: Request,
        sweep_id: str,
        kind: str,
        metric: str | None = Query(None, max_length=1_000, description="Of several; default the first."),
        x: str | None = Query(None, max_length=1_000, description="Parameter along the contour."),
        y: str | None = Query(None, max_length=1_000, description="Parameter up the contour."),
    ) -> Response:
        with followed(request, sweep_id) as sweep:
            return _json(figures.draw(sweep, kind, metric=metric, x=x, y=y))

    show_figure.__doc__ = (
        "Draw a figure as Plotly JSON; a colour such as `--accent` is the name of one of the page's.\n\n"
        f"`kind` is one of {', '.join(KINDS)}."
    )

    @router.post("/{sweep_id}/stop", openapi_extra=_STOPS)
    def stop_sweep(request: Request, sweep_id: str) -> Response:
        """Stop a sweep as one Ctrl-C would: its trials are asked to stop, and it can be resumed."""
        return _json(steering.stop(followed(request, sweep_id).folder))

    @router.post("/{sweep_id}/resume", openapi_extra=_STARTS_PROGRAMS)
    def resume_sweep(request: Request, sweep_id: str) -> Response:
        """Lift the pause of a sweep, or go on with one that does not run, in a process of its own on the server."""
        return _json(steering.resume(workspace_of(request), followed(request, sweep_id).folder))

    @router.post("/{sweep_id}/trials", openapi_extra=_STARTS_PROGRAMS)
    def add_trials(request: Request, sweep_id: str, more: MoreTrials) -> Response:
        """Give a sweep a larger budget of trials; one that does not run spends it when it is resumed."""
        return _json(steering.add_trials(followed(request, sweep_id).folder, more.add))

    return router


def _json(told: Any) -> Response:
    return Response(dumps(told), media_type="application/json")
