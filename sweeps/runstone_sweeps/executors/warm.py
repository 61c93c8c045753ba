"""Whether trials may be forked from a process that has imported their modules, and which modules those are."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from runstone import InvalidConfig
from runstone_sweeps.processes.imports import find_imports
from runstone_sweeps.processes.invocation import Invocation, read_invocation
from runstone_sweeps.spec.options import StartMode

_FORMS = {"interpreter": sys.executable, "env": "/usr/bin/env"}
# Modules that start processes of their own, which import everything anyway, and tie them to devices.
_LAUNCHERS = ("torch.distributed", "accelerate", "deepspeed", "lightning.fabric", "horovod", "mpi4py", "ray")
_ANY_MACRO = re.compile(r"\$\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """How the trials of a session start.

    Attributes:
        is_warm: Each is a fork of a process that has imported `preload`.
        preload: Modules, in order; `module:name` takes a name from one, as `from module import name` would.
        reason: Why they start cold, in a few words; `None` where they start warm, or cold as asked for.
    """

    is_warm: bool
    preload: tuple[str, ...] = ()
    reason: str | None = None


def plan(
    *,
    start: StartMode,
    preload: Sequence[str] = (),
    script: str | None = None,
    command: Sequence[str] | None = None,
    function: str | None = None,
    working_dir: Path,
    environment: Mapping[str, str],
) -> WarmPlan:
    """Decide how trials start. Looks at the script's text; executes nothing of it.

    Args:
        start: What the config says.
        preload: Modules that the config names; without any, they are found in the script's imports.
        script, command, function: What is run, as the config says.
        working_dir: Folder in which trials start.
        environment: What trials get, as far as it is the same for all.

    Raises:
        InvalidConfig: `start: warm`, and it is not possible.
    """
    if start == "cold":
        return WarmPlan(is_warm=False)
    invocation = _invocation(script, command, function, environment)
    file: Path | None = None
    if isinstance(invocation, Invocation):
        file = _file_of(invocation, function, working_dir)
        reason = (
            _obstacle(invocation, environment) if file is not None else f"{function or invocation.target} is not there"
        )
    else:
        reason = invocation
    if reason is not None or file is None:
        if start == "warm":
            raise InvalidConfig(f"start: warm is not possible: {reason}")
        return WarmPlan(is_warm=False, reason=reason)
    own = ("runstone",) if function is not None else ()
    found = find_imports(file, folders=_folders(invocation, file, working_dir, environment))  # type: ignore[arg-type]
    if preload:
        return WarmPlan(is_warm=True, preload=(*own, *preload))
    if found.reason is not None and start != "warm":
        return WarmPlan(is_warm=False, reason=found.reason)
    return WarmPlan(is_warm=True, preload=tuple(dict.fromkeys((*own, *found.modules))))


def _invocation(
    script: str | None, command: Sequence[str] | None, function: str | None, environment: Mapping[str, str]
) -> Invocation | str:
    """Return how Python is called for each trial, or why a fork cannot stand in for the command."""
    if function is not None:
        return Invocation(sys.executable, (), "module", "runstone_sweeps.trial", (function,))
    if command is None:
        if not str(script).endswith(".py"):
            return f"{script} is not a Python script"
        return Invocation(sys.executable, (), "script", str(script), ())
    forms = {**_FORMS, "program": str(script)}
    words = [_ANY_MACRO.sub(lambda match: forms.get(match[0][2:-1], match[0]), word) for word in command]
    if len(words) > 1 and Path(words[0]).name == "env" and not words[1].startswith("-") and "=" not in words[1]:
        words = words[1:]
    if not _is_this_python(words[0], environment):
        return f"{words[0]} is not this Python ({sys.executable})"
    invocation = read_invocation(words)
    if invocation is None:
        return f"a fork cannot stand in for {' '.join(words)!r:.80}"
    if any(_ANY_MACRO.search(word) for word in (*invocation.options, invocation.target)):
        return "the params choose the script"
    return invocation


def _is_this_python(word: str, environment: Mapping[str, str]) -> bool:
    found = shutil.which(word, path=environment.get("PATH"))
    if found is None:
        return False
    # The folder counts too: links to one interpreter are what virtual environments are made of.
    this, that = Path(sys.executable).absolute(), Path(found).absolute()
    return this.parent == that.parent and this.resolve() == that.resolve()


def _obstacle(invocation: Invocation, environment: Mapping[str, str]) -> str | None:
    if not sys.platform.startswith("linux"):
        return "processes that were forked after an import are only safe on Linux"
    if invocation.kind == "script" and not invocation.target.endswith(".py"):
        return f"{invocation.target} is not a Python script"
    if invocation.kind == "module" and invocation.target.startswith(_LAUNCHERS):
        return f"{invocation.target} starts processes of its own"
    for name in ("PYTHONINSPECT", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        if environment.get(name):
            return f"{name} is set"
    return None


def _file_of(invocation: Invocation, function: str | None, working_dir: Path) -> Path | None:
    if invocation.kind == "script":
        path = working_dir / invocation.target
        return path if path.is_file() else None
    folders = [str(working_dir), *sys.path]
    places: Sequence[str] | None = folders
    name = function.partition(":")[0] if function is not None else invocation.target
    spec = None
    for depth in range(1, name.count(".") + 2):
        spec = PathFinder.find_spec(".".join(name.split(".")[:depth]), places) if places is not None else None
        if spec is None:
            return None
        places = spec.submodule_search_locations
    if places is not None and function is None:  # a package runs by its __main__
        spec = PathFinder.find_spec(f"{name}.__main__", places)
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.origin.endswith(".py") else None


def _folders(invocation: Invocation, file: Path, working_dir: Path, environment: Mapping[str, str]) -> list[str]:
    """Return where the trial's process will look for modules."""
    first = str(file.resolve().parent if invocation.kind == "script" else working_dir)
    told = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [first, *told, *filter(None, sys.path)]
