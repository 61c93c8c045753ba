"""Finds the files that checkpoint callbacks write, and the best and last of them. Knows no framework and no run."""

from __future__ import annotations

import glob
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runstone

# mtime in ns, size, inode: changes whenever a file is written anew.
Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One checkpoint as it was found.

    Attributes:
        role: `best` or `last`.
        score: The monitored metric in the epoch that wrote it, if known.
    """

    path: Path
    role: str
    epoch: int | None
    step: int
    monitor: str | None
    score: float | None
    signature: Signature


@dataclass(slots=True)
class _Seen:
    signature: Signature
    order: int
    epoch: int | None
    step: int
    score: float | None


class CheckpointFiles:
    """The checkpoints of one source, followed while training runs.

    Nothing is read or copied here: `scan` looks at names, sizes and times only.

    Args:
        source: A path, a glob pattern, a template such as `"{epoch:02d}-{val_loss:.2f}.keras"`, or a checkpoint
            callback that has a `filepath` (Keras's `ModelCheckpoint`).

    Raises:
        InvalidValue: it is none of these.
    """

    def __init__(self, source: Any) -> None:
        path = source if isinstance(source, str | Path) else getattr(source, "filepath", None)
        if not isinstance(path, str | Path):
            raise runstone.InvalidValue(
                "checkpoints= takes a path, a pattern or a ModelCheckpoint (something with a filepath), "
                f"got {type(source).__name__}"
            )
        self._callback = None if path is source else source
        self._path = str(path)
        self._seen: dict[Path, _Seen] = {}
        self._known: dict[Path, Signature] = dict(self._look())  # files of earlier trainings are none of ours
        self._writes = 0

    def scan(self, *, epoch: int | None, step: int, logs: Mapping[str, Any]) -> None:
        """Note the files written since the last scan as those of `epoch`."""
        monitor = getattr(self._callback, "monitor", None)
        score = logs.get(monitor) if monitor is not None else None
        found = [(path, signature) for path, signature in self._look() if self._known.get(path) != signature]
        for path, signature in sorted(found, key=lambda item: item[1]):
            self._writes += 1
            self._known[path] = signature
            self._seen[path] = _Seen(signature, self._writes, epoch, step, _as_float(score))

    def best_and_last(self) -> list[CheckpointFile]:
        """Return the best and the last checkpoint that still exist; the same file may be both."""
        alive = {path: seen for path, seen in self._seen.items() if path.exists()}
        if not alive:
            return []
        newest = max(alive, key=lambda path: alive[path].order)
        if getattr(self._callback, "save_best_only", False):
            return [self._file(newest, "best", alive)]  # it writes nothing else
        scored = {path: seen.score for path, seen in alive.items() if seen.score is not None}
        files = [self._file(newest, "last", alive)]
        if len(scored) > 1:
            choose = max if self._is_higher_better() else min
            files.insert(0, self._file(choose(scored, key=lambda path: scored[path]), "best", alive))
        return files

    def _file(self, path: Path, role: str, alive: Mapping[Path, _Seen]) -> CheckpointFile:
        seen = alive[path]
        monitor = getattr(self._callback, "monitor", None)
        return CheckpointFile(path, role, seen.epoch, seen.step, monitor, seen.score, seen.signature)

    def _is_higher_better(self) -> bool:
        # Keras resolves mode="auto" at the end of the first epoch into the comparison itself.
        comparison = getattr(getattr(self._callback, "monitor_op", None), "__name__", "")
        mode = getattr(self._callback, "mode", "auto")
        return comparison == "greater" or (not comparison and mode == "max")

    def _look(self) -> Iterable[tuple[Path, Signature]]:
        for path in _matching(self._path, is_literal=self._callback is not None):
            try:
                stat = path.stat()
            except OSError:  # deleted between listing and looking
                continue
            yield path, (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _matching(path: str, *, is_literal: bool) -> list[Path]:
    template = _template_pattern(path)
    if template is not None:
        return [Path(found) for found in glob.glob(template)]  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if is_literal or Path(path).exists():
        return [Path(path)]
    return [Path(found) for found in glob.glob(path, recursive=True)]  # noqa: PTH207  (see above)


def _template_pattern(path: str) -> str | None:
    """Return the glob pattern of a template with `{fields}`, or `None` for any other path."""
    try:
        parts = list(string.Formatter().parse(path))
    except ValueError:  # a lone brace: an ordinary file name
        return None
    if all(field is None for _, field, _, _ in parts):
        return None
    return "".join(glob.escape(text) + ("" if field is None else "*") for text, field, _, _ in parts)


def _as_float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
