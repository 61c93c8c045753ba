"""Runs of another tool become runs here: made whole or not at all; what a store has more later is added."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from runstone.console import console_lines
from runstone.console.store import ConsoleStore
from runstone.errors import InvalidName, InvalidValue, NotFound, RunstoneError
from runstone.importers.items import FoundArtifact, FoundMedium, FoundRun, Linked, NotCarried, Points, Printed
from runstone.media import MediaLimits, NoRoom, Shelf
from runstone.names import MAX_NAME_LENGTH, check_name, folder_name
from runstone.params import flatten_params, merge_params, to_json
from runstone.runinfo import RunInfo
from runstone.runlog import reader as journal_reader
from runstone.runlog.scalars import INT64, MAX_TEXT_BYTES, encode_text
from runstone.runlog.writer import RunLog
from runstone.tensorboard.marks import content_key, histogram_key
from runstone.values import FileEntry, Status
from runstone.workspace import Workspace

Outcome = Literal["new", "grown", "unchanged", "deleted"]
SOURCE_TAG = "imported_from"
_READING = 1
"""Counted up when readers learn to carry more: runs that are there are read again then."""
_LAST_TIME = 253_402_300_800.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class Counts:
    """How many there are of what a run is made of; `files` are those of artifacts, `lines` those of the console."""

    params: int = 0
    tags: int = 0
    points: int = 0
    media: int = 0
    files: int = 0
    lines: int = 0
    links: int = 0

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(slots=True)
class ImportedRun:
    """What came of one run.

    Attributes:
        source: Where it was found.
        outcome: `new`: a run was made. `grown`: something was added to the run that was made of it before.
            `unchanged`: there was nothing to add. `deleted`: its run was deleted here; nothing was done.
        found: What the store has of it and a run can hold.
        added: What was written now.
        held: What the run has now of what the store has, read back from its files.
        not_carried: How many of each kind have no place in a run, or could not be read.
    """

    source: str
    name: str = ""
    project: str = ""
    run_id: str = ""
    outcome: Outcome = "new"
    found: Counts = field(default_factory=Counts)
    added: Counts = field(default_factory=Counts)
    held: Counts = field(default_factory=Counts)
    not_carried: dict[str, int] = field(default_factory=dict)


def run_id_of(tool: str, key: str) -> str:
    """Return the id of the run that stands for one of another tool: a UUID of version 8 (RFC 9562), always the same."""
    digest = hashlib.blake2b(f"{tool}\0{key}".encode("utf-8", "backslashreplace"), digest_size=16).digest()
    value = int.from_bytes(digest)
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def import_run(workspace: Workspace, scratch: Path, tool: str, found: FoundRun, *, project: str) -> ImportedRun:
    """Make a run of what was found, or add to its run what that lacks.

    Args:
        workspace: Where the run goes.
        scratch: Where it is made.
        tool: Which tool it is of.
        found: The run.
        project: Its project, where it is new.

    Raises:
        OSError: the disk refuses. The run is there whole or not at all.
        RunstoneError: what was written is not what is in the run.
    """
    result = ImportedRun(found.source, run_id=run_id_of(tool, found.key), project=_name(project, "imported"))
    result.name = _name(found.name, result.run_id)
    standing = workspace.find_run_folder(result.run_id)
    if standing is None:
        _make(workspace, scratch, tool, found, result)
    else:
        _grow(workspace, standing, tool, found, result)
    result.not_carried = {kind: count for kind, count in sorted(found.not_carried.items()) if count}
    return result


def preview_run(workspace: Workspace, tool: str, found: FoundRun, *, project: str) -> ImportedRun:
    """Return what `import_run` would find, and write nothing; `added` and `held` stay empty."""
    result = ImportedRun(found.source, run_id=run_id_of(tool, found.key), project=_name(project, "imported"))
    result.name = _name(found.name, result.run_id)
    standing = workspace.find_run_folder(result.run_id)
    if standing is not None:
        info = RunInfo(standing)
        result.project, result.name = info.project, info.name
        result.outcome = "deleted" if info.is_deleted and not found.is_deleted else "grown"
        told = _Told.read(standing)
        if _is_as_told(found, told):
            result.outcome, result.found = "unchanged", told.counts
            result.not_carried = told.not_carried
            return result
    content = _content(found)
    result.found.params, result.found.tags = content.param_count, len(content.tags)
    for item in _gathered(found):
        match item:
            case Points():
                result.found.points += len(item.steps)
            case FoundMedium():
                result.found.media += 1
            case FoundArtifact():
                result.found.files += len(item.files)
            case Printed():
                result.found.lines += item.data.count(b"\n")
            case Linked():
                result.found.links += 1
    result.not_carried = {kind: count for kind, count in sorted(found.not_carried.items()) if count}
    return result


# --- what a run is made of, besides its items -------------------------------------------------------------------------


@dataclass(slots=True)
class _Content:
    params: dict[str, Any]
    tags: dict[str, str]

    @property
    def param_count(self) -> int:
        return len(flatten_params(self.params))


def _content(found: FoundRun) -> _Content:
    params = to_json(found.params)[0]
    tags = {}
    for name, text in found.tags.items():
        try:
            tags[check_name(name, "tag")] = str(text)
        except InvalidName:
            found.not_carried["tag without a legal name"] += 1
    return _Content(params if isinstance(params, dict) else {}, tags)


def _gathered(found: FoundRun) -> Iterator[Any]:
    """Yield the items; a store that turns out to be damaged ends them, counted."""
    try:
        yield from found.items()
    except (RunstoneError, OSError) as error:
        found.not_carried[f"rest of a damaged store ({type(error).__name__})"] += 1


@dataclass(slots=True)
class _Told:
    """What the last `imported` event of a run says."""

    marks: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    not_carried: dict[str, int] = field(default_factory=dict)
    reading: int = 0

    @classmethod
    def read(cls, run_path: Path) -> _Told:
        told = cls()
        for _writer, event in journal_reader.read_events(run_path):
            if event.get("event") != "imported":
                continue
            with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):  # damage
                told = cls(
                    {str(name): int(size) for name, size in event["files"].items()},
                    Counts(**{one.name: int(event["counts"].get(one.name, 0)) for one in fields(Counts)}),
                    {str(kind): int(count) for kind, count in event["not_carried"].items()},
                    int(event.get("reading", 0)),
                )
        return told


def _is_as_told(found: FoundRun, told: _Told) -> bool:
    return bool(found.marks) and told.reading == _READING and told.marks == found.marks


def _tell(log: RunLog, tool: str, found: FoundRun, result: ImportedRun) -> None:
    log.write(
        "imported",
        kind=tool,
        source=found.source,
        files=found.marks,
        points=result.found.points,
        media=result.found.media,
        counts=asdict(result.found),
        not_carried={kind: count for kind, count in sorted(found.not_carried.items()) if count},
        losses={},
        reading=_READING,
    )


class _Clock:
    """The clock of a run's log while old events are written: it stands where the event stood."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def set(self, at: float) -> None:
        """Stand at a time, if it is one."""
        if math.isfinite(at) and 0.0 <= at < _LAST_TIME:
            self.now_s = float(at)


# --- making and adding ------------------------------------------------------------------------------------------------


def _make(workspace: Workspace, scratch: Path, tool: str, found: FoundRun, result: ImportedRun) -> None:
    content = _content(found)
    clock = _Clock(time.time())
    clock.set(found.started_s if found.started_s is not None else clock.now_s)
    created = {
        "run_id": result.run_id,
        "project": result.project,
        "name": result.name,
        "group": _name(found.group, None) if found.group else None,
        "notes": found.notes,
        "parent": run_id_of(tool, found.parent) if found.parent else None,
    }
    partial = scratch / f"{result.run_id}.partial"
    partial.mkdir()
    try:
        is_ended = found.status not in (Status.CRASHED, Status.RUNNING)
        # Of a run that did not say how it ended, a later import may learn it: a launcher may still say so.
        log = RunLog(partial, clock=clock, created=created, role="main" if is_ended else "launcher")
        status_file = partial / f"{log.writer.hex()}.status"
        try:
            log.write("tags", set={SOURCE_TAG: tool, **content.tags}, remove=[])
            if content.params:
                log.write("params", params=content.params)
            _write_beside(partial, log.writer.hex(), tool, found)
            result.found.params, result.found.tags = content.param_count, len(content.tags)
            result.added.params, result.added.tags = content.param_count, len(content.tags)
            _Writing(workspace, log, clock, partial, found, result).write()
            if found.ended_s is not None:
                clock.set(max(found.ended_s, found.started_s or 0.0))
            _tell(log, tool, found, result)
            left = ", ".join(f"{count} x {kind}" for kind, count in sorted(found.not_carried.items()) if count)
            if left:
                log.write("warning", kind="import", message=f"not carried over from {tool}: {left}")
            if is_ended:
                log.write("end", status=str(found.status), failure=_failure(found), dropped=log.points.dropped)
            if found.is_deleted:
                log.write("deleted")
        finally:
            log.close(str(found.status) if is_ended else "")
        if not is_ended:  # its heartbeat is of now, and the run's last sign of life is not
            status_file.unlink(missing_ok=True)
        made = RunInfo(partial)
        result.held = _held(made, content)
        _check(result, result.held, result.added)
        target = workspace.path / "runs" / folder_name(result.project) / result.run_id
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _grow(workspace: Workspace, run_path: Path, tool: str, found: FoundRun, result: ImportedRun) -> None:
    info = RunInfo(run_path)
    told = _Told.read(run_path)
    result.project, result.name = info.project, info.name
    if info.is_deleted and not found.is_deleted:
        result.outcome = "deleted"
        return
    content = _content(found)
    if _is_as_told(found, told):
        result.outcome, result.found, result.held = "unchanged", told.counts, _held(info, content)
        found.not_carried.clear()
        found.not_carried.update(told.not_carried)
        return
    before = _held(info, content)
    clock = _Clock(time.time())
    # A helper of the attempt that there is: its points stand beside the others, and how it ends is not how the run did.
    log = RunLog(run_path, role="child", attempt=1, clock=clock)
    is_ended_now = not info.status.is_ended or info.status is Status.CRASHED
    try:
        result.found.params, result.found.tags = content.param_count, len(content.tags)
        params = _missing(content.params, info.params)
        if params:
            log.write("params", params=params)
            result.added.params = len(flatten_params(params))
        tags = {name: text for name, text in content.tags.items() if name not in info.tags}
        if tags:
            log.write("tags", set=tags, remove=[])
            result.added.tags = len(tags)
        _Writing(workspace, log, clock, run_path, found, result, info=info, lines_told=told.counts.lines).write()
        clock.now_s = time.time()
        _tell(log, tool, found, result)
    finally:
        log.close()
    tells_end = found.status not in (Status.CRASHED, Status.RUNNING)
    says_end = is_ended_now and tells_end
    is_later = bool(found.ended_s and info.ended_at and found.ended_s > info.ended_at.timestamp() + 1e-3)
    if says_end or (tells_end and is_later):
        _end(run_path, found, is_new=says_end)
    result.outcome = "grown" if says_end or any(asdict(result.added).values()) else "unchanged"
    result.held = _held(RunInfo(run_path), content)
    _check(result, result.held, before, result.added)


def _end(run_path: Path, found: FoundRun, *, is_new: bool) -> None:
    """Say how a run ended that did not say so, or that it took longer than was known."""
    at = found.ended_s or time.time()
    ended = RunLog(run_path, role="launcher" if is_new else "main", attempt=1, clock=lambda: at)
    try:
        ended.write("end", status=str(found.status), failure=_failure(found), dropped=0)
    finally:
        ended.close(str(found.status))


def _failure(found: FoundRun) -> dict[str, str] | None:
    if found.failure is None:
        return None
    return {
        "type": found.failure.type,
        "message": found.failure.message,
        "traceback": found.failure.traceback,
    }


def _check(result: ImportedRun, held: Counts, *expected: Counts) -> None:
    """Compare what a run holds with what was written into it.

    Raises:
        RunstoneError: less is there.
    """
    wanted = Counts()
    for one in expected:
        wanted.add(one)
    for kind in ("points", "media", "files"):
        if getattr(held, kind) < getattr(wanted, kind):
            raise RunstoneError(
                f"{result.source}: {getattr(wanted, kind)} {kind} were written and {getattr(held, kind)} are in the "
                f"run {result.run_id}"
            )


def _held(info: RunInfo, content: _Content) -> Counts:
    """Return what a run has, read from its files; of params and tags those that the store has, too."""
    flat = info.flat_params
    return Counts(
        params=sum(name in flat for name in flatten_params(content.params)),
        tags=sum(name in info.tags for name in content.tags),
        points=sum(len(info.series(name, attempt="all")) for name in info.metrics),
        media=sum(len(info.records(name, attempt="all")) for name in info.record_names),
        files=sum(len(artifact.files) for artifact in info.artifacts),
        lines=sum(1 for _line in console_lines(info.path)),
        links=len(info.inputs) + len(info.outputs),
    )


def _missing(found: dict[str, Any], standing: dict[str, Any]) -> dict[str, Any]:
    """Return the params that are not there, or differ, nested as they are."""
    missing: dict[str, Any] = {}
    for name, value in found.items():
        there = standing.get(name)
        if isinstance(value, dict) and isinstance(there, dict):
            below = _missing(value, there)
            if below:
                merge_params(missing, {name: below})
        elif name not in standing or json.dumps(there) != json.dumps(value):
            missing[name] = value
    return missing


def _write_beside(run_path: Path, writer: str, tool: str, found: FoundRun) -> None:
    """Write the environment snapshot and the patch, as far as the tool took them; only their owner may read them."""
    if found.environment:
        snapshot = {
            "schema": 1,
            "runstone": None,
            "writer": writer,
            "captured_at": found.started_s,
            "taken_by": tool,
            "why": {"runstone": f"absent: {tool} took it"},
            **to_json(found.environment)[0],  # type: ignore[dict-item]
        }
        _write_private(run_path / f"environment.{writer}.json", json.dumps(snapshot, allow_nan=False).encode())
    if found.patch:
        _write_private(run_path / f"code.{writer}.patch", found.patch)


def _write_private(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _name(text: str | None, instead: str | None) -> Any:
    """Return a name that can be kept, as near to `text` as can be."""
    plain = encode_text(text or "").decode().replace("\0", "")[-MAX_NAME_LENGTH:]
    return plain if plain and not plain.isspace() else instead


class _Writing:
    """The items of one run, as they go into its log; those that stand there already are passed over.

    Args:
        info: The run as it is, where there is one.
        lines_told: How many lines an earlier import took.
    """

    def __init__(
        self,
        workspace: Workspace,
        log: RunLog,
        clock: _Clock,
        run_path: Path,
        found: FoundRun,
        result: ImportedRun,
        *,
        info: RunInfo | None = None,
        lines_told: int = 0,
    ) -> None:
        self._blobs = workspace.blobs
        self._log, self._clock, self._path = log, clock, run_path
        self._found, self._result, self._info = found, result, info
        self._limits = MediaLimits()
        self._shelf = Shelf(self._blobs, log.writer, self._limits)
        self._standing_points: dict[str, Counter[tuple[int, float]]] = {}
        self._standing_media = Counter(_standing_media(info)) if info is not None else Counter()
        self._media_seen: Counter[str] = Counter()
        self._console: ConsoleStore | None = None
        self._unfinished: dict[int, bytes] = {}
        self._lines_told = lines_told

    @property
    def _not_carried(self) -> NotCarried:
        return self._found.not_carried

    def write(self) -> None:
        """Write them all."""
        writers: dict[type, Callable[[Any], None]] = {
            Points: self._points,
            FoundMedium: self._medium,
            FoundArtifact: self._artifact,
            Printed: self._printed,
            Linked: self._linked,
        }
        try:
            for item in _gathered(self._found):
                writers[type(item)](item)
        finally:
            if self._console is not None:
                self._flush_lines()
                self._console.close()

    def _points(self, points: Points) -> None:
        try:
            name = check_name(points.name, "metric")
        except InvalidName:
            self._not_carried["point without a legal name"] += len(points.steps)
            return
        standing = self._standing(name)
        log_one = self._log.points.log_one
        for step, value, at in zip(points.steps, points.values, points.times, strict=True):
            if step not in INT64:
                self._not_carried["point with a step beyond 64 bits"] += 1
                continue
            try:
                key = (step, _comparable(value))
                if standing is not None and standing[key] > 0:
                    standing[key] -= 1
                else:
                    self._clock.set(at)
                    log_one(name, value, step)
                    self._result.added.points += 1
                self._result.found.points += 1
            except (InvalidValue, OverflowError):
                self._not_carried["point with a value beyond 64 bits"] += 1

    def _standing(self, name: str) -> Counter[tuple[int, float]] | None:
        """Return step and value of each point that is there, `None` where there is none."""
        if self._info is None or name not in self._info.metrics:
            return None
        if name not in self._standing_points:
            series = self._info.series(name, attempt="all")
            values = map(_comparable, series.value.tolist())
            self._standing_points[name] = Counter(zip(series.step.tolist(), values, strict=True))
        return self._standing_points[name]

    def _medium(self, found: FoundMedium) -> None:
        medium = found.medium
        try:
            name = check_name(found.name, medium.kind)
        except InvalidName:
            self._not_carried[f"{medium.kind} without a legal name"] += 1
            return
        if found.step not in INT64:
            self._not_carried[f"{medium.kind} with a step beyond 64 bits"] += 1
            return
        content = medium.content
        data = content if isinstance(content, bytes) else content.read_bytes() if content is not None else None
        key = content_key(data) if data is not None else histogram_key(medium.metadata)
        identity = (name, found.step, medium.kind, key)
        if self._standing_media[identity] > 0:
            self._standing_media[identity] -= 1
            self._result.found.media += 1
            return
        self._clock.set(found.wall_s)
        if medium.kind == "text" and data is not None and len(data) <= MAX_TEXT_BYTES:
            self._log.points.log_one(name, data.decode("utf-8", "backslashreplace"), found.step)
        else:
            self._media_seen[name] += 1
            try:
                if not self._shelf.has_room(name) or self._media_seen[name] > self._limits.count_per_name:
                    raise NoRoom(name)
                self._log.points.log_record(name, self._shelf.put(name, medium), found.step)
            except NoRoom:
                self._not_carried[f"{medium.kind} beyond the limits of a run"] += 1
                return
        self._result.found.media += 1
        self._result.added.media += 1

    def _artifact(self, found: FoundArtifact) -> None:
        try:
            name = check_name(found.name, "artifact")
        except InvalidName:
            self._not_carried["file of an artifact without a legal name"] += len(found.files)
            return
        entries = self.stored(found.files)
        if not entries:
            return
        self._result.found.files += len(entries)
        standing = {a.name: a for a in self._info.artifacts} if self._info is not None else {}
        if name in standing and {(e.path, e.hash) for e in standing[name].files} == {(e.path, e.hash) for e in entries}:
            return
        self._clock.set(found.at)
        self._log.write(
            "artifact",
            name=name,
            folder=found.is_folder,
            files=[{"path": entry.path, "hash": entry.hash, "size": entry.size_bytes} for entry in entries],
            metadata=to_json(found.metadata)[0],
        )
        self._result.added.files += len(entries)

    def stored(self, files: list[tuple[str, Any]]) -> list[FileEntry]:
        """Store files and return their entries; those that cannot be read are counted."""
        return store_files(self._blobs, files, self._not_carried)

    def _printed(self, printed: Printed) -> None:
        """Take whole lines; those that an earlier import took are passed over."""
        *lines, rest = (self._unfinished.pop(printed.stream, b"") + printed.data).split(b"\n")
        if rest:
            self._unfinished[printed.stream] = rest
        for line in lines:
            self._line(printed.stream, line, printed.at)

    def _flush_lines(self) -> None:
        for stream, rest in sorted(self._unfinished.items()):
            self._line(stream, rest, self._clock.now_s)
        self._unfinished = {}

    def _line(self, stream: int, line: bytes, at: float) -> None:
        self._result.found.lines += 1
        if self._console is None:
            self._console = ConsoleStore(self._path, self._log.writer.hex(), clock=self._clock)
        if self._result.found.lines <= self._lines_told:
            return
        self._clock.set(at)
        self._console.feed(stream, line + b"\n")
        self._result.added.lines += 1

    def _linked(self, linked: Linked) -> None:
        self._result.found.links += 1
        if self._info is not None:
            there = self._info.inputs if linked.direction == "input" else self._info.outputs
            if any((one.kind, one.name, one.version, one.role) == _link_key(linked) for one in there):
                return
        self._clock.set(linked.at)
        self._log.write(
            linked.direction,
            kind=linked.kind,
            name=linked.name,
            version=linked.version,
            hash=None,
            role=linked.role,
            source=linked.source,
        )
        self._result.added.links += 1


def store_files(blobs: Any, files: list[tuple[str, Any]], not_carried: NotCarried) -> list[FileEntry]:
    """Put files of a store among the contents and return their entries; those that cannot be read are counted."""
    entries = []
    for path, content in files:
        try:
            with content.opened() as opened:
                entries.append(blobs.put(opened, path))
        except (OSError, InvalidValue, NotFound) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            not_carried["file that cannot be read"] += 1
    return entries


def _link_key(linked: Linked) -> tuple[str | None, ...]:
    return linked.kind, linked.name, linked.version, linked.role


def _standing_media(info: RunInfo) -> Iterator[tuple[str, int, str, str]]:
    for name in info.record_names:
        for record in info.records(name, attempt="all"):
            if record.text is not None:
                key = content_key(encode_text(record.text))
            else:
                key = record.hash if record.hash is not None else histogram_key(record.metadata)
            yield name, record.step, record.kind, key


def _comparable(value: float) -> float:
    """Return a value that equals itself: NaN as what no metric has."""
    number = float(value)
    return number if number == number else -math.pi * 1e300
