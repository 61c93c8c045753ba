"""Routes whose names may hold slashes: `%2F` in an address belongs to the name, a plain `/` ends it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

_SLASH = "\0"  # no name and no address holds it


class NamedRoute(APIRoute):
    """A route that tells `datasets/a%2Fdiff`, the dataset `a/diff`, from `datasets/a/diff`, a difference of `a`.

    Both are one path once they are decoded. Whoever writes the slashes of a name as they are is understood as before;
    the page and its links encode them.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether an address is meant for this route, and its names."""
        masked = _masked(scope)
        if masked is None:
            return super().matches(scope)
        match, child = super().matches({**scope, "path": masked})
        if match is not Match.NONE:
            child["path_params"] = {key: _named(value) for key, value in child["path_params"].items()}
        return match, child


def _masked(scope: Scope) -> str | None:
    """Return the path with its encoded slashes set apart; `None` where there are none, or nobody knows."""
    raw = scope.get("raw_path") or b""
    if scope["type"] != "http" or b"%2f" not in raw.lower():
        return None
    parts = raw.decode("latin-1").split("/")
    path = "/".join(unquote(part).replace("/", _SLASH) for part in parts)
    root = scope.get("root_path", "")
    plain = path.replace(_SLASH, "/")
    # a proxy may have taken a prefix off one of the two
    return next((made for made, whole in ((path, plain), (root + path, root + plain)) if whole == scope["path"]), None)


def _named(value: Any) -> Any:
    return value.replace(_SLASH, "/") if isinstance(value, str) else value
