"""`sweep report`, `compare`, `export`, `register`, `to-optuna`: a sweep as a file, or in another program."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from runstone import open_workspace
from runstone_sweeps.cli._shared import find_sweep, find_trial, make_console, status_of, workspace_option

_OUTPUT = click.Path(path_type=Path, dir_okay=False)


@click.command("report")
@click.argument("sweep")
@click.option("-o", "--output", type=_OUTPUT, help="The file; default report.html beside the sweep.")
@workspace_option
def report_command(sweep: str, output: Path | None, workspace_path: str | None) -> None:
    """Write an HTML report of SWEEP: one file, to be opened anywhere."""
    from runstone_sweeps.report.writing import write_report
    from runstone_sweeps.store import recorded_spec

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    click.echo(write_report(folder, record, recorded_spec(record, is_for_reading=True), output))


@click.command("compare")
@click.argument("sweeps", nargs=-1, required=True)
@click.option("--html", "output", type=_OUTPUT, help="Write it as an HTML file too, with the curves.")
@workspace_option
def compare_command(sweeps: tuple[str, ...], output: Path | None, workspace_path: str | None) -> None:
    """Show two or more SWEEPS side by side."""
    from runstone_sweeps.results.comparison import Compared, compare
    from runstone_sweeps.results.text import clean
    from runstone_sweeps.store import recorded_spec

    if len(sweeps) < 2:
        raise click.UsageError("give two sweeps or more")
    workspace = open_workspace(workspace_path)
    compared = []
    for reference in sweeps:
        folder = find_sweep(workspace, reference)
        record = folder.read()
        compared.append(Compared(record, recorded_spec(record, is_for_reading=True), status_of(folder, record)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", *(f"{sweep.record.name} ({sweep.record.sweep_id[-8:]})" for sweep in compared)):
        table.add_column(Text(clean(title)), overflow="fold")
    for title, cells in compare(compared):
        table.add_row(Text(clean(title), style="dim"), *(Text(clean(cell)) for cell in cells))
    make_console().print(table)
    if output is not None:
        from runstone_sweeps.report.comparing import write_comparison  # needs plotly

        click.echo(write_comparison(compared, output))


@click.command("export")
@click.argument("sweep")
@click.option("--csv", "format_", flag_value="csv", help="A row for each trial (the default).", default=True)
@click.option("--json", "format_", flag_value="json", help="The sweep as one JSON object.")
@click.option("--trials", "format_", flag_value="trials", help="A JSON object a line for each trial, reports included.")
@click.option("--parquet", "format_", flag_value="parquet", help="A row for each trial; needs -o and pyarrow.")
@click.option("-o", "--output", type=_OUTPUT, help="The file; default the standard output.")
@workspace_option
def export_command(sweep: str, format_: str, output: Path | None, workspace_path: str | None) -> None:
    """Write the trials of SWEEP for other programs."""
    from runstone_sweeps.results import export
    from runstone_sweeps.store import recorded_spec

    record = find_sweep(open_workspace(workspace_path), sweep).read()
    spec = recorded_spec(record, is_for_reading=True)
    if format_ == "parquet":
        if output is None:
            raise click.UsageError("--parquet needs -o FILE")
        export.write_parquet(record, spec, output)
        return
    match format_:
        case "json":
            text = json.dumps(export.to_json(record, spec), indent=2, ensure_ascii=False) + "\n"
        case "trials":
            lines = (json.dumps(trial, ensure_ascii=False) for trial in export.whole_trials(record, spec))
            text = "".join(f"{line}\n" for line in lines)
        case _:
            text = export.to_csv(record, spec)
    if output is None:
        click.echo(text.encode("utf-8", "replace").decode("utf-8"), nl=False)
    else:
        output.write_text(text, encoding="utf-8", errors="replace", newline="")


@click.command("to-optuna")
@click.argument("sweep")
@click.option("--storage", default="sqlite:///study.db", show_default=True, help="URL of a database.")
@workspace_option
def to_optuna_command(sweep: str, storage: str, workspace_path: str | None) -> None:
    """Copy SWEEP into an Optuna storage, for optuna-dashboard and the like.

    A copy that is there already is brought to where the sweep is.
    """
    from runstone_sweeps.mirror import copy_once

    folder = find_sweep(open_workspace(workspace_path), sweep)
    name = copy_once(folder, storage)
    click.echo(f"study {name}")


@click.command("register")
@click.argument("sweep")
@click.argument("name")
@click.option("--artifact", help="Which artifact of its run is the model; default the only one.")
@click.option("--trial", type=click.IntRange(0), help="Another trial than the best one.")
@click.option("--version", metavar="V", help="A number, or major, minor, patch; default what the evidence says.")
@click.option("--reason", help="Why a lower number than the proposed one is right.")
@workspace_option
def register_command(
    sweep: str,
    name: str,
    artifact: str | None,
    trial: int | None,
    version: str | None,
    reason: str | None,
    workspace_path: str | None,
) -> None:
    """Register the model of SWEEP's best trial as a new version of the model NAME."""
    from runstone_sweeps.results.text import clean

    workspace = open_workspace(workspace_path)
    folder = find_sweep(workspace, sweep)
    found = find_trial(folder.read(), trial)
    tags = {"sweep": folder.id, "trial": str(found.number)}
    made = workspace.register_model(name, found.run_id, artifact=artifact, version=version, reason=reason, tags=tags)
    click.echo(f"registered {clean(str(made))} from trial {found.number}")
    for reason_found in made.proposal.get("reasons", ()):
        click.echo(f"  {reason_found['level']}: {clean(reason_found['what'])}")
