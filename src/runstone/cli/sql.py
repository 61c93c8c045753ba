"""`runstone sql`: read-only SQL over all runs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from runstone.cli._output import cell, clean, counted, is_terminal, say, show, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.query.sql import MOST_ROWS, TIME_LIMIT_S, SqlTable, select


@click.command("sql")
@click.argument("statement")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=MOST_ROWS, show_default=True, help="At most this many."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, one a row.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Into a Parquet file.")
@workspace_option
@click.pass_context
def sql_command(
    ctx: click.Context,
    statement: str,
    limit: int,
    time_limit: float,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
) -> None:
    """Select from runs, params, metrics, tags, environment, artifacts, attempts, links, datasets, models.

    The SQL is that of SQLite, and can change nothing; docs/sql.md has the columns.

    \b
    runstone sql "select project, count(*) as n, avg(duration_s) from runs group by project"
    """
    if as_json + as_csv + (parquet is not None) > 1:
        raise click.UsageError("--json, --csv and --parquet exclude each other")
    found = select(workspace_of(ctx).path, statement, limit=limit, time_limit_s=time_limit)
    if as_json:
        say(to_json([{name: _jsonable(value) for name, value in row.items()} for row in found.to_dicts()]))
    elif as_csv:
        text = _as_csv(found)
        say(clean(text, lines=True) if is_terminal() else text, newline=False)
    elif parquet is not None:
        found.to_parquet(parquet)
        say(f"{counted(len(found), 'row')} written to {clean(parquet)}", stderr=True)
    else:
        headers = [(name, "right" if _is_numeric(found, place) else "") for place, name in enumerate(found.columns)]
        show(table(headers, [[_cell(value) for value in row] for row in found]))
    if found.is_cut:
        say(f"only the first {counted(limit, 'row')}; --limit allows more", stderr=True)


def _is_numeric(found: SqlTable, place: int) -> bool:
    return all(isinstance(row[place], int | float | None) for row in found)


def _cell(value: Any) -> Text:
    return cell(_jsonable(value))


def _jsonable(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _as_csv(found: SqlTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found.columns)
    for row in found:
        writer.writerow(["" if value is None else _text(_jsonable(value)) for value in row])
    return text.getvalue()


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
