"""Takes the snapshot of a run beside the program, and writes it into the run's folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.capture.entry import note_main
from runstone.capture.forks import importing

if TYPE_CHECKING:  # it would be the first to import dataclasses, on the time of the caller
    from runstone.capture.context import Privacy

# All sources together; what has not answered by then is noted as `timeout`.
LIMIT_S = 5.0
# What a program imports and sets after `start_run` is there by then; a shorter run is looked at when it ends.
SECOND_LOOK_S = 60.0
# The program's first steps after `start_run` come first: a thread that computes delays every other one
# by up to the interpreter's switch interval each time that it waits for a file.
_HEAD_START_S = 0.05
# Each thread computes for so long, then sleeps for so long; while the snapshot is young.
_WORK_S = 0.0005
_PAUSE_S = 0.001
_COURTESY_S = 2.5
# What the collectors need, in steps: after each the program goes on, and a fork need not wait for more than one.
_IN_STEPS = (
    *("dataclasses", "json", "platform", "socket", "getpass", "subprocess", "psutil"),
    *(f"runstone.capture.{name}" for name in ("facts", "redact", "command", "process", "code", "nvml", "gpu", "host")),
    *(f"runstone.capture.{name}" for name in ("packages", "frameworks", "cgroup", "container", "collect")),
)


def start_background(
    run_path: Path,
    writer: str,
    *,
    store: Path | None = None,
    log_backend: str | None = None,
    privacy: Privacy | None = None,
    ranks: Mapping[str, int] | None = None,
    is_whole: Callable[[], bool] = lambda: True,
    second_look_s: float = SECOND_LOOK_S,
    handed_over: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Background:
    """Begin to write `environment.<writer>.json` and `code.<writer>.patch` into a run's folder.

    Costs the caller the start of a thread. Who calls this also sees to it that the process does not exit
    before `join` has returned: the thread does not keep it alive, as what hangs in a driver would keep it for ever.

    Once, after `second_look_s` or when `look_again` is called before, a second look is taken at what a program changes
    after `start_run`: frameworks, their flags, libraries, variables, packages. What changed is added to the snapshot.
    Where the run ends before the first look began, that one has seen everything.

    Args:
        run_path: The run's folder; it exists.
        writer: Id of the writer that the snapshot describes.
        store: Folder whose file system is described; by default the run's.
        log_backend: How the metric log is written, `mmap` or `append`.
        privacy: What to leave out.
        ranks: Place in a distributed job where somebody knows it better than the environment, by the fields of the
            section `rank`.
        is_whole: Asked by the thread; `False`: another rank of this host tells of machine and code, and this process
            only of itself.
        second_look_s: Seconds until the second look.
        handed_over: Folder in which processes of this host hand each other what they read; see
            `runstone.capture.handover`.
        note: Told, by the thread, why something could not be written.
    """
    note_main()
    return Background(
        run_path,
        writer,
        store=store or run_path,
        log_backend=log_backend,
        privacy=privacy,
        ranks=ranks,
        is_whole=is_whole,
        second_look_s=second_look_s,
        handed_over=handed_over,
        note=note,
    )


class Background:
    """A snapshot on its way to the disk."""

    def __init__(
        self,
        run_path: Path,
        writer: str,
        *,
        store: Path,
        log_backend: str | None,
        privacy: Privacy | None,
        ranks: Mapping[str, int] | None,
        is_whole: Callable[[], bool],
        second_look_s: float,
        handed_over: Path | None,
        note: Callable[[str], None],
    ) -> None:
        self._handed_over = handed_over
        self._note = note
        self._run_path = run_path
        self._writer = writer
        self._store = store
        self._log_backend = log_backend
        self._privacy = privacy
        self._ranks = ranks
        self._is_whole = is_whole
        self._until = time.monotonic() + LIMIT_S + _HEAD_START_S
        self._courteous_until = time.monotonic() + _HEAD_START_S + _COURTESY_S
        self._second_look_at = time.monotonic() + second_look_s
        self._pid = os.getpid()
        # Not an event: its lock would be copied by a fork, perhaps while the thread holds it.
        self._is_awaited = False
        self._is_second_due = False
        self._bell, self._gun = threading.Lock(), threading.Lock()
        for lock in (self._bell, self._gun):
            lock.acquire()
        self._paused = threading.local()
        #: Why something could not be written, if so; final once `join` has returned true.
        self.error: Exception | None = None
        self._second: threading.Thread | None = None
        self._thread = threading.Thread(target=self._work, name="runstone-environment", daemon=True)
        self._thread.start()

    def look_again(self) -> None:
        """Take the second look now, unless it has been taken. Returns at once."""
        self._is_second_due = True
        with contextlib.suppress(RuntimeError):  # rung before
            self._bell.release()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the snapshot is written, or has failed, and return whether that is so.

        The second look is waited for once `look_again` was called. A forked child has nothing to wait for: the threads
        are its parent's.

        Args:
            timeout_s: At most so long; by default until the snapshot's own limit.
        """
        if os.getpid() != self._pid:
            return True
        until = self._until if timeout_s is None else time.monotonic() + timeout_s
        if until > time.monotonic():
            self._is_awaited = True  # no more courtesy
            with contextlib.suppress(RuntimeError):  # fired before
                self._gun.release()
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            return False
        second = self._second
        if second is None or not self._is_second_due:
            return True
        second.join(max(0.0, until - time.monotonic()))
        return not second.is_alive()

    def _pause(self) -> None:
        if self._is_awaited or time.thread_time() - getattr(self._paused, "at", 0.0) < _WORK_S:
            return
        if time.monotonic() < self._courteous_until:
            time.sleep(_PAUSE_S)
        self._paused.at = time.thread_time()

    def _work(self) -> None:
        self._gun.acquire(timeout=_HEAD_START_S)
        # The end of a very short run: what the program imported and set is there already.
        is_late = self._is_second_due
        try:
            for module in _IN_STEPS:
                with importing:
                    importlib.import_module(module)
                self._pause()
            from runstone.capture.collect import collect  # not on the caller's time

            snapshot = collect(
                writer=self._writer,
                store=self._store,
                log_backend=self._log_backend,
                privacy=self._privacy,
                ranks=self._ranks,
                is_whole=self._is_whole(),
                pause=self._pause,
                keep_patch=self._keep_patch,
                handed_over=self._handed_over,
                timeout_s=max(0.5, self._until - time.monotonic()),
            )
            self._write_snapshot(snapshot)
            if is_late:
                return
            self._second = threading.Thread(
                target=self._look_again, args=(snapshot,), name="runstone-environment-later", daemon=True
            )
            self._second.start()
        except Exception as error:  # whatever it is, the run goes on
            self._fail("the environment", error)

    def _look_again(self, snapshot: dict[str, Any]) -> None:
        self._bell.acquire(timeout=max(0.0, self._second_look_at - time.monotonic()))
        try:
            from runstone.capture.collect import collect_changes

            self._courteous_until = time.monotonic() + _COURTESY_S
            later = collect_changes(snapshot, privacy=self._privacy, pause=self._pause)
            if self._run_path.exists():  # it may have been deleted since
                self._write_snapshot({**snapshot, "later": later})
        except Exception as error:  # as above
            self._fail("the second look at the environment", error)

    def _fail(self, what: str, error: Exception) -> None:
        self.error = error
        with contextlib.suppress(Exception):  # the folder of the run may be gone, or its log closed
            self._note(f"{what} could not be recorded: {type(error).__name__}: {error}")

    def _keep_patch(self, patch: bytes) -> str:
        name = f"code.{self._writer}.patch"
        self._write(name, patch)
        return name

    def _write_snapshot(self, snapshot: dict[str, Any]) -> None:
        import json  # not on the caller's time

        self._write(f"environment.{self._writer}.json", json.dumps(snapshot, ensure_ascii=False).encode())

    def _write(self, name: str, data: bytes) -> None:
        """Write a file for this user only: code, command lines and paths are nobody else's business."""
        path = self._run_path / name
        partial = path.with_name(f"{name}.partial")
        try:
            fd = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
