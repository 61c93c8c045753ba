"""Records loops on JAX, whatever the library of layers, without waiting for the device. Imports no framework."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from runstone_integrations._session import RunOptions, Session, Tracking

__all__ = ["Track", "track"]

MAX_WAITING = 1_000
"""How many rows wait for the device at most; the next one waits for the first of them."""


def track(**options: Unpack[RunOptions]) -> Track:
    """Return what records a loop as a run, for `with track(project="digits", params=config) as tracker:`.

    Args:
        **options: See `RunOptions`.
    """
    return Track(options)


class Track(Tracking):
    """Records metrics that may still be on their way to be computed; `track` makes it.

    JAX returns arrays before their values are there. `run.log` would wait for them; `log` here keeps them until they
    are there, and records them in order, at the next call or when the block ends. A killed process loses those that
    wait.
    """

    def __init__(self, options: RunOptions) -> None:
        self._session = Session(options)
        self._waiting: deque[tuple[int, dict[str, Any], list[Any]]] = deque()
        self._next_step = 0

    def __enter__(self) -> Self:
        """Open the run, or take the one that is open."""
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is on its way, and end the run as the block ended. The user's exception goes on."""
        self.flush()
        super().__exit__(kind, error, trace)

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record one value of each metric, as `Run.log` does, without waiting for arrays of JAX.

        Args:
            metrics: Values by name; nested mappings are opened.
            step: Default: one more than the last, from 0.
        """
        with self._session.guarded():
            step = self._next_step if step is None else int(step)
            self._next_step = step + 1
            arrays: list[Any] = []
            row = _take(metrics, arrays)
            self._waiting.append((step, row, arrays))
            self._write()

    def flush(self) -> None:
        """Wait for everything that is on its way, and record it."""
        while self._waiting:
            with self._session.guarded():
                self._write_first()

    def _write(self) -> None:
        while self._waiting and (len(self._waiting) > MAX_WAITING or all(map(_is_there, self._waiting[0][2]))):
            self._write_first()

    def _write_first(self) -> None:
        step, row, _ = self._waiting.popleft()
        self._session.log(row, step)


def _take(metrics: Mapping[str, Any], arrays: list[Any]) -> dict[str, Any]:
    """Return a copy of the metrics, which the loop may change, and start the copies of arrays to the host."""
    row: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            value = _take(value, arrays)
        elif hasattr(value, "is_ready") and hasattr(value, "copy_to_host_async"):
            value.copy_to_host_async()
            arrays.append(value)
        row[name] = value
    return row


def _is_there(array: Any) -> bool:
    return bool(array.is_deleted() or array.is_ready())
