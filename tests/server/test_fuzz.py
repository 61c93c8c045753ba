"""The API under requests that its own description allows, and others: never a 5xx, always one shape of error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from runstone.server.errors import ErrorAnswer
from tests.server.conftest import World

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
