"""`runstone seal` and `runstone export`: the files of runs, made compact or taken elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from runstone.cli._output import clean, counted, say, short_id, size
from runstone.cli.main import workspace_of, workspace_option
from runstone.errors import AlreadyExists, InvalidValue, RunstoneError
from runstone.names import folder_name
from runstone.runinfo import RunInfo


@click.command("seal")
@click.argument("runs", metavar="[RUN...]", nargs=-1)
@workspace_option
@click.pass_context
def seal_command(ctx: click.Context, runs: Sequence[str]) -> None:
    """Make the metrics of ended runs compact: one checksummed Parquet file for each, about a tenth of the size.

    Without RUN, all ended runs. Loses nothing; a run that is resumed later can be sealed again. Wall times are kept to
    the millisecond. DuckDB, pandas and polars read `metrics.parquet` in the run's folder as it is.
    """
    workspace = workspace_of(ctx)
    run_ids = [workspace.run(name).id for name in runs] or sorted(path.name for path in workspace.run_folders())
    count = points = before = after = 0
    troubles = []
    for run_id in run_ids:
        try:
            sealing = workspace.seal(run_id)
        except (RunstoneError, OSError) as error:  # one damaged run must not keep the others as they are
            troubles.append(f"{short_id(run_id)}: {error}")
            continue
        if sealing is not None:
            count, points = count + 1, points + sealing.points
            before, after = before + sealing.bytes_before, after + sealing.bytes_after
    if count:
        say(f"sealed {counted(count, 'run')} of {counted(points, 'point')}: {size(before)} became {size(after)}")
    else:
        say("nothing to seal: the runs are sealed already, are running, or have no metrics")
    for trouble in troubles:
        say(f"could not seal {clean(trouble)}", stderr=True)
    if troubles:
        ctx.exit(1)


@click.command("export")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--parquet", "as_parquet", is_flag=True, help="Points as Parquet (the default).")
@click.option("--csv", "as_csv", is_flag=True, help="Points as CSV.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File, or folder for several runs. Default: here."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@workspace_option
@click.pass_context
def export_command(
    ctx: click.Context, runs: Sequence[str], as_parquet: bool, as_csv: bool, output: Path | None, force: bool
) -> None:
    """Write all points of RUN into a file that other tools read: columns metric, step, time, value, attempt, …"""
    if as_parquet and as_csv:
        raise InvalidValue("--parquet and --csv cannot both be; export twice")
    workspace = workspace_of(ctx)
    ending = "csv" if as_csv else "parquet"
    found = [workspace.run(name) for name in runs]
    for info in found:
        path = _place(info, output, ending, is_single=len(found) == 1)
        if path.exists() and not force:
            raise AlreadyExists(f"{path} is there already; --force writes over it, -o names another")
        count = _write(info, path, as_csv=as_csv)
        say(f"{counted(count, 'point')} of {clean(info.name)}: {clean(path)}, {size(path.stat().st_size)}")


def _place(info: RunInfo, output: Path | None, ending: str, *, is_single: bool) -> Path:
    name = f"{folder_name(info.name)}-{short_id(info.id)}.{ending}"
    if output is None:
        return Path(name)
    if is_single and not output.is_dir() and output.suffix:
        return output
    output.mkdir(parents=True, exist_ok=True)
    return output / name


def _write(info: RunInfo, path: Path, *, as_csv: bool) -> int:
    import pyarrow.csv  # heavy, only here
    import pyarrow.parquet

    table = info.points()
    partial = path.with_name(f"{path.name}.partial")
    try:
        if as_csv:
            metric = table["metric"].cast("string")
            pyarrow.csv.write_csv(table.set_column(0, "metric", metric), partial)
        else:
            pyarrow.parquet.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return len(table)
