"""Whatever is sent to a route of the protocol, the answer is JSON in its form, and no 5xx."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstone.server.mlflow.errors import MlflowError
from runstone.server.mlflow.experiments import GRAMMAR as EXPERIMENTS
from runstone.server.mlflow.paths import is_mlflow
from runstone.server.mlflow.registry import MODELS, VERSIONS
from runstone.server.mlflow.router import _REGISTRY, _TRACKING
from runstone.server.mlflow.searching import GRAMMAR as RUNS
from tests.mlflow.conftest import API, PROXY, World

ROUTES = [(verb, path) for verbs, path, _handler, _role in (*_TRACKING, *_REGISTRY) for verb in verbs.split()]
NAMES = (
    "run_id run_uuid experiment_id experiment_ids name new_name key value timestamp step metrics params tags datasets "
    "models filter order_by max_results page_token version alias stage stages source status end_time start_time path "
    "model_id run_ids digest metric_key experiment_name description view_type run_view_type dataset model_json"
).split()
TEXTS = ("0", "1", "m", "model", "NaN", "-Infinity", "1e999", "FINISHED", "a" * 300, "../x", "\0", "é" * 9)
QUESTIONS = ("metrics.m > 1", "name = 'x'", "tags.a IS NULL", "x", "eyJvZmZzZXQiOiAxfQ==", "version_number DESC")
PIECES = (
    "metrics . m params tags attributes datasets name `a` \"x\" = != > < LIKE ILIKE IN NOT IS NULL AND OR ( ) , 'x' 1 "
    "-2.5e3 'a''b' run_id start_time %"
).split()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from((*TEXTS, *QUESTIONS)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)
ATTACK = given(body=BODIES, keeps=st.sets(st.sampled_from(("run_id", "experiment_id", "name", "version", "key"))))
LONG = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
SHORT = settings(LONG, max_examples=5)


@pytest.fixture(scope="module")
def there(shared: World) -> dict[str, Any]:
    """Ids of things that exist, so that requests come further than the first check."""
    run = shared.run()
    shared.post("runs/log-metric", run_id=run, key="m", value=1.0, timestamp=1, step=0)
    shared.post("registered-models/create", name="model")
    shared.post("model-versions/create", name="model", source=f"runs:/{run}/x", run_id=run)
    model = shared.post("logged-models", experiment_id="0", name="logged")["model"]["info"]["model_id"]
    return {"run_id": run, "experiment_id": "0", "name": "model", "version": "1", "model_id": model, "key": "m"}


def check(answer: Any, asked: object) -> None:
    shown = f"{asked!r:.600}: {answer.status_code} {answer.text:.600}"
    assert answer.status_code < 500, shown
    if answer.status_code >= 400:
        assert set(json.loads(answer.content)) >= {"error_code", "message"}, shown


def attack(shared: World, there: dict[str, Any], verb: str, path: str, body: dict[str, Any], keeps: set[str]) -> None:
    sent = {**body, **{name: value for name, value in there.items() if name in keeps}}
    where = API + path.replace("{model_id}", there["model_id"]).replace("{key:path}", "a/b")
    if verb == "GET":
        query = {name: value if isinstance(value, str) else json.dumps(value) for name, value in sent.items()}
        answer = shared.client.get(where, params=query, headers=shared.headers())
    else:
        data = json.dumps(sent).encode("utf-8", "surrogatepass")
        headers = {**shared.headers(), "Content-Type": "application/json"}
        answer = shared.client.request(verb, where, content=data, headers=headers)
    check(answer, (verb, path, sent))


@pytest.mark.parametrize(("verb", "path"), ROUTES)
@SHORT
@ATTACK
def test_no_request_breaks_a_route(
    shared: World, there: dict[str, Any], verb: str, path: str, body: dict[str, Any], keeps: set[str]
) -> None:
    attack(shared, there, verb, path, body, keeps)


@pytest.mark.soak
@pytest.mark.parametrize(("verb", "path"), ROUTES)
@LONG
@ATTACK
def test_no_request_of_many_breaks_a_route(
    shared: World, there: dict[str, Any], verb: str, path: str, body: dict[str, Any], keeps: set[str]
) -> None:
    attack(shared, there, verb, path, body, keeps)


@settings(LONG, max_examples=40)
@given(
    verb=st.sampled_from(("GET", "PUT", "DELETE")),
    parts=st.lists(st.text(max_size=6) | st.sampled_from(("..", "0", "models", "artifacts", "%2e", "a b")), max_size=5),
)
def test_no_path_breaks_the_proxy(shared: World, verb: str, parts: list[str]) -> None:
    path = "/".join(quote(part.encode("utf-8", "replace"), safe="%") for part in parts)
    data = b"x" if verb == "PUT" else None
    answer = shared.client.request(verb, f"{PROXY}/{path}", headers=shared.headers(), content=data)
    assert answer.status_code < 500, (verb, path, answer.text)
    if is_mlflow(answer.request.url.path):  # `..` may lead out of the protocol before it is sent
        check(answer, (verb, path))


@pytest.mark.parametrize("grammar", [RUNS, EXPERIMENTS, MODELS, VERSIONS])
@settings(LONG, max_examples=60)
@given(text=st.lists(st.sampled_from(PIECES), max_size=10).map(" ".join) | st.text(max_size=40))
def test_a_filter_parses_or_is_refused(grammar: Any, text: str) -> None:
    codes = set()
    for parse in (grammar.clauses, lambda one: grammar.orders([one])):
        try:
            parse(text)
        except MlflowError as error:
            codes.add(error.code)
    assert codes <= {"INVALID_PARAMETER_VALUE"}
