"""Where in a run a fit is recorded: names, step, and the tables and files that are stored at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet  # noqa: F401  # tables need it: better loaded along with scikit-learn than at the end of a fit

import runstone

_THREADS = 4


class Place:
    """The part of a run that one fit is recorded in.

    Args:
        run: The run.
        label: What stands before every name; empty at the top of the run.
        step: Number of the fit among those of its label, from 0.
    """

    def __init__(self, run: runstone.Run, label: str, *, step: int) -> None:
        self.run = run
        self.label = label
        self.step = step
        self._tables: list[tuple[str, Any]] = []
        self._files: list[tuple[str, Callable[[Path], object], Mapping[str, Any] | None]] = []

    def below(self, name: str) -> str:
        """Return a name as it is in the run."""
        return f"{self.label}/{name}" if self.label else name

    def log(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record metrics, at the step of the fit unless another one is given."""
        if values:
            named = {self.below(name): value for name, value in values.items()}
            self.run.log(named, step=self.step if step is None else step)

    def log_curve(self, name: str, values: Sequence[float]) -> None:
        """Record one value for each step, from 0."""
        handle = self.run.metric(self.below(name))  # unlike `log`, it leaves the step of the user's next `log` alone
        for step, value in enumerate(values):
            handle(value, step=step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params, nested below the label."""
        if params:
            for name in reversed(self.label.split("/") if self.label else ()):
                params = {name: params}
            self.run.log_params(params)

    def add_table(self, name: str, table: Any) -> None:
        """Have a table recorded with the next `store`; takes what `Run.log_table` takes."""
        self._tables.append((self.below(name), table))

    def add_file(
        self, name: str, write: Callable[[Path], object], *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Have an artifact recorded with the next `store`; `write` is called there, with the path to write to."""
        self._files.append((self.below(name), write, metadata))

    def store(self) -> list[Exception]:
        """Record tables and files, and return what went wrong; when it returns, they survive `kill -9`.

        Bringing one file to a disk takes milliseconds of waiting, so they wait side by side.
        """
        tables, files, errors = self._tables, self._files, []
        self._tables, self._files = [], []
        if not tables and not files:
            return []
        with tempfile.TemporaryDirectory(prefix="runstone-") as folder, ThreadPoolExecutor(_THREADS) as pool:
            stored: list[Future[Any]] = [
                pool.submit(self.run.log_table, name, table, step=self.step) for name, table in tables
            ]
            for number, (name, write, metadata) in enumerate(files):
                path = Path(folder, f"{number}-{name.rpartition('/')[2]}")
                try:
                    write(path)
                except Exception as error:  # foreign code draws and pickles
                    errors.append(error)
                    continue
                stored.append(pool.submit(partial(self.run.log_artifact, path, name=name, metadata=metadata)))
            failures = [future.exception() for future in stored]
        errors += [failure for failure in failures if isinstance(failure, Exception)]
        return errors
