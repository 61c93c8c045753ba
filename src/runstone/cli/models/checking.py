"""`runstone models compare | verify | card | load-check`: what a version is worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from runstone.cli._output import cell, clean, counted, say, show, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.models.common import REFERENCE, json_option
from runstone.errors import InvalidValue


@click.command("compare")
@click.argument("left", metavar=REFERENCE)
@click.argument("right", metavar=REFERENCE)
@json_option
@workspace_option
@click.pass_context
def compare_command(ctx: click.Context, left: str, right: str, as_json: bool) -> None:
    """Put two versions side by side: metrics, params, schema, data."""
    from runstone.models.comparing import compare_versions

    found = compare_versions(workspace_of(ctx), left, right)
    if as_json:
        say(to_json(found.to_dict()))
        return
    parts: list[RenderableType] = []
    sections = (("Metrics", found.metrics), ("Params", found.params), ("Data", found.data), ("Version", found.facts))
    for title, rows in sections:
        parts.append(Text(f"{title}{'' if rows else ': no difference'}", style="bold"))
        if rows:
            cells = [(cell(name), cell(one), cell(other), _change(one, other)) for name, one, other in rows]
            sides = ((str(found.left), "fold"), (str(found.right), "fold"))
            parts.append(table(["", *sides, ("change", "right")], cells))
    parts.append(Text(f"Schema{'' if found.schema else ': no difference'}", style="bold"))
    parts += [Text(f"{'breaks: ' if is_breaking else 'goes: '}{clean(what)}") for what, is_breaking in found.schema]
    show(*parts)


def _change(one: Any, other: Any) -> Text:
    is_number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return Text(f"{other - one:+.6g}" if is_number and math.isfinite(other - one) else "")


@click.command("verify")
@click.argument("name", metavar="[NAME]", required=False)
@json_option
@workspace_option
@click.pass_context
def verify_command(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Check the chain of every history and rehash all manifests and files; name what was changed.

    Exit code 1 where something is found. The head stands for the whole history: kept elsewhere, it shows later that the
    newest events were not cut off. `runstone verify` reads everything in the workspace.
    """
    from runstone.models.verifying import verify_models

    found = verify_models(workspace_of(ctx), name)
    if as_json:
        faults = [{"of": fault.of, "where": fault.where, "what": fault.what} for fault in found.faults]
        counts = {"models": found.models, "versions": found.versions, "contents": found.files}
        say(to_json({**counts, "faults": faults, "heads": found.heads}))
    else:
        for fault in found.faults:
            say(f"{clean(fault.of)}: {clean(fault.where)}: {clean(fault.what)}")
        for model, head in found.heads.items():
            say(f"{clean(model)}: the history holds, head {head}")
        checked = ", ".join(
            [counted(found.models, "model"), counted(found.versions, "version"), counted(found.files, "content")]
        )
        say(f"checked {checked}: {counted(len(found.faults), 'problem') if found.faults else 'all as written'}")
    if found.faults:
        ctx.exit(1)


@click.command("card")
@click.argument("ref", metavar=REFERENCE)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--html", "as_html", is_flag=True, help="As a page; default where FILE ends in .html.")
@workspace_option
@click.pass_context
def card_command(ctx: click.Context, ref: str, output: Path | None, as_html: bool) -> None:
    """Write the card of a version: data, params, metrics, environment, signature, lineage, approval, history."""
    from runstone.models.card import card_of

    card = card_of(workspace_of(ctx), ref)
    is_page = as_html or (output is not None and output.suffix.lower() in (".html", ".htm"))
    text = card.to_html() if is_page else card.to_markdown()
    if output is None:
        say(clean(text, lines=True), newline=False)
    else:
        output.write_text(text, encoding="utf-8")
        say(f"wrote {clean(output)}")


@click.command("load-check")
@click.argument("ref", metavar=REFERENCE)
@click.option("--trusted", "--trust", "trusted", is_flag=True, help="Execute what its author wrote, as for pickles.")
@workspace_option
@click.pass_context
def load_check_command(ctx: click.Context, ref: str, trusted: bool) -> None:
    """Load a version here and let it predict on its example."""
    from runstone.models import load_version, read_example

    workspace = workspace_of(ctx)
    loaded = load_version(workspace.models, workspace.blobs, ref, trusted=trusted)
    say(f"{clean(loaded.version)} loads as {clean(loaded.manifest.flavour)}")
    example = read_example(loaded.manifest, workspace.blobs)
    if example is None:
        say("it has no example to predict on")
        return
    if loaded.manifest.flavour == "files":
        say("plain files predict nothing")
        return
    try:
        answer = loaded.predict(example)
    except Exception as error:  # whatever the model's own code raises is the answer to what was asked
        raise InvalidValue(f"{loaded.version} cannot predict on its example: {type(error).__name__}: {error}") from None
    shape = getattr(answer, "shape", None)
    say(f"it predicts on its example: {type(answer).__name__}{f' of shape {tuple(shape)}' if shape else ''}")
