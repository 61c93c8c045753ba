"""What is not the same in all runs. What is missing is not equal to anything, `null` neither."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone.comparison.members import Member
from runstone.environments import patch_files
from runstone.params import flatten_params, is_equal
from runstone.query.table import plain
from runstone.values import JSON

SECTIONS = ("params", "tags", "environment", "code", "data")
# What of the environment snapshot says how a run came about: sections, and what in them changes with every process
# or only names one piece of hardware among its like.
_TELLING = "identity python os packages cpu memory cgroup gpu frameworks process container env blas".split()
_NOISE = frozenset(
    "pid ppid started_at available_bytes uptime_s boot_id path id uuid serial index unreadable flags connections "
    "visible bar1_bytes max_mhz vbios argv".split()
)
# Beyond this, what is uncommitted is told as a whole, and not file by file.
_MOST_PATCHES = 50
_SECTIONS_AT_HAND = 32


@dataclass(frozen=True, slots=True)
class Difference:
    """One name under which runs have different values.

    Attributes:
        name: Such as `model.lr`.
        values: By run id; a run without a value is not among them.
    """

    name: str
    values: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Differences:
    """Names of one kind: those that differ, in the order of first sight, and how many have one value in all runs."""

    rows: tuple[Difference, ...]
    equal: int


def cell(row: Difference, run_id: str) -> str:
    """Return what a run has under a name as text: nothing where it is missing, `null` where it is null."""
    if run_id not in row.values:
        return ""
    return "null" if row.values[run_id] is None else plain(row.values[run_id])


def differences(values: Mapping[str, Mapping[str, JSON]]) -> Differences:
    """Return what differs.

    Args:
        values: By run id, values by name.
    """
    found, equal = [], 0
    for name in dict.fromkeys(name for named in values.values() for name in named):
        of_run = {run_id: named[name] for run_id, named in values.items() if name in named}
        if len(of_run) == len(values) and _is_one(list(of_run.values())):
            equal += 1
        else:
            found.append(Difference(name, of_run))
    return Differences(tuple(found), equal)


def _is_one(values: Sequence[JSON]) -> bool:
    first = values[0]
    if isinstance(first, (str, int)) and not isinstance(first, bool):  # a quick look at what is most frequent
        kind = type(first)
        if all(type(value) is kind and value == first for value in values):
            return True
    return all(is_equal(first, value) for value in values)


def snapshot_differences(members: Sequence[Member]) -> tuple[Differences, Differences]:
    """Return what differs of the environments, and of the code: commit, branch, command, what was not committed.

    What was not committed is told file by file where few runs have such changes.
    """
    sections: list[dict[str, Mapping[str, JSON]]] = [{} for _ in _TELLING]
    opened: list[list[tuple[Any, dict[str, JSON]]]] = [[] for _ in _TELLING]
    code: dict[str, Mapping[str, JSON]] = {}
    patched = 0
    for member in members:
        environment = member.read_environment()  # one at a time: a thousand are a hundred megabytes
        for place, section in enumerate(_TELLING):
            value = environment.get(section)
            # Runs of one place have the same packages: they are opened once.
            flat = next((flat for other, flat in opened[place] if other == value), None)
            if flat is None:
                flat = _flat(section, value)
                opened[place] = [(value, flat), *opened[place][: _SECTIONS_AT_HAND - 1]]
            sections[place][member.id] = flat
        patched += bool(_part(environment, "git").get("is_dirty"))
        code[member.id] = _code(member, environment, file_by_file=patched <= _MOST_PATCHES)
    rows: list[Difference] = []
    equal = 0
    for of_run in sections:
        if len({id(flat) for flat in of_run.values()}) == 1:
            equal += len(next(iter(of_run.values())))
            continue
        found = differences(of_run)
        rows += found.rows
        equal += found.equal
    return Differences(tuple(rows), equal), differences(code)


def _flat(section: str, value: Any) -> dict[str, JSON]:
    if section == "packages":
        installed = value.get("installed") if isinstance(value, dict) else None
        entries = [entry for entry in installed or () if isinstance(entry, dict)]
        value = {str(entry.get("name")): entry.get("version") for entry in entries}
    return {
        name: inner
        for name, inner in flatten_params({section: value}).items()
        if inner not in (None, [], {}) and _NOISE.isdisjoint(name.split("."))
    }


def _code(member: Member, environment: Mapping[str, Any], *, file_by_file: bool) -> dict[str, JSON]:
    git = _part(environment, "git")
    found: dict[str, JSON] = {name: git.get(name) for name in ("commit", "branch", "remote", "root")}
    argv = _part(environment, "process").get("argv")
    if isinstance(argv, list):
        found["command"] = shlex.join(map(str, argv))
    if git.get("is_dirty") is not None:
        found["uncommitted"] = "nothing"
    if git.get("is_dirty"):
        patch = member.read_patch(environment)
        count = len(git.get("changed") or ()) + len(git.get("untracked") or ())
        found["uncommitted"] = f"{count} {'file' if count == 1 else 'files'} ({_digest(patch)})"
        if file_by_file:
            found |= {f"file {name}": _lines(part) for name, part in patch_files(patch).items()}
    return {name: value for name, value in found.items() if value is not None}


def _part(environment: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    found = environment.get(section)
    return found if isinstance(found, Mapping) else {}


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()


def _lines(part: bytes) -> str:
    if b"\nBinary files " in part or b"\nGIT binary patch" in part:
        return f"binary ({_digest(part)})"
    body = part.partition(b"\n@@ ")[2].split(b"\n")[1:]
    added, removed = (sum(line[:1] == sign for line in body) for sign in (b"+", b"-"))
    return f"+{added} −{removed} ({_digest(part)})"


def data_differences(members: Sequence[Member]) -> Differences:
    """Return which versions of data, models and artifacts differ; where no version is known, a part of the hash."""
    return differences({member.id: _inputs(member) for member in members})


def _inputs(member: Member) -> dict[str, JSON]:
    found: dict[str, list[str]] = {}
    for link in member.inputs:
        role = f" ({link.role})" if link.role else ""
        text = link.version or (link.hash[:12] if link.hash else "unknown")
        found.setdefault(f"{link.kind}:{link.name}{role}", []).append(text)
    return {name: _one(sorted(set(texts))) for name, texts in found.items()}


def _one(texts: list[str]) -> JSON:
    return texts[0] if len(texts) == 1 else list(texts)


def patch_difference(left: Member, right: Member) -> Iterable[str]:
    """Yield, file by file, how the uncommitted changes of one run differ from those of another, as lines of a diff."""
    import difflib  # only where asked for

    one, other = (patch_files(member.read_patch(member.read_environment())) for member in (left, right))
    for name in sorted(one.keys() | other.keys()):
        before, after = (found.get(name, b"").decode("utf-8", "replace").splitlines() for found in (one, other))
        if before != after:
            titles = f"{name} ({left.name})", f"{name} ({right.name})"
            yield from difflib.unified_diff(before, after, *titles, lineterm="")
