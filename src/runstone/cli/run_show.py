"""`runstone runs show`: all that a run recorded, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runstone.cli._machine import system_lines
from runstone.cli._output import (
    ago,
    cell,
    clean,
    counted,
    duration,
    is_terminal,
    moment_text,
    say,
    show,
    size,
    status,
    table,
    to_json,
)
from runstone.cli.doctor import finding_parts
from runstone.cli.main import workspace_of, workspace_option
from runstone.doctor import top_findings
from runstone.exporting import run_as_dict
from runstone.index.records import unescaped
from runstone.names import SYSTEM
from runstone.runinfo import RunInfo
from runstone.runlog.format import SEALED
from runstone.values import Artifact, Attempt, Failure, MetricSummary


@click.command("show", short_help="Show all that a run recorded.")
@click.argument("run", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="All of it but its points, as JSON.")
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, run: str, as_json: bool) -> None:
    """Show all that a run recorded: params, tags, metrics, artifacts, attempts, environment, failure."""
    info = workspace_of(ctx).run(run)
    if as_json:
        say(to_json(run_as_dict(info)))
        return
    show(*_sections(info))


def _sections(info: RunInfo) -> Iterator[RenderableType]:
    yield _headline(info)
    yield _indented(_pairs(_facts(info)))
    if info.damage:
        yield _heading("Not readable", len(info.damage))
        yield _indented(Text("\n".join(clean(damage) for damage in info.damage), style="yellow", overflow="fold"))
    if info.failure is not None:
        yield from _failure(info.failure)
    if info.notes:
        yield _heading("Notes")
        yield _indented(Text(clean(info.notes, lines=True)))
    if info.flat_params:
        yield _heading("Params", len(info.flat_params))
        yield _indented(_pairs([(unescaped(name), cell(value)) for name, value in info.flat_params.items()]))
    if info.tags:
        yield _heading("Tags", len(info.tags))
        yield _indented(_pairs([(name, cell(text)) for name, text in sorted(info.tags.items())]))
    if all(damage.file != SEALED for damage in info.damage):
        yield from _measured(info)
    if info.artifacts:
        yield _heading("Artifacts", len(info.artifacts))
        yield _indented(_artifacts_table(info.artifacts))
    if len(info.attempts) > 1:
        yield _heading("Attempts", len(info.attempts))
        yield _indented(_attempts_table(info.attempts))
    environment = list(_environment(info.environment or {}))
    if environment:
        yield _heading("Environment")
        yield _indented(_pairs(environment))
    warnings = info.warnings[len(info.damage) :]
    if warnings or info.dropped:
        yield _heading("Not recorded")
        lines = [clean(warning) for warning in warnings]
        if info.dropped:
            lines.append(f"{counted(info.dropped, 'point')} could not be written")
        yield _indented(Text("\n".join(lines), style="yellow"))


def _measured(info: RunInfo) -> Iterator[RenderableType]:
    metrics = [summary for name, summary in info.metrics.items() if not name.startswith(SYSTEM)]
    if metrics:
        yield _heading("Metrics", len(metrics))
        yield _indented(_metrics_table(metrics))
    if info.record_names:
        yield _heading("Media and texts", len(info.record_names))
        yield _indented(Text("\n".join(clean(name) for name in info.record_names)))
    system = list(system_lines(info))
    if system:
        yield _heading("System")
        yield _indented(_pairs(system))
    findings = [finding for finding in top_findings(info) if finding.kind != "files_damaged"]  # told above
    if findings:
        yield _heading("Findings", len(findings))
        for finding in findings:
            yield from finding_parts(finding)


def _headline(info: RunInfo) -> Text:
    line = status(info.status)
    line.append("  ")
    line.append(clean(info.name), style="bold")
    line.append(f"  {clean(info.project)}", style="cyan")
    if info.group:
        line.append(f" / {clean(info.group)}", style="cyan")
    for word, is_so in (("pinned", info.is_pinned), ("archived", info.is_archived), ("deleted", info.is_deleted)):
        if is_so:
            line.append("  ")
            line.append(word, style="reverse")
    return line


def _facts(info: RunInfo) -> list[tuple[str, Text]]:
    facts = [("id", Text(info.id))]
    started = Text(moment_text(info.started_at))
    if is_terminal():
        started.append(f"  {ago(info.started_at, datetime.now(UTC))}", style="dim")
    facts.append(("started", started))
    if info.ended_at is not None:
        facts.append(("ended", Text(moment_text(info.ended_at))))
    facts.append(("duration", Text(duration(info.duration_s))))
    if info.parent:
        facts.append(("parent", Text(clean(info.parent))))
    if info.attempts:
        latest = info.attempts[-1]
        facts.append(("process", Text(f"{latest.pid} on {clean(latest.host)}")))
    facts.append(("folder", Text(clean(info.path), overflow="fold")))
    return facts


def _failure(failure: Failure) -> Iterator[RenderableType]:
    title = Text(f"{clean(failure.type)}: {clean(failure.message)}", style="bold red")
    if failure.rank:
        title.append(f"  (rank {failure.rank})", style="dim")
    yield _heading("Failure")
    yield _indented(title)
    if failure.traceback.strip():
        yield _indented(Text(clean(failure.traceback.rstrip(), lines=True), style="dim"))


def _metrics_table(summaries: Sequence[MetricSummary]) -> Table:
    rows = []
    for one in summaries:
        steps = str(one.last_step) if one.first_step == one.last_step else f"{one.first_step} … {one.last_step}"
        points = Text(f"{one.count:,}")
        if one.nan_count:
            points.append(f" ({one.nan_count:,} nan)", style="yellow")
        low, high = _at(one.min, one.min_step), _at(one.max, one.max_step)
        rows.append([Text(clean(one.name)), cell(one.last), low, high, cell(one.mean), points, Text(steps)])
    numbers = [(name, "right") for name in ("last", "min", "max", "mean", "points", "steps")]
    return table(["name", *numbers], rows)


def _at(value: float | None, step: int | None) -> Text:
    text = cell(value)
    if value is not None:
        text.append(f" @{step}", style="dim")
    return text


def _artifacts_table(artifacts: Sequence[Artifact]) -> Table:
    rows = []
    for artifact in artifacts:
        kind = counted(len(artifact.files), "file") if artifact.is_folder else "file"
        rows.append([Text(clean(artifact.name)), Text(kind), Text(size(artifact.size_bytes))])
    return table(["name", "kind", ("size", "right")], rows)


def _attempts_table(attempts: Sequence[Attempt]) -> Table:
    rows = []
    for attempt in attempts:
        end = attempt.ended_at or datetime.now(UTC)
        rows.append(
            [
                Text(str(attempt.number)),
                status(attempt.status),
                Text(moment_text(attempt.started_at)),
                Text(duration((end - attempt.started_at).total_seconds())),
                cell(attempt.rewind_step),
                Text(f"{attempt.pid} on {clean(attempt.host)}"),
            ]
        )
    return table(["", "status", "started", ("duration", "right"), ("from step", "right"), "process"], rows)


def _environment(snapshot: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Yield the lines that say most; `--json` has the whole snapshot."""

    def at(*keys: str) -> Any:
        found: Any = snapshot
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def joined(*parts: Any) -> str:
        return " ".join(clean(part) for part in parts if part not in (None, ""))

    gpus = at("gpu", "devices") or ()
    names = Counter(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, Mapping))
    memory, cores = at("memory", "total_bytes"), at("cpu", "usable_cores")
    changes = "with uncommitted changes" if at("git", "is_dirty") else ""
    lines = {
        "host": joined(at("identity", "user"), "at", at("identity", "host")) if at("identity", "host") else "",
        "system": joined(at("os", "distribution") or at("os", "name"), at("os", "release"), at("os", "machine")),
        "python": joined(at("python", "version"), at("python", "executable")),
        "cpu": joined(at("cpu", "model"), f"({counted(cores, 'core')})" if isinstance(cores, int) else None),
        "memory": size(memory) if isinstance(memory, int) else "",
        "gpu": ", ".join(f"{count} x {clean(name)}" for name, count in names.items()),
        "git": joined(str(at("git", "commit") or "")[:12], at("git", "branch"), changes),
        "command": joined(*(at("process", "argv") or ())),
    }
    for name, text in lines.items():
        if text:
            yield name, Text(text)


def _heading(title: str, count: int | None = None) -> Text:
    text = Text(f"\n{title}", style="bold")
    if count is not None:
        text.append(f"  {count}", style="dim")
    return text


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _pairs(rows: Sequence[tuple[str, Text]]) -> Table:
    """Return names and values under each other, long values folded."""
    return table(["", ("", "fold")], [(Text(clean(name), style="dim"), text) for name, text in rows], header=False)
