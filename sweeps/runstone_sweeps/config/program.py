"""Checks what a trial executes: the script, the command or the function, where and with which variables."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from runstone_sweeps.config.mistakes import Mistakes, nearest, show
from runstone_sweeps.config.shape import Shape
from runstone_sweeps.space import Space
from runstone_sweeps.spec.command import find_unknown_macros

_RESERVED_WORDS = "WORKSPACE PROJECT GROUP RUN_ID TRIAL SEED RETRY OOM_RETRY DISABLED FACTS".split()
_RESERVED = tuple(f"RUNSTONE_{name}" for name in _RESERVED_WORDS)


def read_command(raw: Any) -> tuple[str, ...] | None:
    """Return the words of a command, `()` where it is neither text nor a list of words."""
    if raw is None:
        return None
    if isinstance(raw, str):
        try:
            return tuple(shlex.split(raw))
        except ValueError:
            return ()
    if isinstance(raw, list) and all(isinstance(w, (str, int, float)) and not isinstance(w, bool) for w in raw):
        return tuple(map(str, raw))
    return ()


def check_program(
    shape: Shape,
    command: tuple[str, ...] | None,
    space: Space,
    working_dir: Path,
    mistakes: Mistakes,
    *,
    has_objective: bool,
) -> None:
    """Check that exactly one thing to execute is named, and that it is there."""
    named = [key for key in ("script", "command", "function") if getattr(shape, key) is not None]
    if has_objective and named:
        mistakes.add((named[0],), "does not go with an objective given in Python")
    elif not named and not has_objective:
        message = "is missing; say what to run: script: train.py, command: [...] or function: module:name"
        mistakes.add(("script",), message)
    elif "function" in named and len(named) > 1:
        mistakes.add(("function",), f"does not go with {named[0]}; keep one of them")
    for name in shape.env:
        if name in _RESERVED:
            mistakes.add(("env", name), "is set by the sweep for each trial and cannot be given")
        elif not name or "=" in name or "\0" in name:
            mistakes.add(("env", name), "is not a legal name of a variable")
    if command is not None and not command:
        mistakes.add(("command",), f"must be a list of words, got {show(shape.command)}")
    for macro in find_unknown_macros(command or (), space):
        names = ("args", "args_no_hyphens", "args_json", "env", "interpreter", "program")
        near = nearest(macro, (*names, *(p.name for p in space)))
        mistakes.add(("command",), f"${{{macro}}} stands for nothing{near}")
    if not working_dir.is_dir():
        mistakes.add(("working_dir",), f"there is no folder {working_dir}")
        return
    if shape.script is not None and not (working_dir / shape.script).is_file():
        there = [entry.name for entry in working_dir.iterdir() if entry.suffix in (".py", ".sh")]
        near = nearest(shape.script, there) if there else ""
        mistakes.add(("script",), f"there is no file {shape.script!r} in {working_dir}{near}")
    if command and "${" not in command[0]:
        is_path = "/" in command[0]
        if not (shutil.which(working_dir / command[0]) if is_path else shutil.which(command[0])):
            mistakes.add(("command", 0), f"there is no program {command[0]!r}")


def env_text(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
