"""What the commands of `runstone data` share: options, references on the command line, versions as JSON and words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from runstone.cli._output import clean, counted, say, size, to_json
from runstone.datasets import DatasetRef, DatasetVersion, TreeFile
from runstone.datasets.manifest import shown_path
from runstone.errors import InvalidValue
from runstone.workspace import Workspace, ensure_workspace

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def ensured(ctx: click.Context) -> Workspace:
    return ensure_workspace(ctx.find_root().obj)


def exact(version: str) -> DatasetRef:
    if "@" not in version:
        raise InvalidValue(f"{version!r:.80} names no version; write {version[:40]}@3")
    return DatasetRef.parse(version)


def pairs(tags: Sequence[str]) -> dict[str, str]:
    wrong = next((tag for tag in tags if "=" not in tag), None)
    if wrong is not None:
        raise click.UsageError(f"a tag is NAME=VALUE, got {wrong!r}")
    return {key: value for key, _, value in (tag.partition("=") for tag in tags)}


def tell(version: DatasetVersion, as_json: bool) -> None:
    if as_json:
        say(to_json(version_as_dict(version)))
        return
    stored = "stored" if version.is_stored else "by reference"
    files = counted(version.recorded.file_count, "file")
    say(f"{clean(version)}  {version.hash[:16]}  {files}, {size(version.size_bytes)}, {stored}")
    if version.revoked is not None:
        say(f"it was revoked: {clean(version.revoked.reason)}", stderr=True)


def state_text(version: DatasetVersion | None) -> Text:
    if version is None or (version.revoked is None and version.is_stored):
        return Text("")
    return Text("by reference") if version.revoked is None else Text("revoked", style="bold red")


def added_at(version: DatasetVersion) -> datetime:
    return datetime.fromtimestamp(version.recorded.added_at, UTC)


def version_as_dict(version: DatasetVersion) -> dict[str, Any]:
    recorded = version.recorded
    return {
        "name": version.name,
        "version": version.version,
        "hash": version.hash,
        "stored": version.is_stored,
        "file_count": recorded.file_count,
        "size_bytes": recorded.size_bytes,
        "added_at": added_at(version),
        "author": recorded.author,
        "run": recorded.run_id,
        "source": dict(recorded.source),
        "dvc": recorded.dvc,
        "git": recorded.git,
        "aliases": list(recorded.aliases),
        "tags": recorded.tags,
        "notes": recorded.notes,
        "revoked": version.revoked.reason if version.revoked is not None else None,
    }


def file_as_dict(file: TreeFile) -> dict[str, Any]:
    told: dict[str, Any] = {"path": shown_path(file.path), "hash": file.hash, "size_bytes": file.size_bytes}
    told |= {"executable": True} if file.is_executable else {}
    told |= {"link": shown_path(file.link)} if file.link is not None else {}
    return told | ({"folder": True} if file.is_folder else {})
