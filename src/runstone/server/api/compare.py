"""`api/compare` and `api/figures`: runs side by side, and the figures that show it. `api/views`: what was saved to see
again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from runstone import views
from runstone.comparison import Comparison, compare
from runstone.comparison.plotting import draw
from runstone.figures import Figure
from runstone.query import parse_filter
from runstone.server.api.models import Value
from runstone.server.api.routing import NamedRoute
from runstone.server.jsons import Json
from runstone.server.roles import Principal, Role
from runstone.server.state import PrincipalOf, State, StateOf, access, reach_run, visible_filter

MOST_COMPARED = 500
router = APIRouter(prefix="/api", tags=["compare"], route_class=NamedRoute)
_LOOK = access(Role.VIEWER)
_VIEWS = access(Role.VIEWER, "workspace")
_CHANGE = access(Role.CONTRIBUTOR, "workspace")
Word = Annotated[str, Field(max_length=10_000)]


class ComparisonWish(BaseModel):
    """Which runs are compared and how; see docs/compare.md."""

    model_config = ConfigDict(extra="forbid")
    run: list[Annotated[str, Field(max_length=64)]] = Field([], max_length=MOST_COMPARED)
    filter: str | None = Field(None, max_length=10_000, description="Instead of single runs: those that it finds.")
    order_by: str | None = Field(None, max_length=2_000)
    metrics: list[Word] = Field([], max_length=50, description="Such as val/acc.max.")
    at: str | None = Field(None, max_length=2_000)
    by: list[Word] = Field([], max_length=20, description="Fields to group by; `config`: all params but seeds.")
    goal: Literal["maximize", "minimize"] | None = None
    baseline: str | None = Field(None, max_length=10_000)
    confidence: float = Field(0.95, ge=0.5, lt=1)
    margin: float = Field(0.0, ge=0, le=1e300)
    test: Literal["t", "permutation"] = "t"
    correction: Literal["holm", "bh", "none"] = "holm"


class FigureWish(ComparisonWish):
    """A figure of a comparison."""

    metric: str | None = Field(None, max_length=2_000)
    theme: Literal["light", "dark"] = "light"


class FigureOut(BaseModel):
    """A figure as plotly takes it, or the reason why there is none."""

    title: str
    note: str
    reason: str
    height: int
    is_wide: bool
    data: list[Any]
    layout: dict[str, Value]


class ViewOut(BaseModel):
    """A saved view."""

    name: str
    filter: str = Field("", max_length=10_000)
    order_by: str = Field("", max_length=2_000)
    columns: list[Word] = Field([], max_length=500)
    group_by: list[Word] = Field([], max_length=20)
    charts: Value = []


class ViewIn(ViewOut):
    """What to save."""

    model_config = ConfigDict(extra="forbid")
    name: str = ""


class Views(BaseModel):
    """All saved views."""

    views: list[ViewOut]


@router.get("/compare", response_model=dict[str, Value], openapi_extra=_LOOK)
def get_comparison(wish: Annotated[ComparisonWish, Query()], state: StateOf, principal: PrincipalOf) -> Json:
    """Return runs side by side: what differs, how they did, which is better and how sure that is."""
    return Json(_compared(state, principal, wish).to_dict())


@router.get("/figures/{kind}", response_model=FigureOut, openapi_extra=_LOOK)
def get_figure(
    kind: Literal["curves", "groups", "spread", "parallel", "front"],
    wish: Annotated[FigureWish, Query()],
    state: StateOf,
    principal: PrincipalOf,
) -> Json:
    """Return a figure of a comparison."""
    return Json(figure_as_dict(draw(_compared(state, principal, wish), wish.metric, kind), wish.theme))


def figure_as_dict(figure: Figure, theme: str) -> dict[str, Any]:
    """Return a figure as `FigureOut` describes it."""
    told = {"title": figure.title, "note": figure.note, "reason": figure.reason}
    return told | {"height": figure.height, "is_wide": figure.is_wide} | figure.to_dict(theme)


def _compared(state: State, principal: Principal, wish: ComparisonWish) -> Comparison:
    if wish.filter is not None:
        parse_filter(wish.filter)
        runs: Any = state.index.find_runs(visible_filter(principal, wish.filter), limit=MOST_COMPARED)
    else:
        runs = [reach_run(state, principal, run_id) for run_id in wish.run]
    return compare(
        runs,
        order_by=wish.order_by,
        metrics=wish.metrics,
        at=wish.at,
        by=wish.by,
        goal=wish.goal,
        baseline=wish.baseline,
        confidence=wish.confidence,
        margin=wish.margin,
        test=wish.test,
        correction=wish.correction,
    )


@router.get("/views", response_model=Views, openapi_extra=_VIEWS)
def list_views(state: StateOf) -> Json:
    """Return all saved views by name."""
    return Json({"views": [view.to_dict() for view in views.list_views(state.workspace.path)]})


@router.get("/views/{name:path}", response_model=ViewOut, openapi_extra=_VIEWS)
def load_view(name: str, state: StateOf) -> Json:
    """Return a saved view."""
    return Json(views.load(state.workspace.path, name).to_dict())


@router.put("/views/{name:path}", response_model=ViewOut, openapi_extra=_CHANGE)
def save_view(name: str, given: ViewIn, state: StateOf) -> Json:
    """Save a view, in place of the one of its name."""
    view = views.View.from_dict(given.model_dump() | {"name": name})
    views.save(state.workspace.path, view)
    return Json(view.to_dict())


@router.delete("/views/{name:path}", response_model=ViewOut, openapi_extra=_CHANGE)
def delete_view(name: str, state: StateOf) -> Json:
    """Remove a saved view; the answer holds it, so that it can be saved again."""
    return Json(views.delete(state.workspace.path, name).to_dict())
