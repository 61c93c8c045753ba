"""What every request passes first: the negative tests of the security rules, by their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from starlette.websockets import WebSocketDisconnect

from tests.server.conftest import BASE, World

LOOKS = ["/", "/api/info", "/api/runs", "/static/x/y", "/metrics", "/api/openapi.json"]


@pytest.mark.parametrize("path", LOOKS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:6060", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_s7_a_foreign_host_is_refused(world: World, path: str, host: str) -> None:
    answer = world.client.get(path, headers={"Host": host, **world.headers("ann")})
    assert answer.status_code in (400, 421)
    assert answer.json()["error"]["code"] in ("forbidden", "invalid")


@pytest.mark.parametrize("host", ["127.0.0.1:6060", "localhost:6060", "[::1]:6060", "localhost", "LOCALHOST:1"])
def test_s7_names_of_this_machine_are_known(world: World, host: str) -> None:
    assert world.client.get("/api/info", headers={"Host": host, **world.headers("ann")}).status_code == 200


def test_s7_life_is_told_to_any_host(world: World) -> None:
    assert world.client.get("/healthz", headers={"Host": "10.1.2.3:80"}).text == "ok\n"


def test_s7_two_hosts_are_refused(world: World) -> None:
    headers = [("Host", "127.0.0.1:6060"), ("Host", "evil.example")]
    assert world.client.get("/api/info", headers=headers).status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:6061"},
        {"Origin": "garbage"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_s8_a_change_that_another_site_asks_for_is_refused(world: World, method: str, headers: dict[str, str]) -> None:
    path = f"/api/runs/{world.runs['first']}"
    answer = world.client.request(method, path, json={}, headers={**headers, **world.headers("ann")})
    assert answer.status_code == 403


def test_s8_the_own_site_may_ask(fresh: World) -> None:
    path = f"/api/runs/{fresh.runs['first']}"
    own = {"Origin": BASE, "Sec-Fetch-Site": "same-origin", **fresh.headers("ann")}
    assert fresh.client.patch(path, json={"notes": "x"}, headers=own).status_code == 200


def test_s9_there_are_no_web_sockets(world: World) -> None:
    with pytest.raises(WebSocketDisconnect), world.client.websocket_connect("/api/runs"):
        pass


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_s10_only_json_is_taken(world: World, kind: str) -> None:
    headers = {"Content-Type": kind, **world.headers("ann")}
    body = b'{"notes": "x"}'
    answer = world.client.patch(f"/api/runs/{world.runs['first']}", content=body, headers=headers)
    assert answer.status_code == 415


def test_s11_no_other_site_is_let_in(world: World) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PATCH", **world.headers("ann")}
    for answer in (world.client.options("/api/runs", headers=headers), world.client.get("/api/runs", headers=headers)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "//api/runs"),
        ("GET", "/API/runs"),
        ("GET", "/api/runs/"),
        ("GET", "/ajax-api/runs"),
        ("GET", "/static/../api/runs"),
        ("GET", "/api/../api/runs"),
        ("HEAD", "/api/runs"),
        ("OPTIONS", "/api/runs"),
        ("GET", "/api/login"),
        ("POST", "/healthz"),
        ("POST", "/"),
        ("POST", "/static/x"),
        ("PUT", "/api/login"),
    ],
)
def test_s16_no_other_way_to_write_a_path_avoids_the_door(world: World, method: str, path: str) -> None:
    scope_path = world.client.build_request(method, BASE + path)
    assert world.client.send(scope_path).status_code == 401


def test_s16_a_header_changes_no_method(world: World) -> None:
    headers = {"X-HTTP-Method-Override": "DELETE", **world.headers("vic")}
    assert world.client.get(f"/api/runs/{world.runs['first']}", headers=headers).status_code == 200


def test_a_method_that_is_not_known_is_refused(world: World) -> None:
    assert world.client.request("TRACE", "/api/runs", headers=world.headers("ann")).status_code == 405


def test_s20_who_guesses_tokens_has_to_wait(limited: Callable[..., World]) -> None:
    world = limited(wrong_tokens=20)
    wrong = {"Authorization": "Bearer wrong"}
    codes = [world.client.get("/api/info", headers=wrong).status_code for _ in range(25)]
    assert codes == [401] * 20 + [429] * 5
    answer = world.client.post("/api/login", json={"token": world.tokens["ann"]})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    world.client._transport.client = ("10.9.9.9", 1)  # type: ignore[attr-defined]
    assert world.client.get("/api/info", headers=world.headers("ann")).status_code == 200


BAD_BODIES = {
    "depth": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 200 + b"1" + b"}" * 200,
    "a key twice": b'{"notes": "a", "notes": "b"}',
    "a huge number": b'{"notes": 1e400}',
    "a huge integer": b'{"notes": %d}' % 2**70,
    "digits without end": b'{"notes": ' + b"9" * 100_000 + b"}",
    "NaN": b'{"notes": NaN}',
    "Infinity": b'{"notes": -Infinity}',
    "half a pair": b'{"notes": "\\ud800"}',
    "no UTF-8": b'{"notes": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"notes": "a"}',
    "half a body": b'{"notes": ',
    "a list": b"[1]",
    "nothing": b" ",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_s25_strange_json_is_refused(world: World, name: str) -> None:
    headers = {"Content-Type": "application/json", **world.headers("ann")}
    path = f"/api/runs/{world.runs['first']}"
    answer = world.client.patch(path, content=BAD_BODIES[name], headers=headers)
    assert answer.status_code == 400, name
    assert set(answer.json()) == {"error"}


def test_s26_a_large_body_is_refused_before_it_is_read(limited: Callable[..., World]) -> None:
    world = limited(body_bytes=1_000)
    headers = {"Content-Type": "application/json", **world.headers("ann")}
    path = f"/api/runs/{world.runs['first']}"
    assert world.client.patch(path, content=b" " * 1_001, headers=headers).status_code == 413

    parts = (b" " * 100 for _ in range(50))  # without Content-Length
    assert world.client.patch(path, content=parts, headers=headers).status_code == 413


def test_s26_a_wrong_length_is_refused(world: World) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "-1", **world.headers("ann")}
    path = f"/api/runs/{world.runs['first']}"
    assert world.client.patch(path, content=b"{}", headers=headers).status_code == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br", "gzip, gzip"])
def test_s27_nothing_is_unpacked(world: World, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding, **world.headers("ann")}
    path = f"/api/runs/{world.runs['first']}"
    assert world.client.patch(path, content=b"{}", headers=headers).status_code == 415


def test_s29_strange_headers_cost_nothing(world: World) -> None:
    file = f"/api/runs/{world.runs['first']}/artifacts/out%2Fput/file?path=table.csv"
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(5_000))
    assert world.client.get(file, headers={"Range": ranges, **world.headers("ann")}).status_code in (200, 416)
    kind = 'multipart/form-data; x="' + "\\" * 100_000
    path = f"/api/runs/{world.runs['first']}"
    answer = world.client.patch(path, content=b"{}", headers={"Content-Type": kind, **world.headers("ann")})
    assert answer.status_code in (400, 415)


def test_s39_a_defect_tells_nothing_of_the_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise ZeroDivisionError(f"/secret/place {world.workspace.path}")

    monkeypatch.setattr(world.server.state.index, "page_of_runs", broken)
    answer = world.client.get("/api/runs", headers=world.headers("ann"))
    assert answer.status_code == 500
    body = answer.text
    assert "secret/place" not in body
    assert "Traceback" not in body
    request_id = answer.headers["X-Request-Id"]
    assert request_id in body
    line = next(line for line in map(json.loads, world.log.getvalue().splitlines()) if line.get("id") == request_id)
    assert "ZeroDivisionError" in line["problem"]


@pytest.mark.parametrize("path", ["/", "/api/info", "/healthz", "/api/nothing", "/static/x/y.js"])
def test_s43_every_answer_has_the_headers_that_protect_it(world: World, path: str) -> None:
    headers = world.client.get(path, headers=world.headers("ann")).headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self';" in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in headers


def test_s36_names_cannot_write_lines_of_the_log(world: World) -> None:
    world.log.truncate(0)
    world.log.seek(0)
    world.client.get("/api/runs/a%0d%0aevil%1b[31m%e2%80%aex", headers=world.headers("ann"))
    told = world.log.getvalue()
    assert len(told.splitlines()) == 1
    assert told.isascii()
    assert "\x1b" not in told
    assert json.loads(told)["status"] == 404


def test_too_many_requests_of_one_address_are_put_off(limited: Callable[..., World]) -> None:
    world = limited(rate=0.001, burst=5)
    codes = [world.client.get("/healthz").status_code for _ in range(8)]
    assert codes == [200] * 5 + [429] * 3


def test_an_answer_that_does_not_begin_in_time_is_given_up(
    limited: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    world = limited(answer_s=0.2)
    waiting = threading.Event()
    monkeypatch.setattr(world.server.state.index, "fields", lambda _filter: waiting.wait(20) and [])
    answer = world.client.get("/api/fields", headers=world.headers("ann"))
    waiting.set()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
