"""Under which address a client has this server: some answers name an address that the client asks next."""

from __future__ import annotations

from fastapi import Request

from runstone.server.config import is_loopback
from runstone.server.forwarding import FORWARDED_HOST, IS_BELIEVED
from runstone.server.security import host_of

_TOLD_BY_PROXIES = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via")


def address_of(request: Request) -> str | None:
    """Return the address of this server as who asks has it, without a slash at its end.

    `None` where that cannot be known: a proxy stands between that is not believed, or that does not tell its own name.
    """
    scope = request.scope
    is_believed = bool(scope.get(IS_BELIEVED))
    if not is_believed and any(name in request.headers for name in _TOLD_BY_PROXIES):
        return None
    forwarded = scope.get(FORWARDED_HOST)
    host = str(forwarded or request.headers.get("host", ""))
    name = host_of(host)
    if name is None:
        return None
    client = str(request.client.host) if request.client else ""
    if is_believed and forwarded is None and is_loopback(name) and not is_loopback(client):
        return None  # the proxy asked for the server by a name of its own
    return f"{request.url.scheme}://{host}{scope.get('root_path', '')}"
