"""What a run records in every step: metrics, params, tags. Knows no file format and no SQL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runstone.companions import Companions
from runstone.errors import InvalidName, InvalidValue, RunFinished, RunstoneError, WorkspaceNotFound
from runstone.names import SYSTEM, check_name, shown
from runstone.params import to_json
from runstone.recording.telling import warn
from runstone.runlog import format as fmt
from runstone.runlog.handle import Handle
from runstone.runlog.scalars import as_step, step_error
from runstone.runlog.silent import SilentLog
from runstone.runlog.writer import RunLog
from runstone.settings import OnError
from runstone.workspace import Workspace, check_tags

if TYPE_CHECKING:
    from runstone.runinfo import RunInfo

_STOP_REASONS = {fmt.WORD_GO: None, fmt.WORD_STOP: "stop", fmt.WORD_PRUNE: "prune"}


class Recorder:
    """The part of a run that records from step to step; what the other parts stand on."""

    def __init__(
        self, workspace: Workspace | None, log: RunLog | SilentLog, *, facts: Mapping[str, Any], on_error: OnError
    ) -> None:
        self._workspace = workspace
        self.id: str = log.path.name
        self.path: Path = log.path
        self.project: str = facts["project"]
        self.name: str = facts["name"]
        self.group: str | None = facts["group"]
        self._is_resumed: bool = facts["resumed"]
        self._on_error = on_error
        self._log = log
        log.tell = self._warn
        self._last_step: Any = None if self._is_resumed else -1
        self._warned: set[str] = set()
        self._is_finished = False
        self._companions: Companions | None = None

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """The workspace that it lies in.

        Raises:
            WorkspaceNotFound: it records nothing: it is switched off, or could not be opened.
        """
        if self._workspace is None:
            raise WorkspaceNotFound(f"run {self.name} records nothing: it is switched off, or could not be opened")
        return self._workspace

    @property
    def attempt(self) -> int:
        """Number of this process life of the run, from 1."""
        return self._log.attempt

    @property
    def is_resumed(self) -> bool:
        """Whether the run had been started before."""
        return self._is_resumed

    @property
    def is_finished(self) -> bool:
        """Whether it was ended here."""
        return self._is_finished

    @property
    def on_error(self) -> OnError:
        """What happens when something cannot be recorded: `"warn"` or `"raise"`."""
        return self._on_error

    @property
    def should_stop(self) -> bool:
        """Whether somebody, a sweep or a person, asked the run to stop. Costs nanoseconds; ask each step."""
        return self._log.control[0] != 0

    @property
    def stop_reason(self) -> str | None:
        """`"stop"`, `"prune"`, or `None` where nobody asked."""
        return _STOP_REASONS.get(self._log.control[0], "stop")

    @property
    def dropped(self) -> int:
        """Points that could not be recorded by this process."""
        return self._log.points.dropped

    def read(self) -> RunInfo:
        """Return the run as readers see it now, the environment snapshot included once it is taken."""
        from runstone.runinfo import RunInfo  # NumPy, only for reading

        if self._companions is not None:
            self._companions.join_snapshot(5.0)
        return RunInfo(self.path)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        state = "finished" if self._is_finished else "open"
        return f"<Run {self.name} of {self.project}, {state}, id {self.id}>"

    def _repr_html_(self) -> str:
        from runstone.display import run_html  # only in notebooks
        from runstone.runinfo import RunInfo

        return run_html(RunInfo(self.path))

    # --- metrics ---------------------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record one value of each metric. When it returns, the values survive `kill -9`.

        Args:
            metrics: Values by name: Python and NumPy numbers, bools, 0-d arrays and tensors. NaN and ±Inf are kept.
                Short texts make a series of texts. Nested mappings are opened: `{"train": {"loss": 1.0}}` is
                `train/loss`. A tensor on a CUDA device is not waited for: it is copied behind what the device is
                doing, and recorded when it has come, at the latest when the run ends; until then a kill loses it.
            step: Any 64-bit integer; it may repeat or go back. Default: one more than the last, from 0.

        Raises:
            InvalidName, InvalidValue, RunFinished, OSError: only with `on_error="raise"`.
        """
        try:
            if step is None:
                step = self._step_to_come()
            self._log.points.log(metrics, step)
            self._last_step = step
        except Exception as error:  # foreign code in a value may raise anything; _trouble decides
            if not isinstance(metrics, Mapping):
                self._trouble("metrics", InvalidValue(f"log takes metrics by name, got {shown(metrics)}"))
                return
            if step is not None and as_step(step) is not None:
                self._last_step = step  # the other values of this call are kept, or counted, at this step
            self._trouble("metrics", error)

    def log_series(self, name: str, steps: Any, values: Any) -> None:
        """Record a value for each of many steps at once, far faster than one by one, with the same promise as `log`.

        Args:
            name: Metric name.
            steps: Integers of 64 bits, shape `(n,)`: an array, a list, a `range`.
            values: Numbers or bools, shape `(n,)`: an array, a tensor (one on a GPU is waited for), a list.

        Raises:
            InvalidName, InvalidValue, RunFinished, OSError: only with `on_error="raise"`.
        """
        try:
            last_step = self._log.points.log_series(name, steps, values)
            self._last_step = self._last_step if last_step is None else last_step
        except Exception as error:  # see log
            self._trouble("metrics", error)

    def metric(self, name: str) -> MetricHandle:
        """Return a handle on one metric, for tight loops: `loss = run.metric("loss")`, then `loss(value)`.

        Raises:
            InvalidName: the name cannot be kept (whatever `on_error` says: this is before the loop).
        """
        return Handle(self, check_name(name, "metric"), None if self._is_resumed else -1, self._log_one).record

    def _log_one(self, handle: Handle, value: Any, step: int | None) -> None:
        """Record what a handle cannot store at once."""
        try:
            if step is None:
                step = self._step_of_handle(handle)
            self._log.points.log_one(handle.name, value, step)
            handle.last_step = step
        except Exception as error:  # see log
            self._trouble("metrics", error)

    def _step_of_handle(self, handle: Handle) -> int:
        if handle.last_step is None:  # the metric goes on where its files end
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            standing = RunInfo(self.path).metrics.get(handle.name)
            handle.last_step = standing.last_step if standing is not None else -1
        return int(handle.last_step) + 1  # a NumPy integer would wrap around

    def rewind(self, step: int) -> None:
        """Say from which step this attempt of a resumed run logs again.

        Points of earlier attempts at or after `step` are superseded: kept in the files, left out of the run's curves.
        Beside that, each metric supersedes its own earlier points from the first step that this attempt logs in it.
        """
        checked = as_step(step)
        if checked is None:
            self._trouble("rewind", step_error(step))
            return
        self._event("rewind", step=checked)
        self._last_step = checked - 1

    def _step_to_come(self) -> int:
        if self._last_step is None:  # the run goes on where its files end
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            metrics = RunInfo(self.path).metrics.values()
            own = (metric.last_step for metric in metrics if not metric.name.startswith(SYSTEM))
            self._last_step = max(own, default=-1)
        return int(self._last_step) + 1  # a NumPy integer would wrap around

    # --- params, tags and words --------------------------------------------------------------------------------------

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params: nested mappings of any JSON values. A param that is there already gets the new value.

        Values that JSON cannot hold are kept as text with their type, and warned of once.
        """
        try:
            if not isinstance(params, Mapping):
                raise InvalidValue(f"params must be given by name, got {shown(params)}")
            converted, places = to_json(params)
        except Exception as error:  # a mapping of foreign code may raise anything
            self._trouble("params", error)
            return
        if converted:
            self._event("params", params=converted)
        if places:
            where = ", ".join(repr(place) for place in places[:5]) + (", …" if len(places) > 5 else "")
            self._warn("params-as-text", f"params that JSON cannot hold are kept as text with their type: {where}")

    def set_tags(self, tags: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set tags: short texts to find runs by. Values are kept as text."""
        try:
            merged = {**check_tags(tags or {}), **check_tags(more)}
        except Exception as error:  # names that cannot be kept, values whose str raises
            self._trouble("tags", error)
            return
        self._event("tags", set=merged, remove=[])

    def remove_tags(self, *names: str) -> None:
        """Remove tags; names that are not there are ignored."""
        self._event("tags", set={}, remove=[str(name) for name in names])

    def set_notes(self, text: str | None) -> None:
        """Set the notes: free text about the run, in place of what stood there."""
        self._event("notes", value=None if text is None else str(text))

    def set_name(self, name: str) -> None:
        """Rename the run."""
        try:
            check_name(name, "run")
        except InvalidName as error:
            self._trouble("name", error)
            return
        if self._event("name", value=name):
            self.name = name

    def alert(self, title: str, text: str = "", *, level: Literal["info", "warning", "error"] = "info") -> None:
        """Say that something should be looked at: it is shown on the run, and told to whom `alerts.yaml` names.

        Args:
            title: One line.
            text: What shows it.
            level: How much it matters.

        Raises:
            InvalidValue: the title is empty or the level is none of these; nothing else, unless `on_error="raise"`.
        """
        if level not in ("info", "warning", "error") or not str(title).strip():
            raise InvalidValue(
                f"an alert needs a title, and a level of info, warning or error; got {shown(title)}, {shown(level)}"
            )
        self._event("alert", id=os.urandom(8).hex(), rule="", level=level, title=str(title)[:500], text=str(text))

    # --- what could not be recorded --------------------------------------------------------------------------------

    def _event(self, event: str, **fields: Any) -> bool:
        """Write an event to the journal; return whether it is there."""
        try:
            if self._is_finished and event != "end":
                raise RunFinished(f"run {self.name} is finished: {event} cannot be recorded; call reopen() first")
            self._log.write(event, **fields)
        except Exception as error:
            self._trouble(event, error)
            return False
        return True

    def _trouble(self, what: str, error: Exception) -> None:
        """Raise, or warn once a kind: the one place where `on_error` is applied."""
        if self._on_error == "raise":
            raise error
        detail = str(error) if isinstance(error, RunstoneError) else f"{type(error).__name__}: {error}"
        self._warn(f"{what}-{type(error).__name__}", f"could not record {what}: {detail}")

    def _warn(self, kind: str, message: str) -> None:
        if kind in self._warned:
            return
        self._warned.add(kind)
        if not self._is_finished:
            with contextlib.suppress(OSError):
                self._log.write("warning", kind=kind, message=message)
        warn(f"run {self.name}: {message}")


class MetricHandle(Protocol):
    """One metric of one run, for tight loops; `Run.metric` makes it.

    Each call records one value: `handle(value)` or `handle(value, step=n)`. Without a step, its own values are counted.
    """

    def __call__(self, value: Any, *, step: int | None = None) -> None:
        """Record one value; see `Run.log`."""
