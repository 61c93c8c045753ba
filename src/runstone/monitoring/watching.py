"""Follows a folder of batches, or a prediction log, and checks what comes in. Each part is looked at once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from runstone.datasets.kinds import table_kind
from runstone.datasets.tables import TableFile
from runstone.errors import NotFound, RunstoneError
from runstone.models import ModelVersion
from runstone.monitoring.configfile import Watching, read_watching
from runstone.monitoring.front import Outcome, act, look, unreadable
from runstone.monitoring.records import folder_of
from runstone.monitoring.reference import NoProfile
from runstone.monitoring.tables import LOG, Rows, flattened, labelled_folder, of_version

if TYPE_CHECKING:
    from runstone.workspace import Workspace

LOG_ROWS = 500
_SETTLED_S = 1.0


@dataclass(frozen=True, slots=True)
class _Part:
    """A file that was not looked at yet; those of a log whose labels came later are judged by themselves."""

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
            have got their labels since, in `<log>.labelled`, tell of the performance.
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

    def look(self, *, is_last: bool = False) -> Iterator[Outcome]:
        """Check what came in since, and yield what came of it.

        Args:
            is_last: Also what was written just now, and the end of a log that has fewer rows than asked for.
        """
        version = self._workspace.models.find(self._ref)
        watching = read_watching(self._workspace.path, version.model)
        state = self._state_file(version)
        seen = self._seen(state)
        waiting: dict[bool, list[_Part]] = {False: [], True: []}  # of the log, and of its rows with labels
        counts = {False: 0, True: 0}
        for part in self._new_parts(seen, settled_s=0.0 if is_last else _SETTLED_S):
            if not part.is_log:
                yield self._check(version, watching, part.name, [part])
                self._remember(state, seen, [part])
                continue
            kind = part.is_labelled
            waiting[kind].append(part)
            counts[kind] += self._count(part, version)
            if counts[kind] >= self._rows:
                yield self._check_log(version, watching, waiting[kind], counts[kind])
                self._remember(state, seen, waiting[kind])
                waiting[kind], counts[kind] = [], 0
        for kind, count in counts.items():
            if is_last and count:
                yield self._check_log(version, watching, waiting[kind], count)
                self._remember(state, seen, waiting[kind])

    def follow(self, every_s: float, on_checked: Callable[[Outcome], None], *, sleep: Any = time.sleep) -> None:
        """Look again and again, until interrupted."""
        while True:
            for outcome in self.look():
                on_checked(outcome)
            sleep(every_s)

    def _check_log(self, version: ModelVersion, watching: Watching, parts: list[_Part], count: int) -> Outcome:
        what = f"{'labelled ' if parts[0].is_labelled else ''}prediction{'s' if count != 1 else ''}"
        return self._check(version, watching, f"{count:,} {what} up to {parts[-1].name.rpartition('/')[2]}", parts)

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

    def _new_parts(self, seen: set[str], *, settled_s: float) -> Iterator[_Part]:
        now = time.time()
        labelled = labelled_folder(self._folder)
        places = [(path, str(path.relative_to(self._folder))) for path in sorted(self._folder.rglob("*"))]
        late = [(path, _in_labelled(path.name)) for path in sorted(labelled.glob("*"))]
        for path, name in [*places, *late]:
            if table_kind(path.name) is None or path.name.startswith(".") or name in seen:
                continue
            try:
                status = path.stat()
            except OSError:  # it was taken away meanwhile
                continue
            if not path.is_file() or now - status.st_mtime < settled_s:
                continue
            table = TableFile(str(path), lambda path=path: path.open("rb"))  # type: ignore[misc]
            yield _Part(name, table, _is_log(table), is_labelled=path.parent == labelled)

    def _count(self, part: _Part, version: ModelVersion) -> int:
        try:
            chosen = of_version(str(version.version))
            return sum(chosen(flattened(batch)).num_rows for batch in part.table.batches())
        except (RunstoneError, OSError):
            return 0  # told when it is checked with the others

    def _state_file(self, version: ModelVersion) -> Path:
        key = hashlib.sha256(f"{self._folder}\n{self._ref}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return folder_of(self._workspace.path, version.model) / "watched" / f"{key}.json"

    def _seen(self, state: Path) -> set[str]:
        try:
            return set(json.loads(state.read_bytes())["seen"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return set()

    def _remember(self, state: Path, seen: set[str], parts: list[_Part]) -> None:
        seen |= {part.name for part in parts}
        labelled = labelled_folder(self._folder)
        late = {_in_labelled(path.name) for path in labelled.glob("*")}
        # Those that are gone come no more.
        there = sorted(name for name in seen if name in late or (self._folder / name).exists())
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
