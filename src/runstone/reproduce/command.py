"""Fills in how a restored run is started: its command, working folder, variables, and a trial's params."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

from runstone.params import merge_params
from runstone.reproduce.plan import (
    Command,
    Variables,
    command_of,
    field_of,
    inside,
    moved,
    text_of,
    with_data,
    with_home,
)
from runstone.reproduce.restored import CODE, SCRIPT, Restored
from runstone.runlog.reader import read_events, read_journal
from runstone.values import JSON


def restore_command(made: Restored, root: str, home: str) -> None:
    """Find the working folder and the words of the command, in the new checkout; or say why there are none.

    Args:
        made: What there is so far; its checkout is.
        root: Folder of the old checkout.
        home: What `~` stands for.
    """
    environment = made.environment
    then = with_home(text_of(environment, "process.cwd"), home)
    code = made.folder / CODE
    relative = inside(then, root) if made.checkout is not None else None
    if relative is not None and code.resolve() in ((code / relative).resolve(), *(code / relative).resolve().parents):
        made.working_folder = code / relative
    else:
        made.working_folder = made.folder / "work"
        made.notes.append(f"the command ran in {then or 'an unknown folder'}; here it runs in the empty folder work")
    made.working_folder.mkdir(parents=True, exist_ok=True)
    world = field_of(environment, "rank.world_size")
    if isinstance(world, int) and world > 1:
        made.obstacles.append(
            f"it ran as {world} processes, and what started them was not recorded. If the script starts the others "
            f"itself (Lightning's ddp does), run {SCRIPT}; else give {SCRIPT} to the launcher, such as "
            f"`torchrun --no-python --nproc-per-node {world} {SCRIPT}` on one machine, or `srun {SCRIPT}`"
        )
    command = command_of(environment, home)
    kind = text_of(environment, "process.kind")
    if kind in ("notebook", "ipython") or command is None:
        made.obstacles.append(_no_command(made, kind, root, home))
        return
    for place in command.redacted:
        made.obstacles.append(f"word {place} of its command was redacted: put the value into {SCRIPT} and run that")
    _Words(made, command, then, root, home).move()


def _no_command(made: Restored, kind: str, root: str, home: str) -> str:
    if kind == "notebook":
        path = with_home(text_of(made.environment, "notebook.path"), home)
        relative = inside(path, root)
        place = made.folder / CODE / relative if relative is not None and made.checkout is not None else None
        if place is not None and place.is_file():
            return f"it was started in the notebook {relative}, which has no command to give again: open {place}"
        return (
            f"it was started in a notebook{f' ({path})' if path else ''}, which has no command to give again: "
            "open it here, and run its cells"
        )
    known = {"ipython": "IPython", "repl": "an interactive interpreter"}
    started = f"was typed into {known[kind]}" if kind in known else "was started in a way that was not recorded"
    return f"it {started}: there is no command to give again. {SCRIPT} has its variables"


class _Words:
    """The words of a command, on their way from the old checkout to the new one."""

    def __init__(self, made: Restored, command: Command, then: str, root: str, home: str) -> None:
        self._made, self._command = made, command
        self._then, self._root, self._home = then, root, home
        self._code = made.folder / CODE

    def move(self) -> None:
        """Put them into what is made, and say which name something that is not there."""
        target = self._command.target
        if self._command.is_script:
            script = self._script(target[0])
            if script is None:
                return
            target = (script,)
        arguments = self._command.arguments
        if self._made.checkout is not None:
            arguments = tuple(map(self._argument, arguments))
        arguments = tuple(with_data(word, self._made.data) for word in arguments)
        self._made.words = (*self._command.flags, *target, *arguments)

    def _script(self, given: str) -> str | None:
        full = os.path.normpath(PurePosixPath(self._then, given))
        interpreter = with_home(text_of(self._made.environment, "python.executable"), self._home)
        if interpreter and PurePosixPath(full).parent == PurePosixPath(os.path.normpath(interpreter)).parent:
            # A program that was installed beside the interpreter, such as `lightning`.
            self._made.program = len(self._command.flags)
            return PurePosixPath(full).name
        relative = inside(full, self._root) if self._made.checkout is not None else None
        if relative is None:
            if self._made.checkout is not None:  # else the whole code is missing, and that is told
                self._made.obstacles.append(
                    f"its script {full} lies outside of the checkout {self._root}, and was not recorded"
                )
            return None
        found = self._code / relative
        if not found.is_file():
            instead = (
                f"--link {relative} links it from {self._root}, as it is now"
                if Path(full).is_file()
                else f"if you have it, copy it to {found} and run {SCRIPT}"
            )
            self._made.obstacles.append(
                f"its script {relative} is not in the checkout: it was neither committed nor kept; {instead}"
            )
        return str(found) if given.startswith("/") else os.path.relpath(found, self._made.working_folder)

    def _argument(self, word: str) -> str:
        """Return an argument that names in the new checkout what it named in the old one."""
        name, equals, tail = word.partition("=")
        prefix, path = (name + equals, tail) if equals and not name.startswith("/") else ("", word)
        if path.startswith("/"):
            new = moved(word, self._root, self._code)
            if new == word and inside(path, self._root) is not None:
                self._made.notes.append(f"the argument {word} names the old checkout: the commit has nothing there")
            return new
        old = os.path.normpath(PurePosixPath(self._then, path))
        if not path or path.startswith("-") or not self._then or not os.path.lexists(old):
            return word  # it names no file
        relative = inside(old, self._root)
        if relative is None:
            self._made.notes.append(f"the argument {word} led out of the checkout, to {old}, and does so still")
            return prefix + old
        if not (self._code / relative).exists():
            self._made.lost.append(
                f"the argument {word}: git did not keep it; --link {self._first_gone(relative)} "
                f"links it from {self._root}, as it is now"
            )
        same = os.path.normpath(self._made.working_folder / path) == str(self._code / relative)
        return word if same else f"{prefix}{self._code / relative}"

    def _first_gone(self, relative: PurePosixPath) -> PurePosixPath:
        """Return the outermost folder of a path that the new checkout lacks."""
        outer = [*reversed(relative.parents), relative][1:]
        return next(place for place in outer if not (self._code / place).exists())


def restore_variables(made: Restored, variables: Variables, root: str) -> None:
    """Set the recorded variables, with folders of the old checkout as those of the new one."""
    code = made.folder / CODE
    for name, value in variables.set.items():
        if made.checkout is not None and root:
            value = os.pathsep.join(moved(part, root, code) for part in value.split(os.pathsep))
        made.set[name] = os.pathsep.join(with_data(part, made.data) for part in value.split(os.pathsep))
    made.unset = variables.unset
    for name in variables.redacted:
        if name in made.present:
            made.notes.append(f"variable {name} was redacted; its value of now is used")
        else:
            made.lost.append(f"variable {name}: its value was redacted; set it before you run the command")
    if variables.left:
        made.notes.append(f"{', '.join(variables.left)}: of the machine, left as here")


def restore_trial(made: Restored) -> None:
    """Give the params of a sweep's trial again, as the sweep did."""
    roles = {writer.writer: writer.role for writer in read_journal(made.run.path).writers}
    params: dict[str, JSON] = {}
    for writer, event in read_events(made.run.path):
        if event.get("event") == "params" and roles.get(writer) == "launcher" and isinstance(event.get("params"), dict):
            merge_params(params, event["params"])
    if params:
        made.set["RUNSTONE_TRIAL"] = json.dumps(params)
        made.notes.append("the params of the trial are given again in RUNSTONE_TRIAL")
        if "RUNSTONE_SEED" not in made.set:
            made.lost.append("RUNSTONE_SEED, which the sweep gave the trial: it was not recorded")


def import_from_the_copy(made: Restored) -> None:
    """Let packages that were installed in place from the old checkout come from the new one."""
    code = made.folder / CODE
    places = [place for place in made.packages.in_place if place.is_relative_to(code)]
    if not places:
        return
    folders = [str(place / "src" if (place / "src").is_dir() else place) for place in places]
    kept = made.set.get("PYTHONPATH", "").split(os.pathsep)
    made.set["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, kept)])
    made.notes.append("the project was installed in place; PYTHONPATH makes this copy of it the one that is imported")
