"""`runstone report`: reports of a workspace, and Markdown with live blocks as one HTML file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.text import Text

from runstone.cli._output import ago, clean, is_terminal, moment_text, say, show, table, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import NotFound
from runstone.reports import TEMPLATE, Reports, read_text, render_page


@click.group("report", cls=Suggesting)
def report_group() -> None:
    """Write reports in Markdown, with live tables and figures, and render them to one HTML file."""


@report_group.command("new")
@click.argument("name")
@click.option(
    "--from", "source", type=click.Path(path_type=Path, dir_okay=False), help="Begin with the text of this file."
)
@workspace_option
@click.pass_context
def new_command(ctx: click.Context, name: str, source: Path | None) -> None:
    """Make a report in the workspace and say where its text lies; any editor may change it."""
    text = read_text(source) if source is not None else TEMPLATE.format(name=name.replace("\n", " "))
    say(str(Reports(workspace_of(ctx).path).create(name, text).path))


@report_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@workspace_option
@click.pass_context
def list_command(ctx: click.Context, as_json: bool) -> None:
    """List the reports of the workspace."""
    found = Reports(workspace_of(ctx).path).list()
    if as_json:
        say(
            to_json(
                [
                    {
                        "name": report.name,
                        "path": str(report.path),
                        "created_at": report.created_at,
                        "changed_at": report.changed_at,
                    }
                    for report in found
                ]
            )
        )
        return
    if not found:
        say("no reports; `runstone report new NAME` makes one")
        return
    now = datetime.now(UTC)
    rows = []
    for report in found:
        changed = datetime.fromtimestamp(report.changed_at, UTC)
        when = ago(changed, now) if is_terminal() else moment_text(changed)
        rows.append([Text(clean(report.name), style="bold"), Text(when), Text(clean(report.path), style="dim")])
    show(table(["name", "changed", "text"], rows))


@report_group.command("show")
@click.argument("name")
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, name: str) -> None:
    """Print the text of a report."""
    say(clean(Reports(workspace_of(ctx).path).get(name).read(), lines=True), newline=False)


@report_group.command("render")
@click.argument("report", metavar="NAME|FILE.md")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: beside the text, as .html.")
@workspace_option
@click.pass_context
def render_command(ctx: click.Context, report: str, output: Path | None) -> None:
    """Render a report of the workspace, or a Markdown file, to one HTML file that needs no network."""
    workspace = workspace_of(ctx)
    path = Path(report)
    is_file = path.suffix.lower() in (".md", ".markdown") or path.is_file()
    if is_file and not path.is_file():
        raise NotFound(f"there is no file {report!r:.200}")
    if not is_file:
        path = Reports(workspace.path).get(report).path
    page = render_page(workspace, read_text(path), folder=path.parent)
    target = output if output is not None else path.with_suffix(".html")
    target.write_text(page, encoding="utf-8", errors="replace")
    say(str(target))
