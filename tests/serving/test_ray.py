"""On Ray Serve: the same answers from several replicas, which follow the alias, log side by side and end together."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import sys
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.main import cli
from tests.serving.conftest import people, register, trained
from tests.serving.test_process import BODY, asked, running

has_ray = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("ray.serve") is not None
# A Python with Ray Serve and Runstone: Ray is large, and pins what others need, so it may have its own environment.
PYTHON = os.environ.get("RUNSTONE_TEST_RAY_PYTHON") or (sys.executable if has_ray else None)
SHOWN = {"Authorization": "Bearer a-long-token"}


def serving(python: str, home: Path, *options: str) -> list[str]:
    main = "from runstone.cli.main import main; main()"
    return [
        *(python, "-c", main, "-w", str(home), "models", "serve", "credit@production"),
        *("--engine", "ray", "--port", "0", *options),
    ]


@pytest.mark.skipif(PYTHON is None, reason="Ray Serve is not installed: pip install 'runstone[ray-serve]'")
@pytest.mark.timeout(400)
def test_replicas_answer_alike_follow_the_alias_and_end_without_losing_a_request(tmp_path: Path) -> None:
    assert PYTHON is not None
    home = tmp_path / ".runstone"
    register(home, trained(), people(5))
    register(home, trained(2.0), people(5))
    model = runstone.open_workspace(home).models.get("credit")
    first, second = sorted(str(version.version) for version in model.versions())
    model.set_stage(first, "production")
    options = ("--replicas", "2", "--deployment", "eu/scoring", "--log-sample", "1", "--reload", "0.5")
    expected = {
        first: trained().predict(people(3, seed=7)).tolist(),
        second: trained(2.0).predict(people(3, seed=7)).tolist(),
    }
    logged = 0
    with running(serving(PYTHON, home, *options), tmp_path, RUNSTONE_SERVING_TOKEN="a-long-token") as (url, process):

        def ask(_number: int = 0) -> str:
            answer = asked(f"{url}/predict", BODY, **SHOWN)
            assert answer["predictions"] == pytest.approx(expected[answer["version"]])
            return str(answer["version"])

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(60))) == {first}
            logged += 60
            metrics = asked(f"{url}/metrics", **SHOWN)
            assert 'requests_total{status="200"} 60\n' in metrics, "of both replicas"
            for body, headers, status in ((BODY, {}, 401), ({"inputs": [{"age": "x"}]}, SHOWN, 422)):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    asked(f"{url}/predict", body, **headers)
                assert refused.value.code == status
            (deployment,) = model.find(first).deployments
            assert (deployment.target, deployment.url, deployment.replicas) == ("eu/scoring", url, 2)

            model.set_stage(second, "production")
            until = time.monotonic() + 60
            while set(seen := list(pool.map(ask, range(20)))) != {second}:
                logged += 20
                assert time.monotonic() < until, f"one replica stays where it was: {collections.Counter(seen)}"
                time.sleep(0.5)
            logged += 20
            assert model.find(second).deployments[-1].ended_at is None

            # asked to end under load: who has an answer coming gets it, the others are turned away
            answered: list[str] = []
            told: list[str] = []

            def ask_until_it_ends() -> None:
                while True:
                    try:
                        answered.append(ask())
                    except urllib.error.HTTPError as error:
                        told.append(f"status {error.code}")
                        return
                    except OSError as error:
                        told.append(str(getattr(error, "reason", error)))
                        return

            threads = [threading.Thread(target=ask_until_it_ends) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            process.terminate()
            for thread in threads:
                thread.join(60)
            logged += len(answered)
            assert answered
    assert all("refused" in text or text in ("status 404", "status 503") for text in told), told
    (deployment,) = model.find(second).deployments
    assert deployment.ended_at is not None
    parts = list((home / "predictions" / "credit").glob("*"))
    assert {path.suffix for path in parts} == {".jsonl"}, "closed at the end"
    assert {path.stem.rpartition("-")[2] for path in parts} == {"0", "1"}, "each replica writes parts of its own"
    rows = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    assert len({(row["request"], row["row"]) for row in rows}) == len(rows) >= 3 * logged


@pytest.mark.skipif(has_ray, reason="Ray is installed")
def test_without_ray_it_is_told_what_to_install(tmp_path: Path) -> None:
    home = tmp_path / ".runstone"
    register(home, trained(), people(5))
    arguments = ["-w", str(home), "models", "serve", "credit@1.0.0", "--engine", "ray", "--port", "0"]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code != 0
    assert 'pip install "runstone[ray-serve]"' in str(found.exception)


def test_an_address_of_ray_takes_the_engine(tmp_path: Path) -> None:
    found = CliRunner().invoke(cli, ["models", "serve", "credit@1", "--ray-address", "auto"])
    assert found.exit_code == 2
    assert "--ray-address takes --engine ray" in found.output
