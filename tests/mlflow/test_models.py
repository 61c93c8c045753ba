"""Logged models, the registry, and that a promotion by MLflow's client passes our gates."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.mlflow.conftest import PROXY, World

INVALID = (400, "INVALID_PARAMETER_VALUE")
MISSING = (404, "RESOURCE_DOES_NOT_EXIST")


def log_model(world: World, run: str, name: str = "model") -> dict[str, Any]:
    made: dict[str, Any] = world.post(
        "logged-models", experiment_id="0", name=name, source_run_id=run, params=[{"key": "depth", "value": "3"}]
    )["model"]["info"]
    world.post("runs/outputs", run_id=run, models=[{"model_id": made["model_id"], "step": 0}])
    root = f"0/models/{made['model_id']}/artifacts"
    assert world.put(f"{root}/MLmodel", b"flavors: {}").status_code == 200
    assert world.put(f"{root}/data/weights.bin", b"\0" * 100).status_code == 200
    found: dict[str, Any] = world.ask(
        "PATCH", f"logged-models/{made['model_id']}", model_id=made["model_id"], status="LOGGED_MODEL_READY"
    )["model"]["info"]
    return found


def version(world: World, name: str = "net", **fields: Any) -> dict[str, Any]:
    if world.raw("GET", "registered-models/get", name=name).status_code == 404:
        world.post("registered-models/create", name=name)
    source = fields.pop("source", None) or f"mlflow-artifacts:/0/{world.run()}/artifacts/model"
    found: dict[str, Any] = world.post("model-versions/create", name=name, source=source, **fields)["model_version"]
    return found


# --- logged models ----------------------------------------------------------------------------------------------------


def test_a_model_is_logged_found_and_read(world: World) -> None:
    run = world.run()
    info = log_model(world, run)
    assert (info["status"], info["source_run_id"], info["model_id"][:2]) == ("LOGGED_MODEL_READY", run, "m-")
    found = world.get(f"logged-models/{info['model_id']}")["model"]
    assert found["data"]["params"] == [{"key": "depth", "value": "3"}]
    assert world.get(PROXY, path=f"0/{run}/artifacts/model") == {}
    assert world.get("artifacts/list", run_id=run).get("files") is None
    root = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    assert [one["path"] for one in world.get(PROXY, path=root)["files"]] == ["MLmodel", "data"]
    assert world.client.get(f"{PROXY}/{root}/MLmodel", headers=world.headers()).text == "flavors: {}"
    listing = world.get(f"logged-models/{info['model_id']}/artifacts/directories", artifact_directory_path="data")
    assert listing["files"] == [{"path": "data/weights.bin", "is_dir": False, "file_size": 100}]
    artifacts = world.workspace.run(run).artifacts
    assert [(one.name, one.is_folder, len(one.files)) for one in artifacts] == [("model", True, 2)]
    shown = world.get("runs/get", run_id=run)["run"]
    assert shown["outputs"]["model_outputs"] == [{"model_id": info["model_id"], "step": 0}]


def test_models_have_the_metrics_that_were_logged_with_their_id(world: World) -> None:
    run = world.run()
    ids = [log_model(world, run, f"m{number}")["model_id"] for number in range(3)]
    for number, model_id in enumerate(ids[:2]):
        world.post(
            "runs/log-metric",
            run_id=run,
            key="acc",
            value=0.5 + number / 10,
            timestamp=1,
            model_id=model_id,
            dataset_name="wine",
            dataset_digest="x",
        )
    assert world.get("runs/get", run_id=run)["run"]["data"]["metrics"][0]["value"] == 0.6

    def search(**fields: Any) -> list[str]:
        answer = world.post("logged-models/search", experiment_ids=["0"], **fields)
        return [one["info"]["name"] for one in answer.get("models", [])]

    assert sorted(search()) == ["m0", "m1", "m2"]
    assert search(filter="metrics.acc > 0.55") == ["m1"]
    assert search(filter="name = 'm2'") == ["m2"]
    assert search(filter=f"source_run_id = '{run}' AND params.depth = '3' AND name LIKE 'm%'", max_results=2)
    assert search(order_by=[{"field_name": "metrics.acc", "ascending": False}]) == ["m1", "m0", "m2"]
    assert search(order_by=[{"field_name": "name"}]) == ["m0", "m1", "m2"]
    assert sorted(search(datasets=[{"dataset_name": "wine"}])) == ["m0", "m1"]
    first = world.post("logged-models/search", experiment_ids=["0"], max_results=2)
    assert (
        len(world.post("logged-models/search", experiment_ids=["0"], page_token=first["next_page_token"])["models"])
        == 1
    )


def test_a_logged_model_is_tagged_and_deleted(world: World) -> None:
    model_id = log_model(world, world.run())["model_id"]
    world.ask("PATCH", f"logged-models/{model_id}/tags", tags=[{"key": "a", "value": "b"}])
    assert world.get(f"logged-models/{model_id}")["model"]["info"]["tags"] == [{"key": "a", "value": "b"}]
    world.ask("DELETE", f"logged-models/{model_id}/tags/a")
    assert world.refused("DELETE", f"logged-models/{model_id}/tags/a")[0] == 404
    world.post(f"logged-models/{model_id}/params", params=[{"key": "p", "value": "1"}])
    world.ask("DELETE", f"logged-models/{model_id}")
    status, code, message = world.refused("GET", f"logged-models/{model_id}")
    assert (status, code, message) == (*MISSING, f"Logged model with ID '{model_id}' not found.")


def test_a_model_without_a_run_has_its_files_kept_and_no_run_to_be_seen(world: World) -> None:
    made = world.post("logged-models", experiment_id="0", name="alone")["model"]["info"]
    path = f"0/models/{made['model_id']}/artifacts/MLmodel"
    assert world.put(path, b"x").status_code == 200
    assert world.client.get(f"{PROXY}/{path}", headers=world.headers()).content == b"x"
    assert world.post("runs/search", experiment_ids=["0"]) == {}


# --- the registry -----------------------------------------------------------------------------------------------------


def test_versions_count_from_one_and_are_never_given_twice(world: World) -> None:
    found = [version(world, description=f"d{number}") for number in range(3)]
    assert [(one["version"], one["status"], one["current_stage"]) for one in found] == [
        (str(number), "READY", "None") for number in (1, 2, 3)
    ]
    world.ask("DELETE", "model-versions/delete", name="net", version="3")
    assert version(world)["version"] == "4"
    status, code, message = world.refused("GET", "model-versions/get", name="net", version="3")
    assert (status, code, message) == (*MISSING, "Model Version (name=net, version=3) not found")
    assert world.refused("GET", "model-versions/get", name="net", version="x")[:2] == INVALID
    own = world.workspace.models.get("net")
    assert [str(one.version) for one in own.versions()][-1] == "1.0.0"


def test_a_model_is_made_renamed_described_tagged_and_deleted(world: World) -> None:
    world.post("registered-models/create", name="net", description="d", tags=[{"key": "a", "value": "1"}])
    told = world.refused("POST", "registered-models/create", name="net")
    assert told == (400, "RESOURCE_ALREADY_EXISTS", "Registered Model (name=net) already exists")
    version(world)
    world.post("registered-models/alias", name="net", alias="champion", version="1")
    world.post("registered-models/rename", name="net", new_name="web")
    found = world.get("registered-models/get", name="web")["registered_model"]
    assert (found["description"], found["tags"]) == ("d", [{"key": "a", "value": "1"}])
    assert found["aliases"] == [{"alias": "champion", "version": "1"}]
    assert found["latest_versions"][0]["version"] == "1"
    assert world.refused("GET", "registered-models/get", name="net")[:2] == MISSING
    world.post("registered-models/create", name="net")
    assert version(world, "net")["version"] == "1"
    world.ask("PATCH", "registered-models/update", name="web", description="other")
    world.post("registered-models/set-tag", name="web", key="b", value="2")
    world.ask("DELETE", "registered-models/delete-tag", name="web", key="a")
    found = world.get("registered-models/get", name="web")["registered_model"]
    assert (found["description"], found["tags"]) == ("other", [{"key": "b", "value": "2"}])
    world.ask("DELETE", "registered-models/delete", name="web")
    assert world.refused("GET", "registered-models/get", name="web")[:2] == MISSING
    assert world.refused("DELETE", "registered-models/delete", name="web")[:2] == MISSING
    again = world.post("registered-models/create", name="web")["registered_model"]
    assert "latest_versions" not in again
    assert version(world, "web")["version"] == "1"


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_names_of_models_are_checked(shared: World, name: str) -> None:
    assert shared.refused("POST", "registered-models/create", name=name)[:2] == INVALID


def test_aliases_move_and_are_checked(world: World) -> None:
    version(world)
    version(world)
    for alias in ("champion", "production"):
        for number in ("1", "2"):
            world.post("registered-models/alias", name="net", alias=alias, version=number)
        found = world.get("registered-models/alias", name="net", alias=alias)["model_version"]
        assert found["version"] == "2"
        assert alias in found["aliases"]
    world.ask("DELETE", "registered-models/alias", name="net", alias="champion")
    assert world.refused("GET", "registered-models/alias", name="net", alias="champion")[:2] == INVALID
    assert world.refused("POST", "registered-models/alias", name="net", alias="x", version="9")[:2] == MISSING
    for alias in ("latest", "Latest", "v3", "a b", ""):
        assert world.refused("POST", "registered-models/alias", name="net", alias=alias, version="1")[:2] == INVALID
    world.ask("DELETE", "model-versions/delete", name="net", version="2")
    assert world.refused("GET", "registered-models/alias", name="net", alias="production")[:2] == INVALID


def test_stages_move_and_archive_others(world: World) -> None:
    version(world)
    version(world)
    move = {"name": "net", "archive_existing_versions": True}
    world.post("model-versions/transition-stage", version="1", stage="production", **move)
    found = world.post("model-versions/transition-stage", version="2", stage="Production", **move)["model_version"]
    assert found["current_stage"] == "Production"
    assert world.get("model-versions/get", name="net", version="1")["model_version"]["current_stage"] == "Archived"
    latest = world.post("registered-models/get-latest-versions", name="net", stages=["Production"])["model_versions"]
    assert [one["version"] for one in latest] == ["2"]
    assert world.refused("POST", "model-versions/transition-stage", version="1", stage="Beta", **move)[:2] == INVALID


def test_a_promotion_passes_our_gates(world: World) -> None:
    (world.workspace.path / "gates.yaml").write_text("gates:\n  production:\n    - approval: approved\n")
    version(world)
    told = world.refused("POST", "model-versions/transition-stage", name="net", version="1", stage="Production")
    assert told[:2] == (400, "BAD_REQUEST")
    assert "was refused for production" in told[2]
    assert world.get("model-versions/get", name="net", version="1")["model_version"]["current_stage"] == "None"
    world.post("model-versions/transition-stage", name="net", version="1", stage="Staging")
    own = world.workspace.models.get("net")
    own.judge("1.0.0", "approved")
    world.post("model-versions/transition-stage", name="net", version="1", stage="Production")
    assert own.find("1.0.0").stage == "production"


def test_models_and_versions_are_searched(world: World) -> None:
    for name in ("alpha", "beta"):
        version(world, name, tags=[{"key": "k", "value": name}])
    version(world, "alpha")
    world.post("registered-models/set-tag", name="beta", key="mlflow.prompt.is_prompt", value="true")

    def models(**fields: Any) -> list[str]:
        found = world.get("registered-models/search", **fields).get("registered_models", [])
        return [one["name"] for one in found]

    assert models() == ["alpha", "beta"]
    assert models(filter="tag.`mlflow.prompt.is_prompt` != 'true'") == ["alpha"]
    assert models(filter="name LIKE '%et%'") == ["beta"]
    assert models(order_by=["name DESC"]) == ["beta", "alpha"]
    first = world.get("registered-models/search", max_results=1)
    assert [one["name"] for one in first["registered_models"]] == ["alpha"]
    assert models(page_token=first["next_page_token"]) == ["beta"]

    def versions(**fields: Any) -> list[tuple[str, str]]:
        found = world.get("model-versions/search", **fields).get("model_versions", [])
        return [(one["name"], one["version"]) for one in found]

    assert versions(filter="name = 'alpha'", order_by=["version_number ASC"]) == [("alpha", "1"), ("alpha", "2")]
    assert versions(filter="tags.k = 'beta'") == [("beta", "1")]
    assert versions(filter="version_number > 1") == [("alpha", "2")]
    assert versions(filter="name = 'none'") == []
    assert versions(filter="version_number = '2'") == [("alpha", "2")]
    assert versions(filter="run_id != 'x'", order_by=["name DESC"])[0] == ("beta", "1")  # that of no run, too
    assert versions(filter="name NOT IN ('alpha',)") == [("beta", "1")]
    assert models(filter="name IN ('alpha', 'beta')") == ["alpha", "beta"]
    newest = versions()
    world.post("registered-models/alias", name="alpha", alias="best", version="1")
    assert versions() == newest  # an alias is the model's


def test_a_version_has_the_files_of_its_source(world: World) -> None:
    run = world.run()
    model_id = log_model(world, run)["model_id"]
    one = version(world, "net", source=f"models:/{model_id}", run_id=run)
    assert (one["run_id"], one["model_id"]) == (run, model_id)
    uri = world.get("model-versions/get-download-uri", name="net", version="1")["artifact_uri"]
    assert uri == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    tags = {tag["key"]: tag["value"] for tag in world.get(f"logged-models/{model_id}")["model"]["info"]["tags"]}
    assert tags["mlflow.modelVersions"] == '[{"name": "net", "version": 1}]'
    answer = world.client.get(
        "/model-versions/get-artifact",
        params={"name": "net", "version": "1", "path": "MLmodel"},
        headers=world.headers(),
    )
    assert answer.text == "flavors: {}"
    assert world.get("registered-models/get", name="net")["registered_model"]["latest_versions"][0]["version"] == "1"


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc",
        "mlflow-artifacts:/0/../../x",
        "https://h/a/%2e%2e/b",
        "s3://b/a%2f..",
        "./model",
        "s3a://b/../x",
        "mlflow-artifacts://h:1/models/../../x",
        "mlflow-artifacts://h:1/models/x%00",
        "models",
    ],
)
def test_sources_that_lead_elsewhere_are_refused(shared: World, source: str) -> None:
    if shared.raw("GET", "registered-models/get", name="net").status_code == 404:
        shared.post("registered-models/create", name="net")
    assert shared.refused("POST", "model-versions/create", name="net", source=source)[:2] == INVALID


def test_times_of_models_are_those_of_what_changed_them(world: World) -> None:
    world.post("registered-models/create", name="net")
    made = world.get("registered-models/get", name="net")["registered_model"]
    world.post("model-versions/create", name="net", source="runs:/gone/model")
    before = world.get("registered-models/get", name="net")["registered_model"]["last_updated_timestamp"]
    time.sleep(0.01)
    world.ask("PATCH", "model-versions/update", name="net", version="1", description="of the version alone")
    assert world.get("registered-models/get", name="net")["registered_model"]["last_updated_timestamp"] == before
    world.post("registered-models/rename", name="net", new_name="other")
    renamed = world.get("registered-models/get", name="other")["registered_model"]
    assert renamed["last_updated_timestamp"] > before
    assert renamed["creation_timestamp"] == made["creation_timestamp"]
    world.ask("DELETE", "registered-models/delete", name="other")
    world.post("registered-models/create", name="other")
    anew = world.get("registered-models/get", name="other")["registered_model"]
    assert anew["creation_timestamp"] >= renamed["last_updated_timestamp"]
    assert "latest_versions" not in anew


def test_a_copy_of_a_version_leads_to_the_files_of_the_first(world: World) -> None:
    world.post("registered-models/create", name="net")
    world.post("model-versions/create", name="net", source="runs:/elsewhere/model")
    world.post("model-versions/create", name="net", source="models:/net/1")
    world.post("model-versions/create", name="net", source="models:/net/2")
    uris = [
        world.get("model-versions/get-download-uri", name="net", version=version)["artifact_uri"]
        for version in ("1", "2", "3")
    ]
    assert uris == ["runs:/elsewhere/model"] * 3
    assert world.refused("POST", "model-versions/create", name="net", source="models:/net/9")[0] == 404


@pytest.mark.parametrize(
    "source", ["s3a://b/x", "oss://b/x", "mlflow-artifacts://h:1/models", "mlflow-artifacts://h:1/models/x/..../"]
)
def test_sources_of_any_other_store_are_kept_as_they_are(shared: World, source: str) -> None:
    if shared.raw("GET", "registered-models/get", name="far").status_code == 404:
        shared.post("registered-models/create", name="far")
    assert shared.post("model-versions/create", name="far", source=source)["model_version"]["source"] == source
