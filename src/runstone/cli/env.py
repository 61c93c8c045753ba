"""`runstone env`: what a run records of machine, Python and code; what one has recorded; what differs between two."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runstone.cli._output import (
    cell,
    clean,
    console,
    counted,
    duration,
    is_terminal,
    moment_text,
    say,
    short_id,
    show,
    size,
    table,
    to_json,
)
from runstone.cli.main import workspace_of, workspace_option
from runstone.environments import (
    EnvironmentChange,
    EnvironmentDiff,
    EnvironmentGroup,
    as_used,
    changes_since_start,
    diff_environments,
    recorded_patch,
)
from runstone.errors import NotFound
from runstone.runinfo import RunInfo

# A line is a label and its parts; a part is text, or a reason why there is none.
_Line = tuple[str, Text]
_LEADING_PACKAGES = (
    "torch lightning pytorch-lightning keras tensorflow jax scikit-learn xgboost lightgbm transformers accelerate "
    "datasets numpy pandas pyarrow scipy optuna runstone"
).split()
_TELLING_FLAGS = (
    "avx avx2 fma avx512f avx512_bf16 avx512_fp16 avx512_vnni avx_vnni amx_tile amx_bf16 amx_int8 neon asimd sve sve2 "
    "bf16 i8mm"
).split()
_MOST_NAMES = 8


_TITLES = {
    "code": "Code",
    "packages": "Python and packages",
    "gpu": "GPU, driver, CUDA",
    "numerics": "Determinism and precision",
    "cpu": "CPU and threads",
    "variables": "Variables",
    "limits": "Limits and memory",
    "system": "System",
}
_SIZES = {"memory", "swap", "shared memory", "locked memory", "memory limit", "memory throttled from", "swap limit"}
_MOST_ROWS = 25


class _RunOrCommand(click.Group):
    """A group in which a word that is no subcommand is a run."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand, or the one that shows a run."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "show", _show_run, args

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say that a run may stand here."""
        return ["[OPTIONS]", "[RUN | COMMAND ...]"]


@click.group(name="env", cls=_RunOrCommand, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known, as JSON.")
@workspace_option
@click.pass_context
def env(ctx: click.Context, as_json: bool) -> None:
    """Show what a run would record of this machine, Python and code; with RUN, what that run has recorded.

    A field without a value says why. `--json` has every field, such as all packages and CPU flags.
    """
    ctx.meta["runstone.env.as_json"] = as_json
    if ctx.invoked_subcommand is None:
        _present(_taken_now(), None, as_json=as_json)


@click.command(name="show", add_help_option=False)
@click.argument("reference", metavar="RUN")
@click.option("--json", "as_json", is_flag=True)
@click.option("-h", "--help", "wants_help", is_flag=True)
@workspace_option
@click.pass_context
def _show_run(ctx: click.Context, reference: str, as_json: bool, wants_help: bool) -> None:
    if wants_help and ctx.parent is not None:
        say(ctx.parent.get_help())
        return
    as_json = as_json or ctx.meta["runstone.env.as_json"]
    _present(_stored(workspace_of(ctx).run(reference)), reference, as_json=as_json)


@env.command(name="diff", short_help="Show what differs between the environments of two runs.")
@click.argument("left", metavar="RUN")
@click.argument("right", metavar="[RUN]", required=False)
@click.option("--all", "show_all", is_flag=True, help="Show every row, however many there are.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where something differs.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@workspace_option
@click.pass_context
def diff_command(
    ctx: click.Context, left: str, right: str | None, show_all: bool, exit_code: bool, as_json: bool
) -> None:
    """Show what differs between the environments of two runs, most likely to matter first.

    With one RUN: between it and this machine, Python and checkout as they are now. What is never the same (process
    ids, times, free memory) is left out.
    """
    workspace = workspace_of(ctx)
    runs = [workspace.run(reference) for reference in (left, right) if reference is not None]
    first = runs[0]
    if len(runs) == 2:
        second = runs[1]
        found = diff_environments(
            _stored(first),
            _stored(second),
            left_patch=recorded_patch(first),
            right_patch=recorded_patch(second),
        )
    else:
        patch, snapshot = _now_with_patch()
        found = diff_environments(
            _stored(first), snapshot, left_patch=recorded_patch(first), right_patch=patch, is_same_program=False
        )
    if as_json:
        sides = {side: {"id": run.id, "name": run.name} for side, run in zip(("left", "right"), runs, strict=False)}
        say(to_json({"left": sides["left"], "right": sides.get("right"), **found.to_dict()}))
    else:
        show(*_diff_parts(found, runs, show_all=show_all or not is_terminal()))
    if exit_code and not found.is_equal:
        ctx.exit(1)


def _diff_parts(found: EnvironmentDiff, runs: list[RunInfo], *, show_all: bool) -> Iterator[RenderableType]:
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.name} {short_id(run.id)}" for run in runs]
    titles = [*names, "now here"][:2]
    for group in found.groups:
        if group.changes:
            yield _diff_heading(group)
            rows = [_diff_row(change) for change in (group.changes if show_all else group.changes[:_MOST_ROWS])]
            yield Padding(table(["", (titles[0], "fold"), (titles[1], "fold")], rows), (0, 0, 1, 2), expand=False)
            if len(group.changes) > len(rows):
                yield Text(f"  … and {len(group.changes) - len(rows)} more; --all shows them\n", style="dim")
    same = [f"{_TITLES[group.name]} ({group.equal})" for group in found.groups if not group.changes and group.equal]
    if found.is_equal:
        yield Text("The environments are the same in everything that was recorded of both.", style="green")
    if same:
        yield Text(f"The same: {', '.join(same)}", style="dim")
    if found.unknown:
        yield Text("Not known on one side:", style="yellow")
        for one in found.unknown:
            of = titles[0] if one.side == "left" else titles[1]
            yield Text(f"  {clean(one.name)} of {clean(of)}: {clean(one.why)}", style="dim")


def _diff_heading(group: EnvironmentGroup) -> Text:
    text = Text(_TITLES[group.name], style="bold")
    text.append(f"  {len(group.changes)} differ, {group.equal} equal", style="dim")
    return text


def _diff_row(change: EnvironmentChange) -> list[Text]:
    return [Text(clean(change.name)), _diff_cell(change, change.left), _diff_cell(change, change.right)]


def _diff_cell(change: EnvironmentChange, value: Any) -> Text:
    if isinstance(value, int) and not isinstance(value, bool):
        if change.name in _SIZES or change.name.startswith("memory_bytes"):
            return Text(size(value))
        return Text(str(value))
    if change.name == "commit" and isinstance(value, str):
        return Text(clean(value[:12]))
    return cell(value)


def _present(snapshot: dict[str, Any], reference: str | None, *, as_json: bool) -> None:
    if as_json:
        say(to_json(snapshot))
        return
    view = _View(as_used(snapshot))
    output = console()
    output.print(_heading(view, reference))
    sections = list(_sections(view))
    changes = changes_since_start(snapshot)
    if changes:
        sections.append(("Changed after the start", _changes_later(changes)))
    for title, lines in sections:
        output.print()
        output.print(Text(title, style="bold"))
        _print_lines(output, lines)
    output.print()
    output.print(Text("--json prints every field and the reason of each that is missing.", style="dim"))


def _taken_now() -> dict[str, Any]:
    from runstone.capture import snapshot

    return snapshot()


def _now_with_patch() -> tuple[bytes, dict[str, Any]]:
    """Return the snapshot of this machine, and what is not committed in the checkout of this folder."""
    from runstone.capture.collect import collect

    patches: list[bytes] = []

    def keep(patch: bytes) -> str:
        patches.append(patch)
        return "patch"

    snapshot = collect(keep_patch=keep)
    return (patches[0] if patches else b""), snapshot


def _stored(run: RunInfo) -> dict[str, Any]:
    if run.environment is None:
        raise NotFound(
            f"run {run.name!r} has no environment: it was started with environment=False, or ended before it was taken"
        )
    return run.environment


class _View:
    """Looks up values of a snapshot by dotted path, and why there is none."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self._snapshot = snapshot
        why = snapshot.get("why")
        self._why: dict[str, str] = why if isinstance(why, dict) else {}

    def get(self, path: str) -> Any:
        """Return the value at a path, `None` where there is none."""
        value: Any = self._snapshot
        for name in path.split("."):
            if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            elif isinstance(value, dict):
                value = value.get(name)
            else:
                return None
        return value

    def reason(self, path: str) -> str:
        """Return why nothing is at a path: its own reason, or that of something around it."""
        place = path
        while place:
            if place in self._why:
                return self._why[place]
            place = place.rpartition(".")[0]
        return "absent: not recorded"

    def text(self, path: str, form: str = "{}") -> Text:
        """Return a value as text, or a dash and the reason, dim."""
        value = self.get(path)
        return self.missing(path) if value is None else Text(clean(form.format(value)))

    def missing(self, path: str) -> Text:
        """Return the reason as it is shown."""
        kind, _, detail = self.reason(path).partition(": ")
        if detail == "unlimited":
            return Text("unlimited")
        shown = detail if kind == "absent" else f"{kind}: {detail}"
        return Text(f"- {clean(shown)}", style="dim" if kind in ("absent", "redacted") else "yellow")

    def size(self, path: str) -> Text:
        """Return a number of bytes for people."""
        value = self.get(path)
        return Text(size(value)) if isinstance(value, int) else self.missing(path)


def _joined(*parts: Text | str | None) -> Text:
    kept = [part if isinstance(part, Text) else Text(clean(part)) for part in parts if part]
    return Text("  ").join(kept)


def _listed(names: list[str], most: int = _MOST_NAMES) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _heading(view: _View, reference: str | None) -> Text:
    moment = datetime.fromtimestamp(float(view.get("captured_at") or 0.0), tz=UTC)
    took = view.get("duration_ms")
    title = "This machine" if reference is None else f"Run {reference}"
    who = "@".join(str(name) for name in (view.get("identity.user"), view.get("identity.host")) if name)
    about = "  ".join(filter(None, [who, moment_text(moment), f"read in {took:.0f} ms" if took else ""]))
    return Text.assemble((clean(title), "bold"), "  ", (clean(about), "dim"))


def _print_lines(output: Console, lines: Iterator[_Line]) -> None:
    if not is_terminal():
        for label, text in lines:  # a table would fill each line with spaces
            output.print(Text(f"  {clean(label):<14} ") + text)
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True, min_width=16)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(f"  {clean(label)}", text)
    output.print(grid)


def _sections(view: _View) -> Iterator[tuple[str, Iterator[_Line]]]:
    yield "Process", _process(view)
    yield "Code", _code(view)
    yield "Python", _python(view)
    yield "GPU", _gpu(view)
    yield "CPU and memory", _cpu(view)
    yield "Limits", _limits(view)
    yield "Disk", _disk(view)
    yield "System", _system(view)
    if view.get("env"):
        yield "Variables", _variables(view)


def _process(view: _View) -> Iterator[_Line]:
    argv = view.get("process.argv")
    if argv:
        command = " ".join(shlex.quote(str(word)) for word in argv)
        yield "command", Text(clean(command if len(command) <= 300 else command[:300] + " …"))
    else:
        yield "command", view.missing("process.argv")
    yield "kind", _joined(view.text("process.kind"), view.text("process.entry"))
    yield "folder", view.text("process.cwd")
    world = view.get("rank.world_size") or 1
    if world > 1:
        yield "rank", view.text("rank.rank", f"{{}} of {world}")
    if view.get("notebook"):
        yield "notebook", view.text("notebook.path")


def _code(view: _View) -> Iterator[_Line]:
    if not view.get("git"):
        yield "git", view.missing("git")
        return
    yield "checkout", view.text("git.root")
    describe, commit = view.get("git.describe"), str(view.get("git.commit") or "")
    named = describe if describe and not commit.startswith(str(describe)) else ""
    yield "commit", view.text("git.commit", "{:.12}") + Text(f"  {clean(named)}" if named else "", style="dim")
    yield "branch", view.text("git.branch")
    yield "changes", _changes(view)
    omitted = view.get("git.diff.omitted")
    if omitted:
        yield "not kept", Text(clean(_listed([str(name) for name in omitted], 4)), style="yellow")
    if view.get("git.remote"):
        yield "remote", view.text("git.remote")
    modules = view.get("git.submodules")
    if modules:
        yield "submodules", Text(clean(_listed([f"{module['path']} {module['commit'][:12]}" for module in modules])))


def _changes(view: _View) -> Text:
    if view.get("git.is_dirty") is None:
        return view.missing("git.is_dirty")
    if not view.get("git.is_dirty"):
        return Text("none", style="green")
    changed, untracked = view.get("git.changed"), view.get("git.untracked")
    parts = [
        counted(len(changed), "file") + " changed" if changed else "",
        f"{len(untracked)} untracked" if untracked else "",
    ]
    text = Text(", ".join(filter(None, parts)), style="yellow")
    if view.get("git.diff") is None:
        return _joined(text, view.missing("git.diff"))
    notes = [f"patch of {size(view.get('git.diff.size_bytes') or 0)}"]
    if view.get("git.diff.is_truncated"):
        notes.append("cut")
    if redacted := view.get("git.diff.redacted_lines"):
        notes.append(f"{counted(redacted, 'line')} redacted")
    return _joined(text, Text(", ".join(notes)))


def _python(view: _View) -> Iterator[_Line]:
    threaded = "free-threaded" if view.get("python.is_free_threaded") else None
    yield "version", _joined(view.text("python.implementation"), view.text("python.version"), threaded)
    yield "executable", view.text("python.executable")
    conda = view.get("python.conda")
    if conda:
        yield "environment", Text(f"conda {clean(conda)}")
    else:
        yield "environment", view.text("python.venv")
    if flags := view.get("python.flags"):
        yield "flags", Text(clean(", ".join(f"{name}={value}" for name, value in flags.items())))
    yield "hash seed", view.text("python.hash_seed")
    yield "packages", _packages(view)
    frameworks = view.get("frameworks") or {}
    for name, facts in frameworks.items():
        if facts:
            yield name, _framework(facts)
    absent = [name for name, facts in frameworks.items() if not facts]
    if absent:
        yield "not imported", Text(clean(", ".join(absent)), style="dim")
    pools = view.get("blas.libraries")
    if pools:
        shown = [
            f"{pool.get('library')} {pool.get('version') or ''}".strip() + f" ×{pool.get('threads')}" for pool in pools
        ]
        yield "threads", Text(clean(", ".join(shown)))


def _packages(view: _View) -> Text:
    installed = view.get("packages.installed")
    if installed is None:
        return view.missing("packages.installed")
    versions = {str(package["name"]): str(package["version"]) for package in installed}
    leading = [f"{name} {versions[name]}" for name in _LEADING_PACKAGES if name in versions]
    editable = [str(package["name"]) for package in installed if package.get("is_editable")]
    text = Text(f"{len(installed)}: {clean(_listed(leading, len(leading)))}" if leading else f"{len(installed)}")
    if editable:
        text += Text(f"  editable: {clean(_listed(editable))}", style="dim")
    return text


def _framework(facts: dict[str, Any]) -> Text:
    shown = [str(facts.get("version"))]
    for field, word in {"cuda": "CUDA", "cudnn": "cuDNN", "hip": "HIP", "seed": "seed", "backend": "backend"}.items():
        if facts.get(field) is not None:
            shown.append(f"{word} {facts[field]}")
    if facts.get("is_deterministic") is not None:
        shown.append("deterministic" if facts["is_deterministic"] else "not deterministic")
    if facts.get("matmul_precision") is not None:
        shown.append(f"matmul {facts['matmul_precision']}")
    if facts.get("threads") is not None:
        shown.append(counted(facts["threads"], "thread"))
    return Text(clean(", ".join(shown)))


def _gpu(view: _View) -> Iterator[_Line]:
    if view.get("gpu") is None:
        yield "NVIDIA", view.missing("gpu")
        return
    yield (
        "driver",
        _joined(view.text("gpu.driver"), view.text("gpu.cuda_driver", "CUDA {}"), view.text("gpu.nvml", "NVML {}")),
    )
    devices = view.get("gpu.devices") or []
    if not devices:
        yield "devices", Text("none") if view.get("gpu.count") == 0 else view.missing("gpu.count")
    for index, device in enumerate(devices):
        yield f"GPU {device.get('index', index)}", _device(view, index, device)
        for part in device.get("mig_devices") or []:
            memory = size(part["memory_bytes"]) if part.get("memory_bytes") else "memory unknown"
            yield "", Text(clean(f"instance {part['index']}  {part.get('uuid') or ''}  {memory}"))
    between = view.get("gpu.connections")
    if between:
        kinds: dict[str, list[str]] = {}
        for pair, kind in between.items():
            kinds.setdefault(kind, []).append(pair)
        yield "connections", Text(clean("; ".join(f"{kind}: {_listed(pairs)}" for kind, pairs in kinds.items())))
    visible = view.get("gpu.visible")
    if visible is None:
        yield "CUDA sees", view.missing("gpu.visible")
    elif [entry.get("gpu") for entry in visible] != list(range(len(devices))):
        shown = [f"{entry['cuda']} → GPU {entry['gpu']}" + _instance(entry) for entry in visible]
        yield (
            "CUDA sees",
            Text(_listed(shown) or "no GPU: CUDA_VISIBLE_DEVICES hides all", style="" if shown else "yellow"),
        )
    if view.reason("gpu").startswith("timeout"):
        yield "unfinished", view.missing("gpu")


def _instance(entry: dict[str, Any]) -> str:
    return f" instance {entry['mig']}" if "mig" in entry else ""


def _device(view: _View, index: int, device: dict[str, Any]) -> Text:
    path = f"gpu.devices.{index}"
    if device.get("name") is None and device.get("memory_bytes") is None:
        return view.missing(f"{path}.name")
    shown = [str(device.get("name") or "unknown")]
    if device.get("memory_bytes") is not None:
        shown.append(size(device["memory_bytes"]))
    if device.get("architecture"):
        shown.append(f"{device['architecture']} {device.get('compute_capability') or ''}".strip())
    if device.get("power_limit_w") is not None:
        most = device.get("power_limit_max_w")
        of = f" of {most:.0f}" if most and most != device["power_limit_w"] else ""
        shown.append(f"{device['power_limit_w']:.0f}{of} W")
    if device.get("max_clock_sm_mhz"):
        shown.append(f"{device['max_clock_sm_mhz']} MHz")
    if device.get("pcie_generation_max"):
        shown.append(f"PCIe {device['pcie_generation_max']}.0 x{device.get('pcie_width_max') or '?'}")
    links = device.get("nvlink")
    if links:
        shown.append(f"NVLink {links['active']} of {links['links']}")
    if device.get("has_ecc_on") is not None:
        shown.append("ECC on" if device["has_ecc_on"] else "ECC off")
    if device.get("is_mig_on"):
        shown.append("MIG")
    return Text(clean(", ".join(shown)))


def _cpu(view: _View) -> Iterator[_Line]:
    yield "model", view.text("cpu.model")
    usable, logical = view.get("cpu.usable_cores"), view.get("cpu.logical_cores")
    cores = view.text("cpu.logical_cores", "{} logical")
    if usable is not None and usable != logical:
        cores = Text(f"{usable} usable of {logical} logical", style="yellow")
    nodes = view.get("cpu.numa_nodes")
    yield (
        "cores",
        _joined(
            cores,
            view.text("cpu.physical_cores", "{} physical"),
            f"{len(nodes)} NUMA nodes" if nodes and len(nodes) > 1 else None,
            view.text("cpu.max_mhz", "{:.0f} MHz") if view.get("cpu.max_mhz") else None,
        ),
    )
    flags = set(view.get("cpu.flags") or ())
    if flags:
        yield "features", Text(" ".join(flag for flag in _TELLING_FLAGS if flag in flags) or "none of note")
    available = view.size("memory.available_bytes")
    yield "memory", _joined(view.size("memory.total_bytes"), Text.assemble(available, " available"))
    swap = view.get("memory.swap_bytes")
    yield "swap", Text("none") if swap == 0 else view.size("memory.swap_bytes")


def _limits(view: _View) -> Iterator[_Line]:
    version = view.get("cgroup.version")
    if version is None:
        yield "control group", view.missing("cgroup")
    else:
        yield "control group", Text(f"version {version}, {clean(view.get('cgroup.path') or '?')}")
        yield "CPU", view.text("cgroup.cpu_limit", "{:g} cores")
        yield "memory", view.size("cgroup.memory_limit_bytes")
        if view.get("cgroup.pids_limit") is not None:
            yield "processes", view.text("cgroup.pids_limit", "{:,}")
    yield "open files", view.text("limits.open_files", "{:,}")
    yield "locked memory", view.size("limits.locked_memory_bytes")


def _disk(view: _View) -> Iterator[_Line]:
    for name, label in {"store": "runs", "tmp": "temporary", "shm": "shared memory"}.items():
        if not view.get(f"disk.{name}"):
            if name != "store" or "no run" not in view.reason("disk.store"):
                yield label, view.missing(f"disk.{name}")
            continue
        total, free = view.get(f"disk.{name}.total_bytes"), view.get(f"disk.{name}.free_bytes")
        if total is None or free is None:
            space = view.missing(f"disk.{name}.free_bytes")
        else:
            space = Text(f"{size(free)} free of {size(total)}", style="yellow" if free < total / 20 else "")
        yield label, _joined(view.text(f"disk.{name}.path"), view.text(f"disk.{name}.type"), space)


def _system(view: _View) -> Iterator[_Line]:
    yield "system", view.text("os.distribution")
    yield "kernel", _joined(view.text("os.name"), view.text("os.release"), view.text("os.machine"))
    yield "libc", view.text("os.libc")
    uptime = view.get("os.uptime_s")
    yield "up for", view.missing("os.uptime_s") if uptime is None else Text(duration(uptime))
    container = view.get("container.id")
    yield "container", _joined(view.text("container.kind"), clean(container)[:12] if container else None)
    yield "machine", view.text("container.vm", "virtual, {}")
    pod = view.get("container.kubernetes")
    if pod:
        yield "pod", Text(clean("/".join(str(pod.get(name) or "?") for name in ("namespace", "pod"))))
    for kind, job in (view.get("scheduler") or {}).items():
        if job:
            told = [f"{name} {value}" for name, value in job.items() if value is not None]
            yield kind, Text(clean(", ".join(told)))


def _changes_later(changes: tuple[EnvironmentChange, ...]) -> Iterator[_Line]:
    """Yield what the second look found; the sections above show it as it was then."""
    for change in changes:
        yield change.name, Text.assemble(_diff_cell(change, change.left), " → ", _diff_cell(change, change.right))


def _variables(view: _View) -> Iterator[_Line]:
    for name, value in sorted(view.get("env").items()):
        yield name, view.missing(f"env.{name}") if value is None else Text(clean(value))
