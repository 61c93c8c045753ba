"""Names and paths that lead elsewhere, S1 to S6: the server opens nothing outside of its workspace and calls nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import runstone
from tests.security.conftest import Canary, tree_hash, watched
from tests.server.conftest import World
from tests.server.walking import asks, sent

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
# As they stand in the address, so that what is encoded once or twice is in it, too.
LEADING_OUT = [
    "../x",
    "..%2fx",
    "%2e%2e/x",
    "%2e%2e%2fx",
    "..%5cx",
    "%2fetc/passwd",
    "C:%5cx",
    "C%3a%5cx",
    "a/../../x",
    "a/%2e%2e/%2e%2e/x",
    "%3b/../x",
    "x%23../y",
    "x%00y",
    "",
    ".",
    "a//b",
]
ENCODED_TWICE = ["..%252fx", "%252e%252e/x", "%252e%252e%252fx"]


def test_s01_a_path_that_leads_out_of_a_run_reaches_nothing(fresh: World, tmp_path: Path) -> None:
    for name in ("x", "y", "passwd"):
        for folder in (tmp_path, fresh.workspace.path, fresh.workspace.run(fresh.runs["first"]).path):
            (folder / name).write_text("canary")
    run, ann = fresh.runs["first"], fresh.headers("ann")
    sent(fresh, "PUT", f"{PROXY}/0/{run}/artifacts/there.txt", ann, b"1")
    before = tree_hash(tmp_path)
    for path in [*LEADING_OUT, *ENCODED_TWICE, "x" * 5_000]:
        asked = [
            ("GET", f"/api/runs/{run}/artifacts/out%2Fput/file?path={path}"),
            ("GET", f"/api/runs/{run}/artifacts/out%2Fput/preview?path={path}"),
            ("GET", f"/get-artifact?run_id={run}&path={path}"),
            ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={path}"),
        ]
        for method in ("GET", "PUT", "DELETE"):
            asked += [(method, f"{PROXY}/0/{run}/artifacts/{path}"), (method, f"{PROXY}/{path}")]
        for method, target in asked:
            if path in ("", ".") and method != "POST" and PROXY in target:
                continue  # the folder itself, which is listed
            answer = sent(fresh, method, target, ann, b"changed" if method in ("PUT", "POST") else b"")
            assert b"canary" not in answer.content, (method, target)
            # `x#..` is a name: nothing here takes a path for an address, which ends at its `#`.
            allowed = (200, 400, 404) if path in (*ENCODED_TWICE, "x%23../y") else (400, 404)
            assert answer.status_code in allowed, (method, target[:200], answer.status_code, answer.text[:300])
    after = tree_hash(tmp_path)
    changed = {name for name in before if after.get(name) != before[name]}
    # the writer of this run says what was put into it and taken out, by names
    assert not {name for name in changed if f"/{run}/" not in name or not name.endswith((".jsonl", ".status"))}
    # contents lie under their hash, and what is said of them in runs whose files have names of ours
    of_run = r"runs/\w+/[0-9a-f]{32}/(control|(journal\.)?[0-9a-f]{32}[\w.-]*)"
    ours = rf"\.runstone/(blobs/.*|blobs\.lock|mlflow.*|{of_run})"
    assert not [name for name in after if name not in before and re.fullmatch(ours, name) is None]


@pytest.mark.parametrize(
    "run_id", ["../x", "..%2fx", "%2e%2e%2felsewhere", "0" * 65, "A" * 32, "%D9%A3" * 32, "x%00y", "%2fetc%2fpasswd"]
)
def test_s02_what_is_no_id_is_never_looked_for_on_the_disk(world: World, run_id: str) -> None:
    routes = [(method, path) for method, path in asks(world, run_id, "x") if run_id in path and method != "HEAD"]
    routes += [
        ("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}"),
        ("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}"),
        ("GET", f"/api/2.0/mlflow/experiments/get?experiment_id={run_id}"),
        ("GET", f"/api/2.0/mlflow/logged-models/{run_id}"),
        ("GET", f"/api/sweeps/{run_id}"),
        ("GET", f"/get-artifact?run_id={run_id}&path=x"),
    ]
    assert len(routes) > 20
    hostile = ("../x", "elsewhere", "0" * 65, "A" * 32, "\u0663" * 32, "x\0y", "passwd")
    headers = {**world.headers("ann"), "Content-Type": "application/json"}
    with watched() as seen:
        for method, path in routes:
            body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
            answer = sent(world, method, path, headers, body)
            is_another_path = "../" in run_id and answer.status_code in (405, 404, 200)
            assert answer.status_code in (400, 404, 415) or is_another_path, (method, path, answer.text[:300])
    found = [place for place in seen.places if any(one in place for one in hostile)]
    assert found == []


def test_s03_links_that_lead_out_are_neither_read_listed_nor_removed_through(fresh: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "table.csv").write_text("kept outside")
    run, ann = fresh.runs["first"], fresh.headers("ann")
    entry = next(one for one in fresh.workspace.run(run).artifacts[0].files if one.path == "table.csv")
    place = fresh.workspace.blobs.object_path(entry.hash)
    place.unlink()
    place.symlink_to(outside / "table.csv")
    asked = [
        f"/api/runs/{run}/artifacts/out%2Fput/{word}" for word in ("file?path=table.csv", "preview?path=table.csv")
    ]
    asked += [f"{PROXY}/0/{run}/artifacts/out/put/table.csv", f"/get-artifact?run_id={run}&path=out/put/table.csv"]
    for target in asked:
        answer = sent(fresh, "GET", target, ann)
        assert answer.status_code == 404, target
        assert b"kept outside" not in answer.content
    assert b"kept outside" not in sent(fresh, "GET", f"/api/runs/{run}/artifacts/out%2Fput/zip", ann).content
    sent(fresh, "DELETE", f"{PROXY}/0/{run}/artifacts/out/put", ann)
    assert (outside / "table.csv").read_text() == "kept outside"


URLS = [
    "file:///etc/passwd",
    "/etc",
    "s3://x/y",
    "dbfs:/../x",
    "http://169.254.169.254/latest",
    "CANARY",
    "ftp://CANARY",
]
# What switched a check off elsewhere: words by which a client says where things come from.
TAGS = [
    {},
    {"mlflow.prompt.is_prompt": "true"},
    {"mlflow.source.type": "LOCAL", "mlflow.source.name": "/etc/passwd"},
    {"mlflow.artifactLocation": "file:///etc"},
]


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: " ".join(tags) or "no tags")
def test_s05_a_source_that_a_client_names_is_text_and_never_read(
    fresh: World, canary: Canary, tags: dict[str, str]
) -> None:
    ann = {**fresh.headers("ann"), "Content-Type": "application/json"}
    told = [{"key": key, "value": value} for key, value in tags.items()]

    def post(path: str, **fields: Any) -> Any:
        return sent(fresh, "POST", f"/api/2.0/mlflow/{path}", ann, json.dumps(fields).encode())

    with watched() as seen:
        post("registered-models/create", name="net", tags=told)
        for number, url in enumerate(URLS):
            source = url.replace("ftp://CANARY", f"ftp://127.0.0.1:{canary.port}/x").replace("CANARY", canary.url)
            made = post("model-versions/create", name="net", source=source, tags=told)
            assert made.status_code in (200, 400), (source, made.text)
            made = post("experiments/create", name=f"e{number}", artifact_location=source, tags=told)
            assert made.status_code in (200, 400), (source, made.text)
        versions = json.loads(sent(fresh, "GET", "/api/2.0/mlflow/model-versions/search", ann).content)
        for version in versions.get("model_versions", []):
            for path in ("", "passwd", "MLmodel", "latest"):
                target = f"/model-versions/get-artifact?name=net&version={version['version']}&path={path}"
                answer = sent(fresh, "GET", target, ann)
                assert answer.status_code in (400, 404), (version["source"], answer.text)
                assert b"root:" not in answer.content
    assert seen.outside == []
    assert [place for place in seen.places if "passwd" in place or place == "/etc"] == []
    assert canary.visits == []


def _filled(schema: dict[str, Any], every: dict[str, Any], url: str, depth: int = 0) -> Any:
    """Return something of a schema, with an address wherever a text may stand."""
    if "$ref" in schema:
        schema = every[schema["$ref"].rpartition("/")[2]]
    if depth > 4:
        return None
    if "anyOf" in schema:
        return _filled(schema["anyOf"][0], every, url, depth + 1)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "string" | None:
            return url
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "array":
            return [_filled(schema.get("items", {}), every, url, depth + 1)]
        case "object":
            own = {name: _filled(one, every, url, depth + 1) for name, one in schema.get("properties", {}).items()}
            return own or {"url": url}
    return None


def test_s06_no_address_that_a_client_sends_is_called(fresh: World, canary: Canary) -> None:
    document = fresh.server.app.openapi()
    every = document.get("components", {}).get("schemas", {})
    headers = {**fresh.headers("ann"), "Content-Type": "application/json"}
    words = [canary.url, f"http://[::1]:{canary.port}/", f"http://0x7f000001:{canary.port}/"]
    tried = 0
    with watched() as seen:
        for path, operations in document["paths"].items():
            for method, one in operations.items():
                if method not in ("post", "put", "patch", "get") or path in ("/api/logout",):
                    continue
                for url in words if method != "get" else words[:1]:
                    target = path.replace("{run_id}", fresh.runs["first"])
                    while "{" in target:
                        start, end = target.index("{"), target.index("}")
                        target = f"{target[:start]}{quote(url, safe='')}{target[end + 1 :]}"
                    names = [param["name"] for param in one.get("parameters", []) if param["in"] == "query"]
                    target += "?" + "&".join(f"{name}={quote(url, safe='')}" for name in names)
                    content = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
                    body = json.dumps(_filled(content, every, url)).encode() if content else b""
                    answer = sent(fresh, method.upper(), target, headers, body if method != "get" else b"")
                    assert answer.status_code < 500, (method, target, answer.text[:300])
                    tried += 1
    assert tried > 100
    assert [one for one in seen.outside if "connect" in one] == []
    assert canary.visits == []


def test_s04_a_run_whose_name_is_a_path_is_deleted_alone(fresh: World) -> None:
    ann = fresh.headers("mia")
    fresh.client.patch(f"/api/runs/{fresh.runs['first']}", json={"name": "../../other"}, headers=ann)
    before = tree_hash(fresh.workspace.run(fresh.runs["second"]).path)
    found = fresh.client.post(
        "/api/runs/bulk", json={"filter": "name = '../../other'", "edits": {"deleted": True}}, headers=ann
    ).json()
    assert found["ids"] == [fresh.runs["first"]]
    runstone.open_workspace(fresh.workspace.path).purge([fresh.runs["first"]])
    assert tree_hash(fresh.workspace.run(fresh.runs["second"]).path) == before
    assert fresh.workspace.run(fresh.runs["hidden"]).name == "hidden"
