"""Served by processes of its own: the command, several workers, the history, an exported folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import AlreadyExists, InvalidConfig
from runstone.serving import ServingConfig
from runstone.serving.exporting import export_model
from tests.serving.conftest import people, register, trained

BODY = {"inputs": people(3, seed=7).to_dict("records")}


@contextmanager
def running(command: list[str], cwd: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a server; yield its address and process, and end it as a person would."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = next((text for text in process.stdout if "served at http" in text), "")
        assert line, process.stderr and process.stderr.read()
        yield line.split(" at ")[1].split(";")[0].strip(), process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def asked(url: str, body: Any = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers["Content-Type"] == "application/json" else text


def test_the_command_serves_with_several_processes_and_tells_the_history(tmp_path: Path) -> None:
    home = tmp_path / ".runstone"
    register(home, trained(), people(5))
    model = runstone.open_workspace(home).models.get("credit")
    model.set_stage("1.0.0", "production")
    command = [
        *(
            str(Path(sys.executable).with_name("runstone")),
            "-w",
            str(home),
            "models",
            "serve",
            "credit@production",
            "--port",
            "0",
        ),
        *("--workers", "2", "--deployment", "eu/scoring", "--log-sample", "1", "--allowed-hosts", "scores.example.org"),
    ]
    with running(command, tmp_path, RUNSTONE_SERVING_TOKEN="a-long-token") as (url, _process):
        shown = {"Authorization": "Bearer a-long-token"}
        expected = trained().predict(people(3, seed=7)).tolist()
        for _time in range(20):
            assert asked(f"{url}/predict", BODY, **shown)["predictions"] == pytest.approx(expected)
        assert 'requests_total{status="200"} 20\n' in asked(f"{url}/metrics", **shown), "of both processes"
        (deployment,) = model.find("1.0.0").deployments
        assert (deployment.target, deployment.url, deployment.replicas) == ("eu/scoring", url, 2)
        assert deployment.ended_at is None
    (deployment,) = model.find("1.0.0").deployments
    assert deployment.ended_at is not None
    parts = list((home / "predictions" / "credit").glob("*"))
    assert parts
    assert all(path.suffix == ".jsonl" for path in parts), "closed at the end"
    assert sum(len(path.read_text().splitlines()) for path in parts) == 60


def test_an_exported_folder_serves_itself(tmp_path: Path) -> None:
    home, folder = tmp_path / ".runstone", tmp_path / "out"
    register(home, trained(), people(5))
    workspace = runstone.open_workspace(home)
    found = export_model(workspace, "credit@1.0.0", folder)
    assert found.ref == "credit@1.0.0"
    assert {path.name for path in folder.iterdir()} == {
        *("model", "manifest.json", "model.json", "signature.json"),
        *("requirements.txt", "serve.py", "README.md", "Dockerfile"),
    }
    pins = (folder / "requirements.txt").read_text().splitlines()
    assert pins[0] == f"runstone[serving]=={runstone.__version__}"
    assert {"scikit-learn", "skops", "pandas"} <= {pin.partition("==")[0] for pin in pins if "==" in pin}
    with pytest.raises(AlreadyExists, match="not empty"):
        export_model(workspace, "credit@1.0.0", folder)
    home.rename(tmp_path / "gone")
    with running([sys.executable, str(folder / "serve.py"), "--port", "0"], folder) as (url, _process):
        expected = pytest.approx(trained().predict(people(3, seed=7)).tolist())
        assert asked(f"{url}/predict", BODY)["predictions"] == expected
        told = asked(f"{url}/metadata")
        assert (told["version"], told["hash"]) == ("1.0.0", json.loads((folder / "model.json").read_text())["hash"])


def test_others_are_let_in_only_with_a_token() -> None:
    with pytest.raises(InvalidConfig, match="nobody has to show who they are"):
        ServingConfig(host="0.0.0.0")
    ServingConfig(host="0.0.0.0", token="a-long-token")
