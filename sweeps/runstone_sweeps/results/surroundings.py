"""In what trials of one sweep differed besides their params: code, versions, machines; from their runs' snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone import RunInfo, Workspace, WorkspaceNotFound
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.store import SweepFolder

# Each snapshot is a file to read; of more trials so many are looked at, evenly spread.
_MOST_TRIALS = 100
_MOST_PACKAGES = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that was not the same for all trials.

    Attributes:
        what: Its name.
        values: What it was, with the numbers of the trials of which it was so; the most common first.
    """

    what: str
    values: Sequence[tuple[str, Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the trials ran in.

    Attributes:
        looked_at: How many trials have a snapshot that was read.
        differences: In what they differ.
    """

    looked_at: int
    differences: Sequence[Difference]


def find_differences(folder: SweepFolder, record: SweepRecord) -> Surroundings:
    """Return in what trials differ, as far as their runs are there and have a snapshot."""
    try:
        workspace = Workspace(folder.path.parent.parent)
    except WorkspaceNotFound:  # the folder of the sweep was copied somewhere else, without its runs
        return Surroundings(0, ())
    begun = [trial for trial in record.trials.values() if trial.started_at is not None and trial.same_as is None]
    step = max(1, -(-len(begun) // _MOST_TRIALS))
    snapshots: dict[int, Mapping[str, Any]] = {}
    for trial in begun[::step]:
        path = workspace.find_run_folder(trial.run_id)
        found = RunInfo(path).environment if path is not None else None
        if found is not None:
            snapshots[trial.number] = found
    return Surroundings(len(snapshots), compare(snapshots))


def compare(snapshots: Mapping[int, Mapping[str, Any]]) -> list[Difference]:
    """Return in what snapshots differ, by the number of the trial."""
    found = []
    for what, text_of in _LOOKED_AT.items():
        found += _difference(what, {number: text_of(snapshot) for number, snapshot in snapshots.items()})
    versions = {number: _versions(snapshot) for number, snapshot in snapshots.items()}
    known = {number: packages for number, packages in versions.items() if packages is not None}
    names = sorted({name for packages in known.values() for name in packages})
    packages = []
    for name in names:
        packages += _difference(name, {number: known[number].get(name, "not installed") for number in known})
    if len(packages) > _MOST_PACKAGES:
        more = f"{len(packages) - _MOST_PACKAGES} packages more"
        packages = [*packages[:_MOST_PACKAGES], Difference(more, ())]
    return [*found, *packages]


def _difference(what: str, texts: Mapping[int, str | None]) -> list[Difference]:
    """Return the difference, none where all that is known is the same."""
    numbers: dict[str, list[int]] = {}
    for number, text in texts.items():
        if text is not None:
            numbers.setdefault(text, []).append(number)
    if len(numbers) < 2:
        return []
    return [Difference(what, sorted(numbers.items(), key=lambda entry: (-len(entry[1]), entry[1][0])))]


def _at(*path: str) -> Callable[[Mapping[str, Any]], str | None]:
    def text_of(snapshot: Mapping[str, Any]) -> str | None:
        value: Any = snapshot
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return None if value is None else str(value)

    return text_of


def _code(snapshot: Mapping[str, Any]) -> str | None:
    git = snapshot.get("git")
    commit = git.get("commit") if isinstance(git, Mapping) else None
    if not isinstance(commit, str):
        return None
    changed = git.get("changed") if isinstance(git, Mapping) else None
    named = ", ".join(map(str, changed[:3])) + (", …" if len(changed) > 3 else "") if isinstance(changed, list) else ""
    return f"{commit[:12]}, changed: {named}" if named else commit[:12]


def _gpus(snapshot: Mapping[str, Any]) -> str | None:
    gpu = snapshot.get("gpu")
    devices = gpu.get("devices") if isinstance(gpu, Mapping) else None
    if not isinstance(devices, list) or not devices:
        return None
    names = [str(device.get("name")) for device in devices if isinstance(device, Mapping)]
    return ", ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))


def _versions(snapshot: Mapping[str, Any]) -> dict[str, str] | None:
    packages = snapshot.get("packages")
    installed = packages.get("installed") if isinstance(packages, Mapping) else None
    if not isinstance(installed, list):
        return None
    return {str(p.get("name")): str(p.get("version")) for p in installed if isinstance(p, Mapping)}


_LOOKED_AT: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    "host": _at("identity", "host"),
    "code": _code,
    "Python": _at("python", "version"),
    "interpreter": _at("python", "executable"),
    "system": _at("os", "distribution"),
    "kernel": _at("os", "release"),
    "CPU": _at("cpu", "model"),
    "GPUs": _gpus,
    "GPU driver": _at("gpu", "driver"),
    "container": _at("container", "image"),
}
