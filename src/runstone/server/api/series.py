"""`api/series`: what charts draw, as bytes."""

from __future__ import annotations

import gzip
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from runstone.errors import RunstoneError
from runstone.server.drawing import Drawn, Wish, drawn, packed
from runstone.server.errors import ApiError, of_domain, without_places
from runstone.server.roles import Principal, Role
from runstone.server.smoothing import Smoothing
from runstone.server.state import PrincipalOf, State, StateOf, access, reach_folder

MOST_SERIES = 500
_WORTH_PACKING = 2_000
_X = r"^(step|relative|process|time|metric:.{1,1024})$"
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Length of the head (u32, little end first), the head as JSON, padding to 8 bytes, the arrays.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
router = APIRouter(prefix="/api", tags=["series"])

Place = Annotated[float | None, Field(ge=-1e300, le=1e300)]


class SmoothingWish(BaseModel):
    """How the second, smoothed line is made."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["none", "ema", "mean", "gauss"] = "none"
    amount: float = Field(0.0, ge=0, le=1e6, description="ema: 0 to below 1; mean: points; gauss: sigma in points.")


class SeriesWish(BaseModel):
    """One series that a chart draws."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    run: str = Field(max_length=64)
    metric: str = Field(min_length=1, max_length=1024)
    x: str = Field("step", pattern=_X, description="step, relative, process, time, or metric:NAME.")
    low: Place = Field(None, alias="from", description="First place along x.")
    high: Place = Field(None, alias="to", description="Last place along x.")
    have: str = Field("", max_length=100, description="The `token` of the answer that the chart holds.")


class SeriesRequest(BaseModel):
    """What a chart, or several, draw."""

    model_config = ConfigDict(extra="forbid")
    series: list[SeriesWish] = Field(max_length=MOST_SERIES)
    buckets: int = Field(700, ge=1, le=10_000)
    smoothing: SmoothingWish = Field(default_factory=lambda: SmoothingWish(kind="none", amount=0.0))


@router.post("/series", response_class=Response, responses=_BINARY, openapi_extra=access(Role.VIEWER))
def post_series(
    wanted: SeriesRequest,
    state: StateOf,
    principal: PrincipalOf,
    accept_encoding: Annotated[str, Header(max_length=1_000)] = "",
) -> Response:
    """Return what charts draw of several series; a series that cannot be had says why in its own place."""
    smoothing = Smoothing(wanted.smoothing.kind, wanted.smoothing.amount)
    found: list[Drawn | None] = [None] * len(wanted.series)
    by_run: dict[str, list[int]] = {}
    for place, one in enumerate(wanted.series):
        by_run.setdefault(one.run, []).append(place)
    for run_id, places in by_run.items():
        wishes = [_wish(wanted.series[place], wanted.buckets, smoothing) for place in places]
        for place, drawing in zip(places, _of_run(state, principal, run_id, wishes), strict=True):
            found[place] = drawing
    return _answer(packed([one for one in found if one is not None]), accept_encoding)


@router.get("/runs/{run_id}/series", response_class=Response, responses=_BINARY, openapi_extra=access(Role.VIEWER))
def get_series(
    run_id: str,
    state: StateOf,
    principal: PrincipalOf,
    metric: Annotated[str, Query(min_length=1, max_length=1024)],
    x: Annotated[str, Query(pattern=_X)] = "step",
    low: Annotated[float | None, Query(alias="from", ge=-1e300, le=1e300)] = None,
    high: Annotated[float | None, Query(alias="to", ge=-1e300, le=1e300)] = None,
    buckets: Annotated[int, Query(ge=1, le=10_000)] = 700,
    smoothing: Literal["none", "ema", "mean", "gauss"] = "none",
    amount: Annotated[float, Query(ge=0, le=1e6)] = 0.0,
    have: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Return what a chart draws of one series."""
    wish = Wish(metric, x, low, high, buckets, have, Smoothing(smoothing, amount))
    return Response(packed(_of_run(state, principal, run_id, [wish])), media_type="application/octet-stream")


def _answer(data: bytes, accepted: str) -> Response:
    """Return bytes as an answer, packed where most of them are the head: that of many living series says much twice."""
    headers = {"Vary": "Accept-Encoding"}
    is_head_mostly = len(data) > _WORTH_PACKING and 2 * int.from_bytes(data[:4], "little") > len(data)
    if is_head_mostly and "gzip" in accepted.lower():
        data, headers = gzip.compress(data, 1), headers | {"Content-Encoding": "gzip"}
    return Response(data, media_type="application/octet-stream", headers=headers)


def _wish(one: SeriesWish, buckets: int, smoothing: Smoothing) -> Wish:
    return Wish(one.metric, one.x, one.low, one.high, buckets, one.have, smoothing)


def _of_run(state: State, principal: Principal, run_id: str, wishes: list[Wish]) -> list[Drawn]:
    """Return what is drawn of the series of one run, in the order asked for."""
    try:
        run = state.curves.open(reach_folder(state, principal, run_id))
    except ApiError as error:
        return [_failed(run_id, wish, error) for wish in wishes]
    except RunstoneError as error:  # damaged: the other runs of the chart are drawn all the same
        return [_failed(run_id, wish, of_domain(error)) for wish in wishes]
    found = []
    with run.lock:
        for place, wish in enumerate(wishes):
            try:
                if place == 0:
                    run.refresh()
                one = drawn(run, wish)
                found.append(Drawn({"run": run_id, "metric": wish.metric} | one.head, one.arrays))
            except RunstoneError as error:
                found.append(_failed(run_id, wish, of_domain(error)))
            except FileNotFoundError:  # deleted while it was read
                found.append(_failed(run_id, wish, ApiError("not_found", f"run {run_id} is gone")))
    return found


def _failed(run_id: str, wish: Wish, error: ApiError) -> Drawn:
    told = {"code": error.code, "message": without_places(error.message)}
    return Drawn({"run": run_id, "metric": wish.metric, "error": told, "points": 0, "shown": 0}, {})
