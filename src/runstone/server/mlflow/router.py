"""The routes of MLflow's protocol: which path is answered by what, and who may ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from runstone.errors import RunstoneError
from runstone.server.errors import ApiError
from runstone.server.jsons import Json
from runstone.server.mlflow import artifacts, logging_models, multipart, registering, tracking
from runstone.server.mlflow.asking import Fields, parsed_body
from runstone.server.mlflow.errors import MlflowError, invalid, of_api, of_domain
from runstone.server.mlflow.receiving import of_disk, receive
from runstone.server.mlflow.service import Call, Handler, Mlflow
from runstone.server.roles import Role
from runstone.server.state import Scope as Reach
from runstone.server.state import access, check_access, principal_of, state_of

PROTOCOL = "3.17.2"
"""The release of MLflow whose protocol this is."""
_PREFIXES = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
_PROXIES = ("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts")
_SEVERAL = frozenset({"order_by", "run_id", "run_ids", "stages", "experiment_ids"})
_LOOK, _CHANGE, _DECIDE = Role.VIEWER, Role.CONTRIBUTOR, Role.MAINTAINER

_TRACKING: list[tuple[str, str, Handler, Role]] = [
    ("POST", "/experiments/create", tracking.create_experiment, _CHANGE),
    ("GET", "/experiments/get", tracking.get_experiment, _LOOK),
    ("GET", "/experiments/get-by-name", tracking.get_experiment_by_name, _LOOK),
    ("GET POST", "/experiments/search", tracking.search_experiments, _LOOK),
    ("POST", "/experiments/update", tracking.update_experiment, _CHANGE),
    ("POST", "/experiments/delete", tracking.delete_experiment, _DECIDE),
    ("POST", "/experiments/restore", tracking.restore_experiment, _DECIDE),
    ("POST", "/experiments/set-experiment-tag", tracking.set_experiment_tag, _CHANGE),
    ("POST", "/experiments/delete-experiment-tag", tracking.delete_experiment_tag, _CHANGE),
    ("POST", "/experiments/search-datasets", tracking.search_datasets, _LOOK),
    ("POST", "/runs/create", tracking.create_run, _CHANGE),
    ("GET", "/runs/get", tracking.get_run, _LOOK),
    ("POST", "/runs/update", tracking.update_run, _CHANGE),
    ("POST", "/runs/delete", tracking.delete_run, _DECIDE),
    ("POST", "/runs/restore", tracking.restore_run, _DECIDE),
    ("POST", "/runs/log-metric", tracking.log_metric, _CHANGE),
    ("POST", "/runs/log-parameter", tracking.log_param, _CHANGE),
    ("POST", "/runs/set-tag", tracking.set_tag, _CHANGE),
    ("POST", "/runs/delete-tag", tracking.delete_tag, _CHANGE),
    ("POST", "/runs/log-batch", tracking.log_batch, _CHANGE),
    ("POST", "/runs/log-inputs", tracking.log_inputs, _CHANGE),
    ("POST", "/runs/outputs", tracking.log_outputs, _CHANGE),
    ("POST", "/runs/log-model", tracking.log_model_history, _CHANGE),
    ("POST", "/runs/search", tracking.search, _LOOK),
    ("GET", "/metrics/get-history", tracking.metric_history, _LOOK),
    ("GET", "/metrics/get-history-bulk", tracking.metric_history_bulk, _LOOK),
    ("GET", "/metrics/get-history-bulk-interval", tracking.metric_history_interval, _LOOK),
    ("GET", "/artifacts/list", artifacts.list_run, _LOOK),
    ("POST", "/artifacts/presigned-upload-url", multipart.presign_upload, _CHANGE),
    ("POST", "/artifacts/presigned-download-url", multipart.presign_download, _CHANGE),
    ("POST", "/logged-models", logging_models.create, _CHANGE),
    ("POST", "/logged-models/search", logging_models.search, _LOOK),
    ("GET", "/logged-models/{model_id}", logging_models.get, _LOOK),
    ("PATCH", "/logged-models/{model_id}", logging_models.finalize, _CHANGE),
    ("DELETE", "/logged-models/{model_id}", logging_models.delete, _DECIDE),
    ("PATCH", "/logged-models/{model_id}/tags", logging_models.set_tags, _CHANGE),
    ("DELETE", "/logged-models/{model_id}/tags/{key:path}", logging_models.delete_tag, _CHANGE),
    ("POST", "/logged-models/{model_id}/params", logging_models.log_params, _CHANGE),
    ("GET", "/logged-models/{model_id}/artifacts/directories", logging_models.list_artifacts, _LOOK),
    ("GET", "/logged-models/{model_id}/artifacts/files", logging_models.read_artifact, _LOOK),
]
_REGISTRY: list[tuple[str, str, Handler, Role]] = [
    ("POST", "/registered-models/create", registering.create_model, _CHANGE),
    ("POST", "/registered-models/rename", registering.rename_model, _DECIDE),
    ("PATCH", "/registered-models/update", registering.update_model, _CHANGE),
    ("DELETE", "/registered-models/delete", registering.delete_model, _DECIDE),
    ("GET", "/registered-models/get", registering.get_model, _LOOK),
    ("GET", "/registered-models/search", registering.search_models, _LOOK),
    ("GET POST", "/registered-models/get-latest-versions", registering.latest_versions, _LOOK),
    ("POST", "/registered-models/set-tag", registering.set_model_tag, _CHANGE),
    ("DELETE", "/registered-models/delete-tag", registering.delete_model_tag, _CHANGE),
    ("GET", "/registered-models/alias", registering.get_alias, _LOOK),
    ("POST", "/registered-models/alias", registering.set_alias, _DECIDE),
    ("DELETE", "/registered-models/alias", registering.delete_alias, _DECIDE),
    ("POST", "/model-versions/create", registering.create_version, _CHANGE),
    ("PATCH", "/model-versions/update", registering.update_version, _CHANGE),
    ("POST", "/model-versions/transition-stage", registering.transition, _DECIDE),
    ("DELETE", "/model-versions/delete", registering.delete_version, _DECIDE),
    ("GET", "/model-versions/get", registering.get_version, _LOOK),
    ("GET", "/model-versions/search", registering.search_versions, _LOOK),
    ("GET", "/model-versions/get-download-uri", registering.download_uri, _LOOK),
    ("POST", "/model-versions/set-tag", registering.set_version_tag, _CHANGE),
    ("DELETE", "/model-versions/delete-tag", registering.delete_version_tag, _CHANGE),
]


def mlflow_of(request: Request) -> Mlflow:
    """Return the protocol over the workspace that is served."""
    found: Mlflow = request.app.state.mlflow
    return found


def make_router() -> APIRouter:
    """Return the routes."""
    router = APIRouter(include_in_schema=False)
    for prefix in _PREFIXES:
        for methods, path, handler, role in _TRACKING:
            _add(router, methods, prefix + path, _answering(handler), role, "project")
        for methods, path, handler, role in _REGISTRY:
            _add(router, methods, prefix + path, _answering(handler), role, "workspace")
        _add(router, "POST", f"{prefix}/upload-artifact", _upload, _CHANGE, "project")
    for prefix in _PROXIES:
        _add(router, "GET", prefix, _answering(artifacts.list_proxied), _LOOK, "project")
        _add(router, "GET HEAD", prefix + "/{path:path}", _answering(artifacts.download), _LOOK, "project")
        _add(router, "DELETE", prefix + "/{path:path}", _answering(artifacts.delete), _DECIDE, "project")
        _add(router, "PUT", prefix + "/{path:path}", _upload, _CHANGE, "project")
    for word, handler in {"create": multipart.create, "complete": multipart.complete, "abort": multipart.abort}.items():
        _add(router, "POST", f"{multipart.API}/mpu/{word}/{{path:path}}", _answering(handler), _CHANGE, "project")
    _add(router, "GET", f"{multipart.API}/presigned/{{path:path}}", _answering(multipart.presign), _LOOK, "project")
    _add_by_ticket(router, "PUT", "/mpu/parts/{upload_id}/{number}", _put_part)
    _add_by_ticket(router, "GET", "/presigned-files/{content}/{name}", _send_presigned)
    _add(router, "GET HEAD", "/get-artifact", _answering(artifacts.download_of_run), _LOOK, "project")
    for path in ("/model-versions/get-artifact", "//model-versions/get-artifact"):
        _add(router, "GET", path, _answering(registering.read_artifact), _LOOK, "workspace")
    for prefix in ("/api", "/ajax-api"):
        _add(router, "GET", f"{prefix}/3.0/mlflow/server-info", _answering(multipart.server_info), _LOOK, "project")
    _add(router, "GET", "/version", _version, _LOOK, "project")
    router.add_api_route("/health", _health, methods=["GET"], openapi_extra={"x-open": True})
    return router


class Shortcut:
    """An ASGI application before another, that answers requests to fixed paths of the protocol without it.

    Clients send a request for each point; to look for one route among hundreds takes longer than to keep the point.

    Args:
        app: The other: it answers all else.
        router: What `make_router` returned.
    """

    def __init__(self, app: FastAPI, router: APIRouter) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, APIRoute) and route.path.startswith(_PREFIXES) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            ApiError: who sends it may not.
        """
        route = self._routes.get((scope.get("method", ""), scope.get("runstone.path", "")))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope.update(app=self._app, route=route, path_params={})
        request = Request(scope, receive, send)
        check_access(request)
        answer: Response = await route.endpoint(request)
        await answer(scope, receive, send)


def _add(router: APIRouter, methods: str, path: str, endpoint: Callable[..., Any], role: Role, scope: Reach) -> None:
    router.add_api_route(
        path, endpoint, methods=methods.split(), openapi_extra=access(role, scope), response_model=None
    )


def _add_by_ticket(router: APIRouter, method: str, path: str, endpoint: Callable[..., Any]) -> None:
    router.add_api_route(
        multipart.API + path, endpoint, methods=[method], openapi_extra={"x-open": True}, response_model=None
    )


def _answering(handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        async def work() -> dict[str, Any] | Response:
            return await run_in_threadpool(handler, _call(request, await _fields(request)))

        return await _answered(work())

    return endpoint


async def _answered(work: Awaitable[dict[str, Any] | Response]) -> Response:
    """Return what came of a request, in the form of the protocol where that is an error."""
    try:
        answer = await work
    except MlflowError as error:
        return error.answer()
    except ApiError as error:
        return of_api(error)
    except RunstoneError as error:
        return of_domain(error).answer()
    return answer if isinstance(answer, Response) else Json(answer)


def _call(request: Request, fields: Fields) -> Call:
    return Call(mlflow_of(request), principal_of(request), fields, request.path_params, request)


async def _fields(request: Request) -> Fields:
    if request.method in ("GET", "HEAD"):
        found: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name in _SEVERAL and (name in found or name != "run_id"):
                there = found.get(name, [])
                found[name] = [*(there if isinstance(there, list) else [there]), value]
            else:
                found.setdefault(name, value)
        return Fields(found)
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and request.method == "POST":
        raise invalid("Bad Request. Content-Type should be 'application/json'.")
    return Fields(parsed_body(body))


async def _upload(request: Request) -> Response:
    """PUT mlflow-artifacts/artifacts/PATH, POST upload-artifact: bytes as they are."""
    return await _answered(_take_file(request))


async def _take_file(request: Request) -> dict[str, Any]:
    limits = state_of(request).config.limits
    call = _call(request, Fields(dict(request.query_params)))
    path, place = await run_in_threadpool(artifacts.upload_target, call)
    upload: artifacts.Upload | None = None
    try:
        upload = await run_in_threadpool(artifacts.Upload, call.mlflow)
        size = await receive(request, upload.write, limits, limits.upload_bytes)
        if not size and "path" not in call.path:
            raise invalid("Request must specify data.")
        await run_in_threadpool(upload.put, call, path, place)
    except OSError as error:
        raise of_disk(error) from None
    finally:
        if upload is not None:
            await run_in_threadpool(upload.close)
    return {}


async def _put_part(request: Request) -> Response:
    return await _answered(multipart.put_part(request, mlflow_of(request)))


async def _send_presigned(request: Request) -> Response:
    return await _answered(run_in_threadpool(multipart.send_presigned, request, mlflow_of(request)))


async def _version() -> Response:
    return PlainTextResponse(PROTOCOL)


async def _health() -> Response:
    return PlainTextResponse("OK")
