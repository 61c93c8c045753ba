"""What neptune-exporter wrote: Parquet of attributes and series, a file or several a run, and a folder of files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
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
    NotCarried,
    Points,
    Printed,
    Reading,
)
from runstone.importers.places import Place, inner_path
from runstone.importers.values import nest
from runstone.media import long_text
from runstone.values import JSON, Status

_NEEDED = {"project_id", "run_id", "attribute_path", "attribute_type", "step", "timestamp"}
_PART = re.compile(r"(?P<run>.+)_part_(?P<number>\d+)\.parquet")
_REGISTRY = ("models", "model_versions")
_SYS = "sys/"
_IDS = ("sys/id", "sys/custom_run_id")
_PARENT = "sys/forking/parent"
_MICRO = 1_000_000
_SIMPLE = {
    "int": "int_value",
    "float": "float_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
}


def is_store(path: Path) -> bool:
    """Return whether a path is such a file, or holds some."""
    return next((file for file in _files(path) if _has_schema(file)), None) is not None


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield the runs of an export: its folder, its `data` folder, a project's folder, or one file.

    Raises:
        FormatError: there is none, or a file is damaged.
        OSError: a file cannot be read.
    """
    path = reading.path
    root = path if path.is_dir() else path.parent
    # Files lie beside the data, two folders up from a run's Parquet.
    above = [folder for folder in (root, root.parent, root.parent.parent) if (folder / "files").is_dir()]
    place = Place(root, *(folder / "files" for folder in above), *reading.also_from)
    parts: dict[tuple[Path, str], list[tuple[int, Path]]] = defaultdict(list)
    for file in _files(path):
        if place.trouble(file) is not None:
            reading.not_carried["link to elsewhere"] += 1
            continue
        if file.parent.name in _REGISTRY:
            reading.not_carried["Parquet file of the model registry"] += 1
            continue
        match = _PART.fullmatch(file.name)
        run, number = (match["run"], int(match["number"])) if match else (file.stem, 0)
        if _has_schema(file):
            parts[file.parent, run].append((number, file))
        else:
            reading.not_carried["Parquet file of another kind"] += 1
    if not parts:
        raise FormatError(f"{path} holds no Parquet file that neptune-exporter wrote")
    roots = [folder / "files" for folder in above] + list(reading.also_from)
    runs = [_Run([file for _number, file in sorted(files)], place, roots) for files in parts.values()]
    keys = {(run.project, name): run.key for run in runs for name in run.names}
    for run in runs:
        yield run.found(keys)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(file for file in path.rglob("*.parquet") if file.is_file())


def _has_schema(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    import pyarrow as pa  # slow to load, only for such files
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(path).names) >= _NEEDED
    except (OSError, pa.ArrowException, ValueError):
        return False


class _Run:
    """One run: its attributes are read at once, its series when they are asked for."""

    def __init__(self, files: list[Path], place: Place, roots: list[Path]) -> None:
        self._files, self._place, self._roots = files, place, roots
        self.not_carried = NotCarried()
        self.project = self.run_id = ""
        self._attributes: dict[str, Any] = {}
        self._unit = _MICRO
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._sizes = sum(file.stat().st_size for file in files)
        for row in self._rows():
            self._look(row)

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.project}/{self.run_id}"

    @property
    def names(self) -> set[str]:
        """By which others may refer to it."""
        return {self.run_id, *(str(self._attributes[name]) for name in _IDS if self._attributes.get(name))}

    def _look(self, row: dict[str, Any]) -> None:
        self.project = self.project or str(row["project_id"] or "")
        self.run_id = self.run_id or str(row["run_id"] or "")
        kind = row["attribute_type"]
        if kind in _SIMPLE:
            value = row.get(_SIMPLE[kind])
            if isinstance(value, float) and kind == "int":
                value = int(value)
            self._attributes[str(row["attribute_path"])] = value
        micro = row["step"]
        if micro is not None:
            while micro % self._unit:
                self._unit //= 10
        at = row["timestamp"]
        if at is not None:
            self._first_s = at if self._first_s is None else min(self._first_s, at)
            self._last_s = at if self._last_s is None else max(self._last_s, at)

    def found(self, keys: dict[tuple[str, str], str]) -> FoundRun:
        """Return it as a run of any tool."""
        told = self._attributes
        plain: dict[str, JSON] = {name: _json(value) for name, value in told.items() if not name.startswith(_SYS)}
        tags = {name: _as_text(value) for name, value in told.items() if name.startswith(_SYS)}
        for name in ("sys/tags", "sys/group_tags"):
            if isinstance(told.get(name), list):
                tags |= {str(tag): "true" for tag in told[name]}
        if self._unit != _MICRO:
            tags["import.step_multiplier"] = str(_MICRO // self._unit)
        created, modified = told.get("sys/creation_time"), told.get("sys/modification_time")
        parent = told.get(_PARENT)
        found = FoundRun(
            key=self.key,
            source=str(self._files[0]),
            name=str(told.get("sys/name") or told.get("sys/experiment/name") or self.run_id),
            items=lambda: (),
            project=self.project or None,
            notes=str(told["sys/description"]) if told.get("sys/description") else None,
            parent=keys.get((self.project, str(parent))) if parent else None,
            started_s=created.timestamp() if isinstance(created, datetime) else self._first_s,
            ended_s=self._last_s or (modified.timestamp() if isinstance(modified, datetime) else None),
            status=Status.FAILED if told.get("sys/failed") else Status.FINISHED,
            params=nest(plain, "/"),
            tags=tags,
            is_deleted=bool(told.get("sys/trashed")),
            marks={"bytes": self._sizes, "files": len(self._files)},
            not_carried=self.not_carried,
        )
        found.items = lambda: self._items(found)
        return found

    def _items(self, found: FoundRun) -> Iterator[Item]:
        batch = Points("", [], [], [])
        steps: list[int] = []
        values: list[float | int | bool] = []
        times: list[float] = []
        begin = found.started_s or 0.0
        for row in self._rows():
            kind, name = row["attribute_type"], str(row["attribute_path"])
            if kind in _SIMPLE:
                continue
            step, at = (row["step"] or 0) // self._unit, row["timestamp"] or begin
            if kind == "float_series":
                if row["float_value"] is None:
                    self.not_carried["point without a value"] += 1
                    continue
                if steps and (name != batch.name or len(steps) >= 10_000):
                    yield Points(batch.name, steps, values, times)
                    steps, values, times = [], [], []
                batch.name = name
                steps.append(step)
                values.append(row["float_value"])
                times.append(at)
                continue
            yield from self._other(kind, name, step, at, row)
        if steps:
            yield Points(batch.name, steps, values, times)

    def _other(self, kind: str, name: str, step: int, at: float, row: dict[str, Any]) -> Iterator[Item]:
        if kind == "string_series":
            text = str(row["string_value"] or "")
            stream = {"stdout": 1, "stderr": 2}.get(name.rpartition("/")[2])
            if stream is not None:
                yield Printed(stream, text.rstrip("\n").encode("utf-8", "backslashreplace") + b"\n", at)
            else:
                yield FoundMedium(name, step, at, long_text(text))
        elif kind == "histogram_series":
            told = row.get("histogram_value") or {}
            medium = media.histogram(told.get("edges"), told.get("values"))
            if medium is None:
                self.not_carried["histogram that cannot be read"] += 1
            else:
                yield FoundMedium(name, step, at, medium)
        elif kind in ("file", "file_series", "file_set", "artifact"):
            yield from self._file(kind, name, step, at, (row.get("file_value") or {}).get("path"))
        else:
            self.not_carried[f"attribute of the kind {str(kind)[:60]}"] += 1

    def _file(self, kind: str, name: str, step: int, at: float, told: object) -> Iterator[Item]:
        inside = inner_path(told)
        path = self._find(inside) if inside is not None else None
        if path is None:
            self.not_carried["file that was not exported, or lies elsewhere"] += 1
            return
        files: list[tuple[str, Content]]
        if path.is_dir():
            files = list(self._place.walk(path, self.not_carried))
        else:
            data = self._place.read(path, 64 << 20) if kind == "file_series" else None
            medium = media.image(data) if data is not None else None
            if medium is not None:
                yield FoundMedium(name, step, at, medium)
                return
            files = [(path.name, self._place.file(path))]
        title = f"{name} {step}" if kind == "file_series" else name
        if files:
            yield FoundArtifact(title, path.is_dir(), files, at)

    def _find(self, inside: str) -> Path | None:
        project = self._files[0].parent.name
        for root in self._roots:
            for candidate in (root / project / inside, root / inside):
                if candidate.exists() and self._place.holds(candidate):
                    return candidate
        return None

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows; steps as whole millionths, times as seconds.

        Raises:
            FormatError: a file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._files:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=20_000):
                        for row in batch.to_pylist():
                            step, at = row["step"], row["timestamp"]
                            row["step"] = int(step * _MICRO) if step is not None else None
                            row["timestamp"] = at.timestamp() if isinstance(at, datetime) else None
                            yield row
            except (OSError, pa.ArrowException, ValueError, OverflowError, ArithmeticError, TypeError) as error:
                raise FormatError(f"{path} cannot be read: {error}") from None


def _json(value: Any) -> JSON:
    return value.isoformat() if isinstance(value, datetime) else value


def _as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(_json(value))
