"""Who may do what: every route is walked, and nobody sees what is not theirs."""

from __future__ import annotations

import ast
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from runstone.index import accounts as accounts_module
from runstone.server import auth
from runstone.server.auth import WrongTokens, hashed, new_token
from runstone.server.errors import ApiError
from runstone.server.roles import Principal, Role
from runstone.server.security import is_open
from tests.server.conftest import World
from tests.server.walking import asks, routes_of

SRC = Path(auth.__file__).parents[1]


def test_the_walk_finds_the_routes(world: World) -> None:
    paths = {path for _method, path in asks(world)}
    assert {"/", "/healthz", "/metrics", "/api/runs", "/api/openapi.json", "/api/models/x"} <= paths
    described = set(world.server.app.openapi()["paths"])
    assert len(described) >= 50


def test_s15_every_route_asks_who_is_there(world: World) -> None:
    expired = new_token()
    world.accounts.add_token("ann", hashed(expired), lasts_s=-1.0)
    revoked = new_token()
    world.accounts.revoke_token(world.accounts.add_token("ann", hashed(revoked)))
    told = [
        {},
        {"Authorization": f"Bearer {expired}"},
        {"Authorization": f"Bearer {revoked}"},
        {"Authorization": f"Basic {world.tokens['ann']}"},
        {"Cookie": "runstone_session_6060=wrong"},
    ]
    exempt = set()
    for method, path in asks(world):
        for headers in told:
            answer = world.client.request(method, path, headers=headers)
            if answer.status_code not in (401, 403, 429):
                exempt.add((method, path))
    pages = {("GET", path) for path in ("/", "/healthz", "/health", "/static/x/x")}
    assert exempt == {*pages, ("POST", "/api/login")}
    assert is_open("POST", "/api/login")


def test_s15_a_user_without_a_role_reaches_nothing(world: World) -> None:
    for method, path in asks(world):
        if is_open(method, path):
            continue
        answer = world.client.request(method, path, headers=world.headers("out"))
        is_allowed = path == "/api/openapi.json"  # what the API looks like is no secret of a project
        assert answer.status_code == 403 or is_allowed, (method, path, answer.status_code)


def test_every_route_says_who_may_use_it(world: World) -> None:
    for path, route in routes_of(world.server.app):
        if isinstance(route, APIRoute):
            told = route.openapi_extra or {}
            assert told.get("x-open") or told.get("x-role") in set(Role), path


def test_s17_who_may_only_look_changes_nothing(world: World) -> None:
    for method, path in asks(world):
        if method in ("GET", "HEAD") or path in ("/api/login", "/api/logout"):
            continue
        questions = ("/api/series", "/api/reports/preview", "s/search", "/search-datasets", "/get-latest-versions")
        if method == "POST" and path.endswith(questions):
            continue  # questions with a body
        answer = world.client.request(method, path, headers=world.headers("vic"))
        assert answer.status_code == 403, (method, path)


def test_s17_runs_of_other_projects_are_not_there(world: World) -> None:
    dan, hidden = world.headers("dan"), world.runs["hidden"]
    ask = world.client.get
    assert {*ask("/api/runs", headers=dan).json()["ids"]} == {world.runs["first"], world.runs["second"]}
    assert ask("/api/runs", headers=dan).json()["total"] == 2
    assert [one["name"] for one in ask("/api/projects", headers=dan).json()["projects"]] == ["digits"]
    for path in (
        "",
        "/console",
        "/environment",
        "/patch",
        "/doctor",
        "/records",
        "/records/val%2Fpicture/3/0",
        "/artifacts/out%2Fput",
        "/artifacts/out%2Fput/file?path=table.csv",
        "/artifacts/out%2Fput/preview?path=table.csv",
        "/artifacts/out%2Fput/zip",
        "/series?metric=loss",
    ):
        answer = ask(f"/api/runs/{hidden}{path}", headers=dan)
        is_told_inside = path.startswith("/series")
        assert (b"there is no run" in answer.content) if is_told_inside else answer.status_code == 404, path
    both = f"run={world.runs['first']}&run={hidden}"
    assert ask(f"/api/compare?{both}", headers=dan).status_code == 404
    assert hidden not in ask("/api/compare?filter=", headers=dan).text
    assert ask(f"/api/runs/{world.runs['first']}/environment/diff/{hidden}", headers=dan).status_code == 404
    for way in ("filter", "group_by"):
        extra = "filter=project%3D'secret'%20or%20project%3D'digits'" if way == "filter" else "group_by=project"
        assert "secret" not in ask(f"/api/runs?{extra}", headers=dan).text
    assert ask("/api/runs?filter=project%3D'secret'", headers=dan).json()["total"] == 0
    assert ask("/api/runs?filter=name%3D'x')%20or%20(project%3D'secret'", headers=dan).status_code == 400
    assert ask("/api/models", headers=dan).status_code == 403
    assert ask("/api/lineage?ref=" + hidden, headers=dan).status_code == 403
    assert ask("/api/fields", headers=dan).text.count('"runs":3') == 0
    assert ask("/api/changes", headers=dan).status_code == 200


def test_s17_changes_stay_inside_of_a_project(fresh: World) -> None:
    dan, hidden = fresh.headers("dan"), fresh.runs["hidden"]
    assert fresh.client.patch(f"/api/runs/{hidden}", json={"notes": "x"}, headers=dan).status_code == 404
    bulk = {"ids": [fresh.runs["first"], hidden], "edits": {"notes": "x"}}
    assert fresh.client.post("/api/runs/bulk", json=bulk, headers=dan).status_code == 404
    everything = {"filter": "", "edits": {"notes": "x"}}
    answer = fresh.client.post("/api/runs/bulk", json=everything, headers=dan).json()
    assert sorted(answer["ids"]) == sorted([fresh.runs["first"], fresh.runs["second"]])
    assert fresh.workspace.run(hidden).notes is None
    assert fresh.client.delete(f"/api/runs/{fresh.runs['first']}", headers=dan).status_code == 403
    hide = {"filter": "", "edits": {"deleted": True}}
    assert fresh.client.post("/api/runs/bulk", json=hide, headers=dan).json()["ids"] == []
    undo = {"undo": [{"run_id": hidden, "notes": "y"}]}
    assert fresh.client.post("/api/runs/undo", json=undo, headers=dan).status_code == 404


def test_s19_tokens_are_compared_in_a_time_that_tells_nothing() -> None:
    for module, name in ((auth, "redeem"), (auth, "principal_of"), (accounts_module, "_owner")):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
        calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
        assert "hmac.compare_digest" in calls, name


def test_s19_how_much_of_a_token_is_right_does_not_show(world: World) -> None:
    token = world.tokens["ann"]
    times: dict[int, list[int]] = {length: [] for length in range(0, 32, 4)}
    for _ in range(40):
        for length, found in times.items():
            guess = hashed(token[:length] + "x" * (len(token) - length))
            start = time.thread_time_ns()
            assert world.accounts.owner_of_token(guess) is None
            found.append(time.thread_time_ns() - start)
    medians = [statistics.median(found) for found in times.values()]
    assert max(medians) < 2 * min(medians)


def test_s21_s22_tokens_are_nowhere_but_with_their_owners(fresh: World) -> None:
    token = fresh.tokens["ann"]
    answer = fresh.client.post("/api/login", json={"token": token})
    session = fresh.client.cookies["runstone_session_6060"]
    key = fresh.keys.new_key()
    fresh.client.get("/", params={"key": "wrong" + key})
    fresh.client.get("/api/nothing", headers=fresh.headers("ann"))
    texts = [answer.text, fresh.log.getvalue(), fresh.client.get("/").text]
    texts += [fresh.client.get("/api/tokens", headers=fresh.headers("ann")).text]
    for path in fresh.workspace.path.rglob("*"):
        if path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
    for secret in (token, session, key):
        assert not [text[:80] for text in texts if secret in text]


def test_a_session_begins_with_a_token_and_ends_with_it(fresh: World) -> None:
    client = fresh.client
    assert client.post("/api/login", json={"token": "wrong"}).status_code == 401
    answer = client.post("/api/login", json={"token": fresh.tokens["mia"]})
    assert answer.json()["user"] == {"name": "mia", "role": "maintainer", "roles": {"*": "maintainer"}}
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.get("/api/info").json()["user"]["name"] == "mia"
    path = f"/api/runs/{fresh.runs['first']}"
    assert client.patch(path, json={"notes": "x"}).status_code == 403  # another site could send a cookie along
    assert client.patch(path, json={"notes": "x"}, headers={"X-Runstone": "1"}).status_code == 200
    number = next(one.id for one in fresh.accounts.tokens() if one.user == "mia")
    fresh.accounts.revoke_token(number)
    assert client.get("/api/info").status_code == 401


def test_logging_out_ends_the_session(fresh: World) -> None:
    client = fresh.client
    client.post("/api/login", json={"token": fresh.tokens["vic"]})
    cookie = client.cookies["runstone_session_6060"]
    assert client.post("/api/logout", headers={"X-Runstone": "1"}).status_code == 200
    client.cookies.set("runstone_session_6060", cookie)
    assert client.get("/api/info").status_code == 401


def test_the_key_that_is_printed_opens_the_page_once(fresh: World) -> None:
    key = fresh.keys.new_key()
    answer = fresh.client.get("/", params={"key": key, "page": "runs"})
    assert (answer.status_code, answer.headers["location"]) == (303, "./?page=runs")
    assert fresh.client.get("/api/info").json()["user"] == {"name": "me", "role": "admin", "roles": {"*": "admin"}}
    fresh.client.cookies.clear()
    assert "set-cookie" not in fresh.client.get("/", params={"key": key}).headers
    assert fresh.client.get("/api/info").status_code == 401


def test_guessing_the_key_is_counted(limited: Callable[..., World]) -> None:
    fresh = limited(wrong_tokens=20)
    for _ in range(20):
        fresh.client.get("/", params={"key": "wrong"})
    assert fresh.client.get("/", params={"key": fresh.keys.new_key()}).status_code == 429


def test_wrong_tokens_are_forgotten_after_a_while() -> None:
    now = [0.0]
    wrong = WrongTokens(3, 60.0, clock=lambda: now[0])
    for _ in range(3):
        wrong.check("a")
        wrong.note("a")
    with pytest.raises(ApiError):
        wrong.check("a")
    wrong.check("b")
    now[0] = 61.0
    wrong.check("a")


def test_what_is_changed_is_noted_with_who_did(fresh: World) -> None:
    path = f"/api/runs/{fresh.runs['first']}"
    fresh.client.patch(path, json={"notes": "x"}, headers=fresh.headers("mia"))
    fresh.client.patch(path, json={"notes": "x"}, headers=fresh.headers("vic"))
    fresh.client.post("/api/login", json={"token": "wrong"})
    lines = fresh.client.get("/api/audit", headers=fresh.headers("ann")).json()["lines"]
    told = [(line["user"], line["action"], line["target"], line["status"]) for line in lines[:3]]
    assert told == [
        ("nobody", "POST /api/login", "/api/login", 401),
        ("vic", "PATCH /api/runs/{run_id}", path, 403),
        ("mia", "PATCH /api/runs/{run_id}", path, 200),
    ]


def test_a_decision_about_a_model_is_made_in_the_name_of_who_made_it(fresh: World) -> None:
    fresh.workspace.register_model("net", fresh.runs["first"], artifact="out/put")
    version = str(fresh.workspace.models.get("net").find("latest").version)
    path = f"/api/models/net/versions/{version}"
    assert (
        fresh.client.post(f"{path}/approve", json={"reason": "good"}, headers=fresh.headers("dan")).status_code == 403
    )
    answer = fresh.client.post(f"{path}/approve", json={"reason": "good"}, headers=fresh.headers("mia"))
    assert answer.json()["versions"][0]["approval"]["by"] == "mia"
    assert answer.json()["history"][-1]["by"]["user"] == "mia"


def test_roles_include_those_below() -> None:
    somebody = Principal("x", {"a": Role.MAINTAINER, "*": Role.VIEWER})
    assert somebody.may(Role.CONTRIBUTOR, "a")
    assert not somebody.may(Role.CONTRIBUTOR, "b")
    assert somebody.may(Role.VIEWER, "b")
    assert not somebody.may(Role.ADMIN, "a")
    assert somebody.projects(Role.VIEWER) is None
    assert somebody.projects(Role.CONTRIBUTOR) == {"a"}
    assert somebody.highest is Role.MAINTAINER


def test_s38_accounts_are_for_their_owner_only(fresh: World) -> None:
    before = os.umask(0)
    try:
        fresh.accounts.path.unlink()
        accounts = accounts_module.Accounts(fresh.workspace.path)
        accounts.add_user("x")
        accounts.note("x", "y")
    finally:
        os.umask(before)
    for path in fresh.workspace.path.glob("accounts.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_s44_routes_of_the_current_folder_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    from runstone.server.app import installed_routers

    told = tmp_path / "evil-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[runstone.routes]\nevil = evil_routes:make\n")
    (tmp_path / "evil_routes.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\nmake = None\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    told_lines: list[str] = []
    installed_routers(lambda _request: world.workspace, lambda event, **fields: told_lines.append(fields["entry"]))  # type: ignore[arg-type]
    assert "evil_routes:make" in told_lines
    assert not (tmp_path / "canary").exists()
