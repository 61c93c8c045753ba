"""What is built, and that it works where nothing else is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_exactly_the_three_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "runstone",
        "runstone_integrations",
        "runstone_sweeps",
    }
    for package in ("runstone", "runstone_integrations", "runstone_sweeps"):
        assert f"{package}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_bare_install_imports_records_and_answers_help(wheel: Path, tmp_path: Path) -> None:
    """Only what `dependencies` names: the extras' packages are hidden, as if they were not installed."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    blocker = tmp_path / "hidden"
    blocker.mkdir()
    extras = {
        "torch", "lightning", "pytorch_lightning", "sklearn", "joblib", "keras", "optuna", "plotly", "pydantic", "yaml",
        "scipy", "pandas", "fastapi", "uvicorn", "cmaes", "tensorboardX", "matplotlib",
    }  # fmt: skip
    (blocker / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {extras!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{blocker}{os.pathsep}{site}"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    where = run("-c", "import runstone, runstone_integrations, runstone_sweeps; print(runstone.__file__)")
    assert where.returncode == 0, where.stderr
    assert str(site) in where.stdout
    recorded = run(
        "-c",
        "import runstone\n"
        "with runstone.start_run(project='p') as run: run.log({'x': 1.0}, step=0)\n"
        "print(runstone.open_workspace().runs('metrics.x = 1')[0].status)",
    )
    assert (recorded.returncode, recorded.stdout.strip()) == (0, "finished"), recorded.stderr
    for module in ("runstone.cli.main", "runstone_sweeps.cli.main"):
        helped = run("-c", f"import sys; from {module} import main; sys.argv = ['x', '--help']; sys.exit(main())")
        assert helped.returncode == 0, helped.stderr
        assert "Usage" in helped.stdout
    listed = run(
        "-c",
        "import sys; from runstone.cli.main import main; sys.argv = ['runstone', 'runs', 'list']; sys.exit(main())",
    )
    assert listed.returncode == 0, listed.stderr
    missing = run(
        "-c",
        "import sys; from runstone_sweeps.cli.main import main; "
        "sys.argv = ['sweep', 'run', 'x.yaml']; sys.exit(main())",
    )
    assert missing.returncode != 0
    assert "Traceback" not in missing.stderr


def test_the_tested_set_covers_all_dependencies() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = PROJECT["optional-dependencies"]
    taken, new = set(), {"all", "dev"}  # what the tested set is installed with
    while new:
        taken |= new
        ours = " ".join(d for extra in new for d in extras[extra] if d.startswith("runstone["))
        new = set(re.split(r"[\[\], ]+", ours)) & set(extras) - taken
    wanted = [*PROJECT["dependencies"], *(d for extra in taken for d in extras[extra])]
    names = {d.split("[")[0].split(">")[0].split("=")[0].split("<")[0].split("!")[0].lower() for d in wanted}
    assert names - {"runstone"} - pinned == set()
    assert "torch==2.13.0" in lines


def test_top_level_folders_are_the_agreed_ones() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    folders = {name.split("/")[0] for name in tracked if "/" in name}
    assert folders <= {"src", "integrations", "sweeps", "tests", "benchmarks", "docs", "examples", ".ci"}
