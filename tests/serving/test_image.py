"""The image of an exported model: what its Dockerfile says, done step by step by a shell, as a builder would."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import runstone
from runstone.serving.exporting import export_model
from tests.serving.conftest import people, register, trained
from tests.serving.test_process import BODY, asked, running

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
ROOT = Path(__file__).parents[2]
TOKEN = "a-long-token"


class Image:
    """The steps of a Dockerfile, for a folder in place of the image and a port in place of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        text = (folder / "Dockerfile").read_text().replace("8060", str(self.port))
        self.steps = [line.partition(" ")[::2] for line in text.splitlines() if line and not line.startswith("#")]
        (start,) = [rest for word, rest in self.steps if word == "CMD"]
        self.start = [*json.loads(start), "--port", str(self.port)]
        (health,) = [rest for word, rest in self.steps if word == "HEALTHCHECK"]
        self.health = shlex.split(health.removeprefix("CMD "))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image")
    register(root / ".runstone", trained(), people(5))
    export_model(runstone.open_workspace(root / ".runstone"), "credit@1.0.0", root / "model")
    return root / "model"


def lives(image: Image, folder: Path, python: Path) -> None:
    """Start what the image starts; it answers with the token, and its health check says so."""
    path = f"{python.parent}:{os.environ['PATH']}"
    assert python.name == image.start[0] == image.health[0] == "python"
    refused = subprocess.run(
        [str(python), *image.start[1:]], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode != 0
    assert "nobody has to show who they are" in refused.stderr
    environment = {"PATH": path, "RUNSTONE_SERVING_TOKEN": TOKEN}
    with running([str(python), *image.start[1:]], folder, **environment) as (_url, _process):
        here = f"http://127.0.0.1:{image.port}"
        subprocess.run([str(python), *image.health[1:]], check=True, timeout=60)
        answer = asked(f"{here}/predict", BODY, Authorization=f"Bearer {TOKEN}")
        assert answer["predictions"] == pytest.approx(trained().predict(people(3, seed=7)).tolist())
    assert subprocess.run([str(python), *image.health[1:]], capture_output=True, check=False).returncode != 0


def test_the_command_and_the_health_check_of_the_image_work(exported: Path, tmp_path: Path) -> None:
    image = Image(exported)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [word for word, _rest in image.steps] == [
        *("FROM", "WORKDIR", "COPY", "RUN", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD")
    ]
    assert image.steps[0] == ("FROM", f"python:{version}-slim")
    # A program called `python`, as the image has it, with the packages of this one.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    lives(image, exported, python)


@pytest.mark.soak
@pytest.mark.skipif(not IS_SOAK, reason="installs every package anew; RUNSTONE_SOAK=1")
@pytest.mark.timeout(900)
def test_the_steps_of_the_image_lead_to_a_server_in_a_new_environment(exported: Path, tmp_path: Path) -> None:
    # The package as it is here: the index may not have this version.
    wheels = tmp_path / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)], check=True, timeout=300
    )
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    image = Image(exported)
    (install,) = [rest for word, rest in image.steps if word == "RUN" and "pip" in rest]
    assert re.fullmatch(r"pip install --no-cache-dir -r requirements\.txt", install)
    subprocess.run(
        [str(python), "-m", *shlex.split(install)],
        cwd=exported, check=True, timeout=600, env={**os.environ, "PIP_FIND_LINKS": str(wheels)},
    )  # fmt: skip
    found = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    lives(image, exported, python)
