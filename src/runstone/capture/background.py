"""Takes the snapshot of a run beside the program, and writes it into the run's folder."""

from __future__ import annotations

import importlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runstone.capture.entry import note_main
from runstone.capture.forks import importing

if TYPE_CHECKING:  # it would be the first to import dataclasses, on the time of the caller
    from runstone.capture.context import Privacy

# All sources together; what has not answered by then is noted as `timeout`.
LIMIT_S = 5.0
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
    *(f"runstone.capture.{name}" for name in ("facts", "redact", "command", "process", "code", "gpu", "host")),
    *(f"runstone.capture.{name}" for name in ("packages", "frameworks", "cgroup", "container", "collect")),
)


def start_background(
    run_path: Path,
    writer: str,
    *,
    store: Path | None = None,
    log_backend: str | None = None,
    privacy: Privacy | None = None,
) -> Background:
    """Begin to write `environment.<writer>.json` and `code.<writer>.patch` into a run's folder.

    Costs the caller the start of a thread. Who calls this also sees to it that the process does not exit
    before `join` has returned: the thread does not keep it alive, as what hangs in a driver would keep it for ever.

    Args:
        run_path: The run's folder; it exists.
        writer: Id of the writer that the snapshot describes.
        store: Folder whose file system is described; by default the run's.
        log_backend: How the metric log is written, `mmap` or `append`.
        privacy: What to leave out.
    """
    note_main()
    return Background(run_path, writer, store=store or run_path, log_backend=log_backend, privacy=privacy)


class Background:
    """A snapshot on its way to the disk."""

    def __init__(
        self, run_path: Path, writer: str, *, store: Path, log_backend: str | None, privacy: Privacy | None
    ) -> None:
        self._run_path = run_path
        self._writer = writer
        self._store = store
        self._log_backend = log_backend
        self._privacy = privacy
        self._until = time.monotonic() + LIMIT_S + _HEAD_START_S
        self._courteous_until = time.monotonic() + _HEAD_START_S + _COURTESY_S
        self._pid = os.getpid()
        # Not an event: its lock would be copied by a fork, perhaps while the thread holds it.
        self._is_awaited = False
        self._paused = threading.local()
        #: Why nothing could be written, if so; final once `join` has returned true.
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="runstone-environment", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the snapshot is written, or has failed, and return whether that is so.

        A forked child has nothing to wait for: the thread is its parent's.

        Args:
            timeout_s: At most so long; by default until the snapshot's own limit.
        """
        if os.getpid() != self._pid:
            return True
        if timeout_s is None:
            timeout_s = max(0.0, self._until - time.monotonic())
        if timeout_s > 0:
            self._is_awaited = True  # no more courtesy
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _pause(self) -> None:
        if self._is_awaited or time.thread_time() - getattr(self._paused, "at", 0.0) < _WORK_S:
            return
        if time.monotonic() < self._courteous_until:
            time.sleep(_PAUSE_S)
        self._paused.at = time.thread_time()

    def _work(self) -> None:
        began = time.monotonic()
        while not self._is_awaited and time.monotonic() < began + _HEAD_START_S:
            time.sleep(_HEAD_START_S / 10)
        try:
            for module in _IN_STEPS:
                with importing:
                    importlib.import_module(module)
                self._pause()
            import json  # neither was to be loaded on the caller's time

            from runstone.capture.collect import collect

            snapshot = collect(
                writer=self._writer,
                store=self._store,
                log_backend=self._log_backend,
                privacy=self._privacy,
                pause=self._pause,
                keep_patch=self._keep_patch,
                timeout_s=max(0.5, self._until - time.monotonic()),
            )
            self._write(f"environment.{self._writer}.json", json.dumps(snapshot, ensure_ascii=False).encode())
        except Exception as error:  # whatever it is, the run goes on; its owner asks for `error`
            self.error = error

    def _keep_patch(self, patch: bytes) -> str:
        name = f"code.{self._writer}.patch"
        self._write(name, patch)
        return name

    def _write(self, name: str, data: bytes) -> None:
        path = self._run_path / name
        partial = path.with_name(f"{name}.partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
