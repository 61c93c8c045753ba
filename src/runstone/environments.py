"""What differs between two environment snapshots, most likely to matter first. Knows no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstone.params import is_equal
from runstone.values import JSON

if TYPE_CHECKING:
    from runstone.runinfo import RunInfo

__all__ = [
    "EnvironmentChange",
    "EnvironmentDiff",
    "EnvironmentGroup",
    "Unknown",
    "as_used",
    "changes_since_start",
    "diff_environments",
    "patch_files",
    "recorded_patch",
]

# Frameworks first: when two runs differ, they are asked about first.
_LEADING = (
    "torch torchvision torchaudio lightning pytorch-lightning keras tensorflow jax jaxlib flax optax scikit-learn "
    "xgboost lightgbm catboost transformers accelerate peft datasets tokenizers diffusers deepspeed triton flash-attn "
    "numpy scipy pandas polars pyarrow nvidia-cudnn-cu12 nvidia-cublas-cu12 nvidia-nccl-cu12"
).split()
_RANK = {name: place for place, name in enumerate(_LEADING)}
_RUNTIME_FIELDS = "cuda cudnn hip nccl git_commit is_debug_build jaxlib allocator".split()
_THREAD_FIELDS = "threads interop_threads".split()
_DEVICE_FIELDS = (
    "memory_bytes compute_capability power_limit_w max_clock_sm_mhz max_clock_memory_mhz is_mig_on has_ecc_on "
    "compute_mode is_persistent pcie_generation_max pcie_width_max vbios"
).split()
_SCHEDULER_FIELDS = (
    "partition queue nodes tasks cpus_per_task memory_per_node_mib gpus gpus_per_node gpus_on_node instance_type region"
).split()


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """One thing that is not the same.

    Attributes:
        name: What it is, such as `commit`, `torch`, `torch.is_deterministic` or `OMP_NUM_THREADS`.
        left, right: Its values; `None` where there is none.
    """

    name: str
    left: JSON
    right: JSON

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`, seen from left to right."""
        return "added" if self.left is None else "removed" if self.right is None else "changed"


@dataclass(frozen=True, slots=True)
class EnvironmentGroup:
    """Things of one kind: what differs among them, and how many are the same on both sides."""

    name: str
    changes: tuple[EnvironmentChange, ...]
    equal: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that one side could not tell, so that nobody knows whether it differs.

    Attributes:
        name: Dotted path in the snapshot.
        side: `left` or `right`.
        why: Such as `denied: ...`.
    """

    name: str
    side: str
    why: str


@dataclass(frozen=True, slots=True)
class EnvironmentDiff:
    """Two environments; groups in the order in which they are likely to matter, also those without a difference."""

    groups: tuple[EnvironmentGroup, ...]
    unknown: tuple[Unknown, ...]

    @property
    def is_equal(self) -> bool:
        """Whether nothing that is known differs."""
        return not any(group.changes for group in self.groups)

    @property
    def count(self) -> int:
        """How many things differ."""
        return sum(len(group.changes) for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "is_equal": self.is_equal,
            "groups": {
                group.name: {
                    "equal": group.equal,
                    "differences": [
                        {"name": change.name, "kind": change.kind, "left": change.left, "right": change.right}
                        for change in group.changes
                    ],
                }
                for group in self.groups
            },
            "unknown": [{"name": one.name, "side": one.side, "why": one.why} for one in self.unknown],
        }


def as_used(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Return a snapshot with what the second look found in place of what stood there when the run started.

    A program imports frameworks, sets seeds and flags after `start_run`: what it computed with is this.
    """
    later = snapshot.get("later")
    found = {name: value for name, value in snapshot.items() if name != "later"}
    sections = _sections_of(later)
    if not sections:
        return found
    why = {path: text for path, text in (found.get("why") or {}).items() if path.partition(".")[0] not in sections}
    reasons = later.get("why") if isinstance(later, Mapping) else None
    return found | sections | {"why": why | (dict(reasons) if isinstance(reasons, Mapping) else {})}


def changes_since_start(snapshot: Mapping[str, Any]) -> tuple[EnvironmentChange, ...]:
    """Return what the program changed after the run had started, as far as a second look was taken."""
    before = {name: value for name, value in snapshot.items() if name != "later"}
    after = as_used(snapshot)
    changes = [change for group in diff_environments(before, after).groups for change in group.changes]
    return tuple(_with_version(change, after) for change in changes)


def _sections_of(later: Any) -> dict[str, Any]:
    """Return the sections of a second look; reasons and times are none."""
    if not isinstance(later, Mapping):
        return {}
    return {str(name): value for name, value in later.items() if name not in ("captured_at", "duration_ms", "why")}


def _with_version(change: EnvironmentChange, snapshot: Mapping[str, Any]) -> EnvironmentChange:
    version = _at(snapshot, f"frameworks.{change.name}.version")
    return change if version is None else EnvironmentChange(change.name, change.left, f"{change.right}, {version}")


def diff_environments(
    left: Mapping[str, Any],
    right: Mapping[str, Any],
    *,
    left_patch: bytes | None = None,
    right_patch: bytes | None = None,
    is_same_program: bool = True,
) -> EnvironmentDiff:
    """Return what differs, without what is never the same: process ids, times, free memory, names of boots and files.

    What one side could not read (denied, failed, given up, redacted) is no difference but `unknown`. Both sides are
    taken as the programs used them: see `as_used`.

    Args:
        left, right: Snapshots as `RunInfo.environment` and `runstone.capture.snapshot` return them.
        left_patch, right_patch: The uncommitted changes, where they were kept.
        is_same_program: False where `right` is this machine as it is now, seen by another program than a training: then
            nothing is said of the command line and of frameworks that are not loaded here.
    """
    pair = _Pair(as_used(left), as_used(right), is_same_program=is_same_program)
    groups = [
        _group("code", _code(pair, left_patch, right_patch)),
        _group("packages", _packages(pair)),
        _group("gpu", _gpu(pair)),
        _group("numerics", _numerics(pair)),
        _group("cpu", _cpu(pair)),
        _group("variables", _variables(pair)),
        _group("limits", _limits(pair)),
        _group("system", _system(pair)),
    ]
    return EnvironmentDiff(groups=tuple(groups), unknown=tuple(pair.unknown.values()))


_Row = tuple[str, JSON, JSON]


def _group(name: str, rows: Iterator[_Row]) -> EnvironmentGroup:
    changes, equal = [], 0
    for title, left, right in rows:
        if left is None and right is None:
            continue
        if is_equal(left, right):
            equal += 1
        else:
            changes.append(EnvironmentChange(title, left, right))
    return EnvironmentGroup(name, tuple(changes), equal)


class _Pair:
    """Two snapshots, asked for the same path at once; keeps what cannot be compared."""

    def __init__(self, left: Mapping[str, Any], right: Mapping[str, Any], *, is_same_program: bool) -> None:
        self.left, self.right = left, right
        self._sides = {"left": left, "right": right}
        self.is_same_program = is_same_program
        self.unknown: dict[tuple[str, str], Unknown] = {}

    def get(self, path: str, of: Callable[[Any], JSON] | None = None) -> Iterator[tuple[JSON, JSON]]:
        """Yield both values at a dotted path once, or nothing where one is not known."""
        found: list[JSON] = []
        for side, snapshot in self._sides.items():
            value = _at(snapshot, path)
            if value is None and not self._is_known(side, path):
                return
            found.append(value if of is None or value is None else of(value))
        yield found[0], found[1]

    def rows(self, section: str, fields: Sequence[str], prefix: str = "") -> Iterator[_Row]:
        """Yield a row for each field of a section."""
        for field in fields:
            for left, right in self.get(f"{section}.{field}"):
                yield f"{prefix}{field}", left, right

    def keys(self, path: str) -> list[str]:
        """Return the names below a path on either side, in alphabetical order."""
        found: set[str] = set()
        for snapshot in self._sides.values():
            value = _at(snapshot, path)
            if isinstance(value, Mapping):
                found.update(map(str, value))
        return sorted(found)

    def is_known(self, path: str) -> bool:
        """Return whether both sides tell something, be it that there is none."""
        return all(
            _at(snapshot, path) is not None or self._is_known(side, path) for side, snapshot in self._sides.items()
        )

    def _is_known(self, side: str, path: str) -> bool:
        why = self._sides[side].get("why")
        place = path
        while place and isinstance(why, Mapping):
            reason = why.get(place)
            if isinstance(reason, str):
                if reason.startswith("absent"):
                    return True
                self.unknown.setdefault((place, side), Unknown(place, side, reason))
                return False
            place = place.rpartition(".")[0]
        return True


def _at(snapshot: Any, path: str) -> Any:
    value = snapshot
    names = path.split(".")
    for number, name in enumerate(names):
        if isinstance(value, Mapping):
            rest = ".".join(names[number:])  # a variable may have dots in its name
            if name not in value and rest in value:
                return value[rest]
            value = value.get(name)
        else:
            return None
    return value


# --- groups ---------------------------------------------------------------------------------------------------------
def _code(pair: _Pair, left_patch: bytes | None, right_patch: bytes | None) -> Iterator[_Row]:
    yield from pair.rows("git", ["commit"])
    if len({_at(snapshot, "git.commit") for snapshot in (pair.left, pair.right)}) > 1:  # else it names the same code
        yield from pair.rows("git", ["branch"])
    for left, right in pair.get("git.is_dirty", lambda dirty: "uncommitted" if dirty else "clean"):
        yield "changes", left, right
    left_files, right_files = patch_files(left_patch or b""), patch_files(right_patch or b"")
    for path in sorted({*left_files, *right_files}):
        contents = [files.get(path) for files in (left_files, right_files)]
        if contents[0] == contents[1]:
            yield f"changed file {path}", "same", "same"
        else:
            shown = [None if content is None else _lines_changed(content) for content in contents]
            if shown[0] == shown[1]:
                shown = [f"{shown[0]}", f"{shown[1]}, others"]
            yield f"changed file {path}", *shown  # type: ignore[misc]
    for left, right in pair.get("git.submodules", _submodules):
        yield "submodules", left, right
    for left, right in pair.get("git.remote"):
        yield "remote", left, right
    if pair.is_same_program:
        for left, right in pair.get("process.argv", _command):
            yield "command", left, right
        yield from pair.rows("rank", ["world_size"])


def _submodules(found: Any) -> JSON:
    if not isinstance(found, list):
        return None
    named = [f"{entry.get('path')} {str(entry.get('commit'))[:12]}" for entry in found if isinstance(entry, dict)]
    return ", ".join(named) or None


def _command(argv: Any) -> JSON:
    """Return the command line without the path of the interpreter, which belongs to the packages."""
    return " ".join(map(str, argv[1:])) if isinstance(argv, list) and argv else None


def _packages(pair: _Pair) -> Iterator[_Row]:
    yield from (("python", left, right) for left, right in pair.get("python.version"))
    yield from pair.rows("python", ["implementation", "is_free_threaded"], "python.")
    yield from (("python.build", left, right) for left, right in pair.get("python.compiler"))
    for left, right in pair.get("packages.installed"):
        before, after = _versions(left), _versions(right)
        names = {*before, *after}
        # Frameworks, then what changed, then what came or went.
        order = sorted(names, key=lambda name: (_RANK.get(name, 999), name not in before or name not in after, name))
        for name in order:
            yield name, before.get(name), after.get(name)
    for left, right in pair.get("conda.explicit"):
        before, after = _conda(left), _conda(right)
        for name in sorted({*before, *after}):
            yield f"conda {name}", before.get(name), after.get(name)


def _versions(installed: Any) -> dict[str, str]:
    found = {}
    for package in installed if isinstance(installed, list) else ():
        if isinstance(package, dict) and package.get("name"):
            text = str(package.get("version"))
            if package.get("is_editable"):
                text += " editable"
            elif package.get("url"):
                origin = str(package.get("commit") or package.get("hash") or package.get("url"))
                text += f" from {origin[:60]}"
            found[str(package["name"])] = text
    return found


def _conda(explicit: Any) -> dict[str, str]:
    """Return version and build by name: `https://host/channel/linux-64/numpy-1.26.4-py311_0.conda#hash`."""
    found = {}
    for address in explicit if isinstance(explicit, list) else ():
        file = str(address).partition("#")[0].rpartition("/")[2].removesuffix(".conda").removesuffix(".tar.bz2")
        pieces = file.rsplit("-", 2)
        if len(pieces) == 3:
            found[pieces[0]] = f"{pieces[1]} {pieces[2]}"
    return found


def _gpu(pair: _Pair) -> Iterator[_Row]:
    for left, right in pair.get("gpu.devices", _models):
        yield "devices", left, right
    yield from pair.rows("gpu", ["driver", "cuda_driver"])
    for left, right in pair.get("gpu.visible", lambda visible: len(visible) if isinstance(visible, list) else None):
        yield "visible to CUDA", left, right
    for left, right in pair.get("gpu.devices"):
        if isinstance(left, list) and isinstance(right, list) and _models(left) == _models(right):
            yield from _devices(left, right)
    for left, right in pair.get("gpu.connections"):
        yield "connections", _kinds(left), _kinds(right)
    yield from _framework_fields(pair, _RUNTIME_FIELDS)


def _models(devices: Any) -> JSON:
    counts: dict[str, int] = {}
    for device in devices if isinstance(devices, list) else ():
        name = str(device.get("name") if isinstance(device, dict) else None)
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "none"


def _devices(left: list[Any], right: list[Any]) -> Iterator[_Row]:
    """Yield what differs between cards of the same names; a value that all cards share once."""
    for field in _DEVICE_FIELDS:
        values = [(a.get(field), b.get(field)) for a, b in zip(left, right, strict=True)]
        known = [(a, b) for a, b in values if a is not None and b is not None]
        if known and all(is_equal(a, known[0][0]) and is_equal(b, known[0][1]) for a, b in known):
            yield field, *known[0]
            continue
        for index, (a, b) in enumerate(values):
            if a is not None and b is not None:
                yield f"{field} of GPU {index}", a, b
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        links = [(device.get("nvlink") or {}).get("active") for device in (a, b)]
        yield f"NVLinks of GPU {index}", links[0], links[1]


def _kinds(connections: Any) -> JSON:
    if not isinstance(connections, dict):
        return None
    kinds = sorted(map(str, connections.values()))
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds)) or None


def _framework_fields(pair: _Pair, chosen: Sequence[str], *, others_than: Sequence[str] = ()) -> Iterator[_Row]:
    """Yield fields of the frameworks that are loaded: those chosen, or all but some."""
    for framework in pair.keys("frameworks"):
        fields = pair.keys(f"frameworks.{framework}")
        picked = [name for name in fields if name in chosen] or ([] if chosen else fields)
        for left, right in pair.get(f"frameworks.{framework}"):
            if left is None or right is None:
                picked = []  # not loaded on one side: the packages tell whether it is there
        for field in picked:
            if field not in others_than and field != "version":
                for left, right in pair.get(f"frameworks.{framework}.{field}", _flat):
                    yield f"{framework}.{field}", left, right


def _flat(value: Any) -> JSON:
    return ", ".join(f"{name}={value[name]}" for name in sorted(value)) if isinstance(value, dict) else value


def _numerics(pair: _Pair) -> Iterator[_Row]:
    if pair.is_same_program:
        for framework in pair.keys("frameworks"):
            loaded = [
                "loaded" if value is not None else None
                for both in pair.get(f"frameworks.{framework}")
                for value in both
            ]
            if len(loaded) == 2 and loaded[0] != loaded[1]:
                yield framework, loaded[0] or "not loaded", loaded[1] or "not loaded"
    yield from (("hash seed", left, right) for left, right in pair.get("python.hash_seed"))
    rows = list(_framework_fields(pair, (), others_than=[*_RUNTIME_FIELDS, *_THREAD_FIELDS]))
    # What switches determinism and precision before the rest.
    yield from sorted(
        rows, key=lambda row: not any(word in row[0] for word in ("determin", "precision", "seed", "bench"))
    )


def _cpu(pair: _Pair) -> Iterator[_Row]:
    yield from pair.rows("cpu", ["model", "vendor", "physical_cores", "logical_cores", "usable_cores", "has_smt"])
    for left, right in pair.get("cpu.flags"):
        before, after = _words(left), _words(right)
        if before and after:
            yield "features", _few(before - after) or "-", _few(after - before) or "-"
    for left, right in pair.get("cpu.numa_nodes", lambda nodes: len(nodes) if isinstance(nodes, dict) else None):
        yield "NUMA nodes", left, right
    yield from _framework_fields(pair, _THREAD_FIELDS)
    for left, right in pair.get("blas.libraries"):
        if left is not None and right is not None:
            pools_before, pools_after = _pools(left), _pools(right)
            for name in sorted({*pools_before, *pools_after}):
                if pair.is_same_program or (name in pools_before and name in pools_after):  # else not loaded here
                    yield name, pools_before.get(name), pools_after.get(name)


def _words(value: Any) -> set[str]:
    return set(map(str, value)) if isinstance(value, list) else set()


def _few(words: set[str]) -> str:
    shown = sorted(words)
    return " ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _pools(libraries: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for pool in libraries if isinstance(libraries, list) else ():
        if isinstance(pool, dict):
            parts = [pool.get("version"), pool.get("architecture"), pool.get("layer")]
            text = " ".join(str(part) for part in parts if part) or "loaded"
            name = str(pool.get("library") or pool.get("api"))
            found[name] = f"{text}, {pool.get('threads')} threads"
    return found


def _variables(pair: _Pair) -> Iterator[_Row]:
    names = [name for name in pair.keys("env") if name != "KMP_DUPLICATE_LIB_OK"]  # set by importing threadpoolctl
    # Threads, devices and precision before the rest.
    order = (
        "CUDA_",
        "OMP_",
        "MKL_",
        "NCCL_",
        "CUBLAS_",
        "TORCH",
        "PYTORCH_",
        "XLA_",
        "JAX_",
        "TF_",
        "NVIDIA_TF32",
        "PYTHONH",
    )
    for name in sorted(names, key=lambda name: (not name.startswith(order), name)):
        for left, right in pair.get(f"env.{name}"):
            yield name, left, right


def _limits(pair: _Pair) -> Iterator[_Row]:
    for field, title in {
        "cpu_limit": "CPU limit (cores)",
        "cpuset": "CPU set",
        "memory_limit_bytes": "memory limit",
        "memory_high_bytes": "memory throttled from",
        "swap_limit_bytes": "swap limit",
        "pids_limit": "process limit",
        "version": "control groups",
    }.items():
        for left, right in pair.get(f"cgroup.{field}"):
            yield title, left, right
    yield from (("memory", left, right) for left, right in pair.get("memory.total_bytes"))
    yield from (("swap", left, right) for left, right in pair.get("memory.swap_bytes"))
    yield from (("shared memory", left, right) for left, right in pair.get("disk.shm.total_bytes"))
    yield from (("open files", left, right) for left, right in pair.get("limits.open_files"))
    yield from (("locked memory", left, right) for left, right in pair.get("limits.locked_memory_bytes"))
    if pair.is_same_program:
        yield from (("disk of the runs", left, right) for left, right in pair.get("disk.store.type"))
        for kind in pair.keys("scheduler"):
            yield from pair.rows(f"scheduler.{kind}", _SCHEDULER_FIELDS, f"{kind} ")


def _system(pair: _Pair) -> Iterator[_Row]:
    yield from pair.rows("identity", ["host", "user"])
    yield from pair.rows("os", ["name", "distribution", "release", "machine", "libc"])
    yield from pair.rows("container", ["kind", "image", "vm"])
    yield from (("huge pages", left, right) for left, right in pair.get("memory.transparent_huge_pages"))
    yield from (("Runstone", left, right) for left, right in pair.get("runstone"))


# --- patches --------------------------------------------------------------------------------------------------------
def recorded_patch(run: RunInfo, snapshot: Mapping[str, Any] | None = None) -> bytes | None:
    """Return what was not committed when a run was started, as a patch; `None` where none was kept.

    Args:
        run: The run.
        snapshot: Its environment, where that was read already.
    """
    writer = (snapshot if snapshot is not None else run.environment or {}).get("writer")
    if not isinstance(writer, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", writer):  # it becomes part of a path
        return None
    try:
        return (run.path / f"code.{writer}.patch").read_bytes()
    except OSError:
        return None


def patch_files(patch: bytes) -> dict[str, bytes]:
    """Return the part of a patch that belongs to each file, by the file's name as the patch writes it."""
    found: dict[str, bytes] = {}
    start = 0 if patch.startswith(b"diff --git ") else patch.find(b"\ndiff --git ") + 1
    if not patch.startswith(b"diff --git ", start):
        return found
    while True:
        end = patch.find(b"\ndiff --git ", start) + 1
        part = patch[start : end or len(patch)]
        found[_file_of(part.partition(b"\n")[0].decode("utf-8", "replace"))] = part
        if not end:
            return found
        start = end


def _file_of(title: str) -> str:
    """Return the name in `diff --git a/x b/x`; both are the same, as renames are written as two changes."""
    names = title.removeprefix("diff --git ")
    if names.startswith('"'):
        return names.rpartition(' "b/')[2].rstrip('"')
    return names[(len(names) + 1) // 2 :].removeprefix("b/")


def _lines_changed(part: bytes) -> str:
    if b"\nBinary files " in part:
        return "binary"
    body = part.partition(b"\n@@ ")[2].split(b"\n")[1:]
    return f"+{sum(line[:1] == b'+' for line in body)} -{sum(line[:1] == b'-' for line in body)}"
