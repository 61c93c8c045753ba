"""Who is there, logging in and out, users, tokens, the audit log."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from runstone._version import __version__
from runstone.server.api import models
from runstone.server.auth import hashed, new_token
from runstone.server.errors import ApiError
from runstone.server.jsons import Json
from runstone.server.roles import Principal, Role
from runstone.server.sessions import drop_session, set_session
from runstone.server.state import PrincipalOf, StateOf, access

router = APIRouter(prefix="/api", tags=["server"])
_ADMIN = access(Role.ADMIN, "workspace")
_DAY_S = 86_400.0
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Login(BaseModel):
    """A token, for a session in exchange."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(min_length=1, max_length=256)


class LoggedIn(BaseModel):
    """Who is logged in now."""

    user: models.Who | None


class UserOut(BaseModel):
    """Somebody who may use the server."""

    name: str
    created_at: float
    roles: dict[str, str]
    tokens: int


class Users(BaseModel):
    """All users."""

    users: list[UserOut]


class NewUser(BaseModel):
    """A user to add, with a role in a project; `*` is all of them."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    role: Role | None = None
    project: str = Field("*", max_length=1024)


class NewRole(BaseModel):
    """A role to give in a project; none: to take away."""

    model_config = ConfigDict(extra="forbid")
    role: Role | None
    project: str = Field("*", max_length=1024)


class TokenOut(BaseModel):
    """What is known of a token, which nobody can tell any more."""

    id: int
    user: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None


class Tokens(BaseModel):
    """All tokens."""

    tokens: list[TokenOut]


class NewToken(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")
    user: Name
    label: str = Field("", max_length=200)
    days: float | None = Field(
        None, gt=0, le=36_500, description="Until it works no more; default: until it is revoked."
    )


class MadeToken(BaseModel):
    """A new token: this is the only time that it is shown."""

    id: int
    token: str


class AuditLine(BaseModel):
    """Who did what."""

    at: float
    user: str
    address: str
    action: str
    target: str
    status: int
    details: dict[str, object]


class AuditLog(BaseModel):
    """The audit log, newest first."""

    lines: list[AuditLine]


@router.get("/info", response_model=models.Info, openapi_extra=access(Role.VIEWER))
def info(request: Request, state: StateOf, principal: PrincipalOf) -> Json:
    """Return what the page needs to begin."""
    features = sorted({path.split("/")[2] for path in request.app.openapi()["paths"] if path.startswith("/api/")})
    folder = state.workspace.path
    return Json(
        {
            "version": __version__,
            "workspace": folder.parent.name if folder.name.startswith(".") else folder.name,
            "user": who(principal),
            "read_only": not principal.may_somewhere(Role.CONTRIBUTOR),
            "features": features,
            "content_elsewhere": state.elsewhere.as_dict(time.time()),
        }
    )


@router.post("/login", response_model=LoggedIn, openapi_extra={"x-open": True})
def login(given: Login, request: Request, state: StateOf) -> Json:
    """Begin a session with a token: the answer sets a cookie that no script can read."""
    address = str(request.client.host if request.client else "unknown")
    principal = state.authenticator.by_token(address, given.token)
    request.scope["runstone.principal"] = principal
    answer = Json({"user": who(principal)})
    set_session(answer, state.config, state.authenticator.begin_session(given.token), scheme=request.url.scheme)
    return answer


@router.post("/logout", response_model=LoggedIn, openapi_extra=access(Role.VIEWER))
def logout(state: StateOf, principal: PrincipalOf) -> Json:
    """End the session."""
    if principal.session is not None:
        state.authenticator.end_session(principal.session)
    answer = Json({"user": None})
    drop_session(answer, state.config)
    return answer


@router.get("/users", response_model=Users, openapi_extra=_ADMIN)
def users(state: StateOf) -> Json:
    """Return all users."""
    return Json({"users": state.accounts.users()})


@router.post("/users", response_model=Users, openapi_extra=_ADMIN)
def add_user(given: NewUser, state: StateOf) -> Json:
    """Add a user."""
    state.accounts.add_user(given.name)
    if given.role is not None:
        state.accounts.set_role(given.name, given.project, given.role.value)
    return Json({"users": state.accounts.users()})


@router.put("/users/{name}/role", response_model=Users, openapi_extra=_ADMIN)
def set_role(name: str, given: NewRole, state: StateOf) -> Json:
    """Give a user a role in a project, or take it away."""
    state.accounts.set_role(name, given.project, given.role.value if given.role is not None else None)
    return Json({"users": state.accounts.users()})


@router.delete("/users/{name}", response_model=Users, openapi_extra=_ADMIN)
def remove_user(name: str, state: StateOf) -> Json:
    """Remove a user with their tokens and sessions."""
    state.accounts.remove_user(name)
    return Json({"users": state.accounts.users()})


@router.get("/tokens", response_model=Tokens, openapi_extra=_ADMIN)
def tokens(state: StateOf) -> Json:
    """Return what is known of all tokens."""
    return Json({"tokens": state.accounts.tokens()})


@router.post("/tokens", response_model=MadeToken, openapi_extra=_ADMIN)
def add_token(given: NewToken, state: StateOf) -> Json:
    """Make a token; it is shown this once."""
    token = new_token()
    lasts_s = given.days * _DAY_S if given.days is not None else None
    number = state.accounts.add_token(given.user, hashed(token), label=given.label, lasts_s=lasts_s)
    return Json({"id": number, "token": token})


@router.delete("/tokens/{number}", response_model=Tokens, openapi_extra=_ADMIN)
def revoke_token(number: int, state: StateOf) -> Json:
    """Let a token work no more, nor a session that it began."""
    if not 0 <= number < 1 << 63:
        raise ApiError("not_found", f"there is no token {number}")
    state.accounts.revoke_token(number)
    return Json({"tokens": state.accounts.tokens()})


@router.get("/audit", response_model=AuditLog, openapi_extra=_ADMIN)
def audit(
    state: StateOf,
    user: Annotated[str | None, Query(max_length=200)] = None,
    since: Annotated[float, Query(ge=0, le=1e12)] = 0.0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> Json:
    """Return who did what, the newest first."""
    return Json({"lines": state.accounts.audit(user=user, since=since, limit=limit)})


def who(principal: Principal) -> dict[str, object]:
    """Return somebody as `Who` describes them."""
    return {
        "name": principal.name,
        "role": principal.highest.value if principal.highest is not None else None,
        "roles": {project: role.value for project, role in principal.roles.items()},
    }
