"""`api/sync`: runs that are written elsewhere and sent here, and runs as files, for those who fetch them."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from runstone.errors import RunNotFound, RunstoneError
from runstone.gc.holders import run_holder
from runstone.runlog.copying import LEGAL_FILE
from runstone.runlog.format import STATE_OPEN
from runstone.runlog.liveness import read_status
from runstone.runlog.writer import stop_word
from runstone.server.errors import ApiError, ErrorBody, of_domain
from runstone.server.files import SANDBOX, sent
from runstone.server.jsons import Json
from runstone.server.roles import Principal, Role
from runstone.server.state import PrincipalOf, State, StateOf, access, may_read_content, reach_folder
from runstone.sync import wire
from runstone.sync.histories import events_of, histories_in, take_event
from runstone.sync.kinds import kind_of, names_in
from runstone.sync.landing import FileState

router = APIRouter(prefix="/api/sync", tags=["sync"])
_LOOK = access(Role.VIEWER)
_WRITE = access(Role.CONTRIBUTOR)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_CHUNK = 1 << 18
_MOST_HASHES = 10_000
RunId = Annotated[str, Field(max_length=64)]
Hash = Annotated[str, Path(max_length=64)]
Kind = Annotated[str, Path(pattern="^(datasets|models)$")]
Name = Annotated[str, Query(max_length=1024)]
Count = Annotated[int, Query(ge=0, le=1 << 44)]
Result = TypeVar("Result")


class Hello(BaseModel):
    """What this server speaks."""

    format: int
    parcel_bytes: int


class SentRun(BaseModel):
    """A run that is going to be sent; one that was here before is not made once more."""

    model_config = ConfigDict(extra="forbid")
    run_id: str = Field(max_length=64)
    project: str = Field(max_length=1024)
    was_here: bool = False


class SentRuns(BaseModel):
    """Runs that are going to be sent."""

    model_config = ConfigDict(extra="forbid")
    runs: list[SentRun] = Field(max_length=wire.MOST_PARCELS)


class EndedRuns(BaseModel):
    """Runs that have ended, and were sent."""

    model_config = ConfigDict(extra="forbid")
    run_ids: list[RunId] = Field(max_length=wire.MOST_PARCELS)


class RunRefused(BaseModel):
    """Why nothing was done with one run of several: as the answer to a request for it alone would say."""

    status: int
    error: ErrorBody


class FileOut(BaseModel):
    """How much of a file is here, and the BLAKE3 of that."""

    size: int
    hash: str


class RunState(BaseModel):
    """What is here of a run."""

    is_new: bool
    files: dict[str, FileOut]
    sealed: list[str]
    stop: str | None


class Landed(BaseModel):
    """The sizes of the files that were written, and what the run is asked for."""

    sizes: dict[str, int]
    stop: str | None


class Whole(BaseModel):
    """A run that was compared is noted as whole."""

    is_whole: bool


class WholeRuns(BaseModel):
    """The runs that are noted as whole."""

    runs: dict[str, Whole | RunRefused]


class RunStates(BaseModel):
    """What is here of each run."""

    runs: dict[str, RunState | RunRefused]


class LandedRuns(BaseModel):
    """What came of the parcel of each run."""

    runs: dict[str, Landed | RunRefused]


class Listing(BaseModel):
    """The files of a run, with their sizes."""

    project: str
    files: dict[str, int]


class Stamps(BaseModel):
    """By run, a word that changes when a file of it does."""

    stamps: dict[str, str]


class Wanted(BaseModel):
    """Contents that are going to be sent, if they are not here."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=1024)
    hashes: list[Annotated[str, Field(max_length=64)]] = Field(max_length=_MOST_HASHES)


class MissingContent(BaseModel):
    """A content that is to be sent, from an offset on."""

    hash: str
    offset: int


class Missing(BaseModel):
    """Contents that are to be sent."""

    missing: list[MissingContent]


class ContentState(BaseModel):
    """How many bytes of a content are here."""

    size: int
    is_complete: bool


class Histories(BaseModel):
    """How many events each dataset or model has here, and the hash of its last."""

    histories: dict[str, tuple[int, str]]


class Events(BaseModel):
    """Events of one history, as they stand in their files."""

    events: list[str]


@router.get("", response_model=Hello, openapi_extra=_LOOK)
def hello(_state: StateOf) -> Json:
    """Return which format of sending this server speaks."""
    return Json({"format": wire.FORMAT, "parcel_bytes": wire.PARCEL_BYTES})


@router.post("/runs", response_model=RunStates, openapi_extra=_WRITE)
def open_runs(given: SentRuns, state: StateOf, principal: PrincipalOf) -> Json:
    """Make runs that are going to be sent, or go on with them."""
    runs = {run.run_id: run for run in given.runs}
    made: dict[str, tuple[FilePath, bool]] = {}

    def open_one(run_id: str) -> None:
        _check_project(principal, runs[run_id].project)
        if runs[run_id].was_here:
            made[run_id] = reach_folder(state, principal, run_id, Role.CONTRIBUTOR), False
        else:
            made[run_id] = state.landing.open(run_id, runs[run_id].project)

    answers = _each(runs, open_one)
    _doing(lambda: state.landing.keep(folder for folder, is_new in made.values() if is_new))
    for run_id, (folder, is_new) in made.items():
        if principal.projects() is not None:
            state.incoming.limit(run_id)
        answers[run_id] = _state(state, folder, state.landing.state(folder), is_new=is_new)
    return Json({"runs": answers})


@router.post("/parcels", response_model=LandedRuns, openapi_extra=_WRITE | _BODY)
async def parcels(request: Request, state: StateOf, principal: PrincipalOf) -> Json:
    """Take parcels of several runs; the same twice is taken once, and nothing of one is taken that does not fit."""
    body = await request.body()

    def land() -> Json:
        packed = dict(wire.unpack_batch(body))

        def land_one(run_id: str) -> dict[str, Any]:
            folder = reach_folder(state, principal, run_id, Role.CONTRIBUTOR)
            if principal.projects() is not None:
                state.incoming.limit(run_id)
            found = state.landing.land(folder, wire.unpack(packed[run_id]))
            return {"sizes": found.sizes, "stop": found.stop}

        return Json({"runs": _each(packed, land_one)})

    return await run_in_threadpool(land)


@router.post("/finish", response_model=RunStates, openapi_extra=_WRITE)
def finish(given: EndedRuns, state: StateOf, principal: PrincipalOf) -> Json:
    """Bring what came of runs to the disk, and return what is here: the client compares, and forgets them then."""
    reached: dict[str, FilePath] = {}

    def reach(run_id: str) -> None:
        reached[run_id] = reach_folder(state, principal, run_id, Role.CONTRIBUTOR)

    answers = _each(dict.fromkeys(given.run_ids), reach)
    found = _doing(lambda: state.landing.finish(reached.values()))
    for run_id, folder in reached.items():
        if folder in found:
            answers[run_id] = _state(state, folder, found[folder])
        else:
            answers[run_id] = _refused(RunNotFound(f"there is no run {run_id!r}"))
    return Json({"runs": answers})


@router.post("/whole", response_model=WholeRuns, openapi_extra=_WRITE)
def whole(given: EndedRuns, state: StateOf, principal: PrincipalOf) -> Json:
    """Take in that the client has seen that all of some runs is here: from now on they may be sealed here."""

    def note(run_id: str) -> dict[str, bool]:
        state.landing.note_whole(reach_folder(state, principal, run_id, Role.CONTRIBUTOR))
        return {"is_whole": True}

    return Json({"runs": _each(dict.fromkeys(given.run_ids), note)})


@router.get("/stamps", response_model=Stamps, openapi_extra=_LOOK)
def stamps(
    state: StateOf,
    principal: PrincipalOf,
    ids: Annotated[list[Annotated[str, Query(max_length=64)]], Query(max_length=500)],
) -> Json:
    """Return, for runs, a word that changes when a file of theirs does; runs that are not there are left out."""
    found = {}
    for run_id in ids:
        try:
            folder = reach_folder(state, principal, run_id)
        except ApiError:
            continue
        found[run_id] = _stamp(folder)
    return Json({"stamps": found})


@router.get("/runs/{run_id}", response_model=RunState, openapi_extra=_LOOK)
def run_state(run_id: RunId, state: StateOf, principal: PrincipalOf) -> Json:
    """Return what is here of a run, hashed."""
    folder = reach_folder(state, principal, run_id)
    return Json(_state(state, folder, state.landing.state(folder)))


@router.get("/runs/{run_id}/files", response_model=Listing, openapi_extra=_LOOK)
def files(run_id: RunId, state: StateOf, principal: PrincipalOf) -> Json:
    """Return the files of a run with their sizes."""
    folder = reach_folder(state, principal, run_id)
    names = [*names_in(folder), *(path.name for path in folder.glob("*.status"))]
    return Json({"project": folder.parent.name, "files": {name: _size(folder / name) for name in names}})


@router.get("/runs/{run_id}/files/{name}", response_class=Response, responses=_BYTES, openapi_extra=_LOOK)
def file(run_id: RunId, name: str, state: StateOf, principal: PrincipalOf, offset: Count = 0) -> Response:
    """Return the bytes of a file of a run, from an offset on."""
    folder = reach_folder(state, principal, run_id)
    if not LEGAL_FILE.fullmatch(name) or (kind_of(name) is None and not name.endswith(".status")):
        raise ApiError("not_found", f"a run has no file {name!r:.80}")
    path = folder / name
    if not path.is_file() or path.is_symlink():
        raise ApiError("not_found", f"run {run_id} has no file {name!r:.80}")
    size = max(0, _size(path) - offset)
    headers = {"Content-Security-Policy": SANDBOX, "Content-Length": str(size)}
    return StreamingResponse(_chunks(path, offset, size), media_type="application/octet-stream", headers=headers)


@router.get("/runs/{run_id}/contents/{content}", response_class=Response, responses=_BYTES, openapi_extra=_LOOK)
def content_of_run(run_id: RunId, content: Hash, request: Request, state: StateOf, principal: PrincipalOf) -> Response:
    """Return a content that a run refers to."""
    folder = reach_folder(state, principal, run_id)
    held = run_holder(folder, [])
    if held is None or content not in held.hashes or not may_read_content(state, principal, folder, content):
        raise ApiError("not_found", f"run {run_id} refers to no content {content!r:.80}")
    return sent(state.contents, content, "content", range_header=request.headers.get("range"))


@router.post("/contents", response_model=Missing, openapi_extra=_WRITE)
def missing(given: Wanted, state: StateOf, principal: PrincipalOf) -> Json:
    """Return which contents are to be sent, and from where on; others' content does not count where it is hidden."""
    _check_project(principal, given.project)
    found = _doing(
        lambda: state.incoming.missing(
            given.project, given.hashes, sender=principal.name, sees_all=principal.projects() is None
        )
    )
    return Json({"missing": [{"hash": one.hash, "offset": one.offset} for one in found]})


@router.post("/contents/{content}", response_model=ContentState, openapi_extra=_WRITE | _BODY)
async def put_content(
    content: Hash,
    request: Request,
    state: StateOf,
    principal: PrincipalOf,
    project: Name,
    offset: Count,
    size: Count,
) -> Json:
    """Take a part of a content; the last one is answered when the whole has been checked."""
    body = await request.body()

    def land() -> Json:
        _check_project(principal, project)
        here, is_complete = _doing(
            lambda: state.incoming.land(project, content, sender=principal.name, offset=offset, size=size, data=body)
        )
        return Json({"size": here, "is_complete": is_complete})

    return await run_in_threadpool(land)


# --- datasets and models: they belong to no project, so only those who may see all of them take part ------------------


@router.get("/histories/{kind}", response_model=Histories, openapi_extra=access(Role.VIEWER, "workspace"))
def histories(kind: Kind, state: StateOf) -> Json:
    """Return how long the history of each dataset or model is here."""
    return Json({"histories": histories_in(state.workspace.path, kind)})


@router.get("/histories/{kind}/events", response_model=Events, openapi_extra=access(Role.VIEWER, "workspace"))
def events(kind: Kind, name: Name, state: StateOf, after: Count = 0) -> Json:
    """Return the events of one history behind a number, as they stand in their files; 1,000 at most."""
    return Json({"events": events_of(state.workspace.path, kind, name)[after : after + 1_000]})


@router.post("/histories/{kind}/events", response_model=Histories, openapi_extra=access(Role.MAINTAINER, "workspace"))
def add_events(kind: Kind, name: Name, given: Events, state: StateOf) -> Json:
    """Add events to a history: each must follow the one that is here last, and what it names must be here."""

    def take() -> None:
        for line in given.events:
            take_event(state.workspace.path, state.workspace.blobs, kind, name, line)

    _doing(take)
    return Json({"histories": {name: histories_in(state.workspace.path, kind).get(name, (0, ""))}})


@router.get(
    "/contents/{content}", response_class=Response, responses=_BYTES, openapi_extra=access(Role.VIEWER, "workspace")
)
def content(content: Hash, request: Request, state: StateOf) -> Response:
    """Return a content by its hash, to those who may see everything."""
    return sent(state.contents, content, "content", range_header=request.headers.get("range"))


def _check_project(principal: Principal, project: str) -> None:
    if not principal.may(Role.CONTRIBUTOR, project):
        raise ApiError("forbidden", f"this needs the role 'contributor' in the project {project!r:.80}")


def _state(state: State, folder: FilePath, found: dict[str, FileState], *, is_new: bool = False) -> dict[str, Any]:
    return {
        "is_new": is_new,
        "files": {name: {"size": one.size, "hash": one.hash} for name, one in found.items()},
        "sealed": sorted(state.landing.sealed_writers(folder)),
        "stop": stop_word(folder),
    }


def _each(run_ids: Iterable[str], work: Callable[[str], Any]) -> dict[str, Any]:
    """Do something with each of several runs: one that cannot be does not hold up the others."""
    answers = {}
    for run_id in run_ids:
        try:
            answers[run_id] = _doing(lambda: work(run_id))  # noqa: B023 (called at once)
        except (ApiError, RunstoneError) as error:
            answers[run_id] = _refused(error)
    return answers


def _refused(error: ApiError | RunstoneError) -> dict[str, Any]:
    told = error if isinstance(error, ApiError) else of_domain(error)
    return {"status": told.status, "error": told.body()}


def _doing(work: Callable[[], Result]) -> Result:
    """Do something that may find the disk full: the client tries again later."""
    try:
        return work()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError("unavailable", "the disk of the server is full", headers={"Retry-After": "30"}) from None
        raise


def _size(path: FilePath) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _stamp(folder: FilePath) -> str:
    told = []
    for entry in sorted(folder.iterdir()):
        found = entry.lstat()
        told.append(f"{entry.name}\0{found.st_size}\0{found.st_mtime_ns}")
    # Points of a run of this host come through memory: the time of its file tells of them later.
    told += (
        [str(time.time())] if any(name.split("\0")[0].endswith(".wal") for name in told) and _is_open(folder) else []
    )
    return hashlib.blake2b("\n".join(told).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _is_open(folder: FilePath) -> bool:
    states = [read_status(path) for path in folder.glob("*.status")]
    return any(one is not None and one.state == STATE_OPEN for one in states)


def _chunks(path: FilePath, offset: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as opened:
        opened.seek(offset)
        while size > 0:
            data = opened.read(min(_CHUNK, size))
            if not data:
                data = bytes(min(_CHUNK, size))  # it was cut meanwhile: free slots
            size -= len(data)
            yield data
