"""`runstone import bundle`: runs that came as one file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from runstone.cli._output import clean, counted, say, short_id, show, size, table, to_json
from runstone.cli.main import workspace_option
from runstone.workspace import ensure_workspace

if TYPE_CHECKING:
    from runstone.bundle import ImportedBundle

_STYLE = {"new": "green", "grown": "cyan", "unchanged": "dim", "different": "red"}


@click.command("bundle")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--as-new", is_flag=True, help="Give every run a new id, so that it stands beside what is here.")
@click.option("--dry-run", is_flag=True, help="Check the bundle, change nothing, and say what would come of it.")
@click.option("--json", "as_json", is_flag=True, help="What came of each run, as JSON.")
@workspace_option
@click.pass_context
def import_bundle_command(ctx: click.Context, file: Path, as_new: bool, dry_run: bool, as_json: bool) -> None:
    """Take the runs of a bundle, which `runstone export --bundle` made, into the workspace.

    All of it is checked by hash before anything is taken. A run that is here already takes what the bundle has more;
    one that says something else is refused, and the others are taken. Importing again changes nothing.
    """
    from runstone.bundle import import_bundle  # only here

    workspace = ensure_workspace(ctx.find_root().obj)
    result = import_bundle(workspace, file, as_new=as_new, dry_run=dry_run)
    if as_json:
        say(to_json({**asdict(result), "is_dry": dry_run}))
    else:
        _print(result, dry_run=dry_run)
    ctx.exit(1 if any(run.outcome == "different" for run in result.runs) else 0)


def _print(result: ImportedBundle, *, dry_run: bool) -> None:
    rows = [
        [
            Text(run.outcome, style=_STYLE[run.outcome]),
            Text(short_id(run.run_id), style="dim"),
            Text(clean(run.project)),
            Text(clean(run.name)),
            Text(clean(run.reason or ("deleted here" if run.is_deleted else ""))),
        ]
        for run in result.runs
    ]
    show(table(["", "id", "project", "name", ("", "fold")], rows))
    outcomes = Counter(run.outcome for run in result.runs)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    say(f"\n{counted(len(result.runs), 'run')}{' checked' if dry_run else ''}: {told}")
    new = f"{result.contents_new:,} new ({size(result.content_bytes)})"
    say(f"{counted(result.contents, 'content')}: {new}")
    if result.missing:
        say(f"warning: {counted(len(result.missing), 'content')} that they refer to are not in the bundle", stderr=True)
