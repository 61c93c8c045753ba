"""MLflow's filters and orders: as a grammar, and over runs."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstone.server.mlflow.errors import MlflowError
from runstone.server.mlflow.filters import Clause
from runstone.server.mlflow.searching import GRAMMAR
from tests.mlflow.conftest import World


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("metrics.loss < 1", Clause("metric", "loss", "<", 1)),
        ("metric.`a b/c.0` >= -1.5e3", Clause("metric", "a b/c.0", ">=", -1500.0)),
        ("metrics.layer.0.loss != 2", Clause("metric", "layer.0.loss", "!=", 2)),
        ("PARAMS.lr = '0.1'", Clause("param", "lr", "=", "0.1")),
        ('params."x y" ilike "A%"', Clause("param", "x y", "ILIKE", "A%")),
        ("tags.mlflow.user = 'it''s'", Clause("tag", "mlflow.user", "=", "it's")),
        ("tag.k is not null", Clause("tag", "k", "IS NOT NULL", None)),
        ("run_id IN ('a', 'b')", Clause("attribute", "run_id", "IN", ("a", "b"))),
        ("attributes.run_id not in ('a')", Clause("attribute", "run_id", "NOT IN", ("a",))),
        ("`run name` = 'x'", Clause("attribute", "run_name", "=", "x")),
        ("created > 5", Clause("attribute", "start_time", ">", 5)),
        ("dataset.context LIKE 'tr%'", Clause("dataset", "context", "LIKE", "tr%")),
    ],
)
def test_clauses_are_read(text: str, clause: Clause) -> None:
    assert GRAMMAR.clauses(text) == [clause]
    assert GRAMMAR.clauses(f"{text} and {text}") == [clause, clause]


@pytest.mark.parametrize(
    "text",
    [
        "metrics.a > 1 OR metrics.b > 1",
        "(metrics.a > 1)",
        "metrics.a > 'x'",
        "params.a > 'x'",
        "params.a = 5",
        "metrics.a LIKE 'x'",
        "nothing = 'x'",
        "x.y = 'z'",
        "run_id IN (1)",
        "status IN ('a')",
        "metrics.a >",
        "AND",
        "metrics.a > 1 AND",
        "params.a = 'x",
        "tags.a IS",
        "metrics.a = 1 metrics.b = 2",
    ],
)
def test_what_the_grammar_does_not_have_is_refused(shared: World, text: str) -> None:
    told = shared.refused("POST", "runs/search", experiment_ids=["0"], filter=text)
    assert told[:2] == (400, "INVALID_PARAMETER_VALUE")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="metrics.paw'\"` =<>!()%,ANDORINLKE01-/\\\n", max_size=60))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    for parse in (GRAMMAR.clauses, lambda one: GRAMMAR.orders([one])):
        with contextlib.suppress(MlflowError):
            assert isinstance(parse(text), list)


@pytest.fixture(scope="module")
def runs(shared: World) -> dict[str, str]:
    """Three runs in an experiment of their own; the last has a metric that is NaN, and no param."""
    made = shared.post("experiments/create", name="searched")["experiment_id"]
    found = {"experiment": made}
    for number, name in enumerate("abc"):
        run = shared.run(made, run_name=name, start_time=1000 * (number + 1), user_id=f"u{number}")
        found[name] = run
        value: Any = "NaN" if name == "c" else float(number)
        shared.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=1)
        if name != "c":
            shared.post("runs/log-parameter", run_id=run, key="p", value=str(number))
            shared.post("runs/set-tag", run_id=run, key="t", value=f"T{number}")
    shared.post("runs/update", run_id=found["a"], status="FINISHED", end_time=5000)
    shared.post("runs/update", run_id=found["b"], status="KILLED", end_time=6000)
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "cba"),
        ("metrics.m > 0", "b"),
        ("metrics.m >= 0", "ba"),
        ("metrics.m != 0", "cb"),
        ("metrics.none != 0", ""),
        ("params.p = '1'", "b"),
        ("params.p != '1'", "a"),
        ("params.p LIKE '%'", "ba"),
        ("params.p IS NULL", "c"),
        ("tags.t ILIKE 't_'", "ba"),
        ("tags.t LIKE 't%'", ""),
        ("tags.t != 'T0' AND metrics.m > 0", "b"),
        ("run_name = 'c'", "c"),
        ("tags.`mlflow.runName` LIKE 'a'", "a"),
        ("status = 'RUNNING'", "c"),
        ("status != 'FINISHED'", "cb"),
        ("attributes.status = 'KILLED'", "b"),
        ("status = 'NONE'", ""),
        ("start_time > 1000", "cb"),
        ("start_time >= 1000 AND created < 3000", "ba"),
        ("start_time = 2000", "b"),
        ("end_time <= 5000", "a"),
        ("user_id = 'u1'", "b"),
        ("artifact_uri LIKE '%/artifacts'", "cba"),
        ("run_id = 'none'", ""),
    ],
)
def test_runs_are_filtered(shared: World, runs: dict[str, str], text: str, names: str) -> None:
    found = shared.post("runs/search", experiment_ids=[runs["experiment"]], filter=text).get("runs", [])
    assert "".join(one["info"]["run_name"] for one in found) == names


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (["metrics.m DESC"], "bac"),
        (["metrics.m"], "abc"),
        (["params.p DESC"], "bac"),
        (["start_time ASC"], "abc"),
        (["attributes.run_name DESC"], "cba"),
        (["tags.t", "start_time"], "abc"),
        (["end_time DESC"], "bac"),
    ],
)
def test_runs_are_ordered(shared: World, runs: dict[str, str], order: list[str], names: str) -> None:
    found = shared.post("runs/search", experiment_ids=[runs["experiment"]], order_by=order)["runs"]
    assert "".join(one["info"]["run_name"] for one in found) == names


def test_runs_come_in_pages_by_index_and_by_looking(shared: World, runs: dict[str, str]) -> None:
    for text in ("", "artifact_uri LIKE '%'"):
        names, token = "", ""
        for _page in range(3):
            answer = shared.post(
                "runs/search", experiment_ids=[runs["experiment"]], filter=text, max_results=1, page_token=token
            )
            names += answer["runs"][0]["info"]["run_name"]
            token = answer.get("next_page_token", "")
        assert (names, token) == ("cba", "")
    assert shared.post("runs/search", experiment_ids=[]) == {}
    told = shared.refused(
        "POST", "runs/search", experiment_ids=[runs["experiment"]], order_by=["start_time", "start_time"]
    )
    assert told[0] == 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["run_id", "key", "value", "timestamp", "step", "metrics", "params", "tags", "experiment_ids", "filter", "name"]
KEYS += ["max_results", "order_by", "page_token", "status", "end_time", "datasets", "models", "version", "source"]
KEYS += ["experiment_id", "run_name", "start_time", "alias", "stage", "stages", "new_name", "description"]
PATHS = ["runs/create", "runs/update", "runs/log-metric", "runs/log-batch", "runs/log-parameter", "runs/set-tag"]
PATHS += ["runs/search", "runs/log-inputs", "runs/outputs", "experiments/search", "experiments/create", "logged-models"]
PATHS += ["logged-models/search", "registered-models/create", "model-versions/create", "registered-models/alias"]
PATHS += ["model-versions/transition-stage", "registered-models/get-latest-versions", "runs/log-model"]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(PATHS), fields=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), own=st.booleans()
)
def test_no_body_makes_the_server_fail(shared: World, path: str, fields: dict[str, Any], own: bool) -> None:
    if own and "run" not in shared.tokens:
        shared.tokens["run"] = shared.run()
    given = {**fields, **({"run_id": shared.tokens["run"], "name": "net"} if own else {})}
    answer = shared.client.post(f"/api/2.0/mlflow/{path}", json=given, headers=shared.headers())
    assert answer.status_code < 500, (path, given, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()) == {"error_code", "message"}


def test_metrics_whose_steps_went_back_are_found_and_sorted_by_the_point_of_the_highest_step(world: World) -> None:
    runs = {}
    # (step, value) in the order in which they come; the latest to MLflow is that of the highest step.
    for name, points in {
        "ahead": [(0, 9.0), (5, 1.0)],
        "back": [(5, 3.0), (0, 9.0)],
        "none": [],
        "nan": [(1, "NaN")],
    }.items():
        runs[world.run(run_name=name)] = name
        for step, value in points:
            run = next(id for id, known in runs.items() if known == name)
            world.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=1, step=step)

    def found(**asked: Any) -> list[str]:
        answer = world.post("runs/search", experiment_ids=["0"], **asked)
        return [runs[run["info"]["run_id"]] for run in answer.get("runs", [])]

    assert found(filter="metrics.m < 5", order_by=["metrics.m"]) == ["ahead", "back"]
    assert found(filter="metrics.m > 5") == []
    assert found(filter="metrics.m = 3 and attributes.run_name LIKE 'b%'") == ["back"]
    assert found(order_by=["metrics.m DESC"]) == ["back", "ahead", "nan", "none"]
    assert found(order_by=["metrics.m ASC"]) == ["ahead", "back", "nan", "none"]
    first = world.post("runs/search", experiment_ids=["0"], order_by=["metrics.m"], max_results=1)
    second = world.post(
        "runs/search", experiment_ids=["0"], order_by=["metrics.m"], max_results=1, page_token=first["next_page_token"]
    )
    assert [runs[page["runs"][0]["info"]["run_id"]] for page in (first, second)] == ["ahead", "back"]


def found_runs(world: World, **asked: Any) -> list[str]:
    answer = world.post("runs/search", experiment_ids=["0"], **asked)
    return [run["info"]["run_name"] for run in answer.get("runs", [])]


def test_the_latest_value_is_that_of_the_highest_step_where_times_went_back_too(world: World) -> None:
    run = world.run(run_name="odd")
    for step, value, at_ms in [(0, 1.0, 2_000), (1, 5.0, 1_000)]:
        world.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=at_ms, step=step)
    (shown,) = world.get("runs/get", run_id=run)["run"]["data"]["metrics"]
    assert shown == {"key": "m", "value": 5.0, "timestamp": 1_000, "step": 1}
    assert found_runs(world, filter="metrics.m = 5") == ["odd"]
    assert found_runs(world, filter="metrics.m < 5") == []


@pytest.mark.parametrize(
    ("sign", "number", "fits"),
    [
        ("=", 2, "b"),
        ("!=", 2, "ac"),
        (">", 2, "c"),
        (">=", 2, "bc"),
        ("<", 2, "a"),
        ("<=", 2, "ab"),
    ],
)
def test_metrics_whose_steps_went_back_are_compared_by_every_sign(
    world: World, sign: str, number: int, fits: str
) -> None:
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        run = world.run(run_name=name)
        for step, one in [(5, value), (0, 2.5), (1, 0.5)]:
            world.post("runs/log-metric", run_id=run, key="m", value=one, timestamp=1, step=step)
    for _again in range(2):  # what was read of them is kept
        assert sorted(found_runs(world, filter=f"metrics.m {sign} {number}")) == list(fits)
    run = world.post("runs/search", experiment_ids=["0"], filter="run_name = 'a'")["runs"][0]["info"]["run_id"]
    world.post("runs/log-metric", run_id=run, key="m", value=2.0, timestamp=1, step=9)
    assert found_runs(world, filter="metrics.m = 1") == []


def test_of_many_runs_beside_one_whose_steps_went_back_every_page_is_right(world: World) -> None:
    for number in range(9):
        run = world.run(run_name=f"run {number}")
        for step in (3, 1) if number == 4 else (1, 3):
            world.post("runs/log-metric", run_id=run, key="m", value=number * 10 + step, timestamp=1, step=step)
    pages, token = [], ""
    while len(pages) < 5:
        asked = {"experiment_ids": ["0"], "order_by": ["metrics.m DESC"], "max_results": 2, "page_token": token}
        answer = world.post("runs/search", **asked)
        pages.append([run["info"]["run_name"] for run in answer["runs"]])
        token = answer.get("next_page_token", "")
    assert [name for page in pages for name in page] == [f"run {number}" for number in range(8, -1, -1)]
    assert not token


def test_params_are_texts_to_filters(world: World) -> None:
    for value in ("1", "1.0", "01", "True"):
        world.post("runs/log-parameter", run_id=world.run(run_name=value), key="p", value=value)
    assert found_runs(world, filter="params.p = '1'") == ["1"]
    assert found_runs(world, filter="params.p = '1.0'") == ["1.0"]
    assert sorted(found_runs(world, filter="params.p != '1'")) == ["01", "1.0", "True"]
    assert found_runs(world, filter="params.p = 'True'") == ["True"]


def test_runs_are_sorted_by_status_and_end_as_clients_know_them(world: World) -> None:
    for name, status, end_ms in [
        ("a", "KILLED", 5),
        ("b", "FINISHED", -3),
        ("c", "SCHEDULED", None),
        ("d", "FAILED", 99),
        ("e", "RUNNING", None),
    ]:
        run, ended = world.run(run_name=name), {} if end_ms is None else {"end_time": end_ms}
        world.post("runs/update", run_id=run, status=status, **ended)
    assert "".join(found_runs(world, order_by=["status"])) == "dbaec"
    assert "".join(found_runs(world, order_by=["status DESC"])) == "ceabd"
    assert "".join(found_runs(world, order_by=["end_time"]))[:3] == "bad"
    assert "".join(found_runs(world, order_by=["end_time DESC"]))[:3] == "dab"


def test_runs_with_nan_are_before_those_without_the_metric(world: World) -> None:
    for name, value in [("none", None), ("nan", "NaN"), ("one", 1), ("two", 2)]:
        run = world.run(run_name=name)
        if value is not None:
            world.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=1, step=1)
    assert found_runs(world, order_by=["metrics.m"]) == ["one", "two", "nan", "none"]
    assert found_runs(world, order_by=["metrics.m DESC"]) == ["two", "one", "nan", "none"]
    assert found_runs(world, order_by=["metrics.m DESC"], max_results=3) == ["two", "one", "nan"]


def test_a_list_may_end_with_a_comma_as_python_writes_tuples() -> None:
    assert GRAMMAR.clauses("run_id IN ('a',)") == [Clause("attribute", "run_id", "IN", ("a",))]
    with pytest.raises(MlflowError):
        GRAMMAR.clauses("run_id IN (,)")


@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_pages_of_runs_that_are_looked_at_one_by_one_hold_each_once(world: World, most: int) -> None:
    runs = [world.run(start_time=1_000 + number) for number in range(24)]
    for number, run in enumerate(runs):  # equal as numbers, not as the texts that MLflow compares
        world.post("runs/log-parameter", run_id=run, key="lr", value="1" if number % 3 == 0 else "1.0")
    seen: list[str] = []
    pages, token = 0, ""
    while token or not pages:
        answer = world.post(
            "runs/search", experiment_ids=["0"], filter="params.lr = '1'", max_results=most, page_token=token
        )
        seen += [run["info"]["run_id"] for run in answer.get("runs", [])]
        pages, token = pages + 1, answer.get("next_page_token", "")
    assert seen == runs[::3][::-1]
    assert pages == -(-8 // most)
