"""`api/monitoring`: what the page shows of versions in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import runstone
from runstone.monitoring import Reference, check
from tests.server.conftest import World, opened


class _Client:
    """Asks the server as somebody who may do anything."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, path: str, **options: Any) -> Any:
        return self._world.client.get(path, headers=self._world.headers("ann"), **options)

    def post(self, path: str, body: Any) -> Any:
        return self._world.client.post(path, json=body, headers=self._world.headers("mia"))


@pytest.fixture
def client(home: Path, tmp_path: Path) -> Iterator[_Client]:
    """A server over a workspace in which a version has drifted."""
    (tmp_path / "weights.bin").write_bytes(b"1")
    reference = pd.DataFrame({"a": [float(row % 100) for row in range(400)]})
    with runstone.start_run(workspace=home, environment=False) as run:
        run.log_model(str(tmp_path / "weights.bin"), name="team/risk", profile=Reference(reference))
    workspace = runstone.open_workspace(home)
    workspace.models.get("team/risk").set_stage("1.0.0", "production")
    check("team/risk@production", reference, workspace=workspace)
    check("team/risk@production", reference + 60, workspace=workspace)
    for world in opened(home, {}):
        yield _Client(world)


def test_versions_checks_incidents_and_reports_are_answered(client: _Client) -> None:
    found = client.get("/api/monitoring").json()
    (version,) = found["versions"]
    assert (version["model"], version["version"], version["health"]) == ("team/risk", "1.0.0", "drift")
    assert [one["verdict"] for one in version["checks"]] == ["ok", "drift"]
    assert [one["number"] for one in found["incidents"]] == [1]
    one = client.get("/api/monitoring/team%2Frisk", params={"last": 1}).json()
    assert [each["verdict"] for each in one["checks"]] == ["drift"]
    assert one["incidents"][0]["actions"] == []
    report = client.get(f"/api/monitoring/team%2Frisk/reports/{one['checks'][0]['id']}").json()
    assert report["verdict"] == "drift"
    assert client.get("/api/monitoring/team%2Frisk/incidents/1/report").json()["headline"] == report["headline"]
    page = client.get("/api/monitoring/team%2Frisk/incidents/1/report", params={"html": 1})
    assert page.headers["content-type"].startswith("text/html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.text.startswith("<!doctype html>")
    profile = client.get("/api/monitoring/team%2Frisk/profile/production").json()
    assert profile["rows"] == 400
    assert "sample" not in profile


def test_what_is_not_there_is_told(client: _Client) -> None:
    assert client.get("/api/monitoring/nobody").status_code == 404
    assert client.get("/api/monitoring/team%2Frisk/reports/none").status_code == 404
    assert client.get("/api/monitoring/team%2Frisk/incidents/7/report").status_code == 404


def test_an_incident_is_closed_by_whoever_may(client: _Client) -> None:
    path = "/api/monitoring/team%2Frisk/incidents/1/close"
    assert client.post(path, {"reason": ""}).status_code in (400, 422)
    closed = client.post(path, {"reason": "known"})
    assert closed.status_code == 200
    assert closed.json()["incidents"][0]["resolution"] == "known"
