"""What of a run goes to MLflow, and what came of it there."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs, open_blobs
from runstone.errors import InvalidValue, NotFound, RunstoneError
from runstone.importers.process import run_script
from runstone.mlflow_export.names import mlflow_names
from runstone.names import folder_name
from runstone.params import flatten_params
from runstone.runinfo import RunInfo
from runstone.values import Record, Series, Status

_SCRIPT = Path(__file__).with_name("mlflow_script.py")
_MOST_PARAM, _MOST_TAG = 6000, 8000
"""Characters that MLflow takes of each."""
_BATCH = 10_000
_OURS = "runstone"
_STATUS = {
    Status.FINISHED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.CRASHED: "FAILED",
    Status.STOPPED: "KILLED",
    Status.PRUNED: "KILLED",
    Status.RUNNING: "RUNNING",
}
# MLflow sets these itself, or they name what is another here.
_NOT_SENT = frozenset({"mlflow.runName", "mlflow.parentRunId", "runstone.run_id", "runstone.mark"})


@dataclass(slots=True)
class ExportedRun:
    """What came of one run; `…_out` was sent, `…_held` is what MLflow reads back.

    Attributes:
        outcome: `new`; `unchanged`: it was there already; `replaced`: it was there, and has changed since.
        not_carried: How many of each kind MLflow has no place for.
    """

    run_id: str
    name: str
    mlflow_id: str = ""
    outcome: str = "new"
    points_out: int = 0
    points_held: int = 0
    params_out: int = 0
    params_held: int = 0
    tags_out: int = 0
    tags_held: int = 0
    files_out: int = 0
    files_held: int = 0
    not_carried: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class MlflowExport:
    """What came of an export: the address of the store, as `mlflow ui --backend-store-uri` takes it, and its runs."""

    uri: str
    runs: list[ExportedRun] = field(default_factory=list)


def export_to_mlflow(runs: Sequence[RunInfo], dest: Path, *, python: str | Path | None = None) -> MlflowExport:
    """Write runs into a SQLite store of MLflow, which is made where there is none; what is there already stays.

    Args:
        runs: The runs.
        dest: A folder, for `mlflow.db` and `mlartifacts` in it; or the database, whose name ends in `.db`.
        python: An interpreter that has MLflow; default: this one.

    Raises:
        RunstoneError: MLflow is not there or fails, or does not have what was written.
        OSError: the disk refuses.
    """
    database = (dest if dest.suffix == ".db" else dest / "mlflow.db").absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{database}"
    results = {info.id: ExportedRun(info.id, info.name) for info in runs}
    with tempfile.TemporaryDirectory(prefix=".runstone-export-", dir=database.parent) as folder:
        scratch = Path(folder)
        with (scratch / "runs.jsonl").open("w") as file:
            for info in _parents_first(runs):
                for line in _lines(info, scratch, results[info.id]):
                    file.write(json.dumps(line) + "\n")
        arguments = [uri, str(database.parent / "mlartifacts")]
        told = run_script(
            _SCRIPT, arguments, library="mlflow", python=str(python) if python else None, given=scratch / "runs.jsonl"
        )
        seen = set()
        for one in told:
            result = results[one["id"]]
            seen.add(one["id"])
            result.mlflow_id, result.outcome = str(one["mlflow_id"]), str(one["outcome"])
            result.points_held, result.params_held = int(one["points"]), int(one["params"])
            result.tags_held, result.files_held = int(one["tags"]), int(one["files"])
            _check(result)
    if seen != set(results):
        raise RunstoneError(f"MLflow did not answer for {len(results) - len(seen)} of {len(results)} runs")
    return MlflowExport(uri, list(results.values()))


def export_lines(result: MlflowExport) -> list[str]:
    """Return what to tell the user at the end."""
    runs = result.runs
    outcomes = ", ".join(f"{count:,} {word}" for word, count in Counter(run.outcome for run in runs).items())
    lines = [f"{len(runs):,} runs: {outcomes}"]
    for what in ("points", "params", "tags", "files"):
        out, held = (sum(getattr(run, f"{what}_{side}") for run in runs) for side in ("out", "held"))
        lines.append(f"{out:,} {what} sent, {held:,} read back by MLflow")
    left: Counter[str] = Counter()
    for run in runs:
        left.update(run.not_carried)
    if left:
        lines.append("not as they were: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(left.items())))
    lines.append(f"mlflow ui --backend-store-uri {result.uri}")
    return lines


def _check(result: ExportedRun) -> None:
    for what in ("points", "params", "tags", "files"):
        out, held = getattr(result, f"{what}_out"), getattr(result, f"{what}_held")
        if out != held:
            raise RunstoneError(f"run {result.name}: {out} {what} were sent to MLflow, which has {held}")


def _parents_first(runs: Sequence[RunInfo]) -> list[RunInfo]:
    by_id = {info.id: info for info in runs}
    ordered: dict[str, RunInfo] = {}

    def place(info: RunInfo, below: frozenset[str]) -> None:
        if info.id in ordered or info.id in below:
            return
        if info.parent in by_id:
            place(by_id[info.parent], below | {info.id})
        ordered[info.id] = info

    for info in runs:
        place(info, frozenset())
    return list(ordered.values())


# --- one run ----------------------------------------------------------------------------------------------------------


def _lines(info: RunInfo, scratch: Path, result: ExportedRun) -> Iterator[dict[str, Any]]:
    left: Counter[str] = Counter()
    flat = flatten_params(info.params)
    names = mlflow_names([*flat, *info.metrics, *info.tags])
    params = _fitting({names[name]: _text(value) for name, value in flat.items()}, _MOST_PARAM, "param", left)
    notes = {"mlflow.note.content": info.notes} if info.notes else {}
    group = {"runstone.group": info.group} if info.group else {}
    tags = {names[name]: text for name, text in info.tags.items() if name not in _NOT_SENT}
    tags = _fitting({**tags, **notes, **group, "runstone.status": str(info.status)}, _MOST_TAG, "tag", left)
    changed = {name: other for name, other in names.items() if name != other}
    if changed:
        left[f"name that MLflow does not take (told in {_OURS}/names.json)"] += len(changed)
    folder = scratch / info.id
    folder.mkdir()
    result.files_out = _stage(info, folder, changed, left)
    counts = {name: summary.count for name, summary in info.metrics.items()}
    result.params_out, result.tags_out = len(params), len(tags)
    yield {
        "id": info.id,
        "mark": f"1/{sum(counts.values())}/{len(params)}/{len(tags)}/{result.files_out}/{info.status}",
        "project": info.project,
        "name": info.name,
        "parent": info.parent,
        "status": _STATUS[info.status],
        "start_ms": round(info.started_at.timestamp() * 1000),
        "end_ms": round(info.ended_at.timestamp() * 1000) if info.ended_at else None,
        "is_deleted": info.is_deleted,
        "params": params,
        "tags": tags,
        "folder": str(folder) if result.files_out else "",
    }
    for name in info.metrics:
        series = info.series(name)
        for batch in _batches(names[name], series, left):
            result.points_out += len(batch["steps"])
            yield batch
    yield {"done": True}
    result.not_carried = dict(left)


def _batches(name: str, series: Series, left: Counter[str]) -> Iterator[dict[str, Any]]:
    seen: set[tuple[int, int, str]] = set()
    steps: list[int] = []
    values: list[float] = []
    times: list[int] = []
    rows = zip(series.step.tolist(), series.value.tolist(), series.wall_s.tolist(), strict=True)
    for step, value, wall_s in rows:
        number = float(value)
        if isinstance(value, int) and int(number) != value:
            left["digit of an integer beyond 2**53"] += 1
        if math.isinf(number):
            left["infinity, which MLflow's databases keep as the largest float"] += 1
        ms = round(wall_s * 1000) if math.isfinite(wall_s) else 0
        # MLflow keeps one of two points that are alike to the millisecond.
        while (key := (step, ms, repr(number))) in seen:
            ms += 1
        seen.add(key)
        steps.append(step)
        values.append(number)
        times.append(ms)
        if len(steps) == _BATCH:
            yield {"name": name, "steps": steps, "values": values, "times_ms": times}
            steps, values, times = [], [], []
    if steps:
        yield {"name": name, "steps": steps, "values": values, "times_ms": times}


def _fitting(words: dict[str, str], most: int, what: str, left: Counter[str]) -> dict[str, str]:
    fit = {name: text for name, text in words.items() if len(text) <= most}
    if len(fit) < len(words):
        left[f"{what} of more than {most} characters (whole in {_OURS}/run.json)"] += len(words) - len(fit)
    return fit


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)


# --- files ------------------------------------------------------------------------------------------------------------


def _stage(info: RunInfo, folder: Path, changed: dict[str, str], left: Counter[str]) -> int:
    """Put all files of a run into a folder, as MLflow is to have them; return how many."""
    blobs = open_blobs(info.path.absolute().parents[2])
    ours = folder / _OURS
    ours.mkdir()
    count = 1
    told = {"params": info.params, "tags": info.tags, "notes": info.notes, "environment": info.environment}
    (ours / "run.json").write_text(json.dumps(told, indent=1, default=str))
    if changed:
        (ours / "names.json").write_text(json.dumps(changed, indent=1))
        count += 1
    for artifact in info.artifacts:
        base = folder / "artifacts" / _place(artifact.name)
        for entry in artifact.files:
            target = base / entry.path if artifact.is_folder else base.parent / _place(Path(entry.path).name)
            if artifact.is_folder is False and len(artifact.files) == 1 and target.exists():
                target = base
            count += _copy(blobs, entry.hash, folder, target, left)
    for name in info.record_names:
        for number, record in enumerate(info.records(name)):
            count += _medium(blobs, record, folder, folder / "media" / folder_name(name), number, left)
    return count


def _copy(blobs: Blobs, content: str, folder: Path, target: Path, left: Counter[str]) -> int:
    if ".." in target.relative_to(folder).parts:
        left["file whose path leads out"] += 1
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        left["file whose name another one has"] += 1
        return 0
    try:
        blobs.copy_to(content, target, link=True)
    except (NotFound, InvalidValue):
        left["file whose content is not in the workspace"] += 1
        return 0
    return 1


def _medium(blobs: Blobs, record: Record, folder: Path, place: Path, number: int, left: Counter[str]) -> int:
    stem = f"{record.step}-{number}"
    if record.hash is not None:
        form = record.format if record.format and record.format.replace(".", "").isalnum() else "bin"
        return _copy(blobs, record.hash, folder, place / f"{stem}.{form}", left)
    place.mkdir(parents=True, exist_ok=True)
    if record.text is not None:
        (place / f"{stem}.txt").write_text(record.text, "utf-8", "backslashreplace")
    else:
        (place / f"{stem}.json").write_text(json.dumps({"kind": record.kind, **record.metadata}))
    return 1


def _place(name: str) -> str:
    """Return a name as one part of a path: itself where that is safe."""
    is_safe = "/" not in name and "\0" not in name and name not in (".", "..") and len(name.encode()) < 200
    return name if is_safe else folder_name(name)
