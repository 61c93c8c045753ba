"""How well predictions fit labels: counted as rows stream by, and compared with how well they did before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runstone.datasets.sketch import Moments
from runstone.errors import InvalidValue
from runstone.monitoring.profile import Performance

Task = Literal["classification", "scores", "regression"]
TASKS: tuple[Task, ...] = ("classification", "scores", "regression")
_MOST_CLASSES = 200


class PerformanceMeter:
    """Counts how predictions fit labels.

    Args:
        task: As of `Performance`; default: numbers of more than 20 values, or broken ones, are a regression; broken
            predictions between 0 and 1 of labels 0 and 1 are scores; all else is a classification.
    """

    def __init__(self, task: str | None) -> None:
        if task is not None and task not in TASKS:
            raise InvalidValue(f"task is {task!r:.40}; it must be one of {', '.join(TASKS)}")
        self._task: Task | None = task
        self._pairs: dict[tuple[str, str], int] = {}
        self._errors, self._squares, self._signed, self._labels = Moments(), Moments(), Moments(), Moments()
        self._hits = 0
        self._count = 0

    def add(self, labels: pa.Array, predictions: pa.Array) -> None:
        """Take in labels and predictions of some rows; rows without one of them are passed over."""
        known = pc.and_(pc.is_valid(labels), pc.is_valid(predictions))
        labels, predictions = labels.filter(known), predictions.filter(known)
        if not len(labels):
            return
        if self._task is None:
            self._task = _task_of(labels, predictions)
        if self._task == "classification":
            self._add_classes(labels, predictions)
            return
        if not (pa.types.is_floating(labels.type) and pa.types.is_floating(predictions.type)):
            raise InvalidValue(f"labels and predictions of {self._task} must be numbers, not text")
        truth = labels.to_numpy(zero_copy_only=False)
        said = predictions.to_numpy(zero_copy_only=False)
        finite = np.isfinite(truth) & np.isfinite(said)
        truth, said = truth[finite], said[finite]
        self._count += len(truth)
        if not len(truth):
            return
        if self._task == "scores":
            self._hits += int(((said >= 0.5) == (truth >= 0.5)).sum())
        self._errors.add(np.abs(said - truth))
        self._squares.add((said - truth) ** 2)
        self._signed.add(said - truth)
        self._labels.add(truth)

    def _add_classes(self, labels: pa.Array, predictions: pa.Array) -> None:
        truth, said = _words(labels), _words(predictions)
        self._count += len(truth)
        self._hits += int((truth == said).sum())
        if len(self._pairs) > _MOST_CLASSES**2:
            return
        for pair, count in _counted(truth, said):
            self._pairs[pair] = self._pairs.get(pair, 0) + count

    def performance(self, labels: Sequence[Any], predictions: Sequence[Any]) -> Performance | None:
        """Return what it comes down to; `None` where no row has both.

        Args:
            labels, predictions: Of a sample of the rows, for what takes their order.
        """
        if not self._count or self._task is None:
            return None
        if self._task == "regression":
            error = float(self._errors.mean or 0.0)
            square = float(self._squares.mean or 0.0)
            spread = float(self._errors.std or 0.0)
            figures = {"mae": error, "rmse": math.sqrt(square), "bias": float(self._signed.mean or 0.0)}
            variance = (self._labels.std or 0.0) ** 2
            if variance:
                figures["r2"] = 1 - square * self._count / (variance * (self._count - 1))
            return Performance("regression", self._count, figures, spread)
        accuracy = self._hits / self._count
        figures = {"accuracy": accuracy}
        if self._task == "scores":
            figures["brier"] = float(self._squares.mean or 0.0)
            auc = _auc(labels, predictions)
            figures |= {"auc": auc} if auc is not None else {}
        elif len(self._pairs) <= _MOST_CLASSES**2:
            figures["f1"] = _f1(self._pairs)
        return Performance(self._task, self._count, figures, math.sqrt(accuracy * (1 - accuracy)))


def _counted(truth: Any, said: Any) -> list[tuple[tuple[str, str], int]]:
    table = pa.table({"truth": pa.array(truth, pa.string()), "said": pa.array(said, pa.string())})
    counted = table.group_by(["truth", "said"]).aggregate([([], "count_all")])
    pairs = zip(counted["truth"].to_pylist(), counted["said"].to_pylist(), strict=True)
    return list(zip(pairs, counted["count_all"].to_pylist(), strict=True))


def _task_of(labels: pa.Array, predictions: pa.Array) -> Task:
    if not (pa.types.is_floating(labels.type) and pa.types.is_floating(predictions.type)):
        return "classification"
    truth, said = labels.to_numpy(zero_copy_only=False), predictions.to_numpy(zero_copy_only=False)
    is_whole = bool((truth == np.floor(truth)).all())
    if is_whole and bool((said == np.floor(said)).all()) and len(np.unique(truth)) <= 20:
        return "classification"
    if set(np.unique(truth)) <= {0.0, 1.0} and bool(((said >= 0) & (said <= 1)).all()):
        return "scores"
    return "regression"


def _words(values: pa.Array) -> Any:
    """Return classes as text; 1, 1.0 and "1" are the same class."""
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 1e15)
        if whole.all():
            return numbers.astype(np.int64).astype(np.str_).astype(object)
        return np.array([repr(float(one)) for one in numbers], dtype=object)
    return values.to_numpy(zero_copy_only=False)


def _f1(pairs: dict[tuple[str, str], int]) -> float:
    """Return the mean of F1 over the classes that occur among the labels."""
    found = []
    for one in {truth for truth, _said in pairs}:
        hits = pairs.get((one, one), 0)
        labelled = sum(count for (truth, _), count in pairs.items() if truth == one)
        said = sum(count for (_, told), count in pairs.items() if told == one)
        found.append(2 * hits / (labelled + said))
    return math.fsum(found) / len(found)


def _auc(labels: Sequence[Any], scores: Sequence[Any]) -> float | None:
    pairs = [(label, score) for label, score in zip(labels, scores, strict=True) if None not in (label, score)]
    ups = np.array([score for label, score in pairs if label >= 0.5], np.float64)
    downs = np.sort(np.array([score for label, score in pairs if label < 0.5], np.float64))
    if not len(ups) or not len(downs):
        return None
    below = np.searchsorted(downs, ups, side="left") + np.searchsorted(downs, ups, side="right")
    return float(below.mean() / 2 / len(downs))
