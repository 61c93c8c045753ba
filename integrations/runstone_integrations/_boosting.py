"""What gradient boosting libraries have in common: importances, models, ends that nobody tells. Knows no library."""

from __future__ import annotations

import abc
import atexit
import csv
import math
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import runstone
from runstone_integrations._session import Session, Tracking

TOP_FEATURES = 20
"""How many importances become metrics; the table has all."""


def log_importances(session: Session, kinds: Mapping[str, Mapping[str, float]]) -> None:
    """Record importances by kind and feature: all as `importances.csv`, the highest of the first kind as metrics.

    Args:
        session: Where to.
        kinds: Such as `{"gain": {"age": 3.5}, "weight": {"age": 12.0}}`; the first orders the features.
    """
    run = session.run
    if run is None or not any(kinds.values()):
        return
    first = next(iter(kinds.values()))
    features = sorted({name for values in kinds.values() for name in values}, key=lambda name: -first.get(name, 0.0))
    session.log({f"importance/{name}": first.get(name, 0.0) for name in features[:TOP_FEATURES]}, session.last_step)
    with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
        path = Path(folder, "importances.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["feature", *kinds])
            rows.writerows([name, *(values.get(name, 0.0) for values in kinds.values())] for name in features)
        run.log_artifact(path)


def log_model_file(session: Session, name: str, save: Callable[[str], Any]) -> None:
    """Keep the model as the artifact `name`; `save` writes it to a path."""
    if session.run is None:
        return
    with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
        path = Path(folder, name)
        save(str(path))
        session.run.log_artifact(path, metadata={"step": session.last_step})


def as_value(text: str) -> Any:
    """Return the number that a setting stands for which a library keeps as text; else the text."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def plain_config(config: Any) -> Any:
    """Return settings of a library that calculates with 32 bits: numbers for texts, and 0.3 for 0.30000001192092896."""
    if isinstance(config, Mapping):
        return {name: plain_config(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain_config(value) for value in config]
    value = as_value(config) if isinstance(config, str) else config
    if not isinstance(value, float):
        return value
    import numpy as np  # every such library needs it

    return float(str(np.float32(value)))


class EndsLate(Tracking, abc.ABC):
    """A callback of a library that calls nothing when training ends.

    The run is ended with the first of these: the callback is garbage, which it is as soon as the training returns where
    it stands in the list of callbacks only; somebody asks for `run`; its next training starts; the process ends.
    """

    @property
    def run(self) -> runstone.Run | None:
        """The run recorded now or last, ended if its training has; `None` before the first training."""
        self._settle(is_over=False)
        return self._session.run

    @abc.abstractmethod
    def _has_ended(self) -> bool:
        """Return whether the training has come to its end, as far as the model tells."""

    @abc.abstractmethod
    def _record_end(self) -> None:
        """Record what is known at the end only."""

    def _settle(self, *, is_over: bool) -> None:
        """End the run if its training has ended.

        Args:
            is_over: Whether the training cannot be going on any more; it failed then, if it has not ended well.
        """
        session = self._session
        if not session.is_active:
            return
        if self._has_ended():
            with session.guarded():
                self._record_end()
            session.close()
        elif is_over:
            session.close("failed")

    def _expect_end(self) -> None:
        """Look after the end also when the process ends; called once the run is open, so that this comes first."""
        if not _unsettled:
            atexit.unregister(_settle_all)
            atexit.register(_settle_all)
        _unsettled.add(self)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """End the run as the block ended. The user's exception goes on."""
        self._settle(is_over=False)
        super().__exit__(kind, error, trace)

    def __del__(self) -> None:
        """End the run that nobody else will."""
        if not sys.is_finalizing() and hasattr(self, "_session"):
            self._settle(is_over=True)


_unsettled: weakref.WeakSet[EndsLate] = weakref.WeakSet()


def _settle_all() -> None:
    for callback in list(_unsettled):
        callback._settle(is_over=False)  # why it did not end well, the end of the process tells
