"""Trackio: a SQLite file a project, Parquet where it was exported so, and lines of JSON that wait in its inbox."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.importers import media
from runstone.importers.items import (
    Content,
    FoundArtifact,
    FoundMedium,
    FoundRun,
    Item,
    Linked,
    NotCarried,
    Points,
    Reading,
)
from runstone.importers.places import Place, inner_path
from runstone.importers.values import UNREADABLE, as_number, epoch_s, flatten, parse_json
from runstone.index.foreign import ForeignDatabase
from runstone.media import Medium, long_text
from runstone.names import SYSTEM
from runstone.values import JSON

_COLUMNS = ("run_id", "run_name", "timestamp", "step", "metrics", "log_id")
_NOT_METRICS = {"id", "run_id", "run_name", "timestamp", "step", "log_id", "space_id"}
_SIDECARS = ("_system", "_configs", "_traces", "_artifacts", "_artifact_versions", "_artifact_aliases",
             "_run_artifact_links", "_external_run_artifact_links")  # fmt: skip
_INBOX = "inbox"


@dataclass(slots=True)
class _Row:
    """One call of `log`; `step` is `None` for readings of the machine."""

    run_id: str | None
    run_name: str
    at: float
    step: int | None
    values: dict[str, Any]
    log_id: str | None


@dataclass(slots=True)
class _Run:
    """One run while it is gathered."""

    name: str
    config: dict[str, JSON] = field(default_factory=dict)
    alerts: list[tuple[int, float, str]] = field(default_factory=list)
    artifacts: list[tuple[str, int, list[Any], float, dict[str, JSON]]] = field(default_factory=list)
    links: list[Linked] = field(default_factory=list)
    first_s: float | None = None
    last_s: float | None = None
    rows: int = 0


def is_store(path: Path) -> bool:
    """Return whether a path is a project of Trackio, or a folder that holds some."""
    if path.is_file():
        return _is_database(path) or _is_parquet(path) or _is_fragment(path)
    return any(_is_database(one) for one in path.glob("*.db")) or any(
        _is_fragment(one) for one in path.glob(f"{_INBOX}/*/*.jsonl")
    ) or any(_is_parquet(one) for one in path.glob("*.parquet"))  # fmt: skip


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield the runs of each project.

    Raises:
        FormatError: there is none, or a database is damaged.
        OSError: a file cannot be read.
    """
    path = reading.path
    root = path.parent if path.is_file() else path
    place = Place(root, *reading.also_from)
    files = [path] if path.is_file() else sorted(one for one in root.iterdir() if one.is_file())
    projects: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if place.trouble(file) is not None:
            reading.not_carried["link to elsewhere"] += 1
        elif _is_database(file):
            projects[file.stem].insert(0, file)
        elif _is_parquet(file) and not any(file.stem.endswith(one) for one in _SIDECARS):
            projects[file.stem].append(file)
    fragments: dict[str, list[Path]] = defaultdict(list)
    waiting = [path] if path.is_file() and _is_fragment(path) else sorted(root.glob(f"{_INBOX}/*/*.jsonl"))
    for file in waiting:
        for project in _projects_in(file, place):
            fragments[project].append(file)
    if not projects and not fragments:
        raise FormatError(f"{path} is no project of Trackio, and holds none")
    for project in sorted({*projects, *fragments}):
        main = projects[project][0] if projects.get(project) else None
        yield from _Project(project, main, fragments.get(project, []), root, place, reading.not_carried).runs()


def _is_database(path: Path) -> bool:
    try:
        with ForeignDatabase(path) as database:
            return {"run_name", "metrics", "step"} <= set(database.columns("metrics"))
    except (OSError, FormatError):
        return False


def _is_parquet(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    import pyarrow as pa  # slow to load, only for such files
    import pyarrow.parquet as pq

    try:
        return {"run_name", "timestamp", "step"} <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException, ValueError):
        return False


def _is_fragment(path: Path) -> bool:
    if path.suffix != ".jsonl":
        return False
    try:
        with path.open("rb") as file:
            told = parse_json(file.readline(1 << 24))
    except OSError:
        return False
    return isinstance(told, dict) and {"kind", "project", "run"} <= set(told)


def _records(file: Path, place: Place, not_carried: NotCarried) -> Iterator[dict[str, Any]]:
    for line in (place.read(file) or b"").splitlines():
        told = parse_json(line)
        if isinstance(told, dict):
            yield told
        else:
            not_carried["line that cannot be read"] += 1


def _projects_in(file: Path, place: Place) -> set[str]:
    return {str(one.get("project") or "") for one in _records(file, place, NotCarried())}


class _Project:
    """One project: its runs are gathered first, their points are read again run by run."""

    def __init__(
        self,
        name: str,
        main: Path | None,
        fragments: list[Path],
        root: Path,
        place: Place,
        not_carried: NotCarried,
    ) -> None:
        self.name, self.root, self.place, self.not_carried = name, root, place, not_carried
        self._main, self._fragments = main, fragments
        self._runs: dict[str, _Run] = {}

    def runs(self) -> Iterator[FoundRun]:
        """Yield them."""
        seen: set[str] = set()
        counts: dict[str, int] = defaultdict(int)
        for row in (*self._rows("metrics"), *self._rows("system_metrics")):
            if row.log_id is not None and row.log_id in seen:
                continue
            if row.log_id is not None:
                seen.add(row.log_id)
            run = self._run(row.run_id, row.run_name)
            run.first_s = row.at if run.first_s is None else min(run.first_s, row.at)
            run.last_s = row.at if run.last_s is None else max(run.last_s, row.at)
            run.rows += 1
            counts[_key(row.run_id, row.run_name)] += len(row.values)
        self._more()
        for key, run in self._runs.items():
            group, created = run.config.pop("_Group", None), epoch_s(run.config.pop("_Created", None))
            user = run.config.pop("_Username", None)
            start = min((one for one in (created, run.first_s) if one is not None), default=None)
            found = FoundRun(
                key=f"{self.name}/{key}",
                source=f"{self._main or self._fragments[0]}: {run.name}",
                name=run.name or key,
                items=lambda: (),
                project=self.name,
                group=group if isinstance(group, str) else None,
                started_s=start,
                ended_s=run.last_s,
                params=run.config,
                environment={"identity": {"user": user}} if isinstance(user, str) else None,
                marks={
                    "rows": run.rows,
                    "values": counts[key],
                    "alerts": len(run.alerts),
                    "artifacts": len(run.artifacts) + len(run.links),
                    "config": len(json.dumps(run.config, default=str)),
                },
            )
            found.items = lambda key=key, run=run, found=found: self._items(key, run, found)  # type: ignore[misc]
            yield found

    def _run(self, run_id: object, run_name: object) -> _Run:
        key = _key(run_id, run_name)
        if key not in self._runs:
            self._runs[key] = _Run(str(run_name or key))
        return self._runs[key]

    # --- rows --------------------------------------------------------------------------------------------------------

    def _rows(self, table: str, run: str | None = None) -> Iterator[_Row]:
        """Yield rows of all runs or of one, wherever they are."""
        for told in self._told_rows(table, run):
            if run is not None and _key(told.get("run_id"), told.get("run_name")) != run:
                continue
            values = told.get("metrics")
            values = parse_json(values) if isinstance(values, str | bytes) else values
            at = epoch_s(told.get("timestamp"))
            step = told.get("step")
            if not isinstance(values, dict) or not isinstance(step, int | None):
                if run is None:
                    self.not_carried["row that cannot be read"] += 1
                continue
            run_id, log_id = told.get("run_id"), told.get("log_id")
            yield _Row(
                str(run_id) if run_id else None,
                str(told.get("run_name") or ""),
                at if at is not None else 0.0,
                step if table == "metrics" else None,
                values,
                str(log_id) if log_id else None,
            )

    def _told_rows(self, table: str, run: str | None) -> Iterator[dict[str, Any]]:
        if self._main is not None and self._main.suffix == ".parquet":
            path = self._main
            yield from _parquet_rows(path if table == "metrics" else path.with_name(f"{path.stem}_system.parquet"))
        elif self._main is not None:
            with ForeignDatabase(self._main) as database:
                by = "run_id" if "run_id" in database.columns(table) else "run_name"
                for row in database.rows(table, _COLUMNS, where=[(by, run)] if run is not None else ()):
                    yield dict(zip(_COLUMNS, row, strict=True))
        wanted = "metric" if table == "metrics" else "system_metric"
        for file in self._fragments:
            for told in _records(file, self.place, self.not_carried if table == "metrics" else NotCarried()):
                if told.get("kind") == wanted and told.get("project") == self.name:
                    yield {**told, "run_name": told.get("run")}

    def _more(self) -> None:
        """Gather configurations, alerts and artifacts."""
        if self._main is not None and self._main.suffix == ".parquet":
            for told in _parquet_rows(self._main.with_name(f"{self._main.stem}_configs.parquet")):
                config = {k: v for k, v in told.items() if k not in (*_NOT_METRICS, "created_at", "metrics")}
                self._run(told.get("run_id"), told.get("run_name")).config = config | told["metrics"]
            for one in _SIDECARS[2:]:
                if self._main.with_name(f"{self._main.stem}{one}.parquet").exists():
                    self.not_carried[f"table {one.removeprefix('_')} of Parquet files"] += 1
        elif self._main is not None:
            with ForeignDatabase(self._main) as database:
                self._more_of(database)
        for file in self._fragments:
            for told in _records(file, self.place, NotCarried()):
                if told.get("project") != self.name:
                    continue
                if isinstance(told.get("config"), dict):
                    self._run(told.get("run_id"), told.get("run")).config |= told["config"]
                if told.get("kind") == "alert":
                    self._alert(told.get("run_id"), told.get("run"), told)

    def _more_of(self, database: ForeignDatabase) -> None:
        for run_id, name, text in database.rows("configs", ["run_id", "run_name", "config"]):
            config = parse_json(text)
            if isinstance(config, dict):
                self._run(run_id, name).config = config
            else:
                self.not_carried["configuration that cannot be read"] += 1
        columns = ["run_id", "run_name", "timestamp", "title", "text", "level", "step"]
        for row in database.rows("alerts", columns):
            self._alert(row[0], row[1], dict(zip(columns, row, strict=True)))
        names = {row[0]: row[1:] for row in database.rows("artifacts", ["id", "name", "type", "description"])}
        versions = {}
        columns = ["id", "artifact_id", "version", "manifest", "metadata"]
        for key, artifact, version, manifest, metadata in database.rows("artifact_versions", columns):
            versions[key] = (names.get(artifact), version, parse_json(manifest), parse_json(metadata or "{}"))
        columns = ["run_id", "run_name", "artifact_version_id", "direction", "created_at"]
        for run_id, name, key, direction, created in database.rows("run_artifact_links", columns):
            told, version, manifest, metadata = versions.get(key, (None, 0, None, None))
            at = epoch_s(created) or 0.0
            run = self._run(run_id, name)
            if told is None or not isinstance(manifest, list):
                self.not_carried["artifact that cannot be read"] += 1
            elif direction == "input":
                run.links.append(Linked("input", "artifact", str(told[0]), at, f"v{version}", str(told[1])))
            else:
                facts = {"type": told[1], "description": told[2], "version": version}
                kept = {**(metadata if isinstance(metadata, dict) else {}), "trackio": facts}
                run.artifacts.append((str(told[0]), version, manifest, at, kept))
        for table, kind in (("traces", "trace"), ("external_run_artifact_links", "link to another project")):
            self.not_carried[kind] += sum(1 for _row in database.rows(table, ["id"]))

    def _alert(self, run_id: object, name: object, told: dict[str, Any]) -> None:
        text = ": ".join(str(told[key]) for key in ("level", "title", "text") if told.get(key))
        step = told.get("step")
        at = epoch_s(told.get("timestamp")) or 0.0
        self._run(run_id, name).alerts.append((step if isinstance(step, int) else 0, at, text))

    # --- items -------------------------------------------------------------------------------------------------------

    def _items(self, key: str, run: _Run, found: FoundRun) -> Iterator[Item]:
        seen: set[str] = set()
        begin = found.started_s or 0.0
        for table in ("metrics", "system_metrics"):
            for row in self._rows(table, key):
                if row.log_id is not None and row.log_id in seen:
                    continue
                if row.log_id is not None:
                    seen.add(row.log_id)
                step = row.step if row.step is not None else max(0, int(row.at - begin))
                prefix = "" if table == "metrics" else f"{SYSTEM}trackio/"
                for name, value in flatten(row.values, "/"):
                    yield from self._value(prefix + name, value, step, row.at, found.not_carried)
        for step, at, text in run.alerts:
            yield FoundMedium("alerts", step, at, long_text(text))
        yield from run.links
        counted: dict[str, int] = defaultdict(int)
        for name, version, manifest, at, kept in run.artifacts:
            counted[name] += 1
            files = list(self._artifact_files(manifest, found.not_carried))
            if files:
                title = name if counted[name] == 1 else f"{name} v{version}"
                yield FoundArtifact(title, True, files, at, kept)

    def _value(self, name: str, value: Any, step: int, at: float, not_carried: NotCarried) -> Iterator[Item]:
        number = as_number(value)
        if number is not None:
            yield Points(name, [step], [number], [at])
        elif value is None:
            not_carried["null in a log"] += 1
        elif isinstance(value, str):
            yield FoundMedium(name, step, at, long_text(value))
        elif isinstance(value, dict) and "_type" in value:
            what = str(value["_type"]).removeprefix("trackio.")[:60]
            found = self._medium(what, value)
            if found is not None:
                yield FoundMedium(name, step, at, found)
                return
            inside = inner_path(value.get("file_path"))
            path = self.root / "media" / inside if inside is not None else None
            if path is not None and self.place.trouble(path) is None:
                yield FoundArtifact(f"{name} {step}", False, [(path.name, self.place.file(path))], at)
            else:
                not_carried[f"{what} that cannot be read"] += 1
        else:
            yield FoundMedium(name, step, at, long_text(json.dumps(value, ensure_ascii=False, default=str)))

    def _medium(self, what: str, value: dict[str, Any]) -> Medium | None:
        if what == "histogram":
            return media.histogram(value.get("bins"), value.get("values"))
        if what == "table":
            rows = value.get("_value")
            return media.records_table(rows) if isinstance(rows, list) else None
        if what == "markdown":
            text = value.get("_value")
            return long_text(text) if isinstance(text, str) else None
        inside = inner_path(value.get("file_path"))
        data = self.place.read(self.root / "media" / inside) if inside is not None else None
        if data is None or inside is None:
            return None
        caption = value.get("caption")
        makers: dict[str, Callable[[], Medium | None]] = {
            "image": lambda: media.image(data, caption),
            "audio": lambda: media.audio(data, caption),
            "video": lambda: media.video(data, caption),
            "object3d": lambda: media.object3d(data, inside.rpartition(".")[2].lower(), caption),
        }
        return makers[what]() if what in makers else None

    def _artifact_files(self, manifest: list[Any], not_carried: NotCarried) -> Iterator[tuple[str, Content]]:
        for entry in manifest:
            told = entry if isinstance(entry, dict) else {}
            path, digest = inner_path(told.get("path")), str(told.get("digest") or "")
            if path is None or not digest.isalnum():
                not_carried["reference of an artifact to elsewhere"] += 1
                continue
            blob = self.root / "artifacts" / self.name / "blobs" / "sha256" / digest[:2] / digest
            trouble = self.place.trouble(blob)
            if trouble is not None:
                not_carried[f"file of an artifact: {trouble}"] += 1
            else:
                yield path, self.place.file(blob)


def _key(run_id: object, run_name: object) -> str:
    return str(run_id or run_name or "")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield rows of a table whose columns are the metrics, as Trackio exports it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    values = {k: v for k, v in row.items() if k not in _NOT_METRICS and v is not None}
                    told = values.pop("metrics", None)
                    parsed = parse_json(told) if isinstance(told, str | bytes) else told
                    if isinstance(parsed, dict):
                        values |= parsed
                    elif parsed is UNREADABLE:
                        values = {}
                    yield {**{k: row.get(k) for k in _NOT_METRICS}, "metrics": values}
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise FormatError(f"{path} cannot be read: {error}") from None
