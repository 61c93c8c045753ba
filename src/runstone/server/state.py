"""What all requests to one server share, and how a route gets at it and says who may use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from runstone.errors import InvalidName
from runstone.index.accounts import Accounts
from runstone.names import check_run_id, folder_name
from runstone.query import OpenIndex
from runstone.runinfo import RunInfo
from runstone.server.auth import Authenticator
from runstone.server.carrying import ContentElsewhere
from runstone.server.config import ServerConfig
from runstone.server.curves import Curves
from runstone.server.errors import ApiError
from runstone.server.files import Contents
from runstone.server.logs import Counters, Log
from runstone.server.roles import Principal, Role
from runstone.sync.contents import ContentLanding
from runstone.sync.landing import Landing
from runstone.workspace import Workspace

Scope = Literal["workspace", "project"]


@dataclass(frozen=True)
class State:
    """What all requests to one server share."""

    workspace: Workspace
    config: ServerConfig
    index: OpenIndex
    curves: Curves
    contents: Contents
    landing: Landing
    incoming: ContentLanding
    accounts: Accounts
    authenticator: Authenticator
    log: Log
    counters: Counters
    elsewhere: ContentElsewhere

    def close(self) -> None:
        """Let go of what is held open."""
        self.index.close()
        self.accounts.close()
        self.curves.close()


def access(role: Role, scope: Scope = "project") -> dict[str, Any]:
    """Return what a route says of who may use it, for its `openapi_extra`.

    Args:
        role: What they must be.
        scope: Whether it is about the workspace as a whole, or about projects, which the route itself then asks for.
    """
    return {"x-role": role.value, "x-scope": scope}


def state_of(request: Request) -> State:
    """Return what all requests share."""
    state: State = request.app.state.runstone
    return state


def principal_of(request: Request) -> Principal:
    """Return who sends the request.

    Raises:
        ApiError: nobody has shown who they are.
    """
    principal = request.scope.get("runstone.principal")
    if not isinstance(principal, Principal):
        raise ApiError("unauthorized", "log in, or send a token as `Authorization: Bearer TOKEN`")
    return principal


def check_access(request: Request) -> None:
    """Refuse a request to a route whose role somebody does not hold; one that names none is for the whole workspace.

    Raises:
        ApiError: they may not.
    """
    route = request.scope.get("route")
    told = getattr(route, "openapi_extra", None) or {}
    if told.get("x-open"):
        return
    principal = principal_of(request)
    is_safe = request.method in ("GET", "HEAD")
    role = Role(told.get("x-role", Role.VIEWER if is_safe else Role.CONTRIBUTOR))
    is_enough = principal.may_somewhere(role) if told.get("x-scope") == "project" else principal.may(role)
    if not is_enough:
        raise ApiError(
            "forbidden", f"this needs the role {role.value!r}; {principal.name} is {principal.highest or 'without one'}"
        )


# FastAPI runs plain functions in threads: each would wait for one of its own before a request begins.
async def checked_access(request: Request) -> None:
    """`check_access` as a dependency of routes."""
    check_access(request)


async def _state(request: Request) -> State:
    return state_of(request)


async def _principal(request: Request) -> Principal:
    return principal_of(request)


StateOf = Annotated[State, Depends(_state)]
PrincipalOf = Annotated[Principal, Depends(_principal)]


def reach_folder(state: State, principal: Principal, run_id: str, role: Role = Role.VIEWER) -> Path:
    """Return the folder of a run that somebody may reach.

    Raises:
        ApiError: there is none, or they may not see that there is; they may see it, but not do this.
    """
    missing = ApiError("not_found", f"there is no run {run_id!r:.80}")
    try:
        check_run_id(run_id)
    except InvalidName:
        raise missing from None
    folder = state.workspace.find_run_folder(run_id)
    if folder is None or folder.is_symlink() or folder.parent.is_symlink():
        raise missing
    if not _may(principal, Role.VIEWER, folder):
        raise missing
    if not _may(principal, role, folder):
        raise ApiError("forbidden", f"this needs the role {role.value!r} in the project of run {run_id}")
    return folder


def reach_run(state: State, principal: Principal, run_id: str, role: Role = Role.VIEWER) -> RunInfo:
    """Return a run that somebody may reach.

    Raises:
        ApiError: as `reach_folder` does.
    """
    return RunInfo(reach_folder(state, principal, run_id, role))


def _may(principal: Principal, role: Role, folder: Path) -> bool:
    """Return whether somebody has a role in the project of a run, which its folder stands for."""
    projects = principal.projects(role)
    return projects is None or folder.parent.name in {folder_name(project) for project in projects}


def may_read_content(state: State, principal: Principal, folder: Path, content: str) -> bool:
    """Return whether somebody may have a content that a run in their reach refers to, and know that it is here.

    Who may not see all projects could name, in a run of theirs, what others stored: of such runs only the content
    counts that was sent for their project.
    """
    if principal.projects() is None or not state.incoming.is_limited(folder.name):
        return True
    return state.incoming.is_theirs(folder.parent.name, content)


def visible_filter(principal: Principal, filter: str) -> str:
    """Return a filter that finds only what somebody may see of what another finds.

    Args:
        principal: Who asks.
        filter: One that parses: else it could end the parentheses that it is put into.
    """
    projects = principal.projects()
    if projects is None:
        return filter
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(projects))
    own = f"project in ({names})" if names else "project is null"
    return f"({filter}) and {own}" if filter.strip() else own
