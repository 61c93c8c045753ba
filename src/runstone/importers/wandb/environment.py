"""What a run of wandb recorded of its machine, as sections of an environment snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runstone.importers.places import Place
from runstone.importers.values import UNREADABLE, parse_json
from runstone.importers.wandb.log import RunRecords
from runstone.importers.wandb.wire import Fields, WireError, inner, inners, number, text, texts


def environment_of(told: RunRecords, files: Path, place: Place) -> dict[str, Any] | None:
    """Return the snapshot: of the record, else of `wandb-metadata.json`, which older versions wrote."""
    try:
        found = _of_record(told.environment, told)
    except WireError:
        found = {}
    if not told.environment:
        found = _of_metadata(parse_json(place.read(files / "wandb-metadata.json", 1 << 20) or b"")) | found
    packages = place.read(files / "requirements.txt", 4 << 20)
    if packages:
        found["packages"] = {"installed": _installed(packages.decode("utf-8", "replace")), "unreadable": []}
    return found or None


def _of_record(fields: Fields, told: RunRecords) -> dict[str, Any]:
    git = inner(fields, 9)
    remote, commit = (text(git, 1), text(git, 2)) if git else told.git
    devices = [
        _some(index=index, name=text(one, 1), memory_bytes=number(one, 2), cores=number(one, 3), uuid=text(one, 5))
        for index, one in enumerate(inners(fields, 24))
    ]
    gpu = _some(count=number(fields, 19), name=text(fields, 18), cuda_driver=text(fields, 25))
    sections = {
        "identity": _some(host=text(fields, 12) or told.host, user=text(fields, 13)),
        "os": _some(name=text(fields, 1)),
        "python": _some(version=text(fields, 2).removeprefix("CPython "), executable=text(fields, 14)),
        "process": _some(argv=texts(fields, 5), entry=text(fields, 6), cwd=text(fields, 11)),
        "git": _some(remote=remote, commit=commit),
        "cpu": _some(
            model=text(inner(fields, 22), 3), physical_cores=number(fields, 16), logical_cores=number(fields, 17)
        ),
        "memory": _some(total_bytes=number(inner(fields, 21), 1)),
        "gpu": gpu | ({"devices": devices} if devices else {}),
        "container": _some(image=text(fields, 4)),
    }
    return {name: section for name, section in sections.items() if section}


def _of_metadata(told: Any) -> dict[str, Any]:
    if told is UNREADABLE or not isinstance(told, dict):
        return {}
    git: dict[str, Any] = told["git"] if isinstance(told.get("git"), dict) else {}
    python = str(told.get("python") or "")
    sections = {
        "identity": _some(host=told.get("host"), user=told.get("username")),
        "os": _some(name=told.get("os")),
        "python": _some(version=python.removeprefix("CPython "), executable=told.get("executable")),
        "process": _some(argv=told.get("args"), entry=told.get("program"), cwd=told.get("root")),
        "git": _some(remote=git.get("remote"), commit=git.get("commit")),
        "cpu": _some(physical_cores=told.get("cpu_count"), logical_cores=told.get("cpu_count_logical")),
        "gpu": _some(count=told.get("gpu_count"), name=told.get("gpu")),
    }
    return {name: section for name, section in sections.items() if section}


def _some(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _installed(requirements: str) -> list[dict[str, str]]:
    found = []
    for line in requirements.splitlines()[:20_000]:
        name, is_pinned, version = line.strip().partition("==")
        if is_pinned and name:
            found.append({"name": name.lower().replace("_", "-"), "version": version})
    return found
