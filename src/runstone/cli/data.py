"""`runstone data`: versions of data, added, listed, compared, checked out, sent and fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from runstone.cli._output import ago, cell, clean, counted, moment_text, say, show, size, table, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.datasets import Dataset, DatasetRef, DatasetVersion, TreeFile, add, update
from runstone.datasets.checkout import check_out
from runstone.datasets.manifest import shown_path
from runstone.datasets.urls import is_url
from runstone.datasets.verifying import verify
from runstone.errors import InvalidValue
from runstone.workspace import Workspace, ensure_workspace

if TYPE_CHECKING:
    from runstone.datasets.diff import Change, ColumnDifference, Difference
    from runstone.datasets.exchange import Moved
    from runstone.datasets.rows import RowDifference

_MOST_ROWS = 50

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("data", cls=Suggesting)
def data_group() -> None:
    """Versions of data: added, compared, checked out, sent and fetched.

    NAME@V is a version: V is its number, an alias, `latest` or the beginning of its hash.
    """


def _ensured(ctx: click.Context) -> Workspace:
    return ensure_workspace(ctx.find_root().obj)


@data_group.command("add")
@click.argument("path")
@click.option("--name", help="Of the dataset. Default: the last part of PATH.")
@click.option("--no-store", is_flag=True, help="Keep only hashes; the data stays where it is, and only there.")
@click.option("--no-profile", is_flag=True, help="Do not read tables for the profile of their columns.")
@click.option("--query", help="What made the data, such as SQL; kept with the version.")
@click.option("--notes", help="Annotation of the version, Markdown.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the version; may be repeated.")
@json_option
@workspace_option
@click.pass_context
def add_command(
    ctx: click.Context,
    path: str,
    name: str | None,
    no_store: bool,
    no_profile: bool,
    query: str | None,
    notes: str | None,
    tags: Sequence[str],
    as_json: bool,
) -> None:
    """Add a file, a folder or what lies at a URL as a version.

    Data that was not changed is the version that is there already.
    """
    version = add(
        _ensured(ctx).datasets,
        path,
        name=name,
        store=not no_store,
        profile=not no_profile,
        query=query,
        notes=notes,
        tags=_pairs(tags),
    )
    _tell(version, as_json)


@data_group.command("import")
@click.argument("url")
@click.option("--name", help="Of the dataset. Default: the last part of URL.")
@click.option("--no-download", is_flag=True, help="Only pin it by what its store says; fetch nothing.")
@json_option
@workspace_option
@click.pass_context
def import_command(ctx: click.Context, url: str, name: str | None, no_download: bool, as_json: bool) -> None:
    """Fetch data from a URL or path as a version that knows its source; `update` looks there again."""
    _tell(add(_ensured(ctx).datasets, url, name=name, store=not no_download), as_json)


@data_group.command("update")
@click.argument("name")
@json_option
@workspace_option
@click.pass_context
def update_command(ctx: click.Context, name: str, as_json: bool) -> None:
    """Look at the source of the newest version again, and add a version where it changed."""
    datasets = workspace_of(ctx).datasets
    before = datasets.get(name).find()
    version = update(datasets, name)
    if not as_json and version == before:
        say(f"{clean(version)} is up to date with {clean(version.source_text)}")
        return
    _tell(version, as_json)


@data_group.command("list")
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
            say(to_json([_as_dict(version) for version in versions]))
            return
        show(_version_table(versions))
        return
    found = list(datasets)
    if as_json:
        say(to_json([_dataset_as_dict(dataset) for dataset in found]))
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
                Text(ago(_moment(newest), datetime.now(UTC)) if newest else "-"),
                _state(newest),
            )
        )
    show(table(["name", ("latest", "right"), ("files", "right"), ("size", "right"), "added", ""], rows))


@data_group.command("show")
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
        told = _as_dict(found) | {"form": found.manifest.form, "facts": dict(found.manifest.facts)}
        told |= {"not_hashed": list(found.manifest.not_hashed), "tables": found.tables}
        told["files"] = [_file_as_dict(file) for file in found.files]
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
        _show_files(found.files)


@data_group.command("diff")
@click.argument("before", metavar="NAME@V")
@click.argument("after", metavar="[NAME@]V")
@click.option("--no-rows", is_flag=True, help="Do not compare the rows of tables.")
@click.option("--samples", default=5, show_default=True, help="How many rows to show.")
@json_option
@workspace_option
@click.pass_context
def diff_command(ctx: click.Context, before: str, after: str, no_rows: bool, samples: int, as_json: bool) -> None:
    """Say what two versions have apart: files, and for tables rows and how the columns are spread."""
    from runstone.datasets.diff import diff  # Arrow, only here

    datasets = workspace_of(ctx).datasets
    first = datasets.find(before)
    is_named = "@" in after or after in datasets
    second = datasets.find(after if is_named else f"{first.name}@{after}")
    found = diff(first, second, rows=not no_rows, samples=samples)
    if as_json:
        say(to_json({"before": str(first), "after": str(second), **_difference_as_dict(found)}))
        return
    _show_difference(first, second, found)


@data_group.command("checkout")
@click.argument("version", metavar="NAME@V")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Read-only hard links, where bytes cannot be shared otherwise.")
@click.option("--force", is_flag=True, help="Write over files that were changed.")
@click.option("--exact", is_flag=True, help="Remove files that only other versions have; they can be had again.")
@json_option
@workspace_option
@click.pass_context
def checkout_command(
    ctx: click.Context, version: str, target: Path | None, link: bool, force: bool, exact: bool, as_json: bool
) -> None:
    """Write a version to TARGET, byte for byte. Default: the name of its file or folder, here.

    Files that were changed and are in no stored version are not written over without --force.
    """
    workspace = workspace_of(ctx)
    datasets = workspace.datasets
    found = datasets.find(version)
    known = datasets.get(found.name).stored_files()
    place = target if target is not None else _place_of(found)
    done = check_out(found, workspace.blobs, place, link=link, force=force, exact=exact, known=known)
    if as_json:
        say(to_json({"version": str(found), **{key: getattr(done, key) for key in done.__slots__ if key != "path"}}))
        return
    linked = f", {done.linked:,} of them linked" if done.linked else ""
    removed = f", removed {counted(done.removed, 'file')}" if done.removed else ""
    wrote = f"wrote {counted(done.written, 'file')}{linked} to {clean(done.path)}"
    say(f"{clean(found)}: {wrote}, {done.unchanged:,} unchanged{removed}")
    if done.others:
        say(f"{counted(done.others, 'file')} of other versions are still there; --exact removes them")


@data_group.command("push")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@click.option("--to", "place", help="Folder or URL. Default: the remote store of the workspace.")
@click.option("--check", is_flag=True, help="Read back and hash what was sent.")
@json_option
@workspace_option
@click.pass_context
def push_command(ctx: click.Context, names: Sequence[str], place: str | None, check: bool, as_json: bool) -> None:
    """Send datasets, all or those named, to a folder or URL. Goes on where a push was broken off."""
    from runstone.datasets.exchange import elsewhere_of, push  # fsspec, only here

    workspace = workspace_of(ctx)
    there = elsewhere_of(workspace.path, place)
    _tell_moved("sent", push(workspace.datasets, names, there, check=check), as_json)


@data_group.command("pull")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@click.option("--from", "place", help="Folder or URL. Default: the remote store of the workspace.")
@json_option
@workspace_option
@click.pass_context
def pull_command(ctx: click.Context, names: Sequence[str], place: str | None, as_json: bool) -> None:
    """Fetch datasets, all or those named, from a folder or URL. Goes on where a pull was broken off."""
    from runstone.datasets.exchange import elsewhere_of, pull  # fsspec, only here

    workspace = _ensured(ctx)
    _tell_moved("fetched", pull(workspace.datasets, names, elsewhere_of(workspace.path, place)), as_json)


@data_group.command("verify")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@json_option
@workspace_option
@click.pass_context
def verify_command(ctx: click.Context, names: Sequence[str], as_json: bool) -> None:
    """Read histories and content again, and name what is not as it was recorded.

    Exit code 1 where something is found.
    """
    workspace = workspace_of(ctx)
    datasets = workspace.datasets
    chosen: Iterable[tuple[Dataset, str | None]] = [(dataset, None) for dataset in datasets]
    if names:
        refs = [(DatasetRef.parse(name), "@" in name) for name in names]
        chosen = [(datasets.get(ref.name), ref.selector if is_one else None) for ref, is_one in refs]
    problems = [one for dataset, selector in chosen for one in verify(dataset, workspace.blobs, selector=selector)]
    if as_json:
        say(to_json([{"of": one.of, "file": one.file, "what": one.what} for one in problems]))
    else:
        for one in problems:
            say(f"{clean(one.of)}: {clean(one.file)}: {clean(one.what)}")
        say(counted(len(problems), "problem") if problems else "all as recorded")
    if problems:
        ctx.exit(1)


@data_group.command("revoke")
@click.argument("version", metavar="NAME@V")
@click.option("--reason", help="Why it must not be used any more.")
@click.option("--lift", is_flag=True, help="Take it back.")
@workspace_option
@click.pass_context
def revoke_command(ctx: click.Context, version: str, reason: str | None, lift: bool) -> None:
    """Say that a version must not be used any more. Its content stays."""
    if lift == (reason is not None):
        raise click.UsageError("give --reason TEXT, or --lift to take it back")
    ref = _exact(version)
    found = workspace_of(ctx).datasets.get(ref.name).revoke(ref.selector, reason=reason)
    say(f"{clean(found)} may be used again" if lift else f"{clean(found)} is revoked: {clean(reason)}")


@data_group.command("tag")
@click.argument("version", metavar="NAME[@V]")
@click.argument("tags", metavar="NAME=VALUE...", nargs=-1)
@click.option("--remove", multiple=True, metavar="NAME", help="Remove a tag; may be repeated.")
@click.option("--notes", help="Set the annotation, Markdown.")
@workspace_option
@click.pass_context
def tag_command(
    ctx: click.Context, version: str, tags: Sequence[str], remove: Sequence[str], notes: str | None
) -> None:
    """Set and remove tags, and the annotation, of a dataset or of one version."""
    if not (tags or remove or notes is not None):
        raise click.UsageError("give NAME=VALUE, --remove NAME or --notes TEXT")
    ref = DatasetRef.parse(version)
    dataset = workspace_of(ctx).datasets.get(ref.name)
    number = dataset.find(ref.selector).version if "@" in version else None
    if tags:
        dataset.set_tags(_pairs(tags), version=number)
    if remove:
        dataset.remove_tags(*remove, version=number)
    if notes is not None:
        dataset.set_notes(notes or None, version=number)
    said = dataset.find(number).recorded.tags if number is not None else dataset.state().tags
    say(f"{clean(version)}: {', '.join(f'{clean(key)}={clean(value)}' for key, value in said.items()) or 'no tags'}")


@data_group.command("alias")
@click.argument("version", metavar="NAME[@V]")
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Let it point to nothing.")
@workspace_option
@click.pass_context
def alias_command(ctx: click.Context, version: str, alias: str, remove: bool) -> None:
    """Let an alias point to a version, wherever it pointed before."""
    ref = DatasetRef.parse(version)
    dataset = workspace_of(ctx).datasets.get(ref.name)
    if remove:
        dataset.remove_alias(alias)
        say(f"{clean(ref.name)}@{clean(alias)} is gone")
        return
    found = dataset.set_alias(alias, ref.selector)
    say(f"{clean(ref.name)}@{clean(alias)} is {clean(found)}")


# --- what is shown ---------------------------------------------------------------------------------------------------


def _tell(version: DatasetVersion, as_json: bool) -> None:
    if as_json:
        say(to_json(_as_dict(version)))
        return
    stored = "stored" if version.is_stored else "by reference"
    files = counted(version.recorded.file_count, "file")
    say(f"{clean(version)}  {version.hash[:16]}  {files}, {size(version.size_bytes)}, {stored}")
    if version.revoked is not None:
        say(f"it was revoked: {clean(version.revoked.reason)}", stderr=True)


def _tell_moved(word: str, moved: Iterable[Moved], as_json: bool) -> None:
    told = []
    for one in moved:
        told.append({key: getattr(one, key) for key in one.__slots__})
        if not as_json:
            news = f"{counted(one.count, 'file')} ({size(one.size_bytes)}) and {counted(one.events, 'event')}"
            say(f"{clean(one.name)}: {word} {news}; {one.there_already:,} files were there already")
            if one.by_reference:
                say(
                    f"    {counted(one.by_reference, 'version')} by reference: only hashes, their content is not stored"
                )
    if as_json:
        say(to_json(told))
    elif not told:
        say("there is no dataset")


def _version_table(versions: Sequence[DatasetVersion]) -> Any:
    now = datetime.now(UTC)
    rows = [
        (
            cell(version.version),
            Text(version.hash[:12]),
            Text(f"{version.recorded.file_count:,}"),
            Text(size(version.size_bytes)),
            Text(ago(_moment(version), now)),
            cell(version.recorded.author),
            cell(", ".join(version.recorded.aliases) or None),
            _state(version),
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


def _state(version: DatasetVersion | None) -> Text:
    if version is None or (version.revoked is None and version.is_stored):
        return Text("")
    return Text("by reference") if version.revoked is None else Text("revoked", style="bold red")


def _facts(version: DatasetVersion) -> list[tuple[str, Any]]:
    recorded = version.recorded
    facts: list[tuple[str, Any]] = [
        ("version", str(version)),
        ("hash", version.hash),
        ("files", f"{recorded.file_count:,}, {size(recorded.size_bytes)}"),
        ("content", "stored" if version.is_stored else "by reference"),
        ("added", f"{moment_text(_moment(version))} by {recorded.author}"),
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


def _show_files(files: Sequence[TreeFile]) -> None:
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


def _show_difference(before: DatasetVersion, after: DatasetVersion, found: Difference) -> None:
    if found.is_empty:
        say(f"{clean(before)} and {clean(after)} hold the same files")
        return
    rows = [_change_row(word, style, one) for word, style, changes in _changes(found) for one in changes[:_MOST_ROWS]]
    show(table(["", "file", ("before", "right"), ("after", "right")], rows))
    for word, _style, changes in _changes(found):
        if len(changes) > _MOST_ROWS:
            say(f"and {len(changes) - _MOST_ROWS:,} more {word}; --json lists all")
    counts = ", ".join(f"{len(changes):,} {word}" for word, _style, changes in _changes(found) if changes)
    say(f"{counts}; {size(before.size_bytes)} became {size(after.size_bytes)}")
    if found.rows is not None:
        _show_rows(found.rows)
    if found.columns:
        say()
        show(
            table(
                ["column", "type", ("PSI", "right"), ("JS", "right"), "mean", "nulls"], map(_column_row, found.columns)
            )
        )


def _changes(found: Difference) -> list[tuple[str, str, list[Change]]]:
    return [
        ("added", "green", found.added),
        ("removed", "red", found.removed),
        ("changed", "yellow", found.changed),
        ("renamed", "cyan", found.renamed),
    ]


def _change_row(word: str, style: str, one: Change) -> tuple[Text, Text, Text, Text]:
    path = shown_path(one.path)
    if word == "renamed" and one.before is not None:
        path = f"{shown_path(one.before.path)} -> {path}"
    sizes = [Text(size(file.size_bytes)) if file is not None else Text("-") for file in (one.before, one.after)]
    return Text(word, style=style), cell(path), sizes[0], sizes[1]


def _show_rows(rows: RowDifference) -> None:
    say()
    say(f"rows: {rows.before:,} became {rows.after:,}; {rows.added:,} added, {rows.removed:,} removed")
    for sign, samples in (("-", rows.removed_samples), ("+", rows.added_samples)):
        for sample in samples:
            say(f"  {sign} {', '.join(f'{clean(key)}={clean(value)}' for key, value in sample.items())}")


def _column_row(one: ColumnDifference) -> tuple[Text, ...]:
    kind = one.before if one.before == one.after else f"{one.before or '(none)'} -> {one.after or '(none)'}"

    def pair(key: str) -> Text:
        values = one.figures.get(key)
        if values is None:
            return cell(None)
        return Text(" -> ".join("-" if value is None else f"{value:.4g}" for value in dict.fromkeys(values)))

    psi, js = (Text(f"{value:.3f}") if value is not None else cell(None) for value in (one.psi, one.js))
    if one.psi is not None and one.psi > 0.25:
        psi.stylize("bold red")
    return cell(one.name), cell(kind), psi, js, pair("mean"), pair("nulls")


# --- JSON ------------------------------------------------------------------------------------------------------------


def _as_dict(version: DatasetVersion) -> dict[str, Any]:
    recorded = version.recorded
    return {
        "name": version.name,
        "version": version.version,
        "hash": version.hash,
        "stored": version.is_stored,
        "file_count": recorded.file_count,
        "size_bytes": recorded.size_bytes,
        "added_at": _moment(version),
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


def _dataset_as_dict(dataset: Dataset) -> dict[str, Any]:
    state, versions = dataset.state(), dataset.versions()
    return {
        "name": state.name,
        "versions": len(versions),
        "latest": _as_dict(versions[0]) if versions else None,
        "aliases": dict(state.aliases),
        "tags": state.tags,
        "notes": state.notes,
    }


def _file_as_dict(file: TreeFile) -> dict[str, Any]:
    told: dict[str, Any] = {"path": shown_path(file.path), "hash": file.hash, "size_bytes": file.size_bytes}
    told |= {"executable": True} if file.is_executable else {}
    told |= {"link": shown_path(file.link)} if file.link is not None else {}
    return told | ({"folder": True} if file.is_folder else {})


def _difference_as_dict(found: Difference) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for word, _style, changes in _changes(found):
        told[word] = [
            {
                "path": shown_path(one.path),
                "before": _file_as_dict(one.before) if one.before is not None else None,
                "after": _file_as_dict(one.after) if one.after is not None else None,
            }
            for one in changes
        ]
    told["rows"] = {key: getattr(found.rows, key) for key in found.rows.__slots__} if found.rows is not None else None
    told["columns"] = [{key: getattr(one, key) for key in one.__slots__} for one in found.columns]
    return told


# --- what was given --------------------------------------------------------------------------------------------------


def _moment(version: DatasetVersion) -> datetime:
    return datetime.fromtimestamp(version.recorded.added_at, UTC)


def _pairs(tags: Sequence[str]) -> dict[str, str]:
    wrong = next((tag for tag in tags if "=" not in tag), None)
    if wrong is not None:
        raise click.UsageError(f"a tag is NAME=VALUE, got {wrong!r}")
    return {key: value for key, _, value in (tag.partition("=") for tag in tags)}


def _exact(version: str) -> DatasetRef:
    if "@" not in version:
        raise InvalidValue(f"{version!r:.80} names no version; write {version[:40]}@3")
    return DatasetRef.parse(version)


def _place_of(version: DatasetVersion) -> Path:
    source = version.source.get("path") or version.source.get("url")
    name = Path(str(source)).name if source is not None and not is_url(version.name) else version.name
    if version.manifest.form == "file":
        name = shown_path(version.manifest.files[0].path)
    return Path(name.replace("/", "_") or "data")
