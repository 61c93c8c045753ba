"""The model answers together what waits together: nothing is waited for, so that a lone request is not slower."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.server.errors import ApiError
from runstone.serving.answers import as_arrays, rows_in
from runstone.serving.rows import Columns, joined
from runstone.serving.sources import Served

Outputs = Mapping[str, np.ndarray[Any, Any]]
# What a model raises over values that it cannot take, such as NaN, or a category that it never saw.
_OF_VALUES = (ValueError, TypeError, KeyError, IndexError, ArithmeticError, AttributeError)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of a request: rows from `begin` to `end` of arrays that may belong to several."""

    outputs: Outputs
    begin: int
    end: int


@dataclass(slots=True)
class _Waiting:
    served: Served
    columns: Columns
    rows: int
    answer: asyncio.Future[Answer]


class ModelFailed(Exception):
    """The model raised something that is not the fault of the request."""


class Batcher:
    """Hands requests to the model, one call at a time, on a thread of its own.

    Args:
        most_waiting: Requests that may wait.
        most_rows: Rows of a call, but for a single request.
        called: Told of each call, on the thread of the model.
    """

    def __init__(self, *, most_waiting: int, most_rows: int, called: Callable[[], None]) -> None:
        self._most_waiting = most_waiting
        self._most_rows = most_rows
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "runstone-model")
        self._work: asyncio.Task[None] | None = None
        self._called_at: float | None = None
        self._called = called

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def busy_s(self) -> float:
        """For how long the model has been at its present call."""
        called_at = self._called_at
        return 0.0 if called_at is None else time.monotonic() - called_at

    def submit(self, served: Served, columns: Columns, rows: int) -> asyncio.Future[Answer]:
        """Let a request wait for its answer.

        Raises:
            ApiError: too many wait already.
        """
        if len(self._waiting) >= self._most_waiting:
            raise ApiError("unavailable", "too many requests wait; try again", headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        waiting = _Waiting(served, columns, rows, loop.create_future())
        self._waiting.append(waiting)
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._answer_all(loop))
        return waiting.answer

    async def close(self) -> None:
        """End the thread, when it is done with its call."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            batch = self._next()
            if not batch:
                continue
            found = await loop.run_in_executor(self._thread, self._call, batch)
            for waiting, answer in zip(batch, found, strict=True):
                if waiting.answer.done():  # nobody waits for it any more
                    continue
                if isinstance(answer, Answer):
                    waiting.answer.set_result(answer)
                else:
                    waiting.answer.set_exception(answer)

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            head = self._waiting[0]
            if head.answer.done():
                self._waiting.popleft()
                continue
            if batch and (head.served is not batch[0].served or rows + head.rows > self._most_rows):
                break
            if batch and not _are_alike(head.columns, batch[0].columns):
                break
            rows += head.rows
            batch.append(self._waiting.popleft())
        return batch

    def _call(self, batch: list[_Waiting]) -> list[Answer | Exception]:
        self._called_at = time.monotonic()
        try:
            self._called()
            try:
                outputs = _predicted(batch[0].served, joined([waiting.columns for waiting in batch]))
            except Exception as error:
                return [_told(error)] if len(batch) == 1 else [self._alone(waiting) for waiting in batch]
            if len(batch) == 1:
                return [Answer(outputs, 0, max(map(len, outputs.values()), default=0))]
            ends = list(itertools.accumulate(waiting.rows for waiting in batch))
            if not rows_in(outputs, ends[-1]):  # it does not answer row by row
                return [self._alone(waiting) for waiting in batch]
            return [Answer(outputs, end - waiting.rows, end) for waiting, end in zip(batch, ends, strict=True)]
        finally:
            self._called_at = None

    def _alone(self, waiting: _Waiting) -> Answer | Exception:
        """Answer a request without the others: what is wrong with one is not the fault of another."""
        self._called()
        try:
            outputs = _predicted(waiting.served, waiting.columns)
        except Exception as error:
            return _told(error)
        return Answer(outputs, 0, max(map(len, outputs.values()), default=0))


def _predicted(served: Served, columns: Columns) -> Outputs:
    return as_arrays(served.predict(columns))


def _are_alike(one: Columns, other: Columns) -> bool:
    """Return whether arrays of two requests can stand below each other; those of free length may not."""
    return all(array.shape[1:] == other[name].shape[1:] for name, array in one.items())


def _told(error: Exception) -> Exception:
    if isinstance(error, _OF_VALUES):
        text = f"the model could not take these values: {type(error).__name__}: {error!s:.500}"
        return ApiError("invalid", text, status=422)
    failed = ModelFailed(f"{type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
