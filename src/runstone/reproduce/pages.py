"""What is written into the folder of a restored run: the script, a page for people, and the plan for programs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator

from runstone.reproduce.plan import seeds_of, text_of
from runstone.reproduce.restored import CODE, LOCK, PLAN, README, SCRIPT, VENV, Restored
from runstone.runinfo import RunInfo
from runstone.values import JSON


def write_pages(made: Restored) -> None:
    """Write `reproduce.json`, `run.sh` and `README.md`; again, where something was done since."""
    (made.folder / PLAN).write_text(json.dumps(made.to_dict(), indent=2, default=str) + "\n")
    script = made.folder / SCRIPT
    script.write_text(_as_script(made))
    script.chmod(0o755)
    (made.folder / README).write_text("\n".join(_readme(made)) + "\n")


def _as_script(made: Restored) -> str:
    where = os.path.relpath(made.working_folder, made.folder)
    lines = [
        "#!/bin/sh",
        f"# Does the run again. PYTHON names another interpreter than that of {VENV}, or {_interpreter_name(made)}.",
        "set -eu",
        'here=$(cd "$(dirname "$0")" && pwd)',
        f'if [ -z "${{PYTHON:-}}" ] && [ -x "$here/{VENV}/bin/python" ]; then',
        f"    PYTHON=$here/{VENV}/bin/python",
        f"    export PATH=$here/{VENV}/bin:$PATH",
        "fi",
        f'python=$(command -v "${{PYTHON:-{_interpreter_name(made)}}}")',
        f'cd "$here"/{shlex.quote(where)}',
    ]
    lines += [f"unset {name}" for name in made.unset]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in made.set.items()]
    lines.append(f"export RUNSTONE_WORKSPACE={shlex.quote(str(made.workspace))}")
    if made.words:
        words = [shlex.quote(word) for word in made.words]
        if made.program is not None:
            words[made.program] = f'"${{python%/*}}"/{words[made.program]}'
        lines.append(f'exec "$python" {" ".join(words)}')
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
