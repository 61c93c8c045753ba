"""`runstone models serve | export`: a version over HTTP, or as a folder that serves itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from runstone.cli._output import clean, say, size
from runstone.cli.main import workspace_of, workspace_option
from runstone.models.refs import ModelRef


@click.command("serve")
@click.argument("ref", metavar="NAME[@V]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Default 8060; 0: a free one.")
@click.option("--token", envvar="RUNSTONE_SERVING_TOKEN", metavar="TEXT", help="What clients must show.")
@click.option("--allowed-hosts", multiple=True, metavar="NAME", help="Name under which it may be reached; repeatable.")
@click.option("--workers", "--replicas", "workers", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Processes; on Ray replicas.")  # fmt: skip
@click.option("--engine", type=click.Choice(["uvicorn", "ray"]), default="uvicorn", show_default=True,
              help="ray: the same on Ray Serve, for several machines.")  # fmt: skip
@click.option("--ray-address", metavar="ADDRESS",
              help="Of a cluster of Ray that runs already, such as auto. Default: one on this machine.")  # fmt: skip
@click.option(
    "--trust", "--trusted", "trust", is_flag=True, help="Execute what the model's author wrote, such as a pickle."
)
@click.option("--reload", "reload_s", type=click.FloatRange(0), default=2.0, show_default=True, metavar="SECONDS",
              help="How often to look where NAME@V points; 0: never again.")  # fmt: skip
@click.option("--deployment", metavar="PLACE", help="Record in the model's history that it works at this place.")
@click.option("--log-sample", type=click.FloatRange(0, 1), default=0.1, show_default=True, metavar="SHARE",
              help="Share of requests that the prediction log keeps; 0: none.")  # fmt: skip
@click.option("--log-folder", "folder", type=click.Path(path_type=Path), help="Default: in the workspace.")
@click.option("--log-size", type=click.IntRange(1), default=1_024, show_default=True, metavar="MIB",
              help="Of the whole prediction log.")  # fmt: skip
@click.option("--max-body", type=click.IntRange(1), default=8, show_default=True, metavar="MIB", help="Of a request.")
@click.option("--max-rows", type=click.IntRange(1), default=10_000, show_default=True, help="Of a request.")
@click.option("--timeout", type=click.FloatRange(0.001), default=30.0, show_default=True, metavar="SECONDS",
              help="For the model's answer.")  # fmt: skip
@click.option("--batch-rows", type=click.IntRange(1), default=1_024, show_default=True,
              help="Rows of waiting requests that the model gets together; 1: each request alone.")  # fmt: skip
@workspace_option
@click.pass_context
def serve_command(
    ctx: click.Context,
    ref: str,
    host: str,
    port: int | None,
    token: str | None,
    allowed_hosts: Sequence[str],
    workers: int,
    engine: str,
    ray_address: str | None,
    trust: bool,
    reload_s: float,
    deployment: str | None,
    log_sample: float,
    folder: Path | None,
    log_size: int,
    max_body: int,
    max_rows: int,
    timeout: float,
    batch_rows: int,
) -> None:
    """Serve a version over HTTP: POST /predict, /metadata, /metrics, /health, /ready, /openapi.json, POST /feedback.

    Where NAME@V means another version later, that one is served, and no request is lost. The log goes to standard
    error, as JSON.
    """
    from runstone.serving import Bounds, LogConfig, Place, ServingConfig, log_folder, serve, serve_on_ray  # an extra
    from runstone.serving.config import DEFAULT_PORT

    if ray_address is not None and engine != "ray":
        raise click.UsageError("--ray-address takes --engine ray")
    workspace = workspace_of(ctx)
    kept = (folder or log_folder(workspace, ModelRef.parse(ref).name)).absolute()
    config = ServingConfig(
        host=host,
        port=DEFAULT_PORT if port is None else port,
        token=token,
        allowed_hosts=tuple(allowed_hosts),
        workers=workers,
        reload_s=reload_s,
        deployment=deployment,
        bounds=Bounds(body_bytes=max_body << 20, rows=max_rows, predict_s=timeout, batch_rows=batch_rows),
        log=LogConfig(folder=kept if log_sample else None, sample=log_sample, most_bytes=log_size << 20),
    )
    place = Place(workspace.path.resolve(), ref, is_trusted=trust)

    def announce(url: str) -> None:
        say(f"{clean(ref)} is served at {url}; its API: {url}/openapi.json")
        sys.stdout.flush()  # a file or a pipe would have it when all is over

    if engine == "ray":
        serve_on_ray(place, config, announce=announce, address=ray_address)
    else:
        serve(place, config, announce=announce)


@click.command("export")
@click.argument("ref", metavar="NAME@V")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@workspace_option
@click.pass_context
def export_command(ctx: click.Context, ref: str, folder: Path) -> None:
    """Write a version into a new folder that serves itself: files, requirements, signature, server, Dockerfile."""
    from runstone.serving.exporting import export_model

    found = export_model(workspace_of(ctx), ref, folder)
    say(f"{clean(found.ref)} is in {clean(folder)}: {found.files} files, {size(found.size_bytes)}")
    say("serve it: pip install -r requirements.txt && python serve.py")
