"""`runstone import`: runs that other tools recorded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from runstone import settings
from runstone.cli._output import clean, counted, is_terminal, say, short_id, show, table, to_json
from runstone.cli.main import Suggesting, workspace_option
from runstone.workspace import ensure_workspace

if TYPE_CHECKING:
    from runstone.tensorboard.importer import ImportedFolder

_STYLE = {"new": "green", "grown": "cyan", "unchanged": "dim", "empty": "dim", "copy": "yellow", "deleted": "yellow"}


@click.group("import", cls=Suggesting)
@workspace_option
def import_group() -> None:
    """Make runs of what other tools recorded."""


@import_group.command("tensorboard")
@click.argument("logdir", type=click.Path(path_type=Path))
@click.option(
    "-p", "--project", metavar="NAME", help="Project of the runs. Default: RUNSTONE_PROJECT, else LOGDIR's own name."
)
@click.option("--json", "as_json", is_flag=True, help="What came of each folder, as JSON.")
@workspace_option
@click.pass_context
def import_tensorboard(ctx: click.Context, logdir: Path, project: str | None, as_json: bool) -> None:
    """Make a run of each folder of TensorBoard event files below LOGDIR.

    Steps and wall times stay as they are. Importing again adds what was written since, and nothing twice.
    """
    from runstone.tensorboard.importer import import_logdir  # NumPy and tensorboardX, only here

    logdir = logdir.expanduser()
    name = os.path.basename(os.path.abspath(logdir))  # noqa: PTH100, PTH119 (links keep the name that they have here)
    project = project or settings.read("RUNSTONE_PROJECT") or name or "tensorboard"
    workspace = ensure_workspace(ctx.find_root().obj)
    found = []
    for result in import_logdir(workspace, logdir, project=project):
        found.append(result)
        if is_terminal() and not as_json:
            say(f"{result.outcome:9}  {clean(result.source)}", stderr=True)
    if as_json:
        say(to_json([_as_dict(result) for result in found]))
        return
    if not found:
        say(f"no event files (…tfevents…) below {clean(logdir)}", stderr=True)
        return
    show(_results(found))
    say()
    for line in _summary(found):
        say(line)


def _as_dict(result: ImportedFolder) -> dict[str, Any]:
    return {**asdict(result), "source": str(result.source)}


def _results(found: Sequence[ImportedFolder]) -> Any:
    rows = [
        [
            Text(result.outcome, style=_STYLE[result.outcome]),
            Text(short_id(result.run_id) or "-", style="dim"),
            Text(clean(result.project) or "-"),
            Text(clean(result.name or result.source)),
            *(Text(f"{count:,}") for count in (result.points_in, result.points_added, result.points_held)),
        ]
        for result in found
    ]
    numbers = [(name, "right") for name in ("in the files", "added", "in the run")]
    return table(["", "id", "project", "name", *numbers], rows)


def _summary(found: Sequence[ImportedFolder]) -> list[str]:
    outcomes = Counter(result.outcome for result in found)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    points_in, added = sum(one.points_in for one in found), sum(one.points_added for one in found)
    lines = [
        f"{counted(len(found), 'folder')}: {told}",
        f"{counted(points_in, 'point')} in the event files, {added:,} added, "
        f"{sum(one.points_held for one in found):,} in the runs",
    ]
    if any(one.media_in or one.media_held for one in found):
        lines.append(
            f"{sum(one.media_in for one in found):,} media and texts in the event files, "
            f"{sum(one.media_added for one in found):,} added, {sum(one.media_held for one in found):,} in the runs"
        )
    left: Counter[str] = Counter()
    for one in found:
        left.update(one.not_carried)
    if left:
        lines.append(
            f"not carried over: {', '.join(f'{clean(kind)} {count:,}' for kind, count in sorted(left.items()))}"
        )
    damaged, torn = sum(one.losses.damaged for one in found), sum(one.losses.torn_bytes for one in found)
    skipped = sum(one.losses.skipped_bytes for one in found)
    if damaged or torn or skipped:
        lines.append(
            f"not readable: {counted(damaged, 'damaged record')}, {counted(torn, 'byte')} of torn records, "
            f"{counted(skipped, 'byte')} between records"
        )
    lines += [
        f"{clean(one.source)} holds the same event file as {clean(one.original)}: a copy, left out; "
        "give its folder another name to import it too"
        for one in found
        if one.outcome == "copy"
    ]
    lines += [
        f"{clean(one.source)}: its run was deleted; `runstone runs restore {short_id(one.run_id)}` brings it back"
        for one in found
        if one.outcome == "deleted"
    ]
    return lines
