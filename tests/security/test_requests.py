"""Requests that somebody made to do harm, at every route: S7 to S11, S15 to S20, S25 to S29, S39."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from runstone.server.auth import hashed
from runstone.server.security import is_open
from tests.server.conftest import World
from tests.server.walking import asks, routes_of, sent

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
IS_LONG = bool(os.environ.get("RUNSTONE_SOAK"))


def test_s07_no_route_answers_under_a_foreign_name(world: World) -> None:
    ann = world.headers("ann")
    for method, path in asks(world):
        answer = sent(world, method, path, {**ann, "host": "evil.example:6060"})
        assert answer.status_code == (200 if path == "/healthz" else 421), (method, path)


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_s08_no_change_is_made_for_another_site(world: World, headers: dict[str, str]) -> None:
    seen = set()
    for method, path in asks(world):
        if method not in UNSAFE:
            continue
        told = {**world.headers("ann"), **headers, "content-type": "application/json"}
        assert sent(world, method, path, told, b"{}").status_code == 403, (method, path)
        seen.add(method)
    assert seen == set(UNSAFE)


def test_s08_what_a_proxy_says_of_the_host_counts_only_when_it_is_believed(world: World) -> None:
    told = {**world.headers("ann"), "origin": "http://evil.example", "x-forwarded-host": "evil.example"}
    path = f"/api/runs/{world.runs['first']}"
    assert sent(world, "PATCH", path, {**told, "content-type": "application/json"}, b"{}").status_code == 403


def test_s09_there_is_neither_a_web_socket_nor_a_stream_of_events(world: World) -> None:
    for path, route in routes_of(world.server.app):
        assert getattr(route, "methods", None), f"{path} is no route of HTTP"
    assert "text/event-stream" not in json.dumps(world.server.app.openapi())


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_s10_no_route_takes_json_under_another_name(world: World, kind: str) -> None:
    for method, path in asks(world):
        if method not in UNSAFE or "2.0/mlflow" in path:
            continue
        answer = sent(world, method, path, {**world.headers("ann"), "content-type": kind}, b'{"a": 1}')
        assert answer.status_code == 415, (method, path)
    for path in ("runs/create", "experiments/create", "runs/log-batch", "registered-models/create"):
        told = {**world.headers("ann"), "content-type": kind}
        assert sent(world, "POST", f"/api/2.0/mlflow/{path}", told, b"{}").status_code in (400, 415), path


def test_s11_a_preflight_of_another_site_is_told_nothing(world: World) -> None:
    told = {"origin": "http://evil.example", "access-control-request-method": "DELETE"}
    for _method, path in asks(world):
        answer = sent(world, "OPTIONS", path, told)
        assert not [name for name in answer.headers if name.startswith("access-control-")], path


def test_s16_no_method_and_no_way_to_write_a_path_avoids_the_door(world: World) -> None:
    for method, path in asks(world):
        if is_open(method, path) or path.startswith("/ajax-api/"):
            continue
        ways = {
            ("HEAD", path),
            ("OPTIONS", path),
            (method, f"/{path}"),
            (method, path + "/"),
            (method, path.upper()),
            (method, path.replace("/api/", "/static/../api/", 1)),
            (method, path.replace("/api/", "/%61pi/", 1)),
            (method, path.replace("/api/", "/./api/", 1)),
            (method, f"{path};x=/static/"),
            (method, f"{path}%00"),
        }
        for how, written in ways:
            told = {"x-http-method-override": "GET", "x-original-url": "/healthz", "x-rewrite-url": "/healthz"}
            answer = sent(world, how, written, told)
            is_page = written.startswith("/static/") and answer.status_code in (404, 405)
            assert answer.status_code == 401 or is_page, (how, written, answer.status_code)


def test_s17_a_run_of_another_project_is_nowhere(fresh: World) -> None:
    dan, hidden = fresh.headers("dan"), fresh.runs["hidden"]
    for method, path in asks(fresh, hidden):
        if hidden not in path or method == "HEAD":
            continue
        body = b"{}" if method in UNSAFE else b""
        for query in ("", "?metric=loss&path=table.csv&x=step"):
            answer = sent(fresh, method, path + query, {**dan, "content-type": "application/json"}, body)
            is_told_inside = path.endswith("/series") and b"there is no run" in answer.content
            assert answer.status_code in (400, 403, 404, 415) or is_told_inside, (method, path, answer.text[:200])
            assert b"hidden" not in answer.content.replace(hidden.encode(), b""), (method, path)
    lists = ["runs", "projects", "fields", "changes?cursor=", "complete?filter=&at=0", "compare?filter="]
    for path in lists:
        answer = sent(fresh, "GET", f"/api/{path}", dan)
        assert b"hidden" not in answer.content, path
        assert hidden.encode() not in answer.content, path
        assert b"secret" not in answer.content, path
    search = sent(
        fresh, "POST", "/api/2.0/mlflow/runs/search", {**dan, "content-type": "application/json"},
        json.dumps({"experiment_ids": [str(number) for number in range(10)]}).encode(),
    )  # fmt: skip
    assert hidden.encode() not in search.content


@pytest.mark.parametrize("token", ["", " ", "short", "x" * 15, "x" * 257, "null", "undefined", "rst_"])
def test_s18_no_short_or_empty_token_lets_anybody_in(world: World, token: str) -> None:
    assert sent(world, "GET", "/api/info", {"authorization": f"Bearer {token}"}).status_code == 401
    answer = world.client.post("/api/login", json={"token": token})
    assert answer.status_code in (400, 401)
    assert "set-cookie" not in answer.headers


def test_s19_the_time_of_a_wrong_token_tells_nothing_of_the_right_one(world: World) -> None:
    token, shared, spent = world.tokens["ann"], [], []
    rng = random.Random(1)
    for _ in range(10_000 if IS_LONG else 1_600):
        length = rng.randrange(32)
        guess = token[:length] + "".join(rng.choices("abcdefghij", k=len(token) - length))
        start = time.thread_time_ns()
        assert world.accounts.owner_of_token(hashed(guess)) is None
        spent.append(time.thread_time_ns() - start)
        shared.append(length)
    most = sorted(spent)[-len(spent) // 50]  # what else the machine did
    kept = [(a, b) for a, b in zip(shared, spent, strict=True) if b < most]
    r = statistics.correlation([a for a, _ in kept], [b for _, b in kept])
    assert abs(r) < 0.1, f"time and shared length go together: r = {r:.3f}"


def test_s20_a_right_token_from_elsewhere_works_while_wrong_ones_wait(limited: Callable[..., World]) -> None:
    world = limited(wrong_tokens=20)
    codes = [world.client.get("/api/info", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(25)]
    assert codes == [401] * 20 + [429] * 5
    from_elsewhere = {**world.headers("ann"), "x-forwarded-for": "10.9.9.9"}
    assert world.client.get("/api/info", headers=from_elsewhere).status_code == 429, "anybody can say where they are"
    world.client._transport.client = ("10.9.9.9", 1)  # type: ignore[attr-defined]
    assert world.client.get("/api/info", headers=world.headers("ann")).status_code == 200


def test_s25_a_body_of_keys_costs_little_memory(world: World) -> None:
    keys = b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}"
    told = {**world.headers("ann"), "content-type": "application/json"}
    path = f"/api/runs/{world.runs['first']}"
    largest = keys[: 1 << 20].rpartition(b",")[0] + b"}"
    tracemalloc.start()
    try:
        for body, code in ((keys, 413), (largest, 400), (b'{"notes":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert sent(world, "PATCH", path, told, body).status_code == code
            grown = tracemalloc.get_traced_memory()[1] - before
            assert grown < 50e6, f"{len(body)} bytes took {grown / 1e6:.0f} MB"
    finally:
        tracemalloc.stop()


def test_s26_a_body_without_end_is_cut_off(limited: Callable[..., World]) -> None:
    world, given = limited(body_bytes=100_000), 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while True:
            given += 10_000
            assert given < 10_000_000, "somebody still reads"
            yield b" " * 10_000

    headers = {"content-type": "application/json", **world.headers("ann")}
    answer = sent(world, "PATCH", f"/api/runs/{world.runs['first']}", headers, parts=endless())
    assert answer.status_code == 413, answer.text
    assert given <= 110_000
    assert world.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/api/runs/FIRST", "/api/2.0/mlflow/runs/create", "/api/sync/runs/x/pieces"])
@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity, gzip"])
def test_s27_no_route_unpacks_a_body(world: World, path: str, coding: str) -> None:
    headers = {**world.headers("ann"), "content-type": "application/json", "content-encoding": coding}
    method = "PATCH" if "FIRST" in path else "POST"
    answer = sent(world, method, path.replace("FIRST", world.runs["first"]), headers, b"\x1f\x8b" + bytes(1_000))
    assert answer.status_code == 415


def test_s29_many_ranges_odd_types_and_forms_cost_nothing(world: World) -> None:
    first, ann = world.runs["first"], world.headers("ann")
    file = f"/api/runs/{first}/artifacts/out%2Fput/file?path=table.csv"
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(5_000))
    form = b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % n for n in range(10_000))
    json_type = {"content-type": "application/json"}
    odd = {"content-type": 'multipart/form-data; x="' + "\\" * 100_000}
    long = {"cookie": "a=" + "\\" * 100_000, "authorization": "Basic " + "=" * 100_000}
    for code, method, path, headers, body in (
        ((200, 416), "GET", file, {"range": ranges}, b""),
        ((400, 415), "PATCH", f"/api/runs/{first}", odd, b"{}"),
        ((400, 413, 415), "POST", "/api/series", {"content-type": "multipart/form-data; boundary=x"}, form),
        ((400, 401), "GET", "/api/info", long, b""),
        ((400,), "POST", "/api/series", json_type, b'{"series":[' + b'{"run":"a","metric":"b"},' * 20_000 + b"0]}"),
    ):  # fmt: skip
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            answer = sent(world, method, path, {**ann, **headers}, body)
            best = min(best, time.process_time() - start)
            assert answer.status_code in code, (path, answer.status_code)
        assert best < 0.5, f"{method} {path:.60}: {best * 1e3:.0f} ms"


def test_s39_no_error_tells_of_the_machine(world: World) -> None:
    hostile = ["..", "%00", "'%22" + "a" * 300]
    told = [str(world.workspace.path), "Traceback", "sqlite", "SELECT ", "site-packages", ".py", "/tmp/"]
    for method, path in asks(world, other="x"):
        if path.startswith(("/api/users", "/api/tokens", "/api/log", "/static", "/ajax-api")) or path in (
            "/",
            "/metrics",
        ):
            continue
        for word in hostile:
            target = path.replace("/x", f"/{word}")
            body = b'{"x": "y"}' if method in UNSAFE else b""
            answer = sent(
                world, method, f"{target}?filter={word}&run={word}&ref={word}",
                {**world.headers("vic"), "content-type": "application/json"}, body,
            )  # fmt: skip
            assert answer.status_code < 500, (method, target, answer.text[:300])
            if answer.status_code >= 400 and method != "HEAD":
                assert not [one for one in told if one in answer.text], (method, target, answer.text[:300])
