"""What a run and a registered model of MLflow are, wherever they were stored, and where their files lie."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from runstone.importers.items import (
    Content,
    FoundArtifact,
    FoundModel,
    FoundRun,
    FoundVersion,
    Item,
    Linked,
    NotCarried,
    Points,
)
from runstone.importers.places import Place, inner_path
from runstone.importers.values import epoch_s, nest, parse_json
from runstone.values import Status

Metric = tuple[str, float, int, int]
"""Name, value, milliseconds since the Unix epoch, step."""
_BATCH = 10_000
_MS = 1e-3
_STATUS = {
    "FINISHED": Status.FINISHED,
    "FAILED": Status.FAILED,
    "KILLED": Status.STOPPED,
    # MLflow's enumeration, as its folders have it
    3: Status.FINISHED,
    4: Status.FAILED,
    5: Status.STOPPED,
}
_STAGES = {"staging": "staging", "production": "production", "archived": "archived"}


@dataclass(slots=True)
class Dataset:
    """A dataset that a run used."""

    name: str
    digest: str
    source: str
    role: str | None


@dataclass(slots=True)
class LoggedModel:
    """A model that a run logged, of MLflow 3."""

    id: str
    name: str
    location: str
    facts: dict[str, Any]


@dataclass(slots=True)
class StoredRun:
    """One run as a store has it; `metrics` is asked once."""

    id: str
    experiment: str
    experiment_id: str
    name: str
    status: object
    start_ms: object
    end_ms: object
    is_deleted: bool
    user: str
    artifact_uri: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: Callable[[], Iterable[Metric]]
    datasets: list[Dataset] = field(default_factory=list)
    models: list[LoggedModel] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    not_carried: NotCarried = field(default_factory=NotCarried)


@dataclass(slots=True)
class StoredVersion:
    """One version of a registered model as a store has it."""

    number: int
    source: str
    run_id: str | None
    stage: str | None
    tags: dict[str, str]
    description: str | None
    created_ms: object


class Artifacts:
    """Where the files of a store lie, also after it was moved.

    Args:
        root: The folder of the store.
        also_from: Further folders from which files may be taken.
        mlruns: The folder with experiments, where there is one.
    """

    def __init__(self, root: Path, also_from: tuple[Path, ...] = (), mlruns: Path | None = None) -> None:
        self.place = Place(root, *also_from)
        self._roots = [*([mlruns] if mlruns else []), root / "mlruns", root / "mlartifacts", root, *also_from]
        self.of_run: dict[str, tuple[str, str]] = {}
        """Experiment and artifact address of each run."""
        self.of_model: dict[str, tuple[str, str]] = {}
        """Experiment and address of each logged model."""

    def folder(self, uri: str, *inside: str) -> tuple[Path | None, str]:
        """Return the folder or file that an address means, and why it cannot be taken where that is `None`.

        Args:
            uri: As the store has it: a path, `file:…`, or the address of another place.
            inside: The parts by which it is found below the store, where it was moved.
        """
        scheme = urlsplit(uri).scheme if "://" in uri or ":" in uri.split("/")[0] else ""
        candidates = []
        if scheme in ("", "file"):
            local = unquote(urlsplit(uri).path) if scheme else uri
            candidates.append(Path(local) if local.startswith("/") else self._roots[-1] / local)
            candidates += self._moved(local, max(2, len(inside) - 1))
        if inside and all(inner_path(part) for part in inside):
            candidates += [root.joinpath(*inside) for root in self._roots]
        has_outside = False
        for candidate in candidates:
            try:
                there = candidate.exists()
            except (OSError, ValueError):
                continue
            if there and self.place.holds(candidate):
                return candidate, ""
            has_outside = has_outside or there
        if has_outside:
            return None, "outside of the store (--also-from takes it)"
        return None, f"at {scheme}" if scheme not in ("", "file", "mlflow-artifacts") else "not there"

    def _moved(self, local: str, least: int) -> Iterator[Path]:
        """Yield where a file may lie now whose store was moved: below the store, by the last parts of its path."""
        parts = [part for part in local.split("/") if part]
        for start in range(1, max(1, min(len(parts), 32) - least + 1)):
            if inner_path("/".join(parts[start:])):
                yield from (root.joinpath(*parts[start:]) for root in self._roots)

    def files(self, path: Path, not_carried: NotCarried) -> list[tuple[str, Content]]:
        """Return the files of a folder, or the file, by their paths inside."""
        if path.is_file():
            trouble = self.place.trouble(path)
            if trouble is not None:
                not_carried[trouble] += 1
                return []
            return [(path.name, self.place.file(path))]
        return list(self.place.walk(path, not_carried))

    def find(self, source: str) -> tuple[Path | None, str]:
        """Return where the files of a version of a registered model lie, or why not."""
        scheme, _colon, rest = source.partition(":/")
        parts = [part for part in rest.split("/") if part]
        if scheme in ("runs", "models") and parts and inner_path("/".join(parts)):
            known = self.of_run if scheme == "runs" else self.of_model
            experiment, uri = known.get(parts[0], ("", ""))
            if not experiment:
                return None, "of a run or model that is not in the store"
            inside = (experiment, parts[0], "artifacts") if scheme == "runs" else (
                experiment, "models", parts[0], "artifacts",
            )  # fmt: skip
            base, why = self.folder(uri, *inside)
            target = base.joinpath(*parts[1:]) if base is not None else None
            if target is None or target.exists():
                return target, why
            return None, "not there"
        return self.folder(source)


def found_run(run: StoredRun, artifacts: Artifacts) -> FoundRun:
    """Return a run of MLflow as a run of any tool."""
    tags = run.tags
    status = _STATUS.get(run.status if isinstance(run.status, int | str) else "", Status.CRASHED)
    user = {"mlflow.user": run.user} if run.user and "mlflow.user" not in tags else {}
    found = FoundRun(
        key=run.id,
        source=f"{run.experiment}/{run.id}",
        name=run.name or tags.get("mlflow.runName", "") or run.id,
        items=lambda: (),
        project=run.experiment or None,
        notes=tags.get("mlflow.note.content"),
        parent=tags.get("mlflow.parentRunId"),
        started_s=epoch_s(run.start_ms, _MS),
        ended_s=epoch_s(run.end_ms, _MS),
        status=status,
        params=nest({name: param_value(text) for name, text in run.params.items()}, "."),
        tags={**tags, **user},
        is_deleted=run.is_deleted,
        environment=_environment(run),
        marks=run.marks,
        not_carried=run.not_carried,
    )
    found.items = lambda: _items(run, artifacts, found)
    return found


def param_value(text: str) -> Any:
    """Return the value that MLflow wrote as `text`, where writing it again gives the same text; else the text."""
    if text in ("True", "False"):
        return text == "True"
    if text == "None":
        return None
    if len(text) > 40 or not text[:1].isascii():
        return text
    for kind in (int, float):
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            continue
        if str(value) == text:
            return value
    return text


def _items(run: StoredRun, artifacts: Artifacts, found: FoundRun) -> Iterator[Item]:
    at = found.started_s or 0.0
    yield from batches(run.metrics())
    for dataset in run.datasets:
        yield Linked("input", "dataset", dataset.name, at, dataset.digest, dataset.role, _address(dataset.source))
    later = found.ended_s or at
    folder, why = artifacts.folder(run.artifact_uri, run.experiment_id, run.id, "artifacts")
    if folder is None:
        if why != "not there":  # MLflow makes the folder with the first artifact
            found.not_carried[f"folder of artifacts {why}"] += 1
    elif folder.is_dir():
        yield from _artifacts(folder, artifacts, later, found.not_carried)
    for model in run.models:
        place, why = artifacts.folder(model.location, run.experiment_id, "models", model.id, "artifacts")
        files = artifacts.files(place, found.not_carried) if place is not None else []
        if files:
            yield FoundArtifact(model.name or model.id, True, files, later, {"mlflow": model.facts})
        else:
            found.not_carried[f"logged model whose files are {why or 'not there'}"] += 1


def batches(metrics: Iterable[Metric]) -> Iterator[Points]:
    """Yield points metric by metric, in stretches that memory holds."""
    batch = Points("", [], [], [])
    for name, value, ms, step in metrics:
        if batch.steps and (name != batch.name or len(batch.steps) >= _BATCH):
            yield batch
            batch = Points("", [], [], [])
        batch.name = name
        batch.steps.append(step)  # type: ignore[attr-defined]  # a list, as made above
        batch.values.append(value)  # type: ignore[attr-defined]
        batch.times.append(ms * _MS)  # type: ignore[attr-defined]
    if batch.steps:
        yield batch


def _artifacts(folder: Path, artifacts: Artifacts, at: float, not_carried: NotCarried) -> Iterator[Item]:
    """Yield one artifact for each file and folder at the top."""
    by_top: dict[str, list[tuple[str, Content]]] = {}
    is_folder: dict[str, bool] = {}
    for name, file in artifacts.place.walk(folder, not_carried):
        top, has_below, below = name.partition("/")
        by_top.setdefault(top, []).append((below if has_below else top, file))
        is_folder[top] = bool(has_below)
    for top, files in by_top.items():
        yield FoundArtifact(top, is_folder[top], files, at)


def _environment(run: StoredRun) -> dict[str, Any] | None:
    tags = run.tags
    git = {
        "commit": tags.get("mlflow.source.git.commit"),
        "branch": tags.get("mlflow.source.git.branch"),
        "remote": without_secrets(tags.get("mlflow.source.git.repoURL", "")) or None,
    }
    sections = {
        "git": {name: value for name, value in git.items() if value},
        "process": {"entry": tags["mlflow.source.name"]} if tags.get("mlflow.source.name") else {},
        "identity": {"user": tags.get("mlflow.user") or run.user} if tags.get("mlflow.user") or run.user else {},
    }
    return {name: section for name, section in sections.items() if section} or None


def _address(source: str) -> str | None:
    """Return the path or URL that a dataset came from, without secrets."""
    told = parse_json(source)
    if isinstance(told, dict):
        for name in ("uri", "url", "path", "table"):
            if isinstance(told.get(name), str):
                return without_secrets(told[name])
        return None
    return without_secrets(source) or None


def without_secrets(address: str) -> str:
    """Return an address without user, password and query."""
    try:
        parts = urlsplit(address)
        if not parts.scheme or not parts.netloc:
            return address[:1000]
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))[:1000]
    except ValueError:
        return ""


def found_model(
    name: str,
    versions: list[StoredVersion],
    aliases: dict[str, int],
    tags: dict[str, str],
    description: str | None,
    artifacts: Artifacts,
    not_carried: NotCarried,
) -> FoundModel:
    """Return a registered model of MLflow as a model of any tool."""
    found = []
    for version in sorted(versions, key=lambda version: version.number):
        path, why = artifacts.find(version.source)
        files = artifacts.files(path, not_carried) if path is not None else []
        extra = {"mlflow.source": without_secrets(version.source)}
        created = epoch_s(version.created_ms, _MS)
        if created is not None:
            extra["mlflow.created_at"] = str(created)
        found.append(
            FoundVersion(
                version.number,
                files,
                version.run_id or None,
                _STAGES.get((version.stage or "").lower()),
                {**extra, **version.tags},
                version.description or None,
                None if files else why or "not there",
            )
        )
    return FoundModel(f"mlflow/{name}", name, found, aliases, tags, description or None)


def inf_of(value: float) -> float:
    """Return what MLflow's databases mean: they keep ±Inf as the largest float."""
    largest = 1.7976931348623157e308
    return math.copysign(math.inf, value) if abs(value) == largest else value


def as_text(value: object) -> str:
    """Return a value as text, as MLflow's tags and params are."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
