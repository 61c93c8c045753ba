"""Files through the server: up, listed, down, away; each content is stored once."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import runstone
from runstone.runinfo import RunInfo
from runstone.server.app import create_app
from runstone.server.logs import Log
from runstone.workspace import Workspace, ensure_workspace
from tests.mlflow.conftest import API, BASE, CONFIG, PROXY, World, opened


def listed(world: World, path: str = "") -> list[tuple[str, bool]]:
    found = world.get(PROXY, path=path).get("files", [])
    return [(one["path"], one["is_dir"]) for one in found]


def test_files_go_up_are_listed_and_come_down(world: World) -> None:
    run = world.run()
    root = f"0/{run}/artifacts"
    data = bytes(range(256)) * 9000
    for path, content in {"a.txt": b"hi", "plots/b c.png": data, "plots/deep/e=2.bin": b"", "ü.json": b"{}"}.items():
        assert world.put(f"{root}/{path}", content).status_code == 200
    assert listed(world, root) == [("a.txt", False), ("plots", True), ("ü.json", False)]
    assert listed(world, f"{root}/plots") == [("b c.png", False), ("deep", True)]
    assert listed(world, f"{root}/a.txt") == []
    found = world.get("artifacts/list", run_id=run, path="plots")
    assert found["root_uri"] == f"mlflow-artifacts:/{root}"
    assert found["files"] == [
        {"path": "plots/b c.png", "is_dir": False, "file_size": len(data)},
        {"path": "plots/deep", "is_dir": True},
    ]
    answer = world.client.get(f"{PROXY}/{root}/plots/b%20c.png", headers=world.headers())
    assert answer.content == data
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    text = world.client.get(f"{PROXY}/{root}/a.txt", headers=world.headers())
    assert text.headers["content-disposition"] == "attachment; filename=a.txt"
    assert text.headers["content-type"].startswith("text/plain")
    named = world.client.get(f"{PROXY}/{root}/%C3%BC.json", headers=world.headers())
    assert named.headers["content-disposition"].endswith("filename*=UTF-8''%C3%BC.json")
    assert (
        world.client.get("/get-artifact", params={"run_id": run, "path": "a.txt"}, headers=world.headers()).text == "hi"
    )
    own = RunInfo(world.workspace.run(run).path)
    assert [one.name for one in own.artifacts] == ["a.txt", "plots/b c.png", "plots/deep/e=2.bin", "ü.json"]


def test_a_file_is_replaced_and_removed(world: World) -> None:
    run = world.run()
    root = f"0/{run}/artifacts"
    for content in (b"one", b"two"):
        world.put(f"{root}/d/a", content)
    assert world.client.get(f"{PROXY}/{root}/d/a", headers=world.headers()).content == b"two"
    world.put(f"{root}/d/b", b"x")
    assert world.ask("DELETE", f"{PROXY}/{root}/d/a") == {}
    assert world.ask("DELETE", f"{PROXY}/{root}/d/none") == {}
    assert listed(world, f"{root}/d") == [("b", False)]
    assert world.refused("GET", f"{PROXY}/{root}/d/a")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert world.refused("GET", f"{PROXY}/{root}/d")[0] == 400


def test_equal_contents_are_stored_once(world: World) -> None:
    data = b"0123456789" * 10_000
    for _number in range(3):
        world.put(f"0/{world.run()}/artifacts/a", data)
    contents = [path for path, _stat in world.workspace.blobs.objects()]
    assert len(contents) == 1


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/x", "a/%2e%2e/%2e%2e/x", "%252e%252e/x", "a%2f..%2fb", "/etc/passwd", "a//b", "a%5c..%5cb", "a%00b"],
)
def test_paths_that_lead_elsewhere_are_refused(shared: World, path: str) -> None:
    run = shared.run()
    for url in (f"{PROXY}/0/{run}/artifacts/{path}", f"{PROXY}/{path}"):
        for method in ("PUT", "GET", "DELETE"):
            answer = shared.client.request(
                method, url, headers=shared.headers(), content=b"x" if method == "PUT" else None
            )
            told: dict[str, Any] = answer.json()
            assert answer.status_code in (400, 404), (method, url, told)
            assert told["error_code"] in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND")
    assert shared.refused("GET", "artifacts/list", run_id=run, path="../..")[2] == "Invalid path"


def test_the_upload_of_browsers_says_what_is_missing(world: World) -> None:
    path, run = "/ajax-api/2.0/mlflow/upload-artifact", world.run()

    def send(data: bytes = b"x", **params: str) -> Any:
        return world.client.post(path, params=params, content=data, headers=world.headers())

    assert send(run_uuid=run, path="t.txt").status_code == 200
    assert send(path="a").json()["message"] == "Request must specify run_uuid."
    assert send(run_uuid=run).json()["message"] == "Request must specify path."
    assert send(b"", run_uuid=run, path="a").json()["message"] == "Request must specify data."
    assert send(run_uuid=run, path="../a").json()["message"] == "Invalid path"
    assert listed(world, f"0/{run}/artifacts") == [("t.txt", False)]


def test_files_beside_runs_are_kept_too(world: World) -> None:
    assert world.put("shared/a.txt", b"1").status_code == 200
    assert listed(world) == [("shared", True)]
    assert listed(world, "shared") == [("a.txt", False)]
    assert world.client.get(f"{PROXY}/shared/a.txt", headers=world.headers()).content == b"1"
    assert world.put("shared", b"1").status_code == 400
    assert world.ask("DELETE", f"{PROXY}/shared/a.txt") == {}
    assert listed(world, "shared") == []


def test_who_may_not_reach_a_run_reaches_none_of_its_files(world: World) -> None:
    world.add("dan", ("digits", "contributor"))
    world.add("vic", ("*", "viewer"))
    run = world.run()
    path = f"0/{run}/artifacts/a"
    assert world.put(path, b"x", "vic").status_code == 403
    assert world.put(path, b"x", "dan").status_code == 404
    assert world.put("loose", b"x", "dan").status_code == 403
    world.put(path, b"x")
    assert world.refused("GET", f"{PROXY}/{path}", "dan")[0] == 404
    assert world.refused("DELETE", f"{PROXY}/{path}", "vic")[0] == 403


def test_the_artifacts_of_a_program_are_seen(world: World, tmp_path: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t.csv").write_text("1,2")
    with runstone.start_run(workspace=world.workspace, environment=False) as run:
        run.log_artifact(tmp_path / "out", name="made")
    assert listed(world, f"0/{run.id}/artifacts/made") == [("t.csv", False)]
    assert world.client.get(f"{PROXY}/0/{run.id}/artifacts/made/t.csv", headers=world.headers()).text == "1,2"


def test_files_beside_runs_are_stored_once_and_survive_a_restart(world: World, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        assert world.put(f"shared/{name}.bin", b"same" * 1000).status_code == 200
    assert len(list(world.workspace.blobs.objects())) == 1
    for again in opened(tmp_path / ".runstone", world.tokens):
        assert [name for name, _is_dir in listed(again, "shared")] == ["one.bin", "three.bin", "two.bin"]
        assert again.client.request("DELETE", f"{PROXY}/shared/two.bin", headers=again.headers()).status_code == 200
        assert again.put("shared/two.bin/inner", b"x").status_code == 200
        assert again.client.get(f"{PROXY}/shared/two.bin/inner", headers=again.headers()).content == b"x"


def test_a_server_told_so_does_not_answer_clients_of_mlflow(tmp_path: Path) -> None:
    config = replace(CONFIG, mlflow=False)
    server = create_app(ensure_workspace(tmp_path / ".runstone"), config, log=Log(io.StringIO()))
    with TestClient(server, base_url=BASE) as client:
        world = World(Workspace(tmp_path / ".runstone"), server, client, {})
        world.add("ann", ("*", "admin"))
        assert world.refused("POST", "runs/search", experiment_ids=["0"])[1] == "ENDPOINT_NOT_FOUND"
        assert world.refused("GET", "runs/get", run_id="x")[0] == 404
        assert client.get("/api/runs", headers=world.headers()).status_code == 200


def test_the_quick_way_to_a_route_asks_for_the_role_too(world: World) -> None:
    world.add("vic", ("*", "viewer"))
    run = world.run()
    assert world.refused("POST", "runs/log-metric", "vic", run_id=run, key="m", value=1.0, timestamp=1)[0] == 403
    assert world.refused("POST", "runs/create", "vic", experiment_id="0")[0] == 403
    assert world.raw("GET", "runs/get", "vic", run_id=run).status_code == 200
    assert world.client.post(f"{API}/runs/search", json={"experiment_ids": ["0"]}).status_code == 401
