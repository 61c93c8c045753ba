"""The run that a callback records in: opened by it or the user's, gone on with, ended, copied. Knows no framework."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, cast

import runstone
from runstone_integrations._shared import clean_params, open_own_run, run_of_user, warn_once


class RunOptions(TypedDict, total=False):
    """What every callback takes beside what is its framework's own.

    All as in `runstone.start_run`, except `run`: a run that you opened and that you end. Without it, the run that is
    open when training starts (`with runstone.start_run(): …`) is taken, if there is one; then `params` and `tags` are
    added to it, and the other options are its own.
    """

    project: str | None
    name: str | None
    params: Mapping[str, Any] | None
    tags: Mapping[str, str] | None
    group: str | None
    notes: str | None
    run_id: str | None
    workspace: str | Path | runstone.Workspace | None
    on_error: Literal["warn", "raise"] | None
    run: runstone.Run | None


# The step that comes next in a run, whichever callback wrote the last. Process-wide, as open runs are.
_next_steps: weakref.WeakKeyDictionary[runstone.Run, int] = weakref.WeakKeyDictionary()


class Session:
    """One callback's way to its run, over one training or several.

    A training from the beginning is a run of its own, except in a run of the user's or in a `with` block: there its
    steps follow those before it. A training that continues goes on in the same run, unless its steps go back: then it
    is another continuation of the same model, and a run of its own too.

    A copy, in this process or another, belongs to other trainings: it opens runs of its own, under the user's run if
    one was open when it was copied.

    Attributes:
        run: The run recorded now or last; `None` before the first training, and where it could not be opened.
        offset: What is added to the framework's own steps.
        is_active: Whether a training is being recorded.
    """

    def __init__(self, options: RunOptions) -> None:
        unknown = options.keys() - RunOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(_OPTION_NAMES)}")
        self._options: dict[str, Any] = {**options}
        self._given: runstone.Run | None = self._options.pop("run", None)
        self._parent: dict[str, Any] = {}
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.run = self._given
        self.offset = 0
        self.is_active = False
        self._is_owner = False
        self._is_kept_open = False
        self._is_rewind_due = False
        self._status: str | None = None
        self._greeted: weakref.ref[runstone.Run] | None = None
        self._warned: set[str] = set()

    # --- life ------------------------------------------------------------------------------------------------------

    def start(
        self, *, first_step: int = 0, is_continuing: bool = False, is_trial: bool = False, run_id: str | None = None
    ) -> bool:
        """Open the run of a training that begins; return whether there is one.

        Args:
            first_step: The framework's number of the step that comes first.
            is_continuing: Whether the model was trained before, and its steps go on.
            is_trial: Whether it is one of several of a search: then its run lies under that of the user.
            run_id: The run that the checkpoint came from which is continued here.
        """
        self.is_active = False
        with self.guarded():
            is_back = self.run is not None and first_step < _next_steps.get(self.run, 0)
            is_resuming = self.run is not None and run_id == self.run.id  # from a checkpoint that it wrote
            goes_on = is_continuing and (is_resuming or (run_id is None and not is_back))
            self._open(goes_on=goes_on, is_new_attempt=is_back, is_trial=is_trial, run_id=run_id)
            self._place(first_step, run_id)
            self.is_active = self.run is not None
        return self.is_active

    def go_on(self) -> bool:
        """Open the run of the last training once more, for what follows it, such as an evaluation; or the first."""
        run = self.run
        with self.guarded():
            if run is None:
                self._open()
            elif run.is_finished and run is not self._given:
                self._is_owner = True  # where a block around an adopted run has ended, it is ours to end
                run.reopen()
        self.is_active = self.run is not None
        return self.is_active

    def close(self, status: Literal["stopped", "pruned", "failed"] | None = None) -> None:
        """End the run of a training that has ended, if it is ours.

        Args:
            status: How, where the run does not know it: by default it ended well, or as it was asked to.
        """
        self.is_active = False
        self._status = status
        if self.run is not None and self._is_owner and not self._is_kept_open:
            with self.guarded():
                self.run.finish(status)

    def enter(self) -> None:
        """Open the run and keep it open until `leave`."""
        with self.guarded():
            self._open()
            self._is_kept_open = self.run is not None

    def leave(self, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the run as the block around it ended."""
        self._is_kept_open = False
        run = self.run
        if run is None or not self._is_owner or run.is_finished:
            return
        with self.guarded():
            if error is None and self._status is not None:
                run.finish(self._status)
            else:
                run.__exit__(type(error) if error is not None else None, error, trace)
        self.is_active = False

    def _open(
        self,
        *,
        goes_on: bool = False,
        is_new_attempt: bool = False,
        is_trial: bool = False,
        run_id: str | None = None,
    ) -> None:
        """Set `run`: that of the user, the one before, or a new one."""
        before = self.run
        if before is not None and self._is_kept_open:
            return
        user = None if self._options.get("run_id") else self._given or run_of_user()
        above = self._parent or (_as_parent(user) if is_trial else {})
        is_user_to_take = user is not None and not above
        if before is not None and self._is_owner:
            if goes_on and not is_new_attempt and not is_user_to_take:
                before.reopen()
                return
            if not before.is_finished:
                before.finish("failed")  # no framework says so when an exception ends a training
        self.run = None
        if user is not None and is_user_to_take:
            self._adopt(user)
        else:
            self.run = self._open_own(above, run_id=run_id)

    def _place(self, first_step: int, run_id: str | None) -> None:
        """Say where on the run's axis the training begins."""
        run = self.run
        if run is None:
            return
        if self._is_rewind_due or run_id == run.id:
            self._is_rewind_due = False
            run.rewind(first_step)
            _next_steps[run] = first_step
        self.offset = max(0, _next_steps.get(run, 0) - first_step)

    def _adopt(self, user: runstone.Run) -> None:
        self.run, self._is_owner, self._is_rewind_due = user, False, False
        if self._greeted is None or self._greeted() is not user:
            self._greeted = weakref.ref(user)
            if self._options.get("params"):
                user.log_params(clean_params(self._options["params"]))
            if self._options.get("tags"):
                user.set_tags(self._options["tags"])

    def _open_own(self, above: Mapping[str, Any], *, run_id: str | None) -> runstone.Run:
        options = {**self._options, **above}
        options["params"] = clean_params(options.get("params") or {})
        if run_id is not None:
            options["run_id"] = run_id
        run = open_own_run(**options)
        self._is_owner, self._is_rewind_due = True, run.is_resumed
        return run

    # --- recording -------------------------------------------------------------------------------------------------

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Record metrics at the framework's own step."""
        run = self.run
        if run is None or not row:
            return
        step += self.offset
        run.log(row, step=step)
        if step >= _next_steps.get(run, 0):
            _next_steps[run] = step + 1

    def describe(self, section: str, facts: Mapping[str, Any]) -> None:
        """Record what is trained and how, of any type, as params of a section."""
        if self.run is not None:
            self.run.log_params({section: clean_params(facts)})

    @property
    def last_step(self) -> int:
        """The framework's number of the last step that was recorded, 0 before the first."""
        return 0 if self.run is None else max(0, _next_steps.get(self.run, 1) - 1 - self.offset)

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self.run is not None and self.run.should_stop

    # --- errors and copies -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an error of the tracker away from the training."""
        try:
            yield
        except Exception as error:
            self.handle(error)

    def handle(self, error: Exception) -> None:
        """Warn once of each kind of error, or raise where the user wants that: the one place that decides."""
        if "raise" in (self._options.get("on_error"), self.run.on_error if self.run is not None else None):
            raise error
        warn_once(error, self._warned)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: small, and nothing that is bound to this process."""
        parent = self._parent or _as_parent(self._given or run_of_user())
        options = {name: value for name, value in self._options.items() if name != "run_id"}
        return {"options": options, "parent": parent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy."""
        self._options, self._parent, self._given = dict(state["options"]), dict(state["parent"]), None
        self._start_afresh()


def _as_parent(run: runstone.Run | None) -> dict[str, Any]:
    """Return the options with which a run is opened under this one."""
    if run is None or run.is_finished:
        return {}
    try:
        place = str(run.workspace.path)
    except runstone.WorkspaceNotFound:  # a run that records nothing has none
        return {}
    return {"parent": run.id, "project": run.project, "group": run.group, "workspace": place}


_OPTION_NAMES = tuple(RunOptions.__annotations__)


class Tracking:
    """What the callbacks of all frameworks offer to the user. A mixin: who uses it has a `_session`."""

    _session: Session

    @property
    def run(self) -> runstone.Run | None:
        """The run recorded now or last; `None` before the first training, and where it could not be opened."""
        return self._session.run

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; the callback itself stops the training."""
        return self._session.should_stop

    def __enter__(self) -> Self:
        """Open the run and keep it open until the block ends; an exception in the block is recorded as its failure."""
        self._session.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ended. The user's exception goes on."""
        self._session.leave(error, trace)


Hook = TypeVar("Hook", bound=Callable[..., None])


def recording(method: Hook) -> Hook:
    """Keep what goes wrong in a hook of a `Tracking` away from the training."""

    @functools.wraps(method)
    def guarded(self: Tracking, /, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._session.handle(error)

    return cast(Hook, guarded)
