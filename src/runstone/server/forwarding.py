"""Where a request comes from and under which address it was asked for, when a proxy stands between."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope

from runstone.server.config import ServerConfig

FORWARDED_HOST = "runstone.forwarded_host"
"""Key of the scope: the `Host` that the browser sent, where a proxy that is believed tells it."""

IS_BELIEVED = "runstone.is_believed"
"""Key of the scope: there where a proxy that is believed sends the request."""


def resolve(scope: Scope, config: ServerConfig) -> None:
    """Put into a scope what a proxy tells of it, and its path below the prefix into `runstone.path`.

    The gate looks at `runstone.path`, the routes at `path` below `root_path`: made here, both are the same, whether the
    proxy takes the prefix away before it asks or leaves it.
    """
    _set_path(scope, config.root_path or str(scope.get("root_path", "")))
    peer = scope.get("client")
    if peer and config.is_trusted_proxy(str(peer[0])):
        _believe(scope, config)


def _set_path(scope: Scope, root: str) -> None:
    path = str(scope["path"])
    raw = bytes(scope.get("raw_path") or path.encode())
    below, raw_below = _below(path, root), raw
    if below is not path:
        # As many bytes as make up the prefix, however they are written.
        parts = raw.split(b"/")
        count = root.count("/")
        if unquote(b"/".join(parts[: count + 1]).decode("latin-1")) == root:
            raw_below = b"/" + b"/".join(parts[count + 1 :])
    scope["runstone.path"] = below
    scope["path"], scope["raw_path"], scope["root_path"] = root + below, root.encode() + raw_below, root


def _below(path: str, root: str) -> str:
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def _believe(scope: Scope, config: ServerConfig) -> None:
    """Take over what a proxy tells: the client, the scheme and the host."""
    scope[IS_BELIEVED] = True
    addresses = _values(scope, b"x-forwarded-for")
    client = next((found for found in map(_address, reversed(addresses)) if not _is_proxy(found, config)), None)
    if client is not None:
        scope["client"] = (client, 0)
    scheme = _values(scope, b"x-forwarded-proto")[-1:]
    if scheme and scheme[0].lower() in ("http", "https"):
        scope["scheme"] = scheme[0].lower()
    host = _values(scope, b"x-forwarded-host")[-1:]
    if host:
        scope[FORWARDED_HOST] = host[0]


def _is_proxy(address: str | None, config: ServerConfig) -> bool:
    return address is not None and config.is_trusted_proxy(address)


def _values(scope: Scope, name: bytes) -> list[str]:
    """Return what headers of a name list, the nearest proxy's word last."""
    headers: list[tuple[bytes, Any]] = scope["headers"]
    found = b",".join(value for key, value in headers if key == name)
    return [part.strip() for part in found.decode("latin-1").split(",") if part.strip()]


def _address(text: str) -> str | None:
    """Return an address without its port and brackets, `None` where it is none."""
    text = text[1:].partition("]")[0] if text.startswith("[") else text
    for one in (text, text.rpartition(":")[0]):
        try:
            return str(ipaddress.ip_address(one))
        except ValueError:
            continue
    return None
