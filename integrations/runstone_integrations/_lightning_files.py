"""The files that `ModelCheckpoint` writes, as artifacts of a run. Reads files, changes none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import runstone
from runstone_integrations._lightning_rows import number

if TYPE_CHECKING:
    from runstone import Run

_Written = tuple[str, tuple[int, ...] | None]
CheckpointPolicy = Literal["best+last", "all", "none"]


class CheckpointArtifacts:
    """The checkpoints of one fit.

    No hook tells that a file was written: `note_save` hears that one is about to be, `scan` finds it at the next hook.
    """

    def __init__(self, run: Run, policy: CheckpointPolicy, monitor: str | None) -> None:
        self.is_due = False
        self._run = run
        self._policy = policy
        self._monitor = monitor
        self._mark: dict[str, Any] = {}
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}  # by path: stat, and when it was saved
        self._kept: dict[str, str] = {}  # with the policy `all`: names of artifacts by path
        self._written_before: list[_Written] = []

    def note_save(self, trainer: Any, step: int) -> None:
        """Remember at which step the file that comes was saved."""
        self.is_due = True
        self._mark = {"step": step, "epoch": trainer.current_epoch, "global_step": trainer.global_step}

    def scan(self, trainer: Any) -> None:
        """Find files that are new or rewritten; with the policy `all`, keep what `ModelCheckpoint` keeps."""
        self.is_due = False
        for callback in self._callbacks(trainer):
            for path in _paths(callback):
                stat = _stat(path)
                if stat is None or self._known.get(path, (None,))[0] == stat:
                    continue
                self._known[path] = (stat, self._mark)
                if self._policy == "all":
                    self._kept[path] = f"{self._place(trainer, callback)}/{Path(path).name}"
                    self._store(callback, path, self._kept[path], "saved")
            self._release_deleted(callback)

    def _release_deleted(self, callback: Any) -> None:
        """Let go of what `ModelCheckpoint` has deleted because better or later files took its place."""
        if getattr(callback, "save_top_k", -1) == -1:  # it deletes nothing: files that are gone, somebody else removed
            return
        folder, still = str(getattr(callback, "dirpath", None)), set(_paths(callback))
        for path, name in list(self._kept.items()):
            if path not in still and str(Path(path).parent) == folder and _stat(path) is None:
                del self._kept[path]
                self._run.remove_artifact(name)

    def store(self, trainer: Any) -> None:
        """Store the best and the last checkpoint of each `ModelCheckpoint`, as they stand now."""
        self.scan(trainer)
        callbacks = self._callbacks(trainer)
        if self._monitor is not None and not callbacks:
            raise runstone.InvalidValue(f"no ModelCheckpoint monitors {self._monitor!r}: no checkpoint was kept")
        for callback in callbacks:
            best, last = callback.best_model_path, getattr(callback, "last_model_path", "")
            if callback.monitor is None:  # then Lightning calls the newest file the best
                best, last = "", last or best
            for kind, path in (("best", best), ("last", last)):
                if path and _stat(path) is not None:
                    self._store(callback, path, f"{self._place(trainer, callback)}/{kind}", kind)

    def expects_file_of_exception(self, trainer: Any) -> bool:
        """Return whether a callback is about to save what an exception left. Called before it does."""
        self._written_before = [_written(callback) for callback in trainer.checkpoint_callbacks]
        return any(
            getattr(callback, "save_on_exception", False) or hasattr(callback, "ckpt_path")
            for callback in trainer.checkpoint_callbacks
        )

    def store_file_of_exception(self, trainer: Any) -> None:
        """Store what a callback has saved because of an exception."""
        for callback, before in zip(trainer.checkpoint_callbacks, self._written_before, strict=True):
            path, stat = found = _written(callback)
            if found != before and stat is not None:
                self._known[path] = ((), self._mark)
                self._store(callback, path, "checkpoints/exception", "exception")

    def _callbacks(self, trainer: Any) -> list[Any]:
        return [
            callback
            for callback in trainer.checkpoint_callbacks
            if hasattr(callback, "best_model_path") and self._monitor in (None, callback.monitor)
        ]

    def _place(self, trainer: Any, callback: Any) -> str:
        callbacks = self._callbacks(trainer)
        if len(callbacks) == 1:
            return "checkpoints"
        monitors = [each.monitor for each in callbacks]
        is_unique = callback.monitor is not None and monitors.count(callback.monitor) == 1
        return f"checkpoints/{callback.monitor if is_unique else callbacks.index(callback)}"

    def _store(self, callback: Any, path: str, name: str, kind: str) -> None:
        scores = getattr(callback, "best_k_models", {})
        score = callback.best_model_score if kind == "best" else scores.get(path)
        metadata = {
            **self._known.get(path, ((), {}))[1],
            "kind": kind,
            "monitor": getattr(callback, "monitor", None),
            "mode": getattr(callback, "mode", None),
            # A file has just been written, or training is over: there is nothing left to wait for.
            "score": number(score, is_waiting=True),
            "file": path,
        }
        if _stat(path) is not None:  # ModelCheckpoint deletes what it no longer keeps
            self._run.log_artifact(Path(path).resolve(), name=name, metadata=metadata)


class AfterException:
    """Stands at the end of a trainer's callbacks while they hear of an exception, and leaves.

    `ModelCheckpoint` and its like hear of it last and save a file then; no hook comes after that.
    """

    state_key = "runstone.AfterException"

    def __init__(self, trainer: Any, act: Callable[[], None]) -> None:
        self._act = act
        trainer.callbacks.append(self)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Act, and take itself out of the list."""
        trainer.callbacks.remove(self)
        self._act()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a checkpoint that is saved meanwhile is as without it."""
        return {}

    def __getattr__(self, name: str) -> Any:
        """Take the other hooks."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ignore

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """Take a hook that has nothing to do with exceptions."""


def _paths(callback: Any) -> list[str]:
    last = getattr(callback, "last_model_path", "")
    paths = [*getattr(callback, "best_k_models", {}), callback.best_model_path, last]
    return [path for path in dict.fromkeys(paths) if path]


def _written(callback: Any) -> _Written:
    """Return the file that a callback wrote last: of `ModelCheckpoint`, or of `OnExceptionCheckpoint`."""
    path = str(getattr(callback, "_last_checkpoint_saved", None) or getattr(callback, "ckpt_path", ""))
    return path, _stat(path) if path else None


def _stat(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file or folder is written anew; `None` where there is none, or none on this host."""
    try:
        stat = Path(path).stat()
        if not Path(path).is_dir():
            return stat.st_ino, stat.st_mtime_ns, stat.st_size
        inside = [Path(root, name).stat() for root, _, names in os.walk(path) for name in names]
    except OSError:
        return None
    newest = max((each.st_mtime_ns for each in inside), default=0)
    return stat.st_ino, max(stat.st_mtime_ns, newest), sum(each.st_size for each in inside)
