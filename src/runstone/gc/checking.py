"""Reading everything again: content against its hashes, here and on request elsewhere; histories; files of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runstone.blobs import Blobs, open_blobs
from runstone.blobs import recipe as recipes
from runstone.blobs.remote import Remote
from runstone.blobs.source import CHUNK_BYTES, hash_of, hasher_for
from runstone.errors import FormatError, NotFound, RunNotFound
from runstone.gc.holders import find_holders, run_folders
from runstone.ledger import Ledger, ledgers
from runstone.runinfo import RunInfo
from runstone.runlog.reader import is_run


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was written.

    Attributes:
        what: `damaged`, `missing`, `history` or `run`.
        path: The file; a content hash where it is missing.
        reason: In words.
        holders: Who refers to it, such as `run amber-falcon-417 (0192…)`.
    """

    what: str
    path: str
    reason: str
    holders: tuple[str, ...] = ()


@dataclass(slots=True)
class Checked:
    """What was read, and what was found.

    Attributes:
        count, size_bytes: Files of content that were read here.
        histories, runs: Histories and runs that were read.
        store: The store elsewhere; empty where there is none.
        there_count, there_bytes: Files of content that were read there.
        unread_count: Files of content that lie only there, and were not read.
    """

    count: int = 0
    size_bytes: int = 0
    histories: int = 0
    runs: int = 0
    store: str = ""
    there_count: int = 0
    there_bytes: int = 0
    unread_count: int = 0
    problems: list[Problem] = field(default_factory=list)


def check(workspace: Path, *, histories: bool = True, remote: bool = False) -> Checked:
    """Read all content and all histories of a workspace again, and look for damage in the files of its runs.

    Args:
        workspace: Its folder.
        histories: Whether the chains of events of datasets and models, and the runs, are checked too.
        remote: Whether content that lies only in the store elsewhere is read there; nothing of it stays here.

    Raises:
        NotFound: `remote` is given, and there is no store elsewhere.
        OSError: the store elsewhere does not answer.
    """
    blobs = open_blobs(workspace)
    if remote and blobs.remote is None:
        raise NotFound("this workspace has no remote store; name one in RUNSTONE_BLOBS or in its settings.json")
    result = Checked(store=str(blobs.remote or ""))
    if histories:
        _check_histories(workspace, result)
        _check_runs(workspace, result)
    told = {f"{problem.path} {problem.reason}" for problem in result.problems}
    troubles: list[str] = []
    holders = find_holders(workspace, blobs, troubles)
    result.problems += [Problem("damaged", "", trouble) for trouble in troubles if trouble not in told]
    users: defaultdict[str, list[str]] = defaultdict(list)
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for holder in holders:
        called = f"{holder.kind} {holder.name}" + (f" ({holder.id})" if holder.kind == "run" else "")
        for content in holder.hashes:
            asked[content].append(called)
    there = _There(blobs, result, is_read=remote)
    damaged = dict(_damaged_wholes(blobs, result))
    for content, names in asked.items():
        for name in (content, content + recipes.ENDING, *_parts(blobs, content)):
            users[name] += names
    damaged |= dict(_damaged_recipes(blobs, damaged, there))
    for name, reason in sorted(damaged.items()):
        holding = tuple(sorted(set(users.get(name, []))))
        result.problems.append(Problem("damaged", str(blobs.object_path(name)), reason, holding))
    result.problems += _missing(blobs, asked, there)
    for name, reason in sorted(there.damaged.items()):
        holding = tuple(sorted(set(users.get(name, []))))
        result.problems.append(Problem("damaged", f"{blobs.remote}/{name[:2]}/{name}", reason, holding))
    return result


class _There:
    """Content that lies only in the store elsewhere.

    Args:
        blobs: The store here, which knows it.
        result: Takes what was read.
        is_read: Whether it is read, or only counted.
    """

    def __init__(self, blobs: Blobs, result: Checked, *, is_read: bool) -> None:
        self._remote = blobs.remote
        self._blobs = blobs
        self._result = result
        self._is_read = is_read
        self._sizes: dict[str, int | None] = {}
        self.damaged: dict[str, str] = {}

    def has(self, content: str) -> bool:
        """Return whether a content lies there, whole or in parts, and look at it."""
        if self._size(content) is not None:
            return True
        name = content + recipes.ENDING
        if self._remote is None or self._size(name, is_hashed=False) is None:
            return False
        if self._is_read and name not in self.damaged:
            self._read_recipe(self._remote, content)
        return True

    def _size(self, name: str, *, is_hashed: bool = True) -> int | None:
        """Return the size of what lies there under a name; the first time, read it."""
        if self._remote is None:
            return None
        if name not in self._sizes:
            size = self._sizes[name] = self._remote.size(f"{name[:2]}/{name}")
            if size is not None and not self._is_read:
                self._result.unread_count += 1
            elif size is not None and is_hashed:
                hasher = self._hash(self._remote, [name], size)
                if hasher != name:
                    self.damaged[name] = f"its bytes hash to {hasher[:16]}…"
        return self._sizes[name]

    def _hash(self, remote: Remote, names: list[str], size: int) -> str:
        hasher = hasher_for(size)
        for name in names:
            for data in remote.receive(f"{name[:2]}/{name}"):
                hasher.update(data)
                self._result.there_bytes += len(data)
            self._result.there_count += 1
        return str(hasher.hexdigest())

    def _read_recipe(self, remote: Remote, content: str) -> None:
        """Check that a recipe there can be read, and that its parts are whole and there."""
        name = content + recipes.ENDING
        place = f"{remote}/{name[:2]}/{name}"
        data = b"".join(remote.receive(f"{name[:2]}/{name}"))
        self._result.there_count, self._result.there_bytes = (
            self._result.there_count + 1,
            self._result.there_bytes + len(data),
        )
        try:
            recipe = recipes.unpack(data, place)
        except FormatError as error:
            self.damaged[name] = str(error)
            return
        lacking = [
            part for part in recipe.hashes if not self._blobs.object_path(part).exists() and self._size(part) is None
        ]
        if lacking:
            self.damaged[name] = f"it needs {lacking[0]}, which is nowhere"


def _check_runs(workspace: Path, result: Checked) -> None:
    for folder in run_folders(workspace):
        if not is_run(folder):
            continue
        try:
            info = RunInfo(folder)
            damages = info.damage
        except RunNotFound:  # it is just being made
            continue
        except (FormatError, OSError) as error:
            result.runs += 1
            result.problems.append(Problem("run", str(folder), str(error), (f"run {folder.name}",)))
            continue
        result.runs += 1
        called = (f"run {info.name} ({info.id})",)
        for damage in damages:
            result.problems.append(Problem("run", str(folder / damage.file), damage.reason, called))


def _check_histories(workspace: Path, result: Checked) -> None:
    for kind in ("datasets", "models"):
        for folder in ledgers(workspace / kind):
            result.histories += 1
            for damage in Ledger(folder).verify():
                result.problems.append(Problem("history", str(damage.path), damage.what))


def _damaged_wholes(blobs: Blobs, result: Checked) -> Iterator[tuple[str, str]]:
    for name, status in blobs.objects():
        result.count, result.size_bytes = result.count + 1, result.size_bytes + status.st_size
        if name.endswith(recipes.ENDING):
            continue
        try:
            with blobs.object_path(name).open("rb", buffering=0) as file:
                found = hash_of(file.fileno())
        except FileNotFoundError:  # collected meanwhile
            continue
        except OSError as error:
            yield name, f"it cannot be read: {error.strerror}"
            continue
        if found != name:
            yield name, f"its bytes hash to {found[:16]}…"


def _damaged_recipes(blobs: Blobs, damaged: Collection[str], there: _There) -> Iterator[tuple[str, str]]:
    """Yield recipes that do not make their content, and parts that are missing; parts that are damaged are told of."""
    for name in sorted(name for name, _status in blobs.objects() if name.endswith(recipes.ENDING)):
        content = name.removesuffix(recipes.ENDING)
        try:
            recipe = blobs.find_recipe(content)
        except (FormatError, OSError) as error:
            yield name, str(error)
            continue
        if recipe is None:
            continue
        lacking = [part for part in recipe.hashes if not blobs.object_path(part).exists()]
        gone = [part for part in lacking if not there.has(part)]  # the others were given back
        yield from ((part, f"it is missing, and {name} needs it") for part in gone)
        if lacking or not set(recipe.hashes).isdisjoint(damaged) or blobs.object_path(content).exists():
            continue
        hasher = hasher_for(recipe.size)
        try:
            with blobs.open(content) as file:
                while chunk := file.read(CHUNK_BYTES):
                    hasher.update(chunk)
        except (FormatError, OSError) as error:
            yield name, str(error)
            continue
        if hasher.hexdigest() != content:
            yield name, f"what it makes hashes to {hasher.hexdigest()[:16]}…"


def _parts(blobs: Blobs, content: str) -> list[str]:
    try:
        recipe = blobs.find_recipe(content)
    except FormatError:
        return []
    return recipe.hashes if recipe is not None else []


def _missing(blobs: Blobs, asked: dict[str, list[str]], there: _There) -> Iterator[Problem]:
    for content, called in sorted(asked.items()):
        if blobs.object_path(content).exists():
            continue
        try:
            is_here = blobs.find_recipe(content) is not None
        except FormatError:
            is_here = True
        # Versions name other hashes too, such as those of events: a content was stored by a run, or is in a manifest.
        if not is_here and not there.has(content) and any(one.startswith("run ") for one in called):
            yield Problem("missing", content, "it is not in the store", tuple(sorted(set(called))))
