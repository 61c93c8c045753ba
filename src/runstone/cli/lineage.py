"""`runstone lineage` and `runstone revoke`: where things come from, where they went, and what must not be used."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import click

from runstone.cli._output import clean, counted, say, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.errors import TrackingWarning


@click.command("lineage")
@click.argument("ref", metavar="X")
@click.option("--up", "is_up", is_flag=True, help="Only what it came of.")
@click.option("--down", "is_down", is_flag=True, help="Only what came of it.")
@click.option("--depth", type=click.IntRange(min=1), help="At most so many steps each way.")
@click.option(
    "--format", "form", type=click.Choice(["tree", "dot", "json", "prov", "html"]), default="tree", show_default=True
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--all", "all_runs", is_flag=True, help="In the tree: every run, however many are alike.")
@workspace_option
@click.pass_context
def lineage_command(
    ctx: click.Context,
    ref: str,
    is_up: bool,
    is_down: bool,
    depth: int | None,
    form: str,
    output: Path | None,
    all_runs: bool,
) -> None:
    """Show what X came of, and what came of it: from raw data to where a model stands.

    X is a run, model:NAME@V, dataset:NAME@V, source:PATH-OR-URL, or the hash of an artifact.
    """
    up, down = is_up or not is_down, is_down or not is_up
    found = workspace_of(ctx).lineage(ref, up=up, down=down, depth=depth)
    if form == "tree":
        text = found.to_tree(up=up, down=down, all_runs=all_runs)
    elif form == "dot":
        text = found.to_dot()
    elif form == "html":
        text = found.to_html()
    else:
        text = to_json(found.to_dict() if form == "json" else found.to_prov())
    if output is None:
        say(clean(text, lines=True) if form in ("tree", "dot") else text)
    else:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        say(f"wrote {clean(output)}")


@click.command("revoke")
@click.argument("ref", metavar="X")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@click.option("--undo", is_flag=True, help="Take the revocation back.")
@click.option("--dry-run", is_flag=True, help="Only say what descends from it.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the list there.")
@workspace_option
@click.pass_context
def revoke_command(
    ctx: click.Context, ref: str, reason: str | None, undo: bool, dry_run: bool, form: str, output: Path | None
) -> None:
    """Say that X must not be used: no version of a model that descends from it can be promoted any more.

    X is dataset:NAME@V, model:NAME@V or run:ID. What descends from it is listed, and noted in the models' histories.
    """
    from runstone.lineage.query import find
    from runstone.lineage.revoking import COLUMNS, Revocation, affected_by, is_in_use, revoke

    if (reason is None) != undo and not dry_run:
        raise click.UsageError("give either --reason TEXT or --undo")
    workspace = workspace_of(ctx)
    if dry_run:
        graph, key = find(workspace, ref)
        affected = affected_by(graph, key)
        found = Revocation(key, reason, affected, tuple(node for node in affected if is_in_use(node)))
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TrackingWarning)
            found = revoke(workspace, ref, reason=None if undo else reason)
        for warning in caught:
            say(f"warning: {clean(warning.message)}", stderr=True)
    if form == "json":
        text = to_json(found.to_dict()) + "\n"
    elif form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "aliases": " ".join(row["aliases"])} for row in found.rows())
        text = buffer.getvalue()
    else:
        word = "would be revoked" if dry_run else "is no longer revoked" if undo else "is revoked"
        lines = [f"{clean(found.key)} {word}: {counted(len(found.affected), 'thing')} came of it"]
        lines += [f"  {node.kind} {clean(node.label)}" for node in found.affected]
        lines += [f"in use: {clean(node.key)} ({clean(node.facts.get('stage'))})" for node in found.in_use]
        text = "\n".join(lines) + "\n"
    if output is None:
        say(text, newline=False)
    else:
        output.write_text(text, encoding="utf-8")
        say(f"wrote {counted(len(found.affected), 'row')} to {clean(output)}", stderr=True)
