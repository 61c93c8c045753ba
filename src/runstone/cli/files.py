"""`runstone seal` and `runstone export`: the files of runs, made compact or taken elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from runstone.cli._output import clean, counted, say, short_id, size
from runstone.cli.main import workspace_of, workspace_option
from runstone.errors import AlreadyExists, RunstoneError
from runstone.names import folder_name
from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

_FORMS = {"parquet": "parquet", "csv": "csv", "json": "json", "bundle": "runstone.zip"}


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
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("-f", "--filter", metavar="FILTER", help="The runs that this filter describes.")
@click.option("--parquet", "form", flag_value="parquet", default=True, help="Points as Parquet (the default).")
@click.option("--csv", "form", flag_value="csv", help="Points as CSV.")
@click.option("--json", "form", flag_value="json", help="All of a run and its points as JSON.")
@click.option("--bundle", "form", flag_value="bundle", help="Runs and all their content as one file, to be imported.")
@click.option("--tensorboard", "form", flag_value="tensorboard", help="TensorBoard event files, below the folder -o.")
@click.option(
    "--mlflow",
    "form",
    flag_value="mlflow",
    help="A SQLite store of MLflow in the folder -o.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File, or folder for several runs. Default: here."
)
@click.option("--no-content", is_flag=True, help="With --bundle: leave artifacts and media out.")
@click.option("--python", type=click.Path(path_type=Path), help="With --mlflow: an interpreter that has MLflow.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@workspace_option
@click.pass_context
def export_command(
    ctx: click.Context,
    runs: Sequence[str],
    filter: str | None,
    form: str,
    output: Path | None,
    no_content: bool,
    python: Path | None,
    force: bool,
) -> None:
    """Take runs elsewhere: points as columns (metric, step, time, value, attempt, …), or all that was recorded.

    \b
    runstone export RUN --csv -o points.csv
    runstone export --filter "project = 'digits'" --bundle -o digits.runstone.zip
    runstone export RUN --tensorboard -o logs && tensorboard --logdir logs
    """
    if no_content and form != "bundle":
        raise click.UsageError("--no-content is of --bundle")
    if python is not None and form != "mlflow":
        raise click.UsageError("--python is of --mlflow")
    workspace = workspace_of(ctx)
    found = chosen_runs(workspace, runs, filter)
    match form:
        case "bundle":
            _bundle(workspace, found, output, with_content=not no_content, force=force)
        case "tensorboard":
            _tensorboard(found, output)
        case "mlflow":
            _mlflow(found, output, python)
        case _:
            _files(found, form, output, force=force)


def chosen_runs(workspace: Workspace, runs: Sequence[str], filter: str | None) -> list[RunInfo]:
    """Return the runs that a command line names or describes, each once.

    Raises:
        UsageError: it does neither, or both.
    """
    if bool(runs) == (filter is not None):
        raise click.UsageError("name runs, or choose them by --filter")
    if filter is None:
        return list({info.id: info for info in map(workspace.run, runs)}.values())
    found = list(workspace.runs(filter, archived=None))
    if not found:
        raise click.UsageError("no run matches")
    return found


def _files(found: Sequence[RunInfo], form: str, output: Path | None, *, force: bool) -> None:
    from runstone.exporting import write_csv, write_json, write_parquet  # Arrow, only here

    write: Callable[[RunInfo, Path], int] = {"csv": write_csv, "json": write_json}.get(form, write_parquet)
    for info in found:
        path = _place(info, output, _FORMS[form], is_single=len(found) == 1)
        _check_free(path, force=force)
        partial = path.with_name(f"{path.name}.partial")
        try:
            count = write(info, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        say(f"{counted(count, 'point')} of {clean(info.name)}: {clean(path)}, {size(path.stat().st_size)}")


def _bundle(
    workspace: Workspace, found: Sequence[RunInfo], output: Path | None, *, with_content: bool, force: bool
) -> None:
    from runstone.bundle import write_bundle  # only here

    name = "runs.runstone.zip"
    if len(found) == 1 or (output is not None and output.suffix and not output.is_dir()):
        path = _place(found[0], output, _FORMS["bundle"], is_single=True)
    else:
        path = (output or Path()) / name
        path.parent.mkdir(parents=True, exist_ok=True)
    _check_free(path, force=force)
    made = write_bundle([info.path for info in found], path, workspace.blobs, with_content=with_content)
    contents = counted(len(made.manifest.contents), "content")
    say(f"{counted(len(made.manifest.runs), 'run')} with {contents}: {clean(path)}, {size(made.size_bytes)}")
    if made.living:
        say(f"{counted(len(made.living), 'run')} still running: it is in the bundle as it stood", stderr=True)
    if made.manifest.missing:
        missing = counted(len(made.manifest.missing), "content")
        say(f"warning: {missing} that they refer to could not be had", stderr=True)
    for trouble in made.troubles:
        say(f"warning: {clean(trouble)}", stderr=True)


def _tensorboard(found: Sequence[RunInfo], output: Path | None) -> None:
    from runstone.exporting import write_event_files  # tensorboardX, only here

    logdir = (output if output is not None else Path("tensorboard")).expanduser().absolute()
    for info in found:
        folder, count = write_event_files(info, logdir)
        say(f"{counted(count, 'point')} of {clean(info.name)}: {clean(folder)}")


def _mlflow(found: Sequence[RunInfo], output: Path | None, python: Path | None) -> None:
    from runstone.mlflow_export import export_lines, export_to_mlflow  # only here

    dest = (output if output is not None else Path("mlflow")).expanduser()
    for line in export_lines(export_to_mlflow(found, dest, python=python)):
        say(clean(line))


def _check_free(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise AlreadyExists(f"{path} is there already; --force writes over it, -o names another")


def _place(info: RunInfo, output: Path | None, ending: str, *, is_single: bool) -> Path:
    name = f"{folder_name(info.name)}-{short_id(info.id)}.{ending}"
    if output is None:
        return Path(name)
    if is_single and not output.is_dir() and output.suffix:
        return output
    output.mkdir(parents=True, exist_ok=True)
    return output / name
