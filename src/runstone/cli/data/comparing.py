"""`runstone data diff`: what two versions have apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from runstone.cli._output import cell, clean, say, show, size, table, to_json
from runstone.cli.data.common import file_as_dict, json_option
from runstone.cli.main import workspace_of, workspace_option
from runstone.datasets import DatasetVersion
from runstone.datasets.manifest import shown_path

if TYPE_CHECKING:
    from runstone.datasets.diff import Change, ColumnDifference, Difference
    from runstone.datasets.rows import RowDifference

_MOST_ROWS = 50


@click.command("diff")
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
        say(to_json({"before": str(first), "after": str(second), **difference_as_dict(found)}))
        return
    show_difference(first, second, found)


def show_difference(before: DatasetVersion, after: DatasetVersion, found: Difference) -> None:
    if found.is_empty:
        say(f"{clean(before)} and {clean(after)} hold the same files")
        return
    rows = [_change_row(word, style, one) for word, style, changes in changes_of(found) for one in changes[:_MOST_ROWS]]
    show(table(["", "file", ("before", "right"), ("after", "right")], rows))
    for word, _style, changes in changes_of(found):
        if len(changes) > _MOST_ROWS:
            say(f"and {len(changes) - _MOST_ROWS:,} more {word}; --json lists all")
    counts = ", ".join(f"{len(changes):,} {word}" for word, _style, changes in changes_of(found) if changes)
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


def changes_of(found: Difference) -> list[tuple[str, str, list[Change]]]:
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


def difference_as_dict(found: Difference) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for word, _style, changes in changes_of(found):
        told[word] = [
            {
                "path": shown_path(one.path),
                "before": file_as_dict(one.before) if one.before is not None else None,
                "after": file_as_dict(one.after) if one.after is not None else None,
            }
            for one in changes
        ]
    told["rows"] = {key: getattr(found.rows, key) for key in found.rows.__slots__} if found.rows is not None else None
    told["columns"] = [{key: getattr(one, key) for key in one.__slots__} for one in found.columns]
    return told
