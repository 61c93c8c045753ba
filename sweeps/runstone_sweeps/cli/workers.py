"""`sweep worker`: take part in a sweep that runs elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runstone_sweeps.cli._shared import DurationType


@click.command("worker")
@click.argument("url")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the token; without it, RUNSTONE_SWEEP_TOKEN.",
)
@click.option("--slots", type=click.IntRange(min=1), help="Trials at once; default as GPUs, or cores, are there.")
@click.option("--gpus", help="GPUs that trials may use, such as 0,1; default all that are visible.")
@click.option("--for", "for_s", type=DurationType(), metavar="TIME", help="End after so long; its trials go elsewhere.")
@click.option(
    "--idle-exit", "idle_exit_s", type=DurationType(), metavar="TIME", help="End after so long without a trial."
)
@click.option(
    "--patience", "patience_s", type=DurationType(), default=600.0, metavar="TIME", show_default="10m",
    help="How long to look for a coordinator that is gone, with trials running on.",
)  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), help="Where the folder of the config lies on this host.")
@click.option("--spool", type=click.Path(path_type=Path), help="Folder for what trials record until it is sent.")
@click.option("--ca", "authority", type=click.Path(path_type=Path), help="Certificate to trust, for tls:// addresses.")
def worker_command(
    url: str,
    token_file: Path | None,
    slots: int | None,
    gpus: str | None,
    for_s: float | None,
    idle_exit_s: float | None,
    patience_s: float,
    folder: Path | None,
    spool: Path | None,
    authority: Path | None,
) -> None:
    """Run trials for the coordinator at URL (tcp://HOST:PORT or tls://HOST:PORT), which `sweep run` shows."""
    from runstone_sweeps.environment import process_environment
    from runstone_sweeps.workers.address import parse_address
    from runstone_sweeps.workers.program import WorkerOptions, WorkerProgram
    from runstone_sweeps.workers.token import TOKEN_VARIABLE, BadToken, check_token, read_token

    environment = process_environment()
    if token_file is not None:
        token = read_token(token_file)
    elif given := environment.get(TOKEN_VARIABLE):
        token = check_token(given, TOKEN_VARIABLE)
    else:
        raise BadToken(f"a worker needs the token of the sweep: --token-file FILE, or {TOKEN_VARIABLE}")
    options = WorkerOptions(
        address=parse_address(url, what="URL"),
        token=token,
        slots=slots,
        gpus=gpus,
        for_s=for_s,
        idle_exit_s=idle_exit_s,
        patience_s=patience_s,
        folder=folder,
        spool=spool,
        authority=authority,
    )
    program = WorkerProgram(options, environment, lambda line: click.echo(f"worker: {line}", err=True))
    sys.exit(program.run())
