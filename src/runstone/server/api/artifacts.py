"""`api/runs/{id}/artifacts` and `…/records`: what a run made, as lists, previews and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from runstone.runinfo import RunInfo
from runstone.server.api.models import Value
from runstone.server.api.routing import NamedRoute
from runstone.server.errors import ApiError
from runstone.server.files import SANDBOX, check_path, disposition, sent
from runstone.server.jsons import Json
from runstone.server.previews import preview
from runstone.server.roles import Principal, Role
from runstone.server.state import PrincipalOf, State, StateOf, access, may_read_content, reach_run
from runstone.server.zips import zipped
from runstone.values import Artifact, FileEntry, Record

router = APIRouter(prefix="/api/runs/{run_id}", tags=["artifacts"], route_class=NamedRoute)
_LOOK = access(Role.VIEWER)
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_ENDINGS = {"plotly.json": "json", "parquet": "parquet"}
Path = Annotated[str, Query(max_length=8_192, description="Path inside the artifact; not needed for a single file.")]
Step = Annotated[int, Query(ge=-(1 << 62), le=1 << 62)]


class FileOut(BaseModel):
    """One file of an artifact."""

    path: str
    size_bytes: int
    hash: str
    is_here: bool


class ArtifactFiles(BaseModel):
    """An artifact with its files."""

    name: str
    is_folder: bool
    size_bytes: int
    logged_at: float
    metadata: dict[str, Value]
    files: list[FileOut]


class RecordOut(BaseModel):
    """A medium or text at a step; `index` counts those of the same step."""

    step: int
    index: int
    at: float
    kind: str
    format: str | None
    size_bytes: int
    hash: str | None
    text: str | None
    metadata: dict[str, Value]
    is_here: bool


class MediumOut(BaseModel):
    """A name with its steps: in spans of the first step, the distance to the next, and how many there are."""

    name: str
    count: int
    spans: list[tuple[int, int, int]]


class MediaOut(BaseModel):
    """All media and texts of a run."""

    media: list[MediumOut]


class Records(BaseModel):
    """Media of one name."""

    name: str
    names: list[str]
    steps: list[int]
    total: int
    records: list[RecordOut]


@router.get("/media", response_model=MediaOut, openapi_extra=_LOOK)
def media(run_id: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return which media and texts a run has and at which steps, but nothing of their content."""
    info = reach_run(state, principal, run_id)
    found = [(name, info.record_steps(name)) for name in info.record_names]
    return Json({"media": [{"name": name, "count": len(steps), "spans": spans(steps)} for name, steps in found]})


@router.get("/records", response_model=Records, openapi_extra=_LOOK)
def records(
    run_id: str,
    state: StateOf,
    principal: PrincipalOf,
    name: Annotated[str | None, Query(max_length=1024)] = None,
    from_step: Step = -(1 << 62),
    to_step: Step = 1 << 62,
    limit: Annotated[int, Query(ge=0, le=1_000)] = 50,
    steps: Annotated[bool, Query(description="Whether all steps of the name are told.")] = True,
) -> Json:
    """Return the media and texts of one name by step; without a name, which names there are."""
    info = reach_run(state, principal, run_id)
    window = _numbered(info, name, from_step, to_step) if name is not None else []
    is_theirs, blobs = readable_contents(state, principal, info), state.workspace.blobs
    return Json(
        {
            "name": name or "",
            "names": info.record_names,
            "steps": info.record_steps(name) if name is not None and steps else [],
            "total": len(window),
            "records": [
                _record(index, one, is_here=lambda content: is_theirs(content) and blobs.may_have(content))
                for index, one in window[:limit]
            ],
        }
    )


@router.get("/records/{name:path}/{step}/{index}", response_class=Response, responses=_BYTES, openapi_extra=_LOOK)
def record(
    run_id: str,
    name: str,
    step: int,
    index: int,
    state: StateOf,
    principal: PrincipalOf,
    table: Annotated[bool, Query(description="A table as JSON: {columns, rows}.")] = False,
    range: Annotated[str | None, Header(max_length=1_000)] = None,
) -> Response:
    """Return the bytes of one medium."""
    info = reach_run(state, principal, run_id)
    one = next((one for place, one in _numbered(info, name, step, step) if place == index), None)
    if one is None:
        raise ApiError("not_found", f"{info.name!r:.80} has no {name!r:.80} number {index} at step {step}")
    if one.text is not None or one.hash is None:
        headers = {"Content-Security-Policy": SANDBOX, "Content-Disposition": disposition("text.txt")}
        return Response(one.text or "", media_type="text/plain", headers=headers)
    if not readable_contents(state, principal, info)(one.hash):
        raise ApiError("not_found", f"the content of {name!r:.80} at step {step} is not here")
    ending = _ENDINGS.get(one.format or "", one.format or "bin")
    if table or ending == "json":
        file, size = state.contents.open(one.hash)
        with file:
            return Json(preview(file, f"x.{ending}", size))
    return sent(state.contents, one.hash, f"{name.rpartition('/')[2]}-{step}.{ending}", range_header=range)


@router.get("/artifacts/{name:path}/file", response_class=Response, responses=_BYTES, openapi_extra=_LOOK)
def artifact_file(
    run_id: str,
    name: str,
    state: StateOf,
    principal: PrincipalOf,
    path: Path | None = None,
    range: Annotated[str | None, Header(max_length=100_000)] = None,
) -> Response:
    """Return the bytes of one file, to be saved."""
    info = reach_run(state, principal, run_id)
    entry = _file(_artifact(info, name), path)
    _check_readable(state, principal, info, entry)
    return sent(state.contents, entry.hash, entry.path, range_header=range)


@router.get("/artifacts/{name:path}/preview", response_model=dict[str, Value], openapi_extra=_LOOK)
def artifact_preview(run_id: str, name: str, state: StateOf, principal: PrincipalOf, path: Path | None = None) -> Json:
    """Return what can be shown of one file: text, rows, the size of a picture, tensors."""
    info = reach_run(state, principal, run_id)
    entry = _file(_artifact(info, name), path)
    _check_readable(state, principal, info, entry)
    file, size = state.contents.open(entry.hash)
    with file:
        return Json(preview(file, entry.path, size))


@router.get("/artifacts/{name:path}/zip", response_class=Response, responses=_BYTES, openapi_extra=_LOOK)
def artifact_zip(run_id: str, name: str, state: StateOf, principal: PrincipalOf) -> Response:
    """Return all files of an artifact in one ZIP file, not compressed."""
    info = reach_run(state, principal, run_id)
    artifact, is_theirs = _artifact(info, name), readable_contents(state, principal, info)
    theirs = [one.hash for one in artifact.files if is_theirs(one.hash)]
    sure = set(theirs) - state.workspace.blobs.lacking(theirs)
    lacking = [one.path for one in artifact.files if one.hash not in sure]
    if lacking:
        raise ApiError("not_found", f"{len(lacking)} files of {name!r:.80} are not here, such as {lacking[0]!r:.80}")
    headers = {"Content-Disposition": disposition(f"{name}.zip"), "Content-Security-Policy": SANDBOX}
    return StreamingResponse(zipped(state.contents, artifact.files), media_type="application/zip", headers=headers)


@router.get("/artifacts/{name:path}", response_model=ArtifactFiles, openapi_extra=_LOOK)
def artifact(run_id: str, name: str, state: StateOf, principal: PrincipalOf) -> Json:
    """Return an artifact with its files; one whose content is missing says so."""
    info = reach_run(state, principal, run_id)
    found, is_theirs = _artifact(info, name), readable_contents(state, principal, info)
    blobs = state.workspace.blobs
    return Json(
        {
            "name": found.name,
            "is_folder": found.is_folder,
            "size_bytes": found.size_bytes,
            "logged_at": found.logged_at,
            "metadata": found.metadata,
            "files": [
                {
                    "path": one.path,
                    "size_bytes": one.size_bytes,
                    "hash": one.hash,
                    "is_here": is_theirs(one.hash) and blobs.may_have(one.hash),
                }
                for one in found.files
            ],
        }
    )


def _artifact(info: RunInfo, name: str) -> Artifact:
    found = next((one for one in info.artifacts if one.name == name), None)
    if found is None:
        names = ", ".join(repr(one.name) for one in info.artifacts[:8]) or "none"
        raise ApiError("not_found", f"run {info.name!r:.80} has no artifact {name!r:.80}; it has {names}")
    return found


def _file(artifact: Artifact, path: str | None) -> FileEntry:
    """Return the file that a path means; nothing but what the artifact lists can be meant."""
    if path is None and len(artifact.files) == 1:
        return artifact.files[0]
    wanted = check_path(path or "")
    found = next((entry for entry in artifact.files if entry.path == wanted), None)
    if found is None:
        raise ApiError("not_found", f"artifact {artifact.name!r:.80} has no file {wanted!r:.120}")
    return found


def spans(steps: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return steps, from low to high, as stretches of equal distance: first, distance, count."""
    found: list[list[int]] = []
    for step in steps:
        if found and (last := found[-1])[2] == 1:
            last[1:] = [step - last[0], 2]
        elif found and found[-1][0] + found[-1][1] * found[-1][2] == step:
            found[-1][2] += 1
        else:
            found.append([step, 1, 1])
    return [(first, distance, count) for first, distance, count in found]


def _numbered(info: RunInfo, name: str, first: int, last: int) -> list[tuple[int, Record]]:
    """Return the media of a name between two steps, each with its number among those of its step."""
    counts: dict[int, int] = {}
    found = []
    for one in info.records(name, first_step=first, last_step=last):
        index = counts[one.step] = counts.get(one.step, -1) + 1
        found.append((index, one))
    return found


def readable_contents(state: State, principal: Principal, info: RunInfo) -> Callable[[str], bool]:
    """Return what says whether a content that a run refers to may be read, and known to be here."""
    return lambda content: may_read_content(state, principal, info.path, content)


def _check_readable(state: State, principal: Principal, info: RunInfo, entry: FileEntry) -> None:
    if not may_read_content(state, principal, info.path, entry.hash):
        raise ApiError("not_found", f"the content of {entry.path!r:.120} is not in this workspace")


def _record(index: int, one: Record, *, is_here: Callable[[str], bool]) -> dict[str, Any]:
    return {
        "step": one.step,
        "index": index,
        "at": one.wall_s,
        "kind": one.kind,
        "format": one.format,
        "size_bytes": one.size_bytes,
        "hash": one.hash,
        "text": one.text,
        "metadata": one.metadata,
        "is_here": one.hash is None or is_here(one.hash),
    }
