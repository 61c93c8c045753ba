"""`runstone models list | show | history | at`: what stands and what stood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from runstone.cli._output import cell, clean, counted, say, show, size, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.models.common import json_option, plain_name
from runstone.models.history import ARCHIVED, Approval, ModelState, ModelVersion
from runstone.models.operation import Deployment, Incident
from runstone.models.refs import ModelRef, parse_time
from runstone.models.shapes import state_as_dict, version_as_dict
from runstone.models.telling import moment, number, told
from runstone.workspace import Workspace

if TYPE_CHECKING:
    from runstone.ledger import LedgerEvent
    from runstone.models import Manifest, Model

_SHORT_HASH = 12
_VERSION_HEADS = ("version", "stage", ("aliases", "fold"), "approval", "registered", "by", "run", ("tags", "fold"))


@click.command("list")
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
        say(to_json([state_as_dict(state) for state in found]))
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


@click.command("show")
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
        say(to_json({**state_as_dict(state), "versions": [version_as_dict(one) for one in model.versions()]}))
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
            Text(moment(version.registered_at)),
            cell(version.author),
            cell(version.run_id and version.run_id[-8:]),
            cell(", ".join(f"{name}={value}" for name, value in version.tags.items()) or None),
        )
        for version in model.versions()
    ]
    where = [f"{one.target} {one.version}" for one in state.deployed()]
    parts += [Text(clean(f"deployed: {', '.join(where)}"), style="dim")] if where else []
    wrong = [f"{one} {one.kind} of {one.version}: {one.summary}" for one in state.incidents.values() if one.is_open]
    parts += [Text(clean(f"open incident {one}"), style="red") for one in wrong]
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
        content = json.loads(manifest.to_bytes())
        say(to_json(version_as_dict(version) | {"content": content, "revoked": causes.revoked}))
        return
    approval = version.approval
    recipe = manifest.recipe
    data = ", ".join(f"{entry['name']}@{entry.get('version') or '?'}" for entry in recipe.get("data") or ())
    reasons = [reason["what"] for reason in version.proposal.get("reasons", ())]
    rows = [
        ("stage", f"{version.stage} since {moment(version.stage_since)}"),
        ("aliases", ", ".join(version.aliases)),
        ("approval", _approval(approval)),
        ("registered", f"{moment(version.registered_at)} by {version.author}"),
        ("run", f"{version.run_id} ({(manifest.run or {}).get('name')})" if version.run_id else ""),
        ("number", f"proposed {version.proposal.get('version')}: {'; '.join(reasons)}" if reasons else ""),
        ("chosen", version.override_reason or ""),
        ("withdrawn", version.withdrawn or ""),
        ("deployed", "\n".join(_deployment(one) for one in version.deployments if one.is_standing)),
        ("incidents", "\n".join(_incident(one) for one in version.incidents)),
        ("revoked", "; ".join(f"{key}: {reason}" for key, reason in causes.revoked.items())),
        ("flavour", manifest.flavour),
        ("takes", manifest.signature.describe_inputs() if manifest.signature else "no signature"),
        ("gives", ", ".join(map(str, _outputs(manifest)))),
        ("labels", ", ".join(map(str, manifest.labels or ()))),
        ("data", data),
        ("metrics", ", ".join(f"{name} {number(value)}" for name, value in manifest.metrics.items())),
        ("code", str((recipe.get("code") or {}).get("commit") or "")),
        ("files", f"{counted(len(manifest.files), 'file')}, {size(manifest.size_bytes)}"),
        ("hash", version.manifest),
        ("profile", version.profile_hash or ""),
        ("tags", ", ".join(f"{name}={value}" for name, value in version.tags.items())),
        ("notes", version.notes or ""),
    ]
    cells = [(Text(name, style="dim"), Text(clean(text, lines=True))) for name, text in rows if text]
    show(Text(clean(version), style="bold"), table(["", ("", "fold")], cells, header=False))


def _deployment(one: Deployment) -> str:
    facts = [f"since {moment(one.at)}"]
    facts += [f"{one.replicas} replicas"] if one.replicas is not None else []
    facts += [one.url] if one.url else []
    return f"{one.target}: {', '.join(facts)}"


def _incident(one: Incident) -> str:
    state = "open" if one.closed_at is None else f"closed {moment(one.closed_at)}: {one.resolution}"
    return f"#{one.number} {one.kind}, {moment(one.opened_at)}: {one.summary} ({state})"


def _outputs(manifest: Manifest) -> Sequence[Any]:
    signature = manifest.signature
    return signature.outputs.fields if signature is not None and signature.outputs is not None else ()


def _approval(approval: Approval) -> str:
    by = f" by {approval.by} on {moment(approval.at)}" if approval.by and approval.at else ""
    return f"{approval.state}{by}{f': {approval.reason}' if approval.reason else ''}"


@click.command("history")
@click.argument("name", metavar="NAME")
@click.option("--deliveries", is_flag=True, help="Show what hooks were told, too.")
@json_option
@workspace_option
@click.pass_context
def history_command(ctx: click.Context, name: str, deliveries: bool, as_json: bool) -> None:
    """Show every event of a model: who did what, when and why."""
    events = workspace_of(ctx).models.get(plain_name(name)).history()
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


@click.command("at")
@click.argument("date", metavar="DATE")
@click.argument("name", metavar="[NAME]", required=False)
@json_option
@workspace_option
@click.pass_context
def at_command(ctx: click.Context, date: str, name: str | None, as_json: bool) -> None:
    """Show which version stood in each stage and under each alias when a day was over (or at a time)."""
    at = parse_time(date)
    registry = workspace_of(ctx).models
    found = []
    for model in [registry.get(name)] if name is not None else registry:
        state = model.state(at)
        for stage in state.stages[1:]:
            found += [(state.name, "stage", stage, version) for version in state.in_stage(stage)]
        found += [(state.name, "alias", alias, state.versions[number]) for alias, number in state.aliases.items()]
    if as_json:
        rows = [{"model": model, kind: word, **version_as_dict(version)} for model, kind, word, version in found]
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


def _event_as_dict(event: LedgerEvent) -> dict[str, Any]:
    """Return an event as it was written."""
    return {
        "seq": event.seq,
        "event": event.kind,
        "at": event.at,
        "by": dict(event.by),
        **event.fields,
        "hash": event.hash,
    }
