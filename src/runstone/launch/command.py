"""What is to be run: finds the program, and puts our start in front of Python scripts. Starts nothing."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runstone.errors import RunstoneError

_PYTHON = re.compile(r"python(\d(\.\d+)?t?)?")
_FLAGS_WITH_VALUE = frozenset("WX")
# These ask for something else than running a script, or for a prompt after it.
_NOT_A_SCRIPT = frozenset("hVix?")
_START = Path(__file__).absolute().parent / "child" / "start.py"


class CannotStart(RunstoneError):
    """A command that cannot be started.

    Attributes:
        exit_code: What a shell would return: 127 where there is no such program, 126 where it may not be run.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be started.

    Attributes:
        given: Its words as the user gave them, with the interpreter in front of a `.py` file.
        python: The interpreter and its own options, for a Python script, module or code; else empty.
        arguments: What the script, or the program, is given.
    """

    given: tuple[str, ...]
    python: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def is_python(self) -> bool:
        """Whether it is a Python program that can be observed."""
        return bool(self.python)

    def words(self, fd: int) -> list[str]:
        """Return what to start.

        Args:
            fd: Where a Python script tells what it makes of its command line.
        """
        if not self.python:
            return list(self.given)
        return [*self.python, str(_START), str(fd), *self.given[len(self.python) :]]


def find_command(words: Sequence[str], environment: Mapping[str, str]) -> Command:
    """Return the command that words stand for.

    Args:
        words: At least one. A first word that ends in `.py` is run by this interpreter.
        environment: Where `PATH` is looked up.

    Raises:
        CannotStart: there is no such program, or it may not be run.
    """
    first = words[0]
    if first.endswith((".py", ".pyw")) and not _is_program(first):
        if not Path(first).is_file():
            raise CannotStart(f"there is no file {first}{_near_file(first)}", 127)
        return Command((sys.executable, *words), (sys.executable,), tuple(words[1:]))
    found = shutil.which(first, path=environment.get("PATH", os.defpath))
    if found is None:
        raise _why_not(first)
    if not _PYTHON.fullmatch(Path(first).name):
        return Command(tuple(words), (), tuple(words[1:]))
    place = _first_of_script(words)
    if place is None:
        return Command(tuple(words), (), tuple(words[1:]))
    script = words[place]
    # `-mpackage` is `-m package`
    target = (script[:2], script[2:]) if script[:2] in ("-m", "-c") and len(script) > 2 else (script,)
    rest = words[place + 1 :]
    arguments = rest[1:] if target in (("-m",), ("-c",)) else rest
    return Command((*words[:place], *target, *rest), tuple(words[:place]), tuple(arguments))


def _is_program(first: str) -> bool:
    """Return whether a `.py` file is to be run by what its first line names: a program on PATH that ends so."""
    return False if "/" in first or Path(first).is_file() else shutil.which(first) is not None


def _first_of_script(words: Sequence[str]) -> int | None:
    """Return where the options of an interpreter end; `None` where no script follows that could be observed."""
    place = 1
    while place < len(words):
        word = words[place]
        if word == "-" or word in ("--help", "--version") or word.startswith("--help-"):
            return None
        if word.startswith("--"):
            place += 2 if word == "--check-hash-based-pycs" else 1
            continue
        if not word.startswith("-"):
            return place if Path(word).exists() and not word.endswith(".pyc") else None
        for position, letter in enumerate(word[1:], 1):
            if letter in _NOT_A_SCRIPT:
                return None
            if letter in "mc":
                if position > 1 or (position + 1 == len(word) and place + 1 == len(words)):
                    return None  # `-um package`: left to Python
                return place
            if letter in _FLAGS_WITH_VALUE:
                place += position + 1 == len(word)
                break
        place += 1
    return None


def _why_not(first: str) -> CannotStart:
    path = Path(first)
    if "/" in first:
        if path.is_dir():
            return CannotStart(f"{first} is a folder", 126)
        if path.exists():
            return CannotStart(f"{first} may not be run: it is not executable (chmod +x {first})", 126)
        return CannotStart(f"there is no program {first}{_near_file(first)}", 127)
    hint = f"; did you mean ./{first}?" if path.is_file() else _near_file(first)
    return CannotStart(f"there is no program {first!r}{hint}", 127)


def _near_file(name: str) -> str:
    path = Path(name)
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {path.parent / found[0]}?" if found else ""
