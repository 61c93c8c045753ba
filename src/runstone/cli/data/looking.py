"""`runstone data list | show`: what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from runstone.cli._output import ago, cell, clean, counted, moment_text, say, show, size, table, to_json
from runstone.cli.data.common import added_at, file_as_dict, json_option, state_text, version_as_dict
from runstone.cli.main import workspace_of, workspace_option
from runstone.datasets import Dataset, DatasetVersion, TreeFile
from runstone.datasets.manifest import shown_path


@click.command("list")
@click.argument("name", required=False)
@json_option
@workspace_option
@click.pass_context
def list_command(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """List all datasets, or the versions of one."""
    datasets = workspace_of(ctx).datasets
    if name is not None:
        versions = datasets.get(name).versions()
        if as_json:
            say(to_json([version_as_dict(version) for version in versions]))
            return
        show(_version_table(versions))
        return
    found = list(datasets)
    if as_json:
        say(to_json([dataset_as_dict(dataset) for dataset in found]))
        return
    if not found:
        say("there is no dataset yet; `runstone data add PATH` makes one")
        return
    rows = []
    for dataset in found:
        versions = dataset.versions()
        newest = versions[0] if versions else None
        rows.append(
            (
                cell(dataset.name),
                cell(newest.version if newest else None),
                Text(f"{newest.recorded.file_count:,}" if newest else "-"),
                Text(size(newest.size_bytes) if newest else "-"),
                Text(ago(added_at(newest), datetime.now(UTC)) if newest else "-"),
                state_text(newest),
            )
        )
    show(table(["name", ("latest", "right"), ("files", "right"), ("size", "right"), "added", ""], rows))


@click.command("show")
@click.argument("version", metavar="NAME[@V]")
@click.option("--profile", is_flag=True, help="Show the profile of each column.")
@click.option("--files", is_flag=True, help="List all files.")
@json_option
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, version: str, profile: bool, files: bool, as_json: bool) -> None:
    """Show one version: where it came from, its files, the columns of its tables."""
    found = workspace_of(ctx).datasets.find(version)
    if as_json:
        told = version_as_dict(found) | {"form": found.manifest.form, "facts": dict(found.manifest.facts)}
        told |= {"not_hashed": list(found.manifest.not_hashed), "tables": found.tables}
        told["files"] = [file_as_dict(file) for file in found.files]
        say(to_json(told))
        return
    show(
        table(
            ["", ("", "fold")], [(Text(key, style="bold"), cell(value)) for key, value in _facts(found)], header=False
        )
    )
    for warning in found.manifest.not_hashed:
        say(f"not hashed: {clean(warning)}")
    for one in found.tables:
        say()
        _show_table(one, with_profile=profile)
    if files or len(found.files) <= 10:
        say()
        show_files(found.files)


def _version_table(versions: Sequence[DatasetVersion]) -> Any:
    now = datetime.now(UTC)
    rows = [
        (
            cell(version.version),
            Text(version.hash[:12]),
            Text(f"{version.recorded.file_count:,}"),
            Text(size(version.size_bytes)),
            Text(ago(added_at(version), now)),
            cell(version.recorded.author),
            cell(", ".join(version.recorded.aliases) or None),
            state_text(version),
        )
        for version in versions
    ]
    titles: list[str | tuple[str, str]] = [
        ("version", "right"),
        "hash",
        ("files", "right"),
        ("size", "right"),
        "added",
        "by",
        "aliases",
        "",
    ]
    return table(titles, rows)


def _facts(version: DatasetVersion) -> list[tuple[str, Any]]:
    recorded = version.recorded
    facts: list[tuple[str, Any]] = [
        ("version", str(version)),
        ("hash", version.hash),
        ("files", f"{recorded.file_count:,}, {size(recorded.size_bytes)}"),
        ("content", "stored" if version.is_stored else "by reference"),
        ("added", f"{moment_text(added_at(version))} by {recorded.author}"),
    ]
    facts += [(key, value) for key, value in recorded.source.items() if key != "pins"]
    if recorded.dvc:
        facts.append(("dvc", f"{recorded.dvc['md5']} ({recorded.dvc['file']})"))
    if recorded.git:
        facts.append(("git", f"{recorded.git['commit'][:12]} {recorded.git.get('branch') or ''}".strip()))
    facts += [("run", recorded.run_id)] if recorded.run_id else []
    facts += [("aliases", ", ".join(recorded.aliases))] if recorded.aliases else []
    facts += [("tags", ", ".join(f"{key}={value}" for key, value in recorded.tags.items()))] if recorded.tags else []
    facts += [("notes", recorded.notes)] if recorded.notes else []
    if version.revoked is not None:
        facts.append(("revoked", f"{version.revoked.reason} ({version.revoked.by})"))
    return facts


def _show_table(told: Mapping[str, Any], *, with_profile: bool) -> None:
    paths = ", ".join(clean(path) for path in told["paths"][:3]) + (", …" if told["file_count"] > 3 else "")
    rows = f"{counted(told['rows'], 'row')}, " if "rows" in told else ""
    say(f"{paths}: {rows}{counted(len(told['schema']), 'column')}")
    if "trouble" in told:
        say(f"    {clean(told['trouble'])}")
        return
    columns = told.get("columns", {})
    if not with_profile or not columns:
        show(table(["column", "type"], [(cell(one["name"]), cell(one["type"])) for one in told["schema"]]))
        return
    rows_shown = []
    for one in told["schema"]:
        profile = columns.get(one["name"], {})
        quantiles = profile.get("quantiles")
        distinct = profile.get("distinct")
        over = profile.get("distinct_over")
        top = ", ".join(f"{value} ({count:,})" for value, count in profile.get("top", [])[:3])
        rows_shown.append(
            (
                cell(one["name"]),
                cell(one["type"]),
                cell(profile.get("nulls")),
                cell(profile.get("min")),
                cell(quantiles[50] if quantiles else None),
                cell(profile.get("max")),
                cell(profile.get("mean")),
                cell(profile.get("std")),
                Text(f"> {over:,}") if over else cell(distinct),
                cell(top or None),
            )
        )
    right = [(title, "right") for title in ("nulls", "min", "median", "max", "mean", "std", "distinct")]
    show(table(["column", "type", *right, "most frequent"], rows_shown))


def show_files(files: Sequence[TreeFile]) -> None:
    rows = []
    for file in files:
        what = f"-> {shown_path(file.link)}" if file.link is not None else "folder" if file.is_folder else ""
        rows.append(
            (
                cell(shown_path(file.path)),
                Text(size(file.size_bytes)),
                Text((file.hash or "-")[:12]),
                cell(what or None),
            )
        )
    show(table(["file", ("size", "right"), "hash", ""], rows))


def dataset_as_dict(dataset: Dataset) -> dict[str, Any]:
    state, versions = dataset.state(), dataset.versions()
    return {
        "name": state.name,
        "versions": len(versions),
        "latest": version_as_dict(versions[0]) if versions else None,
        "aliases": dict(state.aliases),
        "tags": state.tags,
        "notes": state.notes,
    }
