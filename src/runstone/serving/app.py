"""The application: `/predict` on a path of its own, everything else by FastAPI, and one gate around both.

A prediction is answered without routing and without models of pydantic: they would take longer than a small model.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import random
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from runstone._version import __version__
from runstone.errors import RunstoneError
from runstone.server import errors
from runstone.server.errors import ApiError
from runstone.server.jsons import Json
from runstone.server.security import host_of
from runstone.serving.answers import as_json
from runstone.serving.batching import ModelFailed
from runstone.serving.bodies import JSON, parsed
from runstone.serving.describing import add_predict
from runstone.serving.labels import add_labels
from runstone.serving.predictionlog import Prediction, new_request_id
from runstone.serving.service import Service

_OPEN = frozenset({"/health", "/ready"})
# Parsing more than this would hold up all other requests of the process.
_PARSED_HERE_BYTES = 32 << 10
_COMMON = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
_CLOSE = {"Connection": "close"}


class Feedback(BaseModel):
    """What turned out to be true of a prediction."""

    request_id: str = Field(description="`request` of the answer.", max_length=64)
    label: bool | int | float | str | None = Field(default=None, description="Of the row `row`.")
    row: int = Field(default=0, ge=0, description="Counted from 0.")
    labels: list[bool | int | float | str | None] | None = Field(
        default=None, description="Of all rows, in order, in place of `label`; null: not known.", max_length=100_000
    )


class Health(BaseModel):
    """How it is."""

    status: Literal["ok", "ready"]
    model: str


def create_app(service: Service) -> Serving:
    """Return the application over a model.

    Args:
        service: The version, and all that requests share.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title=service.served.name,
        version=__version__,
        summary="Predictions of a version of a model.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": errors.ErrorAnswer, "description": "It could not be done; the message says why."}},
    )
    _add_errors(app)
    _add_routes(app, service)
    return Serving(app, service)


class Serving:
    """The application with its gate: an ASGI application.

    Attributes:
        app: The routes but `/predict`.
        service: What requests share.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app = app
        self.service = service
        config = service.config
        self._network = config.network()
        self._token = None if config.token is None else config.token.encode()
        self._known = functools.lru_cache(maxsize=256)(self._is_known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/predict":
            await self._predict(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            self._admit(scope["path"], headers)
            if scope["method"] == "POST":
                body = await self._body(headers, receive)
                receive = _replay(body, receive)
        except ApiError as error:
            await error.answer()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    # --- the gate --------------------------------------------------------------------------------------------------

    def _admit(self, path: str, headers: dict[bytes, bytes]) -> None:
        if path in _OPEN:  # whoever looks after processes asks by address, without a token
            return
        host = headers.get(b"host", b"")
        if not self._known(host):
            told = host.decode("latin-1")
            raise ApiError(
                "forbidden", f"this server is not known as {told!r:.100}; start it with --allowed-hosts", status=421
            )
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise ApiError("forbidden", "this request comes from another site")
        if self._token is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise ApiError(
                    "unauthorized",
                    "this server asks for its token: `Authorization: Bearer …`",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _is_known(self, host: bytes) -> bool:
        name = host_of(host.decode("latin-1"))
        return name is not None and self._network.is_known_host(name)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        bounds = self.service.config.bounds
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ApiError("invalid", "send the body as it is, without Content-Encoding", status=415)
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or len(told) > 15 or int(told) > bounds.body_bytes:
            raise _too_large(bounds.body_bytes)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(bounds.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError("invalid", "the client went away before its request was there")
                    part = message.get("body", b"")
                    if not parts and not message.get("more_body", False):
                        if len(part) > bounds.body_bytes:
                            raise _too_large(bounds.body_bytes)
                        return bytes(part)
                    size += len(part)
                    if size > bounds.body_bytes:
                        raise _too_large(bounds.body_bytes)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            text = f"the body was not there after {bounds.body_s:g} s"
            raise ApiError("unavailable", text, status=408, headers=_CLOSE) from None

    # --- predictions -----------------------------------------------------------------------------------------------

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request, status = new_request_id(), 200
        try:
            if scope["method"] != "POST":
                raise ApiError("invalid", f"{scope['method']} is not possible here; send POST", status=405)
            headers = dict(scope["headers"])
            self._admit("/predict", headers)
            body = await self._answered(headers, await self._body(headers, receive), request)
        except ApiError as error:
            status, refused = error.status, error
        except TimeoutError:
            status = 503
            refused = ApiError("unavailable", "the model took too long; try again, or with fewer rows")
        except Exception as error:
            problem = str(error) if isinstance(error, ModelFailed) else traceback.format_exc()
            self.service.log("failed", request=request, model=str(self.service.served), problem=problem)
            status, refused = 500, errors.of_defect(request)
        self.service.counts.answered(status, time.perf_counter() - started)
        if status != 200:
            answer = refused.answer()
            answer.headers["x-request-id"] = request
            await answer(scope, receive, send)
            return
        length = str(len(body)).encode()
        sent = [*_COMMON, (b"content-length", length), (b"x-request-id", request.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, headers: dict[bytes, bytes], body: bytes, request: str) -> bytes:
        service = self.service
        served, bounds = service.served, service.config.bounds
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind == JSON and len(body) <= _PARSED_HERE_BYTES:
            columns, rows = parsed(kind, body, served.reader, bounds.rows)
        else:
            columns, rows = await run_in_threadpool(parsed, kind, body, served.reader, bounds.rows)
        answer = await service.predict(served, columns, rows)
        service.counts.add("rows", rows)
        log = service.predictions
        if log is not None and random.random() < service.config.log.sample:  # noqa: S311 - a sample, not a secret
            log.offer(
                Prediction(
                    time.time(), served.version, request, columns, rows, answer.outputs, answer.begin, answer.end
                )
            )
        found = {
            "predictions": as_json(answer.outputs, answer.begin, answer.end),
            "model": served.name,
            "version": served.version,
            "request": request,
        }
        try:
            return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        except TypeError:  # whole numbers beyond 64 bits, texts that are no Unicode
            return bytes(Json(found).body)


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Say that the process lives."""
        return Health(status="ok", model=str(service.served))

    @app.get("/ready", responses={503: {"model": errors.ErrorAnswer, "description": "The model is stuck."}})
    async def ready() -> Health:
        """Say whether requests will be answered."""
        if not service.is_ready:
            raise ApiError("unavailable", f"the model has been at one call for {service.batcher.busy_s:.0f} s")
        return Health(status="ready", model=str(service.served))

    @app.get("/metadata")
    async def metadata() -> Response:
        """Say which version is served, and what it takes and gives."""
        return Json(service.metadata())

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return figures in the text format of Prometheus, of all processes together."""
        served = service.served
        text = service.counts.text(served.name, served.version, served.hash, service.batcher.waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    @app.post("/feedback")
    async def feedback(given: Feedback) -> dict[str, int]:
        """Say what turned out to be true: the kept prediction is written once more, with its label."""
        folder = service.config.log.folder
        if folder is None:
            raise ApiError("not_found", "no predictions are kept here: start it with --log-sample above 0")
        if (given.labels is None) == (given.label is None):
            raise ApiError("invalid", "give either `label` or `labels`", status=422)
        every = dict(enumerate(given.labels)) if given.labels is not None else {given.row: given.label}
        known = {row: label for row, label in every.items() if label is not None}
        if any(isinstance(label, float) and label - label != 0 for label in known.values()):
            raise ApiError("invalid", "a label is no finite number", status=422)
        joined = await run_in_threadpool(add_labels, folder, given.request_id, known)
        service.counts.add("labels", joined)
        return {"joined": joined}

    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = dict(generated())
        document["paths"] = dict(document["paths"])
        add_predict(document, service.served)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def told(_request: Request, error: ApiError) -> Response:
        return error.answer()

    @app.exception_handler(RunstoneError)
    async def of_domain(_request: Request, error: RunstoneError) -> Response:
        return errors.of_domain(error).answer()

    @app.exception_handler(RequestValidationError)
    async def of_form(_request: Request, error: RequestValidationError) -> Response:
        return errors.of_validation(list(error.errors())).answer()

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        message = {404: f"there is nothing at {request.url.path!r:.200}", 405: f"{request.method} is not possible here"}
        text = message.get(error.status_code, str(error.detail))
        return errors.of_status(error.status_code, text, error.headers).answer()


def _too_large(most: int) -> ApiError:
    return ApiError("too_large", f"the body is larger than {most:,} bytes", headers=_CLOSE)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return messages.pop() if messages else await receive()

    return again
