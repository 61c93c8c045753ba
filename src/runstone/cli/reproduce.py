"""`runstone reproduce`: a run's code, packages and command in a folder; run there, and compared."""

from __future__ import annotations

import itertools
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
from runstone.reproduce import Judgement, MetricJudgement, Outcome, Restored, install, rerun, restore
from runstone.reproduce.judge import DEFAULT_TOLERANCE
from runstone.reproduce.pages import write_pages
from runstone.reproduce.rerun import VERDICT, check_can_run
from runstone.reproduce.restored import LOCK, README, SCRIPT

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
@click.option(
    "--install", "install_it", is_flag=True, help="Make a virtual environment there with the packages of then."
)
@click.option(
    "--lock",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --install: a requirements file to install instead, such as an edited copy of the recorded one.",
)
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
    install_it: bool,
    lock: Path | None,
    tolerance: float,
    repository: str | None,
    links: Sequence[str],
    as_json: bool,
) -> None:
    """Put what RUN needs to be done again into a folder: its commit with the uncommitted changes of then, its packages
    pinned, its command, variables and seeds.

    Nothing of it is run without --run. With --run, exits with 0 where every metric is equal or within noise, else 1.
    """
    if lock is not None and not install_it:
        raise click.UsageError("--lock goes with --install")
    workspace = workspace_of(ctx)
    info = workspace.run(run)
    folder = output if output is not None else _free_folder(f"reproduce-{short_id(info.id)}")
    restored = restore(info, folder, workspace=workspace.path, repository=repository, links=links)
    if not as_json:
        show(*_restored_parts(restored, is_installed=install_it))
    if run_it and restored.obstacles and not as_json:
        raise click.ClickException(f"it is not run, for the reasons above; {restored.folder} has what there is")
    if run_it:
        check_can_run(restored)
    # With --json, standard output belongs to the answer.
    stream = sys.stderr.fileno() if as_json else None
    if install_it:
        _install(restored, lock, stream, as_json=as_json)
    if not run_it:
        if as_json:
            say(to_json(restored.to_dict()))
        else:
            show(*_next_parts(restored))
        return
    outcome = rerun(restored, workspace, tolerance=tolerance, output=stream, tell=_tell)
    if as_json:
        say(to_json({**restored.to_dict(), "outcome": outcome.to_dict()}))
    else:
        show(*_outcome_parts(restored, outcome))
    if not outcome.is_reproduced:
        ctx.exit(1)


def _free_folder(name: str) -> Path:
    """Return the folder of this name, or with the next number where it is there already."""
    numbered = (Path(name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def _install(restored: Restored, lock: Path | None, stream: int | None, *, as_json: bool) -> None:
    before = [*restored.lost, *restored.notes]
    install(restored, lock=lock, output=stream, tell=_tell)
    write_pages(restored)
    found = [line for line in (*restored.lost, *restored.notes) if line not in before]
    if found and not as_json:
        show(*_list("Of its environment", found, ""))


def _tell(line: str) -> None:
    sys.stdout.flush()  # what it is about comes after what was said before
    say(f"runstone: {clean(line)}", stderr=True)


def _restored_parts(restored: Restored, *, is_installed: bool) -> Iterator[RenderableType]:
    yield Text.assemble((clean(restored.run.name), "bold"), ("  in ", "dim"), clean(str(restored.folder)))
    facts = list(_facts(restored, is_installed=is_installed))
    yield Padding(table(["", ("", "fold")], facts, header=False), (0, 0, 0, 2), expand=False)
    for title, lines, style in (
        ("Cannot simply be run", restored.obstacles, "red"),
        ("Could not be restored", restored.lost, "yellow"),
        ("Otherwise than then", restored.notes, ""),
    ):
        yield from _list(title, lines, style)
    yield Text()


def _list(title: str, lines: Sequence[str], style: str) -> Iterator[RenderableType]:
    if lines:
        yield Text(f"\n{title}", style="bold")
    for line in lines:
        yield Text(f"  - {clean(line)}", style=style)


def _next_parts(restored: Restored) -> Iterator[RenderableType]:
    if not restored.obstacles:
        reference = short_id(restored.run.id)
        yield Text(f"{SCRIPT} runs the command; `runstone reproduce {reference} --run` runs and compares.")
    yield Text(f"{README} has all of this, and what differs from this machine.", style="dim")


def _facts(restored: Restored, *, is_installed: bool) -> Iterator[list[Text]]:
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
    pins = sum(not line.startswith("#") for line in restored.packages.lines)
    yield line("packages", f"{pins} in {LOCK}" + (", to be installed" if is_installed else ""))
    yield line("differs now", ", ".join(_differing(restored, is_installed=is_installed)) or "nothing that matters")


def _differing(restored: Restored, *, is_installed: bool) -> Iterator[str]:
    for group in restored.now.groups:
        # Variables are set; packages are installed, where that is asked for.
        if not group.changes or group.name in ("code", "variables") or (is_installed and group.name == "packages"):
            continue
        hint = "; --install takes those of then" if group.name == "packages" else ""
        yield f"{group.name} ({len(group.changes)}{hint})"


def _outcome_parts(restored: Restored, outcome: Outcome) -> Iterator[RenderableType]:
    yield Text.assemble((f"\n{outcome.verdict}", _STYLES[outcome.verdict]), "  ", _because(outcome))
    if outcome.judgement is not None and outcome.judgement.metrics:
        yield Padding(_metrics(outcome.judgement), (0, 0, 0, 2), expand=False)
    if outcome.run is not None and outcome.differs is not None and not outcome.differs.is_equal:
        groups = [f"{group.name} ({len(group.changes)})" for group in outcome.differs.groups if group.changes]
        yield Text(
            f"\nIts environment differs in {', '.join(groups)}: "
            f"runstone env diff {short_id(restored.run.id)} {short_id(outcome.run.id)}",
            style="dim",
        )
    if not outcome.is_reproduced:
        yield from _list("It may be for what could not be restored", restored.lost, "yellow")
    tagged = ""
    if outcome.run is not None:
        tagged = f"Run {clean(outcome.run.name)} ({short_id(outcome.run.id)}), tag reproduction={outcome.verdict}; "
    yield Text(f"\n{tagged}verdict in {clean(str(restored.folder / VERDICT))}")


def _because(outcome: Outcome) -> Text:
    if outcome.reason:
        return Text(clean(outcome.reason))
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
