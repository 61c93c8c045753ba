"""MLflow's own server and ours answer the same requests the same, right ones and wrong ones."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.mlflow.conftest import PYTHON, World
from tests.mlflow.differential import Both, Difference
from tests.mlflow.differing import Walk, first, pages, searches, stage, wrong_requests

WIDTH, DEPTH, WALKED, MOST_SHOWN = 120, 3, 250, 40
"""Of the ordinary run: searches, wrong requests a route, steps of the walk; differences that are printed."""
LONG = pytest.mark.skipif(not os.environ.get("RUNSTONE_SOAK"), reason="the long form, which `make soak` runs")


def is_stricter(one: Difference) -> bool:
    return one.theirs.status == 200 and one.ours.status in (400, 404)


def is_laxer(one: Difference) -> bool:
    return one.theirs.status == 400 and one.ours.status == 200


def is_other(one: Difference) -> bool:
    return one.theirs.status == one.ours.status == 200


def odd_name(one: Difference) -> str:
    return one.odd[0] if one.odd is not None else ""


def is_of_another_type(one: Difference) -> bool:
    """Whether a field holds what its kind is not: a number for a text, a text for a list, an object of no fields."""
    name, value = one.odd or ("", "")
    if isinstance(value, bool | dict | float) or (isinstance(value, int) and abs(value) < 1 << 31):
        return True
    if isinstance(value, list):
        return any(
            not isinstance(item, dict) or set(map(type, item.values())) - {str} or "key" not in item for item in value
        )
    return isinstance(value, str) and (name in NUMBERS or name in ("tags", "params", "datasets"))


NUMBERS = frozenset({"max_results", "start_time", "end_time", "timestamp", "step", "value", "start_step", "end_step"})


def text(one: Difference) -> str:
    return one.odd[1] if one.odd is not None and isinstance(one.odd[1], str) else ""


def said(one: Difference) -> str:
    """Return filter and order of a search."""
    orders = one.fields.get("order_by")
    words = [order.get("field_name", "") if isinstance(order, dict) else order for order in orders or ()]
    return " ".join(map(str, [*words, one.fields.get("filter") or ""]))


UNDERSTOOD = re.compile(
    "^(creation|last_updated)_timestamp|^params.a|^run_id |^Metrics|^METRICS|^`run name`|IS (NOT )?NULL"
    "|^creation_time > 1.5"
)


def is_cut(one: Difference) -> bool:
    return one.fields.get("filter") in ("metrics.m > 1 AND", "AND metrics.m > 1", "name = x")


# What is meant to differ, each with the reason. All of it is in docs/mlflow.md.
MEANT: tuple[tuple[str, Callable[[Difference], bool]], ...] = (
    ("MLflow's server fails; ours says what is wrong, or takes it", lambda one: one.theirs.status == 500),
    (
        "a filter or an order that MLflow's server does not know is understood",
        lambda one: one.theirs.status == 400 and one.ours.status == 200 and bool(UNDERSTOOD.search(said(one))),
    ),
    ("a filter that is cut off, or has text without quotes, is refused", lambda one: is_stricter(one) and is_cut(one)),
    ("a quote within quotes is written twice", lambda one: "it''s" in said(one)),
    (
        "orders by params compare numbers as numbers",
        lambda one: one.theirs.status == 200 and said(one)[:8] == "params.p",
    ),
    ("what is wrong in a field is refused", lambda one: is_stricter(one) and one.odd is not None),
    (
        "a key that comes twice, of which the last stands, or an id that need not be told, is taken",
        lambda one: is_laxer(one) and odd_name(one) in ("tags", "params", "experiment_id", "experiment_ids"),
    ),
    ("the version of a model may be a number", lambda one: is_laxer(one) and odd_name(one) == "version"),
    ("a source that leads nowhere from here is kept", lambda one: is_laxer(one) and odd_name(one) == "source"),
    (
        "a run whose times are not told begins and ends now; times beyond the calendar are brought to its ends",
        lambda one: is_other(one) and odd_name(one) in ("start_time", "end_time"),
    ),
    ("texts beyond a limit are cut", lambda one: is_other(one) and odd_name(one) in ("run_name", "tags")),
    (
        "words and numbers of no status or view count as absent",
        lambda one: is_other(one) and odd_name(one) in ("status", "run_view_type"),
    ),
    (
        "a page of no results is refused",
        lambda one: is_stricter(one) and str(one.fields.get("max_results")) in ("0", "-1"),
    ),
    ("a field of another type is refused", lambda one: is_stricter(one) and is_of_another_type(one)),
    ("a name of nothing but blanks is refused", lambda one: text(one).isspace()),
    (
        "an empty text in the place of a number counts as absent",
        lambda one: one.odd is not None and one.odd[1] == "" and one.ours.status == 200,
    ),
)


def unmeant(both: Both) -> list[str]:
    return [str(one) for one in both.differences() if not any(is_it(one) for _why, is_it in MEANT)]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """MLflow's own server over an empty SQLite database."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"needs MLflow in a Python of its own: name one as {PYTHON}")
    folder = tmp_path_factory.mktemp("peer")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    names = {key: value for key, value in os.environ.items() if not key.startswith(("RUNSTONE_", "MLFLOW_"))}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(python, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
                *(
                    "--backend-store-uri",
                    f"sqlite:///{folder}/own.db",
                    "--artifacts-destination",
                    str(folder / "files"),
                ),
            ],
            cwd=folder,
            env={**names, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"},
            stdout=log,
            stderr=log,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _try in range(600):
                if process.poll() is not None:
                    break
                try:
                    if client.get("/health").status_code == 200:
                        yield client
                        return
                except httpx2.TransportError:
                    time.sleep(0.2)
            raise AssertionError(f"MLflow's server does not start: {(folder / 'log').read_text()[-3000:]}")
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def both(peer: httpx2.Client, shared: World) -> Both:
    """Both servers, with the same in them."""
    shared.client.headers.update(shared.headers())
    asking = Both(peer, shared.client)
    stage(asking)
    return asking


def some(most: int) -> Callable[[list[Any]], list[Any]]:
    """Return what draws at most so many of some, the same ones each time."""
    own = random.Random(1)
    return lambda all_of_them: own.sample(all_of_them, min(most, len(all_of_them)))


def all_of(found: list[Any]) -> list[Any]:
    return found


def send_wrong(both: Both, draw: Callable[[list[Any]], list[Any]]) -> None:
    """Send each route requests that are wrong in one field."""
    for route, name, value in wrong_requests(draw):
        first(both, route.first)
        both.ask(route.verb, route.path, route.request(**({name: value} if name else {})), odd=(name, value))


def look(both: Both) -> None:
    """Ask what stands."""
    for run in (f"r{number}" for number in range(1, 9)):
        both.ask("GET", "/runs/get", {"run_id": f"${run}"})
        both.ask("GET", "/metrics/get-history", {"run_id": f"${run}", "metric_key": "m"})
    both.ask("GET", "/experiments/get", {"experiment_id": "$stage"})
    both.ask("GET", "/logged-models/$logged")


def walk(both: Both, seed: int, steps: int) -> None:
    """Ask what chance draws, one thing after another."""
    walking = Walk(both, random.Random(seed))
    for _number in range(steps):
        walking.step()


def check(both: Both) -> None:
    found = unmeant(both)
    assert not found, f"{len(found)} answers differ\n\n" + "\n".join(found[:MOST_SHOWN])


def test_the_same_stands_in_both(both: Both) -> None:
    look(both)
    both.ask("GET", "/registered-models/get", {"name": "$model"})
    check(both)


def test_searches_find_the_same(both: Both) -> None:
    for verb, path, fields in searches(some(WIDTH)):
        both.ask(verb, path, fields)
    pages(both)
    check(both)


@pytest.mark.soak
@LONG
def test_all_searches_find_the_same(both: Both) -> None:
    for verb, path, fields in searches(all_of):
        both.ask(verb, path, fields)
    check(both)


def test_requests_that_are_wrong_in_a_field_are_answered_the_same(both: Both) -> None:
    send_wrong(both, some(DEPTH))
    look(both)
    check(both)


def test_a_walk_over_all_routes_finds_no_difference(both: Both) -> None:
    walk(both, 1, WALKED)
    check(both)


@pytest.mark.soak
@LONG
def test_all_requests_that_are_wrong_in_a_field_are_answered_the_same(both: Both) -> None:
    send_wrong(both, all_of)
    look(both)
    check(both)


@pytest.mark.soak
@LONG
@pytest.mark.parametrize("seed", range(2, 8))
def test_long_walks_find_no_difference(both: Both, seed: int) -> None:
    walk(both, seed, 1_500)
    check(both)
