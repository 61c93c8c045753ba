"""A scorer that records each evaluation, in whichever process it happens."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import runstone
from runstone_integrations._sklearn_data import n_samples
from runstone_integrations._sklearn_estimators import describe_params

EVALUATIONS = "evaluations.jsonl"


class TrackedScorer:
    """A scikit-learn scorer that also records: pass it as `scoring=` to searches and to cross-validation.

    Each call logs the metric `scorer/<name>` at the number of the evaluation, counted over all processes, and keeps a
    line with the estimator's params, the score and the number of samples. It scores exactly as the scorer inside it.

    It can be copied, cloned and pickled. Copies in other processes write to the same run; once the run has ended a
    pickle holds the plain scorer alone, so that a model saved then loads where Runstone is not installed.

    Args:
        run: The run to write to.
        scorer: `scorer(estimator, X, y)` returns a number, or numbers by name.
        name: Name of the metric.
        folder: Where lines are collected until the run keeps them; must exist.
    """

    def __init__(self, run: runstone.Run, scorer: Any, *, name: str, folder: str) -> None:
        self._run = run
        self._scorer = scorer
        self._name = name
        self._folder = folder

    def __call__(self, estimator: Any, *data: Any, **options: Any) -> Any:
        """Return the score of `estimator` on the data, and record it."""
        began = time.perf_counter()
        score = self._scorer(estimator, *data, **options)
        if not self._run.is_finished:
            try:
                self._record(estimator, score, data, time.perf_counter() - began)
            except Exception as error:  # the search goes on, unless the user wants to know
                if self._run.on_error == "raise":
                    raise
                with contextlib.suppress(runstone.TrackingWarning):  # a filter that raises stops no search
                    message = f"an evaluation could not be recorded: {type(error).__name__}: {error}"
                    warnings.warn(message, runstone.TrackingWarning, stacklevel=2)
        return score

    def _record(self, estimator: Any, score: Any, data: tuple[Any, ...], score_s: float) -> None:
        scores = score if isinstance(score, dict) else {self._name: score}
        # Several metrics at once may come with the text of an error in place of a number.
        numbers = {name: float(value) for name, value in scores.items() if not isinstance(value, str)}
        number = self._next_number()
        self._run.log({f"scorer/{name}": value for name, value in numbers.items()}, step=number)
        line = {
            "evaluation": number,
            "scores": numbers,
            "estimator": type(estimator).__name__,
            "params": describe_params(estimator),
            "n_samples": n_samples(data[0]) if data else None,
            "score_s": score_s,
            "at": time.time(),
            "pid": os.getpid(),
        }
        with contextlib.suppress(FileNotFoundError):  # a worker on another host: the metric is there
            _append(self._folder, EVALUATIONS, json.dumps(line, default=str).encode() + b"\n")

    def _next_number(self) -> int | None:
        """Return the number of this evaluation over all processes: each appends one byte and sees where it landed."""
        with contextlib.suppress(FileNotFoundError):
            return _append(self._folder, "count", b".") - 1
        return None

    def __reduce__(self) -> Any:
        """Pickle as a scorer of the same run; as the plain scorer once nothing can be recorded any more."""
        if self._run.is_finished:
            return as_plain_scorer(self)
        return _restore, (self._run, self._scorer, self._name, self._folder)

    def get_metadata_routing(self) -> Any:
        """Return what the scorer inside asks for: metadata routing works as without this."""
        from sklearn.utils.metadata_routing import get_routing_for_object

        return get_routing_for_object(self._scorer)

    def __repr__(self) -> str:
        """Say which scorer it is."""
        return f"TrackedScorer({self._name!r})"


def as_plain_scorer(scorer: TrackedScorer) -> tuple[Any, ...]:
    """Reduce to a copy of the scorer inside, for a pickle that needs no Runstone."""
    return copy.copy, (scorer._scorer,)


def _restore(run: runstone.Run, scorer: Any, name: str, folder: str) -> TrackedScorer:
    return TrackedScorer(run, scorer, name=name, folder=folder)


def _append(folder: str, name: str, data: bytes) -> int:
    """Append in one write, so that processes do not tear each other's lines, and return where it ends."""
    file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
        return os.lseek(file, 0, os.SEEK_CUR)
    finally:
        os.close(file)
