"""Filters and orders that somebody made to do harm, S23 and S24: what a client says is bound, never part of SQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from runstone.errors import InvalidFilter, RunstoneError
from runstone.query import OpenIndex
from tests.server.conftest import World

MARK = "q7x"
S23 = [
    f"name = '{MARK}'' OR 1=1 --'",
    f"' OR 1=1 -- {MARK}",
    f'"; DROP TABLE runs {MARK}',
    f'metrics."{MARK}" OR ""=""',
    f'metrics.`{MARK}"; DROP TABLE runs` > 1',
    f"params.`{MARK}' --` = 1",
    f"tags.`{MARK})` = 'x'",
    f"name = '{MARK}' -- comment",
    f"name = '{MARK}' /* */",
    f"name LIKE '%{MARK}_%'",
    f"name = '{MARK}\0'",
    f"name = '{MARK}" + "a" * 10_000 + "'",
    "(" * 1_000 + f"name = '{MARK}'" + ")" * 1_000,
    f"name = '{MARK}'; SELECT 1",
    f"name in ('{MARK}', (select name from runs))",
    f"project = '{MARK}' AND name = \"{MARK}\"",
]
S24 = [
    f"name like '{MARK}" + "%" * 1_000 + "'",
    f"name like '{MARK}(a+)+$'",
    f"name matches '{MARK}(a+)+$'",
    f"name glob '{MARK}" + "*a" * 300 + "b'",
    f"name glob '{MARK}[[[[[[('",
]


class Recorded(sqlite3.Connection):
    """A connection that keeps the text of each statement."""

    statements: list[str] = []

    def execute(self, text: str, *bound: Any) -> sqlite3.Cursor:
        self.statements.append(text)
        return super().execute(text, *bound)

    def executemany(self, text: str, *bound: Any) -> sqlite3.Cursor:
        self.statements.append(text)
        return super().executemany(text, *bound)


@pytest.fixture
def index(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An index whose statements are kept."""
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *words, **how: connect(*words, **how, factory=Recorded))
    Recorded.statements.clear()
    with OpenIndex(world.workspace.path) as made:
        assert made.find_runs("").total >= 3
        yield made


@pytest.mark.parametrize("text", S23 + S24)
def test_s23_s24_a_filter_is_bound_or_refused_and_takes_no_time(index: OpenIndex, text: str) -> None:
    best, found, told = float("inf"), None, ""
    for _ in range(3):
        start = time.thread_time()
        try:
            found = index.find_runs(text)
        except InvalidFilter as error:
            told = str(error)
        best = min(best, time.thread_time() - start)
    assert found is None or found.total == 0
    assert len(told) < 3_000
    assert best < (0.05 if text in S23 else 0.2), f"{best * 1e3:.0f} ms"
    assert index.find_runs("").total >= 3
    assert Recorded.statements
    assert not [one for one in Recorded.statements if MARK in one.lower() or "drop table runs" in one.lower()]


@pytest.mark.parametrize(
    "order", [f"(select {MARK})", f"{MARK}; drop table runs", f"name desc, ({MARK}", "1", f'metrics.`{MARK}"` desc']
)
def test_s23_an_order_is_a_field_or_refused(index: OpenIndex, order: str) -> None:
    try:
        assert index.find_runs("", order_by=order).total >= 3
    except RunstoneError:
        assert "`" not in order
    assert not [one for one in Recorded.statements if MARK in one.lower()]
