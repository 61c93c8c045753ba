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
from runstone.cli.bundles import import_bundle_command
from runstone.cli.main import Suggesting, workspace_option
from runstone.errors import InvalidValue
from runstone.workspace import ensure_workspace

if TYPE_CHECKING:
    from runstone.importers import Import, ImportedModel, ImportedRun
    from runstone.tensorboard.importer import ImportedFolder

_STYLE = {"new": "green", "grown": "cyan", "unchanged": "dim", "empty": "dim", "copy": "yellow", "deleted": "yellow"}


class _Detecting(Suggesting):
    """A group that takes a path where a tool could stand: which tool wrote it is found out then."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the tool that is named, or the one that finds out."""
        name = args[0] if args else ""
        if name not in self.commands and not name.startswith("-") and (_is_path(name) or len(args) == 1):
            return "auto", _import_anything, args
        return super().resolve_command(ctx, args)


def _is_path(text: str) -> bool:
    return "/" in text or "." in text or Path(text).exists()


@click.group("import", cls=_Detecting, subcommand_metavar="[TOOL] PATH [OPTIONS]...")
@workspace_option
def import_group() -> None:
    """Make runs of what other tools recorded.

    Without TOOL, which one wrote PATH is found out. Importing again adds what came since, and nothing twice; an import
    that was killed is gone on with so.
    """


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
    _from_tensorboard(ctx, logdir, project, as_json)


def _from_tensorboard(ctx: click.Context, logdir: Path, project: str | None, as_json: bool) -> None:
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


# --- the other tools --------------------------------------------------------------------------------------------------


_WITH_PYTHON = ("aim",)
_SHORT = {
    "wandb": "Make runs of offline runs of Weights & Biases: a `.wandb` file, a `wandb` folder, or one above.",
    "mlflow": "Make runs and models of a store of MLflow: `mlflow.db`, an `mlruns` folder, or the folder they are in.",
    "trackio": "Make runs of Trackio's projects: its folder, a project's `.db`, or lines of JSON from its inbox.",
    "aim": "Make runs of a repository of Aim, which takes Aim's own library: see --python.",
    "neptune": "Make runs of what neptune-exporter wrote: the folder with `data` and `files`.",
    "clearml": "Make runs of offline sessions of ClearML: a zip file, a session's folder, or the folder they are in.",
    "dvclive": "Make runs of DVCLive's folders.",
    "csv": "Make runs of CSV files: a column `step` and one for each metric, or `run`, `step`, `metric`, `value`.",
}


def _options(command: Any, *, has_python: bool) -> Any:
    options = [
        click.argument("path", type=click.Path(path_type=Path)),
        click.option("-p", "--project", metavar="NAME", help="Project of new runs. Default: as the store says."),
        click.option("--dry-run", is_flag=True, help="Only say what would be imported."),
        click.option(
            "--also-from",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            multiple=True,
            metavar="FOLDER",
            help="Take files that the store names from this folder, too. Else none outside of the store are read.",
        ),
        *(
            [click.option("--python", metavar="PATH", help="Interpreter that has the tool's library.")]
            if has_python
            else []
        ),
        click.option("--json", "as_json", is_flag=True, help="What came of each run, as JSON."),
        workspace_option,
        click.pass_context,
    ]
    for option in reversed(options):
        command = option(command)  # type: ignore[operator]
    return command


def _add(tool: str, text: str) -> None:
    def command(ctx: click.Context, path: Path, **given: Any) -> None:
        _import(ctx, tool, path, **given)

    command.__doc__ = text
    import_group.command(tool)(_options(command, has_python=tool in _WITH_PYTHON))


for _tool, _text in _SHORT.items():
    _add(_tool, _text)


def _anything(ctx: click.Context, path: Path, **given: Any) -> None:
    """Find out which tool wrote PATH, and make runs of it."""
    from runstone.importers import detect  # only where asked for

    tool = detect(path.expanduser())
    if tool != "tensorboard":
        _import(ctx, tool, path, **given)
        return
    if given["dry_run"] or given["also_from"]:
        raise InvalidValue("--dry-run and --also-from are not for event files of TensorBoard")
    _from_tensorboard(ctx, path, given["project"], given["as_json"])


_import_anything = click.command("import")(_options(_anything, has_python=True))


def _import(
    ctx: click.Context,
    tool: str,
    path: Path,
    *,
    project: str | None,
    dry_run: bool,
    also_from: Sequence[Path],
    as_json: bool,
    python: str | None = None,
) -> None:
    from runstone.importers import import_store  # NumPy and what a tool needs, only here

    def tell(one: ImportedRun | ImportedModel) -> None:
        if is_terminal() and not as_json:
            say(f"{one.outcome:9}  {clean(one.name)}", stderr=True)

    result = import_store(
        ensure_workspace(ctx.find_root().obj),
        tool,
        path.expanduser(),
        project=project or settings.read("RUNSTONE_PROJECT"),
        also_from=tuple(also_from),
        python=python,
        is_dry=dry_run,
        tell=tell,
    )
    if as_json:
        left = {kind: count for kind, count in result.not_carried.items() if count}
        runs = [asdict(one) for one in result.runs]
        models = [asdict(one) for one in result.models]
        told = {"tool": tool, "is_dry_run": dry_run, "runs": runs, "models": models, "not_carried": left}
        say(to_json({**told, "troubles": result.troubles}))
    elif not result.runs and not result.models:
        say(f"{clean(path)} holds no run", stderr=True)
    else:
        _show_import(result, is_dry=dry_run)
    for trouble in result.troubles:
        say(f"could not import {clean(trouble)}", stderr=True)
    if result.troubles:
        ctx.exit(1)


def _show_import(result: Import, *, is_dry: bool) -> None:
    rows = [
        [
            Text(one.outcome, style=_STYLE[one.outcome]),
            Text(short_id(one.run_id), style="dim"),
            Text(clean(one.project)),
            Text(clean(one.name)),
            *(Text(f"{count:,}") for count in (one.found.points, one.added.points, one.held.points)),
        ]
        for one in result.runs
    ]
    numbers = [(name, "right") for name in ("in the store", "added", "in the run")]
    if rows:
        show(table(["", "id", "project", "name", *numbers], rows))
        say()
    show(_totals(result, is_dry=is_dry))
    outcomes = Counter(one.outcome for one in result.runs)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "none"
    say()
    say(f"{counted(len(result.runs), 'run')}: {told}")
    left: Counter[str] = Counter(result.not_carried)
    for told_left in (*(one.not_carried for one in result.runs), *(one.not_carried for one in result.models)):
        left.update(told_left)
    listed = [f"{clean(kind)} {count:,}" for kind, count in sorted(left.items()) if count]
    if listed:
        say(f"not carried over: {', '.join(listed)}")
    gone = [one for one in result.runs if one.outcome == "deleted"]
    if gone:
        say(f"{counted(len(gone), 'run')} were deleted here and stay so; `runstone runs restore ID` brings one back")
    if is_dry:
        say("nothing was written (--dry-run)")


def _totals(result: Import, *, is_dry: bool) -> Any:
    """Return counts in and out, by kind."""
    from runstone.importers import Counts

    totals = {"found": Counts(), "added": Counts(), "held": Counts()}
    for one in result.runs:
        for side, total in totals.items():
            total.add(getattr(one, side))
    made = sum(one.outcome == "new" for one in result.runs)
    rows: list[list[Any]] = [["runs", len(result.runs), made, len(result.runs)]]
    for kind in asdict(totals["found"]):
        counts = [getattr(total, kind) for total in totals.values()]
        if any(counts):
            rows.append([_KINDS.get(kind, kind), *counts])
    if result.models:
        models = result.models
        rows.append(["models", len(models), sum(one.outcome == "new" for one in models), len(models)])
        rows.append(["versions", *(sum(getattr(one, side) for one in models) for side in totals)])
        aliases = [sum(getattr(one, f"aliases_{side}") for one in models) for side in ("found", "held")]
        if any(aliases):
            rows.append(["aliases", aliases[0], "", aliases[1]])
    titles = ("in the store",) if is_dry else ("in the store", "added", "here")
    cells = [
        [Text(row[0]), *(Text(f"{count:,}" if isinstance(count, int) else count) for count in row[1 : len(titles) + 1])]
        for row in rows
    ]
    return table(["", *((title, "right") for title in titles)], cells)


_KINDS = {"files": "files of artifacts", "lines": "lines of output", "links": "inputs and outputs"}

import_group.add_command(import_bundle_command, "bundle")
