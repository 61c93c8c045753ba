"""Follows a folder of batches, or a prediction log, and checks what comes in. Each part is looked at once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from runstone.datasets.kinds import table_kind
from runstone.datasets.tables import TableFile
from runstone.errors import NotFound, RunstoneError
from runstone.models import ModelNotFound, ModelRef, ModelVersion
from runstone.monitoring.configfile import Watching, read_watching
from runstone.monitoring.front import Outcome, act, look, unreadable
from runstone.monitoring.records import folder_of
from runstone.monitoring.reference import NoProfile
from runstone.monitoring.tables import LOG, Rows, flattened, labelled_folder, of_version, versions_in

if TYPE_CHECKING:
    from runstone.workspace import Workspace

LOG_ROWS = 500
_SETTLED_S = 1.0


@dataclass(frozen=True, slots=True)
class _Part:
    """A file that was not looked at yet, or of whose rows those of one version were not.

    Attributes:
        name: As it is remembered; of rows whose labels came later with the version.
        table: What it holds.
        is_log: Whether it is of a prediction log.
        is_labelled: Whether its labels came later; such are judged by themselves.
    """

    name: str
    table: TableFile
    is_log: bool
    is_labelled: bool


class FolderWatch:
    """Follows one folder for one version of a model.

    Which parts were looked at is kept in the workspace, so that a watch that starts again goes on where the last one
    ended.

    Args:
        workspace: Where the version is.
        folder: Files that are tables, each a batch; or a prediction log, whose parts are put together. Rows of it that
            have got their labels since, in `<log>.labelled`, tell of the performance: of the version that predicted,
            also where the alias has moved on since or the version was withdrawn.
        ref: The version, asked for anew each time: an alias may move.
        rows: How many rows of a prediction log are judged together.
        labels, predictions: Columns of batches; default: as `monitoring.yaml` or the reference say.

    Raises:
        NotFound: there is no such folder.
    """

    def __init__(
        self,
        workspace: Workspace,
        folder: Path,
        ref: str,
        *,
        rows: int = LOG_ROWS,
        labels: str | None = None,
        predictions: str | None = None,
    ) -> None:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder} to watch")
        self._workspace = workspace
        self._folder = folder.resolve()
        self._ref = ref
        self._rows = rows
        self._labels = labels
        self._predictions = predictions
        self._counted: dict[str, dict[str, int]] = {}  # rows by version of labelled parts, which never change

    def look(self, *, is_last: bool = False) -> Iterator[Outcome]:
        """Check what came in since, and yield what came of it.

        Args:
            is_last: Also what was written just now, and the end of a log that has fewer rows than asked for.

        Raises:
            ModelNotFound: the reference means no version; where it meant some before, labels for these are judged
                first, and only a last look raises.
        """
        versions, problem = self._versions()
        watching = read_watching(self._workspace.path, ModelRef.parse(self._ref).name)
        state = self._state_file()
        seen = self._seen(state)
        settled_s = 0.0 if is_last else _SETTLED_S
        if problem is None:
            yield from self._look_at_folder(versions[0], watching, state, seen, settled_s)
        yield from self._look_at_labels(versions, watching, state, seen, settled_s)
        if problem is not None and is_last:
            raise problem

    def _versions(self) -> tuple[list[ModelVersion], ModelNotFound | None]:
        """Return the version that is watched, and then those that were before; or why none is now."""
        ref = ModelRef.parse(self._ref)
        try:
            present, problem = [self._workspace.models.find(ref)], None
        except ModelNotFound as error:
            present, problem = [], error
        if ref.as_of is not None and problem is not None:
            raise problem
        before = self._workspace.models.get(ref.name).ever(ref.selector) if ref.as_of is None else []
        return list({one.key: one for one in [*present, *before]}.values()), problem

    def _look_at_folder(
        self, version: ModelVersion, watching: Watching, state: Path, seen: set[str], settled_s: float
    ) -> Iterator[Outcome]:
        waiting: list[_Part] = []
        count = 0
        for part in self._parts(sorted(self._folder.rglob("*")), self._folder, seen, settled_s):
            if not part.is_log:
                yield self._check(version, watching, part.name, [part])
                self._remember(state, seen, [part])
                continue
            waiting.append(part)
            counts = self._count(part)
            count += counts.get(version.key, 0) + counts.get("", 0)
            if count >= self._rows:
                yield self._check_log(version, watching, waiting, count)
                self._remember(state, seen, waiting)
                waiting, count = [], 0
        if not settled_s and count:
            yield self._check_log(version, watching, waiting, count)
            self._remember(state, seen, waiting)

    def _look_at_labels(
        self, versions: list[ModelVersion], watching: Watching, state: Path, seen: set[str], settled_s: float
    ) -> Iterator[Outcome]:
        """Judge each version by the labels of what it predicted: whoever is in its place now had no part in that."""
        waiting: dict[str, list[_Part]] = {one.key: [] for one in versions}
        counts = dict.fromkeys(waiting, 0)
        folder = labelled_folder(self._folder)
        for part in self._parts(sorted(folder.glob("*")), folder, seen, settled_s):
            if part.name not in self._counted:
                self._counted[part.name] = self._count(part)
            for version in versions:
                own = replace(part, name=f"{part.name}#{version}")
                counted = self._counted[part.name]
                count = counted.get(version.key, 0) + (counted.get("", 0) if version is versions[0] else 0)
                if not count or own.name in seen:
                    continue
                waiting[version.key].append(own)
                counts[version.key] += count
                if counts[version.key] >= self._rows:
                    yield self._check_log(version, watching, waiting[version.key], counts[version.key])
                    self._remember(state, seen, waiting[version.key])
                    waiting[version.key], counts[version.key] = [], 0
        for version in versions if not settled_s else ():
            if counts[version.key]:
                yield self._check_log(version, watching, waiting[version.key], counts[version.key])
                self._remember(state, seen, waiting[version.key])

    def follow(self, every_s: float, on_checked: Callable[[Outcome], None], *, sleep: Any = time.sleep) -> None:
        """Look again and again, until interrupted."""
        while True:
            for outcome in self.look():
                on_checked(outcome)
            sleep(every_s)

    def _check_log(self, version: ModelVersion, watching: Watching, parts: list[_Part], count: int) -> Outcome:
        what = f"prediction{'s' if count != 1 else ''}"
        if parts[0].is_labelled:
            what = f"labelled {what} of {version.version}"
        last = parts[-1].name.rpartition("/")[2].partition("#")[0]
        return self._check(version, watching, f"{count:,} {what} up to {last}", parts)

    def _check(self, version: ModelVersion, watching: Watching, name: str, parts: list[_Part]) -> Outcome:
        rows = Rows(name, tuple(part.table for part in parts))
        options: dict[str, Any] = {"labels": self._labels, "predictions": self._predictions}
        if parts[0].is_log:
            options = {**_log_columns(rows), "keeps": of_version(str(version.version))}
            # Which rows get labels is no accident, and their features were judged when they were asked about.
            options["is_labels_only"] = parts[0].is_labelled
        try:
            report = look(self._workspace, version, watching, rows, **options)
        except NoProfile:
            raise
        except (RunstoneError, OSError) as error:  # the batch is at fault, and the next one may be sound
            report = unreadable(version, name, str(error), watching.thresholds)
        return act(self._workspace, report, watching)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _parts(self, paths: list[Path], folder: Path, seen: set[str], settled_s: float) -> Iterator[_Part]:
        """Yield those of some files that are tables, are not being written, and were not looked at as a whole."""
        now = time.time()
        is_labelled = folder != self._folder
        for path in paths:
            name = _in_labelled(path.name) if is_labelled else str(path.relative_to(folder))
            if table_kind(path.name) is None or path.name.startswith(".") or name in seen:
                continue
            try:
                status = path.stat()
            except OSError:  # it was taken away meanwhile
                continue
            if not path.is_file() or now - status.st_mtime < settled_s:
                continue
            table = TableFile(str(path), lambda path=path: path.open("rb"))  # type: ignore[misc]
            yield _Part(name, table, is_labelled or _is_log(table), is_labelled)

    def _count(self, part: _Part) -> dict[str, int]:
        """Return how many rows of each version a part of a log has."""
        try:
            return versions_in(flattened(batch) for batch in part.table.batches())
        except (RunstoneError, OSError):
            return {}  # told when it is checked with the others

    def _state_file(self) -> Path:
        key = hashlib.sha256(f"{self._folder}\n{self._ref}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return folder_of(self._workspace.path, ModelRef.parse(self._ref).name) / "watched" / f"{key}.json"

    def _seen(self, state: Path) -> set[str]:
        try:
            return set(json.loads(state.read_bytes())["seen"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return set()

    def _remember(self, state: Path, seen: set[str], parts: list[_Part]) -> None:
        seen |= {part.name for part in parts}
        late = {_in_labelled(path.name) for path in labelled_folder(self._folder).glob("*")}
        # Those that are gone come no more.
        there = sorted(name for name in seen if name.partition("#")[0] in late or (self._folder / name).exists())
        state.parent.mkdir(parents=True, exist_ok=True)
        partial = state.with_name(f".{state.name}.partial")
        partial.write_text(json.dumps({"format": 1, "folder": str(self._folder), "ref": self._ref, "seen": there}))
        partial.replace(state)


def _in_labelled(name: str) -> str:
    """Return how a part of the labelled folder is remembered; no path below the log itself looks like it."""
    return f"../labelled/{name}"


def _is_log(table: TableFile) -> bool:
    try:
        schema = table.schema()
    except (RunstoneError, OSError):
        return False
    return "inputs" in schema.names and pa.types.is_struct(schema.field("inputs").type)


def _log_columns(rows: Rows) -> dict[str, Any]:
    """Return where labels and predictions stand in a prediction log, as far as they do."""
    names: set[str] = set()
    for table in rows.tables:
        try:
            batch = next(iter(table.batches()), None)
        except (RunstoneError, OSError):
            continue
        names |= set(flattened(batch).schema.names) if batch is not None else set()
    columns = {"labels": f"{LOG}label", "predictions": f"{LOG}prediction"}
    return {role: column for role, column in columns.items() if column in names}
