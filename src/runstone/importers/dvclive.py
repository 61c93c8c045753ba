"""Folders of DVCLive: points as tables, the rest as JSON and YAML. They say nothing of their end or identity."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.importers import media
from runstone.importers.items import Content, FoundArtifact, FoundMedium, FoundRun, Item, Points, Reading
from runstone.importers.places import Place, inner_path
from runstone.importers.values import UNREADABLE, as_number, flatten, number_in, parse_json
from runstone.importers.yamlfile import parse_yaml
from runstone.media import long_text

_METRICS = ("plots", "metrics")
_STEP, _TIME = "step", "timestamp"
_MOST_LINE = 1 << 16
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")


def is_store(path: Path) -> bool:
    """Return whether a path is a folder of DVCLive, or holds some."""
    return path.is_dir() and next(_folders(path), None) is not None


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield a run for each folder.

    Raises:
        FormatError: there is none.
        OSError: a file cannot be read.
    """
    path = reading.path
    if not path.is_dir():
        raise FormatError(f"{path} is no folder of DVCLive")
    place = Place(path, path.parent if (path.parent / "dvc.yaml").is_file() else path, *reading.also_from)
    has_any = False
    for folder in _folders(path):
        if not place.holds(folder):
            reading.not_carried["link to elsewhere"] += 1
            continue
        has_any = True
        yield _Folder(folder, path, place).run()
    if not has_any:
        raise FormatError(f"{path} is no folder of DVCLive, and holds none: there is no plots/metrics or metrics.json")


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that DVCLive wrote: with points, or with a summary that counts steps."""
    for folder in (path, *sorted(one for one in path.rglob("*") if one.is_dir() and one.name not in (".git", ".dvc"))):
        has_summary = (folder / "metrics.json").is_file() and (folder / "params.yaml").is_file()
        if has_summary or folder.joinpath(*_METRICS).is_dir():
            yield folder


class _Folder:
    def __init__(self, folder: Path, root: Path, place: Place) -> None:
        self.folder, self.root, self.place = folder, root, place

    def run(self) -> FoundRun:
        """Return the run."""
        params = parse_yaml(self.place.read(self.folder / "params.yaml", 64 << 20))
        relative = self.folder.relative_to(self.root)
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        times = [path.stat().st_mtime for path in files]
        found = FoundRun(
            key=self._key(),
            source=str(self.folder),
            name=str(relative) if relative.parts else self.folder.name,
            items=lambda: (),
            started_s=min(times, default=None),
            ended_s=max(times, default=None),
            params=dict(flatten_keys(params)) if isinstance(params, dict) else {},
            marks={"bytes": sum(path.stat().st_size for path in files), "files": len(files)},
        )
        if params is UNREADABLE and (self.folder / "params.yaml").exists():
            found.not_carried["params.yaml that cannot be read"] += 1
        found.items = lambda: self._items(found)
        return found

    def _key(self) -> str:
        """Return what tells this training from others: its folder's name, params and first points."""
        hasher = hashlib.blake2b(self.folder.name.encode("utf-8", "backslashreplace"), digest_size=20)
        hasher.update(self.place.read(self.folder / "params.yaml", 64 << 20) or b"")
        for name, path in self._tables():
            head = (self.place.read(path) or b"").split(b"\n", 2)[:2]
            hasher.update(b"\0".join([name.encode("utf-8", "backslashreplace"), *head]))
        return hasher.hexdigest()

    def _tables(self) -> Iterator[tuple[str, Path]]:
        folder = self.folder.joinpath(*_METRICS)
        if folder.is_dir():
            for path in sorted(folder.rglob("*.tsv")):
                yield path.relative_to(folder).as_posix().removesuffix(".tsv"), path

    def _items(self, found: FoundRun) -> Iterator[Item]:
        at = found.ended_s or 0.0
        known = {"params.yaml", "metrics.json", "dvc.yaml"}
        names = set()
        for name, path in self._tables():
            known.add(path.relative_to(self.folder).as_posix())
            names.add(name)
            yield from self._points(name, path, at, found)
        summary = parse_json(self.place.read(self.folder / "metrics.json", 64 << 20) or b"")
        if isinstance(summary, dict):
            last = summary.get(_STEP)
            for name, value in flatten(summary, "/"):
                if name in names or name == _STEP:
                    continue
                number = as_number(value)
                step = last if isinstance(last, int) else 0
                if number is not None:
                    yield Points(name, [step], [number], [at])
                elif isinstance(value, str):
                    yield FoundMedium(name, step, at, long_text(value))
                else:
                    found.not_carried["value of metrics.json that is neither number nor text"] += 1
        others: list[tuple[str, Content]] = []
        for name, file in self.place.walk(self.folder, found.not_carried):
            if name in known:
                continue
            picture = None
            if name.startswith("plots/images/") and name.lower().endswith(_PICTURES):
                data = self.place.read(file.path)
                picture = media.image(data) if data is not None else None
            if picture is not None:
                title, step = _image_name(name.removeprefix("plots/images/"))
                yield FoundMedium(title, step, at, picture)
            else:
                others.append((name, file))
        if others:
            yield FoundArtifact("dvclive", True, others, at)
        yield from self._artifacts(found, at)

    def _points(self, name: str, path: Path, at: float, found: FoundRun) -> Iterator[Item]:
        data = self.place.read(path, 4 << 30)
        if data is None:
            found.not_carried["table of points that cannot be read"] += 1
            return
        rows = csv.reader(io.StringIO(data.decode("utf-8", "replace")), delimiter="\t")
        points = Points(name, [], [], [])
        steps: list[int] = []
        values: list[float | int | bool] = []
        times: list[float] = []
        try:
            head = next(rows, [])
            column = {title: number for number, title in enumerate(head)}
            others = [number for title, number in column.items() if title not in (_STEP, _TIME)]
            for row in rows:
                if len(row) != len(head) or _STEP not in column or not others:
                    found.not_carried["line of a table that is torn"] += 1
                    continue
                step, value = number_in(row[column[_STEP]]), row[others[-1]]
                number = number_in(value)
                if number is None:
                    number = {"True": True, "False": False}.get(value)
                if not isinstance(step, int):
                    found.not_carried["line of a table without a step"] += 1
                elif number is None:
                    yield FoundMedium(name, step, at, long_text(value))
                else:
                    ms = number_in(row[column[_TIME]]) if _TIME in column else None
                    steps.append(step)
                    values.append(number)
                    times.append(ms / 1000 if ms is not None else at)
        except csv.Error:
            found.not_carried["rest of a table that is torn"] += 1
        points.steps, points.values, points.times = steps, values, times
        yield points

    def _artifacts(self, found: FoundRun, at: float) -> Iterator[Item]:
        """Yield what a `dvc.yaml` in the folder, or beside it, says that this folder logged."""
        for base in (self.folder, self.folder.parent):
            if not self.place.holds(base):
                continue
            told = parse_yaml(self.place.read(base / "dvc.yaml", 16 << 20))
            if not isinstance(told, dict) or not isinstance(told.get("artifacts"), dict):
                continue
            if base != self.folder and not _mentions(told, self.folder.name):
                continue
            for name, one in told["artifacts"].items():
                inside = inner_path(one.get("path")) if isinstance(one, dict) else None
                target = base / inside if inside is not None else None
                if target is None or not target.exists() or not self.place.holds(target):
                    found.not_carried["artifact of dvc.yaml that is not there"] += 1
                    continue
                files: list[tuple[str, Content]]
                if target.is_dir():
                    files = list(self.place.walk(target, found.not_carried))
                else:
                    files = [(target.name, self.place.file(target))]
                facts = {key: value for key, value in one.items() if key != "path"}
                yield FoundArtifact(str(name), target.is_dir(), files, at, {"dvc": facts})


def flatten_keys(params: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield params with names that are text, as YAML may have numbers there."""
    for name, value in params.items():
        yield str(name), value


def _mentions(told: dict[str, Any], name: str) -> bool:
    listed = [one for key in ("params", "metrics", "plots") for one in (told.get(key) or []) if told.get(key)]
    paths = [one if isinstance(one, str) else next(iter(one), "") for one in listed if isinstance(one, str | dict)]
    return any(str(path).split("/")[0] == name for path in paths)


def _image_name(inside: str) -> tuple[str, int]:
    """Return name and step of a picture: DVCLive writes `name.png`, or `name/<step>.png` for one of each step."""
    folder, _slash, file = inside.rpartition("/")
    stem = file.rpartition(".")[0]
    if folder and stem.isdecimal() and len(stem) < 18:
        return folder, int(stem)
    return inside, 0
