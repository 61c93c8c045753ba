"""The report workflows of docs/ci.md do what they say: their steps are run by a shell, as a runner would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ci.conftest import Repository

yaml = pytest.importorskip("yaml")
pytest.importorskip("scipy")
ROOT = Path(__file__).parents[2]
TRAIN = """
import pathlib, sys
import runstone

seed = int(sys.argv[2])
with runstone.start_run(project="credit", params={"c": 0.95, "seed": seed}) as run:
    for step in range(6):
        run.log({"val/auc": 0.95 - 0.3 / (step + 1) + seed * 1e-3}, step=step)
pathlib.Path("run-id.txt").write_text(run.id)
"""
GH = """#!/bin/sh
echo "gh $*" >> "{asked}"
case "$*" in *--paginate*) cat "{ids}" ;; esac
"""
FACTS = {
    "github.base_ref": "main",
    "github.token": "none",
    "github.repository": "team/credit",
    "github.event.pull_request.number": "12",
}


def documented(name: str) -> Any:
    found = re.search(rf"```yaml\n# {re.escape(name)}\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


class Runner:
    """A machine with the checkout of a pull request: programs that note what they were asked for."""

    def __init__(self, repository: Repository, place: Path) -> None:
        self.repository, self.place = repository, place
        self.asked, self.ids, self.summary = place / "asked", place / "ids", place / "summary.md"
        self.ids.touch()
        programs = place / "bin"
        programs.mkdir()
        for name, text in (("pip", "#!/bin/sh\n"), ("gh", GH.format(asked=self.asked, ids=self.ids))):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def shell(self, script: str, variables: Mapping[str, Any]) -> int:
        known = {
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNSTONE_WORKSPACE": str(self.repository.home),
            "PATH": self.path,
            "RUNSTONE_SYSTEM_METRICS": "0",
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.repository.place,
            env={**os.environ, **{key: str(value) for key, value in variables.items()}, **known},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode


@pytest.fixture
def runner(repository: Repository, tmp_path: Path) -> Runner:
    place = repository.place
    (place / "train.py").write_text(TRAIN)
    (place / ".gitignore").write_text("run-id.txt\nreport.md\nbody.md\nimages\ngates.yaml\n")
    repository.commit(f"a change for {tmp_path.name}")
    return Runner(repository, tmp_path)


def test_the_report_workflow_trains_compares_and_keeps_one_comment(runner: Runner) -> None:
    (job,) = documented(".github/workflows/report.yaml")["jobs"].values()
    place = runner.repository.place
    gates = place / "gates.yaml"
    codes = []
    for least in (0.8, 0.99):
        gates.write_text(f"gates: {{runs: [{{metric: {{name: val/auc, min: {least}}}}}, {{code: clean}}]}}")
        for step in job["steps"]:
            if "run" not in step or (step.get("name") == "Train" and codes):
                continue
            assert "${{" not in step["run"], "what others write would become code of the shell"
            variables = {
                key: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: FACTS[found[1]], str(value))
                for key, value in {**job["env"], **step.get("env", {})}.items()
            }
            code = runner.shell(step["run"], variables)
            assert code == 0 or step.get("name") == "Ask the gates", step
        codes.append(code)
        runner.ids.write_text("4711\n")  # the comment is there the second time
    assert codes == [0, 1]
    report = (place / "report.md").read_text()
    assert report.startswith("### ✅ Metrics: 1 better\n")
    assert "| c | 0.8 | 0.95 |" in report
    assert (place / "body.md").read_text() == f"<!-- runstone:report -->\n{report}"
    assert report in runner.summary.read_text()
    assert list((place / "images").glob("*.svg"))
    written = [line for line in runner.asked.read_text().splitlines() if "body=@" in line]
    assert written == [
        "gh api -X POST repos/team/credit/issues/12/comments -F body=@body.md",
        "gh api -X PATCH repos/team/credit/issues/comments/4711 -F body=@body.md",
    ]


def test_the_gitlab_job_reports(runner: Runner) -> None:
    job = documented(".gitlab-ci.yml: report")["report"]
    place = runner.repository.place
    (place / "gates.yaml").write_text("gates: {runs: [{metric: {name: val/auc, min: 0.8}}]}")
    origin = runner.place / "origin.git"
    runner.repository.git("clone", "-q", "--bare", str(place), str(origin))
    runner.repository.git("remote", "add", "origin", str(origin))
    variables = {**job["variables"], "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    assert runner.shell("\n".join(job["script"]), variables) == 0
    for path in job["artifacts"]["paths"]:
        assert (place / path).exists()


@pytest.mark.parametrize(
    ("example", "name"),
    [("github-report.yaml", ".github/workflows/report.yaml"), ("gitlab-report.yaml", ".gitlab-ci.yml: report")],
)
def test_the_examples_are_what_the_documentation_shows(example: str, name: str) -> None:
    assert yaml.safe_load((ROOT / "examples" / "ci" / example).read_text()) == documented(name)
