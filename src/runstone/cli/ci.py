"""`runstone ci report | gate | comment`: what a pull request is told, and whether it may go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from runstone.cli._output import clean, counted, say, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.models.better import Check


@click.group("ci", cls=Suggesting)
@workspace_option
def ci_group() -> None:
    """Tell a pull request how its runs did, and let it pass or not.

    Exit codes: 0 done; 1 refused by gates, or it could not be done; 2 the command line was wrong.
    """


@ci_group.command("report")
@click.option("--base", default="main", show_default=True, metavar="WHAT", help="What the change goes to.")
@click.option("--head", metavar="WHAT", help="The change. Default: the commit that is checked out here.")
@click.option("--filter", "among", default="", metavar="FILTER", help="Only runs that fit, on both sides.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Only these metrics; repeatable.")
@click.option("--confidence", type=click.FloatRange(0.5, 1, max_open=True), default=0.95, show_default=True)
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write it here. Default: print it.")
@click.option("--images", type=click.Path(file_okay=False, path_type=Path), help="Draw curves into this folder (SVG).")
@click.option("--image-url", metavar="URL", help="Where the folder can be seen; default: the folder itself.")
@workspace_option
@click.pass_context
def report_command(
    ctx: click.Context,
    base: str,
    head: str | None,
    among: str,
    metrics: Sequence[str],
    confidence: float,
    markdown: Path | None,
    images: Path | None,
    image_url: str | None,
) -> None:
    """Write how a change did: params, metrics with significance, environment, data, curves.

    WHAT is a run, a branch, a commit or a filter; `branch:`, `run:`, `commit:` or `filter:` before it says which. Of a
    branch, the runs of its newest commit that has any are taken.
    """
    from runstone.ci import find_side, report
    from runstone.ci.sides import head_commit

    workspace, here = workspace_of(ctx), Path.cwd()
    wanted = head or f"commit:{head_commit(here)}"
    ours = find_side(workspace, wanted, among=among, checkout=here)
    theirs = find_side(workspace, base, among=among, checkout=here, without=[run.id for run in ours.runs])
    found = report(theirs, ours, metrics=metrics, confidence=confidence)
    pictures = [] if images is None else found.write_pictures(images)
    where = (image_url or (images.as_posix() if images is not None else "")).rstrip("/")
    text = found.to_markdown([(name, f"{where}/{file}") for name, file in pictures])
    if markdown is None:
        say(clean(text, lines=True), newline=False)
        return
    markdown.write_text(text, encoding="utf-8")
    drawn = f", {counted(len(pictures), 'picture')} in {clean(images)}" if images is not None else ""
    say(f"{clean(ours.label)} against {clean(theirs.label)} is in {clean(markdown)}{drawn}")


@ci_group.command("gate")
@click.argument("ref", metavar="NAME@V|RUN")
@click.option("--gates", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Default for a version: gates.yaml in the workspace.")  # fmt: skip
@click.option("--stage", default="production", show_default=True, help="Whose gates a version must pass.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def gate_command(ctx: click.Context, ref: str, gates: Path | None, stage: str, as_json: bool) -> None:
    """Ask the gates, and change nothing: exit code 0 where they hold, 1 where not.

    A version is asked as for `models promote --dry-run`; a run is held against the list `runs` of the file.
    """
    workspace = workspace_of(ctx)
    if "@" in ref:
        from runstone.models.promotion import promote

        version = promote(workspace, ref, stage, gates=gates, is_dry=True)
        _say(version.checks, version.headline, version.is_allowed, as_json=as_json)
        ctx.exit(0 if version.is_allowed else 1)
    if gates is None:
        raise click.UsageError("a run needs --gates FILE, whose list `runs` it is held against")
    from runstone.ci import check_run

    run = check_run(workspace, workspace.run(ref), gates, checkout=Path.cwd())
    _say(run.checks, run.headline, run.is_allowed, as_json=as_json)
    ctx.exit(0 if run.is_allowed else 1)


def _say(checks: Sequence[Check], headline: str, is_allowed: bool, *, as_json: bool) -> None:
    if as_json:
        told = [{"gate": check.gate, "passed": check.is_passed, "detail": check.detail} for check in checks]
        say(to_json({"allowed": is_allowed, "headline": headline, "checks": told}))
        return
    for check in checks:
        mark = click.style("passed", fg="green") if check.is_passed else click.style("FAILED", fg="red", bold=True)
        say(f"{mark}  {clean(check.gate)}: {clean(check.detail)}")
    say(clean(headline))


@ci_group.command("comment")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True))
@click.option("--key", default="report", show_default=True, help="Tells this comment from others of the workflow.")
@click.option("--marker", "only_marker", is_flag=True, help="Print only the line by which it is found again.")
def comment_command(file: Path, key: str, only_marker: bool) -> None:
    """Print the body of a comment with a hidden marker, so that CI changes one comment instead of adding many."""
    from runstone.ci import comment_body
    from runstone.ci.comment import marker

    if only_marker:
        say(marker(key))
        return
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    say(comment_body(text, key), newline=False)
