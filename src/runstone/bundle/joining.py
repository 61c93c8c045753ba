"""One run in two places: whether one is only further than the other, and taking over what is longer.

Each file of a run has one writer, so two copies of a run are compared writer by writer: what one writer said, and what
it logged, must be the beginning of what it said and logged in the other copy. Points are compared as such, since one
copy may be sealed.
"""

from __future__ import annotations

import filecmp
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runstone.runlog import format as fmt
from runstone.runlog.portions import Portion
from runstone.runlog.reader import journal_files
from runstone.runlog.seal import alone
from runstone.runlog.sealed import sync_folder
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import SEALED
from runstone.runlog.zoom import LEVELS

_WRITER = re.compile(r"(?:^|\.)([0-9a-f]{32})(?=[-.])")
_OF_METRICS = (".wal", ".keys", ".blob")
# What changes while a writer lives, or says where it stands: it follows the journal of its writer.
_OF_THE_MOMENT = (".status",)


@dataclass(slots=True)
class Relation:
    """How an offered copy of a run stands to the one that is here.

    Attributes:
        conflict: Why both cannot be of one run; empty where they can.
        ahead: Writers of which the offered copy has more.
        behind: Writers of which it has less.
        files: Names of files to take, in the order in which they are to be taken.
        outdated: Names of files to remove afterwards.
    """

    conflict: str = ""
    ahead: set[str] = field(default_factory=set)
    behind: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)


def relate(here: Path, offered: Path) -> Relation:
    """Compare two copies of a run.

    Args:
        here: The folder of the one that is here.
        offered: That of the other.

    Raises:
        FormatError: one of them is damaged, or of a newer version.
    """
    found = Relation(_why_others(here, offered))
    if not found.conflict:
        _compare_journals(here, offered, found)
    ahead: set[str] = set()
    behind: set[str] = set()
    if not found.conflict:
        found.conflict = _compare_points(here, offered, ahead, behind)
    if found.conflict:
        return found
    metrics = _plan_metrics(here, offered, ahead, behind, found)
    if found.conflict:
        return found
    found.ahead |= ahead
    found.behind |= behind
    journals = [path.name for path in journal_files(offered) if _writer(path.name) in found.ahead]
    others = _plan_others(here, offered, found)
    found.files = [*metrics, *others, *(name for name in journals if _differs(here / name, offered / name))]
    return found


def take_over(here: Path, offered: Path, relation: Relation) -> bool:
    """Take what is longer; return whether this process could: while another seals the run, nothing is done.

    A kill at any moment leaves a run that reads as some state between both; doing it again completes it.

    Raises:
        OSError: the disk is full.
    """
    with alone(here) as is_alone:
        if not is_alone:
            return False
        for name in relation.files:
            (offered / name).replace(here / name)
        for name in relation.outdated:
            (here / name).unlink(missing_ok=True)
        sync_folder(here)
    return True


def _why_others(here: Path, offered: Path) -> str:
    """Return why two folders hold different runs, or one that went on in two ways; else nothing."""
    (made_here, wrote_here), (made_there, wrote_there) = _beginnings(here), _beginnings(offered)
    if made_here and made_there and made_here.isdisjoint(made_there):
        return "another run has this id here"
    if wrote_here - wrote_there and wrote_there - wrote_here:
        return "it went on here and there, each without the other"
    return ""


def _beginnings(folder: Path) -> tuple[set[str], set[str]]:
    """Return the writers that created a run, and those that were more than its editors."""
    made: set[str] = set()
    wrote: set[str] = set()
    for path in journal_files(folder):
        for event in fmt.decode_events(_lines(path)):
            if event["event"] == "created":
                made.add(path.name)
            elif event["event"] == "writer" and event.get("role") != "edit":
                wrote.add(path.name)
    return made, wrote


def _compare_journals(here: Path, offered: Path, found: Relation) -> None:
    names = {path.name for path in (*journal_files(here), *journal_files(offered))}
    for name in sorted(names):
        ours, theirs = _lines(here / name), _lines(offered / name)
        if theirs == ours:
            continue
        if theirs.startswith(ours):
            found.ahead.add(_writer(name))
        elif ours.startswith(theirs):
            found.behind.add(_writer(name))
        else:
            found.conflict = f"{name} says something else here"
            return


def _lines(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


def _compare_points(here: Path, offered: Path, ahead: set[str], behind: set[str]) -> str:
    """Fill in whose points go on in which copy; return why they cannot be of one run, else nothing."""
    ours, theirs = MetricLog(here), MetricLog(offered)
    for name in sorted({*ours.names, *theirs.names}):
        parts = _by_writer(ours.portions(name)), _by_writer(theirs.portions(name))
        for key in {*parts[0], *parts[1]}:
            mine, other = parts[0].get(key), parts[1].get(key)
            counts = len(mine or ()), len(other or ())
            if mine is not None and other is not None and not _is_same(mine, other, min(counts)):
                return f"the points of {name!r:.80} are others here"
            if counts[0] != counts[1]:
                (ahead if counts[1] > counts[0] else behind).add(key[0])
    both = ahead & behind
    return f"each copy has points of the writer {min(both)[:8]}… that the other lacks" if both else ""


def _by_writer(portions: list[Portion]) -> dict[tuple[str, int], Portion]:
    """Return portions by writer and family; those of several types of one family come as one."""
    found: dict[tuple[str, int], Portion] = {}
    for portion in portions:
        if len(portion):
            key = portion.writer, portion.family
            if key in found:
                before = found[key]
                values = np.concatenate([before.values().astype(np.float64), portion.values().astype(np.float64)])
                steps = np.concatenate([before.step, portion.step])
                walls = np.concatenate([before.wall_s, portion.wall_s])
                found[key] = Portion(portion.writer, fmt.TYPE_FLOAT, steps, walls, values.view(np.int64))
            else:
                found[key] = portion
    return found


def _is_same(mine: Portion, other: Portion, count: int) -> bool:
    """Compare the first points of two portions; wall times are not, since sealing rounds them."""
    if not np.array_equal(mine.step[:count], other.step[:count]):
        return False
    left, right = mine.values()[:count], other.values()[:count]
    if left.dtype == object or right.dtype == object:
        return bool(left.dtype == right.dtype and (left == right).all())
    if left.dtype == right.dtype and left.dtype != np.float64:
        return np.array_equal(left, right)
    return np.array_equal(left.astype(np.float64), right.astype(np.float64), equal_nan=True)


def _plan_metrics(here: Path, offered: Path, ahead: set[str], behind: set[str], found: Relation) -> list[str]:
    """Return the files of metrics to take, in an order in which every state between can be read."""
    if not ahead:
        return []
    ours, theirs = _names(here), _names(offered)
    is_sealed = SEALED in ours or SEALED in theirs
    if not is_sealed:
        return _in_order(name for name in theirs if _writer(name) in ahead and name.endswith(_OF_METRICS))
    if behind:
        found.conflict = "each copy has points that the other lacks, and one of them is sealed"
        return []
    # The offered copy has everything: it takes the place of what is here, the sealed file last, since what that names
    # is read from it alone.
    files = _in_order(name for name in theirs if name.endswith(_OF_METRICS))
    files += [name for name in (SEALED, LEVELS) if name in theirs]
    outdated = [name for name in (SEALED, LEVELS) if name in ours and name not in theirs]
    outdated += sorted(name for name in ours - theirs if name.endswith(_OF_METRICS))
    found.outdated = outdated
    return files


def _in_order(names: object) -> list[str]:
    """Return names and texts before the points that need them."""
    return sorted(names, key=lambda name: (name.endswith(".wal"), name))  # type: ignore[call-overload, no-any-return]


def _plan_others(here: Path, offered: Path, found: Relation) -> list[str]:
    """Return which of the files beside journals and metrics to take."""
    files = []
    ours = _names(here)
    for name in sorted(_names(offered)):
        if name.endswith((*_OF_METRICS, ".jsonl")) or name in (SEALED, LEVELS):
            continue
        writer = _writer(name)
        if name not in ours or (writer in found.ahead and _differs(here / name, offered / name)):
            files.append(name)
        elif name.startswith("environment."):  # a second look may come after the end, and adds to it
            if (offered / name).stat().st_size > (here / name).stat().st_size:
                files.append(name)
        elif not name.endswith(_OF_THE_MOMENT) and writer not in found.behind and _differs(here / name, offered / name):
            if found.ahead:  # what no writer's name stands in follows the rest
                files.append(name)
            elif not found.behind:
                found.conflict = f"{name} is another here"
    return files


def _differs(one: Path, other: Path) -> bool:
    return not one.exists() or not filecmp.cmp(one, other, shallow=False)


def _writer(name: str) -> str:
    match = _WRITER.search(name)
    return match[1] if match else ""


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))  # noqa: PTH208 (names are all that is needed)
