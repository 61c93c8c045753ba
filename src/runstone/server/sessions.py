"""The cookie by which a browser shows whose session it is in."""

from __future__ import annotations

from starlette.responses import Response

from runstone.server.auth import SESSION_S
from runstone.server.config import ServerConfig


def cookie_name(config: ServerConfig) -> str:
    """Return the name of the session's cookie: browsers share cookies between the ports of a host."""
    return f"runstone_session_{config.port}" if config.port else "runstone_session"


def set_session(answer: Response, config: ServerConfig, session: str, *, scheme: str) -> None:
    """Let a browser keep a session: no script can read it, and no other site sends it; after `https`, only by that."""
    answer.set_cookie(
        cookie_name(config),
        session,
        max_age=int(SESSION_S),
        path=config.root_path or "/",
        secure=scheme == "https",
        httponly=True,
        samesite="strict",
    )


def drop_session(answer: Response, config: ServerConfig) -> None:
    """Let a browser forget its session."""
    answer.delete_cookie(cookie_name(config), path=config.root_path or "/", httponly=True, samesite="strict")
