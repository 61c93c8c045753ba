"""This process: who started it and how, and who it is among the ranks of a job."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from runstone.capture import redact
from runstone.capture.context import Context
from runstone.capture.entry import entry_file
from runstone.capture.facts import Facts, Missing, absent

_RANK = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK")
_WORLD_SIZE = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_NODE_RANK = ("GROUP_RANK", "NODE_RANK", "SLURM_NODEID", "OMPI_COMM_WORLD_NODE_RANK")
_MOST_CELLS = 500
_LONGEST_ARGUMENT = 4096


def read_rank(facts: Facts, context: Context) -> None:
    """Place in a distributed job: what torchrun, Slurm, Open MPI or MPICH say, else that of a job of one."""
    known = context.ranks or {}
    for field, variables, default in (
        ("rank", _RANK, 0),
        ("world_size", _WORLD_SIZE, 1),
        ("local_rank", _LOCAL_RANK, 0),
        ("node_rank", _NODE_RANK, 0),
    ):
        facts.put(field, known.get(field, _first_number(context.environment, variables, default)))


def _first_number(environment: Mapping[str, str], variables: tuple[str, ...], default: int) -> int:
    found = (environment.get(variable, "") for variable in variables)
    return next((int(value) for value in found if value.isdecimal()), default)


def read_identity(facts: Facts, context: Context) -> None:
    """User and host, as far as `Privacy.identity` allows."""
    facts.read("user", lambda: _identity(getpass.getuser(), context))
    facts.read("host", lambda: _identity(socket.gethostname(), context))


def _identity(name: str, context: Context) -> str:
    if context.privacy.identity == "off":
        raise Missing("redacted", "switched off by privacy.identity")
    if context.privacy.identity == "hashed":
        return "blake2b:" + hashlib.blake2b(name.encode(errors="replace"), digest_size=8).hexdigest()
    return name


def read_process(facts: Facts, _: Context) -> None:
    """Ids, start, command line, entry point and working folder."""
    facts.put("pid", os.getpid())
    facts.put("ppid", os.getppid())
    facts.read("started_at", lambda: psutil.Process().create_time())
    facts.read("argv", lambda: [*map(_shortened, redact.arguments(sys.orig_argv))])
    facts.read("kind", entry_kind)
    facts.read("entry", _entry, if_none="there is no script")
    facts.read("cwd", lambda: str(Path.cwd()))


def _shortened(argument: str) -> str:
    """Cut what is a whole program after `-c`."""
    return argument if len(argument) <= _LONGEST_ARGUMENT else argument[:_LONGEST_ARGUMENT] + "…"


def entry_kind() -> str:
    """Return `notebook`, `ipython`, `module` (`python -m`), `script`, `command` (`python -c`) or `repl`."""
    shell = _ipython()
    if shell is not None:
        return "notebook" if hasattr(shell, "kernel") else "ipython"
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return "module"
    if entry_file() is not None:
        return "script"
    return "command" if "-c" in sys.orig_argv[1:] else "repl"


def _entry() -> str | None:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = entry_file()
    return str(file) if file else None


def read_notebook(facts: Facts, context: Context) -> None:
    """Path, kernel and cells of a notebook. Nothing is imported: a process without IPython has no notebook."""
    shell = _ipython()
    if shell is None or not hasattr(shell, "kernel"):
        raise absent("not a notebook")
    names = shell.user_ns
    facts.read(
        "path",
        lambda: names.get("__vsc_ipynb_file__") or context.environment.get("JPY_SESSION_NAME"),
        if_none="the front end does not tell it",
    )
    facts.read("kernel_id", lambda: _kernel_id(shell))
    facts.read("executed_cells", lambda: int(shell.execution_count))
    facts.read("cells", lambda: _cells(names, context))


def _ipython() -> Any:
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get() if get is not None else None


def _kernel_id(shell: Any) -> str:
    file = shell.kernel.parent.connection_file
    return Path(file).stem.removeprefix("kernel-")


def _cells(names: Mapping[str, Any], context: Context) -> list[str]:
    if not context.privacy.keep_cells:
        raise Missing("redacted", "off by default; privacy.keep_cells switches it on")
    return [redact.text(str(cell), is_code=True) for cell in names.get("In", [])[-_MOST_CELLS:]]
