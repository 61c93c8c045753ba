"""Requests to both servers: right ones of every route, what may stand wrong in a field, searches of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.mlflow.differential import ABSENT, Both

Fields = dict[str, Any]
BASE_MS = 1_600_000_000_000

LONG_TEXTS = tuple("k" * length for length in (250, 251, 256, 500, 501, 1001, 5001, 6001, 8001, 20_001))
WRONG_TEXTS: tuple[Any, ...] = (
    *(ABSENT, None, "", 1, 1.5, True, [], ["a"], {}, {"a": 1}),
    *(
        "a/b",
        "a//b",
        "../a",
        "/a",
        "a/",
        "./a",
        ".",
        " ",
        "a b",
        " a",
        "a'b",
        'a"b',
        "a:b",
        "a%b",
        "é日本",
        "a\nb",
        "a@b",
    ),
    *("0", "-1", "$run", "$e", "latest", "v1", "a" * 32, "NaN"),
)
WRONG_INTEGERS: tuple[Any, ...] = (
    *(ABSENT, None, "", "5", "x", "1.0", " 5", -1, 0, 1, 1.0, 1.5, True, [], {}),
    *(2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 1e300, 50_000, 50_001, 1000, 1001),
)
WRONG_NUMBERS: tuple[Any, ...] = (
    *(ABSENT, None, "", "1.5", "x", "NaN", "nan", "Infinity", "-Infinity", "inf", "1e400", True, [], {}),
    *(0, -0.0, 1e308, -1e-320, 2**64, 10**400, 0.1),
)
WRONG_PAIRS: tuple[Any, ...] = (
    *(ABSENT, None, "x", [], {}, [1], [None], [[]], [{}]),
    *([{"key": "a"}], [{"value": "a"}], [{"key": "", "value": "a"}], [{"key": 1, "value": "a"}]),
    *([{"key": "a", "value": 1}], [{"key": "a", "value": None}], [{"key": "a", "value": "b", "more": 1}]),
    *(
        [{"key": "a", "value": "b"}, {"key": "a", "value": "b"}],
        [{"key": "a", "value": "b"}, {"key": "a", "value": "c"}],
    ),
    *([{"key": "k" * 251, "value": "a"}], [{"key": "a", "value": "v" * 8001}], [{"key": "../a", "value": "a"}]),
)
WRONG_LISTS: tuple[Any, ...] = (ABSENT, None, "", "x", [], [1], [None], [[]], {}, ["$e", "$e"], ["none"], ["name", "x"])
WRONG_QUERIES: tuple[Any, ...] = (ABSENT, "", "x", "-1", "0", "1.5", "9" * 30, "true", "é", "a/b", "k" * 501, "$run")

LOCATION, FIXED, TEXT, INTEGER, NUMBER, PAIRS, LIST = "location", "fixed", "text", "integer", "number", "pairs", "list"
WRONG = {
    TEXT: (*WRONG_TEXTS, *LONG_TEXTS),
    LOCATION: ("s3://b/x", "s3://b/x?y=1", "s3://b/x#y", "s3://b/../x", "mysql://u:p@h:1/d?driver=x", 1, [], ""),
    FIXED: (),
    INTEGER: WRONG_INTEGERS,
    NUMBER: WRONG_NUMBERS,
    PAIRS: WRONG_PAIRS,
    LIST: WRONG_LISTS,
}
_numbers = itertools.count()


def fresh() -> str:
    """Return a name that nothing has."""
    return f"fresh {next(_numbers)}"


@dataclass(frozen=True)
class Route:
    """A route with a request to it that is right.

    Attributes:
        fields: Each with its kind and a value; a callable makes one for each request.
        first: What has to be made before each request, as `$made`.
    """

    verb: str
    path: str
    fields: dict[str, tuple[str, Any]]
    first: str = ""

    def request(self, **other: Any) -> Fields:
        """Return the fields of a request, some of them other than right."""
        right = {name: value() if callable(value) else value for name, (_kind, value) in self.fields.items()}
        return {**right, **other}


PAIR = [{"key": "a", "value": "b"}]
E, RUN, NAME, MADE = (TEXT, "$e"), (TEXT, "$run"), (TEXT, "$model"), (TEXT, "$made")
KEY, VALUE, VERSION = (TEXT, "key"), (TEXT, "value"), (TEXT, "1")
POINT = {"key": KEY, "value": (NUMBER, 1.5), "timestamp": (INTEGER, 5), "step": (INTEGER, 3)}
POINTS = (
    PAIRS,
    [{"key": "m", "value": 2.5, "timestamp": 7, "step": 1}, {"key": "m", "value": "NaN", "timestamp": 8, "step": 2}],
)
ROUTES = (
    Route(
        "POST",
        "/experiments/create",
        {"name": (TEXT, fresh), "artifact_location": (LOCATION, ABSENT), "tags": (PAIRS, PAIR)},
    ),
    Route("GET", "/experiments/get", {"experiment_id": E}),
    Route("GET", "/experiments/get-by-name", {"experiment_name": (TEXT, "$ename")}),
    Route("POST", "/experiments/update", {"experiment_id": (TEXT, "$made"), "new_name": (TEXT, fresh)}, "experiment"),
    Route("POST", "/experiments/delete", {"experiment_id": (TEXT, "$made")}, "experiment"),
    Route("POST", "/experiments/restore", {"experiment_id": (TEXT, "$gone")}),
    Route("POST", "/experiments/set-experiment-tag", {"experiment_id": E, "key": KEY, "value": VALUE}),
    Route("POST", "/experiments/delete-experiment-tag", {"experiment_id": E, "key": KEY}),
    Route("POST", "/ajax/experiments/search-datasets", {"experiment_ids": (LIST, ["$e"])}),
    Route(
        "POST",
        "/runs/create",
        {
            "experiment_id": (TEXT, "$other"),
            "user_id": (TEXT, "somebody"),
            "start_time": (INTEGER, BASE_MS),
            "run_name": (TEXT, "a run"),
            "tags": (PAIRS, PAIR),
        },
    ),
    Route("GET", "/runs/get", {"run_id": RUN}),
    Route(
        "POST",
        "/runs/update",
        {"run_id": MADE, "status": (TEXT, "FINISHED"), "end_time": (INTEGER, BASE_MS), "run_name": (TEXT, "renamed")},
        "run",
    ),
    Route("POST", "/runs/delete", {"run_id": (TEXT, "$made")}, "run"),
    Route("POST", "/runs/restore", {"run_id": (TEXT, "$made")}, "run"),
    Route("POST", "/runs/log-metric", {"run_id": RUN, **POINT}),
    Route("POST", "/runs/log-parameter", {"run_id": RUN, "key": (TEXT, fresh), "value": VALUE}),
    Route("POST", "/runs/set-tag", {"run_id": RUN, "key": KEY, "value": VALUE}),
    Route("POST", "/runs/delete-tag", {"run_id": RUN, "key": KEY}),
    Route("POST", "/runs/log-batch", {"run_id": RUN, "metrics": POINTS, "params": (PAIRS, []), "tags": (PAIRS, PAIR)}),
    Route(
        "POST",
        "/runs/log-inputs",
        {
            "run_id": RUN,
            "datasets": (
                PAIRS,
                [{"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "s"}, "tags": PAIR}],
            ),
        },
    ),
    Route(
        "POST",
        "/runs/log-model",
        {
            "run_id": RUN,
            "model_json": (TEXT, '{"run_id": "r", "artifact_path": "m", "utc_time_created": "now", "flavors": {}}'),
        },
    ),
    Route(
        "POST",
        "/runs/search",
        {
            "experiment_ids": (LIST, ["$stage"]),
            "filter": (TEXT, "metrics.m > 1"),
            "run_view_type": (TEXT, "ALL"),
            "max_results": (INTEGER, 3),
            "order_by": (LIST, ["metrics.m DESC"]),
            "page_token": (TEXT, ABSENT),
        },
    ),
    Route(
        "GET",
        "/metrics/get-history",
        {
            "run_id": (TEXT, "$r1"),
            "metric_key": (TEXT, "m"),
            "max_results": (INTEGER, "2"),
            "page_token": (TEXT, ABSENT),
        },
    ),
    Route(
        "GET",
        "/ajax/metrics/get-history-bulk",
        {"run_id": (TEXT, "$r1"), "metric_key": (TEXT, "m"), "max_results": (INTEGER, "2")},
    ),
    Route(
        "GET",
        "/metrics/get-history-bulk-interval",
        {
            "run_ids": (TEXT, "$r1"),
            "metric_key": (TEXT, "m"),
            "start_step": (INTEGER, "0"),
            "end_step": (INTEGER, "9"),
            "max_results": (INTEGER, "20"),
        },
    ),
    Route(
        "POST",
        "/logged-models",
        {
            "experiment_id": (TEXT, "$other"),
            "name": (TEXT, "logged"),
            "model_type": (TEXT, "kind"),
            "source_run_id": (TEXT, ABSENT),
            "params": (PAIRS, PAIR),
            "tags": (PAIRS, PAIR),
        },
    ),
    Route(
        "PATCH",
        "/logged-models/$made",
        {"model_id": (FIXED, "$made"), "status": (TEXT, "LOGGED_MODEL_READY")},
        "logged",
    ),
    Route("PATCH", "/logged-models/$made/tags", {"model_id": (FIXED, "$made"), "tags": (PAIRS, PAIR)}, "logged"),
    Route(
        "POST",
        "/logged-models/$made/params",
        {"model_id": (FIXED, "$made"), "params": (PAIRS, [{"key": "p", "value": "v"}])},
        "logged",
    ),
    Route(
        "POST",
        "/logged-models/search",
        {
            "experiment_ids": (LIST, ["$stage"]),
            "filter": (TEXT, "name = 'logged'"),
            "max_results": (INTEGER, 2),
            "page_token": (TEXT, ABSENT),
            "order_by": (PAIRS, [{"field_name": "name", "ascending": True}]),
        },
    ),
    Route(
        "POST",
        "/registered-models/create",
        {"name": (TEXT, fresh), "tags": (PAIRS, PAIR), "description": (TEXT, "words")},
    ),
    Route("POST", "/registered-models/rename", {"name": (TEXT, "$made"), "new_name": (TEXT, fresh)}, "model"),
    Route("PATCH", "/registered-models/update", {"name": NAME, "description": (TEXT, "other words")}),
    Route("DELETE", "/registered-models/delete", {"name": (TEXT, "$made")}, "model"),
    Route("GET", "/registered-models/get", {"name": NAME}),
    Route("POST", "/registered-models/get-latest-versions", {"name": NAME, "stages": (LIST, ["None"])}),
    Route("POST", "/registered-models/set-tag", {"name": NAME, "key": KEY, "value": VALUE}),
    Route("DELETE", "/registered-models/delete-tag", {"name": NAME, "key": KEY}),
    Route("POST", "/registered-models/alias", {"name": MADE, "alias": (TEXT, "best"), "version": VERSION}, "version"),
    Route("GET", "/registered-models/alias", {"name": NAME, "alias": (TEXT, "best")}),
    Route("DELETE", "/registered-models/alias", {"name": NAME, "alias": (TEXT, "best")}),
    Route(
        "POST",
        "/model-versions/create",
        {
            "name": (TEXT, "$made"),
            "source": (TEXT, "s3://bucket/x"),
            "run_id": (TEXT, ABSENT),
            "tags": (PAIRS, PAIR),
            "run_link": (TEXT, "http://x/y"),
            "description": (TEXT, "words"),
        },
        "model",
    ),
    Route("PATCH", "/model-versions/update", {"name": NAME, "version": VERSION, "description": (TEXT, "new words")}),
    Route(
        "POST",
        "/model-versions/transition-stage",
        {"name": NAME, "version": VERSION, "stage": (TEXT, "Staging"), "archive_existing_versions": (FIXED, False)},
    ),
    Route("GET", "/model-versions/get", {"name": NAME, "version": VERSION}),
    Route("GET", "/model-versions/get-download-uri", {"name": NAME, "version": VERSION}),
    Route("POST", "/model-versions/set-tag", {"name": NAME, "version": VERSION, "key": KEY, "value": VALUE}),
    Route("DELETE", "/model-versions/delete-tag", {"name": NAME, "version": VERSION, "key": KEY}),
)

RUN_FILTERS = (
    *(f"metrics.m {sign} {value}" for sign in ("=", "!=", ">", ">=", "<", "<=") for value in ("1", "2.5", "-1e3", "0")),
    *(
        f"params.p {sign} '{value}'"
        for sign in ("=", "!=", "LIKE", "ILIKE")
        for value in ("a", "A%", "%", "_", "1", "1.0")
    ),
    *(f"tags.t {sign} '{value}'" for sign in ("=", "!=", "LIKE", "ILIKE") for value in ("a", "B%", "", "a_c", "é")),
    *("params.p IS NULL", "params.p IS NOT NULL", "tags.t IS NULL", "tags.t IS NOT NULL", "metrics.m IS NULL"),
    *(
        "run_id = '$r1'",
        "run_id != '$r1'",
        "run_id IN ('$r1', '$r2')",
        "run_id NOT IN ('$r1')",
        "run_id IN ()",
        "run_id IN ('$r1'",
    ),
    *(
        "status = 'FINISHED'",
        "status != 'RUNNING'",
        "status = 'finished'",
        "status LIKE 'F%'",
        "status IN ('FINISHED')",
    ),
    *(
        "run_name = 'run 1'",
        "run_name LIKE 'run%'",
        "run_name ILIKE 'RUN%'",
        "`run name` = 'run 1'",
        "run_name != 'run 1'",
    ),
    *("user_id = 'ann'", "attributes.user_id != 'ann'", "artifact_uri LIKE '%artifacts'", "tags.mlflow.user = 'ann'"),
    *(f"start_time {sign} {BASE_MS + 2}" for sign in ("=", "!=", ">", ">=", "<", "<=")),
    *(f"end_time {sign} {BASE_MS + 50}" for sign in ("=", "!=", ">", "<")),
    *("created > 5", "start_time > 1.5", "start_time > 'x'", "start_time LIKE '1%'", "end_time IS NULL"),
    *("datasets.name = 'd1'", "dataset.digest = '1'", "datasets.context = 'train'", "datasets.name LIKE 'd%'"),
    *("datasets.name IN ('d1','d2')", "datasets.name NOT IN ('d1')", "datasets.name != 'd1'", "datasets.none = 'x'"),
    *("datasets.name = 'd1' AND datasets.context = 'train'", "datasets.name = 'd2' and datasets.context = 'train'"),
    *(
        "metrics.`a b` > 1",
        'metrics."a b" > 1',
        "metrics.a b > 1",
        "params.`x/y` = 'z'",
        "metric.m > 1",
        "parameters.p = 'a'",
    ),
    *(
        "m > 1",
        "metrics.m > '1'",
        "metrics.m > x",
        "metrics.m LIKE '1'",
        "params.p > 'a'",
        "params.p = 1",
        "tags.t = a",
    ),
    *(
        "metrics.m > 1 OR metrics.m < 0",
        "(metrics.m > 1)",
        "NOT metrics.m > 1",
        "metrics.m > 1 AND",
        "AND metrics.m > 1",
    ),
    *("metrics.m > 1 AND params.p = 'a'", "metrics.m > 1 and tags.t LIKE 'a%' AND status = 'FINISHED'", "metrics.m"),
    *(
        "",
        "   ",
        ";",
        "metrics.m > 1;",
        "'",
        "metrics.m > 1 -- x",
        "metrics.m > 1 AND metrics.m < 3",
        "metrics.none > 1",
    ),
    *(
        "tags.t = 'it''s'",
        'tags.t = "a"',
        "tags.`t` = 'a'",
        "tag.t = 'a'",
        "Metrics.m > 1",
        "METRICS.m > 1",
        "attr.status = 'RUNNING'",
    ),
    *(
        "metrics.m > NaN",
        "metrics.m = nan",
        "metrics.m > inf",
        "metrics.m > 1e400",
        "metrics.m>1",
        "params.p='a'",
        "params.P = 'a'",
    ),
)
RUN_ORDERS = (
    *(
        f"{key}{word}"
        for key in ("metrics.m", "params.p", "tags.t", "start_time", "end_time", "run_name", "status")
        for word in ("", " ASC", " DESC", " asc", " desc")
    ),
    *("attributes.start_time DESC", "created DESC", "`run name`", "metrics.none", "metrics.`a b` DESC", "user_id"),
    *("", " ", "x", "metrics", "metrics.m UP", "metrics.m ASC DESC", "m", "datasets.name", "status DESC, run_id"),
)
EXPERIMENT_FILTERS = (
    *(f"name {sign} '{value}'" for sign in ("=", "!=", "LIKE", "ILIKE") for value in ("$ename", "STAGE%", "stage%")),
    *(
        "tags.color = 'red'",
        "tags.color != 'red'",
        "tags.color LIKE 'r%'",
        "tags.color IS NULL",
        "tags.color IS NOT NULL",
    ),
    *("creation_time > 5", "creation_time > 1.5", "creation_time > '5'", "last_update_time >= 5", "creation_time = 5"),
    *(
        "experiment_id = '$e'",
        "experiment_id IN ('$e')",
        "experiment_id NOT IN ('$e')",
        "experiment_id LIKE '1'",
        "name IN ('x')",
    ),
    *(
        "name > 'x'",
        "name = x",
        "x = 'y'",
        "metrics.m > 1",
        "name = 'x' OR name = 'y'",
        "",
        "attribute.name = '$ename'",
        "experiment_id > 1",
    ),
)
REGISTRY_FILTERS = (
    *(
        f"name {sign} '{value}'"
        for sign in ("=", "!=", "LIKE", "ILIKE")
        for value in ("$model", "STAGE%", "stage%", "none")
    ),
    *("tags.color = 'red'", "tags.color != 'red'", "tag.color LIKE 'r%'", "tags.none != 'x'", "tags.color IS NULL"),
    *(
        "run_id = '$r1'",
        "run_id IN ('$r1')",
        "run_id IN ('$r1','$r2')",
        "run_id != '$r1'",
        "run_id LIKE '%'",
        "run_id NOT IN ('$r1')",
    ),
    *(
        "source_path = 's3://bucket/1'",
        "source_path LIKE 's3:%'",
        "version_number = 1",
        "version_number > 1",
        "version_number = '1'",
    ),
    *(
        "name = x",
        "x = 'y'",
        "name > 'x'",
        "",
        "name = '$model' AND run_id = '$r1'",
        "name IN ('$model',)",
        "name NOT IN ('$model')",
        "aliases = 'x'",
    ),
    *(
        "creation_timestamp > 5",
        "last_updated_timestamp > 5",
        "current_stage = 'None'",
        "name = '$model' OR name = 'x'",
    ),
)
LOGGED_FILTERS = (
    *(
        "name = 'logged'",
        "name LIKE 'l%'",
        "name ILIKE 'L%'",
        "name != 'logged'",
        "name IN ('logged')",
        "name NOT IN ('logged')",
    ),
    *(
        "attributes.model_type = 'kind'",
        "model_id = '$logged'",
        "status = 'READY'",
        "status = 'LOGGED_MODEL_READY'",
        "source_run_id = '$r1'",
    ),
    *(
        "metrics.m > 1",
        "params.a = 'b'",
        "tags.a = 'b'",
        "tags.none = 'b'",
        "tags.a IS NULL",
        "params.a IS NOT NULL",
        "creation_timestamp > 5",
    ),
    *(
        "creation_time > 5",
        "last_updated_timestamp > 5",
        "x = 'y'",
        "name = x",
        "(name = 'x')",
        "name = 'x' OR name = 'y'",
        "metrics.m > 'x'",
    ),
)


def stage(both: Both) -> None:
    """Make what requests speak of."""
    both.post(
        "/experiments/create", {"name": "stage", "tags": [{"key": "color", "value": "red"}]}, stage="experiment_id"
    )
    for name in ("e", "other", "gone"):
        both.post("/experiments/create", {"name": f"stage {name}"}, **{name: "experiment_id"})
    both.ask("GET", "/experiments/get", {"experiment_id": "$e"}, ename="experiment.name")
    both.post("/experiments/delete", {"experiment_id": "$gone"})
    both.post("/runs/create", {"experiment_id": "$e", "start_time": BASE_MS}, run="run.info.run_id")
    values: list[list[Any]] = [[1, 2, 3], [3, 1], ["NaN"], ["Infinity"], [], [2.5], [2, "NaN"], ["-Infinity", 0]]
    for number, points in enumerate(values, 1):
        run = f"r{number}"
        user = "ann" if number % 2 else "bob"
        both.post(
            "/runs/create",
            {
                "experiment_id": "$stage",
                "start_time": BASE_MS + number,
                "run_name": f"run {number % 3}",
                "user_id": user,
                "tags": [{"key": "mlflow.user", "value": user}],
            },
            **{run: "run.info.run_id"},
        )
        for step, value in enumerate(points):
            point = {"key": "m", "value": value, "timestamp": BASE_MS + step, "step": step}
            both.post("/runs/log-metric", {"run_id": f"${run}", **point})
            both.post("/runs/log-metric", {"run_id": f"${run}", **point, "key": "a b"})
        if number % 3:
            param = ["a", "1", "1.0", "Abc", "", "é"][number % 6]
            both.post("/runs/log-parameter", {"run_id": f"${run}", "key": "p", "value": param})
            both.post("/runs/log-parameter", {"run_id": f"${run}", "key": "x/y", "value": "z"})
        if number % 4:
            tag = ["a", "it's", "abc", "Bcd", "a_c"][number % 5]
            both.post("/runs/set-tag", {"run_id": f"${run}", "key": "t", "value": tag})
        if number % 2:
            dataset = {"name": f"d{number % 3}", "digest": "1", "source_type": "local", "source": "s"}
            tags = [{"key": "mlflow.data.context", "value": "train" if number % 3 else "eval"}]
            both.post("/runs/log-inputs", {"run_id": f"${run}", "datasets": [{"dataset": dataset, "tags": tags}]})
        status = ["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"][number % 5]
        ended = {"end_time": BASE_MS + 10 * number} if number % 5 < 3 else {}
        both.post("/runs/update", {"run_id": f"${run}", "status": status, **ended})
    both.post("/runs/delete", {"run_id": "$r6"})
    both.post("/registered-models/create", {"name": "stage model"}, model="registered_model.name")
    both.post("/registered-models/create", {"name": "stage second", "tags": [{"key": "color", "value": "red"}]})
    for number in (1, 2, 3):
        version = {"name": "$model", "source": f"s3://bucket/{number}", "tags": [{"key": "color", "value": "red"}]}
        both.post("/model-versions/create", {**version, **({"run_id": "$r1"} if number < 3 else {})})
    both.post("/registered-models/alias", {"name": "$model", "alias": "best", "version": "1"})
    both.post(
        "/logged-models",
        {"experiment_id": "$stage", "name": "logged", "model_type": "kind", "params": PAIR, "tags": PAIR},
        logged="model.info.model_id",
    )
    for name in ("other", "third"):
        both.post("/logged-models", {"experiment_id": "$stage", "name": name, "source_run_id": "$r1"})
    both.post(
        "/runs/log-metric", {"run_id": "$r1", "key": "m", "value": 2, "timestamp": 5, "step": 9, "model_id": "$logged"}
    )


def first(both: Both, kind: str) -> None:
    """Make what a request will change or delete."""
    if kind == "experiment":
        both.post("/experiments/create", {"name": fresh()}, made="experiment_id")
    if kind == "run":
        both.post("/runs/create", {"experiment_id": "$other", "start_time": BASE_MS}, made="run.info.run_id")
    if kind in ("model", "version"):
        both.post("/registered-models/create", {"name": fresh()}, made="registered_model.name")
    if kind == "version":
        both.post("/model-versions/create", {"name": "$made", "source": "s3://bucket/x", "description": "words"})
    if kind == "logged":
        both.post("/logged-models", {"experiment_id": "$other", "name": "made"}, made="model.info.model_id")


def wrong_requests(draw: Callable[[list[Any]], list[Any]]) -> Iterator[tuple[Route, str, Any]]:
    """Yield routes, each with a field of it and a value that may be wrong."""
    for route in ROUTES:
        cases = [
            (route, name, value)
            for name, (kind, _right) in route.fields.items()
            for value in (WRONG_QUERIES if route.verb == "GET" else WRONG[kind])
        ]
        yield route, "", None
        yield from draw(cases)


def searches(draw: Callable[[list[Any]], list[Any]]) -> Iterator[tuple[str, str, Fields]]:
    """Yield searches."""
    runs = {"experiment_ids": ["$stage"], "max_results": 100}
    asked: list[tuple[str, str, Fields]] = [("POST", "/runs/search", {**runs, "filter": one}) for one in RUN_FILTERS]
    asked += [("POST", "/runs/search", {**runs, "order_by": [one]}) for one in RUN_ORDERS]
    asked += [
        ("POST", "/runs/search", {**runs, "order_by": [one, "end_time"], "run_view_type": "ALL"}) for one in RUN_ORDERS
    ]
    asked += [
        ("POST", "/runs/search", {**runs, "run_view_type": view})
        for view in ("ALL", "DELETED_ONLY", "ACTIVE_ONLY", "x")
    ]
    of_experiments = {"max_results": 1000, "view_type": "ALL"}
    stages = "name ILIKE 'stage%'"
    asked += [
        ("POST", "/experiments/search", {**of_experiments, "filter": f"{one} AND {stages}" if one else stages})
        for one in EXPERIMENT_FILTERS
    ]
    asked += [
        ("POST", "/experiments/search", {**of_experiments, "filter": stages, "order_by": [one]})
        for one in (
            "name",
            "name DESC",
            "experiment_id",
            "creation_time ASC",
            "last_update_time",
            "tags.color",
            "x",
            "",
            "name UP",
        )
    ]
    for path in ("/registered-models/search", "/model-versions/search"):
        asked += [("GET", path, {"filter": f"{one} AND {stages}" if one else stages}) for one in REGISTRY_FILTERS]
        asked += [
            ("GET", path, {"filter": stages, "order_by": [one]})
            for one in (
                "name",
                "name DESC",
                "version_number ASC",
                "creation_timestamp",
                "timestamp",
                "x",
                "",
                "name UP",
                "run_id",
            )
        ]
        asked += [
            ("GET", path, {"filter": stages, "max_results": one}) for one in (0, 1, 2, -1, 1000, 1001, 200_000, 200_001)
        ]
    logged = {"experiment_ids": ["$stage"]}
    asked += [("POST", "/logged-models/search", {**logged, "filter": one}) for one in LOGGED_FILTERS]
    asked += [
        ("POST", "/logged-models/search", {**logged, "order_by": [{"field_name": one, "ascending": up}]})
        for one in ("name", "creation_timestamp", "metrics.m", "params.a", "x", "")
        for up in (True, False)
    ]
    yield from draw(asked)


def pages(both: Both) -> None:
    """Go through searches page by page."""
    asked: list[tuple[str, str, Fields]] = [
        ("POST", "/runs/search", {"experiment_ids": ["$stage"], "order_by": ["metrics.m"], "run_view_type": "ALL"}),
        ("POST", "/experiments/search", {"filter": "name ILIKE 'stage%'", "view_type": "ALL", "order_by": ["name"]}),
        ("GET", "/registered-models/search", {"filter": "name LIKE 'stage%'"}),
        ("GET", "/model-versions/search", {"filter": "name LIKE 'stage%'", "order_by": ["version_number ASC"]}),
        ("POST", "/logged-models/search", {"experiment_ids": ["$stage"], "order_by": [{"field_name": "name"}]}),
        ("GET", "/metrics/get-history", {"run_id": "$r1", "metric_key": "m"}),
    ]
    for verb, path, fields in asked:
        fields = {**fields, "max_results": 1}
        for _page in range(10):
            answer = both.ask(verb, path, fields, token="next_page_token")
            if not isinstance(answer.body, dict) or "next_page_token" not in answer.body:
                break
            fields["page_token"] = "$token"


# --- a walk: requests that are right more often than not, one after another over the same things ----------------------

VALUES = (-1.5, 0.5, 1, 2.5, "NaN", "Infinity", "-Infinity", 1e-300)
TIMES = (0, 1, 5, 10, BASE_MS, BASE_MS + 1)
STEPS = (-3, 0, 1, 2, 5, 1 << 40)
WORDS = ("a", "b", "1", "1.0", "A", "", "é", "it's", "x y", "%", "a_b", "True", "1e3", "0.10")
KEYS = ("m", "a/b", "a.b", "x y", "k-1")
SIGNS = ("=", "!=", ">", ">=", "<", "<=")
STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED")


class Walk:
    """Requests drawn by chance.

    Args:
        both: The two servers.
        chance: What draws.
    """

    def __init__(self, both: Both, chance: Random) -> None:
        self._both = both
        self._draw = chance
        self._name = f"walk{next(_numbers)}"
        self._runs: list[str] = []
        self._models: list[str] = []
        self._kinds = [
            *(6 * [self._metric] + 4 * [self._batch] + 3 * [self._param] + 3 * [self._tag] + 4 * [self._search]),
            *(2 * [self._update] + [self._delete_or_restore, self._untag, self._dataset] + 3 * [self._look]),
            *(3 * [self._version] + [self._stage, self._model_words] + 2 * [self._alias] + 2 * [self._registry]),
            *(self._experiment, self._logged),
        ]
        both.post("/experiments/create", {"name": self._name}, **{self._name: "experiment_id"})
        for _number in range(3):
            self._run()
            self._model()

    def step(self) -> None:
        """Ask one thing."""
        if self._draw.random() < 0.05:
            (self._run if self._draw.random() < 0.7 else self._model)()
        else:
            self._draw.choice(self._kinds)()

    def _one(self, *things: Any) -> Any:
        return self._draw.choice(things)

    def _any_run(self) -> str:
        return self._one(*self._runs)

    def _any_model(self) -> Fields:
        return {"name": self._one(*self._models)}

    def _any_version(self) -> Fields:
        return {**self._any_model(), "version": self._one("1", "1", "2", "3")}

    def _run(self) -> None:
        name = f"{self._name}r{len(self._runs)}"
        fields = {
            "experiment_id": f"${self._name}",
            "start_time": BASE_MS + len(self._runs),
            "run_name": self._one("a", name),
        }
        self._both.post("/runs/create", fields, **{name: "run.info.run_id"})
        self._runs.append(f"${name}")

    def _model(self) -> None:
        name = f"{self._name} model {len(self._models)}"
        self._both.post("/registered-models/create", {"name": name, "description": self._one("", "words")})
        self._models.append(name)

    def _point(self) -> Fields:
        return {
            "key": self._one(*KEYS[:3]),
            "value": self._one(*VALUES),
            "timestamp": self._one(*TIMES),
            "step": self._one(*STEPS),
        }

    def _pair(self) -> Fields:
        return {"key": self._one(*KEYS), "value": self._one(*WORDS)}

    def _metric(self) -> None:
        self._both.post("/runs/log-metric", {"run_id": self._any_run(), **self._point()})

    def _batch(self) -> None:
        metrics = [self._point() for _number in range(self._one(0, 1, 5, 40))]
        params = list({one["key"]: one for one in (self._pair() for _number in range(self._one(0, 0, 1, 2)))}.values())
        tags = [self._pair() for _number in range(self._one(0, 1))]
        self._both.post(
            "/runs/log-batch", {"run_id": self._any_run(), "metrics": metrics, "params": params, "tags": tags}
        )

    def _param(self) -> None:
        self._both.post("/runs/log-parameter", {"run_id": self._any_run(), **self._pair()})

    def _tag(self) -> None:
        pair = self._one(self._pair(), self._pair(), {"key": "mlflow.runName", "value": self._one("a", "named")})
        self._both.post("/runs/set-tag", {"run_id": self._any_run(), **pair})

    def _untag(self) -> None:
        self._both.post("/runs/delete-tag", {"run_id": self._any_run(), "key": self._one(*KEYS)})

    def _update(self) -> None:
        status = self._one(*STATUSES)
        ended = {"end_time": self._one(*TIMES[1:])} if status in STATUSES[1:4] else {}
        named = {"run_name": self._one("a", "other")} if self._draw.random() < 0.3 else {}
        self._both.post("/runs/update", {"run_id": self._any_run(), "status": status, **ended, **named})

    def _delete_or_restore(self) -> None:
        self._both.post(self._one("/runs/delete", "/runs/restore", "/runs/restore"), {"run_id": self._any_run()})

    def _dataset(self) -> None:
        dataset = {"name": self._one("d1", "d2"), "digest": self._one("1", "2"), "source_type": "local", "source": "s"}
        tags = self._one([], [{"key": "mlflow.data.context", "value": self._one("train", "eval")}])
        self._both.post(
            "/runs/log-inputs", {"run_id": self._any_run(), "datasets": [{"dataset": dataset, "tags": tags}]}
        )

    def _look(self) -> None:
        run = {"run_id": self._any_run()}
        self._both.ask("GET", "/runs/get", run)
        self._both.ask("GET", "/metrics/get-history", {**run, "metric_key": self._one(*KEYS)})

    def _search(self) -> None:
        clauses = [
            self._one(
                f"metrics.`{self._one(*KEYS[:3])}` {self._one(*SIGNS)} {self._one(-1.5, 0, 1, 2, 2.5)}",
                f'params.`{self._one(*KEYS)}` {self._one("=", "!=", "LIKE", "ILIKE")} "{self._one(*WORDS)}"',
                f'tags.`{self._one(*KEYS)}` {self._one("=", "!=", "LIKE", "ILIKE")} "{self._one(*WORDS)}"',
                f"{self._one('tags', 'params')}.`{self._one(*KEYS)}` IS {self._one('', 'NOT ')}NULL",
                f"attributes.status {self._one('=', '!=')} '{self._one(*STATUSES)}'",
                f"attributes.{self._one('start_time', 'end_time')} {self._one(*SIGNS)} {self._one(*TIMES)}",
                f"datasets.{self._one('name', 'digest', 'context')} = '{self._one('d1', '1', 'train')}'",
            )
            for _number in range(self._one(0, 1, 1, 2))
        ]
        key = self._one("metrics.m", "metrics.`a/b`", "tags.`k-1`", "end_time", "status", "run_name", "start_time")
        fields = {
            "experiment_ids": [f"${self._name}"],
            "filter": " AND ".join(clauses),
            "order_by": self._one([], [f"{key} {self._one('ASC', 'DESC')}"]),
            "run_view_type": self._one("ACTIVE_ONLY", "ACTIVE_ONLY", "ALL", "DELETED_ONLY"),
            "max_results": self._one(2, 100),
        }
        self._both.post("/runs/search", fields)

    def _version(self) -> None:
        self._both.post(
            "/model-versions/create",
            {
                **self._any_model(),
                "source": self._one("s3://b/x", "s3://b/y"),
                "tags": [{"key": "color", "value": self._one("red", "blue")}],
            },
        )

    def _stage(self) -> None:
        fields = {
            "stage": self._one("Staging", "production", "Archived", "None", "other"),
            "archive_existing_versions": self._one(True, False),
        }
        self._both.post("/model-versions/transition-stage", {**self._any_version(), **fields})

    def _model_words(self) -> None:
        verb, path, fields = self._one(
            ("PATCH", "/registered-models/update", {**self._any_model(), "description": self._one("", "new")}),
            ("PATCH", "/model-versions/update", {**self._any_version(), "description": self._one("", "new")}),
            ("POST", "/registered-models/set-tag", {**self._any_model(), **self._pair()}),
            ("POST", "/model-versions/set-tag", {**self._any_version(), **self._pair()}),
            ("DELETE", "/registered-models/delete-tag", {**self._any_model(), "key": self._one(*KEYS)}),
            ("DELETE", "/model-versions/delete-tag", {**self._any_version(), "key": self._one(*KEYS)}),
            ("DELETE", "/model-versions/delete", self._any_version()),
        )
        self._both.ask(verb, path, fields)

    def _alias(self) -> None:
        alias = {"alias": self._one("best", "production", "7", "Latest", "v2")}
        verb, fields = self._one(
            ("POST", self._any_version()), ("GET", self._any_model()), ("DELETE", self._any_model())
        )
        self._both.ask(verb, "/registered-models/alias", {**fields, **alias})

    def _registry(self) -> None:
        verb, path, fields = self._one(
            ("GET", "/registered-models/get", self._any_model()),
            ("GET", "/model-versions/get", self._any_version()),
            ("POST", "/registered-models/get-latest-versions", self._any_model()),
            (
                "GET",
                "/registered-models/search",
                {"filter": f"name LIKE '{self._name} %'", "order_by": [self._one("name", "name DESC")]},
            ),
            (
                "GET",
                "/model-versions/search",
                {
                    "filter": f"name LIKE '{self._name} %' AND {self._one(*VERSION_CLAUSES)}",
                    "order_by": ["name ASC", f"version_number {self._one('ASC', 'DESC')}"],
                },
            ),
        )
        self._both.ask(verb, path, fields)

    def _experiment(self) -> None:
        one = {"experiment_id": f"${self._name}"}
        path, fields = self._one(
            ("/experiments/set-experiment-tag", {**one, **self._pair()}),
            ("/experiments/delete-experiment-tag", {**one, "key": self._one(*KEYS)}),
        )
        self._both.post(path, fields)
        self._both.ask("GET", "/experiments/get", one)

    def _logged(self) -> None:
        fields = {
            "experiment_id": f"${self._name}",
            "name": "logged",
            "tags": [self._pair()],
            "source_run_id": self._any_run(),
        }
        self._both.post("/logged-models", fields)


VERSION_CLAUSES = (
    "tags.color = 'red'",
    "tags.color != 'red'",
    "version_number > 1",
    "source_path = 's3://b/x'",
    "run_id = 'x'",
)
