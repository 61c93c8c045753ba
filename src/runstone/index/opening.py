"""Which index a workspace has: the file in its folder, or tables on a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path

from runstone import settings
from runstone.errors import InvalidConfig
from runstone.index.store import Index

IDENTITY = "index.id"
"""File with the name of the workspace on database servers: a random word."""
_SCHEMES = ("postgresql://", "postgres://")


def open_index(
    workspace: Path, database: str | None = None, *, refresh_s: float = 0.0, stays_open: bool = True
) -> Index:
    """Return the index of a workspace. A handle: close it, or use it in a `with` block.

    Args:
        workspace: Its folder.
        database: Address of a PostgreSQL database, such as `postgresql://runstone@db/runstone`; default: what
            `RUNSTONE_INDEX` names, else the file in the workspace.
        refresh_s, stays_open: As `Index` takes them.

    Raises:
        InvalidConfig: the address is none, or what is needed for it is not installed.
    """
    address = database_of(database)
    if address is None:
        return Index(workspace, refresh_s=refresh_s, stays_open=stays_open)
    from runstone.index.postgres import PostgresIndex  # an extra

    return PostgresIndex(workspace, address, refresh_s=refresh_s, stays_open=stays_open)


def database_of(given: str | None) -> str | None:
    """Return the address of the database that is meant, `None` where files are.

    Raises:
        InvalidConfig: it is no address of one, or what is needed for it is not installed.
    """
    address = given or settings.read("RUNSTONE_INDEX")
    if address is None:
        return None
    if not address.startswith(_SCHEMES):
        raise InvalidConfig(
            f"an index lies in PostgreSQL (postgresql://user@host/database) or in the workspace, not at "
            f"{address.partition('://')[0]!r:.40}"
        )
    try:
        import psycopg  # noqa: F401 (only whether it is there)
    except ImportError as error:
        raise InvalidConfig(
            f"an index in PostgreSQL needs {error.name or 'psycopg'!r}: pip install 'runstone[postgres]'"
        ) from None
    return address


def identity_of(workspace: Path) -> str:
    """Return the name of a workspace on database servers, made where it has none."""
    path = workspace / IDENTITY
    for _ in range(2):
        try:
            return path.read_text("ascii").strip()
        except FileNotFoundError:
            made = path.with_name(f"{IDENTITY}.{os.getpid()}.{os.urandom(4).hex()}")
            made.write_text(f"{os.urandom(8).hex()}\n", "ascii")
            try:
                os.link(made, path)  # whole, and by one of those who try at once
            except FileExistsError:
                pass
            finally:
                made.unlink()
    raise FileNotFoundError(path)
