"""`runstone reproduce`: a run's code, packages and command in a folder; run there, and compared."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from runstone.cli._output import cell, clean, counted, is_terminal, say, short_id, show, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.reproduce import Judgement, MetricJudgement, Outcome, Restored, rerun, restore
from runstone.reproduce.folder import README, SCRIPT
from runstone.reproduce.judge import DEFAULT_TOLERANCE
from runstone.reproduce.rerun import check_can_run

_STYLES = {
    "equal": "green",
    "within noise": "green",
    "different": "bold red",
    "missing": "red",
    "new": "yellow",
    "not judged": "dim",
    "failed": "bold red",
    "nothing to compare": "yellow",
}
_ORDER = ("different", "missing", "new", "within noise", "equal", "not judged")
_MOST_ROWS = 60


@click.command("reproduce")
@click.argument("run", metavar="RUN")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder to make. Default: reproduce-ID in this folder."
)
@click.option("--run", "run_it", is_flag=True, help="Run the command there, and compare metric by metric.")
@click.option("--install", is_flag=True, help="With --run: first make a virtual environment with the packages of then.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=DEFAULT_TOLERANCE,
    show_default=True,
    help="Relative difference that counts as noise where fewer than two earlier runs like it are there.",
)
@click.option(
    "--repository", metavar="PATH-OR-ADDRESS", help="A clone that has the commit, instead of the recorded one."
)
@click.option(
    "--link", "links", metavar="PATH", multiple=True, help="Data of the old checkout to link into the new one."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@workspace_option
@click.pass_context
def reproduce_command(
    ctx: click.Context,
    run: str,
    output: Path | None,
    run_it: bool,
    install: bool,
    tolerance: float,
    repository: str | None,
    links: Sequence[str],
    as_json: bool,
) -> None:
    """Put what RUN needs to be done again into a folder: its commit with the uncommitted changes of then, its packages
    pinned, its command, variables and seeds.

    Nothing of it is run without --run. With --run, exits with 0 where every metric is equal or within noise, else 1.
    """
    if install and not run_it:
        raise click.UsageError("--install goes with --run")
    workspace = workspace_of(ctx)
    info = workspace.run(run)
    folder = output if output is not None else Path(f"reproduce-{short_id(info.id)}")
    restored = restore(info, folder, workspace=workspace.path, repository=repository, links=links)
    if not run_it:
        if as_json:
            say(to_json(restored.to_dict()))
        else:
            show(*_restored_parts(restored))
        return
    if not as_json:
        show(*_restored_parts(restored, is_short=True))
    check_can_run(restored)
    # With --json, standard output belongs to the answer.
    outcome = rerun(
        restored,
        workspace,
        install=install,
        tolerance=tolerance,
        output=sys.stderr.fileno() if as_json else None,
        tell=lambda line: say(f"runstone: {clean(line)}", stderr=True),
    )
    if as_json:
        say(to_json({**restored.to_dict(), "outcome": outcome.to_dict()}))
    else:
        show(*_outcome_parts(restored, outcome))
    if not outcome.is_reproduced:
        ctx.exit(1)


def _restored_parts(restored: Restored, *, is_short: bool = False) -> Iterator[RenderableType]:
    yield Text.assemble((clean(restored.run.name), "bold"), ("  in ", "dim"), clean(str(restored.folder)))
    yield Padding(table(["", ("", "fold")], list(_facts(restored)), header=False), (0, 0, 0, 2), expand=False)
    for title, lines, style in (
        ("Cannot simply be run", restored.obstacles, "red"),
        ("Could not be restored", restored.lost, "yellow"),
        ("Otherwise than then", restored.notes, ""),
    ):
        if lines:
            yield Text(f"\n{title}", style="bold")
            for line in lines:
                yield Text(f"  - {clean(line)}", style=style)
    if is_short:
        yield Text()
        return
    if not restored.obstacles:
        yield Text(
            f"\n{SCRIPT} runs the command; `runstone reproduce {short_id(restored.run.id)} --run` runs and compares."
        )
    yield Text(f"{README} has all of this, and what differs from this machine.", style="dim")


def _facts(restored: Restored) -> Iterator[list[Text]]:
    def line(name: str, text: str) -> list[Text]:
        return [Text(name, style="dim"), Text(clean(text))]

    code = restored.checkout
    if code is not None:
        commit = str((restored.environment.get("git") or {}).get("commit") or "no commit")[:12]
        patched = f", with the changes of then in {counted(len(code.applied), 'file')}" if code.applied else ""
        yield line("code", f"{commit}{patched}, from {code.source}")
    if restored.words:
        yield line("command", f"python {shlex.join(restored.words)}")
        yield line("folder", str(restored.working_folder))
    if restored.set:
        yield line("variables", ", ".join(restored.set))
    differing = [f"{group.name} ({len(group.changes)})" for group in restored.now.groups if group.changes]
    differing = [name for name in differing if not name.startswith("code ")]
    yield line("differs now", ", ".join(differing) or "nothing: same packages, hardware and settings as then")


def _outcome_parts(restored: Restored, outcome: Outcome) -> Iterator[RenderableType]:
    if outcome.run is None:
        yield Text(f"\nThe command ended with {outcome.exit_code} and recorded no run.", style="bold red")
        return
    headline = Text.assemble(("\n" + outcome.verdict, _STYLES[outcome.verdict]), "  ", _because(outcome))
    yield headline
    if outcome.judgement is not None and outcome.judgement.metrics:
        yield Padding(_metrics(outcome.judgement), (0, 0, 0, 2), expand=False)
    if outcome.differs is not None and not outcome.differs.is_equal:
        groups = [f"{group.name} ({len(group.changes)})" for group in outcome.differs.groups if group.changes]
        yield Text(
            f"\nIts environment differs in {', '.join(groups)}: "
            f"runstone env diff {short_id(restored.run.id)} {short_id(outcome.run.id)}",
            style="dim",
        )
    yield Text(f"\nRun {clean(outcome.run.name)} ({short_id(outcome.run.id)}), tag reproduction={outcome.verdict}")


def _because(outcome: Outcome) -> Text:
    if outcome.verdict == "failed" and outcome.run is not None:
        return Text(f"the run ended {outcome.run.status}, the command with {outcome.exit_code}")
    metrics = outcome.judgement.metrics if outcome.judgement is not None else ()
    counts = {word: sum(metric.verdict == word for metric in metrics) for word in _ORDER}
    return Text(", ".join(f"{count} {word}" for word, count in counts.items() if count), style="dim")


def _metrics(judgement: Judgement) -> RenderableType:
    metrics = sorted(judgement.metrics, key=lambda metric: _ORDER.index(metric.verdict))
    shown = metrics[:_MOST_ROWS] if is_terminal() else metrics
    rows = [
        [
            Text(clean(metric.name)),
            Text(metric.verdict, style=_STYLES[metric.verdict]),
            cell(metric.then),
            cell(metric.now),
            Text(clean(_reason(metric)), style="dim"),
        ]
        for metric in shown
    ]
    return table(["metric", "verdict", ("last then", "right"), ("last now", "right"), ("test", "fold")], rows)


def _reason(metric: MetricJudgement) -> str:
    return "; ".join(filter(None, (metric.test, metric.detail)))
