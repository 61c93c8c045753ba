"""Offline sessions of ClearML: a folder, or the zip file of one, with JSON of the task, its events and its output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from runstone.errors import FormatError
from runstone.importers import media
from runstone.importers.items import (
    Content,
    FoundArtifact,
    FoundMedium,
    FoundRun,
    Item,
    NotCarried,
    Points,
    Printed,
    Reading,
)
from runstone.importers.places import Archive, Place
from runstone.importers.values import as_number, epoch_s, number_in, parse_json
from runstone.media import long_text
from runstone.names import SYSTEM
from runstone.values import JSON, Status

_TASK, _METRICS, _LOG, _DATA = "task.json", "metrics.jsonl", "log.jsonl", "data/"
_MS = 1e-3
_SINGLE_VALUE = -(2**31)
"""The step of what was reported without one."""
_MOST_LINE = 256 << 20
_STATUS = {
    "completed": Status.FINISHED,
    "closed": Status.FINISHED,
    "published": Status.FINISHED,
    "failed": Status.FAILED,
    "stopped": Status.STOPPED,
}


class _Session:
    """The files of one session, in a folder or a zip file."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        self._archive = Archive(path, reading.scratch) if path.is_file() else None
        self._place = Place(path, *reading.also_from)
        self._names: dict[str, Content] | None = None
        self.not_carried = NotCarried()
        if self._archive is not None:
            self.not_carried.update(self._archive.refused)

    def close(self) -> None:
        """Let go of the files."""
        if self._archive is not None:
            self._archive.close()

    def read(self, name: str) -> bytes | None:
        """Return a file, `None` where it is not there or cannot be read."""
        if self._archive is not None:
            return self._archive.read(name, _MOST_LINE)
        return self._place.read(self.path / name, _MOST_LINE)

    def files(self) -> dict[str, Content]:
        """Return the files that were kept beside, by path inside `data/`."""
        if self._names is None:
            if self._archive is not None:
                members = [name for name in self._archive.names if name.startswith(_DATA)]
                self._names = {name.removeprefix(_DATA): self._archive.member(name) for name in members}
            elif (self.path / _DATA).is_dir():
                self._names = dict(self._place.walk(self.path / _DATA, self.not_carried))
            else:
                self._names = {}
        return self._names

    def lines(self, name: str, not_carried: NotCarried) -> Iterator[dict[str, Any]]:
        """Yield the events of a file, each line of which is a list."""
        with contextlib.ExitStack() as stack:
            try:
                if self._archive is not None:
                    if name not in self._archive:
                        return
                    opened = stack.enter_context(self._archive.unpacked(name))
                elif self._place.trouble(self.path / name) is None:
                    opened = stack.enter_context(self._place.file(self.path / name).opened())
                else:
                    return
                lines = stack.enter_context(opened.open("rb"))
            except (OSError, ValueError):
                not_carried[f"{name} that cannot be read"] += 1
                return
            while line := lines.readline(_MOST_LINE):
                told = parse_json(line) if line.strip() else []
                if not isinstance(told, list):
                    not_carried["line that cannot be read"] += 1
                    continue
                yield from (one for one in told if isinstance(one, dict))

    def marks(self) -> dict[str, int]:
        """Return sizes by file."""
        if self._archive is not None:
            return {"session": self.path.stat().st_size}
        return {"session": sum(one.stat().st_size for one in self.path.rglob("*") if one.is_file())}


def is_store(path: Path) -> bool:
    """Return whether a path is an offline session, or a folder that holds some."""
    return next(_sessions(path), None) is not None


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield the run of each session; a folder whose zip file lies beside it counts once.

    Raises:
        FormatError: there is none.
        OSError: a file cannot be read.
    """
    has_any = False
    for path in _sessions(reading.path):
        has_any = True
        session = _Session(path, reading)
        try:
            task = parse_json(session.read(_TASK) or b"")
            if not isinstance(task, dict):
                if path == reading.path:
                    raise FormatError(f"{path} is no offline session of ClearML: its task.json cannot be read")
                reading.not_carried["session whose task.json cannot be read"] += 1
                continue
            yield _found_run(session, task)
        finally:
            session.close()
    if not has_any:
        raise FormatError(f"{reading.path} is no offline session of ClearML, and holds none")


def _sessions(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() == ".zip" and _has_task(path):
            yield path
        return
    if (path / _TASK).is_file():
        yield path
        return
    folders = sorted(one.parent for one in path.glob("*/task.json") if one.is_file())
    yield from folders
    names = {folder.name for folder in folders}
    for one in sorted(path.glob("*.zip")):
        if one.is_file() and one.stem not in names and _has_task(one):
            yield one


def _has_task(path: Path) -> bool:
    try:
        archive = Archive(path, path.parent)
    except (FormatError, OSError):
        return False
    try:
        return _TASK in archive
    finally:
        archive.close()


def _found_run(session: _Session, task: dict[str, Any]) -> FoundRun:
    identity = str(task.get("offline_id") or task.get("id") or session.path.stem)
    params, tags = _params(task), _tags(task)
    status = _STATUS.get(str(task.get("status") or "completed"), Status.FINISHED)
    found = FoundRun(
        key=identity,
        source=str(session.path),
        name=str(task.get("name") or identity),
        items=lambda: (),
        project=_text(task.get("project_name")) or _text(task.get("project")),
        notes=_text(task.get("comment")),
        status=status,
        started_s=epoch_s(task.get("started")) or epoch_s(task.get("created")),
        ended_s=epoch_s(task.get("completed")) or epoch_s(task.get("last_update")),
        params=params,
        tags={"clearml.id": identity, **tags},
        environment=_environment(task),
        patch=_patch(task),
        marks=session.marks(),
        not_carried=session.not_carried,
    )
    if found.started_s is None:
        first = next(session.lines(_LOG, NotCarried()), None) or next(session.lines(_METRICS, NotCarried()), {})
        found.started_s = epoch_s(first.get("timestamp"), _MS)
    found.items = lambda: _items(session, task, found)
    return found


def _params(task: dict[str, Any]) -> dict[str, JSON]:
    params: dict[str, JSON] = {}
    for section, entries in _dict(task.get("hyperparams")).items():
        below: dict[str, JSON] = {}
        for name, entry in _dict(entries).items():
            below[str(name)] = _value(entry.get("value"), entry.get("type")) if isinstance(entry, dict) else entry
        # what was connected without naming a section
        if section == "General":
            params |= below
        else:
            params[str(section)] = below
    configurations: dict[str, JSON] = {
        str(name): str(entry["value"])
        for name, entry in _dict(task.get("configuration")).items()
        if isinstance(entry, dict) and entry.get("value") is not None
    }
    if configurations:
        params["configuration"] = configurations
    return params


def _value(text: object, kind: object) -> JSON:
    """Return the value that a text stands for, by the type that is told beside it."""
    if not isinstance(text, str):
        return text if isinstance(text, bool | int | float | None) else str(text)
    told = str(kind or "").partition("/")[0]
    if told in ("int", "float"):
        number = number_in(text)
        return number if number is not None else text
    if told == "bool":
        return {"True": True, "False": False}.get(text, text)
    if told == "NoneType":
        return None if text in ("", "None") else text
    if told in ("list", "dict", "tuple"):
        value = parse_json(text)
        return value if isinstance(value, list | dict) else text
    return text


def _tags(task: dict[str, Any]) -> dict[str, str]:
    listed = task.get("tags")
    tags = {str(tag): "true" for tag in listed} if isinstance(listed, list) else {}
    if _text(task.get("type")):
        tags["clearml.type"] = str(task["type"])
    return tags


def _environment(task: dict[str, Any]) -> dict[str, Any] | None:
    script = _dict(task.get("script"))
    requirements = _dict(script.get("requirements"))
    lines = str(requirements.get("pip") or "").splitlines()
    installed = [
        {"name": name.strip().lower().replace("_", "-"), "version": version.strip()}
        for name, is_pinned, version in (line.partition("==") for line in lines[:20_000])
        if is_pinned and not name.startswith("#")
    ]
    git = {
        "remote": _text(script.get("repository")),
        "commit": _text(script.get("version_num")),
        "branch": _text(script.get("branch")),
    }
    sections = {
        "git": {name: value for name, value in git.items() if value},
        "process": {"entry": str(script["entry_point"])} if script.get("entry_point") else {},
        "python": {"executable": str(script["binary"])} if script.get("binary") else {},
        "packages": {"installed": installed, "unreadable": []} if installed else {},
        "runtime": {str(k): v for k, v in _dict(task.get("runtime")).items() if not str(k).startswith("_")},
    }
    return {name: section for name, section in sections.items() if section} or None


def _patch(task: dict[str, Any]) -> bytes | None:
    """Return what was not committed; a script outside of a repository is told in the same place, and no patch."""
    diff = _dict(task.get("script")).get("diff")
    if isinstance(diff, str) and diff.startswith(("diff ", "--- ")):
        return diff.encode("utf-8", "backslashreplace")[: 1 << 20]
    return None


def _items(session: _Session, task: dict[str, Any], found: FoundRun) -> Iterator[Item]:
    files = session.files()
    used: set[str] = set()
    last = found.started_s or 0.0
    begin = last
    for event in session.lines(_METRICS, found.not_carried):
        at = epoch_s(event.get("timestamp"), _MS) or last
        last = max(last, at)
        yield from _event(event, at, begin, files, used, found)
    for event in session.lines(_LOG, found.not_carried):
        at = epoch_s(event.get("timestamp"), _MS) or last
        last = max(last, at)
        text = str(event.get("msg") or "")
        yield Printed(2 if event.get("level") == "error" else 3, f"{text}\n".encode("utf-8", "backslashreplace"), at)
    if found.ended_s is None:
        found.ended_s = last
    for one in _dict(task.get("execution")).get("artifacts") or []:
        if not isinstance(one, dict):
            continue
        path = _find(files, str(one.get("uri") or ""))
        if path is None:
            found.not_carried["artifact whose file is not in the session"] += 1
            continue
        used.add(path)
        at = epoch_s(one.get("timestamp")) or last
        facts = {key: one[key] for key in ("type", "mode", "type_data", "display_data") if one.get(key)}
        name = str(one.get("key") or path)
        yield FoundArtifact(name, False, [(path.rpartition("/")[2], files[path])], at, {"clearml": facts})
    diff = _dict(task.get("script")).get("diff")
    if found.patch is None and isinstance(diff, str) and diff.strip():
        yield FoundMedium("clearml/script", 0, begin, long_text(diff))
    rest = [(name, content) for name, content in files.items() if name not in used]
    if rest:
        yield FoundArtifact("clearml-files", True, rest, last)
    models = task.get("offline_output_models")
    found.not_carried["record of a model (its file is kept)"] += len(models) if isinstance(models, list) else 0


def _event(
    event: dict[str, Any], at: float, begin: float, files: dict[str, Content], used: set[str], found: FoundRun
) -> Iterator[Item]:
    kind = event.get("type")
    title, series = str(event.get("metric") or ""), str(event.get("variant") or "")
    step = event.get("iter")
    if not isinstance(step, int):
        step = 0
    name = f"{title}/{series}" if series else title
    if title == ":monitor:machine" or title == ":monitor:gpu":
        name, step = f"{SYSTEM}clearml/{series}", max(0, int(at - begin))
    elif step == _SINGLE_VALUE:
        name, step = series if title == "Summary" else name, 0
    if kind == "training_stats_scalar":
        value = as_number(event.get("value"))
        if value is None:
            found.not_carried["scalar that is no number"] += 1
        else:
            yield Points(name, [step], [value], [at])
    elif kind == "plot":
        text = event.get("plot_str")
        figure = media.plotly(text.encode("utf-8", "backslashreplace")) if isinstance(text, str) else None
        if figure is None:
            found.not_carried["plot that cannot be read"] += 1
        else:
            yield FoundMedium(name, step, at, figure)
    elif kind in ("training_debug_image", "training_stats_vector"):
        path = _find(files, str(event.get("key") or event.get("url") or ""))
        if path is None:
            found.not_carried["sample whose file is not in the session"] += 1
            return
        with files[path].opened() as opened:
            data = opened.read_bytes() if opened.stat().st_size <= _MOST_LINE else b""
        medium = media.image(data) or media.audio(data) or media.video(data)
        if medium is not None:
            used.add(path)
            yield FoundMedium(name, step, at, medium)
    else:
        found.not_carried[f"event of the kind {str(kind)[:60]}"] += 1


def _find(files: dict[str, Content], address: str) -> str | None:
    """Return the file of a session that an address means: the session may have been moved since."""
    for text in (address, unquote(address)):
        inside = text
        while inside not in files:
            _before, has_more, inside = inside.partition(f"/{_DATA}")
            if not has_more:
                break
        else:
            return inside
    return None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
