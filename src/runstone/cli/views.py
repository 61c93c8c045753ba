"""`runstone views`: filters, orders, columns and charts under a name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO

import click
from rich.text import Text

from runstone import views
from runstone.cli._output import cell, clean, say, show, table, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import InvalidValue
from runstone.values import JSON


@click.group("views", cls=Suggesting)
@workspace_option
def views_group() -> None:
    """Save what to show of which runs; `runstone runs list --view NAME` shows it, and so does the page."""


@views_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def list_command(ctx: click.Context, as_json: bool) -> None:
    """List the saved views."""
    found = views.list_views(workspace_of(ctx).path)
    if as_json:
        say(to_json([view.to_dict() for view in found]))
    elif found:
        rows = [
            (
                Text(clean(view.name), style="bold"),
                cell(view.filter or None),
                cell(view.order_by or None),
                cell(", ".join(view.columns) or None),
                cell(", ".join(view.group_by) or None),
            )
            for view in found
        ]
        show(table(["name", ("filter", "fold"), "order by", ("columns", "fold"), "group by"], rows))
    else:
        say("no views yet; `runstone views save NAME --filter FILTER` makes one", stderr=True)


@views_group.command("show")
@click.argument("name")
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, name: str) -> None:
    """Show a saved view, as JSON."""
    say(to_json(views.load(workspace_of(ctx).path, name).to_dict()))


@views_group.command("save")
@click.argument("name")
@click.option("-f", "--filter", default="", metavar="FILTER", help="Which runs. Default: all.")
@click.option("--order-by", default="", metavar="FIELDS", help="Such as 'metrics.loss.min'. Default: newest first.")
@click.option("--column", "columns", multiple=True, metavar="FIELD", help="A column; may be repeated.")
@click.option("--group-by", multiple=True, metavar="FIELD", help="What groups runs; may be repeated.")
@click.option("--charts", type=click.File("rb"), metavar="FILE", help="Charts, as JSON; - for standard input.")
@workspace_option
@click.pass_context
def save_command(
    ctx: click.Context,
    name: str,
    filter: str,
    order_by: str,
    columns: Sequence[str],
    group_by: Sequence[str],
    charts: IO[bytes] | None,
) -> None:
    """Save a view under NAME, in place of one that has it."""
    told: JSON = []
    if charts is not None:
        try:
            told = json.loads(charts.read())
        except (ValueError, RecursionError) as error:
            raise InvalidValue(f"{charts.name} is no JSON: {error}") from None
    view = views.View(name, filter, order_by, tuple(columns), tuple(group_by), told)
    is_there = views.save(workspace_of(ctx).path, view)
    say(f"{'replaced' if is_there else 'saved'} {clean(name)}; `runstone runs list --view` shows it")


@views_group.command("delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@workspace_option
@click.pass_context
def delete_command(ctx: click.Context, names: Sequence[str]) -> None:
    """Remove saved views; the runs stay."""
    workspace = workspace_of(ctx)
    for view in [views.load(workspace.path, name) for name in names]:  # a typo must not leave half of it done
        views.delete(workspace.path, view.name)
        say(f"removed {clean(view.name)}")
