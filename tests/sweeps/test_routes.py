"""Sweeps over HTTP: the routes that the server mounts, over a sweep that ran and over one that was made."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import runstone
from runstone import AlreadyExists, NotFound, RunstoneError
from runstone_sweeps.record import TrialState
from runstone_sweeps.record.journal import Journal, read_events
from runstone_sweeps.store import Sweeps

from .conftest import Place
from .made import CONFIG, created, numbered

pytest.importorskip("fastapi")
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own choice of a client
    from fastapi.testclient import TestClient

from runstone_sweeps.report.figures import KINDS
from runstone_sweeps.routes import routes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(place: Place) -> Iterator[TestClient]:
    workspace = runstone.ensure_workspace(place.home)
    app = FastAPI()

    @app.exception_handler(RunstoneError)
    def told(_request: Request, error: RunstoneError) -> JSONResponse:
        status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, AlreadyExists) else 400
        return JSONResponse({"error": str(error)}, status_code=status)

    app.include_router(routes(lambda _request: workspace), prefix="/api")
    with TestClient(app) as client:
        yield client


def made_sweep(place: Place, trials: int = 30, *, sweep_id: str = "0" * 31 + "1", config: Any = CONFIG) -> str:
    """Write the record of a sweep that never ran, with reports, failures, a NaN and two ranges of params."""
    folder = place.home / "sweeps" / sweep_id
    folder.mkdir(parents=True)
    events: list[dict[str, Any]] = [*created(config, sweep_id=sweep_id)]
    for number in range(trials):
        x = (number * 0.618) % 1
        params = {"lr": 10 ** (-5 + 4 * x), "hidden": 16 + number, "optimizer": ("adam", "sgd", "lion")[number % 3]}
        events.append({"event": "asked", "number": number, "run_id": f"{number:032x}", "params": params})
        events.append({"event": "started", "number": number, "pid": 1})
        events.append({"event": "reported", "number": number, "points": [[0, 1 + x], [1, x]]})
        state = "failed" if number == 5 else "pruned" if number == 6 else "complete"
        values = [x] if state == "complete" else None
        reason = "ValueError: " + "x" * 1000 if state == "failed" else None
        value = None if state == "failed" else x
        told = {"state": state, "value": value, "values": values, "reason": reason}
        events.append({"event": "told", "number": number, **told})
    journal = Journal(folder)
    for event in numbered(events):
        event.pop("seq")
        journal.append(event)
    journal.close()
    return sweep_id


def test_the_list_names_each_sweep_with_its_state_and_best_trial(place: Place, client: TestClient) -> None:
    assert client.get("/api/sweeps").json() == {"sweeps": []}
    place.run_here(place.config(trials=3))
    (told,) = client.get("/api/sweeps").json()["sweeps"]
    record = place.record
    assert record.best is not None
    assert told["id"] == place.folder.id
    assert (told["name"], told["status"], told["sampler"]) == ("toy", "finished", "random")
    assert told["trials"] == {"expected": 3, "complete": 3}
    assert told["metrics"] == [{"name": "loss", "goal": "minimize"}]
    assert told["best"]["value"] == record.best.value
    assert told["best"]["run_id"] == record.best.run_id
    assert told["best"]["params"] == record.best.params
    assert told["started_at"] == record.created["at"]
    # What is kept of it is not told when there is more.
    place.resume_here(trials=4)
    (told,) = client.get("/api/sweeps").json()["sweeps"]
    assert told["trials"] == {"expected": 4, "complete": 4}


def test_a_sweep_tells_its_config_forecast_usage_and_failures(place: Place, client: TestClient) -> None:
    sweep_id = made_sweep(place)
    told = client.get(f"/api/sweeps/{sweep_id}").json()
    assert told["config"]["parameters"]["hidden"] == {"min": 16, "max": 256}
    assert told["goal"] == "minimize"
    assert [parameter["name"] for parameter in told["parameters"]] == ["lr", "hidden", "optimizer"]
    assert told["trials"] == {"expected": 40, "complete": 28, "failed": 1, "pruned": 1}
    (failure,) = told["failures"]
    assert failure["numbers"] == [5]
    assert len(failure["reason"]) == 300
    assert told["forecast"].keys() == {"left_s", "trials_per_hour", "gain_per_hour"}
    assert told["usage"]["gpu_s"] == 0
    assert [entry["name"] for entry in told["spending"]] == ["gpu_hours", "energy_j", "cost"]
    assert told["can_resume"] is True
    assert told["is_finished"] is False


def test_the_table_has_a_column_for_each_param_and_metric_and_says_when_nothing_is_new(
    place: Place, client: TestClient
) -> None:
    place.run_here(place.config(trials=3))
    address = f"/api/sweeps/{place.folder.id}/trials"
    told = client.get(address).json()
    trials = list(place.record.trials.values())
    assert told["number"] == [0, 1, 2]
    assert told["params"]["x"] == [trial.params["x"] for trial in trials]
    assert told["values"] == {"loss": [trial.value for trial in trials]}
    assert told["run_id"] == [trial.run_id for trial in trials]
    assert told["state"] == ["complete"] * 3
    assert sorted(told["rank"]) == [1, 2, 3]
    assert told["values"]["loss"][told["rank"].index(1)] == min(told["values"]["loss"])
    assert all(duration > 0 for duration in told["duration_s"])
    again = client.get(address, params={"after": told["seq"]}).json()
    assert again == {"seq": told["seq"], "is_unchanged": True}
    place.resume_here(trials=4)
    more = client.get(address, params={"after": told["seq"]}).json()
    assert more["number"] == [0, 1, 2, 3]


def test_numbers_that_json_lacks_are_text(place: Place, client: TestClient) -> None:
    sweep_id = made_sweep(place, 3)
    journal = Journal(place.home / "sweeps" / sweep_id, next_seq=10**6)
    asked = {"event": "asked", "number": 3, "run_id": "a" * 32, "params": {"lr": 0.1, "hidden": 20, "optimizer": "sgd"}}
    told = {"event": "told", "number": 3, "state": "complete", "value": "inf", "values": ["inf"]}
    for event in (asked, told):
        journal.append({"at": 1.8e9, **event})
    journal.close()
    values = client.get(f"/api/sweeps/{sweep_id}/trials").json()["values"]["loss"]
    assert values[3] == "Infinity"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_figure_is_drawn_or_says_why_not(place: Place, client: TestClient, kind: str) -> None:
    sweep_id = made_sweep(place)
    answer = client.get(f"/api/sweeps/{sweep_id}/figures/{kind}")
    assert answer.status_code == 200
    figure = answer.json()
    assert figure["kind"] == kind
    assert bool(figure["data"]) != bool(figure["reason"])
    assert (kind in ("pareto", "hypervolume")) == bool(figure["reason"])


def test_a_figure_is_drawn_once_for_as_long_as_no_trial_ends(
    place: Place, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone_sweeps import study

    sweep_id = made_sweep(place)
    asked: list[str] = []
    find = study.find_importances
    monkeypatch.setattr(study, "find_importances", lambda *a, **k: asked.append(k["method"]) or find(*a, **k))
    address = f"/api/sweeps/{sweep_id}/figures/importance"
    first = client.get(address).json()
    assert len(asked) == 2
    assert client.get(address).json() == first
    assert len(asked) == 2
    journal = Journal(place.home / "sweeps" / sweep_id, next_seq=10**6)
    params = {"lr": 0.1, "hidden": 200, "optimizer": "sgd"}
    for event in (
        {"event": "asked", "number": 30, "run_id": "b" * 32, "params": params},
        {"event": "told", "number": 30, "state": "complete", "value": 9.0, "values": [9.0]},
    ):
        journal.append({"at": 1.8e9, **event})
    journal.close()
    client.get(address)
    assert len(asked) == 4


def test_a_contour_is_of_the_two_parameters_that_were_chosen(place: Place, client: TestClient) -> None:
    sweep_id = made_sweep(place)
    address = f"/api/sweeps/{sweep_id}/figures/contour"
    figure = client.get(address, params={"x": "hidden", "y": "lr"}).json()
    assert figure["layout"]["xaxis"]["title"]["text"] == "hidden"
    assert figure["layout"]["yaxis"]["title"]["text"] == "lr"
    assert [trace["type"] for trace in figure["data"]] == ["contour", "scatter"]
    other = client.get(address, params={"x": "lr", "y": "hidden"}).json()
    assert other["layout"]["xaxis"]["title"]["text"] == "lr"
    for wrong, word in (({"x": "lr"}, "two parameters"), ({"x": "lr", "y": "lrr"}, "no parameter 'lrr'")):
        answer = client.get(address, params=wrong)
        assert answer.status_code in (400, 404)
        assert word in answer.json()["error"]
    assert client.get(f"/api/sweeps/{sweep_id}/figures/history", params={"x": "lr", "y": "hidden"}).status_code == 400
    assert client.get(f"/api/sweeps/{sweep_id}/figures/history", params={"metric": "acc"}).status_code == 404
    assert client.get(f"/api/sweeps/{sweep_id}/figures/pie").status_code == 404


@pytest.mark.parametrize("name", ["toy", "0" * 31, "..", "%2e%2e", "A" * 32, "0" * 32, "..%2f..%2fetc", "x" * 5000])
def test_what_is_no_id_of_a_sweep_is_not_looked_for(place: Place, client: TestClient, name: str) -> None:
    made_sweep(place, 2)
    assert client.get(f"/api/sweeps/{name}/trials").status_code == 404


def test_trials_are_added_to_a_sweep_that_rests_and_it_is_resumed_beside_the_server(
    place: Place, client: TestClient
) -> None:
    place.run_here(place.config(trials=2))
    address = f"/api/sweeps/{place.folder.id}"
    told = client.post(f"{address}/trials", json={"add": 2}).json()
    assert (told["is_done"], told["trials_expected"]) == (True, 4)
    assert client.get(address).json()["is_finished"] is False
    assert client.post(f"{address}/resume").json() == {"id": place.folder.id, "is_done": True}
    place.until(lambda: place.record.is_finished and not place.folder.is_running)
    assert place.record.counts == {TrialState.COMPLETE: 4}
    assert client.get(f"{address}/trials").json()["number"] == [0, 1, 2, 3]
    place.until(lambda: not [child for child in psutil.Process().children() if child.status() == "zombie"])


def test_a_running_sweep_is_given_more_trials_paused_resumed_and_stopped(place: Place, client: TestClient) -> None:
    config = place.config("  steps: {value: 1000}\n  slow: {value: 0.01}\nstart: cold\n", trials=2, parallel=1)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("started")) > 0, process)
    address = f"/api/sweeps/{place.folder.id}"
    assert client.get(address).json()["status"] == "running"
    assert client.post(f"{address}/trials", json={"add": 3}).json()["trials_expected"] == 5
    place.sweep("pause", place.folder.id)
    assert client.get(address).json()["status"] == "paused"
    assert client.post(f"{address}/resume").json()["is_done"] is True
    assert client.get(address).json()["status"] == "running"
    assert client.post(f"{address}/stop").json() == {"id": place.folder.id, "is_asked": True}
    process.communicate(timeout=180)
    assert process.returncode == 130
    assert client.get(address).json()["status"] == "stopped"
    assert client.post(f"{address}/stop").json() == {"id": place.folder.id, "is_asked": False}
    assert place.record.trials_budget == 5


def test_a_sweep_that_cannot_be_resumed_says_why(place: Place, client: TestClient) -> None:
    place.run_here(place.config(trials=2))
    address = f"/api/sweeps/{place.folder.id}"
    client.post(f"{address}/trials", json={"add": 1})
    (place.path / "train.py").unlink()
    answer = client.post(f"{address}/resume")
    assert answer.status_code == 400
    assert "did not begin" in answer.json()["error"]
    assert "train.py" in answer.json()["error"]


@pytest.mark.parametrize("body", [{"add": 0}, {"add": -1}, {"add": "many"}, {"add": 10**9}, {}, []])
def test_a_number_of_trials_that_is_none_is_refused(place: Place, client: TestClient, body: Any) -> None:
    sweep_id = made_sweep(place, 2)
    events = read_events(place.home / "sweeps" / sweep_id)[0]
    assert client.post(f"/api/sweeps/{sweep_id}/trials", json=body).status_code == 422
    assert read_events(place.home / "sweeps" / sweep_id)[0] == events


def test_a_grid_is_given_no_more_trials_than_it_has_points(place: Place, client: TestClient) -> None:
    parameters = {"parameters": {"a": {"values": [1, 2, 3]}}, "sampler": "grid", "trials": 3}
    sweep_id = made_sweep(place, 0, config={**CONFIG, **parameters})
    folder = Sweeps(runstone.open_workspace(place.home)).find(sweep_id)
    journal = Journal(folder.path, next_seq=10**6)
    journal.append({"event": "budget", "trials": 3, "parallel": 1, "timeout_s": None})
    journal.close()
    answer = client.post(f"/api/sweeps/{sweep_id}/trials", json={"add": 1})
    assert answer.status_code == 400
    assert "3 points" in answer.json()["error"]


def test_the_server_finds_the_routes_by_their_entry_point() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    entry = told["project"]["entry-points"]["runstone.routes"]["sweeps"]
    module, _, name = entry.partition(":")
    found: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)
    assert found is routes


def test_the_commands_of_sweep_load_no_server() -> None:
    files = [p for p in (ROOT / "sweeps" / "runstone_sweeps").rglob("*.py") if "fastapi" in p.read_text()]
    assert [path.name for path in files] == ["routes.py"]
    code = "import sys, runstone_sweeps.cli.main, runstone_sweeps.web.tables; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
