"""The application: routes, their errors, and the gate around all of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from runstone._version import __version__
from runstone.errors import RunstoneError
from runstone.index.accounts import Accounts
from runstone.query import OpenIndex
from runstone.server import errors
from runstone.server.api import routers
from runstone.server.auth import Authenticator, LocalKeys, WrongTokens
from runstone.server.carrying import ContentElsewhere
from runstone.server.config import ServerConfig
from runstone.server.curves import Curves
from runstone.server.files import Contents
from runstone.server.logs import Counters, Log
from runstone.server.mlflow.errors import of_api
from runstone.server.mlflow.paths import is_mlflow
from runstone.server.mlflow.router import Shortcut, make_router
from runstone.server.mlflow.service import Mlflow
from runstone.server.pages import Page
from runstone.server.roles import Role
from runstone.server.security import Gate
from runstone.server.sessions import set_session
from runstone.server.state import State, StateOf, access, checked_access, state_of
from runstone.sync.contents import ContentLanding
from runstone.sync.landing import Landing
from runstone.workspace import Workspace

ROUTES = "runstone.routes"
"""Entry points of installed packages: callables that take `workspace_of(request) -> Workspace` and return a router."""


def create_app(
    workspace: Workspace,
    config: ServerConfig,
    *,
    keys: LocalKeys | None = None,
    log: Log | None = None,
    is_page_fixed: bool = True,
) -> Server:
    """Return the application over one workspace.

    Args:
        workspace: What it shows.
        config: How it is set up.
        keys: Keys that open the page on this machine.
        log: Where it writes its log.
        is_page_fixed: Whether the files of the page are read once.
    """
    accounts = Accounts(workspace.path, database=config.index)
    authenticator = Authenticator(accounts, keys, WrongTokens(config.limits.wrong_tokens, config.limits.wrong_s))
    state = State(
        workspace=workspace,
        config=config,
        index=OpenIndex(workspace.path, database=config.index),
        curves=Curves(),
        contents=Contents(workspace.blobs),
        landing=Landing(workspace.path),
        incoming=ContentLanding(workspace.path, workspace.blobs),
        accounts=accounts,
        authenticator=authenticator,
        log=log or Log(),
        counters=Counters(),
        elsewhere=ContentElsewhere(),
    )

    mlflow = Mlflow(state)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = config.limits.threads
        yield
        mlflow.close()
        state.close()

    app = FastAPI(
        title="Runstone",
        version=__version__,
        summary="Runs, data, models and sweeps of one workspace.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(checked_access)],
        responses={"4XX": {"model": errors.ErrorAnswer, "description": "It could not be done; the message says why."}},
    )
    app.state.runstone = state
    app.state.mlflow = mlflow
    _add_errors(app)
    for router in routers():
        app.include_router(router)
    for router in installed_routers(lambda request: state_of(request).workspace, state.log):
        app.include_router(router, prefix="/api")
    protocol = make_router() if config.mlflow else APIRouter()
    app.include_router(protocol)
    app.include_router(_front(Page(config.static, is_fixed=is_page_fixed)))
    return Server(app, Gate(Shortcut(app, protocol), config, authenticator, state.log, state.counters), state)


class Server:
    """The application with its gate: an ASGI application.

    Attributes:
        app: The routes, without the gate.
        state: What its requests share.
    """

    def __init__(self, app: FastAPI, gate: ASGIApp, state: State) -> None:
        self.app = app
        self.state = state
        self._gate = gate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        await self._gate(scope, receive, send)


def installed_routers(workspace_of: Callable[[Request], Workspace], log: Log) -> list[APIRouter]:
    """Return the routers that installed packages bring; one that cannot be loaded is left out, and told."""
    found = []
    here = Path.cwd().resolve()
    for entry in importlib.metadata.entry_points(group=ROUTES):
        # A folder that somebody unpacked is no installation, even where Python looks for modules in it.
        if entry.dist is None or Path(str(entry.dist.locate_file(""))).resolve() == here:
            log("routes_left_out", entry=entry.value, problem="it lies in the current folder")
            continue
        try:
            router = entry.load()(workspace_of)
        except Exception as error:  # foreign code may raise anything, and the rest must work
            log("routes_left_out", entry=entry.value, problem=f"{type(error).__name__}: {error}")
            continue
        if isinstance(router, APIRouter):
            found.append(router)
    return found


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(errors.ApiError)
    async def told(request: Request, error: errors.ApiError) -> Response:
        return _said(request, error)

    @app.exception_handler(RunstoneError)
    async def of_domain(request: Request, error: RunstoneError) -> Response:
        return _said(request, errors.of_domain(error))

    @app.exception_handler(Exception)
    async def of_defect(request: Request, _error: Exception) -> Response:
        return _said(request, errors.of_defect(request.scope["runstone.id"]))  # the gate writes it to the log

    @app.exception_handler(RequestValidationError)
    async def of_form(request: Request, error: RequestValidationError) -> Response:
        return _said(request, errors.of_validation(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        message = {404: f"there is nothing at {request.url.path!r:.200}", 405: f"{request.method} is not possible here"}
        told = message.get(error.status_code, str(error.detail))
        return _said(request, errors.of_status(error.status_code, told, error.headers))


def _said(request: Request, error: errors.ApiError) -> Response:
    """Return an error as who asked expects it: clients of MLflow have a form of their own."""
    return of_api(error) if is_mlflow(request.scope["runstone.path"]) else error.answer()


def _front(page: Page) -> APIRouter:
    """Return the routes that are not of the API."""
    router = APIRouter(include_in_schema=False)
    is_open = {"x-open": True}

    @router.get("/healthz", openapi_extra=is_open)
    async def healthz() -> Response:  # takes no thread: it is answered while all of them wait for a slow disk
        return PlainTextResponse("ok\n")

    @router.get("/metrics", openapi_extra=access(Role.VIEWER, "workspace"))
    def metrics(state: StateOf) -> Response:
        counts = state.index.page_of_runs("", limit=0).total
        running = state.index.page_of_runs("status = 'running'", limit=0).total
        wrong = state.authenticator.wrong.total
        gauges = {"runs": counts, "runs_running": running, **state.elsewhere.gauges(time.time())}
        text = state.counters.text(__version__, wrong_tokens=wrong, **gauges)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @router.get("/", openapi_extra=is_open)
    def index(request: Request, state: StateOf, key: str | None = None) -> Response:
        if key is None:
            return page.index()
        answer = RedirectResponse(_without_key(request), status_code=303)
        keys, address = state.authenticator.keys, str(request.client.host if request.client else "unknown")
        state.authenticator.wrong.check(address)
        session = keys.redeem(key[:256]) if keys is not None else None
        if session is None:
            state.authenticator.wrong.note(address)
        else:
            set_session(answer, state.config, session, scheme=request.url.scheme)
        return answer

    @router.get("/static/{version}/{name:path}", openapi_extra=is_open)
    def static(version: str, name: str, request: Request) -> Response:
        return page.file(version, name, request.headers.get("accept-encoding", ""))

    return router


def _without_key(request: Request) -> str:
    """Return where the page lies without its key, seen from itself, so that any prefix is right."""
    rest = request.url.remove_query_params("key").query
    return f"./?{rest}" if rest else "./"
