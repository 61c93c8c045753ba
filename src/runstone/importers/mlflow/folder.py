"""MLflow's folder `mlruns`: one file a param, metric and tag, YAML for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone.importers.items import FoundModel, FoundRun, NotCarried
from runstone.importers.mlflow.common import (
    Artifacts,
    Dataset,
    LoggedModel,
    Metric,
    StoredRun,
    StoredVersion,
    as_text,
    found_model,
    found_run,
)
from runstone.importers.places import Place
from runstone.importers.values import as_number, number_in
from runstone.importers.yamlfile import parse_yaml

_META = "meta.yaml"
_MODELS = "models"
_TRASH = ".trash"


def find(path: Path) -> Path | None:
    """Return the `mlruns` folder that a path is or holds, `None` where there is none."""
    for candidate in (path, path / "mlruns"):
        if candidate.is_dir() and any(_experiments(candidate)):
            return candidate
    return None


def read(mlruns: Path, artifacts: Artifacts, not_carried: NotCarried) -> Iterator[FoundRun | FoundModel]:
    """Yield runs, those of deleted experiments too, and registered models.

    Raises:
        OSError: it cannot be read.
    """
    place = artifacts.place
    runs: list[tuple[Path, dict[str, Any], str, bool]] = []
    for folder in [*_experiments(mlruns), *_experiments(mlruns / _TRASH)]:
        experiment = _meta(place, folder)
        if experiment is None:
            not_carried["experiment without a readable meta.yaml"] += 1
            continue
        is_deleted = experiment.get("lifecycle_stage") == "deleted"
        name = as_text(experiment.get("name")) or folder.name
        not_carried["tag of an experiment"] += len(_words(place, folder / "tags", not_carried))
        not_carried["trace"] += sum(1 for _trace in _folders(folder / "traces"))
        for run_folder in _folders(folder):
            if run_folder.name in (_MODELS, "tags", "datasets", "traces") or not (run_folder / _META).exists():
                continue
            meta = _meta(place, run_folder)
            if meta is None:
                not_carried["run without a readable meta.yaml"] += 1
                continue
            runs.append((run_folder, meta, name, is_deleted))
            artifacts.of_run[run_folder.name] = (folder.name, as_text(meta.get("artifact_uri")))
        for model_folder in _folders(folder / _MODELS):
            artifacts.of_model[model_folder.name] = (folder.name, str(model_folder / "artifacts"))
    models = _logged_models(mlruns, place, not_carried)
    for folder, meta, experiment_name, is_deleted in runs:
        run = _run(place, folder, meta, experiment_name, is_deleted=is_deleted)
        run.models = models.get(run.id, [])
        yield found_run(run, artifacts)
    for folder in _folders(mlruns / _MODELS):
        model = _model(place, folder, artifacts, not_carried)
        if model is not None:
            yield model


def _experiments(mlruns: Path) -> Iterator[Path]:
    for folder in _folders(mlruns):
        if folder.name not in (_MODELS, _TRASH) and (folder / _META).is_file():
            yield folder


def _folders(folder: Path) -> Iterator[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return
    yield from found


def _meta(place: Place, folder: Path) -> dict[str, Any] | None:
    told = parse_yaml(place.read(folder / _META, 16 << 20))
    return told if isinstance(told, dict) else None


def _words(place: Place, folder: Path, not_carried: NotCarried) -> dict[str, str]:
    """Return the texts of a folder of params or tags; a name with slashes is a path."""
    found = {}
    if folder.is_dir():
        for name, file in place.walk(folder, not_carried):
            data = place.read(file.path, 16 << 20)
            if data is None:
                not_carried["param or tag that cannot be read"] += 1
            else:
                found[name] = data.decode("utf-8", "backslashreplace")
    return found


def _run(place: Place, folder: Path, meta: dict[str, Any], experiment: str, *, is_deleted: bool) -> StoredRun:
    not_carried = NotCarried()
    run = StoredRun(
        as_text(meta.get("run_id") or meta.get("run_uuid")) or folder.name,
        experiment,
        folder.parent.name,
        as_text(meta.get("run_name") or meta.get("name")),
        meta.get("status"),
        meta.get("start_time"),
        meta.get("end_time"),
        is_deleted or meta.get("lifecycle_stage") == "deleted",
        as_text(meta.get("user_id")),
        as_text(meta.get("artifact_uri")),
        _words(place, folder / "params", not_carried),
        _words(place, folder / "tags", not_carried),
        lambda: _metrics(place, folder / "metrics", not_carried),
        marks=_marks(folder),
        not_carried=not_carried,
    )
    for one in _folders(folder / "inputs"):
        link = _meta(place, one) or {}
        told = _meta(place, folder.parent / "datasets" / as_text(link.get("source_id")).replace("/", "_"))
        if link.get("source_type") != "DATASET" or told is None:
            not_carried["input or output that is no dataset"] += 1
            continue
        tags = link.get("tags")
        role = tags.get("mlflow.data.context") if isinstance(tags, dict) else None
        name, digest = as_text(told.get("name")), as_text(told.get("digest"))
        run.datasets.append(Dataset(name, digest, as_text(told.get("source")), role))
    return run


def _metrics(place: Place, folder: Path, not_carried: NotCarried) -> Iterator[Metric]:
    if not folder.is_dir():
        return
    for name, file in place.walk(folder, not_carried):
        with file.opened() as path, path.open("rb") as lines:
            for line in iter(lambda: lines.readline(1 << 16), b""):
                words = line.decode("utf-8", "replace").split()
                ms = number_in(words[0]) if words else None
                value = as_number(words[1]) if len(words) > 1 else None
                if value is None and len(words) > 1:
                    value = number_in(words[1])
                step = number_in(words[2]) if len(words) > 2 else 0
                if not isinstance(ms, int) or value is None or not isinstance(step, int):
                    not_carried["line of a metric that cannot be read"] += 1
                    continue
                yield name, float(value), ms, step


def _marks(folder: Path) -> dict[str, int]:
    """Return what changes whenever something is added to a run: sizes, and when its texts were written."""
    marks = {"bytes": 0, "files": 0, "latest": 0}
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except OSError:
            continue
        marks["bytes"] += stat.st_size
        marks["files"] += 1
        marks["latest"] = max(marks["latest"], stat.st_mtime_ns)
    return marks


def _logged_models(mlruns: Path, place: Place, not_carried: NotCarried) -> dict[str, list[LoggedModel]]:
    found: dict[str, list[LoggedModel]] = {}
    for experiment in _experiments(mlruns):
        for folder in _folders(experiment / _MODELS):
            meta = _meta(place, folder)
            if meta is None:
                not_carried["logged model without a readable meta.yaml"] += 1
                continue
            facts = {
                "model_id": folder.name,
                "type": meta.get("model_type"),
                "params": _words(place, folder / "params", not_carried),
                "tags": _words(place, folder / "tags", not_carried),
            }
            one = LoggedModel(folder.name, as_text(meta.get("name")), str(folder / "artifacts"), facts)
            found.setdefault(as_text(meta.get("source_run_id")), []).append(one)
    return found


def _model(place: Place, folder: Path, artifacts: Artifacts, not_carried: NotCarried) -> FoundModel | None:
    meta = _meta(place, folder)
    if meta is None:
        not_carried["registered model without a readable meta.yaml"] += 1
        return None
    versions = []
    for one in _folders(folder):
        told = _meta(place, one) if one.name.startswith("version-") else None
        if told is None:
            continue
        number = number_in(as_text(told.get("version")))
        if told.get("current_stage") == "Deleted_Internal" or not isinstance(number, int):
            not_carried["deleted version of a model"] += 1
            continue
        source = as_text(told.get("storage_location") or told.get("source"))
        tags = _words(place, one / "tags", not_carried)
        description = as_text(told.get("description")) or None
        run_id = as_text(told.get("run_id")) or None
        stage = as_text(told.get("current_stage"))
        versions.append(StoredVersion(number, source, run_id, stage, tags, description, told.get("creation_timestamp")))
    aliases = {}
    for alias, text in _words(place, folder / "aliases", not_carried).items():
        number = number_in(text)
        if isinstance(number, int):
            aliases[alias] = number
    tags = _words(place, folder / "tags", not_carried)
    name, description = as_text(meta.get("name")) or folder.name, as_text(meta.get("description")) or None
    return found_model(name, versions, aliases, tags, description, artifacts, not_carried)
