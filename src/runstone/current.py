"""The run that the convenience functions of the package mean: the one opened last, in this thread or task."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from runstone.errors import RunNotFound

if TYPE_CHECKING:
    from runstone.run import Run

_current: ContextVar[Run | None] = ContextVar("runstone_current_run", default=None)


def current_run() -> Run | None:
    """Return the run opened last that is still open, or `None`."""
    run = _current.get()
    return run if run is not None and not run.is_finished else None


def set_current(run: Run | None) -> Run | None:
    """Make `run` the current one and return the one before."""
    before = _current.get()
    _current.set(run)
    return before


def log(metrics: Mapping[str, Any], *, step: int | None = None) -> None:
    """Log metrics to the current run; see `Run.log`.

    Raises:
        RunNotFound: no run is open here.
    """
    run = current_run()
    if run is None:
        raise RunNotFound("no run is open here; call runstone.start_run() first")
    run.log(metrics, step=step)
