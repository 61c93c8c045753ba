"""The API under requests that its own description allows, and others: never a 5xx, always one shape of error."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import hypothesis
import pytest
from hypothesis import strategies as st

from runstone.server.errors import ErrorAnswer
from tests.server.conftest import World
from tests.server.walking import asks, sent

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own making
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")

IS_LONG = bool(os.environ.get("RUNSTONE_SOAK"))
_KEPT = ("/api/users", "/api/tokens", "/api/log")


@pytest.mark.filterwarnings("ignore")
def test_s39_no_request_makes_the_server_fail(fresh: World) -> None:
    document = fresh.server.app.openapi()
    schema = schemathesis.openapi.from_dict(document)
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith(_KEPT) and operation.method != "get":
            continue  # else it would lock itself out

        @hypothesis.settings(
            max_examples=200 if IS_LONG else 4,
            deadline=None,
            database=None,
            derandomize=not IS_LONG,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(operation.as_strategy())
        def hold(case: Any) -> None:
            nonlocal tried
            tried += 1
            told = case.as_transport_kwargs(base_url="http://127.0.0.1:6060")
            headers = {**fresh.headers("ann"), "Content-Type": "application/json"}
            body = {name: told[name] for name in ("json", "content", "data") if told.get(name) is not None}
            try:
                request = fresh.client.build_request(
                    told["method"], told["url"], params=told.get("params"), headers=headers, **body
                )
            except (ValueError, TypeError, UnicodeError):
                return  # no client could send it
            answer = fresh.client.send(request)
            assert answer.status_code < 500, (told, answer.text)
            if answer.status_code >= 400:
                ErrorAnswer.model_validate_json(answer.content)

        hold()
    assert tried > 100


def test_names_that_are_there_with_anything_behind_them(fresh: World) -> None:
    """Most of what is made up names nothing: here every param that can be right is."""
    known = {"run_id": fresh.runs["first"], "other_id": fresh.runs["second"], "name": "out%2Fput", "kind": "curves"}
    odd = ["1", "-1", "latest", "%00", "%ff", "..", "a" * 3_000, "%F0%9F%92%A9", "NaN", "1e999", "%5B%5D", "' or 1=1"]
    for path, operations in fresh.server.app.openapi()["paths"].items():
        for method in operations:
            if method != "get":
                continue
            for value in odd:
                address = path
                for name, right in known.items():
                    address = address.replace(f"{{{name}}}", right)
                while "{" in address:
                    start, end = address.index("{"), address.index("}")
                    address = address[:start] + value + address[end + 1 :]
                params = [one["name"] for one in operations[method].get("parameters", []) if one["in"] == "query"]
                query = "&".join(f"{name}={value}" for name in params)
                answer = fresh.client.get(f"{address}?{query}", headers=fresh.headers("ann"))
                assert answer.status_code < 500, (address, query[:200], answer.text)


def test_the_description_of_the_api_is_whole(fresh: World) -> None:
    document = fresh.server.app.openapi()
    assert Path("/api/runs").as_posix() in document["paths"]
    for path, operations in document["paths"].items():
        for method, one in operations.items():
            assert one.get("description") or one.get("summary"), (method, path)
            assert "200" in one["responses"], (method, path)
            assert "4XX" in one["responses"], (method, path)


def test_every_route_is_in_the_documentation(fresh: World) -> None:
    told = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    own = [
        f"| {method.upper()} | `{path[1:]}` |"
        for path, operations in fresh.server.app.openapi()["paths"].items()
        for method, one in operations.items()
        if set(one.get("tags", ())) & {"runs", "series", "artifacts", "catalog", "compare", "reports", "server"}
    ]
    assert [line for line in own if line not in told] == []


# What clients of MLflow send, by name: their routes read what they know, whatever else is there.
_FIELDS = (
    "run_id run_uuid run_ids experiment_id experiment_ids experiment_name name new_name key value "
    "timestamp step metrics params tags data filter order_by max_results page_token path version source "
    "stage alias description status end_time start_time user_id artifact_location lifecycle_stage "
    "view_type run_view_type datasets inputs models model_id model_type source_run_id "
    "archive_existing_versions metric_key start_step end_step run_name max_results_per_run"
).split()
_LEAVES = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "x", "RUN", "net", "loss", "a/b", "../x", "NaN", "Infinity", "1e999", "\x00"]),
    st.sampled_from(["name = 'x'", "metrics.loss > 1", "attributes.status = 'x'", "tags.`a` ILIKE '%'", "((", "LIVE"]),
    st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 2**70, 0.5, -0.0, 1e300, True, False, None]),
    st.text(max_size=8),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=4),
    max_leaves=8,
)


def test_s39_no_request_to_mlflows_routes_makes_the_server_fail(fresh: World) -> None:
    ann, tried = fresh.headers("ann"), 0
    ask(fresh, "POST", "/api/2.0/mlflow/registered-models/create", {"name": "net"})
    routes = [(method, path) for method, path in asks(fresh, other="RUN") if re.search("2.0/mlflow|artifact", path)]
    routes = [one for one in routes if not one[1].startswith(("/ajax-api/", "/api/runs")) and one[0] != "HEAD"]
    assert len(routes) > 60
    for method, path in routes:
        tried += _fuzzed(fresh, method, path)
    assert tried > 150
    assert fresh.client.get("/api/runs", headers=ann).json()["total"] >= 3


def _fuzzed(world: World, method: str, path: str) -> int:
    """Ask a route many things, and return how many."""
    tried = 0

    @hypothesis.settings(
        max_examples=400 if IS_LONG else 3,
        deadline=None,
        database=None,
        derandomize=not IS_LONG,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=8), _LEAVES)
    def hold(fields: dict[str, Any], name: Any) -> None:
        nonlocal tried
        tried += 1
        answer = ask(world, method, path.replace("RUN", quote(str(name), safe="") or "x"), fields)
        told = (method, path, name, fields, answer.status_code, answer.text[:500])
        assert answer.status_code < 500 or answer.status_code == 501, told
        if answer.status_code >= 400:
            assert "error" in answer.text, told

    hold()
    return tried


def ask(world: World, method: str, path: str, fields: dict[str, Any]) -> httpx2.Response:
    """Ask a route of MLflow's, with fields in its body and its query; `RUN` stands for a run that is there."""
    told = json.dumps(fields).replace('"RUN"', f'"{world.runs["first"]}"')
    query = urlencode({name: value for name, value in json.loads(told).items() if isinstance(value, (str, int))})
    headers = {**world.headers("ann"), "content-type": "application/json"}
    return sent(world, method, f"{path}?{query}", headers, told.encode() if method not in ("GET", "HEAD") else b"")
