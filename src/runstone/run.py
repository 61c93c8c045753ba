"""The life of one run: started, steps, ended. Knows no file format and no SQL."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from runstone import ending
from runstone.companions import Companions
from runstone.current import current_run, set_current
from runstone.errors import InvalidValue
from runstone.recording.data import DataRecorder
from runstone.recording.media import MediaRecorder
from runstone.runlog.silent import SilentLog
from runstone.runlog.writer import RunLog
from runstone.settings import OnError
from runstone.status import Status
from runstone.workspace import Workspace, end_status

_FLUSH_S = 10.0
"""How long the end of a run waits for values that are still on a GPU."""


class Run(MediaRecorder, DataRecorder):
    """One execution that records. `start_run` makes it; use it as a context manager, or call `finish`.

    Recording never waits for a disk, a lock or a network, and with `on_error="warn"` never raises: what could not be
    recorded is counted, written into the run, and warned of once a kind.

    A run can be pickled: the copy, in another process, joins the same run with files of its own.
    """

    def __init__(
        self, workspace: Workspace | None, log: RunLog | SilentLog, *, facts: Mapping[str, Any], on_error: OnError
    ) -> None:
        super().__init__(workspace, log, facts=facts, on_error=on_error)
        self._failure: BaseException | None = None
        self._before: Run | None = _still_open(set_current(self))
        if workspace is not None:
            runs_here[str(workspace.path), self.id] = self
        ending.watch(self)

    def fail(self, error: BaseException) -> None:
        """Take an exception as the cause of the end, for `finish` to tell. Ctrl-C and SIGTERM mean stopped."""
        self._failure = error

    def finish(self, status: Status | str | None = None) -> None:
        """End the run. A second call does nothing.

        Args:
            status: How it ended. Default: what `fail` was told, else `pruned` or `stopped` where it was asked to, else
                `finished`.
        """
        if self._is_finished:
            return
        try:
            told = self._status() if status is None else end_status(status)
        except InvalidValue as error:
            self._trouble("status", error)
            told = self._status()
        trouble: Exception | None = None
        if self._companions is not None:
            self._companions.stop()
        self._wait_for_values()
        self._is_finished = True
        ending.unwatch(self)
        if current_run() is None:
            set_current(_still_open(self._before))
        try:
            if not self._log.is_silent:  # else a forked child that recorded nothing: it leaves no trace
                failure = _describe(self._failure) if told is Status.FAILED and self._failure is not None else None
                self._event("end", status=str(told), failure=failure, dropped=self._log.points.dropped)
        except Exception as error:
            trouble = error
        with contextlib.suppress(OSError):
            self._log.close(str(told))
        self._failure = None  # its traceback holds the frames of the user's whole call stack alive
        if trouble is not None:
            self._trouble("end", trouble)

    def _wait_for_values(self) -> None:
        """Take in what is still on its way, and tell of what this run could not keep."""
        lost = self._log.points.flush(_FLUSH_S)
        if lost:
            self._warn("gpu", f"{lost} values are lost: the GPU failed, or was not done {_FLUSH_S:g} s after the end")
        left_out = self.media_left_out
        if left_out:
            names = ", ".join(f"{name!r:.80} {count}" for name, count in list(left_out.items())[:5])
            more = ", …" if len(left_out) > 5 else ""
            self._warn("media-left-out", f"{sum(left_out.values())} media were not recorded: {names}{more}")

    def reopen(self) -> None:
        """Go on with a finished run, in the same attempt: a fit that is followed by a test belongs to one life.

        Does nothing while the run is open.
        """
        if not self._is_finished or self._workspace is None:
            return
        try:
            self._log = RunLog(self.path, attempt=self._log.attempt, rank=self._log.rank, backend=self._log.backend)
        except OSError as error:
            self._trouble("reopen", error)
            return
        self._log.tell = self._warn
        self._is_finished = False
        self._before = set_current(self)
        ending.watch(self)
        if self._companions is not None:
            self._companions.start(self._log)

    def _take_along(self, **options: Any) -> None:
        """Start what works beside the run; `start_run` calls it. Takes what `Companions` takes."""
        if isinstance(self._log, RunLog):
            self._companions = Companions(**options, trouble=self._trouble)
            self._companions.start(self._log)

    def end_with_process(self, error: BaseException | None) -> None:
        """End as the process does. Called by the hooks of `ending`."""
        if error is not None:
            self.fail(error)
        self.finish()

    def _status(self) -> Status:
        if self._failure is not None:
            return _status_of(self._failure)
        return {None: Status.FINISHED, "prune": Status.PRUNED}.get(self.stop_reason, Status.STOPPED)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ended; an exception goes on its way."""
        if error is None:
            self.finish()
            return
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.fail(error)
        try:
            self.finish()
        except Exception as trouble:  # the user's exception is the one to be seen
            self._warn("end", f"could not record the end: {type(trouble).__name__}: {trouble}")

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        """Pickle as an instruction to join this run."""
        place = str(self._workspace.path) if self._workspace is not None else None
        from runstone.starting import rejoin  # it needs this module

        return rejoin, (place, self.id, self._on_error, self._is_finished)

    def __copy__(self) -> Self:
        """Return the run itself: a copied callback or estimator goes on writing to the same run."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """Return the run itself, as for a shallow copy."""
        return self


def _still_open(run: Run | None) -> Run | None:
    while run is not None and run.is_finished:
        run = run._before
    return run


# The runs of this process by workspace and id: one writer each, however many copies arrive by pickle.
runs_here: weakref.WeakValueDictionary[tuple[str, str], Run] = weakref.WeakValueDictionary()


def _status_of(error: BaseException) -> Status:
    if isinstance(error, KeyboardInterrupt | ending.Terminated):
        return Status.STOPPED
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TrialPruned" in kinds:  # Optuna's word for it, known by name: Optuna need not be installed
        return Status.PRUNED
    if "SIGTERMException" in kinds:  # Lightning's
        return Status.STOPPED
    return Status.FAILED


def _describe(error: BaseException) -> dict[str, str]:
    import traceback  # only for failures

    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception whose own code fails
        text = ""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return {"type": type(error).__name__, "message": message[:10_000], "traceback": text[-100_000:]}
