"""All routes of an application, and requests exactly as they are written: no client tidies their paths."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import httpx2

from tests.server.conftest import BASE, World


def routes_of(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all routes with their whole path, those of included routers too."""
    for route in owner.routes:
        inner = getattr(route, "original_router", None) or (route if hasattr(route, "routes") else None)
        if inner is not None:
            included = getattr(route, "include_context", None)
            yield from routes_of(inner, prefix + (included.prefix if included is not None else ""))
        else:
            yield prefix + route.path, route


def asks(world: World, run_id: str | None = None, other: str = "x") -> list[tuple[str, str]]:
    """Return each method and path of the application, with something for each param.

    Args:
        world: The server.
        run_id: What stands for runs; default: one that is there.
        other: What stands for everything else that has a name.
    """
    found = []
    for path, route in routes_of(world.server.app):
        path = re.sub(r"\{(run_id|other_id)\}", run_id or world.runs["first"], path)
        path = re.sub(r"\{(number|step|index)\}", "1", path)
        path = re.sub(r"\{\w+(:path)?\}", other, path)
        found += [(method, path) for method in sorted(route.methods or {"GET"})]
    return found


def sent(
    world: World,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    parts: Iterator[bytes] | None = None,
) -> httpx2.Response:
    """Send a request whose path stays as it is written, as somebody with a socket could.

    Args:
        world: The server.
        method, target, headers, body: Of the request; the target is its path and query.
        parts: The body as it comes, without its length, in place of `body`.
    """
    path, _, query = target.partition("?")
    told = {"host": BASE.removeprefix("http://"), **{name.lower(): value for name, value in (headers or {}).items()}}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path, "latin-1") if "\0" in unquote(path) else unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in told.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 6060),
    }
    messages: list[dict[str, Any]] = []

    async def answered() -> None:
        waiting = iter([*([body] if body else []), b""]) if parts is None else parts
        is_over = False

        async def receive() -> dict[str, Any]:
            nonlocal is_over
            if is_over:
                await asyncio.Event().wait()  # the client stays until it has its answer
            part = next(waiting, b"")
            is_over = not part
            return {"type": "http.request", "body": part, "more_body": not is_over}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await world.server(scope, receive, send)

    assert world.client.portal is not None
    world.client.portal.call(answered)
    content = b"".join(one.get("body", b"") for one in messages[1:])
    return httpx2.Response(messages[0]["status"], headers=messages[0]["headers"], content=content)
