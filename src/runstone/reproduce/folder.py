"""Makes the folder in which a run can be done again, and says what of the run could not be put there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.capture import snapshot as take_snapshot
from runstone.environments import EnvironmentDiff, diff_environments, recorded_patch
from runstone.errors import AlreadyExists, InvalidValue, NotFound
from runstone.params import merge_params
from runstone.reproduce.checkout import Checkout, restore_code
from runstone.reproduce.plan import (
    Command,
    Variables,
    command_of,
    field_of,
    inside,
    is_safe_relative,
    moved,
    requirements_of,
    seeds_of,
    text_of,
    texts_of,
    variables_of,
    with_home,
)
from runstone.runinfo import RunInfo
from runstone.runlog.reader import read_events, read_journal
from runstone.values import JSON

CODE, LOCK, PLAN, README, SCRIPT = "code", "requirements.lock.txt", "reproduce.json", "README.md", "run.sh"
_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})


@dataclass(slots=True)
class Restored:
    """A run as it can be done again.

    Attributes:
        run: The run.
        workspace: Folder of the workspace that it lies in.
        folder: What was made.
        checkout: Its code; `None` where none was recorded.
        working_folder: Where the command runs.
        words: The command line behind the interpreter; empty where it cannot be given again.
        set: Variables to set.
        unset: Variables to remove.
        obstacles: Why the command cannot be run as it stands.
        lost: What could not be restored.
        notes: What was done otherwise than then.
        present: The variables of this process, before anything was loaded that sets some.
        now: How the environment of then (left) differs from this machine's (right).
    """

    run: RunInfo
    workspace: Path
    folder: Path
    checkout: Checkout | None = None
    working_folder: Path = field(default_factory=Path)
    words: tuple[str, ...] = ()
    set: dict[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    obstacles: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    present: Mapping[str, str] = field(default_factory=dict)
    now: EnvironmentDiff = field(default_factory=lambda: EnvironmentDiff((), ()))

    @property
    def environment(self) -> Mapping[str, Any]:
        """The snapshot of the run."""
        return self.run.environment or {}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "format": 1,
            "run": {"id": self.run.id, "name": self.run.name, "project": self.run.project},
            "workspace": str(self.workspace),
            "folder": str(self.folder),
            "code": None
            if self.checkout is None
            else {
                "folder": str(self.checkout.folder),
                "commit": text_of(self.environment, "git.commit") or None,
                "source": self.checkout.source,
                "patched": self.checkout.applied,
            },
            "working_folder": str(self.working_folder),
            "command": list(self.words),
            "variables": dict(self.set),
            "unset": list(self.unset),
            "seeds": seeds_of(self.environment, self.run.flat_params),
            "params": self.run.params,
            "artifacts": [
                {
                    "name": artifact.name,
                    "files": [
                        {"path": entry.path, "hash": entry.hash, "size_bytes": entry.size_bytes}
                        for entry in artifact.files
                    ],
                }
                for artifact in self.run.artifacts
            ],
            "obstacles": self.obstacles,
            "lost": self.lost,
            "notes": self.notes,
            "differs_now": self.now.to_dict(),
        }


def restore(
    run: RunInfo,
    folder: Path,
    *,
    workspace: Path,
    repository: str | None = None,
    links: Sequence[str] = (),
) -> Restored:
    """Make a folder with the code, packages, command and variables of a run. Runs none of it.

    Args:
        run: The run.
        folder: Where to; made, or empty.
        workspace: Folder of the workspace that the run lies in.
        repository: A clone, or its address, to take the commit from; default: the recorded checkout, then its remote.
        links: Files and folders of the recorded checkout, relative to it, to link into the new one: data that git
            does not keep.

    Raises:
        NotFound: the run has no environment, or its commit is nowhere to be had.
        AlreadyExists: something is in the folder.
        InvalidValue: a link leads out of the checkout.
    """
    environment = run.environment
    if environment is None:
        raise NotFound(
            f"run {run.name!r} has no environment: it was started with environment=False, or ended before it was "
            "taken; nothing else says which code and packages it used"
        )
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} is there already; name a new folder with --output")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = Restored(run, workspace, folder, present=settings.process_environment())
        return _restore(made, environment, repository, links)
    except BaseException:
        for entry in list(folder.iterdir()):  # all of it was made here
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
        if is_new:
            folder.rmdir()
        raise


def _restore(made: Restored, environment: Mapping[str, Any], repository: str | None, links: Sequence[str]) -> Restored:
    home = made.present.get("HOME", "")
    root = with_home(text_of(environment, "git.root"), home)
    if field_of(environment, "git") is not None:
        code = made.folder / CODE
        code.mkdir()
        patch = recorded_patch(made.run)
        made.checkout = restore_code(environment, patch, code, home=home, repository=repository)
        made.lost += made.checkout.lost
        if patch is not None:
            (made.folder / "code.patch").write_bytes(patch)
        _link(made, root, links)
    else:
        reason = field_of(environment, "why") or {}
        why = str(reason.get("git") or "not recorded").removeprefix("absent: ")
        made.lost.append(f"the code: none was recorded ({why})")
        made.obstacles.append(f"its code was not recorded ({why})")
    now = take_snapshot()
    made.now = diff_environments(environment, now, is_same_program=False)
    _restore_command(made, environment, root, home)
    _restore_variables(made, variables_of(environment, now, home=home), root)
    _restore_trial(made)
    _write_requirements(made, environment)
    _import_from_the_copy(made, environment, root, home)
    made.lost += _lost_data(made)
    (made.folder / PLAN).write_text(json.dumps(made.to_dict(), indent=2, default=str) + "\n")
    script = made.folder / SCRIPT
    script.write_text(_as_script(made))
    script.chmod(0o755)
    (made.folder / README).write_text("\n".join(_readme(made)) + "\n")
    return made


def _link(made: Restored, root: str, links: Sequence[str]) -> None:
    code = made.folder / CODE
    for name in links:
        target = Path(root) / name
        if not is_safe_relative(name) or not root:
            raise InvalidValue(f"--link {name!r} must be relative to the checkout of the run, and inside it")
        if not target.exists():
            raise NotFound(f"--link {name!r}: there is no {target}")
        place = code / name
        if place.exists() or place.is_symlink():
            raise AlreadyExists(f"--link {name!r}: the commit has a file or folder of this name")
        if code.resolve() not in (place.parent.resolve(), *place.parent.resolve().parents):
            raise InvalidValue(f"--link {name!r} leads out of the checkout")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        made.notes.append(f"{name} is a link to {target}: it is as it is now")


# --- the command ----------------------------------------------------------------------------------------------------
def _restore_command(made: Restored, environment: Mapping[str, Any], root: str, home: str) -> None:
    code = made.folder / CODE
    then = with_home(text_of(environment, "process.cwd"), home)
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
            f"it ran as {world} processes, which a launcher started; start {SCRIPT} with the launcher you used"
        )
    kind = text_of(environment, "process.kind")
    command = command_of(environment, home)
    if kind in ("notebook", "ipython") or command is None:
        made.obstacles.append(f"there is no command to give again: it was started in {_started_in(kind)}")
        return
    for place in command.redacted:
        made.obstacles.append(f"word {place} of its command was redacted: put the value into {SCRIPT} and run that")
    target = command.target
    if command.is_script:
        script = _script(made, command, then, root, environment, home)
        if script is None:
            made.obstacles.append(f"its script {command.target[0]} is not in the checkout")
        else:
            target = (script,)
    arguments = [moved(word, root, code) if made.checkout is not None else word for word in command.arguments]
    made.notes += [
        f"the argument {old} names the old checkout: the commit has nothing of that name"
        for old, new in zip(command.arguments, arguments, strict=True)
        if old == new and made.checkout is not None and inside(old.rpartition("=")[2], root) is not None
    ]
    made.words = (*command.flags, *target, *arguments)


def _started_in(kind: str) -> str:
    known = {"notebook": "a notebook", "ipython": "IPython", "repl": "an interactive interpreter"}
    return known.get(kind, "a way that was not recorded")


def _script(
    made: Restored, command: Command, then: str, root: str, environment: Mapping[str, Any], home: str
) -> str | None:
    given = command.target[0]
    full = os.path.normpath(given if given.startswith("/") else f"{then}/{given}")
    relative = inside(full, root) if made.checkout is not None else None
    if relative is not None:
        found = made.folder / CODE / relative
        if not found.is_file():
            return None
        return os.path.relpath(found, made.working_folder) if not given.startswith("/") else str(found)
    # A program that was installed beside the interpreter, such as `lightning`.
    interpreter = with_home(text_of(environment, "python.executable"), home)
    if interpreter and Path(full).parent == Path(interpreter).parent:
        return shutil.which(Path(full).name, path=str(Path(sys.executable).parent))
    return None


def _restore_variables(made: Restored, variables: Variables, root: str) -> None:
    code = made.folder / CODE
    for name, value in variables.set.items():
        if made.checkout is not None and root:
            value = os.pathsep.join(moved(part, root, code) for part in value.split(os.pathsep))
        made.set[name] = value
    made.unset = variables.unset
    for name in variables.redacted:
        if name in made.present:
            made.notes.append(f"variable {name} was redacted; its value of now is used")
        else:
            made.lost.append(f"variable {name}: its value was redacted; set it before you run the command")
    if variables.left:
        made.notes.append(f"{', '.join(variables.left)}: of the machine, left as here")


def _restore_trial(made: Restored) -> None:
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


def _import_from_the_copy(made: Restored, environment: Mapping[str, Any], root: str, home: str) -> None:
    """Let packages that were installed in place from the old checkout come from the new one."""
    if made.checkout is None:
        return
    folders = []
    for url in requirements_of(environment)[1]:
        relative = inside(with_home(url.removeprefix("file://"), home), root)
        if relative is not None:
            place = made.folder / CODE / relative
            folders.append(str(place / "src" if (place / "src").is_dir() else place))
    if folders:
        kept = made.set.get("PYTHONPATH", "").split(os.pathsep)
        made.set["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, kept)])
        made.notes.append(
            "the project was installed in place; PYTHONPATH makes this copy of it the one that is imported"
        )


def _write_requirements(made: Restored, environment: Mapping[str, Any]) -> None:
    lines, _editable, lost = requirements_of(environment)
    made.lost += [f"package {one}" for one in lost]
    version = text_of(environment, "python.version") or "unknown"
    head = [f"# Packages of run {made.run.id}, Python {version}.", "# pip install --no-deps -r " + LOCK]
    lines = [line for line in lines if line.partition("==")[0] not in _INSTALLERS]
    (made.folder / LOCK).write_text("\n".join([*head, *lines]) + "\n")
    conda = texts_of(environment, "conda.explicit")
    if conda:
        addresses = [address for address in conda if address.isprintable()]
        (made.folder / "conda-explicit.txt").write_text("\n".join(["@EXPLICIT", *addresses]) + "\n")


def _lost_data(made: Restored) -> Iterator[str]:
    from runstone.blobs import Blobs  # only to look whether the content is there

    blobs = Blobs(made.workspace / "blobs")
    for artifact in made.run.artifacts:
        gone = 0
        for entry in artifact.files:
            try:
                blobs.path(entry.hash)
            except NotFound:
                gone += 1
        if gone:
            yield f"artifact {artifact.name!r}: {gone} of its files are no longer in the workspace"


# --- what is written ------------------------------------------------------------------------------------------------
def _as_script(made: Restored) -> str:
    where = os.path.relpath(made.working_folder, made.folder)
    lines = ["#!/bin/sh", "# Does the run again. PYTHON names another interpreter.", "set -eu"]
    lines.append(f'cd "$(dirname "$0")"/{shlex.quote(where)}')
    lines += [f"unset {name}" for name in made.unset]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in made.set.items()]
    lines.append(f"export RUNSTONE_WORKSPACE={shlex.quote(str(made.workspace))}")
    if made.words:
        lines.append(f'exec "${{PYTHON:-{_interpreter_name(made)}}}" {shlex.join(made.words)}')
    else:
        lines += ["echo 'the run was not started by a command' >&2", "exit 1"]
    return "\n".join(lines) + "\n"


def _interpreter_name(made: Restored) -> str:
    version = text_of(made.environment, "python.version").split(".")[:2]
    return f"python{'.'.join(version)}" if len(version) == 2 and all(map(str.isdigit, version)) else "python3"


def _readme(made: Restored) -> Iterator[str]:
    run, environment = made.run, made.environment
    yield f"# {_plain(run.name)}, to be done again"
    yield ""
    yield f"Run `{run.id}` of project {_plain(run.project)}, started {run.started_at:%Y-%m-%d %H:%M} UTC, {run.status}."
    yield ""
    yield f"- `{SCRIPT}` runs the command; `runstone reproduce {run.id} --run` runs it and compares."
    yield f"- `{LOCK}`: its packages. `{PLAN}`: all of this for programs."
    if made.checkout is not None:
        commit = text_of(environment, "git.commit")[:12] or "no commit"
        changes = f", with the changes of then in {len(made.checkout.applied)} files" if made.checkout.applied else ""
        yield f"- `{CODE}/`: commit {commit}, from {_plain(made.checkout.source)}{changes}."
    yield ""
    yield "```"
    yield f"cd {shlex.quote(str(made.working_folder))}"
    yield f"python {shlex.join(made.words)}" if made.words else "(no command)"
    yield "```"
    for title, lines in (
        ("It cannot simply be run", made.obstacles),
        ("Could not be restored", made.lost),
        ("Otherwise than then", made.notes),
        ("Seeds", [f"{name}: {value}" for name, value in seeds_of(environment, run.flat_params).items()]),
        ("Variables", [f"{name}={value}" for name, value in made.set.items()]),
        ("Artifacts, by the BLAKE3 hash of their content", _artifact_lines(run)),
    ):
        yield from _list(title, lines)
    differing = [group for group in made.now.groups if group.changes and group.name != "code"]
    if differing:
        yield from ("", "## What differs from this machine as it is now", "")
        yield from ("| | then | now |", "|---|---|---|")
        for group in differing:
            for change in group.changes:
                yield f"| {_cell(change.name)} | {_cell(change.left)} | {_cell(change.right)} |"


def _artifact_lines(run: RunInfo) -> Iterator[str]:
    for artifact in run.artifacts:
        for entry in artifact.files:
            name = f"{artifact.name}/{entry.path}" if artifact.is_folder else artifact.name
            yield f"{name}: {entry.hash}"


def _list(title: str, lines: Iterable[str]) -> Iterator[str]:
    shown = list(lines)
    if shown:
        yield from ("", f"## {title}", "", *(f"- {_plain(line)}" for line in shown))


def _plain(text: object) -> str:
    """Return text that is one line and no markup."""
    kept = "".join(c if c.isprintable() else "·" for c in str(text))
    return "".join(f"\\{c}" if c in "\\`*[]<>|" else c for c in kept)


def _cell(value: JSON) -> str:
    return "" if value is None else _plain(str(value)[:100])
