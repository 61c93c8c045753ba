"""What tests of several frameworks share: data that scikit-learn brings, and a folder outside this repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the snapshot of each run would read the changes of this repository


@pytest.fixture(scope="module")
def iris() -> tuple[Any, ...]:
    """Return data for training and test, target for training and test; three classes."""
    from sklearn.datasets import load_iris  # here: not every test of an integration has scikit-learn
    from sklearn.model_selection import train_test_split

    return tuple(train_test_split(*load_iris(return_X_y=True), random_state=0))


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, ...]:
    """Return the same of two classes."""
    from sklearn.datasets import load_breast_cancer  # see above
    from sklearn.model_selection import train_test_split

    return tuple(train_test_split(*load_breast_cancer(return_X_y=True), random_state=0))
