"""The card of a version: everything that is known of it on one page, as Markdown or HTML that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from runstone.ledger import LedgerEvent
from runstone.models.history import ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.saving import read_manifest
from runstone.models.telling import moment, number, size_text, told
from runstone.params import flatten_params
from runstone.runinfo import RunInfo

if TYPE_CHECKING:
    from runstone.lineage import Lineage
    from runstone.workspace import Workspace

_MOST_ROWS = 200
_FACTS = re.compile(
    r"python\.(version|implementation)|os\.(name|release|machine|distribution)|cpu\.(model|usable_cores)"
    r"|memory\.total_bytes|gpu\.(driver.*|cuda.*|.*\.name|.*\.memory_total_bytes)"
)
_PACKAGES = frozenset(
    "torch lightning keras tensorflow jax scikit-learn xgboost lightgbm transformers numpy pandas runstone".split()
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading; the first cell names the row."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a version.

    Attributes:
        version: The version.
        notes: Of the version and of its model: Markdown, as written.
        warnings: What whoever uses it must know.
        tables: Facts, deployments and incidents, metrics, data, params, signature, environment, history.
        lineage: What it came of and where it stands.
    """

    version: ModelVersion
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    lineage: Lineage

    def to_markdown(self) -> str:
        """Return it as Markdown; what users wrote into names and values is no markup there, only notes are."""
        lines = [f"# Model card: {_cell(str(self.version))}", ""]
        lines += [f"> **{_cell(warning)}**\n" for warning in self.warnings]
        for note in self.notes:
            lines += [note, ""]
        for table in self.tables:
            lines += [f"## {table.title}", ""]
            if table.rows:
                lines += [_line(table.heads), _line(["---"] * len(table.heads))]
                lines += [_line(map(_cell, row)) for row in table.rows]
            lines += [f"\n{_cell(table.note)}"] if table.note else []
            lines.append("")
        tree = "\n".join(_plain(line) for line in self.lineage.to_tree().splitlines())
        lines += ["## Lineage", "", *(f"    {line}" for line in tree.splitlines()), ""]
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return it as a page without scripts, fonts or links."""
        from runstone.lineage.page import STYLE  # lineage knows models, not the other way round

        title = escape(_plain(str(self.version)))
        parts = [
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
            "<meta name=viewport content='width=device-width,initial-scale=1'>"
            "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            f"<title>{title}</title><style>{STYLE}{_STYLE}</style></head><body><main>",
            f"<h1>{title}</h1>",
            f"<p class=badges>{''.join(f'<span>{escape(_plain(word))}</span>' for word in self._badges())}</p>",
        ]
        parts += [f"<p class=warning>{escape(_plain(warning))}</p>" for warning in self.warnings]
        parts += [f"<div class=notes>{_rendered(note)}</div>" for note in self.notes]
        for table in self.tables:
            parts += [f"<section><h2>{escape(table.title)}</h2>", *_rows(table), "</section>"]
        parts += [f"<section><h2>Lineage</h2><div class=scroll>{self.lineage.to_svg()}</div></section>"]
        return "\n".join([*parts, "</main></body></html>\n"])

    def _badges(self) -> list[str]:
        version = self.version
        words = ["withdrawn" if version.withdrawn is not None else version.stage, *version.aliases]
        return [*words, version.approval.state, *(f"{name}={value}" for name, value in version.tags.items())]


def card_of(workspace: Workspace, ref: str) -> Card:
    """Return the card of a version.

    Raises:
        ModelNotFound: there is no such version.
        NotFound: what it consists of is not in this workspace.
        FormatError: that is damaged.
    """
    version = workspace.models.find(ref)
    model = workspace.models.get(version.model)
    manifest = read_manifest(version, workspace.blobs)
    lineage = workspace.lineage(f"model:{version.model}@{version.version}")
    run = _run_of(workspace, version)
    notes = tuple(note for note in (model.state().notes, version.notes) if note)
    tables = (
        _facts(version, manifest, run),
        *_in_use(version),
        _metrics(manifest),
        _data(manifest, lineage),
        Table("Algorithm and params", ("param", "value"), _pairs(flatten_params(manifest.recipe.get("params") or {}))),
        _signature(manifest),
        _environment(manifest, run),
        history_table([event for event in model.history() if _is_about(event, str(version.version))]),
    )
    warnings = [f"revoked: {key}: {reason}" for key, reason in lineage.graph.causes(lineage.root).items()]
    warnings += [f"withdrawn: {version.withdrawn}"] if version.withdrawn is not None else []
    warnings += [f"rejected: {version.approval.reason or 'no reason given'}"] * (version.approval.state == "rejected")
    warnings += [f"open incident {one}, {one.kind}: {one.summary}" for one in version.incidents if one.is_open]
    return Card(version, notes, tuple(warnings), tables, lineage)


def history_table(events: Iterable[LedgerEvent]) -> Table:
    """Return events as rows: when, who, what."""
    rows = [
        (str(event.seq), moment(event.at), f"{event.by.get('user')}@{event.by.get('host')}", told(event))
        for event in events
        if event.kind != "delivered"
    ]
    return Table("Approval and history", ("#", "when", "who", "what"), rows)


def _is_about(event: LedgerEvent, version: str) -> bool:
    said = event.fields
    if event.kind == "created" or version in (said.get("version"), said.get("before"), *said.get("ended", ())):
        return True
    # a stage names the others with where they went, a place only the versions
    return any(
        version in (other, other["version"] if isinstance(other, Mapping) else None)
        for other in said.get("replaced", ())
    )


def _run_of(workspace: Workspace, version: ModelVersion) -> RunInfo | None:
    folder = workspace.find_run_folder(version.run_id) if version.run_id else None
    return RunInfo(folder) if folder is not None else None


def _facts(version: ModelVersion, manifest: Manifest, run: RunInfo | None) -> Table:
    approval = version.approval
    by = f" by {approval.by} on {moment(approval.at)}" if approval.by and approval.at else ""
    why = f": {approval.reason}" if approval.reason else ""
    proposal = version.proposal
    reasons = "; ".join(reason["what"] for reason in proposal.get("reasons", ()))
    rows = {
        "version": str(version.version),
        "stage": f"{version.stage} since {moment(version.stage_since)}",
        "aliases": ", ".join(version.aliases),
        "approval": f"{approval.state}{by}{why}",
        "registered": f"{moment(version.registered_at)} by {version.author}",
        "why this number": f"{proposal['version']} was proposed: {reasons}" if proposal.get("version") else "",
        "another number, because": version.override_reason or "",
        "run": f"{run.name} ({run.id}) of project {run.project}" if run is not None else version.run_id or "none",
        "flavour": manifest.flavour,
        "size": f"{size_text(manifest.size_bytes)} in {len(manifest.files):,} file{'s' * (len(manifest.files) != 1)}",
        "hash": version.manifest,
        "labels": ", ".join(map(str, manifest.labels)) if manifest.labels is not None else "",
        "tags": ", ".join(f"{name}={value}" for name, value in version.tags.items()),
        **{f"metadata: {name}": str(value) for name, value in manifest.metadata.items()},
    }
    return Table("Version", ("", ""), [(name, value) for name, value in rows.items() if value])


def _in_use(version: ModelVersion) -> list[Table]:
    """Return where it works and what went wrong there; nothing for what is neither."""
    deployments = [
        (
            one.target,
            f"{moment(one.at)} to {moment(one.ended_at) if one.ended_at is not None else 'now'}",
            str(one.replicas if one.replicas is not None else "-"),
            one.url or "-",
        )
        for one in version.deployments
    ]
    incidents = [
        (
            f"#{one.number}",
            one.kind,
            moment(one.opened_at),
            "open" if one.closed_at is None else f"closed {moment(one.closed_at)}: {one.resolution}",
            one.summary,
        )
        for one in version.incidents
    ]
    found = [Table("Deployments", ("place", "from, to", "replicas", "address"), deployments)] if deployments else []
    heads = ("incident", "kind", "opened", "state", "what")
    return [*found, *([Table("Incidents", heads, incidents)] if incidents else [])]


def _data(manifest: Manifest, lineage: Lineage) -> Table:
    rows = [
        (
            str(entry["name"]),
            str(entry.get("version") or "-"),
            str(entry.get("role") or "-"),
            str(entry.get("hash") or "-"),
        )
        for entry in manifest.recipe.get("data") or ()
    ]
    sources = [node.label for node in lineage.of_kind("source")]
    note = f"Raw data: {', '.join(sources)}" if sources else ""
    return Table("Data", ("dataset", "version", "used as", "hash"), rows, note or ("" if rows else "No data is known."))


def _metrics(manifest: Manifest) -> Table:
    rows = [(name, number(value)) for name, value in sorted(manifest.metrics.items())]
    return Table("Metrics", ("metric", "value when it was registered"), rows, "" if rows else "No metrics are known.")


def _environment(manifest: Manifest, run: RunInfo | None) -> Table:
    code = manifest.recipe.get("code") or {}
    rows = [("code", f"{code['commit']}{' with uncommitted changes' if code.get('is_dirty') else ''}")] if code else []
    found = (run.environment if run is not None else None) or {}
    flat = flatten_params({name: found[name] for name in ("python", "os", "cpu", "memory", "gpu") if name in found})
    rows += [
        (name.removesuffix("_bytes"), _fact(name, flat[name]))
        for name in flat
        if _FACTS.fullmatch(name) and flat[name] not in (None, "")
    ]
    packages = found.get("packages")
    installed = packages.get("installed") if isinstance(packages, Mapping) else None
    names = [
        f"{entry.get('name')} {entry.get('version')}"
        for entry in installed or ()
        if isinstance(entry, Mapping) and str(entry.get("name")).lower() in _PACKAGES
    ]
    rows += [("packages", ", ".join(names))] if names else []
    return Table("Environment", ("", ""), rows, "" if rows else "No environment was recorded.")


def _fact(name: str, value: object) -> str:
    return size_text(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _signature(manifest: Manifest) -> Table:
    rows = []
    if manifest.signature is not None:
        sides = (("takes", manifest.signature.inputs), ("gives", manifest.signature.outputs))
        rows = [(side, str(field)) for side, schema in sides if schema is not None for field in schema.fields]
    return Table("Signature", ("", "name, type and shape"), rows, "" if rows else "It has no signature.")


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(name, str(value)) for name, value in list(values.items())[:_MOST_ROWS]]
    return [*rows, ("…", f"{len(values)} in all")] if len(values) > _MOST_ROWS else rows


def _rendered(note: str) -> str:
    """Return Markdown as HTML without links, pictures and HTML of its own; as it is where the renderer is missing."""
    text = _plain(note, lines=True)
    try:
        from markdown_it import MarkdownIt  # an extra; without it the text is shown as it was written
    except ImportError:
        return f"<pre>{escape(text)}</pre>"
    rules = ["emphasis", "backticks", "list", "heading", "fence", "code", "blockquote", "table", "newline", "escape"]
    return str(MarkdownIt("zero").enable(rules).render(text))


def _rows(table: Table) -> list[str]:
    parts = []
    if table.rows:
        head = "".join(f"<th>{escape(name)}</th>" for name in table.heads)
        kind = " class=pair" if len(table.heads) == 2 else ""
        parts.append(f"<table{kind}>{f'<thead><tr>{head}</tr></thead>' if any(table.heads) else ''}<tbody>")
        for first, *others in table.rows:
            cells = "".join(f"<td>{escape(_plain(cell))}</td>" for cell in others)
            parts.append(f"<tr><th>{escape(_plain(first))}</th>{cells}</tr>")
        parts.append("</tbody></table>")
    if table.note:
        parts.append(f"<p class=soft>{escape(_plain(table.note))}</p>")
    return parts


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in _plain(text))


def _plain(text: str, *, lines: bool = False) -> str:
    return "".join(c if c.isprintable() or (lines and c == "\n") else "·" for c in text)


_STYLE = (
    "main{max-width:1240px;margin:auto}section{background:var(--box);border:1px solid var(--line);border-radius:10px;"
    "padding:4px 20px 16px;margin:16px 0}section h2{margin:14px 0 8px}table{border-collapse:collapse;width:100%;"
    "font-size:14px}th,td{text-align:left;padding:4px 14px 4px 0;border-top:1px solid var(--line);vertical-align:top;"
    "overflow-wrap:anywhere}tbody tr:first-child th,tbody tr:first-child td{border-top:0}thead th{color:var(--soft);"
    "font-weight:500}tbody th{font-weight:600}.pair tbody th{width:30%}"
    "td:not(:last-child){overflow-wrap:normal;white-space:nowrap}section{--back:var(--box)}.notes{margin:12px 0}"
    ".notes pre{white-space:pre-wrap;font:inherit}.notes p{margin:6px 0}.soft{color:var(--soft)}thead th{border-top:0}"
    ".badges{margin:0 0 12px}.badges span{display:inline-block;border:1px solid var(--line);border-radius:12px;"
    "padding:1px 10px;margin:0 6px 6px 0;font-size:13px;background:var(--box)}"
)
