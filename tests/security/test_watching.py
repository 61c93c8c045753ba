"""What the server tells of itself, and what becomes of that while its database is away."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable

import pytest

import runstone
from runstone.index.accounts import Accounts
from runstone.index.accounts_file import FILE
from runstone.server.logs import Counters
from tests.server.conftest import World
from tests.server.walking import sent


def lines_of(world: World, event: str) -> list[dict[str, object]]:
    return [line for line in map(json.loads, world.log.getvalue().splitlines()) if line["event"] == event]


@contextlib.contextmanager
def locked(world: World):  # type: ignore[no-untyped-def]
    """Keep everybody from writing into the accounts, as a backup that hangs would."""
    connection = sqlite3.connect(world.workspace.path / FILE, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def test_a_line_of_the_audit_log_that_finds_no_table_is_in_the_log(
    fresh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone.index.accounts_file._BUSY_S", 0.05)
    path = f"/api/runs/{fresh.runs['first']}"
    assert fresh.client.get("/api/info", headers=fresh.headers("mia")).status_code == 200  # notes that mia was here
    with locked(fresh):
        answer = fresh.client.patch(path, json={"notes": "x"}, headers=fresh.headers("mia"))
    assert answer.status_code == 200, "the change is made, and said to be"
    assert fresh.workspace.run(fresh.runs["first"]).notes == "x"
    told = lines_of(fresh, "audit")
    assert [(one["user"], one["action"], one["target"], one["status"]) for one in told] == [
        ("mia", "PATCH /api/runs/{run_id}", path, 200)
    ]
    assert "locked" in str(told[0]["problem"])
    metrics = fresh.client.get("/metrics", headers=fresh.headers("vic")).text
    assert "runstone_audit_lines_elsewhere_total 1" in metrics
    fresh.client.patch(path, json={"notes": "y"}, headers=fresh.headers("mia"))
    assert len(lines_of(fresh, "audit")) == 1
    assert [line.target for line in fresh.accounts.audit(user="mia")] == [path]


def test_nobody_is_let_in_while_it_cannot_be_told_who_they_are(fresh: World) -> None:
    place = fresh.workspace.path / FILE
    whole = place.read_bytes()
    place.write_bytes(b"no database" * 1_000)
    for _ in range(2):
        answer = fresh.client.get("/api/runs", headers=fresh.headers("ann"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert "Retry-After" in answer.headers
    assert fresh.client.get("/healthz").status_code == 200
    with pytest.raises(runstone.FormatError, match="backup"):
        Accounts(fresh.workspace.path).users()
    place.write_bytes(whole)
    assert fresh.client.get("/api/runs", headers=fresh.headers("ann")).status_code == 200


def test_accounts_of_a_newer_version_let_nobody_in_and_are_left_alone(fresh: World) -> None:
    place = fresh.workspace.path / FILE
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA user_version = 77")
    fresh.server.state.accounts._is_migrated = False
    answer = fresh.client.get("/api/runs", headers=fresh.headers("ann"))
    assert answer.status_code == 503
    assert "upgrade" in answer.json()["error"]["message"]
    with contextlib.closing(sqlite3.connect(place)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (77,)


def test_who_has_not_said_who_they_are_fills_no_table(fresh: World) -> None:
    before = len(fresh.accounts.audit())
    for _ in range(5):
        assert sent(fresh, "POST", "/api/runs/bulk", {"content-type": "application/json"}, b"{}").status_code == 401
    assert len(fresh.accounts.audit()) == before
    assert len(lines_of(fresh, "request")) >= 5, "they are in the log"


def test_every_figure_for_prometheus_is_explained_and_whole(world: World) -> None:
    world.client.get("/api/info", headers=world.headers("ann"))
    world.client.get("/api/info", headers={"Authorization": "Bearer wrong"})
    world.client.patch(f"/api/runs/{world.runs['first']}", json={"x": 1}, headers=world.headers("ann"))
    text = world.client.get("/metrics", headers=world.headers("vic")).text
    assert text.endswith("\n")
    names, helped, typed = set(), set(), {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            typed[line.split()[2]] = line.split()[3]
        else:
            found = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (-?[0-9.e+-]+)', line)
            assert found is not None, line
            names.add(re.sub("_(bucket|sum|count)$", "", found[1]) if "seconds" in found[1] else found[1])
    assert names == helped == set(typed)
    assert all((kind == "counter") == name.endswith("_total") for name, kind in typed.items())
    for name in ("runstone_wrong_tokens_total", "process_resident_memory_bytes", "runstone_http_sent_bytes_total"):
        value = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert value is not None
        assert float(value[1]) > 0, name


def test_no_client_makes_new_series(world: World) -> None:
    for number in range(30):
        world.client.request(f"ODD{number}", "/api/info")
        world.client.get(f"/api/runs/none{number}", headers=world.headers("ann"))
        world.client.get(f"/nothing/{number}")
    text = world.client.get("/metrics", headers=world.headers("vic")).text
    assert "ODD" not in text
    assert "none1" not in text
    assert "/nothing" not in text
    assert 'method="other"' in text


def test_names_of_routes_cannot_end_a_label() -> None:
    counters = Counters()
    counters.note("GET", 'a"b\\c\nd', 200, 0.1)
    line = next(line for line in counters.text("1").splitlines() if line.startswith("runstone_http_requests_total{"))
    assert line == 'runstone_http_requests_total{method="GET",route="a\\"b\\\\c\\nd",status="200"} 1'


def test_life_is_told_while_all_threads_wait(limited: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    world = limited(threads=3)
    waiting, begun = threading.Event(), []
    monkeypatch.setattr(
        world.server.state.index, "fields", lambda _filter: begun.append(1) or (waiting.wait(60) and [])
    )
    asked = [
        threading.Thread(target=lambda: world.client.get("/api/fields", headers=world.headers("ann"))) for _ in range(3)
    ]
    for one in asked:
        one.start()
    try:
        limit = time.monotonic() + 30
        while len(begun) < 3 and time.monotonic() < limit:
            time.sleep(0.01)
        assert len(begun) == 3
        assert world.client.get("/healthz").text == "ok\n"
    finally:
        waiting.set()
        for one in asked:
            one.join(60)
