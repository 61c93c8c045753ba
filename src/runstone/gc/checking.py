"""Reading everything again: the content of the store against its hashes, the histories against their chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runstone.blobs import Blobs, open_blobs
from runstone.blobs import recipe as recipes
from runstone.blobs.source import CHUNK_BYTES, hash_of, hasher_for
from runstone.errors import FormatError
from runstone.gc.holders import find_holders
from runstone.ledger import Ledger, ledgers


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was written.

    Attributes:
        what: `damaged`, `missing` or `history`.
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
    """What was read, and what was found."""

    count: int = 0
    size_bytes: int = 0
    histories: int = 0
    problems: list[Problem] = field(default_factory=list)


def check(workspace: Path, *, histories: bool = True) -> Checked:
    """Read all content and all histories of a workspace again.

    Args:
        workspace: Its folder.
        histories: Whether the chains of events of datasets and models are checked too.
    """
    blobs = open_blobs(workspace)
    result = Checked()
    if histories:
        _check_histories(workspace, result)
    troubles: list[str] = []
    holders = find_holders(workspace, blobs, troubles)
    result.problems += [Problem("damaged", "", trouble) for trouble in troubles]
    users: defaultdict[str, list[str]] = defaultdict(list)
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for holder in holders:
        called = f"{holder.kind} {holder.name}" + (f" ({holder.id})" if holder.kind == "run" else "")
        for content in holder.hashes:
            asked[content].append(called)
    damaged = dict(_damaged_wholes(blobs, result))
    for content, names in asked.items():
        for name in (content, content + recipes.ENDING, *_parts(blobs, content)):
            users[name] += names
    damaged |= dict(_damaged_recipes(blobs, damaged))
    for name, reason in sorted(damaged.items()):
        told = tuple(sorted(set(users.get(name, []))))
        result.problems.append(Problem("damaged", str(blobs.object_path(name)), reason, told))
    result.problems += _missing(blobs, asked)
    return result


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


def _damaged_recipes(blobs: Blobs, damaged: Collection[str]) -> Iterator[tuple[str, str]]:
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
        yield from ((part, f"it is missing, and {name} needs it") for part in lacking)
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


def _missing(blobs: Blobs, asked: dict[str, list[str]]) -> Iterator[Problem]:
    for content, called in sorted(asked.items()):
        # Versions name other hashes too, such as those of events: a content was stored by a run, or is in a manifest.
        if not any(one.startswith("run ") for one in called) or blobs.object_path(content).exists():
            continue
        try:
            is_here = blobs.find_recipe(content) is not None
        except FormatError:
            is_here = True
        if not is_here and not _is_elsewhere(blobs, content):
            yield Problem("missing", content, "it is not in the store", tuple(sorted(set(called))))


def _is_elsewhere(blobs: Blobs, content: str) -> bool:
    if blobs.remote is None:
        return False
    name = f"{content[:2]}/{content}"
    return blobs.remote.size(name) is not None or blobs.remote.size(name + recipes.ENDING) is not None
