"""The structure that docs/architecture.md promises."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import runstone

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "runstone": ROOT / "src" / "runstone",
    "runstone_integrations": ROOT / "integrations" / "runstone_integrations",
    "runstone_sweeps": ROOT / "sweeps" / "runstone_sweeps",
}
# Lower layers first. A module may import from its own layer and from those before it.
LAYERS: list[set[str]] = [
    {"_version", "errors", "status", "values", "names", "settings", "params", "yamltree"},
    {"runlog", "blobs", "ledger", "catalog", "artifacts"},
    {
        "ending",
        "current",
        "helper",
        "runinfo",
        "capture",
        "media",
        "console",
        "autolog",
        "statistics",
        "figures",
        "display",
    },
    {
        *("query", "index", "comparison", "reports", "workspace", "recording", "run", "starting", "companions"),
        *("environments", "alerts", "doctor", "reproduce", "tensorboard", "launch", "gc"),
        *("datasets", "models", "lineage", "monitoring", "ci"),
        *("editing", "views", "exporting", "bundle", "backup", "sync", "sealing", "importers", "mlflow_export"),
    },
    {"cli", "server", "serving", "terminal"},
]
LAYER_OF = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# The same inside `runstone_sweeps`, and stricter: a part may import from layers before its own only.
SWEEPS_LAYERS: list[set[str]] = [
    {"environment", "space", "processes"},
    {"spec", "trial"},
    {"record", "config", "executors"},
    {"store", "study"},
    {"mirror", "workers"},
    {"coordinator", "results"},
    {"report", "terminal", "web", "preparing"},
    {"api", "cli", "routes"},
]
SWEEPS_LAYER_OF = {part: level for level, parts in enumerate(SWEEPS_LAYERS) for part in parts}


def sources(package: str) -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(PACKAGES[package].rglob("*.py")):
        relative = path.relative_to(PACKAGES[package]).with_suffix("")
        name = ".".join([package, *(part for part in relative.parts if part != "__init__")])
        yield name, path, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """Yield (module or module.name, line, whether it is for type checkers only)."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, id(node) in typing_only


def part_of(module: str, package: str = "runstone") -> str | None:
    pieces = module.split(".")
    return pieces[1] if pieces[0] == package and len(pieces) > 1 else None


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {
        path.stem if path.is_file() else path.name for path in PACKAGES["runstone"].iterdir() if path.name[0] != "."
    }
    assert parts - {"__init__", "__main__", "__pycache__", "py"} == set(LAYER_OF)


def test_imports_point_down_only() -> None:
    wrong = []
    for name, _path, tree in sources("runstone"):
        part = part_of(name)
        if part is None:
            continue  # the package itself, which offers what all layers made
        for module, line, typing_only in imports(tree):
            target = part_of(module)
            if target in LAYER_OF and not typing_only and LAYER_OF[target] > LAYER_OF[part]:
                wrong.append(f"{name}:{line} imports {module}, which is above it")
    assert wrong == []


def test_every_part_of_sweeps_has_a_layer() -> None:
    parts = {path.stem for path in PACKAGES["runstone_sweeps"].iterdir() if path.name[0] != "."}
    assert parts - {"__init__", "__pycache__", "py"} == set(SWEEPS_LAYER_OF)


def test_imports_inside_sweeps_run_in_one_direction() -> None:
    wrong = []
    for name, _path, tree in sources("runstone_sweeps"):
        part = part_of(name, "runstone_sweeps")
        if part is None:
            continue  # the package itself, which offers what all layers made
        for module, line, _typing_only in imports(tree):
            target = part_of(module, "runstone_sweeps")
            if target is not None and target != part and not SWEEPS_LAYER_OF[target] < SWEEPS_LAYER_OF[part]:
                wrong.append(f"{name}:{line} imports {module}, which is not below it")
    assert wrong == []


def test_what_runs_between_a_sweep_and_its_trials_needs_nothing_installed() -> None:
    wrong = []
    for name, _path, tree in sources("runstone_sweeps"):
        # `trials` is the coordinator's end of it.
        if part_of(name, "runstone_sweeps") != "processes" or name == "runstone_sweeps.processes.trials":
            continue
        for module, line, _typing_only in imports(tree):
            is_ours = module.startswith("runstone_sweeps.processes.")
            if not is_ours and module.partition(".")[0] not in sys.stdlib_module_names:
                wrong.append(f"{name}:{line} imports {module}")
    assert wrong == []


@pytest.mark.parametrize("package", ["runstone_integrations", "runstone_sweeps"])
def test_outer_packages_use_only_public_names(package: str) -> None:
    wrong = []
    for name, _path, tree in sources(package):
        for module, line, _typing_only in imports(tree):
            pieces = module.split(".")
            if pieces[0] == "runstone" and not (len(pieces) == 1 or pieces[1] in runstone.__all__):
                wrong.append(f"{name}:{line} imports {module}")
            if pieces[0] == "runstone" and len(pieces) > 2:
                wrong.append(f"{name}:{line} reaches into {module}")
        for node in ast.walk(tree):
            is_ours = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "runstone"
            if is_ours and node.attr not in runstone.__all__:
                wrong.append(f"{name}:{node.lineno} uses runstone.{node.attr}")
    assert wrong == []


def test_only_the_index_knows_sql() -> None:
    for package in PACKAGES:
        for name, _path, tree in sources(package):
            if name.startswith("runstone.index"):
                continue
            for module, line, _typing_only in imports(tree):
                assert module.split(".")[0] not in ("sqlalchemy", "sqlite3"), f"{name}:{line}"


def test_only_study_knows_optuna() -> None:
    for package in PACKAGES:
        for name, _path, tree in sources(package):
            if name.startswith("runstone_sweeps.study."):
                continue
            for module, line, _typing_only in imports(tree):
                assert module.split(".")[0] != "optuna", f"{name}:{line}"


def test_only_settings_reads_the_environment() -> None:
    wrong = []
    for name, _path, tree in sources("runstone"):
        if name == "runstone.settings":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
                wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_nothing_is_unpickled_but_by_the_flavour_that_asks_for_trust() -> None:
    loaders = {"pickle", "cloudpickle", "joblib", "torch", "dill", "marshal", "shelve"}
    for package in PACKAGES:
        for name, _path, tree in sources(package):
            if name == "runstone.models.flavours._pickle":
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "Unpickler"):
                    owner = node.value.id if isinstance(node.value, ast.Name) else ""
                    assert owner not in loaders, f"{name}:{node.lineno}"


def test_exports_equal_all() -> None:
    assert sorted(runstone.__all__) == sorted(set(runstone.__all__))
    for name in runstone.__all__:
        assert getattr(runstone, name) is not None
    public = {name for name in vars(runstone) if not name.startswith("_")}
    modules = {module.name for module in pkgutil.iter_modules([str(PACKAGES["runstone"])])}
    assert public - modules - {"annotations", "TYPE_CHECKING", "Any"} <= set(runstone.__all__)


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        name
        for name in runstone.__all__
        if callable(getattr(runstone, name)) and name != "JSON" and not getattr(runstone, name).__doc__
    ]
    assert missing == []


def test_every_module_opens_by_saying_what_it_owns() -> None:
    for package in PACKAGES:
        for name, _path, tree in sources(package):
            assert ast.get_docstring(tree), name


HEAVY = (
    "numpy", "pandas", "pyarrow", "sqlalchemy", "sqlite3", "psutil", "pynvml", "rich", "click", "blake3", "torch",
    "lightning", "pytorch_lightning", "sklearn", "keras", "optuna", "tensorboardX", "google", "plotly", "pydantic",
    "yaml", "scipy", "fsspec",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["runstone", "runstone_integrations", "runstone_sweeps"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & set(HEAVY) == set()


@pytest.mark.parametrize("module", ["lightning", "keras", "sklearn"])
def test_an_integration_loads_no_framework_by_itself(module: str) -> None:
    name = f"runstone_integrations.{module}"
    if importlib.util.find_spec(name) is None:
        pytest.fail(f"{name} is missing")
    assert loaded_by(f"import {name}") & {"torch", "lightning", "pytorch_lightning", "keras", "tensorflow"} == set()


def test_recording_loads_no_sql_and_no_command_line(tmp_path: Path) -> None:
    start = f"runstone.start_run(workspace={str(tmp_path / 'w')!r}, environment=False)"
    code = f"import runstone\nwith {start} as run: run.log({{'x': 1.0}})"
    assert loaded_by(code) & {"sqlalchemy", "sqlite3", "click", "rich", "numpy", "pandas"} == set()
