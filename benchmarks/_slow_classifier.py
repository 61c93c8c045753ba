"""A classifier of scikit-learn whose fit takes as long as it is told; in a module of its own, so that it is pickled."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class SlowClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Computes for a while, then predicts zeros.

    Args:
        depth: Anything to search over.
        fit_s: Seconds of CPU that a fit takes.
    """

    def __init__(self, depth: int = 1, fit_s: float = 0.02) -> None:
        self.depth = depth
        self.fit_s = fit_s

    def fit(self, _data: Any, target: Any) -> Self:
        """Take the time of a fit."""
        self.classes_ = np.unique(target)
        end = time.perf_counter() + self.fit_s
        while time.perf_counter() < end:
            pass
        return self

    def predict(self, data: Any) -> Any:
        """Return zeros."""
        return np.zeros(len(data), np.int64)
