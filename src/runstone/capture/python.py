"""The interpreter that runs this process."""

from __future__ import annotations

import platform
import sys
import sysconfig
from typing import Any

from runstone.capture.context import Context
from runstone.capture.facts import Facts, Missing


def read_python(facts: Facts, context: Context) -> None:
    """Version, build, prefix, virtual environment, flags."""
    facts.read("version", platform.python_version)
    facts.read("implementation", platform.python_implementation)
    facts.read("build", lambda: " ".join(platform.python_build()))
    facts.read("compiler", platform.python_compiler)
    facts.read("executable", lambda: sys.executable or None, if_none="the interpreter does not know its own path")
    facts.read("prefix", lambda: sys.prefix)
    facts.read(
        "venv", lambda: sys.prefix if sys.prefix != sys.base_prefix else None, if_none="not a virtual environment"
    )
    facts.read("conda", lambda: context.environment.get("CONDA_DEFAULT_ENV"), if_none="CONDA_DEFAULT_ENV is not set")
    facts.read("flags", _flags)
    facts.read("is_free_threaded", lambda: bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
    facts.read("hash_seed", lambda: _hash_seed(context.environment.get("PYTHONHASHSEED")))


def python_key(context: Context) -> list[Any]:
    """Return what of it differs between processes of one interpreter."""
    names = ("CONDA_DEFAULT_ENV", "PYTHONHASHSEED")
    return [*map(context.environment.get, names), list(sys.flags)]


def _flags() -> dict[str, int | bool]:
    """Flags that are not at their usual value."""
    names = [name for name in dir(sys.flags) if not name.startswith(("_", "n_")) and name not in ("count", "index")]
    usual = {"hash_randomization": 1, "int_max_str_digits": -1, "thread_inherit_context": 0, "gil": 1}
    values = {name: getattr(sys.flags, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value != usual.get(name, 0)}


def _hash_seed(given: str | None) -> int:
    if not given or given == "random":
        raise Missing("absent", "PYTHONHASHSEED is not set, so each process draws its own")
    return int(given)
