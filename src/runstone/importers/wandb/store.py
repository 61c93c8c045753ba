"""Folders of offline runs of Weights & Biases: which files belong to which run, and what is in them."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.importers import media
from runstone.importers.items import (
    Content,
    FoundArtifact,
    FoundMedium,
    FoundRun,
    Item,
    Linked,
    Points,
    Printed,
    Reading,
)
from runstone.importers.places import Place, StoreFile, inner_path
from runstone.importers.values import UNREADABLE, as_number, flatten, is_number, parse_json
from runstone.importers.wandb.environment import environment_of
from runstone.importers.wandb.log import Kind, RunRecords, history_row, log_records, printed, stats_row
from runstone.importers.wandb.wire import HEADER, Damage, WireError
from runstone.media import Medium, long_text
from runstone.names import SYSTEM
from runstone.values import Status

_TEXT_BYTES = 16 << 20
# Of the folder `files`: what is read apart, or told by records.
_KNOWN_FILES = frozenset(
    {"output.log", "wandb-metadata.json", "wandb-summary.json", "config.yaml", "requirements.txt", "diff.patch"}
)
_OURS = ("_wandb", "_runtime", "_step", "_timestamp")


def is_store(path: Path) -> bool:
    """Return whether a path is a `.wandb` file, or a folder that holds some."""
    if path.is_file():
        with path.open("rb") as file:
            return file.read(len(HEADER)) == HEADER
    return path.is_dir() and next(_log_files(path), None) is not None


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield the runs of a `.wandb` file, a run's folder, a `wandb` folder, or anything above; a resumed run is one.

    Raises:
        FormatError: there is no such file.
        OSError: a file cannot be read.
    """
    path = reading.path
    root = path.parent if path.is_file() else path
    place = Place(root, *reading.also_from)
    files = [path] if path.is_file() else list(_log_files(path))
    if not files:
        raise FormatError(f"there is no .wandb file in {path}")
    by_run: dict[tuple[str, str, str], list[_LogFile]] = defaultdict(list)
    for file in files:
        if place.trouble(file) is not None:
            reading.not_carried["link to elsewhere"] += 1
            continue
        try:
            one = _LogFile(file, place.file(file))
        except ValueError as error:
            if file == path:
                raise FormatError(f"{path} is no .wandb file: {error}") from None
            reading.not_carried["file that is no .wandb file"] += 1
            continue
        told = one.records
        if not told.run_id:
            reading.not_carried[".wandb file that names no run"] += 1
            continue
        by_run[told.entity, told.project, told.run_id].append(one)
    for logs in by_run.values():
        logs.sort(key=lambda log: (log.records.started_s or 0.0, log.path.name))
        yield _found_run(logs, place)


def _log_files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*.wandb") if path.is_file())


class _LogFile:
    """One `.wandb` file and the folder beside it."""

    def __init__(self, path: Path, content: Content) -> None:
        self.path = path
        self.content = content
        self.damage = Damage()
        self.has_output = False
        self.records = RunRecords()
        for kind, fields in log_records(content, self.damage):
            if kind in (Kind.OUTPUT, Kind.OUTPUT_RAW):
                self.has_output = True
            try:
                self.records.take(kind, fields)
            except WireError:
                self.damage.pieces += 1

    @property
    def files(self) -> Path:
        """The folder with what the run saved."""
        return self.path.parent / "files"


def _found_run(logs: list[_LogFile], place: Place) -> FoundRun:
    first, last = logs[0].records, logs[-1].records
    config: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for log in logs:
        config |= log.records.config
        tags |= dict.fromkeys(log.records.tags, "true")
    config.pop("_wandb", None)
    tags |= {
        name: text
        for name, text in (
            ("job_type", last.job_type),
            ("wandb.id", last.run_id),
            ("wandb.entity", last.entity),
            ("wandb.sweep", last.sweep),
            ("exit_code", "" if last.exit_code is None else str(last.exit_code)),
        )
        if text
    }
    status = Status.CRASHED if last.exit_code is None else Status.FAILED if last.exit_code else Status.FINISHED
    ended_s = None
    if last.started_s is not None and last.runtime_s is not None:
        ended_s = last.started_s + last.runtime_s
    found = FoundRun(
        key="/".join((last.entity, last.project, last.run_id)),
        source=str(logs[-1].path),
        name=last.name or last.run_id,
        items=lambda: (),
        project=last.project or None,
        group=last.group or None,
        notes=last.notes or None,
        started_s=first.started_s,
        ended_s=ended_s,
        status=status,
        params=config,
        tags=tags,
        environment=environment_of(logs[-1].records, logs[-1].files, place),
        patch=place.read(logs[-1].files / "diff.patch", 1 << 20),
        marks=_marks(logs),
    )
    counted = found.not_carried
    for log in logs:
        counted["damaged piece of the log"] += log.damage.pieces
        counted["byte of a torn end"] += log.damage.torn_bytes
        counted["definition of a metric"] += log.records.defined_metrics
        counted["link of an artifact to a registry"] += log.records.links
        counted["value that cannot be read"] += log.records.unreadable
    items = _Items(logs, place, found)
    found.items = items.all
    return found


def _marks(logs: list[_LogFile]) -> dict[str, int]:
    marks = {}
    for log in logs:
        marks[log.path.name] = log.path.stat().st_size
        files = [path for path in log.files.rglob("*") if path.is_file()] if log.files.is_dir() else []
        marks[f"{log.path.name}: files"] = sum(path.stat().st_size for path in files)
    return marks


class _Items:
    """What the files of one run hold, in the order in which it was logged; one record at a time is in memory."""

    def __init__(self, logs: list[_LogFile], place: Place, found: FoundRun) -> None:
        self._logs, self._place, self._found = logs, place, found
        self._last: dict[str, Any] = {}
        self._step = 0
        self._at = found.started_s or 0.0
        self._told_files: set[str] = set()
        self._begin = self._at

    @property
    def _not_carried(self) -> Counter[str]:
        return self._found.not_carried

    def all(self) -> Iterator[Item]:
        """Yield all items."""
        for log in self._logs:
            damage = Damage()  # counted when the file was read for the first time
            for kind, fields in log_records(log.content, damage):
                try:
                    match kind:
                        case Kind.HISTORY:
                            yield from self._history(log, *history_row(fields))
                        case Kind.STATS:
                            yield from self._stats(*stats_row(fields))
                        case Kind.OUTPUT | Kind.OUTPUT_RAW:
                            stream, text, at = printed(fields)
                            yield Printed(stream, text, at if at is not None else self._at)
                except WireError:
                    self._not_carried["damaged piece of the log"] += 1
            if not log.has_output and (data := self._place.read(log.files / "output.log", 64 << 20)):
                yield Printed(3, data, self._found.ended_s or self._at)
            yield from self._summary(log)
            for alert in log.records.alerts:
                yield FoundMedium("alerts", self._step, self._at, long_text(alert))
            yield from self._artifacts(log)
            for name, kind_of in log.records.used:
                yield Linked("input", "artifact", name or "unnamed", self._at, role=kind_of or None)
            yield from self._saved_files(log)

    # --- history -----------------------------------------------------------------------------------------------------

    def _history(self, log: _LogFile, step: int | None, row: dict[str, Any], unreadable: int) -> Iterator[Item]:
        self._not_carried["value that cannot be read"] += unreadable
        told = row.get("_step")
        self._step = step if step is not None else told if isinstance(told, int) else self._step + 1
        at = row.get("_timestamp")
        if isinstance(at, int | float) and math.isfinite(at):
            self._at = float(at)
        for name, value in flatten({key: item for key, item in row.items() if key not in _OURS}, "."):
            self._last[name] = value
            yield from self._value(log, name, value)

    def _value(self, log: _LogFile, name: str, value: Any) -> Iterator[Item]:
        number = as_number(value) if not isinstance(value, str) else None
        if number is not None:
            yield Points(name, [self._step], [number], [self._at])
        elif value is None:
            self._not_carried["null in the history"] += 1
        elif isinstance(value, str):
            yield FoundMedium(name, self._step, self._at, long_text(value))
        elif isinstance(value, dict) and "_type" in value:
            for medium in self._media(log, value):
                yield FoundMedium(name, self._step, self._at, medium)
        else:
            text = json.dumps(value, ensure_ascii=False)
            yield FoundMedium(name, self._step, self._at, long_text(text))

    def _media(self, log: _LogFile, value: dict[str, Any]) -> Iterator[Medium]:
        kind = value.get("_type")
        if kind == "histogram":
            found = media.histogram(value.get("bins") or _bins(value.get("packedBins")), value.get("values"))
            yield from self._fit(found, "histogram")
            return
        if kind == "images/separated":
            names, captions = value.get("filenames"), value.get("captions")
            listed = names if isinstance(names, list) else []
            for number, name in enumerate(listed):
                told = captions[number] if isinstance(captions, list) and number < len(captions) else None
                yield from self._file(log, "image", name, partial(media.image, caption=told))
            return
        caption = value.get("caption")
        readers: dict[str, tuple[str, Callable[[bytes], Medium | None]]] = {
            "image-file": ("image", lambda data: media.image(data, caption)),
            "audio-file": ("audio", lambda data: media.audio(data, caption)),
            "video-file": ("video", lambda data: media.video(data, caption)),
            "table-file": ("table", _table),
            "plotly-file": ("figure", media.plotly),
            "object3D-file": ("shape in space", lambda data: media.object3d(data, _ending(value.get("path")))),
        }
        if kind in readers:
            yield from self._file(log, readers[kind][0], value.get("path"), readers[kind][1])
        elif inner_path(value.get("path")) is None:  # others are among the files that the run saved
            self._not_carried[f"medium of the kind {str(kind)[:60]}"] += 1

    def _file(self, log: _LogFile, what: str, path: object, make: Callable[[bytes], Medium | None]) -> Iterator[Medium]:
        inside = inner_path(path)
        data = self._place.read(log.files / inside) if inside is not None else None
        if data is None or inside is None:
            self._not_carried[f"{what} whose file is not there"] += 1
            return
        found = make(data)
        if found is not None:
            self._told_files.add(inside)  # else it is kept among the files
        yield from self._fit(found, what)

    def _fit(self, medium: Medium | None, what: str) -> Iterator[Medium]:
        if medium is None:
            self._not_carried[f"{what} that cannot be shown"] += 1
        else:
            yield medium

    # --- the machine, the summary ------------------------------------------------------------------------------------

    def _stats(self, at: float | None, values: dict[str, Any]) -> Iterator[Item]:
        at = at if at is not None else self._at
        for name, value in values.items():
            if is_number(value):
                yield Points(f"{SYSTEM}wandb/{name}", [max(0, int(at - self._begin))], [value], [at])
            else:
                self._not_carried["reading of the machine that is no number"] += 1

    def _summary(self, log: _LogFile) -> Iterator[Item]:
        """Yield what the summary says that the history does not: values that were set, not logged."""
        summary = {key: item for key, item in log.records.summary.items() if key not in _OURS}
        for name, value in flatten(summary, "."):
            last = self._last.get(name)
            is_logged = name in self._last
            if is_logged and (value == last or (value != value and last != last)):
                continue
            if isinstance(value, dict) and "_type" in value and is_logged:
                continue  # a medium, as told by its latest row
            yield from self._value(log, f"summary/{name}" if is_logged else name, value)

    # --- files -------------------------------------------------------------------------------------------------------

    def _artifacts(self, log: _LogFile) -> Iterator[Item]:
        for artifact in log.records.artifacts:
            files = [file for one in artifact.files if (file := self._artifact_file(log, one)) is not None]
            if not files:
                self._not_carried["artifact without a file that can be taken"] += 1
                continue
            metadata = artifact.metadata if isinstance(artifact.metadata, dict) else {}
            told = {"type": artifact.type, "description": artifact.description, "aliases": artifact.aliases}
            kept = {**metadata, "wandb": {**told, "digest": artifact.digest}}
            yield FoundArtifact(artifact.name or "unnamed", True, files, self._at, kept)

    def _artifact_file(self, log: _LogFile, told: tuple[str, str, str, str]) -> tuple[str, Content] | None:
        path, local, digest, reference = told
        inside = inner_path(path)
        if reference or inside is None:
            self._not_carried["reference of an artifact to elsewhere" if reference else "path that leads out"] += 1
            return None
        for candidate in (Path(local) if local.startswith("/") else None, log.path.parent / "artifacts" / inside):
            if candidate is not None and self._place.trouble(candidate) is None:
                file = self._place.file(candidate)
                if _md5(file) == digest:
                    return inside, file
                self._not_carried["file of an artifact that has changed"] += 1
                return None
        self._not_carried["file of an artifact outside of the store (--also-from takes it)"] += 1
        return None

    def _saved_files(self, log: _LogFile) -> Iterator[Item]:
        if not log.files.is_dir():
            return
        files: list[tuple[str, Content]] = [
            (name, file)
            for name, file in self._place.walk(log.files, self._not_carried)
            if name not in _KNOWN_FILES and name not in self._told_files
        ]
        if files:
            suffix = f" {self._logs.index(log) + 1}" if len(self._logs) > 1 else ""
            yield FoundArtifact(f"files{suffix}", True, files, self._found.ended_s or self._at)


def _md5(file: StoreFile) -> str:
    """Return the digest of a file as wandb writes it; empty where it cannot be read."""
    hasher = hashlib.md5(usedforsecurity=False)
    try:
        with file.opened() as path, path.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                hasher.update(chunk)
    except (OSError, ValueError):
        return ""
    return base64.b64encode(hasher.digest()).decode()


def _table(data: bytes) -> Medium | None:
    told = parse_json(data)
    if told is UNREADABLE or not isinstance(told, dict):
        return None
    columns, rows = told.get("columns"), told.get("data")
    return media.rows_table(columns, rows) if isinstance(columns, list) and isinstance(rows, list) else None


def _bins(packed: object) -> list[float] | None:
    """Return the edges that are told by their first, their distance and their number."""
    if not isinstance(packed, dict):
        return None
    low, size, count = packed.get("min"), packed.get("size"), packed.get("count")
    if not isinstance(low, int | float) or not isinstance(size, int | float) or not isinstance(count, int):
        return None
    return [low + size * number for number in range(count + 1)] if 0 < count <= 10_000 else None


def _ending(path: object) -> str:
    return str(path).rpartition(".")[2].lower()
