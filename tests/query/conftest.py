"""What is asked here is asked of an index in a file, and of one on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests here: each workspace has tables of its own there."""
    yield from running()


@pytest.fixture(params=["file", "postgres"])
def place_of_index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the index lies."""
    if request.param == "postgres":
        monkeypatch.setenv("RUNSTONE_INDEX", request.getfixturevalue("postgres").url)
    return str(request.param)
