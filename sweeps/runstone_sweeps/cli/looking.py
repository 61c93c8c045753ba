"""`sweep list`, `show`, `best`, `report`: what a sweep has found."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from runstone import NotFound, open_workspace
from runstone_sweeps.cli._shared import find_sweep, make_console, status_of, workspace_option


@click.command("list")
@workspace_option
def list_command(workspace_path: str | None) -> None:
    """List the sweeps of the workspace, the newest first."""
    from runstone_sweeps.store import Sweeps
    from runstone_sweeps.view import clean, counts_text, number

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("sweep", "name", "status", "trials", "best", "begun"):
        table.add_column(column)
    folders = list(Sweeps(open_workspace(workspace_path)))
    for folder in folders:
        record = folder.read()
        begun = datetime.fromtimestamp(record.created.get("at", 0)).astimezone()
        best = record.best
        table.add_row(
            folder.id,
            Text(clean(record.name)),
            status_of(folder, record),
            counts_text(record),
            "" if best is None else f"{number(best.value)} (trial {best.number})",
            f"{begun:%Y-%m-%d %H:%M}",
        )
    if folders:
        make_console().print(table)
    else:
        click.echo("no sweeps yet; `sweep run CONFIG` makes one")


@click.command("show")
@click.argument("sweep")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@workspace_option
def show_command(sweep: str, limit: int, workspace_path: str | None) -> None:
    """Show the trials of SWEEP, ranked, and which parameters matter."""
    from runstone_sweeps.store import recorded_spec
    from runstone_sweeps.study import search_of
    from runstone_sweeps.view import clean, counts_text, duration, failure_lines, leaderboard, print_line

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    spec = recorded_spec(record, is_for_reading=True)
    console = make_console()
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}  {status_of(folder, record)}", style="dim")
    print_line(console, line)
    about = f"{spec.metric.goal} {clean(spec.metric.name)}; {counts_text(record)}, in {duration(record.active_s)}"
    print_line(console, Text(about))
    if record.unknown:
        print_line(console, Text(f"{record.unknown} events could not be read", style="yellow"))
    if not record.trials:
        return
    console.print()
    console.print(leaderboard(record, limit=limit, hidden=spec.space.constants))
    if len(record.trials) > limit:
        print_line(console, Text(f"… and {len(record.trials) - limit} more (--limit)", style="dim"))
    console.print()
    for failure in failure_lines(record):
        print_line(console, failure)
    importances = search_of(spec, record).importances()
    if importances:
        print_line(console, Text("which parameters matter (share of the variation, PED-ANOVA)", style="bold"))
        width = max(map(len, importances))
        for name, share in importances.items():
            print_line(console, Text(f"  {clean(name):{width}}  {share:5.1%}  {'█' * round(share * 30)}"))


@click.command("best")
@click.argument("sweep")
@click.option("--json", "format_", flag_value="json", help="The params alone, as JSON.")
@click.option("--yaml", "format_", flag_value="yaml", help="The params alone, as YAML.")
@workspace_option
def best_command(sweep: str, format_: str | None, workspace_path: str | None) -> None:
    """Show the best trial of SWEEP."""
    import yaml

    from runstone_sweeps.space import nest
    from runstone_sweeps.view import clean, number, value_text

    record = find_sweep(open_workspace(workspace_path), sweep).read()
    best = record.best
    if best is None:
        raise NotFound(f"no trial of sweep {record.name} is complete yet")
    if format_ == "json":
        click.echo(json.dumps(nest(best.params), indent=2, ensure_ascii=False))
    elif format_ == "yaml":
        click.echo(yaml.safe_dump(nest(best.params), sort_keys=False, allow_unicode=True), nl=False)
    else:
        metric = clean(str(record.created["metric"]))
        click.echo(f"trial {best.number}: {metric} {number(best.value)}, run {best.run_id}")
        for name, value in best.params.items():
            click.echo(f"  {clean(name)}: {value_text(value)}")


@click.command("report")
@click.argument("sweep")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; default report.html beside the sweep.")
@workspace_option
def report_command(sweep: str, output: Path | None, workspace_path: str | None) -> None:
    """Write an HTML report of SWEEP: one file, to be opened anywhere."""
    from runstone_sweeps.report import write_report
    from runstone_sweeps.store import recorded_spec

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    click.echo(write_report(folder, record, recorded_spec(record, is_for_reading=True), output))
