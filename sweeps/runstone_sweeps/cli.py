"""The `sweep` command: parses, calls, presents."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runstone import NotFound, RunstoneError, Workspace, __version__, ensure_workspace, open_workspace

if TYPE_CHECKING:
    from runstone_sweeps.record import SweepRecord
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder

# Everything else of this package is imported where it is used: `--help` answers without the extra `sweeps`,
# and `sweep list` without Optuna.

F = TypeVar("F", bound=Callable[..., Any])
_INTERRUPTED = 130


class _Duration(click.ParamType[float]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        from runstone_sweeps.spec import parse_duration

        try:
            seconds = float(str(parse_duration(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail(f"is {value}; it must be above 0", param, ctx)
        return seconds


def _workspace_option(command: F) -> F:
    return click.option(
        "--workspace",
        "workspace_path",
        metavar="FOLDER",
        help="The workspace; default RUNSTONE_WORKSPACE, or the nearest .runstone here or above.",
    )(command)


def _budget_options(command: F) -> F:
    command = click.option("--trials", type=click.IntRange(1), help="Trials in all.")(command)
    command = click.option("--parallel", type=click.IntRange(1, 1024), help="Trials at once.")(command)
    return click.option("--timeout", type=_Duration(), help="Time at work in all, such as 90s, 10m, 1h30m.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sweep")
def cli() -> None:
    """Search for better training runs: trials in parallel, pruning, resume."""


@cli.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@_budget_options
@click.option("--new", "is_new", is_flag=True, help="Begin a new sweep, even if one of this config is unfinished.")
@_workspace_option
def run_command(
    config: Path,
    trials: int | None,
    parallel: int | None,
    timeout: float | None,
    is_new: bool,
    workspace_path: str | None,
) -> None:
    """Run the sweep that CONFIG describes, or go on with it."""
    from runstone_sweeps.session import Budget, open_sweep
    from runstone_sweeps.spec import load_spec

    has_budget = trials is not None or timeout is not None
    spec = Budget(trials, parallel, timeout).apply(load_spec(config, has_budget=has_budget))
    workspace = ensure_workspace(workspace_path)
    folder, is_resumed = open_sweep(workspace, spec, is_new=is_new)
    console = _console()
    if is_resumed:
        ended = folder.read().ended
        console.print(Text(f"going on with sweep {folder.id}: {ended} trials have ended (--new begins a new one)"))
    _work(console, workspace, folder, spec)


@cli.command("resume")
@click.argument("sweep")
@_budget_options
@_workspace_option
def resume_command(
    sweep: str, trials: int | None, parallel: int | None, timeout: float | None, workspace_path: str | None
) -> None:
    """Go on with SWEEP (id, begin or end of an id, or name) where it ended."""
    from runstone_sweeps.session import Budget, stored_spec

    workspace = open_workspace(workspace_path)
    folder = _find(workspace, sweep)
    record = folder.read()
    if not record.created["config"].keys() & {"script", "command", "function"}:
        raise RunstoneError(f"sweep {record.name} tries a Python function; run the program that began it again")
    _work(_console(), workspace, folder, stored_spec(folder, Budget(trials, parallel, timeout)))


def _work(console: Console, workspace: Workspace, folder: SweepFolder, spec: SweepSpec) -> None:
    """Run one session and show its result."""
    from runstone_sweeps.session import run_session
    from runstone_sweeps.view import LineView, LiveView

    views: list[LineView | LiveView] = []

    def make_view(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> LineView | LiveView:
        kind = LiveView if console.is_terminal else LineView
        views.append(kind(console, folder, record, spec))
        return views[-1]

    try:
        ended = run_session(workspace, folder, spec, make_view)
    finally:
        for view in views:
            view.close()
    _summarize(console, folder, spec, ended.reason)
    if ended.reason == "stopped":
        sys.exit(_INTERRUPTED)
    if ended.reason == "failing" or (ended.record.ended and ended.record.best is None):
        sys.exit(1)


def _summarize(console: Console, folder: SweepFolder, spec: SweepSpec, reason: str) -> None:
    from runstone_sweeps.report import write_report
    from runstone_sweeps.view import counts_text, duration, failure_lines, leaderboard, print_line

    record = folder.read()
    console.print()
    if record.best is not None:
        console.print(leaderboard(record, limit=min(10, len(record.ranked())), hidden=spec.space.constants))
        console.print()
    for line in failure_lines(record):
        print_line(console, line)
    print_line(console, Text(f"{counts_text(record)}, in {duration(record.active_s)}"))
    print_line(console, Text(f"report: {write_report(folder, record, spec)}"))
    match reason:
        case "failing":
            first = Text("stopped early: the first trials all failed in the same way; ", style="bold red")
            first.append(f"what they printed is in the console.*.log files of {_run_folder(folder, record)}")
            print_line(console, first)
        case "stopped":
            print_line(console, Text(f"stopped; `sweep resume {folder.id}` goes on", style="bold"))
        case "timeout" if record.counts:
            print_line(console, Text(f"time is up; `sweep resume {folder.id} --timeout …` goes on"))


def _run_folder(folder: SweepFolder, record: SweepRecord) -> str:
    workspace = Workspace(folder.path.parent.parent)
    first = next(trial for trial in record.trials.values() if trial.state == "failed")
    return str(workspace.find_run_folder(first.run_id) or workspace.path)


@cli.command("check")
@click.argument("config", type=click.Path(path_type=Path))
def check_command(config: Path) -> None:
    """Check CONFIG and say what it would do; every mistake is one line."""
    from runstone_sweeps.command import build_command
    from runstone_sweeps.spec import load_spec
    from runstone_sweeps.study import check_algorithms, propose
    from runstone_sweeps.view import clean

    spec = load_spec(config)
    check_algorithms(spec.space, spec.sampler, spec.pruner)
    point = propose(spec.space, spec.metric, spec.sampler, spec.pruner, seed=spec.seed or 0)
    words = build_command(
        point,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        metric=spec.metric.name,
        environment={},
        json_file=Path("params.json"),
    )
    budget = f"{spec.trials} trials" if spec.trials else f"as many trials as fit into {spec.timeout_s:g} s"
    size = f"{spec.space.size:,} points" if spec.space.size else "a continuous space"
    goal = f"{spec.metric.goal} {clean(spec.metric.name)}"
    click.echo(f"{config.name} is right")
    click.echo(f"  search   {len(spec.space.searched)} parameters, {size}; {goal}")
    click.echo(f"  with     sampler {spec.sampler.name}, pruner {spec.pruner.name}; {budget}, {spec.parallel} at once")
    click.echo(f"  in       {spec.working_dir}")
    click.echo(f"  a trial  {clean(shlex.join(words))}")


@cli.command("list")
@_workspace_option
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
            _status(folder, record),
            counts_text(record),
            "" if best is None else f"{number(best.value)} (trial {best.number})",
            f"{begun:%Y-%m-%d %H:%M}",
        )
    if folders:
        _console().print(table)
    else:
        click.echo("no sweeps yet; `sweep run CONFIG` makes one")


@cli.command("show")
@click.argument("sweep")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@_workspace_option
def show_command(sweep: str, limit: int, workspace_path: str | None) -> None:
    """Show the trials of SWEEP, ranked, and which parameters matter."""
    from runstone_sweeps.store import recorded_spec
    from runstone_sweeps.study import search_of
    from runstone_sweeps.view import clean, counts_text, duration, failure_lines, leaderboard, print_line

    folder = _find(open_workspace(workspace_path), sweep)
    record = folder.read()
    spec = recorded_spec(record, is_for_reading=True)
    console = _console()
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}  {_status(folder, record)}", style="dim")
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


@cli.command("best")
@click.argument("sweep")
@click.option("--json", "format_", flag_value="json", help="The params alone, as JSON.")
@click.option("--yaml", "format_", flag_value="yaml", help="The params alone, as YAML.")
@_workspace_option
def best_command(sweep: str, format_: str | None, workspace_path: str | None) -> None:
    """Show the best trial of SWEEP."""
    import yaml

    from runstone_sweeps.space import nest
    from runstone_sweeps.view import clean, number, value_text

    record = _find(open_workspace(workspace_path), sweep).read()
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


@cli.command("report")
@click.argument("sweep")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; default report.html beside the sweep.")
@_workspace_option
def report_command(sweep: str, output: Path | None, workspace_path: str | None) -> None:
    """Write an HTML report of SWEEP: one file, to be opened anywhere."""
    from runstone_sweeps.report import write_report
    from runstone_sweeps.store import recorded_spec

    folder = _find(open_workspace(workspace_path), sweep)
    record = folder.read()
    click.echo(write_report(folder, record, recorded_spec(record, is_for_reading=True), output))


@cli.command("stop")
@click.argument("sweep")
@_workspace_option
def stop_command(sweep: str, workspace_path: str | None) -> None:
    """Stop SWEEP as one Ctrl-C would: its trials are asked to stop, and it can be resumed."""
    folder = _find(open_workspace(workspace_path), sweep)
    if not folder.is_running:
        click.echo(f"sweep {folder.id} is not running")
        return
    folder.request_stop()
    click.echo(f"sweep {folder.id} is asked to stop; `sweep resume {folder.id}` goes on with it")


def _find(workspace: Workspace, reference: str) -> SweepFolder:
    """Return the sweep that an id, a part of one or a name means."""
    from runstone_sweeps.store import Sweeps

    return Sweeps(workspace).find(reference)


def _status(folder: SweepFolder, record: SweepRecord) -> str:
    if folder.is_running:
        return "running"
    if record.is_finished:
        return "finished"
    return str(record.closed or ("interrupted" if record.sessions else "not begun"))


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    # A pipe has no width: let no table be cut to 80 columns.
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=200)


def main() -> None:
    """Run the command line; what a user can do wrong ends in one line, not in a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("runstone"):
            raise
        click.echo(f'sweeps need {error.name}, which is not installed: pip install "runstone[sweeps]"', err=True)
        sys.exit(1)
    except (RunstoneError, OSError) as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            click.echo(f"sweep: {line}" if not isinstance(error, RunstoneError) else line, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
