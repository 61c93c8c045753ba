"""`runstone doctor`: what was wrong with a run."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from runstone.cli._output import clean, counted, duration, say, show, status, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.doctor import Diagnosis, Evidence, Finding, Severity, diagnose
from runstone.runinfo import RunInfo

_MARKS = {
    Severity.CRITICAL: ("✗", "bold red"),
    Severity.WARNING: ("!", "bold yellow"),
    Severity.NOTE: ("·", "cyan"),
}
_MOST_SERIES = 4


@click.command("doctor")
@click.argument("run", metavar="RUN")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where there is more than notes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@workspace_option
@click.pass_context
def doctor_command(ctx: click.Context, run: str, exit_code: bool, as_json: bool) -> None:
    """Say what was wrong with RUN, ended or not: what slowed it down, broke its numbers, or makes it hard to repeat.

    Each finding names the metrics and the window that show it; what could not be looked at is told too.
    """
    info = workspace_of(ctx).run(run)
    found = diagnose(info)
    if as_json:
        say(to_json({"run": {"id": info.id, "name": info.name, "status": info.status.value}, **found.to_dict()}))
    else:
        show(*_parts(info, found))
    if exit_code and not found.is_healthy:
        ctx.exit(1)


def _parts(info: RunInfo, found: Diagnosis) -> Iterator[RenderableType]:
    head = status(info.status)
    head.append(f"  {clean(info.name)}", style="bold")
    head.append(f"  {_summary(found)}", style="dim")
    yield head
    for finding in found.findings:
        yield from finding_parts(finding)
    looked = f"Looked at {', '.join(found.checked)}."
    if not found.findings:
        yield Text(f"\nNothing is wrong with what was recorded. {looked}", style="green")
    else:
        yield Text(f"\n{looked}", style="dim")
    if found.not_checked:
        yield Text("Could not look at:", style="dim")
        for why in dict.fromkeys(found.not_checked.values()):
            names = [name for name, reason in found.not_checked.items() if reason == why]
            yield Text(f"  {', '.join(names)}: {clean(why)}", style="dim")


def _summary(found: Diagnosis) -> str:
    counts = {level: sum(finding.severity is level for finding in found.findings) for level in Severity}
    words = [
        f"{counts[Severity.CRITICAL]} critical" if counts[Severity.CRITICAL] else "",
        counted(counts[Severity.WARNING], "warning") if counts[Severity.WARNING] else "",
        counted(counts[Severity.NOTE], "note") if counts[Severity.NOTE] else "",
    ]
    return ", ".join(filter(None, words)) or "healthy"


def finding_parts(finding: Finding) -> Iterator[RenderableType]:
    """Yield a finding as it is shown: a line for it, what shows it, and what to do."""
    mark, style = _MARKS[finding.severity]
    yield Text(f"\n{mark} {clean(finding.title)}", style=style)
    yield Padding(Text(clean(finding.explanation), overflow="fold"), (0, 0, 0, 2), expand=False)
    yield Padding(Text(f"→ {clean(finding.action)}", overflow="fold"), (0, 0, 0, 2), expand=False)
    where = _window(finding.evidence)
    if where:
        yield Padding(Text(clean(where), style="dim", overflow="fold"), (0, 0, 0, 2), expand=False)


def _window(evidence: Evidence) -> str:
    if not evidence.series:
        return ""
    more = len(evidence.series) - _MOST_SERIES
    names = ", ".join(evidence.series[:_MOST_SERIES]) + (f" and {more} more" if more > 0 else "")
    if evidence.first_s is None or evidence.last_s is None:
        return f"see {names}"
    steps = ""
    if not evidence.series[0].startswith("system/"):
        first, last = evidence.first_step, evidence.last_step
        steps = f"step {first}, " if first == last else f"steps {first} to {last}, "
    span = f"{duration(evidence.first_s)} to {duration(evidence.last_s)} after the start"
    return f"see {names}: {steps}{span}"
