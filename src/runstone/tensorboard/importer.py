"""Runs from TensorBoard event files: each folder that holds some becomes one run; importing again adds what is new.

A run is found again by what its event files are, not by where they lie: its id comes from the name of the folder and
the name and first record of its oldest event file. What was imported is told in the run's journal, by `imported`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runstone.errors import InvalidName, NotFound, RunstoneError
from runstone.importers.importing import only_import
from runstone.index.records import split_path
from runstone.names import check_name, folder_name
from runstone.params import merge_params
from runstone.runinfo import RunInfo
from runstone.runlog import reader as journal_reader
from runstone.runlog.writer import RunLog
from runstone.tensorboard.difference import is_new
from runstone.tensorboard.import_media import MediaWriter, found_media, standing_media
from runstone.tensorboard.mirror import NOTES_TAG, TAGS_PREFIX
from runstone.tensorboard.reader import OLD_TEXT, RunEvents, TagPoints, event_files, read_events
from runstone.tensorboard.records import Losses, open_records, records
from runstone.values import JSON, Status
from runstone.workspace import Workspace

Outcome = Literal["new", "grown", "unchanged", "empty", "copy", "deleted"]
_LONGEST_TAG = 250
_SOURCE_TAG = "imported_from"


@dataclass(slots=True)
class ImportedFolder:
    """What came of one folder of event files.

    Attributes:
        source: The folder.
        outcome: `new`: a run was made. `grown`: points were added to the run that was made of it before. `unchanged`:
            there was nothing to add. `empty`: nothing in it can be carried. `copy`: another folder, which is still
            there, holds the same first event file; nothing was done. `deleted`: its run was deleted here; likewise.
        run_id, project, name: Of the run; empty where there is none.
        original: The other folder, for `copy`.
        files: Event files in it.
        points_in: Points in the event files.
        points_added: Points written now.
        points_held: Points in the run afterwards, read back from its files.
        media_in, media_added, media_held: The same of media and texts; `media_in` without those that are unfit.
        params, tags: How many were found.
        not_carried: How many values of each kind have no place in a run.
        losses: What could not be read.
    """

    source: Path
    outcome: Outcome = "empty"
    run_id: str = ""
    project: str = ""
    name: str = ""
    original: str = ""
    files: int = 0
    points_in: int = 0
    points_added: int = 0
    points_held: int = 0
    media_in: int = 0
    media_added: int = 0
    media_held: int = 0
    params: int = 0
    tags: int = 0
    not_carried: dict[str, int] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)


@dataclass(slots=True)
class _Content:
    """What a run is made of, besides its points."""

    params: dict[str, JSON] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_folders(logdir: Path) -> Iterator[Path]:
    """Yield each folder that holds event files, `logdir` itself included, in alphabetical order; links are followed.

    Raises:
        NotFound: there is no such folder.
    """
    if not logdir.is_dir():
        raise NotFound(f"there is no folder {logdir}")
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(logdir, followlinks=True):
        stat = Path(place).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders.sort()
        if any("tfevents" in name for name in names):
            yield Path(place)


def import_logdir(workspace: Workspace, logdir: Path, *, project: str) -> Iterator[ImportedFolder]:
    """Make a run of each folder of event files below `logdir`, or add to it what is new; yield what came of each.

    Args:
        workspace: Where the runs go.
        logdir: The folder that TensorBoard is pointed at. A run is named by the path of its folder below it.
        project: Project of new runs. A run that is there already stays in its own.

    Raises:
        NotFound: there is no such folder.
        AlreadyExists: another import into this workspace is running.
        OSError: files cannot be read or written. A run is there whole or not at all.
    """
    check_name(project, "project")
    root = Path(os.path.abspath(logdir))  # noqa: PTH100 (links stay: their names are the user's)
    with only_import(workspace) as scratch:
        for folder in find_folders(root):
            yield _import_folder(workspace, scratch, folder, root, project)


def _import_folder(workspace: Workspace, scratch: Path, folder: Path, root: Path, project: str) -> ImportedFolder:
    names = event_files(folder)
    result = ImportedFolder(folder, files=len(names))
    identity = _identity(folder, names)
    if identity is None:
        result.losses = read_events(folder, names).losses
        return result
    first_s, digest = identity
    result.run_id = _run_id(first_s, digest)
    standing = workspace.find_run_folder(result.run_id)
    if standing is None:
        return _make_run(workspace, scratch, folder, root, project, names, result)
    info = RunInfo(standing)
    told = _told(standing)
    result.project, result.name = info.project, info.name
    others = [source for source in told.sources if source != str(folder)]
    if info.is_deleted:
        result.outcome = "deleted"
    elif others and str(folder) not in told.sources and _identity_at(others[-1]) == identity:
        result.outcome, result.original = "copy", others[-1]
    elif told.media is not None and all(told.files.get(name) == _size(folder / name) for name in names):
        result.outcome, result.points_in, result.points_held = "unchanged", told.points, _count(info)
        result.media_in, result.media_held = told.media, _count_media(info)
        result.not_carried, result.losses = told.not_carried, told.losses
    else:
        _grow(workspace, standing, info, folder, names, result)
    return result


# --- which run it is --------------------------------------------------------------------------------------------------


def _identity(folder: Path, names: list[str]) -> tuple[float, bytes] | None:
    """Return when a folder's event files begin, and what tells them from others; `None` where no record is whole."""
    from runstone.tensorboard.protos import Event

    for name in names:
        with open_records(folder / name) as data:
            _place, first = next(records(data, Losses()), (0, None))
        if first is not None:
            told = b"\0".join((os.fsencode(folder.name), os.fsencode(name), first))
            try:
                first_s = Event.FromString(first).wall_time
            except Exception:  # protobuf's own error class depends on its back end
                first_s = 0.0
            return first_s, hashlib.blake2b(told, digest_size=10).digest()
    return None


def _identity_at(source: str) -> tuple[float, bytes] | None:
    folder = Path(source)
    with contextlib.suppress(OSError):
        return _identity(folder, event_files(folder))
    return None


def _run_id(first_s: float, digest: bytes) -> str:
    """Return an id that sorts by time as others do: a UUID of version 8 (RFC 9562), 48 bits of it milliseconds."""
    milliseconds = int(first_s * 1000) if math.isfinite(first_s) and 0 < first_s < 2**37 else 0
    value = milliseconds << 80 | int.from_bytes(digest)
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


@dataclass(slots=True)
class _Told:
    """What the `imported` events of a run say together; `media` is `None` where they were written before media were."""

    sources: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    points: int = 0
    media: int | None = None
    not_carried: dict[str, int] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)


def _told(run_path: Path) -> _Told:
    told = _Told()
    for _writer, event in journal_reader.read_events(run_path):
        if event.get("event") != "imported":
            continue
        with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):  # damage
            told.sources.append(str(event["source"]))
            told.files.update({str(name): int(size) for name, size in event["files"].items()})
            told.points = int(event["points"])
            told.media = int(event["media"]) if "media" in event else None
            told.not_carried = {str(kind): int(count) for kind, count in event["not_carried"].items()}
            told.losses = Losses(*(int(event["losses"][name]) for name in Losses.__slots__))
    return told


def _size(path: Path) -> int:
    return path.stat().st_size


# --- making and adding ------------------------------------------------------------------------------------------------


class _EventClock:
    """The clock of a run's log while old events are written: it stands where the event stood."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def _make_run(
    workspace: Workspace,
    scratch: Path,
    folder: Path,
    root: Path,
    project: str,
    names: list[str],
    result: ImportedFolder,
) -> ImportedFolder:
    events = read_events(folder, names)
    content = _content(events)
    _note(result, events, content)
    if not (events.points or content.params or content.tags or content.notes or _has_media(folder, events)):
        result.run_id = ""
        return result
    relative = folder.relative_to(root)
    parts = [os.fsencode(part).decode("utf-8", "replace") for part in relative.parts]
    result.outcome, result.project = "new", project
    result.name = "/".join(parts) or os.fsencode(root.name).decode("utf-8", "replace") or "logdir"
    created = {
        "run_id": result.run_id,
        "project": project,
        "name": result.name[-1024:],
        "group": "/".join(parts[:-1])[-1024:] or None,
        "notes": "\n\n".join(content.notes) or None,
        "parent": None,
    }
    first_s, last_s = events.first_s or time.time(), events.last_s or time.time()
    clock = _EventClock(first_s)
    partial = scratch / f"{result.run_id}.partial"
    partial.mkdir()
    try:
        log = RunLog(partial, clock=clock, created=created)
        try:
            log.write("tags", set={_SOURCE_TAG: "tensorboard", **content.tags}, remove=[])
            if content.params:
                log.write("params", params=content.params)
            for tag, points in events.points.items():
                _write_points(log, clock, tag, points, range(len(points)))
            _write_media(workspace, log, clock, folder, events, result, Counter())
            clock.now_s = last_s
            _tell(log, folder, events, result)
            left = _left_out(result)
            if left:
                log.write("warning", kind="import", message=f"not carried over from TensorBoard: {left}")
            status = events.status or Status.FINISHED
            log.write("end", status=str(status), failure=None, dropped=log.points.dropped)
        finally:
            log.close(str(events.status or Status.FINISHED))
        result.points_added = events.point_count
        made = RunInfo(partial)
        result.points_held, result.media_held = _count(made), _count_media(made)
        _check(result)
        target = workspace.path / "runs" / folder_name(project) / result.run_id
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return result


def _grow(
    workspace: Workspace, run_path: Path, info: RunInfo, folder: Path, names: list[str], result: ImportedFolder
) -> None:
    """Add to a run what its event files hold more than it does."""
    events = read_events(folder, names)
    content = _content(events)
    _note(result, events, content)
    held, media_held = _count(info), Counter(standing_media(info))
    # A helper of the attempt that there is: its points stand beside the others, and how it ends is not how the run did.
    clock = _EventClock(time.time())
    log = RunLog(run_path, role="child", attempt=1, clock=clock)
    try:
        params = _missing(content.params, info.params)
        if params:
            log.write("params", params=params)
        tags = {name: text for name, text in content.tags.items() if name not in info.tags}
        if tags:
            log.write("tags", set=tags, remove=[])
        for tag, points in events.points.items():
            rows: Sequence[int] = range(len(points))
            if tag in info.metrics:
                series = info.series(tag, attempt="all")
                new = is_new(points.step, points.value, standing=(series.step, series.value))
                rows = new.nonzero()[0].tolist()
            _write_points(log, clock, tag, points, rows)
            result.points_added += len(rows)
        _write_media(workspace, log, clock, folder, events, result, media_held.copy())
        clock.now_s = time.time()
        _tell(log, folder, events, result)
    finally:
        log.close()
    result.outcome = "grown" if result.points_added or result.media_added or params or tags else "unchanged"
    last_s = events.last_s
    if last_s is not None and (info.ended_at is None or last_s > info.ended_at.timestamp()):
        ended = RunLog(run_path, attempt=1, clock=lambda: last_s)  # the same attempt, which took longer than was known
        try:
            ended.write("end", status=str(events.status or Status.FINISHED), failure=None, dropped=0)
        finally:
            ended.close(str(events.status or Status.FINISHED))
    grown = RunInfo(run_path)
    result.points_held, result.media_held = _count(grown), _count_media(grown)
    if result.points_held < held + result.points_added:
        raise RunstoneError(f"{run_path} holds {result.points_held} points after {result.points_added} were added")
    if result.media_held < media_held.total() + result.media_added:
        raise RunstoneError(f"{run_path} holds {result.media_held} media after {result.media_added} were added")


def _write_points(log: RunLog, clock: _EventClock, tag: str, points: TagPoints, rows: Sequence[int]) -> None:
    step, value, wall_s, typed = points.step, points.value, points.wall_s, points.typed
    log_one = log.points.log_one
    for row in rows:
        clock.now_s = wall_s[row]
        log_one(tag, typed[row] if row in typed else value[row], step[row])


def _write_media(
    workspace: Workspace,
    log: RunLog,
    clock: _EventClock,
    folder: Path,
    events: RunEvents,
    result: ImportedFolder,
    standing: Counter[tuple[str, int, str, str]],
) -> None:
    """Write the media and texts that do not stand in the run yet."""
    writer = MediaWriter(workspace.blobs, log.points, log.writer)
    seen: Counter[str] = Counter()
    for found in found_media(folder, events):
        seen[found.name] += found.medium.kind != "text"  # of which there may be as many as points
        identity = found.identity
        result.media_in += 1
        if standing[identity] > 0:
            standing[identity] -= 1
            continue
        clock.now_s = found.wall_s
        # counted over all that there are: a later import does not add what this one leaves out
        if seen[found.name] <= writer.limits.count_per_name and writer.write(found):
            result.media_added += 1
        else:
            events.not_carried[f"{found.medium.kind} beyond the limits of a run"] += 1
    result.not_carried = dict(sorted(events.not_carried.items()))


def _has_media(folder: Path, events: RunEvents) -> bool:
    """Return whether one medium is fit, without counting those that are not."""
    counted = events.not_carried.copy()
    try:
        return next(found_media(folder, events), None) is not None
    finally:
        events.not_carried = counted


def _tell(log: RunLog, folder: Path, events: RunEvents, result: ImportedFolder) -> None:
    """Note in the run what was taken from where: a later import asks for it."""
    losses = {name: getattr(events.losses, name) for name in Losses.__slots__}
    log.write(
        "imported",
        kind="tensorboard",
        source=os.fsencode(folder).decode("utf-8", "replace"),
        files={os.fsencode(name).decode("utf-8", "replace"): size for name, size in events.files.items()},
        points=result.points_in,
        media=result.media_in,
        not_carried=result.not_carried,
        losses=losses,
    )


def _check(result: ImportedFolder) -> None:
    if result.points_held != result.points_added:
        raise RunstoneError(
            f"{result.source}: {result.points_added} points were written and {result.points_held} are in the run; "
            "nothing of it was kept"
        )
    if result.media_held != result.media_added:
        raise RunstoneError(
            f"{result.source}: {result.media_added} media were written and {result.media_held} are in the run; "
            "nothing of it was kept"
        )


def _count(info: RunInfo) -> int:
    return sum(len(info.series(name, attempt="all")) for name in info.metrics)


def _count_media(info: RunInfo) -> int:
    return sum(len(info.records(name, attempt="all")) for name in info.record_names)


def _note(result: ImportedFolder, events: RunEvents, content: _Content) -> None:
    """Note what was found, names that cannot be kept left out."""
    for tag in list(events.points):
        try:
            check_name(tag, "metric")
        except InvalidName:
            events.not_carried["point without a legal name"] += len(events.points.pop(tag))
    result.points_in, result.losses = events.point_count, events.losses
    result.params, result.tags = len(content.params), len(content.tags)
    result.not_carried = dict(sorted(events.not_carried.items()))


def _left_out(result: ImportedFolder) -> str:
    losses = result.losses
    parts = [f"{count} x {kind}" for kind, count in result.not_carried.items()]
    if losses.damaged:
        parts.append(f"{losses.damaged} x damaged record")
    if losses.torn_bytes:
        parts.append(f"{losses.torn_bytes} bytes of torn records")
    return ", ".join(parts)


# --- params, tags, notes ----------------------------------------------------------------------------------------------


def _content(events: RunEvents) -> _Content:
    """Return what texts and hparams say of a run.

    All texts are kept by step besides; see `found_media`. One that is a JSON object (as Transformers writes its
    arguments) is params under its tag, the last one counting; a short one that is the only one of its tag is a tag.
    """
    content = _Content()
    for tag, texts in events.texts.items():
        text = texts[-1][2]
        if tag == NOTES_TAG:
            content.notes[:0] = [text] if text else []
            continue
        is_ours = tag.startswith(TAGS_PREFIX)
        name = tag.removeprefix(TAGS_PREFIX) if is_ours else tag.removesuffix(OLD_TEXT)
        try:
            check_name(name, "tag")
        except InvalidName:
            if is_ours:
                events.not_carried["text without a legal name"] += 1
            continue
        found = _json_object(text) if not is_ours else None
        if found is not None:
            merge_params(content.params, {name: found})
        elif is_ours:
            content.tags[name] = text
        elif len(texts) == 1 and len(text) <= _LONGEST_TAG and "\n" not in text.strip():
            content.tags[name] = text.strip()
    merge_params(content.params, _nested(events.hparams))
    return content


def _json_object(text: str) -> dict[str, JSON] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _nested(flat: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return params with dotted names nested, as Runstone addresses them, where no other stands in the way."""
    paths = {name: tuple(split_path(name)) for name in flat}
    taken = Counter(paths.values())
    nested: dict[str, JSON] = {}
    for name, value in flat.items():
        path = paths[name]
        is_blocked = not all(path) or taken[path] > 1 or any(path[:length] in taken for length in range(1, len(path)))
        merge_params(nested, _under((name,) if is_blocked else path, value))
    return nested


def _under(path: tuple[str, ...], value: JSON) -> dict[str, JSON]:
    for key in reversed(path):
        value = {key: value}
    return value if isinstance(value, dict) else {}


def _missing(found: Mapping[str, JSON], standing: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the params that are not there yet; those that are may have been corrected since."""
    missing: dict[str, JSON] = {}
    for key, value in found.items():
        below = standing.get(key)
        if key not in standing:
            missing[key] = value
        elif isinstance(value, dict) and isinstance(below, dict):
            inner = _missing(value, below)
            if inner:
                missing[key] = inner
    return missing
