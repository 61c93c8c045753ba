"""`runstone models`: the registry on the command line, for people and for CI.

Exit codes: 0 done; 1 refused by gates, or it could not be done; 2 the command line was wrong.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from runstone.cli._output import cell, clean, counted, say, show, size, table, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import InvalidValue, NotFound, TrackingWarning
from runstone.models.history import ARCHIVED, Approval, ModelState, ModelVersion
from runstone.models.refs import ModelRef, parse_time
from runstone.workspace import Workspace, ensure_workspace

if TYPE_CHECKING:
    from runstone.models import Manifest, Model
    from runstone.models.promotion import Promotion

_REFERENCE = "NAME@V"
_SHORT_HASH = 12
_VERSION_HEADS = ("version", "stage", ("aliases", "fold"), "approval", "registered", "by", "run", ("tags", "fold"))


@click.group("models", cls=Suggesting)
@workspace_option
def models_group() -> None:
    """Versions of models: register, compare, approve, promote, roll back, and prove what was done.

    V is a version such as 2.1.0, the begin of one, an alias, a stage, or `latest`; behind it, `?as_of=2026-03-01` asks
    for what stood when that day was over.
    """


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


# --- looking --------------------------------------------------------------------------------------------------------


@models_group.command("list")
@click.option("--tag", "tags", multiple=True, metavar="NAME[=VALUE]", help="Only with this tag; more than one: all.")
@click.option("--text", metavar="TEXT", help="Only with this in name or notes.")
@json_option
@workspace_option
@click.pass_context
def list_command(ctx: click.Context, tags: Sequence[str], text: str | None, as_json: bool) -> None:
    """List the models, and what stands in their stages."""
    states = [model.state() for model in workspace_of(ctx).models]
    found = [state for state in states if _is_wanted(state, tags, text)]
    if as_json:
        say(to_json([_state_as_dict(state) for state in found]))
        return
    rows = [
        (
            cell(state.name),
            Text(str(len(state.usable()))),
            cell(str(state.usable()[0].version) if state.usable() else None),
            cell(", ".join(_standing(state)) or None),
            cell(", ".join(f"{name}={value}" for name, value in state.tags.items()) or None),
        )
        for state in found
    ]
    if rows:
        show(table(["name", ("versions", "right"), "highest", ("stands", "fold"), ("tags", "fold")], rows))
    else:
        say("no model matches" if states else "no models yet; run.log_model and `runstone models register` make them")


def _is_wanted(state: ModelState, tags: Sequence[str], text: str | None) -> bool:
    every = [state.tags, *(version.tags for version in state.versions.values())]
    for tag in tags:
        name, has_value, value = tag.partition("=")
        if not any(name in one and (not has_value or one[name] == value) for one in every):
            return False
    notes = [state.name, state.notes or "", *(version.notes or "" for version in state.versions.values())]
    return text is None or any(text.casefold() in one.casefold() for one in notes)


def _standing(state: ModelState) -> list[str]:
    stages = [stage for stage in state.stages[1:] if stage != ARCHIVED]
    found = [f"{stage} {version.version}" for stage in stages for version in state.in_stage(stage)]
    return found + [f"@{alias} {version}" for alias, version in sorted(state.aliases.items())]


@models_group.command("show")
@click.argument("ref", metavar="NAME[@V]")
@json_option
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, ref: str, as_json: bool) -> None:
    """Show a model with its versions, or all that is known of one version."""
    workspace = workspace_of(ctx)
    parsed = ModelRef.parse(ref)
    if "@" not in ref and parsed.as_of is None:
        _show_model(workspace.models.get(parsed.name), as_json=as_json)
    else:
        _show_version(workspace, workspace.models.find(parsed), as_json=as_json)


def _show_model(model: Model, *, as_json: bool) -> None:
    state = model.state()
    if as_json:
        say(to_json({**_state_as_dict(state), "versions": [_version_as_dict(one) for one in model.versions()]}))
        return
    parts: list[RenderableType] = [Text(clean(state.name), style="bold")]
    parts += [Text(clean(state.notes, lines=True))] if state.notes else []
    facts = [f"stages: {', '.join(state.stages)}", "asks for an approval"][: 1 + state.requires_approval]
    facts += [f"tags: {', '.join(f'{name}={value}' for name, value in state.tags.items())}"] if state.tags else []
    parts.append(Text(clean("; ".join(facts)), style="dim"))
    rows = [
        (
            Text(str(version.version)),
            cell("withdrawn" if version.withdrawn is not None else version.stage),
            cell(", ".join(version.aliases) or None),
            cell(version.approval.state),
            Text(_moment(version.registered_at)),
            cell(version.author),
            cell(version.run_id and version.run_id[-8:]),
            cell(", ".join(f"{name}={value}" for name, value in version.tags.items()) or None),
        )
        for version in model.versions()
    ]
    if rows:
        parts.append(table(_VERSION_HEADS, rows))
    else:
        parts.append(Text("no version yet"))
    show(*parts)


def _show_version(workspace: Workspace, version: ModelVersion, *, as_json: bool) -> None:
    from runstone.models.saving import read_manifest

    causes = workspace.lineage(f"model:{version.model}@{version.version}", down=False)
    manifest = read_manifest(version, workspace.blobs)
    if as_json:
        content = _version_as_dict(version) | {"content": _manifest_as_dict(manifest), "revoked": causes.revoked}
        say(to_json(content))
        return
    approval = version.approval
    recipe = manifest.recipe
    data = ", ".join(f"{entry['name']}@{entry.get('version') or '?'}" for entry in recipe.get("data") or ())
    reasons = [reason["what"] for reason in version.proposal.get("reasons", ())]
    rows = [
        ("stage", f"{version.stage} since {_moment(version.stage_since)}"),
        ("aliases", ", ".join(version.aliases)),
        ("approval", _approval(approval)),
        ("registered", f"{_moment(version.registered_at)} by {version.author}"),
        ("run", f"{version.run_id} ({(manifest.run or {}).get('name')})" if version.run_id else ""),
        ("number", f"proposed {version.proposal.get('version')}: {'; '.join(reasons)}" if reasons else ""),
        ("chosen", version.override_reason or ""),
        ("withdrawn", version.withdrawn or ""),
        ("revoked", "; ".join(f"{key}: {reason}" for key, reason in causes.revoked.items())),
        ("flavour", manifest.flavour),
        ("takes", manifest.signature.describe_inputs() if manifest.signature else "no signature"),
        ("gives", ", ".join(map(str, _outputs(manifest)))),
        ("labels", ", ".join(map(str, manifest.labels or ()))),
        ("data", data),
        ("metrics", ", ".join(f"{name} {_number(value)}" for name, value in manifest.metrics.items())),
        ("code", str((recipe.get("code") or {}).get("commit") or "")),
        ("files", f"{counted(len(manifest.files), 'file')}, {size(manifest.size_bytes)}"),
        ("hash", version.manifest),
        ("tags", ", ".join(f"{name}={value}" for name, value in version.tags.items())),
        ("notes", version.notes or ""),
    ]
    cells = [(Text(name, style="dim"), Text(clean(text, lines=True))) for name, text in rows if text]
    show(Text(clean(version), style="bold"), table(["", ("", "fold")], cells, header=False))


def _outputs(manifest: Manifest) -> Sequence[Any]:
    signature = manifest.signature
    return signature.outputs.fields if signature is not None and signature.outputs is not None else ()


def _approval(approval: Approval) -> str:
    by = f" by {approval.by} on {_moment(approval.at)}" if approval.by and approval.at else ""
    return f"{approval.state}{by}{f': {approval.reason}' if approval.reason else ''}"


@models_group.command("compare")
@click.argument("left", metavar=_REFERENCE)
@click.argument("right", metavar=_REFERENCE)
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


@models_group.command("history")
@click.argument("name", metavar="NAME")
@click.option("--deliveries", is_flag=True, help="Show what hooks were told, too.")
@json_option
@workspace_option
@click.pass_context
def history_command(ctx: click.Context, name: str, deliveries: bool, as_json: bool) -> None:
    """Show every event of a model: who did what, when and why."""
    from runstone.models.card import moment, told

    events = workspace_of(ctx).models.get(_plain_name(name)).history()
    if as_json:
        say(to_json([_event_as_dict(event) for event in events]))
        return
    rows = [
        (
            Text(str(event.seq)),
            Text(moment(event.at)),
            cell(f"{event.by['user']}@{event.by['host']}"),
            cell(told(event)),
        )
        for event in events
        if deliveries or event.kind != "delivered"
    ]
    show(table([("#", "right"), "when", "who", ("what", "fold")], rows))


@models_group.command("at")
@click.argument("date", metavar="DATE")
@click.argument("name", metavar="[NAME]", required=False)
@json_option
@workspace_option
@click.pass_context
def at_command(ctx: click.Context, date: str, name: str | None, as_json: bool) -> None:
    """Show which version stood in each stage and under each alias when a day was over (or at a time)."""
    moment = parse_time(date)
    registry = workspace_of(ctx).models
    found = []
    for model in [registry.get(name)] if name is not None else registry:
        state = model.state(moment)
        for stage in state.stages[1:]:
            found += [(state.name, "stage", stage, version) for version in state.in_stage(stage)]
        found += [(state.name, "alias", alias, state.versions[number]) for alias, number in state.aliases.items()]
    if as_json:
        rows = [{"model": model, kind: word, **_version_as_dict(version)} for model, kind, word, version in found]
        say(to_json(rows))
        return
    if not found:
        say("nothing stood in a stage or under an alias then")
        return
    cells = [
        (cell(model), Text(kind), cell(word), Text(str(version.version)), Text(version.manifest[:_SHORT_HASH]))
        for model, kind, word, version in found
    ]
    show(table(["model", "", "", "version", "hash"], cells))


@models_group.command("verify")
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


@models_group.command("card")
@click.argument("ref", metavar=_REFERENCE)
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


@models_group.command("load-check")
@click.argument("ref", metavar=_REFERENCE)
@click.option("--trusted", is_flag=True, help="Execute what its author wrote, as for pickles.")
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


# --- changing -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _told(ctx: click.Context, name: str) -> Iterator[Model]:
    """Give the model to change; say afterwards what hooks were told of it."""
    model = workspace_of(ctx).models.get(name)
    before = len(model.history())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrackingWarning)
        yield model
    for warning in caught:
        say(f"warning: {clean(warning.message)}", stderr=True)
    for event in [event for event in model.history()[before:] if event.kind == "delivered"]:
        said = event.fields
        later = "; it is tried again later" if said["state"] == "failed" else ""
        say(f"hook {clean(said['hook'])}: {clean(said['state'])} ({clean(said['detail'])}){later}", stderr=True)


def _ref(text: str) -> tuple[str, str]:
    ref = ModelRef.parse(text)
    if "@" not in text or ref.as_of is not None:
        raise click.UsageError(f"{text!r} must name a version as it stands now: NAME@V")
    return ref.name, ref.selector


def _plain_name(text: str) -> str:
    return ModelRef.parse(text).name


@models_group.command("register")
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="PATH|RUN[:ARTIFACT]")
@click.option(
    "--version", "number", metavar="V", help="A number, or major, minor, patch; default: what the evidence says."
)
@click.option("--pre", metavar="WORDS", help="Of a pre-release, such as rc.1.")
@click.option("--run", "run_ref", metavar="RUN", help="The run that made PATH.")
@click.option("--flavour", help="How it is loaded; default: by what it is.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE")
@click.option("--notes", metavar="MARKDOWN")
@click.option("--dry-run", is_flag=True, help="Only say which number it would get, and why.")
@reason_option
@json_option
@workspace_option
@click.pass_context
def register_command(
    ctx: click.Context,
    name: str,
    source: str,
    number: str | None,
    pre: str | None,
    run_ref: str | None,
    flavour: str | None,
    tags: Sequence[str],
    notes: str | None,
    dry_run: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Register a new version from files, or from what a run has logged as an artifact."""
    from runstone.models import Models, Registration, proposal_for, register, save_artifact, save_model
    from runstone.models.hooks import announcer

    workspace = workspace_of(ctx)
    run = workspace.run(run_ref) if run_ref is not None else None
    if Path(source).exists():
        manifest = save_model(source, workspace.blobs, flavour=flavour, run=run)
    else:
        reference, _, artifact = source.partition(":")
        try:
            run = workspace.run(reference)
        except NotFound:
            raise NotFound(f"there is no file, folder or run {source!r:.120}") from None
        manifest = save_artifact(run, artifact or None, workspace.blobs, flavour=flavour)
    registry = Models(workspace.models.root, run_id=run.id if run else None, after=announcer(workspace.path))
    state = registry.get(name).state() if name in registry else ModelState()
    proposal = proposal_for(manifest, state, workspace.blobs)
    if dry_run:
        say(to_json(proposal.to_json()) if as_json else f"{clean(name)} {proposal.version}")
        _say_reasons(proposal.to_json(), as_json=as_json)
        return
    version = register(registry, workspace.blobs, manifest, Registration(name, number, pre, reason, _tags(tags), notes))
    say(to_json(_version_as_dict(version)) if as_json else f"registered {clean(version)}")
    _say_reasons(version.proposal, as_json=as_json)


def _say_reasons(proposal: Any, *, as_json: bool) -> None:
    for reason in () if as_json else proposal.get("reasons", ()):
        say(f"  {reason['level']}: {clean(reason['what'])}")


@models_group.command("promote")
@click.argument("ref", metavar=_REFERENCE)
@click.argument("stage", metavar="STAGE")
@click.option(
    "--gates",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the gates; default: gates.yaml in the workspace, if it is there.",
)
@click.option("--keep-others", is_flag=True, help="Leave those that are in the stage there, too.")
@click.option("--dry-run", is_flag=True, help="Only ask the gates; change and record nothing.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@reason_option
@workspace_option
@click.pass_context
def promote_command(
    ctx: click.Context,
    ref: str,
    stage: str,
    gates: Path | None,
    keep_others: bool,
    dry_run: bool,
    form: str,
    reason: str | None,
) -> None:
    """Move a version into a stage, if all gates hold. What they found, also a refusal, is kept in the history.

    Exit code 1 where it is refused.
    """
    from runstone.models.promotion import promote

    name, _selector = _ref(ref)
    with _told(ctx, name):
        found = promote(
            workspace_of(ctx), ref, stage, gates=gates, reason=reason, keeps_others=keep_others, is_dry=dry_run
        )
    if form == "json":
        say(to_json(found.to_dict()))
    elif form == "markdown":
        say(found.to_markdown(), newline=False)
    else:
        _say_promotion(found)
    if not found.is_allowed:
        ctx.exit(1)


def _say_promotion(found: Promotion) -> None:
    for check in found.checks:
        mark = click.style("passed", fg="green") if check.is_passed else click.style("FAILED", fg="red", bold=True)
        say(f"{mark}  {clean(check.gate)}: {clean(check.detail)}")
    say(clean(found.headline))
    if found.replaced:
        say(f"it replaces {', '.join(found.replaced)}")


@models_group.command("rollback")
@click.argument("name", metavar="NAME")
@click.argument("stage", metavar="STAGE")
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
@workspace_option
@click.pass_context
def rollback_command(ctx: click.Context, name: str, stage: str, reason: str) -> None:
    """Bring back the version that was in a stage before the one that is there now."""
    with _told(ctx, _plain_name(name)) as model:
        version = model.roll_back(stage, reason=reason)
    say(f"{clean(version)} is in {clean(stage)} again")


@models_group.command("approve")
@click.argument("ref", metavar=_REFERENCE)
@reason_option
@workspace_option
@click.pass_context
def approve_command(ctx: click.Context, ref: str, reason: str | None) -> None:
    """Approve a version."""
    _judge(ctx, ref, "approved", reason)


@models_group.command("reject")
@click.argument("ref", metavar=_REFERENCE)
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
@workspace_option
@click.pass_context
def reject_command(ctx: click.Context, ref: str, reason: str) -> None:
    """Reject a version: it cannot be promoted any more."""
    _judge(ctx, ref, "rejected", reason)


def _judge(ctx: click.Context, ref: str, word: Any, reason: str | None) -> None:
    name, selector = _ref(ref)
    with _told(ctx, name) as model:
        version = model.judge(selector, word, reason=reason)
    say(f"{clean(version)} is {word} by {clean(version.approval.by)}")


@models_group.command("alias")
@click.argument("alias", metavar="ALIAS")
@click.argument("ref", metavar="NAME[@V]")
@click.option("--remove", is_flag=True, help="Let it point to nothing.")
@workspace_option
@click.pass_context
def alias_command(ctx: click.Context, alias: str, ref: str, remove: bool) -> None:
    """Let an alias point to a version, in one step, wherever it pointed before."""
    if remove:
        with _told(ctx, _plain_name(ref)) as model:
            model.remove_alias(alias)
        say(f"{clean(alias)} points to nothing")
        return
    name, selector = _ref(ref)
    with _told(ctx, name) as model:
        version = model.set_alias(alias, selector)
    say(f"{clean(alias)} points to {clean(version)}")


@models_group.command("tag")
@click.argument("ref", metavar="NAME[@V]")
@click.argument("tags", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this tag.")
@workspace_option
@click.pass_context
def tag_command(ctx: click.Context, ref: str, tags: Sequence[str], remove: Sequence[str]) -> None:
    """Set or remove tags of a model or a version."""
    if not tags and not remove:
        raise click.UsageError("give tags as NAME=VALUE, or --remove NAME")
    name, selector = _of_model_or_version(ref)
    given = _tags(tags)
    with _told(ctx, name) as model:
        if given:
            model.set_tags(given, version=selector)
        if remove:
            model.remove_tags(*remove, version=selector)
        state = model.state()
    found = state.tags if selector is None else state.find(selector).tags
    say(", ".join(f"{clean(key)}={clean(value)}" for key, value in found.items()) or "no tags")


@models_group.command("note")
@click.argument("ref", metavar="NAME[@V]")
@click.argument("text", metavar="[MARKDOWN]", required=False)
@click.option("-f", "--file", "file", type=click.File("r", encoding="utf-8"), help="Read it from there; - is stdin.")
@click.option("--remove", is_flag=True, help="Remove what stands there.")
@workspace_option
@click.pass_context
def note_command(ctx: click.Context, ref: str, text: str | None, file: Any, remove: bool) -> None:
    """Set the annotation of a model or a version, in place of what stood there."""
    if sum((text is not None, file is not None, remove)) != 1:
        raise click.UsageError("give the text, or --file, or --remove")
    name, selector = _of_model_or_version(ref)
    try:
        content = None if remove else text if text is not None else file.read()
    except UnicodeDecodeError:
        raise InvalidValue("the notes are not UTF-8 text") from None
    with _told(ctx, name) as model:
        model.set_notes(content, version=selector)
    say("noted")


@models_group.command("stages")
@click.argument("name", metavar="NAME")
@click.argument("stages", metavar="[STAGE]...", nargs=-1)
@click.option("--requires-approval/--no-approval", default=None, help="Whether versions are approved before use.")
@workspace_option
@click.pass_context
def stages_command(ctx: click.Context, name: str, stages: Sequence[str], requires_approval: bool | None) -> None:
    """Show or set the stages of a model, the first of which a new version is in."""
    with _told(ctx, _plain_name(name)) as model:
        if stages or requires_approval is not None:
            model.define(stages=list(stages) or None, requires_approval=requires_approval)
        state = model.state()
    for stage in state.stages:
        found = [str(version.version) for version in state.in_stage(stage)]
        say(f"{clean(stage)}: {', '.join(found) or '-'}")
    if state.requires_approval:
        say("versions are approved before use")


@models_group.command("withdraw")
@click.argument("ref", metavar=_REFERENCE)
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
@click.option("--force", is_flag=True, help="Also where an alias or a stage points to it.")
@workspace_option
@click.pass_context
def withdraw_command(ctx: click.Context, ref: str, reason: str, force: bool) -> None:
    """Take a version out of use. Its number is never given again."""
    name, selector = _ref(ref)
    with _told(ctx, name) as model:
        version = model.find(selector)
        model.withdraw(str(version.version), reason=reason, is_forced=force)
    say(f"{clean(version)} is withdrawn")


@models_group.command("copy")
@click.argument("ref", metavar="NAME[@V]")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="Folder of the other workspace.")
@workspace_option
@click.pass_context
def copy_command(ctx: click.Context, ref: str, target: Path) -> None:
    """Register a version in another workspace, under its name and number, with its content."""
    from runstone.models.comparing import copy_version

    there = ensure_workspace(target)
    version = copy_version(workspace_of(ctx), ref, there)
    say(f"{clean(version)} is in {clean(there.path)}")


# --- hooks ----------------------------------------------------------------------------------------------------------


@models_group.group("hooks", cls=Suggesting)
def hooks_group() -> None:
    """Commands and webhooks that are told what happens in the registry (`hooks.yaml` in the workspace)."""


@hooks_group.command("list")
@workspace_option
@click.pass_context
def hooks_list_command(ctx: click.Context) -> None:
    """List the hooks, and what they have not taken yet."""
    from runstone.models.hookfile import read_hooks
    from runstone.models.hooks import pending

    workspace = workspace_of(ctx)
    hooks = read_hooks(workspace.path)
    if not hooks:
        say(f"no hooks; write {clean(workspace.path / 'hooks.yaml')}")
        return
    waiting = [one for model in workspace.models for one in pending(workspace.path, model, hooks)]
    rows = [
        (
            cell(hook.name),
            cell(", ".join(hook.on)),
            cell(f"{hook.model}{f' in {hook.stage}' if hook.stage else ''}"),
            cell(hook.target),
            Text(str(sum(one.hook.name == hook.name for one in waiting))),
        )
        for hook in hooks
    ]
    show(table(["name", ("on", "fold"), ("model", "fold"), ("goes to", "fold"), ("waiting", "right")], rows))


@hooks_group.command("run")
@click.option("--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds.")
@workspace_option
@click.pass_context
def hooks_run_command(ctx: click.Context, budget: float) -> None:
    """Tell hooks now of all that they have not taken yet. Exit code 1 where one does not take it."""
    from runstone.models.hooks import deliver

    workspace = workspace_of(ctx)
    found = deliver(workspace.path, workspace.models, budget_s=budget, is_forced=True)
    for one in found:
        say(f"{clean(one.hook)}: {one.word} of {clean(one.model)}: {one.state} ({clean(one.detail)})")
    if not found:
        say("nothing is waiting")
    if any(one.state != "delivered" for one in found):
        ctx.exit(1)


@hooks_group.command("test")
@click.argument("name", metavar="HOOK")
@click.option("--model", default="test", show_default=True, help="Name of the model in the event.")
@workspace_option
@click.pass_context
def hooks_test_command(ctx: click.Context, name: str, model: str) -> None:
    """Send a hook an event `test`, which stands in no history. Exit code 1 where it is not taken."""
    from runstone.models.hookfile import read_hooks
    from runstone.models.hooks import try_out

    workspace = workspace_of(ctx)
    hooks = {hook.name: hook for hook in read_hooks(workspace.path)}
    if name not in hooks:
        raise NotFound(f"there is no hook {name!r:.80}; there is {', '.join(hooks) or 'none'}")
    sent = try_out(workspace.path, hooks[name], model)
    say(f"{'taken' if sent.is_delivered else 'not taken'}: {clean(sent.detail)}")
    if sent.output:
        say(clean(sent.output, lines=True))
    if not sent.is_delivered:
        ctx.exit(1)


# --- shapes ---------------------------------------------------------------------------------------------------------


def _of_model_or_version(text: str) -> tuple[str, str | None]:
    return _ref(text) if "@" in text else (_plain_name(text), None)


def _tags(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, has_value, value = word.partition("=")
        if not has_value or not name:
            raise click.UsageError(f"{word!r} is no tag; write NAME=VALUE")
        found[name] = value
    return found


def _moment(at: float) -> str:
    from runstone.models.card import moment

    return moment(at)


def _number(value: float) -> str:
    from runstone.models.card import number

    return number(value)


def _state_as_dict(state: ModelState) -> dict[str, Any]:
    return {
        "name": state.name,
        "stages": list(state.stages),
        "in_stage": {stage: [str(one.version) for one in state.in_stage(stage)] for stage in state.stages},
        "aliases": dict(state.aliases),
        "tags": dict(state.tags),
        "notes": state.notes,
        "requires_approval": state.requires_approval,
        "created_at": state.created_at,
        "count": len(state.versions),
    }


def _version_as_dict(version: ModelVersion) -> dict[str, Any]:
    approval = version.approval
    return {
        "model": version.model,
        "version": str(version.version),
        "hash": version.manifest,
        "run": version.run_id,
        "author": version.author,
        "registered_at": version.registered_at,
        "proposal": dict(version.proposal),
        "reason": version.override_reason,
        "approval": {"state": approval.state, "by": approval.by, "at": approval.at, "reason": approval.reason},
        "stage": version.stage,
        "stage_since": version.stage_since,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "notes": version.notes,
        "withdrawn": version.withdrawn,
    }


def _manifest_as_dict(manifest: Manifest) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads(manifest.to_bytes())
    return content


def _event_as_dict(event: Any) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "event": event.kind,
        "at": event.at,
        "by": dict(event.by),
        **event.fields,
        "hash": event.hash,
    }


__all__ = ["models_group"]
