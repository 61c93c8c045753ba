"""What each area of the API answers, held against the forms that it promises."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import TypeAdapter

import runstone
from runstone.server.api import admin, artifacts, catalog, compare, details, models, reports, runs
from runstone.server.errors import ErrorAnswer, without_places
from runstone.server.jsons import dumps
from tests.server.conftest import World

FORMS: list[tuple[str, Any]] = [
    ("/api/info", models.Info),
    ("/api/projects", models.Projects),
    ("/api/changes", models.Changes),
    ("/api/fields", models.Fields),
    ("/api/fields?kind=metrics&filter=name='first'", models.Fields),
    ("/api/complete?filter=metrics.lo&at=10", models.Completions),
    ("/api/runs", models.RunsPage),
    ("/api/runs?columns=metrics.loss.min&columns=params.lr&order_by=name&limit=1&offset=1", models.RunsPage),
    ("/api/runs?group_by=project&columns=metrics.loss", models.RunsPage),
    ("/api/runs/FIRST", models.RunOut),
    ("/api/runs/FIRST/console", details.Console),
    ("/api/runs/FIRST/doctor", details.Diagnosis),
    ("/api/runs/FIRST/records", artifacts.Records),
    ("/api/runs/FIRST/records?name=val/picture", artifacts.Records),
    ("/api/runs/FIRST/records?name=words", artifacts.Records),
    ("/api/runs/FIRST/artifacts/out%2Fput", artifacts.ArtifactFiles),
    ("/api/datasets", catalog.Datasets),
    ("/api/datasets/data", catalog.WithHistory),
    ("/api/datasets/data/versions/1", catalog.Answer),
    ("/api/datasets/data/diff?a=1&b=latest&rows=1", catalog.Answer),
    ("/api/datasets/data/profile", catalog.Answer),
    ("/api/models", catalog.Models),
    ("/api/models/net", catalog.WithHistory),
    ("/api/models/net/versions/latest", catalog.Answer),
    ("/api/models/net/versions/latest/card", catalog.Card),
    ("/api/models/net/compare?a=latest&b=latest", catalog.Answer),
    ("/api/lineage?ref=model:net@latest", catalog.LineageOut),
    ("/api/compare?run=FIRST&run=SECOND&metrics=loss", dict[str, Any]),
    ("/api/compare?filter=project='digits'&metrics=loss&by=params.lr", dict[str, Any]),
    ("/api/figures/curves?run=FIRST&run=SECOND&metric=loss&theme=dark", compare.FigureOut),
    ("/api/reports", reports.Listed),
    ("/api/reports/how%20it%20went", reports.Whole),
    ("/api/views", compare.Views),
    ("/api/views/a%2Fb", compare.ViewOut),
    ("/api/users", admin.Users),
    ("/api/tokens", admin.Tokens),
    ("/api/audit", admin.AuditLog),
]


@pytest.fixture(scope="module")
def filled(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with a dataset of two versions, a model and a view."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "rows.csv").write_text("x,y\n1,2\n")
    world.workspace.datasets.add(folder, name="data")
    (folder / "rows.csv").write_text("x,y\n1,2\n5,6\n")
    world.workspace.datasets.add(folder, name="data")
    world.workspace.register_model("net", world.runs["first"], artifact="out/put")
    view = {"filter": "metrics.loss < 1", "columns": ["params.lr"], "charts": [{"x": "step"}]}
    answer = world.client.put("/api/views/a%2Fb", json=view, headers=world.headers("ann"))
    assert answer.status_code == 200
    text = {"text": "# Well\n\n<script>alert(1)</script>\n\n```runs\nlimit: 2\n```\n"}
    answer = world.client.put("/api/reports/how%20it%20went", json=text, headers=world.headers("ann"))
    assert answer.status_code == 200, answer.text
    return world


@pytest.mark.parametrize(("path", "form"), FORMS, ids=[path for path, _form in FORMS])
def test_an_answer_has_the_form_that_is_promised(filled: World, path: str, form: Any) -> None:
    path = path.replace("FIRST", filled.runs["first"]).replace("SECOND", filled.runs["second"])
    answer = filled.client.get(path, headers=filled.headers("ann"))
    assert answer.status_code == 200, answer.text
    adapter = TypeAdapter(form)
    adapter.validate_json(answer.content, strict=False)
    if hasattr(form, "model_fields") and form.model_config.get("extra") != "allow":
        assert set(answer.json()) <= set(form.model_fields)


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/nobody",
        "/api/runs?filter=lost%20%3D%201",
        "/api/runs?limit=-1",
        "/api/nothing",
        "/api/models/lost",
        "/api/datasets/lost",
        "/api/views/lost",
        "/api/compare?run=nobody",
        "/api/compare",
        "/api/figures/lost",
        "/api/lineage?ref=nobody",
        "/api/runs/FIRST/environment",
        "/api/runs/FIRST/records/lost/1/0",
    ],
)
def test_every_error_has_one_form(filled: World, path: str) -> None:
    answer = filled.client.get(path.replace("FIRST", filled.runs["first"]), headers=filled.headers("ann"))
    assert 400 <= answer.status_code < 500
    told = ErrorAnswer.model_validate_json(answer.content)
    assert set(answer.json()) == {"error"}
    assert told.error.message
    assert str(filled.workspace.path) not in answer.text


def test_a_filter_that_does_not_parse_says_where(world: World) -> None:
    answer = world.client.get("/api/runs?filter=name%20%3D%20", headers=world.headers("ann"))
    assert answer.json()["error"]["details"] == {"position": 7}


S23 = [
    "' OR 1=1 --",
    '"; DROP TABLE runs',
    'metrics."a" OR ""=""',
    "name = 'x' -- comment",
    "name = 'x' /* */",
    "name LIKE '%'",
    "name = '\0'",
    "name = '" + "a" * 9_000 + "'",
    "(" * 1_000 + "name = 'x'" + ")" * 1_000,
    "name = 'x'; SELECT 1",
    "name in (select name from runs)",
]
S24 = ["name like '" + "%" * 1_000 + "'", "name like '(a+)+$'", "name glob '" + "*a" * 300 + "'", "name glob '[[[[[[('"]


@pytest.mark.parametrize("text", S23 + S24)
def test_s23_s24_hostile_filters_are_refused_or_find_what_they_say(world: World, text: str) -> None:
    spent = time.process_time()
    answer = world.client.get("/api/runs", params={"filter": text}, headers=world.headers("ann"))
    assert time.process_time() - spent < 1.0
    assert answer.status_code in (200, 400)
    if answer.status_code == 200 and "%" not in text:
        assert answer.json()["total"] == 0
    assert world.client.get("/api/runs", headers=world.headers("ann")).json()["total"] == 3


@pytest.mark.parametrize("order", ["(select 1)", "name; drop table runs", "name desc, (", "1"])
def test_s23_hostile_orders_are_refused(world: World, order: str) -> None:
    answer = world.client.get("/api/runs", params={"order_by": order}, headers=world.headers("ann"))
    assert answer.status_code == 400


def test_numbers_that_json_lacks_are_words(world: World) -> None:
    ann = world.headers("ann")
    told = world.client.get(f"/api/runs/{world.runs['first']}", headers=ann).json()
    assert told["metrics"]["odd"]["last"] == "NaN"
    page = world.client.get("/api/runs?columns=metrics.odd", headers=ann).json()
    assert set(page["columns"]["metrics.odd"]) <= {"NaN", None}
    assert json.loads(dumps({"a": [float("inf"), -float("inf"), float("nan"), 1.5]})) == {
        "a": ["Infinity", "-Infinity", "NaN", 1.5]
    }


def test_a_run_is_edited_and_the_edit_taken_back(fresh: World) -> None:
    mia, run_id = fresh.headers("mia"), fresh.runs["first"]
    edits = {"name": "better", "notes": "**x**", "set_tags": {"a": "b"}, "pinned": True, "group": "g"}
    answer = fresh.client.patch(f"/api/runs/{run_id}", json=edits, headers=mia).json()
    runs.Edited.model_validate(answer)
    told = fresh.client.get(f"/api/runs/{run_id}", headers=mia).json()
    assert [told[name] for name in ("name", "notes", "tags", "pinned", "group")] == [
        "better",
        "**x**",
        {"a": "b"},
        True,
        "g",
    ]
    fresh.client.post("/api/runs/undo", json={"undo": answer["undo"]}, headers=mia)
    told = fresh.client.get(f"/api/runs/{run_id}", headers=mia).json()
    assert [told[name] for name in ("name", "notes", "tags", "pinned", "group")] == ["first", None, {}, False, None]


def test_many_runs_are_edited_at_once_after_a_look(fresh: World) -> None:
    mia = fresh.headers("mia")
    wanted = {"filter": "project = 'digits'", "edits": {"archived": True}, "dry_run": True}
    assert fresh.client.post("/api/runs/bulk", json=wanted, headers=mia).json()["count"] == 2
    assert fresh.client.get("/api/runs", headers=mia).json()["total"] == 3
    fresh.client.post("/api/runs/bulk", json=wanted | {"dry_run": False}, headers=mia)
    assert fresh.client.get("/api/runs", headers=mia).json()["total"] == 1
    assert fresh.client.get("/api/runs?archived=all", headers=mia).json()["total"] == 3
    assert fresh.client.get("/api/runs?archived=1", headers=mia).json()["total"] == 2


def test_a_run_is_deleted_and_comes_back(fresh: World) -> None:
    mia, run_id = fresh.headers("mia"), fresh.runs["first"]
    fresh.client.delete(f"/api/runs/{run_id}", headers=mia)
    assert run_id not in fresh.client.get("/api/runs", headers=mia).json()["ids"]
    assert fresh.client.get("/api/runs?deleted=1", headers=mia).json()["ids"] == [run_id]
    fresh.client.post(f"/api/runs/{run_id}/restore", headers=mia)
    assert run_id in fresh.client.get("/api/runs", headers=mia).json()["ids"]


def test_a_running_run_is_asked_to_stop(fresh: World) -> None:
    dan = fresh.headers("dan")
    with runstone.start_run(workspace=fresh.workspace, project="digits", environment=False) as run:
        answer = fresh.client.post(f"/api/runs/{run.id}/stop", headers=dan)
        assert answer.json() == {"id": run.id, "status": "running", "stop_requested": "stop"}
        assert run.should_stop
        assert fresh.client.get(f"/api/runs/{run.id}", headers=dan).json()["stop_requested"] == "stop"
    assert fresh.client.get(f"/api/runs/{run.id}", headers=dan).json()["status"] == "stopped"
    assert fresh.client.post(f"/api/runs/{run.id}/stop", headers=dan).status_code == 409


def test_a_cursor_tells_what_changed_and_little_when_nothing_did(fresh: World) -> None:
    vic = fresh.headers("vic")
    cursor = fresh.client.get("/api/changes", headers=vic).json()["cursor"]
    again = fresh.client.get("/api/changes", params={"cursor": cursor}, headers=vic)
    assert again.json()["runs"] == []
    assert not any(value for name, value in again.json().items() if name.endswith("_changed"))
    assert len(again.content) < 1_000
    with runstone.start_run(workspace=fresh.workspace, environment=False) as run:
        run.log({"x": 1.0})
    told = fresh.client.get("/api/changes", params={"cursor": cursor}, headers=vic).json()
    assert told["runs"] == [run.id]
    assert told["is_complete"]
    fresh.workspace.register_model("net", fresh.runs["first"], artifact="out/put")
    later = fresh.client.get("/api/changes", params={"cursor": told["cursor"]}, headers=vic).json()
    assert later["models_changed"]
    assert not later["datasets_changed"]
    assert not fresh.client.get("/api/changes?cursor=other", headers=vic).json()["is_complete"]


def test_a_model_is_promoted_if_its_gates_hold(fresh: World) -> None:
    mia = fresh.headers("mia")
    fresh.workspace.register_model("net", fresh.runs["first"], artifact="out/put")
    (fresh.workspace.path / "gates.yaml").write_text("gates:\n  production:\n  - approval: approved\n")
    url = "/api/models/net/versions/latest"
    asked = fresh.client.put(f"{url}/stage", json={"stage": "production", "dry_run": True}, headers=mia)
    assert asked.status_code == 200, asked.text
    assert not asked.json()["allowed"]
    fresh.client.post(f"{url}/approve", json={"reason": "tried"}, headers=mia)
    done = fresh.client.put(f"{url}/stage", json={"stage": "production", "reason": "go"}, headers=mia).json()
    assert done["promoted"]
    told = fresh.client.get("/api/models/net", headers=mia).json()
    assert told["in_stage"]["production"] == [done["version"]]
    fresh.client.put(f"{url}/alias", json={"alias": "best"}, headers=mia)
    fresh.client.put(f"{url}/tags", json={"set": {"a": "b"}, "notes": "n"}, headers=mia)
    version = fresh.client.get("/api/models/net/versions/best", headers=mia).json()
    assert (version["tags"], version["notes"], version["aliases"]) == ({"a": "b"}, "n", ["best"])


def test_views_are_saved_and_removed(fresh: World) -> None:
    ann = fresh.headers("ann")
    assert fresh.client.put("/api/views/x", json={"filter": "lost = 1"}, headers=ann).status_code == 400
    fresh.client.put("/api/views/x", json={"filter": "name = 'first'"}, headers=ann)
    assert [view["name"] for view in fresh.client.get("/api/views", headers=ann).json()["views"]] == ["x"]
    assert fresh.client.delete("/api/views/x", headers=ann).json()["filter"] == "name = 'first'"
    assert fresh.client.get("/api/views/x", headers=ann).status_code == 404


def test_a_report_is_kept_shown_and_sent(fresh: World) -> None:
    ann, url = fresh.headers("ann"), "/api/reports/a%2Fb"
    fresh.client.put(url, json={"text": "# One"}, headers=ann)
    fresh.client.put(url, json={"text": "# Two\n\n<script>alert(1)</script>"}, headers=ann)
    told = fresh.client.get("/api/reports", headers=ann).json()["reports"]
    assert [(one["name"], one["title"]) for one in told] == [("a/b", "Two")]
    html = fresh.client.get(url, headers=ann).json()["html"]
    assert "<script>alert" not in html
    page = fresh.client.get(f"{url}/page", headers=ann)
    assert page.headers["Content-Disposition"].startswith("attachment")
    shown = fresh.client.post("/api/reports/preview?theme=css", json={"text": "# Three"}, headers=ann)
    assert shown.json()["title"] == "Three"


def test_users_and_tokens_are_kept_by_admins(fresh: World) -> None:
    ann = fresh.headers("ann")
    fresh.client.post("/api/users", json={"name": "new", "role": "viewer", "project": "digits"}, headers=ann)
    made = fresh.client.post("/api/tokens", json={"user": "new", "label": "laptop", "days": 1}, headers=ann).json()
    new = {"Authorization": f"Bearer {made['token']}"}
    assert fresh.client.get("/api/runs", headers=new).json()["total"] == 2
    fresh.client.put("/api/users/new/role", json={"role": "viewer", "project": "secret"}, headers=ann)
    assert fresh.client.get("/api/runs", headers=new).json()["total"] == 3
    fresh.client.delete(f"/api/tokens/{made['id']}", headers=ann)
    assert fresh.client.get("/api/runs", headers=new).status_code == 401
    left = fresh.client.delete("/api/users/new", headers=ann).json()["users"]
    assert "new" not in [user["name"] for user in left]


def test_one_damaged_run_leaves_the_rest(fresh: World) -> None:
    path = fresh.workspace.run(fresh.runs["first"]).path
    journal = next(path.glob("journal.*"))
    journal.write_text(journal.read_text().replace('"format":1', '"format":99'))
    ann = fresh.headers("ann")
    assert fresh.client.get(f"/api/runs/{fresh.runs['first']}", headers=ann).status_code == 422
    page = fresh.client.get("/api/runs", headers=ann).json()
    assert fresh.runs["second"] in page["ids"]


def test_the_figures_for_prometheus_are_there(world: World) -> None:
    world.client.get("/api/info", headers=world.headers("ann"))
    text = world.client.get("/metrics", headers=world.headers("ann")).text
    assert 'runstone_http_requests_total{method="GET",route="/api/info",status="200"}' in text
    assert "runstone_runs 3" in text
    assert 'le="+Inf"' in text


def test_places_on_this_machine_are_left_out_of_messages() -> None:
    assert without_places("no run in /home/me/project/.runstone; try") == "no run in …/.runstone; try"
    assert without_places("metrics.val/acc and https://x/y/z stay") == "metrics.val/acc and https://x/y/z stay"
