"""The files in docs/ci.md do what they say: their steps are run by a shell, as a runner would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.models.made import registry, train

yaml = pytest.importorskip("yaml")
DOCS = Path(__file__).parents[2] / "docs" / "ci.md"
TRAIN = """
import runstone
with runstone.start_run(project="credit", params={"c": 2.0}) as run:
    run.log({"val/auc": 0.95})
"""


def block(name: str) -> Any:
    """Return the file of this name, as docs/ci.md has it."""
    found = re.search(rf"```yaml\n# {re.escape(name)}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None, name
    return yaml.safe_load(found[1])


class Runner:
    """A machine that runs jobs: a checkout, a shell, programs that note what they were asked for."""

    def __init__(self, place: Path, home: Path) -> None:
        self.place = place
        self.home = home
        self.asked = place / "asked"
        self.summary = place / "summary.md"
        programs = place / "bin"
        programs.mkdir(parents=True)
        for name in ("pip", "gh"):
            program = programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.asked}"\n')
            program.chmod(0o755)
        self.path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        (place / "train.py").write_text(TRAIN)

    def gates(self, least: float) -> None:
        """Write the gates of the checkout."""
        (self.place / "gates.yaml").write_text(f"gates: {{production: [{{metric: {{name: val/auc, min: {least}}}}}]}}")

    def shell(self, script: str, variables: Mapping[str, str], *options: str) -> int:
        """Run a script as runners do, and return its exit code."""
        known = {"GITHUB_STEP_SUMMARY": str(self.summary), "RUNSTONE_WORKSPACE": str(self.home), "PATH": self.path}
        done = subprocess.run(
            ["bash", *options, "-c", script],
            cwd=self.place,
            env={**os.environ, **{key: str(value) for key, value in variables.items()}, **known},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    def workflow(self, name: str, event: str, facts: Mapping[str, str]) -> int:
        """Run the one job of a workflow of GitHub; return the first exit code that is not 0, as later steps see it."""
        (job,) = block(name)["jobs"].values()
        failed = 0
        for step in job["steps"]:
            if "run" in step and self._is_wanted(step.get("if", "success()"), event, failed):
                variables = {**job["env"], **step.get("env", {})}
                filled = {key: self._filled(str(value), event, facts) for key, value in variables.items()}
                assert "${{" not in step["run"], "what others write would become code of the shell"
                code = self.shell(step["run"], filled, "-e", "-o", "pipefail")
                failed = failed or code
        return failed

    @staticmethod
    def _is_wanted(condition: str, event: str, failed: int) -> bool:
        known = {
            "success()": not failed,
            "success() && github.event_name == 'push'": not failed and event == "push",
            "always() && steps.gates.outcome != 'skipped' && github.event_name == 'pull_request'": event
            == "pull_request",
        }
        return known[condition]

    @staticmethod
    def _filled(value: str, event: str, facts: Mapping[str, str]) -> str:
        known = {
            "github.event_name == 'pull_request' && '--dry-run' || ''": "--dry-run" if event == "pull_request" else "",
            **facts,
        }
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], value)


@pytest.fixture
def runner(tmp_path: Path, home: Path) -> Runner:
    train(home, "first", params={"c": 1}, metrics={"val/auc": 0.8})
    train(home, "second", params={"c": 3}, metrics={"val/auc": 0.9})
    model = registry(home)
    model.set_stage("1.0.0", "production")
    model.set_alias("candidate", "1.1.0")
    return Runner(tmp_path / "checkout", home)


FACTS = {
    "github.sha": "0123abcd",
    "github.token": "none",
    "github.event.pull_request.number": "12",
    "github.run_id": "77",
    "github.ref_name": "credit-risk@1.1.0",
}


def test_the_workflow_asks_on_a_pull_request_and_promotes_on_the_branch(runner: Runner, home: Path) -> None:
    name = ".github/workflows/promote.yaml"
    runner.gates(0.99)
    assert runner.workflow(name, "pull_request", FACTS) == 1
    assert runner.asked.read_text().splitlines() == [
        "pip install runstone[models]",
        "gh pr comment 12 --body-file result.md",
    ]
    assert "it is 0.9" in runner.summary.read_text()
    assert "would be refused" in (runner.place / "result.md").read_text()
    assert [event.kind for event in registry(home).history()].count("refused") == 0
    assert runner.workflow(name, "push", FACTS) == 1  # the same change, merged all the same
    assert [event.kind for event in registry(home).history()].count("refused") == 1
    assert not (runner.place / "card.html").exists()
    runner.gates(0.85)
    assert runner.workflow(name, "pull_request", FACTS) == 0
    assert str(registry(home).find("production")) == "credit-risk@1.0.0"
    assert runner.workflow(name, "push", FACTS) == 0
    assert str(registry(home).find("production")) == "credit-risk@1.1.0"
    assert registry(home).history()[-1].fields["reason"] == "commit 0123abcd"
    assert (runner.place / "card.html").read_text().startswith("<!doctype html>")


def test_a_changed_file_stops_the_workflow(runner: Runner, home: Path) -> None:
    runner.gates(0.5)
    event = registry(home).ledger.folder / "00000002.json"
    event.write_bytes(event.read_bytes().replace(b'"1.0.0"', b'"1.0.9"'))
    assert runner.workflow(".github/workflows/promote.yaml", "push", FACTS) == 1
    assert not (runner.place / "result.md").exists()


@pytest.mark.parametrize(("rule", "is_promoted"), [(0, False), (1, True)])
def test_the_gitlab_job_asks_and_promotes(runner: Runner, home: Path, rule: int, is_promoted: bool) -> None:
    job = block(".gitlab-ci.yml")["promote"]
    variables = {**job["variables"], **job["rules"][rule].get("variables", {}), "CI_COMMIT_SHA": "0123abcd"}
    script = "\n".join(job["script"])
    runner.gates(0.99)
    assert runner.shell(script, variables, "-e", "-o", "pipefail") == 1
    for path in job["artifacts"]["paths"]:
        assert (runner.place / path).stat().st_size
    runner.gates(0.85)
    assert runner.shell(script, variables, "-e", "-o", "pipefail") == 0
    assert (str(registry(home).find("production")) == "credit-risk@1.1.0") is is_promoted


def test_a_git_tag_promotes_the_version_that_it_names(runner: Runner, home: Path) -> None:
    runner.gates(0.85)
    tagged = subprocess.run(["git", "check-ref-format", "refs/tags/credit-risk@1.1.0"], check=False)
    assert tagged.returncode == 0
    assert runner.workflow(".github/workflows/promote-tag.yaml", "push", FACTS) == 0
    assert str(registry(home).find("production")) == "credit-risk@1.1.0"
    assert registry(home).history()[-1].fields["reason"] == "git tag credit-risk@1.1.0"
