"""Repositories of Aim. Its own library reads them, in a process of its own, and a copy: it writes to what it reads."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.importers import media
from runstone.importers.items import FoundMedium, FoundRun, Item, NotCarried, Points, Printed, Reading
from runstone.importers.process import run_script
from runstone.importers.values import as_number, epoch_s
from runstone.media import Medium, long_text
from runstone.names import SYSTEM
from runstone.values import Status

_SCRIPT = Path(__file__).with_name("aim_script.py")
_SYSTEM = "__system__"
Event = dict[str, Any]


def is_store(path: Path) -> bool:
    """Return whether a path is a `.aim` folder, or holds one."""
    return _find(path) is not None


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield the runs of a repository.

    Raises:
        FormatError: there is none.
        RunstoneError: Aim is not there, or fails.
        OSError: the copy cannot be made.
    """
    store = _find(reading.path)
    if store is None:
        raise FormatError(f"{reading.path} is no repository of Aim: there is no .aim folder with meta/chunks in it")
    copy = reading.scratch / "aim"
    shutil.copytree(store, copy / ".aim", ignore=_links_in(reading.not_carried))
    # An index that lags behind hides runs; without one, Aim looks at the runs themselves.
    shutil.rmtree(copy / ".aim" / "meta" / "index", ignore_errors=True)
    events = run_script(_SCRIPT, [str(copy)], library="aim", python=reading.python)
    yield from runs_of(events, str(store), lambda run: _marks(store, run))


def runs_of(events: Iterable[Event], source: str, marks: Callable[[str], dict[str, int]]) -> Iterator[FoundRun]:
    """Yield the runs of which a stream of events tells; a run's items must be taken before the next run."""
    stream = iter(events)
    for event in stream:
        if event.get("kind") != "run":
            continue
        found = _found_run(event, source, marks)
        left = _until_done(stream)
        found.items = lambda found=found, left=left: _items(found, left)  # type: ignore[misc]
        yield found
        for _rest in left:  # of a run that was not read
            pass


def _until_done(stream: Iterator[Event]) -> Iterator[Event]:
    for event in stream:
        if event.get("kind") == "done":
            return
        yield event


def _find(path: Path) -> Path | None:
    for candidate in (path, path / ".aim"):
        if (candidate / "meta" / "chunks").is_dir() and (candidate / "seqs").is_dir():
            return candidate
    return None


def _links_in(not_carried: NotCarried) -> Callable[[str, list[str]], list[str]]:
    def links(folder: str, names: list[str]) -> list[str]:
        found = [name for name in names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118 (texts)
        not_carried["link to elsewhere"] += len(found)
        return found

    return links


def _marks(store: Path, run: str) -> dict[str, int]:
    if not run.isalnum():
        return {}
    marks = {}
    for part in ("meta", "seqs"):
        files = [one for one in (store / part / "chunks" / run).glob("*") if one.suffix in (".sst", ".log")]
        marks[part] = sum(one.stat().st_size for one in files if one.is_file() and one.name != "LOG")
    return marks


def _found_run(event: Event, source: str, marks: Callable[[str], dict[str, int]]) -> FoundRun:
    key = str(event.get("hash") or "")
    params = event.get("params")
    system = event.get("system")
    listed = event.get("tags")
    tags = {str(tag): "true" for tag in listed} if isinstance(listed, list) else {}
    if event.get("archived"):
        tags["archived"] = "true"
    ended = epoch_s(event.get("ended"))
    return FoundRun(
        key=key,
        source=f"{source}: {key}",
        name=str(event.get("name") or key),
        items=lambda: (),
        project=str(event["experiment"]) if event.get("experiment") else None,
        notes=str(event["description"]) if event.get("description") else None,
        started_s=epoch_s(event.get("created")),
        ended_s=ended,
        status=Status.FINISHED if ended is not None and not event.get("active") else Status.CRASHED,
        params=params if isinstance(params, dict) else {},
        tags={"aim.hash": key, **tags},
        environment=_environment(system) if isinstance(system, dict) else None,
        marks=marks(key),
    )


def _environment(system: dict[str, Any]) -> dict[str, Any] | None:
    git: dict[str, Any] = system["git_info"] if isinstance(system.get("git_info"), dict) else {}
    packages: dict[str, Any] = system["packages"] if isinstance(system.get("packages"), dict) else {}
    named = {"branch": git.get("branch"), "remote": git.get("remote_origin_url"), "commit": git.get("commit")}
    if isinstance(named["commit"], dict):
        named["commit"] = named["commit"].get("hash")
    installed = [{"name": str(name).lower().replace("_", "-"), "version": str(one)} for name, one in packages.items()]
    sections: dict[str, Any] = {
        "git": {name: value for name, value in named.items() if value},
        "process": {"argv": system["arguments"]} if system.get("arguments") else {},
        "python": {"executable": system["executable"]} if system.get("executable") else {},
        "packages": {"installed": installed, "unreadable": []} if installed else {},
    }
    return {name: section for name, section in sections.items() if section} or None


def _items(found: FoundRun, events: Iterator[Event]) -> Iterator[Item]:
    begin = found.started_s or 0.0
    for event in events:
        kind = event.get("kind")
        at = epoch_s(event.get("time")) if not isinstance(event.get("time"), list) else None
        at = at if at is not None else begin
        if kind == "points":
            yield from _points(event, begin, found.not_carried)
        elif kind == "line":
            yield Printed(3, f"{event.get('text', '')}\n".encode("utf-8", "backslashreplace"), at)
        elif kind == "lost":
            count = event.get("count", 1)
            found.not_carried[str(event.get("what"))[:120]] += count if isinstance(count, int) else 1
        elif kind == "trouble":
            found.not_carried[f"rest of a damaged run ({str(event.get('message'))[:80]})"] += 1
        else:
            step = event.get("step")
            medium = _medium(str(kind), event)
            if medium is None or not isinstance(step, int):
                found.not_carried[f"{str(kind)[:40]} that cannot be shown"] += 1
            else:
                yield FoundMedium(_name(event), step, at, medium)


def _points(event: Event, begin: float, not_carried: NotCarried) -> Iterator[Item]:
    name = _name(event)
    columns = [event.get(column) for column in ("step", "value", "time")]
    if not all(isinstance(column, list) for column in columns):
        not_carried["metric that cannot be read"] += 1
        return
    is_system = name.startswith(_SYSTEM)
    steps: list[int] = []
    values: list[float | int | bool] = []
    times: list[float] = []
    for step, told, time in zip(*columns, strict=False):
        value, at = as_number(told), epoch_s(time)
        if value is None or not isinstance(step, int):
            not_carried["point that is no number"] += 1
            continue
        at = at if at is not None else begin
        steps.append(max(0, int(at - begin)) if is_system else step)
        values.append(value)
        times.append(at)
    yield Points(f"{SYSTEM}aim/{name.removeprefix(_SYSTEM)}" if is_system else name, steps, values, times)


def _name(event: Event) -> str:
    """Return the name of a sequence with its context: `train/loss` for the usual one, else the context as JSON."""
    name, context = str(event.get("name")), event.get("context")
    if not isinstance(context, dict) or not context:
        return name
    if list(context) == ["subset"] and isinstance(context["subset"], str):
        return f"{context['subset']}/{name}"
    return f"{name} {json.dumps(context, ensure_ascii=False, sort_keys=True)}"


def _medium(kind: str, event: Event) -> Medium | None:
    caption = event.get("caption")
    if kind == "text":
        return long_text(str(event.get("text", "")))
    if kind == "histogram":
        return media.histogram(event.get("edges"), event.get("counts"))
    if kind == "figure":
        return media.plotly(str(event.get("json", "")).encode("utf-8", "backslashreplace"))
    if kind in ("image", "audio"):
        try:
            data = base64.b64decode(str(event.get("data", "")), validate=True)
        except (binascii.Error, ValueError):
            return None
        return media.image(data, caption) if kind == "image" else media.audio(data, caption)
    return None
