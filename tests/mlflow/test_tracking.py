"""Experiments, runs, what is logged and its history: asked as MLflow's clients ask, without MLflow."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest

import runstone
from runstone.runinfo import RunInfo
from runstone.status import Status
from tests.mlflow.conftest import API, World, opened

INVALID = (400, "INVALID_PARAMETER_VALUE")


def tags_of(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}


# --- experiments ------------------------------------------------------------------------------------------------------


def test_the_default_experiment_is_there_from_the_beginning(world: World) -> None:
    found = world.get("experiments/search", max_results=10)["experiments"]
    assert [(one["experiment_id"], one["name"], one["lifecycle_stage"]) for one in found] == [
        ("0", "Default", "active")
    ]
    assert found[0]["artifact_location"] == "mlflow-artifacts:/0"


def test_an_experiment_is_made_found_renamed_tagged_deleted_and_restored(world: World) -> None:
    made = world.post("experiments/create", name="digits", tags=[{"key": "team", "value": "a"}])["experiment_id"]
    assert made.isdigit()
    again = world.refused("POST", "experiments/create", name="digits")
    assert again[:2] == (400, "RESOURCE_ALREADY_EXISTS")
    assert "Experiment(name=digits) already exists" in again[2]
    found = world.get("experiments/get-by-name", experiment_name="digits")["experiment"]
    assert found["experiment_id"] == made
    assert found["tags"] == [{"key": "team", "value": "a"}]
    world.post("experiments/update", experiment_id=made, new_name="numbers")
    world.post("experiments/set-experiment-tag", experiment_id=made, key="team", value="")
    found = world.get("experiments/get", experiment_id=made)["experiment"]
    assert found["name"] == "numbers"
    assert found["tags"] == [{"key": "team", "value": ""}]
    world.post("experiments/delete-experiment-tag", experiment_id=made, key="team")
    assert world.refused("POST", "experiments/delete-experiment-tag", experiment_id=made, key="team")[0] == 404
    run = world.run(made)
    world.post("experiments/delete", experiment_id=made)
    assert world.get("experiments/get", experiment_id=made)["experiment"]["lifecycle_stage"] == "deleted"
    assert world.get("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "deleted"
    status, code, message = world.refused("POST", "runs/create", experiment_id=made)
    assert (status, code) == INVALID
    assert f"The experiment {made} must be in the 'active' state. Current state is deleted." in message
    assert world.refused("POST", "experiments/delete", experiment_id=made)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    world.post("experiments/restore", experiment_id=made)
    assert world.get("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"] == "active"


def test_what_is_not_there_is_said_in_the_words_that_clients_look_for(world: World) -> None:
    missing = (404, "RESOURCE_DOES_NOT_EXIST")
    assert world.refused("GET", "experiments/get", experiment_id="77")[:2] == missing
    assert world.refused("GET", "experiments/get-by-name", experiment_name="none")[:2] == missing
    told = world.refused("GET", "runs/get", run_id="0" * 32)
    assert told[:2] == missing
    assert told[2] == f"Run with id={'0' * 32} not found"
    assert world.refused("GET", "runs/get", run_id="../../etc")[:2] == missing
    assert world.refused("GET", "nothing/here")[:2] == (404, "ENDPOINT_NOT_FOUND")


def test_experiments_keep_their_numbers_over_a_restart(world: World) -> None:
    made = [world.post("experiments/create", name=f"e{number}")["experiment_id"] for number in range(3)]
    world.post("experiments/update", experiment_id=made[1], new_name="other")
    for again in opened(world.workspace.path, world.tokens):
        found = {
            one["experiment_id"]: one["name"] for one in again.get("experiments/search", max_results=9)["experiments"]
        }
        assert found == {"0": "Default", made[0]: "e0", made[1]: "other", made[2]: "e2"}


def test_projects_of_programs_are_experiments(world: World) -> None:
    with runstone.start_run(workspace=world.workspace, project="mine", environment=False) as run:
        run.log({"loss": 1.0})
    found = world.get("experiments/get-by-name", experiment_name="mine")["experiment"]
    answer = world.post("runs/search", experiment_ids=[found["experiment_id"]])
    assert [one["info"]["run_id"] for one in answer["runs"]] == [run.id]


def test_experiments_are_filtered_ordered_and_paged(world: World) -> None:
    for name in ("alpha", "beta", "gamma"):
        world.post("experiments/create", name=name, tags=[{"key": "k", "value": name[0]}])

    def names(**fields: Any) -> list[str]:
        answer = world.post("experiments/search", max_results=10, **fields)
        return [one["name"] for one in answer.get("experiments", [])]

    assert names(filter="name LIKE '%a'", order_by=["name DESC"]) == ["gamma", "beta", "alpha"]
    assert names(filter="tags.k = 'b'") == ["beta"]
    assert names(filter="tags.k IS NULL") == ["Default"]
    assert names(filter="name ILIKE 'ALPH_' AND tags.`k` != 'z'") == ["alpha"]
    first = world.post("experiments/search", max_results=3, order_by=["name"])
    assert len(first["experiments"]) == 3
    rest = world.post("experiments/search", max_results=3, order_by=["name"], page_token=first["next_page_token"])
    assert [one["name"] for one in rest["experiments"]] == ["gamma"]
    assert "next_page_token" not in rest
    exact = world.post("experiments/search", max_results=4)
    assert "next_page_token" not in exact
    told = world.refused("POST", "experiments/search")
    assert told[:2] == INVALID
    assert "Invalid value 0 for parameter 'max_results' supplied. It must be a positive integer" in told[2]


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_lives_until_its_client_says_how_it_ended(world: World) -> None:
    run = world.post(
        "runs/create",
        experiment_id="0",
        start_time=1_700_000_000_123,
        run_name="first",
        user_id="ann",
        tags=[{"key": "mlflow.user", "value": "ann"}, {"key": "a", "value": "b"}],
    )["run"]
    info = run["info"]
    assert info["run_id"] == info["run_uuid"]
    assert len(info["run_id"]) == 32
    assert (info["status"], info["lifecycle_stage"], info["user_id"]) == ("RUNNING", "active", "ann")
    assert info["start_time"] == 1_700_000_000_123
    assert "end_time" not in info
    assert info["artifact_uri"] == f"mlflow-artifacts:/0/{info['run_id']}/artifacts"
    assert tags_of(run) == {"mlflow.user": "ann", "a": "b", "mlflow.runName": "first"}
    own = world.workspace.run(info["run_id"])
    assert (own.status, own.name, own.project) == (Status.RUNNING, "first", "default")
    told = world.post("runs/update", run_id=info["run_id"], status="FINISHED", end_time=1_700_000_060_000)["run_info"]
    assert (told["status"], told["end_time"]) == ("FINISHED", 1_700_000_060_000)
    own = world.workspace.run(info["run_id"])
    assert (own.status, len(own.attempts)) == (Status.FINISHED, 1)


@pytest.mark.parametrize(
    ("word", "status"), [("FAILED", Status.FAILED), ("KILLED", Status.STOPPED), ("FINISHED", Status.FINISHED)]
)
def test_a_run_goes_on_after_its_end_and_ends_otherwise(world: World, word: str, status: Status) -> None:
    run = world.run()
    world.post("runs/update", run_id=run, status="FINISHED")
    world.post("runs/update", run_id=run, status="RUNNING")
    assert world.get("runs/get", run_id=run)["run"]["info"]["status"] == "RUNNING"
    world.post("runs/log-metric", run_id=run, key="late", value=1.0, timestamp=5)
    world.post("runs/update", run_id=run, status=word)
    own = world.workspace.run(run)
    assert (own.status, len(own.attempts)) == (status, 1)
    assert world.get("runs/get", run_id=run)["run"]["info"]["status"] == word
    assert own.series("late").wall_s.tolist() == [0.005]


def test_a_run_is_scheduled_before_it_runs(world: World) -> None:
    run = world.run()
    world.post("runs/update", run_id=run, status="SCHEDULED")
    assert world.get("runs/get", run_id=run)["run"]["info"]["status"] == "SCHEDULED"
    found = world.post("runs/search", experiment_ids=["0"], filter="status = 'SCHEDULED'")
    assert [one["info"]["run_id"] for one in found["runs"]] == [run]
    world.post("runs/update", run_id=run, status="RUNNING")
    assert world.get("runs/get", run_id=run)["run"]["info"]["status"] == "RUNNING"


def test_a_rename_leaves_the_status_and_shows_in_the_tag(world: World) -> None:
    run = world.run(run_name="one")
    world.post("runs/update", run_id=run, status="FAILED", end_time=9)
    world.post("runs/update", run_id=run, run_name="two")
    found = world.get("runs/get", run_id=run)["run"]
    assert (found["info"]["run_name"], found["info"]["status"], found["info"]["end_time"]) == ("two", "FAILED", 9)
    world.post("runs/set-tag", run_id=run, key="mlflow.runName", value="three")
    world.post("runs/update", run_id=run, run_name="")
    found = world.get("runs/get", run_id=run)["run"]
    assert (found["info"]["run_name"], tags_of(found)["mlflow.runName"]) == ("three", "three")


def test_a_name_and_a_tag_that_differ_are_refused(world: World) -> None:
    tags = [{"key": "mlflow.runName", "value": "b"}]
    assert world.refused("POST", "runs/create", experiment_id="0", run_name="a", tags=tags)[:2] == INVALID
    assert world.run(tags=tags)


def test_nested_runs_know_their_parent(world: World) -> None:
    parent = world.run()
    child = world.run(tags=[{"key": "mlflow.parentRunId", "value": parent}])
    assert world.workspace.run(child).parent == parent
    found = world.post("runs/search", experiment_ids=["0"], filter=f"tags.mlflow.parentRunId = '{parent}'")
    assert [one["info"]["run_id"] for one in found["runs"]] == [child]


def test_a_deleted_run_takes_nothing_and_comes_back(world: World) -> None:
    run = world.run()
    world.post("runs/delete", run_id=run)
    world.post("runs/delete", run_id=run)
    status, code, message = world.refused("POST", "runs/log-metric", run_id=run, key="a", value=1, timestamp=1)
    assert (status, code) == INVALID
    assert message == f"The run {run} must be in the 'active' state. Current state is deleted."
    assert world.post("runs/search", experiment_ids=["0"]) == {}
    found = world.post("runs/search", experiment_ids=["0"], run_view_type="DELETED_ONLY")["runs"]
    assert found[0]["info"]["lifecycle_stage"] == "deleted"
    world.post("runs/restore", run_id=run)
    world.post("runs/log-metric", run_id=run, key="a", value=1, timestamp=1)
    assert len(world.post("runs/search", experiment_ids=["0"], run_view_type="ALL")["runs"]) == 1


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_points_keep_their_own_times_and_equal_ones_count_once(world: World) -> None:
    run = world.run()
    for value, at, step in ((0.5, 1000, 1), (0.25, 2000, 2), (0.25, 2000, 2), (0.125, 2000, 2)):
        world.post("runs/log-metric", run_id=run, key="loss", value=value, timestamp=at, step=step)
    found = world.get("metrics/get-history", run_id=run, metric_key="loss")["metrics"]
    assert [(one["value"], one["timestamp"], one["step"]) for one in found] == [
        (0.5, 1000, 1),
        (0.125, 2000, 2),
        (0.25, 2000, 2),
    ]
    own = world.workspace.run(run).series("loss")
    assert own.wall_s.tolist() == [1.0, 2.0, 2.0]
    assert own.value.tolist() == [0.5, 0.25, 0.125]
    latest = world.get("runs/get", run_id=run)["run"]["data"]["metrics"]
    assert latest == [{"key": "loss", "value": 0.25, "timestamp": 2000, "step": 2}]


def test_the_latest_value_is_that_of_the_highest_step(world: World) -> None:
    run = world.run()
    for step, value in ((5, 50.0), (1, 10.0), (3, 30.0)):
        world.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=100 + step, step=step)
    for found in (
        world.get("runs/get", run_id=run)["run"],
        world.post("runs/search", experiment_ids=["0"])["runs"][0],
    ):
        assert found["data"]["metrics"] == [{"key": "m", "value": 50.0, "timestamp": 105, "step": 5}]
        assert not any(key.startswith("runstone.") for key in tags_of(found))


def test_nan_and_infinities_travel_as_words_and_are_kept_as_they_are(world: World) -> None:
    run = world.run()
    for number, value in enumerate(["NaN", "Infinity", "-Infinity"]):
        world.post("runs/log-metric", run_id=run, key=f"m{number}", value=value, timestamp=1)
    found = {one["key"]: one["value"] for one in world.get("runs/get", run_id=run)["run"]["data"]["metrics"]}
    assert found["m0"] == "NaN"
    assert found["m1"] >= 1.797e308
    assert found["m2"] <= -1.797e308
    assert math.isinf(world.workspace.run(run).metrics["m1"].last)


def test_integers_may_be_text_and_old_names_of_fields_count(world: World) -> None:
    run = world.run()
    world.post("runs/log-metric", run_uuid=run, key="m", value="0.5", timestamp="17", step="3")
    found = world.get("metrics/get-history", run_uuid=run, metric_key="m")["metrics"]
    assert found == [{"key": "m", "value": 0.5, "timestamp": 17, "step": 3}]


def test_history_is_paged_and_unknown_metrics_have_none(world: World) -> None:
    run = world.run()
    metrics = [{"key": "m", "value": float(step), "timestamp": step, "step": step} for step in range(10)]
    world.post("runs/log-batch", run_id=run, metrics=metrics)
    first = world.get("metrics/get-history", run_id=run, metric_key="m", max_results=6)
    assert [one["step"] for one in first["metrics"]] == [0, 1, 2, 3, 4, 5]
    rest = world.get(
        "metrics/get-history", run_id=run, metric_key="m", max_results=6, page_token=first["next_page_token"]
    )
    assert [one["step"] for one in rest["metrics"]] == [6, 7, 8, 9]
    assert "next_page_token" not in rest
    assert world.get("metrics/get-history", run_id=run, metric_key="none") == {}
    assert world.refused("GET", "metrics/get-history", run_id=run, metric_key="m", page_token="!")[:2] == INVALID


def test_histories_of_several_runs_come_at_once(world: World) -> None:
    runs = sorted(world.run() for _number in range(3))
    for run in runs:
        metrics = [{"key": "m", "value": float(step), "timestamp": 7, "step": step} for step in range(10)]
        world.post("runs/log-batch", run_id=run, metrics=metrics)
    path = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    found = world.get(path, run_id=runs, metric_key="m")["metrics"]
    assert [(one["run_id"], one["step"]) for one in found] == [(run, step) for run in runs for step in range(10)]
    assert len(world.get(path, run_id=runs, metric_key="m", max_results=15)["metrics"]) == 15
    assert "at least one run_id" in world.refused("GET", path, metric_key="m")[2]
    assert "more than 100 run_ids" in world.refused("GET", path, run_id=["a"] * 101, metric_key="m")[2]
    assert "must specify a metric_key" in world.refused("GET", path, run_id=runs)[2]
    path = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
    found = world.get(path, run_ids=runs[:1], metric_key="m", max_results=5)["metrics"]
    assert [one["step"] for one in found] == [0, 2, 4, 6, 8, 9]
    assert world.refused("GET", path, run_ids=runs, metric_key="m", start_step=1)[:2] == INVALID


# --- params, tags, batches --------------------------------------------------------------------------------------------


def test_params_never_change_and_are_numbers_where_that_loses_nothing(world: World) -> None:
    run = world.run()
    told = {"lr": "0.1", "layers": "3", "flag": "True", "word": "mlp", "odd": "1e-3", "empty": "", "a.b": "7"}
    for key, value in told.items():
        world.post("runs/log-parameter", run_id=run, key=key, value=value)
        world.post("runs/log-parameter", run_id=run, key=key, value=value)
    status, code, message = world.refused("POST", "runs/log-parameter", run_id=run, key="lr", value="0.2")
    assert (status, code) == INVALID
    assert "Changing param values is not allowed" in message
    own = world.workspace.run(run).params
    assert own == {"lr": 0.1, "layers": 3, "flag": True, "word": "mlp", "odd": "1e-3", "empty": "", "a.b": 7}
    found = world.get("runs/get", run_id=run)["run"]["data"]["params"]
    assert {one["key"]: one["value"] for one in found} == told


def test_tags_are_set_and_taken_away(world: World) -> None:
    run = world.run()
    world.post("runs/set-tag", run_id=run, key="k", value="1")
    world.post("runs/set-tag", run_id=run, key="k", value="")
    assert tags_of(world.get("runs/get", run_id=run)["run"])["k"] == ""
    world.post("runs/delete-tag", run_id=run, key="k")
    assert (
        world.refused("POST", "runs/delete-tag", run_id=run, key="k")[2] == f"No tag with name: k in run with id {run}"
    )
    world.post("runs/set-tag", run_id=run, key="mlflow.note.content", value="hello")
    assert world.workspace.run(run).notes == "hello"
    assert world.refused("POST", "runs/set-tag", run_id=run, key="runstone.mlflow.status", value="x")[:2] == INVALID


def test_a_batch_is_checked_before_any_of_it_is_kept(world: World) -> None:
    run = world.run()
    world.post("runs/log-batch", run_id=run, params=[{"key": "p", "value": "1"}])
    metric = {"key": "m", "value": 1.0, "timestamp": 1}
    for fields in (
        {"metrics": [metric] * 1001},
        {"params": [{"key": f"p{number}", "value": ""} for number in range(101)]},
        {"tags": [{"key": f"t{number}", "value": ""} for number in range(101)]},
        {"metrics": [metric] * 950, "params": [{"key": f"p{number}", "value": ""} for number in range(60)]},
        {"metrics": [metric], "params": [{"key": "q", "value": "1"}, {"key": "q", "value": "1"}]},
        {"metrics": [metric], "params": [{"key": "p", "value": "2"}]},
        {"metrics": [metric, {"key": "m", "value": "x", "timestamp": 1}]},
        {"metrics": [metric], "tags": [{"key": "a//b", "value": ""}]},
    ):
        assert world.refused("POST", "runs/log-batch", run_id=run, **fields)[:2] == INVALID
    found = world.get("runs/get", run_id=run)["run"]["data"]
    assert "metrics" not in found
    assert found["params"] == [{"key": "p", "value": "1"}]
    assert world.post("runs/log-batch", run_id=run) == {}
    told = world.refused("POST", "runs/log-batch", run_id=run, metrics=[{"key": "m", "value": 1.0}])
    assert "metrics[0].timestamp" in told[2]


@pytest.mark.parametrize("key", ["/a", "a/", "a//b", "../a", "a/../b", "a\tb", "a?b", "ä" * 251, "."])
def test_names_that_are_no_plain_paths_are_refused(shared: World, key: str) -> None:
    run = shared.run()
    assert shared.refused("POST", "runs/log-metric", run_id=run, key=key, value=1, timestamp=1)[:2] == INVALID
    assert shared.refused("POST", "runs/log-parameter", run_id=run, key=key, value="1")[:2] == INVALID


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("runs/log-metric", {"key": "a", "value": 1.0}),
        ("runs/log-metric", {"key": "a", "timestamp": 1}),
        ("runs/log-metric", {"value": 1.0, "timestamp": 1}),
        ("runs/log-metric", {"key": "a", "value": True, "timestamp": 1}),
        ("runs/log-metric", {"key": "a", "value": 1.0, "timestamp": -1}),
        ("runs/log-metric", {"key": "a", "value": 1.0, "timestamp": 1, "step": 1 << 63}),
        ("runs/log-metric", {"key": 7, "value": 1.0, "timestamp": 1}),
        ("runs/log-parameter", {"value": "1"}),
        ("runs/set-tag", {"key": "k", "value": 5}),
        ("runs/log-batch", {"metrics": {}}),
        ("runs/log-batch", {"metrics": ["x"]}),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 50_001}),
        ("runs/search", {"experiment_ids": "0", "order_by": [5]}),
        ("runs/log-inputs", {"datasets": [{}]}),
    ],
)
def test_wrong_fields_are_told_by_their_code(shared: World, path: str, fields: dict[str, Any]) -> None:
    assert shared.refused("POST", path, run_id=shared.run(), **fields)[:2] == INVALID


def test_inputs_are_kept_once_and_found_by_filters(world: World) -> None:
    run, other = world.run(), world.run()
    dataset = {"name": "wine", "digest": "abc", "source_type": "local", "source": "/data/wine.csv", "schema": "{}"}
    told = [{"tags": [{"key": "mlflow.data.context", "value": "train"}], "dataset": dataset}]
    world.post("runs/log-inputs", run_id=run, datasets=told)
    world.post("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])
    for found in (world.get("runs/get", run_id=run)["run"], _search(world, "datasets.name = 'wine'")[0]):
        assert found["inputs"]["dataset_inputs"] == told
    for text in ("dataset.digest LIKE 'a%'", "datasets.context IN ('train', 'x')", "datasets.name NOT IN ('z')"):
        assert [one["info"]["run_id"] for one in _search(world, text)] == [run]
    assert _search(world, "datasets.name = 'beer'") == []
    assert other not in str(_search(world, "datasets.name != 'beer'"))
    assert [link.name for link in RunInfo(world.workspace.run(run).path).inputs] == ["wine"]
    summaries = world.post("/ajax-api/2.0/mlflow/experiments/search-datasets", experiment_ids=["0"])
    assert summaries["dataset_summaries"] == [
        {"experiment_id": "0", "name": "wine", "digest": "abc", "context": "train"}
    ]


def _search(world: World, text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.post("runs/search", experiment_ids=["0"], filter=text).get("runs", [])
    return found


# --- who, and what survives -------------------------------------------------------------------------------------------


def test_a_token_works_as_a_bearer_and_as_a_password(world: World) -> None:
    token = world.tokens["ann"]
    path = f"{API}/experiments/get?experiment_id=0"
    for name, status in (("ann", 200), ("bob", 401), ("", 401)):
        credentials = base64.b64encode(f"{name}:{token}".encode()).decode()
        answer = world.client.get(path, headers={"Authorization": f"Basic {credentials}"})
        assert answer.status_code == status
    answer = world.client.get(path)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_roles_count_by_project(world: World) -> None:
    world.add("dan", ("digits", "contributor"))
    world.add("vic", ("*", "viewer"))
    mine = world.post("experiments/create", name="digits")["experiment_id"]
    secret = world.run()
    assert world.ask("POST", "runs/create", "dan", experiment_id=mine)
    assert world.refused("GET", "runs/get", "dan", run_id=secret)[0] == 404
    assert world.refused("POST", "runs/create", "dan", experiment_id="0")[0] == 404
    assert world.refused("POST", "runs/create", "vic", experiment_id="0")[:2] == (403, "PERMISSION_DENIED")
    assert world.refused("POST", "runs/delete", "dan", run_id=secret)[0] in (403, 404)
    assert world.ask("POST", "runs/search", "dan", experiment_ids=["0"]) == {}
    found = world.ask("POST", "experiments/search", "dan", max_results=9)["experiments"]
    assert [one["name"] for one in found] == ["digits"]
    assert world.refused("POST", "registered-models/create", "dan", name="m")[:2] == (403, "PERMISSION_DENIED")


def test_many_runs_stay_open_at_once_and_a_restart_makes_no_attempt(world: World) -> None:
    runs = [world.run() for _number in range(80)]
    for run in runs:
        world.post("runs/log-metric", run_id=run, key="m", value=1.0, timestamp=1)
    for again in opened(world.workspace.path, world.tokens):
        for run in runs[:3]:
            assert again.get("runs/get", run_id=run)["run"]["info"]["status"] == "RUNNING"
            again.post("runs/log-metric", run_id=run, key="m", value=2.0, timestamp=2, step=1)
            again.post("runs/log-parameter", run_id=run, key="p", value="1")
            again.post("runs/update", run_id=run, status="FINISHED")
            own = again.workspace.run(run)
            assert (own.status, len(own.attempts)) == (Status.FINISHED, 1)
            assert own.series("m").value.tolist() == [1.0, 2.0]


def test_a_run_of_a_program_is_seen_and_may_be_added_to(world: World) -> None:
    with runstone.start_run(
        workspace=world.workspace, params={"model": {"lr": 0.1}, "list": [1, 2]}, tags={"t": "x"}, environment=False
    ) as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1)}, step=step)
        world.post("runs/log-metric", run_id=run.id, key="late", value=3, timestamp=1)
    found = world.get("runs/get", run_id=run.id)["run"]
    assert found["info"]["status"] == "FINISHED"
    assert {one["key"]: one["value"] for one in found["data"]["params"]} == {"model.lr": "0.1", "list": "[1, 2]"}
    assert {one["key"]: one["value"] for one in found["data"]["metrics"]} == {"loss": 0.2, "late": 3.0}
    assert tags_of(found)["t"] == "x"
    assert len(world.get("metrics/get-history", run_id=run.id, metric_key="loss")["metrics"]) == 5
    assert [one["info"]["run_id"] for one in _search(world, "params.model.lr = '0.1' AND metrics.loss < 0.3")] == [
        run.id
    ]
    own = world.workspace.run(run.id)
    assert (own.status, len(own.attempts)) == (Status.FINISHED, 1)


def test_servers_routes_are_there(world: World) -> None:
    assert world.client.get("/health").text == "OK"
    assert world.client.get("/version", headers=world.headers()).text.startswith("3.")
    assert world.get("/api/3.0/mlflow/server-info")["store_type"] == "SqlStore"


def test_a_body_that_is_no_json_counts_as_empty_and_other_types_are_refused(world: World) -> None:
    headers = {**world.headers(), "Content-Type": "application/json"}
    answer = world.client.post(f"{API}/runs/log-batch", content=b"{nope", headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == INVALID
    assert "run_id" in answer.json()["message"]
    answer = world.client.post(f"{API}/runs/search", content=b"x=1", headers=world.headers())
    assert (answer.status_code, answer.json()["error_code"]) == INVALID
