"""One import: finds out which tool wrote a store, reads it, makes runs and models, and says what came of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from runstone.errors import AlreadyExists, FormatError, InvalidValue, NotFound, RunstoneError
from runstone.importers.items import FoundModel, NotCarried, Reader, Reading
from runstone.importers.registering import ImportedModel, import_model
from runstone.importers.writing import ImportedRun, import_run, preview_run
from runstone.names import check_name
from runstone.workspace import Workspace

# In the order in which they are asked whether a path is theirs: the plainest last.
TOOLS = {
    "wandb": "Weights & Biases, offline runs",
    "mlflow": "MLflow, mlruns folder or SQLite",
    "trackio": "Trackio",
    "aim": "Aim",
    "neptune": "neptune-exporter's Parquet",
    "clearml": "ClearML, offline session",
    "dvclive": "DVCLive",
    "csv": "CSV",
}
"""Tools whose stores are read here, and what each is; TensorBoard's event files are read by `runstone.tensorboard`."""


@dataclass(slots=True)
class Import:
    """What came of one import.

    Attributes:
        tool: Of which tool the store is.
        runs, models: What came of each.
        not_carried: What belongs to no run, by kind.
        troubles: Runs that could not be imported, each in words; the others were.
    """

    tool: str
    runs: list[ImportedRun] = field(default_factory=list)
    models: list[ImportedModel] = field(default_factory=list)
    not_carried: NotCarried = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)


def detect(path: Path) -> str:
    """Return which tool wrote a store: a key of `TOOLS`, or `tensorboard`.

    Raises:
        NotFound: there is nothing at the path.
        FormatError: it is of none of them.
    """
    if not path.exists():
        raise NotFound(f"there is no file or folder {path}")
    for tool in TOOLS:
        if import_module(f"runstone.importers.{_MODULES[tool]}").is_store(path):
            return tool
    if path.is_dir() and any("tfevents" in name for _root, _folders, names in os.walk(path) for name in names):
        return "tensorboard"
    raise FormatError(
        f"{path} is no store of {', '.join(TOOLS)} or tensorboard that is known here; "
        "`runstone import TOOL PATH` says what is amiss with it"
    )


def import_store(
    workspace: Workspace,
    tool: str,
    path: Path,
    *,
    project: str | None = None,
    also_from: tuple[Path, ...] = (),
    python: str | None = None,
    is_dry: bool = False,
    tell: Callable[[ImportedRun | ImportedModel], None] = lambda _result: None,
) -> Import:
    """Make runs and models of a store of another tool, or add what they lack.

    Each run is there whole or not at all, so an import that was killed is gone on with by doing it again.

    Args:
        workspace: Where they go.
        tool: A key of `TOOLS`.
        path: The store.
        project: Project of new runs; default: as the store says.
        also_from: Folders outside of the store from which files that it names may be taken.
        python: An interpreter that has the tool's library, for tools whose stores only that can read.
        is_dry: Whether nothing is written.
        tell: Called with each result as it comes.

    Raises:
        NotFound: there is nothing at the path.
        FormatError: it is no store of this tool.
        AlreadyExists: another import into this workspace is running.
        OSError: the disk refuses.
    """
    if project is not None:
        check_name(project, "project")
    if tool not in TOOLS:
        raise InvalidValue(f"{tool!r:.80} is none of {', '.join(TOOLS)}")
    if not path.exists():
        raise NotFound(f"there is no file or folder {path}")
    read: Reader = import_module(f"runstone.importers.{_MODULES[tool]}").read
    result = Import(tool)
    with only_import(workspace) as scratch:
        temporary = scratch / f"{os.urandom(8).hex()}.partial"
        temporary.mkdir()
        try:
            reading = Reading(path.absolute(), temporary, also_from, project, python, result.not_carried)
            for found in read(reading):
                if isinstance(found, FoundModel):
                    result.models.append(import_model(workspace, tool, found, is_dry=is_dry))
                    tell(result.models[-1])
                    continue
                chosen = project or found.project or default_project(path)
                try:
                    one = (
                        preview_run(workspace, tool, found, project=chosen)
                        if is_dry
                        else import_run(workspace, scratch, tool, found, project=chosen)
                    )
                except RunstoneError as error:
                    result.troubles.append(f"{found.source}: {error}")
                    continue
                result.runs.append(one)
                tell(one)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return result


def default_project(path: Path) -> str:
    """Return the project of runs whose store names none: the name of the store, or of the folder it lies in."""
    absolute = path.absolute()
    name = absolute.stem if absolute.is_file() else absolute.name
    return os.fsencode(name).decode("utf-8", "replace").strip(". ") or "imported"


@contextlib.contextmanager
def only_import(workspace: Workspace) -> Iterator[Path]:
    """Hold the lock on importing, and give a folder for runs that are not whole yet.

    Raises:
        AlreadyExists: another import into this workspace is running.
    """
    scratch = workspace.path / "imports"
    scratch.mkdir(exist_ok=True)
    fd = os.open(scratch / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(f"another import into {workspace.path} is running; wait for its end") from None
        except OSError as error:  # a file system without locks
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        for partial in scratch.glob("*.partial"):  # of an import that was killed
            shutil.rmtree(partial)
        yield scratch
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # a process that was forked meanwhile has it until it runs its program
        os.close(fd)


_MODULES = {tool: tool for tool in TOOLS} | {"csv": "csvfile"}
