"""What else is known of one run: environment, console, patch, what was wrong with it."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from runstone.doctor import diagnose
from runstone.environments import as_used, changes_since_start, diff_environments, patch_files, recorded_patch
from runstone.server.api.models import Value
from runstone.server.errors import ApiError
from runstone.server.jsons import Json
from runstone.server.roles import Role
from runstone.server.state import PrincipalOf, StateOf, access, reach_run

router = APIRouter(prefix="/api/runs/{run_id}", tags=["runs"])
_LOOK = access(Role.VIEWER)
_PATCH_BYTES = 4 << 20
_MOST_LINES = 5_000


class Environment(BaseModel):
    """Where a run ran: as it was when it started, as it was used, and what changed between."""

    environment: dict[str, Value]
    as_used: dict[str, Value]
    changes_since_start: list[dict[str, Value]]


class EnvironmentDiff(BaseModel):
    """What differs between two environments, by group."""

    is_equal: bool
    groups: dict[str, Value]
    unknown: list[dict[str, Value]]


class LineOut(BaseModel):
    """One line that a run printed; `stream` 1: standard output, 2: standard error, 3: both, 0: not known."""

    n: int
    text: str
    at: float | None
    stream: int


class Console(BaseModel):
    """Lines that a run printed. `total` counts all of them, or those that a search found."""

    total: int
    lines: list[LineOut]


class Patch(BaseModel):
    """What was not committed."""

    patch: str
    is_cut: bool
    files: list[str]


class Diagnosis(BaseModel):
    """What was wrong with a run."""

    is_healthy: bool
    findings: list[dict[str, Value]]
    checked: list[str]
    not_checked: dict[str, str]


@router.get("/environment", response_model=Environment, openapi_extra=_LOOK)
def environment(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return the environment of a run."""
    info = reach_run(state, principal, run_id)
    snapshot = info.environment
    if snapshot is None:
        raise ApiError("not_found", f"no environment was recorded of run {info.name!r:.80}")
    return Json(
        {
            "environment": snapshot,
            "as_used": as_used(snapshot),
            "changes_since_start": list(changes_since_start(snapshot)),
        }
    )


@router.get("/environment/diff/{other_id}", response_model=EnvironmentDiff, openapi_extra=_LOOK)
def environment_diff(run_id: str, other_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return what differs between the environments of two runs, most likely to matter first."""
    runs = [reach_run(state, principal, one) for one in (run_id, other_id)]
    snapshots = [info.environment for info in runs]
    if snapshots[0] is None or snapshots[1] is None:
        lacking = runs[0] if snapshots[0] is None else runs[1]
        raise ApiError("not_found", f"no environment was recorded of run {lacking.name!r:.80}")
    left, right = (recorded_patch(info) for info in runs)
    return Json(diff_environments(snapshots[0], snapshots[1], left_patch=left, right_patch=right).to_dict())


@router.get("/console", response_model=Console, openapi_extra=_LOOK)
def console(
    run_id: str,
    state: StateOf,
    principal: PrincipalOf,
    from_line: Annotated[int, Query(ge=-_MOST_LINES, le=1 << 40, description="Negative: from the end.")] = 0,
    lines: Annotated[int, Query(ge=0, le=_MOST_LINES)] = 500,
    search: Annotated[str, Query(max_length=1_000, description="Only lines with this text, in any case.")] = "",
) -> Json:
    """Return lines that a run printed, all attempts one after the other."""
    info = reach_run(state, principal, run_id)
    found = enumerate(info.console())
    wanted = search.casefold()
    chosen: list[Any] = [(n, line) for n, line in found if not wanted or wanted in line.text.casefold()]
    start = from_line if from_line >= 0 else max(0, len(chosen) + from_line)
    window = itertools.islice(chosen, start, start + lines)
    rows = [{"n": n, "text": line.text, "at": line.at, "stream": line.stream} for n, line in window]
    return Json({"total": len(chosen), "lines": rows})


@router.get("/patch", response_model=Patch, openapi_extra=_LOOK)
def patch(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return what was not committed when a run was started."""
    info = reach_run(state, principal, run_id)
    found = recorded_patch(info)
    if found is None:
        raise ApiError("not_found", f"no patch was recorded of run {info.name!r:.80}: all was committed, or no git")
    text = found[:_PATCH_BYTES].decode("utf-8", "replace")
    return Json({"patch": text, "is_cut": len(found) > _PATCH_BYTES, "files": list(patch_files(found))})


@router.get("/doctor", response_model=Diagnosis, openapi_extra=_LOOK)
def doctor(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return what was wrong with a run, the worst first, each with its evidence."""
    return Json(diagnose(reach_run(state, principal, run_id)).to_dict())
